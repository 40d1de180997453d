//! TCP connections by `host:port`.
//!
//! Owns name, address and connect, and tells their failures apart. Sockets are closed plainly: `SO_LINGER`
//! with a time, as the kubelet sets it, makes `close` block the thread towards a peer that is gone, and with
//! zero it resets connections of servers that then log an error. Ports in TIME_WAIT are no concern: Linux
//! reuses them on loopback, and elsewhere a check a second holds sixty.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::resolve::resolve;
use super::{Failure, Waiting};
use crate::engine::Fault;

/// A silent address delays the next one by this much (RFC 8305's default).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Splits `host:port`; an IPv6 address stands in brackets and loses them.
pub fn split_host_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let plain = port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|_| plain)?;
    (!host.is_empty()).then_some((host, port))
}

/// Connects to `host:port`. The caller sets the deadline; addresses of a name are tried one after the other,
/// a silent one for 250 ms before the next joins it.
pub async fn connect(address: &str, waiting: Waiting<'_>) -> Result<TcpStream, Failure> {
    let (host, port) =
        split_host_port(address).ok_or_else(|| Failure::local(format!("{address:?} is not host:port")))?;
    waiting(format!("an address of {host}"));
    let found = resolve(host).await?;
    waiting(format!("a connection to {address}"));
    let targets: Vec<_> = found.into_iter().take(ADDRESSES_MAX).map(|ip| SocketAddr::new(ip, port)).collect();
    let stream = match targets[..] {
        [target] => connect_one(target).await.map_err(|error| failure(address, target, &error))?,
        _ => connect_any(address, targets).await?,
    };
    // A question is one small write, and its answer is waited for.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn connect_one(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target).await?;
    // Where nobody listens on a port of the ephemeral range, the kernel may choose that very port as ours and
    // connect the socket to itself.
    if stream.local_addr()? == target {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

async fn connect_any(address: &str, targets: Vec<SocketAddr>) -> Result<TcpStream, Failure> {
    let mut attempts = JoinSet::new();
    let mut targets = targets.into_iter();
    let mut worst: Option<Failure> = None;
    loop {
        if let Some(target) = targets.next() {
            attempts.spawn(async move { connect_one(target).await.map_err(|error| (target, error)) });
        }
        let ended = if targets.len() == 0 {
            attempts.join_next().await
        } else {
            match tokio::time::timeout(NEXT_ADDRESS_AFTER, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err((target, error)))) => {
                let next = failure(address, target, &error);
                // "Refused" is the strongest word: somebody's kernel was reached.
                if worst.as_ref().is_none_or(|w| w.fault != Fault::Refused && next.fault == Fault::Refused) {
                    worst = Some(next);
                }
            }
            Some(Err(_)) => {}
            None if targets.len() == 0 => {
                return Err(worst.unwrap_or_else(|| Failure::unreachable(format!("{address} has no address"))));
            }
            None => {}
        }
    }
}

/// The failure of a connect, with the address behind a name where that says more.
fn failure(address: &str, target: SocketAddr, error: &io::Error) -> Failure {
    let literal = address == target.to_string() || address.starts_with("localhost:");
    let whom = if literal { address.to_owned() } else { format!("{address} ({})", target.ip()) };
    io_failure(&whom, error)
}

/// Tells what an I/O error of a socket towards `whom` means.
pub fn io_failure(whom: &str, error: &io::Error) -> Failure {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => Failure::new(Fault::Refused, format!("connection refused by {whom}")),
        Kind::HostUnreachable => Failure::unreachable(format!("no route to host {whom}")),
        Kind::NetworkUnreachable => Failure::unreachable(format!("network unreachable: {whom}")),
        Kind::TimedOut => Failure::new(Fault::Timeout, format!("{whom} does not answer on the network")),
        Kind::ConnectionReset | Kind::BrokenPipe => Failure::unreachable(format!("connection reset by {whom}")),
        Kind::ConnectionAborted | Kind::UnexpectedEof => {
            Failure::unreachable(format!("connection closed by {whom} without an answer"))
        }
        Kind::PermissionDenied => Failure::local(format!("not permitted to connect to {whom}")),
        Kind::AddrNotAvailable => Failure::local(format!("no free local port or address to connect to {whom}")),
        Kind::NotFound => Failure::new(Fault::Refused, format!("no socket at {whom}")),
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            Failure::local(format!("too many open files here to connect to {whom}"))
        }
        _ => Failure::unreachable(format!("no connection to {whom}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::net::{UNHEARD, peer};

    #[test]
    fn host_and_port_are_split_and_nothing_else_is_taken_for_them() {
        assert_eq!(split_host_port("redis:6379"), Some(("redis", 6379)));
        assert_eq!(split_host_port("[::1]:80"), Some(("::1", 80)));
        for wrong in ["redis", ":80", "::1:80", "[::1:80", "h:65536", "h:+80", "h:", ""] {
            assert_eq!(split_host_port(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_listening_port_is_connected_to_by_address_and_by_name() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        connect(&format!("127.0.0.1:{port}"), UNHEARD).await.unwrap();
        connect(&format!("localhost:{port}"), UNHEARD).await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_port_is_a_refusal_that_names_it() {
        let port = peer::closed_port().await;
        let failure = connect(&format!("127.0.0.1:{port}"), UNHEARD).await.unwrap_err();
        assert_eq!(failure, Failure::new(Fault::Refused, format!("connection refused by 127.0.0.1:{port}")));
        let failure = connect(&format!("localhost:{port}"), UNHEARD).await.unwrap_err();
        assert_eq!(failure.reason, format!("connection refused by localhost:{port}"));
    }

    #[tokio::test]
    async fn of_several_addresses_the_one_that_listens_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = SocketAddr::new([127, 0, 0, 2].into(), open.port());
        let stream = connect_any("two:1", vec![closed, open]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        let failure = connect_any("two:1", vec![closed, closed]).await.unwrap_err();
        assert_eq!(failure.reason, "connection refused by two:1 (127.0.0.2)");
    }

    #[tokio::test]
    async fn what_is_waited_for_is_said_step_by_step() {
        let said = std::sync::Mutex::new(Vec::new());
        let port = peer::closed_port().await;
        let _ = connect(&format!("127.0.0.1:{port}"), &|what| said.lock().unwrap().push(what)).await;
        let expected = ["an address of 127.0.0.1".to_owned(), format!("a connection to 127.0.0.1:{port}")];
        assert_eq!(*said.lock().unwrap(), expected);
    }

    #[test]
    fn errors_of_the_network_have_words_of_their_own() {
        let said = |kind: io::ErrorKind| io_failure("h:1", &kind.into());
        assert_eq!(said(io::ErrorKind::HostUnreachable).reason, "no route to host h:1");
        assert_eq!(said(io::ErrorKind::TimedOut).fault, Fault::Timeout);
        assert_eq!(said(io::ErrorKind::ConnectionReset).reason, "connection reset by h:1");
        assert_eq!(said(io::ErrorKind::AddrNotAvailable).fault, Fault::Local);
    }
}
