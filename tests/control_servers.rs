//! Servers that leave and come back while the process runs: what becomes of their pipes and of the
//! connections that are still to come.

mod common;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use common::process::{Echo, exchange, is_open, plain};
use common::{Standpipe, address, connect, is_silent, wait_until};

#[test]
fn a_server_that_goes_down_is_left_and_its_pipes_end_if_asked() {
    let (one, mut two) = (Echo::start(), Echo::start());
    let bind = address();
    let config = format!(
        "{}health = {{ every = \"100ms\", timeout = \"500ms\", rise = 2, fall = 2 }}\n\
         on_down = \"close\"\nslow_start = \"30s\"\n",
        plain(bind, &[one.address, two.address])
    );
    let standpipe = Standpipe::start(&config);
    let mut clients: Vec<TcpStream> = (0..4).map(|_| connect(bind)).collect();
    clients.iter_mut().for_each(exchange);
    two.stop_listening();
    let whose = two.address.to_string();
    let state = |state| [("server", whose.as_str()), ("state", state)];
    wait_until("it is down", || standpipe.metric("standpipe_server_state", &state("down")) == 1.0);
    wait_until("its pipes have ended", || {
        standpipe.metric("standpipe_server_connections", &[("server", &whose)]) == 0.0
    });
    for _ in 0..6 {
        exchange(&mut connect(bind));
    }
    assert_eq!(standpipe.metric("standpipe_server_connections_total", &[("server", &whose)]), 2.0);
    two.listen_again();
    wait_until("it is up", || standpipe.metric("standpipe_server_state", &state("up")) == 1.0);
    let share = standpipe.metric("standpipe_server_share", &[("server", &whose)]);
    assert!(share > 0.0 && share < 0.9, "it did not begin slowly: {share}");
}

#[test]
fn a_server_that_recovers_keeps_the_pipes_that_have_not_ended() {
    let mut echo = Echo::start();
    let bind = address();
    let config = format!(
        "{}{QUICK_CHECKS}on_down = \"drain\"\ndrain = {{ window = \"20s\" }}\n",
        plain(bind, &[echo.address])
    );
    let standpipe = Standpipe::start(&config);
    let clients = pipes(&standpipe, bind);
    echo.stop_listening();
    wait_until("some have ended", || live(&standpipe) < 100.0);
    wait_until("it is down", || is_in(&standpipe, "down"));
    echo.listen_again();
    wait_until("it is up", || is_in(&standpipe, "up"));
    still_there(&standpipe, clients, bind);
}

#[test]
fn a_server_that_returns_to_the_file_keeps_the_pipes_that_have_not_ended() {
    let (one, two) = (Echo::start(), Echo::start());
    let bind = address();
    let config = |server: &Echo| {
        let pool = plain(bind, &[server.address]);
        format!("{pool}on_remove = \"drain\"\ndrain = {{ window = \"20s\" }}\n")
    };
    let standpipe = Standpipe::start(&config(&one));
    let clients = pipes(&standpipe, bind);
    standpipe.reload(&config(&two));
    wait_until("some have ended", || live(&standpipe) < 100.0);
    standpipe.reload(&config(&one));
    still_there(&standpipe, clients, bind);
}

#[test]
fn an_empty_pool_closes_the_listener_if_told_to_refuse() {
    let mut echo = Echo::start();
    let bind = address();
    let config = plain(bind, &[echo.address])
        .replace("mode = \"l4\"", "mode = \"l4\"\nwhen_empty = \"refuse\"")
        + "health = { every = \"100ms\", timeout = \"500ms\", rise = 1, fall = 1 }\n";
    let standpipe = Standpipe::start(&config);
    exchange(&mut connect(bind));
    echo.stop_listening();
    wait_until("the port is closed", || TcpStream::connect(bind).is_err());
    assert_eq!(standpipe.metric("standpipe_listener_open", &[]), 0.0);
    echo.listen_again();
    wait_until("the port is open", || TcpStream::connect(bind).is_ok());
    exchange(&mut connect(bind));
}

