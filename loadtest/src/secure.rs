//! TLS for the sockets that want it: rustls on both ends, one connection object per socket.
//! Certificates are read or made here; no socket is opened here.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, Connection, DigitallySignedStruct, RootCertStore, ServerConfig};

use crate::socket::Got;

/// The longest record on the wire, with room for its header and tag.
const RECORD_BYTES_MAX: usize = 17 * 1024;

/// A TLS session over a socket that somebody else owns.
pub struct Secure {
    session: Connection,
    /// The peer closed its TCP side; clear bytes may still wait in the session.
    ended: bool,
}

/// What a client needs to know for TLS.
#[derive(Clone)]
pub struct ClientSecrets {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

impl Secure {
    pub fn client(secrets: &ClientSecrets) -> Result<Secure, rustls::Error> {
        let session =
            rustls::ClientConnection::new(Arc::clone(&secrets.config), secrets.name.clone())?;
        Ok(Secure { session: session.into(), ended: false })
    }

    pub fn server(config: &Arc<ServerConfig>) -> Result<Secure, rustls::Error> {
        let session = rustls::ServerConnection::new(Arc::clone(config))?;
        Ok(Secure { session: session.into(), ended: false })
    }

    pub fn handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Whether an earlier session was resumed.
    pub fn resumed(&self) -> bool {
        self.session.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    pub fn wants_write(&self) -> bool {
        self.session.wants_write()
    }

    /// Takes the ciphertext that waits to be sent.
    pub fn take(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(out)?;
        }
        Ok(())
    }

    pub fn seal(&mut self, clear: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut rest = clear;
        while !rest.is_empty() {
            let count = self.session.writer().write(rest)?;
            rest = &rest[count..];
            self.take(out)?;
            if count == 0 {
                return Err(io::Error::other("TLS took no bytes"));
            }
        }
        self.take(out)
    }

    /// Reads what is there: first clear bytes already decrypted, then one read of the socket.
    pub fn recv(
        &mut self,
        mut stream: &TcpStream,
        into: &mut [u8],
        cipher: &mut [u8],
    ) -> io::Result<Got> {
        // What one read decrypts fits into `into`, together with a record begun before it.
        let most = into.len().saturating_sub(RECORD_BYTES_MAX).max(1024).min(cipher.len());
        loop {
            match self.clear(into)? {
                Some(0) => return Ok(Got::End),
                Some(count) => return Ok(Got::Bytes(count)),
                None => {}
            }
            if self.ended {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the peer ended TCP without a TLS close_notify",
                ));
            }
            let count = match stream.read(&mut cipher[..most]) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Got::Dry),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.ended = count == 0;
            let mut rest = &cipher[..count];
            let mut filled = 0;
            while !rest.is_empty() {
                self.session.read_tls(&mut rest)?;
                self.session.process_new_packets().map_err(io::Error::other)?;
                // The session holds no more than a record in clear: it is emptied as it goes.
                filled += self.clear(&mut into[filled..])?.unwrap_or(0);
            }
            if filled > 0 {
                return Ok(Got::Bytes(filled));
            }
            if self.ended && self.session.is_handshaking() {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the peer ended TCP during the TLS handshake",
                ));
            }
        }
    }

    /// Clear bytes that wait in the session: how many, none at all, or its end (zero).
    fn clear(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        if into.is_empty() {
            return Ok(None);
        }
        match self.session.reader().read(into) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn farewell(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.session.send_close_notify();
        self.take(out)
    }
}

/// The client's configuration: the system's roots, or one authority, or no check at all.
pub fn client_config(ca: Option<&Path>, insecure: bool) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    if insecure {
        let blind = Arc::new(Blind { provider });
        let config =
            builder.dangerous().with_custom_certificate_verifier(blind).with_no_client_auth();
        return Ok(Arc::new(config));
    }
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        None => {
            let (_added, _ignored) =
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(
            "no certificate authority to trust: give one with --ca FILE, or skip the check \
                    with --insecure"
                .into(),
        );
    }
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// The echo's configuration: a certificate from files, or one made on the spot for `names`.
pub fn server_config(
    files: Option<(&Path, &Path)>,
    names: Vec<String>,
) -> Result<Arc<ServerConfig>, String> {
    let (chain, key) = match files {
        Some((certificate, key)) => (
            certificates(certificate)?,
            PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("{}: {error}", key.display()))?,
        ),
        None => {
            let made = rcgen::generate_simple_self_signed(names)
                .map_err(|error| format!("cannot make a certificate: {error}"))?;
            let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
            (vec![made.cert.der().clone()], key)
        }
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match list {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(format!("{}: no certificate in it", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// `--insecure`: any certificate will do. Signatures are still checked, so that the handshake costs
/// what an honest one costs.
#[derive(Debug)]
struct Blind {
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
