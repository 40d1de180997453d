//! Every default and limit in one place: a named constant with its reason.

use std::time::Duration;

// Checks.

/// Between attempts. Fast enough that three failures stay below the kubelet's own 30 s, slow enough to be no load.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The kubelet's own default for a probe.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// A pending check is tried at least this often: the way to the first verdict is what a rollout waits for.
pub const CHECK_PENDING_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Spreads checks of many pods over time (SRE: jitter; HAProxy: resonance).
pub const CHECK_JITTER_PERMILLE: u32 = 100;
pub const CHECK_SUCCESS_THRESHOLD: u32 = 1;
pub const CHECK_FAILURE_THRESHOLD: u32 = 3;
/// Widest `failures = "N/M"` window: one machine word.
pub const CHECK_WINDOW_MAX: u32 = 64;
/// Checks in one file.
pub const CHECKS_MAX: usize = 10_000;
/// At a start, so many first attempts begin at once, and the next so many after this: ten thousand checks
/// within five seconds, and no peer's backlog overrun by them.
pub const FIRST_ATTEMPTS: u32 = 50;
pub const FIRST_ATTEMPTS_EVERY: Duration = Duration::from_millis(25);
/// How long past its deadline an attempt may go unreported before the engine itself calls it a timeout.
/// The collector reports at the deadline and knows what it was waiting for; this is the backstop.
pub const DEADLINE_SLACK: Duration = Duration::from_millis(500);
/// While `/health` fails the port is looked at this often: a model server that is restarted can be away for less than
/// a second, and one whose restart nobody saw would be restarted again.
pub const GLANCE: Duration = Duration::from_millis(100);
/// A reason is for a line on a terminal.
pub const REASON_BYTES_MAX: usize = 300;
/// Of a checked answer's body, at most this much is read and judged.
pub const CHECK_BODY_BYTES_MAX: usize = 1024 * 1024;
/// A beat every ten seconds may be missed twice.
pub const HEARTBEAT_SILENCE: Duration = Duration::from_secs(30);
/// The kubelet begins to evict at 10 % free (`nodefs.available`).
pub const DISK_FREE_PERCENT: f64 = 10.0;
/// Two weeks: time for a person to renew a certificate by hand.
pub const TLS_VALID: Duration = Duration::from_secs(14 * 86_400);
/// Of a child's output, at most this much is kept for the reason.
pub const EXEC_OUTPUT_BYTES_MAX: usize = 4096;
/// What a heartbeat says of itself is part of a reason.
pub const HEARTBEAT_STATUS_BYTES_MAX: usize = 200;
/// A server may announce silence, but not for ever.
pub const HEARTBEAT_EXTENSION_MAX: Duration = Duration::from_secs(3600);
/// A notification is a few short lines; systemd takes as much.
pub const NOTIFY_DATAGRAM_BYTES_MAX: usize = 4096;

// Gates.

/// A model loads in minutes; past five, most do not load at all. Presets of LLM servers ask for more.
pub const STARTUP_BUDGET: Duration = Duration::from_secs(300);
/// A restart costs minutes of model load: six in an hour is more than mending.
pub const RESTART_BUDGET_COUNT: u32 = 6;
pub const RESTART_BUDGET_WINDOW: Duration = Duration::from_secs(3600);
/// Transitions kept for people.
pub const HISTORY_TRANSITIONS: usize = 256;

/// Reasons shown for one gate: the first decides, the rest are for the eye.
pub const GATE_REASONS: usize = 16;

// Self-doubt.

/// The engine waking this much later than it asked for means that the process did not get the CPU.
pub const DOUBT_LATE: Duration = Duration::from_secs(1);
/// A doubt lasts at least this long after its last sign.
pub const DOUBT_HOLD: Duration = Duration::from_secs(10);

// Drain.

