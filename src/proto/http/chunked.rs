//! A streaming decoder of chunked bodies: says which bytes are payload and which are framing, and
//! where the body ends. Collects nothing; every line is bounded.

use std::sync::Arc;

use super::names::Name;

/// Bytes of one chunk-size line, extensions included.
pub const SIZE_LINE_MAX: u16 = 256;
/// Bytes of all trailer lines together.
pub const TRAILERS_MAX: u16 = 8 << 10;

/// Where in the body the next byte belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunked {
    /// The size being read, then the payload bytes left.
    left: u64,
    /// Bytes of the current size line, or of the trailers.
    line: u16,
    place: Place,
    trailers: Trailers,
}

const _: () = assert!(size_of::<Chunked>() <= 48);

/// Which trailers may stand behind a body.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trailers {
    /// An answer's: a server is believed.
    Any,
    /// A request's: none that belongs in a head: the name so far, and others that are refused.
    Harmless { name: Name, refused: Option<Arc<[Name]>> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    SizeFirst,
    Size,
    /// Blanks behind a size.
    SizeBlank,
    Extension,
    SizeLineFeed,
    Payload,
    PayloadReturn,
    PayloadLineFeed,
    TrailerFirst,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    End,
}

/// What the front of the bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes of chunk sizes, line ends or trailers.
    Framing(usize),
    /// So many bytes of the body itself.
    Payload(usize),
    /// So many bytes of framing, and with them the body has ended.
    End(usize),
}

/// Why a chunked body cannot be believed (RFC 9112 §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ChunkFault {
    #[error("a chunk size is malformed")]
    Size,
    #[error("a chunk size is too large")]
    SizeTooLarge,
    #[error("a chunk-size line is too long")]
    LineTooLong,
    #[error("a chunk extension holds a control character")]
    Extension,
    #[error("a line ends without carriage return and line feed")]
    LineEnd,
    #[error("a trailer is malformed")]
    Trailer,
    #[error("the trailers are too long")]
    TrailersTooLong,
    #[error("a trailer belongs in the head")]
    TrailerName,
}

impl Default for Chunked {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunked {
    /// A body of an answer. Blanks may stand behind a size there, as some servers write them (RFC
    /// 9112 §7.1.1); in a request they could hide where a chunk ends from one of two readers.
    pub fn new() -> Self {
        Self { left: 0, line: 0, place: Place::SizeFirst, trailers: Trailers::Any }
    }

    /// A body whose reader may take a trailer for a field of the head: what would be framing,
    /// hop-by-hop, forwarding, routing or authentication there is refused, and so are `refused`,
    /// the names of what we tell ourselves and of what Connection nominates.
    pub fn of_request(refused: Option<Arc<[Name]>>) -> Self {
        let trailers = Trailers::Harmless { name: Name::EMPTY, refused };
        Self { trailers, ..Self::new() }
    }

    /// Names the first piece of `bytes`, which must not be empty. Call again with what follows it;
    /// after `End` what follows is not of this body.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Piece, ChunkFault> {
        debug_assert!(!bytes.is_empty() && !self.is_done());
        if self.place == Place::Payload {
            let taken = self.left.min(bytes.len() as u64);
            self.left -= taken;
            if self.left == 0 {
                self.place = Place::PayloadReturn;
            }
            return Ok(Piece::Payload(taken as usize));
        }
        for (i, byte) in bytes.iter().enumerate() {
            self.place = self.framing(*byte)?;
            match self.place {
                Place::Payload => return Ok(Piece::Framing(i + 1)),
                Place::End => return Ok(Piece::End(i + 1)),
                _ => {}
            }
        }
        Ok(Piece::Framing(bytes.len()))
    }

