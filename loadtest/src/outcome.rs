//! Everything a run has measured, before anybody formats it.

use hdrhistogram::Histogram;

use crate::cli::Direction;
use crate::conductor::Times;
use crate::tally::{Counts, Packed, Tally};
use crate::watch::Look;

/// One line of the run's history: about a second.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Moment {
    /// Its end, since the run began.
    pub at_s: f64,
    pub span_s: f64,
    pub open: u32,
    pub sent: u64,
    pub received: u64,
    pub errors: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
    pub target_cpu_ns: u64,
    pub target_rss_bytes: u64,
}

/// The target's weight at a number of open connections.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Weighing {
    pub connections: u32,
    /// Before or after each of them had spoken.
    pub spoken: bool,
    pub look: Look,
}

pub struct Outcome {
    pub scene: &'static str,
    pub url: String,
    pub connections: u32,
    pub talkers: u32,
    pub threads: usize,
    /// Messages per second asked for; none in closed loops and streams.
    pub intended_rate: Option<f64>,
    /// Connections per second asked for, where short lives come at a rate.
    pub intended_lives: Option<f64>,
    pub size: String,
    pub total: Tally,
    pub moments: Vec<Moment>,
    /// The latencies of each interval that had answers: (start, end) since the run began. Only kept
    /// where the log of them is wanted.
    pub intervals: Option<Vec<(f64, f64, Packed)>>,
    pub times: Times,
    pub began_ns: u64,
    /// Seconds actually measured: less than asked for after an interruption.
    pub measured_s: f64,
    pub ramp_s: f64,
    pub open_at_start: u32,
    pub interrupted: bool,
    pub lag_bound_ns: u64,
    pub target: Option<Target>,
    /// This process's own CPU in the measured window.
    pub own_cpu_ns: u64,
    pub own_rss_bytes: u64,
    pub notes: Vec<String>,
    /// Figures that only one scene has, by name.
    pub extra: Vec<(String, f64)>,
    /// Why the run proves nothing, whatever it measured.
    pub void_why: Option<String>,
}

/// What watching the target gave.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Target {
    pub pids: Vec<u32>,
    pub before: Look,
    pub connected: Look,
    pub measure_from: Look,
    pub measure_to: Look,
    pub after: Look,
    pub weighings: Vec<Weighing>,
}

/// Can the result be believed?
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Sound,
    Void(String),
}

impl Outcome {
    /// Nothing measured yet.
    pub fn blank(scene: &'static str, url: &str, connections: u32) -> Outcome {
        Outcome {
            scene,
            url: url.to_owned(),
            connections,
            talkers: connections,
            threads: 1,
            intended_rate: None,
            intended_lives: None,
            size: String::new(),
            total: Tally::new(),
            moments: vec![Moment::default()],
            intervals: None,
            times: Times::default(),
            began_ns: 0,
            measured_s: 0.0,
            ramp_s: 0.0,
            open_at_start: 0,
            interrupted: false,
            lag_bound_ns: 0,
            target: None,
            own_cpu_ns: 0,
            own_rss_bytes: 0,
            notes: Vec::new(),
            extra: Vec::new(),
            void_why: None,
        }
    }

    pub fn achieved_rate(&self) -> f64 {
        self.total.counts.measured_sent as f64 / self.measured_s.max(1e-9)
    }

    pub fn answered_rate(&self) -> f64 {
        self.total.counts.measured_received as f64 / self.measured_s.max(1e-9)
    }

    /// The messages of the window that an answer should have come to: sent, still waiting to be, or
    /// missed. Whom a storm sent away owes none: what was under way, or due until all were back.
    pub fn asked(&self) -> u64 {
        let counts = &self.total.counts;
        let missed = if self.scene == "storm" { 0 } else { counts.missed };
        let asked = counts.measured_sent.saturating_sub(counts.given_up) + counts.unsent + missed;
        // (A source's messages are answers to nothing.)
        asked.max(self.total.latency.len())
    }

    /// The latency that this share of all asked were answered within: infinite where too few were
    /// answered at all, nothing where nothing was asked.
    pub fn latency_at(&self, quantile: f64) -> Option<f64> {
        among(&self.total.latency, self.asked(), quantile)
    }

