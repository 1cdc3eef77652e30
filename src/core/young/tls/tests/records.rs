//! The record codec against rustls: after a real handshake both ends say random things in random
//! pieces, change keys, and part; nothing may be lost, changed or refused.

use super::*;

use rustls::crypto::aws_lc_rs::cipher_suite as suites;

const SUITES: [SupportedCipherSuite; 6] = [
    suites::TLS13_AES_128_GCM_SHA256,
    suites::TLS13_AES_256_GCM_SHA384,
    suites::TLS13_CHACHA20_POLY1305_SHA256,
    suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Sessions of the usual run; `STANDPIPE_SEEDS` asks for more.
const SEEDS: u64 = 3000;

struct Company {
    ours_server: FromClient,
    ours_client: ToServer,
    servers: Vec<Arc<ServerConfig>>,
    clients: Vec<ClientConfig>,
}

impl Company {
    fn new() -> Self {
        let authority = Authority::new();
        let files = authority.issue("web", &["web.example"], Kind::Ecdsa);
        let to_server = ServerTls {
            ca: Some(authority.ca()),
            server_name: None,
            client_cert: None,
            insecure: false,
        };
        let (chain, key) = shown(&files);
        let server = |suite: &SupportedCipherSuite| {
            let mut provider = aws_lc_rs::default_provider();
            provider.cipher_suites = vec![*suite];
            let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&[suite.version()])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain.clone(), key.clone_key())
                .unwrap();
            config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
            Arc::new(config)
        };
        let client = |suite: &SupportedCipherSuite| {
            let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
            client_only(&[suite.version()], &[*suite], &schemes)
        };
        Self {
            ours_server: load(&section(vec![files])),
            ours_client: ToServer::load(&to_server, &[]).unwrap().value,
            servers: SUITES.iter().map(server).collect(),
            clients: SUITES.iter().map(client).collect(),
        }
    }

    /// A session of ours and the rustls connection it is with.
    fn meet(&self, random: &mut fastrand::Rng) -> (Secured, Connection) {
        let suite = random.usize(0..SUITES.len());
        let cut = [1, 7, 100, 1000, usize::MAX][random.usize(0..5)];
        let fragment = random.bool().then(|| random.usize(50..17_000).min(16_389));
        if random.bool() {
            let mut config = self.clients[suite].clone();
            config.max_fragment_size = fragment;
            let mut peer = connect(config, "web.example");
            let shake = Shake::server(&self.ours_server.server).unwrap();
            (shake_hands(shake, &mut peer, cut).unwrap(), peer)
        } else {
            let mut config = (*self.servers[suite]).clone();
            config.max_fragment_size = fragment;
            let mut peer = ServerConnection::new(Arc::new(config)).unwrap().into();
            let name = ServerName::try_from("web.example").unwrap();
            let shake = Shake::client(&self.ours_client.client, name).unwrap();
            (shake_hands(shake, &mut peer, cut).unwrap(), peer)
        }
    }
}

/// Bytes that tell their place.
fn text(random: &mut fastrand::Rng, said: usize) -> Vec<u8> {
    let length = match random.u32(0..10) {
        0 => 0,
        1..=6 => random.usize(1..300),
        7..=8 => random.usize(1..20_000),
        _ => random.usize(1..80_000),
    };
    (0..length).map(|at| (said + at).wrapping_mul(0x9e37_79b1).to_be_bytes()[4]).collect()
}

struct Talk {
    ours: Secured,
    peer: Connection,
    /// Ciphertext on its way to us.
    wire: Vec<u8>,
    to_peer: Vec<u8>,
    from_peer: Vec<u8>,
    heard: Vec<u8>,
}

impl Talk {
    /// Ours speaks: sealed into a buffer of random room, straight or where it lies.
    fn speak(&mut self, random: &mut fastrand::Rng) {
        let words = text(random, self.to_peer.len());
        let mut out = vec![0; random.usize(600..40_000)];
        let mut sent = 0;
        while sent < words.len() || self.ours.session.answer_due() {
            let sealed = self.ours.session.seal(&words[sent..], &mut out).unwrap();
            assert!(sealed.written > 0);
            sent += sealed.taken;
            self.deliver(&out[..sealed.written], random);
        }
        self.to_peer.extend_from_slice(&words);
    }

    fn deliver(&mut self, records: &[u8], random: &mut fastrand::Rng) {
        for piece in records.chunks(random.usize(1..9000)) {
            let mut piece = Cursor::new(piece);
            while (piece.position() as usize) < piece.get_ref().len() {
                self.peer.read_tls(&mut piece).unwrap();
                let state = self.peer.process_new_packets().unwrap();
                let mut plain = vec![0; state.plaintext_bytes_to_read()];
                self.peer.reader().read_exact(&mut plain).unwrap();
                self.heard.extend(plain);
            }
        }
    }

