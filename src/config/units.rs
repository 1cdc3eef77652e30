//! Durations and sizes as people write them: `"250ms"`, `"1h30m"`, `"64KiB"`.

use std::time::Duration;

/// Whole numbers with units, largest first by habit but in any order: `"90s"`, `"1m30s"`.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    if text.is_empty() {
        return Err(DURATION);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = number(rest).ok_or(DURATION)?;
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(DURATION),
        };
        let part = number.checked_mul(milliseconds).ok_or(TOO_LARGE)?;
        total = total.checked_add(Duration::from_millis(part)).ok_or(TOO_LARGE)?;
        rest = next;
    }
    Ok(total)
}

/// A whole number of `B`, `KiB`, `MiB` or `GiB`.
pub fn size(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = number(text).ok_or(SIZE)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(SIZE),
    };
    number.checked_mul(bytes).ok_or(TOO_LARGE)
}

/// The shortest way to write a duration that [`duration`] reads back.
pub fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    [(3_600_000, "h"), (60_000, "m"), (1_000, "s")]
        .into_iter()
        .find(|(unit, _)| milliseconds.is_multiple_of(*unit))
        .map_or_else(
            || format!("{milliseconds}ms"),
            |(unit, n)| format!("{}{n}", milliseconds / unit),
        )
}

/// The shortest way to write a size that [`size`] reads back.
pub fn show_size(bytes: u64) -> String {
    [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        .into_iter()
        .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    digits.parse().ok().map(|number| (number, rest))
}

const DURATION: &str =
    "write a whole number and a unit (ms, s, m, h, d) such as \"250ms\" or \"5s\"";
const SIZE: &str = "write a whole number and a unit (B, KiB, MiB, GiB) such as \"64KiB\"";
const TOO_LARGE: &str = "the number is too large";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, milliseconds) in
            [("250ms", 250), ("5s", 5_000), ("10m", 600_000), ("1h", 3_600_000), ("1m30s", 90_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-1s", "1.5s", "5sec", "99999999999999999999s", "5é"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("18446744073709551615h"), Err(TOO_LARGE));
    }

    #[test]
    fn sizes_are_binary() {
        for (text, bytes) in [("0B", 0), ("512B", 512), ("64KiB", 65_536), ("1GiB", 1 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "64", "64KB", "64k", "KiB", "1.5MiB", "99999999999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(n in 0u64..=u64::MAX / 4) {
            let span = Duration::from_millis(n % (1 << 50));
            prop_assert_eq!(duration(&show_duration(span)), Ok(span));
            prop_assert_eq!(size(&show_size(n)), Ok(n));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (duration(&text), size(&text));
        }
    }
}
