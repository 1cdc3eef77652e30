//! Scripted peers of bytes: clients and servers that speak and hear seeded traffic over TCP or Unix
//! sockets and can tell an end from a reset. What ought to come of it, the tests say.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use aws_lc_rs::digest;
use socket2::{Domain, Socket, Type};

use super::{PATIENCE, Standpipe};

/// Bytes of a receive buffer that is soon full.
const NARROW: usize = 4 << 10;

/// A config of one L4 listener and one pool. `listener` and `pool` are more keys of theirs, one a
/// line; `rest` follows.
pub fn config(
    edge: SocketAddr,
    servers: &[&str],
    listener: &str,
    pool: &str,
    rest: &str,
) -> String {
    format!(
        "[listeners.edge]\nbind = [\"{edge}\"]\nmode = \"l4\"\npool = \"pool\"\n{listener}\n\n\
         [pools.pool]\nservers = {servers:?}\n{pool}\n\n{rest}\n"
    )
}

/// The same under a `[runtime]` with so many workers.
pub fn with_workers(workers: u32, config: &str) -> String {
    format!("[runtime]\nworkers = {workers}\nadmin = \"{{admin}}\"\n\n{config}")
}

/// How many connections ended as `side/stage/cause`.
pub fn ended(standpipe: &Standpipe, ending: &str) -> usize {
    let mut parts = ending.split('/');
    let mut part = || parts.next().expect("side/stage/cause");
    let labels = [("side", part()), ("stage", part()), ("cause", part())];
    standpipe.metric("standpipe_connections_ended_total", &labels) as usize
}

/// Every ending counted so far, for messages.
pub fn endings(standpipe: &Standpipe) -> String {
    let text = standpipe.metrics();
    let lines = text.lines().filter(|line| line.starts_with("standpipe_connections_ended_total"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Waits until so many connections ended as `side/stage/cause`.
pub fn wait_ended(standpipe: &Standpipe, ending: &str, count: usize) {
    let begun = std::time::Instant::now();
    while ended(standpipe, ending) < count {
        let seen = || endings(standpipe);
        assert!(begun.elapsed() < PATIENCE, "waited for {count} of {ending}:\n{}", seen());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ended(standpipe, ending), count, "{}", endings(standpipe));
}

/// A server that takes connections and leaves them to the test.
pub struct Accepting {
    /// As a config names it.
    pub written: String,
    arrivals: Receiver<Socket>,
}

impl Accepting {
    pub fn tcp() -> Accepting {
        Accepting::tcp_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// One whose kernel takes little that nobody reads.
    pub fn narrow() -> Accepting {
        Accepting::tcp_at_with(SocketAddr::from(([127, 0, 0, 1], 0)), true)
    }

    pub fn tcp_at(address: SocketAddr) -> Accepting {
        Accepting::tcp_at_with(address, false)
    }

    fn tcp_at_with(address: SocketAddr, narrow: bool) -> Accepting {
        let listener = super::listen(address);
        if narrow {
            let socket = socket2::SockRef::from(&listener);
            socket.set_recv_buffer_size(NARROW).expect("a small buffer");
        }
        let written = listener.local_addr().expect("its address").to_string();
        let (to_test, arrivals) = channel();
        std::thread::spawn(move || {
            pass_on(&to_test, || listener.accept().map(|(stream, _)| Socket::from(stream)));
        });
        Accepting { written, arrivals }
    }

    pub fn unix(folder: &Path) -> Accepting {
        let path = folder.join("server.sock");
        let listener = UnixListener::bind(&path).expect("a socket path");
        let (to_test, arrivals) = channel();
        std::thread::spawn(move || {
            pass_on(&to_test, || listener.accept().map(|(stream, _)| Socket::from(stream)));
        });
        Accepting { written: format!("unix:{}", path.display()), arrivals }
    }

    /// The next connection, in the order they came.
    pub fn next(&self) -> Socket {
        self.arrivals.recv_timeout(PATIENCE).expect("a connection at the server")
    }

    /// The next connection, if one comes in time.
    pub fn next_within(&self, span: Duration) -> Option<Socket> {
        self.arrivals.recv_timeout(span).ok()
    }
}

/// Accepts until the test has gone.
fn pass_on(to_test: &Sender<Socket>, mut accept: impl FnMut() -> std::io::Result<Socket>) {
    while let Ok(socket) = accept() {
        patient(&socket);
        if to_test.send(socket).is_err() {
            return;
        }
    }
}

fn patient(socket: &Socket) {
    socket.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
    socket.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
    // A Unix socket has no such option.
    let _ = socket.set_tcp_nodelay(true);
}

/// A server that sends back what it hears, and ends when its client has; its address.
pub fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || echo_on(&listener));
    address
}

/// Echoes on every connection of a listener, for ever.
pub fn echo_on(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        let _ = stream.set_nodelay(true);
        std::thread::spawn(move || {
            let mut stream = stream;
            let mut chunk = vec![0; 64 << 10];
            while let Ok(n @ 1..) = stream.read(&mut chunk) {
                if stream.write_all(&chunk[..n]).is_err() {
                    return;
                }
            }
        });
    }
}

/// A connected client.
pub fn reach(to: SocketAddr) -> Socket {
    try_reach(to, None).expect("a connection")
}

/// A connected client whose kernel takes little that nobody reads.
pub fn reach_narrow(to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(NARROW).expect("a small buffer");
    socket.connect_timeout(&to.into(), PATIENCE).expect("a connection");
    patient(&socket);
    socket
}

/// A client with a source address of the test's choice.
pub fn try_reach(to: SocketAddr, source: Option<IpAddr>) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&to.into(), PATIENCE)?;
    patient(&socket);
    Ok(socket)
}

