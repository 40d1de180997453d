//! What `probegate demo` brings along: a model server to stand in front of, and one that plays the kubelet.
//!
//! Not part of the production image. The sidecar itself is handed in by the caller: it is the same one that
//! `probegate run` runs, on a configuration that the demo writes.

mod banner;
mod kubelet;
pub mod model_server;
mod session;

pub use session::{MODEL_SERVER_COMMAND, Options, run};
