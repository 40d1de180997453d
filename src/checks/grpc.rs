//! `grpc`: the standard health service says SERVING.
//!
//! Through tonic's own client, on a connection of this attempt alone: hyper's HTTP/2 over our socket, whose
//! tasks are aborted with the attempt.

use http::Uri;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::Scene;
use crate::config::GrpcCheck;
use crate::engine::{Fault, Outcome, Sign};
use crate::net::connect::{connect, split_host_port};
use crate::net::http::AGENT;
use crate::net::tls::handshake;
use crate::net::{Failure, Nursery, Waiting};

/// A health answer is a few bytes.
const ANSWER_BYTES_MAX: usize = 4096;

pub(super) async fn attempt(spec: &GrpcCheck, scene: &Scene) -> Outcome {
    match ask(spec, &|what| scene.waiting_for(what)).await {
        Ok(answer) => {
            scene.saw(Sign::Answered);
            match judge(spec, answer) {
                Ok(()) => scene.pass(),
                Err(reason) => scene.fail(Fault::Answer, reason),
            }
        }
        Err(failure) => scene.failed(failure),
    }
}

/// What the server said: a serving status by number, or a gRPC status.
type Answer = Result<i32, Status>;

async fn ask(spec: &GrpcCheck, waiting: Waiting<'_>) -> Result<Answer, Failure> {
    let stream = connect(&spec.address, waiting).await?;
    let Some(tls) = &spec.tls else { return call(stream, "http", spec, waiting).await };
    let host = split_host_port(&spec.address).map_or(spec.address.as_str(), |(host, _)| host);
    let stream = handshake(stream, tls, host, &spec.address, &[b"h2"], waiting).await?;
    call(stream, "https", spec, waiting).await
}

async fn call<S>(stream: S, scheme: &str, spec: &GrpcCheck, waiting: Waiting<'_>) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let address = &spec.address;
    waiting(format!("the HTTP/2 settings of {address}"));
    // Dropped last, and with it every task of the connection.
    let nursery = Nursery::default();
    let (sender, connection) = http2::Builder::new(nursery.executor())
        .handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::unreachable(format!("no HTTP/2 connection to {address}: {error}")))?;
    nursery.spawn(async move {
        // Its error is the question's error too, which is told.
        let _ = connection.await;
    });
    let origin: Uri = format!("{scheme}://{address}")
        .parse()
        .map_err(|_| Failure::local(format!("{address:?} is no authority for a URL")))?;
    let service = tower::service_fn(move |mut request: http::Request<Body>| {
        let mut sender = sender.clone();
        request.headers_mut().insert(http::header::USER_AGENT, http::HeaderValue::from_static(AGENT));
        async move { sender.send_request(request).await }
    });
    let mut client = HealthClient::with_origin(service, origin).max_decoding_message_size(ANSWER_BYTES_MAX);
    waiting(format!("a health answer from {address}"));
    let request = Request::new(HealthCheckRequest { service: spec.service.clone() });
    match client.check(request).await {
        Ok(response) => Ok(Ok(response.into_inner().status)),
        Err(status) => match transport_failure(&status, address) {
            Some(failure) => Err(failure),
            None => Ok(Err(status)),
        },
    }
}

/// Tells a status that the server sent from one that the client made up of a broken connection.
fn transport_failure(status: &Status, address: &str) -> Option<Failure> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            let io = std::error::Error::source(error).and_then(|io| io.downcast_ref::<std::io::Error>());
            return Some(match io {
                Some(io) => crate::net::connect::io_failure(address, io),
                None if error.is_closed() || error.is_canceled() => {
                    Failure::unreachable(format!("connection closed by {address} without an answer"))
                }
                None => Failure::answer(format!("{address} does not speak gRPC")),
            });
        }
        cause = error.source();
    }
    None
}

