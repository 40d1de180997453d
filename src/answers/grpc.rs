//! `grpc.health.v1.Health` on the published judgement: Check, Watch, List.
//!
//! Services are `""` (= readiness), `readiness`, `liveness` and `startup`. It keeps no state of its own, so
//! that gRPC and HTTP can never disagree.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::ProbeAnswers;
use crate::engine::Gate;

const SERVICES: [(&str, Gate); 4] =
    [("", Gate::Ready), ("liveness", Gate::Health), ("readiness", Gate::Ready), ("startup", Gate::Startup)];
/// `HealthCheckRequest` holds one name; longer requests are nobody's.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Where a gRPC path begins.
pub(super) const PATH: &str = "/grpc.health.v1.Health/";
const LIST: &str = "/grpc.health.v1.Health/List";

/// Answers one gRPC request on the health service.
pub(super) async fn answer(answers: &Arc<ProbeAnswers>, request: http::Request<Incoming>) -> http::Response<Body> {
    let service = Service(Arc::clone(answers));
    if request.uri().path() == LIST {
        let mut grpc = tonic::server::Grpc::new(ListCodec).max_decoding_message_size(MESSAGE_BYTES_MAX);
        return grpc.unary(service, request).await;
    }
    let mut server = HealthServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let Ok(response) = tower::Service::call(&mut server, request).await;
    response
}

#[derive(Clone, Debug)]
struct Service(Arc<ProbeAnswers>);

impl Service {
    fn status(&self, gate: Gate) -> ServingStatus {
        if self.0.published().load().gate(gate).status.passes() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }
}

fn gate(service: &str) -> Option<Gate> {
    SERVICES.iter().find(|(name, _)| *name == service).map(|(_, gate)| *gate)
}

const fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let started = self.0.clock().now();
        let gate = gate(&request.get_ref().service).ok_or_else(|| {
            Status::not_found("unknown service: known are \"\", \"liveness\", \"readiness\" and \"startup\"")
        })?;
        let status = self.status(gate);
        self.0.count(gate, status == ServingStatus::Serving, started);
        Ok(Response::new(response(status)))
    }

    type WatchStream = Watch;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Watch>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        let service = self.clone();
        let gate = gate(&request.get_ref().service);
        tokio::spawn(async move {
            let mut changed = service.0.published().subscribe();
            let mut told = None;
            loop {
                // An unknown service stays unknown: the names are fixed.
                let status = gate.map_or(ServingStatus::ServiceUnknown, |gate| service.status(gate));
                if told != Some(status) && sender.send(Ok(response(status))).await.is_err() {
                    return;
                }
                told = Some(status);
                tokio::select! {
                    change = changed.changed() => if change.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Watch(receiver)))
    }
}

/// The statuses of one watched service, each when it differs from the last.
#[derive(Debug)]
struct Watch(mpsc::Receiver<Result<HealthCheckResponse, Status>>);

impl Stream for Watch {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// `List`, which the generated service does not have yet: an empty request, a map of statuses.
impl tonic::server::UnaryService<()> for Service {
    type Response = [(&'static str, ServingStatus); 4];
    type Future = std::future::Ready<Result<Response<Self::Response>, Status>>;

    fn call(&mut self, _request: Request<()>) -> Self::Future {
        std::future::ready(Ok(Response::new(SERVICES.map(|(name, gate)| (name, self.status(gate))))))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct ListCodec;

impl Codec for ListCodec {
    type Encode = [(&'static str, ServingStatus); 4];
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for ListCodec {
    type Item = [(&'static str, ServingStatus); 4];
    type Error = Status;

    /// `message HealthListResponse { map<string, HealthCheckResponse> statuses = 1; }`: each entry is a
    /// message of a key (1) and a value (2). Every length here is below 128 and so one byte.
    fn encode(&mut self, statuses: Self::Item, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        const KEY: u8 = 0x0a;
        const VALUE: u8 = 0x12;
        const STATUS: u8 = 0x08;
        for (name, status) in statuses {
            let key = u8::try_from(name.len()).map_err(|_| Status::internal("service name too long"))?;
            out.put_slice(&[KEY, key + 6, KEY, key]);
            out.put_slice(name.as_bytes());
            out.put_slice(&[VALUE, 2, STATUS, status as u8]);
        }
        Ok(())
    }
}

impl Decoder for ListCodec {
    type Item = ();
    type Error = Status;

    /// The request has no fields; unknown ones are skipped, as protobuf asks.
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        from.advance(from.remaining());
        Ok(Some(()))
    }
}
