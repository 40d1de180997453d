//! Listening sockets: one per worker, all of one port.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::limits;

/// Binds `workers` listeners to `address` (at least one). Port 0 is resolved once and shared by all. With more
/// than one, the kernel spreads connections over them (`SO_REUSEPORT`).
///
/// # Errors
/// Whatever the system says: the address is taken, or not ours to bind.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let shared = workers > 1;
    if shared && address.port() != 0 {
        // Two sidecars that both share a port would share its traffic too: without sharing, the second one hears
        // that the port is taken.
        drop(socket(address, false)?);
    }
    let first = listen(address, shared)?;
    let resolved = first.local_addr()?;
    let mut all = vec![first];
    for _ in 1..workers {
        all.push(listen(resolved, shared)?);
    }
    Ok(all)
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = socket(address, shared)?;
    socket.listen(limits::TRAFFIC_BACKLOG)?;
    Ok(socket.into())
}

/// Bound, and not listening yet.
fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_of_one_port_share_the_port_that_the_system_chose() {
        let all = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 3).unwrap();
        let ports: Vec<u16> = all.iter().map(|l| l.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 3);
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[test]
    fn a_port_that_is_shared_by_workers_is_taken_for_everybody_else() {
        let all = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 2).unwrap();
        let address = all[0].local_addr().unwrap();
        for workers in [1, 2] {
            assert_eq!(bind(address, workers).unwrap_err().kind(), io::ErrorKind::AddrInUse, "{workers}");
        }
        drop(all);
        assert_eq!(bind(address, 2).unwrap().len(), 2);
    }

    #[test]
    fn a_lone_listener_does_not_share_its_port() {
        let all = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
        let taken = bind(all[0].local_addr().unwrap(), 2);
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
