//! gRPC through the proxy, with tonic on both sides: an implementation that is not ours.

use bytes::{Buf, BufMut};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::tokio_stream::{self, StreamExt};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::*;

/// Messages as they are: no schema is needed to carry them.
#[derive(Clone, Copy, Debug, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

type Outgoing = ReceiverStream<Result<Bytes, tonic::Status>>;

/// What the server saw of its calls.
#[derive(Debug, PartialEq)]
enum Seen {
    Timeout(String),
    /// A call's work was given up before its end.
    Cancelled,
}

/// Tells when a call is given up.
struct Work(Option<UnboundedSender<Seen>>);

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(seen) = self.0.take() {
            let _ = seen.send(Seen::Cancelled);
        }
    }
}

/// One method for all kinds of calls: what it does is in the messages.
#[derive(Clone)]
struct Echo(UnboundedSender<Seen>);

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl tonic::server::StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Outgoing;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<tonic::Response<Outgoing>, tonic::Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let seen = self.0.clone();
        Box::pin(async move {
            if let Some(timeout) = request.metadata().get("grpc-timeout") {
                let _ = seen.send(Seen::Timeout(timeout.to_str().unwrap().to_owned()));
            }
            let key = request.metadata().get_bin("key-bin").cloned();
            let (to, outgoing) = mpsc::channel(1);
            tokio::spawn(async move {
                let mut work = Work(Some(seen));
                let mut incoming = request.into_inner();
                while let Some(message) = incoming.next().await {
                    let Ok(message) = message else { return };
                    let told = match &message[..] {
                        [b'c', b'o', b'd', b'e', code] => {
                            to.send(Err(tonic::Status::new(i32::from(*code).into(), ""))).await
                        }
                        b"fail" => to.send(Err(tonic::Status::data_loss("gr\u{fc}n %"))).await,
                        b"stall" => {
                            let _ = to.send(Ok(message)).await;
                            return to.closed().await;
                        }
                        _ => to.send(Ok(message)).await,
                    };
                    if told.is_err() {
                        return;
                    }
                }
                work.0 = None;
            });
            let mut response = tonic::Response::new(ReceiverStream::new(outgoing));
            if let Some(key) = key {
                response.metadata_mut().insert_bin("key-bin", key);
            }
            Ok(response)
        })
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Echo {
    type Response = Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Plain).max_decoding_message_size(64 << 20);
            Ok(grpc.streaming(echo, request).await)
        })
    }
}

/// A tonic server. Dropped, it is gone with all its connections.
struct Server {
    address: SocketAddr,
    seen: UnboundedReceiver<Seen>,
    accepted: Arc<std::sync::atomic::AtomicUsize>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn at(address: SocketAddr) -> Self {
        let (tell, seen) = unbounded_channel();
        let listener = bind(address, 1).unwrap().remove(0);
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let (give, incoming) = mpsc::channel::<std::io::Result<TcpStream>>(8);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::SeqCst);
                    let _ = give.send(Ok(stream)).await;
                }
            });
            let incoming = ReceiverStream::new(incoming);
            tonic::transport::Server::builder().add_service(Echo(tell)).serve_with_incoming(incoming).await
        });
        Self { address, seen, accepted, runtime: Some(runtime) }
    }

    async fn saw(&mut self) -> Seen {
        within(self.seen.recv()).await.expect("the server lives")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Client = tonic::client::Grpc<Channel>;

async fn client(plane: &Plane) -> Client {
    let channel = Channel::from_shared(format!("http://{}", plane.address)).unwrap().connect().await.unwrap();
    tonic::client::Grpc::new(channel).max_decoding_message_size(64 << 20)
}

fn method() -> http::uri::PathAndQuery {
    http::uri::PathAndQuery::from_static("/test.Echo/Any")
}

async fn unary(client: &mut Client, message: &str) -> Result<tonic::Response<Bytes>, tonic::Status> {
    within(client.ready()).await.unwrap();
    let request = tonic::Request::new(Bytes::copy_from_slice(message.as_bytes()));
    within(client.unary(request, method(), Plain)).await
}

/// A call in both directions, and its sending end.
async fn open(client: &mut Client) -> (mpsc::Sender<Bytes>, Streaming<Bytes>) {
    let (send, messages) = mpsc::channel(1);
    within(client.ready()).await.unwrap();
    let response = within(client.streaming(tonic::Request::new(ReceiverStream::new(messages)), method(), Plain)).await;
    (send, response.unwrap().into_inner())
}

#[tokio::test]
async fn a_call_passes_with_its_metadata_and_its_status() {
    let server = Server::start();
    let plane = Plane::start(&[server.address], Setting::default());
    let mut client = client(&plane).await;
    let mut request = tonic::Request::new(Bytes::from_static(b"hello"));
    request.metadata_mut().insert_bin("key-bin", MetadataValue::from_bytes(&[0, 255, 7]));
    client.ready().await.unwrap();
    let response = within(client.unary(request, method(), Plain)).await.unwrap();
    assert_eq!(response.metadata().get_bin("key-bin").unwrap().to_bytes().unwrap(), &[0, 255, 7][..]);
    assert_eq!(response.into_inner(), "hello");
    let failed = unary(&mut client, "fail").await.unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::DataLoss, "gr\u{fc}n %"));
    plane.until("counted", |c| c.forwarded(200) == 2 && c.in_flight() == 0).await;
}

