//! Whatever is written, the loader answers; it never panics and never says nothing.

use super::*;
use proptest::prelude::*;

const FILES: [&str; 4] = [
    include_str!("../../../config/reference.toml"),
    include_str!("../../../config/example.toml"),
    include_str!("../../../config/hybrid-l7.toml"),
    MINIMAL,
];

/// Pieces that mean something to the reader, put where they do not belong.
const PIECES: [&str; 28] = [
    "\"",
    "'",
    "[",
    "]",
    "{",
    "}",
    "=",
    "\n",
    ".",
    "#",
    "-1",
    "1e999",
    "nan",
    "true",
    "\"off\"",
    "\"\"",
    "[]",
    "{}",
    "0x10",
    "99999999999999999999",
    "2020-01-01",
    "\"\"\"",
    "[[a]]",
    "\u{0}",
    "é",
    "\"base64:\"",
    "\"unix:\"",
    "\\u0000",
];

/// Problems have lines of the file, in order, and each fits on a line of its own.
fn check(text: &str) {
    if let Err(Problems(problems)) = read(text) {
        assert!(!problems.is_empty());
        let lines = text.split('\n').count();
        assert!(problems.windows(2).all(|pair| pair[0].line <= pair[1].line));
        for problem in problems {
            assert!(problem.line <= lines, "{problem}");
            assert!(!problem.message.is_empty());
            assert!(!problem.to_string().contains('\n'), "{problem:?}");
        }
    }
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Where, how many bytes go, and what comes in their place.
fn change() -> impl Strategy<Value = (prop::sample::Index, usize, &'static str)> {
    (any::<prop::sample::Index>(), 0..12usize, prop::sample::select(PIECES.to_vec()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn changed_files_are_answered(
        file in prop::sample::select(FILES.to_vec()),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let mut text = file.to_owned();
        for (at, cut, piece) in changes {
            let start = floor(&text, at.index(text.len() + 1));
            let end = floor(&text, start + cut).max(start);
            text.replace_range(start..end, piece);
        }
        check(&text);
    }

    /// A value of any kind under any key is a good one or a told one.
    #[test]
    fn changed_values_are_answered(
        file in prop::sample::select(FILES.to_vec()),
        line in any::<prop::sample::Index>(),
        piece in prop::sample::select(PIECES.to_vec()),
    ) {
        let assigned: Vec<&str> =
            file.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).collect();
        let line = assigned[line.index(assigned.len())];
        let (key, _) = line.split_once(" = ").expect("it was filtered for");
        check(&file.replacen(line, &format!("{key} = {piece}"), 1));
    }

    #[test]
    fn any_text_is_answered(
        text in "\\PC{0,200}",
        toml in "([a-z]{1,3}|[\\[\\]{}=\".,\n 0-9]){0,80}",
    ) {
        check(&text);
        check(&toml);
    }
}

#[test]
fn a_file_cut_anywhere_is_answered() {
    for file in FILES {
        for cut in (0..file.len()).step_by(7) {
            check(&file[..floor(file, cut)]);
        }
    }
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    check(&format!("a = {}", "[".repeat(100_000)));
    check(&format!("a = {}", "{a=".repeat(100_000)));
    check(&format!("[{}]", vec!["a"; 50_000].join(".")));
}

#[test]
fn a_long_file_of_nonsense_costs_little() {
    for piece in ["a=[\n", "[a\n", "=", "\"", "[[a]]\n", "a.", "{", "a=\n", "x=\"\"\"\n"] {
        check(&piece.repeat(20_000 / piece.len()));
    }
}
