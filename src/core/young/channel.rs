//! A young HTTP connection, plain or TLS, that one future may read while another writes: the body
//! of a request goes up while the answer comes down. Bytes read too far wait in an [`Inlet`].

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::RawFd;
use std::task::{Poll, Waker};

use crate::proto::record::{Alert, Finish, OVERHEAD_MAX};
use crate::sys::socket;

use super::tls::{Peer, Secured};
use super::transport::{Stream, Transport, broken};

/// A young connection that two futures may use at once, one reading and one writing, through its
/// TLS session if it has one. No borrow of that session is ever held while a future waits.
pub struct Channel {
    stream: Stream,
    secured: Option<RefCell<Box<Secured>>>,
    /// Records are on their way out: whatever else must be said is sealed after them.
    writing: Cell<bool>,
    /// The task that waits for them to be out.
    turn: Cell<Option<Waker>>,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Channel {
    pub fn new(transport: Transport) -> Self {
        let (stream, secured) = transport.into_parts();
        Self {
            stream,
            secured: secured.map(RefCell::new),
            writing: Cell::new(false),
            turn: Cell::new(None),
        }
    }

    /// For the long life; nothing may be under way.
    pub fn into_transport(self) -> Transport {
        match self.secured {
            Some(secured) => Transport::tls(self.stream, secured.into_inner()),
            None => Transport::plain(self.stream),
        }
    }

    pub fn fd(&self) -> RawFd {
        self.stream.fd()
    }

    pub fn is_tls(&self) -> bool {
        self.secured.is_some()
    }

    /// The peer's verified certificate.
    pub fn certificate(&self) -> Option<Peer> {
        self.secured.as_ref()?.borrow().peer.clone()
    }

    /// Waits until a read would find something, holding no buffer meanwhile. The others of the
    /// core have a turn even where it finds that at once.
    pub async fn readable(&self) {
        if self.has_more() {
            self.stream.give_way().await;
        } else {
            self.stream.readable().await;
        }
    }

    /// A read would find something that the socket need not be asked for: ciphertext that was not
    /// opened yet, or an ending that came in one burst with what was read last.
    fn has_more(&self) -> bool {
        self.secured.as_ref().is_some_and(|secured| {
            let secured = secured.borrow();
            !secured.tail.is_empty() || secured.session.heard().is_some()
        })
    }

    /// Reads onto the end of `inlet`; 0 is the end of the stream, `close_notify` on TLS. At most
    /// `most` bytes are taken from a plain socket; records are opened whole, so that TLS may
    /// deliver two records' worth more.
    ///
    /// # Errors
    /// What `recv(2)` answers, `UnexpectedEof` for a TLS stream cut short, and `InvalidData` with
    /// the [`Fault`](crate::proto::record::Fault) inside for a session that broke; its alert was
    /// sent.
    pub async fn read(&self, inlet: &mut Inlet, most: usize) -> io::Result<usize> {
        let Some(secured) = &self.secured else {
            return self.stream.read(inlet.room(), most).await;
        };
        loop {
            if let Some(got) = self.open(secured, inlet.room()).await? {
                return Ok(got);
            }
            let mut fresh = Vec::new();
            if self.stream.read(&mut fresh, most.clamp(RECORD_MIN, READ_BYTES)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            secured.borrow_mut().tail.append(&mut fresh);
        }
    }

    /// Reads and forgets at most `most` bytes of what the peer sent, as they came; 0 is the end of
    /// the stream.
    ///
    /// # Errors
    /// What `recv(2)` answers.
    pub async fn forget(&self, most: usize) -> io::Result<usize> {
        self.stream.read(&mut Vec::new(), most).await
    }

    /// Opens the records that are there; `None`: not one of them is whole.
    async fn open(
        &self,
        secured: &RefCell<Box<Secured>>,
        into: &mut Vec<u8>,
    ) -> io::Result<Option<usize>> {
        let (got, finish, answer) = {
            let mut secured = secured.borrow_mut();
            let secured = &mut **secured;
            let opened = secured.session.open(&mut secured.tail);
            let got = opened.plain.len();
            into.extend_from_slice(&secured.tail[opened.plain]);
            secured.tail.drain(..opened.used);
            for ticket in opened.tickets {
                secured.keep_ticket(&ticket);
            }
            let mut answer = Vec::new();
            // A writer under way will seal the answer before its next bytes.
            if secured.session.answer_due() && !self.writing.get() {
                secured.session.seal_onto(&[], &mut answer).map_err(broken)?;
            }
            (got, opened.finish, answer)
        };
        if !answer.is_empty() {
            self.send(&answer).await?;
        }
        match finish {
            _ if got > 0 => Ok(Some(got)),
            Some(Finish::Closed) => Ok(Some(0)),
            Some(Finish::Fault(fault)) => {
                if let Some(alert) = fault.alert() {
                    self.tell(secured, alert).await;
                }
                Err(broken(fault))
            }
            None => Ok(None),
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What `send(2)` answers, and a TLS 1.2 key at the end of its use.
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let Some(secured) = &self.secured else {
            return self.stream.write_all(bytes).await;
        };
        self.turn().await;
        let mut sealed = Vec::new();
        secured.borrow_mut().session.seal_onto(bytes, &mut sealed).map_err(broken)?;
        self.send(&sealed).await
    }

    /// Waits until no record is on its way: what is sealed next goes out next.
    async fn turn(&self) {
        std::future::poll_fn(|cx| {
            if self.writing.get() {
                self.turn.set(Some(cx.waker().clone()));
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    async fn send(&self, records: &[u8]) -> io::Result<()> {
        self.writing.set(true);
        let sent = self.stream.write_all(records).await;
        self.writing.set(false);
        if let Some(waiter) = self.turn.take() {
            waiter.wake();
        }
        sent
    }

    /// Says that nothing more will be written: `close_notify` if there is TLS, then FIN. Whether
    /// it arrives is the network's business.
    pub async fn finish(&self) {
        if let Some(secured) = &self.secured {
            self.tell(secured, Alert::CLOSE_NOTIFY).await;
        }
        socket::finish(self.fd());
    }

    /// Takes leave of a server that is needed no more, before its connection is dropped: where
    /// there is TLS, `close_notify` (RFC 8446 section 6.1), if the socket has room for it now.
    /// Nobody waits for a connection that nobody needs. Where the socket was ended or reset,
    /// nothing goes out: what was cut must look cut.
    pub fn leave(&self) {
        let Some(secured) = &self.secured else { return };
        let mut record = [0; OVERHEAD_MAX * 2];
        let closed = secured.borrow_mut().session.close(Alert::CLOSE_NOTIFY, &mut record);
        if let Ok(length @ 1..) = closed {
            let _ = socket::send(self.fd(), &record[..length]);
        }
    }

    /// The session's last record.
    async fn tell(&self, secured: &RefCell<Box<Secured>>, alert: Alert) {
        self.turn().await;
        let mut record = [0; OVERHEAD_MAX * 2];
        let closed = secured.borrow_mut().session.close(alert, &mut record);
        if let Ok(length) = closed {
            let _ = self.send(&record[..length]).await;
        }
    }

    /// Cuts the connection so that the peer sees it cut: what it got is not the whole.
    pub fn abort(&self) {
        socket::abort(self.fd());
    }

    /// Ends both directions; a task that waits on the socket is woken.
    pub fn end(&self) {
        socket::end(self.fd());
    }

    /// Bytes the peer's kernel has acknowledged so far, if anybody counts them.
    pub fn acknowledged(&self) -> Option<u64> {
        socket::acknowledged(self.fd())
    }

    /// Whether the peer has neither finished nor sent anything: fit for another request.
    pub fn is_quiet(&self) -> bool {
        !self.has_more() && socket::is_quiet(self.fd())
    }
}

/// Bytes that were read and not used yet.
#[derive(Debug, Default)]
pub struct Inlet {
    bytes: Vec<u8>,
    used: usize,
}

impl Inlet {
    pub fn new(tail: Vec<u8>) -> Self {
        Self { bytes: tail, used: 0 }
    }

    pub fn held(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    pub fn is_empty(&self) -> bool {
        self.used == self.bytes.len()
    }

    /// The first `n` bytes held are done with.
    pub fn take(&mut self, n: usize) {
        debug_assert!(n <= self.held().len());
        self.used += n;
        if self.is_empty() {
            self.bytes.clear();
            self.used = 0;
        }
    }

    /// Takes the first `n` bytes held out, with the memory they lie in if nothing comes after.
    pub fn set_apart(&mut self, n: usize) -> Vec<u8> {
        if self.used == 0 && n == self.bytes.len() {
            return std::mem::take(&mut self.bytes);
        }
        let apart = self.held()[..n].to_vec();
        self.take(n);
        apart
    }

    /// Lets the memory go while nothing is held: an idle connection keeps no buffer.
    pub fn rest(&mut self) {
        if self.is_empty() {
            self.bytes = Vec::new();
            self.used = 0;
        }
    }

    /// What is held, for the next stage of the connection.
    pub fn into_tail(mut self) -> Vec<u8> {
        self.bytes.drain(..self.used);
        self.bytes
    }

    /// Where more bytes go: nothing used stands before them for long.
    fn room(&mut self) -> &mut Vec<u8> {
        if self.used > 0 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        &mut self.bytes
    }
}

/// Bytes asked of a socket at once while a body passes; both directions of an exchange hold at
/// most about this much.
pub const READ_BYTES: usize = 16 << 10;
const RECORD_MIN: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inlet_gives_back_what_was_not_used() {
        let mut inlet = Inlet::new(b"GET / HTTP".to_vec());
        inlet.take(4);
        assert_eq!(inlet.held(), b"/ HTTP");
        inlet.room().extend_from_slice(b"/1.1");
        assert_eq!(inlet.held(), b"/ HTTP/1.1");
        inlet.take(1);
        assert_eq!(inlet.set_apart(5), b" HTTP");
        assert_eq!(inlet.into_tail(), b"/1.1");
        let mut whole = Inlet::new(b"all".to_vec());
        assert_eq!(whole.set_apart(3), b"all");
        assert!(whole.is_empty() && whole.into_tail().is_empty());
    }
}
