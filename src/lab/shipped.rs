//! The experiments that come with the binary, and the configuration files they name.

/// A scenario by its short name.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    pub name: &'static str,
    pub text: &'static str,
}

/// All of them, in reading order.
pub const SHIPPED: &[Shipped] = &[
    Shipped { name: "exercise5-profile-api", text: include_str!("../../config/lab/exercise5-profile-api.toml") },
    Shipped { name: "exercise5-cache", text: include_str!("../../config/lab/exercise5-cache.toml") },
    Shipped { name: "exercise5-redis", text: include_str!("../../config/lab/exercise5-redis.toml") },
    Shipped { name: "exercise5-hang", text: include_str!("../../config/lab/exercise5-hang.toml") },
    Shipped { name: "busy", text: include_str!("../../config/lab/busy.toml") },
    Shipped { name: "slow-start", text: include_str!("../../config/lab/slow-start.toml") },
];

/// What the shipped scenarios name: paths as they write them.
const FILES: &[(&str, &str)] = &[
    ("../exercise5.toml", include_str!("../../config/exercise5.toml")),
    ("../minimal.toml", include_str!("../../config/minimal.toml")),
    ("../self-healing.toml", include_str!("../../config/self-healing.toml")),
];

impl Shipped {
    pub fn find(name: &str) -> Option<&'static Self> {
        SHIPPED.iter().find(|shipped| shipped.name == name)
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
