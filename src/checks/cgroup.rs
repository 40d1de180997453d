//! Memory of a control group, version 1 and 2, as the kubelet counts it.
//!
//! Owns the way to this container's own group, wherever it is mounted, and the reading of usage and limit.
//! It refuses to guess: without a memory controller it says so.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::proc::Proc;

/// A limit this large is none: version 1 says 9223372036854771712 where nobody set one.
const NO_LIMIT_FROM: u64 = 1 << 60;

/// One group's directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Cgroup {
    directory: PathBuf,
    /// Where its hierarchy is mounted: limits are looked for up to here.
    top: PathBuf,
}

/// Usage and limit at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct MemoryUse {
    /// Usage less the file pages that the kernel would give back first: what the kubelet evicts by.
    pub(super) working_set: u64,
    /// The tightest of the group's own limit and of those above it.
    pub(super) limit: Option<u64>,
}

impl Cgroup {
    /// The group at a directory that was configured.
    pub(super) fn at(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        Self { top: directory.clone(), directory }
    }

    /// The group that this process is in.
    pub(super) fn own(proc: &Proc) -> Result<Self, String> {
        let read = |name| proc.read_own(name).map_err(|error| format!("cannot read /proc/self/{name}: {error}"));
        let (groups, mounts) = (read("cgroup")?, read("mountinfo")?);
        let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
        let v1 = mounts.iter().find(|mount| mount.kind == "cgroup" && mount.has_option("memory"));
        let v2 = mounts.iter().find(|mount| mount.kind == "cgroup2");
        let places = [(v1, path_of(&groups, Some("memory"))), (v2, path_of(&groups, None))];
        places
            .into_iter()
            .find_map(|(mount, path)| Some(mount?.group(&path?)).filter(Self::has_memory))
            .ok_or_else(|| "no memory controller is mounted here".to_owned())
    }

    fn has_memory(&self) -> bool {
        ["memory.current", "memory.usage_in_bytes"].iter().any(|name| self.directory.join(name).exists())
    }

    /// Usage and limit now.
    pub(super) fn memory(&self) -> Result<MemoryUse, String> {
        if self.directory.join("memory.current").exists() { self.memory_v2() } else { self.memory_v1() }
    }

    fn memory_v2(&self) -> Result<MemoryUse, String> {
        let usage = self.number("memory.current")?;
        let stat = self.text("memory.stat")?;
        let inactive = stat_field(&stat, "inactive_file").unwrap_or(0);
        Ok(MemoryUse { working_set: usage.saturating_sub(inactive), limit: self.tightest("memory.max") })
    }

    fn memory_v1(&self) -> Result<MemoryUse, String> {
        let usage = self.number("memory.usage_in_bytes")?;
        let stat = self.text("memory.stat")?;
        let inactive = stat_field(&stat, "total_inactive_file").unwrap_or(0);
        // The kernel itself looks up to the root, past what is mounted here.
        let above = stat_field(&stat, "hierarchical_memory_limit").filter(|limit| *limit < NO_LIMIT_FROM);
        let limit = [self.tightest("memory.limit_in_bytes"), above].into_iter().flatten().min();
        Ok(MemoryUse { working_set: usage.saturating_sub(inactive), limit })
    }

    /// The smallest limit of this group and of those above it that are visible.
    fn tightest(&self, name: &str) -> Option<u64> {
        self.directory
            .ancestors()
            .take_while(|directory| directory.starts_with(&self.top))
            .filter_map(|directory| fs::read_to_string(directory.join(name)).ok()?.trim().parse().ok())
            .filter(|limit| *limit < NO_LIMIT_FROM)
            .min()
    }

    fn number(&self, name: &str) -> Result<u64, String> {
        let text = self.text(name)?;
        let found = text.trim();
        found.parse().map_err(|_| format!("{} holds \"{}\", not a number", self.shown(name), found.escape_debug()))
    }

    fn text(&self, name: &str) -> Result<String, String> {
        fs::read_to_string(self.directory.join(name)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("{} does not exist: no memory controller there", self.shown(name)),
            _ => format!("cannot read {}: {error}", self.shown(name)),
        })
    }

    fn shown(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

/// A line of mountinfo, as far as it matters here.
struct Mount {
    /// Which directory of the hierarchy is mounted.
    root: String,
    at: PathBuf,
    kind: String,
    options: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut file_system = file_system.split(' ');
        Some(Self {
            root: unescape(mount.next()?),
            at: PathBuf::from(unescape(mount.next()?)),
            kind: file_system.next()?.to_owned(),
            options: file_system.nth(1)?.to_owned(),
        })
    }

    fn has_option(&self, option: &str) -> bool {
        self.options.split(',').any(|one| one == option)
    }

    /// The directory of the group at `path` of the hierarchy. In a container the path is often that on the
    /// node, which is not mounted: then the mount's own root is the container's group.
    fn group(&self, path: &str) -> Cgroup {
        let below = Path::new(path).strip_prefix(&self.root).ok().filter(|below| self.at.join(below).is_dir());
        let directory = below.map_or_else(|| self.at.clone(), |below| self.at.join(below));
        // Without a trailing separator, which joining nothing leaves.
        Cgroup { directory: directory.components().collect(), top: self.at.clone() }
    }
}

/// The path of this process's group: with a version 1 controller of that name, or of version 2.
fn path_of(groups: &str, controller: Option<&str>) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let here = match controller {
            Some(name) => controllers.split(',').any(|one| one == name),
            None => number == "0" && controllers.is_empty(),
        };
        here.then(|| path.to_owned())
    })
}

