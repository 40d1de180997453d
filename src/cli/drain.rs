//! `probegate drain`: the exec preStop.

use std::io::{self, Write};
use std::time::Duration;

use super::admin::{self, Place, Sidecar, Unanswered};
use super::{Answer, Outcome};

/// Between two looks at how far the drain is.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,

    /// Wait until the drain is done: the last request answered, or the drain out of time
    #[arg(short, long)]
    wait: bool,

    /// Wait at most so long, then exit with 1
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) fn run(args: Args) -> Outcome {
    let sidecar = args.place.find()?;
    admin::runtime()?.block_on(async {
        sidecar.post("/drain").await?;
        if !args.wait {
            writeln!(io::stdout(), "draining")?;
            return Ok(Answer::Yes);
        }
        match tokio::time::timeout(args.timeout, done(&sidecar)).await {
            Ok(how) => {
                writeln!(io::stdout(), "{}", how?)?;
                Ok(Answer::Yes)
            }
            Err(_) => {
                let waited = humantime::format_duration(args.timeout);
                writeln!(io::stdout(), "still draining after {waited}")?;
                Ok(Answer::No)
            }
        }
    })
}

/// Waits for the end of the drain; what to say of it.
async fn done(sidecar: &Sidecar) -> Result<&'static str, Unanswered> {
    loop {
        match sidecar.report().await {
            Ok(report) if report.drain.phase == "done" && report.drain.cut_off => {
                return Ok("drained: out of time, requests in flight were cut off");
            }
            Ok(report) if report.drain.phase == "done" => return Ok("drained"),
            Ok(_) => tokio::time::sleep(LOOK).await,
            // It took the word and has ended since: it ends when it has drained.
            Err(Unanswered::Gone(..)) => return Ok("drained: the sidecar has ended"),
            Err(refused) => return Err(refused),
        }
    }
}
