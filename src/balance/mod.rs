//! Which server of a pool gets the next connection. Pure: counts, keys, random numbers and the
//! time come in as arguments, and nothing here knows a socket, a clock or another core.
//!
//! Control builds one immutable [`Group`] for a pool from its servers' weights and states and
//! sends the same value to every core. A core picks from it with its own [`Cursor`] and its own
//! [`Ledger`], so that two cores never write to the same place; what the others carry is told
//! ten times a second in [`Loads`].

pub mod health;
pub mod quota;
pub mod slow_start;

mod group;
mod hash;
mod least;
mod ledger;
mod member;
mod random_two;
mod ring;
mod round_robin;
mod spread;

pub use group::{Cursor, Group, Pick};
pub use hash::{GOLDEN, key_of, key_of_source};
pub use ledger::{Counts, Ledger, Load, Loads};
pub use member::{Member, MemberState, Policy, ServerId};

/// How far above its fair share a bounded hash lets a server go when the file says nothing.
pub const BOUND: f64 = 1.25;

#[cfg(test)]
mod tests;
