//! TLS records after the handshake, pure: bytes and keys in, plaintext or ciphertext out, for
//! TLS 1.3 and the AEAD suites of TLS 1.2. It shakes no hands, draws no randomness, allocates
//! nothing by a declared length and never reads a socket or a clock.

mod crypt;
mod fuzz;
mod keys;
mod message;
mod session;
#[cfg(test)]
mod tests;

pub use crypt::{Body, Opener, Sealer};
pub use fuzz::exercise;
pub use keys::{Keys, Suite, Version};
pub use message::TICKET_BYTES_MAX;
pub use session::{Finish, Opened, Role, Sealed, Session};

use super::Step;

/// A record's header: its content type, and how many bytes follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    pub length: usize,
}

/// Reads a record header. Nothing is believed of it but that it is one: the length is bounded, the
/// rest is proven by the tag. What cannot become a header is refused at the byte that says so.
pub fn header(bytes: &[u8]) -> Step<Head, Fault> {
    let Some(&first) = bytes.first() else { return Step::Need };
    let Some(kind) = Kind::from_byte(first) else { return Step::Bad(Fault::UnexpectedMessage) };
    if bytes.get(1).is_some_and(|major| *major != 3) {
        return Step::Bad(Fault::UnexpectedMessage);
    }
    let Some(head) = bytes.first_chunk::<HEADER>() else { return Step::Need };
    let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
    if length > CIPHERTEXT_MAX {
        return Step::Bad(Fault::RecordOverflow);
    }
    Step::Done(HEADER, Head { kind, length })
}

/// The content type of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    ChangeCipherSpec = 20,
    Alert = 21,
    Handshake = 22,
    Data = 23,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            20 => Self::ChangeCipherSpec,
            21 => Self::Alert,
            22 => Self::Handshake,
            23 => Self::Data,
            _ => return None,
        })
    }
}

/// Why a record, or the stream of them, is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("a record's tag does not match")]
    BadRecordMac,
    #[error("a record is longer than the protocol allows")]
    RecordOverflow,
    #[error("a message that has no place here")]
    UnexpectedMessage,
    #[error("a message that cannot be parsed")]
    DecodeError,
    #[error("a message with a forbidden value")]
    IllegalParameter,
    #[error("too many records in a row that carry no data")]
    Useless,
    #[error("the peer asked to renegotiate")]
    Renegotiation,
    #[error("the peer gave up with alert {0}")]
    PeerAlert(u8),
    #[error("a key was used as often as it may be")]
    Exhausted,
    #[error("an output buffer too short for the record")]
    Room,
}

impl Fault {
    /// The alert that tells the peer; none if it was the peer who told us.
    pub fn alert(self) -> Option<Alert> {
        Some(match self {
            Self::BadRecordMac => Alert::BAD_RECORD_MAC,
            Self::RecordOverflow => Alert::RECORD_OVERFLOW,
            Self::UnexpectedMessage | Self::Useless => Alert::UNEXPECTED_MESSAGE,
            Self::DecodeError => Alert::DECODE_ERROR,
            Self::IllegalParameter => Alert::ILLEGAL_PARAMETER,
            Self::Renegotiation => Alert::NO_RENEGOTIATION,
            Self::Exhausted | Self::Room => Alert::INTERNAL_ERROR,
            Self::PeerAlert(_) => return None,
        })
    }
}

/// An alert's description byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert(pub u8);

impl Alert {
    pub const CLOSE_NOTIFY: Self = Self(0);
    pub const UNEXPECTED_MESSAGE: Self = Self(10);
    pub const BAD_RECORD_MAC: Self = Self(20);
    pub const RECORD_OVERFLOW: Self = Self(22);
    pub const CERTIFICATE_EXPIRED: Self = Self(45);
    pub const ILLEGAL_PARAMETER: Self = Self(47);
    pub const DECODE_ERROR: Self = Self(50);
    pub const INTERNAL_ERROR: Self = Self(80);
    pub const USER_CANCELED: Self = Self(90);
    pub const NO_RENEGOTIATION: Self = Self(100);

    /// Level and description as they travel: only the two that end nothing are warnings.
    fn bytes(self) -> [u8; 2] {
        let warning = matches!(self, Self::CLOSE_NOTIFY | Self::USER_CANCELED);
        [if warning { 1 } else { 2 }, self.0]
    }
}

/// Bytes of a record header.
pub const HEADER: usize = 5;
/// Plaintext bytes one record may carry.
pub const PLAIN_MAX: usize = 1 << 14;
/// Bytes after the header of the longest record either version allows.
pub const CIPHERTEXT_MAX: usize = PLAIN_MAX + 2048;
/// The longest record with its header: the most that is ever held of one.
pub const RECORD_MAX: usize = HEADER + CIPHERTEXT_MAX;
/// Bytes of an authentication tag, in every suite.
pub const TAG: usize = 16;
/// The most a sealed record is longer than its plaintext: header, explicit nonce, tag (TLS 1.2
/// AES-GCM); TLS 1.3 needs less.
pub const OVERHEAD_MAX: usize = HEADER + EXPLICIT_NONCE + TAG;

const EXPLICIT_NONCE: usize = 8;
const CIPHERTEXT_MAX_13: usize = PLAIN_MAX + 256;

const _: () = assert!(CIPHERTEXT_MAX_13 <= CIPHERTEXT_MAX && CIPHERTEXT_MAX <= u16::MAX as usize);
