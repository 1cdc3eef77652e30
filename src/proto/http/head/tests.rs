//! What is refused and why (S4–S9, S21), and what the views say of heads that are not.

use super::super::{HeadLimits, HeadScanner};
use super::*;
use crate::proto::Step;

const LIMITS: HeadLimits = HeadLimits { bytes: 8192, fields: 8, target: 100 };

/// Scanned and then parsed, as a connection would.
fn request(head: &str) -> Result<RequestHead<'_>, HeadFault> {
    match HeadScanner::new().scan(head.as_bytes(), &LIMITS) {
        Step::Done(_, range) => parse_request(&head.as_bytes()[range], &LIMITS),
        Step::Bad(fault) => Err(fault),
        Step::Need => panic!("unfinished: {head:?}"),
    }
}

fn refused(lines: &str) -> HeadFault {
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n");
    request(&head).expect_err(lines)
}

#[test]
fn the_view_borrows_and_the_facts_agree() {
    let text = "POST /a/b?c=d&e HTTP/1.1\r\nHOST: Example.org:8080\r\nContent-Length: 12\r\n\
         connection: Keep-Alive\r\nEXPECT: 100-Continue\r\nX-Empty:\r\n\r\n";
    let head = request(text).unwrap();
    assert_eq!((head.method, head.target), ("POST", "/a/b?c=d&e"));
    assert_eq!((head.path(), head.query()), ("/a/b", Some("c=d&e")));
    assert_eq!(head.host, Some("Example.org:8080"));
    assert_eq!(head.body, Body::Length(12));
    assert!(head.keep_alive && head.expect_continue && !head.upgrade && !head.is_head());
    assert_eq!(head.value("x-empty"), Some(&b""[..]));
    assert_eq!(head.fields.len(), 5);
}

#[test]
fn persistence_by_version() {
    let keeps = |head: &str| request(head).unwrap().keep_alive;
    assert!(keeps("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.1\r\nHost: x\r\nConnection: foo, CLOSE\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    assert!(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"));
}

#[test]
fn s7_connect_is_405() {
    let fault = request("CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n").unwrap_err();
    assert_eq!((fault, fault.status()), (HeadFault::Connect, 405));
}

#[test]
fn s8_framing() {
    for (lines, fault) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", HeadFault::LengthAndEncoding),
        ("Content-Length: 5\r\nContent-Length: 5", HeadFault::LengthRepeated),
        ("Content-Length: 5, 5", HeadFault::LengthInvalid),
        ("Content-Length: +5", HeadFault::LengthInvalid),
        ("Content-Length: 0x5", HeadFault::LengthInvalid),
        ("Content-Length:", HeadFault::LengthInvalid),
        ("Transfer-Encoding:", HeadFault::EncodingInvalid),
        ("Transfer-Encoding: chunked, gzip", HeadFault::EncodingInvalid),
        ("Transfer-Encoding: chunked, chunked", HeadFault::EncodingInvalid),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", HeadFault::EncodingInvalid),
        ("Transfer-Encoding: \u{b}chunked", HeadFault::FieldValue),
    ] {
        assert_eq!(refused(lines), fault, "{lines:?}");
        assert_eq!(fault.status(), 400);
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(request(old).unwrap_err(), HeadFault::EncodingOnOld);
    assert_eq!(refused("Transfer-Encoding: gzip, chunked").status(), 501);
}

#[test]
fn s9_lines() {
    for (lines, fault) in [
        (": x", HeadFault::FieldName),
        ("A : x", HeadFault::FieldName),
        ("A\t: x", HeadFault::FieldName),
        ("A", HeadFault::FieldName),
        ("A B: x", HeadFault::FieldName),
        ("A: x\r\n y", HeadFault::Folded),
        ("A: x\r\n\ty", HeadFault::Folded),
        ("A: x\nB: y", HeadFault::BareLineFeed),
        ("A: x\0y", HeadFault::FieldValue),
        ("A: x\ry", HeadFault::FieldValue),
        ("A: x\r", HeadFault::FieldValue),
        ("A: \u{1}", HeadFault::FieldValue),
        ("A: \u{7f}", HeadFault::FieldValue),
        ("Ä: x", HeadFault::FieldName),
        ("Host: x", HeadFault::HostRepeated),
        ("host: x", HeadFault::HostRepeated),
    ] {
        let found = refused(lines);
        assert_eq!(found.status(), 400, "{lines:?}: {found}");
        assert_eq!(found, fault, "{lines:?}");
    }
    let missing = request("GET / HTTP/1.1\r\nA: b\r\n\r\n").unwrap_err();
    assert_eq!(missing, HeadFault::HostMissing);
    assert!(request("GET / HTTP/1.0\r\n\r\n").is_ok());
}

