//! `[tls]`, the access log and the priority header as typed.

use super::*;

const PAIR: &str = "[tls]\ncert_file = \"/tls.crt\"\nkey_file = \"/tls.key\"\n";

#[test]
fn tls_is_off_unless_a_pair_is_named_and_asks_for_little_else() {
    assert_eq!(parse(MINIMAL).expect("whole").tls, None);
    let tls = with(PAIR).expect("whole").tls.expect("on");
    assert_eq!((tls.cert_file, tls.key_file), (PathBuf::from("/tls.crt"), PathBuf::from("/tls.key")));
    assert_eq!((tls.client_ca_file, tls.min_version), (None, TlsVersion::V1_2));
    let more = with(&format!("{PAIR}client_ca_file = \"/ca.crt\"\nmin_version = \"1.3\"\n")).expect("whole");
    let tls = more.tls.expect("on");
    assert_eq!((tls.client_ca_file, tls.min_version), (Some(PathBuf::from("/ca.crt")), TlsVersion::V1_3));
}

#[test]
fn half_a_pair_and_an_old_version_are_problems() {
    let half = problems("[tls]\ncert_file = \"/tls.crt\"");
    assert!(half.contains("`key_file` is missing"), "{half}");
    let misspelt = problems("[tls]\ncert_file = \"/tls.crt\"\nkey = \"/tls.key\"");
    assert!(misspelt.contains("key_file"), "{misspelt}");
    let old = problems(&format!("{PAIR}min_version = \"1.1\""));
    assert!(old.contains("\"1.2\" or \"1.3\""), "{old}");
}

#[test]
fn the_access_log_is_a_word_or_a_table() {
    let access = |text: &str| with(&format!("[log]\naccess = {text}")).expect("whole").log.access;
    let everything = AccessLog { sample_permille: 1000, slow: None, query: false };
    assert_eq!(access("false"), None);
    assert_eq!(access("true"), Some(everything));
    assert_eq!(access("{}"), Some(everything));
    let some = AccessLog { sample_permille: 10, slow: Some(Duration::from_secs(2)), query: true };
    assert_eq!(access("{ sample = \"1%\", slow = \"2s\", query = true }"), Some(some));
    assert!(problems("[log]\naccess = \"yes\"").contains("true or false or a table"));
    assert!(problems("[log]\naccess = { slow = \"0s\" }").contains("more than nothing"));
}

#[test]
fn turning_the_access_log_on_waits_for_a_restart_and_changing_it_does_not() {
    let off = parse(MINIMAL).expect("whole");
    let on = with("[log]\naccess = true").expect("whole");
    let less = with("[log]\naccess = { sample = \"1%\" }").expect("whole");
    assert_eq!(waits_for_restart(&off, &on), ["log.access"]);
    assert!(waits_for_restart(&on, &less).is_empty() && waits_for_restart(&on, &off).is_empty());
}

#[test]
fn a_priority_header_is_a_headers_name() {
    let config = with("[traffic]\npriority_header = \"X-Priority\"").expect("whole");
    assert_eq!(config.traffic.priority_header.expect("one").as_str(), "x-priority");
    assert!(problems("[traffic]\npriority_header = \"x priority\"").contains("a header's name"));
}
