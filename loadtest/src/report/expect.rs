//! `--expect`: what must hold for the exit code to be good. Pure; every expectation is understood
//! before the run begins.

use crate::outcome::{Outcome, faults};
use crate::units::parse_duration;

#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    text: String,
    name: String,
    relation: Relation,
    value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Relation {
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
}

/// Longest first, so that `<=` is not read as `<`.
const RELATIONS: [(&str, Relation); 6] = [
    ("<=", Relation::LessOrEqual),
    (">=", Relation::GreaterOrEqual),
    ("==", Relation::Equal),
    ("!=", Relation::NotEqual),
    ("<", Relation::Less),
    (">", Relation::Greater),
];

/// What can be asked about, besides percentiles of `p`, `lag_p` and `connect_p`.
const NAMES: [&str; 19] = [
    "max",
    "mean",
    "rate",
    "answered",
    "achieved",
    "errors",
    "faults",
    "lost",
    "duplicated",
    "reordered",
    "damaged",
    "strayed",
    "failed",
    "closed",
    "missed",
    "open",
    "cpu",
    "memory",
    "own_cpu",
];

/// Figures that only some scenes have.
const EXTRAS: [&str; 7] = [
    "gigabits_per_second",
    "seconds_until_all_were_back",
    "seconds_until_released",
    "busiest_times_fair_share",
    "connections_per_second",
    "longest_stall_ms",
    "bytes_lost",
];

impl Expectation {
    /// `p99<5ms`, `errors==0`, `achieved>=99.9%`.
    pub fn parse(text: &str) -> Result<Expectation, String> {
        let wrong = |why: &str| format!("--expect '{text}': {why}");
        let (at, sign, relation) = RELATIONS
            .iter()
            .filter_map(|&(sign, relation)| Some((text.find(sign)?, sign, relation)))
            .min_by_key(|&(at, sign, _)| (at, std::cmp::Reverse(sign.len())))
            .ok_or_else(|| wrong("no relation in it; write it like p99<5ms or errors==0"))?;
        let name = text[..at].trim().to_owned();
        let known = NAMES.contains(&name.as_str())
            || EXTRAS.contains(&name.as_str())
            || percentile(&name).is_some();
        if !known {
            return Err(wrong(&format!(
                "{name} is not measured; known are p50 to p99.99 (also lag_p99, connect_p99), {}, \
                 {}",
                NAMES.join(", "),
                EXTRAS.join(", ")
            )));
        }
        let right = text[at + sign.len()..].trim();
        match (name == "achieved", right.ends_with('%')) {
            (true, false) => return Err(wrong("it is a percentage: write achieved>=99.9%")),
            (false, true) => return Err(wrong("only achieved is a percentage")),
            _ => {}
        }
        let timed =
            percentile(&name).is_some() || ["max", "mean", "cpu", "own_cpu"].contains(&&*name);
        let value = if let Some(percent) = right.strip_suffix('%') {
            percent.parse::<f64>().ok()
        } else if timed {
            // A time without a unit could be anything: it is not guessed.
            let bare = right.parse::<f64>().is_ok() && right != "0";
            if bare { None } else { parse_duration(right).ok().map(|time| time.as_nanos() as f64) }
        } else {
            right.parse::<f64>().ok()
        };
        let value = value.ok_or_else(|| wrong(&format!("{right} is not a value for {name}")))?;
        Ok(Expectation { text: text.to_owned(), name, relation, value })
    }

    /// Nothing when it holds; otherwise what was found instead.
    pub fn failure(&self, outcome: &Outcome) -> Option<String> {
        let Some(found) = self.measured(outcome) else {
            return Some(format!("expected {}, but it was not measured", self.text));
        };
        let holds = match self.relation {
            Relation::Less => found < self.value,
            Relation::LessOrEqual => found <= self.value,
            Relation::Equal => found == self.value,
            Relation::NotEqual => found != self.value,
            Relation::GreaterOrEqual => found >= self.value,
            Relation::Greater => found > self.value,
        };
        (!holds).then(|| format!("expected {}, found {}", self.text, self.show(found)))
    }

