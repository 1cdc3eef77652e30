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

    /// Is connection `number` one of the odd ones? They too are spread evenly, over those that talk
    /// and over the silent ones: over all numbers, equal shares would be the same connections.
    pub fn is_odd(&self, number: u32) -> bool {
        let share = match self.odd {
            Odd::Nobody => return false,
            Odd::Slow { share, .. } | Odd::Doomed { share, .. } => share,
        };
        let talkers_before = (f64::from(number) * self.active).floor() as u32;
        let alike_before =
            if self.talks(number) { talkers_before } else { number - talkers_before };
        chosen(alike_before, share)
    }

    /// How much of the traffic is the odd ones': so many of the talkers they are.
    pub fn odd_share(&self) -> f64 {
        let odd = |&number: &u32| self.talks(number) && self.is_odd(number);
        (0..self.connections).filter(odd).count() as f64 / f64::from(self.talkers().max(1))
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Scene};

    #[test]
    fn the_same_share_is_odd_of_those_that_talk_and_of_those_that_do_not() {
        for (active, share, talking, silent) in [
            ("10%", "10%", 1, 9),
            ("50%", "10%", 5, 5),
            ("100%", "25%", 25, 0),
            ("0%", "20%", 0, 20),
            ("30%", "0%", 0, 0),
        ] {
            let line = ["standpipe-load", "slow", "tcp://127.0.0.1:1", "-c", "100", "--share"];
            let line = [&line[..], &[share, "--active", active]].concat();
            let Scene::Slow(args) = Cli::parse_from(line).scene else { panic!("slow was asked") };
            let plan = crate::resolve::slow(&args).unwrap();
            let odd = |talks: bool| {
                (0..100).filter(|&n| plan.talks(n) == talks && plan.is_odd(n)).count()
            };
            assert_eq!((odd(true), odd(false)), (talking, silent), "{active} talk, {share} odd");
            let part = f64::from(talking as u32) / f64::from(plan.talkers().max(1));
            assert_eq!(plan.odd_share(), part);
        }
    }
}
