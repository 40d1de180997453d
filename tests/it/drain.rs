//! The end of a pod: nobody who was let in is thrown out.

use super::model::Model;
use super::sidecar::{Sidecar, probegate_says};
use super::until::until;
use super::wire::{self, Line};

fn fronted() -> (Model, Sidecar) {
    let model = Model::start();
    let config =
        format!("[upstream]\naddress = \"{}\"\n[drain]\npropagation = \"1s\"\nmax = \"20s\"\n", model.address());
    let sidecar = Sidecar::start(&config);
    sidecar.until("/ready", 200);
    (model, sidecar)
}

/// A stream of tokens that takes about three seconds, its head already here.
fn streaming(sidecar: &Sidecar) -> Line {
    let mut line = Line::open(sidecar.traffic()).unwrap();
    let body = format!("{{\"pixels\":[{}]}}", vec!["0"; 64].join(","));
    line.send(&format!(
        "POST /stream?tokens=30&interval_ms=100 HTTP/1.1\r\nHost: model\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
    .unwrap();
    let head = line.head().unwrap();
    assert_eq!(head.status, 200, "{head:?}");
    assert!(!line.chunk().unwrap().is_empty());
    line
}

/// Reads the stream to its end.
fn rest(mut line: Line) -> String {
    let mut text = String::new();
    loop {
        let chunk = line.chunk().expect("the stream is not cut");
        if chunk.is_empty() {
            return text;
        }
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
}

#[test]
fn a_terminated_sidecar_lets_its_stream_end_refuses_newcomers_and_exits_0() {
    let (_model, mut sidecar) = fronted();
    let stream = streaming(&sidecar);
    sidecar.signal("TERM");
    sidecar.until("/ready", 503);
    assert_eq!(sidecar.probe("/health").status, 200);
    let late = wire::get(sidecar.traffic(), "/health");
    assert_eq!(late.status, 200, "while endpoints propagate, whoever comes is served");
    let refused = until("newcomers are refused", || {
        wire::ask(sidecar.traffic(), "GET", "/health", "", "").ok().filter(|reply| reply.status == 503)
    });
    assert_eq!(refused.header("x-probegate-reason"), Some("draining"));
    assert!(rest(stream).contains("[DONE]"));
    assert_eq!(sidecar.ended().code(), Some(0), "{}", sidecar.log_text());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (_model, mut sidecar) = fronted();
    let _stream = streaming(&sidecar);
    sidecar.signal("TERM");
    sidecar.until("/ready", 503);
    sidecar.signal("INT");
    assert_eq!(sidecar.ended().code(), Some(1));
}

#[test]
fn whoever_waits_for_a_drain_waits_for_its_end_and_not_at_all_without_one() {
    let (_model, sidecar) = fronted();
    assert_eq!(sidecar.probe("/wait-for-drain").status, 200);
    let stream = streaming(&sidecar);
    let admin = sidecar.admin().to_string();
    let said = probegate_says(&["drain", "--admin", &admin]);
    assert_eq!((said.status.code(), said.stdout.as_slice()), (Some(0), b"draining\n".as_slice()), "{said:?}");
    let streamed = std::thread::spawn(move || rest(stream));
    assert_eq!(sidecar.probe("/wait-for-drain").status, 200);
    assert!(streamed.is_finished() || streamed.join().unwrap().contains("[DONE]"));
    assert_eq!(sidecar.report()["drain"]["phase"], "done");
    let said = probegate_says(&["drain", "--wait", "--admin", &admin]);
    assert_eq!((said.status.code(), said.stdout.as_slice()), (Some(0), b"drained\n".as_slice()), "{said:?}");
    assert_eq!(sidecar.probe("/ready").status, 503, "there is no way back");
}
