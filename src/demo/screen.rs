//! Where the table goes: over itself on a terminal, line after line anywhere else. Escape codes
//! are known here only.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use crate::sys::process::terminal_size;

/// Without a cursor, and with it again.
const HIDE: &str = "\x1b[?25l";
const SHOW: &str = "\x1b[?25h";

/// What is left of an older line; what is left of an older page.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Of a terminal that does not say its size: columns and rows.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// Standard output.
#[derive(Debug)]
pub struct Screen {
    /// Lines of the page that stands there now.
    drawn: usize,
}

impl Screen {
    pub fn new() -> Self {
        Self { drawn: 0 }
    }

    pub fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Writes on; an error means that nobody reads any more.
    pub fn say(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Shows a page over the one before, as much of it as there is room for: a page that scrolls
    /// could not be overwritten.
    pub fn show(&mut self, page: &str) -> io::Result<()> {
        let text = self.drawing(page, terminal_size().unwrap_or(USUAL_SIZE));
        self.say(&text)
    }

    fn drawing(&mut self, page: &str, (columns, rows): (usize, usize)) -> String {
        let mut text = String::with_capacity(page.len() + 256);
        match self.drawn {
            0 => text.push_str(HIDE),
            lines => {
                let _ = write!(text, "\x1b[{lines}A\r");
            }
        }
        self.drawn = 0;
        for line in page.lines().take(rows.saturating_sub(1)) {
            text.extend(line.chars().take(columns));
            text.push_str(CLEAR_LINE);
            text.push('\n');
            self.drawn += 1;
        }
        text.push_str(CLEAR_BELOW);
        text
    }

    /// Gives the cursor back, below the last page.
    pub fn leave(&mut self) {
        if self.drawn > 0 {
            self.drawn = 0;
            let _ = self.say(SHOW);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_drawn_over_the_one_before() {
        let mut screen = Screen::new();
        let first = screen.drawing("a\nb\n", (80, 24));
        assert_eq!(first, format!("{HIDE}a\x1b[K\nb\x1b[K\n\x1b[J"));
        assert!(screen.drawing("c\n", (80, 24)).starts_with("\x1b[2A\rc"));
        screen.drawn = 0;
    }

    #[test]
    fn a_small_terminal_gets_what_it_has_room_for() {
        let mut screen = Screen::new();
        let text = screen.drawing("1234\n2\n3\n", (3, 3));
        assert_eq!(text, format!("{HIDE}123\x1b[K\n2\x1b[K\n\x1b[J"));
        screen.drawn = 0;
    }
}
