//! One echo thread: its listeners, its connections, its epoll. A turn accepts, answers what is
//! readable, sends what waited. An idle connection owns no buffer.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket as Bare, Type};
use standpipe::sys::epoll::{Epoll, Events, Ready};
use standpipe::sys::generator::monotonic_ns;

use super::later::{Later, Waiting};
use super::peer::{Answering, Outcome, Peer, Stage};
use super::{Listen, Manner, Options, Seen};
use crate::frame::{self, Opcode};
use crate::message::{Form, Header, Kind, Writer};
use crate::secure::Secure;
use crate::socket::{Got, READ_BYTES, Room, Socket};
use crate::upgrade::{self, Welcome};

/// Tokens from here on are listeners.
const LISTENERS: u64 = 1 << 40;
const BACKLOG: i32 = 4096;
/// Connections accepted in a row before others are served.
const ACCEPTS_MAX: usize = 64;
const READS_MAX: usize = 8;
/// Unsent bytes above which a connection is not read: who does not take replies gets none.
const UNSENT_MAX: usize = 256 * 1024;
/// A source fills a connection by this much a turn.
const SOURCE_TURN_BYTES: usize = 256 * 1024;
const SLEEP_MAX: Duration = Duration::from_millis(50);

struct Server {
    options: Arc<Options>,
    seen: Arc<Seen>,
    epoll: Epoll,
    listeners: Vec<TcpListener>,
    peers: Vec<Option<Peer>>,
    free: Vec<u32>,
    again: Vec<u32>,
    later: Later,
    /// Source connections with a rate, walked each turn.
    paced: Vec<u32>,
    writer: Writer,
    room: Room,
    out: Vec<u8>,
    random: fastrand::Rng,
    lives: u32,
    complained: bool,
    stall_at_ns: u64,
}

pub fn run(index: usize, options: Arc<Options>, seen: &Arc<Seen>) -> Result<(), String> {
    crate::engine::settle(&options.cores, index);
    let epoll = Epoll::new().map_err(|error| format!("epoll: {error}"))?;
    let mut listeners = Vec::new();
    for (at, listen) in options.listens.iter().enumerate() {
        let listener = open(listen)?;
        epoll
            .add_listener(&listener, LISTENERS + at as u64)
            .map_err(|error| format!("epoll: {error}"))?;
        listeners.push(listener);
    }
    let every = options.stall.map_or(u64::MAX / 2, |(every, _)| every.as_nanos() as u64);
    let mut server = Server {
        seen: Arc::clone(seen),
        epoll,
        listeners,
        peers: Vec::new(),
        free: Vec::new(),
        again: Vec::new(),
        later: Later::default(),
        paced: Vec::new(),
        writer: Writer::new(options.form),
        room: Room::new(),
        out: Vec::new(),
        random: fastrand::Rng::with_seed(options.seed.wrapping_add(index as u64)),
        lives: 0,
        complained: false,
        stall_at_ns: monotonic_ns().saturating_add(every),
        options,
    };
    seen.ready.fetch_add(1, Relaxed);
    server.live();
    Ok(())
}

