//! Which pool a request belongs to. Pure: never reads a socket, a clock or a file, never allocates
//! while a request waits, and never changes the bytes it looked at.
//!
//! A listener's routes are tried from the most particular to the least: an exact host before
//! `*.suffix` (the longest suffix first) before no host; then the longest path; then the route with
//! more conditions; then the order of the file. The first whose conditions all hold wins.
//!
//! **The rule for paths.** A route's path is a prefix on whole segments of the request's path as
//! received, byte for byte, up to the `?`; what is forwarded is those same bytes. Servers read
//! paths more loosely than that: they undo percent-escapes, drop `;parameters`, fold `..`. So that
//! no spelling slips past a route, a path is refused (400) when it holds a dot segment, an empty
//! segment that is not the last, a backslash, a control byte or a broken escape, in plain or
//! escaped form, or an escaped slash inside parameters; and when the loose reading (escapes undone
//! once, parameters dropped) would take another route than the bytes do.

pub mod cookie;
mod host;
pub mod key;
mod origins;
mod pattern;
mod query;
pub mod split;
mod target;

use std::collections::HashMap;

pub use origins::Origins;
pub use pattern::Pattern;
pub use target::Target;

use pattern::{Conditions, HostPattern};

/// The header fields of a request, as routing needs them.
pub trait Headers {
    /// Values of every line of this name (matched without regard to case), in order.
    fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]>;
}

/// What is known of a request when it is routed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a, H> {
    /// The `Host` field as received; empty when there was none.
    pub host: &'a [u8],
    pub target: Target<'a>,
    pub headers: &'a H,
}

/// Why a request is answered 400 rather than routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The target does not begin with a path.
    Form,
    /// A byte that no path may hold.
    Byte,
    /// A `%` that two hexadecimal digits do not follow.
    Escape,
    /// A `.`, `..` or empty segment.
    Segment,
    /// Read loosely, the path takes another route, or parameters end in two places.
    Ambiguous,
    /// `Host` is no host.
    Host,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::Form => "the request target is not a path",
            Refusal::Byte => "the path holds a byte that must be escaped",
            Refusal::Escape => "the path holds a broken percent escape",
            Refusal::Segment => "the path holds an empty or a dot segment",
            Refusal::Ambiguous => "the path is escaped so that it could be read in two ways",
            Refusal::Host => "the Host field is not a host name",
        })
    }
}

/// Compiled routes of one listener.
#[derive(Debug, Default, PartialEq)]
pub struct Routes {
    exact: HashMap<Box<[u8]>, Paths>,
    suffix: HashMap<Box<[u8]>, Paths>,
    any: Paths,
}

/// Routes of one host, by path.
#[derive(Debug, Default, PartialEq)]
struct Paths {
    /// By the path as written, without a last slash.
    raw: HashMap<Box<[u8]>, Vec<Candidate>>,
    /// By its loose reading.
    loose: HashMap<Box<[u8]>, Vec<Candidate>>,
    /// Length of the longest key.
    longest: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct Candidate {
    index: usize,
    conditions: Conditions,
}

#[derive(Debug, Clone, Copy)]
enum Reading {
    Raw,
    Loose,
}

impl Routes {
    /// The value a match yields is the pattern's index.
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Routes {
        let mut routes = Routes::default();
        for (index, pattern) in patterns.into_iter().enumerate() {
            let paths = match pattern.host {
                HostPattern::Any => &mut routes.any,
                HostPattern::Exact(host) => routes.exact.entry(host).or_default(),
                HostPattern::Suffix(suffix) => routes.suffix.entry(suffix).or_default(),
            };
            paths.longest = paths.longest.max(pattern.path.len());
            let candidate = Candidate { index, conditions: pattern.conditions };
            add(paths.raw.entry(pattern.path).or_default(), candidate.clone());
            add(paths.loose.entry(pattern.loose).or_default(), candidate);
        }
        routes
    }

    /// The route a request takes; `None`: there is none (404).
    pub fn find<H: Headers>(&self, request: &Request<'_, H>) -> Result<Option<usize>, Refusal> {
        let mut space = [0; host::LENGTH_MAX];
        let name = host::fold(request.host, &mut space)?;
        let found = self.look(name, request.target.path, Reading::Raw, request);
        let mut space = [0; target::LOOSE_MAX];
        if let Some(loose) = request.target.loose(&mut space)
            && self.look(name, loose, Reading::Loose, request) != found
        {
            return Err(Refusal::Ambiguous);
        }
        Ok(found)
    }

    fn look<H: Headers>(
        &self,
        host: &[u8],
        path: &[u8],
        reading: Reading,
        request: &Request<'_, H>,
    ) -> Option<usize> {
        let exact = self.exact.get(host);
        let suffixes = host::suffixes(host).filter_map(|suffix| self.suffix.get(suffix));
        exact
            .into_iter()
            .chain(suffixes)
            .chain(std::iter::once(&self.any))
            .find_map(|paths| paths.look(path, reading, request))
    }
}

impl Paths {
    fn look<H: Headers>(
        &self,
        path: &[u8],
        reading: Reading,
        request: &Request<'_, H>,
    ) -> Option<usize> {
        let table = match reading {
            Reading::Raw => &self.raw,
            Reading::Loose => &self.loose,
        };
        prefixes(path, self.longest)
            .filter_map(|prefix| table.get(prefix))
            .flatten()
            .find(|candidate| candidate.conditions.hold(request))
            .map(|candidate| candidate.index)
    }
}

/// More conditions first; `Vec` order is the file's among equals.
fn add(candidates: &mut Vec<Candidate>, new: Candidate) {
    let at = candidates.partition_point(|old| old.conditions.count() >= new.conditions.count());
    candidates.insert(at, new);
}

/// Every prefix on whole segments of at most `longest` bytes, longest first, down to the empty one
/// that stands for `/`.
fn prefixes(path: &[u8], longest: usize) -> impl Iterator<Item = &[u8]> {
    let is_end = move |at: usize| path.get(at).is_none_or(|byte| *byte == b'/');
    (0..=path.len().min(longest)).rev().filter(move |at| is_end(*at)).map(|at| &path[..at])
}

#[cfg(test)]
mod tests;
