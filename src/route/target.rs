//! The request target: whether its path can be read in only one way. An absolute one is taken apart
//! where heads are judged; only its path and query are routed by.

use super::Refusal;

/// A request target taken apart. Only paths that keep the rule for paths get this far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// Up to the `?`, as received.
    pub path: &'a [u8],
    /// What followed the `?`.
    pub query: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    /// Takes path and query apart. The forms of `CONNECT` and of `OPTIONS *` are refused.
    pub fn read(target: &'a [u8]) -> Result<Target<'a>, Refusal> {
        let (path, query) = match target.iter().position(|byte| *byte == b'?') {
            // `http://host?query` has an empty path, which means `/` (RFC 9110 §4.2.3).
            Some(0) => (b"/".as_slice(), Some(&target[1..])),
            Some(mark) => (&target[..mark], Some(&target[mark + 1..])),
            None => (target, None),
        };
        if query.is_some_and(|query| query.iter().any(|byte| ends_target(*byte))) {
            return Err(Refusal::Byte);
        }
        check(path)?;
        Ok(Target { path, query })
    }

    /// The beginning of the path as a lenient server may read it, if that differs at all.
    pub(super) fn loose<'b>(&self, space: &'b mut [u8; LOOSE_MAX]) -> Option<&'b [u8]> {
        if !self.path.iter().any(|byte| matches!(byte, b'%' | b';')) {
            return None;
        }
        let mut used = 0;
        for (byte, slot) in loose(self.path).zip(space.iter_mut()) {
            *slot = byte;
            used += 1;
        }
        Some(&space[..used])
    }
}

/// Longest path of a route. The loose reading is cut one byte later, where the next segment of any
/// route would have begun.
pub const PATH_MAX: usize = 255;
pub const LOOSE_MAX: usize = PATH_MAX + 1;

/// Escapes undone once, then `;parameters` dropped from each segment.
pub fn loose(path: &[u8]) -> impl Iterator<Item = u8> {
    let mut in_parameters = false;
    unescape(path).flatten().filter(move |byte| {
        in_parameters = *byte == b';' || (in_parameters && *byte != b'/');
        !in_parameters
    })
}

/// Does the path keep the rule? See the head of this room.
pub fn check(path: &[u8]) -> Result<(), Refusal> {
    if path.first() != Some(&b'/') {
        return Err(Refusal::Form);
    }
    let mut has_parameters = false;
    for byte in path {
        if is_never_raw(*byte) {
            return Err(Refusal::Byte);
        }
        has_parameters |= *byte == b';';
    }
    for byte in unescape(path) {
        if matches!(byte?, b'\\' | 0..=0x1f | 0x7f) {
            return Err(Refusal::Byte);
        }
    }
    if has_parameters && hides_slash(path) {
        return Err(Refusal::Ambiguous);
    }
    // Only the last segment may be empty: its end is the end of the path, not a slash.
    let mut segment = Segment::default();
    for byte in loose(path).skip(1) {
        match byte {
            b'/' if segment.is_empty() || segment.is_dots() => return Err(Refusal::Segment),
            b'/' => segment = Segment::default(),
            _ => segment.push(byte),
        }
    }
    if segment.is_dots() { Err(Refusal::Segment) } else { Ok(()) }
}

/// Whether parameters hold an escaped slash: a server that drops parameters first and then undoes
/// escapes would read another path than one that undoes escapes first.
fn hides_slash(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|segment| {
        let parameters = segment.iter().position(|byte| *byte == b';').map(|at| &segment[at..]);
        let mut escapes = parameters.unwrap_or_default().windows(3);
        escapes.any(|it| it[0] == b'%' && hex_pair(&it[1..]) == Some(b'/'))
    })
}

#[derive(Debug, Default)]
struct Segment {
    bytes: usize,
    dots: usize,
}

impl Segment {
    fn push(&mut self, byte: u8) {
        self.bytes += 1;
        self.dots += usize::from(byte == b'.');
    }

    fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn is_dots(&self) -> bool {
        self.bytes == self.dots && matches!(self.dots, 1 | 2)
    }
}

/// `#` starts a fragment, which never belongs on the wire; blanks and controls end a request line.
fn ends_target(byte: u8) -> bool {
    matches!(byte, 0..=b' ' | 0x7f | b'#')
}

