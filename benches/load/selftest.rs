//! The bench's own instruments, tested: what `cargo test --bench load` runs. A generator that hides a stall, or a
//! reader that a cut in the wrong place confuses, would make every figure of the bench a lie.

use std::cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::net::TcpListener;

use crate::clock;
use crate::contenders::{Contender, ProbeTarget};
use crate::cpu::CpuTime;
use crate::drive::{Driven, Load, Pace, Underway};
use crate::machine::Machine;
use crate::markdown;
use crate::prober;
use crate::process::Process;
use crate::record::{Cell, Quantiles, Results, Run, median};
use crate::strain::accept_queue;
use crate::wire::{Body, Chunks, Line};
use crate::work::{ANSWER, Work};

/// How long the stalling server stalls, once.
const STALL: Duration = Duration::from_millis(300);

pub(crate) async fn run() -> io::Result<()> {
    chunks_are_read_wherever_the_network_cuts_them();
    the_median_of_an_even_count_is_between_its_middles();
    a_head_that_comes_in_pieces_is_read_whole().await?;
    an_open_loop_shows_a_stall_in_every_request_it_held_up().await?;
    an_open_loop_counts_what_was_never_answered().await?;
    a_probe_that_nobody_answers_is_missed_and_counts_as_its_whole_second().await?;
    connections_that_nobody_accepts_are_seen_waiting()?;
    the_kernels_count_agrees_with_the_work_that_was_done()?;
    results_survive_their_file();
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
    let served = Rc::new(cell::Cell::new(0));
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

/// A listener whose backlog takes connections in and nobody takes out.
fn deaf_server() -> io::Result<(std::net::TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Two connections at 50 a second, and not one answer: all 50 waited until the end, none is left out.
async fn an_open_loop_counts_what_was_never_answered() -> io::Result<()> {
    let (listener, to) = deaf_server()?;
    // A rate of nothing is no load, and no endless account of one either.
    let idle = drive(Work::Json, to, 2, Pace::Open { per_second: 0.0 }).await?;
    assert!(idle.unanswered <= 2, "{} requests at no rate at all", idle.unanswered);
    let driven = drive(Work::Json, to, 2, Pace::Open { per_second: 50.0 }).await?;
    assert_eq!((driven.completed, driven.failures), (0, 0));
    assert!((48..=52).contains(&driven.unanswered), "{} of 50 unanswered", driven.unanswered);
    assert_eq!(driven.latency.len(), driven.unanswered);
    let p50 = Duration::from_nanos(driven.latency.value_at_quantile(0.5));
    assert!(
        p50 > Duration::from_secs(1),
        "they waited longer than {p50:?}: a grace of a second comes after the window"
    );
    drop(listener);
    Ok(())
}

async fn a_probe_that_nobody_answers_is_missed_and_counts_as_its_whole_second() -> io::Result<()> {
    let (listener, address) = deaf_server()?;
    let (bare, ready) = Process::start_own("bare", Machine::look(false)?.cores.proxy)?;
    let target = |address| ProbeTarget { label: "one", address, path: "/health", headers: "" };
    let from = clock::now();
    let to = from + clock::nanos(Duration::from_millis(200));
    let prober = prober::start(vec![target(address), target(ready)], Machine::look(false)?.cores.prober, from, to)?;
    let answers = tokio::task::spawn_blocking(move || prober.join()).await.map_err(io::Error::other)?;
    let answers = answers.map_err(|_| io::Error::other("the prober panicked"))??;
    let [deaf, fine] = answers.as_slice() else { panic!("{} of two targets", answers.len()) };
    assert_eq!((deaf.sent, deaf.missed), (20, 20));
    assert!(deaf.latency.min() >= 999_000_000, "a miss hides in the quantiles as {} ns", deaf.latency.min());
    assert_eq!((fine.sent, fine.refused), (20, 0));
    assert!(fine.latency.min() < 999_000_000 && fine.missed < 20, "none of {} answered", fine.sent);
    drop((bare, listener));
    Ok(())
}

fn connections_that_nobody_accepts_are_seen_waiting() -> io::Result<()> {
    for any in ["127.0.0.1:0", "[::]:0"] {
        // A machine without IPv6 has nobody who listens there.
        let Ok(listener) = std::net::TcpListener::bind(any) else { continue };
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr()?.port()));
        let waiting: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(to)).collect::<io::Result<_>>()?;
        assert_eq!(accept_queue(to), waiting.len() as u64, "at {any}");
        let (one, _) = listener.accept()?;
        assert_eq!(accept_queue(to), waiting.len() as u64 - 1, "at {any}");
        drop(one);
    }
    Ok(())
}

