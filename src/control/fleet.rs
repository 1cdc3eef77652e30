//! What there is to tell the cores: the plan in force, every pool's servers with their health, and
//! the snapshot made of both. It decides; it sends nothing and asks nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::health::{Change, Checkup, Rules};
use crate::balance::{Group, Member, MemberState, ServerId, key_of};
use crate::config::certificates::{FromClient, ToServer};
use crate::config::plan::{
    Drain, Listener, OnDown, OnRemove, Plan, Pool, Server, ServerAddress, Service, Sticky,
    WhenEmpty,
};
use crate::config::snapshot::{EndServer, ListenerState, Order, PoolState, Snapshot};

use super::material::Material;
use super::probe::Target;
use super::registry::Registry;
use super::settle::Settled;

/// A pool's servers in the plan's order, and how they are.
#[derive(Debug)]
pub struct Ward {
    pub plan: Arc<Pool>,
    pub ids: Vec<ServerId>,
    pub checkup: Checkup,
    pub group: Arc<Group>,
    /// A server is in slow start: its share grows though nothing else happens.
    warming: bool,
}

/// The plan in force and all that control keeps for it.
#[derive(Debug)]
pub struct Fleet {
    pub plan: Arc<Plan>,
    pub registry: Registry,
    pub wards: Vec<Ward>,
    /// Servers whose pipes the cores were told to end, why, and whether at a pace. They go on
    /// doing so, with pipes that are yet to come as well, until told to keep them.
    ending: HashMap<ServerId, (EndServer, bool)>,
    material: Material,
    version: u64,
}

/// What a reload asks of the cores beside the new snapshot.
#[derive(Debug, Default)]
pub struct Ends {
    /// Servers that are wanted again; to be sent before the snapshot that lets them be picked.
    pub keeps: Vec<Order>,
    /// To be sent after the snapshot.
    pub orders: Vec<Order>,
    /// Pipes those orders will close.
    pub pipes: u64,
    /// Servers no longer in the file.
    pub removed: usize,
}

/// What becomes of a server's pipes. The order it makes depends on what else is decided with it.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// They end, at the pool's pace or at once.
    End {
        id: ServerId,
        why: EndServer,
        drain: Option<Drain>,
    },
    Keep(ServerId),
}

impl Ends {
    fn add(&mut self, order: Order, registry: &Registry) {
        match order {
            Order::EndServer { id, .. } => {
                self.pipes += registry.known(id).live();
                self.orders.push(order);
            }
            _ => self.keeps.push(order),
        }
    }
}

impl Fleet {
    /// The fleet a process begins with: every server in service.
    pub fn begin(plan: Plan, material: Material, cores: usize) -> Self {
        let plan = Arc::new(plan);
        let mut registry = Registry::new(cores);
        let wards = plan.pools.iter().map(|pool| Ward::admit(pool, &mut registry)).collect();
        let ending = HashMap::new();
        let mut fleet = Self { plan, registry, wards, ending, material, version: 0 };
        fleet.regroup(Duration::ZERO);
        // What a server drained from the start gets is wanted there: its sticky clients.
        drop(fleet.settle_all_pipes());
        fleet
    }

    /// Goes over to another plan. Servers that stay keep their health and their counts.
    pub fn reload(&mut self, now: Duration, settled: Settled, mut material: Material) -> Ends {
        material.keep_alike(&settled.plan, &self.material, &self.plan);
        let before: Vec<(Arc<Pool>, Vec<ServerId>)> =
            self.wards.iter().map(|ward| (ward.plan.clone(), ward.ids.clone())).collect();
        let mut old = std::mem::take(&mut self.wards);
        self.plan = Arc::new(settled.plan);
        self.material = material;
        for pool in &self.plan.pools {
            let known = old.iter().position(|ward| ward.plan.name == pool.name);
            let ward = match known {
                Some(at) => old.swap_remove(at).renew(now, pool, &mut self.registry),
                None => Ward::admit(pool, &mut self.registry),
            };
            self.wards.push(ward);
        }
        self.regroup(now);
        self.ends(&before)
    }

