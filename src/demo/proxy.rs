//! The proxy of a demonstration: this very program, run as a user would run it, in a process of
//! its own. So its memory is its own, and no descriptor of the demonstration is open in its cores.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::sys::process;

use super::figures;
use super::scene::{Scene, create};

/// How long it may take to serve. It takes some milliseconds; a busy machine may need more.
const START_WITHIN: Duration = Duration::from_secs(20);

/// How long it may take to end; its configuration gives connections two seconds.
const END_WITHIN: Duration = Duration::from_secs(5);

/// How often we look whether it has started, or ended.
const LOOK: Duration = Duration::from_millis(20);

/// Lines of its log that are shown when it could not start.
const LOG_LINES: usize = 12;

/// The running proxy.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    log: PathBuf,
}

impl Proxy {
    /// Starts `standpipe run` on the scene's file; it ends when this process does.
    pub fn start(scene: &Scene) -> io::Result<Self> {
        let log = create(&scene.log())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("run").arg(scene.configuration());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        process::die_with_parent(&mut command);
        Ok(Self { child: command.spawn()?, log: scene.log() })
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// What it said, if it ended or did not serve in time.
    pub async fn ready(&mut self, admin: SocketAddr) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            if figures::get(admin, "/ready").await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            self.check()?;
            if begun.elapsed() > START_WITHIN {
                let within = START_WITHIN.as_secs();
                return Err(format!(
                    "the proxy was not ready in {within} s:\n{}",
                    self.last_words()
                ));
            }
            sleep(LOOK).await;
        }
    }

    /// # Errors
    /// That it has ended, and what it said last.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the proxy ended ({status}):\n{}", self.last_words())),
            Err(error) => Err(format!("the proxy cannot be watched: {error}")),
        }
    }

    /// Ends it as an operator would, by SIGTERM, and waits for it.
    ///
    /// # Errors
    /// That it did not end well.
    pub async fn finish(mut self) -> Result<(), String> {
        let asked = process::terminate(self.child.id());
        asked.map_err(|error| format!("the proxy could not be told to end: {error}"))?;
        let begun = Instant::now();
        while begun.elapsed() < END_WITHIN {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(format!("the proxy ended with {status}:\n{}", self.last_words()));
                }
                Ok(None) => sleep(LOOK).await,
                Err(error) => return Err(format!("the proxy cannot be watched: {error}")),
            }
        }
        Err(format!("the proxy did not end in {} s; it was killed", END_WITHIN.as_secs()))
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It has ended already, or the demonstration fails and it must not outlive it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
