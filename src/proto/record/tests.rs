//! The codec by itself: published traces, every refusal, the ends of sequence numbers, cuts.

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn secret(suite: Suite) -> Vec<u8> {
    vec![7; if suite == Suite::Aes256Gcm { 48 } else { 32 }]
}

const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

fn keys(version: Version, suite: Suite, sequence: u64) -> Keys {
    match version {
        Version::Tls13 => Keys::tls13(suite, &secret(suite), sequence),
        Version::Tls12 => {
            let key = [3; 32];
            let key = if suite == Suite::Aes128Gcm { &key[..16] } else { &key[..] };
            Keys::tls12(suite, key, *b"salt and mor", sequence)
        }
    }
    .expect("secrets of the right length")
}

fn pair(version: Version, suite: Suite) -> (Session, Session) {
    let new = |role| Session::new(role, keys(version, suite, 0), keys(version, suite, 0));
    (new(Role::Server), new(Role::Client))
}

fn every(mut check: impl FnMut(Version, Suite)) {
    for version in [Version::Tls12, Version::Tls13] {
        SUITES.into_iter().for_each(|suite| check(version, suite));
    }
}

/// One sealed record under the keys every test starts with.
fn record(keys: &mut Keys, kind: Kind, plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0; plain.len() + OVERHEAD_MAX];
    let length = keys.sealer().seal(kind, plain, &mut out).expect("room");
    out.truncate(length);
    out
}

fn open_one(session: &mut Session, mut wire: Vec<u8>) -> (Vec<u8>, Option<Finish>) {
    let opened = session.open(&mut wire);
    (wire[opened.plain].to_vec(), opened.finish)
}

fn fault(session: &mut Session, wire: Vec<u8>) -> Fault {
    match open_one(session, wire).1 {
        Some(Finish::Fault(fault)) => fault,
        other => panic!("expected a fault, got {other:?}"),
    }
}

/// The simple 1-RTT handshake of RFC 8448 section 3, its records after the handshake.
#[test]
fn the_published_trace_opens_and_seals() {
    let client = hex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5");
    let server = hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
    let from_client = hex(
        "17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa 66 bc
         ab 3f 2b 98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd
         1e 3d ea e6 3a ee bb 21 69 49 15 e4",
    );
    let from_server = hex(
        "17 03 03 00 43 2e 93 7e 11 ef 4a c7 40 e5 38 ad 36 00 5f c4 a4 69 32 fc 32 25 d0 5f 82 aa
         1b 36 e3 0e fa f9 7d 90 e6 df fc 60 2d cb 50 1a 59 a8 fc c4 9c 4b f2 e5 f0 a2 1c 00 47 c2
         ab f3 32 54 0d d0 32 e1 67 c2 95 5d",
    );
    let bye_client = hex("17 03 03 00 13 c9 87 27 60 65 56 66 b7 4d 7f f1 15 3e fd 6d b6 d0 b0 e3");
    let bye_server = hex("17 03 03 00 13 b5 8f d6 71 66 eb f5 99 d2 47 20 cf be 7e fa 7a 88 64 a9");
    let plain: Vec<u8> = (0..50).collect();
    let suite = Suite::Aes128Gcm;

    let keys = |secret: &[u8], sequence| Keys::tls13(suite, secret, sequence).expect("32 bytes");
    // The server's record 0 was a ticket; data is record 1.
    let mut session = Session::new(Role::Server, keys(&client, 0), keys(&server, 1));
    assert_eq!(open_one(&mut session, from_client), (plain.clone(), None));
    let mut out = Vec::new();
    session.seal_onto(&plain, &mut out).expect("room");
    assert_eq!(out, from_server);
    assert_eq!(open_one(&mut session, bye_client), (Vec::new(), Some(Finish::Closed)));
    let mut out = [0; 64];
    let length = session.close(Alert::CLOSE_NOTIFY, &mut out).expect("room");
    assert_eq!(out[..length], bye_server);
    assert!(session.closed());
}

