//! Whether a server may be picked: active checks bring it down and up, refused connects eject it
//! for a while. Pure: results and the time come in, changes of state come out; it knows neither
//! when servers are checked nor by what.

use std::time::Duration;

use super::{MemberState, ServerId, slow_start};

/// How a pool judges its servers. Times of day are durations since any fixed moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Good checks in a row that bring a server up.
    pub rise: u32,
    /// Bad checks in a row that take it down.
    pub fall: u32,
    pub slow_start: Duration,
    /// Failed connects in a row that eject a server.
    pub eject_after: u32,
    /// First ejection; each further one lasts twice as long as the one before.
    pub eject_for: Duration,
    pub eject_for_max: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            rise: 2,
            fall: 3,
            slow_start: Duration::ZERO,
            eject_after: 3,
            eject_for: Duration::from_secs(5),
            eject_for_max: Duration::from_secs(300),
        }
    }
}

/// One server went from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub id: ServerId,
    pub from: MemberState,
    pub to: MemberState,
    pub why: Why,
}

/// What changed a member's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Enough good, or bad, checks in a row.
    Checked,
    /// Connects failed in a row.
    Dialled,
    /// Its ejection is over.
    Returned,
    /// The configuration file said so.
    Told,
}

/// The health of one pool's servers.
#[derive(Debug, Clone)]
pub struct Checkup {
    rules: Rules,
    patients: Vec<Patient>,
}

#[derive(Debug, Clone, Copy)]
struct Patient {
    id: ServerId,
    draining: bool,
    down: bool,
    /// Results in a row that speak against the present active verdict.
    against: u32,
    failures: u32,
    /// Until when it is left alone.
    ejected: Option<Duration>,
    /// What became of it after its last ejection.
    past: Past,
    /// Since when it is in service, unless it always was.
    since: Option<Duration>,
}

/// What a server's last ejection left behind.
#[derive(Debug, Clone, Copy, Default)]
struct Past {
    /// How often in a row it was ejected: the exponent of the next back-off.
    ejections: u32,
    /// How long, and when it came back.
    lasted: Duration,
    returned: Duration,
    /// Back, but no connect has succeeded since: the next failure ejects it again.
    probation: bool,
}

impl Checkup {
    /// Servers of a pool, all in service: what the process begins with.
    pub fn new(rules: Rules, servers: impl IntoIterator<Item = ServerId>) -> Self {
        let patients = servers.into_iter().map(|id| Patient::new(id, None)).collect();
        Self { rules, patients }
    }

    /// A reload: other rules, servers gone and new ones, which begin slowly at `now`.
    pub fn reload(&mut self, now: Duration, rules: Rules, servers: &[ServerId]) {
        self.rules = rules;
        let old = std::mem::take(&mut self.patients);
        let known = |id: &ServerId| old.iter().find(|p| p.id == *id).copied();
        let meet = |id: &ServerId| known(id).unwrap_or(Patient::new(*id, Some(now)));
        self.patients = servers.iter().map(meet).collect();
    }

    /// The pool is no longer checked: what only checks had found out is forgotten. A server that
    /// was down because of its checks is up again and begins slowly.
    pub fn unchecked(&mut self, now: Duration) {
        for patient in &mut self.patients {
            patient.against = 0;
            if std::mem::take(&mut patient.down) {
                patient.since = Some(now);
            }
        }
    }

    /// An active check came back.
    pub fn checked(&mut self, now: Duration, id: ServerId, good: bool) -> Option<Change> {
        let rules = self.rules;
        self.change(id, Why::Checked, |patient| patient.checked(now, good, &rules))
    }

    /// A core's connect failed, or succeeded again.
    pub fn dialled(&mut self, now: Duration, id: ServerId, good: bool) -> Option<Change> {
        let rules = self.rules;
        let may_eject = self.may_eject(id);
        self.change(id, Why::Dialled, |p| p.dialled(now, good, may_eject, &rules))
    }

