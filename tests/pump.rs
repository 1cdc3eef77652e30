//! The L4 wire end to end: bytes through every gear and across every change of gear, compared by
//! digest, with slow readers, half-closes and resets, over TCP and Unix sockets. Traffic comes
//! from a seed that is printed; `STANDPIPE_SEED=…` runs the same again.

mod common;

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use common::l4::{self, Accepting, Pace, Part, Seen, Stretch, ended, exchange};
use common::{Standpipe, wait_until};

const MIB: usize = 1 << 20;

/// Longer than a flowing direction may be silent before it is parked again.
const LONG_REST: Stretch = Stretch::Rest(Duration::from_millis(7_500));

fn seed() -> u64 {
    let given = std::env::var("STANDPIPE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("STANDPIPE_SEED={seed}");
    seed
}

/// A standpipe in front of one server of the given kind.
struct Stand {
    standpipe: Standpipe,
    edge: SocketAddr,
    server: Accepting,
    is_unix: bool,
    _folder: tempfile::TempDir,
}

impl Stand {
    fn new(is_unix: bool, rest: &str) -> Stand {
        let folder = tempfile::tempdir().expect("a folder");
        let server = if is_unix { Accepting::unix(folder.path()) } else { Accepting::tcp() };
        Stand::before(server, is_unix, folder, rest)
    }

    fn before(server: Accepting, is_unix: bool, folder: tempfile::TempDir, rest: &str) -> Stand {
        let edge = common::address();
        let config = l4::config(edge, &[&server.written], "", "", rest);
        let standpipe = Standpipe::start(&config);
        Stand { standpipe, edge, server, is_unix, _folder: folder }
    }

    fn pair(&self) -> (socket2::Socket, socket2::Socket) {
        let client = l4::reach(self.edge);
        (client, self.server.next())
    }

    fn moved(&self, direction: &str, gear: &str) -> f64 {
        let labels = [("direction", direction), ("gear", gear)];
        self.standpipe.metric("standpipe_bytes_moved_total", &labels)
    }

    fn changes(&self, change: &str) -> f64 {
        self.standpipe.metric("standpipe_gear_changes_total", &[("change", change)])
    }

    /// Waits until a direction is in a gear.
    fn wait_gear(&self, direction: &str, gear: &str) {
        let labels = [("direction", direction), ("gear", gear)];
        wait_until(&format!("{direction} is {gear}"), || {
            self.standpipe.metric("standpipe_directions", &labels) == 1.0
        });
    }

    /// Nothing may be left of connections that are over.
    fn assert_clean(&self) {
        let pipe = &self.standpipe;
        for gauge in ["connections_live", "connections_closing", "pipes_lent", "spill_held_bytes"] {
            let name = format!("standpipe_{gauge}");
            wait_until(&format!("{gauge} is 0"), || pipe.metric(&name, &[]) == 0.0);
        }
        wait_until("no lease is held", || pipe.metric("standpipe_server_connections", &[]) == 0.0);
    }
}

/// Up through the gears and down again, by every way there is.
fn through_every_gear(is_unix: bool) {
    let stand = Stand::new(is_unix, "");
    let script = vec![
        Stretch::Sparse(4),
        Stretch::Lively(150),
        LONG_REST,
        Stretch::Sparse(3),
        Stretch::Lively(100),
        Stretch::Large(24 * MIB),
        Stretch::Sparse(12),
        Stretch::Large(24 * MIB),
        Stretch::Rest(Duration::from_millis(1_500)),
        Stretch::Lively(60),
    ];
    let part = Part { script, pace: Pace::Quick };
    let (client, server) = stand.pair();
    exchange(&client, &server, seed(), [&part, &part]);
    for direction in ["from_client", "from_server"] {
        for gear in ["parked", "flowing", "bulk"] {
            assert!(stand.moved(direction, gear) > 0.0, "{direction} was never {gear}");
        }
    }
    for change in ["parked_to_flowing", "flowing_to_parked", "flowing_to_bulk", "bulk_to_parked"] {
        assert!(stand.changes(change) >= 1.0, "{change}:\n{}", stand.standpipe.metrics());
    }
    stand.assert_clean();
}

#[test]
fn bytes_pass_every_gear_and_every_change() {
    through_every_gear(false);
}

#[test]
fn bytes_pass_every_gear_to_a_unix_socket() {
    through_every_gear(true);
}

/// Large from the first byte: parked to bulk without flowing.
#[test]
fn a_large_beginning_goes_to_bulk_at_once() {
    let stand = Stand::new(false, "");
    let large = Part { script: vec![Stretch::Large(16 * MIB)], pace: Pace::Quick };
    for round in 0..4 {
        let (client, server) = stand.pair();
        exchange(&client, &server, seed() ^ round, [&large, &large]);
    }
    assert!(stand.changes("parked_to_bulk") >= 1.0, "{}", stand.standpipe.metrics());
    stand.assert_clean();
}

fn random_script(random: &mut fastrand::Rng) -> Vec<Stretch> {
    let stretches = random.usize(1..=6);
    let mut script = Vec::new();
    for _ in 0..stretches {
        script.push(match random.u8(0..5) {
            0 => Stretch::Sparse(random.usize(1..=3)),
            1 | 2 => Stretch::Lively(random.usize(1..=150)),
            3 => Stretch::Large(random.usize(1..=12 * MIB)),
            _ => Stretch::Rest(Duration::from_millis(random.u64(0..=1_500))),
        });
    }
    script
}

fn random_pace(random: &mut fastrand::Rng) -> Pace {
    if random.bool() {
        Pace::Quick
    } else {
        Pace::Slow(Duration::from_millis(random.u64(0..1_500)))
    }
}

/// Many pipes at once, each with its own script and paces; each direction ends when it ends.
fn random_exchanges(is_unix: bool, pipes: u64) {
    let stand = Stand::new(is_unix, "");
    let seed = seed();
    std::thread::scope(|scope| {
        for number in 0..pipes {
            let seed = seed.wrapping_add(number << 8);
            let mut random = fastrand::Rng::with_seed(seed);
            let mut part = || {
                let script = random_script(&mut random);
                Part { script, pace: random_pace(&mut random) }
            };
            let (ours, theirs) = (part(), part());
            let (client, server) = stand.pair();
            scope.spawn(move || exchange(&client, &server, seed, [&ours, &theirs]));
        }
    });
    stand.assert_clean();
    let in_order =
        ended(&stand.standpipe, "client/pipe/fin") + ended(&stand.standpipe, "server/pipe/fin");
    assert_eq!(in_order, pipes as usize, "{}", l4::endings(&stand.standpipe));
    assert_eq!(stand.standpipe.metric("standpipe_listener_faults_total", &[]), 0.0);
}

#[test]
fn random_traffic_arrives_whole() {
    random_exchanges(false, 24);
}

#[test]
fn random_traffic_to_a_unix_socket_arrives_whole() {
    random_exchanges(true, 12);
}

/// The sink reads nothing for a while: what was read for it is set aside, and what lies in a pipe
/// is too. Nothing of it is lost or swapped.
fn slow_readers(is_unix: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let server = if is_unix { Accepting::unix(folder.path()) } else { Accepting::narrow() };
    let stand = Stand::before(server, is_unix, folder, "");
    let slow = |script| Part { script, pace: Pace::Slow(Duration::from_millis(2_500)) };
    // Small messages fill the sink before they look like bulk.
    let small = slow(vec![Stretch::Lively(700), Stretch::Large(4 * MIB)]);
    let large = slow(vec![Stretch::Large(12 * MIB), Stretch::Lively(20)]);
    let seed = seed();
    std::thread::scope(|scope| {
        for part in [&small, &small, &large, &large] {
            let client = l4::reach_narrow(stand.edge);
            let server = stand.server.next();
            scope.spawn(move || exchange(&client, &server, seed, [part, part]));
        }
    });
    let metric = |name| stand.standpipe.metric(name, &[]);
    assert!(metric("standpipe_spills_total") >= 4.0, "{}", stand.standpipe.metrics());
    assert!(metric("standpipe_spilled_bytes_total") > 0.0, "{}", stand.standpipe.metrics());
    let spliced = stand.moved("from_client", "bulk") + stand.moved("from_server", "bulk");
    assert!(spliced > 0.0, "nothing was ever spliced");
    stand.assert_clean();
}

#[test]
fn slow_readers_get_every_byte() {
    slow_readers(false);
}

#[test]
fn slow_readers_behind_a_unix_socket_get_every_byte() {
    slow_readers(true);
}

/// One side has said all; the other goes on for long, in every gear.
fn half_closes(is_unix: bool) {
    let stand = Stand::new(is_unix, "");
    let brief = Part { script: vec![Stretch::Lively(3)], pace: Pace::Quick };
    let long = Part {
        script: vec![
            Stretch::Rest(Duration::from_millis(300)),
            Stretch::Sparse(2),
            Stretch::Lively(60),
            Stretch::Large(8 * MIB),
            Stretch::Sparse(2),
        ],
        pace: Pace::Quick,
    };
    let (client, server) = stand.pair();
    exchange(&client, &server, seed(), [&brief, &long]);
    l4::wait_ended(&stand.standpipe, "client/pipe/fin", 1);
    let (client, server) = stand.pair();
    exchange(&client, &server, seed(), [&long, &brief]);
    l4::wait_ended(&stand.standpipe, "server/pipe/fin", 1);
    stand.assert_clean();
}

#[test]
fn a_half_close_is_passed_on_both_ways() {
    half_closes(false);
}

#[test]
fn a_half_close_is_passed_on_both_ways_with_a_unix_socket() {
    half_closes(true);
}

/// Brings the direction that `speaker` sends in to a gear. What it said has arrived.
fn warm_up(
    stand: &Stand,
    speaker: &socket2::Socket,
    hearer: &socket2::Socket,
    gear: &str,
    of: &str,
) {
    let script: &[Stretch] = match gear {
        "parked" => &[Stretch::Sparse(1)],
        // In its first second a pipe is served as it came.
        "flowing" => &[Stretch::Rest(Duration::from_millis(2_500)), Stretch::Lively(40)],
        _ => &[Stretch::Large(16 * MIB)],
    };
    std::thread::scope(|scope| {
        let told = scope.spawn(|| l4::speak_on(speaker, 7, script).bytes);
        let mut left = if gear == "bulk" { 16 * MIB } else { 0 };
        while left > 0 {
            left -= l4::get(hearer, left.min(MIB)).len();
        }
        let told = told.join().expect("the speaker is done");
        if gear != "bulk" {
            l4::get(hearer, told);
        }
    });
    stand.wait_gear(of, gear);
}

fn resets(is_unix: bool) {
    let stand = Stand::new(is_unix, "");
    let seen_by_server = if is_unix { Seen::End } else { Seen::Reset };
    for (count, gear) in ["parked", "flowing", "bulk"].into_iter().enumerate() {
        let (client, server) = stand.pair();
        warm_up(&stand, &client, &server, gear, "from_client");
        l4::reset(client);
        assert_eq!(l4::outcome(&server), seen_by_server, "the client's, {gear}");
        l4::wait_ended(&stand.standpipe, "client/pipe/reset", count + 1);
    }
    for (count, gear) in ["parked", "flowing", "bulk"].into_iter().enumerate() {
        let (client, server) = stand.pair();
        warm_up(&stand, &server, &client, gear, "from_server");
        if stand.is_unix {
            // Unread bytes make the close of a Unix socket a reset.
            (&client).write_all(b"never read").expect("taken");
            std::thread::sleep(Duration::from_millis(200));
        }
        l4::reset(server);
        assert_eq!(l4::outcome(&client), Seen::Reset, "the server's, {gear}");
        l4::wait_ended(&stand.standpipe, "server/pipe/reset", count + 1);
    }
    stand.assert_clean();
}

#[test]
fn a_reset_is_passed_on_in_every_gear() {
    resets(false);
}

#[test]
fn a_reset_is_passed_on_in_every_gear_with_a_unix_socket() {
    resets(true);
}

/// A reset by the side that is being sent to, while bytes are under way.
#[test]
fn a_hearer_that_resets_stops_the_speaker() {
    let stand = Stand::new(false, "");
    for (from_client, ending) in [(true, "server/pipe/reset"), (false, "client/pipe/reset")] {
        let (client, server) = stand.pair();
        let (mut speaker, hearer) = if from_client { (client, server) } else { (server, client) };
        std::thread::scope(|scope| {
            let speaking = scope.spawn(move || {
                let chunk = vec![0; 64 << 10];
                loop {
                    if let Err(error) = speaker.write_all(&chunk) {
                        return error;
                    }
                }
            });
            l4::get(&hearer, 8 * MIB);
            l4::reset(hearer);
            let error = speaking.join().expect("the speaker stops");
            assert!(l4::is_reset(&error), "{error}");
        });
        l4::wait_ended(&stand.standpipe, ending, 1);
    }
    stand.assert_clean();
}

/// A side that is not read, because the other takes nothing, is still watched.
#[test]
fn a_reset_is_noticed_while_the_other_side_takes_nothing() {
    let stand = Stand::new(false, "");
    for (from_client, ending) in [(true, "client/pipe/reset"), (false, "server/pipe/reset")] {
        let (client, server) = stand.pair();
        let (speaker, hearer) = if from_client { (client, server) } else { (server, client) };
        assert!(l4::stuff(&speaker) > 0);
        l4::reset(speaker);
        l4::wait_ended(&stand.standpipe, ending, 1);
        assert_eq!(l4::outcome(&hearer), Seen::Reset);
    }
    stand.assert_clean();
}
