//! An outcome, for people and for programs.

mod json;
mod text;

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
    if let Verdict::Void(_) = outcome.verdict() {
        return Ok(3);
    }
    Ok(0)
}
