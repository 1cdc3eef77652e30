//! Which pool a request belongs to. Pure: never reads a socket, a clock or a file, and never
//! changes the bytes it looked at.

pub mod cookie;
mod origins;

pub use origins::Origins;

/// Compiled routes of one listener.
#[derive(Debug, Default, PartialEq)]
pub struct Routes {}
