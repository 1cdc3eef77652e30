//! Session tickets: sealed by keys that all cores share and that outlive a reload. Without a file
//! the keys are random, turn over every six hours and never leave the process; with
//! `ticket_keys` a fleet opens each other's tickets.
//!
//! The file holds one secret a line, base64 of 32 to 128 bytes (`openssl rand -base64 48`); empty
//! lines and lines with `#` are skipped. The first secret seals, all of them open. To change
//! secrets without losing a resumption: add the new one as second line everywhere, then move it
//! to the front, then remove the old. A raw file of 48 or 80 bytes is taken as a single secret.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{aead, digest, hkdf, rand};
use base64::Engine;
use rustls::pki_types::CertificateDer;
use rustls::server::ProducesTickets;
use zeroize::{Zeroize, Zeroizing};

use super::{Problem, read};

/// Keeps the random keys of a process from one load of the configuration to the next.
#[derive(Debug, Default)]
pub struct Tickets {
    random: Mutex<HashMap<Purpose, Arc<dyn ProducesTickets>>>,
}

/// Under which check of client certificates a session began. A client must not use a ticket to pass
/// a check that the listener which gave the ticket did not make.
pub(super) type Purpose = [u8; 32];

/// The purpose of a listener's sessions.
pub(super) fn purpose(client_ca: Option<(&[CertificateDer<'_>], bool)>) -> Purpose {
    let mut hash = digest::Context::new(&digest::SHA256);
    if let Some((authorities, required)) = client_ca {
        hash.update(if required { b"required" } else { b"optional" });
        for authority in authorities {
            hash.update(digest::digest(&digest::SHA256, authority).as_ref());
        }
    }
    let mut purpose = [0; 32];
    purpose.copy_from_slice(hash.finish().as_ref());
    purpose
}

impl Tickets {
    /// The maker of a listener's tickets.
    pub(super) fn maker(
        &self,
        file: Option<&Path>,
        purpose: Purpose,
    ) -> Result<Arc<dyn ProducesTickets>, Problem> {
        if let Some(file) = file {
            let secrets = secrets(file)?;
            return Ok(Arc::new(Fleet::new(&secrets, &purpose)));
        }
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(maker) = random.get(&purpose) {
            return Ok(maker.clone());
        }
        let maker = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| {
            Problem::new(Path::new("tickets"), error, "the system's random source is needed")
        })?;
        random.insert(purpose, maker.clone());
        Ok(maker)
    }
}

/// The secrets of a `ticket_keys` file, in order.
fn secrets(file: &Path) -> Result<Vec<Zeroizing<Vec<u8>>>, Problem> {
    let remedy = "write one base64 secret of 32 to 128 bytes a line (openssl rand -base64 48)";
    let bytes = Zeroizing::new(read(file)?);
    let text = std::str::from_utf8(&bytes).ok().filter(|text| text.is_ascii());
    let Some(text) = text else {
        return match bytes.len() {
            48 | 80 => Ok(vec![bytes]),
            _ => Err(Problem::new(file, "neither text nor a raw key of 48 or 80 bytes", remedy)),
        };
    };
    let mut secrets = Vec::new();
    for (number, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let secret = base64::engine::general_purpose::STANDARD.decode(line).map(Zeroizing::new);
        match secret {
            Ok(secret) if (SECRET_MIN..=SECRET_MAX).contains(&secret.len()) => secrets.push(secret),
            _ => {
                let what = format!("line {} is not a base64 secret", number + 1);
                return Err(Problem::new(file, what, remedy));
            }
        }
    }
    if secrets.is_empty() {
        return Err(Problem::new(file, "no secret in it", remedy));
    }
    Ok(secrets)
}

/// Tickets under shared secrets: name (16), salt (32), then time and session sealed by AES-256-GCM
/// under a key of their own, derived from secret and salt; so no nonce is ever used twice, however
/// many machines seal.
struct Fleet {
    keys: Vec<Key>,
}

struct Key {
    name: [u8; NAME],
    seal: hkdf::Prk,
}

impl Fleet {
    fn new(secrets: &[Zeroizing<Vec<u8>>], purpose: &Purpose) -> Self {
        let key = |secret: &Zeroizing<Vec<u8>>| {
            let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, purpose).extract(secret);
            let mut name = [0; NAME];
            derive(&prk, &[b"standpipe ticket name"], &mut name);
            Key { name, seal: prk }
        };
        Self { keys: secrets.iter().map(key).collect() }
    }

    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut salt = [0; SALT];
        rand::fill(&mut salt).ok()?;
        let mut ticket = Vec::with_capacity(NAME + SALT + TIME + plain.len() + TAG);
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(&salt);
        ticket.extend_from_slice(&now.to_be_bytes());
        ticket.extend_from_slice(plain);
        let (cipher, nonce) = key.cipher(&salt)?;
        let (head, body) = ticket.split_at_mut(NAME + SALT);
        let aad = aead::Aad::from(&*head);
        let tag = cipher.seal_in_place_separate_tag(nonce, aad, body).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (head, sealed) = ticket.split_at_checked(NAME + SALT)?;
        let (name, salt) = head.split_at(NAME);
        let key = self.keys.iter().find(|key| key.name == name)?;
        let (cipher, nonce) = key.cipher(salt)?;
        let mut body = sealed.to_vec();
        let plain = cipher.open_in_place(nonce, aead::Aad::from(head), &mut body).ok()?;
        let (time, plain) = plain.split_first_chunk::<TIME>()?;
        let age = now.saturating_sub(u64::from_be_bytes(*time));
        (age <= LIFETIME.as_secs()).then(|| plain.to_vec())
    }
}