/// Says that nothing more will come.
pub fn finish(socket: &Socket) {
    socket.shutdown(Shutdown::Write).expect("an open socket");
}

/// Drops the connection with RST (a Unix socket just closes).
pub fn reset(socket: Socket) {
    let _ = socket.set_linger(Some(Duration::ZERO));
    drop(socket);
}

/// Sends and gets the same back, which proves the whole way there and back.
pub fn ask(mut socket: &Socket, word: &[u8]) {
    socket.write_all(word).expect("the word is taken");
    assert_eq!(get(socket, word.len()), word);
}

/// Exactly so many bytes.
pub fn get(mut socket: &Socket, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    socket.read_exact(&mut bytes).unwrap_or_else(|e| panic!("{length} bytes wanted: {e}"));
    bytes
}

/// How hearing came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    End,
    Reset,
}

/// Hears until the end, whatever it is; nothing is kept.
pub fn outcome(mut socket: &Socket) -> Seen {
    let mut chunk = vec![0; 64 << 10];
    loop {
        match socket.read(&mut chunk) {
            Ok(0) => return Seen::End,
            Ok(_) => {}
            Err(e) if is_reset(&e) => return Seen::Reset,
            Err(e) => panic!("neither end nor reset: {e}"),
        }
    }
}

pub fn is_reset(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Writes zeros until the other side takes no more for a while; how many went.
pub fn stuff(mut socket: &Socket) -> usize {
    socket.set_write_timeout(Some(Duration::from_millis(700))).expect("a write timeout");
    let chunk = vec![0; 256 << 10];
    let mut sent = 0;
    while let Ok(n @ 1..) = socket.write(&chunk) {
        sent += n;
    }
    socket.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
    sent
}

/// What went through one direction.
#[derive(PartialEq, Eq)]
pub struct Told {
    pub bytes: usize,
    digest: Vec<u8>,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes ({:02x?}…)", self.bytes, &self.digest[..4])
    }
}

/// A digest under construction.
pub struct Account {
    bytes: usize,
    context: digest::Context,
}

impl Account {
    pub fn new() -> Account {
        Account { bytes: 0, context: digest::Context::new(&digest::SHA256) }
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.context.update(bytes);
    }

