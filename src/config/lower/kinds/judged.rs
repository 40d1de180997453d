//! `progress`, `outcomes` and `golden`: what is judged by the work that passes.

use super::super::super::fault::{Fault, show_text};
use super::super::super::plan::*;
use super::super::super::raw::*;
use super::super::super::units;
use super::super::server;
use super::{Ground, Parts};
use crate::engine::{Abandoned, AccuracyPlan, OutcomesPlan, Subject};
use crate::limits;

impl Ground<'_> {
    pub(super) fn progress(&mut self, raw: &TextOr<RawProgress>) -> Option<Parts> {
        let default = RawProgress::default();
        let (table, stall_after) = match raw {
            TextOr::Text(text) => (&default, self.span(text)?),
            TextOr::Other(table) => (table, limits::STALL_AFTER),
        };
        let stall_after = match &table.stall_after {
            Some(span) => server::positive(span, self.at("stall_after"), self.faults)?,
            None => stall_after,
        };
        let counter = match &table.counter {
            Some(name) => Some(self.progress_counter(name, table)?),
            None => {
                for (key, typed) in [("counter_lag", table.counter_lag.is_some()), ("page", table.page.is_some())] {
                    if typed {
                        self.fault(Fault::key(self.at(key), "means nothing without a `counter`"));
                    }
                }
                None
            }
        };
        let process = match &table.process {
            Some(name) => {
                let name = self.needed(Some(name), "process", "a process's name or a part of its command line")?;
                Some((ProcessSelect::Match(name.to_owned()), name.to_owned()))
            }
            None => None,
        };
        let abandoned = table.abandoned.map(|word| match word {
            RawAbandoned::Dropped => Abandoned::Dropped,
            RawAbandoned::WorkedOff => Abandoned::WorkedOff,
        });
        let check = ProgressCheck { stall_after, counter, process, golden: table.golden.clone(), abandoned };
        Some((Kind::Progress(Box::new(check)), "traffic".to_owned(), Subject::Server))
    }

    fn progress_counter(&mut self, name: &str, table: &RawProgress) -> Option<ProgressCounter> {
        let selector = self.selector(name, "counter")?;
        let (page, _) = self.page(table.page.as_deref())?;
        let lag = table.counter_lag.as_ref().map(|span| span.0).unwrap_or_default();
        Some(ProgressCounter { page, selector, name: name.to_owned(), lag })
    }

    /// The text of a check that is a duration.
    fn span(&mut self, text: &str) -> Option<std::time::Duration> {
        match units::duration(text).filter(|span| !span.is_zero()) {
            Some(span) => Some(span),
            None => {
                let fault = Fault::value(self.here.clone(), format!("found {}", show_text(text)));
                self.fault(fault.expected(units::DURATION));
                None
            }
        }
    }

    pub(super) fn outcomes(&mut self, raw: &TextOr<RawOutcomes>) -> Option<Parts> {
        let default = RawOutcomes::default();
        let mut plan = OutcomesPlan::default();
        let table = match raw {
            TextOr::Text(text) => {
                let Some(share) = units::permille(text) else {
                    let fault = Fault::value(self.here.clone(), format!("found {}", show_text(text)));
                    self.fault(fault.expected(units::SHARE));
                    return None;
                };
                plan.min_success_permille = share;
                &default
            }
            TextOr::Other(table) => table,
        };
        if let Some(share) = &table.min_success {
            plan.min_success_permille = share.0;
        }
        if let Some(span) = &table.window {
            plan.window = server::positive(span, self.at("window"), self.faults)?;
        }
        let floor = self.count(table.min_requests, "min_requests", u64::from(plan.min_requests));
        plan.min_requests = u32::try_from(floor).unwrap_or(u32::MAX);
        match table.consecutive_failures {
            Some(0) => plan.consecutive_failures = 0,
            row => {
                let row = self.count(row, "consecutive_failures", u64::from(plan.consecutive_failures));
                plan.consecutive_failures = u32::try_from(row).unwrap_or(u32::MAX);
            }
        }
        Some((Kind::Outcomes(plan), "traffic".to_owned(), Subject::Server))
    }

    pub(super) fn golden(&mut self, raw: &TextOr<RawGolden>) -> Option<Parts> {
        let default = RawGolden::default();
        let (cases, key, table) = match raw {
            TextOr::Text(cases) => (Some(cases.as_str()), "golden", &default),
            TextOr::Other(table) => (table.cases.as_deref(), "cases", table),
        };
        let cases = self.needed(cases, key, r#"a file such as "golden.json""#)?;
        let mut accuracy = AccuracyPlan::default();
        accuracy.min = table.min_accuracy.unwrap_or(accuracy.min);
        if !(0.0..=1.0).contains(&accuracy.min) {
            let fault = Fault::value(self.at("min_accuracy"), format!("found {}", accuracy.min));
            self.fault(fault.expected("0 to 1"));
            return None;
        }
        if let Some(span) = &table.window {
            accuracy.window = server::positive(span, self.at("window"), self.faults)?;
        }
        let address = self.scene.addresses.get(self.backend.index())?.clone();
        let check = GoldenCheck {
            address,
            cases: self.scene.beside.join(cases),
            accuracy,
            only_when_idle: table.only_when_idle.as_ref().map(|span| span.0).filter(|span| !span.is_zero()),
        };
        Some((Kind::Golden(check), cases.to_owned(), Subject::Backend(self.backend)))
    }
}
