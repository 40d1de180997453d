//! The parser against pages as servers write them, and against any bytes at all.

use proptest::prelude::*;

use super::*;

fn parse(page: &str) -> Exposition<'_> {
    Exposition::parse(page.as_bytes(), Format::Text)
}

fn one(line: &str) -> Sample<'_> {
    match parse_line(line.as_bytes()) {
        Ok(Line::Sample(sample)) => sample,
        other => panic!("{line:?} is {other:?}"),
    }
}

fn error(line: &str) -> LineError {
    parse_line(line.as_bytes()).expect_err(line)
}

#[test]
fn a_text_page_becomes_families_with_their_samples() {
    let page = parse(
        "# HELP http_requests_total The total number of HTTP requests.\n\
         # TYPE http_requests_total counter\n\
         http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n\
         http_requests_total{method=\"post\",code=\"400\"}    3 1395066363000\n\
         \n\
         # a comment\n\
         metric_without_timestamp_and_labels 12.47\n\
         # TYPE rpc_seconds histogram\n\
         rpc_seconds_bucket{le=\"+Inf\"} 2693\n\
         rpc_seconds_sum 1.7e+07\n\
         rpc_seconds_count 2693\n",
    );
    assert_eq!(page.problem_count, 0);
    let names: Vec<_> = page.families.iter().map(|f| (f.name.as_ref(), f.kind, f.samples.len())).collect();
    assert_eq!(
        names,
        [
            ("http_requests_total", MetricType::Counter, 2),
            ("metric_without_timestamp_and_labels", MetricType::Unknown, 1),
            ("rpc_seconds", MetricType::Histogram, 3),
        ]
    );
    let first = &page.families[0].samples[0];
    assert_eq!(first.labels.get("code").as_deref(), Some("200"));
    assert_eq!((first.value, first.timestamp), (1027.0, Some("1395066363000")));
    assert_eq!(page.families[0].help, Some("The total number of HTTP requests."));
}

#[test]
fn an_openmetrics_counter_owns_its_total_and_created_and_keeps_its_exemplar() {
    let page = Exposition::parse(
        b"# TYPE foo_seconds counter\n# UNIT foo_seconds seconds\n\
          foo_seconds_total{a=\"b\"} 17.0 1520879607.789 # {trace_id=\"oHg5SJYRHA0\"} 0.5 1520879607.7\n\
          foo_seconds_created{a=\"b\"} 1520872607.123\n# EOF\nafter 1\n",
        Format::OpenMetrics,
    );
    assert!(page.eof);
    assert_eq!(page.families.len(), 1);
    let family = page.family("foo_seconds").expect("is there");
    assert_eq!((family.unit, family.samples.len()), (Some("seconds"), 2));
    let exemplar = family.samples[0].exemplar.expect("has one");
    assert_eq!(exemplar.labels.get("trace_id").as_deref(), Some("oHg5SJYRHA0"));
    assert_eq!((exemplar.value_text, exemplar.timestamp), ("0.5", Some("1520879607.7")));
}

#[test]
fn names_of_tensorflow_and_vllm_hold_colons() {
    assert_eq!(one(":tensorflow:serving:request_count{model_name=\"m\"} 3").name, ":tensorflow:serving:request_count");
    assert_eq!(one("vllm:num_requests_waiting{engine=\"0\"} 57.0").value, 57.0);
}

