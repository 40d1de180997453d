//! Notices that the file has changed, and says what of the change must wait for a restart.
//!
//! A mounted ConfigMap changes by a swap of the `..data` link, which file watches lose and modification times hide.
//! So the watcher reads the content, through whatever links lead to it, and compares nothing else; at most 1 MiB every
//! few seconds costs less than being wrong. It sleeps nowhere: who drives it polls it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::{Config, Overrides, Problems, from_str, read};

/// Compares a file with what it was at the last look.
#[derive(Debug)]
pub struct Watcher {
    file: PathBuf,
    overrides: Overrides,
    /// A hash of the text, or of the reason why there is none.
    seen: u64,
}

/// What came of a look.
#[derive(Debug)]
pub enum Reload {
    /// A whole configuration.
    Changed(Box<Config>),
    /// A faulty one: keep what runs.
    Refused(Problems),
}

impl Watcher {
    /// Reads the file for the first time, and watches it from then on. Once and not twice: `<(...)` gives its
    /// content only once.
    pub fn open(file: &Path, overrides: Overrides) -> (Self, Reload) {
        let mut watcher = Self { file: file.to_owned(), overrides, seen: 0 };
        let first = watcher.force();
        (watcher, first)
    }

    /// Looks; a change comes once, good or bad.
    pub fn poll(&mut self) -> Option<Reload> {
        let (seen, text) = self.look();
        if self.seen == seen {
            return None;
        }
        self.seen = seen;
        Some(self.judge(text))
    }

    /// Reads the file whether it changed or not: somebody asked for it.
    pub fn force(&mut self) -> Reload {
        let (seen, text) = self.look();
        self.seen = seen;
        self.judge(text)
    }

    fn judge(&self, text: Result<String, String>) -> Reload {
        let config = match text {
            Ok(text) => from_str(&self.file, &text, &self.overrides),
            Err(message) => Err(Problems::whole(&self.file, message)),
        };
        match config {
            Ok(config) => Reload::Changed(Box::new(config)),
            Err(problems) => Reload::Refused(problems),
        }
    }

    fn look(&self) -> (u64, Result<String, String>) {
        let text = read(&self.file);
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        (hasher.finish(), text)
    }
}

/// Keys whose new values wait for a restart, by name; everything else of `new` can be applied at once.
pub fn waits_for_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    [
        ("listen.traffic", old.listen.traffic != new.listen.traffic),
        ("listen.probes", old.listen.probes != new.listen.probes),
        ("listen.admin", old.listen.admin != new.listen.admin),
        ("listen.admin_token_file", old.listen.admin_token != new.listen.admin_token),
        ("traffic.workers", old.traffic.workers != new.traffic.workers),
        ("traffic.expose_probes", old.listen.expose_probes != new.listen.expose_probes),
        ("log.format", old.log.format != new.log.format),
        // Its thread is started with the others. Sampling changes at once, and so does turning it off.
        ("log.access", old.log.access.is_none() && new.log.access.is_some()),
        ("report.ring", old.ring_file != new.ring_file),
        ("report.trace", old.trace_file != new.trace_file),
        ("a heartbeat's notify socket", old.notify_socket != new.notify_socket),
    ]
    .into_iter()
    .filter_map(|(key, waits)| waits.then_some(key))
    .collect()
}
