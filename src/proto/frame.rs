//! RFC 6455 frame headers: decoded from a slice, encoded into a small array. Payload is never
//! looked at here, and a declared length is only ever a number.

use std::fmt;

use super::Step;

/// The longest header: two bytes, eight of length, four of mask.
pub const HEADER_MAX: usize = 14;
/// The longest payload of a control frame (§5.5).
pub const CONTROL_MAX: usize = 125;
/// The first bit of the first byte: last frame of its message.
pub const FIN: u8 = 0x80;
/// The reserved bit that permessage-deflate uses (RFC 7692).
pub const RSV1: u8 = 0x40;

/// Which end made the frame. Clients mask, servers do not (§5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Client,
    Server,
}

/// The six opcodes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// A frame header, proven by [`decode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub fin: bool,
    pub rsv1: bool,
    pub opcode: Opcode,
    pub mask: Option<[u8; 4]>,
    /// Payload length as declared.
    pub length: u64,
    /// Bytes of the header itself, 2 to 14.
    pub size: u8,
}

/// What was wrong with a frame, or with its place among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    #[error("a reserved bit is set that no extension was agreed for")]
    ReservedBit,
    #[error("reserved opcode {0}")]
    ReservedOpcode(u8),
    #[error("a control frame may not be fragmented")]
    ControlFragmented,
    #[error("a control frame may not carry more than 125 bytes")]
    ControlTooLong,
    #[error("a client must mask its frames")]
    Unmasked,
    #[error("a server must not mask its frames")]
    Masked,
    #[error("the length is not written in its shortest form")]
    LengthNotMinimal,
    #[error("the length has its highest bit set")]
    LengthTooLarge,
    #[error("a continuation of nothing")]
    OrphanContinuation,
    #[error("a new message inside an unfinished one")]
    UnfinishedMessage,
    #[error("a Close payload of one byte")]
    CloseTruncated,
    #[error("Close code {0} may not be sent")]
    CloseCode(u16),
    #[error("a frame longer than the limit")]
    FrameTooLarge,
    #[error("a message longer than the limit")]
    MessageTooLarge,
    #[error("more messages than the limit")]
    TooManyMessages,
}

impl Fault {
    /// The Close code that tells the sender.
    pub fn code(self) -> u16 {
        match self {
            Self::FrameTooLarge | Self::MessageTooLarge => 1009,
            Self::TooManyMessages => 1008,
            _ => 1002,
        }
    }
}

/// Decodes a header made by `from`. `rsv1`: permessage-deflate was agreed. Faults are found in the
/// order of the bytes, as soon as the byte is there, so that a cut never changes the answer.
#[inline]
pub fn decode(bytes: &[u8], from: End, rsv1: bool) -> Step<Header, Fault> {
    let Some(&first) = bytes.first() else { return Step::Need };
    let opcode = match first_byte(first, rsv1) {
        Ok(opcode) => opcode,
        Err(fault) => return Step::Bad(fault),
    };
    let Some(&second) = bytes.get(1) else { return Step::Need };
    let short = second & 0x7f;
    match (from, second & 0x80 != 0) {
        (End::Client, false) => return Step::Bad(Fault::Unmasked),
        (End::Server, true) => return Step::Bad(Fault::Masked),
        _ => {}
    }
    if opcode.is_control() && short > CONTROL_MAX as u8 {
        return Step::Bad(Fault::ControlTooLong);
    }
    let (length, mut size) = match short {
        126 => match long_length::<2>(bytes) {
            Step::Done(size, length) => (length, size),
            Step::Need => return Step::Need,
            Step::Bad(fault) => return Step::Bad(fault),
        },
        127 => match long_length::<8>(bytes) {
            Step::Done(size, length) => (length, size),
            Step::Need => return Step::Need,
            Step::Bad(fault) => return Step::Bad(fault),
        },
        short => (u64::from(short), 2),
    };
    let mask = if from == End::Client {
        let Some(key) = bytes.get(size..).and_then(|rest| rest.first_chunk::<4>()) else {
            return Step::Need;
        };
        size += 4;
        Some(*key)
    } else {
        None
    };
    let header = Header {
        fin: first & FIN != 0,
        rsv1: first & RSV1 != 0,
        opcode,
        mask,
        length,
        size: size as u8,
    };
    Step::Done(size, header)
}

#[inline]
fn first_byte(first: u8, rsv1: bool) -> Result<Opcode, Fault> {
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(Fault::ReservedOpcode(first & 0x0f))?;
    if first & 0x70 != 0 {
        // Only RSV1, only where it was agreed, and only where a message begins (RFC 7692 §6.1).
        let begins = matches!(opcode, Opcode::Text | Opcode::Binary);
        if first & 0x30 != 0 || !rsv1 || !begins {
            return Err(Fault::ReservedBit);
        }
    }
    if opcode.is_control() && first & FIN == 0 {
        return Err(Fault::ControlFragmented);
    }
    Ok(opcode)
}

