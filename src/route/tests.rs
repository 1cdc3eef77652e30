//! Routing as a table, and its properties against a slow twin.

use super::*;
use proptest::prelude::*;

struct Fields<'a>(&'a [(&'a str, &'a str)]);

impl Headers for Fields<'_> {
    fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |field: &&(&str, &str)| field.0.eq_ignore_ascii_case(name);
        let found: Vec<&[u8]> = self.0.iter().filter(named).map(|it| it.1.as_bytes()).collect();
        found.into_iter()
    }
}

fn pattern(host: &str, path: &str) -> Pattern {
    let pattern = match host {
        "" => Pattern::default(),
        host => Pattern::default().host(host).expect("a good host"),
    };
    pattern.path(path).expect("a good path")
}

fn find(routes: &Routes, host: &str, target: &str) -> Result<Option<usize>, Refusal> {
    find_with(routes, host, target, &[])
}

fn find_with(
    routes: &Routes,
    host: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> Result<Option<usize>, Refusal> {
    let target = Target::read(target.as_bytes())?;
    routes.find(&Request { host: host.as_bytes(), target, headers: &Fields(fields) })
}

#[test]
fn the_most_particular_host_then_the_longest_path_wins() {
    let routes = Routes::new([
        pattern("", "/"),
        pattern("", "/chat"),
        pattern("*.example.org", "/"),
        pattern("*.eu.example.org", "/chat"),
        pattern("chat.eu.example.org", "/chat/v2"),
        pattern("[2001:db8::1]", "/"),
    ]);
    for (host, target, route) in [
        ("other.test", "/", 0),
        ("", "/x", 0),
        ("other.test", "/chat", 1),
        ("other.test", "/chat/", 1),
        ("other.test", "/chat/room?x", 1),
        ("other.test", "/chatter", 0),
        ("a.example.org", "/chat", 2),
        ("a.b.example.org:8443", "/", 2),
        ("example.org", "/", 0),
        ("xexample.org", "/", 0),
        ("a.eu.example.org", "/chat", 3),
        ("a.eu.example.org", "/live", 2),
        ("CHAT.EU.EXAMPLE.ORG.", "/chat/v2/x", 4),
        ("chat.eu.example.org", "/chat/v1", 3),
        ("chat.eu.example.org", "/", 2),
        ("[2001:DB8:0::1]:443", "/chat", 5),
    ] {
        assert_eq!(find(&routes, host, target), Ok(Some(route)), "{host} {target}");
    }
}

#[test]
fn no_spelling_slips_past_a_route() {
    let routes = Routes::new([pattern("", "/"), pattern("", "/admin"), pattern("", "/caf%C3%A9")]);
    for (target, found) in [
        ("/admin", Ok(Some(1))),
        ("/admin/x%20y", Ok(Some(1))),
        ("/admin/x;v=1", Ok(Some(1))),
        ("/other/%61dmin", Ok(Some(0))),
        ("/a%2fadmin", Ok(Some(0))),
        ("/x;v=1", Ok(Some(0))),
        ("/caf%C3%A9/x", Ok(Some(2))),
        ("/%61dmin", Err(Refusal::Ambiguous)),
        ("/admin%2fx", Err(Refusal::Ambiguous)),
        ("/%2fadmin", Err(Refusal::Segment)),
        ("/admin;x", Err(Refusal::Ambiguous)),
        ("/admin%3bx/y", Err(Refusal::Ambiguous)),
        ("/caf%c3%a9", Err(Refusal::Ambiguous)),
        ("/x/../admin", Err(Refusal::Segment)),
        ("/x/..%2fadmin", Err(Refusal::Segment)),
        ("//admin", Err(Refusal::Segment)),
        ("/\\admin", Err(Refusal::Byte)),
    ] {
        assert_eq!(find(&routes, "h", target), found, "{target}");
    }
}

#[test]
fn what_is_no_host_has_no_route() {
    let routes = Routes::new([pattern("", "/")]);
    assert_eq!(find(&routes, "a:80", "?x"), Ok(Some(0)));
    assert_eq!(find(&routes, "a@b", "/x"), Err(Refusal::Host));
}

#[test]
fn more_conditions_are_tried_first_then_the_order_of_the_file() {
    let routes = Routes::new([
        pattern("", "/chat"),
        pattern("", "/chat").protocol("chat.v2"),
        pattern("", "/chat").protocol("chat.v2").query("room", "a b"),
        pattern("", "/chat").header("X-Canary", "1"),
    ]);
    let offers = ("Sec-WebSocket-Protocol", "chat.v1, chat.v2");
    let canary = ("x-canary", " 1 ");
    for (target, fields, route) in [
        ("/chat", &[][..], 0),
        ("/chat", &[offers], 1),
        ("/chat?room=a%20b", &[offers], 2),
        ("/chat?room=a+b&room=c", &[offers], 2),
        ("/chat?room=c&room=a+b", &[offers], 1),
        ("/chat?room=a%20b", &[], 0),
        ("/chat", &[canary], 3),
        ("/chat", &[canary, offers], 1),
        (
            "/chat",
            &[("Sec-WebSocket-Protocol", "chat.v1"), ("Sec-WebSocket-Protocol", "chat.v2")],
            1,
        ),
        ("/chat", &[("Sec-WebSocket-Protocol", "CHAT.V2")], 0),
        ("/chat", &[("X-Canary", "10")], 0),
    ] {
        assert_eq!(find_with(&routes, "h", target, fields), Ok(Some(route)), "{target} {fields:?}");
    }
}

#[test]
fn conditions_that_fail_leave_the_request_to_the_next_best_route() {
    let routes = Routes::new([
        pattern("a.test", "/chat/v2").protocol("v2"),
        pattern("a.test", "/chat").protocol("v1"),
        pattern("", "/chat"),
    ]);
    let offer = [("Sec-WebSocket-Protocol", "v1")];
    assert_eq!(find_with(&routes, "a.test", "/chat/v2", &offer), Ok(Some(1)));
    assert_eq!(find(&routes, "a.test", "/chat/v2"), Ok(Some(2)));
    assert_eq!(find(&routes, "a.test", "/live"), Ok(None));
}

#[test]
fn what_a_pattern_may_not_be() {
    for host in ["", "*", "*.", "a:80", "[::1]:80", "*.[::1]", "http://a", "a b", "*.*.a"] {
        assert!(Pattern::default().host(host).is_err(), "{host}");
    }
    // A wildcard that leaves no room for a label would match nothing, ever.
    let suffix = |bytes| Pattern::default().host(&format!("*.{}", "a".repeat(bytes))).is_ok();
    assert_eq!([suffix(253), suffix(254)], [true, false]);
    let long = format!("/{}", "a".repeat(255));
    for path in ["", "chat", "/a/../b", "/a//b", "/a?b", "/a;b", "/é", "/a%", "/a b", "//", &long]
    {
        assert!(Pattern::default().path(path).is_err(), "{path}");
    }
    let same = |a: &str, b: &str| pattern("", a).is_same(&pattern("", b));
    assert!(same("/chat", "/chat/") && same("/chat", "/ch%61t") && !same("/chat", "/Chat"));
}

/// The routes of a request by the definition alone.
fn slow(patterns: &[(&str, &str)], host: &str, path: &str) -> Option<usize> {
    let under = |prefix: &str| {
        let prefix = prefix.trim_end_matches('/');
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let rank = |pattern: &str| match pattern.strip_prefix("*.") {
        _ if pattern.is_empty() => Some(0),
        Some(suffix) => host.ends_with(&format!(".{suffix}")).then_some(suffix.len()),
        None => (pattern == host).then_some(usize::MAX),
    };
    let mut best: Option<(usize, usize, usize)> = None;
    for (index, (host, path)) in patterns.iter().enumerate() {
        let Some(rank) = rank(host).filter(|_| under(path)) else { continue };
        let length = path.trim_end_matches('/').len();
        if best.is_none_or(|(r, l, _)| (rank, length) > (r, l)) {
            best = Some((rank, length, index));
        }
    }
    best.map(|(.., index)| index)
}

fn hosts() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b.a", "*.a", "*.b.a", "c.b.a"])
}

fn paths() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["/", "/x", "/x/", "/x/y", "/x/y/z", "/xy", "/y"])
}

