//! Who asked for what ended how: so that one caller's bad input is never taken for the server's failure.
//!
//! Owns the counts by origin, a window over them, and the objection to a verdict. The traffic plane sorts ends
//! into a few shares, by caller and by input, for it can do that without a lock and without memory of its own:
//! two that fall into one share look like one. It refuses to know who anybody is: a share is a number.

use std::collections::VecDeque;
use std::time::Duration;

use super::plan::OutcomesPlan;
use super::time::Time;

/// Shares of each kind.
const SHARES: usize = 32;

/// How requests ended, by their origin, since the traffic plane began.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origins {
    /// By caller, and from [`Origins::CALLERS`] on by input (caller, path and length): good ends, bad ends.
    pub shares: [(u64, u64); 2 * SHARES],
}

impl Origins {
    /// Shares by caller. As many by input follow.
    pub const CALLERS: usize = SHARES;
}

impl Default for Origins {
    fn default() -> Self {
        Self { shares: [(0, 0); 2 * SHARES] }
    }
}

/// What ended: share, good, bad.
type News = Vec<(usize, u64, u64)>;

/// What one `outcomes` check remembers of the origins.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspects {
    /// The counts as last told.
    seen: Option<Box<Origins>>,
    /// By step of the window, oldest first: when it began.
    ends: VecDeque<(Time, News)>,
    /// Failures by share since the last good end.
    row: Vec<(usize, u64)>,
    /// One bit for each share that something good has come from since the present model server began.
    once_good: u64,
}

/// The sums of one kind, and what is left of them without the share that failed most.
struct Sums {
    shares: usize,
    worst: usize,
    worst_bad: u64,
    rest: (u64, u64),
}

impl Suspects {
    /// Takes a sample at `now`. `counted`: its ends are part of the window.
    pub(super) fn told(&mut self, now: Time, window: Duration, step: Duration, origins: &Origins, counted: bool) {
        let news = self.news(origins);
        while self.ends.front().is_some_and(|(at, _)| window < now.since(*at)) {
            self.ends.pop_front();
        }
        for (share, good, _) in &news {
            self.once_good |= u64::from(*good > 0) << share;
        }
        if !counted || news.is_empty() {
            return;
        }
        if news.iter().any(|(_, good, _)| *good > 0) {
            self.row.clear();
        } else {
            self.row_grows(&news);
        }
        match self.ends.back_mut() {
            Some((begun, ends)) if now.since(*begun) < step => ends.extend(news),
            _ => self.ends.push_back((now, news)),
        }
    }

    fn row_grows(&mut self, news: &News) {
        for (share, _, bad) in news {
            match self.row.iter_mut().find(|(known, _)| known == share) {
                Some((_, count)) => *count += bad,
                None => self.row.push((*share, *bad)),
            }
        }
    }

    /// What ended since the last sample. Counts that went back begin anew.
    fn news(&mut self, origins: &Origins) -> News {
        let Some(seen) = &mut self.seen else {
            self.seen = Some(Box::new(origins.clone()));
            return Vec::new();
        };
        let before = std::mem::replace(&mut **seen, origins.clone());
        let both = origins.shares.iter().zip(before.shares).enumerate();
        let news = both.map(|(share, (now, then))| (share, now.0.saturating_sub(then.0), now.1.saturating_sub(then.1)));
        news.filter(|(_, good, bad)| good + bad > 0).collect()
    }

    /// Forgets the window.
    pub(super) fn clear(&mut self) {
        self.ends.clear();
        self.row.clear();
    }