    pub fn told(self) -> Told {
        Told { bytes: self.bytes, digest: self.context.finish().as_ref().to_vec() }
    }
}

/// One stretch of what a peer says.
#[derive(Debug, Clone, Copy)]
pub enum Stretch {
    /// So many small messages, far apart.
    Sparse(usize),
    /// So many small messages, one after another.
    Lively(usize),
    /// So many bytes as fast as they are taken.
    Large(usize),
    Rest(Duration),
}

/// Says a script, then that this is the end.
pub fn speak(socket: &Socket, seed: u64, script: &[Stretch]) -> Told {
    let told = speak_on(socket, seed, script);
    finish(socket);
    told
}

/// Says a script and leaves the direction open.
pub fn speak_on(mut socket: &Socket, seed: u64, script: &[Stretch]) -> Told {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut account = Account::new();
    let mut say = |random: &mut fastrand::Rng, length: usize| {
        let mut segment = vec![0; length];
        random.fill(&mut segment);
        account.add(&segment);
        socket.write_all(&segment).expect("the segment is taken");
    };
    for stretch in script {
        match *stretch {
            Stretch::Sparse(messages) => {
                for _ in 0..messages {
                    let length = random.usize(1..=200);
                    say(&mut random, length);
                    std::thread::sleep(Duration::from_millis(random.u64(350..450)));
                }
            }
            Stretch::Lively(messages) => {
                for _ in 0..messages {
                    let length = random.usize(1..=3000);
                    say(&mut random, length);
                    std::thread::sleep(Duration::from_millis(random.u64(1..4)));
                }
            }
            Stretch::Large(bytes) => {
                let mut left = bytes;
                while left > 0 {
                    let length = random.usize(1..=256 << 10).min(left);
                    say(&mut random, length);
                    left -= length;
                }
            }
            Stretch::Rest(span) => std::thread::sleep(span),
        }
    }
    account.told()
}

/// How fast a peer takes what it is told.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    Quick,
    /// Waits this long before the first byte, then reads at odd sizes with small rests.
    Slow(Duration),
}

/// Hears to the end, which must be an orderly one.
pub fn hear(mut socket: &Socket, seed: u64, pace: Pace) -> Told {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut account = Account::new();
    let mut chunk = vec![0; 128 << 10];
    if let Pace::Slow(first) = pace {
        std::thread::sleep(first);
    }
    loop {
        let most = random.usize(1..=chunk.len());
        match socket.read(&mut chunk[..most]) {
            Ok(0) => return account.told(),
            Ok(n) => account.add(&chunk[..n]),
            Err(e) => panic!("after {} bytes: {e}", account.bytes),
        }
        if matches!(pace, Pace::Slow(_)) && random.u8(..) < 24 {
            std::thread::sleep(Duration::from_millis(random.u64(1..30)));
        }
    }
}

/// What one peer of an exchange does.
#[derive(Debug, Clone)]
pub struct Part {
    pub script: Vec<Stretch>,
    pub pace: Pace,
}

/// Both peers speak and hear at once; fails unless each heard what the other said.
pub fn exchange(client: &Socket, server: &Socket, seed: u64, parts: [&Part; 2]) {
    let [ours, theirs] = parts;
    std::thread::scope(|scope| {
        let from_client = scope.spawn(|| speak(client, seed, &ours.script));
        let from_server = scope.spawn(|| speak(server, seed ^ 1, &theirs.script));
        let at_server = scope.spawn(|| hear(server, seed ^ 2, theirs.pace));
        let at_client = scope.spawn(|| hear(client, seed ^ 3, ours.pace));
        let joined = |thread: std::thread::ScopedJoinHandle<'_, Told>| {
            thread.join().unwrap_or_else(|_| panic!("a peer failed, seed {seed}"))
        };
        assert_eq!(joined(from_client), joined(at_server), "to the server, seed {seed}");
        assert_eq!(joined(from_server), joined(at_client), "to the client, seed {seed}");
    });
}