#[test]
fn start_lines() {
    for (line, status) in [
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        (" GET / HTTP/1.1", 400),
        ("GET\t/ HTTP/1.1", 400),
        ("GET /", 400),
        ("GET", 400),
        ("G(T / HTTP/1.1", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1,1", 400),
        ("GET / HTTP/11", 400),
        ("GET /a b HTTP/1.1", 400),
        ("GET /\u{e9} HTTP/1.1", 400),
        ("GET /\u{7f} HTTP/1.1", 400),
        ("GET /a#b HTTP/1.1", 400),
        ("GET /?a#b HTTP/1.1", 400),
        ("GET /?\u{7f} HTTP/1.1", 400),
        ("GET a HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("GET ftp://x/ HTTP/1.1", 400),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/0.9", 505),
        ("PRI * HTTP/2.0", 505),
    ] {
        let head = format!("{line}\r\nHost: x\r\n\r\n");
        assert_eq!(request(&head).expect_err(line).status(), status, "{line:?}");
    }
    let raw = request("GET /a?b=\\c|{d}\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(raw.query(), Some("b=\\c|{d}\u{e9}"));
    assert_eq!(request("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().path(), "*");
}

/// One rule for all forms of target: the raw path as sent; a second name for the host must agree.
#[test]
fn s21_targets_and_hosts() {
    let get = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for (target, path) in [
        ("/ws/../admin", "/ws/../admin"),
        ("/%2e%2e/x", "/%2e%2e/x"),
        ("//double", "//double"),
        ("http://x/abs?q", "/abs"),
        ("HTTP://X/abs", "/abs"),
        ("ws://x", "/"),
        ("http://x?q", "/"),
    ] {
        let text = get(target, "x");
        let head = request(&text).unwrap_or_else(|fault| panic!("{target}: {fault}"));
        assert_eq!((head.path(), head.target), (path, target));
    }
    for (target, host, fault) in [
        ("http://y/", "x", HeadFault::HostMismatch),
        ("http://x:81/", "x", HeadFault::HostMismatch),
        ("http://u@x/", "x", HeadFault::Target),
        ("http:///", "x", HeadFault::Target),
        ("/", "", HeadFault::HostInvalid),
        ("/", "a b", HeadFault::HostInvalid),
        ("/", "a/b", HeadFault::HostInvalid),
        ("/", "u@x", HeadFault::HostInvalid),
        ("/", "x, y", HeadFault::HostInvalid),
        ("/", "x:+1", HeadFault::HostInvalid),
        ("/", "x:65536", HeadFault::HostInvalid),
        ("/", "[::1", HeadFault::HostInvalid),
        ("/", "::1", HeadFault::HostInvalid),
    ] {
        assert_eq!(request(&get(target, host)).unwrap_err(), fault, "{target} {host}");
    }
    // A port that is the scheme's own may be left out on either side (RFC 9110 §4.2.3).
    for (target, host) in [
        ("http://x:80/", "x"),
        ("http://x/", "X:80"),
        ("ws://x:/", "x:80"),
        ("https://x", "x:443"),
        ("wss://[::1]:443", "[::1]"),
        ("http://x:8080/", "x:8080"),
    ] {
        assert_eq!(request(&get(target, host)).map(|head| head.host), Ok(Some(host)), "{target}");
    }
    for (target, host) in [("https://x/", "x:80"), ("http://x:443/", "x"), ("ws://x/", "x:443")] {
        let fault = request(&get(target, host)).unwrap_err();
        assert_eq!(fault, HeadFault::HostMismatch, "{target} {host}");
    }
    let text = get("/", "x:");
    assert_eq!(request(&text).unwrap().host, Some("x:"), "RFC 3986 §3.2.3");
    let text = get("/", "[::1]:8080");
    assert_eq!(request(&text).unwrap().host, Some("[::1]:8080"));
}

/// RFC 9112 §3.2.1 and §3.2.4.
#[test]
fn a_target_goes_on_without_its_authority() {
    for (method, target, goes) in [
        ("GET", "/a/../b?c=http://d", "/a/../b?c=http://d"),
        ("GET", "http://x/a?b", "/a?b"),
        ("GET", "HTTPS://x", "/"),
        ("GET", "ws://x/", "/"),
        ("GET", "http://x?b/c", "/?b/c"),
        ("OPTIONS", "*", "*"),
        ("OPTIONS", "http://x", "*"),
        ("OPTIONS", "http://x/", "/"),
        ("OPTIONS", "http://x?", "/?"),
    ] {
        let text = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(request(&text).unwrap().origin_form().concat(), goes, "{method} {target}");
    }
}

/// RFC 9110 §7.6.2.
#[test]
fn hops_are_counted_for_trace_and_options_only() {
    let hops = |method: &str, lines: &str| {
        let text = format!("{method} / HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        request(&text).map(|head| head.max_forwards)
    };
    for (lines, found) in [
        ("", Ok(None)),
        ("Max-Forwards: 0\r\n", Ok(Some(0))),
        ("MAX-FORWARDS: 07\r\n", Ok(Some(7))),
        ("Max-Forwards: 99999999999999999999\r\n", Ok(Some(u32::MAX))),
        ("Max-Forwards:\r\n", Err(HeadFault::MaxForwards)),
        ("Max-Forwards: -1\r\n", Err(HeadFault::MaxForwards)),
        ("Max-Forwards: 1, 1\r\n", Err(HeadFault::MaxForwards)),
        ("Max-Forwards: 1\r\nMax-Forwards: 1\r\n", Err(HeadFault::MaxForwards)),
    ] {
        assert_eq!(hops("TRACE", lines), found, "{lines:?}");
        assert_eq!(hops("OPTIONS", lines), found, "{lines:?}");
        assert_eq!(hops("GET", lines), Ok(None), "{lines:?}");
    }
    assert_eq!(HeadFault::MaxForwards.status(), 400);
}

#[test]
fn bounds_have_their_own_status() {
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(8));
    assert_eq!(request(&many).unwrap_err().status(), 431);
    let fat = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "b".repeat(8192));
    assert_eq!(request(&fat).unwrap_err().status(), 431);
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100));
    assert_eq!(request(&long).unwrap_err().status(), 414);
    let longer = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(10_000));
    assert_eq!(request(&longer).unwrap_err().status(), 414);
    for tokens in ["a,".repeat(65), ",".repeat(64), " ,".repeat(1000)] {
        assert_eq!(refused(&format!("Connection: {tokens}")).status(), 431);
    }
}

#[test]
fn responses() {
    let parse = |head: &'static str| parse_response(head.as_bytes(), &LIMITS, false);
    let head = parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").unwrap();
    assert_eq!((head.status, head.reason, head.body), (200, "OK", Body::Length(3)));
    assert!(head.keep_alive && !head.is_interim());
    let head =
        parse("HTTP/1.1 404\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!((head.body, head.keep_alive), (Body::Chunked, false));
    let head = parse("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n").unwrap();
    assert_eq!((head.body, head.keep_alive), (Body::UntilClose, false));
    // RFC 9112 §5.1: a blank before the colon is no part of the name.
    let head =
        parse("HTTP/1.1 200 OK\r\nContent-Length \t: 3\r\nConnection : close\r\n\r\n").unwrap();
    assert_eq!((head.body, head.keep_alive), (Body::Length(3), false));
    assert_eq!(head.fields[0], Field { name: "Content-Length", value: b"3" });
    let head = parse("HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n").unwrap();
    assert_eq!(head.body, Body::Chunked);
    assert!(parse("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n").unwrap().is_interim());
    assert!(!parse("HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap().is_interim());
    for bad in [
        "HTTP/1.1 099 No\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
        "HTTP/1.1 200 OK\r\n : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 1\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 1\r\nTransfer-Encoding\t: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "200 OK\r\n\r\n",
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}
