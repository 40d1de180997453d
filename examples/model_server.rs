//! The model server that the exercises and the tests use: `cargo run --example model_server -- --help`.
//!
//! The same server that `probegate demo` puts its sidecar in front of; all of it is in `src/demo/model_server/`.

use std::process::ExitCode;

use clap::Parser;
use probegate::demo::model_server::{Options, run};

/// A small real model server that reads handwritten digits, and breaks when told to
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    run(Arguments::parse().options)
}
