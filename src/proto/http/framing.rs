//! How long a body is (RFC 9112 §6), with every ambiguous form refused rather than resolved.

use super::fields::{self, Field};
use super::{HeadFault, Version};

/// How the body after a head is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    None,
    Length(u64),
    Chunked,
    /// Responses only: everything until the server ends the connection.
    UntilClose,
}

impl Body {
    /// Nothing follows the head.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// The body of a request.
pub(super) fn of_request(fields: &[Field<'_>], version: Version) -> Result<Body, HeadFault> {
    Ok(match declared(fields, version)? {
        Declared::Nothing => Body::None,
        Declared::Length(length) => Body::Length(length),
        Declared::Chunked => Body::Chunked,
    })
}

/// The body of a response, and whether what it declares fits its status. A head that declares a
/// body where none may follow leaves the connection in doubt: it must not be used again.
pub(super) fn of_response(
    fields: &[Field<'_>],
    version: Version,
    status: u16,
    to_head: bool,
) -> Result<(Body, bool), HeadFault> {
    let declared = declared(fields, version)?;
    if status < 200 || status == 204 {
        return Ok((Body::None, matches!(declared, Declared::Nothing | Declared::Length(0))));
    }
    if status == 304 || to_head {
        return Ok((Body::None, true));
    }
    Ok(match declared {
        Declared::Nothing => (Body::UntilClose, false),
        Declared::Length(length) => (Body::Length(length), true),
        Declared::Chunked => (Body::Chunked, true),
    })
}

enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

fn declared(fields: &[Field<'_>], version: Version) -> Result<Declared, HeadFault> {
    let length = fields::only(fields, "content-length").map_err(|_| HeadFault::LengthRepeated)?;
    let encoding =
        fields::only(fields, "transfer-encoding").map_err(|_| HeadFault::EncodingInvalid)?;
    match (length, encoding) {
        (None, None) => Ok(Declared::Nothing),
        (Some(_), Some(_)) => Err(HeadFault::LengthAndEncoding),
        (Some(value), None) => content_length(value).map(Declared::Length),
        (None, Some(_)) if version < Version::Http11 => Err(HeadFault::EncodingOnOld),
        (None, Some(value)) => transfer_encoding(value).map(|()| Declared::Chunked),
    }
}

/// Digits only: no sign, no list, no base, no blank.
fn content_length(value: &[u8]) -> Result<u64, HeadFault> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadFault::LengthInvalid);
    }
    value
        .iter()
        .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .filter(|length| *length <= i64::MAX as u64)
        .ok_or(HeadFault::LengthInvalid)
}

/// `chunked`, once, alone. Another coding before it is legal and not served.
fn transfer_encoding(value: &[u8]) -> Result<(), HeadFault> {
    let mut others = 0;
    let mut codings = value.split(|byte| *byte == b',').map(fields::trim).peekable();
    while let Some(coding) = codings.next() {
        let name = coding.split(|byte| *byte == b';').next().map_or(coding, fields::trim);
        if !fields::is_token(name) {
            return Err(HeadFault::EncodingInvalid);
        }
        let last = codings.peek().is_none();
        let chunked = name.eq_ignore_ascii_case(b"chunked");
        if chunked != last || (chunked && name.len() != coding.len()) {
            return Err(HeadFault::EncodingInvalid);
        }
        others += usize::from(!chunked);
    }
    if others > 0 { Err(HeadFault::EncodingUnknown) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(
        lines: &[(&'static str, &'static str)],
        version: Version,
    ) -> Result<Body, HeadFault> {
        let fields: Vec<_> =
            lines.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect();
        of_request(&fields, version)
    }

    #[test]
    fn lengths_are_digits_and_nothing_else() {
        let one = |value| request(&[("Content-Length", value)], Version::Http11);
        assert_eq!(one("5"), Ok(Body::Length(5)));
        assert_eq!(one("005"), Ok(Body::Length(5)));
        assert_eq!(one("9223372036854775807"), Ok(Body::Length(i64::MAX as u64)));
        for bad in ["", "+5", "-1", "0x5", "5, 5", "5,5", "5 5", "5;", "9223372036854775808"] {
            assert_eq!(one(bad), Err(HeadFault::LengthInvalid), "{bad:?}");
        }
        assert_eq!(one("99999999999999999999999999"), Err(HeadFault::LengthInvalid));
        let twice = [("Content-Length", "5"), ("content-length", "5")];
        assert_eq!(request(&twice, Version::Http11), Err(HeadFault::LengthRepeated));
    }

    #[test]
    fn chunked_is_last_once_and_alone() {
        let one = |value| request(&[("Transfer-Encoding", value)], Version::Http11);
        assert_eq!(one("chunked"), Ok(Body::Chunked));
        assert_eq!(one("Chunked"), Ok(Body::Chunked));
        for bad in [
            "",
            ",",
            "chunked,",
            "chunked, chunked",
            "chunked, gzip",
            "gzip",
            "identity",
            "chunked;a=b",
            "xchunked",
            "chunked foo",
            "\"chunked\"",
            ", chunked",
        ] {
            assert_eq!(one(bad), Err(HeadFault::EncodingInvalid), "{bad:?}");
        }
        assert_eq!(one("gzip, chunked"), Err(HeadFault::EncodingUnknown));
        let two = [("Transfer-Encoding", "gzip"), ("Transfer-Encoding", "chunked")];
        assert_eq!(request(&two, Version::Http11), Err(HeadFault::EncodingInvalid));
        let both = [("Transfer-Encoding", "chunked"), ("Content-Length", "5")];
        assert_eq!(request(&both, Version::Http11), Err(HeadFault::LengthAndEncoding));
        let old = [("Transfer-Encoding", "chunked")];
        assert_eq!(request(&old, Version::Http10), Err(HeadFault::EncodingOnOld));
    }

    #[test]
    fn responses_by_status() {
        let length = [Field { name: "Content-Length", value: b"5" }];
        let of = |fields: &[Field<'_>], status, to_head| {
            of_response(fields, Version::Http11, status, to_head)
        };
        assert_eq!(of(&length, 200, false), Ok((Body::Length(5), true)));
        assert_eq!(of(&length, 200, true), Ok((Body::None, true)));
        assert_eq!(of(&length, 304, false), Ok((Body::None, true)));
        assert_eq!(of(&length, 204, false), Ok((Body::None, false)), "in doubt: not used again");
        assert_eq!(of(&length, 101, false), Ok((Body::None, false)));
        assert_eq!(of(&[], 204, false), Ok((Body::None, true)));
        assert_eq!(of(&[], 200, false), Ok((Body::UntilClose, false)));
    }
}
