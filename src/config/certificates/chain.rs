//! One certificate chain and its key, read and proven to belong together.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::Error;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::pem::{Wanted, fault};
use super::{Part, Problem, Shown, provider, read};
use crate::config::plan::CertificateFiles;

/// A certificate chain with its private key, proven to match, and what of it is shown to operators.
#[derive(Debug)]
pub(super) struct Chain {
    pub key: Arc<CertifiedKey>,
    pub shown: Shown,
}

impl Chain {
    /// Reads both files of a section's `pair`. Faults that make it useless are errors; what a
    /// client might merely object to goes to `warnings`.
    pub fn load(
        files: &CertificateFiles,
        pair: usize,
        warnings: &mut Vec<Problem>,
    ) -> Result<Self, Vec<Problem>> {
        let (path, of_cert, of_key) = (&files.cert, Part::Certificate(pair), Part::Key(pair));
        let mut problems = Vec::new();
        let chain = certificates(path).map_err(|problem| problems.push(problem.of(of_cert)));
        let key = key(&files.key).map_err(|problem| problems.push(problem.of(of_key)));
        let (Ok(chain), Ok(key)) = (chain, key) else { return Err(problems) };
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                let what = format!("is not the key of the first certificate in {}", path.display());
                let remedy = "give the private key that this certificate was issued for";
                vec![Problem::new(&files.key, what, remedy).of(of_key)]
            }
            error => {
                let remedy = "an X.509 version 3 certificate is needed";
                vec![Problem::new(path, error, remedy).of(of_cert)]
            }
        })?;
        let mut said = Vec::new();
        let shown = shown(path, &certified.cert, &mut said);
        let shown = shown.map_err(|problem| vec![problem.of(of_cert)])?;
        warnings.extend(said.into_iter().map(|warning| warning.of(of_cert)));
        Ok(Self { key: Arc::new(certified), shown })
    }
}

/// The private key of a PEM file.
fn key(path: &std::path::Path) -> Result<Arc<dyn SigningKey>, Problem> {
    let text = read(path)?;
    if let Some(problem) = fault(path, &text, Wanted::Key) {
        return Err(problem);
    }
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        Problem::new(path, error, "a PEM private key (PKCS#8, PKCS#1 or SEC1) is needed")
    })?;
    provider().key_provider.load_private_key(key).map_err(|error| {
        Problem::new(path, error, "use an ECDSA, Ed25519 or RSA (2048 bits or more) key")
    })
}

/// All certificates of a PEM file; at least one.
pub(super) fn certificates(
    path: &std::path::Path,
) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let remedy = "a PEM file of certificates is needed";
    let text = read(path)?;
    if let Some(problem) = fault(path, &text, Wanted::Certificates) {
        return Err(problem);
    }
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
