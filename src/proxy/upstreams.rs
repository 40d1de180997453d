//! Which upstream serves the next request.
//!
//! Owns membership, weights and the algorithm, and is the only user of `pingora-load-balancing`, which chooses
//! but for the least loaded. It refuses to judge: a backend is shut until the engine's word, and one that the
//! engine has on probation gets one request at a time over all workers. No health check
//! of that crate is registered, for its thresholds would be counted on top of ours and its backends start
//! healthy.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::selection::{BackendIter, BackendSelection, Consistent, FNVHash, Random, RoundRobin};
use pingora_load_balancing::{Backend, Backends, LoadBalancer};

use super::least_loaded::LeastLoaded;
use super::refusal::Reason;
use super::tally::{Tally, Turn};
use crate::config::Algorithm;
use crate::engine::{BackendId, Ends};

/// The chosen upstream.
#[derive(Debug)]
pub(super) struct Picked {
    pub(super) id: BackendId,
    pub(super) address: SocketAddr,
    /// The request's turn there; none where there is no other to choose.
    pub(super) turn: Option<Turn>,
}

impl Picked {
    /// The request failed there.
    pub(super) fn failed(&mut self, reason: Reason) -> Reason {
        if let Some(turn) = self.turn.take() {
            turn.fail(reason);
        }
        reason
    }
}

/// The engine's word on an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Admit {
    Nothing = 0,
    /// One request at a time.
    Trial = 1,
    Anything = 2,
}

/// Why the set of upstreams cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamsError {
    /// There must be somebody to forward to.
    #[error("no upstream address")]
    Empty,
    /// All weights 0 divides by zero inside the balancer.
    #[error("weight of {0} is 0: it must be at least 1")]
    ZeroWeight(SocketAddr),
    /// The balancer refused the set.
    #[error("upstreams cannot be balanced: {0}")]
    Balancer(String),
}

/// The upstreams and their order of turns. Shared by all workers; picking takes no lock.
pub(super) struct Upstreams {
    members: Vec<Member>,
    chooser: Chooser,
}

enum Chooser {
    Balancer(Box<dyn Balance>),
    LeastLoaded(LeastLoaded),
}

struct Member {
    address: SocketAddr,
    backend: Backend,
    admit: AtomicU8,
    tally: Arc<Tally>,
    timeouts: bool,
}

/// One upstream as configured: where it is, and its share of the turns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Weighted {
    pub(super) address: SocketAddr,
    pub(super) weight: usize,
    /// Whether running out of time is its failure.
    pub(super) timeouts: bool,
}

impl Upstreams {
    /// All of them shut until [`Upstreams::admit`] says otherwise. The order is that of the engine's backends.
    pub(super) fn new(algorithm: Algorithm, list: &[Weighted], workers: usize) -> Result<Self, UpstreamsError> {
        if list.is_empty() {
            return Err(UpstreamsError::Empty);
        }
        let mut members = Vec::with_capacity(list.len());
        for one in list {
            if one.weight == 0 {
                return Err(UpstreamsError::ZeroWeight(one.address));
            }
            let backend = Backend::new_with_weight(&one.address.to_string(), one.weight)
                .map_err(|error| UpstreamsError::Balancer(error.to_string()))?;
            members.push(Member {
                address: one.address,
                backend,
                admit: AtomicU8::new(Admit::Nothing as u8),
                tally: Arc::new(Tally::new(workers)),
                timeouts: one.timeouts,
            });
        }
        let backends: BTreeSet<Backend> = members.iter().map(|member| member.backend.clone()).collect();
        let chooser = match algorithm {
            Algorithm::LeastLoaded => {
                let weights: Vec<usize> = list.iter().map(|one| one.weight).collect();
                Chooser::LeastLoaded(LeastLoaded::new(&weights, workers))
            }
            Algorithm::RoundRobin => balancer::<RoundRobin>(backends)?,
            Algorithm::Random => balancer::<Random>(backends)?,
            Algorithm::Hash => balancer::<FNVHash>(backends)?,
            Algorithm::Consistent => balancer::<Consistent>(backends)?,
        };
        Ok(Self { members, chooser })
    }

    /// The engine's word on one backend. Unknown ids are ignored. Two entries of one address are one backend for
    /// the balancer, in rotation while either may have anything. `true`: it changed something.
    pub(super) fn admit(&self, id: BackendId, admit: Admit) -> bool {
        let Some(member) = self.members.get(id.index()) else { return false };
        if member.admit.swap(admit as u8, Ordering::AcqRel) == admit as u8 {
            return false;
        }
        if let Chooser::Balancer(balancer) = &self.chooser {
            let any = self.members.iter().any(|m| m.backend == member.backend && m.admits() != Admit::Nothing);
            balancer.set_enable(&member.backend, any);
        }
        true
    }

