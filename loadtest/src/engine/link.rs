//! One connection of the generator as plain data: what it is doing, what it has sent, what came.

use crate::proof::Account;
use crate::socket::Socket;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not dialled yet, or gone.
    Down,
    Connecting,
    Securing,
    Upgrading,
    Open,
    /// We have said goodbye and wait for the peer to do so too.
    Leaving,
}

/// How a connection behaves towards what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    Normal,
    /// Reads a little now and then, or never; its latencies count for nothing.
    Slow,
    /// Will stop being there without a word, when told to.
    Doomed,
    /// It has.
    Gone,
}

pub struct Link {
    pub stage: Stage,
    pub habit: Habit,
    pub talks: bool,
    /// Bytes were lost between messages: looking for the next whole one.
    pub astray: bool,
    /// The server's name was asked and not heard yet.
    pub asked: bool,
    /// The peer is known to have finished: an end of stream follows what can be read. It is said
    /// only once, so it is kept until all of that has been read.
    pub finished: bool,
    pub socket: Option<Socket>,
    /// Messages sent so far, which is the number of the next one.
    pub sent: u32,
    /// The number its first message of the present schedule has.
    pub base: u32,
    /// Messages due so far; above `sent` while the socket takes no more.
    pub due: u32,
    /// When the last of those was due.
    pub due_ns: u64,
    /// When it was dialled (or, a short life, was to be), and from being open on, when it opened.
    pub since_ns: u64,
    /// When it was in truth dialled, said goodbye, or fell down: what its deadlines count from.
    pub stage_ns: u64,
    pub account: Account,
    /// Received bytes that are not yet a whole message or frame.
    #[expect(clippy::box_collection, reason = "8 bytes of an idle connection, not 24")]
    pub tail: Option<Box<Vec<u8>>>,
    /// The frames so far of a message that comes in several.
    #[expect(clippy::box_collection, reason = "8 bytes of an idle connection, not 24")]
    pub fragments: Option<Box<Vec<u8>>>,
    /// Cookies a server has set.
    pub jar: Option<Box<str>>,
}

impl Link {
    pub fn new(talks: bool, habit: Habit) -> Link {
        Link {
            stage: Stage::Down,
            habit,
            talks,
            astray: false,
            asked: false,
            finished: false,
            socket: None,
            sent: 0,
            base: 0,
            due: 0,
            due_ns: 0,
            since_ns: 0,
            stage_ns: 0,
            account: Account::default(),
            tail: None,
            fragments: None,
            jar: None,
        }
    }

    pub fn is_down(&self) -> bool {
        self.stage == Stage::Down
    }
}

// What an idle plain connection costs in user memory, together with its slot in lists.
const _: () = assert!(size_of::<Link>() <= 160);
