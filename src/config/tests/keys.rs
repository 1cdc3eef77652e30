//! Every key works, and has the default the reference states.

use std::time::Duration;

use super::*;
use crate::balance::Policy;
use crate::config::plan::*;

const REFERENCE: &str = include_str!("../../../config/reference.toml");

fn pool<'a>(plan: &'a Plan, name: &str) -> &'a Pool {
    plan.pools.iter().find(|pool| &*pool.name == name).expect("the pool is there")
}

fn listener<'a>(plan: &'a Plan, name: &str) -> &'a Listener {
    plan.listeners.iter().find(|it| &*it.name == name).expect("the listener is there")
}

fn l7(listener: &Listener) -> &L7 {
    match &listener.service {
        Service::L7(l7) => l7,
        Service::L4 { .. } => panic!("an l7 listener"),
    }
}

/// Keys of the file in the shape the reader asks for them.
fn shapes(value: &toml::Value, shape: &str, all: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let named = matches!(shape, "listeners" | "pools");
                let key = if named { "*" } else { key };
                let shape = if shape.is_empty() { key.into() } else { format!("{shape}.{key}") };
                shapes(value, &shape, all);
                all.insert(shape);
            }
        }
        toml::Value::Array(items) => {
            items.iter().for_each(|item| shapes(item, &format!("{shape}[]"), all));
        }
        _ => {}
    }
}

#[test]
fn the_reference_names_every_key_there_is() {
    let mut named = BTreeSet::new();
    let value: toml::Value = toml::from_str(REFERENCE).expect("TOML");
    shapes(&value, "", &mut named);
    let unnamed: Vec<String> = known(REFERENCE)
        .into_iter()
        .filter(|key| !named.contains(key) && !REFERENCE.contains(&alternative(key)))
        .collect();
    assert_eq!(unnamed, Vec::<String>::new());
}

/// `header` excludes `cookie` and `query`: it stands in a comment.
fn alternative(key: &str) -> String {
    format!("or {{ {} = \"", key.rsplit('.').next().unwrap_or_default())
}

#[test]
fn the_files_we_ship_are_good() {
    for (name, text, warnings) in [
        ("reference", REFERENCE, vec![]),
        ("example", include_str!("../../../config/example.toml"), vec![]),
        ("hybrid-edge", include_str!("../../../config/hybrid-edge.toml"), vec![]),
        ("hybrid-l7", include_str!("../../../config/hybrid-l7.toml"), vec![]),
    ] {
        let loaded = good(text);
        let found: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(found, Vec::<String>::from_iter(warnings), "{name}");
    }
}

/// A node of the second tier closes its listener first when it ends, so the edge holds it for down
/// while it still spreads its goodbyes.
#[test]
fn the_edge_of_two_tiers_leaves_a_nodes_pipes_to_the_node() {
    let plan = good(include_str!("../../../config/hybrid-edge.toml")).plan;
    assert_eq!(pool(&plan, "tier").on_down, OnDown::Keep);
}

/// Where the reference states a default, leaving the key out means the same.
#[test]
fn the_defaults_are_those_the_reference_states() {
    let marked = |line: &&str| !line.contains("example") && !line.contains("no default");
    let (written, left_out) = (good(REFERENCE).plan, good(MINIMAL).plan);
    assert_eq!(written.timeouts, left_out.timeouts);
    assert_eq!(written.runtime, left_out.runtime);
    assert!(REFERENCE.lines().filter(marked).count() > 40);

    let (full, bare) = (pool(&written, "chat"), pool(&left_out, "chat"));
    assert_eq!(full.policy, bare.policy);
    assert_eq!(full.slow_start, bare.slow_start);
    assert_eq!(full.send_proxy, bare.send_proxy);
    assert_eq!(full.on_down, bare.on_down);
    assert_eq!(full.on_remove, bare.on_remove);
    assert_eq!(full.drain, bare.drain);
    assert_eq!(full.idle_connections, bare.idle_connections);
    assert_eq!(full.servers[0].max_connections, bare.servers[0].max_connections);
    assert_eq!((&bare.health, &bare.sticky, &bare.tls), (&None, &None, &None));
    assert_eq!(pool(&written, "live").policy, Policy::SourceHash { bounded: Some(1.25) });

    let (full, bare) = (listener(&written, "edge"), listener(&left_out, "edge"));
    assert_eq!(full.when_empty, bare.when_empty);
    assert_eq!(full.max_connections, bare.max_connections);
    assert_eq!(full.max_per_source, bare.max_per_source);
    assert_eq!((bare.accept_proxy, bare.trusted.len(), &bare.tls), (None, 0, &None));
}