proptest! {
    #[test]
    fn the_compiled_routes_agree_with_the_definition(
        patterns in prop::collection::vec((hosts(), paths()), 0..12),
        host in prop::sample::select(vec!["a", "b.a", "c.b.a", "d.c.b.a", "z", "za"]),
        path in paths(),
    ) {
        let routes = Routes::new(patterns.iter().map(|(host, path)| pattern(host, path)));
        prop_assert_eq!(find(&routes, host, path), Ok(slow(&patterns, host, path)));
    }

    #[test]
    fn no_target_and_no_host_panics(
        target in prop::collection::vec(any::<u8>(), 0..400),
        host in prop::collection::vec(any::<u8>(), 0..300),
        escaped in "(/|%2[ef]|%5c|[.;%a]){0,40}",
    ) {
        let routes = Routes::new([pattern("", "/"), pattern("*.a", "/a/b")]);
        for target in [target.as_slice(), escaped.as_bytes()] {
            if let Ok(target) = Target::read(target) {
                let _ = routes.find(&Request { host: &host, target, headers: &Fields(&[]) });
            }
        }
    }

    /// Whatever passes means the same thing to a server that reads it loosely.
    #[test]
    fn what_passes_is_read_in_one_way(path in "/(admin|%61dmin|a|;|%2f|/|x|%3b|%2e|\\.){0,8}") {
        let routes = Routes::new([pattern("", "/"), pattern("", "/admin"), pattern("", "/a/x")]);
        if let Ok(found) = find(&routes, "h", &path) {
            let loose: Vec<u8> = target::loose(path.as_bytes()).collect();
            let loose = String::from_utf8(loose).expect("ASCII went in");
            prop_assert_eq!(find(&routes, "h", &loose), Ok(found));
        }
    }
}
