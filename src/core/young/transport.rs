//! A young connection's socket, and the TLS session its bytes belong to if it has one. Reads and
//! writes wait for readiness only and never leave a request in the kernel: when the sweep shuts the
//! socket down, the wait ends and so does the call. TLS is read and written by
//! [`super::channel`].

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use crate::core::Core;
use crate::core::wire::cause_of_session;
use crate::meter::Cause;
use crate::proto::record::Fault;
use crate::sys::ring::{POLL_FAILED, POLL_IN, POLL_OUT};
use crate::sys::socket::{self, Owned};

use super::tls::Secured;

/// A connected socket, TCP or Unix, and the core whose ring tells when it is ready.
#[derive(Debug)]
pub struct Stream {
    core: Rc<Core>,
    socket: Owned,
}

impl Stream {
    pub fn new(core: &Rc<Core>, socket: Owned) -> Self {
        Self { core: Rc::clone(core), socket }
    }

    /// The descriptor: what the sweep shuts down.
    pub fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    /// The socket alone, for the long life.
    pub fn into_socket(self) -> Owned {
        self.socket
    }

    /// Lets the other connections of the core have a turn.
    pub async fn give_way(&self) {
        self.core.give_way().await;
    }

    /// Waits until there is something to read: bytes, the end or an error.
    pub async fn readable(&self) {
        self.core.ready(self.fd(), POLL_IN).await;
    }

    /// Waits until there is room to write, or an error. On a socket whose peer has finished sending
    /// a oneshot poll returns at once, room or not: it is asked again after pauses.
    pub async fn writable(&self) {
        for asked in 0.. {
            let events = self.core.ready(self.fd(), POLL_OUT).await;
            if events & (POLL_OUT as i32 | POLL_FAILED) != 0 {
                return;
            }
            self.core.pause(asked).await;
        }
    }

    /// Reads what is there, at most `most` bytes, onto the end of `into`; 0 is the end.
    ///
    /// # Errors
    /// What `recv(2)` answers.
    pub async fn read(&self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let start = into.len();
        into.resize(start + most, 0);
        let got = loop {
            match socket::read_into(self.fd(), &mut into[start..]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                got => break got,
            }
            self.readable().await;
        };
        into.truncate(start + *got.as_ref().unwrap_or(&0));
        got
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What `send(2)` answers.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match socket::send(self.fd(), bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.writable().await,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// A stream and, if it has one, the TLS session that all its bytes belong to.
#[derive(Debug)]
pub enum Transport {
    Plain(Stream),
    Tls(Stream, Box<Secured>),
}

impl Transport {
    pub fn plain(stream: Stream) -> Self {
        Self::Plain(stream)
    }

    pub fn tls(stream: Stream, secured: Box<Secured>) -> Self {
        Self::Tls(stream, secured)
    }

    pub fn stream(&self) -> &Stream {
        match self {
            Self::Plain(stream) | Self::Tls(stream, _) => stream,
        }
    }

    pub fn fd(&self) -> RawFd {
        self.stream().fd()
    }

    /// What the handshake found out.
    pub fn secured(&self) -> Option<&Secured> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(_, secured) => Some(secured),
        }
    }

    /// Stream and session, apart. What was read of the session's ciphertext and not
    /// opened is [`Secured::tail`].
    pub fn into_parts(self) -> (Stream, Option<Box<Secured>>) {
        match self {
            Self::Plain(stream) => (stream, None),
            Self::Tls(stream, secured) => (stream, Some(secured)),
        }
    }
}

pub(super) fn broken(fault: Fault) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

/// Why a connection ends when reading or writing failed like this.
pub fn cause(error: &io::Error) -> Cause {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>());
    match (fault, error.kind()) {
        (Some(fault), _) => cause_of_session(*fault),
        (None, io::ErrorKind::UnexpectedEof) => Cause::Cut,
        (None, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Cause::Reset,
        (None, io::ErrorKind::TimedOut) => Cause::UserTimeout,
        _ => Cause::SocketError,
    }
}
