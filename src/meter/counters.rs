//! What one core counts about itself, a listener and a server. Each struct has one writer and
//! begins on cache lines of its own.

use super::ending::words;
use super::{Count, Ending, Family, Gauge, Mark, Sink};

/// Declares a struct of cells and the way to read them all.
macro_rules! cells {
    ($(#[$doc:meta])* $name:ident {
        $($field:ident: $cell:ident, $family:literal, $help:literal;)*
    }
    more { $($more:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[repr(C, align(128))]
        pub struct $name {
            $(#[doc = $help] pub $field: $cell,)*
            $(pub $more: $kind,)*
        }

        impl $name {
            /// Every value, in an order that never changes.
            pub fn each(&self, f: &mut Sink<'_>) {
                $(
                    static_family!($field, $cell, $family, $help);
                    $field.tell(f, &[], self.$field.get());
                )*
                $(self.$more.each(f);)*
            }

            /// Its writer has died, and with it all that stood in its gauges; its thread must have
            /// ended.
            pub fn bury(&self) {
                $(self.$field.bury();)*
            }
        }
    };
}

/// The family of a plain cell, in a static of the field's own name.
macro_rules! static_family {
    ($field:ident, Count, $family:literal, $help:literal) => {
        #[allow(non_upper_case_globals)]
        static $field: Family = Family::counter($family, $help);
    };
    ($field:ident, Gauge, $family:literal, $help:literal) => {
        #[allow(non_upper_case_globals)]
        static $field: Family = Family::gauge($family, $help);
    };
    ($field:ident, Mark, $family:literal, $help:literal) => {
        #[allow(non_upper_case_globals)]
        static $field: Family = Family::gauge($family, $help);
    };
}

pub(super) use {cells, static_family};

cells! {
    /// One core.
    CoreCounters {
        loads_heard: Mark, "core_loads_version",
            "Version of the last publish of loads this core acts upon.";
        snapshot: Mark, "core_snapshot_version", "Version of the snapshot this core acts upon.";
        serving: Mark, "core_serving", "1 while the core takes connections.";
        room: Mark, "core_connections_max", "Connections the core has descriptors for.";
        accepted: Count, "connections_accepted_total", "Connections taken from listeners.";
        handed_over: Count, "connections_handed_over_total",
            "Connections passed to an emptier core.";
        taken_over: Count, "connections_taken_over_total",
            "Connections received from a fuller core.";
        accept_errors: Count, "accept_errors_total", "Failed accepts.";
        young: Gauge, "connections_young", "Connections before the pipe is established.";
        live: Gauge, "connections_live", "Established pipes in the slab.";
        graduated: Count, "connections_graduated_total", "Pipes established.";
        closing: Gauge, "connections_closing", "Ended pipes with requests still in the kernel.";
        descriptors: Gauge, "descriptors_open", "File descriptors counted against the budget.";
        enobufs: Count, "buffers_exhausted_total",
            "Receives ended because no provided buffer was left.";
        buffers_lent: Gauge, "buffers_lent", "Provided buffers not yet given back.";
        spills: Count, "spills_total", "Times a reader was too slow and bytes were set aside.";
        spilled_bytes: Count, "spilled_bytes_total", "Bytes set aside for slow readers.";
        spill_held: Gauge, "spill_held_bytes", "Bytes set aside now.";
        pipes_lent: Gauge, "pipes_lent", "Kernel pipes lent to bulk directions.";
        pipes_refused: Count, "pipes_refused_total", "Times no kernel pipe was left to lend.";
        turns: Count, "turns_total", "Turns of the wire engine.";
        enters: Count, "ring_enters_total", "Calls of io_uring_enter by the wire engine.";
        submitted: Count, "ring_submitted_total", "Requests submitted to the wire ring.";
        completed: Count, "ring_completed_total", "Completions taken from the wire ring.";
        late: Count, "ring_late_total", "Completions for a connection that was gone already.";
        wakes: Count, "parked_wakes_total", "Parked directions served in place.";
        sweeps: Count, "sweeps_total", "Runs of the slow sweep.";
        cancels: Count, "ring_cancels_total", "Requests cancelled.";
        dials: Count, "dials_total", "Connects attempted.";
        dial_failures: Count, "dial_failures_total", "Connects that failed.";
        dial_retries: Count, "dial_retries_total", "Connects to a further candidate.";
        idle_servers: Gauge, "http_idle_server_connections",
            "Kept HTTP connections to servers without a request.";
        idle_reused: Count, "http_reused_server_connections_total",
            "Requests sent on a kept connection.";
        requests: Count, "http_requests_total", "HTTP requests read.";
        tls_in_flight: Gauge, "tls_handshakes_in_flight", "TLS handshakes under way.";
        tls_full: Count, "tls_handshakes_full_total", "Full TLS handshakes with clients.";
        tls_resumed: Count, "tls_handshakes_resumed_total", "Resumed TLS handshakes with clients.";
        tls_failed: Count, "tls_handshakes_failed_total", "Failed TLS handshakes with clients.";
        tls_server_full: Count, "tls_server_handshakes_full_total",
            "Full TLS handshakes with servers.";
        tls_server_resumed: Count, "tls_server_handshakes_resumed_total",
            "Resumed TLS handshakes with servers.";
        tls_server_failed: Count, "tls_server_handshakes_failed_total",
            "Failed TLS handshakes with servers.";
        records_opened: Count, "tls_records_opened_total", "TLS records opened.";
        records_sealed: Count, "tls_records_sealed_total", "TLS records sealed.";
        key_updates_received: Count, "tls_key_updates_received_total",
            "TLS key updates received.";
        key_updates_sent: Count, "tls_key_updates_sent_total", "TLS key updates sent.";
        records_held: Gauge, "tls_held_bytes", "Bytes of partial TLS records held.";
        pings_sent: Count, "websocket_pings_sent_total", "Pings of our own sent.";
        log_lost: Count, "log_lines_lost_total",
            "Connection lines dropped because control was behind.";
    }
    more {
        bytes: Bytes,
        gears: Gears,
        endings: Endings,
    }
}

cells! {
    /// One listener on one core.
    ListenerCounters {
        accepted: Count, "listener_accepted_total", "Connections taken.";
        refused: Count, "listener_refused_total",
            "Connections closed at once over a limit of the listener.";
        live: Gauge, "listener_connections", "Connections now, from accept to end.";
        bytes_from_clients: Count, "listener_bytes_from_clients_total",
            "Payload bytes received from clients, of HTTP the bodies.";
        bytes_to_clients: Count, "listener_bytes_to_clients_total",
            "Payload bytes handed on to clients, of HTTP the servers' answers with heads.";
        faults: Count, "listener_faults_total", "Connections that ended by a fault.";
    }
    more {}
}

cells! {
    /// One server on one core.
    ServerCounters {
        live: Gauge, "server_connections", "Connections leased now.";
        leased: Count, "server_connections_total", "Connections leased.";
        dial_failures: Count, "server_dial_failures_total", "Connects that failed.";
        bytes_to_server: Count, "server_bytes_to_total",
            "Payload bytes sent to the server, of HTTP what was written whole, with heads.";
        bytes_from_server: Count, "server_bytes_from_total",
            "Payload bytes received from the server, of HTTP with the heads as passed on.";
        resets: Count, "server_resets_total", "Connections the server reset or cut.";
    }
    more {}
}

words! {
    /// Which way bytes go.
    Direction {
        FromClient "from_client" "From the client to the server."
        FromServer "from_server" "From the server to the client."
    }
}

words! {
    /// How a direction is moved.
    Gear {
        Parked "parked" "A poll is armed, nothing is held."
        Flowing "flowing" "A multishot receive into provided buffers."
        Bulk "bulk" "Splice through a lent pipe."
    }
}

words! {
    /// A change of gear.
    Move {
        ParkedFlowing "parked_to_flowing" "Repeated wakes."
        FlowingParked "flowing_to_parked" "Nothing for a sweep."
        FlowingBulk "flowing_to_bulk" "Much in one direction."
        BulkFlowing "bulk_to_flowing" "Less than a pipe is worth."
        ParkedBulk "parked_to_bulk" "Woken to much at once."
        BulkParked "bulk_to_parked" "Silent, or its sink took nothing for a sweep."
    }
}

/// Payload bytes moved, per direction and kind of movement.
#[derive(Debug, Default)]
pub struct Bytes {
    cells: [[Count; Gear::ALL.len()]; Direction::ALL.len()],
}

impl Bytes {
    pub fn add(&self, direction: Direction, gear: Gear, bytes: u64) {
        self.cells[direction as usize][gear as usize].add(bytes);
    }

    pub fn get(&self, direction: Direction) -> u64 {
        self.cells[direction as usize].iter().map(Count::get).sum()
    }

    pub fn each(&self, f: &mut Sink<'_>) {
        static MOVED: Family = Family::counter("bytes_moved_total", "Payload bytes moved.");
        for direction in Direction::ALL {
            for gear in Gear::ALL {
                let labels = [("direction", direction.name()), ("gear", gear.name())];
                MOVED.tell(f, &labels, self.cells[*direction as usize][*gear as usize].get());
            }
        }
    }
}

/// Which gear how many directions are in, and how often they changed.
#[derive(Debug, Default)]
pub struct Gears {
    occupancy: [[Gauge; Gear::ALL.len()]; Direction::ALL.len()],
    moves: [Count; Move::ALL.len()],
}

impl Gears {
    /// A direction begins in a gear.
    pub fn enter(&self, direction: Direction, gear: Gear) {
        self.occupancy[direction as usize][gear as usize].inc();
    }

    /// A direction ends in a gear.
    pub fn leave(&self, direction: Direction, gear: Gear) {
        self.occupancy[direction as usize][gear as usize].dec();
    }

    /// A direction goes from one gear to another.
    pub fn shift(&self, direction: Direction, from: Gear, to: Gear) {
        let change = match (from, to) {
            (Gear::Parked, Gear::Flowing) => Move::ParkedFlowing,
            (Gear::Parked, Gear::Bulk) => Move::ParkedBulk,
            (Gear::Flowing, Gear::Parked) => Move::FlowingParked,
            (Gear::Flowing, Gear::Bulk) => Move::FlowingBulk,
            (Gear::Bulk, Gear::Flowing) => Move::BulkFlowing,
            (Gear::Bulk, Gear::Parked) => Move::BulkParked,
            (Gear::Parked, Gear::Parked)
            | (Gear::Flowing, Gear::Flowing)
            | (Gear::Bulk, Gear::Bulk) => return,
        };
        self.leave(direction, from);
        self.enter(direction, to);
        self.moves[change as usize].inc();
    }

    /// As the cells around it: nothing is in any gear any more.
    pub fn bury(&self) {
        self.occupancy.iter().flatten().for_each(Gauge::bury);
    }

    pub fn occupancy(&self, direction: Direction, gear: Gear) -> u64 {
        self.occupancy[direction as usize][gear as usize].get()
    }

    pub fn moves(&self, change: Move) -> u64 {
        self.moves[change as usize].get()
    }

    pub fn each(&self, f: &mut Sink<'_>) {
        static NOW: Family = Family::gauge("directions", "Directions of pipes in each gear.");
        static MOVES: Family = Family::counter("gear_changes_total", "Changes of gear.");
        for direction in Direction::ALL {
            for gear in Gear::ALL {
                let labels = [("direction", direction.name()), ("gear", gear.name())];
                NOW.tell(f, &labels, self.occupancy(*direction, *gear));
            }
        }
        for change in Move::ALL {
            MOVES.tell(f, &[("change", change.name())], self.moves(*change));
        }
    }
}

/// How connections ended, each counted once.
#[derive(Debug)]
pub struct Endings(Box<[Count]>);

impl Default for Endings {
    fn default() -> Self {
        Self((0..Ending::COUNT).map(|_| Count::default()).collect())
    }
}

impl Endings {
    pub fn count(&self, ending: Ending) {
        self.0[ending.index()].inc();
    }

    pub fn get(&self, ending: Ending) -> u64 {
        self.0[ending.index()].get()
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(Count::get).sum()
    }

    pub fn each(&self, f: &mut Sink<'_>) {
        static ENDED: Family = Family::counter(
            "connections_ended_total",
            "Connections by whose doing ended them, how far they had come, and why.",
        )
        .sparse();
        for (index, count) in self.0.iter().enumerate() {
            let Some(ending) = Ending::from_index(index) else { return };
            let labels = [
                ("side", ending.side.name()),
                ("stage", ending.stage.name()),
                ("cause", ending.cause.name()),
            ];
            ENDED.tell(f, &labels, count.get());
        }
    }
}
