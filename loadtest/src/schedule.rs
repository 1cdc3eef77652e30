//! When each message is due. Every connection has the same period and a random phase of its own;
//! the order of phases never changes, so a core's whole future is one sorted list, walked in
//! circles. Pure: time comes in as a number, and nothing is ever re-timed.

/// The due times of one core's active connections.
#[derive(Debug)]
pub struct Schedule {
    start_ns: u64,
    period_ns: f64,
    /// (phase in nanoseconds, link), ascending.
    phases: Vec<(u64, u32)>,
    /// The next entry of `phases`, and how often the list was walked to its end.
    at: usize,
    round: u32,
}

/// One message that is due: the `round`-th of its link under this schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub link: u32,
    pub round: u32,
    pub due_ns: u64,
}

impl Schedule {
    /// `links` are this core's; each gets `1e9 / period_ns` messages a second from `start_ns` on.
    pub fn new(start_ns: u64, period_ns: f64, links: &[u32], random: &mut fastrand::Rng) -> Self {
        let mut phases: Vec<(u64, u32)> =
            links.iter().map(|&link| ((random.f64() * period_ns) as u64, link)).collect();
        phases.sort_unstable();
        Schedule { start_ns, period_ns, phases, at: 0, round: 0 }
    }

    /// The next message of all, whether its time has come or not.
    pub fn peek(&self) -> Option<Due> {
        let &(phase, link) = self.phases.get(self.at)?;
        Some(Due { link, round: self.round, due_ns: self.time(phase, self.round) })
    }

    /// Takes the message that `peek` showed.
    pub fn advance(&mut self) {
        self.at += 1;
        if self.at >= self.phases.len() {
            self.at = 0;
            self.round += 1;
        }
    }

    /// How many messages due before `end_ns` have not been taken.
    pub fn left_until(&self, end_ns: u64) -> u64 {
        let rounds = |phase: u64| {
            let span = end_ns.saturating_sub(self.start_ns + phase);
            (span as f64 / self.period_ns).ceil() as u64
        };
        let all: u64 = self.phases.iter().map(|&(phase, _)| rounds(phase)).sum();
        all.saturating_sub(u64::from(self.round) * self.phases.len() as u64 + self.at as u64)
    }

    /// When message `sequence` of a connection is due whose message `known` is due at `known_ns`.
    pub fn relative(&self, known: u32, known_ns: u64, sequence: u32) -> u64 {
        let steps = f64::from(known.wrapping_sub(sequence)) * self.period_ns;
        known_ns.saturating_sub(steps as u64)
    }

    fn time(&self, phase: u64, round: u32) -> u64 {
        self.start_ns + phase + (f64::from(round) * self.period_ns) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_met_and_order_never_breaks() {
        let links: Vec<u32> = (0..100).collect();
        let mut random = fastrand::Rng::with_seed(7);
        // 100 links, 1,000 messages a second over all: each link every 100 ms.
        let mut schedule = Schedule::new(5_000, 1e8, &links, &mut random);
        let mut last = 0;
        let mut count = 0;
        while let Some(due) = schedule.peek() {
            if due.due_ns >= 5_000 + 10_000_000_000 {
                break;
            }
            assert!(due.due_ns >= last);
            last = due.due_ns;
            count += 1;
            schedule.advance();
        }
        assert_eq!(count, 10_000);
        assert_eq!(schedule.left_until(5_000 + 10_000_000_000), 0);
        assert_eq!(schedule.left_until(5_000 + 11_000_000_000), 1_000);
    }

    #[test]
    fn a_link_keeps_its_phase() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut schedule = Schedule::new(0, 1e6, &[4], &mut random);
        let first = schedule.peek().unwrap();
        for _ in 0..1000 {
            schedule.advance();
        }
        let later = schedule.peek().unwrap();
        assert_eq!(later.round, 1000);
        assert_eq!(later.due_ns - first.due_ns, 1_000_000_000);
        assert!(schedule.relative(1000, later.due_ns, 0).abs_diff(first.due_ns) <= 1);
    }

    #[test]
    fn nobody_active_means_nothing_due() {
        let mut random = fastrand::Rng::with_seed(1);
        assert_eq!(Schedule::new(0, 1e6, &[], &mut random).peek(), None);
    }
}