#[test]
fn quoted_names_and_labels_of_prometheus_3_are_read() {
    let sample = one(r#"{"http.server.duration", "service.name"="a\"b", plain="x"} 4"#);
    assert_eq!(sample.name, "http.server.duration");
    assert_eq!(sample.labels.get("service.name").as_deref(), Some("a\"b"));
    assert_eq!(sample.to_string(), r#"{"http.server.duration","service.name"="a\"b", plain="x"} 4"#);
    let page = parse("# TYPE \"my.metric\" gauge\n{\"my.metric\"} 1\n");
    assert_eq!((page.families.len(), page.families[0].kind), (1, MetricType::Gauge));
    assert!(page.families[0].to_string().starts_with("# TYPE \"my.metric\" gauge\n"));
}

#[test]
fn escapes_in_label_values_are_resolved_and_foreign_ones_left() {
    let sample = one(r#"m{path="C:\\DIR\\F",error="a\n\"b\"",re="\d+"} 1.458255915e9"#);
    assert_eq!(sample.labels.get("path").as_deref(), Some("C:\\DIR\\F"));
    assert_eq!(sample.labels.get("error").as_deref(), Some("a\n\"b\""));
    assert_eq!(sample.labels.get("re").as_deref(), Some("\\d+"));
}

#[test]
fn blanks_tabs_carriage_returns_and_trailing_commas_are_no_problem() {
    let sample = one("  m\t{ a = \"1\" , b=\"2\" , }\t+Inf  \r");
    assert_eq!(sample.labels.iter().count(), 2);
    assert_eq!(sample.labels.as_written(), "a = \"1\" , b=\"2\"");
    assert!(sample.value.is_infinite());
    assert!(one("m NaN").value.is_nan());
    assert!(one("m{} -Inf").labels.is_empty());
}

#[test]
fn a_bad_line_is_named_by_its_number_and_skipped() {
    let page = parse("ok 1\nbroken{a=\"1\" 2\nok 3\n");
    assert_eq!(page.problems, [Problem { line: 2, error: LineError::Label }]);
    assert_eq!(page.problems[0].to_string(), "line 2: malformed label");
    assert_eq!(page.families[0].samples.len(), 2);
}

#[test]
fn each_kind_of_bad_line_has_its_own_words() {
    for (line, expected) in [
        ("m{a=\"1", LineError::Open),
        ("m{a=\"1\"", LineError::Open),
        ("m{a=1} 2", LineError::Label),
        ("m{a=\"1\"b=\"2\"} 2", LineError::Label),
        ("m{a=\"1\",a=\"2\"} 2", LineError::Twice),
        ("m{\"a\"=\"1\",a=\"2\"} 2", LineError::Twice),
        ("m", LineError::Value),
        ("m one", LineError::Value),
        ("m 1 soon", LineError::Timestamp),
        ("m 1 2 3", LineError::Trailing),
        ("m 1 # nothing", LineError::Exemplar),
        ("m 1 # {} x", LineError::Exemplar),
        ("7m 1", LineError::Name),
        ("{a=\"1\"} 1", LineError::Name),
        ("\"m\" 1", LineError::Name),
        ("# TYPE m curve", LineError::Type),
        ("# TYPE", LineError::Name),
    ] {
        assert_eq!(error(line), expected, "{line}");
    }
    assert_eq!(parse_line(b"m{a=\"\xff\"} 1"), Err(LineError::Encoding));
    assert_eq!(parse_line(b"# any \"words # at all"), Ok(Line::Comment));
}

#[test]
fn labels_are_counted_up_to_the_limit_and_refused_beyond() {
    let line = |n: usize| format!("m{{{}}} 1", (0..n).map(|i| format!("l{i}=\"\"")).collect::<Vec<_>>().join(","));
    assert_eq!(one(&line(crate::limits::METRIC_LABELS_MAX)).labels.iter().count(), crate::limits::METRIC_LABELS_MAX);
    assert_eq!(error(&line(crate::limits::METRIC_LABELS_MAX + 1)), LineError::Labels);
}

#[test]
fn problems_are_kept_up_to_a_number_and_counted_beyond() {
    let page = "!\n".repeat(1000);
    let page = parse(&page);
    assert_eq!((page.problems.len(), page.problem_count), (PROBLEMS_KEPT, 1000));
}

#[test]
fn a_family_torn_over_the_page_is_gathered_and_a_second_type_is_a_problem() {
    let page = parse("# TYPE a counter\na 1\nb 1\n# TYPE a gauge\na{x=\"1\"} 2\n");
    assert_eq!(page.families[0].samples.len(), 2);
    assert_eq!(page.families[0].kind, MetricType::Counter);
    assert_eq!(page.problems, [Problem { line: 4, error: LineError::Type }]);
}

#[test]
fn the_content_type_decides_the_format() {
    assert_eq!(Format::of_content_type("application/openmetrics-text; version=1.0.0"), Format::OpenMetrics);
    assert_eq!(Format::of_content_type("text/plain; version=0.0.4"), Format::Text);
    assert_eq!(Format::of_content_type(""), Format::Text);
}

/// What a sample says, apart from how it is written.
type Said = (String, Vec<(String, String)>, String, Option<String>, Option<String>);

fn said(sample: &Sample<'_>) -> Said {
    (
        sample.name.to_string(),
        sample.labels.iter().map(|(n, v)| (n.into_owned(), v.into_owned())).collect(),
        sample.value_text.to_owned(),
        sample.timestamp.map(str::to_owned),
        sample.exemplar.map(|e| e.to_string()),
    )
}

/// Bytes that look like a page now and then.
fn pages() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("# TYPE ".to_owned()),
        Just("# HELP ".to_owned()),
        Just("# EOF".to_owned()),
        Just("{\"a.b\",".to_owned()),
        Just("foo_total".to_owned()),
        Just("{a=\"b\\\\\",c=\"\\\"\\n\"}".to_owned()),
        Just(" # {t=\"1\"} 2 3".to_owned()),
        "[a-z{}\"=,\\\\ #\n\t\r0-9.+-]{0,6}",
        "[ ][0-9]{1,3}\n",
        "\\PC{0,3}",
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(page in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Exposition::parse(&page, Format::OpenMetrics).families;
        samples(&page).for_each(|s| drop(said(&s)));
    }

    #[test]
    fn what_is_accepted_renders_to_the_same_samples(page in pages()) {
        let first = Exposition::parse(&page, Format::Text);
        let written: String = first.families.iter().map(ToString::to_string).collect();
        let second = Exposition::parse(written.as_bytes(), Format::Text);
        prop_assert_eq!(second.problem_count, 0, "{}", written);
        let all = |e: &Exposition<'_>| e.families.iter().flat_map(|f| &f.samples).map(said).collect::<Vec<_>>();
        prop_assert_eq!(all(&first), all(&second), "{}", written);
    }

    #[test]
    fn any_label_value_survives_being_escaped(value in "\\PC{0,20}") {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let line = format!("m{{a=\"{escaped}\"}} 1");
        prop_assert_eq!(one(&line).labels.get("a").map(|v| v.into_owned()), Some(value));
    }
}
