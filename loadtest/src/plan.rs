//! What a run will do, proven: flags have been read, names resolved, limits checked.

use std::time::Duration;

use crate::message::Form;
use crate::secure::ClientSecrets;
use crate::sizes::Sizes;
use crate::target::{Sources, Target};

/// What the open connections say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Traffic {
    /// Nothing.
    Silent,
    /// Messages per second over all active connections, each on its own schedule.
    Open { rate: f64 },
    /// The next message when the last one came back.
    Closed,
    /// As fast as the target takes them; answers are awaited, not waited for.
    Stream,
    /// Nothing is sent; what comes is checked.
    Listen,
}

#[derive(Clone)]
pub struct Plan {
    pub target: Target,
    pub secrets: Option<ClientSecrets>,
    pub sources: Sources,
    pub connections: u32,
    pub connect_rate: f64,
    pub connect_timeout: Duration,
    pub threads: usize,
    pub cores: Vec<usize>,
    pub traffic: Traffic,
    pub sizes: Sizes,
    pub form: Form,
    /// Share of the connections that talk.
    pub active: f64,
    pub warmup: Duration,
    pub duration: Duration,
    /// How long answers are waited for after the last message was due.
    pub drain: Duration,
    pub request: Request,
    pub seed: u64,
    /// Ask every connection's server for its name.
    pub ask: bool,
}

/// What the upgrade request says, beside what it must.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Taken in turn; empty means the URL's own.
    pub paths: Vec<String>,
    /// Each with alternatives, taken in turn; `{n}` is the connection's number.
    pub headers: Vec<(String, Vec<String>)>,
    pub subprotocol: Option<String>,
    pub cookies: bool,
}

impl Plan {
    /// Is connection `number` one that talks? Talkers are spread evenly over the numbers.
    pub fn talks(&self, number: u32) -> bool {
        let before = (f64::from(number) * self.active).floor();
        let after = (f64::from(number + 1) * self.active).floor();
        after > before
    }

    pub fn talkers(&self) -> u32 {
        (f64::from(self.connections) * self.active).floor() as u32
    }

    /// The connections of one thread: every `threads`-th.
    pub fn share(&self, thread: usize) -> u32 {
        let (all, threads) = (self.connections as usize, self.threads);
        (all / threads + usize::from(thread < all % threads)) as u32
    }
}
