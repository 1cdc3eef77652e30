//! The house rules, as a test: which room may know which, where `unsafe` may stand, how long a
//! file may be. It reads source text and knows nothing of what the program does.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Which rooms of the library each room may name. A room may always name itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("proto", &[]),
    ("route", &[]),
    ("balance", &[]),
    ("meter", &[]),
    ("config", &["proto", "route", "balance", "meter"]),
    ("core", &["sys", "proto", "route", "balance", "meter", "config"]),
    ("control", &["sys", "proto", "route", "balance", "meter", "config"]),
    // Beside the others: it starts the program and talks to it as anybody would.
    ("demo", &["sys", "proto", "config"]),
];

/// Rooms that take bytes, time and chance as arguments and never fetch them.
const PURE: &[&str] = &["proto", "route", "balance", "meter"];

/// What a pure room would have to name to reach a socket, a file, a clock or a die.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::env",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "Instant::now",
    "SystemTime::now",
    "fastrand::",
    "rand::",
    "monoio",
    "tokio",
    "libc::",
];

const LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

/// Files that may break a rule, with the reason. Empty, and meant to stay so.
const EXCEPTIONS: &[(&str, &str)] = &[];

#[test]
fn rooms_know_only_what_lies_below_them() {
    check(|file, faults| {
        let room = file.room.as_str();
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == room) else { return };
        for (number, named) in rooms_named(&file.code) {
            let known = LAYERS.iter().any(|(name, _)| *name == named);
            if known && named != room && !allowed.contains(&named) {
                faults.add(file, number, &format!("`{room}` may not know `{named}`"));
            }
        }
    });
}

#[test]
fn the_load_tool_shares_only_the_wire_format_and_the_syscalls() {
    check(|file, faults| {
        if !file.path.starts_with("loadtest/") {
            return;
        }
        for (number, named) in rooms_named(&file.code) {
            let known = LAYERS.iter().any(|(name, _)| *name == named);
            if known && !["proto", "sys"].contains(&named) {
                faults.add(file, number, &format!("loadtest may not know `{named}`"));
            }
        }
    });
}

#[test]
fn pure_rooms_fetch_nothing() {
    check(|file, faults| {
        if !PURE.contains(&file.room.as_str()) {
            return;
        }
        for (number, line) in file.shipped() {
            for word in IMPURE.iter().filter(|word| names(line, word)) {
                faults.add(file, number, &format!("`{word}` in a pure room"));
            }
        }
    });
}

#[test]
fn unsafe_stands_only_in_sys() {
    check(|file, faults| {
        if file.path.starts_with("src/sys/") {
            return;
        }
        for (number, line) in file.code() {
            if words(line).any(|word| word == "unsafe") {
                faults.add(file, number, "`unsafe` outside src/sys");
            }
        }
    });
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    check(|file, faults| {
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, line) in file.code() {
            let opens = line.contains("unsafe {") || line.contains("unsafe impl");
            let from = number.saturating_sub(8);
            if opens && !lines[from..number].iter().any(|l| l.contains("SAFETY:")) {
                faults.add(file, number, "`unsafe` without a SAFETY comment");
            }
        }
    });
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    check(|file, faults| {
        if !file.text.starts_with("//!") {
            faults.add(file, 1, "the first line is not `//!`");
        }
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            faults.add(file, lines, &format!("{lines} lines, more than {LINES_MAX}"));
        }
        for ((number, code), line) in file.code().zip(file.text.lines()) {
            // The text of a string is as long as it is.
            let has_string = !line.trim_start().starts_with("//") && code != line;
            if line.chars().count() > COLUMNS_MAX && !has_string {
                faults.add(file, number, &format!("wider than {COLUMNS_MAX} columns"));
            }
        }
    });
}

