//! One direction of WebSocket frames, followed by headers alone. Payload passes untouched: it is
//! never unmasked to be relayed, never collected, never inflated. Only two things are read: the
//! code of a Close, and a Pong as long as our own mark.
//!
//! What has been passed on always stands either between two frames or inside a payload: the bytes
//! of a header are held (at most 14) until the whole header is there and found legal. So a frame
//! of our own may be inserted whenever [`Tunnel::at_boundary`] says so, and a frame that breaks a
//! rule is refused before one byte of it went out.

use std::fmt;
use std::ops::Range;

use super::Step;
use super::frame::{self, End, Fault, HEADER_MAX, Header, Opcode};

/// The payload of our own Pings, and of the Pongs that answer them.
pub type Mark = [u8; 8];

/// State of one direction. Plain data: copy it, print it, hand it to another core.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// Bytes to the next boundary: payload of the current frame, and what [`Tunnel::peek`] added.
    payload: u64,
    /// Payload bytes of the unfinished message so far, as its headers declared them.
    message: u64,
    /// The beginning of a header, between two frames. Inside a payload nothing is held, and the
    /// first two bytes say how many header bytes are among those to come ([`Tunnel::ahead`]).
    held: [u8; HEADER_MAX],
    held_size: u8,
    /// Opcode of the current frame in the low half, flags in the high half.
    state: u8,
}

const FROM_CLIENT: u8 = 0x10;
const DEFLATE: u8 = 0x20;
const IN_MESSAGE: u8 = 0x40;

/// A masked Pong with a mark, and a masked Close up to its code, must fit what is held.
const _: () = assert!(2 + 4 + size_of::<Mark>() <= HEADER_MAX && 2 + 4 + 2 <= HEADER_MAX);
const _: () = assert!(size_of::<Tunnel>() <= 32);

/// What this direction was agreed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub from: End,
    /// permessage-deflate was agreed in the 101: RSV1 is legal where a message begins.
    pub deflate: bool,
}

/// Bounds and expectations of one call; kept by the caller, so that idle state stays small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameLimits {
    /// Payload bytes of one data frame; 0: no bound.
    pub max_frame: u64,
    /// Payload bytes of one message, all its fragments; 0: no bound.
    pub max_message: u64,
    /// Messages that may still begin; `None`: no bound.
    pub messages: Option<u32>,
    /// The Ping of ours that awaits its answer: the Pong that carries it is swallowed.
    pub mark: Option<Mark>,
}

impl FrameLimits {
    /// A frame was let through: a message it begins is one of those allowed.
    #[inline]
    fn begin(&mut self, header: &Header) {
        if let Some(left) = &mut self.messages
            && matches!(header.opcode, Opcode::Text | Opcode::Binary)
        {
            *left = left.saturating_sub(1);
        }
    }
}

/// Receives what [`Tunnel::feed`] finds, in the order of the stream.
pub trait Sink {
    /// Send this on. Neighbouring frames come as one part.
    fn pass(&mut self, part: Part<'_>);
    /// A legal header. A message begins with `Text` or `Binary`.
    fn frame(&mut self, opcode: Opcode, fin: bool);
    /// So many payload bytes of such a frame were passed.
    fn payload(&mut self, opcode: Opcode, bytes: u64);
    /// A Close begins, with its code if it has one. Its bytes pass like any others.
    fn close(&mut self, code: Option<u16>);
    /// Our mark came back; the Pong was swallowed.
    fn pong(&mut self);
}

/// A piece of what goes on, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<'a> {
    /// Part of the bytes that were fed.
    Fed(Range<usize>),
    /// Up to 14 bytes held since earlier calls; copy them.
    Held(&'a [u8]),
}

/// How the direction stands after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    Open,
    /// A whole Close has passed. What follows it is discarded (§1.4).
    Closed,
    /// A rule was broken. All that was passed before is whole frames; the direction is over.
    Bad(Fault),
}

