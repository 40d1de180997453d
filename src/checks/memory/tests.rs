use super::super::proc::fixture::{Machine, Process};
use super::super::trial::Trial;
use super::*;
use crate::config::{Bytes, LabelMatcher, MatchOp, RedisCheck, TlsClient};
use crate::engine::Verdict;
use crate::secret::{SecretSource, Template};
use crate::testkit::redis::Redis;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn used(used: u64, limit: Limit) -> Reading {
    Reading { what: "working set", used, limit }
}

fn said(max: Amount, reading: &Reading) -> (Verdict, String) {
    let outcome = judge(max, reading, Duration::ZERO);
    (outcome.verdict, outcome.reason)
}

#[test]
fn a_limit_is_in_bytes_or_a_share_of_something_that_is_said() {
    let fail = Verdict::Fail(Fault::Local);
    let high = used(1_018_377_011, Limit::Own(GIB));
    let text = "working set is 971.2 MiB of 1 GiB (94.8 %), expected at most 90 %";
    assert_eq!(said(Amount::PercentOfLimit(90.0), &high), (fail, text.into()));
    assert_eq!(said(Amount::PercentOf(90.0, Bytes(GIB)), &high), (fail, text.into()));
    let pass = said(Amount::PercentOf(90.0, Bytes(2 * GIB)), &high);
    assert_eq!(pass, (Verdict::Pass, "working set is 971.2 MiB of 2 GiB (47.4 %)".into()));
    let bytes = said(Amount::Bytes(Bytes(900 * MIB)), &high);
    assert_eq!(bytes, (fail, "working set is 971.2 MiB, expected at most 900 MiB".into()));
    assert_eq!(said(Amount::Bytes(Bytes(1_018_377_011)), &high).0, Verdict::Pass);
    assert_eq!(said(Amount::PercentOfLimit(100.0), &used(GIB, Limit::Own(GIB))).0, Verdict::Pass);

    let machine = said(Amount::PercentOfLimit(80.0), &used(9 * GIB, Limit::Machine(10 * GIB)));
    let text = "working set is 9 GiB of the machine's 10 GiB, for there is no limit (90 %), expected at most 80 %";
    assert_eq!(machine, (fail, text.into()));
    assert_eq!(said(Amount::PercentOfLimit(80.0), &used(1, Limit::Unknown)).0, Verdict::Unknown);
    assert_eq!(said(Amount::PercentOf(80.0, Bytes(0)), &used(1, Limit::Unknown)).0, fail);
}

#[test]
fn processes_are_summed_and_one_that_vanished_counts_nothing() {
    let machine = Machine::new();
    machine.process(&Process { rss_pages: 1000, ..Process::new(10, "recommender", "recommender") });
    machine.process(&Process { rss_pages: 24, ..Process::new(11, "recommender", "recommender") });
    machine.process(&Process::new(12, "recommender", "recommender"));
    std::fs::remove_file(machine.path().join("12/statm")).expect("there");
    let select = ProcessSelect::Match("recommender".into());
    let read = |count| of_processes(&machine.proc(), 99, &select, count);
    let rss = read(ProcessMemory::Rss).expect("read");
    assert_eq!(rss.used, 1024 * rustix::param::page_size() as u64);
    assert_eq!(rss.limit, Limit::Machine(4 * GIB));
    machine.write("10/smaps_rollup", "Pss: 100 kB\n");
    machine.write("11/smaps_rollup", "Pss: 28 kB\n");
    assert_eq!(read(ProcessMemory::Pss).expect("read").used, 128 * 1024);
    let none = of_processes(&machine.proc(), 99, &ProcessSelect::Match("triton".into()), ProcessMemory::Rss);
    assert_eq!(none, Err("no process matches \"triton\"".into()));
}

#[test]
fn a_pss_that_may_not_be_read_says_what_to_do() {
    let machine = Machine::new();
    machine.process(&Process::new(10, "python", "python"));
    let stat = machine.proc().stat(10).expect("a process");
    let denied = unreadable(&stat, ProcessMemory::Pss, &std::io::ErrorKind::PermissionDenied.into());
    let text = "permission denied to read the PSS of process 10 (python): run as its user, or count the RSS instead";
    assert_eq!(denied, text);
}

#[test]
fn a_gauge_is_summed_over_its_series() {
    let page = b"cache_bytes{pool=\"a\"} 1e6\ncache_bytes{pool=\"b\"} 5\nother 7\nbad{\nnegative -1\nnan NaN\n";
    let wanted = |name: &str, matchers| MetricSelector { name: name.into(), matchers };
    assert_eq!(gauge(page, &wanted("cache_bytes", Vec::new())).expect("there").used, 1_000_005);
    let b = LabelMatcher { label: "pool".into(), op: MatchOp::Equal("b".into()) };
    assert_eq!(gauge(page, &wanted("cache_bytes", vec![b])).expect("there").used, 5);
    assert_eq!(gauge(page, &wanted("gone", Vec::new())), Err("gone is not on the metrics page".into()));
    let negative = gauge(page, &wanted("negative", Vec::new()));
    assert_eq!(negative, Err("negative is -1, which is no number of bytes".into()));
    assert!(gauge(page, &wanted("nan", Vec::new())).is_err());
}

async fn ask(of: MemoryOf, max: Amount) -> Outcome {
    let spec = MemoryCheck { of, max };
    let trial = Trial::new();
    trial.attempt(async |scene| attempt(&spec, None, &trial.memory, scene).await).await
}

#[tokio::test]
async fn this_machine_is_read_for_real() {
    let own = ask(MemoryOf::Cgroup { path: None }, Amount::PercentOfLimit(100.0)).await;
    assert_eq!(own.verdict, Verdict::Pass, "{}", own.reason);
    assert!(own.reason.starts_with("working set is "), "{}", own.reason);
    let tiny = ask(MemoryOf::Cgroup { path: None }, Amount::Bytes(Bytes(1))).await;
    assert_eq!(tiny.verdict, Verdict::Fail(Fault::Local));
    let gone = ask(MemoryOf::Cgroup { path: Some("/no/such/group".into()) }, Amount::Bytes(Bytes(1))).await;
    assert_eq!(gone.verdict, Verdict::Unknown);
}

#[tokio::test]
async fn a_real_redis_is_asked_for_its_memory() {
    let mut server = Redis::start_with(&["--maxmemory", "64mb"]);
    let of = |server: &Redis| {
        MemoryOf::Redis(Box::new(RedisCheck {
            url: SecretSource::Template(Template::new(format!("redis://{}", server.address()))),
            username: None,
            password: None,
            key: None,
            key_equals: None,
            cluster: false,
            role: None,
            max_memory: None,
            tls: TlsClient::default(),
        }))
    };
    let pass = ask(of(&server), Amount::PercentOfLimit(90.0)).await;
    assert_eq!(pass.verdict, Verdict::Pass, "{}", pass.reason);
    assert!(pass.reason.contains(" of 64 MiB ("), "{}", pass.reason);
    let fail = ask(of(&server), Amount::Bytes(Bytes(1))).await;
    assert!(fail.reason.starts_with("used_memory is "), "{}", fail.reason);
    server.kill();
    let gone = ask(of(&server), Amount::Bytes(Bytes(1))).await;
    assert_eq!(gone.verdict, Verdict::Unknown);
    assert_eq!(gone.reason, format!("connection refused by {}", server.address()));
}