#[test]
fn an_l7_listener_has_the_defaults_the_reference_states() {
    let written = good(REFERENCE).plan;
    let web = listener(&written, "web");
    let bare = good(
        "[listeners.web]\nbind = [\"0.0.0.0:1\"]\nmode = \"l7\"\n\
         tls.certificates = [{ cert = \"c\", key = \"k\" }]\nroutes = [{ pool = \"p\" }]\n\
         [pools.p]\nservers = [\"10.0.0.1:1\"]\nhealth = {}\nsticky = { cookie = \"c\" }",
    );
    let other = listener(&bare.plan, "web");
    assert_eq!(l7(web).ping, l7(other).ping);
    assert_eq!(l7(web).http, l7(other).http);
    let (tls, bare_tls) = (web.tls.as_ref(), other.tls.as_ref());
    let same = |tls: &Tls| {
        let (in_flight, a_second) = (tls.handshakes_in_flight, tls.handshakes_per_second);
        (tls.unknown_name, tls.alpn.clone(), tls.key_log, in_flight, a_second)
    };
    assert_eq!(tls.map(same), bare_tls.map(same));
    let rule = &l7(other).rules[0];
    assert_eq!((rule.relay, &*rule.label), (RelayUnit::Frames, "/"));
    assert_eq!((rule.max_frame, rule.max_message, rule.messages_per_second), (0, 0, 0));
    assert_eq!(rule.origins, None);
    let health = pool(&bare.plan, "p").health.as_ref().expect("a table asks for checks");
    assert_eq!((health.every, health.timeout), (Duration::from_secs(2), Duration::from_secs(1)));
    assert_eq!((health.rise, health.fall, &health.http), (2, 3, &None));
    let Some(Sticky::Cookie(cookie)) = &pool(&bare.plan, "p").sticky else { panic!("a cookie") };
    assert_eq!((cookie.path.as_str(), cookie.http_only, cookie.secure), ("/", true, true));
    assert_eq!((cookie.same_site, cookie.max_age, &cookie.key), (None, None, &None));
}

#[test]
fn values_arrive_where_they_belong() {
    let plan = good(REFERENCE).plan;
    assert_eq!(plan.runtime.workers, 4);
    let chat = pool(&plan, "chat");
    let server = &chat.servers[1];
    assert_eq!((&*server.name, &*server.written), ("b", "10.0.0.2:9000"));
    assert_eq!((server.weight, server.max_connections, server.draining), (2, 5000, false));
    let socket = ServerAddress::Unix("/run/chat.sock".into());
    assert_eq!((&chat.servers[2].address, chat.source.len()), (&socket, 2));
    let Some(Sticky::Cookie(cookie)) = &chat.sticky else { panic!("a cookie") };
    assert_eq!(cookie.key, Some(Secret(b"a key of more than sixteen bytes".as_slice().into())));
    assert_eq!(cookie.max_age, Some(Duration::from_secs(86_400)));
    let tls = chat.tls.as_ref().expect("tls to servers");
    assert_eq!(tls.ca.as_deref(), Some(Path::new("/etc/sp/tls/servers.pem")));
    let Some(Sticky::Cookie(cookie)) = &pool(&plan, "users").sticky else { panic!("a cookie") };
    assert_eq!(cookie.key, Some(Secret(b"standpipe says hello".as_slice().into())));
    assert_eq!(pool(&plan, "rooms").sticky, Some(Sticky::Query("room".to_owned())));
    assert_eq!(pool(&plan, "live").drain, Drain::Rate(50));
    assert_eq!(listener(&plan, "edge").accept_proxy, Some(AcceptProxy::Any));

    let rule = &l7(listener(&plan, "web")).rules[0];
    assert_eq!(
        &*rule.label,
        "chat.example.org/chat protocol=chat.v2 query=beta:1 header=X-Canary:1"
    );
    assert_eq!(
        (rule.max_frame, rule.max_message, rule.messages_per_second),
        (1 << 20, 4 << 20, 100)
    );
    let split = &l7(listener(&plan, "web")).rules[1];
    assert_eq!(split.pools, [Share { pool: 1, weight: 95 }, Share { pool: 2, weight: 5 }]);
}