enum Look {
    Need,
    Frame(Header, Option<Option<u16>>),
    Own(usize),
    Bad(Fault),
}

impl Tunnel {
    pub fn new(rules: Rules) -> Self {
        let from = if rules.from == End::Client { FROM_CLIENT } else { 0 };
        let deflate = if rules.deflate { DEFLATE } else { 0 };
        Self { payload: 0, message: 0, held: [0; HEADER_MAX], held_size: 0, state: from | deflate }
    }

    /// Takes all of `bytes`. After `Bad` the tunnel must not be fed again.
    pub fn feed<S: Sink>(&mut self, bytes: &[u8], limits: &FrameLimits, sink: &mut S) -> Verdict {
        let mut at = 0;
        let limits = &mut limits.clone();
        if self.held_size > 0
            && let Err(verdict) = self.resume(bytes, &mut at, limits, sink)
        {
            return verdict;
        }
        let mut start = at;
        loop {
            if self.payload > 0 {
                let left = bytes.len() - at;
                let taken = self.payload.min(left as u64);
                self.payload -= taken;
                at += taken as usize;
                let payload = taken - self.pass_ahead(taken);
                if payload > 0 {
                    sink.payload(self.opcode(), payload);
                }
                if self.payload > 0 {
                    break;
                }
            }
            if at == bytes.len() || self.opcode() == Opcode::Close {
                break;
            }
            match self.look(&bytes[at..], limits) {
                Look::Frame(header, close) => {
                    self.enter(&header);
                    limits.begin(&header);
                    at += usize::from(header.size);
                    self.payload = header.length;
                    tell(sink, &header, close);
                }
                Look::Own(size) => {
                    pass(sink, start..at);
                    at += size;
                    start = at;
                    sink.pong();
                }
                Look::Need => {
                    self.hold(&bytes[at..]);
                    break;
                }
                Look::Bad(fault) => {
                    pass(sink, start..at);
                    return Verdict::Bad(fault);
                }
            }
        }
        pass(sink, start..at);
        self.verdict()
    }

    /// Finishes a header whose beginning is held, byte by byte: at most 14 short looks.
    fn resume<S: Sink>(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        limits: &mut FrameLimits,
        sink: &mut S,
    ) -> Result<(), Verdict> {
        loop {
            let size = usize::from(self.held_size);
            match self.look(&self.held[..size], limits) {
                Look::Need => {
                    let Some(&byte) = bytes.get(*at) else { return Err(Verdict::Open) };
                    self.held[size] = byte;
                    self.held_size += 1;
                    *at += 1;
                }
                Look::Frame(header, close) => {
                    self.enter(&header);
                    limits.begin(&header);
                    let ahead = (size - usize::from(header.size)) as u64;
                    // What is held beyond the header is a Close's code or a Pong's payload.
                    debug_assert!(ahead <= header.length);
                    self.payload = header.length - ahead;
                    tell(sink, &header, close);
                    sink.pass(Part::Held(&self.held[..size]));
                    self.let_go();
                    if ahead > 0 {
                        sink.payload(header.opcode, ahead);
                    }
                    return Ok(());
                }
                Look::Own(_) => {
                    self.let_go();
                    sink.pong();
                    return Ok(());
                }
                Look::Bad(fault) => {
                    self.let_go();
                    return Err(Verdict::Bad(fault));
                }
            }
        }
    }

    /// Judges the frame that begins at `bytes[0]`, changing nothing.
    #[inline]
    fn look(&self, bytes: &[u8], limits: &FrameLimits) -> Look {
        let from = if self.state & FROM_CLIENT != 0 { End::Client } else { End::Server };
        let header = match frame::decode(bytes, from, self.state & DEFLATE != 0) {
            Step::Done(_, header) => header,
            Step::Need => return Look::Need,
            Step::Bad(fault) => return Look::Bad(fault),
        };
        match header.opcode {
            Opcode::Ping => Look::Frame(header, None),
            Opcode::Pong => look_pong(bytes, header, limits.mark),
            Opcode::Close => look_close(bytes, header),
            _ => match self.data_fault(&header, limits) {
                None => Look::Frame(header, None),
                Some(fault) => Look::Bad(fault),
            },
        }
    }

