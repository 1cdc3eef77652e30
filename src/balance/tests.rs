//! What every policy must keep to, and what each promises of its own.

use std::collections::HashSet;

use proptest::prelude::*;

use super::hash::mix;
use super::*;

/// A core's counts as a test wants them; the others carry nothing unless said.
#[derive(Default)]
struct Book {
    own: Vec<u32>,
    others: Vec<u32>,
    quota: Option<u32>,
}

impl Counts for Book {
    fn own(&self, id: ServerId) -> u32 {
        self.own.get(id.index()).copied().unwrap_or(0)
    }

    fn others(&self, id: ServerId) -> u32 {
        self.others.get(id.index()).copied().unwrap_or(0)
    }

    fn quota(&self, _: ServerId, max: u32) -> u32 {
        self.quota.unwrap_or(max)
    }
}

fn member(id: u32, weight: u32) -> Member {
    Member::new(ServerId(id), key_of(format!("10.0.0.{id}:9000").as_bytes()), weight)
}

fn members(weights: &[u32]) -> Vec<Member> {
    weights.iter().enumerate().map(|(i, w)| member(i as u32, *w)).collect()
}

const HASH: Policy = Policy::SourceHash { bounded: Some(BOUND) };
const UNBOUNDED: Policy = Policy::SourceHash { bounded: None };
const ALL: [Policy; 5] =
    [Policy::RoundRobin, Policy::LeastConnections, Policy::RandomTwo, HASH, UNBOUNDED];

/// Picks `n` connections that all stay, and how many each server got.
fn fill(group: &Group, ledger: &mut Ledger, n: u64, key: impl Fn(u64) -> u64) -> Vec<u32> {
    let mut cursor = Cursor::new(0);
    for i in 0..n {
        match group.pick(&mut cursor, ledger, Some(key(i)), mix(i), &[]) {
            Pick::Server(index) => ledger.lease(group.members()[index].id),
            other => panic!("{other:?} at pick {i}"),
        }
    }
    group.members().iter().map(|m| ledger.own(m.id)).collect()
}

#[test]
fn round_robin_gives_each_its_weight_exactly_in_every_round() {
    for weights in [&[1, 1, 1][..], &[5, 1, 1], &[4, 2], &[1], &[100, 50, 25, 1], &[3, 7, 11]] {
        let group = Group::build(Policy::RoundRobin, members(weights));
        let book = Book::default();
        let round: u64 = group.spread().length();
        let mut cursor = Cursor::new(3);
        for _ in 0..3 {
            let mut got = vec![0u64; weights.len()];
            for _ in 0..round {
                let Pick::Server(i) = group.pick(&mut cursor, &book, None, 0, &[]) else {
                    panic!("no server")
                };
                got[i] += 1;
            }
            let scale = weights.iter().map(|w| u64::from(*w)).sum::<u64>() / round;
            let due: Vec<u64> = weights.iter().map(|w| u64::from(*w) / scale).collect();
            assert_eq!(got, due, "{weights:?}");
        }
    }
}

#[test]
fn equal_servers_take_turns() {
    for n in 1..40usize {
        let group = Group::build(Policy::RoundRobin, members(&vec![7; n]));
        let mut cursor = Cursor::new(0);
        let turn: HashSet<Pick> =
            (0..n).map(|_| group.pick(&mut cursor, &Book::default(), None, 0, &[])).collect();
        assert_eq!(turn.len(), n);
    }
}

#[test]
fn least_connections_sees_what_other_cores_carry() {
    let group = Group::build(Policy::LeastConnections, members(&[1, 1, 2]));
    let mut book = Book { own: vec![0, 5, 9], others: vec![9, 0, 0], quota: None };
    let pick = |book: &Book, random| group.pick(&mut Cursor::new(0), book, None, random, &[]);
    // 10/1, 6/1, 10/2: the third, at twice the weight, is the least loaded.
    assert_eq!(pick(&book, 1), Pick::Server(2));
    book.own[2] = 11;
    // 10, 6, 12/2: equal; lots decide, but never the first.
    let drawn: HashSet<Pick> = (0..64).map(|i| pick(&book, mix(i))).collect();
    assert_eq!(drawn, HashSet::from([Pick::Server(1), Pick::Server(2)]));
}

