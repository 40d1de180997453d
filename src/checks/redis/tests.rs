use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::trial::Trial;
use super::*;
use crate::config::{Bytes, TlsClient};
use crate::engine::{Fault, Verdict};
use crate::net::peer::{Authority, DAY, unix_now};
use crate::secret::{SecretSource, Template};
use crate::testkit::redis::Redis;

fn at(url: &str) -> RedisCheck {
    RedisCheck {
        url: SecretSource::Template(Template::new(url)),
        username: None,
        password: None,
        key: None,
        key_equals: None,
        cluster: false,
        role: None,
        max_memory: None,
        tls: TlsClient::default(),
    }
}

fn of(redis: &Redis) -> RedisCheck {
    at(&format!("redis://{}", redis.address()))
}

fn with_key(redis: &Redis, key: &str, equals: Option<&str>) -> RedisCheck {
    RedisCheck { key: Some(key.into()), key_equals: equals.map(str::to_owned), ..of(redis) }
}

async fn ask(spec: &RedisCheck) -> Outcome {
    Trial::new().attempt(async |scene| attempt(spec, scene).await).await
}

async fn reason(spec: &RedisCheck) -> String {
    let outcome = ask(spec).await;
    assert!(matches!(outcome.verdict, Verdict::Fail(_)), "{outcome:?}");
    outcome.reason
}

#[tokio::test]
async fn it_answers_pings_and_shows_what_is_in_it() {
    let redis = Redis::start();
    assert_eq!(ask(&of(&redis)).await.verdict, Verdict::Pass);
    let key = "embeddings:version";
    assert_eq!(reason(&with_key(&redis, key, None)).await, "key embeddings:version does not exist");
    redis.ask(&[&["SET", key, "3"]]);
    assert_eq!(ask(&with_key(&redis, key, Some("3"))).await.verdict, Verdict::Pass);
    let wrong = reason(&with_key(&redis, key, Some("4"))).await;
    assert_eq!(wrong, "key embeddings:version is \"3\", expected \"4\"");

    redis.ask(&[&["SET", key, &"4".repeat(10_000)]]);
    let long = reason(&with_key(&redis, key, Some("4"))).await;
    assert_eq!(long, format!("key embeddings:version is \"{}\"..., expected \"4\"", "4".repeat(VALUE_SHOWN)));
    redis.ask(&[&["DEL", key], &["LPUSH", key, "x"]]);
    assert!(reason(&with_key(&redis, key, Some("4"))).await.starts_with("WRONGTYPE "));

    redis.ask(&[&["SELECT", "5"], &["SET", "only-in-5", ""]]);
    let in_5 = RedisCheck { key: Some("only-in-5".into()), ..at(&format!("redis://{}/5", redis.address())) };
    assert_eq!(ask(&in_5).await.verdict, Verdict::Pass);
    let out_of_range = at(&format!("redis://{}/99", redis.address()));
    assert_eq!(reason(&out_of_range).await, "DB index is out of range");
}

#[tokio::test]
async fn a_password_is_needed_wrong_right_or_too_much_and_never_shown() {
    let redis = Redis::start_with(&["--requirepass", "hunter2!"]);
    let address = redis.address();
    assert_eq!(reason(&of(&redis)).await, "AUTH needed");
    assert_eq!(reason(&at(&format!("redis://:hunter3@{address}"))).await, "wrong password for user default");
    assert_eq!(ask(&at(&format!("redis://:hunter2%21@{address}"))).await.verdict, Verdict::Pass);

    redis.ask(&[&["AUTH", "hunter2!"], &["ACL", "SETUSER", "model", "on", ">sesame", "+get"]]);
    let model = |password: &str| RedisCheck {
        username: Some("model".into()),
        password: Some(SecretSource::Template(Template::new(password))),
        ..of(&redis)
    };
    assert_eq!(reason(&model("wrong")).await, "wrong password for user model");
    let denied = reason(&model("sesame")).await;
    assert!(denied.starts_with("NOPERM ") && denied.contains("ping"), "{denied}");

    let open = Redis::start();
    let too_much = reason(&at(&format!("redis://:hunter2@{}", open.address()))).await;
    assert_eq!(too_much, "a password is configured, and the server has none");
}

