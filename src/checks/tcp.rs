//! `tcp`: somebody accepts connections there.
//!
//! Says no more than that: a kernel completes handshakes for a server that hangs, up to its backlog.

use super::Scene;
use crate::config::TcpCheck;
use crate::engine::{Outcome, Sign};
use crate::net::connect::connect;

pub(super) async fn attempt(spec: &TcpCheck, scene: &Scene) -> Outcome {
    match connect(&spec.address, &|what| scene.waiting_for(what)).await {
        Ok(_) => {
            scene.saw(Sign::Answered);
            scene.pass()
        }
        Err(failure) => scene.failed(failure),
    }
}
