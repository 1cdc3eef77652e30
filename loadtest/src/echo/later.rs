//! Replies that wait: a fixed delay or one drawn from a distribution, in order per connection.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// How long a reply waits.
#[derive(Clone, Debug, PartialEq)]
pub enum Delay {
    Fixed(Duration),
    Uniform(Duration, Duration),
    /// By its mean.
    Exponential(Duration),
    /// By its median and the standard deviation of its logarithm.
    LogNormal(Duration, f64),
}

impl Delay {
    /// `10ms`, `uniform:1ms:5ms`, `exponential:3ms` or `lognormal:2ms:0.7`.
    pub fn parse(text: &str) -> Result<Delay, String> {
        let wrong = || {
            format!(
                "{text}: want 10ms, uniform:1ms:5ms, exponential:3ms (mean) or lognormal:2ms:0.7 \
                 (median, sigma)"
            )
        };
        let time = |part: &str| crate::units::parse_duration(part).map_err(|_| wrong());
        let parts: Vec<&str> = text.split(':').collect();
        match parts[..] {
            [fixed] => Ok(Delay::Fixed(time(fixed)?)),
            ["uniform", low, high] => {
                let (low, high) = (time(low)?, time(high)?);
                if low <= high { Ok(Delay::Uniform(low, high)) } else { Err(wrong()) }
            }
            ["exponential", mean] => Ok(Delay::Exponential(time(mean)?)),
            ["lognormal", median, sigma] => {
                let sigma: f64 = sigma.parse().map_err(|_| wrong())?;
                if !sigma.is_finite() || !(0.0..=5.0).contains(&sigma) {
                    return Err(wrong());
                }
                Ok(Delay::LogNormal(time(median)?, sigma))
            }
            _ => Err(wrong()),
        }
    }

    pub fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        let ns = |time: Duration| time.as_nanos() as f64;
        let drawn = match *self {
            Delay::Fixed(time) => ns(time),
            Delay::Uniform(low, high) => ns(low) + random.f64() * (ns(high) - ns(low)),
            Delay::Exponential(mean) => -(1.0 - random.f64()).ln() * ns(mean),
            Delay::LogNormal(median, sigma) => {
                // Box and Muller: two even numbers make one that is normal.
                let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * random.f64()).cos();
                ns(median) * (sigma * normal).exp()
            }
        };
        drawn as u64
    }
}

/// A reply that waits for its time.
pub struct Waiting {
    pub slot: u32,
    /// Tells a connection from an earlier one in the same slot.
    pub life: u32,
    pub bytes: Vec<u8>,
}

/// All replies of a thread that wait.
#[derive(Default)]
pub struct Later {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: std::collections::HashMap<u64, Waiting>,
    next: u64,
}

impl Later {
    pub fn put(&mut self, due_ns: u64, waiting: Waiting) {
        self.heap.push(Reverse((due_ns, self.next)));
        self.waiting.insert(self.next, waiting);
        self.next += 1;
    }

    pub fn next_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((due, _))| *due)
    }

    /// The next reply whose time has come.
    pub fn take(&mut self, now: u64) -> Option<Waiting> {
        if self.next_ns()? > now {
            return None;
        }
        let Reverse((_, id)) = self.heap.pop()?;
        self.waiting.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_have_the_mean_they_promise() {
        let mut random = fastrand::Rng::with_seed(3);
        for (text, mean_ms) in [("2ms", 2.0), ("uniform:1ms:5ms", 3.0), ("exponential:3ms", 3.0)] {
            let delay = Delay::parse(text).unwrap();
            let sum: f64 = (0..200_000).map(|_| delay.draw(&mut random) as f64).sum();
            let mean = sum / 200_000.0 / 1e6;
            assert!((mean / mean_ms - 1.0).abs() < 0.01, "{text}: {mean}");
        }
        let delay = Delay::parse("lognormal:2ms:0.7").unwrap();
        let mut drawn: Vec<u64> = (0..100_001).map(|_| delay.draw(&mut random)).collect();
        drawn.sort_unstable();
        assert!((drawn[50_000] as f64 / 2e6 - 1.0).abs() < 0.02);
    }

    #[test]
    fn replies_come_in_the_order_of_their_times() {
        let mut later = Later::default();
        for due in [30, 10, 20] {
            later.put(due, Waiting { slot: due as u32, life: 0, bytes: Vec::new() });
        }
        assert!(later.take(9).is_none());
        let order: Vec<u32> =
            std::iter::from_fn(|| later.take(100)).map(|waiting| waiting.slot).collect();
        assert_eq!(order, [10, 20, 30]);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "soon", "uniform:5ms:1ms", "lognormal:1ms", "lognormal:1ms:nan"] {
            assert!(Delay::parse(bad).is_err(), "{bad}");
        }
    }
}