    /// What becomes of the pipes of the servers `before` had, and of those this plan has.
    fn ends(&mut self, before: &[(Arc<Pool>, Vec<ServerId>)]) -> Ends {
        let mut ends = Ends::default();
        let mut fates = Vec::new();
        for (pool, ids) in before {
            let ward = self.wards.iter().find(|ward| ward.plan.name == pool.name);
            // A pool that is gone goes by what it said when it was last seen.
            let said = ward.map_or(pool, |ward| &ward.plan);
            let (on_remove, drain) = (said.on_remove, said.drain);
            let gone = ids.iter().filter(|id| ward.is_none_or(|ward| !ward.ids.contains(id)));
            let gone: Vec<ServerId> = gone.copied().collect();
            ends.removed += gone.len();
            for id in gone {
                let drain = match on_remove {
                    OnRemove::Keep => continue,
                    OnRemove::Drain => Some(drain),
                    OnRemove::Close => None,
                };
                fates.push(self.end_server(id, drain, EndServer::Removed));
            }
        }
        fates.extend(self.settle_all_pipes());
        for order in self.orders(fates) {
            ends.add(order, &self.registry);
        }
        ends
    }

    fn settle_all_pipes(&mut self) -> Vec<Fate> {
        let counts = self.wards.iter().map(|ward| ward.ids.len()).enumerate();
        let all: Vec<(usize, usize)> =
            counts.flat_map(|(ward, count)| (0..count).map(move |at| (ward, at))).collect();
        all.into_iter().filter_map(|(ward, at)| self.settle_pipes(ward, at)).collect()
    }

    /// What a change of health asks of the server's pipes.
    pub fn on_change(&mut self, change: &Change) -> Option<Order> {
        let mut wards = self.wards.iter().enumerate();
        let place = wards.find_map(|(index, ward)| {
            Some((index, ward.ids.iter().position(|id| *id == change.id)?))
        });
        let (ward, at) = place?;
        let fate = self.settle_pipes(ward, at)?;
        self.orders(vec![fate]).pop()
    }

    /// What is to become of the pipes of a server that is in the file, unless it was told already:
    /// they end while it is down or drains, and stay once it is wanted again.
    fn settle_pipes(&mut self, ward: usize, at: usize) -> Option<Fate> {
        let ward = self.wards.get(ward)?;
        let id = *ward.ids.get(at)?;
        let paced = Some(ward.plan.drain);
        let draining = ward.plan.servers[at].draining.then_some((EndServer::Draining, paced));
        let wish = match (ward.checkup.state(id), ward.plan.on_down) {
            (Some(MemberState::Down), OnDown::Drain) => Some((EndServer::Down, paced)),
            (Some(MemberState::Down), OnDown::Close) => Some((EndServer::Down, None)),
            _ => draining,
        };
        match wish {
            Some((why, drain)) => {
                let told = self.ending.get(&id) == Some(&(why, drain.is_some()));
                (!told).then(|| self.end_server(id, drain, why))
            }
            None => self.ending.remove(&id).map(|_| Fate::Keep(id)),
        }
    }

    fn end_server(&mut self, id: ServerId, drain: Option<Drain>, why: EndServer) -> Fate {
        self.ending.insert(id, (why, drain.is_some()));
        Fate::End { id, why, drain }
    }

    /// The orders for what was decided together. A rate is the pool's: servers that begin to end at
    /// once share it among them, and with those of the pool that have not ended yet.
    fn orders(&self, fates: Vec<Fate>) -> Vec<Order> {
        let mut live: HashMap<&str, u64> = HashMap::new();
        for (id, (_, paced)) in &self.ending {
            if *paced {
                let known = self.registry.known(*id);
                *live.entry(&*known.pool).or_default() += known.live();
            }
        }
        let order = |fate: Fate| match fate {
            Fate::End { id, why, drain } => {
                let live = live.get(&*self.registry.known(id).pool).copied().unwrap_or_default();
                Order::EndServer { id, over: drain.map(|drain| pace(drain, live)), why }
            }
            Fate::Keep(id) => Order::KeepServer { id },
        };
        fates.into_iter().map(order).collect()
    }

    pub fn ward(&self, id: ServerId) -> Option<&Ward> {
        self.wards.iter().find(|ward| ward.ids.contains(&id))
    }

