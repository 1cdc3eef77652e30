//! What one thread counts, and how the counts of all are brought together.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

/// Nanoseconds from 100 ns to an hour, three digits.
pub fn histogram() -> Histogram<u64> {
    // The bounds are constants that the constructor accepts.
    Histogram::new_with_bounds(100, 3_600_000_000_000, 3).expect("constant bounds are legal")
}

/// A histogram, compressed: some kilobytes at most, where an open one has two hundred.
#[derive(Debug, Clone)]
pub struct Packed(Vec<u8>);

impl Packed {
    pub fn new(histogram: &Histogram<u64>) -> Packed {
        let mut bytes = Vec::new();
        // It is written to memory, and no count comes near the limit of the format, 2^63.
        V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("counts are in bounds");
        bytes.shrink_to_fit();
        Packed(bytes)
    }

    pub fn open(&self) -> Histogram<u64> {
        // Nobody else has written these bytes.
        Deserializer::new().deserialize(&mut self.0.as_slice()).expect("packed by ourselves")
    }
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Peer,
    Us,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// A FIN without more words.
    Fin,
    Reset,
    /// A Close frame with this code (1005: none given).
    Frame(u16),
    /// The bytes were not what the protocol allows.
    Protocol,
    /// Any other error of the socket, by errno.
    Errno(i32),
}

/// One end of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Close {
    pub who: Who,
    pub how: How,
    pub connection: u32,
    /// Since the run began.
    pub at_ns: u64,
    pub age_ns: u64,
    /// Messages that were under way and never came back.
    pub unanswered: u32,
}

/// Closes kept one by one; beyond it they are only counted.
pub const CLOSES_MAX: usize = 20_000;
/// Our own goodbyes are all alike: a few will do.
const OWN_CLOSES_MAX: usize = 100;

/// Everything that can be added up. Counts are of the whole run unless they say "measured".
#[derive(Debug, Clone)]
pub struct Tally {
    /// Replies to messages that were due inside the measured window.
    pub latency: Histogram<u64>,
    /// How late the generator itself was in sending, or in dialling short lives, inside the window.
    pub lag: Histogram<u64>,
    /// From dialling to being open.
    pub connect: Histogram<u64>,
    pub counts: Counts,
    pub errors: BTreeMap<String, u64>,
    pub names: BTreeMap<String, u64>,
    pub closes: Vec<Close>,
    pub close_kinds: BTreeMap<(Who, How), u64>,
    /// The first refusal of an upgrade, word for word.
    pub refusal: Option<String>,
}

macro_rules! counts {
    ($($(#[$about:meta])* $name:ident),* $(,)?) => {
        #[derive(Debug, Clone, Copy, Default, serde::Serialize)]
        pub struct Counts { $($(#[$about])* pub $name: u64),* }
        impl Counts {
            pub fn add(&mut self, other: &Counts) { $(self.$name += other.$name;)* }
        }
    };
}

counts! {
    dialled,
    opened,
    failed,
    closed_by_peer,
    sent,
    received,
    bytes_sent,
    bytes_received,
    /// Sent, and due inside the window.
    measured_sent,
    /// Answered, and due inside the window.
    measured_received,
    /// Opened: all of them, or with short lives those due inside the window.
    measured_opened,
    /// Short lives due inside the window for which there never was a slot.
    undialled,
    /// Never answered our goodbye in time.
    unclosed,
    /// Due inside the window while the connection was down, or waiting for room in its socket when
    /// it went down, so never sent.
    missed,
    /// Under way when a storm dropped their connections: nobody's fault.
    given_up,
    /// Due, and never even tried, because the generator itself had no time.
    untried,
    /// Due inside the window, and still waiting for a socket that takes no more when the run ended.
    unsent,
    /// Handed to a socket, or received whole, inside the window.
    measured_bytes_sent,
    measured_bytes_received,
    /// Numbers that were jumped over when a later one came.
    skipped,
    /// Under way when their connection, or the run, ended.
    unanswered,
    unanswered_bytes,
    /// The same on connections that were told to misbehave: nobody's fault.
    odd_unanswered,
    duplicated,
    /// Jumped over, and came after all.
    reordered,
    damaged,
    /// A sound message that belongs to another connection.
    strayed,
    resumed,
    /// Told to be gone without a word.
    vanished,
}

impl Counts {
    /// Messages that were sent and never came back.
    pub fn lost(&self) -> u64 {
        (self.skipped + self.unanswered).saturating_sub(self.reordered)
    }
}

impl Tally {
    pub fn new() -> Tally {
        Tally {
            latency: histogram(),
            lag: histogram(),
            connect: histogram(),
            counts: Counts::default(),
            errors: BTreeMap::new(),
            names: BTreeMap::new(),
            closes: Vec::new(),
            close_kinds: BTreeMap::new(),
            refusal: None,
        }
    }

    pub fn error(&mut self, kind: impl Into<String>) {
        self.errors_of(kind, 1);
    }

    pub fn errors_of(&mut self, kind: impl Into<String>, count: u64) {
        if count > 0 {
            *self.errors.entry(kind.into()).or_default() += count;
        }
    }

    pub fn close(&mut self, close: Close) {
        *self.close_kinds.entry((close.who, close.how)).or_default() += 1;
        let most = if close.who == Who::Peer { CLOSES_MAX } else { OWN_CLOSES_MAX };
        if self.closes.len() < most {
            self.closes.push(close);
        }
    }

    pub fn add(&mut self, other: Tally) {
        // Same bounds on both sides, so adding cannot fail.
        self.latency.add(&other.latency).expect("equal bounds");
        self.lag.add(&other.lag).expect("equal bounds");
        self.connect.add(&other.connect).expect("equal bounds");
        self.counts.add(&other.counts);
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        for (name, count) in other.names {
            *self.names.entry(name).or_default() += count;
        }
        for (kind, count) in other.close_kinds {
            *self.close_kinds.entry(kind).or_default() += count;
        }
        let room = CLOSES_MAX.saturating_sub(self.closes.len());
        self.closes.extend(other.closes.into_iter().take(room));
        self.refusal = self.refusal.take().or(other.refusal);
    }

    /// Hands over what was counted since the last time, and starts at zero.
    pub fn take(&mut self) -> Tally {
        std::mem::take(self)
    }
}

impl Default for Tally {
    fn default() -> Tally {
        Tally::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_histogram_is_small_and_opens_as_it_was() {
        let mut whole = histogram();
        for at in 0..10_000u64 {
            whole.record(20_000 + at * at).unwrap();
        }
        let packed = Packed::new(&whole);
        assert!(packed.0.len() < 20_000, "{} bytes", packed.0.len());
        assert_eq!(packed.open(), whole);
    }
}
