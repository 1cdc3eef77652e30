//! HTTP/1.1 heads and bodies, strictly: found first, parsed once, refused when two readers could
//! read them differently. Never reads a socket, never decides where a request goes.

pub mod chunked;
pub mod fields;
pub mod forwarded;
mod framing;
pub mod head;
pub mod names;
pub mod rewrite;
pub mod scan;

pub use fields::{Field, Nominated};
pub use framing::Body;
pub use head::{RequestHead, ResponseHead, parse_request, parse_response};
pub use rewrite::{Connection, Edits, write_request, write_response};
pub use scan::HeadScanner;

/// The two versions spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    Http11,
}

/// Bounds of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the first of the start line to the empty line's last.
    pub bytes: usize,
    /// Field lines; at most [`FIELDS_MAX`].
    pub fields: usize,
    /// Bytes of a request target.
    pub target: usize,
}

/// The most field lines a head may have, whatever is configured.
pub const FIELDS_MAX: usize = 256;

/// The most elements Connection may have, empty ones too: each is compared with the name of every
/// field.
pub const CONNECTION_TOKENS_MAX: usize = 64;

impl Default for HeadLimits {
    fn default() -> Self {
        Self { bytes: 64 << 10, fields: 100, target: 8 << 10 }
    }
}

/// Why a head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HeadFault {
    #[error("the start line is malformed")]
    StartLine,
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    #[error("a header line is folded")]
    Folded,
    #[error("a header name is malformed")]
    FieldName,
    #[error("a header value holds a control character")]
    FieldValue,
    #[error("the request target is malformed")]
    Target,
    #[error("the Host header is missing")]
    HostMissing,
    #[error("there is more than one Host header")]
    HostRepeated,
    #[error("the Host header is malformed")]
    HostInvalid,
    #[error("Host and request target name different hosts")]
    HostMismatch,
    #[error("Content-Length is not a plain number")]
    LengthInvalid,
    #[error("there is more than one Content-Length")]
    LengthRepeated,
    #[error("both Content-Length and Transfer-Encoding are given")]
    LengthAndEncoding,
    #[error("Transfer-Encoding is malformed, repeated, or does not end in chunked")]
    EncodingInvalid,
    #[error("Transfer-Encoding needs HTTP/1.1")]
    EncodingOnOld,
    #[error("an unknown transfer coding")]
    EncodingUnknown,
    #[error("Max-Forwards is not a plain number")]
    MaxForwards,
    #[error("CONNECT is not served")]
    Connect,
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("the head is too long")]
    HeadTooLong,
    #[error("there are too many header lines")]
    TooManyFields,
    #[error("Connection names too many headers")]
    TooManyTokens,
    #[error("the HTTP version is not supported")]
    Version,
}

impl HeadFault {
    /// The status that answers a request with this fault. (A response with a fault is a 502.)
    pub fn status(self) -> u16 {
        match self {
            Self::Connect => 405,
            Self::TargetTooLong => 414,
            Self::HeadTooLong | Self::TooManyFields | Self::TooManyTokens => 431,
            Self::EncodingUnknown => 501,
            Self::Version => 505,
            _ => 400,
        }
    }
}
