//! The sidecar against itself: stopped, throttled, one of its threads held. Whoever cannot see condemns nobody.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::cgroup::Group;
use super::model::Model;
use super::sidecar::Sidecar;
use super::until::until;
use super::wire::{self, Line};

/// A verdict soon after silence or failure, if anybody believed what is seen. `every` paces the liveness check.
fn hasty(address: std::net::SocketAddr, every: &str) -> String {
    format!(
        "[upstream]\naddress = \"{address}\"\n[traffic]\nworkers = 1\n[health]\nrequire = [\"alive\", \"progress\"]\n\
         [checks.alive]\nhttp = \"http://{address}/health\"\n{every}\n[checks.progress]\nprogress = {{ stall_after = \"1s\" }}\n"
    )
}

/// One failure within a fifth of a second is a verdict.
const AT_ONCE: &str = "interval = \"500ms\"\ntimeout = \"200ms\"\nfailure_threshold = 1";

/// Every transition of `/health` or of a liveness check to the bad.
fn verdicts(sidecar: &Sidecar) -> Vec<String> {
    let report = sidecar.report();
    let history = report["history"].as_array().expect("a history");
    let bad = |change: &&serde_json::Value| {
        let of_liveness = ["health", "progress", "alive"].iter().any(|name| change["name"] == *name);
        of_liveness && (change["to"] == "fail" || change["to"] == "down")
    };
    history.iter().filter(bad).map(ToString::to_string).collect()
}

#[test]
fn a_sidecar_that_was_stopped_and_goes_on_condemns_nobody() {
    let model = Model::start();
    let sidecar = Sidecar::start(&hasty(model.address(), AT_ONCE));
    sidecar.until("/ready", 200);
    sidecar.signal("STOP");
    // The kernel takes it in, and the sidecar finds it when it wakes.
    let mut client = Line::open(sidecar.traffic()).unwrap();
    client.send("GET /health HTTP/1.1\r\nHost: model\r\n\r\n").unwrap();
    pass(Duration::from_secs(6));
    sidecar.signal("CONT");
    assert_eq!(client.reply(false).unwrap().status, 200);
    let told = until("it doubts itself", || Some(sidecar.report()).filter(|report| report["doubt"].is_object()));
    assert!(told["doubt"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{told}");
    assert_eq!(sidecar.probe("/health").status, 200);
    assert_eq!(sidecar.probe("/self").status, 200);
    assert_eq!(wire::get(sidecar.traffic(), "/health").status, 200);
    until("it trusts itself again", || sidecar.report()["doubt"].is_null().then_some(()));
    assert_eq!(sidecar.probe("/health").status, 200);
    assert_eq!(sidecar.probe("/ready").status, 200);
    assert_eq!(verdicts(&sidecar), Vec::<String>::new());
}

/// Lets time itself pass: what is waited for is that nothing happens.
#[expect(clippy::disallowed_methods, reason = "a stopped process outside has no other sign than time")]
fn pass(span: Duration) {
    std::thread::sleep(span);
}

#[test]
fn a_sidecar_that_its_cgroup_throttles_doubts_itself_and_condemns_nobody() {
    let Some(group) = Group::make("sidecar") else { return };
    let model = Model::start();
    let every = "interval = \"2s\"\ntimeout = \"300ms\"\nfailure_threshold = 3";
    let sidecar = Sidecar::start_in(group.directory(), &hasty(model.address(), every));
    sidecar.until("/ready", 200);
    // A hundredth of a core, and less than that for the model server's answers.
    group.allow(1000);
    let why = until("it says that it is throttled", || {
        let doubt = sidecar.report()["doubt"]["reason"].as_str().map(str::to_owned)?;
        doubt.contains("throttled by its CPU limit").then_some(doubt)
    });
    assert_eq!(sidecar.probe("/health").status, 200, "{why}");
    pass(Duration::from_secs(8));
    assert_eq!(sidecar.probe("/health").status, 200, "{why}");
    group.allow(1_000_000);
    until("it trusts itself again", || sidecar.report()["doubt"].is_null().then_some(()));
    assert_eq!(sidecar.probe("/health").status, 200);
    assert_eq!(verdicts(&sidecar), Vec::<String>::new(), "{}", sidecar.log_text());
}

/// Seizes one thread, stops it, says so, and lets it go when its input ends.
const HOLD: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000
tid = int(sys.argv[1])
for request in (SEIZE, INTERRUPT):
    if libc.ptrace(request, tid, None, None) != 0:
        print("refused", os.strerror(ctypes.get_errno()), flush=True)
        sys.exit(0)
os.waitpid(tid, WALL)
print("held", flush=True)
sys.stdin.read()
libc.ptrace(DETACH, tid, None, None)
"#;

/// One thread that does not run, until this is dropped.
struct Held(Child);

impl Held {
    /// The error says why it cannot be held here.
    fn hold(thread: u32) -> Result<Self, String> {
        let mut command = Command::new("python3");
        command.args(["-c", HOLD, &thread.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let mut said = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut said).map_err(|error| error.to_string())?;
        let held = Self(child);
        if said.trim() == "held" { Ok(held) } else { Err(said) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut input) = self.0.stdin.take() {
            let _ = input.flush();
        }
        let _ = self.0.wait();
    }
}

/// The thread of that name.
fn thread_named(pid: u32, name: &str) -> u32 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let named =
        tasks.flatten().find(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name));
    let thread = named.unwrap_or_else(|| panic!("no thread {name}")).file_name();
    thread.to_str().and_then(|id| id.parse().ok()).expect("a number")
}

#[test]
fn a_worker_that_stops_turning_fails_self_within_five_seconds_and_condemns_nobody() {
    let model = Model::start();
    let sidecar = Sidecar::start(&hasty(model.address(), AT_ONCE));
    sidecar.until("/ready", 200);
    let held = match Held::hold(thread_named(sidecar.pid(), "traffic-0")) {
        Ok(held) => held,
        Err(why) => {
            eprintln!("SKIPPED: no thread can be held here: {why}");
            return;
        }
    };
    let ill = sidecar.until("/self?verbose", 503);
    let why = sidecar.report()["stuck"].to_string();
    assert!(why.contains("traffic-0 has not moved for 4 s"), "found in time, {why}, {ill:?}");
    assert_eq!(sidecar.probe("/health").status, 200, "the model server is not to blame");
    drop(held);
    sidecar.until("/self", 200);
    assert_eq!(wire::get(sidecar.traffic(), "/health").status, 200);
    assert_eq!(sidecar.probe("/health").status, 200);
    assert_eq!(verdicts(&sidecar), Vec::<String>::new());
}
