//! The status of a pod as the kubelet makes it from its cached view of the runtime (§5).

use super::prober::Incarnation;
use super::spec::{PodSpec, RestartPolicy, Role};
use crate::engine::Time;

/// What the status manager holds and the API server is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodStatus {
    pub phase: Phase,
    /// The `Ready` condition.
    pub is_ready: bool,
    /// In the spec's order: init containers first.
    pub containers: Vec<ContainerStatus>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ContainerStatus {
    pub state: ContainerState,
    pub is_ready: bool,
    pub is_started: bool,
}

/// A container as the cached view has it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ContainerState {
    /// Never created as far as the view goes.
    #[default]
    Absent,
    Running {
        incarnation: Incarnation,
        since: Time,
    },
    Exited {
        incarnation: Incarnation,
        at: Time,
        code: u8,
        /// A start was refused: `CrashLoopBackOff`.
        is_waiting: bool,
    },
}

impl Phase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl ContainerState {
    pub const fn incarnation(self) -> Option<Incarnation> {
        match self {
            Self::Absent => None,
            Self::Running { incarnation, .. } | Self::Exited { incarnation, .. } => Some(incarnation),
        }
    }

    pub const fn is_running(self) -> bool {
        matches!(self, Self::Running { .. })
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "waiting",
            Self::Running { .. } => "running",
            Self::Exited { is_waiting: true, .. } => "backoff",
            Self::Exited { .. } => "terminated",
        }
    }
}

impl ContainerStatus {
    pub const ABSENT: Self = Self { state: ContainerState::Absent, is_ready: false, is_started: false };

    /// How often it was started again.
    pub const fn restarts(&self) -> u32 {
        match self.state.incarnation() {
            Some(Incarnation(number)) => number.saturating_sub(1),
            None => 0,
        }
    }
}

impl PodStatus {
    pub fn new(spec: &PodSpec) -> Self {
        let containers = vec![ContainerStatus::ABSENT; spec.containers.len()];
        Self { phase: Phase::Pending, is_ready: false, containers }
    }

    /// Derives the phase and the `Ready` condition from the containers.
    pub fn conclude(&mut self, spec: &PodSpec) {
        if !self.phase.is_over() {
            self.phase = self.phase_of(spec);
        }
        // §5: every regular container and every native sidecar; a gate that nobody sets is never true.
        let all_ready =
            spec.containers.iter().zip(&self.containers).all(|(spec, c)| spec.role == Role::Init || c.is_ready);
        self.is_ready = all_ready && !spec.has_readiness_gates && !self.phase.is_over();
    }

    fn phase_of(&self, spec: &PodSpec) -> Phase {
        let with_role = |role: Role| spec.containers.iter().zip(&self.containers).filter(move |(s, _)| s.role == role);
        let init_failed =
            with_role(Role::Init).any(|(_, c)| matches!(c.state, ContainerState::Exited { code, .. } if code != 0));
        if init_failed && spec.restart == RestartPolicy::Never {
            return Phase::Failed;
        }
        let states = || with_role(Role::Regular).map(|(_, c)| c.state);
        if states().any(|state| state == ContainerState::Absent) {
            return Phase::Pending;
        }
        if states().any(ContainerState::is_running) || spec.restart == RestartPolicy::Always {
            return Phase::Running;
        }
        let failed = states().any(|state| matches!(state, ContainerState::Exited { code, .. } if code != 0));
        match (failed, spec.restart) {
            (false, _) => Phase::Succeeded,
            (true, RestartPolicy::Never) => Phase::Failed,
            (true, _) => Phase::Running,
        }
    }
}
