//! Requests: from a client through the Service to a server, and how they end.

use std::time::Duration;

use super::server::{Arrival, Asked, End, Request};
use super::{Happening, World, ZERO, narrow};
use crate::engine::Time;
use crate::lab::kubelet;
use crate::lab::scenario::Illness;

impl World<'_> {
    pub(super) fn arrive(&mut self) {
        let now = self.next_arrival;
        self.score.requests += 1;
        self.send(now, Request { sent: now, attempt: 0 });
        self.next_arrival = now + self.traffic.exponential(self.gap);
    }

    /// A new connection to any pod that the client's node knows as ready (§5).
    pub(super) fn send(&mut self, now: Time, request: Request) {
        if self.routed.is_empty() {
            self.attempt_ended(now, request, End::NoEndpoint);
            return;
        }
        let pod = usize::from(self.routed[self.traffic.below(self.routed.len() as u64) as usize]);
        let asked = self.dependencies_of_request(pod);
        let has_sidecar = self.design.sidecar.is_some();
        let slot = &mut self.slots[pod];
        if has_sidecar && slot.inner.sidecar.is_none() {
            self.attempt_ended(now, request, End::Refused);
            return;
        }
        let timeout = self.scenario.clients.timeout;
        let arrival = slot.inner.server.arrive(now, request, timeout, asked, &mut self.traffic);
        let is_out_of_memory = slot.inner.server.is_out_of_memory();
        match arrival {
            Arrival::Rejected(end) => self.attempt_ended(now, request, end),
            Arrival::Taken { look_again: Some(at) } => self.queue.push(at, Happening::Expire { pod: narrow(pod) }),
            Arrival::Taken { look_again: None } => {
                // Good ends need no event of their own; they are collected now and then, so that few pile up.
                if self.slots[pod].inner.server.in_flight() > 2 * self.scenario.server.concurrency + 64 {
                    self.collect(now, pod);
                }
            }
        }
        if is_out_of_memory {
            self.note(now, pod, "out of memory".to_owned());
            self.crash(now, pod, kubelet::KILLED);
        }
    }

    /// What the dependencies that a request asks cost it.
    pub(super) fn dependencies_of_request(&self, pod: usize) -> Asked {
        let mut asked = Asked { takes: Duration::ZERO, is_answered: true };
        for used in &self.scenario.server.uses {
            let dependency = &self.dependencies[used.dependency];
            let (takes, is_answered) = match dependency.illness[pod] {
                None => (dependency.latency, true),
                Some(Illness::Down) => (Duration::ZERO, false),
                Some(Illness::Silent) => (used.timeout, false),
                Some(Illness::Slow(latency)) => (latency, true),
            };
            let is_in_time = takes <= used.timeout;
            asked.takes += takes.min(used.timeout);
            asked.is_answered &= is_answered && is_in_time || !used.is_required;
        }
        asked
    }

    /// Counts what has ended at this pod.
    pub(super) fn collect(&mut self, now: Time, pod: usize) {
        while let Some((at, end, request)) = self.slots[pod].inner.server.ended(now) {
            self.attempt_ended(at, request, end);
        }
    }

    pub(super) fn attempt_ended(&mut self, now: Time, request: Request, end: End) {
        let clients = &self.scenario.clients;
        let is_final = matches!(end, End::Ok | End::Wrong);
        let has_budget = self.retries * 100 < self.score.requests * u64::from(clients.retry_budget_percent);
        let again = now + clients.retry_after;
        if !is_final && request.attempt < clients.retries && has_budget && again < self.end {
            self.retries += 1;
            self.queue.push(again, Happening::Retry { request: Request { attempt: request.attempt + 1, ..request } });
            return;
        }
        self.score.request_ended(request.sent.since(ZERO), end);
    }
}
