//! The L7 stage of a pipe: two directions of WebSocket frames followed by their headers, policed,
//! pinged, and ended with a Close where a frame ends. It is shown every slice of bytes that comes
//! in and says what goes on; it owns no buffer, reads no clock and never touches a socket.
//!
//! Who drives it: feed one event ([`Relay::pass`], [`Relay::ended`], [`Relay::drain`],
//! [`Relay::sweep`]), carry out all that was put into [`Out`], and call `sweep` again when
//! [`Relay::next`] says.

mod clock;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use crate::meter::{CloseCodes, Side};
use crate::proto::frame::{Control, End, Fault, Opcode};
use crate::proto::tunnel::{FrameLimits, Mark, Part, Rules, Sink, Tunnel, Verdict};

use super::terms::Terms;

/// What the relay wants done, in order. Given by the engine for the length of one call.
pub trait Out {
    /// Part of the slice just shown goes on to the other end, untouched.
    fn forward(&mut self, span: Range<usize>);
    /// A few bytes that are not in the slice (a header held since earlier, a frame of our own) go
    /// `to` an end, after all that was forwarded or inserted towards it before.
    fn insert(&mut self, to: End, bytes: &[u8]);
    /// FIN `to` an end once all before it has left.
    fn finish(&mut self, to: End);
    /// Nothing that may still come `from` an end, not even its FIN, matters any more.
    fn leave(&mut self, from: End);
    /// Microseconds on a clock that may wrap: what a Ping's way is measured with.
    fn clock(&mut self) -> u32;
    /// A number that cannot be predicted, to mask our frames to a server (§5.3).
    fn random(&mut self) -> u32;
    /// Whether bytes wait on their way to an end whose machine has acknowledged some within so
    /// many milliseconds: it lives, and what we say next reaches it only behind them.
    fn is_busy(&mut self, to: End, within: u32) -> bool;
    /// Whether what comes `from` an end is not read, because the other end has not taken what came
    /// before.
    fn is_unread(&mut self, from: End) -> bool;
}

/// How an end stopped sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// FIN, or close_notify.
    Finished,
    /// Reset or a dead path: nothing can be sent to it either.
    Lost,
}

/// Why the relay itself brought the pipe to its end. `None`: one of the ends ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A frame that breaks the rules, or is beyond a limit, came from this end.
    Fault(End, Fault),
    /// No answer to our Ping in time.
    PingTimeout(End),
    /// Told to drain.
    Drained,
}

/// State of what goes to one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// A Close of ours with this code goes out at the next boundary; what follows is discarded.
    Closing(u16),
    /// A Close went this way, theirs or ours: nothing may follow it.
    Closed,
    /// FIN was asked for, or the end is lost.
    Over,
}

/// State of what comes from one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ear {
    Open,
    /// What comes is thrown away, so that our Close is not lost to a reset.
    Deaf,
    Ended,
}

/// The whole state of a relayed pipe. Plain data but for its terms.
#[derive(Debug, Clone)]
pub struct Relay {
    terms: Arc<Terms>,
    client: Half,
    server: Half,
    /// When the pipe must be over once it began to end; 0: it did not.
    grace: u32,
    closed_by: Option<(Side, Option<u16>)>,
    why: Option<Why>,
    /// Tokens left for messages from the client, and the second they were last filled in.
    messages: u32,
    filled: u32,
}

/// One end of the pipe: its frames, what goes to it, and the Ping it owes us an answer to.
#[derive(Debug, Clone, Copy)]
struct Half {
    tunnel: Tunnel,
    /// The mark of the Ping under way; 0: none is.
    mark: u64,
    /// When the Ping under way was sent, or, if none is, when the next one is due. Without meaning
    /// where this end is not pinged.
    ping: u32,
    /// When bytes last came from this end.
    heard: u32,
    /// When the Ping under way was sent, in microseconds.
    sent: u32,
    way: Way,
    ear: Ear,
    /// A Ping with `mark` waits for a boundary.
    ping_waits: bool,
}

const _: () = assert!(size_of::<Relay>() <= 176);

/// After a Close of ours the rest is delivered this long, then both ends get FIN (milliseconds).
pub const GRACE_MS: u32 = 5_000;
/// After that FIN the sockets are given up.
pub const LINGER_MS: u32 = 2_000;
/// How often an ending that has to wait is looked at.
const PROGRESS_MS: u32 = 1_000;

