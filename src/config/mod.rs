//! From text to a plan: what is written, then what is proven. Every mistake is found in one go and
//! says how to put it right. Nothing here opens a socket or outlives the call.

pub mod certificates;
mod host;
pub mod plan;
mod problem;
mod prove;
mod read;
mod render;
pub mod snapshot;
mod syntax;
mod units;
mod written;

use std::path::Path;

use toml::de::DeTable;

pub use host::{Host, System};
pub use problem::{Problem, Problems};
pub use render::render;
pub use units::{show_duration, show_size};

use certificates::{Contexts, Sections, Tickets};
use plan::Plan;
use problem::Notes;

/// A proven plan, and what is allowed but worth a second look.
#[derive(Debug)]
pub struct Loaded {
    pub plan: Plan,
    pub warnings: Vec<Problem>,
    /// What became of the files the plan's TLS sections name.
    pub contexts: Contexts,
}

/// Reads and proves a file on this machine, and the files it names. Host names are resolved now, so
/// this may take as long as the resolver does. Session tickets that no file has keys for are sealed
/// with those of `tickets`.
pub fn load(path: &Path, tickets: &Tickets) -> Result<Loaded, Problems> {
    load_on(path, tickets, &System)
}

/// As [`load`], where `host` answers for the machine in all but the file itself.
pub fn load_on(path: &Path, tickets: &Tickets, host: &impl Host) -> Result<Loaded, Problems> {
    let shown = path.display().to_string();
    let whole = |message: String, remedy: &str| {
        let (file, key) = (shown.as_str().into(), String::new());
        Problems(vec![Problem { file, line: 0, key, message, remedy: remedy.to_owned() }])
    };
    let bytes = System.read_any(path).map_err(|error| {
        whole(format!("cannot be read: {error}"), "name a configuration file you may read")
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        whole(format!("byte {at} is not UTF-8"), "write the file as UTF-8 text")
    })?;
    let notes = Notes::new(&shown, &text);
    let (plan, sections) = prove_text(&text, path, host, &notes);
    let contexts = sections.load(tickets, &notes);
    finish(plan, contexts, notes)
}

/// Proves `text` as the content of `file`, and loads none of the certificates it names. Relative
/// paths in it are taken from the file's folder.
pub fn parse(text: &str, file: &Path, host: &impl Host) -> Result<Loaded, Problems> {
    let notes = Notes::new(&file.display().to_string(), text);
    let (plan, _) = prove_text(text, file, host, &notes);
    finish(plan, Contexts::default(), notes)
}

fn prove_text(
    text: &str,
    file: &Path,
    host: &impl Host,
    notes: &Notes,
) -> (Option<Plan>, Sections) {
    let Some(text) = syntax::clean(text, notes) else { return (None, Sections::default()) };
    let (table, _) = DeTable::parse_recoverable(&text);
    let written = written::File::read(notes, table.get_ref());
    let (plan, sections) = prove::plan(written, file, host, notes);
    debug_assert!(plan.is_some() || !notes.is_clean(), "no plan, and nothing said why");
    (plan, sections)
}

fn finish(plan: Option<Plan>, contexts: Contexts, notes: Notes) -> Result<Loaded, Problems> {
    let (problems, warnings) = notes.into_parts();
    match plan {
        Some(plan) if problems.0.is_empty() => Ok(Loaded { plan, warnings, contexts }),
        _ => Err(problems),
    }
}

#[cfg(test)]
mod tests;
