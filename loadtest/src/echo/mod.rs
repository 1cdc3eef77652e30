//! The server side of a test: many addresses in one process, one thread per core and fd table.
//! It answers as it is told to, well or badly; it measures nothing.

mod later;
mod peer;
pub mod resolve;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub use later::Delay;
use rustls::ServerConfig;

use crate::message::Form;
use crate::sizes::Sizes;
use crate::target::Scheme;

/// What a server does with what it receives.
#[derive(Clone, Debug, PartialEq)]
pub enum Manner {
    /// Everything goes back.
    Echo,
    /// Everything is checked and swallowed; asked for its name it tells what it has seen.
    Sink,
    /// It sends numbered messages as fast as each client takes them, or at a rate for each; with
    /// `together`, to all clients at the same moment.
    Source { sizes: Sizes, rate: Option<f64>, together: bool },
}

/// One address to listen on.
#[derive(Clone, Debug)]
pub struct Listen {
    pub scheme: Scheme,
    pub address: SocketAddr,
    pub name: String,
}

#[derive(Clone)]
pub struct Options {
    pub listens: Vec<Listen>,
    pub threads: usize,
    pub cores: Vec<usize>,
    pub manner: Manner,
    pub form: Form,
    pub delay: Option<Delay>,
    /// (every, for): the whole thread stops serving.
    pub stall: Option<(Duration, Duration)>,
    /// Cut a connection in the middle of the reply that crosses this many bytes.
    pub die_after: Option<u64>,
    pub secrets: Option<Arc<ServerConfig>>,
    pub seed: u64,
}

/// What all threads have done, for the line printed at the end.
#[derive(Debug, Default)]
pub struct Seen {
    pub stop: AtomicBool,
    pub ready: AtomicU32,
    pub accepted: AtomicU64,
    pub open: AtomicU64,
    pub bytes: AtomicU64,
}

/// Listens and serves until `seen.stop`. Returns when every thread has left.
pub fn serve(options: Options, seen: &Arc<Seen>, ready: impl FnOnce()) -> Result<(), String> {
    let options = Arc::new(options);
    let mut threads = Vec::new();
    for index in 0..options.threads {
        let (options, seen) = (Arc::clone(&options), Arc::clone(seen));
        let body = move || server::run(index, options, &seen);
        let builder = std::thread::Builder::new().name(format!("echo-{index}"));
        threads.push(builder.spawn(body).map_err(|error| format!("cannot start: {error}"))?);
    }
    while (seen.ready.load(Relaxed) as usize) < options.threads {
        if threads.iter().any(|thread| thread.is_finished()) {
            seen.stop.store(true, Relaxed);
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    if !seen.stop.load(Relaxed) {
        ready();
    }
    let mut outcome = Ok(());
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => outcome = Err(error),
            Err(_) => outcome = Err("an echo thread came to grief".into()),
        }
    }
    outcome
}
