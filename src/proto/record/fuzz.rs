//! What a fuzzer, or a loop over random bytes, calls: whatever arrives, however it is cut, the
//! reader says the same as when it sees everything at once, and never panics.

use super::{Fault, Finish, Keys, Kind, OVERHEAD_MAX, Role, Session, Suite, Version};

/// Drives the record reader with `data`. The first bytes choose suite, version, role and cuts; the
/// rest is either raw input or a script of records that a peer seals, one of them perhaps damaged.
pub fn exercise(data: &[u8]) {
    let Some((&[choice, cut, damage], rest)) = data.split_first_chunk::<3>() else { return };
    let suite = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305][choice as usize % 3];
    let version = if choice & 4 == 0 { Version::Tls13 } else { Version::Tls12 };
    let role = if choice & 8 == 0 { Role::Server } else { Role::Client };
    let mut wire = match choice & 16 {
        0 => rest.to_vec(),
        _ => script(&mut keys(suite, version), rest),
    };
    if choice & 32 != 0 && !wire.is_empty() {
        let at = usize::from(damage) * 7 % wire.len();
        wire[at] ^= 1 << (damage % 8);
    }
    let session = || Session::new(role, keys(suite, version), keys(suite, version));
    let whole = read(session(), &wire, wire.len().max(1));
    let pieces = read(session(), &wire, usize::from(cut % 61) + 1);
    assert_eq!(whole, pieces, "the cuts changed the outcome");
}

/// Seals what the bytes ask for: kind, length, padding, content.
fn script(keys: &mut Keys, mut bytes: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    while let Some((&[kind, length], rest)) = bytes.split_first_chunk::<2>() {
        let kind = [Kind::Data, Kind::Handshake, Kind::Alert, Kind::Data][kind as usize % 4];
        let (plain, rest) = rest.split_at(rest.len().min(usize::from(length)));
        let start = wire.len();
        wire.resize(start + plain.len() + OVERHEAD_MAX, 0);
        let sealed = keys.sealer().seal(kind, plain, &mut wire[start..]);
        wire.truncate(start + sealed.unwrap_or(0));
        if kind == Kind::Handshake && plain.len() == 5 && plain[..4] == [24, 0, 0, 1] {
            let _ = keys.update();
        }
        bytes = rest;
    }
    wire
}

/// Everything the reader said: plaintext, tickets, how it ended.
type Said = (Vec<u8>, Vec<Vec<u8>>, Option<Finish>);

/// Shows the reader `wire` in steps of `step` bytes, keeping the unfinished front as a caller must.
fn read(mut session: Session, wire: &[u8], step: usize) -> Said {
    let (mut held, mut plain, mut tickets) = (Vec::new(), Vec::new(), Vec::new());
    for piece in wire.chunks(step) {
        held.extend_from_slice(piece);
        let opened = session.open(&mut held);
        assert!(opened.used <= held.len() && opened.plain.end <= opened.used);
        plain.extend_from_slice(&held[opened.plain]);
        tickets.extend(opened.tickets);
        held.drain(..opened.used);
        if let Some(finish) = opened.finish {
            assert_ne!(finish, Finish::Fault(Fault::Room));
            return (plain, tickets, Some(finish));
        }
    }
    (plain, tickets, None)
}

fn keys(suite: Suite, version: Version) -> Keys {
    let bytes: [u8; 48] = std::array::from_fn(|at| at as u8 ^ 0x5a);
    let keys = match (version, suite) {
        (Version::Tls13, Suite::Aes256Gcm) => Keys::tls13(suite, &bytes, 0),
        (Version::Tls13, _) => Keys::tls13(suite, &bytes[..32], 0),
        (Version::Tls12, Suite::Aes128Gcm) => Keys::tls12(suite, &bytes[..16], [9; 12], 0),
        (Version::Tls12, _) => Keys::tls12(suite, &bytes[..32], [9; 12], 0),
    };
    keys.expect("secrets of the suite's length")
}
