//! The signals this process knows, and what each means. Whatever other programs mean by one of them
//! is no reason to die by it without a line.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Reload,
    End(Asked),
    /// Log rotation and other balancers use it; there is nothing here that it could mean.
    Nothing(&'static str),
}

/// A signal that asks for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Terminate,
    /// What nginx ends in order by.
    Quit,
    Interrupt,
}

impl Asked {
    pub fn name(self) -> &'static str {
        match self {
            Asked::Terminate => "SIGTERM",
            Asked::Quit => "SIGQUIT",
            Asked::Interrupt => "SIGINT",
        }
    }

    /// Somebody sits at a terminal and waits: nobody in front has to look elsewhere first.
    pub fn is_hasty(self) -> bool {
        self == Asked::Interrupt
    }
}

/// Handlers of all of them. They are installed by [`Signals::listen`], which must run in the thread
/// that has control's descriptors.
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    quit: Signal,
    interrupt: Signal,
    user_1: Signal,
    user_2: Signal,
}

impl Signals {
    /// # Errors
    /// A handler cannot be installed.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            interrupt: signal(SignalKind::interrupt())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }

    /// What the next one asks for. A future that is dropped has taken none.
    pub async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hangup.recv() => Told::Reload,
            _ = self.terminate.recv() => Told::End(Asked::Terminate),
            _ = self.quit.recv() => Told::End(Asked::Quit),
            _ = self.interrupt.recv() => Told::End(Asked::Interrupt),
            _ = self.user_1.recv() => Told::Nothing("SIGUSR1"),
            _ = self.user_2.recv() => Told::Nothing("SIGUSR2"),
        }
    }
}