    #[inline]
    fn data_fault(&self, header: &Header, limits: &FrameLimits) -> Option<Fault> {
        let inside = self.state & IN_MESSAGE != 0;
        let before = match (header.opcode, inside) {
            (Opcode::Continuation, false) => return Some(Fault::OrphanContinuation),
            (Opcode::Continuation, true) => self.message,
            (_, true) => return Some(Fault::UnfinishedMessage),
            (_, false) => 0,
        };
        if header.opcode != Opcode::Continuation && limits.messages == Some(0) {
            return Some(Fault::TooManyMessages);
        }
        if limits.max_frame != 0 && header.length > limits.max_frame {
            return Some(Fault::FrameTooLarge);
        }
        let whole = before.saturating_add(header.length);
        (limits.max_message != 0 && whole > limits.max_message).then_some(Fault::MessageTooLarge)
    }

    #[inline]
    fn enter(&mut self, header: &Header) {
        self.state = self.state & 0xf0 | header.opcode as u8;
        if header.opcode.is_control() {
            return;
        }
        if header.opcode != Opcode::Continuation {
            self.message = 0;
        }
        if header.fin {
            self.state &= !IN_MESSAGE;
        } else {
            self.state |= IN_MESSAGE;
            self.message = self.message.saturating_add(header.length);
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() < HEADER_MAX, "a look never needs more than it can hold");
        let size = bytes.len().min(HEADER_MAX - 1);
        self.held[..size].copy_from_slice(&bytes[..size]);
        self.held_size = size as u8;
    }

    /// Nothing is held any more.
    fn let_go(&mut self) {
        self.held_size = 0;
        self.set_ahead(0);
    }

    /// Header bytes among those to the next boundary, which are no payload. (Of no meaning while a
    /// header is held.)
    #[inline]
    fn ahead(&self) -> u16 {
        u16::from_ne_bytes([self.held[0], self.held[1]])
    }

    /// Of `bytes` to the boundary, how many are such: they count as the first.
    #[inline]
    fn pass_ahead(&mut self, bytes: u64) -> u64 {
        let ahead = self.ahead();
        if ahead == 0 {
            return 0;
        }
        let headers = u64::from(ahead).min(bytes);
        self.set_ahead(ahead - headers as u16);
        headers
    }

    fn set_ahead(&mut self, bytes: u16) {
        [self.held[0], self.held[1]] = bytes.to_ne_bytes();
    }

    fn verdict(&self) -> Verdict {
        if self.is_closed() { Verdict::Closed } else { Verdict::Open }
    }

    /// A whole Close has passed.
    pub fn is_closed(&self) -> bool {
        self.opcode() == Opcode::Close && self.payload == 0
    }

    /// All that was passed on ends with a whole frame: a control frame of ours may follow.
    /// (Never after a Close: ask [`Tunnel::is_closed`].)
    #[inline]
    pub fn at_boundary(&self) -> bool {
        self.payload == 0
    }

    /// Payload bytes until the next boundary. They need not be seen: splice them, and say so with
    /// [`Tunnel::skip`].
    #[inline]
    pub fn bytes_to_boundary(&self) -> u64 {
        self.payload
    }

