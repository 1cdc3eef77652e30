//! One non-blocking stream, plain or inside TLS: bytes in, bytes out, and what could not leave yet.
//! It knows nothing of messages or frames. An idle plain socket owns no buffer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::secure::Secure;

/// One read takes at most this much.
pub const READ_BYTES: usize = 64 * 1024;

/// Buffers shared by all sockets of a thread.
pub struct Room {
    /// What was last received, in clear.
    pub bytes: Vec<u8>,
    /// Ciphertext on its way through TLS.
    cipher: Vec<u8>,
    /// How much of `bytes` a read may fill.
    limit: usize,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// This many bytes in clear; more may follow.
    Bytes(usize),
    /// Nothing more for now.
    Dry,
    /// The peer has finished sending.
    End,
}

/// Whether everything handed to a socket has left us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    All,
    /// The kernel takes no more: wait for the socket to be writable, then `flush`.
    Blocked,
}

pub struct Socket {
    stream: TcpStream,
    secure: Option<Box<Secure>>,
    unsent: Option<Box<Unsent>>,
}

struct Unsent {
    bytes: Vec<u8>,
    from: usize,
}

impl Room {
    pub fn new() -> Room {
        Room { bytes: vec![0; READ_BYTES], cipher: Vec::new(), limit: READ_BYTES }
    }

    /// Lets following reads take at most this much; returns what they were allowed before.
    pub fn limit(&mut self, bytes: usize) -> usize {
        std::mem::replace(&mut self.limit, bytes.min(READ_BYTES))
    }
}

impl Default for Room {
    /// Nothing at all: what stands in while the real one is lent out.
    fn default() -> Room {
        Room { bytes: Vec::new(), cipher: Vec::new(), limit: 0 }
    }
}

impl Socket {
    pub fn new(stream: TcpStream, secure: Option<Box<Secure>>) -> Socket {
        Socket { stream, secure, unsent: None }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn secure(&self) -> Option<&Secure> {
        self.secure.as_deref()
    }

    /// A handshake still to be finished before any byte of ours may travel?
    pub fn handshaking(&self) -> bool {
        self.secure.as_ref().is_some_and(|secure| secure.handshaking())
    }

    /// Reads once into `room.bytes`. After `Bytes`, read again; a plain socket that gave less than
    /// was asked for is known to be dry, which the caller may use.
    pub fn recv(&mut self, room: &mut Room) -> io::Result<Got> {
        let Room { bytes, cipher, limit } = room;
        self.recv_into(&mut bytes[..*limit], cipher)
    }

    /// Reads once onto the end of `tail`.
    pub fn recv_after(&mut self, tail: &mut Vec<u8>, room: &mut Room) -> io::Result<Got> {
        let start = tail.len();
        tail.resize(start + room.limit, 0);
        let got = self.recv_into(&mut tail[start..], &mut room.cipher);
        tail.truncate(start + if let Ok(Got::Bytes(count)) = got { count } else { 0 });
        got
    }

    fn recv_into(&mut self, into: &mut [u8], cipher: &mut Vec<u8>) -> io::Result<Got> {
        let Some(secure) = &mut self.secure else {
            return match (&self.stream).read(into) {
                Ok(0) => Ok(Got::End),
                Ok(count) => Ok(Got::Bytes(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Got::Dry),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Got::Dry),
                Err(error) => Err(error),
            };
        };
        cipher.resize(READ_BYTES, 0);
        let got = secure.recv(&self.stream, into, cipher);
        // Handshake flights, key updates and alerts leave as they arise.
        if secure.wants_write() {
            let mut out = Vec::new();
            secure.take(&mut out)?;
            self.push(&out)?;
        }
        got
    }

    /// Sends all of `bytes`, or keeps what does not fit for `flush`.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<Sent> {
        match &mut self.secure {
            None => self.push(bytes),
            Some(secure) => {
                let mut out = Vec::with_capacity(bytes.len() + 64);
                secure.seal(bytes, &mut out)?;
                self.push(&out)
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<Sent> {
        if let Some(unsent) = &mut self.unsent {
            unsent.bytes.extend_from_slice(bytes);
            return Ok(Sent::Blocked);
        }
        let mut from = 0;
        while from < bytes.len() {
            match (&self.stream).write(&bytes[from..]) {
                Ok(count) => from += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let bytes = bytes[from..].to_vec();
                    self.unsent = Some(Box::new(Unsent { bytes, from: 0 }));
                    return Ok(Sent::Blocked);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Sent::All)
    }

    /// Tries again with what was kept.
    pub fn flush(&mut self) -> io::Result<Sent> {
        let Some(unsent) = &mut self.unsent else { return Ok(Sent::All) };
        while unsent.from < unsent.bytes.len() {
            match (&self.stream).write(&unsent.bytes[unsent.from..]) {
                Ok(count) => unsent.from += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Sent::Blocked);
                }
                Err(error) => return Err(error),
            }
        }
        self.unsent = None;
        Ok(Sent::All)
    }

    pub fn blocked(&self) -> bool {
        self.unsent.is_some()
    }

    /// How much waits for the kernel to take it.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent.as_ref().map_or(0, |unsent| unsent.bytes.len() - unsent.from)
    }

    /// Starts (or goes on with) the TLS handshake by sending what it has to say.
    pub fn greet(&mut self) -> io::Result<()> {
        let Some(secure) = &mut self.secure else { return Ok(()) };
        let mut out = Vec::new();
        secure.take(&mut out)?;
        self.push(&out).map(|_| ())
    }

    /// Says that nothing more will be sent: close_notify if there is TLS, then FIN.
    pub fn finish(&mut self) {
        if let Some(secure) = &mut self.secure {
            let mut out = Vec::new();
            if secure.farewell(&mut out).is_ok() {
                // The connection is ending either way: a failure here changes nothing.
                let _ = self.push(&out);
            }
        }
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Makes the coming close a reset instead of a FIN.
    pub fn reset_on_close(&self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
    }
}
