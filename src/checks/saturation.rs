//! `saturation`: reads the gauge that the engine weighs beside the traffic that it sees anyway.
//!
//! A page that says nothing, or not in time, is no evidence: a busy server may be late with it.

use super::metric::{Series, Value};
use super::{BY_TRAFFIC, Scene};
use crate::config::SaturationCheck;
use crate::engine::{Outcome, Reading};
use crate::scrape::Scraper;

pub(super) async fn attempt(spec: &SaturationCheck, scraper: Option<&Scraper>, scene: &Scene) -> Outcome {
    let Some(gauge) = &spec.gauge else { return scene.pass().remark(BY_TRAFFIC) };
    let Some(scraper) = scraper else { return Outcome::unknown("no metrics page to read", scene.elapsed()) };
    scene.waiting_for(format!("the metrics page of {}", scraper.whom()));
    let page = match scraper.page(scene.page_age, scene.timeout).await {
        Ok(page) => page,
        Err(reason) => return Outcome::unknown(reason, scene.elapsed()),
    };
    let name = &gauge.selector.name;
    match Series::of(&page, &gauge.selector, gauge.combine).value {
        Value::Number(value) => {
            let age = scene.clock.now().since(page.fetched_at);
            let reading = Reading { value: Some(value), age, ..Reading::default() };
            scene.pass().reading(reading).remark(format!("{name} is {value}"))
        }
        Value::NotANumber => Outcome::unknown(format!("{name} is NaN"), scene.elapsed()),
        Value::Absent => Outcome::unknown(format!("{name} is not on the metrics page"), scene.elapsed()),
    }
}
