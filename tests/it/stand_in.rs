//! A model server that stands in for one that cannot be had: from a data file it takes, for each state of its life,
//! the exact bytes of each endpoint's answer. It listens, refuses, answers or keeps silent as the state says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A state that answers nothing because nobody listens.
const REFUSED: &str = "refused";
/// An answer that never comes.
const SILENT: &str = "silent";
/// A page larger than anybody reads.
const HUGE: &str = "huge";
const HUGE_BYTES: usize = 11 * 1024 * 1024;
/// Any path that a state does not name.
const ELSE: &str = "*";

/// The answers of one server: `tests/data/servers/NAME.toml`.
pub(crate) struct Script {
    /// Raw answers by name. `{length}` is the body's length, `{done}` the number of requests worked off, `{asked}` that
    /// of the questions heard, health probes among them.
    pub(crate) answers: BTreeMap<String, String>,
    /// By state and path, the answer's name, or `silent`. `like` names a state to take the rest from.
    pub(crate) states: BTreeMap<String, BTreeMap<String, String>>,
}

impl Script {
    /// The name of a state's answer at a path.
    fn answer(&self, state: &str, path: &str) -> &str {
        let (mut at, mut wanted) = (state, None);
        let mut fallback = None;
        while wanted.is_none() {
            let paths = self.states.get(at).unwrap_or_else(|| panic!("no state is called {at}"));
            wanted = paths.get(path);
            fallback = fallback.or_else(|| paths.get(ELSE));
            match paths.get("like") {
                Some(like) => at = like,
                None => break,
            }
        }
        wanted.or(fallback).unwrap_or_else(|| panic!("{state} says nothing of {path}"))
    }

    /// As it goes over the wire; none is silence.
    fn bytes(&self, state: &str, path: &str, done: u64, asked: u64) -> Option<Vec<u8>> {
        let text = match self.answer(state, path) {
            SILENT => return None,
            HUGE => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE_BYTES}\r\n\r\n");
                return Some([head.as_bytes(), &vec![b'x'; HUGE_BYTES]].concat());
            }
            name => self.answers.get(name).unwrap_or_else(|| panic!("no answer is called {name}")),
        };
        // What is no HTTP goes out as it is.
        let Some((head, body)) = text.split_once("\n\n") else { return Some(text.as_bytes().to_vec()) };
        let body = body.replace("{done}", &done.to_string()).replace("{asked}", &asked.to_string());
        let head = head.replace("{length}", &body.len().to_string()).replace('\n', "\r\n");
        Some(format!("{head}\r\n\r\n{body}").into_bytes())
    }
}

/// What the connections of a server share.
struct Shared {
    script: Script,
    state: Mutex<String>,
    done: AtomicU64,
    asked: AtomicU64,
    /// Requests that were heard and are not answered.
    held: watch::Sender<usize>,
}

/// A running stand-in with two ports: the service's, and one for management and metrics.
pub(crate) struct StandIn {
    shared: Arc<Shared>,
    pub(crate) addresses: [SocketAddr; 2],
    open: Option<JoinSet<()>>,
    /// While it refuses: the ports, bound and not listening.
    closed: Vec<TcpSocket>,
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(address).expect("the port is ours");
    socket
}

impl StandIn {
    /// One that refuses.
    pub(crate) fn new(script: Script) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let closed = vec![bound(any), bound(any)];
        let addresses = [0, 1].map(|index: usize| closed[index].local_addr().expect("its address"));
        let shared = Shared {
            script,
            state: Mutex::new(REFUSED.to_owned()),
            done: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            held: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared), addresses, open: None, closed }
    }

    /// Goes over to a state. Leaving or reaching `refused` ends every connection, and the counter begins anew.
    pub(crate) fn become_state(&mut self, state: &str) {
        state.clone_into(&mut self.shared.state.lock().expect("no panic"));
        let listens = state != REFUSED;
        if listens && self.open.is_none() {
            self.shared.done.store(0, Ordering::Relaxed);
            let mut open = JoinSet::new();
            for socket in self.closed.drain(..) {
                let listener = socket.listen(256).expect("it listens");
                open.spawn(serve(listener, Arc::clone(&self.shared)));
            }
            self.open = Some(open);
        }
        if !listens && self.open.is_some() {
            self.open = None;
            self.shared.held.send_replace(0);
        }
    }

    /// Binds the ports again once the tasks that had them are gone.
    pub(crate) async fn settle(&mut self) {
        if self.open.is_none() && self.closed.is_empty() {
            tokio::task::yield_now().await;
            self.closed = self.addresses.map(bound).into();
        }
    }

    pub(crate) fn work_off(&self, requests: u64) {
        self.shared.done.fetch_add(requests, Ordering::Relaxed);
    }

    pub(crate) fn held(&self) -> watch::Receiver<usize> {
        self.shared.held.subscribe()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with the task, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(converse(stream, Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

fn body_length(head: &str) -> usize {
    let length = head.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().expect("a length"))
    });
    length.unwrap_or(0)
}

async fn converse(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => heard.extend_from_slice(&buffer[..read]),
        }
        let Some(end) = heard.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&heard[..end]).into_owned();
        let whole = end + 4 + body_length(&head);
        while heard.len() < whole {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => heard.extend_from_slice(&buffer[..read]),
            }
        }
        heard.drain(..whole);
        let path = head.split(' ').nth(1).unwrap_or_default();
        let state = shared.state.lock().expect("no panic").clone();
        let (done, asked) = (shared.done.load(Ordering::Relaxed), shared.asked.fetch_add(1, Ordering::Relaxed));
        match shared.script.bytes(&state, path, done, asked) {
            Some(answer) => {
                if stream.write_all(&answer).await.is_err() || !answer.starts_with(b"HTTP/") {
                    return;
                }
            }
            None => {
                shared.held.send_modify(|held| *held += 1);
                // Until the client gives up.
                while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
                shared.held.send_modify(|held| *held = held.saturating_sub(1));
                return;
            }
        }
    }
}
