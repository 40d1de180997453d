//! A CPU cgroup of a test's own.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Removed when dropped; whoever is in it then goes back to the root.
pub(crate) struct Group {
    directory: PathBuf,
    home: PathBuf,
}

impl Group {
    /// One with a quota that nobody feels. None where none can be made, and says why.
    pub(crate) fn make(name: &str) -> Option<Self> {
        let name = format!("probegate-test-{}-{name}", std::process::id());
        for (root, quota) in [("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us"), ("/sys/fs/cgroup", "cpu.max")] {
            let directory = Path::new(root).join(&name);
            if fs::create_dir(&directory).is_err() {
                continue;
            }
            let group = Self { directory, home: PathBuf::from(root) };
            if !group.directory.join(quota).exists() {
                continue;
            }
            match group.set_quota(1_000_000) {
                Ok(()) => return Some(group),
                Err(error) => eprintln!("SKIPPED: the CPU cgroup takes no quota: {error}"),
            }
            return None;
        }
        eprintln!("SKIPPED: no CPU cgroup can be made here (neither v1 nor v2 is writable)");
        None
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn take(&self, pid: u32) {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string()).expect("a process of ours");
    }

    /// So many microseconds of CPU in every tenth of a second.
    pub(crate) fn allow(&self, micros: u32) {
        self.set_quota(micros).expect("a quota as before");
    }

    fn set_quota(&self, micros: u32) -> io::Result<()> {
        if self.directory.join("cpu.max").exists() {
            return fs::write(self.directory.join("cpu.max"), format!("{micros} 100000"));
        }
        fs::write(self.directory.join("cpu.cfs_period_us"), "100000")?;
        fs::write(self.directory.join("cpu.cfs_quota_us"), micros.to_string())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for pid in fs::read_to_string(self.directory.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(self.home.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.directory);
    }
}
