//! Where the table goes: over itself on a terminal, line after line anywhere else. Escape codes
//! are known here only.

use std::io::{self, IsTerminal, Write};

/// Another page of the terminal, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";

/// The page there was before, and the cursor.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// To the upper left corner.
const HOME: &str = "\x1b[H";

/// Nothing to the right; nothing below.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Standard output.
#[derive(Debug)]
pub struct Screen {
    /// It is a terminal, and shows our page.
    live: bool,
}

impl Screen {
    pub fn new() -> Self {
        Self { live: false }
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

    /// Shows a page in place of the one before.
    pub fn show(&mut self, page: &str) -> io::Result<()> {
        let mut text = String::with_capacity(page.len() + 256);
        if !self.live {
            self.live = true;
            text.push_str(ENTER);
        }
        text.push_str(HOME);
        for line in page.lines() {
            text.push_str(line);
            text.push_str(CLEAR_LINE);
            text.push_str("\r\n");
        }
        text.push_str(CLEAR_BELOW);
        self.say(&text)
    }

    /// Gives the terminal back as it was.
    pub fn leave(&mut self) {
        if self.live {
            self.live = false;
            let _ = self.say(LEAVE);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}
