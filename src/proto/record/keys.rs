//! One direction's keys as plain data, wiped when dropped: what an idle side of a pipe keeps of
//! TLS. The cipher's own context is built from it for each burst.

use aws_lc_rs::{aead, hkdf};
use rustls::{CipherSuite, ConnectionTrafficSecrets};
use zeroize::Zeroize;

use super::crypt::{Opener, Sealer};
use super::{EXPLICIT_NONCE, Fault, HEADER, TAG};

/// The AEAD, and with it the hash that TLS 1.3 derives keys by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Suite {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Suite {
    /// The AEAD of a suite that rustls negotiated.
    pub fn of(suite: CipherSuite) -> Option<Self> {
        use CipherSuite as S;
        Some(match suite {
            S::TLS13_AES_128_GCM_SHA256
            | S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | S::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Self::Aes128Gcm,
            S::TLS13_AES_256_GCM_SHA384
            | S::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | S::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Self::Aes256Gcm,
            S::TLS13_CHACHA20_POLY1305_SHA256
            | S::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | S::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Self::ChaCha20Poly1305,
            _ => return None,
        })
    }

    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128Gcm => &aead::AES_128_GCM,
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    fn hkdf(self) -> hkdf::Algorithm {
        match self {
            Self::Aes256Gcm => hkdf::HKDF_SHA384,
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => hkdf::HKDF_SHA256,
        }
    }

    fn key_len(self) -> usize {
        if self == Self::Aes128Gcm { 16 } else { 32 }
    }

    fn secret_len(self) -> usize {
        if self == Self::Aes256Gcm { 48 } else { 32 }
    }

    /// Records one key may seal (RFC 8446 section 5.5 and the AEAD limits behind it).
    fn limit(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 1 << 24,
            Self::ChaCha20Poly1305 => SEQUENCE_LIMIT,
        }
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Version {
    Tls12,
    Tls13,
}

/// Everything one direction of one session is: about a hundred bytes.
pub struct Keys {
    sequence: u64,
    key: [u8; 32],
    /// The traffic secret the next key is derived from; all zero in TLS 1.2, which has none.
    secret: [u8; SECRET_MAX],
    iv: [u8; NONCE],
    suite: Suite,
    version: Version,
}

impl Keys {
    /// TLS 1.3: key and IV follow from the traffic secret.
    pub fn tls13(suite: Suite, secret: &[u8], sequence: u64) -> Option<Self> {
        if secret.len() != suite.secret_len() {
            return None;
        }
        let mut keys = Self {
            sequence,
            key: [0; 32],
            secret: [0; SECRET_MAX],
            iv: [0; NONCE],
            suite,
            version: Version::Tls13,
        };
        keys.secret[..secret.len()].copy_from_slice(secret);
        keys.derive()?;
        Some(keys)
    }

    /// TLS 1.2: key and IV cut from the key block. For AES-GCM the first four bytes of `iv` are
    /// the salt, and the explicit nonce of record n is the other eight XOR n, as rustls forms it:
    /// going on from rustls' sequence number therefore never repeats one.
    pub fn tls12(suite: Suite, key: &[u8], iv: [u8; NONCE], sequence: u64) -> Option<Self> {
        if key.len() != suite.key_len() {
            return None;
        }
        let mut keys = Self {
            sequence,
            key: [0; 32],
            secret: [0; SECRET_MAX],
            iv,
            suite,
            version: Version::Tls12,
        };
        keys.key[..key.len()].copy_from_slice(key);
        Some(keys)
    }

    /// TLS 1.2 keys as rustls hands them out.
    pub fn extracted(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Option<Self> {
        use ConnectionTrafficSecrets as Secrets;
        let (suite, key, iv) = match secrets {
            Secrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
            Secrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
            Secrets::Chacha20Poly1305 { key, iv } => (Suite::ChaCha20Poly1305, key, iv),
            _ => return None,
        };
        Self::tls12(suite, key.as_ref(), iv.as_ref().try_into().ok()?, sequence)
    }

    /// The cipher's context for a burst of records to open. It borrows the keys, so that no
    /// sequence number can be used twice.
    pub fn opener(&mut self) -> Opener<'_> {
        let cipher = self.cipher();
        Opener::new(self, cipher)
    }

