//! What makes life hard for a probe beside load: a CPU limit as Kubernetes sets one, and a flood of connections in
//! the accept queue of the traffic port.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};

use crate::clock;
use crate::machine::{self, Core};
use crate::process::Process;

/// The kernel's default period, which Kubernetes keeps.
const PERIOD_US: u64 = 100_000;
/// How long one connection of the flood stays. Ten thousand of them make twenty thousand new ones a second.
const FLOOD_STAY: Duration = Duration::from_millis(500);
const FLOOD_CONNECT: Duration = Duration::from_secs(1);

/// A control group with a CPU limit; removed when dropped, which must be after its processes ended.
pub(crate) struct CpuLimit {
    folder: PathBuf,
}

impl CpuLimit {
    /// `cores` of CPU for all its processes together, under cgroup v1 or v2. Needs the right to make groups.
    pub(crate) fn make(cores: f64) -> io::Result<Self> {
        let name = format!("probegate-load-{}", std::process::id());
        let quota = (cores * PERIOD_US as f64) as u64;
        let v1 = Path::new("/sys/fs/cgroup/cpu");
        if v1.join("cpu.cfs_quota_us").is_file() {
            let limit = Self::at(v1.join(name))?;
            fs::write(limit.folder.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
            fs::write(limit.folder.join("cpu.cfs_quota_us"), quota.to_string())?;
            return Ok(limit);
        }
        let limit = Self::at(Path::new("/sys/fs/cgroup").join(name))?;
        fs::write(limit.folder.join("cpu.max"), format!("{quota} {PERIOD_US}"))?;
        Ok(limit)
    }

    fn at(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir(&folder)?;
        Ok(Self { folder })
    }

    /// Puts a process and its descendants under the limit.
    pub(crate) fn take(&self, process: &Process) -> io::Result<()> {
        process.tree().into_iter().try_for_each(|pid| fs::write(self.folder.join("cgroup.procs"), pid.to_string()))
    }
}

impl Drop for CpuLimit {
    fn drop(&mut self) {
        // A process that has ended leaves its group a moment later. If one stays, the group's name says whose it was.
        let deadline = clock::now() + clock::nanos(Duration::from_secs(1));
        while fs::remove_dir(&self.folder).is_err() && clock::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// Keeps `connections` coming to `to` until `until`, each held a while, reset and made anew. How many stood.
pub(crate) fn flood(
    to: SocketAddr,
    connections: usize,
    until: u64,
    core: Core,
) -> io::Result<std::thread::JoinHandle<io::Result<u64>>> {
    std::thread::Builder::new().name("flood".into()).spawn(move || {
        machine::pin(core)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async move {
            let mut slots = JoinSet::new();
            for _ in 0..connections {
                slots.spawn_local(slot(to, until));
            }
            let mut stood = 0;
            while let Some(count) = slots.join_next().await {
                stood += count.unwrap_or(0);
            }
            Ok(stood)
        })
    })
}

async fn slot(to: SocketAddr, until: u64) -> u64 {
    let mut stood = 0;
    while clock::now() < until {
        let connect = tokio::net::TcpStream::connect(to);
        match tokio::time::timeout(FLOOD_CONNECT, connect).await {
            Ok(Ok(stream)) => {
                stood += 1;
                tokio::time::sleep(FLOOD_STAY).await;
                // A reset leaves no TIME_WAIT behind: ten thousand of those a second would use up the ports.
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
            Ok(Err(_)) => tokio::time::sleep(FLOOD_STAY).await,
            Err(_) => {}
        }
    }
    stood
}

/// Connections that wait to be accepted at `address` now, over all sockets that listen there.
pub(crate) fn accept_queue(address: SocketAddr) -> u64 {
    let read = |table| fs::read_to_string(table).unwrap_or_default();
    // A listener on all addresses is an IPv6 one.
    let text = read("/proc/net/tcp") + &read("/proc/net/tcp6");
    let port = format!(":{:04X}", address.port());
    let waiting = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _remote, state, queues) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        // 0A: listening. Of a listening socket the receive queue is the accept queue.
        (local.ends_with(&port) && state == "0A").then_some(())?;
        u64::from_str_radix(queues.split_once(':')?.1, 16).ok()
    };
    text.lines().filter_map(waiting).sum()
}
