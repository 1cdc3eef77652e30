//! One change to a good file, one problem, with its line and key.

use super::*;

/// What is replaced, by what, where the problem is told, and words it is told with.
type Row = (&'static str, &'static str, &'static str, &'static str);

#[test]
fn each_slip_in_a_listener_is_told_once() {
    check(LISTENER);
}

#[test]
fn each_slip_in_a_route_is_told_once() {
    check(ROUTE);
}

#[test]
fn each_slip_in_a_pool_is_told_once() {
    check(POOL);
}

#[test]
fn a_word_for_workers_is_told_that_a_number_will_do() {
    let problems = bad(&format!("{GOOD}[runtime]\nworkers = \"two\"\n"));
    assert!(problems[0].1.contains("write \"cores\", or a number from 1"), "{problems:?}");
}

#[test]
fn the_admin_address_is_taken_as_well() {
    let text = GOOD.replace("0.0.0.0:80", "127.0.0.1:9901");
    good(&text);
    let problems = bad(&format!("{text}[runtime]\nadmin = \"127.0.0.1:9901\"\n"));
    assert!(problems[0].1.contains("already bound by runtime.admin"));
    let wide = text.replace("127.0.0.1:9901", "0.0.0.0:9901");
    let problems = bad(&format!("{wide}[runtime]\nadmin = \"127.0.0.1:9901\"\n"));
    assert!(problems[0].1.contains("127.0.0.1:9901 lies within 0.0.0.0:9901"), "{problems:?}");
    // Nor does another narrow one beside it hide that.
    let both = wide.replace("\"0.0.0.0:9901\"", "\"127.0.0.2:9901\", \"0.0.0.0:9901\"");
    for _ in 0..20 {
        let problems = bad(&format!("{both}[runtime]\nadmin = \"127.0.0.1:9901\"\n"));
        assert!(problems[0].1.contains("127.0.0.1:9901 lies within 0.0.0.0:9901"), "{problems:?}");
    }
}

#[test]
fn an_address_within_another_is_worth_a_second_look() {
    for (binds, warned) in [
        ("\"0.0.0.0:80\", \"127.0.0.1:80\"", true),
        ("\"[::1]:80\", \"[::]:80\"", true),
        ("\"0.0.0.0:80\", \"[::]:80\"", false),
        ("\"0.0.0.0:80\", \"127.0.0.1:81\"", false),
        ("\"127.0.0.1:80\", \"127.0.0.2:80\"", false),
    ] {
        let loaded = good(&GOOD.replace("\"0.0.0.0:80\"", binds));
        let said: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(said.iter().any(|line| line.contains("lies within")), warned, "{said:?}");
    }
}

#[test]
fn a_listener_that_would_serve_itself_is_a_mistake() {
    for (bind, server, circle) in [
        ("127.0.0.1:7000", "127.0.0.1:7000", true),
        ("0.0.0.0:7000", "127.0.0.1:7000", true),
        ("[::]:7000", "[::1]:7000", true),
        ("0.0.0.0:7000", "10.0.0.1:7000", false),
        ("127.0.0.1:7000", "[::ffff:127.0.0.1]:7000", true),
        ("127.0.0.1:7000", "0.0.0.0:7000", true),
        ("0.0.0.0:7000", "0.0.0.0:7000", true),
        ("[::1]:7000", "[::]:7000", true),
        ("127.0.0.2:7000", "127.0.0.1:7000", false),
        ("127.0.0.1:7000", "127.0.0.1:7001", false),
        ("[::1]:7000", "0.0.0.0:7000", false),
    ] {
        let text = MINIMAL.replace("0.0.0.0:7000", bind).replace("10.0.0.1:9000", server);
        match read(&text) {
            Ok(_) => assert!(!circle, "{bind} {server}"),
            Err(problems) => {
                let said = problems.to_string();
                assert!(circle && said.contains(":8: pools.chat.servers[0]: leads back"), "{said}");
            }
        }
    }
}

#[test]
fn a_circle_over_several_listeners_is_a_mistake_told_once() {
    let chain = |last: &str| {
        let listener = |name: &str, port: u16, pool: &str| {
            format!(
                "[listeners.{name}]\nbind = [\"127.0.0.1:{port}\"]\nmode = \"l4\"\n\
                 pool = \"{pool}\"\n"
            )
        };
        let pool = |name: &str, server: &str| {
            format!("[pools.{name}]\nservers = [\"10.0.0.1:1\", \"{server}\"]\n")
        };
        listener("one", 7001, "a")
            + &listener("two", 7002, "b")
            + &listener("three", 7003, "c")
            + &pool("a", "127.0.0.1:7002")
            + &pool("b", "127.0.0.1:7003")
            + &pool("c", last)
    };
    good(&chain("10.0.0.1:2"));
    let places = |text: &str| -> Vec<String> { bad(text).into_iter().map(|it| it.0).collect() };
    let whole = chain("0.0.0.0:7001");
    assert_eq!(places(&whole), ["14: pools.a.servers[1]"]);
    assert!(bad(&whole)[0].1.contains("leads to listeners.two, and from there back to this pool"));
    // The first listener only leads into this one.
    assert_eq!(places(&chain("127.0.0.1:7002")), ["16: pools.b.servers[1]"]);
    assert_eq!(places(&chain("127.0.0.1:7003")), ["18: pools.c.servers[1]"]);
}