    /// The cipher's context for a burst of records to seal.
    pub fn sealer(&mut self) -> Sealer<'_> {
        let cipher = self.cipher();
        Sealer::new(self, cipher)
    }

    /// Moves on to the next generation of a TLS 1.3 direction (RFC 8446 section 7.2).
    pub fn update(&mut self) -> Result<(), Fault> {
        if self.version != Version::Tls13 {
            return Err(Fault::UnexpectedMessage);
        }
        let len = self.suite.secret_len();
        let mut next = [0; SECRET_MAX];
        expand(self.suite, &self.secret[..len], b"traffic upd", &mut next[..len])
            .ok_or(Fault::Exhausted)?;
        self.secret = next;
        next.zeroize();
        self.sequence = 0;
        self.derive().ok_or(Fault::Exhausted)
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The number the next record will have.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Data records that may still be sealed before the key must change or the session end. Room
    /// for a KeyUpdate and an alert is kept back.
    pub fn records_left(&self) -> u64 {
        (self.suite.limit() - RESERVED).saturating_sub(self.sequence)
    }

    /// Bytes a sealed record has before its ciphertext.
    pub fn headroom(&self) -> usize {
        HEADER + self.explicit_nonce()
    }

    /// Bytes a sealed record has after the plaintext's own length.
    pub fn tailroom(&self) -> usize {
        TAG + usize::from(self.version == Version::Tls13)
    }

    pub(super) fn explicit_nonce(&self) -> usize {
        match (self.version, self.suite) {
            (Version::Tls12, Suite::Aes128Gcm | Suite::Aes256Gcm) => EXPLICIT_NONCE,
            _ => 0,
        }
    }

    pub(super) fn salt(&self) -> [u8; 4] {
        [self.iv[0], self.iv[1], self.iv[2], self.iv[3]]
    }

    /// The IV XOR the sequence number, right-aligned.
    pub(super) fn nonce(&self) -> [u8; NONCE] {
        let mut nonce = self.iv;
        for (byte, seq) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= seq;
        }
        nonce
    }

    /// The number of this record, if the key may be used once more. Counted by [`Self::advance`].
    pub(super) fn usable(&self, sealing: bool) -> Result<u64, Fault> {
        let limit = if sealing { self.suite.limit() } else { SEQUENCE_LIMIT };
        if self.sequence < limit { Ok(self.sequence) } else { Err(Fault::Exhausted) }
    }

    pub(super) fn advance(&mut self) {
        self.sequence += 1;
    }

    fn cipher(&self) -> aead::LessSafeKey {
        let key = &self.key[..self.suite.key_len()];
        let unbound = aead::UnboundKey::new(self.suite.algorithm(), key)
            .expect("a key of the suite's own length");
        aead::LessSafeKey::new(unbound)
    }

    fn derive(&mut self) -> Option<()> {
        let secret = &self.secret[..self.suite.secret_len()];
        expand(self.suite, secret, b"key", &mut self.key[..self.suite.key_len()])?;
        expand(self.suite, secret, b"iv", &mut self.iv)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.key.zeroize();
        self.secret.zeroize();
        self.iv.zeroize();
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("version", &self.version)
            .field("suite", &self.suite)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
fn expand(suite: Suite, secret: &[u8], label: &[u8], out: &mut [u8]) -> Option<()> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let size = (out.len() as u16).to_be_bytes();
    let prefix = [(b"tls13 ".len() + label.len()) as u8];
    let info = [&size[..], &prefix, b"tls13 ", label, &[0]];
    let prk = hkdf::Prk::new_less_safe(suite.hkdf(), secret);
    prk.expand(&info, Length(out.len())).ok()?.fill(out).ok()
}

pub(super) const NONCE: usize = 12;
const SECRET_MAX: usize = 48;
/// Far from the wrap, far beyond any life.
const SEQUENCE_LIMIT: u64 = u64::MAX - (1 << 16);
/// Records kept back at the end of a key's life for what must still be said.
const RESERVED: u64 = 64;

const _: () = assert!(size_of::<Keys>() <= 104);
