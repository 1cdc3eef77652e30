//! Keys of consistent hashing. Every node of a fleet, of any version, must make the same key of the
//! same value, so the function is written out here and its values are pinned by a test: FNV-1a over
//! the bytes, 64 bits, then the finaliser of MurmurHash3 to spread them.

use super::{Headers, query};

/// The key of any bytes.
pub fn of_bytes(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut hash = bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// `sticky = { header = … }`: the key of the first line of that name.
pub fn of_header(headers: &impl Headers, name: &str) -> Option<u64> {
    let value = headers.values(name).next()?.trim_ascii();
    (!value.is_empty()).then(|| of_bytes(value.iter().copied()))
}

/// `sticky = { query = … }`: the key of the first parameter of that name, decoded.
pub fn of_query(query: Option<&[u8]>, name: &str) -> Option<u64> {
    let mut value = query::first(query?, name)?.peekable();
    value.peek().is_some().then(|| of_bytes(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_never_change_between_versions() {
        assert_eq!(of_bytes(*b""), PINNED_EMPTY);
        assert_eq!(of_bytes(*b"alice"), PINNED_ALICE);
    }

    #[test]
    fn a_query_value_has_one_key_however_it_is_escaped() {
        let plain = of_query(Some(b"room=a b"), "room");
        assert_eq!(of_query(Some(b"x=1&room=a%20b"), "room"), plain);
        assert_eq!(plain, Some(of_bytes(*b"a b")));
        assert_eq!(of_query(Some(b"room="), "room"), None);
        assert_eq!(of_query(None, "room"), None);
    }

    const PINNED_EMPTY: u64 = 0xefd0_1f60_ba99_2926;
    const PINNED_ALICE: u64 = 0x3507_d047_a67c_08f4;
}