#[test]
fn two_listeners_whose_routes_do_not_meet_are_no_circle() {
    let listener = |name: &str, port: u16, own: &str, other: &str| {
        format!(
            "[listeners.{name}]\nbind = [\"127.0.0.1:{port}\"]\nmode = \"l7\"\n\
             [[listeners.{name}.routes]]\npath = \"/{own}\"\npool = \"real\"\n\
             [[listeners.{name}.routes]]\npath = \"/{other}\"\npool = \"{other}\"\n\
             [pools.{other}]\nservers = [\"127.0.0.1:{}\"]\n",
            if port == 7001 { 7002 } else { 7001 }
        )
    };
    let real = "[pools.real]\nservers = [\"10.0.0.1:1\"]\n";
    good(&(listener("one", 7001, "a", "b") + &listener("two", 7002, "b", "a") + real));
}

#[test]
fn an_address_this_machine_does_not_have_is_worth_a_second_look() {
    let text = MINIMAL.replace("0.0.0.0:7000", "192.0.2.1:7000")
        + "source = [\"10.0.0.5\", \"192.0.2.2\"]\n[runtime]\nadmin = \"192.0.2.3:1\"\n";
    let warnings = good(&text).warnings;
    let told: Vec<(&str, &str)> = warnings
        .iter()
        .filter_map(|it| Some((&*it.key, it.message.strip_prefix(DOES_NOT_HAVE)?)))
        .collect();
    let expected = [
        ("listeners.edge.bind[0]", "192.0.2.1"),
        ("pools.chat.source[1]", "192.0.2.2"),
        ("runtime.admin", "192.0.2.3"),
    ];
    assert_eq!(told, expected);
}

const DOES_NOT_HAVE: &str = "this machine does not have the address ";

#[test]
fn a_pool_of_servers_that_all_drain_is_worth_a_second_look() {
    let draining = "{ address = \"10.0.0.1:9000\", drain = true }";
    let loaded = good(&MINIMAL.replace("\"10.0.0.1:9000\"", draining));
    assert!(loaded.warnings.iter().any(|it| it.to_string().contains("every server drains")));
}

#[test]
fn no_time_at_all_is_told_how_a_timeout_is_turned_off() {
    let problems = bad(&format!("{GOOD}[timeouts]\nidle = \"0s\"\n"));
    assert!(problems[0].1.contains("found \"0s\"; allowed is \"1ms\" to "), "{problems:?}");
    assert!(problems[0].1.ends_with(", or \"off\" to turn it off"), "{problems:?}");
}

#[test]
fn trusting_everyone_and_a_bound_that_never_counts_are_worth_a_second_look() {
    let doubtful =
        |text: &str, key: &str| good(text).warnings.iter().filter(|it| it.key == key).count();
    for (trusted, warned) in [("0.0.0.0/0", 1), ("::/0", 1), ("10.0.0.0/8", 0), ("0.0.0.0/32", 0)] {
        let text = GOOD.replace("mode =", &format!("trusted = [\"{trusted}\"]\nmode ="));
        assert_eq!(doubtful(&text, "listeners.web.trusted[0]"), warned, "{trusted}");
    }
    for (frame, message, warned) in [("2KiB", "1KiB", 1), ("1KiB", "1KiB", 0), ("2KiB", "0B", 0)] {
        let limits = format!("\"/live\", max_frame = \"{frame}\", max_message = \"{message}\"");
        let text = GOOD.replace("\"/live\"", &limits);
        assert_eq!(doubtful(&text, "listeners.web.routes[1].max_message"), warned, "{message}");
    }
}

#[test]
fn secrets_that_everybody_can_read_are_told() {
    let text = GOOD
        .replace("key = \"k\"", "key = \"exposed.key\"")
        .replace("{ certificates", "{ ticket_keys = \"exposed.tickets\", certificates")
        .replace("key = \"sixteen bytes and more\"", "key_file = \"exposed.sticky\"")
        .replace(
            "tls = {}",
            "tls = { client_cert = \"exposed.pem\", client_key = \"exposed.us\" }",
        );
    let loaded = good(&text);
    for (name, warned) in [("key", 1), ("tickets", 1), ("sticky", 1), ("us", 1), ("pem", 0)] {
        let told = format!("every user of this machine can read /etc/sp/exposed.{name};");
        let count = loaded.warnings.iter().filter(|it| it.to_string().contains(&told)).count();
        assert_eq!(count, warned, "{name}: {:?}", loaded.warnings);
    }
    let inline = parse(GOOD, Path::new("/etc/exposed.toml"), &Pretend).map(|it| it.warnings);
    let inline = inline.unwrap_or_else(|problems| panic!("{problems}"));
    assert!(inline.iter().any(|it| it.key == "pools.chat.sticky.key"), "{inline:?}");
}

