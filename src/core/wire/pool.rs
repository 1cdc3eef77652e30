//! The core's pipes for splice(2), lent for as long as bytes lie in them. A pipe that comes back
//! with bytes in it is destroyed, never reused.

use std::io;

use crate::sys::pipe::KernelPipe;

use super::entry::NONE;

/// Pipes a core lends at the most: at a megabyte each this bounds what lies in them.
const PIPES_MAX: usize = 64;
/// Pipes kept for the next borrower.
const IDLE_MAX: usize = 8;

/// The pipes of one core: those that hold bytes of a flow, and a few empty ones for the next.
#[derive(Debug, Default)]
pub struct Pool {
    lent: Vec<Option<KernelPipe>>,
    idle: Vec<KernelPipe>,
}

impl Pool {
    /// A clean pipe for the length of a call; `None` when the pool is empty.
    pub fn borrow(&mut self) -> Option<KernelPipe> {
        if let Some(pipe) = self.idle.pop() {
            return Some(pipe);
        }
        if self.lent_count() >= PIPES_MAX { None } else { KernelPipe::new().ok() }
    }

    /// Returns a pipe; one with bytes in it is thrown away.
    pub fn give_back(&mut self, pipe: KernelPipe) {
        if pipe.held == 0 && self.idle.len() < IDLE_MAX {
            self.idle.push(pipe);
        }
    }

    /// Keeps a pipe that holds bytes until they have gone; the index names it.
    pub fn keep(&mut self, pipe: KernelPipe) -> u32 {
        let index = self.lent.iter().position(Option::is_none).unwrap_or(self.lent.len());
        if index == self.lent.len() {
            self.lent.push(None);
        }
        self.lent[index] = Some(pipe);
        index as u32
    }

    /// Takes a kept pipe, to move what it holds.
    pub fn take(&mut self, index: u32) -> Option<KernelPipe> {
        if index == NONE { None } else { self.lent.get_mut(index as usize)?.take() }
    }

    /// Pipes with bytes in them.
    pub fn lent_count(&self) -> usize {
        self.lent.iter().filter(|slot| slot.is_some()).count()
    }

    /// Empties a kept pipe into `bytes` and returns it.
    ///
    /// # Errors
    /// What `read(2)` answers; the pipe is gone then.
    pub fn empty_into(&mut self, index: u32, bytes: &mut Vec<u8>) -> io::Result<()> {
        let Some(mut pipe) = self.take(index) else { return Ok(()) };
        pipe.empty_into(bytes)?;
        self.give_back(pipe);
        Ok(())
    }
}
