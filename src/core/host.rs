//! The thread of a core: table, processor, rings and listeners, in the order that makes each of
//! them belong to this thread alone.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use crate::balance::Ledger;
use crate::config::snapshot::{CoreSeed, Report};
use crate::meter::CoreCounters;
use crate::sys::{descriptors, host};

use super::listeners::Listeners;
use super::wire::Wire;
use super::{Core, Mode, Table, drive};

/// Entries of the runtime's ring; only young connections use it.
const RUNTIME_ENTRIES: u32 = 1024;

/// The body of a worker thread: serves until control says stop and everything has ended.
pub fn run(seed: CoreSeed) {
    let index = seed.core;
    let reports = seed.reports.clone();
    let _end = End(Arc::clone(&seed.counters));
    // From here on every descriptor this thread opens is its own.
    let own_table = descriptors::unshare_table().is_ok();
    if let Some(processor) = seed.processor {
        core_affinity::set_for_current(core_affinity::CoreId { id: processor });
    }
    let outcome = start(seed, own_table);
    let last = match outcome {
        Ok(()) => Report::Gone { core: index },
        Err(reason) => Report::Failed { core: index, reason },
    };
    // If control has gone, there is nothing left to tell it to.
    let _ = reports.send(last);
}

/// However the thread ends, by a fault of ours as well: no other core passes it connections.
struct End(Arc<CoreCounters>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.serving.set(0);
    }
}

fn start(seed: CoreSeed, own_table: bool) -> Result<(), String> {
    // Where the table is shared, the next ring to appear in it could be another core's.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let before = descriptors::rings();
    let mut builder = io_uring_06::IoUring::builder();
    builder.setup_coop_taskrun();
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .with_entries(RUNTIME_ENTRIES)
        .uring_builder(builder)
        .build()
        .map_err(|e| format!("cannot build the runtime's io_uring: {e}"))?;
    let ring = descriptors::rings().into_iter().find(|fd| !before.contains(fd));
    let ring = ring.ok_or("cannot find the runtime's io_uring in /proc/thread-self/fd")?;
    let counters = Arc::clone(&seed.counters);
    let wire = Wire::new(Arc::clone(&counters))
        .map_err(|e| format!("cannot build the wire's io_uring: {e}"))?;
    drop(alone);
    let room = host::core_room(host::descriptor_limit(), seed.cores, own_table);
    counters.room.set(room);
    let core = Rc::new(Core {
        index: seed.core,
        counters,
        wire: RefCell::new(wire),
        ledger: RefCell::new(Ledger::new(seed.core, seed.cores)),
        table: RefCell::new(Table::new(Arc::clone(&seed.first), seed.core, &seed.counters)),
        servers: RefCell::default(),
        failed: RefCell::default(),
        listeners: RefCell::new(Listeners::default()),
        readiness: RefCell::default(),
        deadlines: RefCell::default(),
        idle: RefCell::default(),
        handshakes: Default::default(),
        mode: Cell::new(Mode::Serving),
        polls: Cell::new(0),
        stirred: Cell::new(false),
        second: Cell::new(0),
        next_id: Cell::new(seed.core as u64),
        room,
        seed,
    });
    runtime.block_on(async {
        core.begin();
        core.listen()?;
        core.listen_to_cores();
        core.counters.serving.set(1);
        core.report(Report::Ready { core: core.index });
        drive::drive(Rc::clone(&core), ring).await.map_err(|e| format!("io_uring failed: {e}"))
    })
}
