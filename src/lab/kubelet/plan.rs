//! What a sync decides to do: which containers to kill and which to start (§4, §7).
//!
//! A pure function of the spec, the cached status and the verdicts on running containers.

use super::prober::{Incarnation, Verdict};
use super::spec::{PodSpec, ProbeKind, RestartPolicy, Role};
use super::status::ContainerState;

/// The kubelet's intentions for one sync, in the order in which it carries them out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Actions {
    /// Containers to kill, one after the other, and the probe that condemned each.
    pub kill: Vec<(usize, ProbeKind)>,
    /// Containers to start afterwards, init containers first.
    pub start: Vec<usize>,
    /// Nothing is left to run: the pod is over.
    pub finish: bool,
}

/// What the sync looks at.
pub(super) struct Sight<'a> {
    pub spec: &'a PodSpec,
    /// The cached view of the runtime, by container.
    pub states: &'a [ContainerState],
    /// The results cache; `None` where there is no entry.
    pub verdict: &'a dyn Fn(usize, ProbeKind, Incarnation) -> Option<Verdict>,
}

impl Sight<'_> {
    pub(super) fn actions(&self) -> Actions {
        let mut actions = Actions::default();
        if self.init_containers(&mut actions) {
            self.regular_containers(&mut actions);
        }
        actions
    }

    fn condemned_by(&self, container: usize, kind: ProbeKind, incarnation: Incarnation) -> bool {
        (self.verdict)(container, kind, incarnation) == Some(Verdict::Failure)
    }

    /// §7. Returns whether the regular containers may be looked at.
    fn init_containers(&self, actions: &mut Actions) -> bool {
        let inits = self.spec.containers.iter().take_while(|c| c.role != Role::Regular).count();
        if inits == 0 {
            return true;
        }
        // A regular container that runs proves that all init containers have done their work once.
        let mut initialized = self.states[inits..].iter().any(|state| state.is_running());
        let mut is_previous_done = initialized;
        // From the last to the first: the furthest that has come to anything says where the pod stands.
        for index in (0..inits).rev() {
            let is_sidecar = self.spec.containers[index].role == Role::Sidecar;
            match self.states[index] {
                ContainerState::Absent => {
                    if is_previous_done && is_sidecar {
                        actions.start.push(index);
                    }
                    continue;
                }
                _ if is_previous_done && !is_sidecar => continue,
                ContainerState::Running { incarnation, .. } if is_sidecar => {
                    if self.sidecar_runs(index, incarnation, actions) {
                        if index + 1 == inits {
                            initialized = true;
                        } else if !is_previous_done {
                            actions.start.push(index + 1);
                        }
                        if self.condemned_by(index, ProbeKind::Liveness, incarnation) {
                            actions.kill.push((index, ProbeKind::Liveness));
                            actions.start.push(index);
                        }
                    }
                }
                ContainerState::Running { .. } => {}
                ContainerState::Exited { .. } if is_sidecar => actions.start.push(index),
                ContainerState::Exited { code: 0, .. } if index + 1 == inits => initialized = true,
                ContainerState::Exited { code: 0, .. } => actions.start.push(index + 1),
                ContainerState::Exited { .. } if self.spec.restart == RestartPolicy::Never => {
                    *actions = Actions { finish: true, ..Actions::default() };
                    return false;
                }
                ContainerState::Exited { .. } => actions.start.push(index),
            }
            is_previous_done = true;
        }
        if !is_previous_done {
            actions.start.push(0);
        }
        actions.start.reverse();
        initialized
    }

    /// Whether a running sidecar has started, so that the next container may (§7).
    fn sidecar_runs(&self, index: usize, incarnation: Incarnation, actions: &mut Actions) -> bool {
        if self.spec.containers[index].probe(ProbeKind::Startup).is_none() {
            return true;
        }
        match (self.verdict)(index, ProbeKind::Startup, incarnation) {
            Some(Verdict::Success) => true,
            Some(Verdict::Failure) => {
                actions.kill.push((index, ProbeKind::Startup));
                actions.start.push(index);
                false
            }
            Some(Verdict::Unknown) | None => false,
        }
    }

    /// §4.
    fn regular_containers(&self, actions: &mut Actions) {
        let mut kept = 0;
        let mut starts = 0;
        for (index, container) in self.spec.containers.iter().enumerate() {
            if container.role != Role::Regular {
                continue;
            }
            let ContainerState::Running { incarnation, .. } = self.states[index] else {
                if self.may_restart(self.states[index]) {
                    actions.start.push(index);
                    starts += 1;
                }
                continue;
            };
            let condemned = [ProbeKind::Liveness, ProbeKind::Startup]
                .into_iter()
                .find(|k| self.condemned_by(index, *k, incarnation));
            let Some(kind) = condemned else {
                kept += 1;
                continue;
            };
            actions.kill.push((index, kind));
            if self.spec.restart != RestartPolicy::Never {
                actions.start.push(index);
                starts += 1;
            }
        }
        // A sidecar alone does not keep a pod alive.
        actions.finish = kept == 0 && starts == 0;
    }

    const fn may_restart(&self, state: ContainerState) -> bool {
        match state {
            ContainerState::Running { .. } => false,
            ContainerState::Absent => true,
            ContainerState::Exited { code, .. } => match self.spec.restart {
                RestartPolicy::Always => true,
                RestartPolicy::Never => false,
                RestartPolicy::OnFailure => code != 0,
            },
        }
    }
}
