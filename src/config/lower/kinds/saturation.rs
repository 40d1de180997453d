//! `saturation`: marks, and what they are held against.

use super::super::super::fault::{Fault, join, show_text};
use super::super::super::plan::*;
use super::super::super::raw::*;
use super::super::server;
use super::measured::combine;
use super::{Ground, Parts};
use crate::engine::{GaugePlan, SaturationPlan, Subject};
use crate::limits;

impl Ground<'_> {
    pub(super) fn saturation(&mut self, table: &RawSaturation) -> Option<Parts> {
        let in_flight = table.in_flight.map(|mark| self.count(Some(mark), "in_flight", 1));
        let queued = table.queued.map(|mark| self.count(Some(mark), "queued", 1));
        let queue_age = match &table.queue_age {
            Some(span) => Some(server::positive(span, self.at("queue_age"), self.faults)?),
            None => None,
        };
        let gauge = self.gauge(table)?;
        if in_flight.or(queued).is_none() && queue_age.is_none() && gauge.is_none() {
            if !self.faults.below(&self.here) {
                let fault = Fault::key(self.here.clone(), "nothing is held against a mark");
                self.fault(fault.expected("one of `in_flight`, `queued`, `queue_age`, and `gauge` with `max`"));
            }
            return None;
        }
        let low_permille = table.low.as_ref().map_or(limits::SATURATION_LOW_PERMILLE, |share| share.0);
        if low_permille > 1000 {
            let fault = Fault::value(self.at("low"), format!("found {low_permille} thousandths"));
            self.fault(fault.expected("at most 100%: the low mark lies below the high one"));
            return None;
        }
        let (plan, gauge) = match gauge {
            Some((plan, gauge)) => (Some(plan), Some(gauge)),
            None => (None, None),
        };
        let rule = SaturationPlan {
            in_flight,
            queued,
            queue_age,
            gauge: plan,
            low_permille,
            hold: table.hold.as_ref().map_or(limits::SATURATION_HOLD, |span| span.0),
            shed: table.shed.unwrap_or(true),
        };
        let check = SaturationCheck { rule, gauge };
        Some((Kind::Saturation(Box::new(check)), "traffic".to_owned(), Subject::Server))
    }

    /// None if it is faulty; `Some(None)` where none is named.
    #[expect(clippy::option_option, reason = "faulty and absent are two things")]
    fn gauge(&mut self, table: &RawSaturation) -> Option<Option<(GaugePlan, SaturationGauge)>> {
        let Some(name) = &table.gauge else {
            let typed =
                [("max", table.max.is_some()), ("page", table.page.is_some()), ("combine", table.combine.is_some())];
            for (key, _) in typed.into_iter().filter(|(_, typed)| *typed) {
                self.fault(Fault::key(self.at(key), "means nothing without a `gauge`"));
            }
            return Some(None);
        };
        let selector = self.selector(name, "gauge")?;
        let (page, _) = self.page(table.page.as_deref())?;
        let Some(max) = table.max.filter(|max| *max > 0.0 && max.is_finite()) else {
            let fault = match table.max {
                Some(max) => Fault::value(self.at("max"), format!("found {max}")),
                None => Fault::key(join(&self.here, "gauge"), format!("no `max` for {}", show_text(name))),
            };
            self.fault(fault.expected("the gauge's high mark as `max`, above 0"));
            return None;
        };
        let combine = combine(table.combine);
        let gauge = SaturationGauge { page, selector, combine };
        Some(Some((GaugePlan { name: name.clone(), max }, gauge)))
    }
}