    /// Takes over the engine's word and the counts for the addresses that stay, so that a reload refuses nobody
    /// and forgets nothing.
    pub(super) fn inherit(&mut self, before: &Self) {
        for member in &mut self.members {
            if let Some(old) = before.members.iter().find(|old| old.address == member.address) {
                member.tally = Arc::clone(&old.tally);
            }
        }
        for (id, member) in (0..).zip(&self.members) {
            let admits = before.members.iter().filter(|old| old.address == member.address).map(Member::admits);
            if let Some(most) = admits.max_by_key(|admit| *admit as u8) {
                self.admit(BackendId(id), most);
            }
        }
    }

    /// How requests to each address ended, in the order of the backends.
    pub(super) fn ends(&self) -> Vec<Ends> {
        self.members.iter().map(|member| member.tally.ends()).collect()
    }

    /// The upstream that gets the next request of `worker`, by `key` for the hashing algorithms; `except` is
    /// passed over (a connect to it just failed). `None`: nobody may have it.
    pub(super) fn pick(&self, worker: usize, key: &[u8], except: Option<SocketAddr>) -> Option<Picked> {
        // One upstream is the common case in a pod, and needs no choice.
        if let [only] = &self.members[..] {
            let open = only.admits() != Admit::Nothing && except != Some(only.address);
            return open.then_some(Picked { id: BackendId(0), address: only.address, turn: None });
        }
        // Another worker may take the place of a trial in between; then it is chosen again, and in the end
        // without those on trial.
        for attempt in 0..4 {
            let may = |member: &Member| except != Some(member.address) && member.has_room(attempt < 3);
            let index = self.choose(worker, key, &may)?;
            let member = &self.members[index];
            let turn = match member.admits() {
                Admit::Trial => member.tally.trial(worker, member.timeouts),
                Admit::Anything | Admit::Nothing => Some(member.tally.turn(worker, member.timeouts)),
            };
            if turn.is_some() {
                return Some(Picked { id: BackendId(u32::try_from(index).ok()?), address: member.address, turn });
            }
        }
        None
    }

    fn choose(&self, worker: usize, key: &[u8], may: &dyn Fn(&Member) -> bool) -> Option<usize> {
        match &self.chooser {
            Chooser::LeastLoaded(chooser) => chooser.choose(worker, |place| {
                let member = &self.members[place];
                may(member).then(|| member.tally.in_flight())
            }),
            Chooser::Balancer(balancer) => {
                let room = |address: SocketAddr| self.members.iter().any(|m| m.address == address && may(m));
                let address = balancer.select(key, self.steps(), &room)?;
                self.members.iter().position(|member| member.address == address && may(member))
            }
        }
    }

    /// Whether an address is (still) one of ours: idle connections to others are not kept.
    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.members.iter().any(|member| member.address == address)
    }

    /// Repeats count as steps for the random and hashing algorithms: with too few, an enabled backend among
    /// many disabled ones is missed.
    fn steps(&self) -> usize {
        (16 * self.members.len()).max(64)
    }
}

impl Member {
    fn admits(&self) -> Admit {
        match self.admit.load(Ordering::Acquire) {
            0 => Admit::Nothing,
            1 => Admit::Trial,
            _ => Admit::Anything,
        }
    }

    /// Whether it may have a request now; `trials`: also one on trial.
    fn has_room(&self, trials: bool) -> bool {
        match self.admits() {
            Admit::Nothing => false,
            Admit::Trial => trials && !self.tally.is_trying(),
            Admit::Anything => true,
        }
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members.iter().map(|member| member.address)).finish()
    }
}

/// What we use of a balancer, whatever its algorithm.
trait Balance: Send + Sync {
    fn select(&self, key: &[u8], steps: usize, room: &dyn Fn(SocketAddr) -> bool) -> Option<SocketAddr>;
    fn set_enable(&self, backend: &Backend, enabled: bool);
}

impl<S> Balance for LoadBalancer<S>
where
    S: BackendSelection + Send + Sync + 'static,
    S::Iter: BackendIter,
{
    fn select(&self, key: &[u8], steps: usize, room: &dyn Fn(SocketAddr) -> bool) -> Option<SocketAddr> {
        let accept = |backend: &Backend, ready| ready && backend.addr.as_inet().is_some_and(|address| room(*address));
        let picked = self.select_with(key, steps, accept)?;
        picked.addr.as_inet().copied()
    }

    fn set_enable(&self, backend: &Backend, enabled: bool) {
        self.backends().set_enable(backend, enabled);
    }
}

