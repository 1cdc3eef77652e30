//! How a connection stopped: whose doing it was, how far it had come, and why. Every connection
//! ends with exactly one.

use std::fmt;

/// How and why a connection stopped. Shown as `side/stage/cause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ending {
    pub side: Side,
    pub stage: Stage,
    pub cause: Cause,
}

const _: () = assert!(size_of::<Ending>() <= 4 && size_of::<Option<Ending>>() <= 4);

impl Ending {
    /// How many different ones could be counted: the size of a table indexed by
    /// [`index`](Self::index).
    pub const COUNT: usize = Side::ALL.len() * Stage::ALL.len() * Cause::ALL.len();

    pub const fn new(side: Side, stage: Stage, cause: Cause) -> Self {
        Self { side, stage, cause }
    }

    pub const fn client(stage: Stage, cause: Cause) -> Self {
        Self::new(Side::Client, stage, cause)
    }

    pub const fn server(stage: Stage, cause: Cause) -> Self {
        Self::new(Side::Server, stage, cause)
    }

    pub const fn proxy(stage: Stage, cause: Cause) -> Self {
        Self::new(Side::Proxy, stage, cause)
    }

    /// Its place in a table of [`COUNT`](Self::COUNT) cells.
    pub const fn index(self) -> usize {
        let row = self.side as usize * Stage::ALL.len() + self.stage as usize;
        row * Cause::ALL.len() + self.cause as usize
    }

    pub fn from_index(index: usize) -> Option<Self> {
        let cause = *Cause::ALL.get(index % Cause::ALL.len())?;
        let row = index / Cause::ALL.len();
        let stage = *Stage::ALL.get(row % Stage::ALL.len())?;
        let side = *Side::ALL.get(row / Stage::ALL.len())?;
        Some(Self { side, stage, cause })
    }

    /// Something went wrong, rather than came to its end or was ended by plan.
    pub const fn is_fault(self) -> bool {
        self.cause as u8 > Cause::LAST_CLEAN as u8
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.side.name(), self.stage.name(), self.cause.name())
    }
}

/// Declares an enum whose variants each have a name for logs and metrics and a sentence.
macro_rules! words {
    ($(#[$doc:meta])* $word:ident { $($variant:ident $name:literal $help:literal)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $word {
            $(#[doc = $help] $variant,)+
        }

        impl $word {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for people.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)+ }
            }
        }
    };
}

words! {
    /// Whose doing it was.
    Side {
        Client "client" "The client ended it, or broke a rule."
        Server "server" "The server ended it, or broke a rule."
        Proxy "proxy" "We ended it: by plan, for want of something, or by a mistake of ours."
    }
}

words! {
    /// How far it had come.
    Stage {
        Accept "accept" "Just taken from the listener."
        Front "front" "Waiting for a PROXY header."
        Tls "tls" "In the TLS handshake with the client."
        Head "head" "Reading the request head."
        Route "route" "Looking for the pool."
        Pick "pick" "Choosing a server."
        Dial "dial" "Connecting to a server, its TLS handshake included."
        Upgrade "upgrade" "Waiting for the server's answer to an upgrade."
        Http "http" "Exchanging plain HTTP."
        Pipe "pipe" "Established: bytes or frames flowing both ways."
    }
}

