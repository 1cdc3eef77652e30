//! Opening and sealing single records in place or from slice to slice, with a cipher context that
//! lives for one burst.

use std::ops::Range;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};

use super::keys::NONCE;
use super::{
    CIPHERTEXT_MAX, CIPHERTEXT_MAX_13, EXPLICIT_NONCE, Fault, HEADER, Keys, Kind, PLAIN_MAX, TAG,
    Version,
};

/// An opened record: what it was and where its plaintext lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    pub kind: Kind,
    pub plain: Range<usize>,
}

/// Opens records of one direction, each with the next sequence number.
pub struct Opener<'k> {
    keys: &'k mut Keys,
    cipher: LessSafeKey,
}

impl<'k> Opener<'k> {
    pub(super) fn new(keys: &'k mut Keys, cipher: LessSafeKey) -> Self {
        Self { keys, cipher }
    }

    /// Opens one whole record, header included, in place. A record that fails leaves its bytes
    /// undefined and the sequence where it was; the session is over then.
    pub fn open(&mut self, record: &mut [u8]) -> Result<Body, Fault> {
        let (head, body) = record.split_first_chunk_mut::<HEADER>().ok_or(Fault::DecodeError)?;
        if usize::from(u16::from_be_bytes([head[3], head[4]])) != body.len() {
            return Err(Fault::DecodeError);
        }
        let kind = Kind::from_byte(head[0]).ok_or(Fault::UnexpectedMessage)?;
        let sequence = self.keys.usable(false)?;
        let body = match self.keys.version() {
            Version::Tls13 => self.open13(kind, head, body),
            Version::Tls12 => self.open12(kind, head, body, sequence),
        }?;
        self.keys.advance();
        Ok(body)
    }

    /// The next record is opened with the next key.
    pub fn update(&mut self) -> Result<(), Fault> {
        self.keys.update()?;
        self.cipher = self.keys.opener().cipher;
        Ok(())
    }

    fn open13(&self, kind: Kind, head: &[u8; HEADER], body: &mut [u8]) -> Result<Body, Fault> {
        if kind != Kind::Data {
            // Nothing travels in the clear any more, not even a compatibility record.
            return Err(Fault::UnexpectedMessage);
        }
        if body.len() > CIPHERTEXT_MAX_13 {
            return Err(Fault::RecordOverflow);
        }
        let inner = self.decrypt(self.keys.nonce(), head, body)?;
        if inner.len() > PLAIN_MAX + 1 {
            return Err(Fault::RecordOverflow);
        }
        let last = inner.iter().rposition(|byte| *byte != 0).ok_or(Fault::UnexpectedMessage)?;
        let kind = Kind::from_byte(inner[last]).ok_or(Fault::UnexpectedMessage)?;
        Ok(Body { kind, plain: HEADER..HEADER + last })
    }

    fn open12(
        &self,
        kind: Kind,
        head: &[u8; HEADER],
        body: &mut [u8],
        sequence: u64,
    ) -> Result<Body, Fault> {
        let explicit = self.keys.explicit_nonce();
        if body.len() > CIPHERTEXT_MAX {
            return Err(Fault::RecordOverflow);
        }
        let Some(length) = body.len().checked_sub(explicit + TAG) else {
            return Err(Fault::BadRecordMac);
        };
        let (prefix, sealed) = body.split_at_mut(explicit);
        let mut nonce = self.keys.nonce();
        if explicit == EXPLICIT_NONCE {
            nonce[..4].copy_from_slice(&self.keys.salt());
            nonce[4..].copy_from_slice(prefix);
        }
        let inner = self.decrypt(nonce, &aad12(sequence, head, length), sealed)?;
        if inner.len() > PLAIN_MAX {
            return Err(Fault::RecordOverflow);
        }
        let start = HEADER + explicit;
        Ok(Body { kind, plain: start..start + length })
    }

