//! Listeners that lead back to themselves, by their own pool or by way of others: each connection
//! would make another, until there are no descriptors left.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::config::plan::{Listener, Pool, Server, ServerAddress, Service, overlap};
use crate::config::problem::At;
use crate::config::written::File;

use super::Proof;

/// A pool's server that is a listener of ours.
struct Edge<'a> {
    pool: usize,
    server: &'a Server,
    listener: usize,
}

impl Proof<'_> {
    /// Tells of one server for each circle: without it the circle is none.
    pub fn no_circle(
        &self,
        written: &File,
        pools: &[Option<Arc<Pool>>],
        listeners: &[Option<Arc<Listener>>],
    ) {
        let leads: Vec<Vec<usize>> =
            listeners.iter().map(|it| it.as_deref().map_or_else(Vec::new, pools_of)).collect();
        let goes_on: Vec<Vec<usize>> =
            listeners.iter().map(|it| it.as_deref().map_or_else(Vec::new, sure_pools_of)).collect();
        let mut edges = edges(pools, listeners);
        let mut next = 0;
        while next < edges.len() {
            let Edge { pool, server, listener } = edges[next];
            if !leads_to(listener, pool, [&leads, &goes_on], &edges) {
                next += 1;
                continue;
            }
            edges.remove(next);
            let list = written.pools[pool].servers.iter().flat_map(|list| &list.value);
            let at = list.map(|it| &it.address).find(|it| *it.value == *server.written);
            let (Some(At { place, .. }), Some(to)) = (at, &listeners[listener]) else { continue };
            let found = match leads[listener].contains(&pool) {
                true => format!("leads back to listeners.{}", to.name),
                false => {
                    format!("leads to listeners.{}, and from there back to this pool", to.name)
                }
            };
            let remedy = "each connection would make another one; name another server";
            self.notes.mistake(place, found, remedy);
        }
    }
}

fn pools_of(listener: &Listener) -> Vec<usize> {
    match &listener.service {
        Service::L4 { pool } => vec![*pool],
        Service::L7(l7) => {
            l7.rules.iter().flat_map(|rule| &rule.pools).map(|share| share.pool).collect()
        }
    }
}

/// Where everything that comes to the listener goes, if that is one pool. Which of several routes a
/// request takes, and by which it goes on at a second listener, is its path's choice: the two need
/// not meet.
fn sure_pools_of(listener: &Listener) -> Vec<usize> {
    let mut pools = pools_of(listener);
    pools.dedup();
    pools.truncate(if pools.len() == 1 { 1 } else { 0 });
    pools
}

fn edges<'a>(pools: &'a [Option<Arc<Pool>>], listeners: &[Option<Arc<Listener>>]) -> Vec<Edge<'a>> {
    let mut edges = Vec::new();
    for (pool, proven) in pools.iter().enumerate() {
        for server in proven.iter().flat_map(|pool| &pool.servers) {
            let reached = reached(server, listeners);
            edges.extend(reached.map(|listener| Edge { pool, server, listener }));
        }
    }
    edges
}

/// The listener that a connection to the server comes to: the one that names its address before
/// one that takes every address.
fn reached(server: &Server, listeners: &[Option<Arc<Listener>>]) -> Option<usize> {
    let ServerAddress::Inet(address) = server.address else { return None };
    let to = SocketAddr::new(dialled(address.ip()), address.port());
    let binds = |fits: &dyn Fn(SocketAddr) -> bool| {
        listeners.iter().position(|it| it.iter().any(|it| it.bind.iter().any(|bind| fits(*bind))))
    };
    let wide = || binds(&|bind: SocketAddr| overlap(bind, to) && to.ip().is_loopback());
    binds(&|bind: SocketAddr| bind == to).or_else(wide)
}

/// Where the kernel goes: an IPv4 address in IPv6 form is one of IPv4, and no address at all is
/// this machine's loopback.
fn dialled(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Whether a connection to the listener comes to the pool: by itself, or by way of other listeners
/// for certain.
fn leads_to(
    listener: usize,
    pool: usize,
    [leads, goes_on]: [&[Vec<usize>]; 2],
    edges: &[Edge<'_>],
) -> bool {
    if leads[listener].contains(&pool) {
        return true;
    }
    let leads = goes_on;
    let (mut seen, mut open) = (vec![false; leads.len()], vec![listener]);
    while let Some(at) = open.pop() {
        if leads[at].contains(&pool) {
            return true;
        }
        if !std::mem::replace(&mut seen[at], true) {
            let next = edges.iter().filter(|edge| leads[at].contains(&edge.pool));
            open.extend(next.map(|edge| edge.listener));
        }
    }
    false
}
