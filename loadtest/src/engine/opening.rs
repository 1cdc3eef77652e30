//! A connection from dialling to being open: connect, TLS, upgrade. Failures end here by name.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use standpipe::sys::generator::monotonic_ns;

use super::dial::{dial, name_failure};
use super::link::Stage;
use super::{DIALS_IN_FLIGHT_MAX, Engine};
use crate::plan::Traffic;
use crate::secure::Secure;
use crate::socket::{Got, Socket};
use crate::tally::{How, Who};
use crate::upgrade::{self, Answer};

/// A connection that is to come back waits this long first.
const REDIAL_NS: u64 = 200_000_000;

impl Engine {
    /// Starts as many connects as the rate allows by now.
    pub(super) fn dial_some(&mut self, now: u64) {
        while let Some(&(when, index)) = self.retries.front() {
            if when > now {
                break;
            }
            self.retries.pop_front();
            self.dialling.push_back(index);
        }
        while let Some(next) = self.next_dial_ns().filter(|&next| next <= now) {
            let Some(index) = self.dialling.pop_front() else { break };
            self.dialled += 1;
            let now = monotonic_ns();
            if !self.churning() {
                self.dial_one(index, now, now);
                continue;
            }
            // How late we are ourselves: nobody could dial before there was a slot.
            let possible_ns = next.max(self.links[index as usize].stage_ns);
            if self.in_window(next) {
                self.tally.lag.saturating_record(now.saturating_sub(possible_ns));
            }
            // Short lives are dialled when due, and late ones have waited since then.
            self.dial_one(index, next, now);
        }
    }

    /// When the next connect may begin; nothing while too many are undecided or more not allowed.
    pub(super) fn next_dial_ns(&self) -> Option<u64> {
        let &next = self.dialling.front()?;
        if self.churning() {
            return self.life_due_ns();
        }
        let rate = self.plan.connect_rate / self.plan.threads as f64;
        if self.undecided >= DIALS_IN_FLIGHT_MAX || self.number(next) >= self.allowed {
            return None;
        }
        Some(self.first_dial_ns + (self.dialled as f64 * 1e9 / rate) as u64)
    }

    /// A name may have several addresses: they are taken in turn.
    fn target_of(&self, number: u32) -> SocketAddr {
        let targets = &self.plan.target.addresses;
        targets[number as usize % targets.len()]
    }

    fn dial_one(&mut self, index: u32, since_ns: u64, now: u64) {
        let number = self.number(index);
        let to = self.target_of(number);
        self.tally.counts.dialled += 1;
        self.conductor.gauge(self.thread).dialled.fetch_add(1, Relaxed);
        let stream = match dial(to, self.plan.sources.of(number)) {
            Ok(stream) => stream,
            Err(error) => return self.not_opened(index, name_failure(&error, to)),
        };
        let secure = match self.plan.secrets.as_ref().map(Secure::client).transpose() {
            Ok(secure) => secure.map(Box::new),
            Err(error) => return self.not_opened(index, format!("tls: {error}")),
        };
        if let Err(error) = self.epoll.add(&stream, u64::from(index)) {
            return self.not_opened(index, format!("generator: epoll: {error}"));
        }
        let link = &mut self.links[index as usize];
        link.socket = Some(Socket::new(stream, secure));
        link.stage = Stage::Connecting;
        link.since_ns = since_ns;
        link.stage_ns = now;
        link.finished = false;
        self.undecided += 1;
    }

