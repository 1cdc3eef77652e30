//! (room under construction)
pub mod answer;
pub mod body;
pub mod channel;
pub mod head;
pub mod idle;
pub mod tls;
pub mod transport;
