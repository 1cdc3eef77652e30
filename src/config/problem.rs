//! What is wrong with a configuration, said so that it can be put right: file, line, key, what was
//! found, what is allowed. Collected, never thrown: every mistake is reported at once.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// One mistake, or one warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: Arc<str>,
    /// 1 is the first line; 0 speaks of the file as a whole.
    pub line: usize,
    /// Path of the key, as `pools.chat.servers[1].weight`; empty for the file itself.
    pub key: String,
    /// What was found.
    pub message: String,
    /// What is allowed, and the nearest known name where there is one.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// All mistakes of one file, by line. Never empty when returned as an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Problems {
    /// Each of them as a line of text.
    pub fn lines(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

/// Where something stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub key: String,
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct At<T> {
    pub value: T,
    pub place: Place,
}

impl<T> At<T> {
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At { value: change(self.value), place: self.place }
    }
}

/// The value as written, or the default.
pub fn set<T: Clone>(written: &Option<At<T>>, default: T) -> T {
    written.as_ref().map_or(default, |at| at.value.clone())
}

/// Everything noticed while a file is read and proven.
#[derive(Debug)]
pub struct Notes {
    file: Arc<str>,
    line_starts: Vec<usize>,
    mistakes: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    /// Keys that a reported mistake already speaks for: what follows from it stays unsaid.
    spoken_for: RefCell<Vec<String>>,
    /// Shape of every key that was looked for, present or not.
    known: RefCell<BTreeSet<String>>,
}

impl Notes {
    pub fn new(file: &str, text: &str) -> Notes {
        let line_starts = std::iter::once(0)
            .chain(
                text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1),
            )
            .collect();
        Notes {
            file: Arc::from(file),
            line_starts,
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
            spoken_for: RefCell::default(),
            known: RefCell::default(),
        }
    }

    /// The line of a byte offset, counted from 1.
    pub fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    pub fn mistake(&self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.speaks_for(&place.key);
        let problem = self.problem(place, message.into(), remedy.into());
        self.mistakes.borrow_mut().push(problem);
    }

    pub fn warning(&self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        let problem = self.problem(place, message.into(), remedy.into());
        self.warnings.borrow_mut().push(problem);
    }

    /// `key` is absent from the section at `place`. Unsaid when the key is there but wrong, or was
    /// evidently meant by a misspelt one.
    pub fn missing(&self, place: &Place, key: &str, remedy: impl Into<String>) {
        let key = if place.key.is_empty() { key.into() } else { format!("{}.{key}", place.key) };
        if !self.is_spoken_for(&key) {
            self.mistake(&Place { line: place.line, key }, "is missing", remedy);
        }
    }

    pub fn speaks_for(&self, key: &str) {
        self.spoken_for.borrow_mut().push(key.to_owned());
    }

    /// Has a mistake been reported for this key or for a part of its value?
    pub fn is_spoken_for(&self, key: &str) -> bool {
        self.spoken_for.borrow().iter().any(|spoken| {
            spoken.strip_prefix(key).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('.') || rest.starts_with('[')
            })
        })
    }

    /// Has a mistake been reported for exactly this key?
    pub fn is_spoken_for_whole(&self, key: &str) -> bool {
        self.spoken_for.borrow().iter().any(|spoken| spoken == key)
    }

    pub fn knows(&self, shape: String) {
        self.known.borrow_mut().insert(shape);
    }

    #[cfg(test)]
    pub fn known(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }

    pub fn is_clean(&self) -> bool {
        self.mistakes.borrow().is_empty()
    }

    /// Mistakes and warnings, each sorted by line.
    pub fn into_parts(self) -> (Problems, Vec<Problem>) {
        let mut mistakes = self.mistakes.into_inner();
        let mut warnings = self.warnings.into_inner();
        mistakes.sort_by_key(|problem| problem.line);
        warnings.sort_by_key(|problem| problem.line);
        (Problems(mistakes), warnings)
    }

    fn problem(&self, place: &Place, message: String, remedy: String) -> Problem {
        let key = place.key.clone();
        Problem { file: self.file.clone(), line: place.line, key, message, remedy }
    }
}

/// The candidate a misspelt word most likely stands for.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Comparing is quadratic in the word's length; no name of ours is long.
    if word.len() > LONGEST_GUESS {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| {
            let plain = candidate.to_lowercase().replace('-', "_");
            let edits = strsim::damerau_levenshtein(&word, &plain);
            (edits, strsim::jaro_winkler(&word, &plain), plain.len(), candidate)
        })
        .filter(|(edits, likeness, length, _)| {
            *edits <= (*length).max(3) / 3 || *likeness >= LIKE_ENOUGH
        })
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(.., candidate)| candidate)
}

/// `did you mean "x"?`, or what is known here.
pub fn suggestion<'a>(word: &str, known: &[&'a str], what: &str) -> (Option<&'a str>, String) {
    match nearest(word, known.iter().copied()) {
        Some(near) => (Some(near), format!("did you mean {near:?}?")),
        None if known.is_empty() => (None, format!("no {what} is known here")),
        None => (None, format!("known here: {}", known.join(", "))),
    }
}

/// A piece of the file, quoted on one line and cut where it gets long.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(LONGEST_QUOTE) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

const LONGEST_QUOTE: usize = 80;
const LONGEST_GUESS: usize = 64;
/// Jaro-Winkler likeness from which a shared beginning (`max_conn`) counts as meant.
const LIKE_ENOUGH: f64 = 0.88;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_what_a_slip_of_the_finger_meant() {
        let keys = ["bind", "mode", "pool", "max_connections", "max_per_source", "when_empty"];
        for (typed, meant) in [
            ("bnid", Some("bind")),
            ("Mode", Some("mode")),
            ("pools", Some("pool")),
            ("max_conn", Some("max_connections")),
            ("max-connections", Some("max_connections")),
            ("whenempty", Some("when_empty")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, keys), meant, "{typed}");
        }
        assert_eq!(nearest(&"x".repeat(10_000), keys), None);
    }

    #[test]
    fn lines_are_counted_from_one_and_end_with_their_newline() {
        let notes = Notes::new("f", "a\nbc\n\nd");
        let lines: Vec<usize> = (0..7).map(|offset| notes.line(offset)).collect();
        assert_eq!(lines, [1, 1, 2, 2, 2, 3, 4]);
    }

    #[test]
    fn what_follows_from_a_reported_mistake_stays_unsaid() {
        let notes = Notes::new("f", "");
        let place = |key: &str| Place { line: 1, key: key.to_owned() };
        notes.mistake(&place("a.servers[0]"), "bad", "");
        notes.missing(&place("a"), "servers", "");
        notes.missing(&place("a"), "server", "");
        let (problems, _) = notes.into_parts();
        assert_eq!(problems.0.len(), 2);
        assert_eq!(problems.0[1].to_string(), "f:1: a.server: is missing");
    }
}
