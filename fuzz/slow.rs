//! Slow twins: the same rules written the long way, over whole inputs and without state.

use standpipe::proto::frame::{End, Fault, Opcode, close_code_is_legal};
use standpipe::proto::tunnel::{FrameLimits, Rules, Verdict};

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub passed: Vec<u8>,
    pub frames: Vec<(Opcode, bool)>,
    pub payload: [u64; 6],
    pub closes: Vec<Option<u16>>,
    pub pongs: usize,
}

#[derive(Debug)]
pub struct Outcome {
    pub seen: Seen,
    pub verdict: Verdict,
    /// Lengths of `seen.passed` at which a frame of another's could stand.
    pub boundaries: Vec<usize>,
}

/// What a tunnel makes of a whole stream.
pub fn tunnel(mut rest: &[u8], rules: Rules, limits: &FrameLimits) -> Outcome {
    let mut twin = Twin { rules, limits: *limits, message: None, seen: Seen::default() };
    let mut boundaries = vec![0];
    loop {
        match twin.frame(rest) {
            Err(verdict) => return Outcome { seen: twin.seen, verdict, boundaries },
            Ok(used) => rest = &rest[used..],
        }
        boundaries.push(twin.seen.passed.len());
        boundaries.dedup();
        if twin.seen.frames.last().is_some_and(|last| last.0 == Opcode::Close) {
            return Outcome { seen: twin.seen, verdict: Verdict::Closed, boundaries };
        }
    }
}

struct Twin {
    rules: Rules,
    limits: FrameLimits,
    message: Option<u64>,
    seen: Seen,
}

fn bad<T>(fault: Fault) -> Result<T, Verdict> {
    Err(Verdict::Bad(fault))
}

impl Twin {
    /// Judges one frame; `Err(Open)` when the stream ends before it does.
    fn frame(&mut self, bytes: &[u8]) -> Result<usize, Verdict> {
        let [first] = take::<1>(bytes, 0)?;
        let bits = first & 15;
        let Some(opcode) = Opcode::ALL.into_iter().find(|known| *known as u8 == bits) else {
            return bad(Fault::ReservedOpcode(bits));
        };
        let rsv = first >> 4 & 7;
        if rsv != 0 && !(rsv == 4 && self.rules.deflate && (bits == 1 || bits == 2)) {
            return bad(Fault::ReservedBit);
        }
        let fin = first >= 128;
        if bits >= 8 && !fin {
            return bad(Fault::ControlFragmented);
        }
        let [second] = take::<1>(bytes, 1)?;
        let client = self.rules.from == End::Client;
        if client != (second >= 128) {
            return bad(if client { Fault::Unmasked } else { Fault::Masked });
        }
        if bits >= 8 && second % 128 > 125 {
            return bad(Fault::ControlTooLong);
        }
        let (length, mut at) = length(bytes, second % 128)?;
        let mut key = [0; 4];
        if client {
            key = take::<4>(bytes, at)?;
            at += 4;
        }
        if bits < 8 {
            self.data(opcode, fin, length)?;
        }
        let close = if bits == 8 { Some(close_code(bytes, at, length, key)?) } else { None };
        if let (Opcode::Pong, 8, Some(mark)) = (opcode, length, self.limits.mark) {
            let payload: [u8; 8] = take::<8>(bytes, at)?;
            if std::array::from_fn(|i| payload[i] ^ key[i % 4]) == mark {
                self.seen.pongs += 1;
                return Ok(at + 8);
            }
        }
        let end = (bytes.len() as u64).min(at as u64 + length) as usize;
        self.seen.passed.extend_from_slice(&bytes[..end]);
        self.seen.frames.push((opcode, fin));
        self.seen.payload[opcode.index()] += (end - at) as u64;
        self.seen.closes.extend(close);
        if (end - at) as u64 == length { Ok(end) } else { Err(Verdict::Open) }
    }

    fn data(&mut self, opcode: Opcode, fin: bool, length: u64) -> Result<(), Verdict> {
        let before = match (opcode, self.message) {
            (Opcode::Continuation, None) => return bad(Fault::OrphanContinuation),
            (Opcode::Continuation, Some(before)) => before,
            (_, Some(_)) => return bad(Fault::UnfinishedMessage),
            (_, None) => 0,
        };
        if opcode != Opcode::Continuation
            && let Some(left) = &mut self.limits.messages
        {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => return bad(Fault::TooManyMessages),
            }
        }
        let whole = before.saturating_add(length);
        if self.limits.max_frame > 0 && length > self.limits.max_frame {
            return bad(Fault::FrameTooLarge);
        }
        if self.limits.max_message > 0 && whole > self.limits.max_message {
            return bad(Fault::MessageTooLarge);
        }
        self.message = if fin { None } else { Some(whole) };
        Ok(())
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Verdict> {
    bytes.get(at..at + N).and_then(|found| found.try_into().ok()).ok_or(Verdict::Open)
}

fn length(bytes: &[u8], short: u8) -> Result<(u64, usize), Verdict> {
    match short {
        126 => match u16::from_be_bytes(take(bytes, 2)?) {
            0..126 => bad(Fault::LengthNotMinimal),
            length => Ok((length.into(), 4)),
        },
        127 => match u64::from_be_bytes(take(bytes, 2)?) {
            0..=0xffff => bad(Fault::LengthNotMinimal),
            length if length > i64::MAX as u64 => bad(Fault::LengthTooLarge),
            length => Ok((length, 10)),
        },
        short => Ok((short.into(), 2)),
    }
}

fn close_code(bytes: &[u8], at: usize, length: u64, key: [u8; 4]) -> Result<Option<u16>, Verdict> {
    match length {
        0 => Ok(None),
        1 => bad(Fault::CloseTruncated),
        _ => {
            let [high, low] = take::<2>(bytes, at)?;
            let code = u16::from_be_bytes([high ^ key[0], low ^ key[1]]);
            if close_code_is_legal(code) { Ok(Some(code)) } else { bad(Fault::CloseCode(code)) }
        }
    }
}

/// Payload and size of an answer's chunked body, if it is whole and legal.
pub fn chunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut payload, mut at) = (Vec::new(), 0);
    loop {
        let line = line(&bytes[at..])?;
        at += line.len() + 2;
        let (mut size, extension) = match line.iter().position(|byte| *byte == b';') {
            Some(semicolon) => (&line[..semicolon], &line[semicolon..]),
            None => (line, &b""[..]),
        };
        while let [shorter @ .., b' ' | b'\t'] = size {
            size = shorter;
        }
        let digits = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
        if !digits || line.len() + 2 > 256 || !extension.iter().all(|byte| is_text(*byte)) {
            return None;
        }
        let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        // Beyond this the decoder refuses; a buffer that held so much there is not.
        let end = at.checked_add(usize::try_from(size).ok()?)?;
        payload.extend_from_slice(bytes.get(at..end)?);
        if bytes.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    let trailers = at;
    loop {
        let line = line(&bytes[at..])?;
        at += line.len() + 2;
        if at - trailers > 8192 {
            return None;
        }
        if line.is_empty() {
            return Some((payload, at));
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = &line[..colon];
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let value_is_legal = line[colon..].iter().all(|byte| is_text(*byte));
        if name.is_empty() || !name.iter().all(legal) || !value_is_legal {
            return None;
        }
    }
}

fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some(&bytes[..end])
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
