//! The TLS handshake of a young connection: rustls shakes the hands, one record at a time, and is
//! let go at the first moment application data may flow. What stays is a [`Session`].

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;

use crate::proto::record::{Session, Version};

/// What a handshake leaves behind.
#[derive(Debug)]
pub struct Secured {
    pub session: Session,
    /// Ciphertext that was read and not opened yet, from the beginning of a record on.
    pub tail: Vec<u8>,
    pub version: Version,
    /// The name the client asked for.
    pub server_name: Option<String>,
    pub alpn: Option<Vec<u8>>,
    /// The peer's verified certificate.
    pub peer: Option<Peer>,
    pub resumed: bool,
    /// NSS key-log lines for control, if the listener wants them.
    pub key_log: Vec<String>,
    /// As a client: where NewSessionTickets go.
    tickets: Option<Box<Tickets>>,
}

/// A verified certificate, as configured headers tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The subject's distinguished name.
    pub subject: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
}

/// What rustls needs to make sense of a NewSessionTicket.
pub struct Tickets(KernelConnection<ClientConnectionData>);

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Secured {
    /// Hands a ticket to the session store. A ticket that makes no sense is an offer not taken.
    pub fn keep_ticket(&mut self, body: &[u8]) {
        if let Some(tickets) = &mut self.tickets {
            let _ = tickets.0.handle_new_session_ticket(body);
        }
    }
}
