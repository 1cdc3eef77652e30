//! A handshake without its socket: bytes in, bytes out, until rustls would let application data
//! flow. rustls is shown one record at a time, so that nothing of ours ends up inside it.

use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{
    ClientConfig, CommonState, Error, ExtractedSecrets, HandshakeKind, ProtocolVersion,
    ServerConfig,
};

use crate::config::certificates::heard::Heard;
use crate::proto::Step;
use crate::proto::record::{self, Fault, HEADER, Keys, PLAIN_MAX, Role, Session, Suite, Version};

use super::{Peer, Secured, Tickets};

/// rustls' side of it, as server or as client.
pub trait Party: Sized {
    type Data;
    const ROLE: Role;

    /// What was negotiated so far.
    fn state(&self) -> &CommonState;

    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Lets go of the connection: what extracted secrets there are, and where tickets go.
    fn graduate(self) -> Result<(ExtractedSecrets, Option<Tickets>), Error>;
}

/// Where a handshake stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Write what came out, then show more of what the peer says.
    Need,
    /// Write what came out, then take the session.
    Done,
}

/// Why a handshake came to nothing.
#[derive(Debug)]
pub enum Failure {
    /// rustls gave up.
    Tls(Error),
    /// What came is no record, or a wrong one.
    Record(Fault),
    /// More bytes than any handshake needs.
    TooLong,
    /// The peer closed in order, before it began.
    Closed,
    /// rustls and this code disagree on what is possible.
    Internal,
}

/// One handshake under way, as a server (towards a client) or as a client (towards a server).
pub struct Shake<P> {
    party: P,
    pub(super) input: Vec<u8>,
    /// Bytes of `input` that rustls has been shown.
    shown: usize,
    /// Bytes that came from the peer in all.
    total: usize,
    pub heard: Heard,
}

impl Shake<UnbufferedServerConnection> {
    pub fn server(config: &Arc<ServerConfig>) -> Result<Self, Failure> {
        UnbufferedServerConnection::new(config.clone()).map(Self::new).map_err(Failure::Tls)
    }
}

impl Shake<UnbufferedClientConnection> {
    pub fn client(config: &Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Failure> {
        UnbufferedClientConnection::new(config.clone(), name).map(Self::new).map_err(Failure::Tls)
    }
}

impl<P: Party> Shake<P> {
    fn new(party: P) -> Self {
        Self { party, input: Vec::new(), shown: 0, total: 0, heard: Heard::default() }
    }

    /// Bytes the peer has sent so far.
    pub fn total(&self) -> usize {
        self.total
    }

    /// What came and was not shown to rustls yet.
    pub fn waiting(&self) -> &[u8] {
        &self.input[self.shown..]
    }

    /// Takes what the peer said.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.total += bytes.len();
        if self.total > HANDSHAKE_BYTES_MAX {
            return Err(Failure::TooLong);
        }
        self.input.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether the first record is here. Nothing in it can be sealed yet, so that it is no longer
    /// than a plaintext may be: 2^14 bytes (RFC 8446 section 5.1).
    pub fn first_is_whole(&self) -> Result<bool, Failure> {
        match record::header(self.waiting()) {
            Step::Done(_, head) if head.length > PLAIN_MAX => {
                Err(Failure::Record(Fault::RecordOverflow))
            }
            _ => self.next_record().map(|length| length.is_some()),
        }
    }

    /// Goes as far as it can. What is to be written is added to `out`, alerts included.
    pub fn advance(&mut self, out: &mut Vec<u8>) -> Result<Progress, Failure> {
        loop {
            match self.step(out)? {
                Some(Progress::Done) if self.shown > 0 => return Err(Failure::Internal),
                Some(Progress::Need) => match self.next_record() {
                    Ok(Some(length)) => self.shown += length,
                    Ok(None) => return Ok(Progress::Need),
                    Err(failure) => {
                        // rustls has the keys to say what is wrong with it.
                        self.shown = self.input.len();
                        let _ = self.step(out);
                        return Err(failure);
                    }
                },
                Some(Progress::Done) => return Ok(Progress::Done),
                None => {}
            }
        }
    }

