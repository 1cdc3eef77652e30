//! A small closed loop: a few hundred clients that each say something, wait for the echo, rest and
//! say the next thing. It shows the proxy at work; how fast it can be is for the load generator.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::proto::frame::{End, Opcode};
use crate::proto::http::{HeadLimits, fields, parse_response};
use crate::proto::upgrade;

use super::echo::WHO;
use super::scene::{Ports, server_called};
use super::socket::{Said, Socket, Stream};
use super::tally::Tally;

/// A group of clients that do the same.
#[derive(Debug)]
pub struct Lane {
    pub listener: &'static str,
    pub scheme: &'static str,
    /// Empty for raw bytes.
    pub path: &'static str,
    /// Where they ought to arrive.
    pub pool: &'static str,
    pub clients: usize,
}

pub const LANES: [Lane; 5] = [
    Lane { listener: "edge", scheme: "tcp", path: "", pool: "chat", clients: 120 },
    Lane { listener: "web", scheme: "ws", path: "/chat", pool: "chat", clients: 60 },
    Lane { listener: "web", scheme: "ws", path: "/live", pool: "live", clients: 60 },
    Lane { listener: "secure", scheme: "wss", path: "/chat", pool: "chat", clients: 60 },
    Lane { listener: "secure", scheme: "wss", path: "/live", pool: "live", clients: 60 },
];

impl Lane {
    pub fn address(&self, ports: &Ports) -> SocketAddr {
        match self.listener {
            "edge" => ports.edge,
            "web" => ports.web,
            _ => ports.secure,
        }
    }
}

/// Bytes of one message.
pub const MESSAGE_BYTES: usize = 128;

/// A client rests as long as this on average between an echo and its next message.
pub const REST: Duration = Duration::from_millis(100);

/// How long anything a client waits for may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a WebSocket lasts, in milliseconds, before its client leaves and comes back.
const LIFE_MS: std::ops::Range<u64> = 1_000..9_000;

/// The first ones leave sooner, so that there is something to see from the start.
const FIRST_LIFE_MS: std::ops::Range<u64> = 300..9_000;

/// Clients arrive over so many milliseconds.
const ARRIVAL_MS: u64 = 800;

/// Connections that only stand there, half of them raw and half of them WebSockets.
pub const CROWD: usize = 1_000;

/// How many of them arrive at a time.
const CROWD_DOORS: usize = 20;

/// How far a demonstration has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Clients talk.
    Talk,
    /// A silent crowd comes as well.
    Crowd,
    /// Everybody leaves.
    Leave,
}

/// Everything a client needs to know.
#[derive(Clone)]
pub struct Town {
    pub ports: Ports,
    pub tally: Tally,
    pub tls: TlsConnector,
    pub act: watch::Receiver<Act>,
}

