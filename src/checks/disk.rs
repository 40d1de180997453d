//! `disk`: room, inodes and the right to write, where the model server keeps its files.
//!
//! Owns one temporary file for the time of one attempt. Room is what an unprivileged user gets, as `df`
//! shows it. Every call is on the check's [lane](super::lane): a hung network volume costs one thread and
//! shows as a timeout.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Scene;
use super::bytes_text::{percent, size};
use crate::config::{DiskAmount, DiskCheck};
use crate::engine::{Fault, Outcome};

/// What the file system says, in bytes and pieces.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// For an unprivileged user.
    free: u64,
    /// Free and used; without what is reserved for root.
    total: u64,
    inodes_free: u64,
    /// Zero on a file system that makes inodes as it needs them.
    inodes: u64,
}

pub(super) async fn attempt(spec: &DiskCheck, scene: &Scene) -> Outcome {
    let what = format!("the file system of {}", spec.path.display());
    let work = spec.clone();
    match scene.blocking(&what, move || look(&work)).await {
        Ok(Ok(remark)) => Outcome::pass(scene.elapsed()).remark(remark),
        Ok(Err(reason)) => Outcome::fail(Fault::Local, reason, scene.elapsed()),
        Err(outcome) => outcome,
    }
}

/// A remark, or the reason of the failure.
fn look(spec: &DiskCheck) -> Result<String, String> {
    let room = read(&spec.path).map_err(|error| cannot("look at", &spec.path, &error))?;
    let remark = judge(spec, room)?;
    if spec.writable {
        write_and_delete(&spec.path).map_err(|error| cannot("write to", &spec.path, &error))?;
    }
    Ok(remark)
}

fn read(path: &Path) -> io::Result<Room> {
    let stat = rustix::fs::statvfs(path)?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    Ok(Room {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: used.saturating_add(stat.f_bavail).saturating_mul(stat.f_frsize),
        inodes_free: stat.f_favail,
        inodes: stat.f_files,
    })
}

fn judge(spec: &DiskCheck, room: Room) -> Result<String, String> {
    let shown = spec.path.display();
    let share = share(room.free, room.total);
    let free = format!("{} of {} free on {shown} ({})", size(room.free), size(room.total), percent(share));
    match spec.min_free {
        Some(DiskAmount::Bytes(min)) if room.free < min.0 => {
            return Err(format!("{free}, expected at least {}", size(min.0)));
        }
        Some(DiskAmount::Percent(min)) if share < min => {
            return Err(format!("{free}, expected at least {}", percent(min)));
        }
        _ => {}
    }
    let inodes = self::share(room.inodes_free, room.inodes);
    match spec.min_free_inodes_percent {
        Some(min) if room.inodes > 0 && inodes < min => {
            Err(format!("{} of inodes free on {shown}, expected at least {}", percent(inodes), percent(min)))
        }
        _ => Ok(free),
    }
}

/// In per cent; of nothing, nothing.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

/// Writes a byte, for a full disk still takes an empty file.
fn write_and_delete(directory: &Path) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!(".probegate-{}-{number}", std::process::id()));
    let created = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = match created {
        // Left by a sidecar of the same pid that was killed in the middle of this. Never through a link: in
        // a shared directory somebody else may have put one there.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            OpenOptions::new().write(true).custom_flags(no_follow).open(&path)?
        }
        created => created?,
    };
    let written = file.write_all(b"x").and_then(|()| file.sync_data());
    fs::remove_file(&path)?;
    written
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "no such directory".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "read-only file system".to_owned(),
        io::ErrorKind::StorageFull => "no space left".to_owned(),
        io::ErrorKind::QuotaExceeded => "the quota is used up".to_owned(),
        _ => error.to_string(),
    };
    format!("cannot {what} {}: {why}", path.display())
}

#[cfg(test)]
mod tests {
    use super::super::trial::Trial;
    use super::*;
    use crate::config::Bytes;
    use crate::engine::Verdict;

    fn spec(path: impl AsRef<Path>) -> DiskCheck {
        DiskCheck { path: path.as_ref().to_owned(), min_free: None, min_free_inodes_percent: None, writable: false }
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn room_has_limits_in_bytes_and_in_per_cent() {
        let room = Room { free: 2 * GIB, total: 50 * GIB, inodes_free: 5, inodes: 1000 };
        let judge = |min_free, min_free_inodes_percent| {
            judge(&DiskCheck { min_free, min_free_inodes_percent, ..spec("/data") }, room)
        };
        assert_eq!(judge(None, None), Ok("2 GiB of 50 GiB free on /data (4 %)".into()));
        assert!(judge(Some(DiskAmount::Bytes(Bytes(2 * GIB))), Some(0.5)).is_ok());
        let bytes = judge(Some(DiskAmount::Bytes(Bytes(5 * GIB))), None);
        assert_eq!(bytes, Err("2 GiB of 50 GiB free on /data (4 %), expected at least 5 GiB".into()));
        assert!(judge(Some(DiskAmount::Percent(4.0)), None).is_ok());
        let percent = judge(Some(DiskAmount::Percent(4.5)), None);
        assert_eq!(percent, Err("2 GiB of 50 GiB free on /data (4 %), expected at least 4.5 %".into()));
        assert_eq!(judge(None, Some(1.0)), Err("0.5 % of inodes free on /data, expected at least 1 %".into()));
    }

    #[test]
    fn a_file_system_without_a_number_of_inodes_has_enough_and_one_of_size_nothing_has_no_room() {
        let room = Room { free: 0, total: 0, inodes_free: 0, inodes: 0 };
        assert!(judge(&DiskCheck { min_free_inodes_percent: Some(10.0), ..spec("/d") }, room).is_ok());
        assert!(judge(&DiskCheck { min_free: Some(DiskAmount::Percent(1.0)), ..spec("/d") }, room).is_err());
    }

    #[tokio::test]
    async fn a_real_directory_is_written_to_and_left_as_it_was() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let ask = async |spec: DiskCheck| Trial::new().attempt(async |scene| attempt(&spec, scene).await).await;
        let writable = |path: &Path| DiskCheck { writable: true, ..spec(path) };
        let pass = ask(writable(folder.path())).await;
        assert_eq!(pass.verdict, Verdict::Pass, "{}", pass.reason);
        assert!(pass.reason.contains(" free on "), "{}", pass.reason);
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0);

        let missing = ask(spec("/no/such/directory")).await;
        assert_eq!(missing.verdict, Verdict::Fail(Fault::Local));
        assert_eq!(missing.reason, "cannot look at /no/such/directory: no such directory");
        // Root may write anywhere but where the kernel forbids it.
        let reason = ask(writable(Path::new("/proc"))).await.reason;
        assert!(reason.starts_with("cannot write to /proc: "), "{reason}");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("a file");
        assert!(ask(writable(&file)).await.reason.ends_with(": not a directory"));
    }
}
