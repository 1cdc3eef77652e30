//! How many connections each server carries: one core's own exact counts, and what control last
//! said of all cores.

use std::sync::Arc;

use super::{Group, ServerId, quota};

/// What a pick may ask about a server.
pub trait Counts {
    /// Connections of this core on it, exact.
    fn own(&self, id: ServerId) -> u32;

    /// Connections of all other cores on it, as last published.
    fn others(&self, id: ServerId) -> u32;

    /// How many of `max` (not 0) connections this core may have on it.
    fn quota(&self, id: ServerId, max: u32) -> u32;

    /// Connections of this core on all usable servers of a group together.
    fn own_among(&self, group: &Group) -> u32 {
        group.usable_ids().map(|id| self.own(id)).sum()
    }

    fn total(&self, id: ServerId) -> u32 {
        self.own(id).saturating_add(self.others(id))
    }
}

/// What all cores carried when control last looked; the same value goes to every core.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loads {
    /// Grows by one with each publish; a core shows in its counters which one it acts upon.
    pub version: u64,
    pub cores: usize,
    /// By [`ServerId`]: one row of `cores` cells for each server.
    cells: Vec<Load>,
    totals: Vec<u32>,
    /// The `max_connections` a row's quotas were cut from; 0: none.
    maxima: Vec<u32>,
}

/// One core's part of one server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    pub live: u32,
    /// Part of `max_connections` lent to this core; without meaning where there is no maximum.
    pub quota: u32,
}

impl Loads {
    pub fn new(version: u64, cores: usize) -> Self {
        Self { version, cores, ..Self::default() }
    }

    /// Fill in one server's row: a cell for each core, and the maximum its quotas were cut from.
    pub fn set(&mut self, id: ServerId, max_connections: u32, row: &[Load]) {
        debug_assert_eq!(row.len(), self.cores);
        if self.totals.len() <= id.index() {
            self.cells.resize((id.index() + 1) * self.cores, Load::default());
            self.totals.resize(id.index() + 1, 0);
            self.maxima.resize(id.index() + 1, 0);
        }
        let start = id.index() * self.cores;
        self.cells[start..start + self.cores].copy_from_slice(row);
        self.totals[id.index()] = row.iter().fold(0, |sum: u32, c| sum.saturating_add(c.live));
        self.maxima[id.index()] = max_connections;
    }

    /// Live connections on a server over all cores.
    pub fn total(&self, id: ServerId) -> u32 {
        self.totals.get(id.index()).copied().unwrap_or(0)
    }

    /// One core's part; all zero for a server or core not in the table.
    pub fn of(&self, id: ServerId, core: usize) -> Load {
        if core >= self.cores {
            return Load::default();
        }
        self.cells.get(id.index() * self.cores + core).copied().unwrap_or_default()
    }

    /// Servers in the table, the highest id plus one.
    pub fn servers(&self) -> usize {
        self.totals.len()
    }
}

/// One core's book: what it holds on each server, exactly, and what the others held at the last
/// publish. Only that core reads and writes it.
#[derive(Debug)]
pub struct Ledger {
    core: usize,
    cores: usize,
    cells: Vec<Cell>,
    pools: Vec<PoolSum>,
}

/// A server's line in the book. Twenty bytes: a thousand servers fit a first-level cache.
#[derive(Debug, Clone, Copy)]
struct Cell {
    own: u32,
    others: u32,
    quota: u32,
    /// The maximum `quota` was cut from; 0 as long as nothing was lent.
    max: u32,
    /// Which of `pools` counts this server among its usable ones.
    pool: u32,
}

#[derive(Debug, Clone, Copy)]
struct PoolSum {
    fingerprint: u64,
    own: u32,
}

impl Ledger {
    pub fn new(core: usize, cores: usize) -> Self {
        debug_assert!(core < cores);
        Self { core, cores, cells: Vec::new(), pools: Vec::new() }
    }

