//! Connections on their way from one core to another: neither carries them, and a core that many
//! are on their way to is no longer empty.

use super::Count;

/// How many connections each core has passed to each other one since the process began. Each row
/// has one writer, the core that passes; what arrived, the receiving core counts itself.
#[derive(Debug)]
pub struct Passing {
    rows: Vec<Row>,
}

/// On cache lines of its own: cores write at the same time.
#[derive(Debug)]
#[repr(align(128))]
struct Row(Box<[Count]>);

impl Passing {
    pub fn new(cores: usize) -> Self {
        let row = || Row((0..cores).map(|_| Count::default()).collect());
        Self { rows: (0..cores).map(|_| row()).collect() }
    }

    /// One was passed. Only `from` may say so.
    pub fn passed(&self, from: usize, to: usize) {
        self.rows[from].0[to].inc();
    }

    /// How many are on their way to core `to`, which had taken `taken` when the caller read that
    /// number. What it has taken since is still counted here: a caller that reads afterwards how
    /// many the core carries counts those twice rather than not at all.
    pub fn toward(&self, to: usize, taken: u64) -> u64 {
        let passed: u64 = self.rows.iter().map(|row| row.0[to].get()).sum();
        passed.saturating_sub(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_and_not_taken_is_on_its_way() {
        let passing = Passing::new(3);
        passing.passed(0, 2);
        passing.passed(1, 2);
        passing.passed(1, 0);
        assert_eq!([0, 1, 2].map(|core| passing.toward(core, 0)), [1, 0, 2]);
        assert_eq!(passing.toward(2, 1), 1);
        assert_eq!(passing.toward(2, 3), 0, "a receiver may count before its sender");
    }
}
