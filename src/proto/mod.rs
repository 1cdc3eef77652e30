//! Pure protocol rooms: bytes in, facts out. Nothing here opens a socket, reads a clock, draws a
//! random number or allocates by a length the network declared.

pub mod frame;
pub mod hello;
pub mod http;
pub mod preface;
pub mod record;
pub mod tunnel;
pub mod upgrade;

/// What a decoder says about the bytes it was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<T, E> {
    /// A legal beginning: show the same bytes again with more behind them.
    Need,
    /// The fact, and how many of the bytes it took. What follows them belongs to the caller.
    Done(usize, T),
    /// No continuation can make this legal.
    Bad(E),
}

impl<T, E> Step<T, E> {
    /// The fact with another shape.
    pub fn map<U>(self, shape: impl FnOnce(T) -> U) -> Step<U, E> {
        match self {
            Self::Need => Step::Need,
            Self::Done(used, fact) => Step::Done(used, shape(fact)),
            Self::Bad(fault) => Step::Bad(fault),
        }
    }
}
