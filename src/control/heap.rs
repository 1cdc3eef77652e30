//! Giving heap back after a burst. Young connections use buffers freely; what a storm of them left
//! free in the allocator is returned to the kernel from here, so that no core's thread pays for it
//! and a fleet at rest costs what its pipes cost.

use std::time::Duration;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// Connections that must have come since the heap was last returned to make it worth a walk.
const WORTH: u64 = 500;

/// When the heap was last returned, and after how many connections.
#[derive(Debug, Default)]
pub struct Heap {
    next: Duration,
    accepted: u64,
}

impl Heap {
    /// Returns free heap if enough connections have come by and few are young now.
    pub fn tick(&mut self, now: Duration, accepted: u64, young: u64) {
        if now < self.next {
            return;
        }
        self.next = now + EVERY;
        if accepted - self.accepted >= WORTH && young < WORTH {
            self.accepted = accepted;
            crate::sys::memory::return_free_heap();
        }
    }
}
