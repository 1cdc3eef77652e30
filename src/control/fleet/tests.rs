//! The fleet without threads or sockets: plans from text, health by hand, orders looked at.

use std::path::Path;
use std::time::Duration;

use crate::balance::{MemberState, ServerId};
use crate::config::certificates::authority::Authority;
use crate::config::plan::{Drain, OnDown, Plan};
use crate::config::snapshot::{EndServer, Order};
use crate::config::{self, Loaded, System};
use crate::control::fleet::{Ends, Fleet, pace};
use crate::control::material::{Keys, Material};
use crate::control::metrics;
use crate::control::page::Page;
use crate::control::settle::settle;

fn load(servers: &str, more: &str) -> Loaded {
    let text = format!(
        "[runtime]\nworkers = 2\n[listeners.edge]\nbind = [\"127.0.0.1:7000\"]\nmode = \"l4\"\n\
         pool = \"chat\"\n[pools.chat]\nservers = [{servers}]\n{more}"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    config::load(file.path(), Keys::default().tickets()).unwrap()
}

fn plan(servers: &str, more: &str) -> Plan {
    load(servers, more).plan
}

fn fleet(servers: &str, more: &str) -> Fleet {
    let Loaded { plan, contexts, .. } = load(servers, more);
    let material = Material::make(&plan, contexts, &mut Keys::default()).unwrap();
    Fleet::begin(plan, material, 2)
}

fn reload(fleet: &mut Fleet, at: u64, servers: &str, more: &str) -> Ends {
    let Loaded { plan, contexts, .. } = load(servers, more);
    let settled = settle(plan, &fleet.plan);
    let material = Material::make(&settled.plan, contexts, &mut Keys::default()).unwrap();
    fleet.reload(Duration::from_secs(at), settled, material)
}

/// Why pipes are to end, if they are.
fn why(order: Option<Order>) -> Option<EndServer> {
    match order {
        Some(Order::EndServer { why, .. }) => Some(why),
        _ => None,
    }
}

const A: &str = "\"10.0.0.1:1\"";
const B: &str = "\"10.0.0.2:1\"";

fn both() -> String {
    format!("{A}, {B}")
}

#[test]
fn a_process_begins_with_every_server_in_full_service() {
    let mut fleet = fleet(&both(), "slow_start = \"10s\"");
    let snapshot = fleet.snapshot();
    assert_eq!(snapshot.version, 1);
    let members = snapshot.pools[0].group.members();
    assert!(members.iter().all(|m| m.share == 1.0 && m.state == MemberState::Up));
    assert!(snapshot.listeners[0].open);
    assert_eq!(snapshot.listeners[0].counters.len(), 2);
}

#[test]
fn a_new_server_begins_slowly_and_the_old_one_keeps_its_number() {
    let mut fleet = fleet(A, "slow_start = \"10s\"");
    let old = fleet.wards[0].ids[0];
    let ends = reload(&mut fleet, 100, &both(), "slow_start = \"10s\"");
    assert!(ends.orders.is_empty());
    assert_eq!(fleet.wards[0].ids[0], old);
    assert!(fleet.wards[0].group.members()[1].share < 0.2);
    assert!(fleet.is_warming());
    assert!(fleet.regroup(Duration::from_secs(105)));
    let half = fleet.wards[0].group.members()[1].share;
    assert!((0.4..0.6).contains(&half), "{half}");
    fleet.regroup(Duration::from_secs(111));
    assert!(!fleet.is_warming());
}

#[test]
fn a_reload_that_changes_nothing_touches_nothing() {
    let fleet = fleet(&both(), "");
    let settled = settle(plan(&both(), ""), &fleet.plan);
    assert!(settled.touches_nothing(), "{settled:?}");
    let settled = settle(plan(A, ""), &fleet.plan);
    assert_eq!(settled.pools_touched, ["chat".into()]);
    assert!(settled.listeners_touched.is_empty());
}

#[test]
fn what_needs_a_restart_stays_and_is_said() {
    let fleet = fleet(A, "");
    let mut other = plan(A, "");
    other.runtime.workers = 7;
    let settled = settle(other, &fleet.plan);
    assert_eq!(settled.plan.runtime.workers, 2);
    assert!(settled.warnings[0].contains("runtime.workers"));
}

#[test]
fn a_removed_server_is_kept_drained_or_closed_as_the_file_says() {
    for (said, orders) in [("keep", 0), ("drain", 1), ("close", 1)] {
        let more = format!("on_remove = \"{said}\"\ndrain = {{ window = \"30s\" }}\n");
        let mut fleet = fleet(&both(), &more);
        let id = fleet.wards[0].ids[0];
        fleet.registry.known(id).cells[1].live.add(5);
        let ends = reload(&mut fleet, 1, B, &more);
        assert_eq!((ends.removed, ends.orders.len()), (1, orders), "{said}");
        assert_eq!(ends.pipes, 5 * orders as u64);
        let over = (said == "drain").then(|| Duration::from_secs(30));
        if let [Order::EndServer { id: ended, over: pace, why }] = &ends.orders[..] {
            assert_eq!((*ended, *pace, *why), (id, over, EndServer::Removed));
        }
    }
}

#[test]
fn draining_a_server_ends_its_pipes_once() {
    let mut fleet = fleet(&both(), "");
    let draining = format!("{{ address = {A}, drain = true }}, {B}");
    let ends = reload(&mut fleet, 1, &draining, "");
    let drained = matches!(
        &ends.orders[..],
        [Order::EndServer { id: ServerId(0), over: Some(_), why: EndServer::Draining }]
    );
    assert!(drained, "{ends:?}");
    assert_eq!(fleet.wards[0].group.members()[0].state, MemberState::Draining);
    assert!(reload(&mut fleet, 2, &draining, "").orders.is_empty());
}

#[test]
fn a_rate_is_shared_by_all_servers_of_the_pool_that_end() {
    let more = "drain = { rate = 10 }\non_remove = \"drain\"\n\
                health = { every = \"1s\", fall = 1 }\n";
    let over = |orders: &[Order]| -> Vec<(u32, u64)> {
        let over = |order: &Order| match order {
            Order::EndServer { id, over: Some(over), .. } => (id.0, over.as_secs()),
            other => panic!("{other:?}"),
        };
        orders.iter().map(over).collect()
    };
    let all = format!("{A}, {B}, \"10.0.0.3:1\", \"10.0.0.4:1\"");
    let mut fleet = fleet(&all, more);
    let ids = fleet.wards[0].ids.clone();
    for (id, live) in ids.iter().zip([100, 50, 70, 80]) {
        fleet.registry.known(*id).cells[0].live.add(live);
    }
    // One leaves the file and one is drained, in one reload: fifteen seconds for 150 pipes.
    let next = format!("{{ address = {B}, drain = true }}, \"10.0.0.3:1\", \"10.0.0.4:1\"");
    let ends = reload(&mut fleet, 1, &next, more);
    assert_eq!(over(&ends.orders), [(0, 15), (1, 15)]);
    // A third goes down when the first has ended: with the fifty that are left of the second.
    fleet.registry.known(ids[0]).cells[0].live.sub(100);
    let change = fleet.wards[0].checkup.checked(Duration::from_secs(2), ids[2], false).unwrap();
    let order = fleet.on_change(&change).unwrap();
    assert_eq!(over(&[order]), [(2, 12)]);
}

#[test]
fn a_server_that_goes_down_ends_its_pipes_unless_they_are_kept() {
    let health = "health = { every = \"1s\", fall = 1 }\n";
    for (said, expected) in [("keep", false), ("drain", true), ("close", true)] {
        let mut fleet = fleet(&both(), &format!("on_down = \"{said}\"\n{health}"));
        let id = fleet.wards[0].ids[1];
        let change = fleet.wards[0].checkup.checked(Duration::ZERO, id, false).unwrap();
        assert_eq!(fleet.on_change(&change).is_some(), expected, "{said}");
        assert!(fleet.regroup(Duration::ZERO));
        assert_eq!(fleet.wards[0].group.members()[1].state, MemberState::Down);
    }
}

#[test]
fn a_server_that_is_wanted_again_keeps_what_it_still_has() {
    let health = "health = { every = \"1s\", fall = 1, rise = 1 }\non_remove = \"drain\"\n";
    let mut fleet = fleet(&both(), health);
    let id = fleet.wards[0].ids[0];
    let checked = |fleet: &mut Fleet, good| {
        let change = fleet.wards[0].checkup.checked(Duration::ZERO, id, good).unwrap();
        fleet.on_change(&change)
    };
    assert_eq!(why(checked(&mut fleet, false)), Some(EndServer::Down));
    assert!(matches!(checked(&mut fleet, true), Some(Order::KeepServer { .. })));
    assert_eq!(why(checked(&mut fleet, false)), Some(EndServer::Down));
    let gone = reload(&mut fleet, 1, B, health);
    assert!(matches!(gone.orders[..], [Order::EndServer { why: EndServer::Removed, .. }]));
    let back = reload(&mut fleet, 2, &both(), health);
    assert!(back.orders.is_empty() && matches!(back.keeps[..], [Order::KeepServer { .. }]));
    let draining = format!("{{ address = {A}, drain = true }}, {B}");
    reload(&mut fleet, 3, &draining, health);
    assert_eq!(why(checked(&mut fleet, false)), Some(EndServer::Down));
    assert_eq!(why(checked(&mut fleet, true)), Some(EndServer::Draining));
    assert_eq!(reload(&mut fleet, 4, &both(), health).keeps.len(), 1);
    assert!(reload(&mut fleet, 5, &both(), health).keeps.is_empty());
}

/// Whatever happens in whatever order, the cores end the pipes of those servers that are to be
/// left, and of no other: a core goes on until it is told to stop.
#[test]
fn what_the_cores_were_told_is_what_the_fleet_means() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut fleet = fleet(&both(), "health = { every = \"1s\", fall = 1, rise = 1 }");
        let mut core = std::collections::HashMap::new();
        let mut hear = |orders: Vec<Order>| {
            for order in orders {
                match order {
                    Order::EndServer { id, over, why } => drop(core.insert(id, (why, over))),
                    Order::KeepServer { id } => drop(core.remove(&id)),
                    other => panic!("{other:?}"),
                }
            }
            core.clone()
        };
        for step in 0..30 {
            let told = if random.bool() {
                let choose = |random: &mut fastrand::Rng, some: &[&str]| {
                    some[random.usize(..some.len())].to_owned()
                };
                let entry = |random: &mut fastrand::Rng, server: &str| match random.u8(..4) {
                    0 => String::new(),
                    1 => format!("{{ address = {server}, drain = true }},"),
                    _ => format!("{server},"),
                };
                let servers = entry(&mut random, A) + &entry(&mut random, B);
                let servers = if servers.is_empty() { B.to_owned() } else { servers };
                let more = format!(
                    "on_down = \"{}\"\non_remove = \"{}\"\n\
                     health = {{ every = \"1s\", fall = 1, rise = 1 }}\n",
                    choose(&mut random, &["keep", "drain", "close"]),
                    choose(&mut random, &["keep", "drain", "close"]),
                );
                let ends = reload(&mut fleet, step, &servers, &more);
                hear(ends.keeps.into_iter().chain(ends.orders).collect())
            } else {
                let ids = fleet.wards[0].ids.clone();
                let id = ids[random.usize(..ids.len())];
                let good = random.bool();
                let change = fleet.wards[0].checkup.checked(Duration::from_secs(step), id, good);
                hear(change.and_then(|change| fleet.on_change(&change)).into_iter().collect())
            };
            let ward = &fleet.wards[0];
            for (server, id) in ward.plan.servers.iter().zip(&ward.ids) {
                let down = ward.checkup.state(*id) == Some(MemberState::Down);
                let expected = match (down, ward.plan.on_down, server.draining) {
                    (true, OnDown::Drain, _) => Some((EndServer::Down, true)),
                    (true, OnDown::Close, _) => Some((EndServer::Down, false)),
                    (_, _, true) => Some((EndServer::Draining, true)),
                    (_, _, false) => None,
                };
                let told = told.get(id).map(|(why, over)| (*why, over.is_some()));
                assert_eq!(told, expected, "seed {seed}, step {step}, {}", server.name);
            }
        }
    }
}