/// When the engine has to call again, or that it may take the pipe down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// Call [`Relay::sweep`] when this many milliseconds stand on the core's clock.
    At(u32),
    /// Nothing is waited for but the ends themselves.
    Idle,
    /// Everything that could be said was said: take it down.
    Over,
}

impl Relay {
    /// A relay born at `now` (milliseconds on the core's clock, which may wrap).
    pub fn new(terms: Arc<Terms>, deflate: bool, now: u32, random: u64) -> Self {
        let half = |from| Half {
            tunnel: Tunnel::new(Rules { from, deflate }),
            mark: 0,
            ping: terms.next_ping(now, random),
            heard: now,
            sent: 0,
            way: Way::Open,
            ear: Ear::Open,
            ping_waits: false,
        };
        let (client, server) = (half(End::Client), half(End::Server));
        let messages = terms.messages_per_second;
        Self { terms, client, server, grace: 0, closed_by: None, why: None, messages, filled: now }
    }

    /// Bytes came `from` an end. All of them are taken.
    pub fn pass<O: Out>(&mut self, from: End, bytes: &[u8], now: u32, out: &mut O) {
        let half = self.half_mut(from);
        half.heard = now;
        if half.ear != Ear::Open {
            return;
        }
        let to = other(from);
        let mut at = 0;
        // Something of ours waits for a boundary: go no further than that, then say it.
        if self.waits(to) {
            at = self.half(from).tunnel.bytes_to_boundary().min(bytes.len() as u64) as usize;
            self.feed(from, bytes, 0..at, now, out);
            self.say(to, now, out);
        }
        if at < bytes.len() {
            self.feed(from, bytes, at..bytes.len(), now, out);
            // A fault found just now may have given us something to say both ways.
            self.say(to, now, out);
        }
        self.say(from, now, out);
    }

    fn feed<O: Out>(&mut self, from: End, bytes: &[u8], span: Range<usize>, now: u32, out: &mut O) {
        if span.is_empty() || self.half(from).ear != Ear::Open {
            return;
        }
        let to = other(from);
        let open = matches!(self.half(to).way, Way::Open | Way::Closing(_));
        let messages = if from == End::Client { self.messages_left(now) } else { None };
        let terms = &*self.terms;
        let half = if from == End::Client { &mut self.client } else { &mut self.server };
        let mark = (half.mark != 0 && !half.ping_waits).then(|| half.mark.to_be_bytes());
        let limits = FrameLimits { mark, messages, ..terms.limits(from) };
        let mut flow = Flow {
            out,
            terms,
            from,
            to,
            open,
            offset: span.start,
            messages: 0,
            close: None,
            ponged: false,
        };
        let verdict = half.tunnel.feed(&bytes[span], &limits, &mut flow);
        let Flow { messages, close, ponged, .. } = flow;
        self.messages = self.messages.saturating_sub(messages);
        if ponged {
            self.ponged(from, out.clock());
        }
        if let Some(code) = close
            && open
        {
            self.record(side(from), code);
        }
        match verdict {
            Verdict::Open => {}
            Verdict::Closed => self.close_passed(from, now, out),
            Verdict::Bad(fault) => self.offence(from, fault, now),
        }
    }

    /// A whole Close of an end went by (or was discarded with the rest).
    fn close_passed<O: Out>(&mut self, from: End, now: u32, out: &mut O) {
        self.half_mut(from).ear = Ear::Deaf;
        let to = self.half_mut(other(from));
        if matches!(to.way, Way::Open | Way::Closing(_)) {
            to.way = Way::Closed;
        }
        self.begin_grace(now);
        if from == End::Client {
            out.leave(End::Client);
            if self.server.ear == Ear::Ended {
                // The server said all it ever will: there is no end left to wait for.
                self.server.way = Way::Over;
                out.finish(End::Server);
            }
        }
        if self.client.tunnel.is_closed() && self.client.way == Way::Closed {
            // The client has said Close and got one. Towards the client we are the server of the
            // WebSocket, which closes first (§7.1.1); the server's connection the server closes.
            self.client.way = Way::Over;
            out.finish(End::Client);
        }
    }

