//! One message as it travels: who sent it, which one it is, when it was due, and a digest over all
//! of it. Writing and reading are pure and allocate nothing; nothing here knows sockets or frames.
//!
//! ```text
//!  0       4           8         12      16           24
//!  | tag+length | connection | sequence | digest | due (ns) | filler …      little endian
//! ```
//! In text form the 24 bytes of the header are written as 48 hexadecimal digits.

/// The shortest binary message: its header alone.
pub const HEADER_BYTES: usize = 24;
/// The shortest text message.
pub const TEXT_HEADER_BYTES: usize = 2 * HEADER_BYTES;
/// The length field has 24 bits.
pub const MESSAGE_BYTES_MAX: usize = (1 << 24) - 1;

/// The top byte of the first word: makes a lost boundary findable, and tells kinds apart.
const TAG_DATA: u8 = 0xA7;
const TAG_ASK: u8 = 0xA8;
const TAG_NAME: u8 = 0xA9;

/// Filler comes from one fixed pool, so that sending costs one copy and no random numbers.
const POOL_BYTES: usize = 64 * 1024;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A numbered message whose echo is awaited.
    Data,
    /// "Who are you?", answered by an echo that was given a name.
    Ask,
    /// The answer: the filler is the name.
    Name,
}

/// The facts of a message, without its filler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    /// Of the whole message, header included.
    pub length: usize,
    pub connection: u32,
    pub sequence: u32,
    pub due_ns: u64,
}

/// What the start of some received bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not enough bytes yet; this many are needed before it is worth looking again.
    Need(usize),
    /// A whole, sound message.
    Sound(Header),
    /// Its length can be believed, its digest not.
    Damaged { length: usize },
    /// Not a message of ours at all.
    Foreign,
}

/// The alphabet of a run's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Binary,
    Text,
}

/// Builds messages from a shared pool of filler.
pub struct Writer {
    pool: Vec<u8>,
    form: Form,
}

impl Writer {
    pub fn new(form: Form) -> Writer {
        let mut random = fastrand::Rng::with_seed(0x5741_4e44_5049_5045);
        let pool = match form {
            Form::Binary => (0..POOL_BYTES).map(|_| random.u8(..)).collect(),
            Form::Text => (0..POOL_BYTES).map(|_| random.u8(b' '..=b'~')).collect(),
        };
        Writer { pool, form }
    }

    /// Appends one message to `out`. `length` is at least the form's header.
    pub fn write(&self, out: &mut Vec<u8>, header: &Header) {
        let start = out.len();
        match self.form {
            Form::Binary => out.extend_from_slice(&encode(header, 0)),
            Form::Text => out.extend_from_slice(&[b'0'; TEXT_HEADER_BYTES]),
        }
        let mut rest = header.length.saturating_sub(out.len() - start);
        let mut from = (header.connection as usize * 61 + header.sequence as usize * 7) % 4096;
        while rest > 0 {
            let part = rest.min(POOL_BYTES - from);
            out.extend_from_slice(&self.pool[from..from + part]);
            rest -= part;
            from = 0;
        }
        self.seal(&mut out[start..], header);
    }

    /// Appends the answer to an `Ask`: the name is the filler.
    pub fn write_name(&self, out: &mut Vec<u8>, ask: &Header, name: &str) {
        let start = out.len();
        let head = header_bytes(self.form);
        out.resize(start + head, b'0');
        out.extend_from_slice(name.as_bytes());
        let header = Header { kind: Kind::Name, length: out.len() - start, ..*ask };
        self.seal(&mut out[start..], &header);
    }

    fn seal(&self, message: &mut [u8], header: &Header) {
        let (head, filler) = message.split_at_mut(header_bytes(self.form));
        let sealed = encode(header, digest_of(header, filler));
        match self.form {
            Form::Binary => head.copy_from_slice(&sealed),
            Form::Text => write_hex(head, &sealed),
        }
    }
}

/// Reads the message at the start of `bytes`. A length that is not `plausible` for its kind is not
/// believed, so that a bent one is never waited for.
#[inline]
pub fn parse(form: Form, bytes: &[u8], plausible: impl Fn(Kind, usize) -> bool) -> Parsed {
    let head_bytes = header_bytes(form);
    let Some(head) = bytes.get(..head_bytes) else {
        return Parsed::Need(head_bytes);
    };
    let mut raw = [0u8; HEADER_BYTES];
    match form {
        Form::Binary => raw.copy_from_slice(head),
        Form::Text => {
            if !read_hex(head, &mut raw) {
                return Parsed::Foreign;
            }
        }
    }
    let Some((header, digest)) = decode(&raw) else {
        return Parsed::Foreign;
    };
    if header.length < head_bytes || !plausible(header.kind, header.length) {
        return Parsed::Foreign;
    }
    let Some(filler) = bytes.get(head_bytes..header.length) else {
        return Parsed::Need(header.length);
    };
    if digest_of(&header, filler) == digest {
        Parsed::Sound(header)
    } else {
        Parsed::Damaged { length: header.length }
    }
}

/// For who cannot know what lengths there are.
pub fn any_length(_kind: Kind, length: usize) -> bool {
    length <= MESSAGE_BYTES_MAX
}

pub fn header_bytes(form: Form) -> usize {
    match form {
        Form::Binary => HEADER_BYTES,
        Form::Text => TEXT_HEADER_BYTES,
    }
}