#[tokio::test]
async fn a_paused_redis_times_out_and_says_what_it_waited_for() {
    let redis = Redis::start();
    let spec = of(&redis);
    redis.pause();
    let trial = Trial::new();
    let outcome = trial.within(Duration::from_secs(3), async |scene| attempt(&spec, scene).await).await;
    assert_eq!(outcome.verdict, Verdict::Fail(Fault::Timeout));
    assert_eq!(outcome.reason, format!("timeout after 3s, waiting for PONG from {}", redis.address()));
    redis.resume();
    assert_eq!(ask(&spec).await.verdict, Verdict::Pass);
    // The connection of the timeout is closed: only the one that asks is left.
    let clients = redis.ask(&[&["CLIENT", "LIST"]]);
    assert_eq!(clients.lines().filter(|line| line.contains("addr=")).count(), 1, "{clients}");
}

#[tokio::test]
async fn a_killed_redis_refuses_and_a_restarted_one_answers() {
    let mut redis = Redis::start();
    let spec = of(&redis);
    redis.kill();
    let gone = ask(&spec).await;
    assert_eq!(gone.verdict, Verdict::Fail(Fault::Refused));
    assert_eq!(gone.reason, format!("connection refused by {}", redis.address()));
    redis.restart();
    assert_eq!(ask(&spec).await.verdict, Verdict::Pass);
}

#[tokio::test]
async fn roles_memory_and_clusters_are_told_apart() {
    let master = Redis::start();
    let port = master.address().rsplit_once(':').expect("a port").1.to_owned();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]);
    let role = |redis: &Redis, role| RedisCheck { role: Some(role), ..of(redis) };
    assert_eq!(ask(&role(&master, RedisRole::Master)).await.verdict, Verdict::Pass);
    assert_eq!(reason(&role(&master, RedisRole::Replica)).await, "it is a master, expected a replica");
    let as_master = reason(&role(&replica, RedisRole::Master)).await;
    assert_eq!(as_master, "it is a replica (READONLY), expected a master");
    drop(master);
    let orphan = reason(&role(&replica, RedisRole::Replica)).await;
    assert!(orphan.starts_with("the link to the master 127.0.0.1 is \"connect"), "{orphan}");

    let small = Redis::start_with(&["--maxmemory", "100mb"]);
    let limited = |max| RedisCheck { max_memory: Some(Bytes(max)), ..of(&small) };
    assert_eq!(ask(&limited(100 << 20)).await.verdict, Verdict::Pass);
    let full = reason(&limited(1024)).await;
    assert!(full.starts_with("used_memory is ") && full.ends_with(", expected at most 1 KiB"), "{full}");
    let spec = of(&small);
    let outcome = Trial::new()
        .attempt(async |scene| match memory(&spec, scene).await {
            Ok(memory) => Outcome::pass(scene.elapsed()).remark(format!("{:?}", memory.max)),
            Err(failure) => Outcome::fail(failure.fault, failure.reason, scene.elapsed()),
        })
        .await;
    assert_eq!(outcome.reason, "Some(104857600)");
    let plain = RedisCheck { cluster: true, ..of(&small) };
    assert_eq!(reason(&plain).await, "This instance has cluster support disabled");
}

#[tokio::test]
async fn a_cluster_without_its_slots_is_not_ok() {
    let node = Redis::start_with(&["--cluster-enabled", "yes"]);
    let spec = RedisCheck { cluster: true, ..of(&node) };
    assert_eq!(reason(&spec).await, "cluster_state:fail");
    let keyed = RedisCheck { key: Some("x".into()), ..of(&node) };
    assert_eq!(reason(&keyed).await, "CLUSTERDOWN Hash slot not served");
}

