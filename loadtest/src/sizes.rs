//! How long messages are: one size, or a mix by weight. The size of a message follows from its
//! connection and number, so that both ends agree on it without being told.

use crate::message::MESSAGE_BYTES_MAX;

#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// (bytes, share of all up to and including this one, 0 to 1).
    steps: Vec<(usize, f64)>,
}

impl Sizes {
    /// `128`, `4KiB`, or a mix by weight: `128:90,4KiB:9,64KiB:1`.
    pub fn parse(text: &str) -> Result<Sizes, String> {
        let mut steps = Vec::new();
        let mut total = 0.0;
        for part in text.split(',') {
            let (size, weight) = part.split_once(':').unwrap_or((part, "1"));
            let bytes = parse_bytes(size.trim())?;
            if bytes > MESSAGE_BYTES_MAX {
                return Err(format!("{size}: a message is at most {MESSAGE_BYTES_MAX} bytes"));
            }
            let weight: f64 =
                weight.trim().parse().map_err(|_| format!("{part}: {weight} is not a weight"))?;
            if !weight.is_finite() || weight <= 0.0 {
                return Err(format!("{part}: a weight is above zero"));
            }
            total += weight;
            steps.push((bytes, total));
        }
        steps.iter_mut().for_each(|step| step.1 /= total);
        Ok(Sizes { steps })
    }

    #[inline]
    pub fn of(&self, connection: u32, sequence: u32) -> usize {
        if let [(bytes, _)] = self.steps[..] {
            return bytes;
        }
        let mixed = (u64::from(connection) << 32 | u64::from(sequence))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(31)
            .wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let point = (mixed >> 11) as f64 / (1u64 << 53) as f64;
        self.steps.iter().find(|step| point < step.1).or(self.steps.last()).map_or(0, |step| step.0)
    }

    pub fn smallest(&self) -> usize {
        self.steps.iter().map(|step| step.0).min().unwrap_or(0)
    }

    pub fn largest(&self) -> usize {
        self.steps.iter().map(|step| step.0).max().unwrap_or(0)
    }

    pub fn contains(&self, bytes: usize) -> bool {
        self.steps.iter().any(|step| step.0 == bytes)
    }
}

/// `200`, `64KiB`, `1MiB`, `10MB`, `2GiB`.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let digits = text.find(|byte: char| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        other => return Err(format!("{text}: unknown unit {other}; want B, KiB, MiB, GiB, kB …")),
    };
    let number: usize = number.parse().map_err(|_| format!("{text}: not a size like 64KiB"))?;
    number.checked_mul(factor).ok_or(format!("{text}: too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_keeps_its_shares() {
        let sizes = Sizes::parse("128:90,4KiB:9,64KiB:1").unwrap();
        let large = (0..100_000).filter(|&n| sizes.of(n % 300, n / 300) == 4096).count();
        assert!((8_500..9_500).contains(&large), "{large} of 100000");
        assert_eq!((sizes.smallest(), sizes.largest()), (128, 65_536));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "x", "12q", "1:0", "1:-1", "1:nan", "99999999999999999999", "17MiB"] {
            assert!(Sizes::parse(bad).is_err(), "{bad}");
        }
    }
}
