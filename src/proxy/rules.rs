//! What holds for a request to a path: its gate, its queue, its hold, its patience.
//!
//! Owns the gates and keeps them over reloads: a path's gate is the same one for as long as the path is named,
//! and for as long as somebody is inside after it is not. Every path that is named has one, limit or not, so
//! that a limit which a reload brings finds everybody who is inside already.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::HeaderName;

use super::admission::Terms;
use super::places::Gate;
use crate::config::Traffic;

/// The rules of one configuration.
pub(super) struct Rules {
    common: Terms,
    /// The longest path first.
    routes: Vec<Route>,
    /// Gates by path, those of paths that are not named any more included while somebody is inside.
    gates: Vec<(String, Weak<Gate>)>,
    priority_header: Option<HeaderName>,
}

/// What differs for one path and below.
pub(super) struct Route {
    pub(super) path: Arc<str>,
    pub(super) first_byte_timeout: Option<Duration>,
    /// Zero if it has none of its own.
    pub(super) stall_after: Duration,
    terms: Terms,
    /// Held so that it stays while the path is named; who is limited here enters it, who is not is counted in it.
    gate: Arc<Gate>,
}

impl Rules {
    pub(super) fn new(traffic: &Traffic, before: Option<&Self>) -> Self {
        let gate = before.map_or_else(|| Gate::new(None), |before| Arc::clone(&before.common.gate));
        gate.resize(traffic.max_in_flight);
        let common = Terms { gate, tally: None, queue: traffic.queue, hold: traffic.hold };
        let routes: Vec<Route> = traffic
            .routes
            .iter()
            .map(|route| {
                let gate = before.and_then(|before| before.gate(&route.path)).unwrap_or_else(|| Gate::new(None));
                gate.resize(route.max_in_flight);
                let own = route.max_in_flight.is_some();
                let terms = Terms {
                    gate: Arc::clone(if own { &gate } else { &common.gate }),
                    tally: (!own).then(|| Arc::clone(&gate)),
                    queue: route.queue,
                    hold: route.hold,
                };
                Route {
                    path: route.path.as_str().into(),
                    first_byte_timeout: route.first_byte_timeout,
                    stall_after: route.stall_after.unwrap_or_default(),
                    terms,
                    gate,
                }
            })
            .collect();
        let named = routes.iter().map(|route| (route.path.to_string(), Arc::downgrade(&route.gate)));
        let mut gates: Vec<(String, Weak<Gate>)> = named.collect();
        for (path, gate) in before.iter().flat_map(|before| &before.gates) {
            if gate.strong_count() > 0 && !gates.iter().any(|(known, _)| known == path) {
                gates.push((path.clone(), Weak::clone(gate)));
            }
        }
        Self { common, routes, gates, priority_header: traffic.priority_header.clone() }
    }

    /// For a request to this path, and the route that says so, if one does.
    pub(super) fn of(&self, path: &str) -> (&Terms, Option<&Route>) {
        let route = self.routes.iter().find(|route| route.covers(path));
        (route.map_or(&self.common, |route| &route.terms), route)
    }

    /// Higher goes first. What is not said, or cannot be read, is the middle.
    pub(super) fn priority<'a>(&self, field: impl FnOnce(&HeaderName) -> Option<&'a str>) -> i8 {
        self.priority_header.as_ref().and_then(field).map_or(0, priority)
    }

    fn gate(&self, path: &str) -> Option<Arc<Gate>> {
        self.gates.iter().find(|(known, _)| known == path)?.1.upgrade()
    }
}

impl Route {
    /// Its own path, and what is below it.
    fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&*self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// A whole number; what is beyond the type counts as its end.
fn priority(text: &str) -> i8 {
    let number = text.trim().parse::<i64>().unwrap_or(0);
    number.clamp(i64::from(i8::MIN), i64::from(i8::MAX)) as i8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::proxy::Passage;
    use crate::proxy::admission::at_once;
    use crate::proxy::places::Place;

    fn traffic(max_in_flight: Option<usize>, routes: &[(&str, Option<usize>)]) -> Traffic {
        let route = |(path, max_in_flight): &(&str, Option<usize>)| config::Route {
            path: (*path).to_owned(),
            max_in_flight: *max_in_flight,
            queue: None,
            hold: None,
            first_byte_timeout: None,
            stall_after: None,
        };
        Traffic { max_in_flight, routes: routes.iter().map(route).collect(), ..crate::proxy::tests::traffic() }
    }

    fn enter(rules: &Rules, path: &str) -> Option<Place> {
        at_once(Passage::Open, rules.of(path).0.clone()).ok()
    }

    fn reload(rules: &mut Rules, max_in_flight: Option<usize>, routes: &[(&str, Option<usize>)]) {
        *rules = Rules::new(&traffic(max_in_flight, routes), Some(rules));
    }

    #[test]
    fn a_limit_that_a_reload_brings_finds_who_is_inside() {
        let mut rules = Rules::new(&traffic(None, &[("/a", None)]), None);
        let (first, other) = (enter(&rules, "/a/x").unwrap(), enter(&rules, "/b").unwrap());
        reload(&mut rules, Some(2), &[("/a", Some(1))]);
        assert!(enter(&rules, "/a").is_none(), "one is inside, and one is its limit");
        assert!(enter(&rules, "/b").is_none(), "who was let in with the rest counts with the rest");
        drop(first);
        let again = enter(&rules, "/a").unwrap();
        let beside = enter(&rules, "/b").unwrap();
        assert!(enter(&rules, "/b").is_none());
        drop((again, beside, other));
        assert!(enter(&rules, "/a").is_some() && enter(&rules, "/b").is_some());
    }

    #[test]
    fn a_route_that_goes_and_comes_back_counts_who_stayed_inside() {
        let mut rules = Rules::new(&traffic(Some(5), &[("/a", Some(1))]), None);
        let inside = enter(&rules, "/a").unwrap();
        reload(&mut rules, Some(5), &[]);
        reload(&mut rules, Some(5), &[("/b", Some(1))]);
        let common = enter(&rules, "/a").unwrap();
        reload(&mut rules, Some(5), &[("/a", Some(1))]);
        assert!(enter(&rules, "/a").is_none());
        drop(inside);
        let again = enter(&rules, "/a").unwrap();
        drop((again, common));
        reload(&mut rules, Some(5), &[]);
        assert_eq!(rules.gates.len(), 1);
        reload(&mut rules, Some(5), &[]);
        assert!(rules.gates.is_empty(), "a gate that nobody needs is forgotten");
    }

    #[test]
    fn a_limit_that_goes_lets_in_and_its_return_counts() {
        let mut rules = Rules::new(&traffic(Some(1), &[]), None);
        let _first = enter(&rules, "/").unwrap();
        assert!(enter(&rules, "/").is_none());
        reload(&mut rules, None, &[]);
        let _second = enter(&rules, "/").unwrap();
        reload(&mut rules, Some(2), &[]);
        assert!(enter(&rules, "/").is_none());
    }

    #[test]
    fn priorities_are_numbers_and_everything_else_is_the_middle() {
        assert_eq!([" 7 ", "-3", "999", "-999", "high", "", "1.5"].map(priority), [7, -3, 127, -128, 0, 0, 0]);
        let nine = |name: &HeaderName| (name == "x-priority").then_some("9");
        let mut rules = Rules::new(&traffic(None, &[]), None);
        assert_eq!(rules.priority(nine), 0, "nobody asked for it");
        rules.priority_header = Some(HeaderName::from_static("x-priority"));
        assert_eq!(rules.priority(nine), 9);
    }
}
