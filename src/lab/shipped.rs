//! The experiments that come with the binary, and the configuration files they name.

#[cfg(test)]
mod tests;

/// A scenario by its short name.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    pub name: &'static str,
    pub text: &'static str,
}

/// Experiments on one theme, and the page of text that states question, prediction and result of each.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub title: &'static str,
    /// In the repository.
    pub page: &'static str,
    pub scenarios: &'static [Shipped],
}

macro_rules! shipped {
    ($($name:literal),+ $(,)?) => {
        &[$(Shipped { name: $name, text: include_str!(concat!("../../config/lab/", $name, ".toml")) }),+]
    };
}

/// All of them, in reading order.
pub const GROUPS: &[Group] = &[
    Group {
        title: "Exercise 5: design your own health checks",
        page: "docs/lab/exercise5.md",
        scenarios: shipped!["exercise5-hang", "exercise5-profile-api", "exercise5-cache", "exercise5-redis"],
    },
    Group {
        title: "Exercises 2 and 3: a bad release and its rollback",
        page: "docs/lab/releases.md",
        scenarios: shipped!["exercise2", "exercise3", "exercise3-automatic"],
    },
    Group {
        title: "The bonus exercise: cascading failure",
        page: "docs/lab/cascade.md",
        scenarios: shipped!["cascade", "cascade-overload"],
    },
    Group {
        title: "CrashLoopBackOff",
        page: "docs/lab/crashloop.md",
        scenarios: shipped!["crashloop", "crashloop-probe"],
    },
    Group {
        title: "A dependency that all pods share",
        page: "docs/lab/shared-dependency.md",
        scenarios: shipped!["redis-shared", "redis-needed", "redis-one-pod"],
    },
    Group { title: "Incidents", page: "docs/lab/incidents.md", scenarios: shipped!["livekit", "civitai"] },
    Group {
        title: "Busy servers and slow starts",
        page: "docs/lab/busy-and-slow.md",
        scenarios: shipped!["busy", "vllm", "slow-start"],
    },
    Group {
        title: "The sidecar's own failures, and the end of a pod",
        page: "docs/lab/sidecar-and-drain.md",
        scenarios: shipped!["sidecar-loop", "prestop"],
    },
];

macro_rules! named {
    ($shown:literal, $path:literal) => {
        ($shown, include_str!(concat!("../../config/", $path)))
    };
}

/// What the shipped scenarios name: paths as they write them.
const FILES: &[(&str, &str)] = &[
    named!("../exercise5.toml", "exercise5.toml"),
    named!("../minimal.toml", "minimal.toml"),
    named!("../self-healing.toml", "self-healing.toml"),
    named!("designs/accuracy.toml", "lab/designs/accuracy.toml"),
    named!("designs/guarded.toml", "lab/designs/guarded.toml"),
    named!("designs/redis-degrade.toml", "lab/designs/redis-degrade.toml"),
    named!("designs/redis-require.toml", "lab/designs/redis-require.toml"),
    named!("designs/redis-withdrawal.toml", "lab/designs/redis-withdrawal.toml"),
    named!("designs/search-degrade.toml", "lab/designs/search-degrade.toml"),
    named!("designs/shed.toml", "lab/designs/shed.toml"),
    named!("designs/vllm.toml", "lab/designs/vllm.toml"),
];

/// Every experiment, in reading order.
pub fn all() -> impl Iterator<Item = &'static Shipped> {
    GROUPS.iter().flat_map(|group| group.scenarios)
}

impl Shipped {
    pub fn find(name: &str) -> Option<&'static Self> {
        all().find(|shipped| shipped.name == name)
    }
}

/// The text of a file that a shipped scenario names.
///
/// # Errors
/// If the binary does not carry it.
pub fn read(path: &str) -> Result<String, String> {
    let found = FILES.iter().find(|(known, _)| *known == path);
    found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| "not in the binary".to_owned())
}
