//! One scrape at a time, whoever asks, however it ends.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::net::peer::{self, Then, raw, respond};

const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(100);

fn scraper(address: &str) -> Arc<Scraper> {
    let uri = format!("http://{address}/metrics").parse().unwrap();
    Arc::new(Scraper::new(MetricsPage { uri }, Clock::start()))
}

#[tokio::test]
async fn many_callers_share_one_scrape_and_a_fresh_page_costs_none() {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let address = peer::http(move |_| respond(200, format!("n {}", seen.fetch_add(1, Ordering::SeqCst)))).await;
    let scraper = scraper(&address);
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let scraper = Arc::clone(&scraper);
            tokio::spawn(async move { scraper.page(Duration::ZERO, LONG).await.unwrap().body.clone() })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), "n 0");
    }
    assert_eq!(scraper.page(LONG, LONG).await.unwrap().body, "n 0");
    assert_eq!(scraper.page(Duration::ZERO, LONG).await.unwrap().body, "n 1");
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_caller_that_leaves_closes_its_scrape_and_does_not_wedge_the_next() {
    let mut peer = raw("", Then::Hold).await;
    let scraper = scraper(&peer.address);
    let reason = scraper.page(Duration::ZERO, SHORT).await.unwrap_err();
    assert_eq!(reason, format!("no metrics page from {} within 100ms", peer.address));
    peer.left().await;
    assert!(tokio::time::timeout(SHORT, scraper.page(Duration::ZERO, LONG)).await.is_err());
    peer.left().await;
    assert_eq!(peer.accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn callers_on_other_runtimes_wait_for_the_same_scrape() {
    let peer = raw("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\na 1", Then::Close).await;
    let scraper = scraper(&peer.address);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let scraper = Arc::clone(&scraper);
            tokio::task::spawn_blocking(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(scraper.page(LONG, LONG)).unwrap().body.clone()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.await.unwrap(), "a 1");
    }
    assert_eq!(peer.accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_page_that_cannot_be_had_says_why() {
    let refused = format!("127.0.0.1:{}", peer::closed_port().await);
    let reason = scraper(&refused).page(Duration::ZERO, LONG).await.unwrap_err();
    assert_eq!(reason, format!("no metrics page from {refused}: connection refused by {refused}"));

    let address = peer::http(|_| respond(503, "not now")).await;
    let reason = scraper(&address).page(Duration::ZERO, LONG).await.unwrap_err();
    assert!(reason.ends_with("it answered 503 Service Unavailable"), "{reason}");

    let huge = peer::http(|_| respond(200, vec![b'#'; MERGE_BYTES_MAX + 1])).await;
    let reason = scraper(&huge).page(Duration::ZERO, LONG).await.unwrap_err();
    assert!(reason.ends_with("is larger than 10485760 bytes"), "{reason}");

    let zipped = peer::http(|_| {
        let mut response = respond(200, "\x1f\u{8b}");
        response.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        response
    });
    let reason = scraper(&zipped.await).page(Duration::ZERO, LONG).await.unwrap_err();
    assert!(reason.ends_with("it is compressed, which was not asked for"), "{reason}");
}

#[tokio::test]
async fn a_redirect_on_the_same_server_is_followed_and_one_away_is_not() {
    let address = peer::http(|request| {
        let to = match request.uri().path() {
            "/metrics" => "/metrics/",
            "/metrics/" => return respond(200, "here 1"),
            _ => "http://192.0.2.1/metrics",
        };
        let mut response = respond(307, "");
        response.headers_mut().insert(LOCATION, to.parse().unwrap());
        response
    })
    .await;
    assert_eq!(scraper(&address).page(Duration::ZERO, LONG).await.unwrap().body, "here 1");
    let uri = format!("http://{address}/away").parse().unwrap();
    let away = Scraper::new(MetricsPage { uri }, Clock::start());
    let reason = away.page(Duration::ZERO, LONG).await.unwrap_err();
    assert!(reason.ends_with("it answered 307 Temporary Redirect"), "{reason}");
}