impl Key {
    fn cipher(&self, salt: &[u8]) -> Option<(aead::LessSafeKey, aead::Nonce)> {
        let mut material = [0; 32 + 12];
        derive(&self.seal, &[b"standpipe ticket", salt], &mut material);
        let (key, nonce) = material.split_at(32);
        let cipher = aead::UnboundKey::new(&aead::AES_256_GCM, key).ok()?;
        let nonce = aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
        material.zeroize();
        Some((aead::LessSafeKey::new(cipher), nonce))
    }
}

impl ProducesTickets for Fleet {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, now())
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fleet({} keys)", self.keys.len())
    }
}

fn derive(prk: &hkdf::Prk, info: &[&[u8]], out: &mut [u8]) {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    prk.expand(info, Length(out.len()))
        .and_then(|material| material.fill(out))
        .expect("far fewer bytes than HKDF can give");
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

const NAME: usize = 16;
const SALT: usize = 32;
const TIME: usize = 8;
const TAG: usize = 16;
const SECRET_MIN: usize = 32;
const SECRET_MAX: usize = 128;
/// A reconnect after a working day still resumes; a ticket found a week later opens nothing.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(secrets: &[u8], purpose: u8) -> Fleet {
        let secrets: Vec<_> = secrets.iter().map(|s| Zeroizing::new(vec![*s; 48])).collect();
        Fleet::new(&secrets, &[purpose; 32])
    }

    #[test]
    fn the_first_secret_seals_and_all_open() {
        let (old, both, new) = (fleet(b"a", 0), fleet(b"ba", 0), fleet(b"b", 0));
        let ticket = old.seal(b"session", 1000).unwrap();
        assert_eq!(both.open(&ticket, 1001).unwrap(), b"session");
        assert_eq!(new.open(&ticket, 1001), None);
        let ticket = both.seal(b"session", 1000).unwrap();
        assert_eq!(new.open(&ticket, 1000).unwrap(), b"session");
        assert_eq!(old.open(&ticket, 1000), None);
    }

    #[test]
    fn a_ticket_opens_only_whole_young_and_for_its_purpose() {
        let ours = fleet(b"a", 0);
        let ticket = ours.seal(b"session", 1000).unwrap();
        assert_ne!(ticket, ours.seal(b"session", 1000).unwrap());
        assert_eq!(fleet(b"a", 1).open(&ticket, 1000), None);
        assert_eq!(ours.open(&ticket, 1000 + 12 * 3600).unwrap(), b"session");
        assert_eq!(ours.open(&ticket, 1001 + 12 * 3600), None);
        for cut in 0..ticket.len() {
            assert_eq!(ours.open(&ticket[..cut], 1000), None);
        }
        for at in 0..ticket.len() {
            let mut bad = ticket.clone();
            bad[at] ^= 0x10;
            assert_eq!(ours.open(&bad, 1000), None);
        }
    }

    #[test]
    fn files_are_lines_of_base64_or_one_raw_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = base64::engine::general_purpose::STANDARD.encode([7; 48]);
        let two = format!("# fleet\n\n{line}\n  {line}  \n");
        let cases: &[(&[u8], Option<usize>)] = &[
            (two.as_bytes(), Some(2)),
            (&[0xff; 48], Some(1)),
            (&[0x80; 80], Some(1)),
            (&[0xff; 47], None),
            (b"", None),
            (b"short\n", None),
            (b"c2hvcnQ=\n", None),
        ];
        for (bytes, expected) in cases {
            std::fs::write(file.path(), bytes).unwrap();
            assert_eq!(secrets(file.path()).ok().map(|s| s.len()), *expected);
        }
        assert!(secrets(Path::new("/nowhere")).unwrap_err().to_string().contains("check the path"));
    }

    #[test]
    fn random_keys_outlive_a_reload_and_differ_by_purpose() {
        let tickets = Tickets::default();
        let open = tickets.maker(None, purpose(None)).unwrap();
        let again = tickets.maker(None, purpose(None)).unwrap();
        let ticket = open.encrypt(b"session").unwrap();
        assert_eq!(again.decrypt(&ticket).unwrap(), b"session");
        let authority = CertificateDer::from(vec![1, 2, 3]);
        let list = [authority];
        let strict = tickets.maker(None, purpose(Some((&list, true)))).unwrap();
        let lax = tickets.maker(None, purpose(Some((&list, false)))).unwrap();
        assert_eq!(strict.decrypt(&ticket), None);
        assert_eq!(strict.decrypt(&lax.encrypt(b"session").unwrap()), None);
    }
}
