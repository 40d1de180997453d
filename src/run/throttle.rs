//! Whether our cgroup keeps us from the CPU: a reason to doubt our own timeouts.
//!
//! Reads `cpu.stat` of the container's group, version 1 or 2, and turns its counters into one yes or no. A
//! machine without the file is never throttled as far as we know.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::Time;
use crate::limits;

/// Samples of the time that the group was throttled.
#[derive(Debug)]
pub(super) struct Throttling {
    file: Option<PathBuf>,
    /// When, and throttled for how long in all until then. The newest last.
    samples: VecDeque<(Time, Duration)>,
    on: bool,
}

impl Throttling {
    /// Of this process' own group.
    pub(super) fn of_this_process() -> Self {
        Self::of(find(Path::new("/sys/fs/cgroup"), &std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default()))
    }

    pub(super) fn of(file: Option<PathBuf>) -> Self {
        Self { file, samples: VecDeque::new(), on: false }
    }

    /// Reads once; says so when the answer has changed.
    pub(super) fn sample(&mut self, now: Time) -> Option<bool> {
        let throttled = throttled(&std::fs::read_to_string(self.file.as_ref()?).ok()?)?;
        self.samples.push_back((now, throttled));
        if self.samples.len() > limits::THROTTLE_WINDOW {
            self.samples.pop_front();
        }
        let (first_at, first) = *self.samples.front()?;
        let window = now.since(first_at).as_micros();
        let lost = throttled.saturating_sub(first).as_micros();
        let on = window > 0 && u128::from(limits::THROTTLE_PERMILLE) * window < lost * 1000;
        let changed = on != self.on;
        self.on = on;
        changed.then_some(on)
    }
}

/// The group's `cpu.stat`. In a container with its own cgroup namespace the mount's root is the group itself.
fn find(mount: &Path, own: &str) -> Option<PathBuf> {
    let path_of = |wanted: &dyn Fn(&str) -> bool| {
        own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            wanted(controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let v1 = path_of(&|controllers| controllers.split(',').any(|one| one == "cpu"));
    let v2 = path_of(&str::is_empty);
    let hierarchies = [("cpu", v1.clone()), ("cpu,cpuacct", v1), ("", v2)];
    hierarchies
        .into_iter()
        .filter_map(|(hierarchy, path)| Some((mount.join(hierarchy), path?)))
        .flat_map(|(root, path)| [root.join(path).join("cpu.stat"), root.join("cpu.stat")])
        .find(|file| std::fs::read_to_string(file).is_ok_and(|text| throttled(&text).is_some()))
}

/// `throttled_usec` of version 2, `throttled_time` in nanoseconds of version 1.
fn throttled(stat: &str) -> Option<Duration> {
    stat.lines().find_map(|line| match line.split_once(' ')? {
        ("throttled_usec", micros) => Some(Duration::from_micros(micros.trim().parse().ok()?)),
        ("throttled_time", nanos) => Some(Duration::from_nanos(nanos.trim().parse().ok()?)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn second(at: u64) -> Time {
        Time::from_secs(at)
    }

    fn write(file: &Path, throttled_usec: u64) {
        fs::write(file, format!("usage_usec 9\nnr_periods 4\nnr_throttled 2\nthrottled_usec {throttled_usec}\n"))
            .unwrap();
    }

    #[test]
    fn a_group_throttled_for_most_of_the_time_is_told_once_and_its_end_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cpu.stat");
        let mut throttling = Throttling::of(Some(file.clone()));
        let mut told = Vec::new();
        for at in 0..20_u64 {
            write(&file, at.min(8) * 600_000);
            told.extend(throttling.sample(second(at)).map(|on| (at, on)));
        }
        assert_eq!(told, [(1, true), (11, false)]);
    }

    #[test]
    fn a_little_throttling_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cpu.stat");
        let mut throttling = Throttling::of(Some(file.clone()));
        for at in 0..10_u64 {
            write(&file, at * 100_000);
            assert_eq!(throttling.sample(second(at)), None);
        }
    }

    #[test]
    fn both_versions_are_found_by_the_path_and_at_the_root_of_a_namespace() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        assert_eq!(find(root, "0::/kubepods/pod1\n"), None);
        write(&root.join("cpu.stat"), 1);
        assert_eq!(find(root, "0::/kubepods/pod1\n"), Some(root.join("cpu.stat")));
        fs::create_dir_all(root.join("kubepods/pod1")).unwrap();
        write(&root.join("kubepods/pod1/cpu.stat"), 1);
        assert_eq!(find(root, "0::/kubepods/pod1\n"), Some(root.join("kubepods/pod1/cpu.stat")));
        fs::create_dir_all(root.join("cpu/pod2")).unwrap();
        fs::write(root.join("cpu/pod2/cpu.stat"), "nr_periods 1\nnr_throttled 1\nthrottled_time 5000\n").unwrap();
        assert_eq!(find(root, "4:cpuacct,cpu:/pod2\n0::/\n"), Some(root.join("cpu/pod2/cpu.stat")));
    }

    #[test]
    fn nothing_to_read_is_no_throttling() {
        assert_eq!(Throttling::of(None).sample(second(1)), None);
        assert_eq!(throttled("throttled_usec many"), None);
        assert_eq!(throttled(""), None);
    }
}
