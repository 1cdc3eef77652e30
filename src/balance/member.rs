//! A server as the balancer sees it: an identity, a weight, a state. Never its address.

/// A server's identity, stable by pool name and address for as long as the process lives. Control
/// gives the numbers, small and without gaps, so that tables can be indexed by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u32);

impl ServerId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// `balance = "…"` of a pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Policy {
    RoundRobin,
    LeastConnections,
    RandomTwo,
    /// Consistent hash of the client's address; `bounded` is the factor of its fair share a
    /// server may reach (`None`: however many the keys bring).
    SourceHash {
        bounded: Option<f64>,
    },
}

impl Policy {
    /// The word of the configuration file.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::RandomTwo => "random-two",
            Self::SourceHash { .. } => "source-hash",
        }
    }
}

/// One server of a [`Group`](super::Group).
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    pub id: ServerId,
    /// Its place on the hash ring: [`key_of`](super::key_of) of its name or address. Not the id,
    /// which depends on this process's history: every node of a fleet must agree on the ring.
    pub hash: u64,
    /// As configured; 0 gets no new connections but keeps sticky ones.
    pub weight: u32,
    /// Part of the weight that counts now, 0..=1: slow start.
    pub share: f32,
    pub state: MemberState,
    /// Live connections over all cores as configured; 0: no bound. What one core may use of it is
    /// its quota, told in [`Loads`](super::Loads).
    pub max_connections: u32,
}

impl Member {
    /// A server in full service.
    pub fn new(id: ServerId, hash: u64, weight: u32) -> Self {
        Self { id, hash, weight, share: 1.0, state: MemberState::Up, max_connections: 0 }
    }
}

/// Whether a member may be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberState {
    Up,
    /// Keeps its connections and its sticky clients; picked for no new client.
    Draining,
    /// The active check says it is not there.
    Down,
    /// Connects to it failed repeatedly; left alone for a while, unless nothing better is left.
    Ejected,
}

impl MemberState {
    /// The word used in metrics and on the admin face.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Ejected => "ejected",
        }
    }
}