/// Who takes the data and asks again later must still hear of the end.
#[test]
fn an_ending_in_one_burst_with_data_is_told_again() {
    every(|version, suite| {
        let (mut server, mut client) = pair(version, suite);
        let mut burst = Vec::new();
        client.seal_onto(b"last words", &mut burst).expect("room");
        let mut broken = burst.clone();
        let mut bye = [0; 2 * OVERHEAD_MAX];
        let length = client.close(Alert::CLOSE_NOTIFY, &mut bye).expect("room");
        burst.extend_from_slice(&bye[..length]);
        let closed = Some(Finish::Closed);
        assert_eq!(open_one(&mut server, burst.clone()), (b"last words".to_vec(), closed));
        assert_eq!(server.heard(), closed);
        assert_eq!(open_one(&mut server, Vec::new()), (Vec::new(), closed));
        assert_eq!(server.open(&mut [1; 9]).used, 9, "what comes after it is nobody's");

        let (mut server, _) = pair(version, suite);
        broken.extend_from_slice(&[23, 3, 3, 0, 40]);
        broken.resize(broken.len() + 40, 0);
        let bad = Some(Finish::Fault(Fault::BadRecordMac));
        assert_eq!(open_one(&mut server, broken), (b"last words".to_vec(), bad));
        assert_eq!(open_one(&mut server, Vec::new()), (Vec::new(), bad));
        assert_eq!(server.heard(), bad);
    });
}

#[test]
fn headers_are_judged_at_the_first_byte_that_decides() {
    let good = [23, 3, 3, 0x40, 0];
    for cut in 0..HEADER {
        assert_eq!(header(&good[..cut]), Step::Need);
    }
    let head = Head { kind: Kind::Data, length: 1 << 14 };
    assert_eq!(header(&good), Step::Done(HEADER, head));
    assert_eq!(header(b"G"), Step::Bad(Fault::UnexpectedMessage));
    assert_eq!(header(&[22, 2]), Step::Bad(Fault::UnexpectedMessage));
    assert_eq!(header(&[23, 3, 3, 0x48, 0]).map(|head| head.length), Step::Done(5, 0x4800));
    assert_eq!(header(&[23, 3, 3, 0x48, 1]), Step::Bad(Fault::RecordOverflow));
}

#[test]
fn everything_survives_every_cut() {
    every(|version, suite| {
        let (mut server, mut client) = pair(version, suite);
        let text: Vec<u8> = (0..600).map(|n| n as u8).collect();
        let mut wire = Vec::new();
        for piece in text.chunks(97) {
            client.seal_onto(piece, &mut wire).expect("room");
        }
        let mut held = Vec::new();
        let mut plain = Vec::new();
        for byte in wire {
            held.push(byte);
            let opened = server.open(&mut held);
            assert_eq!(opened.finish, None);
            plain.extend_from_slice(&held[opened.plain]);
            held.drain(..opened.used);
        }
        assert_eq!(plain, text);
    });
}

#[test]
fn a_burst_comes_out_in_one_piece() {
    every(|version, suite| {
        let (mut server, mut client) = pair(version, suite);
        let mut wire = Vec::new();
        for word in ["one ", "", "two ", "three"] {
            if word.is_empty() {
                let mut out = [0; 64];
                let length = client.seal.sealer().seal(Kind::Data, b"", &mut out).expect("room");
                wire.extend_from_slice(&out[..length]);
            }
            client.seal_onto(word.as_bytes(), &mut wire).expect("room");
        }
        wire.extend_from_slice(&[23, 3, 3]);
        let opened = server.open(&mut wire);
        assert_eq!(&wire[opened.plain], b"one two three");
        assert_eq!((opened.used, opened.finish), (wire.len() - 3, None));
    });
}

#[test]
fn a_long_write_is_cut_into_records_that_fit() {
    every(|version, suite| {
        let (mut server, mut client) = pair(version, suite);
        let text = vec![b'x'; 3 * PLAIN_MAX + 17];
        let mut out = vec![0; PLAIN_MAX + 1000];
        let (mut sent, mut plain) = (0, Vec::new());
        while sent < text.len() {
            let sealed = client.seal(&text[sent..], &mut out).expect("fresh keys");
            assert!(sealed.taken > 0 && sealed.written <= out.len());
            sent += sealed.taken;
            let opened = server.open(&mut out[..sealed.written]);
            assert_eq!((opened.used, opened.finish), (sealed.written, None));
            assert_eq!(opened.records, sealed.records);
            plain.extend_from_slice(&out[opened.plain]);
        }
        assert_eq!(plain, text);
        assert_eq!(client.seal(b"no room", &mut [0; 20]), Ok(Sealed::default()));
    });
}

