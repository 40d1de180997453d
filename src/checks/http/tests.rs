//! The `http` check against real servers and false ones.

use http::{HeaderName, Method};

use super::*;
use crate::checks::tests::run;
use crate::config::{JsonPredicate, JsonTest, Kind, TlsClient};
use crate::engine::Verdict;
use crate::net::peer::{self, Then, raw, respond};
use crate::secret::Template;

fn spec(url: &str) -> HttpCheck {
    HttpCheck {
        method: Method::GET,
        url: SecretSource::Template(Template::new(url)),
        headers: Vec::new(),
        body: None,
        status: vec![StatusRange { from: 200, to: 299 }],
        json: Vec::new(),
        matches: None,
        not_matches: None,
        tls: TlsClient::default(),
    }
}

async fn check(spec: HttpCheck) -> Outcome {
    run(Kind::Http(Box::new(spec))).await
}

/// A server that always answers so, as a check's specification.
async fn serving(status: u16, body: &'static str) -> HttpCheck {
    spec(&format!("http://{}/", peer::http(move |_| respond(status, body)).await))
}

#[tokio::test]
async fn a_status_in_range_passes_and_proves_that_somebody_is_there() {
    let outcome = check(serving(204, "").await).await;
    assert_eq!((outcome.verdict, outcome.sign), (Verdict::Pass, Some(Sign::Answered)));
    assert_eq!(outcome.reason, "");
}

#[tokio::test]
async fn another_status_fails_with_its_name_and_the_first_words_of_the_body() {
    let outcome = check(serving(503, "loading\n\tshard   3 of 8").await).await;
    assert_eq!(outcome.verdict, Verdict::Fail(Fault::Answer));
    assert_eq!(outcome.reason, "status 503 (Service Unavailable), expected 200-299: loading shard 3 of 8");
    assert_eq!(outcome.sign, Some(Sign::Answered));
    let mut picky = serving(299, "").await;
    picky.status = vec![StatusRange { from: 200, to: 204 }, StatusRange { from: 404, to: 404 }];
    assert_eq!(check(picky).await.reason, "status 299, expected 200-204 or 404");
}

#[tokio::test]
async fn a_redirect_is_a_status_and_is_not_followed() {
    let outcome = check(serving(307, "").await).await;
    assert_eq!(outcome.reason, "status 307 (Temporary Redirect), expected 200-299");
}

#[tokio::test]
async fn the_body_is_judged_by_json_and_by_patterns() {
    let mut degraded = serving(200, r#"{"status": "degraded"}"#).await;
    let test = JsonTest::Equals("ok".into());
    degraded.json = vec![JsonPredicate { pointer: "/status".to_owned(), test }];
    assert_eq!(check(degraded.clone()).await.reason, "/status was \"degraded\", expected \"ok\"");
    degraded.json.clear();
    degraded.matches = regex::Regex::new("(?i)OK").ok();
    assert_eq!(check(degraded.clone()).await.reason, r#"body does not match /(?i)OK/: {"status": "degraded"}"#);
    degraded.matches = regex::Regex::new("status").ok();
    assert_eq!(check(degraded.clone()).await.verdict, Verdict::Pass);
    degraded.not_matches = regex::Regex::new("degr\\w+").ok();
    assert_eq!(check(degraded).await.reason, "body holds what it must not: degraded");
}

#[tokio::test]
async fn method_headers_and_body_go_as_configured() {
    let mut peer = raw("HTTP/1.1 200 OK\r\n\r\n", Then::Close).await;
    let mut check = spec(&format!("http://{}/v2/infer?x=1", peer.address));
    check.method = Method::POST;
    check.body = Some("{}".to_owned());
    let header = |value: &str| SecretSource::Template(Template::new(value));
    check.headers = vec![
        (HeaderName::from_static("host"), header("model.local")),
        (HeaderName::from_static("x-trace"), header("1")),
    ];
    assert_eq!(self::check(check).await.verdict, Verdict::Pass);
    let heard = peer.heard().await;
    assert!(heard.starts_with("POST /v2/infer?x=1 HTTP/1.1\r\n"), "{heard}");
    for line in ["host: model.local", "x-trace: 1", "content-length: 2", "connection: close", "accept: */*"] {
        assert!(heard.contains(&format!("{line}\r\n")), "{line} in {heard}");
    }
    assert!(heard.contains(&format!("user-agent: {}\r\n", crate::net::http::AGENT)), "{heard}");
}

#[tokio::test]
async fn a_secret_is_sent_and_never_told_even_if_the_answer_repeats_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "Bearer s3cr3t-value\n").unwrap();
    for padding in [0, 70, 79] {
        let address = peer::http(move |request| {
            let token = request.headers()["authorization"].to_str().unwrap().to_owned();
            respond(401, format!("{}{token}", "x".repeat(padding)))
        })
        .await;
        let mut check = spec(&format!("http://{address}/"));
        check.headers = vec![(http::header::AUTHORIZATION, SecretSource::File(file.clone()))];
        let reason = self::check(check).await.reason;
        assert!(reason.starts_with("status 401 (Unauthorized)"), "{reason}");
        assert!(!reason.contains("Bearer") && !reason.contains("s3cr"), "{reason}");
    }
}

