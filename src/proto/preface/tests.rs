//! S19: every shape of PROXY header, whole and at every cut.

use super::*;

fn proxied(source: &str, destination: &str) -> Preface {
    Preface::Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

/// The answer, which must be the same however the bytes were cut: first `Need`, then this.
fn settled(bytes: &[u8], mode: Mode) -> Step<Preface, PrefaceFault> {
    let whole = decode(bytes, mode);
    for cut in 0..bytes.len() {
        let early = decode(&bytes[..cut], mode);
        match (early, whole) {
            (Step::Need, _) => {}
            (Step::Done(used, _), Step::Done(end, _)) if used == end && cut >= end => {
                assert_eq!(early, whole);
            }
            (Step::Bad(a), Step::Bad(b)) if a == b => {}
            _ => panic!("{early:?} at {cut}, then {whole:?} for {bytes:02x?}"),
        }
    }
    whole
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    out.extend_from_slice(&[command, family]);
    out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    out.extend_from_slice(body);
    out
}

#[test]
fn s19_version_1() {
    let four = b"PROXY TCP4 192.168.0.1 10.0.0.1 56324 443\r\nGET /";
    let fact = proxied("192.168.0.1:56324", "10.0.0.1:443");
    assert_eq!(settled(four, Mode::V1), Step::Done(43, fact));
    assert_eq!(settled(four, Mode::Any), Step::Done(43, fact));
    let six = b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n";
    assert_eq!(settled(six, Mode::V1), Step::Done(36, proxied("[2001:db8::1]:1", "[::1]:65535")));
    assert_eq!(settled(b"PROXY UNKNOWN\r\n", Mode::V1), Step::Done(15, Preface::Unnamed));
    let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_MAX - 16));
    assert_eq!(longest.len(), V1_MAX);
    assert_eq!(settled(longest.as_bytes(), Mode::Any), Step::Done(V1_MAX, Preface::Unnamed));
}

#[test]
fn s19_version_1_refused() {
    let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_MAX - 15));
    assert_eq!(settled(long.as_bytes(), Mode::V1), Step::Bad(PrefaceFault::TooLong));
    assert_eq!(settled(&[b'P'; 200], Mode::V1), Step::Bad(PrefaceFault::Missing));
    let endless = format!("PROXY TCP4 {}", "1".repeat(200));
    assert_eq!(settled(endless.as_bytes(), Mode::V1), Step::Bad(PrefaceFault::TooLong));
    for bad in [
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        "PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 ::1 1 2\r\n",
        "PROXY TCP6 ::1%lo ::1 1 2\r\n",
        "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY \r\n",
    ] {
        assert_eq!(settled(bad.as_bytes(), Mode::V1), Step::Bad(PrefaceFault::Line), "{bad:?}");
    }
    for other in ["GET / HTTP/1.1\r\n", "PROX", "proxy TCP4", "\x16\x03\x01", "\0"] {
        let missing = Step::Bad(PrefaceFault::Missing);
        let expected = if other == "PROX" { Step::Need } else { missing };
        assert_eq!(settled(other.as_bytes(), Mode::V1), expected, "{other:?}");
    }
}

#[test]
fn s19_modes_never_guess() {
    let line = b"PROXY UNKNOWN\r\n";
    let binary = v2(LOCAL, UNSPEC, &[]);
    assert_eq!(settled(line, Mode::V2), Step::Bad(PrefaceFault::Missing));
    assert_eq!(settled(&binary, Mode::V1), Step::Bad(PrefaceFault::Missing));
    assert_eq!(settled(&binary, Mode::Any), Step::Done(16, Preface::Local));
    assert_eq!(settled(b"GET / HTTP/1.1\r\n\r\n", Mode::Any), Step::Bad(PrefaceFault::Missing));
    assert_eq!(settled(b"\r\n\r\nGET", Mode::Any), Step::Bad(PrefaceFault::Missing));
}

#[test]
fn s19_version_2() {
    let four = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];
    let fact = proxied("1.2.3.4:80", "5.6.7.8:443");
    let mut bytes = v2(PROXY, TCP4, &four);
    bytes.extend_from_slice(b"tail");
    assert_eq!(settled(&bytes, Mode::V2), Step::Done(28, fact));
    let mut six = [0; 36];
    six[15] = 1;
    six[31] = 2;
    six[33] = 7;
    six[35] = 9;
    assert_eq!(
        settled(&v2(PROXY, TCP6, &six), Mode::Any),
        Step::Done(52, proxied("[::1]:7", "[::2]:9"))
    );
    // Envoy crashed on LOCAL without addresses; LOCAL with them must be skipped, not believed.
    assert_eq!(settled(&v2(LOCAL, UNSPEC, &[]), Mode::V2), Step::Done(16, Preface::Local));
    assert_eq!(settled(&v2(LOCAL, TCP4, &four), Mode::V2), Step::Done(28, Preface::Local));
    assert_eq!(settled(&v2(LOCAL, TCP4, &[1, 2, 3]), Mode::V2), Step::Done(19, Preface::Local));
    for family in [0x01, 0x12, 0x32, 0x41, 0xff] {
        let any = v2(LOCAL, family, &[7; 5]);
        assert_eq!(settled(&any, Mode::V2), Step::Done(21, Preface::Local), "{family:02x}");
    }
    // A client is relayed, and only its address is not told.
    assert_eq!(settled(&v2(PROXY, UNSPEC, &[9; 20]), Mode::V2), Step::Done(36, Preface::Unnamed));
    let unix = v2(PROXY, UNIX_STREAM, &[b'/'; 216]);
    assert_eq!(settled(&unix, Mode::V2), Step::Done(232, Preface::Unnamed));
}

