//! Text that is not quite TOML. One broken statement must not hide the mistakes after it, nor be
//! told once for each thing the parser stumbles over: the first error is reported, its statement is
//! blanked out, and the rest is parsed again.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use toml::de::DeTable;

use super::problem::{Notes, Place};

/// The same text with every statement that is no TOML blanked out and reported. Offsets and line
/// numbers stay what they were. `None`: what is wrong could not be isolated.
pub fn clean(text: &str, notes: &Notes) -> Option<String> {
    let mut text = text.to_owned();
    for told in 0..=REPORTS_MAX {
        let (_, errors) = DeTable::parse_recoverable(&text);
        let start = |error: &toml::de::Error| error.span().map_or(text.len(), |span| span.start);
        let Some(error) = errors.iter().min_by_key(|error| start(error)) else { return Some(text) };
        let line = notes.line(start(error));
        if told == REPORTS_MAX {
            let place = Place { line, key: String::new() };
            notes.mistake(&place, "there is more that is no TOML", "put right the others first");
            return None;
        }
        let statements = statements(&text);
        let Some(index) = culprit(&statements, line) else {
            report(notes, line, "", error);
            return None;
        };
        let statement = &statements[index];
        let key = statement.key.as_str();
        match statement.is_closed {
            true => report(notes, line.min(*statement.lines.end()), key, error),
            false => {
                let place = Place { line: *statement.lines.start(), key: key.to_owned() };
                notes.mistake(&place, "opens a bracket or a quote that is not closed", SYNTAX);
            }
        }
        let last = match statement.is_header {
            // Without their header the keys below would count as another table's.
            true => statements[index + 1..].iter().take_while(|it| !it.is_header).last(),
            false => None,
        };
        let last = last.unwrap_or(statement).lines.end();
        text = blank(&text, *statement.lines.start()..=*last);
    }
    None
}

fn report(notes: &Notes, line: usize, key: &str, error: &toml::de::Error) {
    let place = Place { line, key: key.to_owned() };
    notes.mistake(&place, error.message().replace('\n', " "), SYNTAX);
}

/// A table header or a key with its value, over as many lines as its brackets span.
#[derive(Debug)]
struct Statement {
    lines: RangeInclusive<usize>,
    /// As far as it can be read: the path of the table, or of the key.
    key: String,
    is_header: bool,
    is_closed: bool,
}

/// A statement whose bracket stays open swallows those after it, so the first such is to blame.
fn culprit(statements: &[Statement], line: usize) -> Option<usize> {
    let open = statements.iter().position(|it| !it.is_closed && *it.lines.start() <= line);
    open.or_else(|| statements.iter().position(|it| it.lines.contains(&line)))
        .or_else(|| statements.iter().rposition(|it| *it.lines.end() < line))
}

fn statements(text: &str) -> Vec<Statement> {
    let lines: Vec<&str> = text.split('\n').collect();
    let mut statements: Vec<Statement> = Vec::new();
    let mut table = String::new();
    let mut headers: HashMap<String, usize> = HashMap::new();
    let mut is_lost = false;
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at].trim();
        let first = at;
        at += 1;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('[') {
            table = header(line, &mut headers);
            let (key, is_closed) = (table.clone(), line.contains(']'));
            let lines = first + 1..=first + 1;
            statements.push(Statement { lines, key, is_header: true, is_closed });
            continue;
        }
        let mut scan = Scan::default();
        scan.line(lines[first]);
        // Behind an open bracket nothing is certain, and looking again would be quadratic.
        while !is_lost && scan.is_open() && at < lines.len() && !is_header(lines[at]) {
            scan.line(lines[at]);
            at += 1;
        }
        let is_closed = !scan.is_open();
        is_lost |= !is_closed;
        if !is_closed {
            // Not one value over many lines, then: give the others their own statements back.
            at = first + 1 + lines[first + 1..].iter().take_while(|it| !is_start(it)).count();
        }
        let name = line.split('=').next().unwrap_or_default().trim();
        let key = path(&table, name);
        statements.push(Statement { lines: first + 1..=at, key, is_header: false, is_closed });
    }
    statements
}

/// Shown in a problem, so nothing but what keys are made of.
fn path(table: &str, name: &str) -> String {
    let shown = name.chars().all(|c| c.is_ascii_graphic()) && name.len() <= 64;
    match (table.is_empty(), shown) {
        (_, false) => table.to_owned(),
        (true, true) => name.to_owned(),
        (false, true) => format!("{table}.{name}"),
    }
}

/// The path a header names; with its index where it adds to a list of tables.
fn header(line: &str, seen: &mut HashMap<String, usize>) -> String {
    let is_list = line.starts_with("[[");
    let name = line.trim_start_matches('[').split([']', '#']).next().unwrap_or_default().trim();
    let name = path("", name);
    if !is_list {
        return name;
    }
    let next = seen.entry(name.clone()).or_default();
    let index = *next;
    *next += 1;
    format!("{name}[{index}]")
}

