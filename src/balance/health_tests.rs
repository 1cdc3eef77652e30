//! Rise and fall, ejection and return, told as sequences of events.

use proptest::prelude::*;

use super::*;
use MemberState::{Down, Draining, Ejected, Up};

/// What only these tests ask.
impl Checkup {
    /// When `tick` has something to do next.
    fn next_tick(&self) -> Option<Duration> {
        self.patients.iter().filter_map(|p| p.ejected).min()
    }

    /// All servers in the order they were given, with state and share.
    fn verdicts(&self, now: Duration) -> impl Iterator<Item = (ServerId, MemberState, f32)> + '_ {
        self.patients.iter().map(move |p| (p.id, p.state(), p.share(now, &self.rules)))
    }

    /// Is any server in slow start, so that shares will grow without any other change?
    fn warming(&self, now: Duration) -> bool {
        self.patients
            .iter()
            .any(|p| p.state() == MemberState::Up && p.share(now, &self.rules) < 1.0)
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ids(n: u32) -> Vec<ServerId> {
    (0..n).map(ServerId).collect()
}

fn pool(n: u32) -> Checkup {
    Checkup::new(Rules { slow_start: at(60), ..Rules::default() }, ids(n))
}

fn fail(checkup: &mut Checkup, now: Duration, id: u32, times: u32) -> Option<Change> {
    (0..times).filter_map(|_| checkup.dialled(now, ServerId(id), false)).last()
}

/// Enough bad checks to take a server down.
fn bad(checkup: &mut Checkup, second: u64, id: ServerId) {
    for _ in 0..3 {
        checkup.checked(at(second), id, false);
    }
}

/// Enough good checks to bring it up.
fn good(checkup: &mut Checkup, second: u64, id: ServerId) {
    for _ in 0..2 {
        checkup.checked(at(second), id, true);
    }
}

fn states(checkup: &Checkup) -> Vec<MemberState> {
    checkup.verdicts(at(0)).map(|(_, state, _)| state).collect()
}

#[test]
fn it_takes_fall_bad_checks_in_a_row_and_rise_good_ones() {
    let mut checkup = pool(2);
    let id = ServerId(0);
    let rows = [
        (false, Up),
        (false, Up),
        (true, Up),
        (false, Up),
        (false, Up),
        (false, Down),
        (true, Down),
        (false, Down),
        (true, Down),
        (true, Up),
    ];
    for (second, (good, state)) in rows.into_iter().enumerate() {
        let change = checkup.checked(at(second as u64), id, good);
        assert_eq!(checkup.state(id), Some(state), "after row {second}");
        if let Some(change) = change {
            assert_eq!((change.to, change.why), (state, Why::Checked));
        }
    }
    // Active checks alone may take all of them.
    bad(&mut checkup, 20, ServerId(0));
    bad(&mut checkup, 20, ServerId(1));
    assert_eq!(states(&checkup), [Down, Down]);
}

#[test]
fn a_recovered_server_starts_slowly_and_one_from_the_beginning_does_not() {
    let mut checkup = pool(1);
    let id = ServerId(0);
    assert_eq!(checkup.share(at(0), id), 1.0);
    bad(&mut checkup, 1, id);
    good(&mut checkup, 10, id);
    let share = |second| checkup.share(at(second), id);
    assert!(share(10) > 0.0 && share(10) < 0.05);
    assert_eq!(share(40), 0.5);
    assert!(checkup.warming(at(69)) && !checkup.warming(at(70)));
    assert_eq!(share(70), 1.0);
}

#[test]
fn failed_connects_eject_and_time_brings_back() {
    let mut checkup = pool(4);
    assert_eq!(fail(&mut checkup, at(0), 2, 2), None);
    assert_eq!(checkup.dialled(at(0), ServerId(2), true), None);
    assert_eq!(fail(&mut checkup, at(0), 2, 2), None, "a success in between counts");
    let change = fail(&mut checkup, at(0), 2, 1).unwrap();
    assert_eq!((change.from, change.to, change.why), (Up, Ejected, Why::Dialled));
    assert_eq!(checkup.next_tick(), Some(at(5)));
    assert_eq!(checkup.tick(at(4)), []);
    let back = checkup.tick(at(5));
    assert_eq!(back.len(), 1);
    assert_eq!((back[0].from, back[0].to, back[0].why), (Ejected, Up, Why::Returned));
    assert!(checkup.share(at(5), ServerId(2)) < 0.05, "slowly first");
    assert_eq!(checkup.next_tick(), None);
}

#[test]
fn ejections_grow_longer_and_are_forgotten_in_time() {
    let mut checkup = pool(4);
    let mut now = at(0);
    fail(&mut checkup, now, 0, 3).unwrap();
    for length in [5, 10, 20, 40, 80, 160, 300, 300] {
        assert_eq!(checkup.next_tick(), Some(now + at(length)));
        now += at(length);
        assert_eq!(checkup.tick(now).len(), 1);
        // On probation one failure is enough.
        assert_eq!(fail(&mut checkup, now, 0, 1).unwrap().to, Ejected);
    }
    now += at(300);
    checkup.tick(now);
    // It was reached: three failures again; and long enough after, the first length again.
    assert_eq!(checkup.dialled(now, ServerId(0), true), None);
    now += at(601);
    assert_eq!(fail(&mut checkup, now, 0, 2), None);
    fail(&mut checkup, now, 0, 1).unwrap();
    assert_eq!(checkup.next_tick(), Some(now + at(5)));
}

#[test]
fn neither_the_last_one_nor_more_than_half_is_ejected() {
    let mut one = pool(1);
    assert_eq!(fail(&mut one, at(0), 0, 50), None);

    let mut two = pool(2);
    assert!(fail(&mut two, at(0), 0, 3).is_some());
    assert_eq!(fail(&mut two, at(0), 1, 50), None);
    assert_eq!(states(&two), [Ejected, Up]);

    let mut five = pool(5);
    let ejected = (0..5).filter_map(|id| fail(&mut five, at(0), id, 3)).count();
    assert_eq!(ejected, 2);

    // Of three in service one is left when two are draining: it stays.
    let mut drained = pool(4);
    for id in 1..4 {
        drained.drain(at(0), ServerId(id), true);
    }
    assert_eq!(fail(&mut drained, at(0), 0, 50), None);

    // When one comes back, the next failure of the other ejects it.
    two.tick(at(5));
    assert!(fail(&mut two, at(5), 1, 1).is_some());
    assert_eq!(states(&two), [Up, Ejected]);
}

#[test]
fn the_rest_of_the_pool_going_down_leaves_the_ejected_to_be_tried() {
    let mut checkup = pool(2);
    fail(&mut checkup, at(0), 0, 3).unwrap();
    bad(&mut checkup, 1, ServerId(1));
    assert_eq!(states(&checkup), [Ejected, Down]);
    // Tried, and reached.
    let change = checkup.dialled(at(2), ServerId(0), true).unwrap();
    assert_eq!((change.to, change.why), (Up, Why::Dialled));
    assert_eq!(checkup.next_tick(), None);
}

#[test]
fn coming_up_by_checks_ends_an_ejection() {
    let mut checkup = pool(3);
    fail(&mut checkup, at(0), 0, 3).unwrap();
    bad(&mut checkup, 1, ServerId(0));
    assert_eq!(checkup.state(ServerId(0)), Some(Down));
    good(&mut checkup, 2, ServerId(0));
    assert_eq!(checkup.state(ServerId(0)), Some(Up));
    assert_eq!(checkup.tick(at(500)), []);
}

#[test]
fn draining_is_told_and_taken_back() {
    let mut checkup = pool(2);
    let change = checkup.drain(at(3), ServerId(1), true).unwrap();
    assert_eq!((change.to, change.why), (Draining, Why::Told));
    assert_eq!(checkup.drain(at(3), ServerId(1), true), None);
    assert_eq!(fail(&mut checkup, at(4), 1, 9), None, "nobody new is sent to it anyway");
    assert_eq!(checkup.drain(at(9), ServerId(1), false).unwrap().to, Up);
    assert!(checkup.share(at(9), ServerId(1)) < 1.0);
}

#[test]
fn a_reload_keeps_what_is_known_and_warms_what_is_new() {
    let mut checkup = pool(3);
    bad(&mut checkup, 1, ServerId(2));
    let rules = Rules { slow_start: at(60), ..Rules::default() };
    checkup.reload(at(100), rules, &[ServerId(2), ServerId(9), ServerId(0)]);
    assert_eq!(states(&checkup), [Down, Up, Up]);
    assert!(checkup.share(at(100), ServerId(9)) < 0.05);
    assert_eq!(checkup.share(at(100), ServerId(0)), 1.0);
    assert_eq!(checkup.state(ServerId(1)), None);
    assert_eq!(
        checkup.dialled(at(100), ServerId(1), false),
        None,
        "a late report of a server gone"
    );
}

proptest! {
    #[test]
    fn ejection_never_takes_the_last_nor_more_than_half(
        n in 1u32..9,
        events in prop::collection::vec((0u32..9, 0u8..6, 0u64..30), 1..400),
    ) {
        let mut checkup = pool(n);
        let mut now = at(0);
        for (id, what, wait) in events {
            let before = states(&checkup);
            let id = ServerId(id % n);
            now += at(wait) / 10;
            let change = match what {
                0..=2 => checkup.dialled(now, id, false),
                3 => checkup.dialled(now, id, true),
                4 => checkup.checked(now, id, wait % 3 == 0),
                _ => {
                    checkup.tick(now);
                    None
                }
            };
            let after = states(&checkup);
            let count = |states: &[MemberState], s| states.iter().filter(|t| **t == s).count();
            if let Some(change) = change {
                prop_assert_eq!(before[id.index()], change.from);
                prop_assert_eq!(after[id.index()], change.to);
                if change.to == Ejected {
                    prop_assert!(count(&after, Up) >= 1);
                    prop_assert!(count(&after, Ejected) * 2 <= n as usize);
                }
            } else if what < 5 {
                prop_assert_eq!(&before, &after);
            }
            if checkup.next_tick().is_none() {
                prop_assert_eq!(count(&after, Ejected), 0, "nobody would bring it back");
            }
        }
    }
}
