//! The page: one file, no script, nothing fetched; it opens from a disk without a network.

use std::fmt::Write as _;

use super::plot::{Axis, Plot, Series, escape};
use super::text;
use crate::outcome::{Moment, Outcome, Verdict};
use crate::units::{show_count, show_ns};

pub fn write(outcome: &Outcome) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = head(&mut out, outcome);
    for plot in plots(outcome) {
        out.push_str("<figure>");
        out.push_str(&plot);
        out.push_str("</figure>\n");
    }
    let _ = write!(out, "<h2>Report</h2>\n<pre>{}</pre>\n", escape(&text::write(outcome)));
    out.push_str("</main></body></html>\n");
    out
}

fn head(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let title = format!("standpipe-load {} {}", outcome.scene, outcome.url);
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{0}</title>\n\
         <style>{STYLE}</style></head>\n<body><main>\n<h1>{0}</h1>\n",
        escape(&title)
    )?;
    if let Verdict::Void(why) = outcome.verdict() {
        writeln!(out, "<p class=\"void\">Void: {}</p>", escape(&why))?;
    }
    if outcome.interrupted {
        writeln!(out, "<p class=\"void\">Interrupted: what was measured until then.</p>")?;
    }
    let rate = match outcome.intended_rate {
        Some(rate) => (
            show_count(outcome.achieved_rate().round() as u64),
            format!("messages/s of {} intended", show_count(rate.round() as u64)),
        ),
        None => {
            (show_count(outcome.answered_rate().round() as u64), "messages/s answered".to_owned())
        }
    };
    let p99 = show_ns(outcome.total.latency.value_at_quantile(0.99));
    let tiles = [
        rate,
        (p99, "latency, 99th percentile".to_owned()),
        (show_count(u64::from(outcome.open_at_start)), "connections".to_owned()),
        (show_count(outcome.errors()), "errors".to_owned()),
    ];
    out.push_str("<div class=\"tiles\">");
    for (value, name) in tiles {
        write!(out, "<div><b>{}</b><span>{}</span></div>", escape(&value), escape(&name))?;
    }
    out.push_str("</div>\n");
    Ok(())
}

fn plots(outcome: &Outcome) -> Vec<String> {
    let over_time = |value: fn(&Moment) -> f64| -> Vec<(f64, f64)> {
        outcome.moments.iter().map(|moment| (moment.at_s, value(moment))).collect()
    };
    // The last stretch is whatever was left: too short a one has no rate to speak of.
    let per_second = |value: fn(&Moment) -> u64| -> Vec<(f64, f64)> {
        let long = outcome.moments.iter().filter(|moment| moment.span_s > 0.2);
        long.map(|moment| (moment.at_s, value(moment) as f64 / moment.span_s)).collect()
    };
    // Seconds without an answer have no latency to show.
    let answered = |value: fn(&Moment) -> u64| -> Vec<(f64, f64)> {
        let some = outcome.moments.iter().filter(|moment| moment.max_ns > 0);
        some.map(|moment| (moment.at_s, value(moment) as f64)).collect()
    };
    let time = "time since the run began (s)";
    let mut list = vec![
        Plot {
            title: "Latency by percentile",
            x_label: "share of messages answered within (each nine has the same width)",
            y_label: "latency",
            x: Axis::Nines,
            y: Axis::Time,
            series: by_percentile(outcome),
        },
        Plot {
            title: "Latency over time",
            x_label: time,
            y_label: "latency",
            x: Axis::Linear,
            y: Axis::Time,
            series: vec![
                Series { name: "p50", class: "a", points: answered(|moment| moment.p50_ns) },
                Series { name: "p99", class: "b", points: answered(|moment| moment.p99_ns) },
                Series { name: "max", class: "c", points: answered(|moment| moment.max_ns) },
            ],
        },
        simple("Connections over time", time, "open", over_time(|one| f64::from(one.open))),
        Plot {
            title: "Messages over time",
            x_label: time,
            y_label: "messages per second",
            x: Axis::Linear,
            y: Axis::Linear,
            series: vec![
                Series { name: "sent", class: "a", points: per_second(|one| one.sent) },
                Series { name: "answered", class: "b", points: per_second(|one| one.received) },
            ],
        },
        simple("Errors over time", time, "errors per second", per_second(|one| one.errors)),
    ];
    if outcome.target.is_some() {
        let memory = over_time(|one| one.target_rss_bytes as f64 / (1 << 20) as f64);
        let memory = memory.into_iter().filter(|point| point.1 > 0.0).collect();
        list.push(simple("Target CPU", time, "cores busy", cpu(&outcome.moments)));
        list.push(simple("Target memory", time, "resident (MiB)", memory));
    }
    list.iter().map(Plot::draw).collect()
}