#[tokio::test]
async fn a_server_that_saves_no_more_says_misconf() {
    let redis = Redis::start_with(&["--save", "3600 1", "--enable-protected-configs", "yes"]);
    // The directory for the snapshot is taken away from under it.
    redis.ask(&[&["CONFIG", "SET", "dir", "/proc"], &["SET", "a", "b"], &["BGSAVE"]]);
    let mut said = String::new();
    for _ in 0..500 {
        let outcome = ask(&of(&redis)).await;
        said = outcome.reason;
        if outcome.verdict != Verdict::Pass {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(said.starts_with("MISCONF "), "{said}");
}

/// A server that says `answer` whatever it is asked, then `closes` or keeps silent.
async fn fake(answer: &'static [u8], closes: bool) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer).await;
            if !closes {
                let _ = stream.read(&mut request).await;
            }
        }
    });
    (address, server)
}

async fn said_to(answer: &'static [u8], closes: bool) -> (String, String) {
    let (address, server) = fake(answer, closes).await;
    let spec = at(&format!("redis://{address}"));
    let trial = Trial::new();
    let outcome = trial.within(Duration::from_millis(300), async |scene| attempt(&spec, scene).await).await;
    server.abort();
    assert!(matches!(outcome.verdict, Verdict::Fail(_)), "{outcome:?}");
    (outcome.reason, address)
}

#[tokio::test]
async fn who_does_not_speak_redis_is_told_apart_from_who_says_nothing() {
    let (http, address) = said_to(b"HTTP/1.1 400 Bad Request\r\n\r\n", true).await;
    assert_eq!(http, format!("{address} does not speak Redis"));
    let (closed, address) = said_to(b"", true).await;
    assert_eq!(closed, format!("connection closed by {address} without an answer"));
    let (torn, address) = said_to(b"+PO", true).await;
    assert!(torn.contains(&address), "{torn}");
    let (other, address) = said_to(b"+PANG\r\n", false).await;
    assert_eq!(other, format!("{address} did not answer PONG to PING"));
    let (other, _) = said_to(b":5\r\n", false).await;
    assert!(other.ends_with("did not answer PONG to PING"));
    let (silent, address) = said_to(b"", false).await;
    assert_eq!(silent, format!("timeout after 300ms, waiting for PONG from {address}"));
    let (loading, _) = said_to(b"-LOADING Redis is loading the dataset in memory\r\n", false).await;
    assert_eq!(loading, "loading the dataset (LOADING)");
    let (escape, _) = said_to(b"-ODD \x1b[31m\r\n", false).await;
    assert_eq!(escape, "ODD  [31m");
}

#[tokio::test]
async fn lengths_that_nobody_can_keep_cost_nothing() {
    for answer in [b"$536870911\r\nx".as_slice(), b"*2147483647\r\n", b"*9223372036854775807\r\n:1\r\n"] {
        said_to(answer, false).await;
    }
    static FLOOD: [u8; 3 << 20] = [b'x'; 3 << 20];
    static LONG: std::sync::LazyLock<Vec<u8>> =
        std::sync::LazyLock::new(|| [b"$9000000\r\n".as_slice(), &FLOOD].concat());
    let (flood, address) = said_to(&LONG, false).await;
    assert_eq!(flood, format!("{address} sends more than 1 MiB"));
}

#[tokio::test]
async fn rediss_is_verified_tls() {
    let authority = Authority::new();
    let now = unix_now();
    let identity = authority.issue("localhost", now - DAY, now + DAY);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let (cert, key) = (file("cert.pem", &identity.cert_pem), file("key.pem", &identity.key_pem));
    let ca = file("ca.pem", &authority.pem);
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        free.local_addr().expect("its address").port().to_string()
    };
    let _redis = Redis::start_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ]);
    let stranger = at(&format!("rediss://localhost:{port}"));
    assert_eq!(reason(&stranger).await, format!("unknown issuer of the certificate of localhost:{port}"));
    let tls = TlsClient { ca_file: Some(ca.into()), ..TlsClient::default() };
    let pass = ask(&RedisCheck { tls, ..stranger.clone() }).await;
    assert_eq!(pass.verdict, Verdict::Pass, "{}", pass.reason);
    let plain = reason(&at(&format!("redis://localhost:{port}"))).await;
    assert!(plain.contains(&format!("localhost:{port}")), "{plain}");
}