#[test]
fn connections_that_stay_end_up_in_proportion() {
    let weights = [1, 2, 3, 4];
    for (policy, slack) in [(Policy::LeastConnections, 1.0), (Policy::RandomTwo, 25.0)] {
        let group = Group::build(policy, members(&weights));
        let got = fill(&group, &mut Ledger::new(0, 1), 10_000, mix);
        for (count, weight) in got.iter().zip(weights) {
            let due = f64::from(weight) * 1_000.0;
            assert!((f64::from(*count) - due).abs() <= slack, "{policy:?}: {got:?}");
        }
    }
}

#[test]
fn ten_thousand_from_one_source_stay_under_the_bound() {
    let one_source = |_| key_of_source("198.51.100.7".parse().unwrap());
    let group = Group::build(HASH, members(&[1; 4]));
    let mut ledger = Ledger::new(0, 1);
    ledger.enrol([&group]);
    let got = fill(&group, &mut ledger, 10_000, one_source);
    assert!(got.iter().all(|c| *c <= 3_125), "{got:?}");
    // Without the bound they all go to one server: the NAT trap.
    let group = Group::build(UNBOUNDED, members(&[1; 4]));
    let got = fill(&group, &mut Ledger::new(0, 1), 10_000, one_source);
    assert_eq!(got.iter().max(), Some(&10_000));
}

#[test]
fn cores_that_keep_their_own_bound_keep_it_together() {
    let group = Group::build(HASH, members(&[1; 4]));
    let mut sums = [0u32; 4];
    for core in 0..8 {
        let mut ledger = Ledger::new(core, 8);
        ledger.enrol([&group]);
        let got = fill(&group, &mut ledger, 1_250, |_| 42);
        sums.iter_mut().zip(got).for_each(|(sum, n)| *sum += n);
    }
    assert!(sums.iter().all(|n| *n <= 3_125), "{sums:?}");
}

#[test]
fn the_enrolled_total_is_the_sum() {
    let group = Group::build(HASH, members(&[1; 9]));
    let mut ledger = Ledger::new(0, 1);
    ledger.lease(ServerId(3));
    ledger.enrol([&group]);
    let got = fill(&group, &mut ledger, 500, mix);
    for (id, held) in (0..9).map(ServerId).zip(got) {
        (0..held / 2).for_each(|_| ledger.release(id));
        let sum: u32 = group.usable_ids().map(|id| ledger.own(id)).sum();
        assert_eq!(ledger.own_among(&group), sum);
    }
    // One goes down: its connections no longer count into anybody's fair share.
    let mut fewer = members(&[1; 9]);
    fewer[4].state = MemberState::Down;
    let fewer = group.rebuild(fewer);
    let sum: u32 = fewer.usable_ids().map(|id| ledger.own(id)).sum();
    assert_eq!(ledger.own_among(&fewer), sum, "before it is enrolled");
    ledger.enrol([&fewer]);
    assert_eq!(ledger.own_among(&fewer), sum, "and after");
}

fn owners(group: &Group, keys: u64) -> Vec<Option<u32>> {
    let book = Book::default();
    let owner = |key| match group.pick(&mut Cursor::new(0), &book, Some(key), 0, &[]) {
        Pick::Server(index) => Some(group.members()[index].id.0),
        _ => None,
    };
    (0..keys).map(mix).map(owner).collect()
}

