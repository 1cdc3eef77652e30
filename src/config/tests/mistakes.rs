//! Every mistake is named with its line, and none hides or invents another.

use super::*;

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

/// One change to a good file, one problem: at this line and key, with these words.
#[test]
fn each_mistake_is_told_once_where_it_stands() {
    let l7 = r#"[listeners.web]
bind = ["0.0.0.0:80"]
mode = "l7"
tls = { certificates = [{ cert = "c", key = "k" }] }
routes = [
    { path = "/chat", pool = "chat" },
    { path = "/live", pool = "chat" },
]
[pools.chat]
sticky = { cookie = "c", key = "sixteen bytes and more" }
servers = ["10.0.0.1:9000"]
tls = {}
"#;
    good(l7);
    for (from, to, place, words) in [
        ("[listeners.web]", "[listener.web]", "1: listener", "did you mean \"listeners\"?"),
        ("[listeners.web]", "[listeners.\"a b\"]", "1: listeners.\"a b\"", "1 to 64 letters"),
        ("bind = [\"0.0.0.0:80\"]", "bind = []", "2: listeners.web.bind", "is empty"),
        ("bind = [\"0.0.0.0:80\"]", "bind = 80", "2: listeners.web.bind", "write a list"),
        ("bind = [\"0.0.0.0:80\"]", "", "1: listeners.web.bind", "is missing"),
        ("0.0.0.0:80", "0.0.0.0", "2: listeners.web.bind[0]", "0.0.0.0:8443"),
        ("0.0.0.0:80", "0.0.0.0:0", "2: listeners.web.bind[0]", "port"),
        ("0.0.0.0:80", "localhost:80", "2: listeners.web.bind[0]", "IP address"),
        (
            "0.0.0.0:80\"",
            "0.0.0.0:80\", \"0.0.0.0:80\"",
            "2: listeners.web.bind[1]",
            "already bound",
        ),
        ("0.0.0.0:80", "127.0.0.1:9901", "", ""),
        ("mode = \"l7\"", "", "1: listeners.web.mode", "is missing"),
        ("mode = \"l7\"", "mode = \"l7\"\npool = \"chat\"", "4: listeners.web.pool", "\"l4\""),
        (
            "mode = \"l7\"",
            "mode = \"l7\"\nmax_connections = -1",
            "4: listeners.web.max_connections",
            "whole number",
        ),
        (
            "mode = \"l7\"",
            "mode = \"l7\"\naccept_proxy = \"v1\"",
            "4: listeners.web.accept_proxy",
            "trusted",
        ),
        (
            "mode = \"l7\"",
            "mode = \"l7\"\naccept_proxy = \"v3\"",
            "4: listeners.web.accept_proxy",
            "\"v2\", \"any\"",
        ),
        (
            "mode = \"l7\"",
            "mode = \"l7\"\ntrusted = [\"10.0.0.0/33\"]",
            "4: listeners.web.trusted[0]",
            "10.0.0.0/8",
        ),
        (
            "mode = \"l7\"",
            "mode = \"l7\"\nping = { every = \"1ms\" }",
            "4: listeners.web.ping.every",
            "\"100ms\"",
        ),
        (
            "mode = \"l7\"",
            "mode = \"l7\"\nhttp = { head = \"2KiB\" }",
            "4: listeners.web.http",
            "target",
        ),
        (
            "mode = \"l7\"",
            "mode = \"l7\"\nhttp = { head = 4096 }",
            "4: listeners.web.http.head",
            "64KiB",
        ),
        (
            "mode = \"l7\"",
            "mode = \"l7\"\nhttp = { head = \"1GiB\" }",
            "4: listeners.web.http.head",
            "256KiB",
        ),
        (
            "cert = \"c\"",
            "cert = \"missing.pem\"",
            "4: listeners.web.tls.certificates[0].cert",
            "/etc/sp/missing.pem",
        ),
        ("cert = \"c\", ", "", "4: listeners.web.tls.certificates[0].cert", "is missing"),
        (
            "{ certificates",
            "{ certificate",
            "4: listeners.web.tls.certificate",
            "\"certificates\"?",
        ),
        ("[{ cert = \"c\", key = \"k\" }]", "[]", "4: listeners.web.tls.certificates", "is empty"),
        (
            "tls = { cert",
            "tls = { alpn = [\"h2\"], cert",
            "4: listeners.web.tls.alpn[0]",
            "not spoken",
        ),
        (
            "tls = { cert",
            "tls = { client_ca = {}, cert",
            "4: listeners.web.tls.client_ca.file",
            "is missing",
        ),
        (
            "tls = { cert",
            "tls = { client_headers = {}, cert",
            "4: listeners.web.tls.client_headers",
            "client_ca",
        ),
        (
            "tls = { cert",
            "tls = { key_log = \"yes\", cert",
            "4: listeners.web.tls.key_log",
            "true or false",
        ),
        ("path = \"/live\"", "path = \"live\"", "7: listeners.web.routes[1].path", "'/'"),
        ("path = \"/live\"", "path = \"/a/../b\"", "7: listeners.web.routes[1].path", "segment"),
        ("path = \"/live\"", "path = \"/chat/\"", "7: listeners.web.routes[1]", "line 6"),
        ("path = \"/live\"", "host = \"a:80\"", "7: listeners.web.routes[1].host", "port"),
        (
            "path = \"/live\"",
            "path = \"/live\", hots = \"a\"",
            "7: listeners.web.routes[1].hots",
            "\"host\"?",
        ),
        (
            "path = \"/live\"",
            "path = \"/x\", header = { \"a b\" = \"1\" }",
            "7: listeners.web.routes[1].header.\"a b\"",
            "header name",
        ),
        (
            "path = \"/live\"",
            "path = \"/x\", origins = [\"a.org\"]",
            "7: listeners.web.routes[1].origins[0]",
            "https://host",
        ),
        (
            "path = \"/live\"",
            "path = \"/x\", relay = \"bytes\", max_frame = \"1KiB\"",
            "7: listeners.web.routes[1].max_frame",
            "relay",
        ),
        (
            "path = \"/live\", pool = \"chat\"",
            "path = \"/live\"",
            "7: listeners.web.routes[1].pool",
            "split",
        ),
        (
            "path = \"/live\", pool",
            "path = \"/live\", split = { chat = 1 }, pool",
            "7: listeners.web.routes[1].split",
            "beside pool",
        ),
        (
            "\"/live\", pool = \"chat\"",
            "\"/live\", split = { chat = 0 }",
            "7: listeners.web.routes[1].split",
            "nothing",
        ),
        (
            "\"/live\", pool = \"chat\"",
            "\"/live\", split = { cat = 1 }",
            "7: listeners.web.routes[1].split.cat",
            "\"chat\"?",
        ),
        (
            "[pools.chat]",
            "[pools.chat]\nbalance = \"least-conns\"",
            "10: pools.chat.balance",
            "\"least-connections\"?",
        ),
        ("[pools.chat]", "[pools.chat]\nbounded = 2", "10: pools.chat.bounded", "source-hash"),
        (
            "[pools.chat]",
            "[pools.chat]\nbalance = \"source-hash\"\nbounded = 0.5",
            "11: pools.chat.bounded",
            "1.01",
        ),
        ("[pools.chat]", "[pools.chat]\nslow_start = \"5\"", "10: pools.chat.slow_start", "unit"),
        (
            "[pools.chat]",
            "[pools.chat]\nslow_start = \"5 days\"",
            "10: pools.chat.slow_start",
            "\"off\"",
        ),
        (
            "[pools.chat]",
            "[pools.chat]\ndrain = { rate = 1, window = \"1s\" }",
            "10: pools.chat.drain",
            "both",
        ),
        (
            "[pools.chat]",
            "[pools.chat]\nhealth = { http = \"x\" }",
            "10: pools.chat.health.http",
            "/healthz",
        ),
        (
            "[pools.chat]",
            "[pools.chat]\nsource = [\"eth0\"]",
            "10: pools.chat.source[0]",
            "IP addresses",
        ),
        ("sixteen bytes and more", "tiny", "10: pools.chat.sticky.key", "4 bytes"),
        ("sixteen bytes and more", "base64:!", "10: pools.chat.sticky.key", "base64"),
        (
            "key = \"sixteen",
            "key_file = \"x\", key = \"sixteen",
            "10: pools.chat.sticky.key_file",
            "beside",
        ),
        (
            "key = \"sixteen bytes and more\"",
            "key_file = \"missing\"",
            "10: pools.chat.sticky.key_file",
            "/etc/sp/missing",
        ),
        (
            "key = \"sixteen bytes and more\"",
            "key_file = \"short\"",
            "10: pools.chat.sticky.key_file",
            "5 bytes",
        ),
        ("cookie = \"c\"", "header = \"X\"", "10: pools.chat.sticky.key", "cookie"),
        (
            "cookie = \"c\", key",
            "cookie = \"c\", header = \"X\", key",
            "10: pools.chat.sticky",
            "two things",
        ),
        (
            "{ cookie = \"c\", key = \"sixteen bytes and more\" }",
            "{}",
            "10: pools.chat.sticky",
            "nothing",
        ),
        ("cookie = \"c\"", "cookie = \"a b\"", "10: pools.chat.sticky.cookie", "without spaces"),
        ("cookie = \"c\"", "cookie = \"c\", path = \"/;\"", "10: pools.chat.sticky.path", "';'"),
        (
            "cookie = \"c\"",
            "cookie = \"c\", secure = false, same_site = \"none\"",
            "10: pools.chat.sticky.same_site",
            "secure",
        ),
        ("[\"10.0.0.1:9000\"]", "[]", "11: pools.chat.servers", "is empty"),
        ("servers = [\"10.0.0.1:9000\"]", "", "9: pools.chat.servers", "is missing"),
        ("servers = ", "server = ", "11: pools.chat.server", "\"servers\"?"),
        ("\"10.0.0.1:9000\"", "{ weight = 1 }", "11: pools.chat.servers[0].address", "is missing"),
        (
            "\"10.0.0.1:9000\"",
            "{ address = \"a.b:1\", weight = 0 }",
            "11: pools.chat.servers[0].weight",
            "1 to 1000",
        ),
        ("10.0.0.1:9000", "nowhere.example.org:1", "11: pools.chat.servers[0]", "no such name"),
        ("10.0.0.1:9000", "empty.example.org:1", "11: pools.chat.servers[0]", "no address"),
        ("10.0.0.1:9000", "10.0.0.256:1", "11: pools.chat.servers[0]", "no server address"),
        ("10.0.0.1:9000", "10.0.0.1:0", "11: pools.chat.servers[0]", "port 0"),
        ("10.0.0.1:9000", "http://a:1", "11: pools.chat.servers[0]", "no server address"),
        (
            "10.0.0.1:9000\"",
            "10.0.0.1:9000\",\n \"10.0.0.1:9000\"",
            "12: pools.chat.servers[1]",
            "line 11",
        ),
        ("10.0.0.1:9000", "unix:", "11: pools.chat.servers[0]", "names no socket"),
        ("tls = {}", "tls = { ca = \"missing\" }", "12: pools.chat.tls.ca", "/etc/sp/missing"),
        (
            "tls = {}",
            "tls = { client_cert = \"c\" }",
            "12: pools.chat.tls.client_key",
            "is missing",
        ),
        (
            "tls = {}",
            "tls = { server_name = \"a b\" }",
            "12: pools.chat.tls.server_name",
            "host name",
        ),
        ("tls = {}", "tls = {}\nmode = 2020-01-01", "13: pools.chat.mode", "known here"),
        ("tls = {}", "tls = {}\ntls = {}", "13: pools.chat.tls", "duplicate"),
    ] {
        assert!(l7.contains(from), "{from}");
        let mut text = l7.replacen(from, to, 1);
        if place.is_empty() {
            // Good alone, wrong beside the default admin address once that is written out.
            text = format!("{text}[runtime]\nadmin = \"127.0.0.1:9901\"\n");
            assert!(bad(&text)[0].1.contains("already bound by runtime.admin"));
            continue;
        }
        let text = text.replace("a.b:1", "one.example.org:1");
        let problems = bad(&text);
        let places: Vec<&str> = problems.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, [place], "{to}\n{problems:?}");
        assert!(problems[0].1.contains(words), "{to}: {}", problems[0].1);
    }
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
    let missing = folder.path().join("none.toml");
    let problems = load(&missing).map(|_| ()).map_err(|problems| problems.to_string());
    assert!(problems.is_err_and(|text| text.contains("none.toml: cannot be read: ")));
    assert!(load(folder.path()).is_err());
    let latin = folder.path().join("latin.toml");
    std::fs::write(&latin, b"# caf\xe9").expect("written");
    let problems = load(&latin).map(|_| ()).map_err(|problems| problems.to_string());
    assert!(problems.is_err_and(|text| text.contains("byte 5 is not UTF-8")));
    let file = folder.path().join("good.toml");
    std::fs::write(&file, MINIMAL).expect("written");
    assert!(load(&file).is_ok());
}