words! {
    /// Why it stopped. The first ones, up to [`Cause::LAST_CLEAN`], are no faults.
    Cause {
        Fin "fin" "Both directions ended in order."
        Closed "closed" "WebSocket closing handshake completed."
        Done "done" "HTTP exchange completed, connection not kept."
        KeepaliveOver "keepalive_over" "No further request within the keep-alive time."
        Quiet "quiet" "Left without having sent a byte."
        Drained "drained" "Ended by a drain."
        ServerDown "server_down" "Its server went down and `on_down` says not to keep it."
        ServerRemoved "server_removed" "Its server left the file; `on_remove` says not to keep it."
        ServerDraining "server_draining" "Its server is being drained."
        Shutdown "shutdown" "The process ended."

        Reset "reset" "Connection reset."
        Cut "cut" "End of stream in the middle of something."
        Timeout "timeout" "Not ready by this stage's deadline."
        Idle "idle" "No byte either way for `timeouts.idle`."
        HalfClose "half_close" "One direction ended, the other not within `timeouts.half_close`."
        Stall "stall" "Took no byte for `timeouts.stall` while some waited."
        UserTimeout "user_timeout" "Sent bytes, or keepalive probes, were not acknowledged in time."
        LingerOver "linger_over" "Did not answer our Close in time."
        SocketError "socket_error" "The kernel reported an error of the connection."

        NoRoom "no_room" "No core had room for it."
        MaxConnections "max_connections" "Over the listener's `max_connections`."
        MaxPerSource "max_per_source" "Over the listener's `max_per_source`."
        NoDescriptors "no_descriptors" "No file descriptor left."
        NoMemory "no_memory" "No memory left."
        Internal "internal" "A mistake of ours."

        ProxyHeaderBad "proxy_header_bad" "Malformed PROXY header."
        ProxyHeaderMissing "proxy_header_missing" "A PROXY header is required and did not come."
        ProxyHeaderVersion "proxy_header_version" "PROXY header of a version not accepted here."
        Untrusted "untrusted" "Peer is not in `trusted`, and a PROXY header is required."

        HandshakeFailed "handshake_failed" "TLS handshake failed."
        HandshakeRate "handshake_rate" "Over `tls.handshakes_per_second`."
        HandshakesInFlight "handshakes_in_flight" "Over `tls.handshakes_in_flight`."
        HelloBad "hello_bad" "Malformed or oversized ClientHello."
        NothingInCommon "nothing_in_common" "No TLS version, suite or ALPN protocol in common."
        UnknownName "unknown_name" "No certificate for the name asked for."
        CertificateMissing "certificate_missing" "A client certificate is required; none came."
        CertificateBad "certificate_bad" "Certificate expired, not trusted, or for another name."
        PlainOnTls "plain_on_tls" "Plain HTTP on a TLS port."
        TlsOnPlain "tls_on_plain" "TLS on a plain port."
        Alert "alert" "Fatal TLS alert received."
        RecordBad "record_bad" "TLS record that does not authenticate."
        RecordTooLarge "record_too_large" "TLS record longer than allowed."
        RecordUnexpected "record_unexpected" "TLS message that has no place here."
        Renegotiation "renegotiation" "TLS renegotiation asked for."
        KeyUpdates "key_updates" "Too many TLS key updates without data."
        KeyLimit "key_limit" "TLS key used as often as is safe; it cannot be renewed."
        HeldTooMuch "held_too_much" "Oldest partial TLS record when this core held too many."
        HeldTooLong "held_too_long" "Partial TLS record not completed in time."

        HeadBad "head_bad" "Malformed HTTP head."
        HeadTooLarge "head_too_large" "HTTP head over its limits."
        FramingBad "framing_bad" "Ambiguous or wrong HTTP message framing."
        BodyBad "body_bad" "Malformed HTTP body or trailer."
        Method "method" "HTTP method not allowed."
        Version "version" "HTTP version not supported."
        UpgradeInvalid "upgrade_invalid" "Malformed WebSocket upgrade request."
        UpgradeVersion "upgrade_version" "WebSocket version other than 13."
        OriginRefused "origin_refused" "Origin not in `origins`."
        EarlyTooMuch "early_too_much" "Too many bytes sent before the upgrade was answered."
        NoRoute "no_route" "No route for host and path."
        PoolEmpty "pool_empty" "No server of the pool is in service."
        PoolFull "pool_full" "Every server of the pool has its `max_connections`."

        Refused "refused" "Connection refused."
        Unreachable "unreachable" "No route to the server's address."
        NoPorts "no_ports" "No local port left to dial from."
        SocketMissing "socket_missing" "No Unix socket at the server's path."
        DialFailed "dial_failed" "Connecting failed otherwise."
        UpgradeRefused "upgrade_refused" "Answered the upgrade with another status than 101."
        UpgradeBad "upgrade_bad" "Answered the upgrade with a 101 that is not valid."
        ResponseUnexpected "response_unexpected" "Bytes from the server that answer nothing."

        FrameBad "frame_bad" "WebSocket frame that breaks RFC 6455 (1002)."
        FrameTooBig "frame_too_big" "WebSocket frame over `max_frame` (1009)."
        MessageTooBig "message_too_big" "WebSocket message over `max_message` (1009)."
        MessageRate "message_rate" "Over `messages_per_second` (1008)."
        PingTimeout "ping_timeout" "No pong within `ping.timeout`."
    }
}

impl Cause {
    pub const LAST_CLEAN: Self = Self::Shutdown;
}

pub(super) use words;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_index_is_one_ending_and_back() {
        let mut shown = HashSet::new();
        for index in 0..Ending::COUNT {
            let ending = Ending::from_index(index).unwrap();
            assert_eq!(ending.index(), index);
            assert!(shown.insert(ending.to_string()), "{ending} stands for two");
        }
        assert_eq!(Ending::from_index(Ending::COUNT), None);
    }

    #[test]
    fn reads_as_side_stage_cause() {
        let ending = Ending::client(Stage::Pipe, Cause::Reset);
        assert_eq!(ending.to_string(), "client/pipe/reset");
        assert!(ending.is_fault());
        assert!(!Ending::proxy(Stage::Pipe, Cause::Drained).is_fault());
        assert!(!Ending::proxy(Stage::Pipe, Cause::Shutdown).is_fault());
    }

    #[test]
    fn names_are_fit_for_labels() {
        let label = |n: &str| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(Cause::ALL.iter().all(|c| label(c.name()) && c.help().ends_with('.')));
        assert!(Stage::ALL.iter().all(|s| label(s.name())));
    }
}
