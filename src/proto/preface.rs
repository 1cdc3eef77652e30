//! The PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt): decoded at any cut and
//! encoded. Which version is expected is configured, never guessed from silence; a connection that
//! opens otherwise is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Step;

/// The longest version 1 header, its line end included.
pub const V1_MAX: usize = 107;
/// The longest version 2 header accepted. The protocol allows 64 KiB; nothing sends that.
pub const V2_MAX: usize = 4 << 10;

/// What a listener accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    V1,
    V2,
    /// Either, told apart by the first byte. A header there must still be.
    Any,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preface {
    /// The balancer speaks for itself, in a health check for instance (version 2, LOCAL): the
    /// connection's own ends are the true ones.
    Local,
    /// The balancer relays a client and does not name it: UNKNOWN in version 1 (§2.1), UNSPEC or
    /// a Unix socket in version 2 (§2.2). Nobody knows who that is; it is not the balancer.
    Unnamed,
    Proxied {
        source: SocketAddr,
        destination: SocketAddr,
    },
}

/// Why a PROXY header cannot be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PrefaceFault {
    #[error("no PROXY header where one is required")]
    Missing,
    #[error("a version 1 header of more than 107 bytes")]
    TooLong,
    #[error("a malformed version 1 header")]
    Line,
    #[error("a version 2 header of another version or command")]
    Command,
    #[error("a version 2 header of an unknown family or transport")]
    Family,
    #[error("a version 2 header longer than accepted, or too short for its addresses")]
    Length,
    #[error("a version 2 header with a malformed extension")]
    Extension,
    #[error("a version 2 header whose checksum is wrong")]
    Checksum,
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const LINE_START: &[u8; 6] = b"PROXY ";
const V2_HEADER: usize = 16;
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPEC: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

/// Reads the header at the front of a connection.
pub fn decode(bytes: &[u8], mode: Mode) -> Step<Preface, PrefaceFault> {
    let Some(first) = bytes.first() else { return Step::Need };
    match (mode, first) {
        (Mode::V1 | Mode::Any, b'P') => decode_line(bytes),
        (Mode::V2 | Mode::Any, b'\r') => decode_binary(bytes),
        _ => Step::Bad(PrefaceFault::Missing),
    }
}

fn decode_line(bytes: &[u8]) -> Step<Preface, PrefaceFault> {
    if !begins(bytes, LINE_START) {
        return Step::Bad(PrefaceFault::Missing);
    }
    let window = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        let full = bytes.len() >= V1_MAX;
        return if full { Step::Bad(PrefaceFault::TooLong) } else { Step::Need };
    };
    match window[..end].strip_suffix(b"\r").and_then(line) {
        Some(preface) => Step::Done(end + 1, preface),
        None => Step::Bad(PrefaceFault::Line),
    }
}

/// A version 1 line without its end. One space between words, no other blanks, nothing after.
fn line(line: &[u8]) -> Option<Preface> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix("PROXY ")?;
    // After UNKNOWN the rest means nothing, whatever it is.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Some(Preface::Unnamed);
    }
    let mut words = line.split(' ');
    let family = words.next()?;
    let (source, destination) = (words.next()?, words.next()?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    Some(Preface::Proxied {
        source: SocketAddr::new(address(source)?, source_port),
        destination: SocketAddr::new(address(destination)?, destination_port),
    })
}

/// Decimal without sign or leading zero.
fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    (digits && canonical).then(|| text.parse().ok()).flatten()
}

fn decode_binary(bytes: &[u8]) -> Step<Preface, PrefaceFault> {
    if !begins(bytes, SIGNATURE) {
        return Step::Bad(PrefaceFault::Missing);
    }
    // Judged byte by byte, so that a wrong one is refused without waiting for the rest.
    if bytes.get(12).is_some_and(|command| !matches!(*command, LOCAL | PROXY)) {
        return Step::Bad(PrefaceFault::Command);
    }
    // LOCAL tells of nobody, so its family is ignored with all that follows (§2.2).
    let relays = bytes.get(12) == Some(&PROXY);
    if relays && bytes.get(13).is_some_and(|family| !family_is_known(*family)) {
        return Step::Bad(PrefaceFault::Family);
    }
    let Some(header) = bytes.first_chunk::<V2_HEADER>() else { return Step::Need };
    let [.., command, family, high, low] = *header;
    let size = V2_HEADER + usize::from(u16::from_be_bytes([high, low]));
    let addresses = match (command, family) {
        (PROXY, TCP4) => 12,
        (PROXY, TCP6) => 36,
        (PROXY, UNIX_STREAM) => 216,
        // Whatever follows is to be skipped, not read.
        (PROXY, _) => return skip(bytes, size, Preface::Unnamed),
        _ => return skip(bytes, size, Preface::Local),
    };
    if size > V2_MAX || size < V2_HEADER + addresses {
        return Step::Bad(PrefaceFault::Length);
    }
    let Some(whole) = bytes.get(..size) else { return Step::Need };
    let (block, extensions) = whole[V2_HEADER..].split_at(addresses);
    if let Err(fault) = check_extensions(whole, extensions) {
        return Step::Bad(fault);
    }
    let Some(preface) = proxied(block) else { return Step::Bad(PrefaceFault::Length) };
    Step::Done(size, preface)
}

fn skip(bytes: &[u8], size: usize, preface: Preface) -> Step<Preface, PrefaceFault> {
    match bytes.len() {
        _ if size > V2_MAX => Step::Bad(PrefaceFault::Length),
        length if length < size => Step::Need,
        _ => Step::Done(size, preface),
    }
}

