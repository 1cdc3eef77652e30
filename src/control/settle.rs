//! Fits a newly loaded plan onto a running process: what can change while cores run does, what
//! cannot stays as it is and is said. Pure.

use std::sync::Arc;

use crate::config::plan::{Listener, Plan, Pool};

/// A plan this process can go over to, and what that touches.
#[derive(Debug)]
pub struct Settled {
    pub plan: Plan,
    /// What the file asks for and a running process cannot do.
    pub warnings: Vec<String>,
    /// Names of pools that are new, gone or different.
    pub pools_touched: Vec<Arc<str>>,
    pub listeners_touched: Vec<Arc<str>>,
    pub others_touched: bool,
}

impl Settled {
    pub fn touches_nothing(&self) -> bool {
        self.pools_touched.is_empty() && self.listeners_touched.is_empty() && !self.others_touched
    }
}

/// `running` is the plan in force; `new` was just proven.
pub fn settle(mut new: Plan, running: &Plan) -> Settled {
    let warnings = settle_runtime(&mut new, running);
    let pools_touched = settle_pools(&mut new, running);
    let listeners_touched = touched_listeners(&new, running);
    let others_touched = new.timeouts != running.timeouts || new.runtime != running.runtime;
    Settled { plan: new, warnings, pools_touched, listeners_touched, others_touched }
}

fn settle_runtime(new: &mut Plan, running: &Plan) -> Vec<String> {
    let (new, old) = (&mut new.runtime, &running.runtime);
    let keys = [
        ("workers", new.workers != old.workers),
        ("admin", new.admin != old.admin),
        ("log.format", new.log.format != old.log.format),
    ];
    new.workers = old.workers;
    new.admin = old.admin;
    new.log.format = old.log.format;
    let changed = keys.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(key, _)| format!("runtime.{key} has changed: that needs a restart")).collect()
}

/// Pools that are as they were stay the same value, so that nothing is rebuilt for them.
fn settle_pools(new: &mut Plan, running: &Plan) -> Vec<Arc<str>> {
    let mut touched = Vec::new();
    for pool in &mut new.pools {
        match running.pools.iter().find(|old| old.name == pool.name) {
            Some(old) if old == pool => *pool = old.clone(),
            _ => touched.push(pool.name.clone()),
        }
    }
    let gone = |old: &&Arc<Pool>| !new.pools.iter().any(|pool| pool.name == old.name);
    touched.extend(running.pools.iter().filter(gone).map(|old| old.name.clone()));
    touched
}

fn touched_listeners(new: &Plan, running: &Plan) -> Vec<Arc<str>> {
    let same = |listener: &Arc<Listener>| {
        let old = running.listeners.iter().find(|old| old.name == listener.name);
        old.is_some_and(|old| {
            listener == old && pool_names(listener, new) == pool_names(old, running)
        })
    };
    let changed = new.listeners.iter().filter(|listener| !same(listener));
    let gone = running
        .listeners
        .iter()
        .filter(|old| !new.listeners.iter().any(|listener| listener.name == old.name));
    changed.chain(gone).map(|listener| listener.name.clone()).collect()
}

/// Listeners name pools by number; numbers shift when the file changes, names do not.
fn pool_names(listener: &Listener, plan: &Plan) -> Vec<Arc<str>> {
    super::fleet::pools_of(listener).map(|pool| plan.pools[pool].name.clone()).collect()
}
