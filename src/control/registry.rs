//! Identities of servers, and counter cells, that outlive every reload. A server keeps its number
//! and its counts for as long as the process lives, whatever the file says in between.

use std::collections::HashMap;
use std::sync::Arc;

use crate::balance::ServerId;
use crate::config::plan::ServerAddress;
use crate::meter::{ListenerCounters, ListenerLimits, RouteCounters, ServerCounters};

/// A server as it was last named, and its cells, one for each core.
#[derive(Debug)]
pub struct Known {
    pub pool: Arc<str>,
    pub name: Arc<str>,
    pub address: ServerAddress,
    pub cells: Vec<Arc<ServerCounters>>,
}

impl Known {
    /// Connects that failed since the process began, over all cores.
    pub fn dial_failures(&self) -> u64 {
        self.cells.iter().map(|cell| cell.dial_failures.get()).sum()
    }

    /// Connections leased on it now, over all cores.
    pub fn live(&self) -> u64 {
        self.cells.iter().map(|cell| cell.live.get()).sum()
    }
}

/// What outlives a plan: the identity of each server and the cells that cores count in.
#[derive(Debug)]
pub struct Registry {
    cores: usize,
    ids: HashMap<(Arc<str>, ServerAddress), ServerId>,
    servers: Vec<Known>,
    listeners: Cells<Arc<str>, ListenerCounters>,
    limits: HashMap<Arc<str>, Arc<ListenerLimits>>,
    routes: Cells<(Arc<str>, Arc<str>), RouteCounters>,
}

/// Cells by whose they are, in the order they were first asked for; one for each core.
type Cells<K, C> = Vec<(K, Vec<Arc<C>>)>;

impl Registry {
    pub fn new(cores: usize) -> Self {
        Self {
            cores,
            ids: HashMap::new(),
            servers: Vec::new(),
            listeners: Vec::new(),
            limits: HashMap::new(),
            routes: Vec::new(),
        }
    }

    /// The number of a server; a new one for an identity never seen before.
    pub fn server(
        &mut self,
        pool: &Arc<str>,
        name: &Arc<str>,
        address: &ServerAddress,
    ) -> ServerId {
        let identity = (pool.clone(), address.clone());
        if let Some(id) = self.ids.get(&identity) {
            self.servers[id.index()].name = name.clone();
            return *id;
        }
        let id = ServerId(u32::try_from(self.servers.len()).unwrap_or(u32::MAX));
        self.ids.insert(identity, id);
        self.servers.push(Known {
            pool: pool.clone(),
            name: name.clone(),
            address: address.clone(),
            cells: per_core(self.cores),
        });
        id
    }

    /// A core has died, and its connections with it: they are counted off here, since the core
    /// will not do it. Its thread must have ended, for cells have one writer.
    pub fn bury(&self, core: usize) {
        self.servers.iter().for_each(|known| known.cells[core].bury());
        self.listeners.iter().for_each(|(_, cells)| cells[core].bury());
        self.routes.iter().for_each(|(_, cells)| cells[core].bury());
        self.limits.values().for_each(|limits| limits.bury(core));
    }

    pub fn known(&self, id: ServerId) -> &Known {
        &self.servers[id.index()]
    }

    /// Connections on all of these together.
    pub fn live(&self, ids: &[ServerId]) -> u64 {
        ids.iter().map(|id| self.known(*id).live()).sum()
    }

    /// Every server there ever was, by id.
    pub fn servers(&self) -> impl Iterator<Item = (ServerId, &Known)> {
        (0u32..).map(ServerId).zip(&self.servers)
    }

    pub fn listener(&mut self, name: &Arc<str>) -> Vec<Arc<ListenerCounters>> {
        cells(&mut self.listeners, name.clone(), self.cores)
    }

    /// What a listener admits, counted over all cores and all reloads.
    pub fn limits(&mut self, listener: &Arc<str>) -> Arc<ListenerLimits> {
        let limits = || Arc::new(ListenerLimits::new(self.cores));
        self.limits.entry(listener.clone()).or_insert_with(limits).clone()
    }

    pub fn route(&mut self, listener: &Arc<str>, label: &Arc<str>) -> Vec<Arc<RouteCounters>> {
        cells(&mut self.routes, (listener.clone(), label.clone()), self.cores)
    }

    pub fn listeners(&self) -> impl Iterator<Item = (&str, &[Arc<ListenerCounters>])> {
        self.listeners.iter().map(|(name, cells)| (&**name, &**cells))
    }

    pub fn routes(&self) -> impl Iterator<Item = (&str, &str, &[Arc<RouteCounters>])> {
        self.routes.iter().map(|((listener, label), cells)| (&**listener, &**label, &**cells))
    }
}

fn cells<K: PartialEq, C: Default>(all: &mut Cells<K, C>, key: K, cores: usize) -> Vec<Arc<C>> {
    if let Some((_, cells)) = all.iter().find(|(known, _)| *known == key) {
        return cells.clone();
    }
    let cells = per_core(cores);
    all.push((key, cells.clone()));
    cells
}

fn per_core<C: Default>(cores: usize) -> Vec<Arc<C>> {
    (0..cores).map(|_| Arc::default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_keeps_its_number_and_its_counts() {
        let mut registry = Registry::new(2);
        let pool: Arc<str> = "chat".into();
        let address = |port| ServerAddress::Inet(([127, 0, 0, 1], port).into());
        let a = registry.server(&pool, &"a".into(), &address(1));
        let b = registry.server(&pool, &"b".into(), &address(2));
        assert_ne!(a, b);
        registry.known(a).cells[1].live.add(7);
        assert_eq!(registry.server(&pool, &"renamed".into(), &address(1)), a);
        assert_eq!(registry.known(a).live(), 7);
        assert_eq!(&*registry.known(a).name, "renamed");
        assert_ne!(registry.server(&"other".into(), &"a".into(), &address(1)), a);
    }

    #[test]
    fn what_a_dead_core_carried_is_counted_off() {
        let mut registry = Registry::new(2);
        let address = ServerAddress::Unix("/run/a".into());
        let id = registry.server(&"chat".into(), &"a".into(), &address);
        let web = registry.listener(&"web".into());
        for core in [0, 1] {
            registry.known(id).cells[core].live.add(3);
            web[core].live.add(3);
        }
        let limits = registry.limits(&"web".into());
        limits.set(2, 0);
        let route = registry.route(&"web".into(), &"/chat".into());
        for core in [0, 1] {
            route[core].live.add(1);
            limits.admit(core, None).expect("room");
        }
        registry.bury(1);
        assert_eq!(registry.known(id).live(), 3);
        assert_eq!([web[0].live.get(), web[1].live.get()], [3, 0]);
        assert_eq!([route[0].live.get(), route[1].live.get()], [1, 0]);
        limits.admit(0, None).expect("room again");
        assert!(limits.admit(0, None).is_err());
    }

    #[test]
    fn cells_are_the_same_at_every_reload() {
        let mut registry = Registry::new(1);
        let first = registry.listener(&"web".into());
        assert!(Arc::ptr_eq(&first[0], &registry.listener(&"web".into())[0]));
        let route = registry.route(&"web".into(), &"/chat".into());
        assert!(Arc::ptr_eq(&route[0], &registry.route(&"web".into(), &"/chat".into())[0]));
    }
}