#[test]
fn different_routes_have_different_labels() {
    let routes = [
        ("query = { a = \"1\" }, header = { b = \"1\" }", "/ query=a:1 header=b:1"),
        ("query = { a = \"1 header=b:1\" }", "/ query=a:\"1 header=b:1\""),
        ("query = { a = \"b:c\" }", "/ query=a:b:c"),
        ("query = { \"a:b\" = \"c\" }", "/ query=\"a:b\":c"),
        ("query = { a = '\"b:c\"' }", "/ query=a:\"\\\"b:c\\\"\""),
    ];
    let written: Vec<String> =
        routes.iter().map(|(route, _)| format!("{{ pool = \"p\", {route} }}")).collect();
    let plan = good(&format!(
        "[listeners.web]\nbind = [\"0.0.0.0:1\"]\nmode = \"l7\"\nroutes = [{}]\n[pools.p]\n\
         servers = [\"10.0.0.1:1\"]\n",
        written.join(", ")
    ))
    .plan;
    let rules = &l7(listener(&plan, "web")).rules;
    let labels: Vec<&str> = rules.iter().map(|rule| &*rule.label).collect();
    assert_eq!(labels, routes.map(|(_, label)| label));
}

#[test]
fn a_name_becomes_one_address_whatever_order_it_resolves_in() {
    let with = |server: &str| good(&MINIMAL.replace("10.0.0.1:9000", server));
    let inet = |loaded: &Loaded| match &loaded.plan.pools[0].servers[0].address {
        ServerAddress::Inet(address) => address.to_string(),
        ServerAddress::Unix(path) => path.display().to_string(),
    };
    let one = with("one.example.org:9000");
    assert_eq!((inet(&one).as_str(), one.warnings.len()), ("10.0.0.9:9000", 0));
    let many = with("many.example.org:9000");
    assert_eq!((inet(&many).as_str(), many.warnings.len()), ("10.0.0.8:9000", 1));
    assert_eq!(&*many.plan.pools[0].servers[0].written, "many.example.org:9000");
    assert_eq!(inet(&with("unix:run/x.sock")), "/etc/sp/run/x.sock");
    assert_eq!(inet(&with("[::1]:9000")), "[::1]:9000");
}

#[test]
fn off_is_a_value_where_it_makes_sense() {
    let text = "[runtime]\nadmin = \"off\"\n[timeouts]\nidle = \"off\"\nstall = \"off\"\n";
    let plan = good(&format!("{text}{MINIMAL}slow_start = \"off\"\nhealth = \"off\"\n")).plan;
    assert_eq!((plan.runtime.admin, plan.timeouts.idle, plan.timeouts.stall), (None, None, None));
    assert_eq!((plan.pools[0].slow_start, &plan.pools[0].health), (Duration::ZERO, &None));
}

#[test]
fn what_is_allowed_but_doubtful_is_said() {
    let text = "[runtime]\nadmin = \"0.0.0.0:9901\"\ndrain_timeout = \"1m\"\n[listeners.web]\n\
                bind = [\"0.0.0.0:1\"]\nmode = \"l7\"\ntls = { certificates = [{ cert = \"c\", \
                key = \"k\" }], key_log = true }\nroutes = [{ pool = \"p\" }]\n\
                [pools.p]\nsticky = { cookie = \"c\" }\ndrain = { window = \"2m\" }\n\
                tls = { verify = false }\nservers = [\"many.example.org:1\"]\n[pools.q]\n\
                servers = [\"10.0.0.1:1\"]\n";
    let warnings = good(text).warnings;
    let keys: Vec<(usize, &str)> = warnings.iter().map(|it| (it.line, it.key.as_str())).collect();
    assert_eq!(
        keys,
        [
            (2, "runtime.admin"),
            (7, "listeners.web.tls.key_log"),
            (10, "pools.p.sticky"),
            (11, "pools.p.drain.window"),
            (12, "pools.p.tls.verify"),
            (13, "pools.p.servers[0]"),
            (14, "pools.q"),
        ]
    );
}

#[test]
fn no_secret_is_ever_shown() {
    let plan = good(REFERENCE).plan;
    let shown = format!("{} {plan:?}", render(&plan));
    for secret in ["standpipe says hello", "c3RhbmRwaXBl", "sixteen bytes"] {
        assert!(!shown.contains(secret), "{secret}");
    }
    let json = render(&plan);
    for path in [
        "/pools/chat/sticky/key",
        "/pools/chat/tls/client_key",
        "/listeners/web/tls/certificates/0/key",
        "/listeners/web/tls/ticket_keys",
    ] {
        assert_eq!(json.pointer(path), Some(&serde_json::json!("(set)")), "{path}");
    }
    assert_eq!(json.pointer("/listeners/web/routes/1/pools/live"), Some(&serde_json::json!(95)));
    assert_eq!(json.pointer("/timeouts/idle"), Some(&serde_json::json!("1h")));
}
