//! How the main thread and the generator threads keep time together: a few atomics down, a few
//! gauges and a channel up. Nothing here touches a socket.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::tally::Tally;

/// Written by the main thread, read by all. Times are CLOCK_MONOTONIC nanoseconds; zero: not yet.
#[derive(Debug, Default)]
pub struct Conductor {
    start_ns: AtomicU64,
    measure_from_ns: AtomicU64,
    measure_to_ns: AtomicU64,
    drain_to_ns: AtomicU64,
    /// Connections with a number below this may be dialled.
    allowed: AtomicU32,
    /// How often everybody was told to drop everything and come back.
    storms: AtomicU32,
    /// How often the chosen ones were told to vanish.
    vanishings: AtomicU32,
    leave: AtomicBool,
    gauges: Vec<Gauge>,
}

/// Written by one thread, read by the main thread for the live line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Gauge {
    pub open: AtomicU32,
    pub dialled: AtomicU32,
    pub failed: AtomicU32,
    pub sent: AtomicU64,
    pub received: AtomicU64,
}

/// The agreed times of a run whose connections are up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub start_ns: u64,
    pub measure_from_ns: u64,
    pub measure_to_ns: u64,
    pub drain_to_ns: u64,
}

/// From a thread to the main one.
pub enum Report {
    /// What was counted in the last second or so.
    Interval(Box<Tally>),
    /// How far this thread has come.
    Reached(usize, Step),
}

/// What the main thread waits for all others to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Every allowed connection of this thread is up, or was given up.
    Ready,
    /// The measured window is over and nothing is awaited any more.
    Quiet,
    /// The thread has left, well or badly; nothing follows.
    Done,
}

/// Who has reached what. A thread that has left holds nobody up: it will not reach anything else.
#[derive(Debug)]
pub struct Muster {
    /// By thread, then by step.
    reached: Vec<[bool; 3]>,
}

impl Muster {
    pub fn new(threads: usize) -> Muster {
        Muster { reached: vec![[false; 3]; threads] }
    }

    pub fn note(&mut self, thread: usize, step: Step) {
        self.reached[thread][step as usize] = true;
    }

    /// Nobody is there any more.
    pub fn dismiss(&mut self) {
        for thread in &mut self.reached {
            thread[Step::Done as usize] = true;
        }
    }

    /// This step is to be reached again.
    pub fn forget(&mut self, step: Step) {
        for thread in &mut self.reached {
            thread[step as usize] = false;
        }
    }

    pub fn all(&self, step: Step) -> bool {
        self.reached.iter().all(|thread| thread[step as usize] || thread[Step::Done as usize])
    }
}

impl Conductor {
    pub fn new(threads: usize) -> Conductor {
        Conductor {
            gauges: (0..threads).map(|_| Gauge::default()).collect(),
            allowed: AtomicU32::new(u32::MAX),
            ..Conductor::default()
        }
    }

    pub fn gauge(&self, thread: usize) -> &Gauge {
        &self.gauges[thread]
    }

    pub fn gauges(&self) -> &[Gauge] {
        &self.gauges
    }

    pub fn start(&self, times: Times) {
        self.measure_from_ns.store(times.measure_from_ns, Relaxed);
        self.measure_to_ns.store(times.measure_to_ns, Relaxed);
        self.drain_to_ns.store(times.drain_to_ns, Relaxed);
        // Last, with release, so that who sees the start sees the rest.
        self.start_ns.store(times.start_ns, std::sync::atomic::Ordering::Release);
    }

    /// The times, once the run has started.
    #[inline]
    pub fn times(&self) -> Option<Times> {
        let start_ns = self.start_ns.load(std::sync::atomic::Ordering::Acquire);
        (start_ns != 0).then(|| Times {
            start_ns,
            measure_from_ns: self.measure_from_ns.load(Relaxed),
            measure_to_ns: self.measure_to_ns.load(Relaxed),
            drain_to_ns: self.drain_to_ns.load(Relaxed),
        })
    }

    /// Lets connections with numbers below `count` be dialled.
    pub fn allow(&self, count: u32) {
        self.allowed.store(count, Relaxed);
    }

    #[inline]
    pub fn allowed(&self) -> u32 {
        self.allowed.load(Relaxed)
    }

    pub fn storm(&self) {
        self.storms.fetch_add(1, Relaxed);
    }

    #[inline]
    pub fn storms(&self) -> u32 {
        self.storms.load(Relaxed)
    }

    pub fn vanish(&self) {
        self.vanishings.fetch_add(1, Relaxed);
    }

    #[inline]
    pub fn vanishings(&self) -> u32 {
        self.vanishings.load(Relaxed)
    }

    /// Close everything now.
    pub fn leave(&self) {
        self.leave.store(true, Relaxed);
    }

    #[inline]
    pub fn leaving(&self) -> bool {
        self.leave.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_left_holds_nobody_up_and_nobody_counts_twice() {
        let mut muster = Muster::new(2);
        muster.note(0, Step::Quiet);
        muster.note(0, Step::Quiet);
        muster.note(0, Step::Done);
        assert!(!muster.all(Step::Quiet));
        muster.note(1, Step::Quiet);
        assert!(muster.all(Step::Quiet) && !muster.all(Step::Done));
        // The one that has left cannot become quiet again, and need not.
        muster.forget(Step::Quiet);
        assert!(!muster.all(Step::Quiet));
        muster.note(1, Step::Quiet);
        assert!(muster.all(Step::Quiet) && !muster.all(Step::Ready));
        muster.dismiss();
        assert!(muster.all(Step::Ready) && muster.all(Step::Done));
    }
}