#[test]
fn damage_replay_and_disorder_are_a_wrong_tag() {
    every(|version, suite| {
        let mut sender = keys(version, suite, 0);
        let first = record(&mut sender, Kind::Data, b"first");
        let second = record(&mut sender, Kind::Data, b"second");
        for at in HEADER..first.len() {
            let mut bad = first.clone();
            bad[at] ^= 1;
            assert_eq!(fault(&mut pair(version, suite).0, bad), Fault::BadRecordMac);
        }
        let (mut server, _) = pair(version, suite);
        assert_eq!(fault(&mut server, second), Fault::BadRecordMac);
        let (mut server, _) = pair(version, suite);
        assert_eq!(open_one(&mut server, first.clone()).0, b"first");
        assert_eq!(fault(&mut server, first.clone()), Fault::BadRecordMac);
        let (mut server, _) = pair(version, suite);
        let mut short = first;
        short.truncate(HEADER + TAG - 1);
        short[3..5].copy_from_slice(&(TAG as u16 - 1).to_be_bytes());
        assert_eq!(fault(&mut server, short), Fault::BadRecordMac);
    });
}

#[test]
fn padding_is_taken_off_and_nothing_else() {
    let mut server = pair(Version::Tls13, Suite::Aes128Gcm).0;
    let mut sender = keys(Version::Tls13, Suite::Aes128Gcm, 0);
    // A padded record: what the sealer takes for the type is then padding; the type stands inside.
    let padded = |sender: &mut Keys, inner: &[u8]| {
        let (last, front) = inner.split_last().expect("not empty");
        let mut wire = record(sender, Kind::Data, &[]);
        sender_rewind(sender);
        wire.resize(HEADER + inner.len() + TAG, 0);
        let after = (inner.len() + TAG) as u16;
        wire[3..5].copy_from_slice(&after.to_be_bytes());
        seal_raw(sender, front, *last, &mut wire);
        wire
    };
    let wire = padded(&mut sender, b"text\0\0\x17\0\0\0\0");
    assert_eq!(open_one(&mut server, wire), (b"text\0\0".to_vec(), None));
    let wire = padded(&mut sender, b"\x17\0\0");
    assert_eq!(open_one(&mut server, wire), (Vec::new(), None));
    let wire = padded(&mut sender, &[0; 9]);
    assert_eq!(fault(&mut server, wire), Fault::UnexpectedMessage);

    let mut server = pair(Version::Tls13, Suite::Aes128Gcm).0;
    let mut sender = keys(Version::Tls13, Suite::Aes128Gcm, 0);
    let mut long = vec![b'x'; PLAIN_MAX + 2];
    long[PLAIN_MAX] = 23;
    long[PLAIN_MAX + 1] = 0;
    let wire = padded(&mut sender, &long);
    assert_eq!(fault(&mut server, wire), Fault::RecordOverflow);
}

/// Seals `front` and one last inner byte under any name, which the codec itself would never do.
fn seal_raw(keys: &mut Keys, front: &[u8], last: u8, wire: &mut [u8]) {
    use aws_lc_rs::aead::{Aad, Nonce};
    let nonce = Nonce::assume_unique_for_key(keys.nonce());
    let (head, body) = wire.split_at_mut(HEADER);
    body[..front.len()].copy_from_slice(front);
    let (text, tail) = body.split_at_mut(front.len());
    keys.sealer()
        .cipher()
        .seal_in_place_scatter(nonce, Aad::from(&head), text, &[last], tail)
        .expect("lengths match");
    keys.advance();
}

fn sender_rewind(keys: &mut Keys) {
    let sequence = keys.sequence() - 1;
    *keys = self::keys(keys.version(), keys.suite(), sequence);
}

