//! The smallest parts: a number one thread writes and others read, and what it is called.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows. One writer: a plain load and store, never a locked instruction; two
/// writers would lose counts.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// What was counted stays counted.
    pub(super) fn bury(&self) {}
}

/// A number that grows and shrinks; one writer, as for [`Count`].
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn dec(&self) {
        self.sub(1);
    }

    pub fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    /// Stops at zero: a gauge that went below would be shown as eighteen quintillion.
    pub fn sub(&self, less: u64) {
        debug_assert!(self.get() >= less, "a gauge would fall below zero");
        self.set(self.get().saturating_sub(less));
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its writer has died, with all it stood for.
    pub(super) fn bury(&self) {
        self.set(0);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A version number that vouches for what its writer wrote before it: a reader that reads the mark
/// first and another cell afterwards sees that cell at least as new.
#[derive(Debug, Default)]
pub struct Mark(AtomicU64);

impl Mark {
    pub fn set(&self, version: u64) {
        self.0.store(version, Ordering::Release);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// What it vouched for was so.
    pub(super) fn bury(&self) {}
}

/// What a metric is: everything but its value and whose it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Without the `standpipe_` every name begins with; a counter's ends in `_total`.
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    /// Has so many label values that those still at zero are better left out.
    pub sparse: bool,
}

/// What a family's values are (its `TYPE` in the text format).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One line of exposition, but for the labels that say which core, listener, route or server.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    pub family: &'static Family,
    /// Empty, or `_bucket`, `_sum`, `_count` of a histogram.
    pub suffix: &'static str,
    pub labels: &'a [(&'static str, &'static str)],
    pub value: f64,
}

/// Takes samples. Structs of counters give the same sequence of families and labels each time,
/// so those of several cores can be summed line by line.
pub type Sink<'a> = dyn FnMut(Sample<'_>) + 'a;

impl Family {
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help, sparse: false }
    }

    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help, sparse: false }
    }

    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, help, sparse: false }
    }

    pub const fn sparse(self) -> Self {
        Self { sparse: true, ..self }
    }

    /// Pass one value of this family on.
    pub fn tell(
        &'static self,
        sink: &mut Sink<'_>,
        labels: &[(&'static str, &'static str)],
        value: u64,
    ) {
        sink(Sample { family: self, suffix: "", labels, value: value as f64 });
    }
}
