//! Arguments to one command, one exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    probegate::cli::main()
}