/// Streams only, and the unspecified pair. A datagram's addresses on a stream are a lie.
fn family_is_known(family: u8) -> bool {
    matches!(family, UNSPEC | TCP4 | TCP6 | UNIX_STREAM)
}

/// The address block, told apart by its size.
fn proxied(block: &[u8]) -> Option<Preface> {
    let ports = |at: usize| {
        let [a, b, c, d] = *block.get(at..)?.first_chunk::<4>()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    };
    let (source, destination, (from, to)) = match block.len() {
        12 => {
            let source = *block.first_chunk::<4>()?;
            let destination = *block[4..].first_chunk::<4>()?;
            (IpAddr::from(source), IpAddr::from(destination), ports(8)?)
        }
        36 => {
            let source = *block.first_chunk::<16>()?;
            let destination = *block[16..].first_chunk::<16>()?;
            (IpAddr::from(source), IpAddr::from(destination), ports(32)?)
        }
        _ => return Some(Preface::Unnamed),
    };
    Some(Preface::Proxied {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    })
}

/// Extensions must tile the rest exactly; a checksum, if there is one, must be right.
fn check_extensions(whole: &[u8], mut rest: &[u8]) -> Result<(), PrefaceFault> {
    const CHECKSUM: u8 = 0x03;
    const UNIQUE_ID: u8 = 0x05;
    const UNIQUE_ID_MAX: usize = 128;
    const TLS: u8 = 0x20;
    const TLS_HEADER: usize = 5;
    let mut checked = false;
    while let Some((kind, value, after)) = extension(rest)? {
        match kind {
            CHECKSUM if checked || value.len() != 4 => return Err(PrefaceFault::Extension),
            CHECKSUM => {
                let at = whole.len() - after.len() - 4;
                if checksum(whole, at).to_be_bytes() != *value {
                    return Err(PrefaceFault::Checksum);
                }
                checked = true;
            }
            UNIQUE_ID if value.len() > UNIQUE_ID_MAX => return Err(PrefaceFault::Extension),
            TLS => {
                let mut inner = value.get(TLS_HEADER..).ok_or(PrefaceFault::Extension)?;
                while let Some((_, _, after)) = extension(inner)? {
                    inner = after;
                }
            }
            _ => {}
        }
        rest = after;
    }
    Ok(())
}

type Extension<'a> = (u8, &'a [u8], &'a [u8]);

/// Kind, value, and what follows.
fn extension(bytes: &[u8]) -> Result<Option<Extension<'_>>, PrefaceFault> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let Some(([kind, high, low], rest)) = bytes.split_first_chunk::<3>() else {
        return Err(PrefaceFault::Extension);
    };
    let size = usize::from(u16::from_be_bytes([*high, *low]));
    let (value, after) = rest.split_at_checked(size).ok_or(PrefaceFault::Extension)?;
    Ok(Some((*kind, value, after)))
}

/// CRC-32C of the whole header with the four checksum bytes at `at` taken as zero.
fn checksum(whole: &[u8], at: usize) -> u32 {
    let mut sum = !0u32;
    for (i, byte) in whole.iter().enumerate() {
        let byte = if (at..at + 4).contains(&i) { 0 } else { *byte };
        sum = sum >> 8 ^ CRC[usize::from(sum as u8 ^ byte)];
    }
    !sum
}

fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let n = bytes.len().min(with.len());
    bytes[..n] == with[..n]
}

/// Appends a version 1 header. Ends of different families are both written as IPv6.
pub fn encode_v1(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr) {
    let (from, to) = same_family(source, destination);
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
    out.extend_from_slice(line.as_bytes());
}

/// Appends the version 1 header that relays a client and names no address (§2.1, UNKNOWN).
pub fn encode_v1_unknown(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PROXY UNKNOWN\r\n");
}

/// Appends a version 2 header, `extra` being extensions already encoded (see [`push_extension`]).
pub fn encode_v2(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr, extra: &[u8]) {
    let mut block = Vec::with_capacity(36);
    let (from, to) = same_family(source, destination);
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => block.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => block.extend_from_slice(&address.octets()),
        }
    }
    block.extend_from_slice(&source.port().to_be_bytes());
    block.extend_from_slice(&destination.port().to_be_bytes());
    debug_assert!(V2_HEADER + block.len() + extra.len() <= V2_MAX);
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[PROXY, if from.is_ipv4() { TCP4 } else { TCP6 }]);
    out.extend_from_slice(&((block.len() + extra.len()) as u16).to_be_bytes());
    out.extend_from_slice(&block);
    out.extend_from_slice(extra);
}

/// Appends the version 2 header that relays a client and names no address (§2.2, UNSPEC). It is
/// not LOCAL: that would have a server take the client for us.
pub fn encode_v2_unspec(out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[PROXY, UNSPEC, 0, 0]);
}

/// Appends the version 2 header of a connection of our own, relayed for nobody (§2.2, LOCAL).
pub fn encode_v2_local(out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[LOCAL, UNSPEC, 0, 0]);
}

/// Appends one extension for [`encode_v2`].
pub fn push_extension(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    out.push(kind);
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}

fn same_family(source: SocketAddr, destination: SocketAddr) -> (IpAddr, IpAddr) {
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let wide = |address| match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        wide => wide,
    };
    if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (wide(from), wide(to)) }
}

/// CRC-32C (Castagnoli), reflected.
const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut value = i as u32;
        let mut bit = 0;
        while bit < 8 {
            value = value >> 1 ^ if value & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[i] = value;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests;