fn balancer<S>(backends: BTreeSet<Backend>) -> Result<Chooser, UpstreamsError>
where
    S: BackendSelection + Send + Sync + 'static,
    S::Iter: BackendIter,
{
    let discovery = EngineDiscovery { backends };
    let balancer = LoadBalancer::<S>::from_backends(Backends::new(Box::new(discovery)));
    // Discovery only copies a set, so that the first poll is the last.
    let updated = pin!(balancer.update()).as_mut().poll(&mut Context::from_waker(Waker::noop()));
    match updated {
        Poll::Ready(Ok(())) => Ok(Chooser::Balancer(Box::new(balancer))),
        Poll::Ready(Err(error)) => Err(UpstreamsError::Balancer(error.to_string())),
        Poll::Pending => Err(UpstreamsError::Balancer("discovery did not answer at once".to_owned())),
    }
}

/// Membership as configured, everybody disabled: fail closed until the engine speaks.
struct EngineDiscovery {
    backends: BTreeSet<Backend>,
}

#[async_trait]
impl ServiceDiscovery for EngineDiscovery {
    async fn discover(&self) -> pingora_error::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        // Every key is present: an absent one would mean enabled.
        let enablement = self.backends.iter().map(|backend| (key_of(backend), false)).collect();
        Ok((self.backends.clone(), enablement))
    }
}