fn encode(header: &Header, digest: u32) -> [u8; HEADER_BYTES] {
    let tag = match header.kind {
        Kind::Data => TAG_DATA,
        Kind::Ask => TAG_ASK,
        Kind::Name => TAG_NAME,
    };
    let first = u32::from(tag) << 24 | (header.length as u32 & 0x00ff_ffff);
    let mut out = [0u8; HEADER_BYTES];
    out[0..4].copy_from_slice(&first.to_le_bytes());
    out[4..8].copy_from_slice(&header.connection.to_le_bytes());
    out[8..12].copy_from_slice(&header.sequence.to_le_bytes());
    out[12..16].copy_from_slice(&digest.to_le_bytes());
    out[16..24].copy_from_slice(&header.due_ns.to_le_bytes());
    out
}

fn decode(raw: &[u8; HEADER_BYTES]) -> Option<(Header, u32)> {
    let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    let kind = match raw[3] {
        TAG_DATA => Kind::Data,
        TAG_ASK => Kind::Ask,
        TAG_NAME => Kind::Name,
        _ => return None,
    };
    let due_ns = u64::from(word(16)) | u64::from(word(20)) << 32;
    let length = (word(0) & 0x00ff_ffff) as usize;
    Some((Header { kind, length, connection: word(4), sequence: word(8), due_ns }, word(12)))
}

fn digest_of(header: &Header, filler: &[u8]) -> u32 {
    let facts = encode(header, 0);
    let seed = fold(
        u64::from_le_bytes(first_eight(&facts[0..8])) ^ FOLD_A,
        u64::from_le_bytes(first_eight(&facts[8..16])) ^ header.due_ns.rotate_left(32) ^ FOLD_B,
    );
    digest(seed, filler)
}

const FOLD_A: u64 = 0xa076_1d64_78bd_642f;
const FOLD_B: u64 = 0xe703_7ed1_a0b4_28db;

/// A 32-bit digest by folded multiplication: some ten bytes a nanosecond, so that checking every
/// byte does not hide the proxy under test. It finds accidents, not forgers.
pub fn digest(seed: u64, bytes: &[u8]) -> u32 {
    let mut left = seed ^ FOLD_A;
    let mut right = seed.rotate_left(29) ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(32);
    for chunk in &mut chunks {
        left = fold(
            left ^ u64::from_le_bytes(first_eight(&chunk[0..8])),
            FOLD_B ^ u64::from_le_bytes(first_eight(&chunk[8..16])),
        );
        right = fold(
            right ^ u64::from_le_bytes(first_eight(&chunk[16..24])),
            FOLD_A ^ u64::from_le_bytes(first_eight(&chunk[24..32])),
        );
    }
    for part in chunks.remainder().chunks(8) {
        left = fold(left ^ u64::from_le_bytes(first_eight(part)), FOLD_B ^ part.len() as u64);
    }
    let last = fold(left ^ FOLD_B, right ^ FOLD_A);
    (last ^ last >> 32) as u32
}

fn fold(left: u64, right: u64) -> u64 {
    // A zero operand would swallow the other: the or-ed bit keeps every input alive.
    let wide = u128::from(left | 1 << 63) * u128::from(right | 1 << 62);
    left.rotate_left(17) ^ right ^ (wide as u64) ^ ((wide >> 64) as u64)
}

fn first_eight(bytes: &[u8]) -> [u8; 8] {
    let mut out = [0u8; 8];
    let count = bytes.len().min(8);
    out[..count].copy_from_slice(&bytes[..count]);
    out
}

fn write_hex(out: &mut [u8], raw: &[u8; HEADER_BYTES]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(raw) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

fn read_hex(text: &[u8], raw: &mut [u8; HEADER_BYTES]) -> bool {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|value| value as u8);
    for (pair, byte) in text.chunks_exact(2).zip(raw.iter_mut()) {
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            return false;
        };
        *byte = high << 4 | low;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: usize) -> Header {
        Header { kind: Kind::Data, length, connection: 9, sequence: 1234, due_ns: 0x1_2345_6789 }
    }

    #[test]
    fn every_length_comes_back_sound_in_both_forms() {
        for form in [Form::Binary, Form::Text] {
            let writer = Writer::new(form);
            for length in (header_bytes(form)..300).chain([4096, 70_000, 200_001]) {
                let mut out = b"before".to_vec();
                writer.write(&mut out, &header(length));
                let message = &out[6..];
                assert_eq!(message.len(), length);
                assert_eq!(parse(form, message, any_length), Parsed::Sound(header(length)));
                if form == Form::Text {
                    assert!(message.iter().all(|byte| (b' '..=b'~').contains(byte)));
                }
            }
        }
    }

    #[test]
    fn every_cut_asks_for_more() {
        let mut out = Vec::new();
        Writer::new(Form::Binary).write(&mut out, &header(100));
        for cut in 0..100 {
            let wanted = if cut < HEADER_BYTES { HEADER_BYTES } else { 100 };
            assert_eq!(parse(Form::Binary, &out[..cut], any_length), Parsed::Need(wanted));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut out = Vec::new();
        Writer::new(Form::Binary).write(&mut out, &header(90));
        for bit in 0..90 * 8 {
            let mut bent = out.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            let parsed = parse(Form::Binary, &bent, any_length);
            assert!(!matches!(parsed, Parsed::Sound(_)), "bit {bit} went unseen");
        }
    }

    #[test]
    fn a_name_is_carried() {
        for form in [Form::Binary, Form::Text] {
            let mut out = Vec::new();
            let ask = Header { kind: Kind::Ask, ..header(header_bytes(form)) };
            Writer::new(form).write_name(&mut out, &ask, "blue");
            let Parsed::Sound(answer) = parse(form, &out, any_length) else { panic!("not sound") };
            assert_eq!(answer.kind, Kind::Name);
            assert_eq!(&out[header_bytes(form)..answer.length], b"blue");
        }
    }
}
