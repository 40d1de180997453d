//! Behaviour of the whole: text in, configuration or problems out.

mod edge;
mod judged;
mod presets;

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::engine::{FailureRule, Member, OnTimeout, Scope, Subject};

const MINIMAL: &str = "[upstream]\naddress = \"127.0.0.1:8501\"\n";

fn parse(text: &str) -> Result<Config, Problems> {
    from_str(Path::new("probegate.toml"), text, &Overrides::default())
}

fn with(text: &str) -> Result<Config, Problems> {
    parse(&format!("{MINIMAL}{text}"))
}

fn problems(text: &str) -> String {
    with(text).expect_err("faulty").to_string()
}

fn environment(pairs: &[(&str, &str)]) -> Overrides {
    let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Overrides { environment, ..Overrides::default() }
}

fn life<'a>(config: &'a Config, name: &str) -> &'a crate::engine::CheckPlan {
    config.engine.checks.iter().find(|check| check.name == name).expect("there")
}

fn names(config: &Config, members: &[Member]) -> Vec<String> {
    let name = |member: &Member| match member {
        Member::Check(check) => config.engine.checks[check.index()].name.clone(),
        Member::Group(group) => config.engine.groups[group.index()].name.clone(),
    };
    members.iter().map(name).collect()
}

#[test]
fn an_address_alone_is_a_working_file() {
    let config = parse(MINIMAL).expect("whole");
    assert_eq!(names(&config, &config.engine.ready.require), ["upstream"]);
    assert_eq!(names(&config, &config.engine.startup.require), ["upstream"]);
    assert_eq!(names(&config, &config.engine.health.require), ["alive"]);
    let alive = life(&config, "alive");
    assert_eq!((alive.on_timeout, alive.failure_rule), (OnTimeout::Unknown, FailureRule::Consecutive(6)));
    let upstream = life(&config, "upstream");
    assert_eq!(upstream.subject, Subject::Backend(crate::engine::BackendId(0)));
    assert_eq!((upstream.interval, upstream.timeout), (Duration::from_secs(5), Duration::from_secs(1)));
    assert_eq!((upstream.max_age, upstream.jitter_permille), (Duration::from_secs(11), 100));
    assert_eq!(upstream.failure_rule, FailureRule::Consecutive(3));
    let door = config.engine.backends[0].check;
    assert_eq!(config.engine.checks[door.index()].name, "upstream");
    assert_eq!(config.listen.probes.to_string(), "0.0.0.0:9090");
    assert_eq!(
        config.upstream.metrics.map(|page| page.uri.to_string()).as_deref(),
        Some("http://127.0.0.1:8501/metrics")
    );
}

