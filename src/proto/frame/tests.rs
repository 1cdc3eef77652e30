//! The vectors of RFC 6455 §5.7, every header shape at every cut, and masks against a slow twin.

use super::*;

fn done(bytes: &[u8], from: End) -> Header {
    match decode(bytes, from, true) {
        Step::Done(_, header) => header,
        other => panic!("{other:?}"),
    }
}

/// §5.7 of the RFC, by header.
#[test]
fn vectors_of_the_rfc() {
    let hello = done(&[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], End::Server);
    assert_eq!((hello.opcode, hello.fin, hello.length, hello.size), (Opcode::Text, true, 5, 2));
    let bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let masked = done(&bytes, End::Client);
    assert_eq!((masked.mask, masked.size), (Some([0x37, 0xfa, 0x21, 0x3d]), 6));
    let mut payload = bytes[6..].to_vec();
    apply_mask(&mut payload, [0x37, 0xfa, 0x21, 0x3d], 0);
    assert_eq!(payload, b"Hello");
    let first = done(&[0x01, 0x03, 0x48, 0x65, 0x6c], End::Server);
    assert_eq!((first.opcode, first.fin), (Opcode::Text, false));
    let last = done(&[0x80, 0x02, 0x6c, 0x6f], End::Server);
    assert_eq!((last.opcode, last.fin), (Opcode::Continuation, true));
    assert_eq!(done(&[0x89, 0x05], End::Server).opcode, Opcode::Ping);
    assert_eq!(done(&[0x82, 0x7e, 0x01, 0x00], End::Server).length, 256);
    let long = done(&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0], End::Server);
    assert_eq!((long.length, long.size), (65536, 10));
}

#[test]
fn the_control_frames_we_make_are_the_vectors() {
    assert_eq!(
        Control::ping(b"Hello", None).as_bytes(),
        &[0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]
    );
    assert_eq!(
        Control::pong(b"Hello", Some([0x37, 0xfa, 0x21, 0x3d])).as_bytes(),
        &[0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]
    );
    assert_eq!(Control::close(1012, "", None).as_bytes(), &[0x88, 0x02, 0x03, 0xf4]);
    let long = "é".repeat(100);
    let close = Control::close(1001, &long, None);
    assert_eq!(close.as_bytes()[1], 124, "cut between two characters");
    assert!(std::str::from_utf8(&close.as_bytes()[4..]).is_ok());
}

#[test]
fn faults_are_named() {
    let cases: &[(&[u8], End, Fault)] = &[
        (&[0x81, 0x05], End::Client, Fault::Unmasked),
        (&[0x81, 0x85], End::Server, Fault::Masked),
        (&[0x83], End::Server, Fault::ReservedOpcode(3)),
        (&[0x8b], End::Server, Fault::ReservedOpcode(11)),
        (&[0x09], End::Server, Fault::ControlFragmented),
        (&[0x89, 126], End::Server, Fault::ControlTooLong),
        (&[0xa1], End::Server, Fault::ReservedBit),
        (&[0x91], End::Server, Fault::ReservedBit),
        (&[0xc9], End::Server, Fault::ReservedBit),
        (&[0xc0], End::Server, Fault::ReservedBit),
        (&[0x82, 126, 0, 125], End::Server, Fault::LengthNotMinimal),
        (&[0x82, 127, 0, 0, 0, 0, 0, 0, 255, 255], End::Server, Fault::LengthNotMinimal),
        (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], End::Server, Fault::LengthTooLarge),
    ];
    for (bytes, from, fault) in cases {
        assert_eq!(decode(bytes, *from, true), Step::Bad(*fault), "{bytes:02x?}");
    }
    assert_eq!(decode(&[0xc1], End::Server, false), Step::Bad(Fault::ReservedBit));
    assert_eq!(decode(&[0xc1], End::Server, true), Step::Need);
}

#[test]
fn every_cut_of_every_header_shape_needs_more() {
    for length in [0, 1, 125, 126, 65_535, 65_536, (1 << 63) - 1] {
        for (mask, from) in [(None, End::Server), (Some([1, 2, 3, 4]), End::Client)] {
            let mut out = [0; HEADER_MAX];
            let size = encode_header(&mut out, true, Opcode::Binary, length, mask);
            for cut in 0..size {
                assert_eq!(decode(&out[..cut], from, false), Step::Need, "{length} at {cut}");
            }
            let header = done(&out[..size], from);
            assert_eq!((header.length, header.mask), (length, mask));
            assert_eq!(usize::from(header.size), size);
        }
    }
}

#[test]
fn fast_mask_equals_slow_mask_at_every_length_and_offset() {
    let key = [0xde, 0xad, 0xbe, 0xef];
    for length in 0..40 {
        for offset in 0..9 {
            let plain: Vec<u8> = (0..length as u8).collect();
            let mut fast = plain.clone();
            apply_mask(&mut fast, key, offset);
            let slow: Vec<u8> =
                plain.iter().zip(offset..).map(|(b, i)| b ^ key[i as usize % 4]).collect();
            assert_eq!(fast, slow, "{length} bytes from {offset}");
        }
    }
}

#[test]
fn close_codes() {
    let legal =
        |range: std::ops::RangeInclusive<u16>| range.filter(|c| close_code_is_legal(*c)).count();
    assert_eq!(legal(0..=u16::MAX), 4 + 8 + 2000);
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
        assert!(!close_code_is_legal(code), "{code}");
    }
}

#[test]
fn opcode_indices_are_dense() {
    for (i, opcode) in Opcode::ALL.iter().enumerate() {
        assert_eq!(opcode.index(), i);
        assert_eq!(Opcode::from_bits(*opcode as u8), Some(*opcode));
    }
}
