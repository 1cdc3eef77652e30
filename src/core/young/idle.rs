//! Connections to servers that wait for another request. The one used last is taken first, so that
//! the others may grow old; each is looked at before it is used again. Never one that carried an
//! upgrade, nor one that told its server a client's address. Whichever is let go takes leave of its
//! server first.

use std::collections::HashMap;

use crate::balance::ServerId;

use super::channel::Channel;

/// The time, in whatever unit the caller keeps it.
type Time = u32;

/// A core's kept connections.
#[derive(Debug, Default)]
pub struct Idle {
    servers: HashMap<ServerId, Vec<Kept>>,
    count: usize,
}

#[derive(Debug)]
struct Kept {
    channel: Channel,
    since: Time,
}

impl Idle {
    /// Keeps a connection unless `most` are kept for this server already.
    pub fn keep(&mut self, server: ServerId, channel: Channel, most: u32, now: Time) {
        let kept = self.servers.entry(server).or_default();
        if kept.len() < most as usize && channel.is_quiet() {
            kept.push(Kept { channel, since: now });
            self.count += 1;
        } else {
            channel.leave();
        }
    }

    /// A connection to this server that was kept at `since` or later and is still alive, as far as
    /// can be seen from here.
    pub fn take(&mut self, server: ServerId, since: Time) -> Option<Channel> {
        let kept = self.servers.get_mut(&server)?;
        while let Some(last) = kept.pop_if(|last| last.since >= since) {
            self.count -= 1;
            if last.channel.is_quiet() {
                return Some(last.channel);
            }
            last.channel.leave();
        }
        None
    }

    /// Closes those that waited for longer than `limit`, and those that their server has closed.
    pub fn sweep(&mut self, now: Time, limit: Time) {
        let mut left = 0;
        self.servers.retain(|_, kept| {
            kept.retain(|it| {
                let stays = now.saturating_sub(it.since) < limit && it.channel.is_quiet();
                if !stays {
                    it.channel.leave();
                }
                stays
            });
            left += kept.len();
            !kept.is_empty()
        });
        self.count = left;
    }

    /// Closes those to one server, which is to get no more requests.
    pub fn forget(&mut self, server: ServerId) {
        let kept = self.servers.remove(&server).unwrap_or_default();
        self.count -= kept.len();
        kept.iter().for_each(|it| it.channel.leave());
    }

    /// Closes so many, server by server, of each first those that have waited longest.
    pub fn shed(&mut self, mut most: usize) {
        for kept in self.servers.values_mut() {
            let some = most.min(kept.len());
            kept.drain(..some).for_each(|it| it.channel.leave());
            self.count -= some;
            most -= some;
        }
    }

    /// Closes all of them.
    pub fn clear(&mut self) {
        self.servers.values().flatten().for_each(|it| it.channel.leave());
        self.servers.clear();
        self.count = 0;
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