#[test]
fn removing_one_of_n_moves_its_keys_and_no_others() {
    const KEYS: u64 = 20_000;
    for n in [2usize, 3, 4, 10, 50] {
        let before = owners(&Group::build(UNBOUNDED, members(&vec![1; n])), KEYS);
        let gone = n as u32 / 2;
        let mut left = members(&vec![1; n]);
        left.remove(gone as usize);
        let after = owners(&Group::build(UNBOUNDED, left), KEYS);
        let mut down = members(&vec![1; n]);
        down[gone as usize].state = MemberState::Down;
        let skipped = owners(&Group::build(UNBOUNDED, down), KEYS);

        let moved = before.iter().zip(&after).filter(|(b, a)| b != a).count() as f64;
        let due = KEYS as f64 / n as f64;
        assert!((0.7..1.3).contains(&(moved / due)), "n = {n}: {moved} moved, {due} due");
        for ((b, a), s) in before.iter().zip(&after).zip(&skipped) {
            assert!(a == b || *b == Some(gone), "a key of {b:?} moved to {a:?}");
            assert!(s == b || *b == Some(gone), "a key of {b:?} moved to {s:?}");
        }
    }
}

#[test]
fn hashed_keys_follow_weights() {
    let weights = [1, 2, 5, 8];
    let owned = owners(&Group::build(UNBOUNDED, members(&weights)), 40_000);
    for (id, weight) in weights.iter().enumerate() {
        let got = owned.iter().filter(|o| **o == Some(id as u32)).count() as f64;
        let due = 40_000.0 * f64::from(*weight) / 16.0;
        assert!((0.75..1.25).contains(&(got / due)), "server {id}: {got} of {due}");
    }
}

#[test]
fn a_warming_server_takes_back_its_keys_a_few_at_a_time() {
    let full = owners(&Group::build(UNBOUNDED, members(&[1; 4])), 10_000);
    let mut held = HashSet::new();
    for share in [0.1, 0.25, 0.5, 0.9, 1.0] {
        let mut warming = members(&[1; 4]);
        warming[1].share = share;
        let now = owners(&Group::build(UNBOUNDED, warming), 10_000);
        let has = |owners: &[Option<u32>]| -> HashSet<usize> {
            (0..owners.len()).filter(|key| owners[*key] == Some(1)).collect()
        };
        let (home, away) = (has(&full), has(&now));
        let part = away.len() as f32 / home.len() as f32;
        assert!((part - share).abs() < 0.05, "{part} of its keys at share {share}");
        assert!(held.is_subset(&away), "a key it had went away again");
        held = away;
    }
}

#[test]
fn slow_start_scales_a_weight() {
    let mut slow = members(&[2, 2]);
    slow[1].share = 0.25;
    let group = Group::build(Policy::RoundRobin, slow);
    let mut cursor = Cursor::new(0);
    let mut pick = || group.pick(&mut cursor, &Book::default(), None, 0, &[]);
    let picks: Vec<Pick> = (0..500).map(|_| pick()).collect();
    assert_eq!(picks.iter().filter(|p| **p == Pick::Server(1)).count(), 100);
}

#[test]
fn states_decide_who_is_picked() {
    use MemberState::{Down, Draining, Ejected, Up};
    let rows: [(&[MemberState], &[usize]); 7] = [
        (&[Up, Down, Draining, Ejected], &[0]),
        (&[Up, Up, Ejected], &[0, 1]),
        (&[Ejected, Ejected, Down], &[0, 1]),
        (&[Draining, Ejected], &[1]),
        (&[Down, Down], &[]),
        (&[Draining, Down], &[]),
        (&[], &[]),
    ];
    for policy in ALL {
        for (states, usable) in rows {
            let mut all = members(&vec![1; states.len()]);
            all.iter_mut().zip(states).for_each(|(m, s)| m.state = *s);
            let group = Group::build(policy, all);
            let mut cursor = Cursor::new(0);
            let picks: HashSet<Pick> = (0..200)
                .map(|i| group.pick(&mut cursor, &Book::default(), Some(i), mix(i), &[]))
                .collect();
            let expected: HashSet<Pick> = match usable {
                [] => HashSet::from([Pick::Empty]),
                some => some.iter().map(|i| Pick::Server(*i)).collect(),
            };
            assert_eq!(picks, expected, "{policy:?} {states:?}");
            assert_eq!(group.is_empty(), usable.is_empty());
        }
    }
}