#[test]
fn nothing_that_ships_unwraps_or_is_left_for_later() {
    check(|file, faults| {
        for (number, line) in file.shipped() {
            for banned in [".unwrap()", "todo!(", "unimplemented!(", "dbg!("] {
                if line.contains(banned) {
                    faults.add(file, number, &format!("`{banned}` outside a test"));
                }
            }
        }
        for (index, line) in file.text.lines().enumerate() {
            let left = ["TO", "FIX", "XX"].into_iter().zip(["DO", "ME", "X"]);
            if left.map(|(a, b)| format!("{a}{b}")).any(|mark| words(line).any(|w| w == mark)) {
                faults.add(file, index + 1, "a note for later");
            }
        }
    });
}

/// A splice in the ring is a kernel thread for each one that waits: never.
#[test]
fn no_splice_goes_through_the_ring() {
    check(|file, faults| {
        for (number, line) in file.code() {
            if ["opcode::Splice", "IORING_OP_SPLICE", "zero_copy"].iter().any(|n| line.contains(n))
            {
                faults.add(file, number, "a splice through io_uring");
            }
        }
    });
}

#[test]
fn no_rule_has_an_exception() {
    assert!(EXCEPTIONS.is_empty(), "{EXCEPTIONS:?}");
}

#[test]
fn the_reader_of_source_text_is_not_fooled() {
    let text = "let a = \"unsafe \\\" crate::core\"; // unsafe\nlet b = 'x'; /* crate::core */\n\
                f::<'a>(); \
                let c = r#\"unsafe \" here\"#; unsafe_op(); '\"'; unsafe {}\n";
    let code = blank_comments_and_strings(text);
    let unsafe_lines: Vec<usize> = code
        .lines()
        .enumerate()
        .filter(|(_, l)| words(l).any(|w| w == "unsafe"))
        .map(|(i, _)| i)
        .collect();
    assert_eq!(unsafe_lines, [2]);
    assert!(!code.contains("crate::core"));
    assert!(code.contains("f::<'a>()"));
    let nested = rooms_named("\nuse crate::{\n core::{x, y},\n meter};\ncrate::sys::a");
    assert_eq!(nested, [(2, "core"), (2, "meter"), (5, "sys")]);
}

// === reading the tree ===

struct Source {
    path: String,
    /// The folder under `src`, or the file's own name there; empty elsewhere.
    room: String,
    text: String,
    /// The text with comments and string contents blanked out, line for line.
    code: String,
    /// It is part of a module that exists only in tests.
    is_test: bool,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("source is readable");
        let path = path.strip_prefix(root).expect("below the root").display().to_string();
        let room = path
            .strip_prefix("src/")
            .map_or("", |rest| rest.split('/').next().unwrap_or_default().trim_end_matches(".rs"));
        let code = blank_comments_and_strings(&text);
        Self { room: room.to_owned(), path: path.clone(), text, code, is_test: false }
    }

    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The code that ends up in a binary: no test module, no test file.
    fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        let ships = (self.path.starts_with("src/") || self.path.starts_with("loadtest/src/"))
            && !self.is_test;
        let mut lines: Vec<(usize, &str)> = Vec::new();
        let mut all = self.code().peekable();
        while let Some((number, line)) = all.next() {
            if line.trim() == "#[cfg(test)]"
                && all.peek().is_some_and(|(_, next)| declares_module(next))
            {
                // Declared here and standing in a file of its own, or the rest of this file.
                if all.next().is_some_and(|(_, next)| next.trim_end().ends_with('{')) {
                    break;
                }
                continue;
            }
            lines.push((number, line));
        }
        lines.truncate(if ships { lines.len() } else { 0 });
        lines.into_iter()
    }
}

fn declares_module(line: &str) -> bool {
    words(line).any(|word| word == "mod")
}

/// Files and folders of modules that exist only in tests, as `#[cfg(test)] mod name;` says.
fn test_modules(file: &Path, code: &str) -> Vec<PathBuf> {
    let stem = file.file_stem().unwrap_or_default();
    let folder = file.parent().unwrap_or(file);
    let inside = if ["mod", "lib", "main"].iter().any(|name| stem == *name) {
        folder.to_path_buf()
    } else {
        folder.join(stem)
    };
    let lines: Vec<&str> = code.lines().collect();
    let declared = lines.windows(2).filter(|pair| pair[0].trim() == "#[cfg(test)]");
    let names = declared.filter_map(|pair| pair[1].split_once("mod ")?.1.split(';').next());
    names.flat_map(|name| [inside.join(format!("{name}.rs")), inside.join(name)]).collect()
}

