//! Names of requests in the kernel: what it is for, which slot, which generation. A completion
//! whose generation is not the slot's own belongs to a connection that is gone, and is dropped.

/// Slots a core can address.
pub const SLOTS_MAX: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 28;
const GENERATION_BITS: u32 = 28;
/// What of a slot's generation travels in a name; beyond it the generations begin anew.
pub const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

/// Where each part of a name begins, from the generation up; the kind takes the last four bits.
const SLOT_SHIFT: u32 = GENERATION_BITS;
const END_SHIFT: u32 = SLOT_SHIFT + SLOT_BITS;
const KIND_SHIFT: u32 = END_SHIFT + PART_BITS;
/// Bits of an end, and of a kind.
const PART_BITS: u32 = 4;
const PART_MASK: u64 = (1 << PART_BITS) - 1;
const _: () = assert!(KIND_SHIFT + PART_BITS == u64::BITS && KINDS.len() <= 1 << PART_BITS);

/// What a request was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Oneshot poll for reading an end.
    Readable,
    /// Multishot receive from an end.
    Received,
    /// Poll for writing to an end, or for its errors.
    Watched,
    /// A send that fell short; the slot is an index into the turn's sends.
    Unsent,
    /// A connection on a listener (slot: which).
    Accepted,
    /// Control wrote to the wake-up eventfd.
    Woken,
    /// Another core passes a descriptor (slot: which).
    Handed,
    /// The runtime's own ring has completions.
    Runtime,
    /// A tenth of a second went by.
    Tick,
    /// A young connection's descriptor is ready.
    Young,
    /// Bulk flows have rested.
    Rested,
}

const KINDS: [Kind; 11] = [
    Kind::Readable,
    Kind::Received,
    Kind::Watched,
    Kind::Unsent,
    Kind::Accepted,
    Kind::Woken,
    Kind::Handed,
    Kind::Runtime,
    Kind::Tick,
    Kind::Young,
    Kind::Rested,
];

/// A name, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    /// Which end of a pipe, 0 client or 1 server; 0 elsewhere.
    pub end: usize,
    pub slot: u32,
    pub generation: u32,
}

impl Token {
    pub fn new(kind: Kind, end: usize, slot: u32, generation: u32) -> Self {
        debug_assert!(end < 2 && (slot as usize) < SLOTS_MAX);
        Self { kind, end, slot, generation: generation & GENERATION_MASK }
    }

    /// A request that belongs to no pipe.
    pub fn of(kind: Kind, slot: u32) -> Self {
        Self::new(kind, 0, slot, 0)
    }

    pub fn pack(self) -> u64 {
        (self.kind as u64) << KIND_SHIFT
            | (self.end as u64) << END_SHIFT
            | u64::from(self.slot) << SLOT_SHIFT
            | u64::from(self.generation)
    }

    /// The kind in a packed token; `None` for a number no token packs to.
    pub fn kind_of(number: u64) -> Option<Kind> {
        KINDS.get((number >> KIND_SHIFT) as usize).copied()
    }

    /// `None` for a number no token packs to.
    pub fn unpack(number: u64) -> Option<Self> {
        let kind = Self::kind_of(number)?;
        let end = (number >> END_SHIFT & PART_MASK) as usize;
        let slot = (number >> SLOT_SHIFT) as u32 & (SLOTS_MAX as u32 - 1);
        let generation = number as u32 & GENERATION_MASK;
        (end < 2).then_some(Self { kind, end, slot, generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        for (index, &kind) in KINDS.iter().enumerate() {
            assert_eq!(kind as usize, index);
            for (end, slot, generation) in [(0, 0, 0), (1, 5, 7), (1, (1 << 28) - 1, u32::MAX)] {
                let token = Token::new(kind, end, slot, generation);
                assert_eq!(Token::unpack(token.pack()), Some(token));
            }
        }
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}
