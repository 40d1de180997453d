//! The pods as a Deployment, the nodes that they run on, and what people do to both.

use std::time::Duration;

use super::Version;
use super::parse::{DURATION_MAX, PODS_MAX};
use super::raw::{RawAction, RawDeployment, RawShare, Span};

/// How many pods may be more or fewer than wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Share {
    Count(usize),
    Percent(usize),
}

/// The Deployment's strategy, its PodDisruptionBudget, and the nodes.
#[derive(Clone, Copy, Debug)]
pub struct Deployment {
    pub max_surge: Share,
    pub max_unavailable: Share,
    /// A pod counts as available once it has been ready for so long.
    pub min_ready: Duration,
    /// Without progress for so long a rollout has failed.
    pub progress_deadline: Duration,
    /// Somebody watches the rollout and undoes it when it fails.
    pub undo_at_deadline: bool,
    /// An eviction leaves at least so many ready; none: no budget.
    pub min_available: Option<usize>,
    pub nodes: usize,
    /// From a node's last word to its pods being not ready, 50 s (§5).
    pub node_grace: Duration,
    /// How long pods tolerate a node that is not ready, 300 s (§5).
    pub toleration: Duration,
}

/// Something that people do, or that happens to a node.
#[derive(Clone, Copy, Debug)]
pub struct Action {
    pub at: Duration,
    /// The end of a drain (uncordoned) or of a loss (back again), if it ends.
    pub until: Option<Duration>,
    pub what: ActionKind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ActionKind {
    /// `kubectl delete pod`.
    Delete {
        pod: usize,
    },
    /// `kubectl drain`: cordoned, its pods evicted as the budget allows.
    Drain {
        node: usize,
    },
    /// The node is unreachable, for the control plane and for clients.
    Lose {
        node: usize,
    },
    Rollout {
        version: usize,
    },
    Scale {
        pods: usize,
    },
    /// `kubectl rollout undo`.
    Undo,
}

impl Share {
    /// Of so many pods; a percentage rounds up for a surge, down for what may be missing.
    pub const fn of(self, pods: usize, rounds_up: bool) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) if rounds_up => (pods * percent).div_ceil(100),
            Self::Percent(percent) => pods * percent / 100,
        }
    }
}

impl RawShare {
    fn validate(&self, key: &str) -> Result<Share, String> {
        let percent = match self {
            Self::Count(count) if *count <= PODS_MAX => return Ok(Share::Count(*count)),
            Self::Count(count) => return Err(format!("{key}: {count} is above {PODS_MAX}")),
            Self::Text(text) => text.strip_suffix('%').and_then(|number| number.trim().parse().ok()),
        };
        let percent = percent.filter(|percent| *percent <= 100);
        percent.map(Share::Percent).ok_or_else(|| format!("{key}: expected a number of pods or \"25%\""))
    }
}

impl RawDeployment {
    pub(super) fn validate(&self, pods: usize) -> Result<Deployment, String> {
        let nodes = self.nodes.unwrap_or(pods);
        if nodes == 0 || nodes > PODS_MAX {
            return Err(format!("nodes: {nodes} is not in 1..={PODS_MAX}"));
        }
        Ok(Deployment {
            max_surge: self.max_surge.validate("max_surge")?,
            max_unavailable: self.max_unavailable.validate("max_unavailable")?,
            min_ready: self.min_ready.0,
            progress_deadline: self.progress_deadline.0,
            undo_at_deadline: self.undo_at_deadline,
            min_available: self.min_available,
            nodes,
            node_grace: self.node_grace.0,
            toleration: self.toleration.0,
        })
    }
}

impl RawAction {
    pub(super) fn validate(&self, versions: &[Version], pods: usize, nodes: usize) -> Result<Action, String> {
        let lasts = self.lasts.map(|Span(lasts)| lasts);
        if self.at.0.max(lasts.unwrap_or_default()) > DURATION_MAX {
            return Err("at, for: longer than a day".to_owned());
        }
        let known = |index: usize, of: usize, what: &str| match index < of {
            true => Ok(index),
            false => Err(format!("{what}: there are only {of}, counted from 0")),
        };
        let what = match (&self.rollout, self.undo, self.delete_pod, self.drain_node, self.lose_node, self.scale) {
            (Some(name), false, None, None, None, None) => {
                let version = versions.iter().position(|version| version.name == *name);
                let version = version.ok_or_else(|| {
                    let names: Vec<&str> = versions.iter().map(|version| version.name.as_str()).collect();
                    format!("rollout: {name:?} is none of the versions {}", names.join(", "))
                })?;
                ActionKind::Rollout { version }
            }
            (None, true, None, None, None, None) => ActionKind::Undo,
            (None, false, Some(pod), None, None, None) => ActionKind::Delete { pod: known(pod, pods, "delete_pod")? },
            (None, false, None, Some(node), None, None) => {
                ActionKind::Drain { node: known(node, nodes, "drain_node")? }
            }
            (None, false, None, None, Some(node), None) => ActionKind::Lose { node: known(node, nodes, "lose_node")? },
            (None, false, None, None, None, Some(to)) if (1..=PODS_MAX).contains(&to) => ActionKind::Scale { pods: to },
            _ => {
                return Err("one of rollout, undo, delete_pod, drain_node, lose_node and scale is needed, and no more"
                    .to_owned());
            }
        };
        let ends = matches!(what, ActionKind::Drain { .. } | ActionKind::Lose { .. });
        if lasts.is_some() && !ends {
            return Err("for: only a drain and a lost node end by themselves".to_owned());
        }
        Ok(Action { at: self.at.0, until: lasts.map(|lasts| self.at.0 + lasts), what })
    }
}
