//! The certificates of a listener by the names they stand for: an exact name first, then a
//! wildcard, then the default or a refusal. Several keys for one name stand side by side, and the
//! first that the client can use is taken.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SignatureAlgorithm};

use super::chain::Chain;
use super::heard::note;
use crate::config::plan::UnknownName;

/// Indices into the shelf's keys, cheapest to sign with first.
type Keys = Vec<usize>;

/// All certificates of one listener: rustls asks it which one a client is shown.
#[derive(Debug)]
pub(super) struct Shelf {
    keys: Vec<Arc<CertifiedKey>>,
    exact: HashMap<String, Keys>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, Keys>,
    /// Keys of the names of the first certificate.
    default: Keys,
    unknown_name: UnknownName,
}

impl Shelf {
    pub fn new(chains: &[Chain], unknown_name: UnknownName) -> Self {
        let mut shelf = Self {
            keys: chains.iter().map(|chain| chain.key.clone()).collect(),
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            default: Vec::new(),
            unknown_name,
        };
        for (index, chain) in chains.iter().enumerate() {
            for name in &chain.shown.names {
                let keys = match name.strip_prefix("*.") {
                    Some(rest) => shelf.wildcard.entry(rest.to_owned()).or_default(),
                    None => shelf.exact.entry(name.clone()).or_default(),
                };
                keys.push(index);
            }
        }
        let first = chains.first().map_or(&[][..], |chain| &chain.shown.names);
        shelf.default = (0..chains.len())
            .filter(|&index| {
                index == 0 || first.iter().any(|n| chains[index].shown.names.contains(n))
            })
            .collect();
        let cost = |index: &usize| algorithm(&shelf.keys[*index]) == SignatureAlgorithm::RSA;
        for keys in shelf.exact.values_mut().chain(shelf.wildcard.values_mut()) {
            keys.sort_by_key(cost);
        }
        shelf.default.sort_by_key(cost);
        shelf
    }

    /// The keys for a name, the exact ones first; `None` if it is refused.
    fn named(&self, name: Option<&str>) -> Option<[&[usize]; 2]> {
        let by_default = [&self.default[..], &[]];
        let Some(name) = name else { return Some(by_default) };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let exact = self.exact.get(&name).map_or(&[][..], Vec::as_slice);
        let wildcard = name.split_once('.').and_then(|(_, rest)| self.wildcard.get(rest));
        let wildcard = wildcard.map_or(&[][..], Vec::as_slice);
        match (exact.is_empty() && wildcard.is_empty(), self.unknown_name) {
            (false, _) => Some([exact, wildcard]),
            (true, UnknownName::Default) => Some(by_default),
            (true, UnknownName::Refuse) => None,
        }
    }
}

impl ResolvesServerCert for Shelf {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        note(|heard| heard.server_name = hello.server_name().map(str::to_owned));
        let Some(keys) = self.named(hello.server_name()) else {
            note(|heard| heard.unknown_name = true);
            return None;
        };
        let fits = keys
            .into_iter()
            .flatten()
            .map(|index| &self.keys[*index])
            .find(|key| fits(key, &hello));
        if fits.is_none() {
            note(|heard| heard.no_certificate = true);
        }
        fits.cloned()
    }
}

/// Whether the client can check this key's signatures, and offers a suite that uses them.
fn fits(key: &CertifiedKey, hello: &ClientHello<'_>) -> bool {
    if key.key.choose_scheme(hello.signature_schemes()).is_none() {
        return false;
    }
    let rsa = algorithm(key) == SignatureAlgorithm::RSA;
    hello.cipher_suites().iter().any(|suite| {
        use CipherSuite as S;
        match suite {
            S::TLS13_AES_128_GCM_SHA256
            | S::TLS13_AES_256_GCM_SHA384
            | S::TLS13_CHACHA20_POLY1305_SHA256 => true,
            S::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            | S::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
            | S::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => rsa,
            S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | S::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | S::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => !rsa,
            _ => false,
        }
    })
}

fn algorithm(key: &CertifiedKey) -> SignatureAlgorithm {
    key.key.algorithm()
}