    /// Count one more connection on a server, from the moment it is picked.
    pub fn lease(&mut self, id: ServerId) {
        self.grow(id.index() + 1);
        let cell = &mut self.cells[id.index()];
        cell.own += 1;
        if let Some(pool) = self.pools.get_mut(cell.pool as usize) {
            pool.own += 1;
        }
    }

    /// Give a lease back. Each must come back once; which one it was does not matter.
    pub fn release(&mut self, id: ServerId) {
        let Some(cell) = self.cells.get_mut(id.index()) else {
            debug_assert!(false, "a lease on {id:?} came back that was never given");
            return;
        };
        debug_assert!(cell.own > 0, "more leases on {id:?} came back than were given");
        if cell.own == 0 {
            return;
        }
        cell.own -= 1;
        if let Some(pool) = self.pools.get_mut(cell.pool as usize) {
            debug_assert!(pool.own > 0);
            pool.own -= 1;
        }
    }

    /// Take over a publish.
    pub fn hear(&mut self, loads: &Arc<Loads>) {
        self.grow(loads.servers());
        for (index, cell) in self.cells.iter_mut().enumerate() {
            let id = ServerId(index as u32);
            let own = loads.of(id, self.core);
            cell.others = loads.total(id) - own.live.min(loads.total(id));
            cell.quota = own.quota;
            cell.max = loads.maxima.get(index).copied().unwrap_or(0);
        }
    }

    /// Take over the groups of a new snapshot, all of them at once: from now on each group's own
    /// total is kept rather than summed. Counts stay, they belong to the servers.
    pub fn enrol<'a>(&mut self, groups: impl IntoIterator<Item = &'a Group>) {
        self.pools.clear();
        for cell in &mut self.cells {
            cell.pool = NO_POOL;
        }
        for group in groups {
            let pool = self.pools.len() as u32;
            let mut own = 0;
            for id in group.usable_ids() {
                self.grow(id.index() + 1);
                let cell = &mut self.cells[id.index()];
                cell.pool = pool;
                own += cell.own;
            }
            self.pools.push(PoolSum { fingerprint: group.fingerprint(), own });
        }
    }

    /// All leases out now.
    #[cfg(test)]
    pub fn leases(&self) -> u64 {
        self.cells.iter().map(|c| u64::from(c.own)).sum()
    }

    fn grow(&mut self, servers: usize) {
        if self.cells.len() < servers {
            let empty = Cell { own: 0, others: 0, quota: 0, max: 0, pool: NO_POOL };
            self.cells.resize(servers, empty);
        }
    }
}

impl Counts for Ledger {
    #[inline]
    fn own(&self, id: ServerId) -> u32 {
        self.cells.get(id.index()).map_or(0, |c| c.own)
    }

    #[inline]
    fn others(&self, id: ServerId) -> u32 {
        self.cells.get(id.index()).map_or(0, |c| c.others)
    }

    #[inline]
    fn quota(&self, id: ServerId, max: u32) -> u32 {
        match self.cells.get(id.index()) {
            Some(cell) if cell.max == max => cell.quota,
            // Nothing was lent from this maximum yet: the same cut control begins with.
            _ => quota::even(max, self.core, self.cores),
        }
    }

    fn own_among(&self, group: &Group) -> u32 {
        let first = group.usable_ids().next();
        let pool = first.and_then(|id| self.cells.get(id.index())).map(|c| c.pool as usize);
        match pool.and_then(|p| self.pools.get(p)) {
            Some(sum) if sum.fingerprint == group.fingerprint() => sum.own,
            _ => group.usable_ids().map(|id| self.own(id)).sum(),
        }
    }

    #[inline]
    fn total(&self, id: ServerId) -> u32 {
        self.cells.get(id.index()).map_or(0, |c| c.own.saturating_add(c.others))
    }
}

const NO_POOL: u32 = u32::MAX;
