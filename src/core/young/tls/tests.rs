//! Handshakes in memory, with rustls itself as the other end: what is agreed, what is refused, and
//! how it is told.

mod records;

use std::io::{Cursor, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, ServerConfig,
    ServerConnection, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
};

use super::*;
use crate::config::certificates::Tickets as TicketKeys;
use crate::config::certificates::authority::{Authority, Kind, section, shown};
use crate::config::plan::{ClientCa, ServerTls, Tls, UnknownName};
use crate::proto::record::{Finish, HEADER};

/// A handshake between ours and a rustls connection; `cut` bytes at a time are shown to ours, and
/// once each: whoever waits for a socket asks no oftener.
fn shake_hands<P: Party>(
    mut shake: Shake<P>,
    peer: &mut Connection,
    cut: usize,
) -> Result<Secured, (Cause, Vec<u8>)> {
    let (mut spoken, mut out) = (false, Vec::new());
    let mut progress = shake.advance(&mut out);
    loop {
        if let Err(failure) = &progress {
            let cause = cause_of(failure, &shake.heard, spoken);
            return Err((cause, alert(cause, failure, out)));
        }
        let done = progress.as_ref().is_ok_and(|progress| *progress == Progress::Done);
        spoken |= !out.is_empty();
        hear_peer(peer, &std::mem::take(&mut out));
        let said = say_peer(peer);
        if done {
            shake.take(&said).unwrap();
            return Ok(shake.finish().unwrap());
        }
        assert!(!said.is_empty(), "both sides wait");
        for piece in said.chunks(cut) {
            shake.take(piece).unwrap();
            if matches!(progress, Ok(Progress::Need)) {
                progress = shake.advance(&mut out);
            }
        }
    }
}

fn hear_peer(peer: &mut Connection, bytes: &[u8]) {
    let mut bytes = Cursor::new(bytes);
    while (bytes.position() as usize) < bytes.get_ref().len() {
        peer.read_tls(&mut bytes).unwrap();
        let _ = peer.process_new_packets();
    }
}

fn say_peer(peer: &mut Connection) -> Vec<u8> {
    let mut said = Vec::new();
    while peer.wants_write() {
        peer.write_tls(&mut said).unwrap();
    }
    said
}

fn load(tls: &Tls) -> FromClient {
    FromClient::load(tls, &TicketKeys::default()).unwrap().value
}

/// A client that trusts the authority.
fn client(authority: &Authority) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_no_client_auth()
}

fn connect(config: ClientConfig, name: &str) -> Connection {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap().into()
}

fn serve_one(tls: &FromClient, peer: &mut Connection) -> Result<Secured, (Cause, Vec<u8>)> {
    shake_hands(Shake::server(&tls.server).unwrap(), peer, usize::MAX)
}

/// A client that can check only some signatures, and believes whatever it can check.
#[derive(Debug)]
struct Only(Vec<SignatureScheme>);

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

fn client_only(
    versions: &[&'static SupportedProtocolVersion],
    suites: &[SupportedCipherSuite],
    schemes: &[SignatureScheme],
) -> ClientConfig {
    let mut provider = aws_lc_rs::default_provider();
    if !suites.is_empty() {
        provider.cipher_suites = suites.to_vec();
    }
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Only(schemes.to_vec())))
        .with_no_client_auth()
}

/// The common name of the certificate a client was shown.
fn shown_to(peer: &Connection) -> String {
    Peer::of(&peer.peer_certificates().unwrap()[0]).unwrap().subject
}

