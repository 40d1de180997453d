//! The real traffic plane, one worker, between a client and model servers of a few instructions each: blocking
//! sockets, fixed bytes, one request at a time. What remains in the count is the proxy.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use probegate::clock::Clock;
use probegate::config::{self, Config, Overrides};
use probegate::engine::{Engine, Input, Outcome, Output, Snapshot, Status, Time};
use probegate::proxy::{Order, Shared, Wiring, bind, worker};
use probegate::publish::Published;
use tokio::sync::watch;

const REQUEST: &[u8] =
    b"POST /predict HTTP/1.1\r\nhost: model.test\r\naccept: */*\r\ncontent-type: application/json\r\n\
content-length: 60\r\n\r\n{\"instances\":[[5.1,3.5,1.4,0.2]],\"model\":\"iris\",\"version\":1}";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 60\r\n\r\n\
{\"predictions\":[{\"label\":\"setosa\",\"probability\":0.9731205}]}";
/// How both bodies end.
const END: u8 = b'}';
/// An answer that has not come by then does not come. Instrumented code is some fifty times slower.
const PATIENCE: Duration = Duration::from_secs(30);
/// Until every check of the plan has passed, and long before it.
const EVENTS_MAX: usize = 1_000;

/// A running plane and the client's connection through it. The process's end is its end.
pub(crate) struct Plane {
    client: TcpStream,
    /// Dropping it would stop the worker.
    _orders: watch::Sender<Order>,
}

impl Plane {
    /// In front of so many model servers, all of them ready, chosen among by `upstream.algorithm`.
    pub(crate) fn start(upstreams: usize, algorithm: &str) -> io::Result<Self> {
        let backends = (0..upstreams).map(|_| model_server()).collect::<io::Result<Vec<SocketAddr>>>()?;
        let config = configuration(&backends, algorithm)?;
        let published = Published::new(ready(&config)?);
        let wiring = Wiring { workers: 1, signs: None, probes: None, access: None };
        let shared = Shared::new(&config, &backends, published, Clock::start(), wiring).map_err(io::Error::other)?;
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), 1)?.pop().ok_or(io::ErrorKind::NotFound)?;
        let address = listener.local_addr()?;
        let (orders, order) = watch::channel(Order::Serve);
        thread::Builder::new().name("traffic-0".into()).spawn(move || worker(0, listener, shared, order))?;
        let client = TcpStream::connect(address)?;
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { client, _orders: orders })
    }

    /// There and back.
    pub(crate) fn request(&mut self) -> io::Result<()> {
        self.client.write_all(REQUEST)?;
        let mut buffer = [0; 2048];
        let length = whole_message(&mut self.client, &mut buffer)?;
        let answer = &buffer[..length];
        if answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(&ANSWER[ANSWER.len() - 60..]) {
            Ok(())
        } else {
            Err(io::Error::other(format!("answered {:?}", String::from_utf8_lossy(answer))))
        }
    }
}

/// Reads until the end of the only body that is ever sent here; 0 when the other side has closed.
fn whole_message(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    loop {
        let more = stream.read(&mut buffer[length..])?;
        length += more;
        // Two braces in a row end the answer; the question's only brace is its last byte.
        if more == 0 || buffer[..length].ends_with(&[END]) {
            return Ok(length);
        }
    }
}

/// Answers every request alike, on one connection after the other.
fn model_server() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("model".into()).spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.set_nodelay(true);
            while whole_message(&mut stream, &mut buffer).is_ok_and(|length| length > 0) {
                if stream.write_all(ANSWER).is_err() {
                    break;
                }
            }
        }
    })?;
    Ok(address)
}

/// Limits and counting on, as in a pod.
fn configuration(backends: &[SocketAddr], algorithm: &str) -> io::Result<Config> {
    let addresses: Vec<String> = backends.iter().map(|address| format!("\"{address}\"")).collect();
    let text = format!(
        "[upstream]\naddresses = [{}]\nalgorithm = \"{algorithm}\"\nmetrics = false\n\n[traffic]\nworkers = 1\nmax_in_flight = 1000\n\
         first_byte_timeout = \"60s\"\nclient_idle = \"10m\"\n",
        addresses.join(", ")
    );
    config::from_str(Path::new("instructions.toml"), &text, &Overrides::default())
        .map_err(|problems| io::Error::other(problems.to_string()))
}

/// The engine's own word that everything is up.
fn ready(config: &Config) -> io::Result<Snapshot> {
    let mut now = Time::from_secs(1);
    let mut engine = Engine::new(now, Arc::clone(&config.engine), 1);
    for _ in 0..EVENTS_MAX {
        while let Some(output) = engine.poll_output() {
            if let Output::Start { check, attempt, .. } = output {
                engine.handle_input(
                    now,
                    Input::Result { check, attempt, outcome: Outcome::pass(Duration::from_millis(1)) },
                );
            }
        }
        let snapshot = engine.snapshot();
        let open = snapshot.backends.iter().all(|backend| backend.enabled);
        if open && snapshot.ready.status != Status::Fail {
            return Ok(snapshot);
        }
        now = engine.poll_timeout().unwrap_or(now).max(now);
        engine.handle_timeout(now);
    }
    Err(io::Error::other("the engine does not get ready on checks that all pass"))
}