fn open(listen: &Listen) -> Result<TcpListener, String> {
    let work = || -> std::io::Result<TcpListener> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let domain = Domain::for_address(listen.address);
        let socket = Bare::new(domain, kind, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&listen.address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    work().map_err(|error| format!("cannot listen on {}: {error}", listen.address))
}

impl Server {
    fn live(&mut self) {
        let mut events = Events::new();
        while !self.seen.stop.load(Relaxed) {
            let sleep = self.sleep();
            let Ok(count) = self.epoll.wait(&mut events, sleep) else { return };
            self.stall();
            for at in 0..count {
                if let Some(ready) = events.at(at) {
                    self.serve(ready);
                }
            }
            for slot in std::mem::take(&mut self.again) {
                self.read(slot);
                self.spring(slot);
            }
            self.send_waiting();
            self.send_paced();
        }
    }

    fn sleep(&self) -> Duration {
        if !self.again.is_empty() {
            return Duration::ZERO;
        }
        let now = monotonic_ns();
        let mut until = SLEEP_MAX;
        if let Some(next) = self.later.next_ns() {
            until = until.min(Duration::from_nanos(next.saturating_sub(now)));
        }
        if !self.paced.is_empty() {
            until = until.min(Duration::from_millis(1));
        }
        until.min(Duration::from_nanos(self.stall_at_ns.saturating_sub(now)))
    }

    /// The stall that was ordered: the thread serves nobody.
    fn stall(&mut self) {
        let Some((every, length)) = self.options.stall else { return };
        if monotonic_ns() >= self.stall_at_ns {
            std::thread::sleep(length);
            self.stall_at_ns += every.as_nanos() as u64;
        }
    }

    fn serve(&mut self, ready: Ready) {
        if ready.token >= LISTENERS {
            return self.accept((ready.token - LISTENERS) as usize);
        }
        let slot = ready.token as u32;
        let Some(Some(peer)) = self.peers.get_mut(slot as usize) else { return };
        peer.finished |= ready.ended();
        if ready.writable() && peer.socket.blocked() {
            if peer.socket.flush().is_err() {
                return self.drop_peer(slot);
            }
            if !peer.socket.blocked() {
                if peer.is_over() {
                    return self.drop_peer(slot);
                }
                self.read(slot);
                self.spring(slot);
            }
        }
        if ready.readable() {
            self.read(slot);
        }
    }

    fn accept(&mut self, listen: usize) {
        for _ in 0..ACCEPTS_MAX {
            let stream = match self.listeners[listen].accept() {
                Ok((stream, _)) => stream,
                Err(error) => return self.accept_failed(&error),
            };
            let secure = self.options.listens[listen].scheme.tls.then_some(());
            let secure = match (secure, &self.options.secrets) {
                (Some(()), Some(config)) => match Secure::server(config) {
                    Ok(secure) => Some(Box::new(secure)),
                    Err(_) => continue,
                },
                _ => None,
            };
            let slot = self.free.pop().unwrap_or_else(|| {
                self.peers.push(None);
                (self.peers.len() - 1) as u32
            });
            let added = stream
                .set_nonblocking(true)
                .and_then(|()| self.epoll.add(&stream, u64::from(slot)));
            if added.is_err() {
                self.free.push(slot);
                continue;
            }
            self.lives = self.lives.wrapping_add(1);
            self.seen.accepted.fetch_add(1, Relaxed);
            self.seen.open.fetch_add(1, Relaxed);
            let mut peer = Peer {
                stage: if secure.is_some() { Stage::Securing } else { Stage::Upgrading },
                socket: Socket::new(stream, secure),
                listen: listen as u16,
                heard: false,
                finished: false,
                ending: false,
                life: self.lives,
                tail: None,
                sent: 0,
                last_due_ns: 0,
                waiting: 0,
                ledger: None,
            };
            let straight =
                peer.stage == Stage::Upgrading && !self.options.listens[listen].scheme.websocket;
            if straight {
                peer.stage = Stage::Open;
            }
            self.peers[slot as usize] = Some(peer);
            if straight {
                self.opened(slot);
            }
        }
    }

    fn accept_failed(&mut self, error: &std::io::Error) {
        let full = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
        if full && !self.complained {
            self.complained = true;
            eprintln!(
                "echo: cannot accept: {error}; each thread has a file table of its own \
                 (RLIMIT_NOFILE): give more --threads"
            );
        }
        if full {
            // What is open keeps being served; who waits in the queue waits.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn opened(&mut self, slot: u32) {
        if let Manner::Source { rate, .. } = &self.options.manner {
            match rate {
                Some(_) => self.paced.push(slot),
                None => self.spring(slot),
            }
        }
    }

    /// Reads a peer until it is dry, or its turn is over.
    fn read(&mut self, slot: u32) {
        for _ in 0..READS_MAX {
            let Some(Some(peer)) = self.peers.get_mut(slot as usize) else { return };
            if peer.socket.unsent_bytes() > UNSENT_MAX || peer.ending {
                return;
            }
            let got = match &mut peer.tail {
                Some(tail) => peer.socket.recv_after(tail, &mut self.room),
                None => peer.socket.recv(&mut self.room),
            };
            if peer.stage == Stage::Securing && !peer.socket.handshaking() {
                let websocket = self.options.listens[peer.listen as usize].scheme.websocket;
                peer.stage = if websocket { Stage::Upgrading } else { Stage::Open };
                if !websocket {
                    self.opened(slot);
                }
            }
            let count = match got {
                Ok(Got::Bytes(count)) => count,
                Ok(Got::Dry) => return,
                Ok(Got::End) => return self.end(slot),
                Err(_) => return self.drop_peer(slot),
            };
            self.seen.bytes.fetch_add(count as u64, Relaxed);
            if !self.digest(slot, count) {
                return;
            }
            let Some(Some(peer)) = self.peers.get(slot as usize) else { return };
            if peer.socket.secure().is_none() && count < READ_BYTES && !peer.finished {
                return;
            }
        }
        self.again.push(slot);
    }

    /// Works through what a read brought. False: the connection is gone or ending.
    fn digest(&mut self, slot: u32, count: usize) -> bool {
        let Some(Some(peer)) = self.peers.get_mut(slot as usize) else { return false };
        let mut room = std::mem::take(&mut self.room);
        let alive = match peer.tail.take() {
            None => {
                let bytes = &mut room.bytes[..count];
                match self.work(slot, bytes) {
                    Some(used) => {
                        if used < count
                            && let Some(Some(peer)) = self.peers.get_mut(slot as usize)
                        {
                            peer.tail = Some(Box::new(room.bytes[used..count].to_vec()));
                        }
                        true
                    }
                    None => false,
                }
            }
            Some(mut tail) => match self.work(slot, &mut tail) {
                Some(used) => {
                    tail.drain(..used);
                    if !tail.is_empty()
                        && let Some(Some(peer)) = self.peers.get_mut(slot as usize)
                    {
                        peer.tail = Some(tail);
                    }
                    true
                }
                None => false,
            },
        };
        self.room = room;
        alive
    }

    /// Answers `bytes`; says how many are done with, or that the connection ends.
    fn work(&mut self, slot: u32, bytes: &mut [u8]) -> Option<usize> {
        let peer = self.peers.get_mut(slot as usize)?.as_mut()?;
        let listen = &self.options.listens[peer.listen as usize];
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let mut from = 0;
        if peer.stage == Stage::Upgrading {
            match upgrade::welcome(bytes, &listen.name, &mut out) {
                Welcome::Need => {
                    self.out = out;
                    return Some(0);
                }
                Welcome::Switch { used } => {
                    peer.stage = Stage::Open;
                    from = used;
                }
                Welcome::Close => {
                    peer.ending = true;
                    self.send(slot, &out);
                    self.out = out;
                    return None;
                }
            }
            self.send(slot, &out);
            out.clear();
            self.opened(slot);
            if from == bytes.len() {
                self.out = out;
                return Some(from);
            }
        }
        let peer = self.peers.get_mut(slot as usize)?.as_mut()?;
        let answering = Answering {
            manner: &self.options.manner,
            form: self.options.form,
            writer: &self.writer,
            name: &self.options.listens[peer.listen as usize].name,
            websocket: self.options.listens[peer.listen as usize].scheme.websocket,
        };
        let outcome = answering.answer(&mut bytes[from..], peer.heard, &mut peer.ledger, &mut out);
        peer.heard = true;
        let (used, ends) = match outcome {
            Outcome::Used(used) => (from + used, false),
            Outcome::End(used) => (from + used, true),
        };
        peer.ending |= ends;
        self.reply(slot, &out);
        self.out = out;
        if ends { None } else { Some(used) }
    }

    /// Sends a reply now, or later if replies are to wait, or dies of it.
    fn reply(&mut self, slot: u32, out: &[u8]) {
        let Some(Some(peer)) = self.peers.get_mut(slot as usize) else { return };
        if let Some(limit) = self.options.die_after {
            if peer.sent + out.len() as u64 > limit {
                // Half of the reply, then silence of the final kind.
                let half = &out[..out.len() / 2];
                let _ = peer.socket.send(half);
                return self.drop_peer(slot);
            }
            peer.sent += out.len() as u64;
        }
        let Some(delay) = self.options.delay.as_ref().filter(|_| !out.is_empty()) else {
            return self.send(slot, out);
        };
        let due = monotonic_ns() + delay.draw(&mut self.random);
        peer.last_due_ns = peer.last_due_ns.max(due);
        peer.waiting += 1;
        let waiting = Waiting { slot, life: peer.life, bytes: out.to_vec() };
        self.later.put(peer.last_due_ns, waiting);
    }

    fn send(&mut self, slot: u32, out: &[u8]) {
        let Some(Some(peer)) = self.peers.get_mut(slot as usize) else { return };
        if !out.is_empty() && peer.socket.send(out).is_err() {
            return self.drop_peer(slot);
        }
        if peer.is_over() {
            // Closing with bytes unread would reset the connection under the reply.
            peer.socket.finish();
            self.drop_peer(slot);
        }
    }

    fn send_waiting(&mut self) {
        let now = monotonic_ns();
        while let Some(waiting) = self.later.take(now) {
            let slot = waiting.slot;
            if let Some(Some(peer)) = self.peers.get_mut(slot as usize)
                && peer.life == waiting.life
            {
                peer.waiting -= 1;
                self.send(slot, &waiting.bytes);
            }
        }
    }

    /// The peer has finished: what it asked for still leaves, then we finish too.
    fn end(&mut self, slot: u32) {
        let Some(Some(peer)) = self.peers.get_mut(slot as usize) else { return };
        peer.ending = true;
        self.send(slot, &[]);
    }

    fn drop_peer(&mut self, slot: u32) {
        if let Some(entry) = self.peers.get_mut(slot as usize)
            && entry.take().is_some()
        {
            self.free.push(slot);
            self.seen.open.fetch_sub(1, Relaxed);
            self.paced.retain(|&other| other != slot);
        }
    }

    /// A source without a rate sends until the connection takes no more.
    fn spring(&mut self, slot: u32) {
        let options = Arc::clone(&self.options);
        let Manner::Source { sizes, rate: None, .. } = &options.manner else { return };
        let mut said = 0;
        while said < SOURCE_TURN_BYTES {
            match self.peers.get(slot as usize) {
                Some(Some(peer)) if peer.stage == Stage::Open && !peer.socket.blocked() => {}
                _ => return,
            }
            said += self.source_one(slot, sizes, monotonic_ns());
        }
        self.again.push(slot);
    }

    fn send_paced(&mut self) {
        if self.paced.is_empty() {
            return;
        }
        let options = Arc::clone(&self.options);
        let Manner::Source { sizes, rate: Some(rate), together } = &options.manner else { return };
        let period = (1e9 / rate) as u64;
        for slot in self.paced.clone() {
            let now = monotonic_ns();
            while let Some(Some(peer)) = self.peers.get_mut(slot as usize) {
                let ledger = peer.ledger.get_or_insert_default();
                if ledger.due_ns == 0 {
                    // Together: at the next whole period of the clock, the same for all threads.
                    let wait = period - now % period.max(1);
                    ledger.due_ns =
                        now + if *together { wait } else { self.random.u64(0..period.max(1)) };
                }
                if ledger.due_ns > now || peer.socket.blocked() {
                    break;
                }
                let due = ledger.due_ns;
                ledger.due_ns += period;
                self.source_one(slot, sizes, due);
            }
        }
    }

    fn source_one(&mut self, slot: u32, sizes: &crate::sizes::Sizes, due_ns: u64) -> usize {
        let Some(Some(peer)) = self.peers.get_mut(slot as usize) else { return 0 };
        let ledger = peer.ledger.get_or_insert_default();
        let (connection, sequence) = (slot, ledger.next);
        ledger.next = ledger.next.wrapping_add(1);
        let length = sizes.of(connection, sequence);
        let header = Header { kind: Kind::Data, length, connection, sequence, due_ns };
        let websocket = self.options.listens[peer.listen as usize].scheme.websocket;
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        if websocket {
            let text = self.options.form == Form::Text;
            let opcode = if text { Opcode::Text } else { Opcode::Binary };
            frame::write_header(&mut out, opcode, true, length, None);
        }
        self.writer.write(&mut out, &header);
        self.send(slot, &out);
        self.out = out;
        length
    }
}
