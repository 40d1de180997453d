//! One demo from first line to last: ports, configuration, model server, sidecar, and the tidying up.

use std::fs::{self, DirBuilder};
use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::{Signal, getpid, kill_process};

use super::banner::Banner;
use super::kubelet::{Backoff, Kubelet};
use super::model_server::Release;
use crate::clock::Clock;

/// The hidden command of our own binary that is the model server.
pub const MODEL_SERVER_COMMAND: &str = "demo-model-server";

/// What the demo shows.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which release of the model serves.
    pub release: Release,
    /// How long it loads, at the start and after each crash.
    pub load_time: Duration,
    /// End by itself after this.
    pub lasts: Option<Duration>,
}

/// Where everything listens. Loopback only: the demo's controls ask nobody's leave.
#[derive(Clone, Copy, Debug)]
struct Places {
    traffic: SocketAddr,
    probes: SocketAddr,
    admin: SocketAddr,
    model_server: SocketAddr,
}

/// Runs the demo. `sidecar` runs the sidecar on the configuration file it is given, until SIGINT or SIGTERM;
/// what it returns is returned. An error is one of setting the stage.
pub fn run<T>(options: &Options, sidecar: impl FnOnce(&Path) -> T) -> io::Result<T> {
    let places = Places::choose()?;
    let folder = Folder::create()?;
    let config = folder.0.join("probegate.toml");
    fs::write(&config, configuration(places))?;

    let banner = Banner {
        program: &std::env::args().next().unwrap_or_else(|| "probegate".to_owned()),
        traffic: places.traffic,
        probes: places.probes,
        admin: places.admin,
        model_server: places.model_server,
        config: &config,
        release: options.release,
        load_time: options.load_time,
        lasts: options.lasts,
        colour: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    // A reader that has gone (`| head`) must not end the demo half-way.
    let _ = write!(io::stdout(), "{banner}");

    let clock = Clock::start();
    let say = move |line: &str| {
        let _ = writeln!(io::stdout(), "{}  kubelet, as played here: {line}", clock.time_of_day(clock.now()));
    };
    let kubelet = Kubelet::start(model_server(options, places)?, Backoff::DEMO, say)?;
    if let Some(lasts) = options.lasts {
        end_after(lasts)?;
    }
    let result = sidecar(&config);
    kubelet.stop();
    let _ = writeln!(io::stdout(), "The demo has ended; nothing of it is left behind.");
    Ok(result)
}

/// Our own binary again, as the model server.
fn model_server(options: &Options, places: Places) -> io::Result<Vec<String>> {
    let program = std::env::current_exe()?;
    let program = program.to_str().ok_or_else(|| io::Error::other("this program's path is not UTF-8"))?;
    let release = options.release.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let command = [
        program,
        MODEL_SERVER_COMMAND,
        "--listen",
        &places.model_server.to_string(),
        "--version",
        &release,
        "--load-time",
        &humantime::format_duration(options.load_time).to_string(),
        "--accuracy-interval",
        "1s",
        "--grace",
        "500ms",
        "--die-with-parent",
        &getpid().as_raw_nonzero().to_string(),
    ];
    Ok(command.map(str::to_owned).to_vec())
}

/// The end takes the road of Ctrl-C, so that what a script sees is what a person sees.
fn end_after(lasts: Duration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    // Detached: it ends with the process, whichever ends first.
    std::thread::Builder::new().name("demo-timer".to_owned()).spawn(move || {
        runtime.block_on(async { tokio::time::sleep(lasts).await });
        // To ourselves; it cannot fail.
        let _ = kill_process(getpid(), Signal::TERM);
    })?;
    Ok(())
}

impl Places {
    /// The usual ports where they are free, others where they are not.
    fn choose() -> io::Result<Self> {
        // All are held until all are chosen, so that no two are the same.
        let held = [Some(8080), Some(9090), Some(9091), None].map(hold);
        let [traffic, probes, admin, model_server] = held;
        Ok(Self {
            traffic: traffic?.local_addr()?,
            probes: probes?.local_addr()?,
            admin: admin?.local_addr()?,
            model_server: model_server?.local_addr()?,
        })
    }
}

fn hold(wanted: Option<u16>) -> io::Result<TcpListener> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    wanted.map_or_else(|| bind(0), |port| bind(port).or_else(|_| bind(0)))
}

