//! The end of the process, step by step: say so, stop taking, let pipes end, stop. Pure: the time
//! and what happened come in, what to do comes out.

use std::time::{Duration, Instant};

/// How long cores may take to leave once they were told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Serving,
    /// `/ready` says 503, so that a balancer in front of us looks elsewhere; still accepting.
    Leaving {
        until: Instant,
    },
    /// Listeners are closed; pipes are given time.
    Draining {
        until: Instant,
    },
    /// Every pipe is being ended.
    Stopping {
        until: Instant,
    },
}

/// What is to be done about the end now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Wait,
    /// Close the listeners, and ask what can be asked to close to do so.
    Drain,
    /// End everything.
    Stop,
    /// Nothing is left, or nothing more can be waited for.
    Leave,
}

/// `[runtime]`'s say in it.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub delay: Duration,
    pub timeout: Duration,
}

impl Phase {
    pub fn is_serving(self) -> bool {
        self == Phase::Serving
    }

    pub fn name(self) -> &'static str {
        match self {
            Phase::Serving => "serving",
            Phase::Leaving { .. } => "leaving",
            Phase::Draining { .. } => "draining",
            Phase::Stopping { .. } => "stopping",
        }
    }

    /// A signal asked for the end; the second one asks for it now.
    pub fn asked(&mut self, now: Instant, times: Times) -> Step {
        match self {
            Phase::Serving => {
                *self = Phase::Leaving { until: now + times.delay };
                self.passed(now, times, false)
            }
            Phase::Leaving { .. } | Phase::Draining { .. } => self.stop(now),
            Phase::Stopping { .. } => Step::Wait,
        }
    }

    /// Time has passed; `all_gone`: every core has left.
    pub fn passed(&mut self, now: Instant, times: Times, all_gone: bool) -> Step {
        match *self {
            Phase::Serving => Step::Wait,
            _ if all_gone => Step::Leave,
            Phase::Leaving { until } if now >= until => {
                *self = Phase::Draining { until: now + times.timeout };
                Step::Drain
            }
            Phase::Draining { until } if now >= until => self.stop(now),
            Phase::Stopping { until } if now >= until => Step::Leave,
            Phase::Leaving { .. } | Phase::Draining { .. } | Phase::Stopping { .. } => Step::Wait,
        }
    }

    fn stop(&mut self, now: Instant) -> Step {
        *self = Phase::Stopping { until: now + STOP_WITHIN };
        Step::Stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { delay: Duration::from_secs(5), timeout: Duration::from_secs(600) };

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_term_is_followed_by_delay_drain_and_stop() {
        let start = Instant::now();
        let mut phase = Phase::Serving;
        assert_eq!(phase.passed(start, TIMES, false), Step::Wait);
        assert_eq!(phase.asked(start, TIMES), Step::Wait);
        assert!(!phase.is_serving());
        assert_eq!(phase.passed(after(start, 4), TIMES, false), Step::Wait);
        assert_eq!(phase.passed(after(start, 5), TIMES, false), Step::Drain);
        assert_eq!(phase.passed(after(start, 604), TIMES, false), Step::Wait);
        assert_eq!(phase.passed(after(start, 605), TIMES, false), Step::Stop);
        assert_eq!(phase.passed(after(start, 606), TIMES, true), Step::Leave);
    }

    #[test]
    fn the_drain_ends_with_the_last_pipe() {
        let start = Instant::now();
        let mut phase = Phase::Serving;
        let now = Times { delay: Duration::ZERO, ..TIMES };
        assert_eq!(phase.asked(start, now), Step::Drain);
        assert_eq!(phase.passed(after(start, 1), now, true), Step::Leave);
    }

    #[test]
    fn a_second_signal_stops_and_a_stuck_core_is_not_waited_for() {
        let start = Instant::now();
        let mut phase = Phase::Serving;
        phase.asked(start, TIMES);
        assert_eq!(phase.asked(after(start, 1), TIMES), Step::Stop);
        assert_eq!(phase.asked(after(start, 2), TIMES), Step::Wait);
        assert_eq!(phase.passed(after(start, 7), TIMES, false), Step::Leave);
    }
}