#[test]
fn an_operator_can_stop_the_drain_of_a_server_that_is_down() {
    let health = "health = { every = \"1s\", fall = 1 }\n";
    let mut fleet = fleet(&both(), health);
    let id = fleet.wards[0].ids[0];
    let change = fleet.wards[0].checkup.checked(Duration::ZERO, id, false).unwrap();
    assert!(fleet.on_change(&change).is_some());
    let kept = reload(&mut fleet, 1, &both(), &format!("on_down = \"keep\"\n{health}"));
    assert_eq!((kept.keeps.len(), kept.orders.len(), kept.pipes), (1, 0, 0));
    let closed = reload(&mut fleet, 2, &both(), &format!("on_down = \"close\"\n{health}"));
    assert!(matches!(closed.orders[..], [Order::EndServer { over: None, .. }]));
}

#[test]
fn an_empty_pool_closes_only_listeners_that_refuse() {
    let health = "health = { every = \"1s\", fall = 1 }\n";
    for (said, open) in [("close", true), ("refuse", false)] {
        let text = format!(
            "[listeners.edge]\nbind = [\"127.0.0.1:7000\"]\nmode = \"l4\"\npool = \"chat\"\n\
             when_empty = \"{said}\"\n[pools.chat]\nservers = [{A}]\n{health}"
        );
        let plan = config::parse(&text, Path::new("edge.toml"), &System).unwrap().plan;
        let mut fleet = Fleet::begin(plan, Material::default(), 1);
        let id = fleet.wards[0].ids[0];
        fleet.wards[0].checkup.checked(Duration::ZERO, id, false);
        fleet.regroup(Duration::ZERO);
        assert_eq!(fleet.snapshot().listeners[0].open, open);
    }
}