/// Not-ready to no-new-connections takes 0.1 to 2 s (kubelet-semantics §5); five is on the safe side.
pub const DRAIN_PROPAGATION: Duration = Duration::from_secs(5);
/// Below the 30 s of grace that a pod has by default.
pub const DRAIN_MAX: Duration = Duration::from_secs(25);
/// How long `/wait-for-drain?within=` looks out for a drain at most: each restart of the model server waits as long.
pub const DRAIN_LOOKOUT_MAX: Duration = Duration::from_secs(10);

// Listeners.

pub const LISTEN_TRAFFIC: &str = "0.0.0.0:8080";
pub const LISTEN_PROBES: &str = "0.0.0.0:9090";
pub const LISTEN_ADMIN: &str = "127.0.0.1:9091";
/// The kubelet reads 10 KiB of a probe's body; more risks a reset.
pub const PROBE_BODY_BYTES_MAX: usize = 10 * 1024;
/// Longer than any scraper's interval (60 s), so that a kept connection is never closed in its face.
pub const IDLE_CONNECTION: Duration = Duration::from_secs(75);
/// From accept to the first complete request head.
pub const FIRST_HEAD: Duration = Duration::from_secs(10);
/// Connections on the probe listener: a kubelet, a Prometheus or three, and no room for a flood.
pub const PROBE_CONNECTIONS_MAX: usize = 512;

/// A gRPC client that has gone without a word is noticed by a ping after this long ...
pub const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
/// ... and this much more.
pub const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams on one probe connection: a health client has one call and one watch.
pub const PROBE_STREAMS_MAX: u32 = 32;
/// Connections on the admin listener: people with a page open, and scripts.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Admin requests worked on at once; more are refused with 503.
pub const ADMIN_CONCURRENCY_MAX: usize = 32;
/// An admin request takes at most this long, streams of events apart.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// An admin request's body is at most this long: a heartbeat's status is a line.
pub const ADMIN_BODY_BYTES_MAX: usize = 4096;
/// An override shorter than this is over before anybody saw it; one longer than a day was forgotten.
pub const OVERRIDE_TTL_MIN: Duration = Duration::from_secs(1);
pub const OVERRIDE_TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Readers of `/api/events` at once, below [`ADMIN_CONNECTIONS_MAX`]: commands always find a place.
pub const EVENTS_READERS_MAX: usize = 32;
/// The status page is told of changes at most this often.
pub const EVENTS_INTERVAL: Duration = Duration::from_millis(500);
/// How often the page is told of the traffic, which also shows a dead reader.
pub const EVENTS_TRAFFIC: Duration = Duration::from_secs(2);

// Metrics.

/// The model server's page is merged up to this size (Istio's cap).
pub const MERGE_BYTES_MAX: usize = 10 * 1024 * 1024;
/// A scrape of the model server takes at most this long: Prometheus gives 10 s to all of it.
pub const MERGE_TIMEOUT: Duration = Duration::from_secs(5);
/// A check reads a page that another one fetched up to so long before.
pub const PAGE_AGE_MAX: Duration = Duration::from_secs(5);
/// Labels of one sample: Prometheus' own servers are commonly set to refuse more than 30 to 60.
pub const METRIC_LABELS_MAX: usize = 128;
/// A page of more lines is not merged: read into samples it would take more memory than a sidecar has.
pub const MERGE_LINES_MAX: usize = 250_000;
/// After a scrape that failed, the next ones wait only so long for the model server; ours goes out regardless.
pub const MERGE_GRACE: Duration = Duration::from_millis(250);
/// Scrapers that come within this time of each other share one page of the model server's.
pub const MERGE_SHARE: Duration = Duration::from_millis(250);
/// The whole of a `/metrics` answer takes at most this long, merging included.
pub const METRICS_ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

// Configuration.

pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;
/// A secret is a line, or a key of a few. It is read where the checks run, so no device and no flood.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// A chain of certificates is some kilobytes, a bundle of authorities some hundred.
pub const TLS_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Watches die when the kubelet swaps the symlink; looking is exact and cheap.
pub const RELOAD_POLL: Duration = Duration::from_secs(2);

