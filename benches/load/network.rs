//! A network namespace of the bench's own: no stranger's ports, and none of the host's packet filters in the way of
//! what is measured. Where that is not allowed the host's loopback serves as well, and the results say so.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Moves the calling thread, and so whatever it starts, into a new network namespace with a loopback interface.
/// To be called before any other thread is started. Whether it worked; if not, everything is as it was.
pub(crate) fn enter_own() -> bool {
    let Ok(before) = File::open("/proc/thread-self/ns/net") else { return false };
    if unshare().is_err() {
        return false;
    }
    if raise_loopback().is_ok() {
        return true;
    }
    // Back to where there is a loopback interface; it was ours a moment ago, so this is allowed.
    let _ = move_into_link_name_space(before.as_fd(), Some(LinkNameSpaceType::Network));
    false
}

#[expect(deprecated, reason = "its successor is unsafe for the sake of flags that part file tables; this one does not")]
fn unshare() -> rustix::io::Result<()> {
    rustix::thread::unshare(UnshareFlags::NEWNET)
}

fn raise_loopback() -> io::Result<()> {
    let mut command = Command::new("ip");
    command.args(["link", "set", "lo", "up"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("ip link: {status}"))) }
}
