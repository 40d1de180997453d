//! `dns`: the name has the addresses that it should have, as this pod's resolver sees it.

use std::net::IpAddr;

use super::Scene;
use crate::config::DnsCheck;
use crate::engine::{Fault, Outcome};
use crate::net::resolve::resolve;

/// Addresses named in a reason.
const SHOWN: usize = 4;

pub(super) async fn attempt(spec: &DnsCheck, scene: &Scene) -> Outcome {
    scene.waiting_for(format!("the addresses of {}", spec.name));
    match resolve(&spec.name).await {
        Ok(found) => match missing(spec, &found) {
            None => scene.pass().remark(list(&found)),
            Some(reason) => scene.fail(Fault::Answer, reason),
        },
        Err(failure) => scene.failed(failure),
    }
}

/// What is wrong with the addresses found.
fn missing(spec: &DnsCheck, found: &[IpAddr]) -> Option<String> {
    let name = &spec.name;
    if found.len() < spec.min_addresses {
        let plural = if found.len() == 1 { "" } else { "es" };
        return Some(format!("{name} has {} address{plural}, expected at least {}", found.len(), spec.min_addresses));
    }
    let wanted = spec.contains.filter(|wanted| !found.contains(wanted))?;
    Some(format!("{name} is {}, expected {wanted} among them", list(found)))
}

fn list(addresses: &[IpAddr]) -> String {
    let shown: Vec<_> = addresses.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = addresses.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::tests::run;
    use crate::config::Kind;
    use crate::engine::Verdict;

    async fn dns(name: &str, min_addresses: usize, contains: Option<&str>) -> Outcome {
        let contains = contains.map(|ip| ip.parse().unwrap());
        run(Kind::Dns(DnsCheck { name: name.to_owned(), min_addresses, contains })).await
    }

    #[tokio::test]
    async fn a_name_with_enough_addresses_passes_and_shows_them() {
        let outcome = dns("localhost", 1, Some("127.0.0.1")).await;
        assert_eq!((outcome.verdict, outcome.reason.as_str()), (Verdict::Pass, "127.0.0.1, ::1"));
    }

    #[tokio::test]
    async fn too_few_and_wrong_addresses_fail_with_what_was_found() {
        let few = dns("192.0.2.1", 2, None).await;
        assert_eq!(few.reason, "192.0.2.1 has 1 address, expected at least 2");
        let wrong = dns("localhost", 1, Some("192.0.2.9")).await;
        assert_eq!(wrong.reason, "localhost is 127.0.0.1, ::1, expected 192.0.2.9 among them");
        assert_eq!(wrong.verdict, Verdict::Fail(Fault::Answer));
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_said_to_be_unresolvable() {
        let outcome = dns("no-such-name.invalid", 1, None).await;
        assert_eq!(outcome.verdict, Verdict::Fail(Fault::Unreachable));
        assert!(outcome.reason.starts_with("cannot resolve no-such-name.invalid: "), "{}", outcome.reason);
    }
}