    fn decrypt<'b>(
        &self,
        nonce: [u8; NONCE],
        aad: &[u8],
        sealed: &'b mut [u8],
    ) -> Result<&'b mut [u8], Fault> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.cipher.open_in_place(nonce, Aad::from(aad), sealed).map_err(|_| Fault::BadRecordMac)
    }
}

/// Seals records of one direction, each with the next sequence number.
pub struct Sealer<'k> {
    keys: &'k mut Keys,
    cipher: LessSafeKey,
}

impl<'k> Sealer<'k> {
    pub(super) fn new(keys: &'k mut Keys, cipher: LessSafeKey) -> Self {
        Self { keys, cipher }
    }

    /// Bytes the record of this much plaintext takes.
    pub fn sealed_len(&self, plain: usize) -> usize {
        self.keys.headroom() + plain + self.keys.tailroom()
    }

    /// See [`Keys::records_left`].
    pub fn records_left(&self) -> u64 {
        self.keys.records_left()
    }

    /// The next record is sealed with the next key.
    pub fn update(&mut self) -> Result<(), Fault> {
        self.keys.update()?;
        self.cipher = self.keys.sealer().cipher;
        Ok(())
    }

    /// Seals `plain` (at most [`PLAIN_MAX`] bytes) as one record at the front of `out`.
    pub fn seal(&mut self, kind: Kind, plain: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
        let total = self.sealed_len(plain.len());
        let out = out.get_mut(..total).ok_or(Fault::Room)?;
        let (nonce, aad, aad_len) = self.begin(kind, plain.len(), out)?;
        let (body, tail) = out[self.keys.headroom()..].split_at_mut(plain.len());
        let inner = [kind as u8];
        let inner = if self.keys.version() == Version::Tls13 { &inner[..] } else { &[] };
        self.cipher
            .seal_out_of_place_scatter(nonce, Aad::from(&aad[..aad_len]), plain, body, inner, tail)
            .map_err(|_| Fault::Exhausted)?;
        self.keys.advance();
        Ok(total)
    }

    #[cfg(test)]
    pub(super) fn cipher(&self) -> &LessSafeKey {
        &self.cipher
    }

    /// Writes the header (and the explicit nonce) into `out` and says what the cipher needs.
    fn begin(
        &self,
        kind: Kind,
        length: usize,
        out: &mut [u8],
    ) -> Result<(Nonce, [u8; AAD12], usize), Fault> {
        if length > PLAIN_MAX {
            return Err(Fault::RecordOverflow);
        }
        let sequence = self.keys.usable(true)?;
        let nonce = self.keys.nonce();
        let outer = if self.keys.version() == Version::Tls13 { Kind::Data } else { kind };
        let after = (out.len() - HEADER) as u16;
        let [high, low] = after.to_be_bytes();
        let head = [outer as u8, 3, 3, high, low];
        out[..HEADER].copy_from_slice(&head);
        let explicit = self.keys.explicit_nonce();
        out[HEADER..HEADER + explicit].copy_from_slice(&nonce[NONCE - explicit..]);
        let (aad, aad_len) = match self.keys.version() {
            Version::Tls12 => (aad12(sequence, &head, length), AAD12),
            Version::Tls13 => {
                let mut aad = [0; AAD12];
                aad[..HEADER].copy_from_slice(&head);
                (aad, HEADER)
            }
        };
        Ok((Nonce::assume_unique_for_key(nonce), aad, aad_len))
    }
}

/// TLS 1.2 authenticates sequence, type, version and the *plaintext's* length.
fn aad12(sequence: u64, head: &[u8; HEADER], length: usize) -> [u8; AAD12] {
    let mut aad = [0; AAD12];
    aad[..8].copy_from_slice(&sequence.to_be_bytes());
    aad[8..11].copy_from_slice(&head[..3]);
    aad[11..].copy_from_slice(&(length as u16).to_be_bytes());
    aad
}

const AAD12: usize = 13;