#[test]
fn certificates_are_chosen_by_name_and_algorithm() {
    let authority = Authority::new();
    let tls = section(vec![
        authority.issue("default", &["first.example"], Kind::Ecdsa),
        authority.issue("rsa", &["chat.example", "*.wide.example"], Kind::Rsa),
        authority.issue("ecdsa", &["chat.example", "exact.wide.example"], Kind::Ecdsa),
    ]);
    let tls = load(&tls);
    let all = [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256];
    use aws_lc_rs::cipher_suite as suites;
    let rsa_suite = [suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
    let both = rustls::ALL_VERSIONS;
    let cases: &[(ClientConfig, &str, &str)] = &[
        (client_only(both, &[], &all), "chat.example", "ecdsa"),
        (client_only(both, &[], &all), "CHAT.example", "ecdsa"),
        (client_only(both, &[], &all[1..]), "chat.example", "rsa"),
        (client_only(both, &rsa_suite, &all), "chat.example", "rsa"),
        (client_only(both, &[], &all), "any.wide.example", "rsa"),
        (client_only(both, &[], &all), "exact.wide.example", "ecdsa"),
        // The exact name has no key for this one, but the wildcard has.
        (client_only(both, &[], &all[1..]), "exact.wide.example", "rsa"),
        (client_only(both, &[], &all), "deep.any.wide.example", "default"),
        (client_only(both, &[], &all), "unknown.example", "default"),
        (client_only(both, &[], &all), "192.0.2.1", "default"),
    ];
    for (config, name, expected) in cases {
        let mut peer = connect(config.clone(), name);
        let secured = serve_one(&tls, &mut peer).unwrap();
        assert_eq!(shown_to(&peer), format!("CN={expected}"), "{name}");
        let asked = (!name.starts_with("192")).then(|| name.to_ascii_lowercase());
        assert_eq!(secured.server_name, asked);
    }
    let none = client_only(both, &rsa_suite, &all[..1]);
    let (cause, told) = serve_one(&tls, &mut connect(none, "chat.example")).unwrap_err();
    assert_eq!((cause, &told[..]), (Cause::NothingInCommon, &[21, 3, 3, 0, 2, 2, 40][..]));
}

#[test]
fn an_unknown_name_may_be_refused() {
    let authority = Authority::new();
    let mut tls = section(vec![authority.issue("web", &["web.example"], Kind::Ecdsa)]);
    tls.unknown_name = UnknownName::Refuse;
    let tls = load(&tls);
    let (cause, told) = serve_one(&tls, &mut connect(client(&authority), "x.example")).unwrap_err();
    assert_eq!((cause, &told[..]), (Cause::UnknownName, &[21, 3, 3, 0, 2, 2, 112][..]));
    assert!(serve_one(&tls, &mut connect(client(&authority), "web.example")).is_ok());
}

#[test]
fn alpn_is_agreed_or_refused() {
    let authority = Authority::new();
    let mut tls = section(vec![authority.issue("web", &["web.example"], Kind::Ecdsa)]);
    tls.alpn = vec!["http/1.1".into()];
    let tls = load(&tls);
    let offer = |names: &[&str]| {
        let mut config = client(&authority);
        config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        serve_one(&tls, &mut connect(config, "web.example"))
    };
    assert_eq!(offer(&["h2", "http/1.1"]).unwrap().alpn.unwrap(), b"http/1.1");
    assert_eq!(offer(&[]).unwrap().alpn, None);
    assert_eq!(offer(&["h2"]).unwrap_err().0, Cause::NothingInCommon);
}

#[test]
fn client_certificates_are_verified_and_told() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut tls = section(vec![authority.issue("web", &["web.example"], Kind::Ecdsa)]);
    let with = |by: &Authority, kind| {
        let (chain, key) = shown(&by.issue("somebody", &[], kind));
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_root_certificates(authority.roots())
            .with_client_auth_cert(chain, key)
            .unwrap()
    };
    for required in [true, false] {
        tls.client_ca = Some(ClientCa { file: authority.ca(), required });
        let tls = load(&tls);
        let try_one = |config| serve_one(&tls, &mut connect(config, "web.example"));
        let secured = try_one(with(&authority, Kind::Ecdsa)).unwrap();
        let peer = secured.peer.unwrap();
        assert_eq!((&peer.subject[..], peer.fingerprint.len()), ("CN=somebody", 64));
        for bad in [with(&stranger, Kind::Ecdsa), with(&authority, Kind::Expired)] {
            let (cause, told) = try_one(bad).unwrap_err();
            assert_eq!(cause, Cause::CertificateBad);
            assert!(told.len() > HEADER + 2, "an alert under the handshake's keys");
        }
        match try_one(client(&authority)) {
            Ok(secured) if !required => assert_eq!(secured.peer, None),
            Err((cause, _)) if required => assert_eq!(cause, Cause::CertificateMissing),
            other => panic!("required {required}: {other:?}"),
        }
    }
}

#[test]
fn sessions_resume_across_reloads_but_not_past_a_check() {
    let authority = Authority::new();
    let mut section = section(vec![authority.issue("web", &["web.example"], Kind::Ecdsa)]);
    let keys = TicketKeys::default();
    let load = |tls: &Tls| FromClient::load(tls, &keys).unwrap().value;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        section.client_ca = None;
        let config = client_only(&[version], &[], &[SignatureScheme::ECDSA_NISTP256_SHA256]);
        let meet = |tls: &FromClient| {
            let mut peer = connect(config.clone(), "web.example");
            serve_one(tls, &mut peer).map(|secured| secured.resumed)
        };
        assert!(!meet(&load(&section)).unwrap());
        assert!(meet(&load(&section)).unwrap(), "after a reload");
        section.client_ca = Some(ClientCa { file: authority.ca(), required: true });
        assert_eq!(meet(&load(&section)).unwrap_err().0, Cause::CertificateMissing);
        section.client_ca = Some(ClientCa { file: authority.ca(), required: false });
        assert!(!meet(&load(&section)).unwrap());
    }
}

