//! `NOTIFY_SOCKET`: systemd's notification protocol without systemd, on a volume that both containers mount.
//!
//! Owns the socket file. It refuses to remove what it did not make: only a socket that nobody listens on is
//! taken for a leftover. A path that begins with `@` is a name in the abstract namespace, which the
//! containers of a pod share with their network: no volume is needed, but with `hostNetwork` the whole node
//! can write to it.

use std::fs::{self, Permissions};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixDatagram;

use super::Board;
use crate::clock::Clock;
use crate::limits::NOTIFY_DATAGRAM_BYTES_MAX;

/// A bound notification socket. Dropping it removes its file, if it is still the same one.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    /// Here to be dropped with the socket. None in the abstract namespace.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// What one datagram said. Keys that are not ours are ignored, as the protocol asks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Message {
    /// `READY=1`: started, or done with reloading.
    pub ready: bool,
    /// `WATCHDOG=1`: alive.
    pub watchdog: bool,
    /// `WATCHDOG=trigger`: the server itself says that it is broken.
    pub trigger: bool,
    /// `RELOADING=1`: alive, and busy with its own configuration.
    pub reloading: bool,
    /// `STOPPING=1`: on its way out.
    pub stopping: bool,
    /// `EXTEND_TIMEOUT_USEC=`: it will be silent for so long.
    pub extend: Option<Duration>,
    /// `STATUS=`: a line for people.
    pub status: Option<String>,
}

impl Message {
    /// Reads a datagram: lines of `KEY=value`. Anything can be read; what makes no sense says nothing.
    pub fn parse(datagram: &[u8]) -> Self {
        let mut message = Self::default();
        for line in String::from_utf8_lossy(datagram).lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => message.ready = true,
                Some(("WATCHDOG", "1")) => message.watchdog = true,
                Some(("WATCHDOG", "trigger")) => message.trigger = true,
                Some(("RELOADING", "1")) => message.reloading = true,
                Some(("STOPPING", "1")) => message.stopping = true,
                Some(("EXTEND_TIMEOUT_USEC", usec)) => message.extend = usec.parse().ok().map(Duration::from_micros),
                Some(("STATUS", status)) => message.status = Some(status.to_owned()),
                _ => {}
            }
        }
        message
    }

    /// Whether it says that the server is alive.
    pub const fn is_beat(&self) -> bool {
        self.ready || self.watchdog || self.reloading
    }
}

impl NotifySocket {
    /// Binds it. Must be called on a runtime with I/O.
    ///
    /// A stale socket at `path` is replaced. The file is writable for every user: the model server's
    /// container rarely has ours, and who may reach it is what the volume says.
    ///
    /// # Errors
    /// Something that is no socket is at `path`, another process listens there, or the directory is missing
    /// or read-only.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(name) = path.as_os_str().as_bytes().strip_prefix(b"@") {
            let socket = StdDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
            return Self::listen(socket, None);
        }
        remove_stale(path)?;
        let socket = StdDatagram::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o666))?;
        let metadata = fs::symlink_metadata(path)?;
        let file = SocketFile { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() };
        Self::listen(socket, Some(file))
    }

    fn listen(socket: StdDatagram, file: Option<SocketFile>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixDatagram::from_std(socket)?, _file: file })
    }

    /// Waits for datagrams and notes them on `board` until one is worth running checks for; returns the
    /// names of these checks. Cancelling it loses nothing. A datagram longer than
    /// [`NOTIFY_DATAGRAM_BYTES_MAX`] is ignored.
    ///
    /// # Errors
    /// The socket failed. Another call may succeed; wait before it.
    pub async fn recv(&self, board: &Board, clock: &Clock) -> io::Result<Vec<String>> {
        // One byte more than allowed shows that there was more.
        let mut datagram = [0; NOTIFY_DATAGRAM_BYTES_MAX + 1];
        loop {
            let count = self.socket.recv(&mut datagram).await?;
            if count > NOTIFY_DATAGRAM_BYTES_MAX {
                tracing::debug!("ignored a notification of more than {NOTIFY_DATAGRAM_BYTES_MAX} bytes");
                continue;
            }
            let names = board.hear(&Message::parse(&datagram[..count]), clock.now());
            if !names.is_empty() {
                return Ok(names);
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == (self.device, self.inode));
        if same {
            // Gone already is as good.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket that a process before us left behind, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{} {why}", path.display())));
    if !metadata.file_type().is_socket() {
        return refuse("exists and is not a socket");
    }
    match StdDatagram::unbound()?.connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // A stream socket refuses a datagram by its type: somebody else's, alive or not.
        Err(error) => refuse(&format!("is a socket that cannot be tried: {error}")),
        Ok(()) => refuse("is in use: another process listens on it"),
    }
}
