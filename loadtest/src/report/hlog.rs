//! The HdrHistogram interval log, V2, that other tools read. Values are nanoseconds.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use standpipe::sys::generator::monotonic_ns;

use crate::outcome::Outcome;

/// The log's last column is for people: milliseconds.
const MAX_DIVISOR: f64 = 1e6;

pub fn write(outcome: &Outcome, path: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = File::create(path).map_err(|error| failed(&error))?;
    let mut writer = BufWriter::new(file);
    let mut serializer = V2DeflateSerializer::new();
    let age = Duration::from_nanos(monotonic_ns().saturating_sub(outcome.began_ns));
    let began = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!("[standpipe-load {} {}, nanoseconds]", outcome.scene, outcome.url))
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(MAX_DIVISOR)
        .begin_log_with(&mut writer, &mut serializer)
        .map_err(|error| failed(&error))?;
    for (from_s, to_s, packed) in outcome.intervals.iter().flatten() {
        let (start, length) =
            (Duration::from_secs_f64(*from_s), Duration::from_secs_f64(to_s - from_s));
        let histogram = packed.open();
        log.write_histogram(&histogram, start, length, None).map_err(|error| failed(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_written_can_be_read_again() {
        use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
        let mut outcome = Outcome::blank("run", "tcp://x", 1);
        let mut histogram = crate::tally::histogram();
        histogram.record(1_000_000).unwrap();
        outcome.intervals = Some(vec![(1.0, 2.0, crate::tally::Packed::new(&histogram))]);
        let path = std::env::temp_dir().join(format!("standpipe-load-{}.hlog", std::process::id()));
        write(&outcome, &path).unwrap();
        let text = Arc::new(std::fs::read(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        let intervals = IntervalLogIterator::new(&text)
            .filter(|entry| matches!(entry, Ok(LogEntry::Interval(_))))
            .count();
        assert_eq!(intervals, 1);
    }
}