fn stat_field(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// mountinfo writes a space as `\040`, a backslash as `\134`.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let escaped = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::proc::fixture::Machine;
    use super::*;

    const GIB: u64 = 1 << 30;

    fn mounted(machine: &Machine, line: &str) {
        let root = machine.path().display().to_string().replace(' ', "\\040");
        let noise = "21 1 8:1 / / rw - ext4 /dev/root rw\nnonsense\n";
        machine.write("self/mountinfo", &format!("{noise}{}\n", line.replace("ROOT", &root)));
    }

    fn own(machine: &Machine) -> Result<MemoryUse, String> {
        Cgroup::own(&machine.proc())?.memory()
    }

    #[test]
    fn version_2_in_a_container_whose_mount_is_its_own_group() {
        let machine = Machine::new();
        mounted(&machine, "30 21 0:26 / ROOT/cg rw,nosuid - cgroup2 cgroup rw,nsdelegate");
        machine.write("self/cgroup", "0::/\n");
        machine.write("cg/memory.current", "1073741824\n");
        machine.write("cg/memory.max", "2147483648\n");
        machine.write("cg/memory.stat", "anon 5\ninactive_file_x 9\ninactive_file 73741824\nfile 3\n");
        assert_eq!(own(&machine), Ok(MemoryUse { working_set: 1_000_000_000, limit: Some(2 * GIB) }));
        machine.write("cg/memory.max", "max\n");
        assert_eq!(own(&machine).expect("read").limit, None);
        // Counters are not read in one moment: never below nothing.
        machine.write("cg/memory.stat", "inactive_file 9999999999\n");
        assert_eq!(own(&machine).expect("read").working_set, 0);
    }

    #[test]
    fn the_tightest_limit_above_counts_as_far_as_it_is_visible() {
        let machine = Machine::new();
        mounted(&machine, "30 21 0:26 / ROOT/cg rw - cgroup2 cgroup rw");
        machine.write("self/cgroup", "0::/kubepods/pod1/server\n");
        machine.write("cg/kubepods/pod1/server/memory.current", "5");
        machine.write("cg/kubepods/pod1/server/memory.stat", "");
        machine.write("cg/kubepods/pod1/server/memory.max", "max");
        machine.write("cg/kubepods/pod1/memory.max", "3000");
        machine.write("cg/kubepods/memory.max", "9000");
        // Outside the mount: nobody's business.
        machine.write("memory.max", "1");
        assert_eq!(own(&machine), Ok(MemoryUse { working_set: 5, limit: Some(3000) }));
    }

    #[test]
    fn version_1_in_a_container_that_knows_its_path_on_the_node_only() {
        let machine = Machine::new();
        let line = "31 23 0:32 /kubepods/pod1/abc ROOT/cg/memory ro - cgroup cgroup rw,memory";
        mounted(&machine, line);
        machine.write("self/cgroup", "5:cpu,cpuacct:/kubepods/pod1/abc\n4:memory:/kubepods/pod1/abc\n0::/\n");
        machine.write("cg/memory/memory.usage_in_bytes", "2000\n");
        machine.write("cg/memory/memory.limit_in_bytes", "9223372036854771712\n");
        machine.write("cg/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 500\n");
        assert_eq!(own(&machine), Ok(MemoryUse { working_set: 1500, limit: None }));
        let stat = "total_inactive_file 500\nhierarchical_memory_limit 4000\n";
        machine.write("cg/memory/memory.stat", stat);
        assert_eq!(own(&machine).expect("read").limit, Some(4000));
        machine.write("cg/memory/memory.limit_in_bytes", "3000\n");
        assert_eq!(own(&machine).expect("read").limit, Some(3000));
    }

    #[test]
    fn a_container_that_sees_the_whole_hierarchy_finds_its_own_place() {
        let machine = Machine::new();
        mounted(&machine, "31 23 0:32 / ROOT/a\\040b rw - cgroup cgroup rw,memory");
        machine.write("self/cgroup", "4:memory:/api/one\n");
        machine.write("a b/memory.usage_in_bytes", "1");
        machine.write("a b/api/one/memory.usage_in_bytes", "70");
        machine.write("a b/api/one/memory.stat", "");
        assert_eq!(own(&machine), Ok(MemoryUse { working_set: 70, limit: None }));
    }

    #[test]
    fn no_controller_and_garbage_are_said() {
        let machine = Machine::new();
        assert!(own(&machine).expect_err("nothing").starts_with("cannot read /proc/self/cgroup: "));
        machine.write("self/cgroup", "0::/\n");
        mounted(&machine, "30 21 0:26 / ROOT/cg rw - cgroup2 cgroup rw");
        assert_eq!(own(&machine), Err("no memory controller is mounted here".to_owned()));
        machine.write("cg/memory.current", "lots");
        assert!(own(&machine).expect_err("garbage").ends_with("memory.current holds \"lots\", not a number"));
        let gone = Cgroup::at(machine.path().join("gone")).memory().expect_err("nothing there");
        assert!(gone.ends_with("memory.usage_in_bytes does not exist: no memory controller there"), "{gone}");
    }

    #[test]
    fn this_machine_reads_for_real() {
        let read = Cgroup::own(&Proc::here()).and_then(|group| group.memory()).expect("a memory controller");
        assert!(read.working_set > 1 << 20, "{read:?}");
        assert!(read.limit.is_none_or(|limit| limit > 1 << 20), "{read:?}");
    }
}
