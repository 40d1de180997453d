//! The generator: so many connections on one pinned thread, closed-loop (the next request when the last is
//! answered) or open-loop (at a fixed rate, come what may).
//!
//! Open-loop latency counts from the moment a request was *meant* to go out, so that a stall shows in every request
//! it held up and not only in the one it met: no coordinated omission. What was due and never sent or never
//! answered is in the histogram too, with the time it had waited by the end.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};

use crate::clock::{self, Ticker, nanos};
use crate::exchange::{self, Exchange, Stream};
use crate::machine::{self, Core};
use crate::work::Work;

/// After the window, answers may take so long before they count as not come.
const GRACE: Duration = Duration::from_secs(1);
/// Between the last connect and the first request.
const LEAD: Duration = Duration::from_millis(20);
/// Between two requests of one connection, at most: a rate of nothing must not overflow the clock.
const STEP_MAX_NS: f64 = 600e9;
/// After a failure: no spinning on a port that refuses.
const BACKOFF: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    Closed,
    /// Over all connections, each with an equal share.
    Open {
        per_second: f64,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) work: Work,
    pub(crate) to: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
    pub(crate) warm: Duration,
    pub(crate) measure: Duration,
}

/// When counting begins and ends, on the machine's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Window {
    fn holds(self, at: u64) -> bool {
        (self.from..self.to).contains(&at)
    }
}

/// What a load came to.
pub(crate) struct Driven {
    /// Nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// Answered within the window; of tokens, sent within it.
    pub(crate) completed: u64,
    pub(crate) failures: u64,
    pub(crate) first_failure: Option<String>,
    /// Due within the window and not answered a second after it.
    pub(crate) unanswered: u64,
}

/// A load under way on its own thread.
pub(crate) struct Underway {
    thread: std::thread::JoinHandle<io::Result<Driven>>,
}

impl Underway {
    /// Starts the thread and connects. The window is known once all connections stand.
    pub(crate) async fn start(load: Load, core: Core) -> io::Result<(Self, Window)> {
        let (tell, told) = oneshot::channel();
        let thread = std::thread::Builder::new().name("generator".into()).spawn(move || {
            machine::pin(core)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, drive(load, tell))
        })?;
        match told.await {
            Ok(window) => Ok((Self { thread }, window)),
            Err(_) => Err(joined(thread).err().unwrap_or_else(|| io::Error::other("the generator ended early"))),
        }
    }

    /// Waits for the end, which is at most a second after the window's.
    pub(crate) async fn finish(self) -> io::Result<Driven> {
        tokio::task::spawn_blocking(move || joined(self.thread)).await.map_err(io::Error::other)?
    }
}

fn joined(thread: std::thread::JoinHandle<io::Result<Driven>>) -> io::Result<Driven> {
    thread.join().map_err(|_| io::Error::other("the generator panicked"))?
}

/// What the connections of one load share.
struct Shared {
    load: Load,
    ticker: Ticker,
    request: Rc<[u8]>,
    window: Cell<Window>,
    latency: RefCell<Histogram<u64>>,
    completed: Cell<u64>,
    failures: Cell<u64>,
    first_failure: RefCell<Option<String>>,
}

impl Shared {
    fn record(&self, began: u64, ended: u64) {
        let window = self.window.get();
        if window.holds(ended) {
            self.completed.set(self.completed.get() + 1);
        }
        // Closed-loop: whatever ended within. Open-loop: whatever was due within, whenever it ended.
        let counts = match self.load.pace {
            Pace::Closed => window.holds(ended),
            Pace::Open { .. } => window.holds(began),
        };
        if counts {
            self.latency.borrow_mut().saturating_record(ended.saturating_sub(began));
        }
    }

    /// Counts a token that was sent within the window, however late it comes. Whether it was sent after the window.
    fn token(&self, sent: u64) -> bool {
        let window = self.window.get();
        if window.holds(sent) {
            self.completed.set(self.completed.get() + 1);
            self.latency.borrow_mut().saturating_record(clock::now().saturating_sub(sent));
        }
        sent >= window.to
    }

    fn failed(&self, error: &io::Error) {
        if self.window.get().holds(clock::now()) {
            self.failures.set(self.failures.get() + 1);
        }
        self.first_failure.borrow_mut().get_or_insert_with(|| error.to_string());
    }
}

async fn drive(load: Load, tell: oneshot::Sender<Window>) -> io::Result<Driven> {
    // 1 us to 2 min, three digits: 250 kB, and nothing that matters is outside.
    let latency = Histogram::new_with_bounds(1_000, 120_000_000_000, 3).map_err(io::Error::other)?;
    let shared = Rc::new(Shared {
        load,
        ticker: Ticker::start()?,
        request: exchange::request(load.work),
        window: Cell::new(Window { from: u64::MAX, to: u64::MAX }),
        latency: RefCell::new(latency),
        completed: Cell::default(),
        failures: Cell::default(),
        first_failure: RefCell::default(),
    });
    let mut tasks = JoinSet::new();
    // What each connection of an open loop owes next; for the account at the end.
    let owed: Vec<Rc<Cell<u64>>> = (0..load.connections).map(|_| Rc::new(Cell::new(u64::MAX))).collect();
    if load.work == Work::Tokens {
        open_streams(&shared, &mut tasks).await?;
    } else {
        open_exchanges(&shared, &owed, &mut tasks).await?;
    }
    let window = shared.window.get();
    let _ = tell.send(window);
    clock::sleep_until(window.to).await;
    // In an overload whoever has not finished by now never does: aborted with the set.
    let _ = tokio::time::timeout(GRACE, async { while tasks.join_next().await.is_some() {} }).await;
    drop(tasks);
    let unanswered = account(&shared, &owed);
    Ok(Driven {
        latency: shared.latency.borrow().clone(),
        completed: shared.completed.get(),
        failures: shared.failures.get(),
        first_failure: shared.first_failure.borrow_mut().take(),
        unanswered,
    })
}