    /// Keep what it has and give it no new ones, or end that.
    pub fn drain(&mut self, now: Duration, id: ServerId, draining: bool) -> Option<Change> {
        self.change(id, Why::Told, |patient| {
            if patient.draining && !draining {
                patient.since = Some(now);
            }
            patient.draining = draining;
        })
    }

    /// End the ejections that are over. A server that comes back is on probation.
    pub fn tick(&mut self, now: Duration) -> Vec<Change> {
        let over = |p: &&Patient| p.ejected.is_some_and(|until| until <= now);
        let ids: Vec<ServerId> = self.patients.iter().filter(over).map(|p| p.id).collect();
        let end = |id| {
            self.change(id, Why::Returned, |patient| {
                patient.past.probation = true;
                patient.return_at(now);
            })
        };
        ids.into_iter().filter_map(end).collect()
    }

    pub fn state(&self, id: ServerId) -> Option<MemberState> {
        self.patients.iter().find(|p| p.id == id).map(Patient::state)
    }

    /// The part of its weight a server has now.
    pub fn share(&self, now: Duration, id: ServerId) -> f32 {
        let patient = self.patients.iter().find(|p| p.id == id);
        patient.map_or(1.0, |p| p.share(now, &self.rules))
    }

    fn may_eject(&self, id: ServerId) -> bool {
        let others = || self.patients.iter().filter(|p| p.id != id);
        let ejected = others().filter(|p| p.ejected.is_some()).count();
        let left = others().any(|p| p.state() == MemberState::Up);
        left && (ejected + 1) * 2 <= self.patients.len()
    }

    fn change(
        &mut self,
        id: ServerId,
        why: Why,
        event: impl FnOnce(&mut Patient),
    ) -> Option<Change> {
        let patient = self.patients.iter_mut().find(|p| p.id == id)?;
        let from = patient.state();
        event(patient);
        let to = patient.state();
        (from != to).then_some(Change { id, from, to, why })
    }
}

impl Patient {
    fn new(id: ServerId, since: Option<Duration>) -> Self {
        Self {
            id,
            draining: false,
            down: false,
            against: 0,
            failures: 0,
            ejected: None,
            past: Past::default(),
            since,
        }
    }

    fn state(&self) -> MemberState {
        match (self.down, self.draining, self.ejected) {
            (true, _, _) => MemberState::Down,
            (false, true, _) => MemberState::Draining,
            (false, false, Some(_)) => MemberState::Ejected,
            (false, false, None) => MemberState::Up,
        }
    }

    fn share(&self, now: Duration, rules: &Rules) -> f32 {
        let age = |since| now.saturating_sub(since);
        self.since.map_or(1.0, |since| slow_start::share(age(since), rules.slow_start))
    }

    fn checked(&mut self, now: Duration, good: bool, rules: &Rules) {
        if good != self.down {
            self.against = 0;
            return;
        }
        self.against += 1;
        let enough = if self.down { rules.rise } else { rules.fall };
        if self.against < enough {
            return;
        }
        self.against = 0;
        self.down = !self.down;
        if !self.down {
            self.since = Some(now);
            self.ejected = None;
            self.past.probation = false;
            self.failures = 0;
        }
    }

    fn dialled(&mut self, now: Duration, good: bool, may_eject: bool, rules: &Rules) {
        if good {
            self.failures = 0;
            self.past.probation = false;
            // Reached after all: as its last resort, or by a client that had to return to it.
            self.return_at(now);
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let enough = if self.past.probation { 1 } else { rules.eject_after };
        if self.failures < enough || !may_eject || self.state() != MemberState::Up {
            return;
        }
        if now.saturating_sub(self.past.returned) > self.past.lasted * 2 {
            self.past.ejections = 0;
        }
        let times = 2u32.saturating_pow(self.past.ejections);
        let lasts = rules.eject_for.saturating_mul(times).min(rules.eject_for_max);
        self.ejected = Some(now + lasts);
        self.past.ejections = self.past.ejections.saturating_add(1);
        self.past.lasted = lasts;
        self.failures = 0;
    }

    fn return_at(&mut self, now: Duration) {
        if self.ejected.take().is_some() {
            self.past.returned = now;
            self.since = Some(now);
        }
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
