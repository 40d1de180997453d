//! Golden requests against servers that are right, wrong, busy, silent and gone.

use std::path::PathBuf;

use super::*;
use crate::checks::tests::{collectors, run_on};
use crate::config::Kind;
use crate::engine::{AccuracyPlan, Verdict};
use crate::net::peer::{self, Then, raw, respond};

const CASES: &str = r#"{"cases":[
  {"name":"x-4","request":{"path":"/predict","body":{"x":4}},"expect":{"pointer":"/label","equals":"even"}},
  {"name":"x-5","request":{"path":"/predict","body":{"x":5}},"expect":{"pointer":"/label","equals":"odd"}}
]}"#;

/// A file of cases that is gone with the test.
struct Cases(tempfile::TempDir);

impl Cases {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("golden.json"), text).unwrap();
        Self(directory)
    }

    async fn ask(&self, address: &str, min_accuracy: f64) -> Outcome {
        let cases: PathBuf = self.0.path().join("golden.json");
        let accuracy = AccuracyPlan { min: min_accuracy, ..AccuracyPlan::default() };
        let check = GoldenCheck { address: address.to_owned(), cases, accuracy, only_when_idle: None };
        run_on(&collectors(vec![Kind::Golden(check)]), 0).await
    }
}

fn accuracy(outcome: &Outcome) -> Option<f64> {
    Some(outcome.reading?.answers?.share())
}

#[tokio::test]
async fn garbage_with_a_200_fails_by_its_accuracy_and_names_the_case() {
    let cases = Cases::new(CASES);
    let address = peer::http(|_| respond(200, r#"{"label":"even"}"#)).await;
    let outcome = cases.ask(&address, 0.8).await;
    assert_eq!(outcome.verdict, Verdict::Fail(Fault::Answer));
    assert_eq!(outcome.reason, r#"1 of 2 right, at least 80 % must be; x-5: /label was "even", expected "odd""#);
    assert_eq!(accuracy(&outcome), Some(0.5));
    let outcome = cases.ask(&address, 0.5).await;
    assert_eq!((outcome.verdict, accuracy(&outcome)), (Verdict::Pass, Some(0.5)));
}

#[tokio::test]
async fn a_busy_server_has_said_nothing_and_a_failing_one_is_wrong() {
    let cases = Cases::new(CASES);
    let address = peer::http(|_| respond(429, "")).await;
    let outcome = cases.ask(&address, 0.5).await;
    assert_eq!((outcome.verdict, accuracy(&outcome)), (Verdict::Unknown, None));
    let address = peer::http(|_| respond(500, "")).await;
    let outcome = cases.ask(&address, 0.5).await;
    assert_eq!((outcome.verdict, accuracy(&outcome)), (Verdict::Fail(Fault::Answer), Some(0.0)));
}

/// `x-4` is answered so; at `x-5` the server is busy.
async fn then_busy(label: &'static str, min_accuracy: f64) -> Outcome {
    let cases =
        Cases::new(&CASES.replace(r#""x-5","request":{"path":"/predict""#, r#""x-5","request":{"path":"/busy""#));
    let address = peer::http(move |asked| match asked.uri().path() {
        "/busy" => respond(503, ""),
        _ => respond(200, format!(r#"{{"label":"{label}"}}"#)),
    });
    cases.ask(&address.await, min_accuracy).await
}

#[tokio::test]
async fn a_busy_server_has_said_enough_only_where_its_other_answers_would_change_nothing() {
    let outcome = then_busy("odd", 0.8).await;
    assert_eq!(outcome.verdict, Verdict::Fail(Fault::Answer));
    assert!(outcome.reason.starts_with("0 of 1 right, 1 without an answer, at least 80 %"), "{}", outcome.reason);
    let outcome = then_busy("odd", 0.5).await;
    assert_eq!((outcome.verdict, accuracy(&outcome)), (Verdict::Unknown, None), "the other might be right");
    let outcome = then_busy("even", 0.8).await;
    assert_eq!((outcome.verdict, accuracy(&outcome)), (Verdict::Unknown, None), "and here it might be wrong");
    assert_eq!(then_busy("even", 0.5).await.verdict, Verdict::Pass);
}

/// Answers the first request so, and no other.
async fn one_answer(label: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (first, _) = listener.accept().await.unwrap();
        peer::serve(first, move |_| respond(200, format!(r#"{{"label":"{label}"}}"#))).await;
        let _held = listener.accept().await;
        std::future::pending::<()>().await;
    });
    address
}

#[tokio::test]
async fn a_late_server_is_judged_by_what_it_got_right_and_not_by_what_it_got_wrong_alone() {
    let late = async |label, min_accuracy, verdict| {
        let outcome = Cases::new(CASES).ask(&one_answer(label).await, min_accuracy).await;
        assert_eq!(outcome.verdict, verdict, "{label} {min_accuracy}: {}", outcome.reason);
        assert!(outcome.reason.contains(" of 1 right, 1 without an answer"), "{}", outcome.reason);
        assert!(outcome.reading.is_some_and(|reading| reading.answers.is_some()), "it is not silent");
    };
    tokio::join!(
        late("even", 0.8, Verdict::Pass),
        late("odd", 0.5, Verdict::Fail(Fault::Timeout)),
        late("odd", 0.8, Verdict::Fail(Fault::Answer)),
    );
}

#[tokio::test]
async fn other_cases_have_another_fingerprint() {
    let address = peer::http(|_| respond(200, r#"{"label":"even"}"#)).await;
    let examples = async |text: &str| Cases::new(text).ask(&address, 0.5).await.reading.unwrap().examples;
    assert_eq!(examples(CASES).await, examples(CASES).await);
    assert_ne!(examples(CASES).await, examples(&CASES.replace("odd", "even")).await);
}

#[tokio::test]
async fn a_silent_server_burns_the_request_and_a_gone_one_refuses_it() {
    let cases = Cases::new(CASES);
    let silent = raw("", Then::Hold).await;
    assert_eq!(cases.ask(&silent.address, 0.5).await.verdict, Verdict::Fail(Fault::Timeout));
    let address = format!("127.0.0.1:{}", peer::closed_port().await);
    assert_eq!(cases.ask(&address, 0.5).await.verdict, Verdict::Fail(Fault::Refused));
}

#[tokio::test]
async fn cases_that_cannot_be_read_are_our_own_fault() {
    let cases = Cases::new("{");
    let outcome = cases.ask("127.0.0.1:1", 0.5).await;
    assert_eq!(outcome.verdict, Verdict::Fail(Fault::Local));
    assert!(outcome.reason.contains("golden.json: EOF"), "{}", outcome.reason);
}