// Running.

/// The engine's thread turns its loop at least this often, so that a watchdog can tell idle from stuck.
pub const ENGINE_TICK: Duration = Duration::from_millis(500);
/// While draining, requests in flight are counted this often: the end of a drain is not waited for longer.
pub const DRAIN_SAMPLE: Duration = Duration::from_millis(100);
/// Changes that turn no gate and move no upstream are published at most this often, so that 10 000 checks
/// cost 20 snapshots a second and no more.
pub const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);
/// Every thread that the sidecar's promises rest on shows a sign of life this often.
pub const PULSE: Duration = Duration::from_millis(500);
/// A thread without a sign of life for this long is stuck, and `/self` says so.
pub const STUCK: Duration = Duration::from_secs(4);
/// The cgroup's CPU throttling is read this often.
pub const THROTTLE_SAMPLE: Duration = Duration::from_secs(1);
/// Throttled for more than this share of the last [`THROTTLE_WINDOW`] samples' time, in thousandths, a slow
/// answer says more about us than about whoever was asked.
pub const THROTTLE_PERMILLE: u64 = 250;
/// Samples that are looked back on.
pub const THROTTLE_WINDOW: usize = 5;
/// Past the drain's own `max`, before the process ends regardless of what the engine says.
pub const DRAIN_SLACK: Duration = Duration::from_secs(1);
/// Threads get this long to end by themselves once they are told; below the 2 s floor that the kubelet gives.
pub const STOP_GRACE: Duration = Duration::from_millis(1500);
/// Log lines that wait for a slow reader of standard error; more are dropped and counted. Such queues are memory from
/// the start: 32 bytes a line.
pub const LOG_QUEUE: usize = 1024;
/// At the end the log gets this long to be read.
pub const LOG_FLUSH: Duration = Duration::from_secs(1);
/// Lines of the access log that wait for a slow reader of standard output; more are dropped and counted.
pub const ACCESS_LOG_QUEUE: usize = 2048;
/// Of a path, or of a request's own id, so much is shown in the access log.
pub const ACCESS_LOG_PATH_BYTES_MAX: usize = 2048;
pub const ACCESS_LOG_ID_BYTES_MAX: usize = 128;
/// The transition ring's file is rotated at this size; with the one before it, twice as much is kept.
pub const RING_BYTES_MAX: u64 = 256 * 1024;
/// Transitions that wait for a slow disk; more are not written.
pub const RING_QUEUE: usize = 256;
/// A trace ends at this size: some eight hours of a server with one progress check.
pub const TRACE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Lines of a trace that wait for a slow disk; one more ends it.
pub const TRACE_QUEUE: usize = 4096;
/// A trace is on its disk after so much quiet, in case the process is killed.
pub const TRACE_FLUSH: Duration = Duration::from_millis(100);

// Traffic.

