//! One mapping per core that the kernel and the wire share: the provided receive buffers, and two
//! halves of scratch that take turns. It hands out spans, never pointers.

use std::io;

/// Bytes of one provided receive buffer.
pub const BUFFER_BYTES: usize = 4096;
/// Provided receive buffers of a core; a power of two, as the kernel's ring demands.
pub const BUFFERS: usize = 2048;
/// Virtual bytes of one scratch half; only touched pages cost anything.
pub const HALF_BYTES: usize = 32 << 20;
/// Scratch kept resident between bursts; what a burst touched beyond it is given back.
const KEEP_BYTES: usize = 1 << 20;

const BUFFERS_BYTES: usize = BUFFER_BYTES * BUFFERS;
const TOTAL_BYTES: usize = BUFFERS_BYTES + 2 * HALF_BYTES;
const _: () = assert!(BUFFERS.is_power_of_two() && BUFFERS <= 1 << 15);
const _: () = assert!(TOTAL_BYTES < u32::MAX as usize);

/// A stretch of the core's memory: where bytes lie, without borrowing them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    at: u32,
    len: u32,
}

impl Span {
    pub fn len(self) -> usize {
        self.len as usize
    }

    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The part `from..to` of this span, in bytes from its start.
    pub fn part(self, from: usize, to: usize) -> Span {
        assert!(from <= to && to <= self.len(), "part of a span lies inside it");
        Span { at: self.at + from as u32, len: (to - from) as u32 }
    }

    /// Whether `next` begins where this span ends.
    pub fn touches(self, next: Span) -> bool {
        self.at + self.len == next.at
    }

    /// This span and the one that touches it, as one.
    pub fn join(self, next: Span) -> Span {
        // Not only in tests: what reads a span's bytes relies on it.
        assert!(self.touches(next), "only spans that touch are joined");
        Span { at: self.at, len: self.len + next.len }
    }
}