#[test]
fn who_is_not_checked_any_more_is_not_down() {
    let echo = Echo::start();
    let bind = address();
    let unchecked = plain(bind, &[echo.address]);
    // It echoes what it is asked, which is no answer.
    let health = "health = { every = \"100ms\", rise = 1, fall = 1, http = \"/typo\" }\n";
    let standpipe = Standpipe::start(&format!("{unchecked}{health}"));
    wait_until("it is down", || is_in(&standpipe, "down"));
    standpipe.reload(&unchecked);
    wait_until("it is up", || is_in(&standpipe, "up"));
    exchange(&mut connect(bind));
}

#[test]
fn a_check_we_could_not_make_takes_no_server_down() {
    let echo = Echo::start();
    let bind = address();
    // No address of this machine (RFC 5737), as if every port of one were taken.
    let config = format!(
        "{}health = {{ every = \"100ms\", rise = 1, fall = 1 }}\nsource = [\"192.0.2.1\"]\n",
        plain(bind, &[echo.address])
    );
    let standpipe = Standpipe::start(&config);
    let checks = |result| standpipe.metric("standpipe_health_checks_total", &[("result", result)]);
    wait_until("checks are not made", || checks("unmade") >= 5.0);
    assert_eq!((checks("good"), checks("bad")), (0.0, 0.0));
    assert!(is_in(&standpipe, "up"));
    standpipe.wait_log(&["level=warn", "a check could not be made", "pool=chat"]);
    assert_eq!(standpipe.log().matches("a check could not be made").count(), 1);
}

#[test]
fn refused_connects_eject_a_server_without_any_check() {
    let echo = Echo::start();
    let bind = address();
    let gone = address();
    let config = plain(bind, &[echo.address, gone]).replace("least-connections", "round-robin");
    let standpipe = Standpipe::start(&config);
    for _ in 0..12 {
        exchange(&mut connect(bind));
    }
    let whose = gone.to_string();
    let labels = [("server", whose.as_str()), ("state", "ejected")];
    wait_until("it is ejected", || standpipe.metric("standpipe_server_state", &labels) == 1.0);
    assert_eq!(standpipe.metric("standpipe_server_connections", &[("server", &whose)]), 0.0);
}

// === scenery ===

/// Keys of a pool.
const QUICK_CHECKS: &str = "health = { every = \"100ms\", timeout = \"2s\", rise = 2, fall = 2 }\n";

fn live(standpipe: &Standpipe) -> f64 {
    standpipe.metric("standpipe_connections_live", &[])
}

/// A hundred pipes, each taken by the server: what only waits in its queue would go with it.
fn pipes(standpipe: &Standpipe, bind: SocketAddr) -> Vec<TcpStream> {
    let mut clients: Vec<TcpStream> = (0..100).map(|_| connect(bind)).collect();
    clients.iter_mut().for_each(exchange);
    wait_until("they are pipes", || live(standpipe) == 100.0);
    clients
}

/// Whether the only server is in this state.
fn is_in(standpipe: &Standpipe, state: &str) -> bool {
    standpipe.metric("standpipe_server_state", &[("state", state)]) == 1.0
}

/// Most of these pipes live on, and so does a new one to the same server.
fn still_there(standpipe: &Standpipe, clients: Vec<TcpStream>, bind: SocketAddr) {
    let version = standpipe.metric("standpipe_snapshot_version", &[]);
    wait_until("the core has heard of it", || {
        standpipe.metric("standpipe_core_snapshot_version", &[]) >= version
            && standpipe.metric("standpipe_connections_closing", &[]) == 0.0
    });
    let left = live(standpipe);
    assert!(left > 20.0, "{left} of 100 are left");
    let mut late = connect(bind);
    exchange(&mut late);
    // Half a dozen more would end meanwhile.
    assert!(is_silent(&mut late, Duration::from_millis(1500)));
    exchange(&mut late);
    assert_eq!(live(standpipe), left + 1.0);
    let open = clients.into_iter().map(|mut client| u32::from(is_open(&mut client))).sum::<u32>();
    assert_eq!(f64::from(open), left);
}
