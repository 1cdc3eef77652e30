//! Both directions of a session after its handshake: bursts of ciphertext opened in place, bursts
//! of plaintext sealed, and all that TLS itself still says in between. It owns no buffer.

use std::ops::Range;

use super::message::{KEY_UPDATE_MESSAGE, Message, Messages};
use super::{
    Alert, CIPHERTEXT_MAX_13, Fault, HEADER, Keys, Kind, OVERHEAD_MAX, PLAIN_MAX, Sealer, Version,
    header,
};
use crate::proto::Step;

/// Which end of the session we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

/// What a burst of ciphertext held.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where all plaintext of the burst lies, in one piece. Valid even if the burst ended badly:
    /// what stands here was authentic.
    pub plain: Range<usize>,
    /// Bytes of the buffer that are done with; what follows is the front of a record.
    pub used: usize,
    /// The peer says nothing after this.
    pub finish: Option<Finish>,
    /// NewSessionTicket bodies, as a client.
    pub tickets: Vec<Vec<u8>>,
    /// Records opened, and how many of them changed the peer's key.
    pub records: u32,
    pub updates: u32,
}

/// What a burst of plaintext became.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// Bytes of plaintext that are in the records.
    pub taken: usize,
    /// Bytes of records.
    pub written: usize,
    pub records: u32,
    /// KeyUpdates among the records.
    pub updates: u32,
}

/// Why a session's reading is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// `close_notify`: a clean end of this direction.
    Closed,
    /// The session is over; [`Fault::alert`] says what to tell the peer.
    Fault(Fault),
}

/// One session: two directions' keys and a few flags. Plain data; it may wait for days.
#[derive(Debug)]
pub struct Session {
    open: Keys,
    pub(super) seal: Keys,
    messages: Messages,
    role: Role,
    /// Records in a row that carried no data.
    useless: u8,
    /// The peer asked for a KeyUpdate that was not sent yet.
    answer_due: bool,
    /// How the peer's direction ended. That may have come in one burst with data, so it is kept for
    /// a caller that asks later.
    heard: Option<Finish>,
    said_close: bool,
}

impl Session {
    pub fn new(role: Role, open: Keys, seal: Keys) -> Self {
        Self {
            open,
            seal,
            messages: Messages::default(),
            role,
            useless: 0,
            answer_due: false,
            heard: None,
            said_close: false,
        }
    }

    pub fn version(&self) -> Version {
        self.open.version()
    }

    /// Opens every whole record in `buffer`, in place. Plaintext of several records is moved
    /// together behind the first. Once a direction has ended, whatever still comes is dropped and
    /// its ending told again.
    pub fn open(&mut self, buffer: &mut [u8]) -> Opened {
        let mut opened = Opened {
            plain: 0..0,
            used: 0,
            finish: None,
            tickets: Vec::new(),
            records: 0,
            updates: 0,
        };
        if self.heard.is_none() {
            self.heard = match self.open_all(buffer, &mut opened) {
                Ok(true) => Some(Finish::Closed),
                Ok(false) => None,
                Err(fault) => Some(Finish::Fault(fault)),
            };
        }
        if self.heard.is_some() {
            opened.used = buffer.len();
            opened.finish = self.heard;
        }
        opened
    }

    /// How the peer's direction ended, if it has.
    pub fn heard(&self) -> Option<Finish> {
        self.heard
    }

    /// A KeyUpdate is owed: call [`Self::seal`], if only with nothing.
    pub fn answer_due(&self) -> bool {
        self.answer_due && !self.said_close
    }

    /// Both sides said `close_notify`.
    pub fn closed(&self) -> bool {
        self.heard == Some(Finish::Closed) && self.said_close
    }

    /// Bytes on the heap: a cut ticket, as a client.
    pub fn held(&self) -> usize {
        self.messages.held()
    }

    /// Data records this session can still seal; only TLS 1.2 ever runs out.
    pub fn records_left(&self) -> u64 {
        match self.version() {
            Version::Tls12 => self.seal.records_left(),
            Version::Tls13 => u64::MAX,
        }
    }

    /// Bytes that surely hold `plain` bytes sealed, and a KeyUpdate before them.
    pub fn sealed_max(plain: usize) -> usize {
        plain + (plain / PLAIN_MAX + 1) * OVERHEAD_MAX + KEY_UPDATE_RECORD
    }

    /// Seals as much of `plain` as `out` has room for. A KeyUpdate that is owed, or that the key's
    /// age demands, goes first.
    pub fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<Sealed, Fault> {
        if self.said_close {
            return Err(Fault::UnexpectedMessage);
        }
        let refresh = self.version() == Version::Tls13;
        let mut sealer = self.seal.sealer();
        let mut sealed = Sealed::default();
        if self.answer_due {
            update(&mut sealer, out, &mut sealed)?;
            self.answer_due = false;
        }
        while sealed.taken < plain.len() {
            if sealer.records_left() == 0 {
                let renewed = match refresh {
                    true => update(&mut sealer, out, &mut sealed),
                    false => Err(Fault::Exhausted),
                };
                match renewed {
                    Ok(()) => {}
                    Err(_) if sealed.taken > 0 => break,
                    Err(fault) => return Err(fault),
                }
            }
            let room = (out.len() - sealed.written).saturating_sub(sealer.sealed_len(0));
            let piece = (plain.len() - sealed.taken).min(PLAIN_MAX).min(room);
            if piece == 0 {
                break;
            }
            let chunk = &plain[sealed.taken..sealed.taken + piece];
            sealed.written += sealer.seal(Kind::Data, chunk, &mut out[sealed.written..])?;
            sealed.taken += piece;
            sealed.records += 1;
        }
        Ok(sealed)
    }

