//! Rules of `[pools.NAME]`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::balance::{BOUND, Policy};
use crate::config::certificates::{OfPool, Places};
use crate::config::plan::{
    CertificateFiles, Drain, Health, OnDown, OnRemove, Pool, SameSite, Secret, Server,
    ServerAddress, ServerTls, Sticky, StickyCookie,
};
use crate::config::problem::{At, set};
use crate::config::written::{self, Balance, Bounded};

use super::{PoolUse, Proof, Uses};

impl Proof<'_> {
    pub fn pool(&self, written: &written::Pool, uses: &Uses) -> Option<Pool> {
        let used = uses.pools.get(&written.name.value).copied();
        if used.is_none() {
            let remedy = "point a listener or a route at it, or leave it out";
            self.notes.warning(&written.name.place, "no listener uses this pool", remedy);
        }
        let used = used.unwrap_or_default();
        let policy = self.policy(written);
        let servers = self.servers(written);
        let proven = servers.as_deref().unwrap_or_default();
        let tls = written.tls.as_ref().map(|tls| self.server_tls(tls, written, proven));
        let sticky = written.sticky.as_ref().map(|sticky| self.sticky(sticky, used));
        let health = self.health(written);
        let drain = self.drain(written);
        for source in written.source.iter().flat_map(|list| &list.value) {
            self.is_ours(SocketAddr::new(source.value, 0), &source.place);
        }
        Some(Pool {
            name: Arc::from(written.name.value.as_str()),
            policy,
            servers: servers?,
            health,
            sticky: transpose(sticky)?,
            slow_start: set(&written.slow_start, Some(SLOW_START)).unwrap_or_default(),
            source: written
                .source
                .as_ref()
                .map(|list| list.value.iter().map(|at| at.value).collect())
                .unwrap_or_default(),
            send_proxy: set(&written.send_proxy, None),
            on_down: set(&written.on_down, OnDown::Drain),
            on_remove: set(&written.on_remove, OnRemove::Keep),
            drain: drain?,
            tls: transpose(tls)?,
            idle_connections: set(&written.idle_connections, IDLE_CONNECTIONS),
        })
    }

    fn policy(&self, written: &written::Pool) -> Policy {
        let balance = set(&written.balance, Balance::LeastConnections);
        if let Some(bounded) = &written.bounded
            && balance != Balance::SourceHash
        {
            let remedy = "leave it out, or set balance = \"source-hash\"";
            self.notes.mistake(&bounded.place, "bounds only source-hash", remedy);
        }
        match balance {
            Balance::RoundRobin => Policy::RoundRobin,
            Balance::LeastConnections => Policy::LeastConnections,
            Balance::RandomTwo => Policy::RandomTwo,
            Balance::SourceHash => Policy::SourceHash {
                bounded: match set(&written.bounded, Bounded::Yes) {
                    Bounded::No => None,
                    Bounded::Yes => Some(BOUND),
                    Bounded::By(factor) => Some(factor),
                },
            },
        }
    }

    fn servers(&self, written: &written::Pool) -> Option<Vec<Server>> {
        let key = "servers";
        let Some(list) = &written.servers else {
            let remedy = "write servers = [\"10.0.0.1:9000\"]";
            self.notes.missing(&written.place, key, remedy);
            return None;
        };
        if list.value.is_empty() && !self.notes.is_spoken_for(&list.place.key) {
            self.notes.mistake(&list.place, "is empty", "name at least one server");
        }
        let max_connections = set(&written.max_connections, 0);
        let mut names: HashMap<&str, usize> = HashMap::new();
        let mut addresses: HashMap<ServerAddress, &At<String>> = HashMap::new();
        let mut servers = Vec::new();
        for server in &list.value {
            let line = server.address.place.line;
            let name = server.name.as_ref().unwrap_or(&server.address);
            let Some(address) = self.address(&server.address) else { continue };
            if let Some(first) = addresses.insert(address.clone(), &server.address) {
                let (one, other) = (&first.value, &server.address.value);
                let found = match one == other {
                    true => format!("{other:?} is already in this pool"),
                    false => format!("{one:?} and {other:?} are both {}", shown(&address)),
                };
                let first = first.place.line;
                let remedy = format!("see line {first}; give one entry a larger weight instead");
                self.notes.mistake(&server.address.place, found, remedy);
            } else if let Some(first) = names.insert(&name.value, line) {
                let found = format!("the name {:?} is already in this pool", name.value);
                let remedy = format!("see line {first}; names tell servers apart in metrics");
                self.notes.mistake(&name.place, found, remedy);
            }
            if let Some(name) = &server.name
                && !written::is_label(&name.value)
            {
                self.notes.mistake(&name.place, "is no usable name", written::NAME);
            }
            servers.push(Server {
                name: Arc::from(name.value.as_str()),
                written: Arc::from(server.address.value.as_str()),
                address,
                weight: set(&server.weight, 1),
                max_connections: set(&server.max_connections, max_connections),
                draining: set(&server.drain, false),
            });
        }
        if !servers.is_empty() && servers.iter().all(|server| server.draining) {
            let remedy = "leave drain out for those that are to serve";
            self.notes.warning(&list.place, "every server drains: none takes clients", remedy);
        }
        Some(servers)
    }

    fn address(&self, written: &At<String>) -> Option<ServerAddress> {
        if let Some(path) = written.value.strip_prefix("unix:") {
            let path = self.path(path);
            if path.as_os_str().len() > UNIX_PATH_MAX {
                let found = format!("a socket path of {} bytes", path.as_os_str().len());
                let remedy = format!("the kernel allows {UNIX_PATH_MAX} bytes; use a shorter path");
                self.notes.mistake(&written.place, found, remedy);
            } else if written.value == "unix:" {
                self.notes.mistake(&written.place, "names no socket", "write \"unix:/run/x.sock\"");
            }
            return Some(ServerAddress::Unix(path));
        }
        if let Ok(address) = written.value.parse::<SocketAddr>() {
            if address.port() == 0 {
                self.notes.mistake(&written.place, "port 0", "choose a port from 1 to 65535");
            }
            return Some(ServerAddress::Inet(address));
        }
        let Some((name, port)) = host_and_port(&written.value) else {
            let found = format!("{:?} is no server address", written.value);
            let remedy = "write host:port, [IPv6]:port or unix:/path";
            self.notes.mistake(&written.place, found, remedy);
            return None;
        };
        match self.host.resolve(name, port) {
            Ok(addresses) => self.choose(written, name, &addresses),
            Err(error) => {
                let found = format!("cannot resolve {name:?}: {error}");
                self.notes.mistake(&written.place, found, RESOLVE);
                None
            }
        }
    }

    /// One address per server, the same after each reload whatever order the resolver answers in:
    /// IPv4 before IPv6, then the lowest.
    fn choose(&self, at: &At<String>, name: &str, all: &[SocketAddr]) -> Option<ServerAddress> {
        let chosen = all.iter().min_by_key(|address| (address.is_ipv6(), **address));
        let Some(chosen) = chosen else {
            let found = format!("{name:?} has no address");
            self.notes.mistake(&at.place, found, RESOLVE);
            return None;
        };
        let mut family: Vec<_> =
            all.iter().filter(|address| address.is_ipv6() == chosen.is_ipv6()).collect();
        family.sort();
        family.dedup();
        if family.len() > 1 {
            let found = format!("{name:?} has {} addresses, {} is used", family.len(), chosen.ip());
            self.notes.warning(&at.place, found, "to use them all list each as a server");
        }
        Some(ServerAddress::Inet(*chosen))
    }

    fn health(&self, written: &written::Pool) -> Option<Health> {
        let health = set(&written.health, None)?;
        let proven = Health {
            every: set(&health.every, Duration::from_secs(2)),
            timeout: set(&health.timeout, Duration::from_secs(1)),
            rise: set(&health.rise, 2),
            fall: set(&health.fall, 3),
            http: health.http.as_ref().map(|at| at.value.clone()),
        };
        if let Some(at) = &written.health
            && proven.timeout > proven.every
        {
            let found = "the timeout is longer than the interval";
            let remedy = "a server that hangs is noticed later than every × fall suggests";
            self.notes.warning(&at.place, found, remedy);
        }
        Some(proven)
    }

    fn drain(&self, written: &written::Pool) -> Option<Drain> {
        let Some(drain) = &written.drain else { return Some(Drain::Window(DRAIN_WINDOW)) };
        match (&drain.value.rate, &drain.value.window) {
            (Some(rate), None) => Some(Drain::Rate(rate.value)),
            (None, Some(window)) => Some(Drain::Window(window.value)),
            (None, None) => Some(Drain::Window(DRAIN_WINDOW)),
            (Some(_), Some(_)) => {
                let remedy = "keep rate (closes a second) or window (all within this time)";
                self.notes.mistake(&drain.place, "says both rate and window", remedy);
                None
            }
        }
    }

    fn sticky(&self, written: &At<written::Sticky>, used: PoolUse) -> Option<Sticky> {
        if used.l4 {
            let remedy = "an l4 listener places these clients by balance";
            self.notes.warning(&written.place, "an l4 listener cannot see it", remedy);
        }
        match &written.value {
            written::Sticky::Header(name) => Some(Sticky::Header(name.clone())),
            written::Sticky::Query(name) => Some(Sticky::Query(name.clone())),
            written::Sticky::Cookie(cookie) => self.sticky_cookie(cookie, used),
        }
    }

    fn sticky_cookie(&self, written: &written::StickyCookie, used: PoolUse) -> Option<Sticky> {
        let key = match (&written.key, &written.key_file) {
            (Some(_), Some(file)) => {
                let remedy = "keep key or key_file";
                self.notes.mistake(&file.place, "stands beside a key", remedy);
                return None;
            }
            (Some(key), None) => {
                self.keeps_secret(self.file, &key.place);
                Some(self.key(key)?)
            }
            (None, Some(file)) => Some(self.key_file(file)?),
            (None, None) => {
                let remedy = "a random one is made at each start: clients change servers after a \
                              restart, and other nodes do not know their cookies";
                self.notes.warning(&written.place, "the sticky cookie has no key", remedy);
                None
            }
        };
        // Clients that only ever come through TLS need never send the cookie without it.
        let secure = set(&written.secure, used.tls_l7 && !used.plain_l7);
        if let Some(same_site) = &written.same_site
            && same_site.value == SameSite::None
            && !secure
        {
            let remedy = "browsers drop such a cookie; set secure = true or another same_site";
            self.notes.mistake(&same_site.place, "\"none\" without secure", remedy);
        }
        if let Some(path) = &written.path
            && !path.value.starts_with('/')
        {
            self.notes.mistake(&path.place, "is no path", "start it with '/'");
        }
        Some(Sticky::Cookie(StickyCookie {
            name: written.name.clone(),
            key,
            key_file: written.key_file.as_ref().map(|file| self.path(&file.value)),
            path: set(&written.path, "/".to_owned()),
            domain: written.domain.as_ref().map(|at| at.value.clone()),
            secure,
            http_only: set(&written.http_only, true),
            same_site: written.same_site.as_ref().map(|at| at.value),
            max_age: written.max_age.as_ref().map(|at| at.value),
        }))
    }

    /// The bytes of the string, or after `base64:` what they stand for. Never shown.
    fn key(&self, written: &At<String>) -> Option<Secret> {
        let bytes = match written.value.strip_prefix("base64:") {
            None => written.value.as_bytes().to_vec(),
            Some(encoded) => match STANDARD.decode(encoded) {
                Ok(bytes) => bytes,
                Err(_) => {
                    let remedy = "after base64: comes the standard alphabet with padding";
                    self.notes.mistake(&written.place, "is not base64", remedy);
                    return None;
                }
            },
        };
        self.long_enough(bytes, written)
    }

    fn key_file(&self, written: &At<String>) -> Option<Secret> {
        let path = self.secret_file(written)?;
        match self.host.read(&path) {
            Ok(mut bytes) => {
                while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                    bytes.pop();
                }
                self.long_enough(bytes, written)
            }
            Err(error) => {
                let found = format!("cannot read {}: {error}", path.display());
                self.notes.mistake(&written.place, found, "name a file that holds the key");
                None
            }
        }
    }

    fn long_enough(&self, bytes: Vec<u8>, written: &At<String>) -> Option<Secret> {
        if bytes.len() < KEY_BYTES_MIN {
            let found = format!("is a key of {} bytes", bytes.len());
            let remedy = format!("use at least {KEY_BYTES_MIN}, as openssl rand -base64 32 prints");
            self.notes.mistake(&written.place, found, remedy);
            return None;
        }
        Some(Secret(Arc::from(bytes)))
    }

    fn server_tls(
        &self,
        written: &At<written::ServerTls>,
        pool: &written::Pool,
        servers: &[Server],
    ) -> Option<ServerTls> {
        let tls = &written.value;
        let client_cert = match (&tls.client_cert, &tls.client_key) {
            (None, None) => Some(None),
            (Some(cert), Some(key)) => {
                let (cert, key) = (self.file(cert), self.secret_file(key));
                cert.zip(key).map(|(cert, key)| Some(CertificateFiles { cert, key }))
            }
            (Some(_), None) => {
                let remedy = "name the private key of client_cert";
                self.notes.missing(&written.place, "client_key", remedy);
                None
            }
            (None, Some(_)) => {
                let remedy = "name the certificate chain of client_key";
                self.notes.missing(&written.place, "client_cert", remedy);
                None
            }
        };
        let insecure = !set(&tls.verify, true);
        if let (true, Some(verify)) = (insecure, &tls.verify) {
            let remedy = "anyone on the way can read and change what is sent";
            self.notes.warning(&verify.place, "servers are not verified", remedy);
        }
        self.server_names(written, pool);
        let ca = match &tls.ca {
            Some(file) => self.file(file).map(Some),
            None => Some(None),
        };
        let server_name = tls.server_name.as_ref().map(|at| at.value.clone());
        let usable = server_name.clone().filter(|name| is_server_name(name));
        let servers = servers
            .iter()
            .filter(|server| usable.is_some() || matches!(server.address, ServerAddress::Inet(_)));
        let section = OfPool {
            name: Arc::from(pool.name.value.as_str()),
            servers: servers.cloned().collect(),
            tls: ServerTls {
                // Without the file that was meant, nobody is asked about the system's.
                insecure: insecure || ca.is_none(),
                ca: ca.clone().flatten(),
                server_name: usable,
                client_cert: client_cert.clone().flatten(),
            },
            places: Places {
                whole: written.place.clone(),
                pairs: match (&tls.client_cert, &tls.client_key) {
                    (Some(cert), Some(key)) => vec![(cert.place.clone(), key.place.clone())],
                    _ => Vec::new(),
                },
                authorities: tls.ca.as_ref().map(|file| file.place.clone()),
                tickets: None,
            },
        };
        self.sections.borrow_mut().pools.push(section);
        Some(ServerTls { ca: ca?, server_name, client_cert: client_cert?, insecure })
    }

    /// What is verified must have a name.
    fn server_names(&self, written: &At<written::ServerTls>, pool: &written::Pool) {
        if let Some(name) = &written.value.server_name {
            if !is_server_name(&name.value) {
                let found = format!("{:?} is neither a host name nor an address", name.value);
                self.notes.mistake(&name.place, found, "write the name in the certificate");
            }
            return;
        }
        let servers = pool.servers.iter().flat_map(|list| &list.value);
        for server in servers.filter(|server| {
            server.address.value.starts_with("unix:")
                && !self.notes.is_spoken_for(&server.address.place.key)
        }) {
            let found = "a Unix socket has no name to verify";
            let remedy = "set server_name in the pool's tls";
            self.notes.mistake(&server.address.place, found, remedy);
        }
    }
}

