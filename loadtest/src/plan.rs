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
    /// Short lives: this many new connections a second, each with some round trips.
    Churn { rate: f64, messages: u32, life_ns: u64 },
}

/// Some connections that do not behave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Odd {
    Nobody,
    /// This share reads so many bytes a second (zero: never).
    Slow {
        share: f64,
        bytes_per_second: u64,
    },
    /// This share vanishes when told to, without FIN: packets are dropped, or it just freezes.
    Doomed {
        share: f64,
        freeze: bool,
    },
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
    /// The server swallows everything; asked at the end, it tells what it has seen.
    pub sink: bool,
    pub odd: Odd,
    /// A connection that could not be opened, or was closed, is dialled again.
    pub redial: bool,
    /// Close with a reset instead of a goodbye.
    pub reset: bool,
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
        chosen(number, self.active)
    }

    /// Is connection `number` one of the odd ones? They too are spread evenly.
    pub fn is_odd(&self, number: u32) -> bool {
        match self.odd {
            Odd::Nobody => false,
            Odd::Slow { share, .. } | Odd::Doomed { share, .. } => chosen(number, share),
        }
    }

    pub fn odd_share(&self) -> f64 {
        match self.odd {
            Odd::Nobody => 0.0,
            Odd::Slow { share, .. } | Odd::Doomed { share, .. } => share,
        }
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

fn chosen(number: u32, share: f64) -> bool {
    let before = (f64::from(number) * share).floor();
    let after = (f64::from(number + 1) * share).floor();
    after > before
}
