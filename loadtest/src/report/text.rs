//! The report a person reads: two headline figures, a table, and what went wrong.

use std::fmt::Write as _;

use super::QUANTILES;
use crate::outcome::{Outcome, Verdict};
use crate::tally::{How, Who};
use crate::units::{show_bytes, show_count, show_ns};

pub fn write(outcome: &Outcome) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = headline(&mut out, outcome);
    let _ = latency(&mut out, outcome);
    let _ = proof(&mut out, outcome);
    let _ = target(&mut out, outcome);
    let _ = closes(&mut out, outcome);
    let _ = verdict(&mut out, outcome);
    out
}

fn headline(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let counts = &outcome.total.counts;
    writeln!(
        out,
        "{} {}  {} connections ({} talking), messages of {}, {:.1} s measured",
        outcome.scene,
        outcome.url,
        show_count(u64::from(outcome.open_at_start.max(outcome.connections))),
        show_count(u64::from(outcome.talkers.min(outcome.connections))),
        outcome.size,
        outcome.measured_s
    )?;
    if outcome.interrupted {
        writeln!(out, "INTERRUPTED: what follows is what was measured until then")?;
    }
    writeln!(out)?;
    let latency = &outcome.total.latency;
    match outcome.intended_rate {
        Some(rate) => writeln!(
            out,
            "  {:>12} messages/s achieved of {:.0} intended ({:.2} %)",
            show_count(outcome.achieved_rate().round() as u64),
            rate,
            100.0 * outcome.achieved_rate() / rate
        )?,
        None if !latency.is_empty() => writeln!(
            out,
            "  {:>12} messages/s answered",
            show_count(outcome.answered_rate().round() as u64)
        )?,
        None => {}
    }
    if !latency.is_empty() {
        let p99 = show_ns(latency.value_at_quantile(0.99));
        writeln!(out, "  {p99:>12} latency at the 99th percentile")?;
    }
    for (name, value) in &outcome.extra {
        writeln!(out, "  {value:>12.3} {}", name.replace('_', " "))?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "connections  {} opened in {:.2} s, {} failed, {} closed by the peer",
        show_count(counts.opened),
        outcome.ramp_s,
        show_count(counts.failed),
        show_count(counts.closed_by_peer)
    )
}

fn latency(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let rows = [
        ("latency", &outcome.total.latency),
        ("generator lag", &outcome.total.lag),
        ("connect", &outcome.total.connect),
    ];
    write!(out, "{:<14}", "")?;
    for (name, _) in QUANTILES {
        write!(out, "{name:>10}")?;
    }
    writeln!(out, "{:>12}", "samples")?;
    for (name, histogram) in rows {
        if histogram.is_empty() {
            continue;
        }
        write!(out, "{name:<14}")?;
        for (_, quantile) in QUANTILES {
            let value = if quantile == 1.0 {
                histogram.max()
            } else {
                histogram.value_at_quantile(quantile)
            };
            write!(out, "{:>10}", show_ns(value))?;
        }
        writeln!(out, "{:>12}", show_count(histogram.len()))?;
    }
    Ok(())
}

fn proof(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let counts = &outcome.total.counts;
    writeln!(
        out,
        "proof        {} sent, {} answered: {} lost, {} duplicated, {} reordered, {} damaged, \
         {} strayed",
        show_count(counts.sent),
        show_count(counts.received),
        counts.lost(),
        counts.duplicated,
        counts.reordered,
        counts.damaged,
        counts.strayed
    )?;
    if counts.missed + counts.unsent > 0 {
        writeln!(
            out,
            "             {} due while their connection was down, {} due and never taken",
            counts.missed, counts.unsent
        )?;
    }
    if counts.given_up > 0 {
        let count = show_count(counts.given_up);
        writeln!(out, "             {count} under way when a storm dropped their connections")?;
    }
    writeln!(
        out,
        "bytes        {} out, {} in",
        show_bytes(counts.bytes_sent as f64),
        show_bytes(counts.bytes_received as f64)
    )
}

fn target(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    if let Some(own) = outcome.own_cpu_per_round_ns() {
        writeln!(
            out,
            "generator    {:.2} µs of CPU per round trip, {} of memory",
            own / 1e3,
            show_bytes(outcome.own_rss_bytes as f64)
        )?;
    }
    let Some(target) = &outcome.target else { return Ok(()) };
    if let (Some(cpu), Some(total)) = (outcome.target_cpu_per_round_ns(), outcome.target_cpu_ns()) {
        writeln!(
            out,
            "target       {:.2} µs of CPU per round trip ({:.2} per message each way), \
             {:.1} % of a core",
            cpu / 1e3,
            cpu / 2e3,
            100.0 * total as f64 / 1e9 / outcome.measured_s.max(1e-9)
        )?;
    }
    let look = &target.connected;
    writeln!(
        out,
        "             {} resident ({} before), {} threads, {} files, {} processes",
        show_bytes(look.rss_bytes as f64),
        show_bytes(target.before.rss_bytes as f64),
        look.threads,
        show_count(look.files),
        look.processes
    )?;
    if let Some(bytes) = outcome.bytes_per_connection() {
        writeln!(out, "             {bytes:.0} bytes of its own memory per connection")?;
    }
    for weighing in &target.weighings {
        writeln!(
            out,
            "             at {} connections{}: {} of its own, {} resident",
            show_count(u64::from(weighing.connections)),
            if weighing.spoken { ", all have spoken" } else { "" },
            show_bytes(weighing.look.own_bytes as f64),
            show_bytes(weighing.look.rss_bytes as f64)
        )?;
    }
    Ok(())
}

fn closes(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    for (name, count) in &outcome.total.names {
        writeln!(out, "server       {name}: {}", show_count(*count))?;
    }
    for (kind, count) in &outcome.total.errors {
        writeln!(out, "error        {} × {kind}", show_count(*count))?;
    }
    if let Some(refusal) = &outcome.total.refusal {
        writeln!(out, "             the first answer was: {}", refusal.replace('\n', " | "))?;
    }
    for (&(who, how), count) in &outcome.total.close_kinds {
        writeln!(out, "closed       {} × {}", show_count(*count), describe(who, how))?;
    }
    Ok(())
}

/// A close in words: `by the peer, Close 1012`.
pub fn describe(who: Who, how: How) -> String {
    let who = match who {
        Who::Peer => "by the peer",
        Who::Us => "by us",
    };
    match how {
        How::Fin => format!("{who}, FIN"),
        How::Reset => format!("{who}, reset"),
        How::Frame(code) => format!("{who}, Close {code}"),
        How::Protocol => format!("{who}, after a protocol error"),
        How::Errno(errno) => format!("{who}, {}", std::io::Error::from_raw_os_error(errno)),
    }
}

fn verdict(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    for note in &outcome.notes {
        writeln!(out, "note         {note}")?;
    }
    if let Verdict::Void(why) = outcome.verdict() {
        writeln!(out, "\nVOID: {why}")?;
    }
    Ok(())
}