    /// An end broke the rules: it gets a Close that says so, the other end one that we go away.
    fn offence(&mut self, from: End, fault: Fault, now: u32) {
        self.half_mut(from).ear = Ear::Deaf;
        self.why.get_or_insert(Why::Fault(from, fault));
        self.record(Side::Proxy, Some(fault.code()));
        self.want_close(from, fault.code());
        let other_code = if from == End::Client { CODE_GOING_AWAY } else { CODE_INTERNAL };
        self.want_close(other(from), other_code);
        self.begin_grace(now);
    }

    fn want_close(&mut self, to: End, code: u16) {
        let half = self.half_mut(to);
        if half.way == Way::Open {
            half.way = Way::Closing(code);
        }
    }

    fn begin_grace(&mut self, now: u32) {
        if self.grace == 0 {
            self.grace = now.wrapping_add(GRACE_MS).max(1);
        }
    }

    /// An end stopped sending. The engine passes the FIN on by itself, after what is put out here.
    pub fn ended<O: Out>(&mut self, from: End, stop: Stop, now: u32, out: &mut O) {
        let to = other(from);
        let half = self.half_mut(from);
        half.ear = Ear::Ended;
        let cut = !half.tunnel.at_boundary();
        if stop == Stop::Lost {
            half.way = Way::Over;
        }
        self.record(side(from), CloseCodes::ABNORMAL);
        let code = if from == End::Client { CODE_GOING_AWAY } else { CODE_INTERNAL };
        self.want_close(to, code);
        if cut {
            // A Close inside a frame would be payload: the FIN alone has to tell.
            self.half_mut(to).way = Way::Over;
        } else {
            self.say(to, now, out);
        }
        if stop == Stop::Lost {
            self.half_mut(to).ear = match self.half(to).ear {
                Ear::Open => Ear::Deaf,
                ear => ear,
            };
        }
        self.begin_grace(now);
    }

    /// Ends the pipe as soon as a frame ends: a Close with `code` to the client, whose own Close
    /// then ends the server's side. Does nothing if the pipe is ending already.
    pub fn drain<O: Out>(&mut self, code: u16, now: u32, out: &mut O) {
        if self.grace != 0 || self.why.is_some() {
            return;
        }
        self.why = Some(Why::Drained);
        self.want_close(End::Client, code);
        self.begin_grace(now);
        self.say(End::Client, now, out);
    }

    /// Says what can be said before the engine takes the pipe down: a Close with `code` to each end
    /// whose stream stands between two frames.
    pub fn leave<O: Out>(&mut self, code: u16, now: u32, out: &mut O) {
        self.why.get_or_insert(Why::Drained);
        self.begin_grace(now);
        for to in [End::Client, End::Server] {
            self.want_close(to, code);
            self.say(to, now, out);
        }
    }

    /// Whether something of ours waits for a boundary on the way to `to`.
    fn waits(&self, to: End) -> bool {
        let half = self.half(to);
        matches!(half.way, Way::Closing(_)) || (half.ping_waits && half.way == Way::Open)
    }

    /// Says to an end what waits to be said, if its stream stands between two frames.
    fn say<O: Out>(&mut self, to: End, now: u32, out: &mut O) {
        if !self.waits(to) || !self.half(other(to)).tunnel.at_boundary() {
            return;
        }
        let mask = (to == End::Server).then(|| out.random().to_be_bytes());
        let half = self.half_mut(to);
        match half.way {
            Way::Closing(code) => {
                half.way = Way::Closed;
                let frame = Control::close(code, "", mask);
                out.insert(to, frame.as_bytes());
                self.record(Side::Proxy, Some(code));
                // However long the frame before it took, the answer to it has its full time.
                self.grace = now.wrapping_add(GRACE_MS).max(1);
            }
            _ => {
                half.ping_waits = false;
                half.ping = now;
                half.sent = out.clock();
                let mark: Mark = half.mark.to_be_bytes();
                let frame = Control::ping(&mark, mask);
                out.insert(to, frame.as_bytes());
                self.terms.count_ping();
            }
        }
    }

    /// Whichever side sends the first Close counts as the one that closed.
    fn record(&mut self, who: Side, code: Option<u16>) {
        if self.closed_by.is_none() {
            self.closed_by = Some((who, code));
            self.terms.count_close(who, code);
        }
    }

