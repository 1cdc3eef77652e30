//! (room under construction)
pub mod tls;
pub mod transport;
