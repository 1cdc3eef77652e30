//! What one pick costs, by policy and number of servers, with counts that look like a fleet's.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use standpipe::balance::{
    BOUND, Cursor, Group, Ledger, Load, Loads, Member, Pick, Policy, ServerId, key_of,
};

const POLICIES: [(&str, Policy); 5] = [
    ("round-robin", Policy::RoundRobin),
    ("least-connections", Policy::LeastConnections),
    ("random-two", Policy::RandomTwo),
    ("source-hash", Policy::SourceHash { bounded: Some(BOUND) }),
    ("source-hash-unbounded", Policy::SourceHash { bounded: None }),
];

fn members(n: u32) -> Vec<Member> {
    let member = |i: u32| {
        let name = format!("10.{}.{}.1:9000", i / 256, i % 256);
        Member::new(ServerId(i), key_of(name.as_bytes()), 1 + i % 3)
    };
    (0..n).map(member).collect()
}

/// About a hundred connections on each server, of which this core holds a quarter.
fn ledger(group: &Group, random: &mut fastrand::Rng) -> Ledger {
    let mut ledger = Ledger::new(0, 4);
    let mut loads = Loads::new(1, 4);
    for member in group.members() {
        let row: [Load; 4] = std::array::from_fn(|_| Load { live: random.u32(15..35), quota: 0 });
        (0..row[0].live).for_each(|_| ledger.lease(member.id));
        loads.set(member.id, 0, &row);
    }
    ledger.hear(&Arc::new(loads));
    ledger.enrol([group]);
    ledger
}

fn pick(criterion: &mut Criterion) {
    for (name, policy) in POLICIES {
        let mut benches = criterion.benchmark_group(format!("pick/{name}"));
        for n in [2, 10, 100, 1_000] {
            let mut random = fastrand::Rng::with_seed(7);
            let group = Group::build(policy, members(n));
            let mut ledger = ledger(&group, &mut random);
            let mut cursor = Cursor::new(0);
            benches.bench_function(BenchmarkId::from_parameter(n), |bencher| {
                bencher.iter(|| {
                    let (key, lot) = (random.u64(..), random.u64(..));
                    let pick = group.pick(&mut cursor, &ledger, Some(key), lot, &[]);
                    if let Pick::Server(index) = black_box(pick) {
                        // A fleet in balance: one comes, one goes.
                        ledger.lease(group.members()[index].id);
                        ledger.release(group.members()[index].id);
                    }
                });
            });
        }
        benches.finish();
    }
}

fn build(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("build");
    for (name, policy) in [POLICIES[1], POLICIES[3]] {
        let group = Group::build(policy, members(1_000));
        benches.bench_function(format!("{name}/1000"), |bencher| {
            bencher.iter(|| Group::build(policy, members(1_000)));
        });
        benches.bench_function(format!("{name}/1000/states only"), |bencher| {
            bencher.iter(|| group.rebuild(members(1_000)));
        });
    }
    benches.finish();
}

criterion_group!(benches, pick, build);
criterion_main!(benches);