    /// The same for the time to be open: a life that was never dialled took longer than any.
    pub fn connect_at(&self, quantile: f64) -> Option<f64> {
        let connect = &self.total.connect;
        among(connect, connect.len() + self.total.counts.undialled, quantile)
    }

    /// Short lives opened per second.
    pub fn lives_rate(&self) -> f64 {
        self.total.counts.measured_opened as f64 / self.measured_s.max(1e-9)
    }

    /// How much of what was asked for was achieved, in percent: messages sent, or lives opened.
    pub fn achieved_percent(&self) -> Option<f64> {
        let messages = self.intended_rate.map(|rate| 100.0 * self.achieved_rate() / rate);
        messages.or(self.intended_lives.map(|rate| 100.0 * self.lives_rate() / rate))
    }

    /// Everything that should not have happened.
    pub fn errors(&self) -> u64 {
        errors(&self.total.counts)
    }

    /// A run is void when the generator's own lag would colour the latencies it reports: those of
    /// messages, or with short lives those of connects.
    pub fn verdict(&self) -> Verdict {
        if let Some(why) = &self.void_why {
            return Verdict::Void(why.clone());
        }
        let lag = self.total.lag.value_at_quantile(0.99);
        let short_lives = self.intended_lives.is_some();
        let coloured = if short_lives { &self.total.connect } else { &self.total.latency };
        let latency = coloured.value_at_quantile(0.99);
        let untried = self.total.counts.untried;
        if untried > 0 {
            return Verdict::Void(format!(
                "the generator could not keep up: {} messages that were due were never even tried; \
                 ask for less, or give it more cores",
                crate::units::show_count(untried)
            ));
        }
        let at_a_rate = short_lives || self.intended_rate.is_some();
        // Where lives were never dialled, a late generator may itself have kept the slots.
        let colours = lag * 20 > latency || self.total.counts.undialled > 0;
        if at_a_rate && lag > self.lag_bound_ns && colours {
            return Verdict::Void(format!(
                "the generator itself was late: lag p99 {} (allowed {}), so latencies say as much \
                 about it as about the target; give it a core of its own, or ask for less",
                crate::units::show_ns(lag),
                crate::units::show_ns(self.lag_bound_ns)
            ));
        }
        Verdict::Sound
    }

    pub fn target_cpu_ns(&self) -> Option<u64> {
        let target = self.target.as_ref()?;
        Some(target.measure_to.cpu_ns.saturating_sub(target.measure_from.cpu_ns))
    }

    /// CPU of the target for each answered message of the window.
    pub fn target_cpu_per_round_ns(&self) -> Option<f64> {
        let rounds = self.total.counts.measured_received;
        (rounds > 0).then_some(())?;
        Some(self.target_cpu_ns()? as f64 / rounds as f64)
    }

    pub fn own_cpu_per_round_ns(&self) -> Option<f64> {
        let rounds = self.total.counts.measured_received;
        (rounds > 0).then(|| self.own_cpu_ns as f64 / rounds as f64)
    }

    /// User memory per connection: the slope between the two largest weighings, or from nothing.
    pub fn bytes_per_connection(&self) -> Option<f64> {
        let target = self.target.as_ref()?;
        let mut points: Vec<(f64, f64)> = vec![(0.0, target.before.own_bytes as f64)];
        let spoken = target.weighings.iter().any(|weighing| weighing.spoken);
        for weighing in target.weighings.iter().filter(|weighing| weighing.spoken == spoken) {
            points.push((f64::from(weighing.connections), weighing.look.own_bytes as f64));
        }
        if target.weighings.is_empty() {
            points.push((f64::from(self.open_at_start), target.connected.own_bytes as f64));
        }
        let &[.., (n0, m0), (n1, m1)] = points.as_slice() else { return None };
        (n1 > n0).then(|| (m1 - m0) / (n1 - n0))
    }
}

/// Figures that only one scene has.
impl Outcome {
    fn extra(&mut self, name: &str, value: f64) {
        self.extra.push((name.into(), value));
    }

