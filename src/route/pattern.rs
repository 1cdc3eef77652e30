//! What a route asks of a request, checked and in the form requests are compared with.

use super::host::{self, LENGTH_MAX};
use super::target::{self, PATH_MAX};
use super::{Headers, Request, query};

/// One route's host, path and conditions.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    pub(super) host: HostPattern,
    /// Without a last slash: `/` is empty.
    pub(super) path: Box<[u8]>,
    pub(super) loose: Box<[u8]>,
    pub(super) conditions: Conditions,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum HostPattern {
    Any,
    Exact(Box<[u8]>),
    /// What follows `*.`; any number of labels may stand before it.
    Suffix(Box<[u8]>),
}

/// Equalities beyond host and path; all must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Conditions {
    protocol: Option<String>,
    query: Vec<(String, String)>,
    header: Vec<(String, String)>,
}

impl Default for Pattern {
    /// Every host, every path.
    fn default() -> Pattern {
        Pattern {
            host: HostPattern::Any,
            path: Box::default(),
            loose: Box::default(),
            conditions: Conditions::default(),
        }
    }
}

impl Pattern {
    /// A name, an address, or `*.suffix`. An error says what is allowed.
    pub fn host(mut self, written: &str) -> Result<Pattern, &'static str> {
        let (name, is_suffix) = match written.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (written, false),
        };
        let mut space = [0; LENGTH_MAX];
        let folded = host::fold(name.as_bytes(), &mut space).map_err(|_| HOST)?;
        let has_port = name.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        // Room for a label of one letter and its dot: no name would fit otherwise.
        let no_suffix = folded.starts_with(b"[") || folded.len() > LENGTH_MAX - 2;
        if folded.is_empty() || has_port || (is_suffix && no_suffix) {
            return Err(HOST);
        }
        let folded = Box::from(folded);
        self.host =
            if is_suffix { HostPattern::Suffix(folded) } else { HostPattern::Exact(folded) };
        Ok(self)
    }

    /// A prefix on whole segments; a slash at its end makes no difference.
    pub fn path(mut self, written: &str) -> Result<Pattern, &'static str> {
        let path = written.as_bytes();
        if path.len() > PATH_MAX {
            return Err("a route's path has at most 255 bytes");
        }
        if written.contains([';', '?']) || !written.is_ascii() || target::check(path).is_err() {
            return Err(PATH);
        }
        let path = path.strip_suffix(b"/").unwrap_or(path);
        self.path = Box::from(path);
        self.loose = target::loose(path).collect();
        Ok(self)
    }

    /// A subprotocol the client must offer.
    pub fn protocol(mut self, protocol: &str) -> Pattern {
        self.conditions.protocol = Some(protocol.to_owned());
        self
    }

    /// A query parameter (its first occurrence, decoded) with exactly this value.
    pub fn query(mut self, name: &str, value: &str) -> Pattern {
        self.conditions.query.push((name.to_owned(), value.to_owned()));
        self.conditions.query.sort();
        self
    }

    /// A header with a line of exactly this value.
    pub fn header(mut self, name: &str, value: &str) -> Pattern {
        self.conditions.header.push((name.to_ascii_lowercase(), value.to_owned()));
        self.conditions.header.sort();
        self
    }

    /// Would `other` match exactly the requests this one does?
    pub fn is_same(&self, other: &Pattern) -> bool {
        self.host == other.host && self.loose == other.loose && self.conditions == other.conditions
    }
}

impl Conditions {
    pub fn count(&self) -> usize {
        usize::from(self.protocol.is_some()) + self.query.len() + self.header.len()
    }

    pub fn hold<H: Headers>(&self, request: &Request<'_, H>) -> bool {
        let offered = |protocol: &String| {
            let lines = request.headers.values("sec-websocket-protocol");
            let mut offers = lines.flat_map(|line| line.split(|byte| *byte == b','));
            offers.any(|offer| offer.trim_ascii() == protocol.as_bytes())
        };
        let asked = |(name, value): &(String, String)| {
            let found = request.target.query.and_then(|query| query::first(query, name));
            found.is_some_and(|found| found.eq(value.bytes()))
        };
        let said = |(name, value): &(String, String)| {
            request.headers.values(name).any(|line| line.trim_ascii() == value.as_bytes())
        };
        self.protocol.iter().all(offered)
            && self.query.iter().all(asked)
            && self.header.iter().all(said)
    }
}

const HOST: &str = "write a host name without a port, an IP address ([…] for IPv6), or \"*.\" and \
                    a domain";
const PATH: &str = "start with '/' and write it as it comes over the wire: no '?', ';', '\\', \
                    empty, '.' or '..' segment; escape what is not ASCII";