    /// The connect is decided, one way or the other.
    pub(super) fn connected(&mut self, index: u32) {
        let link = &mut self.links[index as usize];
        let Some(socket) = &mut link.socket else { return };
        let outcome = match socket.stream().take_error() {
            Ok(None) => socket.stream().peer_addr().map(|_| ()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match outcome {
            // Readiness without a decision: the connect is still under way.
            Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => return,
            Err(error) => {
                let to = self.target_of(self.number(index));
                return self.give_up(index, name_failure(&error, to));
            }
            Ok(()) => {}
        }
        let handshaking = socket.handshaking();
        if handshaking {
            link.stage = Stage::Securing;
            if let Err(error) = socket.greet() {
                self.give_up(index, format!("tls: {error}"));
            }
        } else {
            self.secured(index);
        }
    }

    /// TCP (and TLS, if any) is up: upgrade, or be open.
    fn secured(&mut self, index: u32) {
        if !self.plan.target.scheme.websocket {
            return self.opened(index);
        }
        let number = self.number(index);
        let key = self.key(number);
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let link = &mut self.links[index as usize];
        link.stage = Stage::Upgrading;
        let jar = link.jar.as_deref();
        upgrade::write_request(&mut out, &self.plan.target, &self.plan.request, number, &key, jar);
        let sent = link.socket.as_mut().map(|socket| socket.send(&out));
        self.out = out;
        if let Some(Err(error)) = sent {
            self.give_up(index, format!("upgrade: {error}"));
        }
    }

    fn key(&self, number: u32) -> String {
        let seed = self.plan.seed ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        upgrade::key_of(fastrand::Rng::with_seed(seed).u128(..))
    }

    /// More bytes of a handshake or an upgrade may be there.
    pub(super) fn open_further(&mut self, index: u32) {
        loop {
            let mut room = std::mem::take(&mut self.room);
            let link = &mut self.links[index as usize];
            let Some(socket) = &mut link.socket else {
                self.room = room;
                return;
            };
            if socket.blocked() {
                // What could not leave is tried again; an error will show in the read.
                let _ = socket.flush();
            }
            let mut tail = link.tail.take().unwrap_or_default();
            let got = socket.recv_after(&mut tail, &mut room);
            let handshaking = socket.handshaking();
            link.tail = if tail.is_empty() { None } else { Some(tail) };
            self.room = room;
            let stage = link.stage;
            if stage == Stage::Securing && !handshaking {
                self.secured(index);
            }
            let ended = match got {
                Ok(Got::Dry) => return,
                Ok(Got::End) => true,
                Ok(Got::Bytes(_)) => false,
                Err(error) => {
                    let at = if handshaking { "tls" } else { "upgrade" };
                    return self.give_up(index, format!("{at}: {error}"));
                }
            };
            if self.links[index as usize].stage == Stage::Upgrading {
                self.read_answer(index, ended);
            }
            match self.links[index as usize].stage {
                Stage::Open => return self.read(index),
                Stage::Down => return,
                _ if ended => {
                    return self.give_up(index, "tls: closed during the handshake".into());
                }
                _ => {}
            }
        }
    }

    fn read_answer(&mut self, index: u32, ended: bool) {
        let key = self.key(self.number(index));
        let link = &mut self.links[index as usize];
        let bytes: &[u8] = link.tail.as_ref().map_or(&[], |tail| tail.as_slice());
        match upgrade::read_answer(bytes, &key, ended) {
            Answer::Need => {}
            Answer::Refused { kind, shown } => {
                self.tally.refusal.get_or_insert(shown);
                self.give_up(index, kind);
            }
            Answer::Agreed { used, cookies, name } => {
                if let Some(tail) = &mut link.tail {
                    tail.drain(..used);
                    if tail.is_empty() {
                        link.tail = None;
                    }
                }
                if self.plan.request.cookies && !cookies.is_empty() {
                    link.jar = Some(cookies.join("; ").into_boxed_str());
                }
                if let Some(name) = name {
                    *self.tally.names.entry(name).or_default() += 1;
                }
                self.opened(index);
                // Frames may have come with the head.
                if self.links[index as usize].tail.is_some() {
                    self.digest_tail(index);
                }
            }
        }
    }

    fn opened(&mut self, index: u32) {
        let now = monotonic_ns();
        let measured = self.in_window(self.links[index as usize].since_ns) || !self.churning();
        let link = &mut self.links[index as usize];
        if measured {
            self.tally.connect.saturating_record(now.saturating_sub(link.since_ns));
            self.tally.counts.measured_opened += 1;
        }
        link.stage = Stage::Open;
        link.since_ns = now;
        let resumed =
            link.socket.as_ref().and_then(Socket::secure).is_some_and(|secure| secure.resumed());
        self.tally.counts.resumed += u64::from(resumed && measured);
        self.undecided -= 1;
        self.open += 1;
        self.tally.counts.opened += 1;
        self.conductor.gauge(self.thread).open.store(self.open as u32, Relaxed);
        let talks = link.talks;
        if self.plan.ask {
            self.ask(index);
        }
        match self.plan.traffic {
            Traffic::Closed | Traffic::Stream if talks && self.times.is_some() => {
                self.again.push_back(index);
            }
            Traffic::Churn { messages, life_ns, .. } => self.begin_life(index, messages, life_ns),
            _ => {}
        }
    }

    /// A connection that never became open.
    pub(super) fn give_up(&mut self, index: u32, why: String) {
        let link = &mut self.links[index as usize];
        link.socket = None;
        link.tail = None;
        link.stage = Stage::Down;
        self.undecided -= 1;
        self.not_opened(index, why);
    }

    fn not_opened(&mut self, index: u32, why: String) {
        self.tally.counts.failed += 1;
        self.tally.error(why);
        self.come_back(index, monotonic_ns());
    }

    /// A link is down: its slot is free for the next short life, or it is dialled again later.
    fn come_back(&mut self, index: u32, now: u64) {
        self.links[index as usize].stage_ns = now;
        if self.churning() {
            self.dialling.push_back(index);
        } else if self.plan.redial && self.times.is_some() && !self.conductor.leaving() {
            self.retries.push_back((now + REDIAL_NS, index));
        }
    }

    /// Connections that take longer than allowed to open are given up, and so are those whose
    /// goodbye is not answered: among short lives they would hold slots for ever.
    pub(super) fn time_out(&mut self, now: u64) {
        if self.undecided == 0 && !self.churning() {
            return;
        }
        let limit = self.plan.connect_timeout.as_nanos() as u64;
        for index in 0..self.links.len() as u32 {
            let link = &self.links[index as usize];
            // Not since it was due: a dial that came late has all its time still before it.
            if now.saturating_sub(link.stage_ns) <= limit {
                continue;
            }
            let stage = link.stage;
            let at = match stage {
                Stage::Connecting => "connect",
                Stage::Securing => "tls",
                Stage::Upgrading => "upgrade",
                Stage::Leaving => {
                    self.tally.counts.unclosed += 1;
                    self.tally.error("close: our goodbye was not answered in time");
                    self.drop_link(index, Who::Us, How::Fin);
                    continue;
                }
                Stage::Down | Stage::Open => continue,
            };
            self.give_up(index, format!("{at}: no answer in time"));
        }
    }

    /// Forgets a connection that was open, with a record of who ended it and how.
    pub(super) fn drop_link(&mut self, index: u32, who: Who, how: How) {
        let now = monotonic_ns();
        let connection = self.number(index);
        let unanswered = self.abandon(index);
        self.miss_waiting(index);
        let link = &mut self.links[index as usize];
        let expected = link.stage == Stage::Leaving;
        let close = crate::tally::Close {
            who,
            how,
            connection,
            at_ns: now.saturating_sub(self.began_ns),
            age_ns: now.saturating_sub(link.since_ns),
            unanswered,
        };
        if !expected {
            self.tally.counts.closed_by_peer += u64::from(who == Who::Peer);
        }
        self.tally.close(close);
        link.socket = None;
        link.tail = None;
        link.fragments = None;
        link.astray = false;
        link.stage = Stage::Down;
        self.open -= 1;
        self.conductor.gauge(self.thread).open.store(self.open as u32, Relaxed);
        self.come_back(index, now);
    }
}
