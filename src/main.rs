//! The life of the process: what was typed, then what it asks for. Only this binary knows both the
//! cores and control.

mod cli;
mod start;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use standpipe::config;

use cli::{Cli, Command};

/// Exit code for a configuration with mistakes.
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { file } => run(&file),
        Command::Check { file } => check(&file),
    }
}

/// `standpipe run FILE`.
fn run(file: &Path) -> ExitCode {
    let loaded = match config::load(file) {
        Ok(loaded) => loaded,
        Err(problems) => return mistakes(file, &problems),
    };
    match start::serve(loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("standpipe cannot start:\n{fault}");
            ExitCode::FAILURE
        }
    }
}

/// `standpipe check FILE`.
fn check(file: &Path) -> ExitCode {
    match config::load(file) {
        Ok(loaded) => {
            print!("{}", start::summary(&loaded));
            ExitCode::SUCCESS
        }
        Err(problems) => mistakes(file, &problems),
    }
}

fn mistakes(file: &Path, problems: &config::Problems) -> ExitCode {
    eprintln!("{problems}");
    eprintln!("{}: {} mistake(s), nothing was started", file.display(), problems.0.len());
    ExitCode::from(BAD_CONFIG)
}