fn check(rows: &[Row]) {
    good(GOOD);
    for (from, to, place, words) in rows {
        assert!(GOOD.contains(from), "{from}");
        let text = GOOD.replacen(from, to, 1).replace("a.b:1", "one.example.org:1");
        let problems = bad(&text);
        let places: Vec<&str> = problems.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, [*place], "{to}\n{problems:?}");
        assert!(problems[0].1.contains(words), "{to}: {}", problems[0].1);
    }
}

const GOOD: &str = r#"[listeners.web]
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

const LISTENER: &[Row] = &[
    ("[listeners.web]", "[listener.web]", "1: listener", "did you mean \"listeners\"?"),
    ("[listeners.web]", "[listeners.\"a b\"]", "1: listeners.\"a b\"", "1 to 64 letters"),
    ("bind = [\"0.0.0.0:80\"]", "bind = []", "2: listeners.web.bind", "is empty"),
    ("bind = [\"0.0.0.0:80\"]", "bind = 80", "2: listeners.web.bind", "write a list"),
    ("bind = [\"0.0.0.0:80\"]", "", "1: listeners.web.bind", "is missing"),
    ("0.0.0.0:80", "0.0.0.0", "2: listeners.web.bind[0]", "0.0.0.0:8443"),
    ("0.0.0.0:80", "0.0.0.0:0", "2: listeners.web.bind[0]", "port"),
    (
        "0.0.0.0:80",
        "[::ffff:127.0.0.1]:80",
        "2: listeners.web.bind[0]",
        "IPv6 only; write \"127.0.0.1:80\"",
    ),
    ("0.0.0.0:80", "239.0.0.1:80", "2: listeners.web.bind[0]", "an address of this one"),
    ("0.0.0.0:80", "[ff02::1]:80", "2: listeners.web.bind[0]", "an address of this one"),
    ("0.0.0.0:80", "255.255.255.255:80", "2: listeners.web.bind[0]", "an address of this one"),
    ("0.0.0.0:80", "localhost:80", "2: listeners.web.bind[0]", "IP address"),
    ("0.0.0.0:80\"", "0.0.0.0:80\", \"0.0.0.0:80\"", "2: listeners.web.bind[1]", "already bound"),
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
        "mode = \"l7\"\nping = \"25s\"",
        "4: listeners.web.ping",
        "write a table such as { every = \"25s\" }, or \"off\"",
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
    ("{ certificates", "{ certificate", "4: listeners.web.tls.certificate", "\"certificates\"?"),
    ("[{ cert = \"c\", key = \"k\" }]", "[]", "4: listeners.web.tls.certificates", "is empty"),
    ("tls = { cert", "tls = { alpn = [\"h2\"], cert", "4: listeners.web.tls.alpn[0]", "not spoken"),
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
        "tls = { client_ca = \"c\", client_headers = {}, cert",
        "4: listeners.web.tls.client_headers",
        "is empty",
    ),
    (
        "tls = { cert",
        "tls = { client_ca = \"c\", client_headers = { subject = \"Sec-WebSocket-Key\" }, cert",
        "4: listeners.web.tls.client_headers.subject",
        "a meaning of its own",
    ),
    (
        "tls = { cert",
        "tls = { client_ca = \"c\", client_headers = { subject = \"a b\" }, cert",
        "4: listeners.web.tls.client_headers.subject",
        "of your own",
    ),
    (
        "tls = { cert",
        "tls = { client_ca = \"c\", client_headers = { subject = \"X-A\", \
         fingerprint = \"x_a\" }, cert",
        "4: listeners.web.tls.client_headers.fingerprint",
        "header of the subject",
    ),
    (
        "tls = { cert",
        "tls = { key_log = \"yes\", cert",
        "4: listeners.web.tls.key_log",
        "true or false",
    ),
];

const ROUTE: &[Row] = &[
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
        "path = \"/x\", query = { \"\" = \"1\" }",
        "7: listeners.web.routes[1].query.\"\"",
        "is no parameter",
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
];

const POOL: &[Row] = &[
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
        "1 to 1000; who is to get no new clients says drain = true",
    ),
    (
        "10.0.0.1:9000\"",
        "10.0.0.9:9000\",\n \"one.example.org:9000\"",
        "12: pools.chat.servers[1]",
        "\"10.0.0.9:9000\" and \"one.example.org:9000\" are both 10.0.0.9:9000; see line 11",
    ),
    (
        "[pools.chat]",
        "[pools.chat]\nhealth = \"2s\"",
        "10: pools.chat.health",
        "write a table such as { every = \"2s\" }, or \"off\"",
    ),
    (
        "{ cookie = \"c\", key = \"sixteen bytes and more\" }",
        "{ query = \"\" }",
        "10: pools.chat.sticky.query",
        "name of a query parameter",
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
    ("tls = {}", "tls = { client_cert = \"c\" }", "12: pools.chat.tls.client_key", "is missing"),
    ("tls = {}", "tls = { server_name = \"a b\" }", "12: pools.chat.tls.server_name", "host name"),
    ("tls = {}", "tls = {}\nmode = 2020-01-01", "13: pools.chat.mode", "known here"),
    ("tls = {}", "tls = {}\ntls = {}", "13: pools.chat.tls", "duplicate"),
];