    pub fn ward_mut(&mut self, id: ServerId) -> Option<&mut Ward> {
        self.wards.iter_mut().find(|ward| ward.ids.contains(&id))
    }

    /// Will groups change by the passing of time alone?
    pub fn is_warming(&self) -> bool {
        self.wards.iter().any(|ward| ward.warming)
    }

    /// `max_connections` of every server, by id; 0 where there is none.
    pub fn maxima(&self) -> Vec<u32> {
        let mut maxima = vec![0; self.registry.servers().count()];
        for ward in &self.wards {
            for (server, id) in ward.plan.servers.iter().zip(&ward.ids) {
                maxima[id.index()] = server.max_connections;
            }
        }
        maxima
    }

    /// Builds the groups whose members changed; says whether any did.
    pub fn regroup(&mut self, now: Duration) -> bool {
        let mut changed = false;
        for ward in &mut self.wards {
            let members = ward.members(now);
            ward.warming = members.iter().any(|m| m.share < 1.0 && m.state == MemberState::Up);
            if members != ward.group.members() || ward.group.policy() != ward.plan.policy {
                ward.group = Arc::new(ward.build(members));
                changed = true;
            }
        }
        changed
    }

    /// The next snapshot, whole.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        self.version += 1;
        let material = &self.material;
        let pools = self.wards.iter().enumerate().map(|(i, ward)| PoolState {
            group: ward.group.clone(),
            tls: material.to_server.get(i).cloned().flatten(),
            cookie: material.cookies.get(i).cloned().flatten(),
        });
        let pools = pools.collect();
        let plan = self.plan.clone();
        let listeners = plan.listeners.iter().map(|listener| self.listener(listener)).collect();
        Arc::new(Snapshot { version: self.version, plan, pools, listeners })
    }

    /// For each listener: does it take connections?
    pub fn open(&self) -> impl Iterator<Item = bool> {
        self.plan.listeners.iter().map(|listener| !self.refuses(listener))
    }

    fn listener(&mut self, listener: &Listener) -> ListenerState {
        let routes = match &listener.service {
            Service::L4 { .. } => Vec::new(),
            Service::L7(l7) => {
                let rules = l7.rules.iter();
                rules.map(|rule| self.registry.route(&listener.name, &rule.label)).collect()
            }
        };
        let limits = self.registry.limits(&listener.name);
        limits.set(listener.max_connections, listener.max_per_source);
        ListenerState {
            counters: self.registry.listener(&listener.name),
            limits,
            routes,
            tls: self.material.from_client.get(&listener.name).cloned(),
            open: !self.refuses(listener),
        }
    }

    /// `when_empty = "refuse"`, and none of its pools has a server in service.
    fn refuses(&self, listener: &Listener) -> bool {
        listener.when_empty == WhenEmpty::Refuse
            && pools_of(listener).all(|pool| self.wards[pool].group.is_empty())
    }

    /// What each listener shows to clients, in the plan's order.
    pub fn certificates(&self) -> impl Iterator<Item = (&str, &FromClient)> {
        let listeners = self.plan.listeners.iter();
        listeners.filter_map(|l| Some((&*l.name, &**self.material.from_client.get(&l.name)?)))
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// What to check, and how.
    pub fn targets(&self) -> Vec<(ServerId, Target)> {
        let mut targets = Vec::new();
        for (index, ward) in self.wards.iter().enumerate() {
            let Some(health) = &ward.plan.health else { continue };
            let tls = self.material.to_server.get(index).cloned().flatten();
            for (at, (server, id)) in ward.plan.servers.iter().zip(&ward.ids).enumerate() {
                let name =
                    |tls: Arc<ToServer>| Some((tls.client.clone(), tls.names.get(at)?.clone()));
                let target = Target {
                    address: server.address.clone(),
                    health: health.clone(),
                    source: ward.plan.source.get(at % ward.plan.source.len().max(1)).copied(),
                    send_proxy: ward.plan.send_proxy,
                    tls: tls.clone().and_then(name),
                    host: host_of(&ward.plan, server),
                };
                targets.push((*id, target));
            }
        }
        targets
    }
}

