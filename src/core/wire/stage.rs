//! What stands between reading and sending on pipes that are more than bytes.

use crate::meter::Ending;
use crate::sys::memory::Span;

use super::slab::Key;
use super::{How, Wire};

/// State beyond sockets and flows: TLS keys, the frame relay.
#[derive(Debug)]
pub struct Extra {}

impl Wire {
    pub(super) fn staged(&mut self, key: Key, end: usize, span: Span) {
        self.outgoing(key, end, span);
    }

    pub(super) fn staged_end(&mut self, _key: Key, _end: usize) {}

    pub(super) fn staged_close(&mut self, key: Key, ending: Ending) {
        self.close(key, ending, How::Fin);
    }

    pub(super) fn staged_look(&mut self, _key: Key) {}
}
