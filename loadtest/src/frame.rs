//! WebSocket frames as a load generator needs them: written masked or not, read whole.
//! Pure; the upgrade is elsewhere.

/// Opcodes that matter here.
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The longest header: 2 bytes, 8 of length, 4 of mask.
pub const HEADER_BYTES_MAX: usize = 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub last: bool,
    pub mask: Option<[u8; 4]>,
    /// Where the payload stands in the bytes that were parsed.
    pub header: usize,
    pub payload: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    Need,
    Whole(Frame),
    Bad(&'static str),
}

/// Looks for one whole frame at the start of `bytes`.
pub fn parse(bytes: &[u8], payload_max: usize) -> Parsed {
    let (Some(&first), Some(&second)) = (bytes.first(), bytes.get(1)) else {
        return Parsed::Need;
    };
    if first & 0x70 != 0 {
        return Parsed::Bad("a reserved bit is set, and no extension was agreed");
    }
    let (length, mut header) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(raw) => (u64::from(u16::from_be_bytes([raw[0], raw[1]])), 4),
            None => return Parsed::Need,
        },
        127 => match bytes.get(2..10).and_then(|raw| raw.try_into().ok()) {
            Some(raw) => (u64::from_be_bytes(raw), 10),
            None => return Parsed::Need,
        },
        short => (u64::from(short), 2),
    };
    if length > payload_max as u64 {
        return Parsed::Bad("a frame longer than any message of this run");
    }
    let mask = if second & 0x80 != 0 {
        let Some(raw) = bytes.get(header..header + 4) else { return Parsed::Need };
        header += 4;
        Some([raw[0], raw[1], raw[2], raw[3]])
    } else {
        None
    };
    let payload = length as usize;
    if bytes.len() < header + payload {
        return Parsed::Need;
    }
    Parsed::Whole(Frame { opcode: first & 0x0f, last: first & 0x80 != 0, mask, header, payload })
}

/// Appends a frame's header; the payload follows. A mask is announced when given.
pub fn write_header(out: &mut Vec<u8>, opcode: u8, payload: usize, mask: Option<[u8; 4]>) {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.push(0x80 | opcode);
    match payload {
        0..=125 => out.push(masked | payload as u8),
        126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(payload as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(payload as u64).to_be_bytes());
        }
    }
    if let Some(key) = mask {
        out.extend_from_slice(&key);
    }
}

/// Appends a whole frame.
pub fn write(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) {
    write_header(out, opcode, payload.len(), mask);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        apply_mask(&mut out[start..], key);
    }
}

/// Masks or unmasks in place, eight bytes at a time.
pub fn apply_mask(bytes: &mut [u8], key: [u8; 4]) {
    let wide = u64::from(u32::from_le_bytes(key));
    let wide = wide << 32 | wide;
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut raw = [0u8; 8];
        raw.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_le_bytes(raw) ^ wide).to_le_bytes());
    }
    for (at, byte) in chunks.into_remainder().iter_mut().enumerate() {
        *byte ^= key[at & 3];
    }
}

/// The code of a Close frame's payload; 1005 when it carries none.
pub fn close_code(payload: &[u8]) -> u16 {
    match payload {
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 1005,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_class_come_back() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_001] {
            for mask in [None, Some([1, 2, 3, 250])] {
                let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
                let mut out = Vec::new();
                write(&mut out, BINARY, &payload, mask);
                assert_eq!(parse(&out[..out.len() - 1], 1 << 20), Parsed::Need);
                let Parsed::Whole(frame) = parse(&out, 1 << 20) else { panic!("not whole") };
                assert_eq!((frame.opcode, frame.last, frame.mask), (BINARY, true, mask));
                let body = &mut out[frame.header..];
                assert_eq!(body.len(), frame.payload);
                if let Some(key) = frame.mask {
                    apply_mask(body, key);
                }
                assert_eq!(body, payload);
            }
        }
    }

    #[test]
    fn a_declared_length_is_not_trusted() {
        let bytes = [0x82, 127, 0x7f, 255, 255, 255, 255, 255, 255, 255];
        assert!(matches!(parse(&bytes, 1 << 20), Parsed::Bad(_)));
    }
}
