//! The configuration file while the sidecar runs: has it changed, and is the new one any good?
//!
//! Looks rather than watches: the kubelet swaps a symlink, watches die with it, and modification times lie.
//! Reading and validating happen on the blocking pool, for a file of 10 000 checks must not hold up the
//! engine. It refuses to apply anything: it hands over a whole configuration or all that is wrong with one.

use std::collections::BTreeMap;
use std::path::Path;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::upstream::Resolved;
use crate::config::{self, Config, Overrides, Reload, Watcher};
use crate::control::Refusal;
use crate::engine::Time;
use crate::limits;

/// Where the configuration comes from.
#[derive(Debug)]
pub struct Source {
    watcher: Watcher,
    environment: BTreeMap<String, String>,
}

/// What a look at the file showed.
#[derive(Debug)]
pub(super) enum Look {
    Unchanged,
    Loaded(Box<Resolved>),
    /// Everything that is wrong with it, for a person.
    Refused(String),
}

impl Source {
    /// Reads the configuration for the first time.
    ///
    /// # Errors
    /// Everything that is wrong with it, for a person; a `${NAME}` that is not set included.
    pub fn open(file: &Path, overrides: &Overrides) -> Result<(Config, Self), String> {
        let (watcher, first) = Watcher::open(file, overrides.clone());
        let config = match first {
            Reload::Changed(config) => *config,
            Reload::Refused(problems) => return Err(problems.to_string()),
        };
        let source = Self { watcher, environment: overrides.environment.clone() };
        source.require_variables(&config)?;
        Ok((config, source))
    }

    fn look(&mut self, force: bool) -> Look {
        let reload = if force { Some(self.watcher.force()) } else { self.watcher.poll() };
        let whole = match reload {
            None => return Look::Unchanged,
            Some(Reload::Changed(config)) => self.require_variables(&config).and_then(|()| Resolved::new(*config)),
            Some(Reload::Refused(problems)) => Err(problems.to_string()),
        };
        match whole {
            Ok(resolved) => Look::Loaded(Box::new(resolved)),
            Err(problems) => Look::Refused(problems),
        }
    }

    fn require_variables(&self, config: &Config) -> Result<(), String> {
        let unset = config::unset_variables(config, &self.environment);
        if unset.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = unset.iter().map(|unset| format!("{}: {unset}", config.source.display())).collect();
        Err(lines.join("\n"))
    }
}

/// Whoever asked for a reload and waits for its outcome.
pub(super) type Asker = oneshot::Sender<Result<String, Refusal>>;

/// Looks at the file from time to time, one look at a time.
pub(super) struct Reloading {
    source: Option<Source>,
    looking: Option<JoinHandle<(Source, Look)>>,
    /// Whose question the look under way answers.
    askers: Vec<Asker>,
    /// Who asked after the look began: it may have read the old file.
    later: Vec<Asker>,
    /// The next look is for them.
    forced: bool,
    due: Time,
}

impl Reloading {
    /// `None`: a configuration without a file, which never changes.
    pub(super) fn new(source: Option<Source>, now: Time) -> Self {
        Self {
            source,
            looking: None,
            askers: Vec::new(),
            later: Vec::new(),
            forced: false,
            due: now + limits::RELOAD_POLL,
        }
    }

    /// When to look next by itself.
    pub(super) fn due(&self) -> Option<Time> {
        self.source.as_ref().map(|_| self.due)
    }

    /// Begins a look if one is due.
    pub(super) fn step(&mut self, now: Time) {
        if self.due <= now {
            let force = std::mem::take(&mut self.forced);
            self.begin(now, force);
        }
    }

    /// Looks now, whoever asks (a signal does not).
    pub(super) fn ask(&mut self, now: Time, asker: Option<Asker>) {
        if self.looking.is_some() {
            self.later.extend(asker);
            self.forced = true;
            self.due = now;
        } else if self.source.is_some() {
            self.askers.extend(asker);
            self.begin(now, true);
        } else if let Some(asker) = asker {
            let _ = asker.send(Err(Refusal::Invalid("this sidecar runs without a configuration file".to_owned())));
        }
    }

    fn begin(&mut self, now: Time, force: bool) {
        if let Some(mut source) = self.source.take() {
            self.due = now + limits::RELOAD_POLL;
            self.looking = Some(tokio::task::spawn_blocking(move || {
                let look = source.look(force);
                (source, look)
            }));
        }
    }

