//! WebSocket frames as a load generator needs them, over the proxy's own codec: found whole,
//! written masked or not. Pure; the upgrade is elsewhere.

use standpipe::proto::Step;
use standpipe::proto::frame::{self as codec, HEADER_MAX};

pub use codec::{End, Opcode};

/// A frame that is there to its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: Opcode,
    pub last: bool,
    pub mask: Option<[u8; 4]>,
    /// Where the payload begins in the bytes that were parsed, and how long it is.
    pub header: usize,
    pub payload: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    Need,
    Whole(Frame),
    Bad(codec::Fault),
}

/// Looks for one whole frame, made by `from`, at the start of `bytes`.
#[inline]
pub fn parse(bytes: &[u8], from: End, payload_max: usize) -> Parsed {
    match codec::decode(bytes, from, false) {
        Step::Need => Parsed::Need,
        Step::Bad(fault) => Parsed::Bad(fault),
        Step::Done(header, found) => {
            if found.length > payload_max as u64 {
                return Parsed::Bad(codec::Fault::FrameTooLarge);
            }
            let payload = found.length as usize;
            if bytes.len() < header + payload {
                return Parsed::Need;
            }
            let (opcode, last, mask) = (found.opcode, found.fin, found.mask);
            Parsed::Whole(Frame { opcode, last, mask, header, payload })
        }
    }
}

/// Appends a frame's header; the payload follows. A mask is announced when given.
#[inline]
pub fn write_header(
    out: &mut Vec<u8>,
    opcode: Opcode,
    last: bool,
    payload: usize,
    mask: Option<[u8; 4]>,
) {
    let mut header = [0u8; HEADER_MAX];
    let size = codec::encode_header(&mut header, last, opcode, payload as u64, mask);
    out.extend_from_slice(&header[..size]);
}

/// Appends a whole frame.
pub fn write(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    write_header(out, opcode, true, payload.len(), mask);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        apply_mask(&mut out[start..], key);
    }
}

/// Masks or unmasks a whole payload in place.
#[inline]
pub fn apply_mask(bytes: &mut [u8], key: [u8; 4]) {
    codec::apply_mask(bytes, key, 0);
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
            for (from, mask) in [(End::Server, None), (End::Client, Some([1, 2, 3, 250]))] {
                let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
                let mut out = Vec::new();
                write(&mut out, Opcode::Binary, &payload, mask);
                assert_eq!(parse(&out[..out.len() - 1], from, 1 << 20), Parsed::Need);
                let Parsed::Whole(frame) = parse(&out, from, 1 << 20) else { panic!("not whole") };
                assert_eq!((frame.opcode, frame.last, frame.mask), (Opcode::Binary, true, mask));
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
        assert!(matches!(parse(&bytes, End::Server, 1 << 20), Parsed::Bad(_)));
    }
}
