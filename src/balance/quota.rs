//! `max_connections` without sharing: every core may use a quota that control lends it, and the
//! quotas never add up to more than the maximum.

/// The cut a core begins with before anything was lent: even parts, the rest to the first cores.
pub fn even(max: u32, core: usize, cores: usize) -> u32 {
    let cores = cores.max(1) as u32;
    max / cores + u32::from((core as u32) < max % cores)
}

/// One server's maximum, and what every core may believe its part of it to be.
///
/// A quota that was cut is free for others only when its core is known to have heard: until then
/// the core may still use it up. So raising waits for one round of lowering.
#[derive(Debug, Clone, PartialEq)]
pub struct Lender {
    max: u32,
    cores: Vec<Lent>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Lent {
    /// The highest quota the core may still act upon.
    in_force: u32,
    /// What it was told last, and with which publish.
    told: u32,
    version: u64,
}

/// What control sees of a core at a publish. `heard` must have been read before `live`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Version of the last publish the core acts upon.
    pub heard: u64,
    pub live: u32,
}

impl Lender {
    pub fn new(max: u32, cores: usize) -> Self {
        let lent = |core| {
            let quota = even(max, core, cores);
            Lent { in_force: quota, told: quota, version: 0 }
        };
        Self { max, cores: (0..cores).map(lent).collect() }
    }

    pub fn max(&self) -> u32 {
        self.max
    }

    /// Quotas for publish `version`, one for each core.
    pub fn publish(&mut self, version: u64, seen: &[Seen]) -> Vec<u32> {
        debug_assert_eq!(seen.len(), self.cores.len());
        for (lent, seen) in self.cores.iter_mut().zip(seen) {
            if seen.heard >= lent.version {
                lent.in_force = lent.told;
            }
            // What it carries beyond its quota it took before the quota was cut.
            lent.in_force = lent.in_force.max(seen.live);
        }
        let live = |s: &Seen| u64::from(s.live);
        let used: u64 = seen.iter().map(live).sum();
        let idle = u64::from(self.max).saturating_sub(used).min(u64::from(u32::MAX)) as u32;
        let in_force: u64 = self.cores.iter().map(|l| u64::from(l.in_force)).sum();
        let mut free = u64::from(self.max).saturating_sub(in_force) as u32;
        let count = self.cores.len();
        let turn = version as usize % count.max(1);
        for step in 0..count {
            // The odd ones out go to another core each time.
            let core = (step + turn) % count;
            let wanted = seen[core].live.saturating_add(even(idle, step, count));
            let lent = &mut self.cores[core];
            let raise = wanted.saturating_sub(lent.in_force).min(free);
            free -= raise;
            lent.told = wanted.min(lent.in_force + raise);
            lent.version = version;
            lent.in_force += raise;
        }
        self.cores.iter().map(|l| l.told).collect()
    }
}
