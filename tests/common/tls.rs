//! An authority for tests, the certificates it signs, and rustls clients and servers that trust it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};

use super::{PATIENCE, Standpipe, port};

/// See the module's words.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub struct Pair {
    pub cert: String,
    pub key: String,
}

pub type Client = StreamOwned<ClientConnection, TcpStream>;

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Authority");
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `names` whose subject's common name is `subject`.
    pub fn issue(&self, subject: &str, names: &[&str]) -> Pair {
        self.issue_for(subject, names, Duration::from_secs(365 * 86_400))
    }

    /// The same, valid for so long.
    pub fn issue_for(&self, subject: &str, names: &[&str], valid: Duration) -> Pair {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).expect("good names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        params.not_after = (SystemTime::now() + valid).into();
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a good root");
        roots
    }

    /// A client's configuration for these versions; all if none is named.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let versions = if versions.is_empty() { rustls::ALL_VERSIONS } else { versions };
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("suites for the versions")
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    /// The same, showing a certificate.
    pub fn client_with(&self, pair: &Pair) -> ClientConfig {
        let (chain, key) = parse(pair);
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("suites for the versions")
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key)
            .expect("a good pair")
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn parse(pair: &Pair) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("a certificate");
    (vec![cert], PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key"))
}

/// Connects and shakes hands for `name`.
pub fn connect(to: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Client> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connection = ClientConnection::new(config.clone(), name).expect("a good configuration");
    let mut client = StreamOwned::new(connection, stream);
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock)?;
    }
    Ok(client)
}

/// Says `words` and reads as many back.
pub fn echoed(client: &mut Client, words: &[u8]) -> Vec<u8> {
    client.write_all(words).expect("words go out");
    let mut back = vec![0; words.len()];
    client.read_exact(&mut back).expect("the echo");
    back
}

/// How the peer ended: `Ok` for close_notify, else the error.
pub fn ended(client: &mut Client) -> std::io::Result<()> {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).map(|_| ())
}

/// A server's end of a connection.
pub type Served = StreamOwned<ServerConnection, TcpStream>;

/// A TLS echo server in threads of its own.
pub fn echo_server(pair: &Pair, client_ca: Option<&Authority>) -> SocketAddr {
    serving(pair, client_ca, echo)
}

/// A TLS server that does this with each of its connections, in a thread of its own.
pub fn serving(
    pair: &Pair,
    client_ca: Option<&Authority>,
    serve: impl Fn(Served) + Clone + Send + 'static,
) -> SocketAddr {
    let (chain, key) = parse(pair);
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .expect("suites for the versions");
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let roots = Arc::new(authority.roots());
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider())
                    .build()
                    .expect("a verifier");
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).expect("a good pair");
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("randomness");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(config.clone()).expect("a configuration");
            let serve = serve.clone();
            std::thread::spawn(move || serve(StreamOwned::new(connection, stream)));
        }
    });
    address
}

fn echo(mut stream: Served) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) if stream.write_all(&buffer[..n]).is_ok() => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return,
        }
    }
    stream.conn.send_close_notify();
    let _ = stream.conn.complete_io(&mut stream.sock);
}

/// A running standpipe with one TLS listener, and the authority that signed its certificate.
pub struct Scene {
    pub standpipe: Standpipe,
    pub at: SocketAddr,
    pub authority: Authority,
}

fn config(
    at: SocketAddr,
    mode: &str,
    tls: &str,
    server: SocketAddr,
    pool: &str,
    timeouts: &str,
) -> String {
    let route = match mode {
        "l4" => "pool = \"pool\"\n",
        _ => "[[listeners.edge.routes]]\npath = \"/\"\npool = \"pool\"\n",
    };
    format!(
        "[listeners.edge]\nbind = [\"{at}\"]\nmode = \"{mode}\"\n\
         tls.certificates = [{{ cert = \"web.pem\", key = \"web.key\" }}]\n{tls}\n{route}\
         [pools.pool]\nservers = [\"{server}\"]\n{pool}\n\
         [timeouts]\n{timeouts}\n"
    )
}

impl Scene {
    /// Before an echo of bytes.
    pub fn l4() -> Scene {
        Scene::new("l4", "", super::l4::echo(), "", &[])
    }

    /// A standpipe in `mode` before `server`; `tls` are more lines of its listener, `pool` of its
    /// pool, `more` are files beside the config (`STEM.pem`, `STEM.key`).
    pub fn new(
        mode: &str,
        tls: &str,
        server: SocketAddr,
        pool: &str,
        more: &[(&str, &Pair)],
    ) -> Scene {
        Scene::lasting("10s", mode, tls, server, pool, more)
    }

    /// As [`Scene::new`], with so long for a handshake.
    pub fn lasting(
        handshake: &str,
        mode: &str,
        tls: &str,
        server: SocketAddr,
        pool: &str,
        more: &[(&str, &Pair)],
    ) -> Scene {
        let timeouts = format!("handshake = \"{handshake}\"");
        Scene::timed(&timeouts, mode, tls, server, pool, more)
    }

    /// As [`Scene::new`], with these lines in `[timeouts]`.
    pub fn timed(
        timeouts: &str,
        mode: &str,
        tls: &str,
        server: SocketAddr,
        pool: &str,
        more: &[(&str, &Pair)],
    ) -> Scene {
        let authority = Authority::new();
        let web = authority.issue("web", &["web.example", "localhost", "127.0.0.1"]);
        let ca = authority.pem();
        let mut files = vec![
            ("web.pem".to_string(), web.cert),
            ("web.key".to_string(), web.key),
            ("own-ca.pem".to_string(), ca),
        ];
        for (stem, pair) in more {
            files.push((format!("{stem}.pem"), pair.cert.clone()));
            files.push((format!("{stem}.key"), pair.key.clone()));
        }
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, text)| (&name[..], text.as_bytes())).collect();
        let at = SocketAddr::from(([127, 0, 0, 1], port()));
        let config = config(at, mode, tls, server, pool, timeouts);
        Scene { standpipe: Standpipe::start_with(&config, &files, &[]), at, authority }
    }

    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::new(self.authority.client(&[]))
    }
}