    /// For a body that is passed on as it is: how many of `bytes` are of it.
    pub fn pass(&mut self, bytes: &[u8]) -> Result<usize, ChunkFault> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            at += match self.next(&bytes[at..])? {
                Piece::Framing(n) | Piece::Payload(n) | Piece::End(n) => n,
            };
        }
        Ok(at)
    }

    pub fn is_done(&self) -> bool {
        self.place == Place::End
    }

    /// Payload bytes left of the current chunk; they need not be seen.
    pub fn payload_left(&self) -> u64 {
        if self.place == Place::Payload { self.left } else { 0 }
    }

    /// `bytes` of the current chunk's payload went by another road.
    pub fn skip(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.payload_left());
        self.left = self.left.saturating_sub(bytes);
        if self.left == 0 && self.place == Place::Payload {
            self.place = Place::PayloadReturn;
        }
    }

    fn framing(&mut self, byte: u8) -> Result<Place, ChunkFault> {
        self.count()?;
        match (self.place, byte) {
            (Place::SizeFirst | Place::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                if self.left >> 59 != 0 {
                    return Err(ChunkFault::SizeTooLarge);
                }
                self.left = self.left << 4 | u64::from(digit);
                Ok(Place::Size)
            }
            (Place::Size | Place::SizeBlank, b';') => Ok(Place::Extension),
            (Place::Size | Place::SizeBlank | Place::Extension, b'\r') => Ok(Place::SizeLineFeed),
            (Place::Size | Place::SizeBlank, b' ' | b'\t') if self.is_answer() => {
                Ok(Place::SizeBlank)
            }
            (Place::SizeFirst | Place::Size | Place::SizeBlank, _) => Err(ChunkFault::Size),
            (Place::Extension, b'\n') => Err(ChunkFault::LineEnd),
            (Place::Extension, b'\t' | b' '..=b'~' | 0x80..) => Ok(Place::Extension),
            (Place::Extension, _) => Err(ChunkFault::Extension),
            (Place::SizeLineFeed, b'\n') => {
                self.line = 0;
                Ok(if self.left == 0 { Place::TrailerFirst } else { Place::Payload })
            }
            (Place::PayloadReturn, b'\r') => Ok(Place::PayloadLineFeed),
            (Place::PayloadLineFeed, b'\n') => {
                self.line = 0;
                Ok(Place::SizeFirst)
            }
            (Place::TrailerFirst, b'\r') => Ok(Place::LastLineFeed),
            (Place::TrailerName, b':') => self.trailers.end_name().map(|()| Place::TrailerValue),
            (Place::TrailerFirst | Place::TrailerName, byte) => {
                if !super::fields::is_token_byte(byte) {
                    return Err(ChunkFault::Trailer);
                }
                self.trailers.name(byte).map(|()| Place::TrailerName)
            }
            (Place::TrailerValue, b'\r') => Ok(Place::TrailerLineFeed),
            (Place::TrailerValue, b'\n') => Err(ChunkFault::LineEnd),
            (Place::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(Place::TrailerValue),
            (Place::TrailerValue, _) => Err(ChunkFault::Trailer),
            (Place::TrailerLineFeed, b'\n') => Ok(Place::TrailerFirst),
            (Place::LastLineFeed, b'\n') => Ok(Place::End),
            _ => Err(ChunkFault::LineEnd),
        }
    }

    fn is_answer(&self) -> bool {
        matches!(self.trailers, Trailers::Any)
    }

    /// Every framing byte counts towards the bound of the line or trailers it belongs to.
    fn count(&mut self) -> Result<(), ChunkFault> {
        let (max, fault) = match self.place {
            Place::SizeFirst
            | Place::Size
            | Place::SizeBlank
            | Place::Extension
            | Place::SizeLineFeed => (SIZE_LINE_MAX, ChunkFault::LineTooLong),
            _ => (TRAILERS_MAX, ChunkFault::TrailersTooLong),
        };
        self.line += 1;
        if self.line > max { Err(fault) } else { Ok(()) }
    }
}

impl Trailers {
    fn name(&mut self, byte: u8) -> Result<(), ChunkFault> {
        let Self::Harmless { name, .. } = self else { return Ok(()) };
        *name = name.then(byte);
        if name.begins_told() { Err(ChunkFault::TrailerName) } else { Ok(()) }
    }

