//! The demo's model server as a process: a real one, that breaks when told to.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};

use super::sidecar::probegate;
use super::until::until;

/// A model server. Killed when dropped.
pub(crate) struct Model {
    child: Option<Child>,
    address: SocketAddr,
}

impl Model {
    /// A port for one, with nobody on it yet.
    pub(crate) fn absent() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self { child: None, address: listener.local_addr().expect("its address") }
    }

    /// One that serves.
    pub(crate) fn start() -> Self {
        let mut model = Self::absent();
        model.launch(&[]);
        model.until_listening();
        model
    }

    /// Starts it on its port, with more arguments.
    pub(crate) fn launch(&mut self, arguments: &[&str]) {
        self.kill();
        let mut command = probegate();
        command.args(["demo-model-server", "--listen", &self.address.to_string()]).args(arguments);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("the binary runs"));
    }

    pub(crate) fn until_listening(&self) {
        until("the model server listens", || TcpStream::connect(self.address).ok());
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.kill();
    }
}
