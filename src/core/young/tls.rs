//! The TLS handshake of a young connection: rustls shakes the hands, one record at a time, and is
//! let go at the first moment application data may flow. What stays is a [`Session`].

mod gate;
mod shake;
mod subject;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::Error;
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::certificates::heard::Heard;
use crate::config::certificates::{FromClient, ToServer};
use crate::config::snapshot::Report;
use crate::core::wire::cause_of_session;
use crate::core::{Core, Guard};
use crate::meter::{Cause, Ending, Stage};
use crate::proto::hello::{self, First};
use crate::proto::record::{Alert, Fault, OVERHEAD_MAX, Session, Version};
use crate::sys::socket;

use super::transport::{self, Stream};
pub use gate::Gate;
use shake::{Failure, Party, Progress, Shake};

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
    key_log: Vec<String>,
    /// As a client: where NewSessionTickets go.
    pub tickets: Option<Box<Tickets>>,
}

/// A verified certificate, as configured headers tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The subject's distinguished name, as [`subject::text_of`] writes it.
    pub subject: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// The last second of its validity, since 1970.
    not_after: i64,
}

impl Peer {
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
        let fingerprint = digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let not_after = parsed.validity().not_after.timestamp();
        Some(Self { subject: subject::text_of(parsed.subject()), fingerprint, not_after })
    }

    /// A handshake that is resumed looks at no certificate again; without this a client could
    /// resume from ticket to ticket with one that expired long ago.
    fn has_expired(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_secs()).is_ok_and(|now| now > self.not_after)
    }
}

/// What rustls needs to make sense of a NewSessionTicket.
pub struct Tickets(KernelConnection<ClientConnectionData>);

impl Tickets {
    /// Hands a ticket to the session store. A ticket that makes no sense is an offer not taken.
    pub fn keep(&mut self, body: &[u8]) {
        let _ = self.0.handle_new_session_ticket(body);
    }
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Secured {
    /// Hands a ticket to the session store, as a client.
    pub fn keep_ticket(&mut self, body: &[u8]) {
        if let Some(tickets) = &mut self.tickets {
            tickets.keep(body);
        }
    }
}

/// Shakes hands with a client. `first` was read from it already.
///
/// # Errors
/// How the connection ended. The client was told: by an alert, or, if it speaks plain HTTP, by an
/// answer that says so.
pub async fn from_client(
    core: &Rc<Core>,
    stream: &Stream,
    (listener, tls): (&Arc<str>, &FromClient),
    first: &[u8],
    guard: &Guard,
) -> Result<Box<Secured>, Ending> {
    let outcome = serve(core, stream, (listener, tls), first, guard).await;
    let counters = &core.counters;
    match &outcome {
        Ok(secured) if secured.resumed => counters.tls_resumed.inc(),
        Ok(_) => counters.tls_full.inc(),
        Err(ending) if ending.cause == Cause::Quiet => {}
        Err(_) => counters.tls_failed.inc(),
    }
    outcome
}

async fn serve(
    core: &Rc<Core>,
    stream: &Stream,
    (listener, tls): (&Arc<str>, &FromClient),
    first: &[u8],
    guard: &Guard,
) -> Result<Box<Secured>, Ending> {
    let refuse = |cause| Ending::client(Stage::Tls, cause);
    let mut shake = Shake::server(&tls.server).map_err(|_| refuse(Cause::Internal))?;
    // The line is for those who begin as TLS does: who is silent, or says something else, holds no
    // place in it.
    if let Err(Broken { cause, last_words }) = begin(stream, &mut shake, first, guard).await {
        farewell(stream, guard, &last_words).await;
        return Err(refuse(cause));
    }
    if hello::sniff(shake.waiting()) == Some(First::Http) {
        farewell(stream, guard, PLAIN_HTTP_ANSWER).await;
        return Err(refuse(Cause::PlainOnTls));
    }
    let pass = Gate::enter(core, listener, tls, guard).await;
    let pass = pass.map_err(|cause| Ending::proxy(Stage::Tls, cause))?;
    match exchange(stream, &mut shake, guard).await {
        Ok(()) => {}
        Err(Broken { cause, last_words }) => {
            for line in std::mem::take(&mut shake.heard.key_log) {
                core.report(Report::KeyLog(line));
            }
            drop((shake, pass));
            farewell(stream, guard, &last_words).await;
            return Err(refuse(cause));
        }
    }
    let mut secured = shake.finish().map_err(|_| Ending::proxy(Stage::Tls, Cause::Internal))?;
    for line in secured.key_log.drain(..) {
        core.report(Report::KeyLog(line));
    }
    if secured.resumed && secured.peer.as_ref().is_some_and(Peer::has_expired) {
        drop(pass);
        let mut record = [0; 2 * OVERHEAD_MAX];
        let told = secured.session.close(Alert::CERTIFICATE_EXPIRED, &mut record);
        farewell(stream, guard, &record[..told.unwrap_or(0)]).await;
        return Err(refuse(Cause::CertificateBad));
    }
    Ok(Box::new(secured))
}

/// Shakes hands with the pool's server number `member`.
///
/// # Errors
/// Why it came to nothing: a cause of the stage [`Stage::Dial`].
pub async fn to_server(
    core: &Rc<Core>,
    stream: &Stream,
    tls: &ToServer,
    member: usize,
    guard: &Guard,
) -> Result<Box<Secured>, Cause> {
    let name = tls.names.get(member).ok_or(Cause::Internal)?.clone();
    let mut shake = Shake::client(&tls.client, name).map_err(|_| Cause::Internal)?;
    let outcome = match exchange(stream, &mut shake, guard).await {
        Ok(()) => shake.finish().map_err(|_| Cause::Internal),
        Err(Broken { cause, last_words }) => {
            let _ = stream.write_all(&last_words).await;
            Err(cause)
        }
    };
    let counters = &core.counters;
    match &outcome {
        Ok(secured) if secured.resumed => counters.tls_server_resumed.inc(),
        Ok(_) => counters.tls_server_full.inc(),
        Err(_) => counters.tls_server_failed.inc(),
    }
    outcome.map(Box::new)
}

/// A handshake that broke, and what the peer is to be told.
struct Broken {
    cause: Cause,
    last_words: Vec<u8>,
}

impl Broken {
    /// `spoken`: we have sent something before; `out`: what rustls has to say about it.
    fn of(failure: &Failure, heard: &Heard, spoken: bool, out: Vec<u8>) -> Self {
        let cause = cause_of(failure, heard, spoken);
        Self { cause, last_words: alert(cause, failure, out) }
    }

