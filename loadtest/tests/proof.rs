//! Loss, duplication, reordering and damage done on purpose are each counted, exactly, and nothing
//! else is.

mod common;

use common::faults::{Fault, Proxy};
use common::{Echo, measure, number};

const CONNECTIONS: usize = 40;

/// What the generator counts when each connection suffers these.
fn counted(websocket: bool, faults: &[Fault]) -> [f64; 4] {
    let scheme = if websocket { "ws" } else { "tcp" };
    let echo = Echo::start(&[&format!("{scheme}://127.0.0.1:0")]);
    // A server's frame of 64 bytes has a header of two.
    let (unit, offset) = if websocket { (66, 2) } else { (64, 0) };
    let proxy = Proxy::start(echo.address().to_owned(), unit, websocket, offset, faults);
    let url = format!("{scheme}://{}", proxy.address);
    let connections = CONNECTIONS.to_string();
    let run = measure(&[
        "run",
        &url,
        "-c",
        &connections,
        "--rate",
        "1600",
        "--size",
        "64",
        "--duration",
        "1500ms",
        "--warmup",
        "100ms",
        "--drain",
        "1s",
        "--lag-bound",
        "1s",
    ]);
    assert_eq!(proxy.done(), CONNECTIONS * faults.len(), "the proxy did its part");
    assert_eq!(number(&run, "/counts/closed_by_peer"), 0.0);
    assert_eq!(number(&run, "/counts/strayed"), 0.0);
    [
        number(&run, "/lost"),
        number(&run, "/counts/duplicated"),
        number(&run, "/counts/reordered"),
        number(&run, "/counts/damaged"),
    ]
}

#[test]
fn nothing_wrong_is_nothing_counted() {
    assert_eq!(counted(false, &[]), [0.0; 4]);
}

#[test]
fn loss_alone() {
    assert_eq!(counted(false, &[Fault::Lose; 3]), [3.0 * CONNECTIONS as f64, 0.0, 0.0, 0.0]);
}

#[test]
fn duplication_alone() {
    assert_eq!(counted(false, &[Fault::Repeat; 2]), [0.0, 2.0 * CONNECTIONS as f64, 0.0, 0.0]);
}

#[test]
fn reordering_alone() {
    assert_eq!(counted(false, &[Fault::Swap; 2]), [0.0, 0.0, 2.0 * CONNECTIONS as f64, 0.0]);
}

#[test]
fn damage_alone_wherever_it_falls() {
    assert_eq!(counted(false, &[Fault::Bend; 2]), [0.0, 0.0, 0.0, 2.0 * CONNECTIONS as f64]);
}

#[test]
fn all_at_once_inside_websocket_frames() {
    let faults = [Fault::Swap, Fault::Lose, Fault::Bend, Fault::Repeat, Fault::Lose];
    let each = CONNECTIONS as f64;
    assert_eq!(counted(true, &faults), [2.0 * each, each, each, each]);
}