#[derive(Default)]
struct Faults(String);

impl Faults {
    fn add(&mut self, file: &Source, line: usize, what: &str) {
        let _ = writeln!(self.0, "{}:{line}: {what}", file.path);
    }
}

fn check(rule: impl Fn(&Source, &mut Faults)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "loadtest", "tests", "benches"] {
        collect(&root.join(folder), &mut files);
    }
    assert!(files.len() > 10, "the tree was not found");
    let sources: Vec<Source> = files.iter().map(|path| Source::read(root, path)).collect();
    let tests: Vec<PathBuf> = files
        .iter()
        .zip(&sources)
        .flat_map(|(path, file)| test_modules(path, &file.code))
        .collect();
    let mut faults = Faults::default();
    for (path, mut file) in files.iter().zip(sources) {
        file.is_test =
            file.path.ends_with("tests.rs") || tests.iter().any(|test| path.starts_with(test));
        rule(&file, &mut faults);
    }
    assert!(faults.0.is_empty(), "\n{}", faults.0);
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let skipped = ["target", "node_modules", "peers", "fuzz"];
        if path.is_dir() {
            if !skipped.iter().any(|name| path.ends_with(name)) {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
}

/// What follows `crate::` and `standpipe::` in code, with the line: the rooms it names. Braces are
/// opened, so `use crate::{core::x, meter}` names two.
fn rooms_named(code: &str) -> Vec<(usize, &str)> {
    let mut named = Vec::new();
    for prefix in ["crate::", "standpipe::"] {
        for (at, _) in code.match_indices(prefix).filter(|(at, _)| !code[..*at].ends_with(is_word))
        {
            let rest = &code[at + prefix.len()..];
            let line = code[..at].matches('\n').count() + 1;
            for segment in first_segments(rest) {
                let end = segment.find(|c| !is_word(c)).unwrap_or(segment.len());
                named.push((line, &segment[..end]));
            }
        }
    }
    named
}

/// A path, or each path of a brace group: split at the commas of the outermost level.
fn first_segments(rest: &str) -> Vec<&str> {
    let Some(group) = rest.strip_prefix('{') else { return vec![rest] };
    let (mut depth, mut from, mut segments) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                segments.push(group[from..at].trim_start());
                from = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    segments
}

fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(is_word))
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Replaces what the compiler would not read as code by spaces, keeping line ends.
fn blank_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skipped_until(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment, string or character that starts at `at` ends; `at` itself if none does.
fn skipped_until(chars: &[char], at: usize) -> usize {
    let next = |k: usize| chars.get(at + k).copied().unwrap_or('\0');
    let find = |from: usize, what: &[char]| {
        (from..chars.len()).find(|i| chars[*i..].starts_with(what)).map_or(chars.len(), |i| i)
    };
    match (chars[at], next(1)) {
        ('/', '/') => find(at, &['\n']),
        ('/', '*') => (find(at + 2, &['*', '/']) + 2).min(chars.len()),
        ('r', '"' | '#') if at == 0 || !is_word(chars[at - 1]) || chars[at - 1] == 'b' => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            if next(1 + hashes) != '"' {
                return at;
            }
            let mut close = vec!['"'];
            close.extend(std::iter::repeat_n('#', hashes));
            (find(at + 2 + hashes, &close) + close.len()).min(chars.len())
        }
        ('"', _) => {
            let mut i = at + 1;
            while i < chars.len() && chars[i] != '"' {
                i += if chars[i] == '\\' { 2 } else { 1 };
            }
            (i + 1).min(chars.len())
        }
        ('\'', '\\') => (find(at + 3, &['\'']) + 1).min(chars.len()),
        ('\'', _) if next(2) == '\'' => at + 3,
        _ => at,
    }
}