#[test]
fn every_example_is_whole() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("folder") {
        let file = entry.expect("entry").path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            if let Err(problems) = load(&file, &Overrides::default()) {
                panic!("{problems}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}

#[test]
fn several_addresses_become_a_check_each_and_a_group_of_any() {
    let config = parse("[upstream]\naddresses = [\"127.0.0.1:1\", \"127.0.0.1:2\"]").expect("whole");
    let checks: Vec<&str> =
        config.engine.backends.iter().map(|b| config.engine.checks[b.check.index()].name.as_str()).collect();
    assert_eq!(checks, ["upstream-1", "upstream-2"]);
    let group = config.engine.groups.iter().find(|group| group.name == "upstream").expect("group");
    assert_eq!((group.min, group.of.len()), (1, 2));
}

#[test]
fn a_problem_has_its_file_line_column_key_and_caret() {
    let text = problems("[checks.redis]\nredis = \"redis://h\"\ninterval = \"5x\"\n");
    assert_eq!(
        text,
        "probegate.toml:5:12: checks.redis.interval: found \"5x\", expected a duration such as \"500ms\", \"5s\" or \"2m\"\n \
         5 | interval = \"5x\"\n   |            ^^^^"
    );
}

#[test]
fn all_problems_of_a_file_come_at_once_in_its_order() {
    let text = "[checks.a]\ntcp = 5\nintervall = \"1s\"\n[checks.b]\nhttp = \"ftp://x\"\ntcp = \"x:1\"\n[checks.c]\n\
                timeout = \"9s\"\n[checks.d]\ntcp = \"x:1\"\nfailure_threshold = 0\nfailures = \"1/65\"\n\
                [groups.g]\nall = [\"h\"]\n[groups.h]\nany = [\"g\"]\n[ready]\nrequire = [\"upstram\"]\nbogus = 1";
    let problems = with(text).expect_err("faulty");
    let keys: Vec<&str> = problems.iter().map(Problem::key).collect();
    for key in [
        "checks.a.tcp",
        "checks.a.intervall",
        "checks.b.tcp",
        "checks.c",
        "checks.c.timeout",
        "checks.d.failure_threshold",
        "checks.d.failures",
        "groups.g",
        "ready.require[0]",
        "ready.bogus",
    ] {
        assert!(keys.contains(&key), "{key} in {problems}");
    }
    assert!(problems.iter().is_sorted_by_key(Problem::line_column));
    let near = |key: &str| problems.iter().find(|problem| problem.key() == key).and_then(Problem::nearest);
    assert_eq!(near("checks.a.intervall"), Some("interval"));
    assert_eq!(near("ready.require[0]"), Some("upstream"));
}

#[test]
fn a_check_has_exactly_one_kind() {
    assert!(problems("[checks.a]\ninterval = \"5s\"").contains("a check without a kind, expected one of dns, disk"));
    assert!(problems("[checks.a]\ntcp = \"a:1\"\nhttp = \"/\"").contains("two kinds in one check: http and tcp"));
    assert!(problems("[checks.a]\nhtpp = \"/\"").contains("did you mean \"http\"?"));
    assert!(problems("[checks.a]\ngolden = {}").contains("`cases` is missing"));
}

#[test]
fn a_timeout_at_the_interval_is_refused_and_below_it_is_not() {
    assert!(problems("[checks.a]\ntcp = \"a:1\"\ninterval = \"2s\"\ntimeout = \"2s\"").contains("below the interval"));
    assert!(with("[checks.a]\ntcp = \"a:1\"\ninterval = \"2s\"\ntimeout = \"1999ms\"").is_ok());
    let config = with("[checks.a]\ntcp = \"a:1\"\ninterval = \"1s\"").expect("whole");
    assert_eq!(life(&config, "a").timeout, Duration::from_millis(500));
}

#[test]
fn circles_are_found_through_groups_and_parents() {
    let text = "[checks.a]\ntcp = \"a:1\"\ndepends_on = [\"g\"]\n[checks.b]\ntcp = \"a:1\"\ndepends_on = [\"a\"]\n\
                [groups.g]\nany = [\"b\"]";
    assert!(problems(text).contains("a circle: a -> g -> b -> a"), "{}", problems(text));
    assert!(problems("[checks.a]\ntcp = \"a:1\"\ndepends_on = [\"a\"]").contains("a circle: a -> a"));
}

#[test]
fn a_check_and_a_group_share_no_name() {
    assert!(problems("[checks.a]\ntcp = \"a:1\"\n[groups.a]\nany = [\"upstream\"]").contains("is a check as well"));
}

#[test]
fn no_inline_secret_is_accepted_or_repeated() {
    for text in [
        "[checks.a]\nredis = \"redis://u:hunter2@h\"",
        "[checks.a]\nredis = \"redis://:hunter2/x@h\"",
        "[checks.a]\nredis = { url = \"redis://h\", password = \"hunter2\" }",
        "[checks.a]\nredis = \"redis://:hunter2${X}@h\"",
        "[checks.a]\nredis = { url = \"redis://h\", password = \"${X}hunter2\" }",
        "[checks.a]\npostgres = { url = \"postgres://u:hunter2@h/db\" }",
        "[checks.a]\npostgres = \"postgres://u@h/db?password=hunter2\"",
        "[checks.a]\nhttp = { url = \"http://h\", headers = { Authorization = \"Bearer hunter2\" } }",
        "[checks.a]\nhttp = { url = \"http://h\", headers = { X-Api-Key = \"hunter2\" } }",
        "[checks.a]\nexec = { command = \"x\", env = { DB_PASSWORD = \"hunter2\" } }",
        "[checks.a]\nexec = \"psql postgres://u:hunter2@h/db\"",
        "[checks.a]\nredis = { url = \"redis://h\", passwort = \"hunter2\" }",
        "[checks.a]\nredis = { url = \"redis://h\", pass = \"hunter2\", kye = \"x\" }",
        "[checks.a]\nhttp = { url = 5, headers = { Cookie = [\"hunter2\"] } }",
        "[checks.a]\nmemory = { of = \"redis\", redis = \"redis://u:hunter2@h\", max = \"1GiB\" }",
        "[upstream.x]\ntoken = \"hunter2\n",
        "[checks.a]\npassword = hunter2\n",
        "[checks.a]\nredis = { url = \"redis://u:hunter2@h\" \n",
    ] {
        let problems = with(text).expect_err(text);
        assert!(!format!("{problems}").contains("hunter2"), "{text}\n{problems}");
        assert!(!format!("{problems:?}").contains("hunter2"), "{text}\n{problems:?}");
    }
}

#[test]
fn secrets_from_the_environment_and_from_files_are_accepted() {
    let text = "[checks.a]\nredis = { url = \"redis://u:${PW}@h\" }\n[checks.b]\nhttp = { url = \"http://h\", \
                headers = { Authorization = \"Bearer ${TOKEN}\", X-Api-Key = { file = \"/run/key\" } } }";
    let config = with(text).expect("whole");
    let unset = unset_variables(&config, &environment(&[("PW", "x")]).environment);
    assert_eq!(unset.iter().map(|unset| unset.name.as_str()).collect::<Vec<_>>(), ["TOKEN"]);
    assert_eq!(life(&config, "a").target, "h");
}

#[test]
fn the_environment_stands_above_the_file_and_flags_above_both() {
    let text = format!("{MINIMAL}[listen]\nprobes = \"127.0.0.1:1\"\n[checks.profile-api]\ntcp = \"a:1\"");
    let mut overrides = environment(&[
        ("PROBEGATE_LISTEN__PROBES", "127.0.0.1:2"),
        ("PROBEGATE_LISTEN__TRAFFIC", "127.0.0.1:3"),
        ("PROBEGATE_CHECKS__PROFILE_API__INTERVAL", "9s"),
        ("PROBEGATE_UPSTREAM__MODELS", "7"),
        ("PROBEGATE_TRAFFIC__WORKERS", "2"),
        ("PROBEGATE_SERVICE_HOST", "10.0.0.1"),
        ("PROBEGATE_PORT", "tcp://10.0.0.1:9090"),
        ("PROBEGATE_PORT_9090_TCP_ADDR", "10.0.0.1"),
        ("PROBEGATE_ADMIN_SERVICE_PORT_HTTP", "9091"),
        ("HOME", "/"),
    ]);
    overrides.listen_traffic = Some("127.0.0.1:4".to_owned());
    let config = from_str(Path::new("f"), &text, &overrides).expect("whole");
    assert_eq!(config.listen.probes.port(), 2);
    assert_eq!(config.listen.traffic.port(), 4);
    assert_eq!(life(&config, "profile-api").interval, Duration::from_secs(9));
    assert_eq!((config.upstream.models.as_slice(), config.traffic.workers), (["7".to_owned()].as_slice(), Some(2)));
}

#[test]
fn a_faulty_override_is_named_instead_of_a_line() {
    let mut overrides = environment(&[("PROBEGATE_CHECKS__UPSTREAM__INTERVAL", "5x"), ("PROBEGATE_BOGUS", "1")]);
    overrides.log_format = Some("xml".to_owned());
    let problems = from_str(Path::new("f"), MINIMAL, &overrides).expect_err("faulty");
    let text = problems.to_string();
    assert!(
        text.contains("environment variable PROBEGATE_CHECKS__UPSTREAM__INTERVAL: checks.upstream.interval: found")
    );
    assert!(text.contains("environment variable PROBEGATE_BOGUS: bogus: unknown key"), "{text}");
    assert!(text.contains("--log-format: log.format: found \"xml\""), "{text}");
    assert!(problems.iter().all(|problem| problem.line_column().is_none()));
}

#[test]
fn a_target_on_the_upstream_is_the_upstreams() {
    let text = "[checks.a]\nhttp = \"http://localhost:8501/x\"\n[checks.b]\ntcp = \"127.0.0.1:6379\"\n\
                [checks.c]\ntcp = \"redis:6379\"\nscope = \"shared\"\n[checks.d]\nprocess = \"x\"\n\
                [checks.e]\nmetric = \"up\"\n[checks.f]\nexec = \"true\"";
    let config = with(text).expect("whole");
    let subject = |name: &str| life(&config, name).subject;
    assert_eq!(subject("a"), Subject::Backend(crate::engine::BackendId(0)));
    assert_eq!((subject("b"), subject("c")), (Subject::Local, Subject::Remote));
    assert_eq!((subject("d"), subject("e"), subject("f")), (Subject::Server, Subject::Server, Subject::Local));
    assert_eq!(life(&config, "c").scope, Scope::Shared);
}

#[test]
fn settings_of_tls_beside_a_plaintext_url_are_refused() {
    for (kind, secure) in [
        ("redis = { url = \"redis://h\", tls = {} }", "expected rediss:// in the URL"),
        ("http = { url = \"http://h/\", tls = { ca_file = \"/ca\" } }", "expected https:// in the URL"),
        ("http = { url = \"/health\", tls = {} }", "expected https:// in the URL"),
    ] {
        let text = problems(&format!("[checks.a]\n{kind}"));
        assert!(text.contains("tls: means nothing with") && text.contains(secure), "{text}");
    }
    assert!(with("[checks.a]\nredis = { url = \"rediss://h\", tls = {} }").is_ok());
    assert!(with("[checks.a]\nhttp = { url = \"https://h/\", tls = {} }").is_ok());
}

#[test]
fn a_misspelt_log_level_is_no_modules_name() {
    assert!(problems("[log]\nlevel = \"warning\"").contains("did you mean \"warn\"?"));
    assert!(problems("[log]\nlevel = \"\"").contains("log.level: found \"\""));
    for level in ["info", "DEBUG", "off", "warn,probegate=debug", "probegate::run=trace"] {
        assert!(with(&format!("[log]\nlevel = \"{level}\"")).is_ok(), "{level}");
    }
}

#[test]
fn a_drain_shorter_than_the_default_propagation_shortens_that() {
    let drain = |text: &str| with(text).expect("whole").engine.drain;
    assert_eq!(drain("[drain]\nmax = \"2s\"").propagation, Duration::from_secs(1));
    assert_eq!(drain("[drain]\nmax = \"10s\"").propagation, Duration::from_secs(5));
    assert!(problems("[drain]\nmax = \"2s\"\npropagation = \"3s\"").contains("max is 2s, propagation 3s"));
    assert!(problems("[drain]\npropagation = \"26s\"").contains("drain.propagation: max is 25s, propagation 26s"));
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("probegate.toml");
    let why = |file: &Path| load(file, &Overrides::default()).expect_err("faulty").to_string();
    assert!(why(&file).ends_with("no such file"));
    assert!(why(folder.path()).contains("directory"));
    std::fs::write(&file, [b'#', 0xff]).expect("write");
    assert!(why(&file).contains("not UTF-8"));
    std::fs::write(&file, "").expect("write");
    assert!(why(&file).contains("upstream.address: missing"));
    let padding = |bytes: usize| format!("{MINIMAL}#{}", "x".repeat(bytes - MINIMAL.len() - 1));
    std::fs::write(&file, padding(crate::limits::CONFIG_BYTES_MAX)).expect("write");
    assert!(load(&file, &Overrides::default()).is_ok());
    std::fs::write(&file, padding(crate::limits::CONFIG_BYTES_MAX + 1)).expect("write");
    assert!(why(&file).contains("larger than 1 MiB"));
}

#[test]
fn ten_thousand_checks_are_the_most() {
    let file = |count: usize| {
        (0..count).fold(MINIMAL.to_owned(), |text, index| text + &format!("[checks.c{index}]\ntcp=\"a:1\"\n"))
    };
    let beside = parse(MINIMAL).expect("whole").checks.len();
    assert!(parse(&file(crate::limits::CHECKS_MAX - beside)).is_ok());
    assert!(parse(&file(crate::limits::CHECKS_MAX - beside + 1)).is_err());
}

#[test]
fn a_swapped_config_map_is_noticed_once_and_a_bad_one_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path();
    let publish = |version: &str, text: &str| {
        std::fs::create_dir(root.join(version)).expect("folder");
        std::fs::write(root.join(version).join("probegate.toml"), text).expect("write");
        std::os::unix::fs::symlink(version, root.join("..data_tmp")).expect("link");
        std::fs::rename(root.join("..data_tmp"), root.join("..data")).expect("swap");
    };
    publish("..1", MINIMAL);
    let file = root.join("probegate.toml");
    std::os::unix::fs::symlink("..data/probegate.toml", &file).expect("link");
    let (mut watcher, first) = Watcher::open(&file, Overrides::default());
    assert!(matches!(first, Reload::Changed(_)));
    assert!(watcher.poll().is_none());
    publish("..2", "[upstream]\naddress = \"127.0.0.1:1\"");
    assert!(
        matches!(watcher.poll(), Some(Reload::Changed(config)) if config.upstream.backends[0].address == "127.0.0.1:1")
    );
    assert!(watcher.poll().is_none());
    publish("..3", "[upstream]\nadress = 1");
    assert!(matches!(watcher.poll(), Some(Reload::Refused(problems)) if problems.to_string().contains("address")));
    assert!(watcher.poll().is_none());
    publish("..4", "[upstream]\nadress = 1");
    assert!(watcher.poll().is_none(), "equal content is no change");
    std::fs::remove_file(root.join("..data")).expect("remove");
    assert!(matches!(watcher.poll(), Some(Reload::Refused(_))));
    assert!(matches!(watcher.force(), Reload::Refused(_)));
}

#[test]
fn the_listeners_are_found_in_a_file_that_is_faulty_elsewhere() {
    let of = |text: &str| listen(Path::new("f"), text, &environment(&[("PROBEGATE_LISTEN__PROBES", "127.0.0.1:7")]));
    let faulty =
        of("[listen]\nadmin = \"127.0.0.1:5\"\n[checks.a]\nbogus = 1\n[ready]\nrequire = [\"b\"]").expect("found");
    assert!(matches!(faulty.admin, AdminAddress::Tcp(address) if address.port() == 5));
    assert_eq!(of("").expect("found").probes.port(), 7);
    let unfit = of("[listen]\nadmin = \"x\"\n[ready]\nbogus = 1").expect_err("faulty");
    assert_eq!(unfit.iter().map(Problem::key).collect::<Vec<_>>(), ["listen.admin"]);
    assert!(of("[listen").is_err());
}

#[test]
fn what_waits_for_a_restart_is_named() {
    let old = parse(MINIMAL).expect("whole");
    let new = with("[listen]\nprobes = \"0.0.0.0:9999\"\n[checks.a]\ntcp = \"a:1\"").expect("whole");
    assert_eq!(waits_for_restart(&old, &new), ["listen.probes"]);
    assert!(waits_for_restart(&old, &old).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn junk_never_panics_and_every_place_is_inside_the_file(text in "(\\[?\\[?[a-z.\"]{0,12}\\]?\\]?|[a-z_.\"-]{1,9} ?= ?([0-9a-z\"{}\\[\\], =.é-]{0,20}))(\n(\\[(checks|upstream|ready|groups|listen)(\\.[a-z]{1,3})?\\]|[a-z_]{1,9} = ([0-9]{1,4}|\"[^\"\n]{0,9}\"|\\[\"a\"\\]|\\{ url = \"x\" \\}|true|1979-05-27|nan))){0,12}") {
        if let Err(problems) = parse(&text) {
            prop_assert!(!problems.is_empty());
            for problem in &problems {
                if let Some((line, column)) = problem.line_column() {
                    let lines: Vec<&str> = text.split('\n').collect();
                    prop_assert!((1..=lines.len()).contains(&line), "{problem}");
                    prop_assert!(column <= lines[line - 1].chars().count() + 1, "{problem}");
                }
            }
        }
    }

    #[test]
    fn valid_checks_survive(
        interval_ms in 20_u64..100_000,
        percent in 1_u64..100,
        up in 1_u32..9,
        fail in 1_u32..64,
        more in 0_u32..2,
        name in "[a-z0-9][a-z0-9_-]{0,20}",
    ) {
        prop_assume!(name != "upstream" && name != "alive");
        let timeout_ms = (interval_ms * percent / 100).clamp(1, interval_ms - 1);
        let text = format!(
            "[checks.{name}]\ntcp = \"h:1\"\ninterval = \"{interval_ms}ms\"\ntimeout = \"{timeout_ms}ms\"\n\
             success_threshold = {up}\nfailures = \"{fail}/{}\"\n[ready]\nrequire = [\"{name}\"]", fail + more
        );
        let config = with(&text).map_err(|problems| TestCaseError::fail(problems.to_string()))?;
        let check = life(&config, &name);
        prop_assert_eq!(check.interval, Duration::from_millis(interval_ms));
        prop_assert_eq!(check.timeout, Duration::from_millis(timeout_ms));
        prop_assert_eq!(check.failure_rule, FailureRule::Window { fail, of: fail + more });
        prop_assert_eq!(names(&config, &config.engine.ready.require), vec![name]);
    }
}

#[test]
fn queues_holds_and_routes_are_read_and_what_a_route_leaves_out_is_the_common_rule() {
    let config = with(
        "[traffic]\nmax_in_flight = 8\nqueue = { max = 64, max_bytes = \"1MiB\" }\nhold = \"10s\"\n\
         [traffic.routes.\"/v1\"]\nhold = \"0s\"\n[traffic.routes.\"/v1/train/\"]\nmax_in_flight = 1\n\
         stall_after = \"15m\"\n",
    )
    .expect("whole");
    let queue = Queue { max: 64, max_bytes: Some(1 << 20), timeout: crate::limits::QUEUE_TIMEOUT };
    assert_eq!((config.traffic.queue, config.traffic.hold), (Some(queue), Some(Duration::from_secs(10))));
    let [train, v1] = &config.traffic.routes[..] else { panic!("{:?}", config.traffic.routes) };
    assert_eq!((train.path.as_str(), train.max_in_flight, train.hold), ("/v1/train", Some(1), config.traffic.hold));
    assert_eq!((train.stall_after, v1.stall_after), (Some(Duration::from_secs(900)), None));
    assert_eq!((v1.path.as_str(), v1.max_in_flight, v1.hold, v1.queue), ("/v1", None, None, Some(queue)));
}

#[test]
fn a_queue_without_bounds_or_without_a_limit_and_a_route_that_is_no_path_are_problems() {
    assert!(problems("[traffic]\nqueue = { max = 9 }\n").contains("max_in_flight"));
    assert!(problems("[traffic]\nmax_in_flight = 1\nqueue = { timeout = \"1s\" }\n").contains("traffic.queue"));
    assert!(problems("[traffic]\nmax_in_flight = 1\nqueue = { max = 0 }\n").contains("1 to 1000000"));
    assert!(problems("[traffic.routes.\"/a\"]\nstall_after = \"0s\"\n").contains("more than nothing"));
    assert!(problems("[traffic.routes.predict]\nmax_in_flight = 1\n").contains("a path such as"));
}