#[test]
fn what_may_not_come_is_refused_by_name() {
    let refuse = |role, version, kind, plain: &[u8]| {
        let suite = Suite::ChaCha20Poly1305;
        let new = || keys(version, suite, 0);
        let mut session = Session::new(role, new(), new());
        fault(&mut session, record(&mut new(), kind, plain))
    };
    use Fault::*;
    use Version::*;
    let cases: &[(Role, Version, Kind, &[u8], Fault)] = &[
        (Role::Server, Tls12, Kind::Handshake, &[1, 0, 0, 0], Renegotiation),
        (Role::Client, Tls12, Kind::Handshake, &[0, 0, 0, 0], Renegotiation),
        (Role::Server, Tls12, Kind::Handshake, &[24, 0, 0, 1, 0], UnexpectedMessage),
        (Role::Client, Tls12, Kind::Handshake, &[4, 0, 0, 0], UnexpectedMessage),
        (Role::Server, Tls12, Kind::ChangeCipherSpec, &[1], UnexpectedMessage),
        (Role::Server, Tls13, Kind::ChangeCipherSpec, &[1], UnexpectedMessage),
        (Role::Server, Tls13, Kind::Handshake, &[1], UnexpectedMessage),
        (Role::Server, Tls13, Kind::Handshake, &[4], UnexpectedMessage),
        (Role::Server, Tls13, Kind::Handshake, &[], UnexpectedMessage),
        (Role::Client, Tls13, Kind::Handshake, &[13, 0, 0, 0], UnexpectedMessage),
        (Role::Server, Tls13, Kind::Handshake, &[24, 0, 0, 2], DecodeError),
        (Role::Server, Tls13, Kind::Handshake, &[24, 0, 0, 1, 2], IllegalParameter),
        (Role::Server, Tls13, Kind::Handshake, &[24, 0, 0, 1, 0, 24], UnexpectedMessage),
        (Role::Server, Tls13, Kind::Alert, &[2, 42], PeerAlert(42)),
        (Role::Server, Tls13, Kind::Alert, &[1, 42], PeerAlert(42)),
        (Role::Server, Tls12, Kind::Alert, &[2, 20], PeerAlert(20)),
        (Role::Server, Tls12, Kind::Alert, &[1], DecodeError),
        (Role::Server, Tls12, Kind::Alert, &[], DecodeError),
        (Role::Server, Tls13, Kind::Alert, &[], UnexpectedMessage),
        (Role::Client, Tls13, Kind::Alert, &[], UnexpectedMessage),
        (Role::Server, Tls13, Kind::Alert, &[2], DecodeError),
        (Role::Server, Tls13, Kind::Alert, &[1, 0, 1, 0], DecodeError),
    ];
    for (role, version, kind, plain, expected) in cases {
        let got = refuse(*role, *version, *kind, plain);
        assert_eq!(got, *expected, "{role:?} {version:?} {kind:?} {plain:?}");
    }
    for outer in [20, 21, 22] {
        let mut server = pair(Tls13, Suite::Aes128Gcm).0;
        assert_eq!(fault(&mut server, vec![outer, 3, 3, 0, 1, 1]), UnexpectedMessage);
    }
}

#[test]
fn keys_change_both_ways_and_cut_messages_are_joined() {
    for suite in SUITES {
        let (mut server, mut client) = pair(Version::Tls13, suite);
        for round in 0..5 {
            let mut wire = Vec::new();
            for byte in [24, 0, 0, 1, 1] {
                wire.extend(record(&mut client.seal, Kind::Handshake, &[byte]));
            }
            client.seal.update().expect("TLS 1.3");
            client.seal_onto(b"after", &mut wire).expect("room");
            assert_eq!(open_one(&mut server, wire), (b"after".to_vec(), None), "round {round}");
            assert!(server.answer_due());
            let mut back = Vec::new();
            server.seal_onto(b"hello", &mut back).expect("room");
            assert!(!server.answer_due());
            assert_eq!(open_one(&mut client, back), (b"hello".to_vec(), None));
        }
        let mut wire = record(&mut client.seal, Kind::Handshake, &[24, 0]);
        wire.extend(record(&mut client.seal, Kind::Data, b"between"));
        assert_eq!(fault(&mut server, wire), Fault::UnexpectedMessage);
    }
}

#[test]
fn tickets_come_whole_cut_joined_or_too_long() {
    let (_, mut client) = pair(Version::Tls13, Suite::Aes128Gcm);
    let mut sender = keys(Version::Tls13, Suite::Aes128Gcm, 0);
    let message = |body: &[u8]| {
        let mut message = vec![4];
        message.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
        message.extend_from_slice(body);
        message
    };
    let mut stream = message(b"first");
    stream.extend(message(b""));
    stream.extend(message(&vec![1; TICKET_BYTES_MAX + 1]));
    stream.extend(message(&[5; 3000]));
    for step in [1 << 14, 5000, 2500, 1900] {
        let mut wire = Vec::new();
        for piece in stream.chunks(step) {
            wire.extend(record(&mut sender, Kind::Handshake, piece));
        }
        wire.extend(record(&mut sender, Kind::Data, b"data"));
        let opened = client.open(&mut wire);
        assert_eq!((opened.finish, &wire[opened.plain]), (None, &b"data"[..]));
        assert_eq!(opened.tickets, [b"first".to_vec(), Vec::new(), vec![5; 3000]]);
        assert_eq!(client.held(), 0);
    }
}