    /// Why the window's failures may be one caller's bad input and no fault of the server's, if they may.
    ///
    /// With several callers a verdict must stand without the one that failed most. With one it must stand without
    /// the input that failed most, unless that input has ended well before and nothing else does now.
    pub(super) fn objection(&self, plan: &OutcomesPlan) -> Option<String> {
        let callers = self.sums(0..Origins::CALLERS)?;
        if callers.shares > 1 {
            return (!fails(callers.rest, plan)).then(|| spared("caller", &callers));
        }
        let inputs = self.sums(Origins::CALLERS..2 * SHARES)?;
        let was_good = self.once_good >> inputs.worst & 1 == 1 && inputs.rest.0 == 0;
        if was_good || fails(inputs.rest, plan) {
            return None;
        }
        if inputs.rest == (0, 0) {
            let count = inputs.worst_bad;
            return Some(format!("all {count} are of one input of one caller, which has never ended well"));
        }
        Some(spared("input", &inputs))
    }

    /// The same for failures in a row, in which nothing ends well.
    ///
    /// With several callers in the window what the others failed must be a row by itself. The only caller's must hold
    /// two inputs, or one that has ended well before.
    pub(super) fn objection_to_row(&self, plan: &OutcomesPlan) -> Option<String> {
        let of_kind = |inputs: bool| self.row.iter().filter(move |(share, _)| (Origins::CALLERS <= *share) == inputs);
        if self.sums(0..Origins::CALLERS)?.shares > 1 {
            let (all, most) = of_kind(false).fold((0, 0), |(all, most), (_, bad)| (all + bad, most.max(*bad)));
            let others = all - most;
            let why = || format!("{most} of them are one caller's, and the {others} of others are no row");
            return (others < u64::from(plan.consecutive_failures)).then(why);
        }
        let mut inputs = of_kind(true);
        let (input, count) = inputs.next()?;
        let was_good = self.once_good >> input & 1 == 1;
        let why = || format!("all {count} are of one input of one caller, which has never ended well");
        (inputs.next().is_none() && !was_good).then(why)
    }

    /// None where nothing failed.
    fn sums(&self, kind: std::ops::Range<usize>) -> Option<Sums> {
        let mut sums = [(0, 0); 2 * SHARES];
        for (share, good, bad) in self.ends.iter().flat_map(|(_, ends)| ends) {
            sums[*share].0 += good;
            sums[*share].1 += bad;
        }
        let of_kind = || kind.clone().map(|share| (share, sums[share]));
        let (worst, (_, worst_bad)) = of_kind().max_by_key(|(_, (_, bad))| *bad).filter(|(_, (_, bad))| *bad > 0)?;
        let others = of_kind().filter(|(share, _)| *share != worst);
        let rest = others.fold((0, 0), |rest, (_, (good, bad))| (rest.0 + good, rest.1 + bad));
        let shares = of_kind().filter(|(_, (good, bad))| good + bad > 0).count();
        Some(Sums { shares, worst, worst_bad, rest })
    }
}

fn fails((good, bad): (u64, u64), plan: &OutcomesPlan) -> bool {
    bad > 0 && good * 1000 < u64::from(plan.min_success_permille) * (good + bad)
}