/// What a path may not hold but escaped: some take `\` for `/`. A query may, and browsers send it.
fn is_never_raw(byte: u8) -> bool {
    ends_target(byte) || byte == b'\\'
}

/// Each byte with percent-escapes undone; a broken escape is an error at its place.
pub fn unescape(text: &[u8]) -> impl Iterator<Item = Result<u8, Refusal>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        rest = after;
        if *first != b'%' {
            return Some(Ok(*first));
        }
        let byte = hex_pair(after);
        if byte.is_some() {
            rest = &after[2..];
        }
        Some(byte.ok_or(Refusal::Escape))
    })
}

/// The byte that the first two characters spell.
pub fn hex_pair(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|digit| (*digit as char).to_digit(16));
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(target: &str) -> Result<String, Refusal> {
        Target::read(target.as_bytes()).map(|it| String::from_utf8_lossy(it.path).into_owned())
    }

    #[test]
    fn a_path_that_two_readers_could_read_differently_is_refused() {
        for (target, refusal) in [
            ("", Refusal::Form),
            ("*", Refusal::Form),
            ("chat", Refusal::Form),
            ("example.org:443", Refusal::Form),
            ("http://a/b", Refusal::Form),
            ("/a/../b", Refusal::Segment),
            ("/a/..", Refusal::Segment),
            ("/.", Refusal::Segment),
            ("/a/./b", Refusal::Segment),
            ("/a/%2e%2E/b", Refusal::Segment),
            ("/a/.%2e/b", Refusal::Segment),
            ("/a/..;x/b", Refusal::Segment),
            ("/a/..%3bx/b", Refusal::Segment),
            ("/a%2f..%2fb", Refusal::Segment),
            ("//a", Refusal::Segment),
            ("/a//b", Refusal::Segment),
            ("/a/;x/b", Refusal::Segment),
            ("/a%2f%2fb", Refusal::Segment),
            ("/a/%2f", Refusal::Segment),
            ("/a;%2fb/c", Refusal::Ambiguous),
            ("/a;v=1%2F2", Refusal::Ambiguous),
            ("/a\\b", Refusal::Byte),
            ("/a%5cb", Refusal::Byte),
            ("/a%00", Refusal::Byte),
            ("/a%0d%0ab", Refusal::Byte),
            ("/a b", Refusal::Byte),
            ("/a\tb", Refusal::Byte),
            ("/a#b", Refusal::Byte),
            ("/a?b#c", Refusal::Byte),
            ("/a?b c", Refusal::Byte),
            ("/a?b\u{7f}", Refusal::Byte),
            ("/a?b\0", Refusal::Byte),
            ("/a%", Refusal::Escape),
            ("/a%2", Refusal::Escape),
            ("/a%zz", Refusal::Escape),
            ("/%", Refusal::Escape),
        ] {
            assert_eq!(path(target), Err(refusal), "{target}");
        }
    }

    #[test]
    fn ordinary_paths_pass_as_they_are() {
        for (target, expected) in [
            ("/", "/"),
            ("/chat", "/chat"),
            ("/chat/", "/chat/"),
            ("/chat?x=/../y", "/chat"),
            ("/chat?x=\\y|{z}^`\"<>é", "/chat"),
            ("/a/.well-known/...", "/a/.well-known/..."),
            ("/caf%C3%A9", "/caf%C3%A9"),
            ("/a%2fb", "/a%2fb"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/a;v=%2e/b%2fc", "/a;v=%2e/b%2fc"),
            ("/%252e", "/%252e"),
            ("?c=d", "/"),
        ] {
            assert_eq!(path(target).as_deref(), Ok(expected), "{target}");
        }
        let query = Target::read(b"/b?c=d?e").map(|it| it.query);
        assert_eq!(query, Ok(Some(b"c=d?e".as_slice())));
    }

    #[test]
    fn the_loose_reading_is_cut_where_no_route_reaches() {
        let long = format!("/{}%41", "b".repeat(1000));
        let target = Target::read(long.as_bytes()).map(|it| {
            let mut space = [0; LOOSE_MAX];
            it.loose(&mut space).map(<[u8]>::len)
        });
        assert_eq!(target, Ok(Some(LOOSE_MAX)));
    }
}
