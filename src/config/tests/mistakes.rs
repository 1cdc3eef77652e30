//! Every mistake is named with its line, and none hides or invents another.

use std::io::Write;
use std::os::fd::AsRawFd;

use super::*;
use crate::config::certificates::authority::{Authority, Kind};

#[test]
fn six_mistakes_make_six_lines() {
    let text = r#"
[runtime]
workers = 0

[listeners.edge]
bnid = ["0.0.0.0:7000"]
mode = "l5"
pool = "chatt"

[pools.chat]
servers = ["10.0.0.1:9000", "10.0.0.2"]

[timeouts]
idle = 3600
"#;
    let problems = read(text).map(|_| ()).map_err(|problems| problems.to_string());
    let expected = [
        "3: runtime.workers: found the number 0; write a whole number from 1 to 1024, without \
         quotes",
        "6: listeners.edge.bnid: is not a known key; did you mean \"bind\"?",
        "7: listeners.edge.mode: found \"l5\"; allowed are \"l4\", \"l7\"; did you mean \"l4\"?",
        "8: listeners.edge.pool: there is no pool \"chatt\"; did you mean \"chat\"?",
        "11: pools.chat.servers[1]: \"10.0.0.2\" is no server address; write host:port, \
         [IPv6]:port or unix:/path",
        "14: timeouts.idle: found the number 3600; write a string such as \"5s\"",
    ];
    let expected = expected.map(|line| format!("/etc/sp/sp.toml:{line}")).join("\n");
    assert_eq!(problems, Err(expected));
}

#[test]
fn keys_of_the_other_mode_are_told_apart() {
    for (key, shown) in [
        ("ping = \"off\"", "ping"),
        ("http = {}", "http"),
        ("errors = \"json\"", "errors"),
        ("routes = [{ pool = \"chat\" }]", "routes"),
    ] {
        let text = MINIMAL.replace("mode = \"l4\"", &format!("mode = \"l4\"\n{key}"));
        let problems = bad(&text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].0, format!("5: listeners.edge.{shown}"));
        assert!(problems[0].1.contains("belongs to mode = \"l7\""));
    }
}

#[test]
fn one_slip_is_not_told_twice() {
    let listener = MINIMAL.split("[pools").next().unwrap_or_default();
    let pools = format!("pools.chat = [\"10.0.0.1:9000\"]\n{listener}");
    for (text, place) in [
        (MINIMAL.replace("[pools.chat]", "[pool.chat]"), "7: pool"),
        (pools, "1: pools"),
        (MINIMAL.replace("[listeners.edge]", "[listeners]"), "2: listeners"),
        (MINIMAL.replace("pool = \"chat\"", "pool = 7"), "5: listeners.edge.pool"),
        (MINIMAL.replace("mode = \"l4\"", "mode = 4"), "4: listeners.edge.mode"),
    ] {
        let places: Vec<String> = bad(&text).into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, [place], "{text}");
    }
}

#[test]
fn broken_syntax_does_not_hide_the_other_mistakes() {
    let text = MINIMAL.replace("mode = \"l4\"", "mode = l4").replace("[\"10.0.0.1:9000\"]", "[]");
    let places: Vec<String> = bad(&text).into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, ["4: listeners.edge.mode", "8: pools.chat.servers"]);
    let places: Vec<String> = bad("[listeners").into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, ["1: listeners"]);
    assert!(bad("")[0].1.starts_with("/etc/sp/sp.toml: there is no listener; add "));
}

#[test]
fn a_secret_is_not_shown_even_when_it_is_wrong() {
    for key in ["\"hush\"", "\"base64:hush!\"", "7777", "[\"hush\"]"] {
        let text = format!("{MINIMAL}sticky = {{ cookie = \"c\", key = {key} }}");
        for (_, text) in bad(&text) {
            assert!(!text.contains("hush") && !text.contains("7777"), "{text}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_like_any_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let tickets = Tickets::default();
    let missing = folder.path().join("none.toml");
    let problems = load(&missing, &tickets).map(|_| ()).map_err(|problems| problems.to_string());
    assert!(problems.is_err_and(|text| text.contains("none.toml: cannot be read: ")));
    assert!(load(folder.path(), &tickets).is_err());
    let latin = folder.path().join("latin.toml");
    std::fs::write(&latin, b"# caf\xe9").expect("written");
    let problems = load(&latin, &tickets).map(|_| ()).map_err(|problems| problems.to_string());
    assert!(problems.is_err_and(|text| text.contains("byte 5 is not UTF-8")));
    let file = folder.path().join("good.toml");
    std::fs::write(&file, MINIMAL).expect("written");
    assert!(load(&file, &tickets).is_ok());
}

#[test]
fn a_configuration_may_come_through_a_pipe() {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    writer.write_all(MINIMAL.as_bytes()).expect("written");
    drop(writer);
    // As a shell hands over what stands in <(…).
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let loaded = load(Path::new(&path), &Tickets::default());
    assert!(loaded.is_ok(), "{loaded:?}");
}

#[test]
fn what_is_wrong_with_a_named_file_is_told_where_it_is_named_beside_all_else() {
    let authority = Authority::new();
    authority.issue("web", &["web.example"], Kind::Ecdsa);
    authority.issue("other", &["other.example"], Kind::Ecdsa);
    std::fs::write(authority.path("tickets"), "no secret\n").expect("written");
    let text = r#"
[listeners.web]
bind = ["0.0.0.0:8443"]
mode = "l5"
tls.ticket_keys = "tickets"
tls.certificates = [
    { cert = "web.pem", key = "web.key" },
    { cert = "missing.pem", key = "web.key" },
    { cert = "web.pem", key = "other.key" },
]
[pools.p]
servers = ["10.0.0.1:1"]
tls.ca = "tickets"
"#;
    let file = authority.path("sp.toml");
    std::fs::write(&file, text).expect("written");
    let Err(Problems(problems)) = load(&file, &Tickets::default()) else { panic!("it is bad") };
    let told: Vec<String> = problems.iter().map(|it| format!("{}: {}", it.line, it.key)).collect();
    let expected = [
        "4: listeners.web.mode",
        "5: listeners.web.tls.ticket_keys",
        "8: listeners.web.tls.certificates[1].cert",
        "9: listeners.web.tls.certificates[2].key",
        "13: pools.p.tls.ca",
    ];
    assert_eq!(told, expected, "{problems:?}");
    let said = problems[3].to_string();
    assert!(said.contains("sp.toml:9: listeners.web.tls.certificates[2].key: "), "{said}");
    assert!(said.contains("other.key: is not the key of the first certificate in "), "{said}");
}

#[test]
fn a_warning_about_a_named_file_has_its_place_too() {
    let authority = Authority::new();
    authority.issue("old", &["old.example"], Kind::Expired);
    let tls = "tls.certificates = [{ cert = \"old.pem\", key = \"old.key\" }]\n";
    let file = authority.path("sp.toml");
    std::fs::write(&file, MINIMAL.replace("[pools", &format!("{tls}[pools"))).expect("written");
    let loaded = load(&file, &Tickets::default()).unwrap_or_else(|all| panic!("{all}"));
    let warning = loaded.warnings.iter().find(|it| it.message.contains("expired on"));
    let key = warning.map(|it| (it.line, it.key.as_str()));
    assert_eq!(key, Some((7, "listeners.edge.tls.certificates[0].cert")));
    assert_eq!(loaded.contexts.from_client.len(), 1);
}