#[test]
fn a_pool_can_become_sticky_by_header_and_back() {
    let mut fleet = fleet(&both(), "");
    let id = fleet.wards[0].ids[0];
    let sticky = "sticky = { header = \"X-User\" }\n";
    for more in [sticky, "", sticky] {
        reload(&mut fleet, 1, &both(), more);
        assert_eq!(fleet.wards[0].group.members().len(), 2);
        assert_eq!(fleet.wards[0].ids[0], id);
    }
}

#[test]
fn a_check_names_its_server_as_the_file_does() {
    let servers = "\"10.0.0.1:9000\", { address = \"127.0.0.1:81\", name = \"b\" }, \
                   \"unix:/run/a.sock\"";
    let hosts = |more: &str| {
        let more = format!("health = {{ http = \"/\" }}\n{more}");
        let targets = fleet(servers, &more).targets().into_iter();
        targets.map(|(_, target)| target.host).collect::<Vec<_>>()
    };
    assert_eq!(hosts(""), ["10.0.0.1:9000", "127.0.0.1:81", "localhost"]);
    let tls = "tls = { server_name = \"chat.internal\", verify = false }";
    assert_eq!(hosts(tls), ["chat.internal"; 3]);
}

#[test]
fn a_reload_disturbs_no_check_of_a_tls_pool_whose_certificates_are_as_they_were() {
    let authority = Authority::new();
    let ca = authority.ca();
    let more = |path: &str| {
        let tls = format!("tls = {{ ca = \"{}\", server_name = \"chat\" }}", ca.display());
        format!("health = {{ http = \"{path}\" }}\n{tls}\n")
    };
    let mut fleet = fleet(&both(), &more("/"));
    let before = fleet.targets();
    reload(&mut fleet, 1, &both(), &more("/"));
    assert!(fleet.targets() == before);
    // With one server less the others are still asked in the same way.
    reload(&mut fleet, 2, B, &more("/"));
    assert!(fleet.targets() == before[1..]);
    reload(&mut fleet, 3, B, &more("/healthz"));
    let after = fleet.targets();
    assert!(after != before[1..]);
    std::fs::copy(Authority::new().ca(), &ca).unwrap();
    reload(&mut fleet, 4, B, &more("/healthz"));
    assert!(fleet.targets() != after, "another authority decides");
}