#[test]
fn a_secret_that_the_reason_cuts_short_is_blotted_out_as_well() {
    let blotted = |reason: &str| blotted(reason.to_owned(), "hunter2\"x");
    assert_eq!(blotted("a hunter2\"x b"), "a [secret] b");
    assert_eq!(blotted(r#"/a was "hunter2\"x""#), "/a was \"[secret]\"");
    assert_eq!(blotted("a hunte…, expected 1"), "a [secret]…, expected 1");
    assert_eq!(blotted("a hun…"), "a hun…");
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_our_own_fault_and_names_the_place() {
    let mut missing = spec("http://127.0.0.1:1/");
    missing.headers = vec![(http::header::AUTHORIZATION, SecretSource::File("/nowhere/token".into()))];
    let outcome = check(missing).await;
    assert_eq!(outcome.verdict, Verdict::Fail(Fault::Local));
    assert!(
        outcome.reason.starts_with("header authorization: file /nowhere/token: no such file"),
        "{}",
        outcome.reason
    );
    let outcome = check(spec("http://127.0.0.1:1/${PROBEGATE_TEST_UNSET}")).await;
    assert_eq!(outcome.reason, "the URL: environment variable PROBEGATE_TEST_UNSET is not set");
}

#[tokio::test]
async fn a_huge_answer_fails_with_the_limit() {
    let body = "x".repeat(CHECK_BODY_BYTES_MAX + 1);
    let address = peer::http(move |_| respond(200, body.clone())).await;
    let outcome = check(spec(&format!("http://{address}/"))).await;
    assert_eq!(outcome.verdict, Verdict::Fail(Fault::Answer));
    assert_eq!(outcome.reason, format!("the answer of {address} is larger than {CHECK_BODY_BYTES_MAX} bytes"));
}

#[tokio::test]
async fn slow_garbage_and_gone_are_told_apart() {
    let mut silent = raw("", Then::Hold).await;
    let outcome = check(spec(&format!("http://{}/", silent.address))).await;
    assert_eq!(outcome.verdict, Verdict::Fail(Fault::Timeout));
    assert_eq!(outcome.reason, format!("timeout after 3s, waiting for an answer from {}", silent.address));
    assert_eq!(outcome.sign, None, "a kernel that completes handshakes is no answer");
    silent.left().await;

    let mut stalled = raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", Then::Hold).await;
    let outcome = check(spec(&format!("http://{}/", stalled.address))).await;
    assert!(outcome.reason.ends_with(&format!("waiting for the rest of the answer from {}", stalled.address)));
    stalled.left().await;

    let garbage = raw("SSH-2.0-OpenSSH_9.2p1\r\n\r\n", Then::Close).await;
    let outcome = check(spec(&format!("http://{}/", garbage.address))).await;
    assert_eq!(outcome.reason, format!("{} does not speak HTTP/1.1", garbage.address));

    let gone = format!("127.0.0.1:{}", peer::closed_port().await);
    let outcome = check(spec(&format!("http://{gone}/"))).await;
    assert_eq!(outcome.reason, format!("connection refused by {gone}"));
    assert_eq!((outcome.verdict, outcome.sign), (Verdict::Fail(Fault::Refused), Some(Sign::Refused)));
}
