//! A distinguished name as one line of text (RFC 4514, but first to last), in which no value can
//! pass for two.

use std::fmt::Write as _;

use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// `CN=alice, OU=chat`; several attributes of one part are joined by ` + `.
pub fn text_of(name: &X509Name<'_>) -> String {
    let part = |attributes: Vec<String>| attributes.join(" + ");
    let parts = name.iter().map(|rdn| part(rdn.iter().map(attribute).collect()));
    parts.collect::<Vec<_>>().join(", ")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type();
    let kind = oid2abbrev(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), str::to_owned);
    let value = match attribute.as_str() {
        Ok(text) => escaped(text),
        Err(_) => attribute.attr_value().data.iter().fold("#".to_owned(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
    };
    format!("{kind}={value}")
}

/// RFC 4514 §2.4, and what has no place in a header.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (at, letter) in value.chars().enumerate() {
        match letter {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => out.extend(['\\', letter]),
            '#' if at == 0 => out.push_str("\\#"),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            control if control.is_ascii_control() => {
                let _ = write!(out, "\\{:02x}", control as u32);
            }
            plain => out.push(plain),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_passes_for_two() {
        for (value, written) in [
            ("alice", "alice"),
            ("Zoë Example", "Zoë Example"),
            ("alice, OU=admins", "alice\\, OU\\=admins"),
            ("a + CN=b", "a \\+ CN\\=b"),
            ("a\\", "a\\\\"),
            ("#1", "\\#1"),
            (" ", "\\ "),
            (" a b ", "\\ a b\\ "),
            ("a\r\nX: y\0", "a\\0d\\0aX: y\\00"),
            ("", ""),
        ] {
            assert_eq!(escaped(value), written);
        }
    }
}