#[test]
fn the_counts_of_a_name_outlive_the_last_connection_to_its_old_address() {
    let at = |address: &str| format!("{{ address = {address}, name = \"a\" }}");
    let mut fleet = fleet(&at(A), "");
    let old = fleet.wards[0].ids[0];
    let cell = |fleet: &Fleet, id: ServerId| fleet.registry.known(id).cells[0].clone();
    cell(&fleet, old).leased.add(5);
    cell(&fleet, old).live.add(1);
    reload(&mut fleet, 1, &at(B), "");
    let new = fleet.wards[0].ids[0];
    cell(&fleet, new).leased.add(2);
    cell(&fleet, new).live.add(1);
    let shows = |fleet: &Fleet, line: &str| {
        let mut page = Page::default();
        metrics::servers(fleet, &mut page);
        let text = page.finish();
        assert!(text.lines().any(|shown| shown == line), "{line} in:\n{text}");
    };
    shows(&fleet, "standpipe_server_connections_total{pool=\"chat\",server=\"a\"} 7");
    shows(&fleet, "standpipe_server_connections{pool=\"chat\",server=\"a\"} 2");
    cell(&fleet, old).live.sub(1);
    shows(&fleet, "standpipe_server_connections_total{pool=\"chat\",server=\"a\"} 7");
    shows(&fleet, "standpipe_server_connections{pool=\"chat\",server=\"a\"} 1");
    // A name that nobody needs any more leaves the page, as it did.
    cell(&fleet, new).live.sub(1);
    reload(&mut fleet, 2, "\"10.0.0.3:1\"", "");
    let mut page = Page::default();
    metrics::servers(&fleet, &mut page);
    assert!(!page.finish().contains("server=\"a\""));
}

#[test]
fn a_pace_is_a_window_or_a_rate() {
    assert_eq!(pace(Drain::Window(Duration::from_secs(9)), 1_000_000), Duration::from_secs(9));
    assert_eq!(pace(Drain::Rate(50), 1000), Duration::from_secs(20));
    assert_eq!(pace(Drain::Rate(50), 0), Duration::ZERO);
}