    /// Seals all of `plain` at the end of `out`.
    pub fn seal_onto(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<Sealed, Fault> {
        let start = out.len();
        out.resize(start + Self::sealed_max(plain.len()), 0);
        let sealed = self.seal(plain, &mut out[start..]);
        out.truncate(start + sealed.map_or(0, |sealed| sealed.written));
        sealed.and_then(|sealed| match sealed.taken == plain.len() {
            true => Ok(sealed),
            false => Err(Fault::Exhausted),
        })
    }

    /// The last record we send: `close_notify`, or what went wrong. Said once, and not to a peer
    /// that gave up with a fatal alert (RFC 8446 section 6.2).
    pub fn close(&mut self, alert: Alert, out: &mut [u8]) -> Result<usize, Fault> {
        let gave_up = matches!(self.heard, Some(Finish::Fault(Fault::PeerAlert(_))));
        if std::mem::replace(&mut self.said_close, true) || gave_up {
            return Ok(0);
        }
        self.seal.sealer().seal(Kind::Alert, &alert.bytes(), out)
    }

    /// `Ok(true)`: `close_notify` came.
    fn open_all(&mut self, buffer: &mut [u8], opened: &mut Opened) -> Result<bool, Fault> {
        let (version, role) = (self.version(), self.role);
        if whole(version, buffer)?.is_none() {
            return Ok(false);
        }
        let mut opener = self.open.opener();
        while let Some(length) = whole(version, &buffer[opened.used..])? {
            let record = &mut buffer[opened.used..opened.used + length];
            let body = opener.open(record)?;
            let at = opened.used;
            opened.used += length;
            opened.records += 1;
            if self.messages.cut() && body.kind != Kind::Handshake {
                return Err(Fault::UnexpectedMessage);
            }
            if body.kind == Kind::Data && !body.plain.is_empty() {
                self.useless = 0;
                gather(buffer, &mut opened.plain, at + body.plain.start..at + body.plain.end);
                continue;
            }
            self.useless += 1;
            if self.useless > USELESS_MAX {
                return Err(Fault::Useless);
            }
            match body.kind {
                Kind::Data => {}
                Kind::Alert => {
                    if alert(version, &buffer[at..][body.plain])? {
                        return Ok(true);
                    }
                }
                Kind::Handshake => {
                    let answer_due = &mut self.answer_due;
                    let (tickets, updates) = (&mut opened.tickets, &mut opened.updates);
                    self.messages.take(role, version, &buffer[at..][body.plain], |message| {
                        match message {
                            Message::KeyUpdate { answer } => {
                                *answer_due |= answer;
                                *updates += 1;
                                opener.update()?;
                            }
                            Message::Ticket(body) => tickets.push(body),
                        }
                        Ok(())
                    })?;
                }
                Kind::ChangeCipherSpec => return Err(Fault::UnexpectedMessage),
            }
        }
        Ok(false)
    }
}

/// The length of the whole record at the front, if all of it is there. What can be refused from
/// the header alone is refused now, before its bytes are waited for.
fn whole(version: Version, bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let head = match header(bytes) {
        Step::Need => return Ok(None),
        Step::Bad(fault) => return Err(fault),
        Step::Done(_, head) => head,
    };
    if version == Version::Tls13 && head.kind != Kind::Data {
        return Err(Fault::UnexpectedMessage);
    }
    if version == Version::Tls13 && head.length > CIPHERTEXT_MAX_13 {
        return Err(Fault::RecordOverflow);
    }
    Ok(Some(HEADER + head.length).filter(|total| bytes.len() >= *total))
}

/// Joins `piece` to the plaintext gathered so far.
fn gather(buffer: &mut [u8], plain: &mut Range<usize>, piece: Range<usize>) {
    if plain.start == plain.end {
        *plain = piece;
    } else {
        let end = plain.end + piece.len();
        buffer.copy_within(piece, plain.end);
        plain.end = end;
    }
}

/// `Ok(true)`: `close_notify`. `Ok(false)`: a warning that changes nothing. An alert without
/// content is unexpected in TLS 1.3 (RFC 8446 section 5.4); any other length is only a wrong one.
fn alert(version: Version, bytes: &[u8]) -> Result<bool, Fault> {
    let &[level, description] = bytes else {
        let is_empty = version == Version::Tls13 && bytes.is_empty();
        return Err(if is_empty { Fault::UnexpectedMessage } else { Fault::DecodeError });
    };
    match Alert(description) {
        Alert::CLOSE_NOTIFY => Ok(true),
        Alert::USER_CANCELED => Ok(false),
        _ if version == Version::Tls12 && level == WARNING => Ok(false),
        Alert(code) => Err(Fault::PeerAlert(code)),
    }
}

fn update(sealer: &mut Sealer<'_>, out: &mut [u8], sealed: &mut Sealed) -> Result<(), Fault> {
    let room = &mut out[sealed.written..];
    sealed.written += sealer.seal(Kind::Handshake, &KEY_UPDATE_MESSAGE, room)?;
    sealed.records += 1;
    sealed.updates += 1;
    sealer.update()
}

/// Records without data that may follow one another: enough for tickets and key changes, too few
/// to keep a core busy for nothing.
const USELESS_MAX: u8 = 32;
const WARNING: u8 = 1;
const KEY_UPDATE_RECORD: usize = KEY_UPDATE_MESSAGE.len() + OVERHEAD_MAX;

const _: () = assert!(size_of::<Session>() <= 256);
