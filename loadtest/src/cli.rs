//! The flags as typed. What they mean together is decided in `resolve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::units::parse_duration;

/// A load generator for WebSocket and TCP servers and proxies: honest latency, and proof that
/// nothing was lost.
#[derive(Parser, Debug)]
#[command(name = "standpipe-load", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub scene: Scene,
}

const EXAMPLES: &str = "Examples:
  standpipe-load echo ws://127.0.0.1:9000
  standpipe-load run ws://127.0.0.1:9000 --connections 1000 --rate 20000 --duration 30s
  standpipe-load run tcp://127.0.0.1:7000 --connections 1000 --closed --pid $(pidof haproxy)
  standpipe-load idle ws://127.0.0.1:8080 --connections 50000 --source 127.0.1.0/28 --threads 4
  standpipe-load bulk tcp://127.0.0.1:7000 --connections 16 --size 64KiB
  standpipe-load run ws://host/chat --rate 5000 --html run.html --expect 'p99<5ms'

Exit code: 0 good, 1 an expectation failed, 2 wrong usage or nothing could be opened,
3 the run is void (the generator itself was too late).";

#[derive(Subcommand, Debug)]
pub enum Scene {
    /// Send messages on open connections and time the answers.
    Run(RunArgs),
    /// Open connections, hold them, let each speak once, leave.
    Idle(IdleArgs),
    /// Stream bytes up, down or both ways, every one of them checked.
    Bulk(BulkArgs),
    /// All drop their connections and return: how long until all are back?
    Storm(StormArgs),
    /// A share reads slowly or not at all: what do the others feel?
    Slow(SlowArgs),
    /// A share vanishes without FIN: when does the target let go?
    #[command(name = "halfopen")]
    HalfOpen(HalfOpenArgs),
    /// Many users behind one address: how are they split over the servers?
    Nat(NatArgs),
    /// Short lives: connections open, say a little and leave, at a rate.
    Churn(ChurnArgs),
    /// Hold connections with traffic while a command runs; then count what it broke.
    Audit(AuditArgs),
    /// The server side: echo, sink or source, well or badly behaved.
    Echo(EchoArgs),
    /// How far apart two cores are: a cache line's way there and back.
    Hop(HopArgs),
}

#[derive(Args, Debug, Clone)]
pub struct HopArgs {
    /// The number of a core
    pub one: usize,
    /// The number of another
    pub other: usize,
}

/// Where to and from where: what every scene understands.
#[derive(Args, Debug, Clone)]
pub struct TargetArgs {
    /// ws://HOST[:PORT]/PATH, wss://…, tcp://HOST:PORT or tls://HOST:PORT
    pub url: String,
    /// How many connections to open
    #[arg(short, long, default_value_t = 100)]
    pub connections: u32,
    /// New connections per second
    #[arg(long, default_value_t = 5000.0)]
    pub connect_rate: f64,
    /// Give a connection up that is not open by then
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub connect_timeout: Duration,
    /// Addresses to come from, in turn: 127.0.0.2 or a range like 127.0.1.0/28
    #[arg(long)]
    pub source: Vec<String>,
    /// Cores to pin threads to, like 0,1 or 2-3 (default: not pinned)
    #[arg(long)]
    pub cores: Option<String>,
    /// Threads; each has its own table of file descriptors (default: as cores and connections need)
    #[arg(long)]
    pub threads: Option<usize>,
    /// Trust this certificate authority (PEM)
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// Do not check the server's certificate
    #[arg(long)]
    pub insecure: bool,
    /// Name to ask for and to check in TLS (default: the URL's host)
    #[arg(long)]
    pub server_name: Option<String>,
    /// Paths to ask for, in turn (default: the URL's)
    #[arg(long)]
    pub path: Vec<String>,
    /// Request header; alternatives split by | are taken in turn, {n} is the connection's number
    #[arg(long)]
    pub header: Vec<String>,
    /// Keep a cookie jar per connection and send it when coming back
    #[arg(long)]
    pub cookies: bool,
    /// Sec-WebSocket-Protocol to ask for
    #[arg(long)]
    pub subprotocol: Option<String>,
    /// Text frames with printable payload instead of binary ones
    #[arg(long)]
    pub text: bool,
    /// Ask every connection's server for its name and report the split
    #[arg(long)]
    pub split: bool,
    /// Watch this process: CPU, memory, threads, files (may be repeated; children are included)
    #[arg(long)]
    pub pid: Vec<u32>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug, Clone)]
