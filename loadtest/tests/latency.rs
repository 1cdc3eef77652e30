//! Latency that can be believed: a known distribution is measured, a stall is seen by the open loop
//! and hidden from the closed one, and other tools read the same from the log.

mod common;

use std::process::Command;
use std::thread;

use common::{Echo, measure, ms, number, one_of_five, python, said};

#[test]
fn percentiles_of_a_known_distribution_are_within_two_percent() {
    let echo = Echo::start(&["tcp://127.0.0.1:0", "--delay", "uniform:500ms:1500ms"]);
    // 1,600 connections at 1,000 a second: 1.6 s apart, so that no reply waits for another.
    let load = ["run", echo.url(), "-c", "1600", "--rate", "1000"];
    let times = ["--duration", "6s", "--warmup", "500ms", "--lag-bound", "1s"];
    one_of_five(|| {
        let run = measure(&[&load[..], &times[..]].concat());
        assert_eq!(number(&run, "/lost"), 0.0);
        for (name, truth) in [("p50", 1000.0), ("p90", 1400.0), ("p99", 1490.0), ("p99.9", 1499.0)]
        {
            let found = ms(&run, name);
            if (found / truth - 1.0).abs() >= 0.02 {
                return Err(format!("{name}: {found} ms, in truth {truth} ms"));
            }
        }
        Ok(())
    });
}

#[test]
fn an_open_loop_shows_the_stall_that_a_closed_loop_hides() {
    // A tenth of the time nobody is served: one message in ten waits for up to 500 ms.
    let stall = ["tcp://127.0.0.1:0", "--stall-every", "5s", "--stall", "500ms"];
    let times = ["--duration", "5s", "--warmup", "500ms", "--lag-bound", "1s"];
    one_of_five(|| {
        let echo = Echo::start(&stall);
        let url = echo.url().to_owned();
        let closed = thread::spawn(move || {
            measure(&[&["run", &url, "-c", "4", "--closed"][..], &times[..]].concat())
        });
        let open = ["run", echo.url(), "-c", "50", "--rate", "1000"];
        let open = measure(&[&open[..], &times[..]].concat());
        let closed = closed.join().unwrap();
        let (seen, hidden) = (ms(&open, "p99"), ms(&closed, "p99"));
        // It was there: the few that asked during the stall did wait.
        let waited = ms(&closed, "max");
        if !(400.0..520.0).contains(&seen) || hidden >= 50.0 || waited <= 400.0 {
            let closed = format!("closed p99 {hidden} ms, max {waited} ms");
            return Err(format!("of a stall of 500 ms: open p99 {seen} ms, {closed}"));
        }
        Ok(())
    });
}

#[test]
fn the_log_opens_in_another_implementation() {
    let Some(python) = python("hdrh.histogram") else { return };
    let echo = Echo::start(&["tcp://127.0.0.1:0", "--delay", "exponential:5ms"]);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run.hlog");
    let run = measure(&[
        "run",
        echo.url(),
        "-c",
        "50",
        "--rate",
        "1000",
        "--duration",
        "2s",
        "--warmup",
        "100ms",
        "--hlog",
        log.to_str().unwrap(),
        "--lag-bound",
        "1s",
    ]);
    let script = "
import sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
whole = HdrHistogram(100, 3600000000000, 3)
reader = HistogramLogReader(sys.argv[1], HdrHistogram(100, 3600000000000, 3))
intervals = 0
while True:
    one = reader.get_next_interval_histogram()
    if one is None:
        break
    intervals += 1
    whole.add(one)
print(intervals, whole.get_total_count(), whole.get_value_at_percentile(50),
      whole.get_value_at_percentile(99), whole.get_max_value())
";
    let output = Command::new(python).args(["-c", script]).arg(&log).output().unwrap();
    let text = said(&output);
    let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [intervals, total, p50, p99, max] = figures[..] else { panic!("it said: {text}") };
    assert!(intervals >= 2.0);
    assert_eq!(total, number(&run, "/latency/samples"));
    for (name, theirs) in [("p50", p50), ("p99", p99), ("max", max)] {
        let ours = number(&run, &format!("/latency/{name}"));
        assert!((theirs / ours - 1.0).abs() < 0.002, "{name}: {ours} here, {theirs} there");
    }
}