    /// A handshake that broke before anything was said.
    fn unspoken(failure: &Failure) -> Self {
        Self::of(failure, &Heard::default(), false, Vec::new())
    }

    /// There is nothing to tell, or nobody to be told.
    fn silent(cause: Cause) -> Self {
        Self { cause, last_words: Vec::new() }
    }
}

/// Hears how a client begins, until [`opening`] knows. `first` was read from it already.
async fn begin<P: Party>(
    stream: &Stream,
    shake: &mut Shake<P>,
    first: &[u8],
    guard: &Guard,
) -> Result<(), Broken> {
    shake.take(first).map_err(|failure| Broken::unspoken(&failure))?;
    while !opening(shake).map_err(|failure| Broken::unspoken(&failure))? {
        hear(stream, shake, guard, false).await?;
    }
    Ok(())
}

/// Says and hears until the handshake is done.
async fn exchange<P: Party>(
    stream: &Stream,
    shake: &mut Shake<P>,
    guard: &Guard,
) -> Result<(), Broken> {
    let mut spoken = false;
    loop {
        let mut out = Vec::new();
        let progress = match shake.advance(&mut out) {
            Ok(progress) => progress,
            Err(failure) => return Err(Broken::of(&failure, &shake.heard, spoken, out)),
        };
        if !out.is_empty() {
            spoken = true;
            let sent = stream.write_all(&out).await;
            sent.map_err(|error| Broken::silent(passed_or(guard, transport::cause(&error))))?;
        }
        match progress {
            Progress::Done => return Ok(()),
            Progress::Need => hear(stream, shake, guard, spoken).await?,
        }
    }
}

/// Whether enough has come to begin with: a whole handshake record, or plain HTTP.
///
/// # Errors
/// What came can never be either: a record of another kind or none at all, which is unexpected, or
/// one that is too long (RFC 8446 sections 5 and 5.1).
fn opening<P: Party>(shake: &Shake<P>) -> Result<bool, Failure> {
    match hello::sniff(shake.waiting()) {
        None => Ok(false),
        Some(First::Tls) => shake.first_is_whole(),
        Some(First::Http) => Ok(true),
        Some(First::Other) => Err(Failure::Record(Fault::UnexpectedMessage)),
    }
}

/// Reads more of what the peer says. `spoken`: we have sent something before.
async fn hear<P: Party>(
    stream: &Stream,
    shake: &mut Shake<P>,
    guard: &Guard,
    spoken: bool,
) -> Result<(), Broken> {
    let mut bytes = Vec::new();
    let cause = match stream.read(&mut bytes, READ_BYTES).await {
        Ok(0) if guard.has_passed() => Cause::Timeout,
        Ok(0) if shake.total() == 0 => Cause::Quiet,
        Ok(0) => Cause::Cut,
        Ok(_) => {
            let taken = shake.take(&bytes);
            return taken.map_err(|failure| Broken::of(&failure, &shake.heard, spoken, Vec::new()));
        }
        Err(error) => passed_or(guard, transport::cause(&error)),
    };
    Err(Broken::silent(cause))
}

fn passed_or(guard: &Guard, cause: Cause) -> Cause {
    if guard.has_passed() { Cause::Timeout } else { cause }
}

/// Tells the peer, and waits a little for it to hear: closing on bytes that were not read would
/// reset the connection and take the last words with it.
async fn farewell(stream: &Stream, guard: &Guard, last_words: &[u8]) {
    if last_words.is_empty() || stream.write_all(last_words).await.is_err() {
        return;
    }
    socket::finish(stream.fd());
    guard.extend(LINGER);
    let (mut bytes, mut total) = (Vec::new(), 0);
    while total < LINGER_BYTES_MAX {
        bytes.clear();
        match stream.read(&mut bytes, READ_BYTES).await {
            Ok(got @ 1..) => total += got,
            _ => return,
        }
    }
}

/// The alert to send. rustls has no words of its own for a name that is not ours.
fn alert(cause: Cause, failure: &Failure, out: Vec<u8>) -> Vec<u8> {
    let fatal = |description: u8| vec![21, 3, 3, 0, 2, 2, description];
    match (cause, failure) {
        (Cause::UnknownName, _) => fatal(UNRECOGNIZED_NAME),
        (Cause::NothingInCommon, Failure::Tls(Error::General(_))) => fatal(HANDSHAKE_FAILURE),
        (_, Failure::Record(fault)) => match fault.alert() {
            // In the clear only: under handshake keys rustls alone could say it.
            Some(alert) if out.is_empty() => fatal(alert.0),
            _ => out,
        },
        (Cause::HelloBad, _) if out.is_empty() => fatal(Alert::DECODE_ERROR.0),
        _ => out,
    }
}

fn cause_of(failure: &Failure, heard: &Heard, spoken: bool) -> Cause {
    match failure {
        Failure::Tls(error) => match error {
            Error::General(_) if heard.unknown_name => Cause::UnknownName,
            Error::General(_) if heard.no_certificate => Cause::NothingInCommon,
            Error::NoCertificatesPresented => Cause::CertificateMissing,
            Error::InvalidCertificate(_) => Cause::CertificateBad,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Cause::NothingInCommon,
            Error::AlertReceived(_) => Cause::Alert,
            Error::DecryptError => Cause::RecordBad,
            Error::PeerSentOversizedRecord => Cause::RecordTooLarge,
            Error::InvalidMessage(_) if !spoken => Cause::HelloBad,
            _ => Cause::HandshakeFailed,
        },
        Failure::Record(_) if !spoken => Cause::HelloBad,
        Failure::Record(fault) => cause_of_session(*fault),
        Failure::TooLong if !spoken => Cause::HelloBad,
        // (Of which nothing can be told: rustls alone has the keys, and sees nothing wrong.)
        Failure::TooLong => Cause::HandshakeFailed,
        Failure::Closed => Cause::Alert,
        Failure::Internal => Cause::Internal,
    }
}

/// What a browser shows that was pointed at the TLS port with `http://`.
const PLAIN_HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
Content-Type: text/plain; charset=utf-8\r\nContent-Length: 52\r\nConnection: close\r\n\r\n\
This port speaks TLS: use https:// or wss:// here.\r\n";

const READ_BYTES: usize = 4 << 10;
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 << 10;
const UNRECOGNIZED_NAME: u8 = 112;
const HANDSHAKE_FAILURE: u8 = 40;
