//! A small, real model server, to be proxied, probed and broken.
//!
//! It reads handwritten digits with trained weights, so that an answer can be right or wrong, and measures
//! its own accuracy on labelled digits. It speaks `/predict`, Open Inference Protocol v2 and token streaming,
//! and crashes, hangs and degrades when told to. One thread, plain HTTP/1.1, meant for loopback: its controls
//! ask nobody's leave.

mod classifier;
mod digits;
mod metrics;
mod native;
mod oip;
mod options;
mod reply;
mod routes;
mod server;
mod stream;

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rustix::process::{Pid, Signal};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

pub use options::{LoadMode, Options, Release};
use server::Server;

/// An idle client connection is kept so long: the sidecar's own side gives up after 3 s.
const IDLE: Duration = Duration::from_secs(75);

/// How the server ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// `POST /crash`.
    Crashed,
    /// It was asked to stop, and requests in flight ended or ran out of grace.
    Stopped,
}

/// Runs the server until SIGTERM, SIGINT or a crash: the whole life of the process.
pub fn run(options: Options) -> ExitCode {
    match start(options) {
        Ok(Ending::Stopped) => ExitCode::SUCCESS,
        Ok(Ending::Crashed) => ExitCode::from(1),
        Err(error) => {
            eprintln!("model server: {error}");
            ExitCode::from(1)
        }
    }
}

fn start(options: Options) -> Result<Ending, String> {
    if let Some(parent) = options.die_with_parent {
        die_with(parent)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        let stop = async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        // Whoever started it need not read on: a closed pipe is no reason to end.
        let listening = |address| drop(writeln!(io::stdout(), "model server: listening on {address}"));
        serve(options, stop, listening).await
    })
}

/// Asks the kernel to end this process with its parent, so that a killed demo leaves no orphan.
fn die_with(parent: i32) -> Result<(), String> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).map_err(|error| error.to_string())?;
    // The parent may have died before the line above; then nobody would ever tell us.
    if rustix::process::getppid() != Pid::from_raw(parent) {
        return Err("its parent has gone".to_owned());
    }
    Ok(())
}

/// Loads the model and serves it until `stop` is done or someone posts `/crash`. `listening` is told the
/// address once the port answers: after the load, or before it in [`LoadMode::Unavailable`].
///
/// Must run where local tasks can be spawned: a `LocalRuntime` or a `LocalSet`.
pub async fn serve(
    options: Options,
    stop: impl Future<Output = ()>,
    listening: impl FnOnce(SocketAddr),
) -> Result<Ending, String> {
    tokio::pin!(stop);
    let (address, mode) = (options.listen, options.load_mode);
    let server = Rc::new(Server::new(options));
    if mode == LoadMode::Refused {
        tokio::select! {
            loaded = server.load() => loaded?,
            () = &mut stop => return Ok(Ending::Stopped),
        }
    }
    let listener = TcpListener::bind(address).await.map_err(|error| format!("{address}: {error}"))?;
    listening(listener.local_addr().map_err(|error| error.to_string())?);

    let connections = GracefulShutdown::new();
    let ending = tokio::select! {
        () = stop => Ending::Stopped,
        () = server.crash.notified() => return Ok(Ending::Crashed),
        never = accept(&listener, &server, &connections) => match never {},
        error = background(&server, mode) => return Err(error),
    };
    drop(listener);
    // Whoever is not done within the grace is cut off, as SIGKILL would.
    let _ = tokio::time::timeout(server.options.grace, connections.shutdown()).await;
    Ok(ending)
}

/// Loads, where that was not done before listening, and measures from then on. Ends only with a load error.
async fn background(server: &Server, mode: LoadMode) -> String {
    if mode == LoadMode::Unavailable
        && let Err(error) = server.load().await
    {
        return error;
    }
    server.keep_measuring().await;
    "measuring ended".to_owned()
}

async fn accept(listener: &TcpListener, server: &Rc<Server>, connections: &GracefulShutdown) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connection(stream, Rc::clone(server), connections),
            // Out of descriptors, or a client that left while it waited: neither may end the server or spin it.
            Err(error) => pause_after(&error).await,
        }
    }
}

async fn pause_after(error: &io::Error) {
    eprintln!("model server: accept: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn connection(stream: TcpStream, server: Rc<Server>, connections: &GracefulShutdown) {
    // Small answers must not wait for an acknowledgement; where it cannot be set, they are only slower.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let server = Rc::clone(&server);
        async move { Ok::<_, Infallible>(routes::answer(server, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE);
    let connection = connections.watch(builder.serve_connection(TokioIo::new(stream), service));
    tokio::task::spawn_local(async move {
        // A client that breaks off is its own business.
        let _ = connection.await;
    });
}

#[cfg(test)]
mod tests;