#[test]
fn secrets_are_logged_only_if_the_file_says_so() {
    let authority = Authority::new();
    let mut tls = section(vec![authority.issue("web", &["web.example"], Kind::Ecdsa)]);
    for wanted in [false, true] {
        tls.key_log = wanted;
        let secured = serve_one(&load(&tls), &mut connect(client(&authority), "web.example"));
        let lines = secured.unwrap().key_log;
        let traffic = lines.iter().filter(|line| line.contains("_TRAFFIC_SECRET_0 ")).count();
        assert_eq!(traffic, if wanted { 2 } else { 0 });
        assert!(lines.is_empty() || lines.len() >= 5);
    }
}

/// The client's first flight, each of its bytes in a record of its own.
fn crumbs(hello: &[u8]) -> Vec<u8> {
    let body = &hello[HEADER..];
    body.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect()
}

#[test]
fn a_hello_in_crumbs_is_understood_in_linear_time_and_bounded() {
    let authority = Authority::new();
    let tls = load(&section(vec![authority.issue("web", &["web.example"], Kind::Ecdsa)]));
    let mut peer = connect(client(&authority), "web.example");
    let hello = say_peer(&mut peer);
    let mut shake = Shake::server(&tls.server).unwrap();
    let mut out = Vec::new();
    for piece in crumbs(&hello).chunks(7) {
        shake.take(piece).unwrap();
        assert_eq!(shake.advance(&mut out).unwrap(), Progress::Need);
    }
    assert!(out.len() > 500, "the server's flight");

    // A hello of nearly 64 KiB, in crumbs: given up at the bound, long before a second has passed.
    let mut long = vec![22, 3, 1, 0, 0, 1, 0, 0xff, 0xf0];
    long.resize(HEADER + 0xfff0, 0);
    let mut shake = Shake::server(&tls.server).unwrap();
    let begin = Instant::now();
    let mut refused = None;
    for piece in crumbs(&long).chunks(1460) {
        let step = shake.take(piece).and_then(|()| shake.advance(&mut out).map(drop));
        if let Err(failure) = step {
            refused = Some(failure);
            break;
        }
    }
    assert!(matches!(refused, Some(Failure::TooLong)), "{refused:?}");
    assert!(shake.input.len() <= shake::HANDSHAKE_BYTES_MAX);
    assert!(begin.elapsed().as_secs() < 2, "{:?}", begin.elapsed());
}

#[test]
fn what_is_no_hello_is_refused_with_an_alert() {
    let authority = Authority::new();
    let tls = load(&section(vec![authority.issue("web", &["web.example"], Kind::Ecdsa)]));
    // As the server goes about it: rustls is shown nothing before a first record is whole.
    let meet = |bytes: &[u8]| {
        let mut shake = Shake::server(&tls.server).unwrap();
        shake.take(bytes).unwrap();
        match opening(&shake) {
            Ok(whole) => {
                assert!(whole, "{bytes:?}");
                let mut out = Vec::new();
                let failure = shake.advance(&mut out).unwrap_err();
                (true, Broken::of(&failure, &shake.heard, false, out))
            }
            Err(failure) => (false, Broken::unspoken(&failure)),
        }
    };
    for bytes in [&b"\x16\x03\x01\x00\x05hello"[..], b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"] {
        let (shown, Broken { cause, last_words: told }) = meet(bytes);
        assert!(matches!(cause, Cause::HelloBad | Cause::HandshakeFailed), "{bytes:?}: {cause:?}");
        assert_eq!((shown, told.first(), told.len()), (true, Some(&21), 7), "{bytes:?} {cause:?}");
    }
    let (unexpected, overflow) = (Alert::UNEXPECTED_MESSAGE, Alert::RECORD_OVERFLOW);
    for (bytes, expected) in [
        (&b"\x14\x03\x03\x00\x01\x01"[..], unexpected),
        (b"\x17\x03\x03\x00\x01x", unexpected),
        (b"\x18\x03\x01\x00\x03\x01\x40\x00", unexpected),
        (b"\x80\x2e\x01\x03\x01", unexpected),
        (b"\x16\x02", unexpected),
        (b"SSH-2.0", unexpected),
        (b"\x16\x03\x01\xff\xff", overflow),
        (b"\x16\x03\x01\x40\x01", overflow),
    ] {
        let (shown, Broken { cause, last_words: told }) = meet(bytes);
        assert_eq!((shown, cause), (false, Cause::HelloBad), "{bytes:?}");
        assert_eq!(told, [21, 3, 3, 0, 2, 2, expected.0], "{bytes:?}");
    }
    let mut shake = Shake::server(&tls.server).unwrap();
    shake.take(b"\x16\x03\x01\x40\x00\x01").unwrap();
    assert!(matches!(opening(&shake), Ok(false)), "the longest there may be is waited for");
}

