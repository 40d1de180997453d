use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::trial::Trial;
use super::*;
use crate::config::TlsClient;
use crate::engine::{Fault, Verdict};
use crate::net::peer::{Authority, DAY, unix_now};
use crate::secret::{SecretSource, Template};
use crate::testkit::postgres::Postgres;

fn at(url: &str, query: &str) -> PostgresCheck {
    let url = SecretSource::Template(Template::new(url));
    PostgresCheck { url, password: None, query: query.into(), tls: None }
}

async fn ask(spec: &PostgresCheck) -> Outcome {
    Trial::new().attempt(async |scene| attempt(spec, scene).await).await
}

async fn reason(spec: &PostgresCheck) -> String {
    let outcome = ask(spec).await;
    assert!(matches!(outcome.verdict, Verdict::Fail(_)), "{outcome:?}");
    outcome.reason
}

#[tokio::test]
async fn a_query_says_yes_or_why_not() {
    let server = Postgres::start_with(&["max_connections=6", "superuser_reserved_connections=1"]);
    let url = server.url();
    assert_eq!(ask(&at(&url, "SELECT 1")).await.verdict, Verdict::Pass);
    assert_eq!(ask(&at(&url, "SELECT count(*) < 3 FROM (VALUES (1)) v")).await.verdict, Verdict::Pass);
    assert_eq!(reason(&at(&url, "SELECT 1 WHERE false")).await, "query returned no row");
    assert_eq!(reason(&at(&url, "SELECT false")).await, "query returned false");
    assert_eq!(ask(&at(&url, "SELECT null")).await.reason, "query returned null");
    assert_eq!(reason(&at(&url, "SELECT * FROM features")).await, "relation \"features\" does not exist");
    assert_eq!(
        reason(&at(&url, "SELECT repeat('x', 3000000)")).await,
        format!("{} sends more than 1 MiB", server.address())
    );

    let by = |user: &str, password: &str, database: &str| {
        at(&format!("postgres://{user}:{password}@{}/{database}", server.address()), "SELECT 1")
    };
    let wrong = "password authentication failed for user \"model\"";
    assert_eq!(reason(&by("model", "hunter2", "postgres")).await, wrong);
    assert_eq!(reason(&by("model", "sesame", "x")).await, "database \"x\" does not exist");
    let none = at(&format!("postgres://model@{}/postgres", server.address()), "SELECT 1");
    assert_eq!(reason(&none).await, format!("{} wants a password, and none is configured", server.address()));
    let password = Some(SecretSource::Template(Template::new("sesame")));
    assert_eq!(ask(&PostgresCheck { password, ..none }).await.verdict, Verdict::Pass);

    let over_tls = at(&format!("{url}?sslmode=require"), "SELECT 1");
    assert_eq!(reason(&over_tls).await, format!("{} does not offer TLS", server.address()));

    let pairs = format!(
        "host=127.0.0.1 port={} user=model password=sesame dbname=postgres",
        server.address().replace("127.0.0.1:", "")
    );
    assert_eq!(ask(&at(&pairs, "SELECT 1")).await.verdict, Verdict::Pass);
    let port = server.address().replace("127.0.0.1:", "");
    let socket =
        format!("host={} port={port} user=model password=sesame dbname=postgres", server.socket_directory().display());
    assert_eq!(ask(&at(&socket, "SELECT 1")).await.verdict, Verdict::Pass);
    let plain = reason(&at(&format!("{url}?sslmode=require"), "SELECT 1")).await;
    assert!(plain.contains("TLS"), "{plain}");
}

#[tokio::test]
async fn a_full_server_says_so() {
    let server = Postgres::start_with(&["max_connections=3", "superuser_reserved_connections=0"]);
    let mut held = Vec::new();
    let config = Config::from_str(&server.url()).expect("a URL");
    for _ in 0..3 {
        let stream = tokio::net::TcpStream::connect(server.address()).await.expect("connected");
        held.push(config.connect_raw(stream, tokio_postgres::NoTls).await.expect("let in"));
    }
    let said = reason(&at(&server.url(), "SELECT 1")).await;
    assert_eq!(said, "too many connections: sorry, too many clients already");
}