#[test]
fn records_for_nothing_are_counted() {
    every(|version, suite| {
        let (mut server, mut client) = pair(version, suite);
        for _ in 0..32 {
            let wire = record(&mut client.seal, Kind::Data, b"");
            assert_eq!(open_one(&mut server, wire).1, None);
        }
        let wire = record(&mut client.seal, Kind::Data, b"x");
        assert_eq!(open_one(&mut server, wire).1, None);
        for _ in 0..32 {
            let wire = record(&mut client.seal, Kind::Alert, &[1, 90]);
            assert_eq!(open_one(&mut server, wire).1, None);
        }
        let wire = record(&mut client.seal, Kind::Data, b"");
        assert_eq!(fault(&mut server, wire), Fault::Useless);
    });
}

#[test]
fn a_worn_key_is_changed_or_ends_the_session() {
    let worn = (1 << 24) - 64 - 2;
    let old = |version| keys(version, Suite::Aes128Gcm, worn);
    let mut ours = Session::new(Role::Server, old(Version::Tls13), old(Version::Tls13));
    let mut peer = Session::new(Role::Client, old(Version::Tls13), old(Version::Tls13));
    for _ in 0..5 {
        let mut wire = Vec::new();
        ours.seal_onto(b"on and on", &mut wire).expect("TLS 1.3 renews its key");
        assert_eq!(open_one(&mut peer, wire).0, b"on and on");
    }
    assert_eq!((ours.seal.sequence(), ours.records_left()), (3, u64::MAX));

    let mut ours = Session::new(Role::Server, old(Version::Tls12), old(Version::Tls12));
    assert_eq!(ours.records_left(), 2);
    let mut out = [0; 200];
    assert!(ours.seal(b"one", &mut out).is_ok() && ours.seal(b"two", &mut out).is_ok());
    assert_eq!(ours.seal(b"three", &mut out), Err(Fault::Exhausted));
    assert!(ours.close(Alert::CLOSE_NOTIFY, &mut out).expect("kept back for this") > 0);
    assert_eq!(ours.close(Alert::CLOSE_NOTIFY, &mut out), Ok(0));
    assert!(ours.seal(b"late", &mut out).is_err());

    let mut last = keys(Version::Tls13, Suite::Aes256Gcm, 1 << 24);
    let refused = last.sealer().seal(Kind::Data, b"", &mut out);
    assert_eq!(refused, Err(Fault::Exhausted));
    let mut last = keys(Version::Tls12, Suite::ChaCha20Poly1305, u64::MAX);
    let refused = last.opener().open(&mut [23, 3, 3, 0, 0]);
    assert_eq!(refused, Err(Fault::Exhausted));
}

#[test]
fn after_close_notify_nothing_is_read() {
    every(|version, suite| {
        let (mut server, mut client) = pair(version, suite);
        let mut wire = Vec::new();
        client.seal_onto(b"last words", &mut wire).expect("room");
        wire.extend(record(&mut client.seal, Kind::Alert, &[1, 0]));
        wire.extend_from_slice(b"noise");
        let opened = server.open(&mut wire);
        assert_eq!(&wire[opened.plain], b"last words");
        assert_eq!(opened.finish, Some(Finish::Closed));
        let opened = server.open(&mut wire[..3]);
        assert_eq!((opened.used, opened.finish), (3, Some(Finish::Closed)));
    });
}

#[test]
fn who_gave_up_is_told_nothing_more() {
    every(|version, suite| {
        let (mut server, mut client) = pair(version, suite);
        let wire = record(&mut client.seal, Kind::Alert, &[2, 80]);
        assert_eq!(fault(&mut server, wire), Fault::PeerAlert(80));
        assert_eq!(server.close(Alert::CLOSE_NOTIFY, &mut [0; 64]), Ok(0));
        assert!(server.seal(b"late", &mut [0; 64]).is_err());
    });
}

#[test]
fn random_input_never_upsets_the_reader() {
    let mut random = fastrand::Rng::with_seed(0x5eed);
    for _ in 0..20_000 {
        let mut data: Vec<u8> =
            (0..random.usize(0..200)).map(|_| random.u8(..) & random.u8(..)).collect();
        if let Some(first) = data.first_mut() {
            *first = random.u8(..);
        }
        exercise(&data);
    }
}