#[test]
fn servers_are_met_as_a_client_and_met_again() {
    let authority = Authority::new();
    let (chain, key) = shown(&authority.issue("server", &["chat.internal"], Kind::Ecdsa));
    let mut server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    server.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    let server = Arc::new(server);
    let mut tls = ServerTls {
        ca: Some(authority.ca()),
        server_name: Some("chat.internal".into()),
        client_cert: None,
        insecure: false,
    };
    let ours = ToServer::load(&tls, &[]).unwrap().value;
    let name = |name: &str| ServerName::try_from(name.to_owned()).unwrap();
    for round in 0..3 {
        let mut peer = ServerConnection::new(server.clone()).unwrap().into();
        let shake = Shake::client(&ours.client, name("chat.internal")).unwrap();
        let mut secured = shake_hands(shake, &mut peer, 100).unwrap();
        assert_eq!(secured.resumed, round > 0);
        let mut tail = std::mem::take(&mut secured.tail);
        tail.extend(say_peer(&mut peer));
        let opened = secured.session.open(&mut tail);
        assert_eq!((opened.finish, opened.tickets.is_empty()), (None, false));
        opened.tickets.iter().for_each(|ticket| secured.keep_ticket(ticket));
    }
    let mut peer = ServerConnection::new(server.clone()).unwrap().into();
    let shake = Shake::client(&ours.client, name("other.internal")).unwrap();
    let (cause, told) = shake_hands(shake, &mut peer, 100).unwrap_err();
    assert_eq!(cause, Cause::CertificateBad);
    assert!(!told.is_empty());
    tls.ca = Some(Authority::new().ca()).filter(|ca| ca.exists()).or(tls.ca);
    tls.insecure = true;
    let ours = ToServer::load(&tls, &[]).unwrap().value;
    let mut peer = ServerConnection::new(server).unwrap().into();
    let shake = Shake::client(&ours.client, name("other.internal")).unwrap();
    assert!(shake_hands(shake, &mut peer, 1000).is_ok());
}

/// One side's handshake bytes, damaged at random, must never upset ours: rustls keeps places in
/// the buffer it was shown, and a wrong step after an error would panic.
#[test]
fn damaged_handshakes_end_without_a_panic() {
    let authority = Authority::new();
    let mut server = section(vec![authority.issue("web", &["web.example"], Kind::Ecdsa)]);
    server.client_ca = Some(ClientCa { file: authority.ca(), required: false });
    let server = load(&server);
    let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
    for seed in 0..1500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let version = [&rustls::version::TLS12, &rustls::version::TLS13][random.usize(0..2)];
        let mut peer = connect(client_only(&[version], &[], &schemes), "web.example");
        let mut shake = Shake::server(&server.server).unwrap();
        let mut out = Vec::new();
        'handshake: for _ in 0..4 {
            let mut said = say_peer(&mut peer);
            if said.is_empty() {
                break;
            }
            damage(&mut said, &mut random);
            for piece in said.chunks(random.usize(1..600)) {
                let step = shake.take(piece).and_then(|()| shake.advance(&mut out));
                match step {
                    Ok(Progress::Need) => {}
                    Ok(Progress::Done) | Err(_) => break 'handshake,
                }
            }
            hear_peer(&mut peer, &std::mem::take(&mut out));
        }
    }
}

fn damage(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    let at = random.usize(0..bytes.len());
    match random.u32(0..6) {
        0 => bytes[at] ^= 1 << random.u32(0..8),
        1 => bytes.truncate(at.max(1)),
        2 => bytes.insert(at, random.u8(..)),
        3 => drop(bytes.drain(at..(at + random.usize(1..20)).min(bytes.len()))),
        4 => bytes.extend((0..random.usize(1..50)).map(|_| random.u8(..))),
        _ => {}
    }
    if bytes.is_empty() {
        bytes.push(22);
    }
}

#[test]
fn the_answer_to_plain_http_is_whole() {
    let text = std::str::from_utf8(PLAIN_HTTP_ANSWER).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
}