/// An idle connection to the model server is given up before the server's own 5 s (uvicorn) ends it in our face.
pub const UPSTREAM_IDLE: Duration = Duration::from_secs(3);
/// On loopback a connect takes microseconds; a full backlog shows as silence.
pub const UPSTREAM_CONNECT: Duration = Duration::from_secs(2);
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
pub const URI_BYTES_MAX: usize = 16 * 1024;
/// What `Retry-After` says while the model server is not ready, in seconds.
pub const RETRY_AFTER_SECONDS: u32 = 1;
/// Idle connections to one address that one worker keeps: more than any model server takes at once.
pub const UPSTREAM_IDLE_MAX: usize = 1024;
/// Of one connection's bytes, at most so many wait in memory each way. Tensors weigh powers of two: one of 64 KiB
/// goes through in one read and one write, its head included.
pub const TRAFFIC_BUFFER_BYTES_MAX: usize = 68 * 1024;
/// Connections that wait to be accepted: a burst is ridden out, and the kernel caps it at `somaxconn` anyway.
pub const TRAFFIC_BACKLOG: i32 = 4096;
/// How much nicer than the other threads a traffic worker is: a tenth of their weight on a core that is full.
pub const WORKER_NICE: i32 = 10;
/// A worker's tick. A missed one shows to the watchdog within a second, and deadlines are kept to this grain.
pub const WORKER_BEAT: Duration = Duration::from_millis(250);
/// Out of file descriptors: some must be closed before another try makes sense.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// A worker reports refused connects at most so often.
pub const SIGN_INTERVAL: Duration = Duration::from_millis(100);
/// Client connections over all workers: beyond any model server's appetite, below the usual file limit's half.
pub const TRAFFIC_CONNECTIONS_MAX: usize = 10_000;
/// Streams on one client connection; more wait at the client. Envoy's number.
pub const H2_STREAMS_MAX: u32 = 1024;
/// Of one HTTP/2 stream, at most so many bytes are on their way to a reader that does not read.
pub const H2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Of one client's connection, all streams together.
pub const H2_CLIENT_WINDOW_BYTES: u32 = 1024 * 1024;
/// Of the shared connection to a model server: so wide that some clients who do not read do not stop the rest.
pub const H2_UPSTREAM_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// A client connection that was told to end has so long to say its last.
pub const H2_LAST_WORDS: Duration = Duration::from_secs(1);
/// HTTP/2 connections of one worker to one address: so many times the streams that the model server takes on each.
pub const H2_UPSTREAM_CONNECTIONS_MAX: usize = 64;
/// A new HTTP/2 connection waits so long for the model server to say how many streams it takes.
pub const H2_SETTINGS_WAIT: Duration = Duration::from_millis(100);
/// A request that waits for a model server whose port is closed looks again this often.
pub const HOLD_STEP: Duration = Duration::from_millis(100);
/// How long a request waits in a queue that does not say: longer, and its client has given up.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that one worker holds at once; each is a head and a task in memory.
pub const HELD_MAX: u64 = 10_000;

// Progress.

/// The traffic plane is sampled this often: a hang is told at the latest so long after it is one.
pub const TRAFFIC_SAMPLE: Duration = Duration::from_millis(250);
/// Silence of so long with work pending is a hang. Above the 30 s after which gunicorn kills its own workers,
/// below the patience of most clients. LLM servers need more: a long prefill is silent.
pub const STALL_AFTER: Duration = Duration::from_secs(60);
/// After this much silence the counter is read once more, so that it is known what it said when silence began.
pub const STALL_LOOK: Duration = Duration::from_millis(500);
/// What clients gave up on excuses silence for at most so long after the last sign of life. Seen on real
/// servers: up to 58 s after 20 s at three times the capacity; five times the capacity on a machine that becomes
/// three times slower leaves less than this.
pub const ABANDONED_WORK_MAX: Duration = Duration::from_secs(300);
/// A starved machine may work off what was given up so many times slower than it answered before.
pub const ABANDONED_SLACK: u32 = 3;
/// At least so many answers to requests that came after the last that was given up show that nothing is left over.
pub const BACKLOG_ANSWERS: u64 = 3;
/// What one answer may take a server that has not given any yet.
pub const ABANDONED_PACE: Duration = Duration::from_secs(30);
/// A server with work pending that has been silent for less than this is late at most, however fast it was: three
/// attempts of a check fit into it.
pub const LATE_SILENCE: Duration = Duration::from_secs(15);
/// With nobody waiting for so long, answers that were owed are forgotten.
pub const OWED_IDLE: Duration = Duration::from_secs(60);
/// Requests that wait for so long, or were shed within it, make a server saturated in the report.
pub const SATURATED_FOR: Duration = Duration::from_secs(1);
/// A `saturation` check's low marks: this share of the high ones, so that it does not swing with every answer.
pub const SATURATION_LOW_PERMILLE: u32 = 800;
/// A mark is passed once it has been for so long: bursts are what a queue is for.
pub const SATURATION_HOLD: Duration = Duration::from_secs(5);
/// A worker beats four times a second; one that is silent for so long saw no byte, whoever sent it.
pub const WORKER_SILENCE: Duration = Duration::from_secs(2);
/// A question (`GET`, `HEAD`, `OPTIONS`) or a refusal that took the model server so long had to do with its work; a
/// shorter one its front answers by itself, also with the engine behind it hung.
pub const ASIDE_MAX: Duration = Duration::from_secs(1);
/// A hang that nobody restarts and nobody waits for any more is tried again after this.
pub const STALL_HOLD: Duration = Duration::from_secs(300);
/// Processes that use less of a CPU than this, in thousandths, do nothing.
pub const CPU_QUIET_PERMILLE: u128 = 50;
/// Over no less than this: CPU time is shown in hundredths of a second, and one more within a moment says nothing.
pub const CPU_SPAN: Duration = Duration::from_secs(1);
/// Readings of a counter that are kept for the report.
pub const READINGS: usize = 32;

