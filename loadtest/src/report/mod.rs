//! An outcome, for people and for programs.

mod expect;
mod hlog;
mod html;
mod json;
mod plot;
mod text;

pub use expect::Expectation;

use crate::cli::OutputArgs;
use crate::outcome::{Outcome, Verdict};

/// The percentiles every table has.
pub const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// Prints and writes what was asked for; returns the exit code.
pub fn deliver(outcome: &Outcome, output: &OutputArgs) -> Result<u8, String> {
    print!("{}", text::write(outcome));
    if let Some(path) = &output.json {
        let text = serde_json::to_string_pretty(&json::write(outcome))
            .map_err(|error| format!("cannot write JSON: {error}"))?;
        std::fs::write(path, text + "\n")
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(path) = &output.hlog {
        hlog::write(outcome, path)?;
    }
    if let Some(path) = &output.html {
        std::fs::write(path, html::write(outcome))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let mut failed = false;
    for text in &output.expect {
        if let Some(failure) = Expectation::parse(text)?.failure(outcome) {
            println!("FAILED: {failure}");
            failed = true;
        }
    }
    match outcome.verdict() {
        Verdict::Void(_) => Ok(3),
        Verdict::Sound => Ok(u8::from(failed)),
    }
}