impl Ward {
    /// A pool never seen before: its servers are in service at once.
    fn admit(pool: &Arc<Pool>, registry: &mut Registry) -> Self {
        let ids = identify(pool, registry);
        let mut checkup = Checkup::new(rules(pool), ids.iter().copied());
        for (server, id) in pool.servers.iter().zip(&ids) {
            checkup.drain(Duration::ZERO, *id, server.draining);
        }
        let group = Arc::new(Group::build(pool.policy, Vec::new()));
        Self { plan: pool.clone(), ids, checkup, group, warming: false }
    }

    /// The same pool as another plan has it: new servers begin slowly.
    fn renew(mut self, now: Duration, pool: &Arc<Pool>, registry: &mut Registry) -> Self {
        let as_before = is_keyed(&self.plan) == is_keyed(pool);
        self.ids = identify(pool, registry);
        self.checkup.reload(now, rules(pool), &self.ids);
        if pool.health.is_none() {
            self.checkup.unchecked(now);
        }
        for (server, id) in pool.servers.iter().zip(&self.ids) {
            self.checkup.drain(now, *id, server.draining);
        }
        self.plan = pool.clone();
        if !as_before {
            self.group = Arc::new(fresh(pool, Vec::new()));
        }
        self
    }

    fn members(&self, now: Duration) -> Vec<Member> {
        let servers = self.plan.servers.iter().zip(&self.ids);
        let member = servers.map(|(server, id)| Member {
            id: *id,
            hash: key_of(server.name.as_bytes()),
            weight: server.weight,
            share: self.checkup.share(now, *id),
            state: self.checkup.state(*id).unwrap_or(MemberState::Up),
            max_connections: server.max_connections,
        });
        member.collect()
    }

    fn build(&self, members: Vec<Member>) -> Group {
        if self.group.policy() == self.plan.policy && !self.group.members().is_empty() {
            self.group.rebuild(members)
        } else {
            fresh(&self.plan, members)
        }
    }
}

/// Pools a listener may send to, as indices into the plan.
pub fn pools_of(listener: &Listener) -> impl Iterator<Item = usize> {
    let (one, rules) = match &listener.service {
        Service::L4 { pool } => (Some(*pool), &[][..]),
        Service::L7(l7) => (None, &l7.rules[..]),
    };
    one.into_iter().chain(rules.iter().flat_map(|rule| rule.pools.iter().map(|share| share.pool)))
}

/// How long closing so many pipes takes at the pool's pace.
pub fn pace(drain: Drain, live: u64) -> Duration {
    match drain {
        Drain::Window(window) => window,
        Drain::Rate(rate) => Duration::from_secs_f64(live as f64 / f64::from(rate.max(1))),
    }
}

/// What an HTTP check says as `Host`: the name the server's certificate is for, else its address as
/// written. A socket's path is no host, and strict servers refuse it.
fn host_of(pool: &Pool, server: &Server) -> String {
    let named = pool.tls.as_ref().and_then(|tls| tls.server_name.clone());
    named.unwrap_or_else(|| match &server.address {
        ServerAddress::Inet(_) => server.written.to_string(),
        ServerAddress::Unix(_) => "localhost".to_owned(),
    })
}

fn fresh(pool: &Pool, members: Vec<Member>) -> Group {
    if is_keyed(pool) {
        Group::build_keyed(pool.policy, members)
    } else {
        Group::build(pool.policy, members)
    }
}

/// Sticky by a request's own key: its group needs a ring whatever the policy is.
fn is_keyed(pool: &Pool) -> bool {
    matches!(pool.sticky, Some(Sticky::Header(_) | Sticky::Query(_)))
}

fn identify(pool: &Pool, registry: &mut Registry) -> Vec<ServerId> {
    let servers = pool.servers.iter();
    servers.map(|server| registry.server(&pool.name, &server.name, &server.address)).collect()
}

fn rules(pool: &Pool) -> Rules {
    let rules = Rules { slow_start: pool.slow_start, ..Rules::default() };
    match &pool.health {
        Some(health) => Rules { rise: health.rise, fall: health.fall, ..rules },
        None => rules,
    }
}

#[cfg(test)]
mod tests;
