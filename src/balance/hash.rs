//! Keys for consistent hashing: the same for the same bytes in every process of a fleet and after
//! every restart, hence no per-process seed. Not meant to resist a client that chooses the bytes;
//! the bounded load does that.

use std::net::IpAddr;

/// Key of any bytes: a server's name, a header's value.
pub fn key_of(bytes: &[u8]) -> u64 {
    let mut state = SEED ^ bytes.len() as u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        state = mix(state ^ u64::from_le_bytes(eight));
    }
    let mut eight = [0; 8];
    let rest = words.remainder();
    eight[..rest.len()].copy_from_slice(rest);
    mix(state ^ u64::from_le_bytes(eight))
}

/// Key of a client's address. An IPv4 address written as IPv6 is the same client.
pub fn key_of_source(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(v4) => key_of(&v4.octets()),
        IpAddr::V6(v6) => key_of(&v6.octets()),
    }
}

/// A bijection of 64-bit words in which each input bit moves about half of the output bits.
pub(super) fn mix(word: u64) -> u64 {
    let mut w = word.wrapping_add(GOLDEN);
    w = (w ^ (w >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    w = (w ^ (w >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    w ^ (w >> 31)
}

/// 2^64 divided by the golden ratio: its multiples, and what is multiplied by it, spread evenly.
pub const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const SEED: u64 = 0x7374_616e_6470_6970;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_and_every_byte_count() {
        let texts: [&[u8]; 7] =
            [b"", b"\0", b"\0\0", b"12345678", b"12345678\0", b"12345679", b"10.0.0.1:9000"];
        for (i, a) in texts.iter().enumerate() {
            for (j, b) in texts.iter().enumerate() {
                assert_eq!(key_of(a) == key_of(b), i == j, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn keys_are_the_same_in_every_release() {
        // A change here would move every client of every fleet at its next upgrade.
        assert_eq!(key_of(b"10.0.0.1:9000"), KNOWN);
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        let plain: IpAddr = "192.0.2.7".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        assert_eq!(key_of_source(plain), key_of_source(mapped));
    }

    const KNOWN: u64 = 11_988_372_490_139_807_378;
}
