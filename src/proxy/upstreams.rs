//! Which upstream serves the next request.
//!
//! Owns membership, weights and the algorithm, and is the only user of `pingora-load-balancing`. It refuses
//! to judge: a backend is published disabled and takes traffic only on the engine's word. No health check
//! of that crate is registered, for its thresholds would be counted on top of ours and its backends start
//! healthy.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::selection::{BackendIter, BackendSelection, Consistent, FNVHash, Random, RoundRobin};
use pingora_load_balancing::{Backend, Backends, LoadBalancer};

use crate::config::Algorithm;
use crate::engine::BackendId;

/// The chosen upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Picked {
    pub(super) id: BackendId,
    pub(super) address: SocketAddr,
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
    balancer: Box<dyn Balance>,
}

struct Member {
    address: SocketAddr,
    backend: Backend,
    enabled: AtomicBool,
}

/// One upstream as configured: where it is, and its share of the turns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Weighted {
    pub(super) address: SocketAddr,
    pub(super) weight: usize,
}

impl Upstreams {
    /// All of them disabled until [`Upstreams::enable`] says otherwise. The order is that of the engine's backends.
    pub(super) fn new(algorithm: Algorithm, list: &[Weighted]) -> Result<Self, UpstreamsError> {
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
            members.push(Member { address: one.address, backend, enabled: AtomicBool::new(false) });
        }
        let backends: BTreeSet<Backend> = members.iter().map(|member| member.backend.clone()).collect();
        let balancer: Box<dyn Balance> = match algorithm {
            Algorithm::RoundRobin => balancer::<RoundRobin>(backends)?,
            Algorithm::Random => balancer::<Random>(backends)?,
            Algorithm::Hash => balancer::<FNVHash>(backends)?,
            Algorithm::Consistent => balancer::<Consistent>(backends)?,
        };
        Ok(Self { members, balancer })
    }

    /// The engine's word on one backend. Unknown ids are ignored. Two entries of one address are one backend,
    /// in rotation while either is enabled. `true`: it changed something.
    pub(super) fn enable(&self, id: BackendId, enabled: bool) -> bool {
        let Some(member) = self.members.get(id.index()) else { return false };
        if member.enabled.swap(enabled, Ordering::Relaxed) == enabled {
            return false;
        }
        let any = self.members.iter().any(|m| m.backend == member.backend && m.enabled.load(Ordering::Relaxed));
        self.balancer.set_enable(&member.backend, any);
        true
    }

    /// Takes over the engine's word for the addresses that stay, so that a reload refuses nobody.
    pub(super) fn inherit(&self, before: &Self) {
        for (id, member) in (0..).zip(&self.members) {
            let enabled = |old: &Member| old.address == member.address && old.enabled.load(Ordering::Relaxed);
            if before.members.iter().any(enabled) {
                self.enable(BackendId(id), true);
            }
        }
    }

    /// The upstream whose turn it is, by `key` for the hashing algorithms; `except` is passed over (a connect to
    /// it just failed). `None`: nobody is enabled.
    pub(super) fn pick(&self, key: &[u8], except: Option<SocketAddr>) -> Option<Picked> {
        // One upstream is the common case in a pod, and needs no choice.
        if let [only] = &self.members[..] {
            let open = only.enabled.load(Ordering::Relaxed) && except != Some(only.address);
            return open.then_some(Picked { id: BackendId(0), address: only.address });
        }
        let address = self.balancer.select(key, self.steps(), except)?;
        let index = self
            .members
            .iter()
            .position(|member| member.address == address && member.enabled.load(Ordering::Relaxed))?;
        Some(Picked { id: BackendId(u32::try_from(index).ok()?), address })
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

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members.iter().map(|member| member.address)).finish()
    }
}

/// What we use of a balancer, whatever its algorithm.
trait Balance: Send + Sync {
    fn select(&self, key: &[u8], steps: usize, except: Option<SocketAddr>) -> Option<SocketAddr>;
    fn set_enable(&self, backend: &Backend, enabled: bool);
}

impl<S> Balance for LoadBalancer<S>
where
    S: BackendSelection + Send + Sync + 'static,
    S::Iter: BackendIter,
{
    fn select(&self, key: &[u8], steps: usize, except: Option<SocketAddr>) -> Option<SocketAddr> {
        let picked =
            self.select_with(key, steps, |backend, ready| ready && backend.addr.as_inet().copied() != except)?;
        picked.addr.as_inet().copied()
    }

    fn set_enable(&self, backend: &Backend, enabled: bool) {
        self.backends().set_enable(backend, enabled);
    }
}

