//! What the model server is asked to be: its address, its release, and how it misbehaves at start.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// Arguments of the model server, shared by `examples/model_server.rs` and `probegate demo`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8000", value_name = "ADDRESS")]
    pub listen: SocketAddr,

    /// Which release of the model: v2 answers 200 with garbage
    #[arg(long = "version", value_enum, default_value_t = Release::V1)]
    pub release: Release,

    /// How long the model takes to load
    #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub load_time: Duration,

    /// What callers meet while it loads: nobody listening, or 503
    #[arg(long, value_enum, default_value_t = LoadMode::Refused)]
    pub load_mode: LoadMode,

    /// Inferences at the same time; more wait in the queue
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: u16,

    /// Inferences that may wait for a worker; more are answered 429
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub queue: usize,

    /// How long each inference takes, beyond its own few microseconds
    #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub service_time: Duration,

    /// Fail /health and /ready while the measured accuracy is below 0.8, as a server that judges itself would
    #[arg(long)]
    pub judge_self: bool,

    /// How often accuracy is measured on the test set
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub accuracy_interval: Duration,

    /// How long requests in flight may take to end after SIGTERM
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub grace: Duration,

    /// End when this process, the parent, ends
    #[arg(long, hide = true, value_name = "PID")]
    pub die_with_parent: Option<i32>,
}

/// The two releases of the exercises.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Release {
    /// Right on 98 % of the test set.
    V1,
    /// Reads images column by column, so that nearly every digit looks like a 4 to it; always 200, always sure.
    V2,
}

impl Release {
    /// As answers and metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// What callers meet while the model loads.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LoadMode {
    /// The port is closed, as vLLM, Triton and TF Serving keep it.
    Refused,
    /// `/health` is 200, `/ready` and inference are 503, as MLServer and BentoML have it.
    #[value(name = "503")]
    Unavailable,
}
