//! What must hold for any bytes at all where requests are judged and routed: each check compares a
//! judgement with the same rules written the long way. Used as `checks.rs` is.

use std::net::Ipv6Addr;

use standpipe::proto::Step;
use standpipe::proto::http::{HeadLimits, HeadScanner, parse_request, parse_response};
use standpipe::proto::upgrade;
use standpipe::route::cookie::{Attributes, Cookie};
use standpipe::route::{Headers, Pattern, Request, Routes, Target, key};

/// A request for a WebSocket, and the answer to it that follows, are believed exactly if they keep
/// RFC 6455 §4; and what is withdrawn of an offer cannot be agreed.
pub fn handshake(data: &[u8]) {
    let limits = HeadLimits { bytes: 4096, fields: 32, target: 256 };
    let Step::Done(used, range) = HeadScanner::new().scan(data, &limits) else { return };
    let (asked, answer) = (&data[range], &data[used..]);
    let Ok(head) = parse_request(asked, &limits) else { return };
    let judged = upgrade::request(&head);
    let lines = Lines::of(asked);
    let plain = lines.tokens("upgrade") != [b"websocket"];
    assert_eq!(judged == Ok(None), plain, "{judged:?}");
    let Ok(Some(mut offer)) = judged else {
        return assert!(plain || !asks(&lines), "refused: {judged:?}");
    };
    assert!(asks(&lines), "believed");
    let Step::Done(_, range) = HeadScanner::new().scan(answer, &limits) else { return };
    let answer = &answer[range];
    let Ok(head_of_answer) = parse_response(answer, &limits, false) else { return };
    let agreed = offer.answer(&head_of_answer).map(|agreed| agreed.deflate).ok();
    assert_eq!(agreed, agrees(&lines, &Lines::of(answer)));
    let left = offer.narrow(&head);
    let known = |name: &&[u8]| name.eq_ignore_ascii_case(b"permessage-deflate");
    assert!(offer.extensions.iter().all(known));
    let after = offer.answer(&head_of_answer).map(|agreed| agreed.deflate).ok();
    assert!(after == agreed || left.is_some(), "only what was withdrawn makes a difference");
}

/// A target is taken apart, or refused, as the rule for paths says in words.
pub fn target(data: &[u8]) {
    let read = Target::read(data).ok();
    let parts = read.map(|target| (target.path.to_vec(), target.query.map(<[u8]>::to_vec)));
    assert_eq!(parts, slow_target(data));
    let Some(target) = read else { return };
    // Whoever reads it loosely takes the same route.
    let pattern = |path: &str| Pattern::default().path(path).expect("a good path");
    let routes = Routes::new(["/", "/admin", "/a/b"].map(pattern));
    let find = |target| routes.find(&Request { host: b"h", target, headers: &Line(b"") });
    if let Ok(found) = find(target) {
        let decoded = unescape(target.path).expect("it was read");
        let bare: Vec<_> = segments(&decoded).collect();
        let path = [b"/", &bare.join(&b'/')[..]].concat();
        if let Ok(loose) = Target::read(&path) {
            assert_eq!(find(loose), Ok(found));
        }
    }
}

/// A `Cookie` line names the member whose token stands in it first, and nobody otherwise.
pub fn cookie(data: &[u8]) {
    let attributes = Attributes { path: "/", ..Attributes::default() };
    let cookie = Cookie::new("sp", &attributes, b"a key of 16 bytes", "pool", SERVERS);
    let tokens: Vec<Vec<u8>> = tokens();
    let named = data.split(|byte| *byte == b';').find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        let quoted = value.len() > 1 && value.starts_with(b"\"") && value.ends_with(b"\"");
        let value = if quoted { &value[1..value.len() - 1] } else { value };
        tokens.iter().position(|token| name == b"sp" && token == value)
    });
    assert_eq!(cookie.find(&Line(data)), named);
}

/// Values of the cookies that [`cookie`] knows.
pub fn tokens() -> Vec<Vec<u8>> {
    let attributes = Attributes { path: "/", ..Attributes::default() };
    let cookie = Cookie::new("sp", &attributes, b"a key of 16 bytes", "pool", SERVERS);
    let lines = (0..SERVERS.len()).map_while(|member| cookie.set_cookie_header(member));
    let token = |line: &str| line.split([';', '=']).nth(1).unwrap_or_default().into();
    lines.map(token).collect()
}

