//! Reading heads: bytes until the empty line, each looked at once, parsed when all are there. The
//! deadline is the caller's guard on the socket; an end that comes from it looks like any end here.

use std::io;
use std::ops::Range;

use crate::meter::Cause;
use crate::proto::Step;
use crate::proto::http::{HeadFault, HeadLimits, HeadScanner};

use super::channel::{Channel, Inlet};

/// Bytes asked for at once: few heads are longer.
const HEAD_BYTES: usize = 4 << 10;

/// A head that lies whole at the front of its inlet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The head itself, as positions in what the inlet holds.
    pub head: Range<usize>,
    /// Where what follows the head begins.
    pub used: usize,
}

/// Why there is no head.
#[derive(Debug)]
pub enum Lack {
    /// The stream ended before a byte of it came, but for an empty line at most; with an error, if
    /// it did.
    Silent(Option<io::Error>),
    /// The stream ended inside it.
    Cut,
    Bad(HeadFault),
    Failed(io::Error),
}

/// Reads until a whole head is held.
pub async fn read(
    channel: &Channel,
    inlet: &mut Inlet,
    limits: &HeadLimits,
) -> Result<Found, Lack> {
    let mut scanner = HeadScanner::new();
    loop {
        match scanner.scan(inlet.held(), limits) {
            Step::Done(used, head) => return Ok(Found { head, used }),
            Step::Bad(fault) => return Err(Lack::Bad(fault)),
            Step::Need => {}
        }
        match channel.read(inlet, HEAD_BYTES).await {
            Ok(0) if !scanner.has_begun() => return Err(Lack::Silent(None)),
            Ok(0) => return Err(Lack::Cut),
            Ok(_) => {}
            Err(error) if !scanner.has_begun() => return Err(Lack::Silent(Some(error))),
            Err(error) => return Err(Lack::Failed(error)),
        }
    }
}

/// What the ending of a request head that breaks a rule is called.
pub fn cause_of(fault: HeadFault) -> Cause {
    match fault {
        HeadFault::Connect => Cause::Method,
        HeadFault::Version => Cause::Version,
        HeadFault::TargetTooLong
        | HeadFault::HeadTooLong
        | HeadFault::TooManyFields
        | HeadFault::TooManyTokens => Cause::HeadTooLarge,
        HeadFault::LengthInvalid
        | HeadFault::LengthRepeated
        | HeadFault::LengthAndEncoding
        | HeadFault::EncodingInvalid
        | HeadFault::EncodingOnOld
        | HeadFault::EncodingUnknown => Cause::FramingBad,
        _ => Cause::HeadBad,
    }
}

/// The same as a sentence for the answer.
pub fn sentence_of(fault: HeadFault) -> &'static str {
    match fault {
        HeadFault::StartLine => "The start line is malformed.",
        HeadFault::BareLineFeed => "A line ends without a carriage return.",
        HeadFault::Folded => "A header line is folded.",
        HeadFault::FieldName => "A header name is malformed.",
        HeadFault::FieldValue => "A header value holds a control character.",
        HeadFault::Target => "The request target is malformed.",
        HeadFault::HostMissing => "The Host header is missing.",
        HeadFault::HostRepeated => "There is more than one Host header.",
        HeadFault::HostInvalid => "The Host header is malformed.",
        HeadFault::HostMismatch => "Host and request target name different hosts.",
        HeadFault::LengthInvalid => "Content-Length is not a plain number.",
        HeadFault::LengthRepeated => "There is more than one Content-Length.",
        HeadFault::LengthAndEncoding => "Content-Length and Transfer-Encoding exclude each other.",
        HeadFault::EncodingInvalid => "Transfer-Encoding is malformed.",
        HeadFault::EncodingOnOld => "Transfer-Encoding needs HTTP/1.1.",
        HeadFault::EncodingUnknown => "Only the chunked transfer coding is served.",
        HeadFault::MaxForwards => "Max-Forwards is not a plain number.",
        HeadFault::Connect => "CONNECT is not served.",
        HeadFault::TargetTooLong => "The request target is too long.",
        HeadFault::HeadTooLong => "The request head is too long.",
        HeadFault::TooManyFields => "There are too many header lines.",
        HeadFault::TooManyTokens => "The Connection header names too many others.",
        HeadFault::Version => "Only HTTP/1.0 and HTTP/1.1 are served here.",
    }
}
