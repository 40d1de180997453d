//! The bench's own instruments, tested: what `cargo test --bench load` runs. A generator that hides a stall, or a
//! reader that a cut in the wrong place confuses, would make every figure of the bench a lie.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::clock;
use crate::drive::{Driven, Load, Pace, Underway};
use crate::machine::Machine;
use crate::process::Process;
use crate::record::median;
use crate::wire::{Body, Chunks, Line};
use crate::work::{ANSWER, Work};

/// How long the stalling server stalls, once.
const STALL: Duration = Duration::from_millis(300);

pub(crate) async fn run() -> io::Result<()> {
    chunks_are_read_wherever_the_network_cuts_them();
    the_median_of_an_even_count_is_between_its_middles();
    a_head_that_comes_in_pieces_is_read_whole().await?;
    an_open_loop_shows_a_stall_in_every_request_it_held_up().await?;
    every_work_comes_back_from_the_backend().await?;
    a_process_ends_with_its_owner()?;
    println!("the load bench's instruments are sound; `cargo bench --bench load` measures");
    Ok(())
}

fn chunks_are_read_wherever_the_network_cuts_them() {
    let wire = b"5\r\nhello\r\nA\r\n0123456789\r\n0\r\nname: value\r\n\r\nnext";
    for cut in 0..wire.len() {
        let (mut chunks, mut body) = (Chunks::default(), Vec::new());
        let mut used = chunks.feed(&wire[..cut], |piece| body.extend_from_slice(piece)).expect("whole chunks");
        used += chunks.feed(&wire[used..], |piece| body.extend_from_slice(piece)).expect("whole chunks");
        assert_eq!((body.as_slice(), &wire[used..]), (&b"hello0123456789"[..], &b"next"[..]), "cut at {cut}");
    }
    assert!(Chunks::default().feed(b"xyz", |_| ()).is_err(), "no hexadecimal size");
}

fn the_median_of_an_even_count_is_between_its_middles() {
    assert_eq!(median([4.0, 1.0, 3.0, 2.0]), 2.5);
    assert_eq!(median([9.0, 1.0, 5.0]), 5.0);
}

async fn a_head_that_comes_in_pieces_is_read_whole() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let to = listener.local_addr()?;
    let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    let sender = tokio::task::spawn_local(async move {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut line = Line::new(stream);
        for byte in wire {
            line.send(&[*byte]).await?;
            tokio::task::yield_now().await;
        }
        Ok::<_, io::Error>(())
    });
    let mut line = Line::new(crate::exchange::connect(to).await?);
    let head = line.head().await?.expect("a head");
    assert_eq!((head.word.as_str(), head.body, head.close), ("200", Body::Length(5), true));
    assert_eq!(line.skip_body(head.body).await?, 5);
    sender.await.map_err(io::Error::other)?
}

/// A server that answers at once, but stops for [`STALL`] at its 50th request.
async fn stalling_server() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let served = Rc::new(Cell::new(0));
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let served = Rc::clone(&served);
            tokio::task::spawn_local(async move {
                let mut line = Line::new(stream);
                let answer = [b"HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\n".as_slice(), ANSWER].concat();
                while let Ok(Some(head)) = line.head().await {
                    served.set(served.get() + 1);
                    if served.get() == 50 {
                        tokio::time::sleep(STALL).await;
                    }
                    if line.skip_body(head.body).await.is_err() || line.send(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}

/// One connection at 200 a second: a stall of 300 ms holds up 60 of the 200 requests of a second. A generator that
/// waits for the answer before it counts would show one slow request and a p90 as if nothing had been.
async fn an_open_loop_shows_a_stall_in_every_request_it_held_up() -> io::Result<()> {
    let driven = drive(Work::Json, stalling_server().await?, 1, Pace::Open { per_second: 200.0 }).await?;
    let p90 = Duration::from_nanos(driven.latency.value_at_quantile(0.9));
    assert!(p90 > STALL / 2, "p90 is {p90:?}: the stall is hidden");
    assert_eq!((driven.failures, driven.unanswered), (0, 0));
    assert!((195..=205).contains(&driven.latency.len()), "{} of 200 requests counted", driven.latency.len());
    let closed = drive(Work::Json, stalling_server().await?, 1, Pace::Closed).await?;
    let p90 = Duration::from_nanos(closed.latency.value_at_quantile(0.9));
    assert!(p90 < STALL / 2, "a closed loop meets the stall once, yet its p90 is {p90:?}");
    Ok(())
}

async fn every_work_comes_back_from_the_backend() -> io::Result<()> {
    let (backend, to) = Process::start_own("backend", Machine::look()?.cores.backend)?;
    for work in [Work::Json, Work::Tensor, Work::Grpc, Work::Websocket, Work::Tokens] {
        let driven = drive(work, to, 4, Pace::Closed).await?;
        assert!(driven.completed > 0, "{work}: nothing came back");
        assert_eq!((driven.failures, driven.first_failure), (0, None), "{work}");
    }
    drop(backend);
    assert!(crate::exchange::connect(to).await.is_err(), "the backend outlives its owner");
    Ok(())
}

fn a_process_ends_with_its_owner() -> io::Result<()> {
    let (bare, _) = Process::start_own("bare", Machine::look()?.cores.proxy)?;
    let pid = bare.pid();
    assert!(bare.rss_bytes() > 0 && bare.tree() == [pid]);
    drop(bare);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    Ok(())
}

async fn drive(work: Work, to: SocketAddr, connections: usize, pace: Pace) -> io::Result<Driven> {
    let load = Load { work, to, connections, pace, warm: Duration::from_millis(50), measure: Duration::from_secs(1) };
    let (underway, window) = Underway::start(load, Machine::look()?.cores.generator).await?;
    clock::sleep_until(window.to).await;
    underway.finish().await
}