/// A folder of our own that goes when the demo does.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn create() -> io::Result<Self> {
        let stem = format!("probegate-demo-{}", getpid().as_raw_nonzero());
        // A folder may be left from a killed demo with this pid; it is not ours to write into.
        for attempt in 0..100 {
            let path = std::env::temp_dir().join(format!("{stem}-{attempt}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
            }
        }
        Err(io::Error::other(format!("{stem}-N: a hundred of them are there already")))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind at worst: a small file in the system's folder for such.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The file that the sidecar runs on; a person is told where it is, and may learn from it.
fn configuration(places: Places) -> String {
    let Places { traffic, probes, admin, model_server } = places;
    format!(
        r#"# Written by `probegate demo`.

[upstream]
address = "{model_server}"

[listen]
traffic = "{traffic}"
probes = "{probes}"
admin = "{admin}"

[startup]                     # until it passes, /ready is 503 and /health is 200
require = ["model"]
budget = "5m"

[health]                      # fails only for what a restart would mend
require = ["alive"]

[ready]                       # send me traffic
require = ["model", "answers", "better-than-guessing"]
degrade = ["accuracy"]        # shown and warned about: still 200

[log]
format = "text"

[drain]                       # no load balancer to wait for here
propagation = "200ms"
max = "500ms"

[checks.alive]                # refused is dead; slow is only busy
tcp = "{model_server}"
interval = "2s"
timeout = "1s"
failure_threshold = 3
on_timeout = "unknown"

[checks.model]                # what the model server says of itself
http = "http://{model_server}/ready"
interval = "1s"
timeout = "500ms"
failure_threshold = 2

[checks.answers]              # a real inference: a server that hangs may still call itself healthy
http = {{ url = "http://{model_server}/predict", method = "POST", body = '{PROBE}' }}
interval = "2s"
timeout = "1s"
failure_threshold = 2

[checks.accuracy]             # measured by the model server on 400 labelled digits
metric = {{ name = "model_accuracy", min = 0.8 }}
interval = "2s"
failure_threshold = 2

[checks.better-than-guessing] # 0.1 is what a coin with ten sides gets
metric = {{ name = "model_accuracy", min = 0.2 }}
interval = "2s"
failure_threshold = 2
"#
    )
}

/// A handwritten 1 of the test set.
const PROBE: &str = concat!(
    r#"{"pixels": ["#,
    "0,0,3,8,11,11,1,0,0,0,3,16,16,12,0,0,",
    "0,0,2,15,16,12,0,0,0,0,0,16,16,7,0,0,",
    "0,0,1,15,16,10,0,0,0,0,1,16,16,6,0,0,",
    "0,0,3,16,16,5,0,0,0,0,2,15,16,6,0,0]}",
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::model_server::Options as ServerOptions;

    #[derive(clap::Parser)]
    struct ServerCommand {
        #[command(flatten)]
        options: ServerOptions,
    }

    fn options() -> Options {
        Options { release: Release::V2, load_time: Duration::from_millis(1500), lasts: None }
    }

    #[test]
    fn no_two_listeners_share_a_port_and_all_are_loopback() {
        let places = Places::choose().unwrap();
        let all = [places.traffic, places.probes, places.admin, places.model_server];
        for (index, place) in all.iter().enumerate() {
            assert!(place.ip().is_loopback());
            assert!(!all[..index].contains(place), "{all:?}");
        }
    }

    #[test]
    fn a_taken_port_is_replaced() {
        let taken = hold(None).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(hold(Some(port)).unwrap().local_addr().unwrap().port(), port);
    }

    #[test]
    fn the_model_server_understands_its_command_line() {
        let command = model_server(&options(), Places::choose().unwrap()).unwrap();
        assert_eq!(command[1], MODEL_SERVER_COMMAND);
        let parsed: ServerCommand = clap::Parser::try_parse_from(&command[1..]).unwrap();
        assert_eq!(parsed.options.release, Release::V2);
        assert_eq!(parsed.options.load_time, Duration::from_millis(1500));
        assert!(parsed.options.die_with_parent.is_some());
    }

    #[test]
    fn the_folder_is_private_and_goes_with_the_demo() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::create().unwrap();
        let path = folder.0.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn the_configuration_is_toml_with_its_probe_in_json() {
        let text = configuration(Places::choose().unwrap());
        let document = text.parse::<toml_edit::ImDocument<String>>().unwrap();
        let body = document["checks"]["answers"]["http"]["body"].as_str().unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["pixels"].as_array().unwrap().len(), 64);
    }
}