/// A query has the key of its first parameter of the name, as a form decoder reads it.
pub fn query(data: &[u8]) {
    for name in ["room", "a b", ""] {
        let read = |pair: &[u8]| {
            let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let value = pair.get(equals + 1..).unwrap_or_default();
            (form(&pair[..equals]), form(value))
        };
        let mut pairs = data.split(|byte| *byte == b'&').map(read);
        let value = pairs.find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value);
        let expected = value.filter(|value| !value.is_empty()).map(key::of_bytes);
        assert_eq!(key::of_query(Some(data), name), expected, "{name:?}");
    }
}

/// A `Host` is refused, or has one spelling; and what may stand in a file finds itself.
pub fn host(data: &[u8]) {
    let exact = |host: &str| Pattern::default().host(host).expect("a good host");
    let names = ["example.org", "*.example.org", "[2001:db8::1]", "10.0.0.1"];
    let routes = Routes::new(names.map(exact).into_iter().chain([Pattern::default()]));
    let target = Target::read(b"/").expect("a path");
    let request = Request { host: data, target, headers: &Line(b"") };
    let expected = slow_host(data).map(|host| match &host[..] {
        b"example.org" => 0,
        host if host.ends_with(b".example.org") => 1,
        b"[2001:db8::1]" => 2,
        b"10.0.0.1" => 3,
        _ => 4,
    });
    assert_eq!(routes.find(&request).ok().flatten(), expected);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(pattern) = Pattern::default().host(text) else { return };
    let own = Routes::new([pattern]);
    let whole = text.replace('*', "a");
    let request = Request { host: whole.as_bytes(), ..request };
    assert_eq!(own.find(&request), Ok(Some(0)), "{text}");
}

const SERVERS: [&str; 3] = ["10.0.0.1:9000", "10.0.0.2:9000", "unix:/run/c.sock"];

/// One line of any name.
struct Line<'a>(&'a [u8]);

impl Headers for Line<'_> {
    fn values<'a>(&'a self, _: &str) -> impl Iterator<Item = &'a [u8]> {
        std::iter::once(self.0)
    }
}

/// The lines of a legal head.
struct Lines<'a> {
    start: &'a [u8],
    fields: Vec<(Vec<u8>, &'a [u8])>,
}

impl<'a> Lines<'a> {
    fn of(head: &'a [u8]) -> Self {
        let mut lines = head.split(|byte| *byte == b'\n').map(|line| trim(line, b" \t\r"));
        let start = lines.next().unwrap_or_default();
        let field = |line: &'a [u8]| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            // Blanks before a colon are put up with in answers, and no legal request has any.
            let name = trim(&line[..colon], b" \t").to_ascii_lowercase();
            Some((name, trim(&line[colon + 1..], b" \t\r")))
        };
        Lines { start, fields: lines.filter_map(field).collect() }
    }

    fn all(&self, name: &str) -> Vec<&'a [u8]> {
        let named = self.fields.iter().filter(|(found, _)| found == name.as_bytes());
        named.map(|(_, value)| *value).collect()
    }

    /// Elements of the list, in lower case.
    fn tokens(&self, name: &str) -> Vec<Vec<u8>> {
        let elements = self.elements(name);
        elements.iter().map(|element| element.to_ascii_lowercase()).collect()
    }

    fn elements(&self, name: &str) -> Vec<&'a [u8]> {
        let values = self.all(name);
        let pieces = values.iter().flat_map(|value| value.split(|byte| *byte == b','));
        pieces.map(|piece| trim(piece, b" \t")).filter(|piece| !piece.is_empty()).collect()
    }

    /// Names of extensions, in lower case.
    fn extensions(&self) -> Vec<Vec<u8>> {
        let name = |element: &[u8]| {
            let end = element.iter().position(|byte| *byte == b';').unwrap_or(element.len());
            trim(&element[..end], b" \t").to_ascii_lowercase()
        };
        self.elements("sec-websocket-extensions").into_iter().map(name).collect()
    }
}

fn asks(head: &Lines<'_>) -> bool {
    let is_token = |text: &[u8]| {
        let other = |byte: &u8| b"!#$%&'*+-.^_`|~".contains(byte);
        !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || other(byte))
    };
    let is_key = |key: &[u8]| {
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
        key.len() == 24 && key[..22].iter().all(legal) && &key[22..] == b"=="
    };
    let (protocols, extensions) = (head.elements("sec-websocket-protocol"), head.extensions());
    head.start.starts_with(b"GET ")
        && head.start.ends_with(b"HTTP/1.1")
        && head.all("transfer-encoding").is_empty()
        && head.all("content-length").iter().all(|length| length.iter().all(|d| *d == b'0'))
        && head.tokens("connection").contains(&b"upgrade".to_vec())
        && head.all("sec-websocket-version") == [b"13"]
        && matches!(head.all("sec-websocket-key")[..], [key] if is_key(key))
        && protocols.len() <= 64
        && extensions.len() <= 64
        && protocols.iter().all(|name| is_token(name))
        && extensions.iter().all(|name| is_token(name))
}