#[tokio::test]
async fn a_status_that_blames_the_server_is_a_failure_and_one_that_blames_the_client_or_the_load_is_none() {
    let server = Server::start();
    let plane = Plane::start(&[server.address], Setting::default());
    let mut client = client(&plane).await;
    let mut expected = (0, 0);
    for code in 0..=16_u8 {
        let said = unary(&mut client, &format!("code{}", char::from(code))).await.map_err(|status| status.code());
        assert_eq!(said.map(|_| ()).unwrap_err(), if code == 0 { Code::Internal } else { i32::from(code).into() });
        match code {
            // No message, and all is well: the server's own word.
            0 => expected.0 += 1,
            2 | 13 | 14 | 15 => expected.1 += 1,
            _ => {}
        }
        let ended = u64::from(code) + 1;
        plane.until("counted", |c| c.forwarded(200) == ended).await;
        let traffic = plane.counters().traffic();
        assert_eq!((traffic.succeeded, traffic.failed), expected, "after {code}");
    }
    let all: (u64, u64) = plane.counters().origins().shares.iter().fold((0, 0), |all, s| (all.0 + s.0, all.1 + s.1));
    assert_eq!(all, (expected.0 * 2, expected.1 * 2), "by caller and by input");
}

#[tokio::test]
async fn messages_stream_both_ways_one_by_one() {
    let server = Server::start();
    let plane = Plane::start(&[server.address], Setting::default());
    let (send, mut received) = open(&mut client(&plane).await).await;
    for turn in ["one", "two", "three"] {
        // The next is not sent before this one is back: nothing is held on the way.
        send.send(Bytes::from_static(turn.as_bytes())).await.unwrap();
        assert_eq!(within(received.next()).await.unwrap().unwrap(), turn);
    }
    drop(send);
    assert!(within(received.next()).await.is_none());
    plane.until("over", |c| c.in_flight() == 0 && c.forwarded(200) == 1).await;
}

#[tokio::test]
async fn many_messages_pass_in_either_direction_alone() {
    let server = Server::start();
    let plane = Plane::start(&[server.address], Setting::default());
    let mut client = client(&plane).await;
    client.ready().await.unwrap();
    let upload = tokio_stream::iter((0..500).map(|i| Bytes::from(format!("{i}"))));
    let response = within(client.streaming(tonic::Request::new(upload), method(), Plain)).await.unwrap();
    let all: Vec<Bytes> = within(response.into_inner().map(Result::unwrap).collect()).await;
    assert!(all.len() == 500 && all[499] == "499");
}

#[tokio::test]
async fn a_message_larger_than_every_window_passes_whole() {
    let server = Server::start();
    let plane = Plane::start(&[server.address], Setting::default());
    let mut client = client(&plane).await;
    let large: Bytes = (0..20 << 20).map(|i: u32| (i % 253) as u8).collect::<Vec<_>>().into();
    client.ready().await.unwrap();
    let back = within(client.unary(tonic::Request::new(large.clone()), method(), Plain)).await.unwrap();
    assert!(back.into_inner() == large, "the message was changed");
}

