//! The command an audit runs while traffic flows: a shell line, its output passed on.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command as Process, Stdio};

pub struct Command {
    child: Child,
    /// What became of it, and whether that is well.
    outcome: Option<(String, bool)>,
}

impl Command {
    pub fn start(line: &str) -> Result<Command, String> {
        // Its words go to standard error: standard output is the report's.
        let child = Process::new("/bin/sh")
            .args(["-c", line])
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("--during {line}: {error}"))?;
        Ok(Command { child, outcome: None })
    }

    pub fn running(&mut self) -> bool {
        match self.child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                self.outcome = Some((status.to_string(), status.success()));
                false
            }
            Err(error) => {
                self.outcome = Some((error.to_string(), false));
                false
            }
        }
    }

    /// What became of it, and whether that is well; one that still runs is ended, with all that it
    /// has started.
    pub fn end(mut self) -> (String, bool) {
        if let Some(outcome) = self.outcome.take() {
            return outcome;
        }
        // It may have ended by itself in between: then there is nothing to kill.
        let group = format!("-{}", self.child.id());
        let _ = Process::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
        ("ended by us, it took longer than allowed".into(), false)
    }
}