/// Whether a 101 answers the request, and if so, whether frames may be compressed.
fn agrees(asked: &Lines<'_>, answer: &Lines<'_>) -> Option<bool> {
    let key = *asked.all("sec-websocket-key").first()?;
    let protocols = asked.elements("sec-websocket-protocol");
    let (offered, agreed) = (asked.extensions(), answer.extensions());
    let deflates = agreed.iter().filter(|name| *name == b"permessage-deflate").count();
    let protocol_fits = match answer.all("sec-websocket-protocol")[..] {
        [] => true,
        [chosen] => protocols.contains(&chosen),
        _ => false,
    };
    let legal = answer.start.starts_with(b"HTTP/1.1 101")
        && answer.tokens("upgrade") == [b"websocket"]
        && answer.tokens("connection").contains(&b"upgrade".to_vec())
        && answer.all("sec-websocket-accept") == [&upgrade::accept_key(key)[..]]
        && protocol_fits
        && agreed.iter().all(|name| offered.contains(name))
        && deflates <= 1;
    legal.then_some(deflates == 1)
}

fn slow_target(target: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    // A query alone follows an empty path.
    let rest =
        if target.starts_with(b"?") { [b"/".as_slice(), target].concat() } else { target.to_vec() };
    let mut halves = rest.splitn(2, |byte| *byte == b'?');
    let (path, query) = (halves.next()?, halves.next());
    let ends = |byte: &u8| *byte <= b' ' || *byte == 0x7f || *byte == b'#';
    if !path.starts_with(b"/") || rest.iter().any(ends) || path.contains(&b'\\') {
        return None;
    }
    let decoded = unescape(path)?;
    if decoded.iter().any(|byte| *byte < b' ' || *byte == 0x7f || *byte == b'\\') {
        return None;
    }
    // An escaped slash inside parameters ends them for some readers and not for others.
    let hides_slash = |segment: &[u8]| {
        let parameters = segment.iter().position(|byte| *byte == b';').map(|at| &segment[at..]);
        let lower = parameters.unwrap_or_default().to_ascii_lowercase();
        lower.windows(3).any(|escape| escape == b"%2f")
    };
    if path.split(|byte| *byte == b'/').any(hides_slash) {
        return None;
    }
    let segments: Vec<_> = segments(&decoded).collect();
    let (last, others) = segments.split_last()?;
    let folds = |segment: &[u8]| segment == b"." || segment == b"..";
    let clear = !folds(last) && others.iter().all(|it| !it.is_empty() && !folds(it));
    clear.then(|| (path.to_vec(), query.map(<[u8]>::to_vec)))
}

/// Segments of a decoded path behind its first slash, without parameters.
fn segments(decoded: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = decoded[1..].split(|byte| *byte == b'/');
    all.map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or_default())
}

/// Percent-escapes undone; `None` where one is broken.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < text.len() {
        if text[at] != b'%' {
            out.push(text[at]);
            at += 1;
            continue;
        }
        out.push(escaped(text.get(at + 1..at + 3)?)?);
        at += 3;
    }
    Some(out)
}

fn escaped(digits: &[u8]) -> Option<u8> {
    let legal = digits.iter().all(u8::is_ascii_hexdigit);
    u8::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| legal)?, 16).ok()
}

/// As a form decoder reads it: what is no escape stands for itself.
fn form(text: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let escape = text.get(at + 1..at + 3).filter(|_| text[at] == b'%').and_then(escaped);
        out.push(escape.unwrap_or(if text[at] == b'+' { b' ' } else { text[at] }));
        at += if escape.is_some() { 3 } else { 1 };
    }
    out
}

fn slow_host(host: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(host).ok()?;
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, after) = rest.split_once(']')?;
        let port = if after.is_empty() { "" } else { after.strip_prefix(':')? };
        let address: Ipv6Addr = inner.parse().ok()?;
        return is_port(port).then(|| format!("[{address}]").into_bytes());
    }
    let (name, port) = text.split_once(':').unwrap_or((text, ""));
    let name = name.strip_suffix('.').unwrap_or(name);
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let fits =
        name.len() <= 255 && name.bytes().all(legal) && (text.is_empty() || !name.is_empty());
    (fits && is_port(port)).then(|| name.to_ascii_lowercase().into_bytes())
}

fn trim<'a>(mut bytes: &'a [u8], blanks: &[u8]) -> &'a [u8] {
    while let [first, rest @ ..] = bytes
        && blanks.contains(first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && blanks.contains(last)
    {
        bytes = rest;
    }
    bytes
}