    pub fn note_streams(&mut self, direction: Direction) {
        let seconds = self.measured_s.max(1e-9);
        let counts = &self.total.counts;
        let bytes = match direction {
            Direction::Down => counts.measured_bytes_received,
            Direction::Up => counts.measured_bytes_sent,
            Direction::Both => counts.measured_bytes_sent + counts.measured_bytes_received,
        };
        self.extra("gigabits_per_second", bytes as f64 * 8.0 / seconds / 1e9);
        if let (Some(cpu), true) = (self.target_cpu_ns(), bytes > 0) {
            self.extra("target_cpu_ns_per_byte", cpu as f64 / bytes as f64);
        }
        self.extra("generator_cpu_ns_per_byte", self.own_cpu_ns as f64 / bytes.max(1) as f64);
    }

    /// `servers` is how many there are to choose from. Those that answered do not tell: where one
    /// of ten got everybody, it is the only one known.
    pub fn note_split(&mut self, servers: Option<u32>) {
        let total: u64 = self.total.names.values().sum();
        let busiest = self.total.names.values().max().copied().unwrap_or(0);
        let used = self.total.names.len() as f64;
        if total == 0 {
            self.notes.push("no server told its name: start it with standpipe-load echo".into());
            return;
        }
        self.extra("servers_used", used);
        self.extra("busiest_share_percent", 100.0 * busiest as f64 / total as f64);
        match servers.map(f64::from) {
            Some(servers) if servers < used => self.notes.push(format!(
                "{used} servers told their names, more than the {servers} of --servers: what a \
                 fair share is cannot be said"
            )),
            Some(servers) => {
                self.extra("busiest_times_fair_share", busiest as f64 * servers / total as f64);
            }
            None => {}
        }
    }

    pub fn note_churn(&mut self) {
        let opened = self.total.counts.measured_opened as f64;
        self.extra("connections_per_second", self.lives_rate());
        if let Some(rate) = self.intended_lives {
            self.extra("connections_per_second_intended", rate);
        }
        if let (Some(cpu), true) = (self.target_cpu_ns(), opened > 0.0) {
            self.extra("target_cpu_us_per_connection", cpu as f64 / opened / 1e3);
        }
        if opened > 0.0 {
            self.extra("generator_cpu_us_per_connection", self.own_cpu_ns as f64 / opened / 1e3);
        }
        self.extra(
            "resumed_share_percent",
            100.0 * self.total.counts.resumed as f64 / opened.max(1.0),
        );
    }

    pub fn note_audit(&mut self) {
        let counts = self.total.counts;
        self.extra("connections_closed", counts.closed_by_peer as f64);
        self.extra("messages_lost", counts.lost() as f64);
        self.extra("bytes_lost", counts.unanswered_bytes as f64);
        // Of what never came nobody knows how long it would have taken.
        let never_came = counts.lost() + counts.unsent + counts.missed;
        if !self.total.latency.is_empty() && never_came == 0 {
            self.extra("longest_stall_ms", self.total.latency.max() as f64 / 1e6);
        }
    }
}

/// The value at this share of `all`, of which only those in the histogram have one.
fn among(histogram: &Histogram<u64>, all: u64, quantile: f64) -> Option<f64> {
    let known = histogram.len();
    // Not one more for an error in a number's last bit, as in 99.9 / 100 of 1,000.
    let rank = (quantile * all as f64 * (1.0 - 1e-12)).ceil().max(1.0);
    if rank > known as f64 {
        return (all > 0).then_some(f64::INFINITY);
    }
    // Half of one less, so that rounding ends at this one and not at the next.
    Some(histogram.value_at_quantile((rank - 0.5) / known as f64) as f64)
}

/// Everything that should not have happened.
pub fn errors(counts: &Counts) -> u64 {
    counts.failed + counts.undialled + counts.unclosed + counts.closed_by_peer + faults(counts)
}

