//! Which pages may open a WebSocket: the `Origin` allow-list.

/// A route's allow-list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {}
