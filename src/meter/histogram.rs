//! Durations counted in fixed buckets, each bound a constant factor above the one before.

use std::time::Duration;

use super::{Count, Family, Sample, Sink};

/// `N` bounds in microseconds with their labels in seconds, and one more bucket without a bound.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [(u64, &'static str); N],
    buckets: [Count; N],
    beyond: Count,
    sum_us: Count,
}

impl<const N: usize> Histogram<N> {
    pub fn new(bounds: &'static [(u64, &'static str); N]) -> Self {
        debug_assert!(bounds.is_sorted_by_key(|(us, _)| *us));
        debug_assert!(bounds.iter().all(|(us, label)| label.parse() == Ok(*us as f64 / 1e6)));
        let buckets = std::array::from_fn(|_| Count::default());
        Self { bounds, buckets, beyond: Count::default(), sum_us: Count::default() }
    }

    pub fn record(&self, value: Duration) {
        let us = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|(bound, _)| *bound < us);
        self.buckets.get(bucket).unwrap_or(&self.beyond).inc();
        self.sum_us.add(us);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Count::get).sum::<u64>() + self.beyond.get()
    }

    /// Cumulative buckets, then the sum in seconds, then the count.
    pub fn each(&self, family: &'static Family, f: &mut Sink<'_>) {
        let mut sofar = 0;
        let mut bucket = |le, count: u64| {
            sofar += count;
            let value = sofar as f64;
            f(Sample { family, suffix: "_bucket", labels: &[("le", le)], value });
            sofar
        };
        for ((_, label), count) in self.bounds.iter().zip(&self.buckets) {
            bucket(label, count.get());
        }
        let count = bucket("+Inf", self.beyond.get()) as f64;
        let sum = self.sum_us.get() as f64 / 1e6;
        f(Sample { family, suffix: "_sum", labels: &[], value: sum });
        f(Sample { family, suffix: "_count", labels: &[], value: count });
    }
}