    fn measured(&self, outcome: &Outcome) -> Option<f64> {
        let total = &outcome.total;
        let counts = &total.counts;
        if let Some((which, quantile)) = percentile(&self.name) {
            // What was due and never answered, or never dialled, took longer than anything.
            return match which {
                "connect_" => outcome.connect_at(quantile),
                "lag_" => {
                    (!total.lag.is_empty()).then(|| total.lag.value_at_quantile(quantile) as f64)
                }
                _ => outcome.latency_at(quantile),
            };
        }
        let count = |count: u64| Some(count as f64);
        match self.name.as_str() {
            "max" | "mean" if outcome.asked() > total.latency.len() => Some(f64::INFINITY),
            "max" => (!total.latency.is_empty()).then(|| total.latency.max() as f64),
            "mean" => (!total.latency.is_empty()).then(|| total.latency.mean()),
            "rate" => Some(outcome.achieved_rate()),
            "answered" => Some(outcome.answered_rate()),
            "achieved" => outcome.achieved_percent(),
            "errors" => count(outcome.errors()),
            "faults" => count(faults(counts)),
            "lost" => count(counts.lost()),
            "duplicated" => count(counts.duplicated),
            "reordered" => count(counts.reordered),
            "damaged" => count(counts.damaged),
            "strayed" => count(counts.strayed),
            "failed" => count(counts.failed),
            "closed" => count(counts.closed_by_peer),
            "missed" => count(counts.missed),
            "open" => count(counts.opened),
            "cpu" => outcome.target_cpu_per_round_ns(),
            "own_cpu" => outcome.own_cpu_per_round_ns(),
            "memory" => outcome.bytes_per_connection(),
            name => outcome.extra.iter().find(|(known, _)| known == name).map(|(_, value)| *value),
        }
    }

    fn show(&self, found: f64) -> String {
        let timed = percentile(&self.name).is_some()
            || ["max", "mean", "cpu", "own_cpu"].contains(&self.name.as_str());
        match (timed, self.name.as_str()) {
            (true, name) if found.is_infinite() && name.starts_with("connect_") => {
                "connections that were never dialled".into()
            }
            (true, _) if found.is_infinite() => "messages that were never answered".into(),
            (true, _) => crate::units::show_ns(found as u64),
            (false, "achieved") => format!("{found:.3} %"),
            _ => format!("{}", (found * 1000.0).round() / 1000.0),
        }
    }
}

/// `p99.9`, `lag_p99`, `connect_p50`: which histogram, and where in it.
fn percentile(name: &str) -> Option<(&'static str, f64)> {
    for which in ["lag_", "connect_", ""] {
        let Some(rest) = name.strip_prefix(which).and_then(|rest| rest.strip_prefix('p')) else {
            continue;
        };
        let percent: f64 = rest.parse().ok()?;
        return (0.0..=100.0).contains(&percent).then_some((which, percent / 100.0));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_understood() {
        let one = Expectation::parse("p99.9 <= 5ms").unwrap();
        assert_eq!((one.relation, one.value), (Relation::LessOrEqual, 5e6));
        assert_eq!(Expectation::parse("errors==0").unwrap().relation, Relation::Equal);
        assert_eq!(Expectation::parse("achieved>=99.9%").unwrap().value, 99.9);
        assert_eq!(Expectation::parse("cpu<15us").unwrap().value, 15_000.0);
        assert!(Expectation::parse("longest_stall_ms<50").is_ok());
    }

    #[test]
    fn what_was_never_answered_fails_the_tail() {
        let mut outcome = Outcome::blank("run", "tcp://x", 1);
        for _ in 0..98 {
            outcome.total.latency.saturating_record(1_000_000);
        }
        outcome.total.counts.measured_sent = 98;
        let fails = |outcome: &Outcome, text: &str| {
            Expectation::parse(text).unwrap().failure(outcome).is_some()
        };
        for text in ["p50<5ms", "p99<5ms", "max<5ms", "mean<5ms"] {
            assert!(!fails(&outcome, text), "{text}");
        }
        // Two that were lost, or waited to the end: two in a hundred took for ever.
        outcome.total.counts.measured_sent = 99;
        outcome.total.counts.unsent = 1;
        assert!(!fails(&outcome, "p50<5ms") && !fails(&outcome, "p98<5ms"));
        for text in ["p99<5ms", "p99.9<1h", "max<1h", "mean<1h"] {
            assert!(fails(&outcome, text), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_before_the_run() {
        for bad in [
            "p99",
            "p101<1ms",
            "speed>3",
            "p99<5",
            "errors==none",
            "==",
            "achieved>=0.999",
            "failed<50%",
            "p99<5%",
        ] {
            assert!(Expectation::parse(bad).is_err(), "{bad}");
        }
    }
}
