//! Why a PEM file holds nothing to use: the slips people make with certificates and keys, each with
//! the command that cures it. It looks at the marks between the sections, never at what they hold.

use std::path::Path;

use super::Problem;

/// What is looked for in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Certificates,
    Key,
}

/// From a BEGIN line to its END.
struct Section<'a> {
    label: &'a str,
    has_end: bool,
    is_encrypted: bool,
}

impl Section<'_> {
    fn is_key(&self) -> bool {
        self.label.ends_with("PRIVATE KEY")
    }

    fn is_certificate(&self) -> bool {
        self.label == "CERTIFICATE"
    }
}

/// What is evidently wrong with the file, if anything is.
pub(super) fn fault(path: &Path, bytes: &[u8], wanted: Wanted) -> Option<Problem> {
    let shown = path.display();
    let text = String::from_utf8_lossy(bytes);
    let all = sections(&text);
    if all.is_empty() && is_der(bytes) {
        let command = match wanted {
            Wanted::Certificates => "x509",
            Wanted::Key => "pkey",
        };
        let remedy = format!(
            "convert it with openssl: openssl {command} -inform der -in {shown} -out {shown}.pem"
        );
        return Some(Problem::new(path, "is DER, not PEM", remedy));
    }
    let fits = |section: &&Section<'_>| match wanted {
        Wanted::Certificates => section.is_certificate(),
        Wanted::Key => section.is_key(),
    };
    let ours: Vec<&Section<'_>> = all.iter().filter(fits).collect();
    match (wanted, ours.is_empty()) {
        (Wanted::Certificates, true) if all.iter().any(Section::is_key) => {
            let found = "holds a private key, not a certificate";
            let remedy = "name the file of the certificate here; have the two been swapped?";
            Some(Problem::new(path, found, remedy))
        }
        (Wanted::Key, true) if all.iter().any(Section::is_certificate) => {
            let found = "holds a certificate, not a private key";
            let remedy = "name the file of the private key here; have the two been swapped?";
            Some(Problem::new(path, found, remedy))
        }
        (_, true) => None,
        (Wanted::Certificates, false) if ours.iter().any(|section| !section.has_end) => {
            let remedy = "copy the whole file again";
            Some(Problem::new(path, "ends in the middle of a certificate", remedy))
        }
        (Wanted::Key, false) if ours.iter().all(|section| section.is_encrypted) => {
            let remedy = format!(
                "remove the passphrase: openssl pkey -in {shown} -out {shown}.plain, and name that"
            );
            Some(Problem::new(path, "is encrypted", remedy))
        }
        (Wanted::Key, false) if ours.iter().any(|section| !section.has_end) => {
            let remedy = "copy the whole file again";
            Some(Problem::new(path, "ends in the middle of a private key", remedy))
        }
        (_, false) => None,
    }
}

fn sections(text: &str) -> Vec<Section<'_>> {
    let mut all: Vec<Section<'_>> = Vec::new();
    for line in text.split(['\n', '\r']) {
        if let Some(label) = line.strip_prefix("-----BEGIN ") {
            let label = label.trim_end().trim_end_matches('-');
            let is_encrypted = label.starts_with("ENCRYPTED ");
            all.push(Section { label, has_end: false, is_encrypted });
        } else if let Some(open) = all.last_mut().filter(|section| !section.has_end) {
            open.has_end = line.starts_with("-----END ");
            // How a passphrase was told of before PKCS#8.
            open.is_encrypted |= line.starts_with("Proc-Type:") && line.contains("ENCRYPTED");
        }
    }
    all
}

/// One ASN.1 sequence, neither more nor less.
fn is_der(bytes: &[u8]) -> bool {
    let [0x30, first, rest @ ..] = bytes else { return false };
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let Some((length, rest)) = rest.split_at_checked(usize::from(first - 0x80)) else {
                return false;
            };
            (length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)), rest)
        }
        _ => return false,
    };
    length == rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERT: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";

    fn told(text: &str, wanted: Wanted) -> String {
        let fault = fault(Path::new("f"), text.as_bytes(), wanted);
        fault.map_or_else(String::new, |problem| problem.to_string())
    }

    #[test]
    fn each_slip_is_told_with_what_cures_it() {
        let sealed = KEY.replace("PRIVATE", "ENCRYPTED PRIVATE");
        let sealed_before = KEY.replace("PRIVATE", "EC PRIVATE");
        let sealed_before = sealed_before
            .replace("AA==", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAA==");
        let cut_chain = format!("{CERT}{}", &CERT[..40]);
        let hole = format!("{}\n{CERT}", &CERT[..32]);
        use Wanted::{Certificates, Key};
        for (text, wanted, words) in [
            (&*sealed, Key, "is encrypted; remove the passphrase: openssl pkey -in f -out f"),
            (&*sealed_before, Key, "is encrypted"),
            (&*cut_chain, Certificates, "ends in the middle of a certificate"),
            (&*hole, Certificates, "ends in the middle of a certificate"),
            (&KEY[..35], Key, "ends in the middle of a private key"),
            (CERT, Key, "holds a certificate, not a private key"),
            (KEY, Certificates, "holds a private key, not a certificate"),
            (&*sealed, Certificates, "holds a private key, not a certificate"),
        ] {
            let told = told(text, wanted);
            assert!(told.contains(words), "{told} has no {words}");
        }
    }

    #[test]
    fn what_is_good_or_strange_is_left_to_the_parser() {
        let both = format!("Bag Attributes\r\n{}{CERT}", KEY.replace('\n', "\r\n"));
        let with_sealed = format!("{}{KEY}", KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"));
        for text in [&*both, &*with_sealed, "", "nonsense", "-----BEGIN X-----\n"] {
            assert_eq!(told(text, Wanted::Key), "", "{text}");
        }
        assert_eq!(told(&both, Wanted::Certificates), "");
    }

    #[test]
    fn der_is_told_by_its_length() {
        let long = [&[0x30u8, 0x82, 0x01, 0x00][..], &[0; 256][..]].concat();
        for (bytes, is) in [
            (&[0x30, 2, 0, 0][..], true),
            (&long[..], true),
            (&long[..259], false),
            (&[0x30, 3, 0, 0][..], false),
            (&[0x30, 0x80, 0, 0][..], false),
            (&[0x30, 0x82, 0][..], false),
            (&b""[..], false),
            (&b"0 text"[..], false),
        ] {
            assert_eq!(is_der(bytes), is, "{bytes:?}");
        }
        let certificate = fault(Path::new("f"), &long, Wanted::Certificates).unwrap();
        assert!(certificate.to_string().contains("openssl x509 -inform der -in f -out f.pem"));
        let key = fault(Path::new("f"), &long, Wanted::Key).unwrap();
        assert!(key.to_string().contains("f: is DER, not PEM; convert it"), "{key}");
    }
}