/// The key that `ServiceDiscovery` documents for its enablement map.
fn key_of(backend: &Backend) -> u64 {
    let mut hasher = DefaultHasher::new();
    backend.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Algorithm; 5] =
        [Algorithm::LeastLoaded, Algorithm::RoundRobin, Algorithm::Random, Algorithm::Hash, Algorithm::Consistent];

    impl Upstreams {
        fn enable(&self, id: BackendId, enabled: bool) -> bool {
            self.admit(id, if enabled { Admit::Anything } else { Admit::Nothing })
        }

        fn picked(&self, key: &[u8]) -> Option<BackendId> {
            self.pick(0, key, None).map(|picked| picked.id)
        }
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 8000))
    }

    fn upstreams(algorithm: Algorithm, weights: &[usize]) -> Upstreams {
        let list: Vec<Weighted> = weights
            .iter()
            .zip(1..)
            .map(|(&weight, last)| Weighted { address: address(last), weight, timeouts: true })
            .collect();
        Upstreams::new(algorithm, &list, 2).unwrap()
    }

    #[test]
    fn nobody_is_picked_before_the_engine_has_spoken() {
        for algorithm in ALL {
            for weights in [&[1][..], &[1, 1, 5]] {
                assert_eq!(upstreams(algorithm, weights).picked(b"/"), None, "{algorithm:?}");
            }
        }
    }

    #[test]
    fn a_backend_leaves_and_comes_back_at_the_engines_word() {
        for algorithm in ALL {
            let all = upstreams(algorithm, &[1, 1]);
            all.enable(BackendId(0), true);
            all.enable(BackendId(1), true);
            all.enable(BackendId(0), false);
            for turn in 0_u32..50 {
                assert_eq!(all.picked(&turn.to_le_bytes()), Some(BackendId(1)), "{algorithm:?}");
            }
            all.enable(BackendId(1), false);
            assert_eq!(all.picked(b"/"), None);
            all.enable(BackendId(0), true);
            assert_eq!(all.pick(0, b"/", None).unwrap().address, address(1));
        }
    }

    #[test]
    fn the_one_enabled_among_many_is_found_every_time_whatever_the_algorithm() {
        for algorithm in ALL {
            let all = upstreams(algorithm, &[1; 8]);
            all.enable(BackendId(5), true);
            for turn in 0_u32..200 {
                let picked = all.picked(&turn.to_le_bytes());
                assert_eq!(picked, Some(BackendId(5)), "{algorithm:?} turn {turn}");
            }
        }
    }

    #[test]
    fn weights_are_shares_of_the_turns() {
        let all = upstreams(Algorithm::RoundRobin, &[3, 1]);
        all.enable(BackendId(0), true);
        all.enable(BackendId(1), true);
        let first = (0..400).filter(|_| all.picked(b"") == Some(BackendId(0))).count();
        assert_eq!(first, 300);
    }

    #[test]
    fn a_key_stays_with_its_backend_when_another_one_leaves() {
        let all = upstreams(Algorithm::Consistent, &[1, 1, 1]);
        assert!((0..3).all(|id| all.enable(BackendId(id), true)));
        let before: Vec<BackendId> = (0_u32..100).map(|key| all.picked(&key.to_le_bytes()).unwrap()).collect();
        all.enable(BackendId(2), false);
        for (key, was) in (0_u32..).zip(&before) {
            let now = all.picked(&key.to_le_bytes()).unwrap();
            assert!(*was == BackendId(2) || now == *was, "key {key} moved from {was:?} to {now:?}");
        }
    }

    #[test]
    fn a_backend_whose_connect_failed_is_passed_over() {
        let all = upstreams(Algorithm::RoundRobin, &[1, 1]);
        all.enable(BackendId(0), true);
        all.enable(BackendId(1), true);
        for _ in 0..10 {
            assert_eq!(all.pick(0, b"", Some(address(1))).unwrap().address, address(2));
        }
        all.enable(BackendId(1), false);
        assert!(all.pick(0, b"", Some(address(1))).is_none());
    }

    #[test]
    fn an_address_listed_twice_serves_while_either_entry_is_enabled() {
        let twice = [Weighted { address: address(1), weight: 1, timeouts: true }; 2];
        let all = Upstreams::new(Algorithm::RoundRobin, &twice, 2).unwrap();
        all.enable(BackendId(0), true);
        all.enable(BackendId(1), true);
        all.enable(BackendId(0), false);
        assert_eq!(all.picked(b""), Some(BackendId(1)));
        all.enable(BackendId(1), false);
        assert_eq!(all.picked(b""), None);
    }

    #[test]
    fn a_changed_weight_does_not_bring_a_disabled_backend_back() {
        // A weight is part of a backend's identity there: a new set must start disabled again.
        let before = upstreams(Algorithm::RoundRobin, &[1, 1]);
        before.enable(BackendId(0), true);
        let after = upstreams(Algorithm::RoundRobin, &[5, 1]);
        assert_eq!(after.picked(b""), None);
    }

    #[test]
    fn a_weight_of_nothing_and_a_set_of_nobody_are_refused() {
        let zero = [Weighted { address: address(1), weight: 0, timeouts: true }];
        assert!(matches!(Upstreams::new(Algorithm::RoundRobin, &zero, 2), Err(UpstreamsError::ZeroWeight(_))));
        assert!(matches!(Upstreams::new(Algorithm::RoundRobin, &[], 2), Err(UpstreamsError::Empty)));
    }

    #[test]
    fn an_unknown_backend_is_no_ones_business() {
        let all = upstreams(Algorithm::RoundRobin, &[1]);
        all.enable(BackendId(7), true);
        assert_eq!(all.picked(b""), None);
    }

    #[test]
    fn the_least_loaded_gets_the_next_request_whichever_worker_asks() {
        let all = upstreams(Algorithm::LeastLoaded, &[1, 1, 1]);
        assert!((0..3).all(|id| all.enable(BackendId(id), true)));
        let busy: Vec<Picked> = (0..6).map(|turn| all.pick(turn % 2, b"", None).unwrap()).collect();
        let (mut left, done): (Vec<Picked>, Vec<Picked>) = busy.into_iter().partition(|p| p.id != BackendId(1));
        assert_eq!((left.len(), done.len()), (4, 2), "each got its share");
        drop(done);
        for worker in [1, 0] {
            let picked = all.pick(worker, b"", None).unwrap();
            assert_eq!(picked.id, BackendId(1));
            left.push(picked);
        }
    }

    #[test]
    fn one_on_probation_gets_one_request_at_a_time_over_all_workers() {
        for algorithm in ALL {
            let all = upstreams(algorithm, &[1, 1]);
            all.admit(BackendId(0), Admit::Trial);
            all.admit(BackendId(1), Admit::Anything);
            let busy: Vec<Picked> =
                (0_u32..64).map(|turn| all.pick(turn as usize % 2, &turn.to_le_bytes(), None).unwrap()).collect();
            assert_eq!(busy.iter().filter(|p| p.id == BackendId(0)).count(), 1, "{algorithm:?}");
            drop(busy);
            let again = (0_u32..64).any(|turn| all.picked(&turn.to_le_bytes()) == Some(BackendId(0)));
            assert!(again, "{algorithm:?}");
            all.admit(BackendId(1), Admit::Nothing);
            let only = all.pick(0, b"", None).unwrap();
            assert_eq!(only.id, BackendId(0));
            assert!(all.pick(1, b"", None).is_none(), "{algorithm:?}");
        }
    }

    #[test]
    fn a_reload_keeps_the_word_and_the_counts_of_the_addresses_that_stay() {
        let before = upstreams(Algorithm::RoundRobin, &[1, 1, 1]);
        before.admit(BackendId(0), Admit::Trial);
        before.admit(BackendId(2), Admit::Anything);
        let busy = before.pick(0, b"", Some(address(1))).unwrap();
        let mut after = upstreams(Algorithm::LeastLoaded, &[2, 1, 1, 1]);
        after.inherit(&before);
        let admits: Vec<Admit> = after.members.iter().map(Member::admits).collect();
        assert_eq!(admits, [Admit::Trial, Admit::Nothing, Admit::Anything, Admit::Nothing]);
        assert_eq!(after.members[busy.id.index()].tally.in_flight(), 1);
    }
}
