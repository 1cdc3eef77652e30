//! The command an audit runs while traffic flows: a shell line, its output passed on.

use std::process::{Child, Command as Process, Stdio};

pub struct Command {
    child: Child,
    outcome: Option<String>,
}

impl Command {
    pub fn start(line: &str) -> Result<Command, String> {
        // Its words go to standard error: standard output is the report's.
        let child = Process::new("/bin/sh")
            .args(["-c", line])
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .spawn()
            .map_err(|error| format!("--during {line}: {error}"))?;
        Ok(Command { child, outcome: None })
    }

    pub fn running(&mut self) -> bool {
        match self.child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                self.outcome = Some(status.to_string());
                false
            }
            Err(error) => {
                self.outcome = Some(error.to_string());
                false
            }
        }
    }

    /// What became of it; one that still runs is ended.
    pub fn end(mut self) -> String {
        if let Some(outcome) = self.outcome.take() {
            return outcome;
        }
        // It may have ended by itself in between: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        "ended by us, it took longer than allowed".into()
    }
}
