//! Whether the addresses of a plan are ours to listen on, asked before any core is told to. The
//! cores share every address by SO_REUSEPORT, and so the kernel would share it with another
//! standpipe as well: half of the clients would meet that one's configuration.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::plan::{Plan, overlap};
use crate::sys::listen::{self, Sharing, refusal};

/// How long a listener may take to close that left our file a moment ago, or whose process was
/// killed: the kernel takes a ring apart, and with it the accept that holds the listener, after the
/// process has been seen to end.
const CLOSED_WITHIN: Duration = Duration::from_secs(3);

/// How often it is asked again.
const AGAIN: Duration = Duration::from_millis(20);

/// Asks for every address of a plan; nothing of ours listens yet. May take as long as a listener of
/// a process that just ended takes to close.
///
/// # Errors
/// Every address that cannot be had, with cause and cure.
pub fn for_start(plan: &Plan, sharing: Sharing) -> Result<(), String> {
    let binds = plan.listeners.iter().flat_map(|it| it.bind.iter().map(|bind| (&it.name, *bind)));
    let until = Instant::now() + CLOSED_WITHIN;
    let faults = binds.filter_map(|(name, bind)| fault(name, bind, sharing, until));
    let faults: Vec<String> = faults.collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// Asks for the addresses `new` has and `running`, whose cores listen now, has not; may take as
/// long as a listener of our own takes to close. Gives back what is wrong.
pub fn for_reload(new: &Plan, running: &Plan, sharing: Sharing) -> Vec<String> {
    let old: Vec<SocketAddr> = running.listeners.iter().flat_map(|it| it.bind.clone()).collect();
    let until = Instant::now() + CLOSED_WITHIN;
    let mut faults = Vec::new();
    for listener in &new.listeners {
        for bind in listener.bind.iter().filter(|bind| !old.contains(bind)) {
            let beside_our_own = old.iter().any(|other| overlap(*bind, *other));
            let sharing = if beside_our_own { Sharing::WithKin } else { sharing };
            faults.extend(fault(&listener.name, *bind, sharing, until));
        }
    }
    faults
}

/// `until`: how long a port of kin is waited for.
fn fault(name: &str, address: SocketAddr, sharing: Sharing, until: Instant) -> Option<String> {
    let is_kin = || sharing == Sharing::Alone && listen::is_held_by_kin(address);
    while Instant::now() < until && is_kin() {
        thread::sleep(AGAIN);
    }
    let error = listen::probe(address, sharing).err()?;
    if is_kin() {
        return Some(format!(
            "listener {name}: cannot listen on {address}: another standpipe of this user does, and \
             would share its connections with this one; end it first, or start with --share-ports \
             to take over from it (`ss -ltnp 'sport = :{}'` shows it)",
            address.port()
        ));
    }
    Some(refusal(name, address, &error))
}