#[test]
fn s19_version_2_refused() {
    let four = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];
    let bad = |bytes: &[u8], fault| assert_eq!(settled(bytes, Mode::V2), Step::Bad(fault));
    bad(&v2(PROXY, TCP4, &four[..11]), PrefaceFault::Length);
    bad(&v2(PROXY, TCP6, &four), PrefaceFault::Length);
    bad(&v2(PROXY, UNIX_STREAM, &four), PrefaceFault::Length);
    bad(&v2(LOCAL, UNSPEC, &[0; V2_MAX]), PrefaceFault::Length);
    bad(&v2(PROXY, TCP4, &[0; V2_MAX]), PrefaceFault::Length);
    bad(&v2(0x11, TCP4, &four), PrefaceFault::Command);
    bad(&v2(0x22, TCP4, &four), PrefaceFault::Command);
    for family in [0x01, 0x10, 0x12, 0x22, 0x32, 0x41, 0xff] {
        bad(&v2(PROXY, family, &four), PrefaceFault::Family);
    }
    let mut signature = v2(PROXY, TCP4, &four);
    signature[11] = b'X';
    bad(&signature, PrefaceFault::Missing);
}

#[test]
fn s19_extensions() {
    let four = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];
    let with = |extra: &[u8]| settled(&v2(PROXY, TCP4, &[&four, extra].concat()), Mode::V2);
    let good = |extra: &[u8]| {
        let fact = proxied("1.2.3.4:80", "5.6.7.8:443");
        assert_eq!(with(extra), Step::Done(28 + extra.len(), fact), "{extra:02x?}");
    };
    let bad = |extra: &[u8]| {
        assert_eq!(with(extra), Step::Bad(PrefaceFault::Extension), "{extra:02x?}");
    };
    good(&[4, 0, 0]);
    good(&[4, 0, 2, 9, 9, 0xea, 0, 1, 7]);
    good(&[0x20, 0, 5, 1, 0, 0, 0, 0]);
    good(&[0x20, 0, 10, 1, 0, 0, 0, 0, 0x21, 0, 2, b'1', b'3']);
    bad(&[4]);
    bad(&[4, 0]);
    bad(&[4, 0, 1]);
    bad(&[4, 0xff, 0xff, 1]);
    bad(&[0x20, 0, 4, 1, 0, 0, 0]);
    bad(&[0x20, 0, 7, 1, 0, 0, 0, 0, 0x21, 0]);
    bad(&[0x03, 0, 3, 0, 0, 0]);
    let mut id = vec![5, 0, 129];
    id.extend_from_slice(&[7; 129]);
    bad(&id);
}

#[test]
fn s19_checksum() {
    assert_eq!(checksum(b"123456789\0\0\0\0", 100), checksum(b"123456789\0\0\0\0", 9));
    let four = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];
    let mut bytes = v2(PROXY, TCP4, &[&four[..], &[4, 0, 1, 0, 3, 0, 4, 0, 0, 0, 0]].concat());
    let at = bytes.len() - 4;
    let sum = checksum(&bytes, at).to_be_bytes();
    bytes[at..].copy_from_slice(&sum);
    assert!(matches!(settled(&bytes, Mode::V2), Step::Done(39, _)));
    let mut twice = bytes.clone();
    twice[15] += 7;
    twice.extend_from_slice(&[3, 0, 4, 0, 0, 0, 0]);
    assert!(matches!(settled(&twice, Mode::V2), Step::Bad(_)));
    bytes[20] ^= 1;
    assert_eq!(settled(&bytes, Mode::V2), Step::Bad(PrefaceFault::Checksum));
}

/// The check value every description of CRC-32C gives.
#[test]
fn checksum_is_castagnolis() {
    assert_eq!(checksum(b"123456789", 100), 0xe306_9283);
}

#[test]
fn what_we_write_we_read() {
    for (source, destination, seen) in [
        ("1.2.3.4:5", "6.7.8.9:10", None),
        ("[2001:db8::1]:5", "[::1]:10", None),
        ("1.2.3.4:5", "[::1]:10", Some(("[::ffff:1.2.3.4]:5", "[::1]:10"))),
        ("[::ffff:1.2.3.4]:5", "6.7.8.9:10", Some(("1.2.3.4:5", "6.7.8.9:10"))),
    ] {
        let (from, to) = seen.unwrap_or((source, destination));
        let fact = proxied(from, to);
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let mut out = Vec::new();
        encode_v1(&mut out, source, destination);
        assert_eq!(settled(&out, Mode::V1), Step::Done(out.len(), fact));
        let mut out = Vec::new();
        let mut extra = Vec::new();
        push_extension(&mut extra, 5, b"id");
        encode_v2(&mut out, source, destination, &extra);
        assert_eq!(settled(&out, Mode::V2), Step::Done(out.len(), fact));
    }
    let mut out = Vec::new();
    encode_v1_unknown(&mut out);
    assert_eq!(settled(&out, Mode::V1), Step::Done(15, Preface::Unnamed));
    let mut out = Vec::new();
    encode_v2_unspec(&mut out);
    assert_eq!(settled(&out, Mode::V2), Step::Done(16, Preface::Unnamed));
}
