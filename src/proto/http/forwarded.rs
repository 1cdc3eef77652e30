//! What a server is told about the client: X-Forwarded-For/-Proto/-Host/-Port, X-Real-IP and
//! Forwarded (RFC 7239). A stranger's claims are replaced; those of a trusted peer are continued.

use std::net::IpAddr;

use super::fields;
use super::{Edits, RequestHead};

/// What we know ourselves about where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The peer: the socket's address, or the PROXY header's.
    pub client: IpAddr,
    /// Where the request came from first, as far as that is believed.
    pub real: IpAddr,
    /// The port the client asked for.
    pub port: u16,
    pub tls: bool,
    /// The peer is in `trusted`: its forwarding fields are believed and appended to.
    pub trusted: bool,
}

/// Plans the forwarding fields of the outgoing request.
pub fn forward<'a>(head: &RequestHead<'a>, origin: &Origin, edits: &mut Edits<'a>) {
    let client = origin.client.to_canonical();
    let proto = if origin.tls { "https" } else { "http" };
    let host = head.host.unwrap_or_default();

    kept(head, origin, edits, "X-Real-IP", origin.real.to_canonical().to_string());
    continued(head, origin, edits, "X-Forwarded-For", client.to_string());
    kept(head, origin, edits, "X-Forwarded-Proto", proto);
    if !host.is_empty() {
        kept(head, origin, edits, "X-Forwarded-Host", host);
    } else if !origin.trusted {
        // An HTTP/1.0 request that asked for no host: nor does a stranger's claim stand for one.
        edits.remove("X-Forwarded-Host");
    }
    kept(head, origin, edits, "X-Forwarded-Port", origin.port.to_string());

    let node = match client {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    };
    let host = match host {
        "" => String::new(),
        host if fields::is_token(host.as_bytes()) => format!(";host={host}"),
        host => format!(";host=\"{host}\""),
    };
    continued(head, origin, edits, "Forwarded", format!("{node}{host};proto={proto}"));
}

/// A list that grows by one element per hop.
fn continued<'a>(
    head: &RequestHead<'a>,
    origin: &Origin,
    edits: &mut Edits<'a>,
    name: &'static str,
    own: String,
) {
    let mut value = Vec::new();
    // What Connection nominates goes, whoever sent it.
    if origin.trusted && !head.nominated.has(name) {
        for element in fields::elements(&head.fields, name) {
            value.extend_from_slice(element);
            value.extend_from_slice(b", ");
        }
    }
    value.extend_from_slice(own.as_bytes());
    edits.set(name, value);
}

/// A single fact that the first trusted hop stated.
fn kept<'a>(
    head: &RequestHead<'a>,
    origin: &Origin,
    edits: &mut Edits<'a>,
    name: &'static str,
    own: impl Into<Vec<u8>>,
) {
    let stated = head.value(name).filter(|_| origin.trusted);
    if stated.is_none() || head.nominated.has(name) {
        edits.set(name, own.into());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HeadLimits, parse_request, write_request};
    use super::*;

    fn forwarded(head: &str, client: &str, trusted: bool) -> Vec<String> {
        let head = parse_request(head.as_bytes(), &HeadLimits::default()).unwrap();
        let client: IpAddr = client.parse().unwrap();
        let origin = Origin { client, real: client, port: 8443, tls: true, trusted };
        let mut edits = Edits::default();
        forward(&head, &origin, &mut edits);
        let mut out = Vec::new();
        write_request(&mut out, &head, &edits);
        let text = String::from_utf8(out).unwrap();
        text.lines().skip(2).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    const CLAIMS: &str = "GET / HTTP/1.1\r\nHost: h:8443\r\nX-Forwarded-For: 1.1.1.1\r\n\
         X-Forwarded-Proto: http\r\nX-Real-IP: 1.1.1.2\r\nForwarded: for=1.1.1.1\r\n\r\n";

    #[test]
    fn a_strangers_claims_are_replaced() {
        assert_eq!(
            forwarded(CLAIMS, "::ffff:10.0.0.9", false),
            [
                "X-Real-IP: 10.0.0.9",
                "X-Forwarded-For: 10.0.0.9",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: h:8443",
                "X-Forwarded-Port: 8443",
                "Forwarded: for=10.0.0.9;host=\"h:8443\";proto=https",
            ]
        );
    }

    #[test]
    fn a_stranger_that_names_no_host_claims_none() {
        let claims = "GET / HTTP/1.0\r\nX: y\r\nX-Forwarded-Host: evil\r\n\r\n";
        let told = |trusted| forwarded(claims, "10.0.0.9", trusted).join("\n");
        assert!(!told(false).contains("evil"));
        assert!(told(true).contains("X-Forwarded-Host: evil"));
    }

    #[test]
    fn a_trusted_peers_are_continued() {
        assert_eq!(
            forwarded(CLAIMS, "2001:db8::1", true),
            [
                "X-Forwarded-Proto: http",
                "X-Real-IP: 1.1.1.2",
                "X-Forwarded-For: 1.1.1.1, 2001:db8::1",
                "X-Forwarded-Host: h:8443",
                "X-Forwarded-Port: 8443",
                "Forwarded: for=1.1.1.1, for=\"[2001:db8::1]\";host=\"h:8443\";proto=https",
            ]
        );
    }
}