#[tokio::test]
async fn a_slow_query_times_out_and_is_ended_on_the_server() {
    let server = Postgres::start();
    let spec = at(&server.url(), "SELECT pg_sleep(4713)");
    let trial = Trial::new();
    let outcome = trial.within(Duration::from_secs(3), async |scene| attempt(&spec, scene).await).await;
    assert_eq!(outcome.verdict, Verdict::Fail(Fault::Timeout));
    assert_eq!(
        outcome.reason,
        format!("timeout after 3s, waiting for the answer to the query from {}", server.address())
    );
    let others = "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE '%4713%' AND pid <> pg_backend_pid()";
    let mut last = None;
    for _ in 0..500 {
        last = Some(ask(&at(&server.url(), others)).await);
        if last.as_ref().is_some_and(|outcome| outcome.verdict == Verdict::Pass) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the query runs on: {last:?}");
}

#[tokio::test]
async fn a_paused_server_times_out_and_a_killed_one_refuses() {
    let mut server = Postgres::start();
    let spec = at(&server.url(), "SELECT 1");
    server.pause();
    let trial = Trial::new();
    let paused = trial.within(Duration::from_secs(3), async |scene| attempt(&spec, scene).await).await;
    assert_eq!(paused.reason, format!("timeout after 3s, waiting for {} to let model in", server.address()));
    server.resume();
    assert_eq!(ask(&spec).await.verdict, Verdict::Pass);
    server.kill();
    let gone = ask(&spec).await;
    assert_eq!(gone.verdict, Verdict::Fail(Fault::Refused));
    assert_eq!(gone.reason, format!("connection refused by {}", server.address()));
}

async fn said_to(answer: &'static [u8]) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer).await;
        }
    });
    let outcome = ask(&at(&format!("postgres://u:hunter2@{address}/d"), "SELECT 1")).await;
    server.abort();
    assert!(matches!(outcome.verdict, Verdict::Fail(_)), "{outcome:?}");
    (outcome.reason, address)
}

#[tokio::test]
async fn who_does_not_speak_postgresql_is_told_apart_from_who_says_nothing() {
    let (http, address) = said_to(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(http.contains(&address), "{http}");
    let (closed, address) = said_to(b"").await;
    assert_eq!(closed, format!("connection closed by {address} without an answer"));
    let (garbage, address) = said_to(b"?\0\0\0\x05x").await;
    assert_eq!(garbage, format!("{address} does not speak PostgreSQL"));
    let (starting, _) = said_to(b"E\0\0\0\x37SFATAL\0C57P03\0Mthe database system is starting up\0\0").await;
    assert_eq!(starting, "the database system is starting up");
}

#[tokio::test]
async fn a_wrong_url_is_not_repeated_in_the_message() {
    for wrong in [
        "",
        "hunter2",
        "postgres://hunter2:hunter2",
        "postgres://h:hunter2@/d?sslmode=hunter2",
        "user=u password=hunter2",
    ] {
        let said = reason(&at(wrong, "SELECT 1")).await;
        assert!(said.starts_with("url: ") && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn every_host_of_a_url_is_a_place() {
    let places = |text: &str| places(&Config::from_str(text).expect("a URL")).expect("places");
    let whom: Vec<String> = places("host=a,b port=1,2 user=u").into_iter().map(|place| place.whom).collect();
    assert_eq!(whom, ["a:1", "b:2"]);
    assert_eq!(
        places("host=db hostaddr=10.0.0.1 user=u")[0],
        Place { whom: "10.0.0.1:5432".into(), host: "db".into(), unix: false }
    );
    assert_eq!(places("host=/run/pg user=u")[0].whom, "/run/pg/.s.PGSQL.5432");
    assert_eq!(places("hostaddr=::1 user=u")[0].whom, "[::1]:5432");
}

#[tokio::test]
async fn tls_is_verified_when_it_is_asked_for() {
    let authority = Authority::new();
    let now = unix_now();
    let identity = authority.issue("localhost", now - DAY, now + DAY);
    let server = Postgres::start_tls(&identity.cert_pem, &identity.key_pem);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, &authority.pem).expect("a file");
    let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let url = server.url().replace("127.0.0.1", "localhost");
    let verified = TlsClient { ca_file: Some(ca_file), ..TlsClient::default() };
    for mode in ["require", "verify-full"] {
        let spec = at(&format!("{url}?sslmode={mode}"), query);
        let pass = ask(&PostgresCheck { tls: Some(verified.clone()), ..spec.clone() }).await;
        assert_eq!(pass.verdict, Verdict::Pass, "{}", pass.reason);
        let stranger = reason(&spec).await;
        assert!(stranger.starts_with("unknown issuer of the certificate of localhost:"), "{stranger}");
    }
    assert_eq!(reason(&at(&url, query)).await, "query returned false");
    let by_table = ask(&PostgresCheck { tls: Some(verified), ..at(&url, query) }).await;
    assert_eq!(by_table.verdict, Verdict::Pass, "{}", by_table.reason);
}