/// The window begins after the warm-up, which begins when all connections stand.
fn set_window(shared: &Shared) -> u64 {
    let start = clock::now() + nanos(LEAD);
    let from = start + nanos(shared.load.warm);
    shared.window.set(Window { from, to: from + nanos(shared.load.measure) });
    start
}

async fn open_exchanges(shared: &Rc<Shared>, owed: &[Rc<Cell<u64>>], tasks: &mut JoinSet<()>) -> io::Result<()> {
    let load = shared.load;
    let mut opened = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        opened.push(Exchange::open(load.work, load.to, &shared.request).await?);
    }
    let start = set_window(shared);
    for (at, (exchange, owed)) in opened.into_iter().zip(owed).enumerate() {
        let shared = Rc::clone(shared);
        let owed = Rc::clone(owed);
        tasks.spawn_local(async move {
            match load.pace {
                Pace::Closed => closed(&shared, exchange).await,
                Pace::Open { .. } => {
                    let step = step(&load);
                    // Spread over one step, so that the connections take turns.
                    owed.set(start + step * at as u64 / load.connections as u64);
                    open(&shared, exchange, &owed, step).await;
                }
            }
        });
    }
    Ok(())
}

/// Between two requests of one connection.
fn step(load: &Load) -> u64 {
    match load.pace {
        Pace::Closed => u64::MAX,
        Pace::Open { per_second } => (load.connections as f64 / per_second * 1e9).clamp(1.0, STEP_MAX_NS) as u64,
    }
}

async fn closed(shared: &Shared, mut exchange: Exchange) {
    let end = shared.window.get().to;
    let mut began = clock::now();
    while began < end {
        if let Err(error) = exchange.once().await {
            shared.failed(&error);
            let Some(again) = reopen(shared).await else { return };
            exchange = again;
            began = clock::now();
            continue;
        }
        let ended = clock::now();
        shared.record(began, ended);
        began = ended;
    }
}

async fn open(shared: &Shared, mut exchange: Exchange, owed: &Cell<u64>, step: u64) {
    let end = shared.window.get().to;
    // Past the end too, while something is owed: the set is dropped when its grace is over.
    while owed.get() < end {
        let due = owed.get();
        shared.ticker.until(due).await;
        match exchange.once().await {
            Ok(()) => shared.record(due, clock::now()),
            Err(error) => {
                shared.failed(&error);
                let Some(again) = reopen(shared).await else { return };
                exchange = again;
            }
        }
        owed.set(due + step);
    }
}

/// A connection in place of one that failed, or none by the end.
async fn reopen(shared: &Shared) -> Option<Exchange> {
    let load = &shared.load;
    while clock::now() < shared.window.get().to {
        tokio::time::sleep(BACKOFF).await;
        match Exchange::open(load.work, load.to, &shared.request).await {
            Ok(exchange) => return Some(exchange),
            Err(error) => shared.failed(&error),
        }
    }
    None
}

/// Open-loop requests that were due and are not answered wait at least until now.
fn account(shared: &Shared, owed: &[Rc<Cell<u64>>]) -> u64 {
    let Pace::Open { .. } = shared.load.pace else { return 0 };
    if shared.load.work == Work::Tokens {
        return 0;
    }
    let window = shared.window.get();
    let step = step(&shared.load);
    let now = clock::now();
    let mut latency = shared.latency.borrow_mut();
    let mut unanswered = 0;
    for owed in owed {
        let mut due = owed.get();
        while due < window.to {
            if window.holds(due) {
                latency.saturating_record(now - due);
                unanswered += 1;
            }
            due += step;
        }
    }
    unanswered
}

async fn open_streams(shared: &Rc<Shared>, tasks: &mut JoinSet<()>) -> io::Result<()> {
    let mut opened = Vec::with_capacity(shared.load.connections);
    for _ in 0..shared.load.connections {
        opened.push(Stream::open(shared.load.to, "/tokens").await?);
    }
    set_window(shared);
    for mut stream in opened {
        let shared = Rc::clone(shared);
        tasks.spawn_local(async move {
            let mut over = false;
            // Until a token that was sent after the window: then all that were sent within have come.
            while !over {
                if let Err(error) = stream.next(|sent| over |= shared.token(sent)).await {
                    shared.failed(&error);
                    return;
                }
            }
        });
    }
    Ok(())
}
