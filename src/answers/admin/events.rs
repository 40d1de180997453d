//! `/api/events`: the report as server-sent events, again whenever it changes.
//!
//! A slow reader gets fewer events, never a longer queue: the next report is made when the last was taken.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::{AdminAnswers, Reply, dressed, refusal};
use crate::limits;

/// The stream of one reader; one reader too many is refused.
pub(super) fn stream(admin: &Arc<AdminAnswers>) -> Reply {
    let Ok(place) = Arc::clone(&admin.readers.0).try_acquire_owned() else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "too many readers of events at once");
    };
    let (sender, receiver) = mpsc::channel(1);
    let told = tell(Arc::clone(admin), sender);
    tokio::spawn(async move {
        let _place = place;
        told.await;
    });
    dressed(StatusCode::OK, "text/event-stream", Events(receiver).boxed_unsync())
}

async fn tell(admin: Arc<AdminAnswers>, sender: mpsc::Sender<Bytes>) {
    let mut changed = admin.published.subscribe();
    loop {
        changed.borrow_and_update();
        let report = admin.report();
        let pause = pause(report.checks.len());
        let Ok(data) = serde_json::to_string(&report) else { return };
        if sender.send(format!("event: report\ndata: {data}\n\n").into()).await.is_err() {
            return;
        }
        let told = tokio::time::Instant::now();
        let alive = async {
            // Traffic moves without a change of judgement.
            loop {
                tokio::time::sleep(limits::EVENTS_TRAFFIC).await;
                let Ok(data) = serde_json::to_string(&admin.surroundings.traffic()) else { return };
                if sender.send(format!("event: traffic\ndata: {data}\n\n").into()).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            change = changed.changed() => if change.is_err() { return },
            () = alive => return,
            () = sender.closed() => return,
        }
        wait_until(told + pause, &sender).await;
    }
}

async fn wait_until(at: tokio::time::Instant, sender: &mpsc::Sender<Bytes>) {
    tokio::select! {
        () = sleep_until(at) => {}
        () = sender.closed() => {}
    }
}

/// A report of ten thousand checks is megabytes: the more there are, the more seldom it is told.
fn pause(checks: usize) -> Duration {
    limits::EVENTS_INTERVAL.max(Duration::from_millis(u64::try_from(checks).unwrap_or(u64::MAX)))
}

/// The events of one reader as a response's body.
struct Events(mpsc::Receiver<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|event| event.map(|data| Ok(Frame::data(data))))
    }
}
