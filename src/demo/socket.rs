//! One end of a WebSocket on any byte stream, for the demonstration's own clients and servers:
//! whole small messages, one at a time. It follows the protocol; it does not police it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::proto::Step;
use crate::proto::frame::{Control, End, HEADER_MAX, Header, Opcode, apply_mask, decode};
use crate::proto::frame::{close_code_is_legal, encode_header};

/// The longest head that is read.
const HEAD_MAX: usize = 16 << 10;

/// The longest payload of one frame.
const PAYLOAD_MAX: u64 = 1 << 20;

/// Normal closure.
const NORMAL: u16 = 1000;

/// Bytes with what was read too far, from the head on.
#[derive(Debug)]
pub struct Stream<S> {
    pub io: S,
    pub inbox: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    pub fn new(io: S) -> Self {
        Self { io, inbox: Vec::new() }
    }

    /// Reads some more; 0 at the end.
    pub async fn fill(&mut self) -> io::Result<usize> {
        self.inbox.reserve(2048);
        self.io.read_buf(&mut self.inbox).await
    }

    /// A whole head with the empty line that ends it, taken out of the inbox.
    pub async fn head(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.inbox.windows(4).position(|four| four == b"\r\n\r\n") {
                return Ok(self.inbox.drain(..at + 4).collect());
            }
            if self.inbox.len() > HEAD_MAX {
                return Err(io::Error::other("the head is too long"));
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// A message, or the end of them.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Message(Opcode, Vec<u8>),
    /// A Close with its code, which was answered.
    Close(Option<u16>),
    /// The stream ended without one.
    End,
}

/// After the handshake.
#[derive(Debug)]
pub struct Socket<S> {
    stream: Stream<S>,
    /// Which end we are.
    own: End,
    closing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub fn new(stream: Stream<S>, own: End) -> Self {
        Self { stream, own, closing: false }
    }

    pub async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        let mask = self.mask();
        let mut header = [0; HEADER_MAX];
        let size = encode_header(&mut header, true, opcode, payload.len() as u64, mask);
        let mut bytes = Vec::with_capacity(size + payload.len());
        bytes.extend_from_slice(&header[..size]);
        bytes.extend_from_slice(payload);
        if let Some(key) = mask {
            apply_mask(&mut bytes[size..], key, 0);
        }
        self.write(&bytes).await
    }

    /// The next message. Pings are answered on the way.
    pub async fn next(&mut self) -> io::Result<Said> {
        let mut message: Option<(Opcode, Vec<u8>)> = None;
        loop {
            let Some((header, payload)) = self.frame().await? else { return Ok(Said::End) };
            match header.opcode {
                Opcode::Ping => {
                    let pong = Control::pong(&payload, self.mask());
                    self.write(pong.as_bytes()).await?;
                }
                Opcode::Pong => {}
                Opcode::Close => return self.closed(&payload).await,
                Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                    let (_, whole) = message.get_or_insert((header.opcode, Vec::new()));
                    whole.extend_from_slice(&payload);
                    if whole.len() as u64 > PAYLOAD_MAX {
                        return Err(io::Error::other("the message is too long"));
                    }
                    if header.fin
                        && let Some((opcode, whole)) = message.take()
                    {
                        return Ok(Said::Message(opcode, whole));
                    }
                }
            }
        }
    }

    /// Says that no more will come, and reads until the other side has said it too.
    pub async fn close(&mut self) -> io::Result<()> {
        self.closing = true;
        let close = Control::close(NORMAL, "", self.mask());
        self.write(close.as_bytes()).await?;
        while let Said::Message(..) = self.next().await? {}
        self.stream.io.shutdown().await
    }

    async fn closed(&mut self, payload: &[u8]) -> io::Result<Said> {
        let code = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
        if !self.closing {
            self.closing = true;
            let code = code.filter(|code| close_code_is_legal(*code)).unwrap_or(NORMAL);
            let close = Control::close(code, "", self.mask());
            self.write(close.as_bytes()).await?;
        }
        Ok(Said::Close(code))
    }

    /// One frame with its payload unmasked; `None` where the stream ends between two.
    async fn frame(&mut self) -> io::Result<Option<(Header, Vec<u8>)>> {
        let other = if self.own == End::Client { End::Server } else { End::Client };
        loop {
            match decode(&self.stream.inbox, other, false) {
                Step::Bad(fault) => return Err(io::Error::other(fault)),
                Step::Done(size, header) => {
                    if header.length > PAYLOAD_MAX {
                        return Err(io::Error::other("the frame is too long"));
                    }
                    let end = size + header.length as usize;
                    if self.stream.inbox.len() >= end {
                        let mut payload = self.stream.inbox[size..end].to_vec();
                        self.stream.inbox.drain(..end);
                        if let Some(key) = header.mask {
                            apply_mask(&mut payload, key, 0);
                        }
                        return Ok(Some((header, payload)));
                    }
                }
                Step::Need => {}
            }
            if self.stream.fill().await? == 0 {
                return match self.stream.inbox.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.io.write_all(bytes).await?;
        self.stream.io.flush().await
    }

    fn mask(&self) -> Option<[u8; 4]> {
        (self.own == End::Client).then(|| fastrand::u32(..).to_ne_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
    }

    #[test]
    fn two_ends_understand_each_other() {
        run(async {
            let (a, b) = duplex(64);
            let mut client = Socket::new(Stream::new(a), End::Client);
            let mut server = Socket::new(Stream::new(b), End::Server);
            let long = vec![7; 70_000];
            let echo = async {
                loop {
                    match server.next().await.unwrap() {
                        Said::Message(opcode, said) => server.send(opcode, &said).await.unwrap(),
                        end => break end,
                    }
                }
            };
            let talk = async {
                for said in [&b""[..], b"hello", &long] {
                    client.send(Opcode::Binary, said).await.unwrap();
                    let heard = client.next().await.unwrap();
                    assert_eq!(heard, Said::Message(Opcode::Binary, said.to_vec()));
                }
                client.close().await.unwrap();
            };
            let (end, ()) = tokio::join!(echo, talk);
            assert_eq!(end, Said::Close(Some(NORMAL)));
        });
    }

    #[test]
    fn a_cut_frame_is_an_error_and_a_clean_end_is_none() {
        run(async {
            let (a, mut b) = duplex(64);
            b.write_all(&[0x82, 5, 1]).await.unwrap();
            drop(b);
            let mut client = Socket::new(Stream::new(a), End::Client);
            assert!(client.next().await.is_err());
            let (a, _) = duplex(64);
            let mut client = Socket::new(Stream::new(a), End::Client);
            assert_eq!(client.next().await.unwrap(), Said::End);
        });
    }
}