/// The 16- and 64-bit lengths, which must not fit the next smaller form.
fn long_length<const N: usize>(bytes: &[u8]) -> Step<u64, Fault> {
    let Some(digits) = bytes[2..].first_chunk::<N>() else { return Step::Need };
    let length = digits.iter().fold(0, |sum, &digit| sum << 8 | u64::from(digit));
    if length >> 63 != 0 {
        return Step::Bad(Fault::LengthTooLarge);
    }
    let minimum = if N == 2 { 126 } else { 1 << 16 };
    if length < minimum {
        return Step::Bad(Fault::LengthNotMinimal);
    }
    Step::Done(2 + N, length)
}

impl Opcode {
    #[inline]
    pub fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    #[inline]
    pub fn is_control(self) -> bool {
        self as u8 & 8 != 0
    }

    /// Every opcode, in the order of [`Opcode::index`].
    pub const ALL: [Self; 6] =
        [Self::Continuation, Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong];

    /// Dense, for tables of counters.
    #[inline]
    pub fn index(self) -> usize {
        let bits = self as usize;
        if bits < 3 { bits } else { bits - 5 }
    }

    /// The word used in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Continuation => "continuation",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Close => "close",
            Self::Ping => "ping",
            Self::Pong => "pong",
        }
    }
}

/// May this Close code be sent on the wire (§7.4, and IANA's registry)?
pub fn close_code_is_legal(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Writes a header and returns its size. `mask` makes it a client's.
pub fn encode_header(
    out: &mut [u8; HEADER_MAX],
    fin: bool,
    opcode: Opcode,
    length: u64,
    mask: Option<[u8; 4]>,
) -> usize {
    debug_assert!(length >> 63 == 0);
    out[0] = if fin { FIN } else { 0 } | opcode as u8;
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut size = 2;
    if length < 126 {
        out[1] = bit | length as u8;
    } else if length < 1 << 16 {
        out[1] = bit | 126;
        out[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        size = 4;
    } else {
        out[1] = bit | 127;
        out[2..10].copy_from_slice(&length.to_be_bytes());
        size = 10;
    }
    if let Some(key) = mask {
        out[size..size + 4].copy_from_slice(&key);
        size += 4;
    }
    size
}

/// Masks or unmasks in place; `offset` is the position of `bytes[0]` in its payload.
pub fn apply_mask(bytes: &mut [u8], key: [u8; 4], offset: u64) {
    let turn = (offset % 4) as u32;
    let word = u32::from_ne_bytes(key);
    // Little and big endian shift the first key byte out at opposite ends.
    let word = if cfg!(target_endian = "little") {
        word.rotate_right(8 * turn)
    } else {
        word.rotate_left(8 * turn)
    };
    let wide = u64::from(word) << 32 | u64::from(word);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let value = u64::from_ne_bytes(chunk.try_into().unwrap_or([0; 8])) ^ wide;
        chunk.copy_from_slice(&value.to_ne_bytes());
    }
    let key = word.to_ne_bytes();
    for (i, byte) in chunks.into_remainder().iter_mut().enumerate() {
        *byte ^= key[i % 4];
    }
}

/// A whole control frame of our own, ready to send.
#[derive(Clone, Copy)]
pub struct Control {
    bytes: [u8; 6 + CONTROL_MAX],
    size: u8,
}

impl Control {
    /// A Ping; `mask` when it goes to a server. At most 125 bytes of payload are taken.
    pub fn ping(payload: &[u8], mask: Option<[u8; 4]>) -> Self {
        Self::new(Opcode::Ping, payload, mask)
    }

    /// A Pong; `mask` when it goes to a server.
    pub fn pong(payload: &[u8], mask: Option<[u8; 4]>) -> Self {
        Self::new(Opcode::Pong, payload, mask)
    }

    /// A Close; the reason is cut at 123 bytes, between characters. A code that may not be on the
    /// wire is a mistake of ours and becomes 1011.
    pub fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Self {
        debug_assert!(close_code_is_legal(code), "Close code {code}");
        let code = if close_code_is_legal(code) { code } else { 1011 };
        let mut end = reason.len().min(CONTROL_MAX - 2);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let mut payload = [0; CONTROL_MAX];
        payload[..2].copy_from_slice(&code.to_be_bytes());
        payload[2..2 + end].copy_from_slice(&reason.as_bytes()[..end]);
        Self::new(Opcode::Close, &payload[..2 + end], mask)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size)]
    }

    fn new(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Self {
        let payload = &payload[..payload.len().min(CONTROL_MAX)];
        let mut header = [0; HEADER_MAX];
        let start = encode_header(&mut header, true, opcode, payload.len() as u64, mask);
        let size = start + payload.len();
        let mut bytes = [0; 6 + CONTROL_MAX];
        bytes[..start].copy_from_slice(&header[..start]);
        bytes[start..size].copy_from_slice(payload);
        if let Some(key) = mask {
            apply_mask(&mut bytes[start..size], key, 0);
        }
        Self { bytes, size: size as u8 }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Control({:02x?})", self.as_bytes())
    }
}

#[cfg(test)]
mod tests;