/// Returns what the allocator holds free, in all its arenas, to the kernel.
pub fn return_free_heap() {
    // SAFETY: a plain call; it takes the allocator's own locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The mapping.
#[derive(Debug)]
pub struct Memory {
    base: *mut u8,
    /// Which scratch half is being filled: 0 or 1.
    half: usize,
    /// Bytes used of each half.
    used: [usize; 2],
    /// Most bytes ever used of each half since it was last trimmed.
    peak: [usize; 2],
}

impl Memory {
    /// Maps the region; no page of it is resident yet.
    ///
    /// # Errors
    /// What `mmap(2)` answers.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a fresh anonymous private mapping, owned by this value until drop.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                TOTAL_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Huge pages would make a handful of touched bytes cost two megabytes.
        // SAFETY: advice on our own mapping.
        unsafe { libc::madvise(base, TOTAL_BYTES, libc::MADV_NOHUGEPAGE) };
        Ok(Self { base: base.cast(), half: 0, used: [0; 2], peak: [0; 2] })
    }

    /// The span of provided buffer `id`'s first `len` bytes.
    pub fn buffer(&self, id: u16, len: usize) -> Span {
        assert!((id as usize) < BUFFERS && len <= BUFFER_BYTES);
        Span { at: (id as usize * BUFFER_BYTES) as u32, len: len as u32 }
    }

    /// `len` fresh scratch bytes of this turn, or `None` when this half is full.
    pub fn allocate(&mut self, len: usize) -> Option<Span> {
        let used = self.used[self.half];
        if len > HALF_BYTES - used {
            return None;
        }
        // Eight-byte steps keep every span aligned for the ciphers.
        self.used[self.half] = (used + len).next_multiple_of(8).min(HALF_BYTES);
        self.peak[self.half] = self.peak[self.half].max(self.used[self.half]);
        let at = BUFFERS_BYTES + self.half * HALF_BYTES + used;
        Some(Span { at: at as u32, len: len as u32 })
    }

    /// Scratch bytes left of this turn's half.
    pub fn room(&self) -> usize {
        HALF_BYTES - self.used[self.half]
    }

    /// Gives back the end of the newest allocation, keeping its first `len` bytes.
    pub fn shrink(&mut self, newest: Span, len: usize) -> Span {
        let base = BUFFERS_BYTES + self.half * HALF_BYTES;
        assert!(newest.at as usize >= base, "the newest allocation lies in the half being filled");
        let start = newest.at as usize - base;
        // Not only in tests: from a wrong mark on, spans would be made that lie elsewhere.
        assert_eq!((start + newest.len()).next_multiple_of(8), self.used[self.half]);
        self.used[self.half] = (start + len).next_multiple_of(8);
        newest.part(0, len)
    }

    /// Begins filling the other half; the filled one stays readable until [`Memory::forget`].
    pub fn turn(&mut self) {
        self.half ^= 1;
        debug_assert_eq!(self.used[self.half], 0, "a half is forgotten before it is filled again");
    }

    /// Forgets the half that is not being filled.
    pub fn forget(&mut self) {
        self.used[self.half ^ 1] = 0;
    }

    /// Returns scratch pages that a burst touched to the kernel. Called while nothing is in flight
    /// but the current half.
    pub fn trim(&mut self) {
        let half = self.half ^ 1;
        if self.used[half] == 0 && self.peak[half] > KEEP_BYTES {
            let start = BUFFERS_BYTES + half * HALF_BYTES + KEEP_BYTES;
            // SAFETY: whole pages of our own mapping without a live span (this half is forgotten).
            unsafe {
                libc::madvise(
                    self.base.add(start).cast(),
                    HALF_BYTES - KEEP_BYTES,
                    libc::MADV_DONTNEED,
                )
            };
            self.peak[half] = KEEP_BYTES;
        }
    }

    /// Returns the pages of all provided buffers. Called only while no flow is in gear Flowing and
    /// none of these buffers is lent out.
    pub fn trim_buffers(&mut self) {
        // SAFETY: whole pages of our own mapping, and `&mut self` excludes borrows of their bytes.
        // Caller: no flow is in gear Flowing, so no multishot receive is armed and no buffer holds
        // unread bytes (sweep.rs checks). Discarding pages is sound either way; it would only lose
        // data.
        unsafe { libc::madvise(self.base.cast(), BUFFERS_BYTES, libc::MADV_DONTNEED) };
    }

    /// The bytes of a span.
    pub fn bytes(&self, span: Span) -> &[u8] {
        // SAFETY: every `Span` lies below TOTAL_BYTES: only `buffer`, `allocate`, `part`, `join`
        // and `shrink` make one, and each checks. The kernel writes only to provided buffers that
        // have not been handed to us.
        unsafe { std::slice::from_raw_parts(self.base.add(span.at as usize), span.len()) }
    }

    /// The bytes of a span, to be changed in place.
    pub fn bytes_mut(&mut self, span: Span) -> &mut [u8] {
        // SAFETY: as for `bytes`, and `&mut self` makes this the only live borrow.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(span.at as usize), span.len()) }
    }

    /// Copies spans one after another into `whole`, which is as long as they are together.
    pub fn gather(&mut self, spans: impl Iterator<Item = Span>, whole: Span) {
        let mut at = 0;
        for span in spans {
            let (read, write) = self.pair_mut(span, whole.part(at, at + span.len()));
            write.copy_from_slice(read);
            at += span.len();
        }
    }

    /// One span to read and another, which does not overlap it, to write.
    pub fn pair_mut(&mut self, read: Span, write: Span) -> (&[u8], &mut [u8]) {
        let apart = read.at + read.len <= write.at || write.at + write.len <= read.at;
        assert!(apart, "a span is not copied onto itself");
        // SAFETY: both lie inside the mapping, as for `bytes`, and do not overlap; `&mut self`
        // excludes others.
        unsafe {
            (
                std::slice::from_raw_parts(self.base.add(read.at as usize), read.len()),
                std::slice::from_raw_parts_mut(self.base.add(write.at as usize), write.len()),
            )
        }
    }

    /// Address for the kernel; valid as long as `self` lives.
    pub(super) fn address(&self, span: Span) -> *mut u8 {
        // SAFETY: inside the mapping, as for `bytes`.
        unsafe { self.base.add(span.at as usize) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; the ring that writes to it is dropped before it.
        unsafe { libc::munmap(self.base.cast(), TOTAL_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_take_turns_and_spans_stay_readable() {
        let mut memory = Memory::new().unwrap();
        let first = memory.allocate(100).unwrap();
        memory.bytes_mut(first).fill(7);
        memory.turn();
        let second = memory.allocate(50).unwrap();
        memory.bytes_mut(second).fill(9);
        assert!(memory.bytes(first).iter().all(|&b| b == 7));
        memory.forget();
        memory.turn();
        let third = memory.allocate(1).unwrap();
        assert_eq!(third.at, first.at);
    }

    #[test]
    fn shrinking_gives_the_end_back() {
        let mut memory = Memory::new().unwrap();
        let wide = memory.allocate(4096).unwrap();
        let narrow = memory.shrink(wide, 10);
        let next = memory.allocate(8).unwrap();
        assert_eq!(next.at, narrow.at + 16);
        assert!(memory.allocate(HALF_BYTES).is_none());
    }
}