fn simple<'a>(
    title: &'a str,
    x_label: &'a str,
    y_label: &'a str,
    points: Vec<(f64, f64)>,
) -> Plot<'a> {
    let series = vec![Series { name: y_label, class: "a", points }];
    Plot { title, x_label, y_label, x: Axis::Linear, y: Axis::Linear, series }
}

/// Between neighbouring seconds: CPU time over time.
fn cpu(moments: &[Moment]) -> Vec<(f64, f64)> {
    moments
        .windows(2)
        .filter(|pair| pair[0].target_cpu_ns > 0 && pair[1].span_s > 0.2)
        .map(|pair| {
            let busy = pair[1].target_cpu_ns.saturating_sub(pair[0].target_cpu_ns) as f64 / 1e9;
            (pair[1].at_s, busy / (pair[1].at_s - pair[0].at_s).max(1e-3))
        })
        .collect()
}

fn by_percentile(outcome: &Outcome) -> Vec<Series<'static>> {
    let rows =
        [("latency", "b", &outcome.total.latency), ("generator lag", "a", &outcome.total.lag)];
    let mut list = Vec::new();
    for (name, class, histogram) in rows {
        if histogram.is_empty() {
            continue;
        }
        // As far right as there are samples to speak for it.
        let nines = (histogram.len() as f64).log10().min(6.0);
        let steps = (nines * 40.0) as u32;
        let points = (0..=steps)
            .map(|step| 1.0 - 10f64.powf(-f64::from(step) / 40.0))
            .map(|quantile| (quantile, histogram.value_at_quantile(quantile) as f64))
            .collect();
        list.push(Series { name, class, points });
    }
    list
}

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2430;--soft:#66707d;--grid:#e3e7ec;--page:#fff;
--a:#2868c8;--b:#c2571a;--c:#8a3f9e}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#9aa4b1;--grid:#2b323c;
--page:#14181d;--a:#6fa8ff;--b:#ff9d5c;--c:#d08be0}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0}
main{max-width:800px;margin:0 auto;padding:24px 16px}
h1{font-size:20px;overflow-wrap:anywhere}h2{font-size:16px}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin:16px 0}
.tiles div{flex:1 1 150px;border:1px solid var(--grid);border-radius:8px;padding:10px 14px}
.tiles b{display:block;font-size:22px}.tiles span{color:var(--soft);font-size:13px}
.void{border-left:4px solid var(--b);padding-left:10px}
figure{margin:18px 0}.plot{width:100%;height:auto;display:block}
.plot text{fill:var(--ink);font-size:12px}.plot .title{font-size:15px;font-weight:600}
.plot .tick{fill:var(--soft);font-size:11px}.grid{stroke:var(--grid);fill:none}
.axis{stroke:var(--soft);fill:none}.line{fill:none;stroke-width:1.8}
.a{stroke:var(--a)}.b{stroke:var(--b)}.c{stroke:var(--c)}
pre{overflow-x:auto;font-size:12px;border:1px solid var(--grid);border-radius:8px;padding:12px}
";
