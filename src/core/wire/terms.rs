//! What the pipes of one route under one plan share: limits, pinging, and the counters of this
//! core. A living pipe keeps its terms until it ends, whatever the file says later.

use std::sync::Arc;
use std::time::Duration;

use crate::config::plan::{Ping, RelayUnit, Rule};
use crate::meter::{CloseCodes, CoreCounters, Direction, Opcode as Kind, RouteCounters, Side};
use crate::proto::frame::{End, Opcode};
use crate::proto::tunnel::FrameLimits;

/// One route's limits, its pinging and this core's counters of it, shared by all its connections.
#[derive(Debug)]
pub struct Terms {
    pub label: Arc<str>,
    pub max_frame: u64,
    pub max_message: u64,
    pub messages_per_second: u32,
    pub relay: RelayUnit,
    ping: Option<Ping>,
    pub route: Arc<RouteCounters>,
    core: Arc<CoreCounters>,
}

impl Terms {
    pub fn new(
        rule: &Rule,
        ping: Option<Ping>,
        route: Arc<RouteCounters>,
        core: Arc<CoreCounters>,
    ) -> Self {
        Self {
            label: rule.label.clone(),
            max_frame: rule.max_frame,
            max_message: rule.max_message,
            messages_per_second: rule.messages_per_second,
            relay: rule.relay,
            ping,
            route,
            core,
        }
    }

    /// Bounds of frames from an end. The server is trusted with its own sizes.
    pub fn limits(&self, from: End) -> FrameLimits {
        match from {
            End::Client => FrameLimits {
                max_frame: self.max_frame,
                max_message: self.max_message,
                ..FrameLimits::default()
            },
            End::Server => FrameLimits::default(),
        }
    }

    /// Whether this end is pinged.
    pub fn pings(&self, end: End) -> bool {
        self.ping.is_some_and(|ping| end == End::Client || ping.server)
    }

    /// Milliseconds between two Pings before jitter; 0 when there are none.
    pub fn ping_every(&self) -> u32 {
        self.ping.map_or(0, |ping| millis(ping.every))
    }

    /// Milliseconds a Ping waits for its Pong.
    pub fn ping_timeout(&self) -> u32 {
        self.ping.map_or(0, |ping| millis(ping.timeout))
    }

    /// When the next Ping is due after a sign of life: the interval, a fifth more or less, so that
    /// sockets opened together are not pinged together for ever.
    pub fn next_ping(&self, heard: u32, random: u64) -> u32 {
        let every = u64::from(self.ping_every());
        let jittered = every * 4 / 5 + random % (every * 2 / 5 + 1);
        heard.wrapping_add(jittered as u32)
    }

    /// A WebSocket was established.
    pub fn began(&self) {
        self.route.live.inc();
    }

    /// A WebSocket is over. Where frames were followed and no end sent a Close, that is counted;
    /// which side caused it is told by the ending.
    pub fn ended(&self, age: Duration, followed: bool, closed_by: Option<(Side, Option<u16>)>) {
        self.route.live.dec();
        self.route.age.0.record(age);
        if followed && closed_by.is_none() {
            self.route.closes.count(Side::Proxy, CloseCodes::ABNORMAL);
        }
    }

    pub fn count_frame(&self, from: End, opcode: Opcode) {
        self.route.frames.add(direction(from), kind(opcode), 1, 0);
    }

    pub fn count_payload(&self, from: End, opcode: Opcode, bytes: u64) {
        self.route.frames.add(direction(from), kind(opcode), 0, bytes);
    }

    pub fn count_close(&self, who: Side, code: Option<u16>) {
        self.route.closes.count(who, code);
    }

    pub fn count_ping(&self) {
        self.core.pings_sent.inc();
    }

    pub fn count_pong(&self, microseconds: u32) {
        self.route.ping_rtt.0.record(Duration::from_micros(microseconds.into()));
    }
}

fn millis(duration: Duration) -> u32 {
    // Half the range at most: times are compared on a clock that wraps.
    duration.as_millis().clamp(1, 1 << 30) as u32
}

fn direction(from: End) -> Direction {
    match from {
        End::Client => Direction::FromClient,
        End::Server => Direction::FromServer,
    }
}

fn kind(opcode: Opcode) -> Kind {
    match opcode {
        Opcode::Continuation => Kind::Continuation,
        Opcode::Text => Kind::Text,
        Opcode::Binary => Kind::Binary,
        Opcode::Close => Kind::Close,
        Opcode::Ping => Kind::Ping,
        Opcode::Pong => Kind::Pong,
    }
}
