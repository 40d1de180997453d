//! More requests than one HTTP/2 connection of the model server takes, and what passes untouched over both
//! protocols.

use std::cell::Cell;
use std::rc::Rc;

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Semaphore;

use super::*;

/// A model server that takes so many streams on a connection, and answers when it is let.
struct Narrow {
    address: SocketAddr,
    connections: Arc<std::sync::atomic::AtomicUsize>,
    working: Arc<std::sync::atomic::AtomicUsize>,
    go: Arc<Semaphore>,
}

impl Narrow {
    async fn start(streams: Option<u32>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this =
            Self { address, connections: Arc::default(), working: Arc::default(), go: Arc::new(Semaphore::new(0)) };
        let (connections, working, go) =
            (Arc::clone(&this.connections), Arc::clone(&this.working), Arc::clone(&this.go));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (working, go) = (Arc::clone(&working), Arc::clone(&go));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (working, go) = (Arc::clone(&working), Arc::clone(&go));
                    async move {
                        request.into_body().collect().await?;
                        working.fetch_add(1, Ordering::SeqCst);
                        go.acquire().await.unwrap().forget();
                        Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::from("served")))
                    }
                });
                let mut serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                serving.max_concurrent_streams(streams);
                tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
            }
        });
        this
    }

    async fn until_working(&self, count: usize) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.working.load(Ordering::SeqCst) < count {
            assert!(tokio::time::Instant::now() < deadline, "{} of {count}", self.working.load(Ordering::SeqCst));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

type Client = http2::SendRequest<Full<Bytes>>;

async fn client(plane: &Plane) -> Client {
    let stream = TcpStream::connect(plane.address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn asked(path: &str) -> Request<Full<Bytes>> {
    Request::post(format!("http://model{path}")).body(Full::from("x")).unwrap()
}

#[tokio::test]
async fn requests_beyond_the_streams_of_one_connection_go_over_another() {
    for (streams, requests, connections) in [(Some(4), 20, 5), (Some(1), 3, 3), (None, 150, 1)] {
        let model = Narrow::start(streams).await;
        let plane = Plane::start(&[model.address], Setting::default());
        let sender = client(&plane).await;
        let all: Vec<_> = (0..requests)
            .map(|_| {
                let mut sender = sender.clone();
                tokio::spawn(async move { sender.send_request(asked("/")).await.unwrap().status().as_u16() })
            })
            .collect();
        model.until_working(requests).await;
        assert_eq!(model.connections.load(Ordering::SeqCst), connections, "{streams:?}");
        model.go.add_permits(requests);
        for one in all {
            assert_eq!(within(one).await.unwrap(), 200);
        }
        // What has room again is used again.
        model.go.add_permits(1);
        assert_eq!(within(sender.clone().send_request(asked("/"))).await.unwrap().status(), 200);
        assert_eq!(model.connections.load(Ordering::SeqCst), connections, "{streams:?}");
    }
}

#[tokio::test]
async fn streams_of_one_connection_wait_in_line_and_take_turns_with_another_connection() {
    let model = Narrow::start(None).await;
    let mut setting = Setting::default();
    setting.traffic.max_in_flight = Some(1);
    setting.traffic.queue = Some(config::Queue { max: 20, max_bytes: None, timeout: PATIENCE });
    let plane = Plane::start(&[model.address], setting);
    let (greedy, modest) = (client(&plane).await, client(&plane).await);
    let order = Rc::new(Cell::new(0));
    let local = tokio::task::LocalSet::new();
    let place = local
        .run_until(async {
            let send = |mut sender: Client| {
                let order = Rc::clone(&order);
                tokio::task::spawn_local(async move {
                    assert_eq!(sender.send_request(asked("/")).await.unwrap().status(), 200);
                    order.set(order.get() + 1);
                    order.get()
                })
            };
            let first = send(greedy.clone());
            model.until_working(1).await;
            let many: Vec<_> = (0..9).map(|_| send(greedy.clone())).collect();
            plane.until("nine wait", |c| c.queued() == 9).await;
            let one = send(modest);
            plane.until("ten wait", |c| c.queued() == 10).await;
            model.go.add_permits(11);
            within(first).await.unwrap();
            for sent in many {
                within(sent).await.unwrap();
            }
            within(one).await.unwrap()
        })
        .await;
    assert!(place <= 4, "it was served as number {place} of 11");
}

#[tokio::test]
async fn higher_priority_goes_first_and_pushes_the_lowest_out_of_a_full_queue() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.max_in_flight = Some(1);
    setting.traffic.queue = Some(config::Queue { max: 2, max_bytes: None, timeout: PATIENCE });
    setting.traffic.priority_header = Some(HeaderName::from_static("x-priority"));
    let plane = Plane::start(&[model.address], setting);
    let mut clients = Vec::new();
    for (name, priority, queued) in [("a", "0", 0), ("b", "0", 1), ("c", "-1", 2), ("d", "5", 2)] {
        let mut client = plane.client().await;
        client.send(format!("GET /{name} HTTP/1.1\r\nhost: m\r\nx-priority: {priority}\r\n\r\n")).await;
        if name == "d" {
            let head = clients.last_mut().map(Wire::head).unwrap().await;
            assert!(head.starts_with("HTTP/1.1 503") && head.contains("queue_full"), "{head}");
        } else {
            plane.until("it is there", |c| c.in_flight() == 1 && c.queued() == queued).await;
        }
        clients.push(client);
    }
    let mut server = model.accept().await;
    for name in ["a", "d", "b"] {
        let head = server.head().await;
        assert!(head.starts_with(&format!("GET /{name} ")), "{head}");
        server.send(ok(name)).await;
    }
}

#[tokio::test]
async fn a_limit_that_a_reload_brings_counts_who_is_inside() {
    let model = Model::start().await;
    let mut plane = Plane::start(&[model.address], Setting::default());
    let mut inside = plane.client().await;
    inside.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    plane.config.traffic.max_in_flight = Some(1);
    plane.shared.configure(&plane.config, &plane.upstreams).unwrap();
    let mut late = plane.client().await;
    late.send(get("/")).await;
    assert!(late.head().await.contains("x-probegate-reason: queue_full\r\n"));
    server.send(ok("x")).await;
    inside.until("x").await;
    plane.until("room", |c| c.in_flight() == 0).await;
    let mut next = plane.client().await;
    next.send(get("/")).await;
    server.head().await;
    server.send(ok("y")).await;
    next.until("y").await;
}

const TRACE: [(&str, &str); 4] = [
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("tracestate", "vendor=opaque,other=1"),
    ("baggage", "user=7;secret=no, region=eu"),
    ("x-request-id", "f058ebd6-02f7-4d3f-942e-904344e8cde5"),
];

#[tokio::test]
async fn a_trace_passes_untouched_over_either_protocol() {
    for (protocol, over_http2) in [
        (UpstreamProtocol::Http1, false),
        (UpstreamProtocol::Http1, true),
        (UpstreamProtocol::H2c, false),
        (UpstreamProtocol::H2c, true),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, mut heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |request: Request<Incoming>| {
                tell.send(request.headers().clone()).unwrap();
                async { Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::default())) }
            });
            let io = TokioIo::new(stream);
            match protocol {
                UpstreamProtocol::H2c => {
                    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    http.serve_connection(io, service).await
                }
                _ => hyper::server::conn::http1::Builder::new().serve_connection(io, service).await,
            }
        });
        let plane = Plane::start(&[address], Setting { protocol, ..Setting::default() });
        if over_http2 {
            let mut request = asked("/");
            for (name, value) in TRACE {
                request.headers_mut().append(name, value.parse().unwrap());
            }
            within(client(&plane).await.send_request(request)).await.unwrap();
        } else {
            let fields: String = TRACE.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let mut client = plane.client().await;
            client.send(format!("GET / HTTP/1.1\r\nhost: m\r\n{fields}\r\n")).await;
            client.head().await;
        }
        let headers = within(heard.recv()).await.unwrap();
        for (name, value) in TRACE {
            let all: Vec<_> = headers.get_all(name).iter().collect();
            assert_eq!(all, [value], "{name} over {protocol:?}, HTTP/2: {over_http2}");
        }
    }
}