    /// Looks at what follows the next boundary ([`Tunnel::bytes_to_boundary`] from here) without
    /// taking it. A data frame of at least so much payload that breaks no rule has begun then, and
    /// the boundary moves behind it: its header, which is still to come, goes the way of payload,
    /// and all of it may be spliced. Behind a frame under way only one of the same opcode has, for
    /// what passes is counted under one. In any other case nothing has changed.
    pub fn peek(&mut self, bytes: &[u8], least: u64, limits: &FrameLimits) -> Option<Header> {
        if self.held_size > 0 || self.opcode() == Opcode::Close {
            return None;
        }
        let header = match self.look(bytes, limits) {
            Look::Frame(header, None) if !header.opcode.is_control() => header,
            _ => return None,
        };
        if header.length < least || (self.payload > 0 && header.opcode != self.opcode()) {
            return None;
        }
        let size = u64::from(header.size);
        let payload = self.payload.checked_add(size)?.checked_add(header.length)?;
        let ahead = self.ahead().checked_add(header.size.into())?;
        self.enter(&header);
        self.payload = payload;
        self.set_ahead(ahead);
        Some(header)
    }

    /// `bytes` to the boundary went by another road. Says how many of them are payload, and of
    /// which opcode: headers begun by [`Tunnel::peek`] are taken off first.
    #[inline]
    pub fn skip(&mut self, bytes: u64) -> (Opcode, u64) {
        debug_assert!(bytes <= self.payload && self.held_size == 0);
        self.payload = self.payload.saturating_sub(bytes);
        let headers = self.pass_ahead(bytes);
        (self.opcode(), bytes - headers)
    }

    /// Header bytes that wait for their rest. At end of stream they are a cut frame.
    pub fn held(&self) -> &[u8] {
        &self.held[..usize::from(self.held_size)]
    }

    /// Between the fragments of a message.
    pub fn in_message(&self) -> bool {
        self.state & IN_MESSAGE != 0
    }

    /// A stream that ends here ends cleanly: no frame is cut.
    pub fn may_end(&self) -> bool {
        self.payload == 0 && self.held_size == 0
    }

    #[inline]
    fn opcode(&self) -> Opcode {
        // The low half is only ever written from an `Opcode`; zero is `Continuation`.
        Opcode::from_bits(self.state & 0x0f).unwrap_or(Opcode::Continuation)
    }
}

/// A Pong as long as our mark is decided when all of it is there.
fn look_pong(bytes: &[u8], header: Header, mark: Option<Mark>) -> Look {
    let size = usize::from(header.size);
    let Some(mark) = mark.filter(|mark| header.length == mark.len() as u64) else {
        return Look::Frame(header, None);
    };
    let Some(mut payload) = bytes[size..].first_chunk::<8>().copied() else { return Look::Need };
    frame::apply_mask(&mut payload, header.mask.unwrap_or_default(), 0);
    if payload == mark { Look::Own(size + payload.len()) } else { Look::Frame(header, None) }
}

/// A Close is decided when its code is there.
fn look_close(bytes: &[u8], header: Header) -> Look {
    match header.length {
        0 => return Look::Frame(header, Some(None)),
        1 => return Look::Bad(Fault::CloseTruncated),
        _ => {}
    }
    let Some(mut code) = bytes[usize::from(header.size)..].first_chunk::<2>().copied() else {
        return Look::Need;
    };
    frame::apply_mask(&mut code, header.mask.unwrap_or_default(), 0);
    let code = u16::from_be_bytes(code);
    if frame::close_code_is_legal(code) {
        Look::Frame(header, Some(Some(code)))
    } else {
        Look::Bad(Fault::CloseCode(code))
    }
}

#[inline]
fn tell<S: Sink>(sink: &mut S, header: &Header, close: Option<Option<u16>>) {
    sink.frame(header.opcode, header.fin);
    if let Some(code) = close {
        sink.close(code);
    }
}

#[inline]
fn pass<S: Sink>(sink: &mut S, span: Range<usize>) {
    if !span.is_empty() {
        sink.pass(Part::Fed(span));
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("opcode", &self.opcode())
            .field("payload", &self.payload)
            .field("message", &self.message)
            .field("in_message", &self.in_message())
            .field("held", &self.held())
            .finish()
    }
}

#[cfg(test)]
mod tests;