    /// One state of rustls'. `None`: it has more to do by itself.
    fn step(&mut self, out: &mut Vec<u8>) -> Result<Option<Progress>, Failure> {
        let Self { party, input, shown, heard, .. } = self;
        let status = heard.during(|| party.process(&mut input[..*shown]));
        let discard = status.discard;
        let progress = match status.state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                append(out, |room| data.encode(room))?;
                None
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                None
            }
            Ok(ConnectionState::BlockedHandshake) => Some(Progress::Need),
            Ok(ConnectionState::WriteTraffic(_)) => Some(Progress::Done),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                return Err(Failure::Closed);
            }
            Ok(_) => return Err(Failure::Internal),
            Err(error) => {
                self.input.drain(..discard);
                self.shown -= discard;
                self.last_words(out);
                return Err(Failure::Tls(error));
            }
        };
        self.input.drain(..discard);
        self.shown -= discard;
        // A server may speak before the client has finished; we do not.
        let early = progress == Some(Progress::Done) && self.party.state().is_handshaking();
        Ok(if early { Some(Progress::Need) } else { progress })
    }

    /// After an error: the alert that rustls wants to send. It must be shown the same bytes again
    /// and be asked no oftener than it has something to say, for it would look at them anew.
    fn last_words(&mut self, out: &mut Vec<u8>) {
        while self.party.state().wants_write() {
            match self.party.process(&mut self.input[..self.shown]).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    if append(out, |room| data.encode(room)).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// The length of the next record, if all of it is here.
    fn next_record(&self) -> Result<Option<usize>, Failure> {
        match record::header(self.waiting()) {
            Step::Need => Ok(None),
            Step::Bad(fault) => Err(Failure::Record(fault)),
            Step::Done(_, head) => {
                let length = HEADER + head.length;
                Ok(Some(length).filter(|length| self.waiting().len() >= *length))
            }
        }
    }

    /// The end of a handshake that is [`Progress::Done`].
    pub fn finish(mut self) -> Result<Secured, Failure> {
        let state = self.party.state();
        let version = match state.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Version::Tls13,
            Some(ProtocolVersion::TLSv1_2) => Version::Tls12,
            _ => return Err(Failure::Internal),
        };
        let suite = state.negotiated_cipher_suite().map(|suite| suite.suite());
        let suite = suite.and_then(Suite::of).ok_or(Failure::Internal)?;
        let alpn = state.alpn_protocol().map(<[u8]>::to_vec);
        let resumed = state.handshake_kind() == Some(HandshakeKind::Resumed);
        let peer = state.peer_certificates().and_then(|chain| Peer::of(chain.first()?));
        let (secrets, tickets) = self.party.graduate().map_err(Failure::Tls)?;
        let ((seal_sequence, seal), (open_sequence, open)) = (secrets.tx, secrets.rx);
        let (open, seal) = match (version, P::ROLE) {
            (Version::Tls12, _) => {
                (Keys::extracted(open_sequence, &open), Keys::extracted(seal_sequence, &seal))
            }
            (Version::Tls13, role) => {
                let (ours, theirs) = match role {
                    Role::Server => (&self.heard.server, &self.heard.client),
                    Role::Client => (&self.heard.client, &self.heard.server),
                };
                let open = Keys::tls13(suite, theirs.bytes(), open_sequence);
                (open, Keys::tls13(suite, ours.bytes(), seal_sequence))
            }
        };
        let (Some(open), Some(seal)) = (open, seal) else { return Err(Failure::Internal) };
        Ok(Secured {
            session: Session::new(P::ROLE, open, seal),
            tail: self.input,
            version,
            server_name: self.heard.server_name.take(),
            alpn,
            peer,
            resumed,
            key_log: std::mem::take(&mut self.heard.key_log),
            tickets: tickets.filter(|_| version == Version::Tls13).map(Box::new),
        })
    }
}

/// Lets rustls write into the end of `out`.
fn append(
    out: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), Failure> {
    let start = out.len();
    let written = match encode(&mut []) {
        Ok(written) => written,
        Err(EncodeError::InsufficientSize(short)) => {
            out.resize(start + short.required_size, 0);
            encode(&mut out[start..]).map_err(|_| Failure::Internal)?
        }
        Err(EncodeError::AlreadyEncoded) => return Err(Failure::Internal),
    };
    out.truncate(start + written);
    Ok(())
}

impl Party for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const ROLE: Role = Role::Server;

    fn state(&self) -> &CommonState {
        self
    }

    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }

    fn graduate(self) -> Result<(ExtractedSecrets, Option<Tickets>), Error> {
        self.dangerous_into_kernel_connection().map(|(secrets, _)| (secrets, None))
    }
}

impl Party for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const ROLE: Role = Role::Client;

    fn state(&self) -> &CommonState {
        self
    }

    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }

    fn graduate(self) -> Result<(ExtractedSecrets, Option<Tickets>), Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Some(Tickets(kernel))))
    }
}

/// A long chain and a client's own fit into half of it; one-byte records are given up at it.
pub const HANDSHAKE_BYTES_MAX: usize = 128 << 10;
