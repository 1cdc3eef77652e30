//! Finds where a head ends. Each byte is looked at once, however the head was cut into packets;
//! parsing waits until all of it is there.

use std::ops::Range;

use super::{HeadFault, HeadLimits};
use crate::proto::Step;

/// A cursor over a growing buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeadScanner {
    /// Bytes already looked at.
    seen: usize,
    /// Where the start line begins: one empty line before it is forgiven (RFC 9112 §2.2).
    start: usize,
    /// Where the current line begins.
    line: usize,
    /// Lines complete, the start line included.
    lines: usize,
}

/// Room in a start line for everything but the target: method, version, spaces, line end.
const START_LINE_ROOM: usize = 64;

impl HeadScanner {
    pub fn new() -> Self {
        Self::default()
    }

    /// `bytes` is all that was read so far, grown since the last call but otherwise the same.
    /// `Done(used, range)`: `bytes[range]` is the head, and what follows `used` is not of it.
    /// Faults and limits are met in the order of the bytes, so that a cut never changes the answer.
    pub fn scan(&mut self, bytes: &[u8], limits: &HeadLimits) -> Step<Range<usize>, HeadFault> {
        debug_assert!(self.seen <= bytes.len());
        let fresh = self.seen;
        for lf in memchr::memchr_iter(b'\n', &bytes[fresh..]) {
            let end = fresh + lf + 1;
            if let Err(fault) = self.within(end, limits) {
                return Step::Bad(fault);
            }
            match self.end_line(&bytes[self.line..end], end, limits) {
                Ok(false) => {}
                Ok(true) => return Step::Done(end, self.start..end),
                Err(fault) => return Step::Bad(fault),
            }
        }
        self.seen = bytes.len();
        match self.within(bytes.len(), limits) {
            Ok(()) => Step::Need,
            Err(fault) => Step::Bad(fault),
        }
    }

    /// A request line has begun to arrive: silence from here on is a slow client, not an idle one.
    pub fn has_begun(&self) -> bool {
        self.seen > self.start
    }

    /// Takes a line with its end; `Ok(true)`: it was the empty line after the fields.
    fn end_line(
        &mut self,
        line: &[u8],
        end: usize,
        limits: &HeadLimits,
    ) -> Result<bool, HeadFault> {
        let Some(text) = line.strip_suffix(b"\r\n") else {
            return Err(HeadFault::BareLineFeed);
        };
        self.line = end;
        match text.first() {
            None if self.lines > 0 => return Ok(true),
            None if self.start > 0 => return Err(HeadFault::StartLine),
            None => {
                self.start = end;
                return Ok(false);
            }
            Some(b' ' | b'\t') if self.lines > 0 => return Err(HeadFault::Folded),
            Some(_) => self.lines += 1,
        }
        if self.lines - 1 > limits.fields { Err(HeadFault::TooManyFields) } else { Ok(false) }
    }

    fn within(&self, end: usize, limits: &HeadLimits) -> Result<(), HeadFault> {
        let size = end - self.start;
        if self.lines == 0 {
            let line_max = limits.bytes.min(limits.target.saturating_add(START_LINE_ROOM));
            return if size > line_max { Err(HeadFault::TargetTooLong) } else { Ok(()) };
        }
        if size > limits.bytes { Err(HeadFault::HeadTooLong) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 200, fields: 4, target: 50 };

    type Answer = Step<Range<usize>, HeadFault>;

    fn whole(bytes: &[u8]) -> Answer {
        HeadScanner::new().scan(bytes, &LIMITS)
    }

    /// The first answer that is not `Need` when the bytes come one at a time.
    fn dripped(bytes: &[u8]) -> Answer {
        let mut scanner = HeadScanner::new();
        for end in 0..=bytes.len() {
            match scanner.scan(&bytes[..end], &LIMITS) {
                Step::Need => {}
                answer => return answer,
            }
        }
        Step::Need
    }

    #[test]
    fn every_cut_gives_the_same_answer() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(150));
        let fat = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(250));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(5));
        let cases: &[(&[u8], Answer)] = &[
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\ntail", Step::Done(27, 0..27)),
            (b"\r\nGET / HTTP/1.1\r\n\r\n", Step::Done(20, 2..20)),
            (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", Step::Bad(HeadFault::StartLine)),
            (b"GET / HTTP/1.1\nHost: a\r\n\r\n", Step::Bad(HeadFault::BareLineFeed)),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", Step::Bad(HeadFault::BareLineFeed)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Step::Bad(HeadFault::BareLineFeed)),
            (b"\n", Step::Bad(HeadFault::BareLineFeed)),
            (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Step::Bad(HeadFault::Folded)),
            (b"GET / HTTP/1.1\r\n\tA: b\r\n\r\n", Step::Bad(HeadFault::Folded)),
            (long.as_bytes(), Step::Bad(HeadFault::TargetTooLong)),
            (fat.as_bytes(), Step::Bad(HeadFault::HeadTooLong)),
            (many.as_bytes(), Step::Bad(HeadFault::TooManyFields)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r", Step::Need),
        ];
        for (bytes, answer) in cases {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(whole(bytes), *answer, "{text}");
            for cut in 0..bytes.len() {
                let mut scanner = HeadScanner::new();
                let mut twice = scanner.scan(&bytes[..cut], &LIMITS);
                if twice == Step::Need {
                    twice = scanner.scan(bytes, &LIMITS);
                }
                assert_eq!(twice, *answer, "{text} cut at {cut}");
            }
            assert_eq!(dripped(bytes), *answer, "{text} dripped");
        }
    }

    #[test]
    fn an_idle_connection_is_told_from_a_slow_head() {
        let mut scanner = HeadScanner::new();
        let _ = scanner.scan(b"\r\n", &LIMITS);
        assert!(!scanner.has_begun());
        let _ = scanner.scan(b"\r\nG", &LIMITS);
        assert!(scanner.has_begun());
    }

    /// S13: a head at one byte per packet costs one look per byte, not one parse per packet.
    #[test]
    fn s13_dripping_is_linear() {
        let limits = HeadLimits { bytes: 64 << 10, fields: 100, target: 8 << 10 };
        let head = vec![b'a'; 8 << 10];
        let mut bytes = [b"GET /", &head[..8000], b" HTTP/1.1\r\n"].concat();
        while bytes.len() < 63 << 10 {
            bytes.extend_from_slice(b"A: ");
            bytes.extend_from_slice(&head[..1000]);
            bytes.extend_from_slice(b"\r\n");
        }
        let mut scanner = HeadScanner::new();
        for end in 1..=bytes.len() {
            assert_eq!(scanner.scan(&bytes[..end], &limits), Step::Need);
            assert_eq!(scanner.seen, end, "nothing is looked at twice");
        }
        bytes.extend_from_slice(b"\r\n");
        let size = bytes.len();
        assert_eq!(scanner.scan(&bytes, &limits), Step::Done(size, 0..size));
    }
}
