//! Bytes a sink did not take, kept in order until it does. Bounded: the source is not read while
//! there is a spill, so only what was already on its way can be added.

use std::io;
use std::os::fd::RawFd;

use crate::sys::memory::{BUFFER_BYTES, BUFFERS};
use crate::sys::socket;

use super::EVENT_BYTES_MAX;
use super::entry::Ticks;

/// What may be on its way to a sink when it stops taking bytes: whatever a multishot receive put
/// into provided buffers meanwhile, which is few of them unless other completions kept the core
/// from looking for many turns; a pipe's content; the longest read of a turn, sealed anew.
pub const SPILL_BYTES_MAX: usize =
    BUFFERS * BUFFER_BYTES + crate::sys::pipe::PIPE_BYTES + EVENT_BYTES_MAX;

/// Bytes of one flow that its sink did not take yet, oldest first.
#[derive(Debug)]
pub struct Spill {
    bytes: Vec<u8>,
    sent: usize,
    /// When the sink last took a byte.
    pub since: Ticks,
}

impl Spill {
    pub fn new(now: Ticks) -> Self {
        Self { bytes: Vec::new(), sent: 0, since: now }
    }

    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes at the end; `false` if the bound does not allow for them.
    #[must_use]
    pub fn add(&mut self, bytes: &[u8]) -> bool {
        if self.len() + bytes.len() > SPILL_BYTES_MAX {
            return false;
        }
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.bytes.extend_from_slice(bytes);
        true
    }

    /// Direct access to the end of the spill, for a pipe to be emptied into.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Sends what the sink takes now; `Ok(true)` when nothing is left.
    ///
    /// # Errors
    /// What `send(2)` answers, other than "not now".
    pub fn drain(&mut self, sink: RawFd, now: Ticks) -> io::Result<bool> {
        while !self.is_empty() {
            match socket::send(sink, &self.bytes[self.sent..]) {
                Ok(n) => {
                    self.sent += n;
                    self.since = now;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn it_is_bounded_and_keeps_order() {
        let mut spill = Spill::new(0);
        assert!(spill.add(&vec![1; SPILL_BYTES_MAX]));
        assert!(!spill.add(&[2]));
        assert_eq!(spill.len(), SPILL_BYTES_MAX);
        // The sink took all but the last three bytes: what it took makes room, and is let go of.
        spill.sent = SPILL_BYTES_MAX - 3;
        assert!(spill.add(&[2, 3]));
        assert_eq!((spill.sent, &spill.bytes[..]), (0, &[1, 1, 1, 2, 3][..]));
        // It took less than half: the rest is not moved for that.
        spill.sent = 2;
        assert!(spill.add(&[4]));
        assert_eq!((spill.sent, spill.len()), (2, 4));
        let (sink, mut peer) = UnixStream::pair().unwrap();
        assert!(spill.drain(sink.as_raw_fd(), 7).unwrap());
        assert!(spill.is_empty() && spill.since == 7);
        let mut got = [0; 4];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(got, [1, 2, 3, 4]);
    }
}