    /// Payload bytes from an end that need not be seen and may be spliced; tell
    /// [`Relay::spliced`] afterwards.
    pub fn unseen(&self, from: End) -> u64 {
        let half = self.half(from);
        let to = self.half(other(from));
        if half.ear == Ear::Open && matches!(to.way, Way::Open | Way::Closing(_)) {
            half.tunnel.bytes_to_boundary()
        } else {
            0
        }
    }

    /// Looks at the bytes that follow the [`Relay::unseen`] ones of an end, without taking them.
    /// Where they begin a data frame of at least so much payload, and nothing speaks against it,
    /// the frame has begun, and is unseen with its header; else nothing changed. Says which.
    pub fn peek(&mut self, from: End, bytes: &[u8], least: u64, now: u32) -> bool {
        let to = self.half(other(from));
        let wanted = self.half(from).ear == Ear::Open && to.way == Way::Open && !to.ping_waits;
        if !wanted {
            return false;
        }
        let messages = if from == End::Client { self.messages_left(now) } else { None };
        let limits = FrameLimits { messages, ..self.terms.limits(from) };
        let Some(header) = self.half_mut(from).tunnel.peek(bytes, least, &limits) else {
            return false;
        };
        if messages.is_some() && header.opcode != Opcode::Continuation {
            self.messages -= 1;
        }
        self.terms.count_frame(from, header.opcode);
        true
    }

    /// `bytes` went from an end to the other by the pipe.
    pub fn spliced<O: Out>(&mut self, from: End, bytes: u64, now: u32, out: &mut O) {
        let half = self.half_mut(from);
        half.heard = now;
        let (opcode, payload) = half.tunnel.skip(bytes);
        self.terms.count_payload(from, opcode, payload);
        self.say(other(from), now, out);
    }

    /// Whether what comes from an end is thrown away.
    pub fn is_deaf(&self, from: End) -> bool {
        self.half(from).ear != Ear::Open
    }

    /// Who sent the first Close, and its code, if it had one.
    pub fn closed_by(&self) -> Option<(Side, Option<u16>)> {
        self.closed_by
    }

    /// Why the relay itself ended it.
    pub fn why(&self) -> Option<Why> {
        self.why
    }

    /// Whether an end has said Close: a FIN after it is the clean end.
    pub fn is_clean(&self) -> bool {
        self.client.tunnel.is_closed() || self.server.tunnel.is_closed()
    }

    fn half(&self, end: End) -> &Half {
        if end == End::Client { &self.client } else { &self.server }
    }

    fn half_mut(&mut self, end: End) -> &mut Half {
        if end == End::Client { &mut self.client } else { &mut self.server }
    }
}

/// What a tunnel finds, carried to the engine's `Out` and the counters.
struct Flow<'a, O> {
    out: &'a mut O,
    terms: &'a Terms,
    from: End,
    to: End,
    /// Nothing may follow a Close: with false all is discarded.
    open: bool,
    /// Where the fed span begins in the slice.
    offset: usize,
    messages: u32,
    close: Option<Option<u16>>,
    ponged: bool,
}

impl<O: Out> Sink for Flow<'_, O> {
    fn pass(&mut self, part: Part<'_>) {
        if !self.open {
            return;
        }
        match part {
            Part::Fed(span) => {
                self.out.forward(span.start + self.offset..span.end + self.offset);
            }
            Part::Held(bytes) => self.out.insert(self.to, bytes),
        }
    }

    fn frame(&mut self, opcode: Opcode, _fin: bool) {
        if matches!(opcode, Opcode::Text | Opcode::Binary) {
            self.messages += 1;
        }
        if self.open {
            self.terms.count_frame(self.from, opcode);
        }
    }

    fn payload(&mut self, opcode: Opcode, bytes: u64) {
        if self.open {
            self.terms.count_payload(self.from, opcode, bytes);
        }
    }

    fn close(&mut self, code: Option<u16>) {
        self.close = Some(code);
    }

    fn pong(&mut self) {
        self.ponged = true;
    }
}

/// We, or the other end, go away.
pub const CODE_GOING_AWAY: u16 = 1001;
const CODE_INTERNAL: u16 = 1011;

/// The code of a drain: the service restarts, come back.
pub const CODE_RESTART: u16 = 1012;

fn other(end: End) -> End {
    if end == End::Client { End::Server } else { End::Client }
}

fn side(end: End) -> Side {
    if end == End::Client { Side::Client } else { Side::Server }
}