pub struct OutputArgs {
    /// Write everything measured as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write an HdrHistogram interval log (V2)
    #[arg(long)]
    pub hlog: Option<PathBuf>,
    /// Write a page with plots that opens offline
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// Fail unless this holds: p99<5ms, errors==0, achieved>=99.9%, lost==0 … (may be repeated)
    #[arg(long)]
    pub expect: Vec<String>,
    /// Generator lag (99th percentile) above which a run is void
    #[arg(long, default_value = "500us", value_parser = parse_duration)]
    pub lag_bound: Duration,
    /// No progress and no live line
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Args, Debug, Clone)]
pub struct TrafficArgs {
    /// Messages per second over all connections, sent when due whatever happens (open loop)
    #[arg(long, conflicts_with = "closed")]
    pub rate: Option<f64>,
    /// Ping-pong: the next message when the last came back (closed loop: hides stalls)
    #[arg(long)]
    pub closed: bool,
    /// Message size: 128, 4KiB, or a mix by weight like 128:90,4KiB:9,64KiB:1
    #[arg(long, default_value = "128")]
    pub size: String,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Traffic before measuring
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// How long to wait for answers after the last message
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub drain: Duration,
    /// Share of the connections that talk: 0.1 or 10%
    #[arg(long, default_value = "100%")]
    pub active: String,
}

#[derive(Args, Debug, Clone)]
pub struct RunArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub traffic: TrafficArgs,
}

#[derive(Args, Debug, Clone)]
pub struct IdleArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// How long to hold before each speaks once
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub hold: Duration,
    /// Over how long the single words are spread
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub speak: Duration,
    /// Stop at these numbers of connections, let all speak, and weigh the target: 2000,8000
    #[arg(long, value_delimiter = ',')]
    pub steps: Vec<u32>,
    /// Size of the single message
    #[arg(long, default_value = "128")]
    pub size: String,
}

#[derive(Args, Debug, Clone)]
pub struct BulkArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// up (target must be a sink), down (a source) or both (an echo)
    #[arg(long, value_enum, default_value_t = Direction::Both)]
    pub direction: Direction,
    /// Message size; every message carries a digest
    #[arg(long, default_value = "64KiB")]
    pub size: String,
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub warmup: Duration,
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub drain: Duration,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
    Both,
}

/// Traffic in the background of a scene.
#[derive(Args, Debug, Clone)]
pub struct BackgroundArgs {
    /// Messages per second over all connections (default: one per second for each)
    #[arg(long)]
    pub rate: Option<f64>,
    /// Message size or mix of sizes
    #[arg(long, default_value = "128")]
    pub size: String,
    /// How long the whole scene lasts
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long to wait for answers after the last message
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub drain: Duration,
    /// Share of the connections that talk
    #[arg(long, default_value = "100%")]
    pub active: String,
}

#[derive(Args, Debug, Clone)]
pub struct StormArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub traffic: BackgroundArgs,
    /// How many storms
    #[arg(long, default_value_t = 1)]
    pub storms: u32,
    /// Calm before, between and after storms
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    pub calm: Duration,
    /// How long all may take to come back
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub patience: Duration,
    /// Drop with a reset instead of FIN
    #[arg(long)]
    pub reset: bool,
}

#[derive(Args, Debug, Clone)]
pub struct SlowArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub traffic: BackgroundArgs,
    /// Share of the connections that read slowly
    #[arg(long, default_value = "10%")]
    pub share: String,
    /// Bytes per second each of those reads; 0: never
    #[arg(long, default_value = "0")]
    pub reads: String,
}

