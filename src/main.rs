//! The life of the process: what was typed, then what it asks for. Only this binary knows both the
//! cores and control.

#![deny(unsafe_code)]

mod cli;
mod start;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use standpipe::control::Outset;
use standpipe::sys::listen::Sharing;

use cli::{Cli, Command};

/// Exit code for a configuration with mistakes.
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { file, share_ports } => run(&file, sharing(share_ports)),
        Command::Demo { seconds } => demo(seconds),
        Command::Check { file } => check(&file),
    }
}

/// `standpipe run FILE`.
fn run(file: &Path, sharing: Sharing) -> ExitCode {
    let outset = match Outset::new(file, sharing) {
        Ok(outset) => outset,
        Err(mistakes) => return tell(file, &mistakes),
    };
    match start::serve(outset) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            complain(&format!("standpipe cannot run:\n{fault}"));
            ExitCode::FAILURE
        }
    }
}

/// `standpipe demo`.
fn demo(seconds: Option<u64>) -> ExitCode {
    match standpipe::demo::run(seconds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            complain(&format!("standpipe demo: {fault}"));
            ExitCode::FAILURE
        }
    }
}

/// `standpipe check FILE`.
fn check(file: &Path) -> ExitCode {
    match Outset::new(file, Sharing::Alone) {
        Ok(outset) => {
            // The reader may have closed the pipe already, as `head` does.
            let _ = io::stdout().write_all(start::summary(&outset).as_bytes());
            ExitCode::SUCCESS
        }
        Err(mistakes) => tell(file, &mistakes),
    }
}

fn sharing(asked_for: bool) -> Sharing {
    if asked_for { Sharing::WithKin } else { Sharing::Alone }
}

fn tell(file: &Path, mistakes: &[String]) -> ExitCode {
    for mistake in mistakes {
        complain(mistake);
    }
    complain(&format!("{}: {} mistake(s), nothing was started", file.display(), mistakes.len()));
    ExitCode::from(BAD_CONFIG)
}

/// One more line on standard error, unless nobody reads it any more.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
