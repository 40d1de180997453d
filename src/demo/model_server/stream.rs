//! Token streaming over server-sent events: the digit described word by word, as a language model would.
//!
//! The words come from the image and the model's answer, not from a fixed text. A stream stops moving while
//! inference hangs, with its headers long sent, and goes on afterwards.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::mpsc;
use url::form_urlencoded;

use super::classifier::{Image, Prediction, ROW};
use super::reply::{Fault, Reply};
use super::server::{Rejected, Server};

const TOKENS: usize = 20;
const TOKENS_MAX: usize = 10_000;
const INTERVAL: Duration = Duration::from_millis(50);
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// What the query asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Request {
    /// Of the test set.
    digit: usize,
    tokens: usize,
    interval: Duration,
}

/// `GET` or `POST /stream?digit=0&tokens=20&interval_ms=50`.
pub(super) async fn stream(server: &Rc<Server>, query: Option<&str>) -> Result<Reply, Fault> {
    let request = parse(query.unwrap_or_default())?;
    let digits = &server.loaded().ok_or(Rejected::Loading)?.digits;
    let last = digits.len() - 1;
    let digit = digits.get(request.digit).ok_or_else(|| Fault::not_found(format!("digits go from 0 to {last}")))?;
    let predictions = server.infer(&[digit.image]).await?;
    let words = description(&digit.image, &predictions[0]);

    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_local(tell(Rc::clone(server), words, request, sender));
    let mut reply = Response::new(Events(receiver).boxed_unsync());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(reply)
}

/// Sends one event a token, then `[DONE]`; ends early when the client has gone.
async fn tell(server: Rc<Server>, words: Vec<String>, request: Request, sender: mpsc::Sender<Bytes>) {
    for (index, word) in words.iter().cycle().take(request.tokens).enumerate() {
        if index > 0 {
            tokio::time::sleep(request.interval).await;
        }
        server.inference_moves().await;
        let event = serde_json::json!({ "index": index, "token": word });
        if sender.send(Bytes::from(format!("data: {event}\n\n"))).await.is_err() {
            return;
        }
        server.meters.token();
    }
    // A client that has gone needs no end.
    let _ = sender.send(Bytes::from_static(b"data: [DONE]\n\n")).await;
}

fn parse(query: &str) -> Result<Request, Fault> {
    let mut request = Request { digit: 0, tokens: TOKENS, interval: INTERVAL };
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let number = value.parse::<usize>();
        let number = number.map_err(|_| Fault::bad_request(format!("{key}: expected a number, found {value:?}")))?;
        match key.as_ref() {
            "digit" => request.digit = number,
            "tokens" if (1..=TOKENS_MAX).contains(&number) => request.tokens = number,
            "tokens" => return Err(Fault::bad_request(format!("tokens: expected 1 to {TOKENS_MAX}, found {number}"))),
            "interval_ms" if number as u128 <= INTERVAL_MAX.as_millis() => {
                request.interval = Duration::from_millis(number as u64);
            }
            "interval_ms" => {
                let most = INTERVAL_MAX.as_millis();
                return Err(Fault::bad_request(format!("interval_ms: expected 0 to {most}, found {number}")));
            }
            _ => return Err(Fault::bad_request(format!("no {key:?} here, only digit, tokens and interval_ms"))),
        }
    }
    Ok(request)
}

/// What the model reads, and where the ink is.
fn description(image: &Image, prediction: &Prediction) -> Vec<String> {
    const NAMES: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let mut text = format!("a {}, {:.0} % sure;", NAMES[prediction.label], prediction.confidence() * 100.0);
    for (index, row) in image.chunks(ROW).enumerate() {
        let ink: f32 = row.iter().sum::<f32>() / ROW as f32;
        let how = if ink < 2.0 {
            "faint"
        } else if ink < 6.0 {
            "thin"
        } else {
            "bold"
        };
        text.push_str(&format!(" row {} is {how},", index + 1));
    }
    text.split(' ').map(str::to_owned).collect()
}

/// The stream as a body. Dropping it, as hyper does when the client goes, ends the teller.
struct Events(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_sets_what_it_names_and_the_rest_has_defaults() {
        let request = parse("tokens=3&interval_ms=0").unwrap();
        assert_eq!(request, Request { digit: 0, tokens: 3, interval: Duration::ZERO });
    }

    #[test]
    fn a_query_out_of_range_says_the_range() {
        assert_eq!(parse("tokens=0").unwrap_err().message, "tokens: expected 1 to 10000, found 0");
        assert_eq!(parse("interval_ms=60001").unwrap_err().message, "interval_ms: expected 0 to 60000, found 60001");
        assert_eq!(parse("tokens=x").unwrap_err().message, "tokens: expected a number, found \"x\"");
        assert_eq!(parse("n=1").unwrap_err().message, "no \"n\" here, only digit, tokens and interval_ms");
    }
}