#[test]
fn a_returning_client_may_use_all_but_a_server_that_is_down_or_full() {
    use MemberState::{Down, Draining, Ejected, Up};
    let mut all = members(&[1, 1, 1, 1, 0]);
    all.iter_mut().zip([Up, Draining, Ejected, Down, Up]).for_each(|(m, s)| m.state = s);
    all.iter_mut().for_each(|m| m.max_connections = 4);
    let group = Group::build(Policy::RoundRobin, all);
    let mut book = Book { own: vec![1; 5], others: vec![9; 5], quota: Some(2) };
    let may = |book: &Book| (0..6).map(|i| group.sticky(i, book)).collect::<Vec<_>>();
    assert_eq!(may(&book), [true, true, true, false, true, false]);
    book.own = vec![2; 5];
    assert_eq!(may(&book), [false; 6]);
}

#[test]
fn a_sticky_key_goes_by_the_key_under_any_policy() {
    let group = Group::build_keyed(Policy::LeastConnections, members(&[1; 5]));
    let mut ledger = Ledger::new(0, 1);
    let got = fill(&group, &mut ledger, 100, |_| 7);
    assert_eq!(got.iter().max(), Some(&100));
}

#[test]
fn the_ring_is_kept_while_only_states_change() {
    let group = Group::build(HASH, members(&[1; 5]));
    let mut changed = members(&[1; 5]);
    changed[2].state = MemberState::Down;
    let before = owners(&group, 100);
    let after = owners(&group.rebuild(changed), 100);
    assert!(before.iter().zip(&after).all(|(b, a)| b == a || *b == Some(2)));
    let heavier = owners(&group.rebuild(members(&[1, 1, 1, 1, 4])), 100);
    let fresh = owners(&Group::build(HASH, members(&[1, 1, 1, 1, 4])), 100);
    assert_eq!(heavier, fresh);
}

#[test]
fn counts_survive_a_reload() {
    let mut ledger = Ledger::new(0, 2);
    let group = Group::build(Policy::LeastConnections, members(&[1; 3]));
    ledger.enrol([&group]);
    (0..5).for_each(|_| ledger.lease(ServerId(2)));
    let other = Group::build(Policy::RoundRobin, vec![member(2, 1), member(7, 1)]);
    ledger.enrol([&other]);
    assert_eq!(ledger.own(ServerId(2)), 5);
    assert_eq!(ledger.own_among(&other), 5);
    (0..5).for_each(|_| ledger.release(ServerId(2)));
    assert_eq!((ledger.leases(), ledger.own_among(&other)), (0, 0));
}

#[test]
fn a_publish_tells_what_the_others_carry() {
    let mut loads = Loads::new(7, 2);
    let row = [Load { live: 3, quota: 6 }, Load { live: 4, quota: 4 }];
    loads.set(ServerId(5), 10, &row);
    assert_eq!((loads.total(ServerId(5)), loads.total(ServerId(4))), (7, 0));
    let mut ledger = Ledger::new(1, 2);
    ledger.lease(ServerId(5));
    ledger.hear(&std::sync::Arc::new(loads));
    assert_eq!((ledger.own(ServerId(5)), ledger.others(ServerId(5))), (1, 3));
    assert_eq!(ledger.quota(ServerId(5), 10), 4);
    // Another maximum came with a reload and nothing was lent from it yet: even parts.
    assert_eq!(ledger.quota(ServerId(5), 21), 10);
    assert_eq!(ledger.quota(ServerId(99), 21), 10);
}

#[derive(Debug, Clone)]
struct Case {
    members: Vec<Member>,
    own: Vec<u32>,
    quota: u32,
    tried: Vec<usize>,
}