fn balancer<S>(backends: BTreeSet<Backend>) -> Result<Box<dyn Balance>, UpstreamsError>
where
    S: BackendSelection + Send + Sync + 'static,
    S::Iter: BackendIter,
{
    let discovery = EngineDiscovery { backends };
    let balancer = LoadBalancer::<S>::from_backends(Backends::new(Box::new(discovery)));
    // Discovery only copies a set, so that the first poll is the last.
    let updated = pin!(balancer.update()).as_mut().poll(&mut Context::from_waker(Waker::noop()));
    match updated {
        Poll::Ready(Ok(())) => Ok(Box::new(balancer)),
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

    const ALL: [Algorithm; 4] = [Algorithm::RoundRobin, Algorithm::Random, Algorithm::Hash, Algorithm::Consistent];

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 8000))
    }

    fn upstreams(algorithm: Algorithm, weights: &[usize]) -> Upstreams {
        let list: Vec<Weighted> =
            weights.iter().zip(1..).map(|(&weight, last)| Weighted { address: address(last), weight }).collect();
        Upstreams::new(algorithm, &list).unwrap()
    }

    #[test]
    fn nobody_is_picked_before_the_engine_has_spoken() {
        for algorithm in ALL {
            for weights in [&[1][..], &[1, 1, 5]] {
                assert_eq!(upstreams(algorithm, weights).pick(b"/", None), None, "{algorithm:?}");
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
                assert_eq!(all.pick(&turn.to_le_bytes(), None).unwrap().id, BackendId(1), "{algorithm:?}");
            }
            all.enable(BackendId(1), false);
            assert_eq!(all.pick(b"/", None), None);
            all.enable(BackendId(0), true);
            assert_eq!(all.pick(b"/", None).unwrap().address, address(1));
        }
    }

    #[test]
    fn the_one_enabled_among_many_is_found_every_time_whatever_the_algorithm() {
        for algorithm in ALL {
            let all = upstreams(algorithm, &[1; 8]);
            all.enable(BackendId(5), true);
            for turn in 0_u32..200 {
                let picked = all.pick(&turn.to_le_bytes(), None);
                assert_eq!(picked.map(|p| p.id), Some(BackendId(5)), "{algorithm:?} turn {turn}");
            }
        }
    }

    #[test]
    fn weights_are_shares_of_the_turns() {
        let all = upstreams(Algorithm::RoundRobin, &[3, 1]);
        all.enable(BackendId(0), true);
        all.enable(BackendId(1), true);
        let first = (0..400).filter(|_| all.pick(b"", None).unwrap().id == BackendId(0)).count();
        assert_eq!(first, 300);
    }

    #[test]
    fn a_key_stays_with_its_backend_when_another_one_leaves() {
        let all = upstreams(Algorithm::Consistent, &[1, 1, 1]);
        assert!((0..3).all(|id| all.enable(BackendId(id), true)));
        let before: Vec<Picked> = (0_u32..100).map(|key| all.pick(&key.to_le_bytes(), None).unwrap()).collect();
        all.enable(BackendId(2), false);
        for (key, was) in (0_u32..).zip(&before) {
            let now = all.pick(&key.to_le_bytes(), None).unwrap();
            assert!(was.id == BackendId(2) || now == *was, "key {key} moved from {was:?} to {now:?}");
        }
    }

    #[test]
    fn a_backend_whose_connect_failed_is_passed_over() {
        let all = upstreams(Algorithm::RoundRobin, &[1, 1]);
        all.enable(BackendId(0), true);
        all.enable(BackendId(1), true);
        for _ in 0..10 {
            assert_eq!(all.pick(b"", Some(address(1))).unwrap().address, address(2));
        }
        all.enable(BackendId(1), false);
        assert_eq!(all.pick(b"", Some(address(1))), None);
    }

    #[test]
    fn an_address_listed_twice_serves_while_either_entry_is_enabled() {
        let twice = [Weighted { address: address(1), weight: 1 }; 2];
        let all = Upstreams::new(Algorithm::RoundRobin, &twice).unwrap();
        all.enable(BackendId(0), true);
        all.enable(BackendId(1), true);
        all.enable(BackendId(0), false);
        assert_eq!(all.pick(b"", None).unwrap().id, BackendId(1));
        all.enable(BackendId(1), false);
        assert_eq!(all.pick(b"", None), None);
    }

    #[test]
    fn a_changed_weight_does_not_bring_a_disabled_backend_back() {
        // A weight is part of a backend's identity there: a new set must start disabled again.
        let before = upstreams(Algorithm::RoundRobin, &[1, 1]);
        before.enable(BackendId(0), true);
        let after = upstreams(Algorithm::RoundRobin, &[5, 1]);
        assert_eq!(after.pick(b"", None), None);
    }

    #[test]
    fn a_weight_of_nothing_and_a_set_of_nobody_are_refused() {
        let zero = [Weighted { address: address(1), weight: 0 }];
        assert!(matches!(Upstreams::new(Algorithm::RoundRobin, &zero), Err(UpstreamsError::ZeroWeight(_))));
        assert!(matches!(Upstreams::new(Algorithm::RoundRobin, &[]), Err(UpstreamsError::Empty)));
    }

    #[test]
    fn an_unknown_backend_is_no_ones_business() {
        let all = upstreams(Algorithm::RoundRobin, &[1]);
        all.enable(BackendId(7), true);
        assert_eq!(all.pick(b"", None), None);
    }
}