// Golden requests.

/// Once a minute: enough to notice, little enough to be no load.
pub const GOLDEN_INTERVAL: Duration = Duration::from_secs(60);
/// For all cases of a file together.
pub const GOLDEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Cases in one file.
pub const GOLDEN_CASES_MAX: usize = 1000;
/// A file of cases is at most so long.
pub const GOLDEN_BYTES_MAX: u64 = 4 * 1024 * 1024;

// Passive evidence about single upstream addresses.

/// Envoy's number (`consecutive_5xx`): fewer are bad luck.
pub const PASSIVE_CONSECUTIVE_FAILURES: u32 = 5;
/// Fewer than half of the answers good is no bad luck.
pub const PASSIVE_MIN_SUCCESS_PERMILLE: u32 = 500;
/// Looked back on.
pub const PASSIVE_WINDOW: Duration = Duration::from_secs(30);
/// Fewer requests than this in the window say nothing about a share.
pub const PASSIVE_MIN_REQUESTS: u32 = 20;
/// A first ejection: a third of Envoy's, for its end is a single request here and not full traffic.
pub const PASSIVE_BASE_EJECTION: Duration = Duration::from_secs(10);
/// Envoy's bound (`max_ejection_time`).
pub const PASSIVE_MAX_EJECTION: Duration = Duration::from_secs(300);
/// With more than half of the addresses out, the rest would carry more than twice their load.
pub const PASSIVE_MAX_EJECTED_PERMILLE: u32 = 500;
/// An address on trial that nobody tries goes by its check after this.
pub const PASSIVE_PROBATION: Duration = Duration::from_secs(10);

// Outcomes.

/// Fewer than half of the answers good is no bad luck.
pub const OUTCOMES_MIN_SUCCESS_PERMILLE: u32 = 500;
/// Looked back on.
pub const OUTCOMES_WINDOW: Duration = Duration::from_secs(30);
/// Fewer requests than this in the window say nothing.
pub const OUTCOMES_MIN_REQUESTS: u32 = 10;
/// As for one address of several: fewer in a row are bad luck.
pub const OUTCOMES_CONSECUTIVE_FAILURES: u32 = 5;
/// A row that is younger says nothing: retries of one request come within this, and so does a short stumble.
pub const OUTCOMES_ROW: Duration = Duration::from_secs(2);
/// For so long after a request by another method than a question's, answers to short questions ([`ASIDE_MAX`]) count as
/// nothing. Far above [`OUTCOMES_PAUSE_MAX`], through which we turn work away ourselves; and work that comes more
/// seldom than this fails too seldom to be judged by.
pub const OUTCOMES_WORK_MEMORY: Duration = Duration::from_secs(300);
/// From the verdict to the first trial; doubled with each trial that fails ...
pub const OUTCOMES_PAUSE: Duration = Duration::from_secs(5);
/// ... up to this.
pub const OUTCOMES_PAUSE_MAX: Duration = Duration::from_secs(60);
