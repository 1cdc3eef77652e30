//! A body on its way through: which of the bytes that came are its own, and which of them go on.
//! Pure; nothing is collected.

use std::ops::Range;
use std::sync::Arc;

use crate::proto::http::Body;
use crate::proto::http::chunked::{ChunkFault, Chunked, Piece};
use crate::proto::http::names::Name;

/// Where a body that passes stands.
#[derive(Debug, Clone)]
pub struct Passage {
    rest: Rest,
    /// The reader speaks HTTP/1.0: chunks are unwrapped and the end of the stream ends the body.
    unwrap: bool,
}

#[derive(Debug, Clone)]
enum Rest {
    Nothing,
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

/// The front of the bytes that are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portion {
    /// So many are of the body; none of them: the body is complete.
    pub used: usize,
    /// These go on.
    pub pass: Range<usize>,
}

impl Passage {
    pub fn new(body: Body) -> Self {
        Self::with(body, Chunked::new())
    }

    /// Of a request: no trailer may say what belongs in the head, or is one of `refused`.
    pub fn of_request(body: Body, refused: Option<Arc<[Name]>>) -> Self {
        Self::with(body, Chunked::of_request(refused))
    }

    fn with(body: Body, chunked: Chunked) -> Self {
        let rest = match body {
            Body::None | Body::Length(0) => Rest::Nothing,
            Body::Length(length) => Rest::Length(length),
            Body::Chunked => Rest::Chunked(chunked),
            Body::UntilClose => Rest::UntilClose,
        };
        Self { rest, unwrap: false }
    }

    pub fn unwrapped(body: Body) -> Self {
        Self { unwrap: true, ..Self::new(body) }
    }

    /// Whether what goes on is less than what comes.
    pub fn unwraps(&self) -> bool {
        self.unwrap
    }

    pub fn is_done(&self) -> bool {
        match &self.rest {
            Rest::Nothing => true,
            Rest::Chunked(chunked) => chunked.is_done(),
            Rest::Length(_) | Rest::UntilClose => false,
        }
    }

    /// Whether the end of the stream is the end of the body.
    pub fn may_end(&self) -> bool {
        matches!(self.rest, Rest::UntilClose) || self.is_done()
    }

    /// Takes the front of `held`. Call again with what follows until nothing is used.
    ///
    /// # Errors
    /// What is wrong with the chunks. Nothing of `held` goes on then.
    pub fn take(&mut self, held: &[u8]) -> Result<Portion, ChunkFault> {
        let all = |used| Ok(Portion { used, pass: 0..used });
        match &mut self.rest {
            Rest::Nothing => all(0),
            Rest::UntilClose => all(held.len()),
            Rest::Length(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(held.len());
                *left -= used as u64;
                if *left == 0 {
                    self.rest = Rest::Nothing;
                }
                all(used)
            }
            Rest::Chunked(chunked) if self.unwrap => {
                if held.is_empty() || chunked.is_done() {
                    return all(0);
                }
                match chunked.next(held)? {
                    Piece::Payload(used) => all(used),
                    Piece::Framing(used) | Piece::End(used) => Ok(Portion { used, pass: 0..0 }),
                }
            }
            Rest::Chunked(chunked) => all(chunked.pass(held)?),
        }
    }
}

/// How many bytes of `held` are the body that passes, if all of it is there.
pub fn in_hand(mut passage: Passage, held: &[u8]) -> Option<usize> {
    let mut used = 0;
    while !passage.is_done() {
        match passage.take(&held[used..]).ok()?.used {
            0 => return None,
            n => used += n,
        }
    }
    Some(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(mut passage: Passage, mut bytes: &[u8]) -> (Vec<u8>, usize) {
        let (mut out, mut used) = (Vec::new(), 0);
        while !bytes.is_empty() {
            let portion = passage.take(bytes).expect("legal");
            if portion.used == 0 {
                break;
            }
            out.extend_from_slice(&bytes[portion.pass]);
            used += portion.used;
            bytes = &bytes[portion.used..];
        }
        (out, used)
    }

    #[test]
    fn a_body_is_told_from_what_follows_it() {
        let bytes = b"5\r\nhello\r\n0\r\nA: b\r\n\r\nGET /";
        assert_eq!(passed(Passage::new(Body::Length(3)), b"abcdef"), (b"abc".to_vec(), 3));
        assert_eq!(passed(Passage::new(Body::None), b"abc"), (Vec::new(), 0));
        assert_eq!(passed(Passage::new(Body::Chunked), bytes), (bytes[..21].to_vec(), 21));
        assert_eq!(passed(Passage::unwrapped(Body::Chunked), bytes), (b"hello".to_vec(), 21));
        assert_eq!(passed(Passage::new(Body::UntilClose), b"abc"), (b"abc".to_vec(), 3));
    }

    #[test]
    fn a_body_is_in_hand_when_all_of_it_is() {
        let bytes = b"5\r\nhello\r\n0\r\n\r\nGET /";
        assert_eq!(in_hand(Passage::new(Body::None), b"GET /"), Some(0));
        assert_eq!(in_hand(Passage::new(Body::Length(3)), b"abcdef"), Some(3));
        assert_eq!(in_hand(Passage::new(Body::Length(3)), b"ab"), None);
        for cut in 0..bytes.len() {
            let whole = (cut >= 15).then_some(15);
            assert_eq!(in_hand(Passage::new(Body::Chunked), &bytes[..cut]), whole, "{cut}");
        }
        assert_eq!(in_hand(Passage::new(Body::Chunked), b"x\r\n"), None);
    }

    #[test]
    fn only_a_body_without_a_length_may_just_end() {
        assert!(Passage::new(Body::UntilClose).may_end());
        assert!(Passage::new(Body::None).may_end());
        assert!(!Passage::new(Body::Length(1)).may_end());
        assert!(!Passage::new(Body::Chunked).may_end());
    }
}
