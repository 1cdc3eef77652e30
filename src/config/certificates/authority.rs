//! Certificates for tests: an authority in a temporary folder, and what it signs.

use std::path::PathBuf;
use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKey, KeySize};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::chain::certificates;
use crate::config::plan::{CertificateFiles, Tls, UnknownName};

/// A test's own certificate authority; the folder, and every file in it, goes when it is dropped.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// What kind of key is certified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ecdsa,
    Rsa,
    /// ECDSA, and over since long.
    Expired,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Authority");
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The authority's own certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// Certifies a fresh key for these names; the subject's common name is `stem`.
    pub(crate) fn issue(&self, stem: &str, names: &[&str], kind: Kind) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, stem);
        if kind == Kind::Expired {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = match kind {
            Kind::Rsa => KeyPair::try_from(&PrivateKeyDer::Pkcs8(rsa().into())).unwrap(),
            _ => KeyPair::generate().unwrap(),
        };
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = CertificateFiles {
            cert: self.path(&format!("{stem}.pem")),
            key: self.path(&format!("{stem}.key")),
        };
        let chain = format!("{}{}", certificate.pem(), self.issuer.pem());
        std::fs::write(&files.cert, chain).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

/// The section of a listener that shows these certificates and has no other wishes.
pub(crate) fn section(certificates: Vec<CertificateFiles>) -> Tls {
    Tls {
        certificates,
        unknown_name: UnknownName::Default,
        alpn: Vec::new(),
        client_ca: None,
        client_headers: None,
        ticket_keys: None,
        key_log: false,
        handshakes_in_flight: 256,
        handshakes_per_second: 0,
    }
}

/// What a test client shows: the chain and key of these files.
pub(crate) fn shown(
    files: &CertificateFiles,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    use rustls::pki_types::pem::PemObject;
    let chain = certificates(&files.cert).unwrap();
    (chain, PrivateKeyDer::from_pem_file(&files.key).unwrap())
}

/// One RSA key for all tests: making one takes long.
fn rsa() -> Vec<u8> {
    static KEY: OnceLock<Vec<u8>> = OnceLock::new();
    let make = || {
        let key = RsaKey::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
        der.as_ref().to_vec()
    };
    KEY.get_or_init(make).clone()
}