fn is_header(line: &str) -> bool {
    let line = line.split('#').next().unwrap_or_default().trim();
    line.starts_with('[') && line.ends_with(']') && !line.contains([',', '"', '=', '{'])
}

fn is_start(line: &str) -> bool {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let rest = line.trim_start();
    let after = rest.trim_start_matches(bare);
    (after.len() < rest.len() && after.trim_start().starts_with('=')) || is_header(line)
}

/// Brackets and long strings left open, line after line.
#[derive(Debug, Default)]
struct Scan {
    depth: usize,
    /// The quotes that will end a string of several lines.
    long: Option<&'static str>,
}

impl Scan {
    fn is_open(&self) -> bool {
        self.depth > 0 || self.long.is_some()
    }

    fn line(&mut self, line: &str) {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            if let Some(quotes) = self.long {
                let Some(end) = rest.find(quotes) else { return };
                rest = &rest[end + quotes.len()..];
                self.long = None;
                continue;
            }
            let long = ["\"\"\"", "'''"].into_iter().find(|quotes| rest.starts_with(quotes));
            if let Some(quotes) = long {
                self.long = Some(quotes);
                rest = &rest[quotes.len()..];
                continue;
            }
            match first {
                '#' => return,
                '[' | '{' => self.depth += 1,
                ']' | '}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            rest = match first {
                '"' | '\'' => after_string(&rest[1..], first),
                _ => &rest[first.len_utf8()..],
            };
        }
    }
}

/// What follows a string of one line; nothing, when it is not ended.
fn after_string(text: &str, quote: char) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == quote && !escaped {
            return &text[at + 1..];
        }
        escaped = c == '\\' && quote == '"' && !escaped;
    }
    ""
}

fn blank(text: &str, lines: RangeInclusive<usize>) -> String {
    let blanked = |(at, line): (usize, &str)| match lines.contains(&(at + 1)) {
        true => " ".repeat(line.len()),
        false => line.to_owned(),
    };
    text.split('\n').enumerate().map(blanked).collect::<Vec<_>>().join("\n")
}

/// Syntax errors reported at once: more are not read at one time, and each costs a parse.
const REPORTS_MAX: usize = 20;
const SYNTAX: &str = "the file is TOML: [tables], key = value, strings in double quotes";

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> (Vec<usize>, String) {
        let notes = Notes::new("f", text);
        let clean = clean(text, &notes).unwrap_or_default();
        let (problems, _) = notes.into_parts();
        (problems.0.iter().map(|it| it.line).collect(), clean)
    }

    #[test]
    fn each_broken_statement_is_told_once_and_the_rest_is_kept() {
        for (broken, lines) in [
            ("a = [1, 2\nb = 1\nc = 2", vec![1]),
            ("a = [\n  1,\n  2 3,\n]\nb = 1", vec![3]),
            ("a = [\n  { x = 1,\n    y = z },\n]\nb = 1", vec![3]),
            ("a = \"x\nb = 1", vec![1]),
            ("b = 1\na = b", vec![2]),
            ("b = 1\nb = 2\na = b", vec![2, 3]),
            ("b = 1\na", vec![2]),
            ("b = 1\n= 2", vec![2]),
            ("b = 1\na = \"\"\"x\ny\n", vec![2]),
            ("b = 1\n[t\nx = 1\ny = 2\n[u]\nz = 3", vec![2]),
            ("b = 1\n[t]\n[t]\nx = 1", vec![3]),
            ("b = 1 c = 2\nb = 1", vec![1]),
        ] {
            let (told, clean) = cleaned(broken);
            assert_eq!(told, lines, "{broken}");
            assert_eq!(clean.len(), broken.len());
            assert!(clean.contains("b = 1") && !clean.contains("x = "), "{broken}\n{clean}");
        }
    }

    #[test]
    fn of_many_faults_the_first_are_told_and_that_there_are_more() {
        let broken = |count: usize| (0..count).map(|n| format!("a{n} = b\n")).collect::<String>();
        let text = broken(REPORTS_MAX) + "good = 1\n";
        let (told, clean) = cleaned(&text);
        assert_eq!(told, Vec::from_iter(1..=REPORTS_MAX));
        assert!(clean.contains("good = 1"));
        let (told, clean) = cleaned(&broken(50));
        assert_eq!(told.len(), REPORTS_MAX + 1);
        assert_eq!(clean, "");
    }

    #[test]
    fn good_text_is_left_alone() {
        let text = "a = [\n  \"]\", # ]\n  '[',\n]\nb = { c = \"\\\"{\" }\n[[t]]\n[[t]]\nx = 1\n";
        assert_eq!(cleaned(text), (vec![], text.to_owned()));
        let keys: Vec<String> = statements(text).into_iter().map(|it| it.key).collect();
        assert_eq!(keys, ["a", "b", "t[0]", "t[1]", "t[1].x"]);
    }
}