/// Burns a known time on the CPU in two threads, one of which is gone when the count is taken.
fn the_kernels_count_agrees_with_the_work_that_was_done() -> io::Result<()> {
    let burn = |milliseconds: i64| {
        let spent = || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
        };
        let until = spent() + milliseconds;
        while spent() < until {
            std::hint::spin_loop();
        }
    };
    let look = || CpuTime::of(&[std::process::id()]);
    let before = look();
    burn(200);
    let here = look().since(&before);
    assert!((0.18..0.30).contains(&here), "200 ms were counted as {here} s");
    let before = look();
    std::thread::spawn(move || burn(200)).join().map_err(|_| io::Error::other("the burner panicked"))?;
    let ended = look().since(&before);
    assert!((0.15..0.30).contains(&ended), "200 ms of a thread that ended were counted as {ended} s");
    Ok(())
}

/// What `--markdown` reads is what a run has written.
fn results_survive_their_file() {
    let run = |cpu_us: f64, p99: f64| Run {
        cpu_us: Some(cpu_us),
        latency_ms: Quantiles { p99, ..Quantiles::default() },
        ..Run::default()
    };
    let cell = |contender, cpu_us, p99| Cell {
        contender,
        work: Work::Json,
        connections: 32,
        closed: run(cpu_us, p99),
        half: Some(run(cpu_us, p99)),
        // The second half of the work fell into a slow minute: everybody's.
        closed_runs: vec![run(cpu_us, p99), run(cpu_us * 2.0, p99)],
        half_runs: vec![run(cpu_us, p99), run(cpu_us, p99)],
    };
    let results = Results {
        machine: Machine::look(false).expect("two cores"),
        rounds: 3,
        seconds: 1.2,
        entrants: Vec::new(),
        reference: Some(Contender::Nginx),
        cells: vec![
            cell(Contender::Direct, 0.0, 1.0),
            cell(Contender::Probegate, 30.0, 1.5),
            cell(Contender::Nginx, 20.0, 3.0),
        ],
        probed: Vec::new(),
        held: Vec::new(),
        skipped: Vec::new(),
    };
    let file = serde_json::to_string(&results).expect("no key but text");
    let again: Results = serde_json::from_str(&file).expect("its own words");
    let text = markdown::render(&again);
    assert_eq!(text, markdown::render(&results));
    for row in [
        "| probegate | 30.0 (1.50) |",
        "| probegate | 0.50 |",
        "| CPU per request at 32 connections, nginx = 1 | 1.00 | 1.50 | no |",
        "| p99 added at half load and 32 connections, ms (nginx's) | 2.00 | 0.50 | yes |",
        "| RSS idle, MB | 8.00 |  | not measured |",
    ] {
        assert!(text.lines().any(|line| line == row), "no {row} in\n{text}");
    }
}

async fn every_work_comes_back_from_the_backend() -> io::Result<()> {
    let (backend, to) = Process::start_own("backend", Machine::look(false)?.cores.backend)?;
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
    let (bare, _) = Process::start_own("bare", Machine::look(false)?.cores.proxy)?;
    let pid = bare.pid();
    assert!(bare.rss_bytes() > 0 && bare.tree() == [pid]);
    drop(bare);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    Ok(())
}

async fn drive(work: Work, to: SocketAddr, connections: usize, pace: Pace) -> io::Result<Driven> {
    let load = Load { work, to, connections, pace, warm: Duration::from_millis(50), measure: Duration::from_secs(1) };
    let (underway, window) = Underway::start(load, Machine::look(false)?.cores.generator).await?;
    clock::sleep_until(window.to).await;
    underway.finish().await
}
