//! What happened to the messages of one connection: lost, duplicated, reordered and damaged are
//! told apart by sequence numbers alone. Pure: no socket, no clock.

/// One connection's account of what came back. The common case, everything in order, is one number.
#[derive(Debug, Default)]
pub struct Account {
    /// The sequence number that should come next.
    next: u32,
    /// Damaged messages that have not yet been matched with a gap in the numbers.
    unplaced: u32,
    /// Numbers skipped and still missing, ascending; no allocation until something is skipped.
    #[expect(clippy::box_collection, reason = "8 bytes of an idle connection, not 24")]
    missing: Option<Box<Vec<u32>>>,
}

/// What one arrival means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    InOrder,
    /// It overtook this many others, which are missing so far.
    Ahead {
        missing: u32,
    },
    /// It was missing and came after all, behind a later one.
    Late,
    /// It had come before.
    Again,
}

/// A gap longer than this is not kept number by number: the run is broken, not merely lossy.
const MISSING_MAX: usize = 65_536;

impl Account {
    /// A sound message with this number came.
    pub fn arrived(&mut self, sequence: u32) -> Arrival {
        if sequence == self.next {
            self.next = self.next.wrapping_add(1);
            return Arrival::InOrder;
        }
        if sequence.wrapping_sub(self.next) < u32::MAX / 2 {
            return self.ahead(sequence);
        }
        let Some(missing) = &mut self.missing else { return Arrival::Again };
        match missing.binary_search(&sequence) {
            Ok(at) => {
                missing.remove(at);
                if missing.is_empty() {
                    self.missing = None;
                }
                Arrival::Late
            }
            Err(_) => Arrival::Again,
        }
    }

    fn ahead(&mut self, sequence: u32) -> Arrival {
        let gap = sequence.wrapping_sub(self.next);
        // A damaged message stood in one of the skipped places: it is counted as damaged only.
        let placed = gap.min(self.unplaced);
        self.unplaced -= placed;
        let first = self.next.wrapping_add(placed);
        let missing = self.missing.get_or_insert_default();
        let room = MISSING_MAX.saturating_sub(missing.len()) as u32;
        missing.extend((0..(gap - placed).min(room)).map(|step| first.wrapping_add(step)));
        if missing.is_empty() {
            self.missing = None;
        }
        self.next = sequence.wrapping_add(1);
        Arrival::Ahead { missing: gap - placed }
    }

    /// A message came whose digest does not match; its number cannot be believed.
    pub fn damaged(&mut self) {
        self.unplaced += 1;
    }

    /// How many of `sent` messages have neither come back nor come back damaged, at this moment.
    pub fn outstanding(&self, sent: u32) -> u32 {
        let ahead = sent.wrapping_sub(self.next);
        if ahead > u32::MAX / 2 { 0 } else { ahead.saturating_sub(self.unplaced) }
    }

    /// Forgets what is still under way (the connection is gone) and says how many that were.
    pub fn abandon(&mut self, sent: u32) -> u32 {
        let outstanding = self.outstanding(sent);
        self.next = sent;
        self.unplaced = 0;
        self.missing = None;
        outstanding
    }

    /// Numbers up to `sequence` were never sent and will not be missed.
    pub fn skip_to(&mut self, sequence: u32) {
        self.next = sequence;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_counted_apart() {
        let mut account = Account::default();
        assert_eq!(account.arrived(0), Arrival::InOrder);
        assert_eq!(account.arrived(3), Arrival::Ahead { missing: 2 });
        assert_eq!(account.arrived(1), Arrival::Late);
        assert_eq!(account.arrived(1), Arrival::Again);
        assert_eq!(account.arrived(3), Arrival::Again);
        assert_eq!(account.arrived(4), Arrival::InOrder);
        assert_eq!(account.outstanding(7), 2);
    }

    #[test]
    fn a_damaged_message_fills_its_own_gap() {
        let mut account = Account::default();
        account.damaged();
        assert_eq!(account.outstanding(1), 0);
        assert_eq!(account.arrived(1), Arrival::Ahead { missing: 0 });
        assert_eq!(account.outstanding(2), 0);
        account.damaged();
        assert_eq!(account.arrived(4), Arrival::Ahead { missing: 1 });
    }

    #[test]
    fn an_account_is_small() {
        assert!(size_of::<Account>() <= 16);
    }

    #[test]
    fn numbers_that_were_never_sent_are_not_missed() {
        let mut account = Account::default();
        account.arrived(0);
        assert_eq!(account.abandon(5), 4);
        account.skip_to(9);
        assert_eq!(account.outstanding(9), 0);
        assert_eq!(account.arrived(9), Arrival::InOrder);
    }

    #[test]
    fn abandoning_starts_afresh() {
        let mut account = Account::default();
        account.arrived(0);
        assert_eq!(account.abandon(5), 4);
        assert_eq!(account.arrived(5), Arrival::InOrder);
    }
}