/// Messages that did not come back as they were sent.
pub fn faults(counts: &Counts) -> u64 {
    counts.lost() + counts.duplicated + counts.reordered + counts.damaged + counts.strayed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extra(outcome: &Outcome, name: &str) -> Option<f64> {
        outcome.extra.iter().find(|(known, _)| known == name).map(|&(_, value)| value)
    }

    #[test]
    fn what_is_never_answered_is_slower_than_anything() {
        let mut outcome = Outcome::blank("run", "tcp://x", 10);
        assert_eq!(outcome.latency_at(0.99), None);
        for at in 1..=990u64 {
            outcome.total.latency.saturating_record(at * 1_000_000);
        }
        outcome.total.counts.measured_sent = 990;
        let about = |outcome: &Outcome, quantile: f64| {
            (outcome.latency_at(quantile).unwrap() / 1e6).round()
        };
        assert_eq!(about(&outcome, 0.5), 495.0);
        assert_eq!(about(&outcome, 1.0), 990.0);
        // Ten more were asked: the 99th percentile of all is the slowest answer there was.
        outcome.total.counts.measured_sent = 994;
        outcome.total.counts.unsent = 3;
        outcome.total.counts.missed = 3;
        assert_eq!(outcome.asked(), 1000);
        assert_eq!(about(&outcome, 0.5), 500.0);
        assert_eq!(about(&outcome, 99.0 / 100.0), 990.0);
        assert_eq!(outcome.latency_at(99.1 / 100.0), Some(f64::INFINITY));
        // A storm's own doing is left out.
        outcome.scene = "storm";
        outcome.total.counts.given_up = 4;
        assert_eq!(outcome.asked(), 993);
        // Nobody answered anything.
        outcome.total.latency.reset();
        assert_eq!(outcome.latency_at(0.5), Some(f64::INFINITY));
    }

    #[test]
    fn a_late_generator_makes_a_churn_void() {
        let mut outcome = Outcome::blank("churn", "tcp://x", 10);
        outcome.lag_bound_ns = 500_000;
        outcome.intended_lives = Some(100.0);
        outcome.total.connect.saturating_record(300_000);
        outcome.total.lag.saturating_record(100_000);
        assert_eq!(outcome.verdict(), Verdict::Sound);
        outcome.total.lag.saturating_record(2_000_000);
        assert!(matches!(outcome.verdict(), Verdict::Void(_)));
        // A twentieth of what connects take is not seen in them.
        outcome.total.connect.saturating_record(900_000_000);
        assert_eq!(outcome.verdict(), Verdict::Sound);
        // Where slots ran out, it may have been our own lateness that kept them.
        outcome.total.counts.undialled = 1;
        assert!(matches!(outcome.verdict(), Verdict::Void(_)));
        outcome.lag_bound_ns = 10_000_000;
        assert_eq!(outcome.verdict(), Verdict::Sound);
    }

    #[test]
    fn a_life_that_was_due_and_never_dialled_is_an_error_and_not_achieved() {
        let mut outcome = Outcome::blank("churn", "tcp://x", 10);
        outcome.intended_lives = Some(100.0);
        outcome.measured_s = 2.0;
        outcome.total.counts.measured_opened = 150;
        outcome.total.counts.undialled = 50;
        assert_eq!(outcome.errors(), 50);
        assert_eq!(outcome.achieved_percent(), Some(75.0));
        for _ in 0..150 {
            outcome.total.connect.saturating_record(1_000_000);
        }
        assert!(outcome.connect_at(0.75).is_some_and(f64::is_finite));
        assert_eq!(outcome.connect_at(0.76), Some(f64::INFINITY));
    }

    #[test]
    fn one_of_ten_servers_with_everybody_is_ten_times_its_share() {
        let split = |servers: Option<u32>, names: &[(&str, u64)]| {
            let mut outcome = Outcome::blank("nat", "tcp://x", 1000);
            let names = names.iter().map(|&(name, count)| (name.to_owned(), count));
            outcome.total.names.extend(names);
            outcome.note_split(servers);
            outcome
        };
        let all_on_one = split(Some(10), &[("red", 1000)]);
        assert_eq!(extra(&all_on_one, "busiest_times_fair_share"), Some(10.0));
        assert_eq!(extra(&all_on_one, "busiest_share_percent"), Some(100.0));
        let even = split(Some(2), &[("red", 500), ("blue", 500)]);
        assert_eq!(extra(&even, "busiest_times_fair_share"), Some(1.0));
        // Who does not say how many there are gets no figure, and who says too few a note.
        assert_eq!(extra(&split(None, &[("red", 1000)]), "busiest_times_fair_share"), None);
        let too_few = split(Some(1), &[("red", 500), ("blue", 500)]);
        assert_eq!(extra(&too_few, "busiest_times_fair_share"), None);
        assert_eq!(too_few.notes.len(), 1);
    }
}