/// What trusts the demonstration's own certificate, and nothing else.
///
/// # Errors
/// That rustls does not take it.
pub fn connector(certificate: &[u8]) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.to_vec().into()).map_err(|e| format!("the certificate: {e}"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Lets every client live until it is time to leave.
pub async fn drive(town: Town) {
    let mut clients = Vec::new();
    for (lane, it) in LANES.iter().enumerate() {
        for _ in 0..it.clients {
            clients.push(tokio::spawn(client(town.clone(), lane)));
        }
    }
    for door in 0..CROWD_DOORS {
        clients.push(tokio::spawn(crowd(town.clone(), door)));
    }
    for client in clients {
        // One that panicked has said so.
        let _ = client.await;
    }
}

/// What a client carries from one visit to the next.
#[derive(Default)]
struct Memory {
    cookie: Option<String>,
    server: Option<usize>,
}

async fn client(mut town: Town, lane: usize) {
    let mut memory = Memory::default();
    town.rest(Duration::from_millis(fastrand::u64(0..ARRIVAL_MS))).await;
    let mut life = FIRST_LIFE_MS;
    while !town.is_ending() {
        let until = Instant::now() + Duration::from_millis(fastrand::u64(life));
        if let Err(error) = visit(&mut town, lane, &mut memory, until).await
            && !town.is_ending()
        {
            let it = &LANES[lane];
            town.tally.fault(format!("{} {}{}: {error}", it.listener, it.scheme, it.path));
            town.rest(Duration::from_millis(500)).await;
        }
        life = LIFE_MS;
    }
}

/// One connection, from its beginning to its end.
async fn visit(
    town: &mut Town,
    lane: usize,
    memory: &mut Memory,
    until: Instant,
) -> io::Result<()> {
    let stream = connect(town, lane).await?;
    match LANES[lane].scheme {
        "tcp" => raw(town, lane, stream).await,
        "ws" => websocket(town, lane, stream, memory, until).await,
        _ => {
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            let stream = patiently(town.tls.connect(name, stream)).await?;
            websocket(town, lane, stream, memory, until).await
        }
    }
}

/// Bytes in, bytes out, for as long as the demonstration goes on.
async fn raw(town: &mut Town, lane: usize, mut stream: TcpStream) -> io::Result<()> {
    let server = patiently(ask(&mut stream)).await?;
    town.tally.arrived(lane, server, None);
    let mut heard = [0; MESSAGE_BYTES];
    while !town.is_ending() {
        let said = message();
        let begun = Instant::now();
        patiently(async {
            stream.write_all(&said).await?;
            stream.read_exact(&mut heard).await
        })
        .await?;
        town.echoed(lane, server, begun, heard == said)?;
        town.rest(some(REST)).await;
    }
    stream.shutdown().await?;
    // The server's end comes through as well: nothing was cut.
    patiently(stream.read(&mut heard)).await.map(|_| ())
}

/// A WebSocket until its time is over; the cookie it was given goes along to the next one.
async fn websocket<S: AsyncRead + AsyncWrite + Unpin>(
    town: &mut Town,
    lane: usize,
    stream: S,
    memory: &mut Memory,
    until: Instant,
) -> io::Result<()> {
    let before = memory.cookie.as_ref().and(memory.server);
    let mut socket = patiently(open(stream, lane, town, memory)).await?;
    let server = match patiently(socket.next()).await? {
        Said::Message(Opcode::Text, name) => known(&name)?,
        _ => return Err(io::Error::other("no greeting")),
    };
    town.tally.arrived(lane, server, before);
    memory.server = Some(server);
    while !town.is_ending() && Instant::now() < until {
        let said = message();
        let begun = Instant::now();
        let heard = patiently(async {
            socket.send(Opcode::Binary, &said).await?;
            socket.next().await
        })
        .await?;
        let Said::Message(Opcode::Binary, heard) = heard else {
            return Err(io::Error::other(format!("instead of an echo: {heard:?}")));
        };
        town.echoed(lane, server, begun, heard == said)?;
        town.rest(some(REST)).await;
    }
    patiently(socket.close()).await
}

/// The handshake. A cookie that is offered is kept.
async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    lane: usize,
    town: &Town,
    memory: &mut Memory,
) -> io::Result<Socket<S>> {
    let it = &LANES[lane];
    let key = upgrade::make_key(fastrand::u128(..).to_ne_bytes());
    let host = it.address(&town.ports).to_string();
    let cookie = memory.cookie.as_ref().map(|cookie| format!("Cookie: {cookie}"));
    let more: Vec<&str> = cookie.as_deref().into_iter().collect();
    let mut request = Vec::new();
    upgrade::write_request(&mut request, &host, it.path, &key, &more);
    let mut stream = Stream::new(stream);
    stream.io.write_all(&request).await?;
    stream.io.flush().await?;
    let bytes = stream.head().await?;
    let head = parse_response(&bytes, &HeadLimits::default(), false).map_err(io::Error::other)?;
    let is_ours = head.value("sec-websocket-accept") == Some(&upgrade::accept_key(&key));
    if head.status != 101 || !is_ours {
        return Err(io::Error::other(format!("no WebSocket but status {}", head.status)));
    }
    let given = fields::values(&head.fields, "set-cookie").next();
    if let Some(pair) = given.and_then(|value| value.split(|byte| *byte == b';').next()) {
        memory.cookie = Some(String::from_utf8_lossy(pair).into_owned());
    }
    Ok(Socket::new(stream, End::Client))
}

/// Part of the crowd: connections that have said one thing and then stay silent to the end.
async fn crowd(mut town: Town, door: usize) {
    town.until(Act::Crowd).await;
    let (mut raw, mut sockets) = (Vec::new(), Vec::new());
    for _ in 0..CROWD / CROWD_DOORS {
        if town.is_ending() {
            break;
        }
        // The first lane is raw and the third is a WebSocket to another pool.
        let outcome = match door % 2 {
            0 => raw_arrival(&town, 0).await.map(|stream| raw.push(stream)),
            _ => socket_arrival(&town, 2).await.map(|socket| sockets.push(socket)),
        };
        match outcome {
            Ok(()) => town.tally.joined(),
            Err(error) => town.tally.fault(format!("crowd: {error}")),
        }
    }
    town.until(Act::Leave).await;
    for mut socket in sockets {
        // A server that does not answer a farewell is no fault of the crowd's.
        let _ = patiently(socket.close()).await;
    }
}

async fn raw_arrival(town: &Town, lane: usize) -> io::Result<TcpStream> {
    let mut stream = connect(town, lane).await?;
    patiently(ask(&mut stream)).await?;
    Ok(stream)
}

async fn socket_arrival(town: &Town, lane: usize) -> io::Result<Socket<TcpStream>> {
    let stream = connect(town, lane).await?;
    let mut memory = Memory::default();
    let mut socket = patiently(open(stream, lane, town, &mut memory)).await?;
    patiently(socket.next()).await?;
    Ok(socket)
}

async fn connect(town: &Town, lane: usize) -> io::Result<TcpStream> {
    let stream = patiently(TcpStream::connect(LANES[lane].address(&town.ports))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The name of the server at the other end.
async fn ask(stream: &mut TcpStream) -> io::Result<usize> {
    stream.write_all(WHO).await?;
    let mut name = Vec::new();
    while name.last() != Some(&b'\n') {
        name.push(stream.read_u8().await?);
    }
    known(&name)
}

impl Town {
    fn is_ending(&self) -> bool {
        *self.act.borrow() == Act::Leave
    }

    /// Waits, but no longer than until it is time to leave.
    async fn rest(&mut self, time: Duration) {
        let _ = timeout(time, self.until(Act::Leave)).await;
    }

    async fn until(&mut self, act: Act) {
        // An error means that the sender of acts has gone: then it is time to leave, too.
        let _ = self.act.wait_for(|now| *now >= act).await;
    }

    fn echoed(&self, lane: usize, server: usize, begun: Instant, same: bool) -> io::Result<()> {
        if !same {
            return Err(io::Error::other("the echo is not what was said"));
        }
        self.tally.round(lane, server, 2 * MESSAGE_BYTES, begun.elapsed());
        Ok(())
    }
}

fn known(name: &[u8]) -> io::Result<usize> {
    server_called(name).ok_or_else(|| io::Error::other("no server of ours has answered"))
}

fn message() -> [u8; MESSAGE_BYTES] {
    std::array::from_fn(|_| fastrand::u8(..))
}

/// From a half to one and a half of `mean`, so that clients do not march in step.
fn some(mean: Duration) -> Duration {
    mean.mul_f64(0.5 + fastrand::f64())
}

async fn patiently<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, work).await?
}
