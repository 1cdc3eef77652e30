//! How a pipe ends: shut down or abort, join what the kernel holds, then close. In that order.

use std::io;

use crate::meter::{Cause, Ending, Side, Stage};
use crate::proto::record::Fault;
use crate::sys::socket;

use super::entry::{CLIENT, DIRECTIONS, Life, NONE, Phase, SERVER, Watch};
use super::slab::Key;
use super::token::{Kind, Token};
use super::{Pipe, Wire};

/// Whose end is whose.
pub const SIDES: [Side; 2] = [Side::Client, Side::Server];

/// What the peers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Both directions have finished: nothing more to say.
    Clean,
    /// FIN to both.
    Fin,
    /// This end broke its session and is told so, then FIN; the other end must not take what it
    /// got for all there was: it gets RST, unless the relay has told it.
    Cut(usize),
    /// RST to both (a Unix socket has none: its peer sees the end).
    Abort,
}

/// The ending of a pipe that `end` was the first to finish.
pub fn finished_by(end: usize) -> Ending {
    Ending::new(SIDES[end], Stage::Pipe, Cause::Fin)
}

/// What a socket error says about its peer.
pub fn cause_of(error: &io::Error) -> Cause {
    match error.raw_os_error() {
        Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => Cause::Reset,
        Some(libc::ETIMEDOUT) => Cause::UserTimeout,
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN) => Cause::Unreachable,
        Some(libc::ENOMEM | libc::ENOBUFS) => Cause::NoMemory,
        _ => Cause::SocketError,
    }
}

/// Why a connection ends when its TLS session broke like this.
pub fn cause_of_session(fault: Fault) -> Cause {
    match fault {
        Fault::BadRecordMac => Cause::RecordBad,
        Fault::RecordOverflow => Cause::RecordTooLarge,
        Fault::UnexpectedMessage | Fault::DecodeError | Fault::IllegalParameter => {
            Cause::RecordUnexpected
        }
        Fault::Useless => Cause::KeyUpdates,
        Fault::Renegotiation => Cause::Renegotiation,
        Fault::PeerAlert(_) => Cause::Alert,
        Fault::Exhausted => Cause::KeyLimit,
        Fault::Room => Cause::Internal,
    }
}

impl Wire {
    /// Ends a pipe. What the kernel still holds of it is joined before its sockets are closed.
    pub fn close(&mut self, key: Key, ending: Ending, how: How) {
        let Some(pipe) = self.slab.get_mut(key) else { return };
        if pipe.life != Life::Open {
            return;
        }
        pipe.life = Life::Closing;
        pipe.ending = Some(ending);
        // Behind bytes that a sink never got, FIN would say that it has them all.
        let waits = pipe.flows.iter().any(|flow| flow.is_blocked());
        let how = if waits && how == How::Fin { How::Abort } else { how };
        self.counters.closing.inc();
        for end in [CLIENT, SERVER] {
            let Some(pipe) = self.slab.get_mut(key) else { return };
            let side = &pipe.ends[end];
            let told = pipe.has_relay();
            match how {
                How::Cut(broken) if broken == end || told => socket::end(side.fd),
                How::Cut(_) | How::Abort => socket::abort(side.fd),
                How::Fin => socket::end(side.fd),
                How::Clean if side.is_held() => socket::end(side.fd),
                How::Clean => {}
            }
            if side.watch == Watch::Edges {
                // A multishot poll survives the socket's end; only a cancel ends it.
                let token = Token::new(Kind::Watched, end, key.slot, key.generation);
                self.counters.cancels.inc();
                self.ring.cancel(token.pack());
            }
        }
        self.joined(key);
    }

    /// Ends a pipe because we want to: with a Close at the next boundary where frames are followed,
    /// close_notify where there is TLS, else FIN. A server lost at L4 is a reset.
    pub(super) fn end_in_order(&mut self, key: Key, ending: Ending) {
        if !self.staged_close(key, ending) {
            self.end_now(key, ending);
        }
    }

    /// Ends a pipe at once, with what can be said at once.
    pub(super) fn end_now(&mut self, key: Key, ending: Ending) {
        let Some(pipe) = self.slab.get(key).filter(|pipe| pipe.life == Life::Open) else { return };
        let how = match ending.cause {
            Cause::ServerDown if !pipe.has_relay() => How::Abort,
            _ => How::Fin,
        };
        // What was read this turn goes out before FIN says that it was all.
        let unsent = pipe.flows.iter().any(|flow| flow.turn != NONE);
        let speaks = pipe.extra.is_some() && how == How::Fin && self.staged_farewell(key);
        if speaks || (unsent && how == How::Fin) {
            self.doom(key, ending, how);
        } else {
            self.close(key, ending, how);
        }
    }

    /// Ends a pipe for want of memory of ours.
    pub(super) fn close_exhausted(&mut self, key: Key) {
        self.close(key, Ending::proxy(Stage::Pipe, Cause::NoMemory), How::Abort);
    }

    /// Ends a pipe for want of memory of ours, of whose `flow` bytes are lost already: nothing may
    /// follow them. Not at once: a send that was queued names its socket, and a socket that is
    /// closed before the kernel has seen that leaves its number to a stranger's where descriptors
    /// are shared.
    pub(super) fn fail_exhausted(&mut self, key: Key, flow: usize) {
        if let Some(pipe) = self.slab.get_mut(key) {
            pipe.flows[flow].phase = Phase::Broken;
            self.doom(key, Ending::proxy(Stage::Pipe, Cause::NoMemory), How::Abort);
        }
    }

    /// One of a closing pipe's requests completed: the last one frees it.
    pub(super) fn joined(&mut self, key: Key) {
        if self.slab.get(key).is_none_or(Pipe::is_held) {
            return;
        }
        self.discard(key, CLIENT);
        self.discard(key, SERVER);
        let Some(pipe) = self.slab.remove(key) else { return };
        self.forget_held(&pipe);
        for end in [CLIENT, SERVER] {
            socket::close(pipe.ends[end].fd);
            self.counters.gears.leave(DIRECTIONS[end], pipe.flows[end].gear);
        }
        self.counters.closing.dec();
        self.counters.live.dec();
        self.ended.push(pipe);
    }
}