    /// The end of the look under way, and who waits for its outcome; never while there is none. May be dropped
    /// and called again.
    pub(super) async fn looked(&mut self) -> (Look, Vec<Asker>) {
        let Some(looking) = &mut self.looking else { return std::future::pending().await };
        let ended = looking.await;
        self.looking = None;
        let askers = std::mem::replace(&mut self.askers, std::mem::take(&mut self.later));
        match ended {
            Ok((source, look)) => {
                self.source = Some(source);
                (look, askers)
            }
            // A panic of the reader: the running configuration stays, and there will be no other.
            Err(_) => (Look::Refused("the configuration's reader has crashed; reloads are off".to_owned()), askers),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    const GOOD: &str = "[upstream]\naddress = \"127.0.0.1:1\"\n";

    fn opened(text: &str) -> (tempfile::TempDir, PathBuf, Source) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("probegate.toml");
        fs::write(&path, text).unwrap();
        let (_, source) = Source::open(&path, &Overrides::default()).unwrap();
        (directory, path, source)
    }

    #[test]
    fn an_unchanged_file_is_not_loaded_again_unless_somebody_asks() {
        let (_directory, _path, mut source) = opened(GOOD);
        assert!(matches!(source.look(false), Look::Unchanged));
        assert!(matches!(source.look(true), Look::Loaded(_)));
    }

    #[test]
    fn a_swapped_symlink_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        fs::write(&one, GOOD).unwrap();
        fs::write(&two, GOOD.replace(":1", ":2")).unwrap();
        let path = directory.path().join("probegate.toml");
        symlink(&one, &path).unwrap();
        let (_, mut source) = Source::open(&path, &Overrides::default()).unwrap();
        let next = directory.path().join("next");
        symlink(&two, &next).unwrap();
        fs::rename(&next, &path).unwrap();
        let Look::Loaded(new) = source.look(false) else { panic!("not seen") };
        assert_eq!(new.backends[0].port(), 2);
    }

    #[test]
    fn a_file_that_is_bad_or_vanishes_is_refused_once_and_its_return_is_a_change() {
        let (_directory, path, mut source) = opened(GOOD);
        fs::write(&path, "[upstrem]\n").unwrap();
        assert!(matches!(source.look(false), Look::Refused(problems) if problems.contains("upstrem")));
        assert!(matches!(source.look(false), Look::Unchanged));
        fs::remove_file(&path).unwrap();
        assert!(matches!(source.look(false), Look::Refused(_)));
        fs::write(&path, GOOD).unwrap();
        assert!(matches!(source.look(false), Look::Loaded(_)));
    }

    #[test]
    fn a_variable_that_is_not_set_is_a_problem_that_names_it() {
        let (_directory, path, mut source) = opened(GOOD);
        fs::write(&path, format!("{GOOD}[checks.cache]\nredis = \"redis://:${{NOT_SET}}@127.0.0.1:1\"\n")).unwrap();
        assert!(matches!(source.look(false), Look::Refused(problems) if problems.contains("NOT_SET")));
    }

    #[tokio::test]
    async fn an_asker_who_comes_during_a_look_is_answered_by_the_next() {
        let (_directory, _path, source) = opened(GOOD);
        let mut reloading = Reloading::new(Some(source), Time::ZERO);
        let (first, _) = oneshot::channel();
        let (second, _) = oneshot::channel();
        reloading.ask(Time::ZERO, Some(first));
        reloading.ask(Time::ZERO, Some(second));
        assert_eq!(reloading.looked().await.1.len(), 1);
        reloading.step(Time::ZERO);
        let (look, askers) = reloading.looked().await;
        assert!(matches!(look, Look::Loaded(_)), "a look that somebody asked for reads the file again");
        assert_eq!(askers.len(), 1);
        reloading.step(Time::ZERO);
        assert!(reloading.looking.is_none(), "the next look is not due");
    }

    #[tokio::test]
    async fn without_a_file_a_reload_is_refused() {
        let (asker, answer) = oneshot::channel();
        Reloading::new(None, Time::ZERO).ask(Time::ZERO, Some(asker));
        assert!(matches!(answer.await.unwrap(), Err(Refusal::Invalid(_))));
    }
}
