//! Everything measured, for programs. Times are in nanoseconds unless the name says otherwise.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::QUANTILES;
use super::text::describe;
use crate::outcome::{Outcome, Verdict};

pub fn write(outcome: &Outcome) -> Value {
    let counts = &outcome.total.counts;
    let (sound, why) = match outcome.verdict() {
        Verdict::Sound => (true, None),
        Verdict::Void(why) => (false, Some(why)),
    };
    let extra: Map<String, Value> =
        outcome.extra.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "scene": outcome.scene,
        "url": outcome.url,
        "connections": outcome.connections,
        "open": outcome.open_at_start,
        "talkers": outcome.talkers,
        "threads": outcome.threads,
        "size": outcome.size,
        "measured_s": outcome.measured_s,
        "ramp_s": outcome.ramp_s,
        "interrupted": outcome.interrupted,
        "void": !sound,
        "void_why": why,
        "intended_rate": outcome.intended_rate,
        "achieved_rate": outcome.achieved_rate(),
        "answered_rate": outcome.answered_rate(),
        "latency": histogram(&outcome.total.latency),
        "lag": histogram(&outcome.total.lag),
        "connect": histogram(&outcome.total.connect),
        "counts": counts,
        "lost": counts.lost(),
        "errors_total": outcome.errors(),
        "errors": outcome.total.errors,
        "servers": outcome.total.names,
        "closes": closes(outcome),
        "close_kinds": outcome.total.close_kinds.iter()
            .map(|(&(who, how), count)| (describe(who, how), json!(count)))
            .collect::<Map<String, Value>>(),
        "target": outcome.target,
        "target_cpu_ns": outcome.target_cpu_ns(),
        "target_cpu_per_round_ns": outcome.target_cpu_per_round_ns(),
        "target_bytes_per_connection": outcome.bytes_per_connection(),
        "generator_cpu_ns": outcome.own_cpu_ns,
        "generator_cpu_per_round_ns": outcome.own_cpu_per_round_ns(),
        "generator_rss_bytes": outcome.own_rss_bytes,
        "moments": outcome.moments,
        "notes": outcome.notes,
        "extra": extra,
    })
}

fn histogram(histogram: &Histogram<u64>) -> Value {
    let mut map = Map::new();
    map.insert("samples".into(), json!(histogram.len()));
    if !histogram.is_empty() {
        map.insert("mean".into(), json!(histogram.mean()));
        map.insert("min".into(), json!(histogram.min()));
        for (name, quantile) in QUANTILES {
            let value = if quantile == 1.0 {
                histogram.max()
            } else {
                histogram.value_at_quantile(quantile)
            };
            map.insert(name.into(), json!(value));
        }
    }
    Value::Object(map)
}

fn closes(outcome: &Outcome) -> Vec<Value> {
    let list = outcome.total.closes.iter();
    list.map(|close| {
        json!({
            "connection": close.connection,
            "how": describe(close.who, close.how),
            "at_ms": close.at_ns as f64 / 1e6,
            "age_ms": close.age_ns as f64 / 1e6,
            "unanswered": close.unanswered,
        })
    })
    .collect()
}