fn judge(spec: &GrpcCheck, answer: Answer) -> Result<(), String> {
    let whom = match spec.service.as_str() {
        "" => "the server".to_owned(),
        service => format!("service {service:?}"),
    };
    match answer {
        Ok(status) => match ServingStatus::try_from(status) {
            Ok(ServingStatus::Serving) => Ok(()),
            Ok(ServingStatus::NotServing) => Err(format!("{whom} is NOT_SERVING")),
            Ok(ServingStatus::Unknown) => Err(format!("{whom} is UNKNOWN: it has not said yet")),
            Ok(ServingStatus::ServiceUnknown) => Err(format!("{whom} is SERVICE_UNKNOWN to it")),
            Err(_) => Err(format!("{whom} has status {status}, which the protocol does not know")),
        },
        Err(status) => Err(match status.code() {
            Code::NotFound => format!("{whom} is NOT_FOUND: no such service in its health service"),
            Code::Unimplemented => "UNIMPLEMENTED: it has no grpc.health.v1 health service".to_owned(),
            code => format!("the health service answered {code:?}: {}", status.message()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper_util::rt::TokioExecutor;
    use tonic_health::ServingStatus as Served;
    use tonic_health::server::{HealthReporter, health_reporter};

    use super::*;
    use crate::checks::tests::run;
    use crate::config::{Kind, TlsClient};
    use crate::engine::Verdict;
    use crate::net::peer::{self, Authority, Then, raw, respond};

    /// Serves tonic's own health service over one accepted stream.
    async fn serve<S>(stream: S, reporter: HealthReporter)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(reporter),
        );
        let service = hyper_util::service::TowerToHyperService::new(service);
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn reporter(service: &str, status: Served) -> HealthReporter {
        let (reporter, _) = health_reporter();
        reporter.set_service_status(service, status).await;
        reporter
    }

    async fn server(service: &str, status: Served) -> String {
        let reporter = reporter(service, status).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, reporter.clone()));
            }
        });
        address
    }

    async fn check(address: &str, service: &str) -> Outcome {
        let spec = GrpcCheck { address: address.to_owned(), service: service.to_owned(), tls: None };
        run(Kind::Grpc(spec)).await
    }

    #[tokio::test]
    async fn serving_passes_for_the_server_and_for_a_service() {
        let address = server("model", Served::Serving).await;
        for service in ["", "model"] {
            let outcome = check(&address, service).await;
            assert_eq!(outcome.verdict, Verdict::Pass, "{}", outcome.reason);
            assert_eq!(outcome.sign, Some(Sign::Answered));
        }
    }

    #[tokio::test]
    async fn every_other_status_fails_in_its_own_words() {
        for (status, words) in [(Served::NotServing, "NOT_SERVING"), (Served::Unknown, "UNKNOWN: it has not said yet")]
        {
            let outcome = check(&server("m", status).await, "m").await;
            assert_eq!(outcome.reason, format!("service \"m\" is {words}"));
            assert_eq!(outcome.verdict, Verdict::Fail(Fault::Answer));
        }
        let outcome = check(&server("m", Served::Serving).await, "other").await;
        assert_eq!(outcome.reason, "service \"other\" is NOT_FOUND: no such service in its health service");
        let spec = GrpcCheck { address: String::new(), service: String::new(), tls: None };
        assert_eq!(judge(&spec, Ok(3)).unwrap_err(), "the server is SERVICE_UNKNOWN to it");
        assert!(judge(&spec, Ok(77)).unwrap_err().contains("status 77"));
        assert!(judge(&spec, Err(Status::unimplemented(""))).unwrap_err().starts_with("UNIMPLEMENTED"));
    }

    #[tokio::test]
    async fn grpc_over_tls_is_asked_with_the_roots_given() {
        let (ca, now) = (Authority::new(), peer::unix_now());
        let reporter = reporter("m", Served::Serving).await;
        let identity = ca.issue("localhost", now - peer::DAY, now + peer::DAY);
        let address = peer::tls(identity, &[b"h2"], move |stream| serve(stream, reporter.clone())).await;
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, &ca.pem).unwrap();
        let check = async |ca_file| {
            let tls = Some(TlsClient { ca_file, ..TlsClient::default() });
            let address = address.replace("127.0.0.1", "localhost");
            run(Kind::Grpc(GrpcCheck { address, service: "m".to_owned(), tls })).await
        };
        let outcome = check(Some(ca_file)).await;
        assert_eq!(outcome.verdict, Verdict::Pass, "{}", outcome.reason);
        assert!(check(None).await.reason.starts_with("unknown issuer"));
    }

    #[tokio::test]
    async fn a_server_of_another_protocol_and_a_dead_one_are_told_apart() {
        let address = peer::http(|_| respond(200, "")).await;
        let outcome = check(&address, "").await;
        assert!(matches!(outcome.verdict, Verdict::Fail(Fault::Answer | Fault::Unreachable)), "{outcome:?}");
        assert!(outcome.reason.contains(&address), "{outcome:?}");
        let garbage = check(&raw("garbage garbage garbage garbage", Then::Close).await.address, "").await;
        assert!(matches!(garbage.verdict, Verdict::Fail(Fault::Answer | Fault::Unreachable)), "{garbage:?}");
        let closed = format!("127.0.0.1:{}", peer::closed_port().await);
        let outcome = check(&closed, "").await;
        assert_eq!(outcome.reason, format!("connection refused by {closed}"));
        assert_eq!(outcome.sign, Some(Sign::Refused));
    }

    #[tokio::test]
    async fn a_silent_server_is_left_at_the_deadline() {
        let mut peer = raw("", Then::Hold).await;
        let outcome = check(&peer.address, "").await;
        assert_eq!(outcome.verdict, Verdict::Fail(Fault::Timeout));
        assert!(outcome.reason.ends_with(&format!("waiting for a health answer from {}", peer.address)));
        assert!(outcome.latency < Duration::from_secs(5));
        peer.left().await;
    }
}
