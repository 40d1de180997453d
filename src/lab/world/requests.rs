//! Requests: from a client through the Service and perhaps a sidecar to a server, and how they end.

use std::time::Duration;

use super::ends::End;
use super::plane::Waiting;
use super::server::{Arrival, Asked, Request};
use super::{Happening, World, ZERO, narrow};
use crate::engine::{Passage, Time};
use crate::lab::kubelet;
use crate::lab::scenario::Illness;
use crate::limits;

/// A client's connection, if it is open: its pod, and which of the pod's lives it belongs to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Connection(Option<(u16, u32)>);

impl World<'_> {
    pub(super) fn arrive(&mut self) {
        let now = self.next_arrival;
        self.moves_on(now);
        self.score.requests += 1;
        let clients = &self.scenario.clients;
        let is_stream = clients.streams.is_some_and(|streams| self.traffic.chance(streams.permille));
        let is_kept = clients.connections > 0 && !self.traffic.chance(clients.fresh_permille);
        let connection = is_kept.then(|| self.traffic.below(u64::from(clients.connections)) as u32);
        let number = self.ledger.sent();
        self.send(now, Request { sent: now, attempt: 0, connection, is_stream, is_trial: false, number });
        self.next_arrival = now + self.traffic.exponential(self.gap);
    }

    /// The pod that a request goes to: that of its connection, or any that the client's node knows as ready; if there
    /// is none, any that it knows as serving while it terminates (§5).
    fn balance(&mut self, request: &Request) -> Option<usize> {
        if let Some(known) = request.connection
            && let Some((pod, epoch)) = self.connections[known as usize].0
            && self.slots[usize::from(pod)].epoch == epoch
        {
            return Some(usize::from(pod));
        }
        let pods = if self.routed.is_empty() { &self.last_resorts } else { &self.routed };
        if pods.is_empty() {
            return None;
        }
        let pod = pods[self.traffic.below(pods.len() as u64) as usize];
        if let Some(new) = request.connection {
            let slot = &self.slots[usize::from(pod)];
            // A pod that drains says so with every answer: its connections are good for one request.
            self.connections[new as usize] = Connection((!slot.inner.is_draining()).then_some((pod, slot.epoch)));
        }
        Some(usize::from(pod))
    }

    pub(super) fn send(&mut self, now: Time, request: Request) {
        let Some(pod) = self.balance(&request) else {
            self.attempt_ended(now, request, End::NoEndpoint);
            return;
        };
        let deadline = now + self.scenario.clients.timeout;
        let slot = &self.slots[pod];
        if self.nodes[slot.node].is_cut() || slot.inner.is_sidecar_hung {
            self.queue.push(deadline.min(self.end), Happening::GiveUp { request });
            return;
        }
        if self.design.sidecar.is_none() {
            self.hand_over(now, pod, request, deadline);
        } else if slot.inner.sidecar.is_some() {
            let (until, tries, seen) = (deadline, deadline, Passage::Open);
            self.admit(now, pod, Waiting { request, came: now, until, end: End::Timeout, deadline, tries, seen });
        } else {
            self.attempt_ended(now, request, End::Refused);
        }
    }

    // The sidecar's admission, as the proxy's.

    fn admit(&mut self, now: Time, pod: usize, waiting: Waiting) {
        let Some(sidecar) = &mut self.slots[pod].inner.sidecar else { return };
        let (terms, mut request) = (sidecar.plane.terms, waiting.request);
        let refused = match sidecar.passage {
            Passage::Open => {
                self.enter(now, pod, waiting);
                return;
            }
            Passage::Trial if !sidecar.plane.is_trial_inside => {
                sidecar.plane.is_trial_inside = true;
                request.is_trial = true;
                self.hand_over(now, pod, request, waiting.deadline);
                return;
            }
            Passage::Loading => {
                if let Some(hold) = terms.hold.filter(|hold| now < waiting.came + *hold) {
                    self.hold(now, pod, waiting, waiting.came + hold, End::NotReady, None);
                    return;
                }
                End::NotReady
            }
            Passage::Trial | Passage::NotReady => End::NotReady,
            Passage::Saturated => {
                sidecar.plane.shed();
                End::Saturated
            }
            Passage::Draining => End::Draining,
        };
        self.attempt_ended(now, request, refused);
    }

    /// `tries`: when it tries again by itself; otherwise only a change of the judgement lets it.
    fn hold(&mut self, now: Time, pod: usize, waiting: Waiting, until: Time, end: End, tries: Option<Time>) {
        let Some(sidecar) = &mut self.slots[pod].inner.sidecar else { return };
        let end = if until < waiting.deadline { end } else { End::Timeout };
        let until = until.min(waiting.deadline);
        let tries = tries.map_or(until, |tries| tries.min(until));
        sidecar.plane.held.push_back(Waiting { until, end, tries, seen: sidecar.passage, ..waiting });
        self.plan_look_at(now, pod, tries);
    }

    /// The gate is open: a place inside, one in the queue, or none.
    fn enter(&mut self, now: Time, pod: usize, waiting: Waiting) {
        let Some(sidecar) = &self.slots[pod].inner.sidecar else { return };
        let Some(max) = sidecar.plane.terms.max_in_flight else {
            self.hand_over(now, pod, waiting.request, waiting.deadline);
            return;
        };
        self.collect(now, pod);
        let in_flight = self.slots[pod].inner.server.in_flight();
        let Some(sidecar) = &mut self.slots[pod].inner.sidecar else { return };
        let plane = &mut sidecar.plane;
        if in_flight < max && plane.queued.is_empty() {
            self.hand_over(now, pod, waiting.request, waiting.deadline);
            return;
        }
        let Some((_, patience)) = plane.terms.queue.filter(|(places, _)| plane.queued.len() < *places) else {
            plane.shed();
            self.attempt_ended(now, waiting.request, End::QueueFull);
            return;
        };
        let end = if now + patience < waiting.deadline { End::QueueTimeout } else { End::Timeout };
        let until = (now + patience).min(waiting.deadline);
        plane.queued.push_back(Waiting { until, end, ..waiting });
        self.queue.push(until, Happening::Expire { pod: narrow(pod) });
        self.plan_look(now, pod);
    }

    /// While anybody waits, what may let them go on is looked at in time: one look is planned at a time, for
    /// looks that each plan one for everybody would double with every step.
    fn plan_look(&mut self, now: Time, pod: usize) {
        let next = self.slots[pod].inner.server.next_end();
        let Some(sidecar) = &mut self.slots[pod].inner.sidecar else { return };
        let plane = &mut sidecar.plane;
        let a_place = next.filter(|_| !plane.queued.is_empty());
        let a_try = plane.held.iter().map(|waiting| waiting.tries).min();
        if let Some(next) = a_place.into_iter().chain(a_try).min() {
            self.plan_look_at(now, pod, next);
        }
    }

    fn plan_look_at(&mut self, now: Time, pod: usize, next: Time) {
        let Some(sidecar) = &mut self.slots[pod].inner.sidecar else { return };
        let plane = &mut sidecar.plane;
        if plane.looks_at.is_none_or(|planned| planned <= now || next < planned) {
            plane.looks_at = Some(next);
            self.queue.push(next, Happening::Expire { pod: narrow(pod) });
        }
    }

    /// Something has ended, a wait is over, or the judgement has changed: who may go on, goes on.
    pub(super) fn look_at_requests(&mut self, now: Time, pod: usize) {
        self.collect(now, pod);
        let Some(sidecar) = &mut self.slots[pod].inner.sidecar else { return };
        if sidecar.plane.held.is_empty() && sidecar.plane.queued.is_empty() {
            return;
        }
        let held = std::mem::take(&mut sidecar.plane.held);
        for waiting in held {
            // Trying may itself change the judgement, or end the sidecar.
            let Some(sidecar) = &mut self.slots[pod].inner.sidecar else {
                self.attempt_ended(now, waiting.request, End::Reset);
                continue;
            };
            if waiting.until <= now {
                self.attempt_ended(now, waiting.request, waiting.end);
            } else if waiting.tries <= now || waiting.seen != sidecar.passage {
                self.admit(now, pod, waiting);
            } else {
                sidecar.plane.held.push_back(waiting);
            }
        }
        self.serve_queue(now, pod);
        self.plan_look(now, pod);
    }

    fn serve_queue(&mut self, now: Time, pod: usize) {
        loop {
            let in_flight = self.slots[pod].inner.server.in_flight();
            let Some(sidecar) = &mut self.slots[pod].inner.sidecar else { return };
            let (max, passage) = (sidecar.plane.terms.max_in_flight.unwrap_or(usize::MAX), sidecar.passage);
            let Some(first) = sidecar.plane.queued.front().copied() else { return };
            // The proxy's waiters have the judgement looked at once they have a place.
            if now < first.until && in_flight >= max {
                return;
            }
            sidecar.plane.queued.pop_front();
            if first.until <= now && first.end == End::QueueTimeout {
                sidecar.plane.shed();
            }
            match passage {
                _ if first.until <= now => self.attempt_ended(now, first.request, first.end),
                // Whoever waited was there before.
                Passage::Open | Passage::Saturated => self.hand_over(now, pod, first.request, first.deadline),
                _ => self.admit(now, pod, first),
            }
        }
    }

    /// Whoever waits at the sidecar is sent away.
    pub(super) fn send_away(&mut self, now: Time, pod: usize, end: End) {
        let Some(sidecar) = &mut self.slots[pod].inner.sidecar else { return };
        let queued = std::mem::take(&mut sidecar.plane.queued);
        let held = std::mem::take(&mut sidecar.plane.held);
        for waiting in queued.into_iter().chain(held) {
            self.attempt_ended(now, waiting.request, end);
        }
    }

    // The server.

    fn hand_over(&mut self, now: Time, pod: usize, request: Request, deadline: Time) {
        if self.slots[pod].inner.sidecar.is_some() {
            // Who shares the server with whom is evidence.
            self.collect(now, pod);
        }
        let asked = self.asked(now, pod, request, deadline);
        let concurrency = self.slots[pod].inner.server.spec.concurrency;
        let server = &mut self.slots[pod].inner.server;
        let arrival = server.arrive(now, request, asked, &mut self.traffic);
        let is_out_of_memory = server.is_out_of_memory();
        match arrival {
            Arrival::Rejected(end) => self.rejected(now, pod, request, end, deadline),
            Arrival::Taken { look_again: Some(at) } => self.queue.push(at, Happening::Expire { pod: narrow(pod) }),
            Arrival::Taken { look_again: None } => {
                // Good ends need no event of their own; they are collected now and then, so that few pile up.
                if self.slots[pod].inner.server.in_flight() > 2 * concurrency + 64 {
                    self.collect(now, pod);
                }
            }
        }
        if is_out_of_memory {
            self.note(now, pod, "out of memory".to_owned());
            self.crash(now, pod, kubelet::KILLED);
        }
    }

    fn rejected(&mut self, now: Time, pod: usize, request: Request, end: End, deadline: Time) {
        let Some(sidecar) = &mut self.slots[pod].inner.sidecar else {
            self.attempt_ended(now, request, end);
            return;
        };
        sidecar.plane.rejected(&request, end, now);
        if end != End::Refused {
            self.attempt_ended(now, request, end);
            return;
        }
        let (life, hold) = (sidecar.life, sidecar.plane.terms.hold);
        // A request that was held before came earlier; its client's deadline tells when.
        let came = deadline.as_nanos().saturating_sub(self.scenario.clients.timeout.as_nanos() as u64);
        let until = hold.map(|hold| Time::from_nanos(came) + hold).filter(|until| now < *until);
        match until {
            Some(until) => {
                let request = Request { is_trial: false, ..request };
                let (came, seen) = (Time::from_nanos(came), Passage::Open);
                let waiting = Waiting { request, came, until, end, deadline, tries: until, seen };
                self.hold(now, pod, waiting, until, End::Refused, Some(next_step(now)));
            }
            None => self.attempt_ended(now, request, end),
        }
        self.with_sidecar(now, pod, life, |sidecar, steps| sidecar.refused(now, steps));
    }

    /// What the request asks of the server, and what the dependencies cost it.
    fn asked(&mut self, now: Time, pod: usize, request: Request, deadline: Time) -> Asked {
        let inner = &self.slots[pod].inner;
        let plane = inner.sidecar.as_ref().map(|sidecar| &sidecar.plane);
        let limit = plane.and_then(|plane| plane.terms.first_byte_timeout);
        let deadline = limit.map_or(deadline, |limit| deadline.min(now + limit));
        let left_over = plane.map_or(0, |plane| plane.left_over);
        let takes = inner.sidecar_slowness;
        let mut asked = Asked { takes, is_answered: true, deadline, stream: None, left_over };
        for used in &inner.server.spec.uses {
            let dependency = &self.dependencies[used.dependency];
            let (takes, is_answered) = match dependency.illness(now, pod) {
                None => (dependency.latency, true),
                Some(Illness::Down | Illness::Flapping(_)) => (Duration::ZERO, false),
                Some(Illness::Silent) => (used.timeout, false),
                Some(Illness::Slow(latency)) => (latency, true),
            };
            let is_in_time = takes <= used.timeout;
            asked.takes += takes.min(used.timeout);
            asked.is_answered &= is_answered && is_in_time || !used.is_required;
        }
        if let Some(streams) = self.scenario.clients.streams.filter(|_| request.is_stream) {
            asked.stream = Some((self.traffic.exponential(streams.lasts), streams.gap));
        }
        asked
    }

    /// Its node is unreachable: whoever waits waits in vain.
    pub(super) fn silence(&mut self, now: Time, pod: usize) {
        for flight in self.slots[pod].inner.server.lose_unanswered(now) {
            let deadline = flight.deadline.max(now).min(self.end);
            if flight.end == End::Cut {
                self.attempt_ended(now, flight.request, End::Cut);
            } else {
                self.queue.push(deadline, Happening::GiveUp { request: flight.request });
            }
        }
        self.send_away(now, pod, End::Timeout);
    }

    /// Counts what has ended at this pod.
    pub(super) fn collect(&mut self, now: Time, pod: usize) {
        while let Some(flight) = self.slots[pod].inner.server.ended(now) {
            if let Some(sidecar) = &mut self.slots[pod].inner.sidecar {
                sidecar.plane.ended(&flight);
            }
            self.attempt_ended(flight.ends, flight.request, flight.end);
        }
    }

    pub(super) fn attempt_ended(&mut self, now: Time, request: Request, end: End) {
        let clients = &self.scenario.clients;
        if let Some(connection) = request.connection.filter(|_| closes(end)) {
            self.connections[connection as usize] = Connection::default();
        }
        let is_final = matches!(end, End::Ok | End::Wrong | End::Cut);
        let has_budget = self.retries * 100 < self.score.requests * u64::from(clients.retry_budget_percent);
        let again = now + clients.retry_after;
        if !is_final && u32::from(request.attempt) < clients.retries && has_budget && again < self.end {
            self.retries += 1;
            let request = Request { attempt: request.attempt + 1, is_trial: false, ..request };
            self.queue.push(again, Happening::Retry { request });
            return;
        }
        if !self.ledger.ended(request.number) {
            self.score.breaks("a request ended twice");
        }
        self.score.request_ended(request.sent.since(ZERO), end);
    }
}

/// When those that were refused try again: all in step, so that a look serves them all.
fn next_step(now: Time) -> Time {
    let step = limits::HOLD_STEP.as_nanos() as u64;
    Time::from_nanos((now.as_nanos() / step + 1) * step)
}

/// Whether a client's connection is of no use after that.
const fn closes(end: End) -> bool {
    matches!(end, End::Cut | End::Draining | End::Refused | End::Reset | End::Timeout)
}