fn case() -> impl Strategy<Value = Case> {
    let state = prop::sample::select(vec![
        MemberState::Up,
        MemberState::Up,
        MemberState::Draining,
        MemberState::Down,
        MemberState::Ejected,
    ]);
    let one = (0u32..4, state, 0.0f32..=1.0, 0u32..3, 0u32..6);
    (prop::collection::vec(one, 0..12), 0u32..6, prop::collection::vec(0usize..12, 0..4)).prop_map(
        |(rows, quota, tried)| {
            let own = rows.iter().map(|r| r.4).collect();
            let member = |(i, (weight, state, share, max_connections, _))| Member {
                state,
                share,
                max_connections,
                ..member(i as u32, weight)
            };
            Case { members: rows.into_iter().enumerate().map(member).collect(), own, quota, tried }
        },
    )
}

proptest! {
    #[test]
    fn every_policy_picks_only_what_may_be_picked(case in case(), key: u64, random: u64) {
        let book = Book { own: case.own, others: vec![], quota: Some(case.quota) };
        let alive = |s| case.members.iter().any(|m| m.state == s && m.weight > 0);
        let wanted = match alive(MemberState::Up) {
            true => Some(MemberState::Up),
            false => alive(MemberState::Ejected).then_some(MemberState::Ejected),
        };
        let usable: Vec<usize> = (0..case.members.len())
            .filter(|i| Some(case.members[*i].state) == wanted && case.members[*i].weight > 0)
            .collect();
        let untried: Vec<usize> =
            usable.iter().copied().filter(|i| !case.tried.contains(i)).collect();
        let room = |m: &Member| m.max_connections == 0 || book.own(m.id) < case.quota;
        let open: Vec<usize> =
            untried.iter().copied().filter(|i| room(&case.members[*i])).collect();
        for policy in ALL {
            let group = Group::build(policy, case.members.clone());
            let mut cursor = Cursor::new(random as usize % 64);
            match group.pick(&mut cursor, &book, Some(key), random, &case.tried) {
                Pick::Server(i) => prop_assert!(open.contains(&i), "{policy:?} took {i}"),
                Pick::Empty => prop_assert!(usable.is_empty()),
                Pick::Exhausted => prop_assert!(untried.is_empty() && !usable.is_empty()),
                Pick::Full => prop_assert!(open.is_empty() && !untried.is_empty()),
            }
        }
    }

    #[test]
    fn a_bounded_hash_keeps_its_bound_whatever_the_keys(
        weights in prop::collection::vec(1u32..9, 1..12),
        keys in 1u64..50,
        factor in 1.0f64..3.0,
        n in 1u64..600,
    ) {
        let group = Group::build(Policy::SourceHash { bounded: Some(factor) }, members(&weights));
        let mut ledger = Ledger::new(0, 1);
        ledger.enrol([&group]);
        let got = fill(&group, &mut ledger, n, |i| mix(i % keys));
        let sum: u32 = weights.iter().sum();
        for (count, weight) in got.iter().zip(&weights) {
            let fair = n as f64 * f64::from(*weight) / f64::from(sum);
            prop_assert!(f64::from(*count) <= (factor * fair).ceil(), "{got:?} of {weights:?}");
        }
    }

    #[test]
    fn round_robin_is_never_far_from_even(
        weights in prop::collection::vec(1u32..20, 1..20),
        start in 0usize..64,
    ) {
        let group = Group::build(Policy::RoundRobin, members(&weights));
        let mut cursor = Cursor::new(start);
        let mut got = vec![0u32; weights.len()];
        let sum = f64::from(weights.iter().sum::<u32>());
        for n in 1..=300u32 {
            let picked = group.pick(&mut cursor, &Book::default(), None, 0, &[]);
            let Pick::Server(i) = picked else { panic!("{picked:?}") };
            got[i] += 1;
            for (count, weight) in got.iter().zip(&weights) {
                let due = f64::from(n) * f64::from(*weight) / sum;
                prop_assert!((f64::from(*count) - due).abs() < 6.0, "{got:?} at {n}");
            }
        }
    }
}