fn shown(address: &ServerAddress) -> String {
    match address {
        ServerAddress::Inet(address) => address.to_string(),
        ServerAddress::Unix(path) => path.display().to_string(),
    }
}

fn is_server_name(name: &str) -> bool {
    rustls::pki_types::ServerName::try_from(name).is_ok()
}

fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (name, port) = text.rsplit_once(':')?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    // A name that ends in a number is a mistyped address: resolvers read it in surprising ways.
    let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let good =
        !name.is_empty() && name.len() <= 253 && name.chars().all(allowed) && !is_number(last);
    let port = port.parse::<u16>().ok().filter(|port| *port > 0);
    good.then_some(name).zip(port.filter(|_| text.parse::<IpAddr>().is_err()))
}

pub(super) fn transpose<T>(proven: Option<Option<T>>) -> Option<Option<T>> {
    match proven {
        Some(Some(value)) => Some(Some(value)),
        Some(None) => None,
        None => Some(None),
    }
}

/// New and recovered servers are given their share over this time.
const SLOW_START: Duration = Duration::from_secs(60);
/// One per cent a second: what comes back is a slope, not a wall.
const DRAIN_WINDOW: Duration = Duration::from_secs(100);
const IDLE_CONNECTIONS: u32 = 32;
const KEY_BYTES_MIN: usize = 16;
/// `sun_path` with its closing zero.
const UNIX_PATH_MAX: usize = 107;
const RESOLVE: &str = "correct the name, or write the address; names are resolved when the file \
                       is loaded";
