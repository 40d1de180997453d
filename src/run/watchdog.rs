//! Who still shows signs of life: the sidecar's opinion of itself.
//!
//! Owns one pulse a thread and a thread of its own that compares them. It refuses to mend anything: it says
//! who is stuck, `/self` fails, and the kubelet restarts the sidecar, and only the sidecar.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use arc_swap::ArcSwapOption;

use crate::answers::SelfCheck;
use crate::clock::Clock;
use crate::engine::Time;
use crate::limits;

/// A thread's sign of life: a number that its own loop moves.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// One turn of the loop.
    pub(super) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Beats as long as the runtime it is polled on turns.
    pub(super) async fn keep(self) {
        let mut turns = tokio::time::interval(limits::PULSE);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            self.beat();
        }
    }
}

/// One watched thread.
struct Watched {
    name: String,
    count: Box<dyn Fn() -> u64 + Send>,
    last: u64,
    moved: Time,
}

/// What the watchdog last saw; read by whoever answers `/self`.
pub(super) struct Watch {
    clock: Clock,
    /// Why the sidecar is ill, if it is.
    illness: ArcSwapOption<String>,
    looked: AtomicU64,
}

/// Compares pulses over time.
pub(super) struct Watchdog {
    watched: Vec<Watched>,
    watch: Arc<Watch>,
}

impl Watchdog {
    pub(super) fn new(clock: Clock) -> Self {
        let looked = AtomicU64::new(clock.now().as_nanos());
        Self { watched: Vec::new(), watch: Arc::new(Watch { clock, illness: ArcSwapOption::empty(), looked }) }
    }

    /// What `/self` is answered from.
    pub(super) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    /// Watches a pulse under a thread's name.
    pub(super) fn add(&mut self, name: impl Into<String>, pulse: &Pulse) {
        let pulse = pulse.clone();
        self.add_counter(name, move || pulse.count());
    }

    /// Watches any number that a living thread moves.
    pub(super) fn add_counter(&mut self, name: impl Into<String>, count: impl Fn() -> u64 + Send + 'static) {
        let (last, moved) = (count(), self.watch.clock.now());
        self.watched.push(Watched { name: name.into(), count: Box::new(count), last, moved });
    }

    /// Looks about twice a second until `stop` closes.
    pub(super) fn run(mut self, stop: &Receiver<()>) {
        while stop.recv_timeout(limits::PULSE) == Err(RecvTimeoutError::Timeout) {
            self.look();
        }
    }

    /// One look at everybody.
    fn look(&mut self) {
        let now = self.watch.clock.now();
        let before = Time::from_nanos(self.watch.looked.swap(now.as_nanos(), Ordering::Relaxed));
        // Whoever kept this very thread from running kept the others too: their silence is no fault of theirs.
        let frozen = limits::PULSE * 3 < now.since(before);
        let mut stuck = Vec::new();
        for one in &mut self.watched {
            let count = (one.count)();
            if count != one.last || frozen {
                (one.last, one.moved) = (count, now);
            } else if limits::STUCK <= now.since(one.moved) {
                stuck.push(format!("{} has not moved for {} s", one.name, now.since(one.moved).as_secs()));
            }
        }
        self.tell(&stuck);
    }

    fn tell(&self, stuck: &[String]) {
        let was_ill = self.watch.illness.load().is_some();
        match (was_ill, stuck.is_empty()) {
            (_, false) => {
                let illness = stuck.join("; ");
                if !was_ill {
                    tracing::error!("the sidecar is ill: {illness}");
                }
                self.watch.illness.store(Some(Arc::new(illness)));
            }
            (true, true) => {
                tracing::info!("the sidecar is well again");
                self.watch.illness.store(None);
            }
            (false, true) => {}
        }
    }
}

impl Watch {
    /// The same as [`SelfCheck::verdict`], at a time of the caller's.
    fn verdict_at(&self, now: Time) -> Result<(), String> {
        let silent = now.since(Time::from_nanos(self.looked.load(Ordering::Relaxed)));
        if limits::STUCK + limits::PULSE < silent {
            return Err(format!("the watchdog has not looked for {} s", silent.as_secs()));
        }
        self.illness.load().as_ref().map_or(Ok(()), |illness| Err(illness.as_str().to_owned()))
    }
}

impl SelfCheck for Watch {
    fn verdict(&self) -> Result<(), String> {
        self.verdict_at(self.clock.now())
    }
}

/// How long a stuck thread may go unnoticed at most: the look that finds it comes this late.
#[cfg(test)]
const NOTICED_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn pass(watchdog: &mut Watchdog, looks: u32, beating: &[&Pulse]) {
        for _ in 0..looks {
            tokio::time::advance(limits::PULSE).await;
            beating.iter().for_each(|pulse| pulse.beat());
            watchdog.look();
        }
    }

    fn watchdog() -> (Watchdog, Arc<Watch>, Pulse, Pulse) {
        let mut watchdog = Watchdog::new(Clock::start());
        let (engine, worker) = (Pulse::default(), Pulse::default());
        watchdog.add("engine", &engine);
        watchdog.add("traffic-0", &worker);
        let watch = watchdog.watch();
        (watchdog, watch, engine, worker)
    }

    #[tokio::test(start_paused = true)]
    async fn threads_that_beat_are_well() {
        let (mut watchdog, watch, engine, worker) = watchdog();
        pass(&mut watchdog, 60, &[&engine, &worker]).await;
        assert_eq!(watch.verdict(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_thread_is_named_within_five_seconds_and_forgiven_when_it_moves() {
        let (mut watchdog, watch, engine, worker) = watchdog();
        pass(&mut watchdog, 4, &[&engine, &worker]).await;
        let looks = u32::try_from(NOTICED_WITHIN.as_millis() / limits::PULSE.as_millis()).unwrap();
        pass(&mut watchdog, looks, &[&engine]).await;
        let illness = watch.verdict().unwrap_err();
        assert!(illness.starts_with("traffic-0 has not moved for"), "{illness}");
        assert!(!illness.contains("engine"), "{illness}");
        pass(&mut watchdog, 1, &[&engine, &worker]).await;
        assert_eq!(watch.verdict(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_frozen_as_a_whole_is_not_ill_when_it_thaws() {
        let (mut watchdog, watch, _engine, _worker) = watchdog();
        tokio::time::advance(Duration::from_secs(60)).await;
        watchdog.look();
        assert_eq!(watch.verdict(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watchdog_that_does_not_look_is_itself_reported() {
        let (_watchdog, watch, _engine, _worker) = watchdog();
        tokio::time::advance(NOTICED_WITHIN).await;
        assert_eq!(watch.verdict(), Err("the watchdog has not looked for 5 s".to_owned()));
    }
}
