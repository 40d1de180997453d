//! The probe listener's connections: accepted, sniffed, served, and closed when they are too slow or too many.
//!
//! A kubelet is never refused: beyond [`limits::PROBE_CONNECTIONS_MAX`] the connection that has been idle
//! longest makes room.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinSet};

use super::{ProbeAnswers, answer_infallibly};
use crate::answers::grpc;
use crate::limits;
use crate::net::sniff::{Protocol, Rewound, sniff};

/// How long answers under way may still be written after the shutdown.
const LAST_WORDS: Duration = Duration::from_millis(500);
const LAST_WORDS_STEP: Duration = Duration::from_millis(5);
/// After an accept that failed (no descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the probe paths on `listener` until `shutdown`. Meant for its own thread and runtime, so that no
/// request and no check can delay an answer.
///
/// # Errors
/// The listener cannot be used by the runtime. A connection's failure is nobody else's.
pub async fn serve_probes(
    listener: std::net::TcpListener,
    answers: Arc<ProbeAnswers>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut open = Open::default();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => open.admit(stream, peer, Arc::clone(&answers)),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(ended) = open.tasks.join_next_with_id() => open.forget(&ended),
            () = &mut shutdown => break,
        }
    }
    open.finish().await;
    Ok(())
}

/// The connections that are open.
#[derive(Default)]
struct Open {
    tasks: JoinSet<()>,
    connections: HashMap<Id, (AbortHandle, Arc<Activity>)>,
}

/// What a connection is doing, as told by itself.
#[derive(Debug, Default)]
struct Activity {
    /// Requests being answered.
    busy: AtomicU32,
    /// Whether a whole request head has ever arrived.
    spoken: AtomicBool,
    /// Engine time of the last word, in nanoseconds.
    last: AtomicU64,
}

impl Open {
    fn admit(&mut self, stream: TcpStream, peer: SocketAddr, answers: Arc<ProbeAnswers>) {
        if limits::PROBE_CONNECTIONS_MAX <= self.connections.len() {
            self.make_room();
        }
        let activity = Arc::new(Activity::default());
        activity.touch(&answers);
        let handle = self.tasks.spawn(serve(stream, peer, answers, Arc::clone(&activity)));
        self.connections.insert(handle.id(), (handle, activity));
    }

    /// Ends the idle connection that spoke last longest ago; if all are busy (waiting for a drain, watching),
    /// the oldest of those.
    fn make_room(&mut self) {
        let order =
            |activity: &Activity| (0 < activity.busy.load(Ordering::Relaxed), activity.last.load(Ordering::Relaxed));
        let oldest = self.connections.iter().min_by_key(|(_, (_, activity))| order(activity)).map(|(id, _)| *id);
        if let Some((handle, _)) = oldest.and_then(|id| self.connections.remove(&id)) {
            handle.abort();
        }
    }

    fn forget(&mut self, ended: &Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        self.connections.remove(&id);
    }

    /// Lets answers under way be written, then closes everything.
    async fn finish(self) {
        let busy = || self.connections.values().any(|(_, a)| 0 < a.busy.load(Ordering::Relaxed));
        let wait = async {
            while busy() {
                tokio::time::sleep(LAST_WORDS_STEP).await;
            }
            tokio::time::sleep(LAST_WORDS_STEP).await;
        };
        let _ = tokio::time::timeout(LAST_WORDS, wait).await;
    }
}

impl Activity {
    fn touch(&self, answers: &ProbeAnswers) {
        self.last.store(answers.clock().now().as_nanos(), Ordering::Relaxed);
    }
}

/// Counts a request as under way for as long as it lives.
struct Busy<'a> {
    activity: &'a Activity,
    answers: &'a ProbeAnswers,
}

impl<'a> Busy<'a> {
    fn new(activity: &'a Activity, answers: &'a ProbeAnswers) -> Self {
        activity.spoken.store(true, Ordering::Relaxed);
        activity.busy.fetch_add(1, Ordering::Relaxed);
        Self { activity, answers }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.activity.busy.fetch_sub(1, Ordering::Relaxed);
        self.activity.touch(self.answers);
    }
}

/// One connection, from its first byte to its end. The first request head must be whole by a deadline.
async fn serve(stream: TcpStream, peer: SocketAddr, answers: Arc<ProbeAnswers>, activity: Arc<Activity>) {
    let _ = stream.set_nodelay(true);
    let first_head = tokio::time::Instant::now() + limits::FIRST_HEAD;
    let Ok(Ok((protocol, stream))) = tokio::time::timeout_at(first_head, sniff(stream)).await else { return };
    let conversation = async {
        match protocol {
            Protocol::Http1 => serve_http1(stream, peer, &answers, &activity).await,
            Protocol::Http2 => serve_http2(stream, peer, &answers, &activity).await,
        }
    };
    tokio::pin!(conversation);
    tokio::select! {
        () = &mut conversation => return,
        () = tokio::time::sleep_until(first_head) => {}
    }
    if activity.spoken.load(Ordering::Relaxed) {
        conversation.await;
    }
}

async fn serve_http1(
    stream: Rewound<TcpStream>,
    peer: SocketAddr,
    answers: &Arc<ProbeAnswers>,
    activity: &Arc<Activity>,
) {
    let service = service_fn(async |request| {
        let _busy = Busy::new(activity, answers);
        answer_infallibly(answers, request, peer.ip()).await
    });
    // How a client ends its connection is its own business: an error here is nobody's news.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::IDLE_CONNECTION)
        .max_header_size(limits::HEAD_BYTES_MAX)
        .max_buf_size(2 * limits::HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn serve_http2(
    stream: Rewound<TcpStream>,
    peer: SocketAddr,
    answers: &Arc<ProbeAnswers>,
    activity: &Arc<Activity>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let (answers, activity) = (Arc::clone(answers), Arc::clone(activity));
        async move {
            let _busy = Busy::new(&activity, &answers);
            if request.uri().path().starts_with(grpc::PATH) {
                return Ok::<_, Infallible>(grpc::answer(&answers, request).await);
            }
            let response = answer_infallibly(&answers, request, peer.ip()).await?;
            Ok(response.map(|body| tonic::body::Body::new(body.map_err(|never| match never {}))))
        }
    });
    let _ = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(limits::H2_PING_INTERVAL)
        .keep_alive_timeout(limits::H2_PING_TIMEOUT)
        .max_concurrent_streams(limits::PROBE_STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// As much as an HTTP/1 head may hold.
const HEADER_LIST_MAX: u32 = 32 * 1024;