#[derive(Args, Debug, Clone)]
pub struct HalfOpenArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub traffic: BackgroundArgs,
    /// Share of the connections that vanish
    #[arg(long, default_value = "10%")]
    pub share: String,
    /// When they vanish
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub after: Duration,
    /// Do not drop packets: only stop reading and speaking (the kernel goes on acknowledging)
    #[arg(long)]
    pub freeze: bool,
    /// End as soon as the target (--pid) has let go of them
    #[arg(long)]
    pub stop_when_released: bool,
}

#[derive(Args, Debug, Clone)]
pub struct NatArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// How long they stay, each speaking once
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub stay: Duration,
    /// How many servers are behind the target: needed to say what the busiest one's fair share is
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub servers: Option<u32>,
}

#[derive(Args, Debug, Clone)]
pub struct ChurnArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// New connections per second, dialled when due; --connections is how many may live at once
    #[arg(long, default_value_t = 500.0)]
    pub rate: f64,
    /// Round trips of each life
    #[arg(long, default_value_t = 1)]
    pub messages: u32,
    /// How long each stays after them
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    pub life: Duration,
    #[arg(long, default_value = "128")]
    pub size: String,
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// Leave with a reset: no TIME_WAIT on either side
    #[arg(long)]
    pub reset: bool,
    /// Every TLS handshake in full
    #[arg(long)]
    pub no_resumption: bool,
}

#[derive(Args, Debug, Clone)]
pub struct AuditArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub traffic: BackgroundArgs,
    /// Shell command to run meanwhile, such as 'kill -HUP $(pidof standpipe)'
    #[arg(long)]
    pub during: String,
    /// Traffic before it
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    pub before: Duration,
    /// Traffic after it
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    pub after: Duration,
    /// The longest it may take
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    pub limit: Duration,
}

#[derive(Args, Debug, Clone)]
pub struct EchoArgs {
    /// Addresses to listen on: ws://127.0.0.1:9000, tcp://…, wss://…, tls://…; port ranges like
    /// tcp://127.0.0.1:9000-9007
    #[arg(required = true)]
    pub listen: Vec<String>,
    /// Names told to clients, one for each address (default: the address)
    #[arg(long)]
    pub name: Vec<String>,
    /// echo, sink (checks and swallows), source (sends) or broadcast (sends to all at once)
    #[arg(long, value_enum, default_value_t = MannerName::Echo)]
    pub manner: MannerName,
    /// Delay replies: 10ms, uniform:1ms:5ms, exponential:3ms, lognormal:2ms:0.7
    #[arg(long)]
    pub delay: Option<String>,
    /// Stop serving this often …
    #[arg(long, value_parser = parse_duration, requires = "stall")]
    pub stall_every: Option<Duration>,
    /// … for this long
    #[arg(long, value_parser = parse_duration, requires = "stall_every")]
    pub stall: Option<Duration>,
    /// Cut each connection in the middle of the reply that crosses this many bytes
    #[arg(long)]
    pub die_after: Option<String>,
    /// A source's message size
    #[arg(long, default_value = "64KiB")]
    pub size: String,
    /// A source's messages per second and connection (default: as fast as they are taken; a
    /// broadcast: one)
    #[arg(long)]
    pub rate: Option<f64>,
    /// Expect and send text frames
    #[arg(long)]
    pub text: bool,
    /// Certificate chain and key (PEM) for wss and tls (default: made on the spot)
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    #[arg(long, requires = "cert")]
    pub key: Option<PathBuf>,
    #[arg(long)]
    pub cores: Option<String>,
    #[arg(long)]
    pub threads: Option<usize>,
    /// Leave by itself after this long
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// A manner as asked for; what a source sends is said by other flags.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MannerName {
    Echo,
    Sink,
    Source,
    Broadcast,
}
