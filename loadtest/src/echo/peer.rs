//! One accepted connection as plain data, and the pure part of answering: bytes in, bytes out.

use std::fmt::Write as _;

use super::Manner;
use crate::frame::{self, End, Opcode};
use crate::message::{self, Form, Header, Kind, MESSAGE_BYTES_MAX, Parsed, Writer, any_length};
use crate::proof::{Account, Arrival};
use crate::socket::Socket;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Securing,
    Upgrading,
    Open,
}

pub struct Peer {
    pub socket: Socket,
    pub stage: Stage,
    /// Which of the listens it came to.
    pub listen: u16,
    /// Something was received: the question for a name can only come first on a raw stream.
    pub heard: bool,
    /// The client is known to have finished: an end of stream follows what can be read. It is said
    /// only once, so it is kept until all of that has been read.
    pub finished: bool,
    /// Our Close is out, or the peer's FIN is in: gone once everything has left.
    pub ending: bool,
    /// Tells this connection from earlier ones in its slot.
    pub life: u32,
    #[expect(clippy::box_collection, reason = "8 bytes of an idle connection, not 24")]
    pub tail: Option<Box<Vec<u8>>>,
    /// Bytes sent back, for those that are to die.
    pub sent: u64,
    /// Delayed replies may not overtake each other.
    pub last_due_ns: u64,
    /// Delayed replies that have not left.
    pub waiting: u32,
    /// Only with a sink or a source.
    pub ledger: Option<Box<Ledger>>,
}

impl Peer {
    /// Whether it is to go and has been told everything.
    pub fn is_over(&self) -> bool {
        self.ending && self.waiting == 0 && !self.socket.blocked()
    }
}

/// What a sink has seen of one connection, or a source has sent.
#[derive(Debug, Default)]
pub struct Ledger {
    pub account: Account,
    pub messages: u64,
    pub bytes: u64,
    pub damaged: u64,
    pub skipped: u64,
    pub reordered: u64,
    pub duplicated: u64,
    /// A source's next number, and when it is due.
    pub next: u32,
    pub due_ns: u64,
}

/// How to answer, the same for every connection of a thread.
pub struct Answering<'a> {
    pub manner: &'a Manner,
    pub form: Form,
    pub writer: &'a Writer,
    pub name: &'a str,
    pub websocket: bool,
}

/// What became of received bytes.
pub enum Outcome {
    /// This many are done with.
    Used(usize),
    /// A Close was answered, or the peer broke the protocol: send what there is, then end.
    End(usize),
}

impl Answering<'_> {
    /// Answers the whole messages at the start of `bytes` (which it may change) onto `out`.
    pub fn answer(
        &self,
        bytes: &mut [u8],
        heard: bool,
        ledger: &mut Option<Box<Ledger>>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        if self.websocket {
            self.answer_frames(bytes, ledger, out)
        } else {
            Outcome::Used(self.answer_stream(bytes, heard, ledger, out))
        }
    }

    fn answer_stream(
        &self,
        bytes: &[u8],
        heard: bool,
        ledger: &mut Option<Box<Ledger>>,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut used = 0;
        if *self.manner == Manner::Echo {
            if !heard
                && let Parsed::Sound(header) = message::parse(self.form, bytes, any_length)
                && header.kind == Kind::Ask
            {
                self.writer.write_name(out, &header, self.name);
                used = header.length;
            }
            out.extend_from_slice(&bytes[used..]);
            return bytes.len();
        }
        while used < bytes.len() {
            match message::parse(self.form, &bytes[used..], any_length) {
                Parsed::Need(_) => break,
                Parsed::Sound(header) => {
                    self.note(&header, ledger, out);
                    used += header.length;
                }
                Parsed::Damaged { length } => {
                    ledger.get_or_insert_default().damaged += 1;
                    used += length;
                }
                Parsed::Foreign => {
                    ledger.get_or_insert_default().damaged += 1;
                    used = bytes.len();
                }
            }
        }
        used
    }

    fn answer_frames(
        &self,
        bytes: &mut [u8],
        ledger: &mut Option<Box<Ledger>>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let mut used = 0;
        loop {
            let found = match frame::parse(&bytes[used..], End::Client, MESSAGE_BYTES_MAX) {
                frame::Parsed::Need => return Outcome::Used(used),
                frame::Parsed::Whole(found) => found,
                frame::Parsed::Bad(_) => {
                    frame::write(out, Opcode::Close, &1002u16.to_be_bytes(), None);
                    return Outcome::End(used);
                }
            };
            let start = used + found.header;
            let payload = &mut bytes[start..start + found.payload];
            used = start + found.payload;
            if let Some(key) = found.mask {
                frame::apply_mask(payload, key);
            }
            match found.opcode {
                Opcode::Ping => frame::write(out, Opcode::Pong, payload, None),
                Opcode::Pong => {}
                Opcode::Close => {
                    let code = frame::close_code(payload);
                    let code = if code == 1005 { 1000 } else { code };
                    frame::write(out, Opcode::Close, &code.to_be_bytes(), None);
                    return Outcome::End(used);
                }
                opcode => self.answer_message(opcode, found.last, payload, ledger, out),
            }
        }
    }

    fn answer_message(
        &self,
        opcode: Opcode,
        last: bool,
        payload: &[u8],
        ledger: &mut Option<Box<Ledger>>,
        out: &mut Vec<u8>,
    ) {
        let ask = payload.len() == message::header_bytes(self.form);
        if *self.manner == Manner::Echo && !ask {
            frame::write_header(out, opcode, last, payload.len(), None);
            out.extend_from_slice(payload);
            return;
        }
        match message::parse(self.form, payload, any_length) {
            Parsed::Sound(header) if *self.manner != Manner::Echo || header.kind == Kind::Ask => {
                let mut reply = Vec::new();
                if *self.manner == Manner::Echo {
                    self.writer.write_name(&mut reply, &header, self.name);
                } else {
                    self.note(&header, ledger, &mut reply);
                }
                if !reply.is_empty() {
                    frame::write(out, opcode, &reply, None);
                }
            }
            _ if *self.manner == Manner::Echo => frame::write(out, opcode, payload, None),
            _ => ledger.get_or_insert_default().damaged += 1,
        }
    }

    /// A sink notes a message; asked, it tells its name and what it has seen.
    fn note(&self, header: &Header, ledger: &mut Option<Box<Ledger>>, out: &mut Vec<u8>) {
        let ledger = ledger.get_or_insert_default();
        match header.kind {
            Kind::Data => {
                ledger.messages += 1;
                ledger.bytes += header.length as u64;
                match ledger.account.arrived(header.sequence) {
                    Arrival::InOrder => {}
                    Arrival::Ahead { missing } => ledger.skipped += u64::from(missing),
                    Arrival::Late => ledger.reordered += 1,
                    Arrival::Again => ledger.duplicated += 1,
                }
            }
            Kind::Ask => {
                let mut text = self.name.to_owned();
                if *self.manner == Manner::Sink {
                    // Writing to a String cannot fail.
                    let _ = write!(
                        text,
                        " messages={} bytes={} damaged={} lost={} reordered={} duplicated={}",
                        ledger.messages,
                        ledger.bytes,
                        ledger.damaged,
                        ledger.skipped.saturating_sub(ledger.reordered),
                        ledger.reordered,
                        ledger.duplicated
                    );
                }
                self.writer.write_name(out, header, &text);
            }
            Kind::Name => {}
        }
    }
}
