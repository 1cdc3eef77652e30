//! Loading: what is refused, what is warned of, what is chosen.

use super::authority::{Authority, Kind, section};
use super::*;
use crate::config::plan::{CertificateFiles, ClientCa, Server, ServerAddress, ServerTls};

fn load(tls: &crate::config::plan::Tls) -> Result<Loaded<FromClient>, Vec<Problem>> {
    FromClient::load(tls, &Tickets::default())
}

#[test]
fn a_good_pair_is_loaded_with_its_names_and_dates() {
    let authority = Authority::new();
    let files = authority.issue("web", &["Chat.Example.org", "*.example.org"], Kind::Ecdsa);
    let loaded = load(&section(vec![files.clone()])).unwrap();
    assert_eq!(loaded.warnings, []);
    let [shown] = &loaded.value.certificates[..] else { panic!("one certificate") };
    assert_eq!(shown.file, files.cert);
    assert_eq!(shown.names, ["chat.example.org", "*.example.org"]);
    assert!(shown.not_before < shown.not_after);
    assert!(loaded.value.server.enable_secret_extraction);
    assert_eq!(loaded.value.server.max_early_data_size, 0);
}

#[test]
fn every_mistake_is_told_at_once() {
    let authority = Authority::new();
    let one = authority.issue("one", &["one.example"], Kind::Ecdsa);
    let two = authority.issue("two", &["two.example"], Kind::Ecdsa);
    std::fs::write(authority.path("empty.pem"), "").unwrap();
    std::fs::write(authority.path("keys.txt"), "not base64!").unwrap();
    let mut tls = section(vec![
        CertificateFiles { cert: one.cert.clone(), key: two.key },
        CertificateFiles { cert: authority.path("empty.pem"), key: one.key.clone() },
        CertificateFiles { cert: one.cert.clone(), key: one.cert },
        CertificateFiles { cert: authority.path("nowhere.pem"), key: one.key },
    ]);
    tls.client_ca = Some(ClientCa { file: authority.path("empty.pem"), required: true });
    tls.ticket_keys = Some(authority.path("keys.txt"));
    let problems = load(&tls).unwrap_err();
    let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
    let expected =
        ["two.key", "empty.pem: no certificate", "one.pem", "nowhere.pem", "empty.pem", "keys.txt"];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.contains(expected), "{told} has no {expected}");
    }
}

#[test]
fn a_device_and_a_file_without_end_are_refused_unread() {
    let authority = Authority::new();
    let one = authority.issue("one", &["one.example"], Kind::Ecdsa);
    let large = authority.path("large.pem");
    std::fs::write(&large, vec![b'\n'; (1 << 20) + 1]).unwrap();
    let linked = authority.path("linked.pem");
    std::os::unix::fs::symlink(&one.cert, &linked).unwrap();
    for (cert, words) in [
        (PathBuf::from("/dev/zero"), Some("not a regular file")),
        (authority.path(""), Some("is a directory")),
        (large, Some("larger than 1 MiB")),
        (linked, None),
    ] {
        let key = one.key.clone();
        let told = load(&section(vec![CertificateFiles { cert, key }]));
        let told = told.map(drop).map_err(|problems| problems[0].to_string());
        match words {
            None => assert_eq!(told, Ok(())),
            Some(words) => assert!(told.clone().is_err_and(|it| it.contains(words)), "{told:?}"),
        }
    }
}

#[test]
fn a_swapped_pair_is_told_on_both_sides() {
    let authority = Authority::new();
    let one = authority.issue("one", &["one.example"], Kind::Ecdsa);
    let swapped = CertificateFiles { cert: one.key.clone(), key: one.cert.clone() };
    let problems = load(&section(vec![swapped])).unwrap_err();
    let [cert, key] = &problems[..] else { panic!("two problems: {problems:?}") };
    assert_eq!((cert.part, &cert.file), (Part::Certificate(0), &one.key));
    assert!(cert.what.contains("holds a private key, not a certificate"), "{cert}");
    assert_eq!((key.part, &key.file), (Part::Key(0), &one.cert));
    assert!(key.what.contains("holds a certificate, not a private key"), "{key}");
}

#[test]
fn an_expired_or_disordered_chain_is_used_with_a_warning() {
    let authority = Authority::new();
    let old = authority.issue("old", &["old.example"], Kind::Expired);
    let loaded = load(&section(vec![old])).unwrap();
    let [warning] = &loaded.warnings[..] else { panic!("one warning: {:?}", loaded.warnings) };
    assert!(warning.to_string().contains("CN=old expired on Jan  1"), "{warning}");

    let files = authority.issue("web", &["web.example"], Kind::Ecdsa);
    let other = Authority::new().issue("other", &[], Kind::Ecdsa);
    let chain = std::fs::read_to_string(&files.cert).unwrap();
    let wrong = chain + &std::fs::read_to_string(&other.cert).unwrap_or_default();
    let own_twice = wrong.repeat(2);
    std::fs::write(&files.cert, own_twice).unwrap();
    let loaded = load(&section(vec![files])).unwrap();
    assert!(loaded.warnings[0].to_string().contains("out of order"));
}

fn servers(list: &[(&str, &str)]) -> Vec<Server> {
    let server = |(written, address): &(&str, &str)| Server {
        name: "name of its own:9000".into(),
        written: (*written).into(),
        address: match address.parse() {
            Ok(address) => ServerAddress::Inet(address),
            Err(_) => ServerAddress::Unix(address.into()),
        },
        weight: 1,
        max_connections: 0,
        draining: false,
    };
    list.iter().map(server).collect()
}

#[test]
fn servers_are_verified_by_configured_name_host_or_address() {
    let authority = Authority::new();
    let mut tls = ServerTls {
        ca: Some(authority.ca()),
        server_name: None,
        client_cert: Some(authority.issue("proxy", &[], Kind::Ecdsa)),
        insecure: false,
    };
    let list = servers(&[
        ("10.0.0.1:9000", "10.0.0.1:9000"),
        ("chat.internal:9000", "10.0.0.2:9000"),
        ("not a name:9000", "10.0.0.3:9000"),
        ("[2001:db8::2]:9000", "[2001:db8::2]:9000"),
    ]);
    let loaded = ToServer::load(&tls, &list).unwrap();
    let names: Vec<_> = loaded.value.names.iter().map(|name| name.to_str().to_string()).collect();
    let expected = ["10.0.0.1", "chat.internal", "10.0.0.3", "2001:db8::2"];
    assert_eq!(names, expected);
    assert!(loaded.value.client.enable_secret_extraction);

    let unix = servers(&[("/run/chat.sock", "/run/chat.sock")]);
    let problems = ToServer::load(&tls, &unix).unwrap_err();
    assert!(problems[0].to_string().contains("server_name"));
    tls.server_name = Some("chat.internal".into());
    assert_eq!(ToServer::load(&tls, &unix).unwrap().value.names.len(), 1);
    tls.server_name = Some("not a name".into());
    assert!(ToServer::load(&tls, &unix).is_err());
    tls.server_name = None;
    tls.insecure = true;
    tls.ca = Some("/nowhere".into());
    assert_eq!(ToServer::load(&tls, &list).unwrap().warnings, []);
    tls.insecure = false;
    assert!(ToServer::load(&tls, &list).is_err());
}
