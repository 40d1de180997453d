//! The admin listener: the status page, the report, and the few commands that people and scripts may give.
//!
//! It owns who may come in (loopback, a Unix socket, or a token) and what a command must look like. It
//! refuses to carry one out: commands go to the driver, and its answer is the answer.

mod events;
mod guard;
mod routes;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::limit::ConcurrencyLimit;
use tower::load_shed::LoadShed;
use tower::timeout::Timeout;
use tower::util::BoxCloneService;
use tower::{BoxError, ServiceExt, service_fn};

use super::report::{Report, Surroundings};
use crate::clock::Clock;
use crate::control::Control;
use crate::limits;
use crate::publish::Published;
use crate::secret::SecretSource;

/// An admin response: most are short, one is a stream.
type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Where admins come in.
#[derive(Debug)]
pub enum AdminListener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// What the admin listener answers from, and whom it obeys.
pub struct AdminAnswers {
    pub published: Arc<Published>,
    pub clock: Clock,
    pub control: Control,
    /// Whoever comes must show it. None: only loopback and a Unix socket may be listened on.
    pub token: Option<SecretSource>,
    pub surroundings: Arc<dyn Surroundings>,
    pub readers: EventReaders,
}

/// Places for those who follow `/api/events`. Fewer than there are connections: open status pages must not keep out
/// the hook that starts a drain.
#[derive(Debug)]
pub struct EventReaders(Arc<Semaphore>);

impl Default for EventReaders {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(limits::EVENTS_READERS_MAX)))
    }
}

/// Which way a request came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Tcp,
    /// The file system already decided who may connect.
    Unix,
}

/// Serves admins on `listener` until `shutdown`.
///
/// # Errors
/// The listener cannot be used by the runtime.
pub async fn serve_admin(
    listener: AdminListener,
    admin: Arc<AdminAnswers>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    match listener {
        AdminListener::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let edge = Edge::new(admin, Way::Tcp);
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        edge.take(&mut connections, accepted.map(|(stream, _)| stream)).await;
                    }
                    Some(_) = connections.join_next() => {}
                    () = &mut shutdown => return Ok(()),
                }
            }
        }
        AdminListener::Unix(listener) => {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::UnixListener::from_std(listener)?;
            let edge = Edge::new(admin, Way::Unix);
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        edge.take(&mut connections, accepted.map(|(stream, _)| stream)).await;
                    }
                    Some(_) = connections.join_next() => {}
                    () = &mut shutdown => return Ok(()),
                }
            }
        }
    }
}

/// The limits around the service, shared by all connections of a listener.
struct Edge {
    admin: Arc<AdminAnswers>,
    way: Way,
    room: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

/// After an accept that failed (no descriptors left), before the next.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

impl Edge {
    fn new(admin: Arc<AdminAnswers>, way: Way) -> Self {
        let room = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
        let working = Arc::new(Semaphore::new(limits::ADMIN_CONCURRENCY_MAX));
        Self { admin, way, room, working }
    }

    /// Serves a connection on its own task; one too many is closed at once.
    async fn take<S>(&self, connections: &mut JoinSet<()>, accepted: io::Result<S>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Ok(stream) = accepted else { return tokio::time::sleep(ACCEPT_PAUSE).await };
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else { return };
        let (admin, way) = (Arc::clone(&self.admin), self.way);
        let answer = service_fn(move |request| {
            let admin = Arc::clone(&admin);
            async move { Ok::<_, Infallible>(routes::answer(&admin, way, request).await) }
        });
        let limited =
            ConcurrencyLimit::with_semaphore(Timeout::new(answer, limits::ADMIN_TIMEOUT), Arc::clone(&self.working));
        let shed = LoadShed::new(limited).map_result(settled).map_err(io::Error::other::<BoxError>);
        let service: BoxCloneService<Request<Incoming>, Reply, io::Error> = BoxCloneService::new(shed);
        connections.spawn(async move {
            let _place = place;
            // How a client ends its connection is its own business.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits::FIRST_HEAD)
                .max_header_size(limits::HEAD_BYTES_MAX)
                .max_buf_size(2 * limits::HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
                .await;
        });
    }
}

/// What the layers refuse is an answer too.
fn settled(result: Result<Reply, BoxError>) -> Result<Reply, BoxError> {
    Ok(result.unwrap_or_else(|error| {
        if error.is::<tower::timeout::error::Elapsed>() {
            refusal(StatusCode::GATEWAY_TIMEOUT, "the engine did not answer in time")
        } else {
            refusal(StatusCode::SERVICE_UNAVAILABLE, "too many admin requests at once")
        }
    }))
}

/// A JSON error.
fn refusal(code: StatusCode, why: &str) -> Reply {
    json(code, &serde_json::json!({ "error": why }))
}

fn json(code: StatusCode, value: &impl serde::Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => reply(code, "application/json", body),
        Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, "application/json", &br#"{"error":"no JSON of it"}"#[..]),
    }
}

fn reply(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    dressed(code, content_type, Full::new(body.into()).boxed_unsync())
}

/// With the headers that every admin response has.
fn dressed(code: StatusCode, content_type: &'static str, body: UnsyncBoxBody<Bytes, Infallible>) -> Reply {
    use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl AdminAnswers {
    fn report(&self) -> Report {
        Report::new(&self.published.load(), &self.clock, &*self.surroundings)
    }
}

impl fmt::Debug for AdminAnswers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminAnswers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
