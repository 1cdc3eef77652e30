//! `pools.X.tls`, from files to what rustls dials servers with.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::chain::{Chain, certificates};
use super::heard::Ear;
use super::sessions::Sessions;
use super::{Loaded, Part, Problem, ToServer, VERSIONS, provider};
use crate::config::plan::{Server, ServerAddress, ServerTls};

/// What tells two client configurations apart: they cannot be compared themselves. Whoever shows
/// the same chain has its key, for the two were proven to belong together.
#[derive(Debug, Clone)]
pub(super) struct MadeOf {
    /// `None`: any server is believed.
    roots: Option<Arc<RootCertStore>>,
    shown: Option<Arc<CertifiedKey>>,
}

impl PartialEq for MadeOf {
    fn eq(&self, other: &Self) -> bool {
        let roots = match (&self.roots, &other.roots) {
            (Some(ours), Some(theirs)) => ours.roots == theirs.roots,
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        let shown = match (&self.shown, &other.shown) {
            (Some(ours), Some(theirs)) => ours.cert == theirs.cert,
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        roots && shown
    }
}

impl ToServer {
    /// The same as `self`, with the configuration of `before` if that was made of the same:
    /// sessions are resumed, kept connections stay and checks go on undisturbed.
    pub fn or_as_before(self: Arc<Self>, before: &Arc<Self>) -> Arc<Self> {
        if self.made_of != before.made_of {
            return self;
        }
        if self.names == before.names {
            return before.clone();
        }
        let (names, made_of) = (self.names.clone(), before.made_of.clone());
        Arc::new(Self { client: before.client.clone(), names, made_of })
    }

    /// Loads and proves everything the section names, for these servers.
    ///
    /// # Errors
    /// Files that cannot be read or make no sense, and servers without a name to verify.
    pub fn load(tls: &ServerTls, servers: &[Server]) -> Result<Loaded<Self>, Vec<Problem>> {
        let (mut warnings, mut problems) = (Vec::new(), Vec::new());
        let trust = roots(tls, &mut warnings)
            .and_then(|roots| Ok((verifier(tls, roots.clone())?, roots)))
            .map_err(|problem| problems.push(problem.of(Part::Authorities)));
        let ours = tls.client_cert.as_ref().map(|files| Chain::load(files, 0, &mut warnings));
        let ours = ours.transpose().map_err(|all| problems.extend(all));
        let names = servers.iter().filter_map(|server| {
            let name = name(tls.server_name.as_deref(), server);
            name.map_err(|problem| problems.push(problem)).ok()
        });
        let names = names.collect();
        let (Ok((verifier, roots)), Ok(ours), true) = (trust, ours, problems.is_empty()) else {
            return Err(problems);
        };

        let made_of = MadeOf { roots, shown: ours.as_ref().map(|chain| chain.key.clone()) };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .expect("the provider has suites of both versions")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut client = match ours {
            None => builder.with_no_client_auth(),
            Some(chain) => builder.with_client_cert_resolver(Arc::new(
                rustls::sign::SingleCertAndKey::from(chain.key),
            )),
        };
        client.enable_secret_extraction = true;
        client.key_log = Arc::new(Ear { lines: false });
        client.resumption = Resumption::store(Arc::new(Sessions::new()));
        Ok(Loaded { value: Self { client: Arc::new(client), names, made_of }, warnings })
    }
}

/// The name a server must prove: the configured one, the host as written, or its address.
fn name(configured: Option<&str>, server: &Server) -> Result<ServerName<'static>, Problem> {
    let remedy = "set `server_name` in the pool's tls section";
    let invalid = |name: &str| {
        Problem::new(Path::new(&*server.name), format!("`{name}` is not a name to verify"), remedy)
    };
    if let Some(name) = configured {
        return ServerName::try_from(name.to_owned()).map_err(|_| invalid(name));
    }
    match &server.address {
        ServerAddress::Inet(address) => {
            let host = server.written.rsplit_once(':').map(|(host, _)| host);
            let host = host.map(|host| host.trim_matches(['[', ']']));
            let host = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
            Ok(host.unwrap_or_else(|| ServerName::from(address.ip())))
        }
        ServerAddress::Unix(path) => Err(invalid(&path.to_string_lossy())),
    }
}

/// The authorities that servers are believed by; `None`: any server is believed, which was said to
/// be unwise when the file was read.
fn roots(
    tls: &ServerTls,
    warnings: &mut Vec<Problem>,
) -> Result<Option<Arc<RootCertStore>>, Problem> {
    if tls.insecure {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(file) => {
            for authority in certificates(file)? {
                roots.add(authority).map_err(|error| Problem::new(file, error, AUTHORITY))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            for error in found.errors {
                let remedy = "repair it, or give the authority of the servers as `ca`";
                warnings.push(Problem::new(Path::new(SYSTEM), error, remedy));
            }
            roots.add_parsable_certificates(found.certs);
        }
    }
    Ok(Some(Arc::new(roots)))
}

/// Who decides whether a server is believed.
fn verifier(
    tls: &ServerTls,
    roots: Option<Arc<RootCertStore>>,
) -> Result<Arc<dyn ServerCertVerifier>, Problem> {
    let Some(roots) = roots else { return Ok(Arc::new(Anyone(provider()))) };
    let file = tls.ca.as_deref().unwrap_or(Path::new(SYSTEM));
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
    Ok(verifier.map_err(|error| Problem::new(file, error, AUTHORITY))?)
}

/// What stands for the file where the machine's own authorities are used.
const SYSTEM: &str = "the system's trust store";
const AUTHORITY: &str = "give the authority that signs the servers' certificates as `ca`";

/// Believes any certificate whose key signed the handshake.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