fn spared(what: &str, sums: &Sums) -> String {
    let (good, bad) = sums.rest;
    format!("{} of them are one {what}'s, and without it {good} of {} ended well", sums.worst_bad, good + bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: OutcomesPlan = OutcomesPlan {
        min_success_permille: 500,
        window: Duration::from_secs(30),
        min_requests: 10,
        consecutive_failures: 5,
    };

    #[derive(Default)]
    struct Scene {
        suspects: Suspects,
        origins: Origins,
        second: u64,
    }

    impl Scene {
        fn new() -> Self {
            let mut scene = Self::default();
            scene.tell();
            scene
        }

        fn tell(&mut self) {
            self.second += 1;
            let now = Time::from_secs(self.second);
            self.suspects.told(now, PLAN.window, Duration::from_millis(500), &self.origins, true);
        }

        /// A second in which requests of this caller and this input end so.
        fn ends(mut self, caller: usize, input: usize, good: u64, bad: u64) -> Self {
            for share in [caller, Origins::CALLERS + input] {
                self.origins.shares[share].0 += good;
                self.origins.shares[share].1 += bad;
            }
            self.tell();
            self
        }

        fn objection(&self) -> Option<String> {
            self.suspects.objection(&PLAN)
        }

        fn objection_to_row(&self) -> Option<String> {
            self.suspects.objection_to_row(&PLAN)
        }
    }

    #[test]
    fn one_callers_failures_beside_others_that_end_well_are_its_own() {
        let scene = Scene::new().ends(1, 1, 0, 90).ends(2, 2, 4, 1);
        assert_eq!(scene.objection().as_deref(), Some("90 of them are one caller's, and without it 4 of 5 ended well"));
    }

    #[test]
    fn failures_of_several_callers_are_the_servers() {
        assert_eq!(Scene::new().ends(1, 1, 0, 90).ends(2, 2, 0, 1).objection(), None);
        assert_eq!(Scene::new().ends(1, 1, 0, 9).ends(2, 2, 3, 9).ends(3, 3, 1, 4).objection(), None);
    }

    #[test]
    fn the_only_callers_one_input_proves_nothing_and_several_do() {
        let one = Scene::new().ends(1, 1, 0, 50);
        let why = "all 50 are of one input of one caller, which has never ended well";
        assert_eq!(one.objection().as_deref(), Some(why));
        assert_eq!(one.ends(1, 2, 0, 1).objection(), None);
    }

    #[test]
    fn a_row_is_weighed_by_what_the_other_callers_failed_whatever_ended_well_before_it() {
        let scene = Scene::new().ends(1, 1, 90, 0).ends(2, 2, 90, 0).ends(1, 3, 0, 4).ends(1, 4, 0, 3).ends(2, 5, 0, 4);
        let why = "7 of them are one caller's, and the 4 of others are no row";
        assert_eq!(scene.objection_to_row().as_deref(), Some(why), "two inputs of one caller, and too little else");
        let scene = scene.ends(3, 6, 0, 1);
        assert_eq!(scene.objection_to_row(), None, "the others' are a row by themselves");
        assert!(scene.objection().is_some(), "the share must wait");
        let none = Scene::new().ends(2, 2, 9, 0).ends(1, 1, 1, 0).ends(1, 1, 0, 50);
        assert!(none.objection_to_row().is_some(), "nobody else's, though it ended well before");
    }

    #[test]
    fn the_only_callers_row_needs_two_inputs_or_one_that_ended_well_before() {
        let good = || Scene::new().ends(1, 1, 90, 0);
        assert_eq!(good().ends(1, 1, 0, 5).objection_to_row(), None, "it has ended well before");
        let poison = good().ends(1, 3, 0, 5);
        let why = "all 5 are of one input of one caller, which has never ended well";
        assert_eq!(poison.objection_to_row().as_deref(), Some(why));
        let both = poison.ends(1, 4, 0, 1);
        assert_eq!(both.objection_to_row(), None, "two inputs");
        assert_eq!(both.ends(1, 1, 1, 0).objection_to_row(), None, "no row");
    }

    #[test]
    fn an_input_that_ended_well_before_is_good_enough_to_judge_by() {
        let scene = Scene::new().ends(1, 1, 1, 0).ends(1, 1, 0, 50);
        // Within the window its own success is counted with it.
        assert_eq!(scene.objection(), None);
        let why = "50 of them are one input's, and without it 9 of 9 ended well";
        assert_eq!(scene.ends(1, 2, 9, 0).objection().as_deref(), Some(why));
    }

    #[test]
    fn the_window_forgets_and_what_came_before_the_first_sample_is_unknown() {
        let mut scene = Scene::default();
        scene.origins.shares[1] = (100, 100);
        scene.tell();
        assert_eq!(scene.objection(), None, "nothing failed since");
        let mut scene = scene.ends(1, 1, 0, 20);
        assert!(scene.objection().is_some());
        scene.second += 40;
        scene.tell();
        assert_eq!(scene.objection(), None);
        scene.origins = Origins::default();
        scene.tell();
        assert_eq!(scene.objection(), None, "counts that went back");
    }
}
