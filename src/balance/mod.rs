//! Which server a connection goes to. Pure: never dials, never reads a clock.

/// A server's identity (pool name and address) for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u32);

/// How a pool chooses.
#[derive(Debug, Clone, PartialEq)]
pub enum Policy {
    RoundRobin,
    LeastConnections,
    RandomTwo,
    /// `bounded`: no server above this many times its fair share.
    SourceHash {
        bounded: Option<f64>,
    },
}

/// Immutable selection built from a pool's servers.
#[derive(Debug)]
pub struct Group {}

/// What all cores together carried when last summed.
#[derive(Debug)]
pub struct Loads {}
