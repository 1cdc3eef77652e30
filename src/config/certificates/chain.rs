//! One certificate chain and its key, read and proven to belong together.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::Error;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Problem, Shown, provider, read};
use crate::config::plan::CertificateFiles;

/// A certificate chain with its private key, proven to match, and what of it is shown to operators.
#[derive(Debug)]
pub(super) struct Chain {
    pub key: Arc<CertifiedKey>,
    pub shown: Shown,
}

impl Chain {
    /// Reads both files. Faults that make the pair useless are errors; what a client might merely
    /// object to goes to `warnings`.
    pub fn load(files: &CertificateFiles, warnings: &mut Vec<Problem>) -> Result<Self, Problem> {
        let path = &files.cert;
        let certificates = certificates(path)?;
        let key = read(&files.key)?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| {
            Problem::new(&files.key, error, "a PEM private key (PKCS#8, PKCS#1 or SEC1) is needed")
        })?;
        let key = provider().key_provider.load_private_key(key).map_err(|error| {
            Problem::new(&files.key, error, "use an ECDSA, Ed25519 or RSA (2048 bits or more) key")
        })?;
        let certified = CertifiedKey::new(certificates, key);
        certified.keys_match().map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                let remedy = "give the private key of the chain's first certificate";
                Problem::new(&files.key, error, remedy)
            }
            error => Problem::new(path, error, "an X.509 version 3 certificate is needed"),
        })?;
        let shown = shown(path, &certified.cert, warnings)?;
        Ok(Self { key: Arc::new(certified), shown })
    }
}

/// All certificates of a PEM file; at least one.
pub(super) fn certificates(
    path: &std::path::Path,
) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let remedy = "a PEM file of certificates is needed";
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(list) if list.is_empty() => Err(Problem::new(path, "no certificate in it", remedy)),
        Ok(list) => Ok(list),
        Err(error) => Err(Problem::new(path, error, remedy)),
    }
}

/// Parses the whole chain: names and dates of its first certificate, warnings about all of it.
fn shown(
    path: &std::path::Path,
    chain: &[CertificateDer<'_>],
    warnings: &mut Vec<Problem>,
) -> Result<Shown, Problem> {
    let mut parsed = Vec::with_capacity(chain.len());
    for (at, der) in chain.iter().enumerate() {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| {
            let what = format!("certificate {} does not parse ({error})", at + 1);
            Problem::new(path, what, "ask the issuer for a valid X.509 certificate")
        })?;
        parsed.push(certificate);
    }
    if parsed.windows(2).any(|pair| pair[0].issuer() != pair[1].subject()) {
        warnings.push(Problem::new(
            path,
            "the chain is out of order: a certificate is not followed by its issuer's",
            "order it: the server's own certificate, then each issuer in turn",
        ));
    }
    let now = now();
    for certificate in &parsed {
        let validity = certificate.validity();
        let subject = certificate.subject();
        if validity.not_after.timestamp() < now {
            let what = format!("{subject} expired on {}", validity.not_after);
            warnings.push(Problem::new(path, what, "renew it; clients refuse it"));
        } else if validity.not_before.timestamp() > now {
            let what = format!("{subject} is not valid before {}", validity.not_before);
            warnings.push(Problem::new(path, what, "check the clock and the certificate's dates"));
        }
    }
    let first = &parsed[0];
    Ok(Shown {
        file: path.to_owned(),
        names: names(first),
        not_before: first.validity().not_before.timestamp(),
        not_after: first.validity().not_after.timestamp(),
    })
}

/// The DNS names a certificate stands for, in lower case.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = alternative.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
