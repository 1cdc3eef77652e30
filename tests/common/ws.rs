//! WebSocket bytes for scripted peers: frames made and read one at a time, nothing checked that a
//! test may want to send wrong.

use std::io::Write;
use std::net::SocketAddr;

use super::http::{Head, Reader, Server};

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub masked: bool,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    pub fn close_code(&self) -> Option<u16> {
        let code = self.payload.get(..2)?;
        (self.opcode() == CLOSE).then(|| u16::from_be_bytes([code[0], code[1]]))
    }
}

/// A frame with FIN; masked with a fixed key if `masked`.
pub fn frame(opcode: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    raw_frame(0x80 | opcode, masked, payload)
}

/// A frame with any first byte.
pub fn raw_frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mask_bit = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        n @ 0..=125 => bytes.push(mask_bit | n as u8),
        n @ 126..=65_535 => {
            bytes.push(mask_bit | 126);
            bytes.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            bytes.push(mask_bit | 127);
            bytes.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    if masked {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        bytes.extend_from_slice(&key);
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
    } else {
        bytes.extend_from_slice(payload);
    }
    bytes
}

pub fn close(code: u16, masked: bool) -> Vec<u8> {
    frame(CLOSE, masked, &code.to_be_bytes())
}

/// The next frame, unmasked; `None` when the stream ends first.
pub fn read_frame(reader: &mut Reader) -> Option<Frame> {
    let head = reader.bytes(2);
    if head.len() < 2 {
        return None;
    }
    let masked = head[1] & 0x80 != 0;
    let length = match head[1] & 0x7f {
        126 => reader.bytes(2).iter().fold(0_usize, |n, b| n << 8 | *b as usize),
        127 => reader.bytes(8).iter().fold(0_usize, |n, b| n << 8 | *b as usize),
        n => n as usize,
    };
    let key = if masked { reader.bytes(4) } else { vec![0; 4] };
    let mut payload = reader.bytes(length);
    if payload.len() < length {
        return None;
    }
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
    Some(Frame { first: head[0], masked, payload })
}

/// An upgrade request that is right in every way.
pub fn request(path: &str) -> String {
    request_with(path, "")
}

/// The same with more header lines, each ended by CRLF.
pub fn request_with(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test.example\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\
         {more}\r\n"
    )
}

/// The 101 that fits [`request`], with more header lines.
pub fn switching(more: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n{more}\r\n"
    )
}

/// Connects, upgrades, and gives back the open socket with the response head.
pub fn open(to: SocketAddr, path: &str) -> (Reader, Head) {
    open_with(to, path, "")
}

pub fn open_with(to: SocketAddr, path: &str, more: &str) -> (Reader, Head) {
    let mut reader = Reader::connect(to);
    reader.send(request_with(path, more));
    let head = reader.head().expect("a response head");
    assert!(head.start.starts_with("HTTP/1.1 101"), "{head:?}");
    (reader, head)
}

/// The value a server must answer `key` with.
pub fn accept_for(head: &Head) -> String {
    let key = head.header("sec-websocket-key").unwrap_or_default();
    tungstenite::handshake::derive_accept_key(key.as_bytes())
}

/// A server that upgrades whoever asks and echoes data and ping frames; a Close is answered and
/// ends the connection. Plain requests get a 200 naming the server.
pub fn echo_server(name: &'static str) -> Server {
    Server::scripted(move |mut reader| {
        while let Some(head) = reader.head() {
            if head.header("upgrade").is_none() {
                let length = head.header("content-length").and_then(|n| n.parse().ok());
                reader.bytes(length.unwrap_or(0));
                reader.send(super::http::ok(name));
                continue;
            }
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\nX-Server: {name}\r\n\r\n",
                accept_for(&head)
            );
            reader.send(answer);
            echo(&mut reader);
            return;
        }
    })
}

/// Echoes frames until a Close or the end.
pub fn echo(reader: &mut Reader) {
    while let Some(got) = read_frame(reader) {
        let answer = match got.opcode() {
            PING => frame(PONG, false, &got.payload),
            PONG => continue,
            _ => raw_frame(got.first, false, &got.payload),
        };
        if reader.stream.write_all(&answer).is_err() || got.opcode() == CLOSE {
            return;
        }
    }
}
