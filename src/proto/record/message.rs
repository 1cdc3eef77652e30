//! Handshake messages that come after the handshake, in pieces of any size: KeyUpdate for both
//! roles, NewSessionTicket for a client. Everything else is refused at its first byte.

use super::{Fault, Role, Version};

/// A whole message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The peer's next record uses its next key; `answer` if it wants the same of us.
    KeyUpdate { answer: bool },
    /// The body of a NewSessionTicket.
    Ticket(Vec<u8>),
}

/// A message under assembly: nothing but a few bytes, unless a ticket is cut.
#[derive(Debug, Default)]
pub(super) struct Messages {
    head: [u8; HEAD],
    have: u8,
    /// Bytes of the body still to come.
    left: u32,
    ticket: Option<Vec<u8>>,
}

impl Messages {
    /// A message has begun and is not whole: no other kind of record may come now.
    pub fn cut(&self) -> bool {
        self.have > 0
    }

    /// Bytes on the heap.
    pub fn held(&self) -> usize {
        self.ticket.as_ref().map_or(0, Vec::capacity)
    }

    /// Takes one record's worth of handshake bytes.
    pub fn take(
        &mut self,
        role: Role,
        version: Version,
        mut bytes: &[u8],
        mut deliver: impl FnMut(Message) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Err(Fault::UnexpectedMessage);
        }
        while let Some((first, rest)) = bytes.split_first() {
            if usize::from(self.have) < HEAD {
                self.head[usize::from(self.have)] = *first;
                self.have += 1;
                bytes = rest;
                self.check_head(role, version)?;
                if usize::from(self.have) < HEAD {
                    continue;
                }
            } else {
                bytes = self.take_body(bytes);
            }
            if self.left > 0 {
                continue;
            }
            let message = self.finish(bytes.last().is_some(), *first)?;
            if let Some(message) = message {
                deliver(message)?;
            }
        }
        Ok(())
    }

    /// Refuses what has no place as soon as it shows, and reads the length.
    fn check_head(&mut self, role: Role, version: Version) -> Result<(), Fault> {
        match (self.head[0], role, version) {
            (HELLO_REQUEST, Role::Client, Version::Tls12)
            | (CLIENT_HELLO, Role::Server, Version::Tls12) => return Err(Fault::Renegotiation),
            (KEY_UPDATE, _, Version::Tls13)
            | (NEW_SESSION_TICKET, Role::Client, Version::Tls13) => {}
            _ => return Err(Fault::UnexpectedMessage),
        }
        if usize::from(self.have) == HEAD {
            let [_, high, middle, low] = self.head;
            self.left = u32::from_be_bytes([0, high, middle, low]);
            if self.head[0] == KEY_UPDATE && self.left != 1 {
                return Err(Fault::DecodeError);
            }
            if self.head[0] == NEW_SESSION_TICKET && self.left as usize <= TICKET_BYTES_MAX {
                self.ticket = Some(Vec::new());
            }
        }
        Ok(())
    }

    fn take_body<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (body, rest) = bytes.split_at(bytes.len().min(self.left as usize));
        self.left -= body.len() as u32;
        if let Some(ticket) = &mut self.ticket {
            ticket.extend_from_slice(body);
        }
        rest
    }

    /// The message is whole; `last` is the byte it ended with. A ticket too long to keep was
    /// counted through and is let go: it is an offer, not a duty.
    fn finish(&mut self, more: bool, last: u8) -> Result<Option<Message>, Fault> {
        let kind = self.head[0];
        self.have = 0;
        if kind == NEW_SESSION_TICKET {
            return Ok(self.ticket.take().map(Message::Ticket));
        }
        if more {
            // Under the new key nothing of the old record may be left (RFC 8446 section 5.1).
            return Err(Fault::UnexpectedMessage);
        }
        match last {
            0 => Ok(Some(Message::KeyUpdate { answer: false })),
            1 => Ok(Some(Message::KeyUpdate { answer: true })),
            _ => Err(Fault::IllegalParameter),
        }
    }
}

/// A KeyUpdate that asks for none in return.
pub(super) const KEY_UPDATE_MESSAGE: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];

/// The longest NewSessionTicket body that is kept.
pub const TICKET_BYTES_MAX: usize = 16 * 1024;

const HEAD: usize = 4;
const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