#[tokio::test]
async fn the_deadline_reaches_the_server_and_a_client_that_gives_up_ends_the_servers_work() {
    let mut server = Server::start();
    let plane = Plane::start(&[server.address], Setting::default());
    let mut client = client(&plane).await;
    let mut request = tonic::Request::new(Bytes::from_static(b"stall"));
    request.metadata_mut().insert("grpc-timeout", "5S".parse().unwrap());
    client.ready().await.unwrap();
    let call = client.unary(request, method(), Plain);
    tokio::select! {
        answer = call => panic!("a stalled call was answered {answer:?}"),
        seen = server.saw() => assert_eq!(seen, Seen::Timeout("5S".to_owned())),
    }
    assert_eq!(server.saw().await, Seen::Cancelled);
    plane.until("counted", |c| c.in_flight() == 0 && c.refused(Reason::ClientGone) == 1).await;
}

#[tokio::test]
async fn a_stream_that_the_client_drops_is_cancelled_at_the_server() {
    let mut server = Server::start();
    let plane = Plane::start(&[server.address], Setting::default());
    let mut client = client(&plane).await;
    let (send, mut received) = open(&mut client).await;
    send.send(Bytes::from_static(b"stall")).await.unwrap();
    within(received.next()).await.unwrap().unwrap();
    drop((send, received));
    assert_eq!(server.saw().await, Seen::Cancelled);
    plane.until("over", |c| c.in_flight() == 0).await;
    // The shared connection lives on.
    assert_eq!(unary(&mut client, "next").await.unwrap().into_inner(), "next");
    assert_eq!(server.accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn all_calls_of_a_worker_share_one_connection() {
    let server = Server::start();
    let plane = Plane::start(&[server.address], Setting::default());
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let client = client(&plane).await;
        for _ in 0..50 {
            let mut client = client.clone();
            calls.spawn(async move { unary(&mut client, "x").await.map(tonic::Response::into_inner) });
        }
    }
    while let Some(call) = within(calls.join_next()).await {
        assert_eq!(call.unwrap().unwrap(), "x");
    }
    assert_eq!(server.accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_dies_fails_its_calls_and_its_successor_is_dialled() {
    let server = Server::start();
    let address = server.address;
    let plane = Plane::start(&[address], Setting::default());
    let mut client = client(&plane).await;
    let (send, mut received) = open(&mut client).await;
    send.send(Bytes::from_static(b"x")).await.unwrap();
    within(received.next()).await.unwrap().unwrap();
    drop(server);
    assert!(within(received.next()).await.is_some_and(|end| end.is_err()), "the end of a broken stream was made up");
    let refused = unary(&mut client, "y").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    // A connection that the dying server had still taken is reset.
    let reason = refused.metadata().get("x-probegate-reason").unwrap();
    assert!(reason == "upstream_refused" || reason == "upstream_reset", "{reason:?}");
    let _successor = Server::at(address);
    assert_eq!(unary(&mut client, "z").await.unwrap().into_inner(), "z");
}

#[tokio::test]
async fn refusals_are_said_in_grpcs_own_words() {
    let server = Server::start();
    let mut setting = Setting::default();
    setting.traffic.max_in_flight = Some(1);
    let plane = Plane::start(&[server.address], setting);
    let mut client = client(&plane).await;
    let (_send, _received) = open(&mut client).await;
    let full = unary(&mut client, "x").await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted, "{full:?}");
    assert_eq!(full.metadata().get("x-probegate-reason").unwrap(), "queue_full");
    plane.judge(|next| not_ready(next, vec![Cause::Starting]));
    let closed = unary(&mut client, "x").await.unwrap_err();
    assert_eq!((closed.code(), closed.message()), (Code::Unavailable, "the model server is not ready"));
    assert_eq!(closed.metadata().get("x-probegate-reason").unwrap(), "not_ready");
    assert_eq!(closed.metadata().get("retry-after").unwrap(), "1");
}

#[tokio::test]
async fn a_drain_lets_calls_end_and_sends_new_ones_elsewhere() {
    let server = Server::start();
    let mut plane = Plane::start(&[server.address], Setting::default());
    let (send, mut received) = open(&mut client(&plane).await).await;
    send.send(Bytes::from_static(b"before")).await.unwrap();
    within(received.next()).await.unwrap().unwrap();
    plane.orders.send_replace(Order::Finish { within: PATIENCE });
    send.send(Bytes::from_static(b"after")).await.unwrap();
    assert_eq!(within(received.next()).await.unwrap().unwrap(), "after");
    drop(send);
    assert!(within(received.next()).await.is_none());
    plane.join();
}
