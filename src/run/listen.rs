//! Every listening socket, bound before anything else starts.
//!
//! Owns the addresses: a taken port refuses the whole start with one clear line, and a sidecar that says
//! `listening` is listening on all of them.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::config::{AdminAddress, Listen};
use crate::proxy;

/// A listener that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (listen.{key}): {}", self.why())]
pub struct BindError {
    key: &'static str,
    address: String,
    source: io::Error,
}

impl BindError {
    fn why(&self) -> String {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                format!("the address is taken; end whoever has it, set listen.{} to another, or to port 0", self.key)
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            io::ErrorKind::PermissionDenied => "not permitted; ports below 1024 need a privilege".to_owned(),
            _ => self.source.to_string(),
        }
    }
}

/// The addresses that were bound, real ports included.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Addresses {
    pub traffic: SocketAddr,
    pub probes: SocketAddr,
    pub admin: AdminAddress,
}

/// The open sockets.
pub(super) struct Listeners {
    /// One a worker.
    pub(super) traffic: Vec<TcpListener>,
    pub(super) probes: TcpListener,
    pub(super) admin: Admin,
    pub(super) addresses: Addresses,
}

pub(super) enum Admin {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listeners {
    pub(super) fn bind(listen: &Listen, workers: usize) -> Result<Self, BindError> {
        let failed = |key, address: &dyn fmt::Display| {
            let address = address.to_string();
            move |source| BindError { key, address, source }
        };
        let traffic = proxy::bind(listen.traffic, workers).map_err(failed("traffic", &listen.traffic))?;
        let probes = one(listen.probes).map_err(failed("probes", &listen.probes))?;
        let (admin, bound_admin) = match &listen.admin {
            AdminAddress::Tcp(address) => {
                let listener = one(*address).map_err(failed("admin", address))?;
                let bound = listener.local_addr().map_err(failed("admin", address))?;
                (Admin::Tcp(listener), AdminAddress::Tcp(bound))
            }
            AdminAddress::Unix(path) => {
                let listener = unix(path).map_err(failed("admin", &path.display()))?;
                (Admin::Unix(listener), AdminAddress::Unix(path.clone()))
            }
        };
        let addresses = Addresses {
            traffic: local(&traffic).map_err(failed("traffic", &listen.traffic))?,
            probes: probes.local_addr().map_err(failed("probes", &listen.probes))?,
            admin: bound_admin,
        };
        Ok(Self { traffic, probes, admin, addresses })
    }
}

fn local(listeners: &[TcpListener]) -> io::Result<SocketAddr> {
    listeners.first().map_or_else(|| Err(io::Error::other("no listener")), TcpListener::local_addr)
}

fn one(address: SocketAddr) -> io::Result<TcpListener> {
    proxy::bind(address, 1)?.pop().ok_or_else(|| io::Error::other("no listener"))
}

/// Binds a Unix socket in place of one that nobody listens on any more. Anything else at the path stays.
fn unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => match UnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => std::fs::remove_file(path)?,
        },
        Ok(_) => return Err(io::Error::other("something that is no socket is in its place")),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "traffic={} probes={} admin={}", self.traffic, self.probes, Shown(&self.admin))
    }
}

/// An admin address as it is typed.
pub(super) struct Shown<'a>(pub(super) &'a AdminAddress);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            AdminAddress::Tcp(address) => write!(f, "{address}"),
            AdminAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(traffic: SocketAddr, admin: AdminAddress) -> Listen {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Listen { traffic, probes: any, admin, admin_token: None, expose_probes: false }
    }

    #[test]
    fn port_0_is_resolved_and_shared_by_all_workers() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners::bind(&listen(any, AdminAddress::Tcp(any)), 3).unwrap();
        assert_eq!(listeners.traffic.len(), 3);
        assert_ne!(listeners.addresses.traffic.port(), 0);
        for listener in &listeners.traffic {
            assert_eq!(listener.local_addr().unwrap(), listeners.addresses.traffic);
        }
    }

    #[test]
    fn a_taken_port_is_named_with_its_key_and_a_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let any = AdminAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let error = Listeners::bind(&listen(address, any), 2).err().unwrap().to_string();
        assert!(
            error.starts_with(&format!("cannot listen on {address} (listen.traffic): the address is taken")),
            "{error}"
        );
    }

    #[test]
    fn a_stale_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let bind = || Listeners::bind(&listen(any, AdminAddress::Unix(path.clone())), 1);
        drop(UnixListener::bind(&path).unwrap());
        let live = bind().unwrap();
        assert!(bind().err().unwrap().to_string().contains("the address is taken"));
        drop(live);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(bind().err().unwrap().to_string().contains("no socket"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