    /// The peer speaks; ours is shown it in random pieces.
    fn listen(&mut self, random: &mut fastrand::Rng, received: &mut Vec<u8>) {
        if self.ours.version == Version::Tls13 && random.u32(0..4) == 0 {
            self.peer.refresh_traffic_keys().unwrap();
        }
        let words = text(random, self.from_peer.len());
        let mut left = &words[..];
        while !left.is_empty() {
            let taken = self.peer.writer().write(left).unwrap();
            left = &left[taken..];
            self.wire.extend(say_peer(&mut self.peer));
        }
        self.wire.extend(say_peer(&mut self.peer));
        self.from_peer.extend_from_slice(&words);
        while !self.wire.is_empty() {
            let cut = random.usize(1..=self.wire.len().min(9000));
            self.ours.tail.extend(self.wire.drain(..cut));
            self.open(received, None);
        }
    }

    fn open(&mut self, received: &mut Vec<u8>, finish: Option<Finish>) {
        let Secured { session, tail, .. } = &mut self.ours;
        let opened = session.open(tail);
        assert_eq!(opened.finish, finish);
        received.extend_from_slice(&tail[opened.plain]);
        tail.drain(..opened.used);
    }

    /// Both say goodbye, in either order.
    fn part(&mut self, random: &mut fastrand::Rng, received: &mut Vec<u8>) {
        let mut out = [0; 100];
        let close = crate::proto::record::Alert::CLOSE_NOTIFY;
        if random.bool() {
            let length = self.ours.session.close(close, &mut out).unwrap();
            self.deliver(&out[..length], random);
        }
        self.peer.send_close_notify();
        self.ours.tail.extend(say_peer(&mut self.peer));
        self.open(received, Some(Finish::Closed));
        let length = self.ours.session.close(close, &mut out).unwrap();
        let mut last = Cursor::new(&out[..length]);
        if length > 0 {
            self.peer.read_tls(&mut last).unwrap();
        }
        assert!(self.peer.process_new_packets().unwrap().peer_has_closed());
        assert!(self.ours.session.closed());
    }
}

#[test]
fn sessions_of_every_suite_carry_everything_both_ways() {
    let company = Company::new();
    let seeds = std::env::var("STANDPIPE_SEEDS").ok().and_then(|n| n.parse().ok());
    for seed in 0..seeds.unwrap_or(SEEDS) {
        let talk = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| talk(&company, seed)));
        assert!(talk.is_ok(), "seed {seed}");
    }
}

fn talk(company: &Company, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (ours, peer) = company.meet(&mut random);
    let mut talk = Talk {
        ours,
        peer,
        wire: Vec::new(),
        to_peer: Vec::new(),
        from_peer: Vec::new(),
        heard: Vec::new(),
    };
    let mut received = Vec::new();
    for _ in 0..random.usize(1..8) {
        if random.bool() {
            talk.speak(&mut random);
        } else {
            talk.listen(&mut random, &mut received);
        }
    }
    // An answer to a key update may still be owed.
    talk.speak(&mut random);
    talk.listen(&mut random, &mut received);
    talk.part(&mut random, &mut received);
    assert!(talk.heard == talk.to_peer, "ours to peer");
    assert!(received == talk.from_peer, "peer to ours");
}

#[test]
fn a_damaged_record_ends_the_session_with_the_alert_that_says_so() {
    let company = Company::new();
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut ours, mut peer) = company.meet(&mut random);
        let mut wire = std::mem::take(&mut ours.tail);
        wire.extend(say_peer(&mut peer));
        assert_eq!(ours.session.open(&mut wire).finish, None);
        peer.writer().write_all(b"to be damaged").unwrap();
        let mut wire = say_peer(&mut peer);
        let at = random.usize(HEADER..wire.len());
        wire[at] ^= 1 << random.u32(0..8);
        let Some(Finish::Fault(fault)) = ours.session.open(&mut wire).finish else {
            panic!("seed {seed}: damage at {at} went unnoticed");
        };
        let mut out = [0; 100];
        let length = ours.session.close(fault.alert().unwrap(), &mut out).unwrap();
        peer.read_tls(&mut Cursor::new(&out[..length])).unwrap();
        let heard = peer.process_new_packets().unwrap_err();
        assert_eq!(heard, Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
    }
}
