//! The sticky cookie: a token that names a server without showing its address.

/// Tokens of one pool, both ways.
#[derive(Debug)]
pub struct Cookie {}