    fn end_name(&mut self) -> Result<(), ChunkFault> {
        let Self::Harmless { name, refused } = self else { return Ok(()) };
        let name = std::mem::replace(name, Name::EMPTY);
        let ours = refused.as_ref().is_some_and(|refused| refused.contains(&name));
        let harmless = !name.is_head_only() && !ours;
        if harmless { Ok(()) } else { Err(ChunkFault::TrailerName) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Payload, bytes used, and whether the body ended.
    type Outcome = Result<(Vec<u8>, usize, bool), ChunkFault>;

    /// What becomes of an answer's body that is fed in pieces of `step`.
    fn run(bytes: &[u8], step: usize) -> Outcome {
        run_in(Chunked::new(), bytes, step)
    }

    fn run_in(mut chunked: Chunked, bytes: &[u8], step: usize) -> Outcome {
        let (mut payload, mut used) = (Vec::new(), 0);
        for cut in bytes.chunks(step) {
            let mut at = 0;
            while at < cut.len() && !chunked.is_done() {
                let n = match chunked.next(&cut[at..])? {
                    Piece::Payload(n) => {
                        payload.extend_from_slice(&cut[at..at + n]);
                        n
                    }
                    Piece::Framing(n) | Piece::End(n) => n,
                };
                at += n;
            }
            used += at;
        }
        Ok((payload, used, chunked.is_done()))
    }

    #[test]
    fn every_cut_gives_the_same_body() {
        let body =
            b"5\r\nhello\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\nA: b\r\nC:\r\n\r\nGET / HTTP/1.1";
        let end = body.len() - 14;
        for step in 1..=body.len() {
            let (payload, used, done) = run(body, step).unwrap();
            assert_eq!((&payload[..], used, done), (&b"hello0123456789"[..], end, true), "{step}");
        }
        assert_eq!(run(b"0\r\n\r\n", 9).unwrap(), (vec![], 5, true));
        assert_eq!(run(b"5\r\nhel", 9).unwrap(), (b"hel".to_vec(), 6, false));
    }

    #[test]
    fn strictness() {
        let long = format!("1;{}\r\n", "a".repeat(300));
        let zeros = format!("{}1\r\n", "0".repeat(300));
        let trailers = format!("0\r\n{}\r\n", "A: bbbbbbbb\r\n".repeat(800));
        let cases: &[(&[u8], ChunkFault)] = &[
            (b"\r\n", ChunkFault::Size),
            (b"g\r\n", ChunkFault::Size),
            (b"0x5\r\n", ChunkFault::Size),
            (b"+5\r\n", ChunkFault::Size),
            (b" 5\r\n", ChunkFault::Size),
            (b"5\nhello", ChunkFault::Size),
            (b"5;a\nhello", ChunkFault::LineEnd),
            (b"5;\0\r\n", ChunkFault::Extension),
            (b"5\rhello", ChunkFault::LineEnd),
            (b"5\r\nhello\n", ChunkFault::LineEnd),
            (b"5\r\nhelloX", ChunkFault::LineEnd),
            (b"ffffffffffffffff\r\n", ChunkFault::SizeTooLarge),
            (b"10000000000000000\r\n", ChunkFault::SizeTooLarge),
            (b"0\r\n\n", ChunkFault::Trailer),
            (b"0\r\n: b\r\n\r\n", ChunkFault::Trailer),
            (b"0\r\n a: b\r\n\r\n", ChunkFault::Trailer),
            (b"0\r\na : b\r\n\r\n", ChunkFault::Trailer),
            (b"0\r\na\r\n\r\n", ChunkFault::Trailer),
            (b"0\r\na: b\n\r\n", ChunkFault::LineEnd),
            (b"0\r\na: \0\r\n\r\n", ChunkFault::Trailer),
            (long.as_bytes(), ChunkFault::LineTooLong),
            (zeros.as_bytes(), ChunkFault::LineTooLong),
            (trailers.as_bytes(), ChunkFault::TrailersTooLong),
        ];
        for (bytes, fault) in cases {
            for step in [1, 2, 3, bytes.len()] {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]);
                assert_eq!(run(bytes, step), Err(*fault), "{text:?} by {step}");
                let of_request = Chunked::of_request(None);
                assert_eq!(run_in(of_request, bytes, step), Err(*fault), "{text:?} by {step}");
            }
        }
    }

    /// RFC 9112 §7.1.1.
    #[test]
    fn blanks_behind_a_size_are_put_up_with_in_an_answer_only() {
        for size in ["5 ", "5  \t", "5 ;a=b", "5\t; a = b"] {
            let body = format!("{size}\r\nhello\r\n0  \r\n\r\n");
            for step in 1..=body.len() {
                let whole = Ok((b"hello".to_vec(), body.len(), true));
                assert_eq!(run(body.as_bytes(), step), whole, "{size:?} by {step}");
                let refused = run_in(Chunked::of_request(None), body.as_bytes(), step);
                assert_eq!(refused, Err(ChunkFault::Size), "{size:?} by {step}");
            }
        }
        let long = format!("5{}\r\n", " ".repeat(300));
        for (line, fault) in [
            ("5 5\r\n", ChunkFault::Size),
            ("5 \n", ChunkFault::Size),
            (" \r\n", ChunkFault::Size),
            ("5 \rhello", ChunkFault::LineEnd),
            (long.as_str(), ChunkFault::LineTooLong),
        ] {
            assert_eq!(run(line.as_bytes(), 2), Err(fault), "{line:?}");
        }
    }

    #[test]
    fn a_requests_trailers_change_nothing_that_its_head_said() {
        let own: Arc<[Name]> = Arc::from([Name::of("X-Other"), Name::of("X-Client-Subject")]);
        let pass = |trailers: &str| {
            let body = format!("1\r\na\r\n0\r\n{trailers}\r\n");
            Chunked::of_request(Some(own.clone()))
                .pass(body.as_bytes())
                .map(|used| used == body.len())
        };
        assert_eq!(pass("X-Sum: 42\r\nServer-Timing: a\r\n"), Ok(true));
        assert_eq!(pass(""), Ok(true));
        for name in [
            "Content-Length",
            "transfer-encoding",
            "HOST",
            "Connection",
            "X-Forwarded-For",
            "x_forwarded_whatever",
            "Forwarded",
            "X-Real-IP",
            "Cookie",
            "Authorization",
            "Content_Length",
            "x-client-subject",
        ] {
            let second = pass(&format!("X-Sum: 42\r\n{name}: a\r\n"));
            assert_eq!(second, Err(ChunkFault::TrailerName), "{name}");
        }
        // An answer's server is believed.
        assert_eq!(Chunked::new().pass(b"0\r\nCookie: a\r\n\r\n"), Ok(16));
    }

    #[test]
    fn payload_may_go_by_another_road() {
        let mut chunked = Chunked::new();
        assert_eq!(chunked.pass(b"7fffffff\r\nab"), Ok(12));
        chunked.skip(0x7fff_fffd);
        assert_eq!(chunked.payload_left(), 0);
        assert_eq!(chunked.pass(b"\r\n0\r\n\r\nnext"), Ok(7));
        assert!(chunked.is_done());
    }
}
