//! Where a run goes: the URL as typed, taken apart and resolved, and the addresses it comes from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    pub websocket: bool,
    pub tls: bool,
}

#[derive(Clone, Debug)]
pub struct Target {
    pub url: String,
    pub scheme: Scheme,
    pub host: String,
    pub port: u16,
    /// Path and query of a WebSocket URL, beginning with a slash.
    pub path: String,
    pub addresses: Vec<SocketAddr>,
}

impl Target {
    /// Understands `ws://`, `wss://`, `tcp://` and `tls://`, and resolves the name.
    pub fn parse(url: &str) -> Result<Target, String> {
        let wanted = "want ws://HOST[:PORT]/PATH, wss://…, tcp://HOST:PORT or tls://HOST:PORT";
        let (scheme, rest) = url.split_once("://").ok_or(format!("{url}: no scheme; {wanted}"))?;
        let scheme = match scheme {
            "ws" => Scheme { websocket: true, tls: false },
            "wss" => Scheme { websocket: true, tls: true },
            "tcp" => Scheme { websocket: false, tls: false },
            "tls" => Scheme { websocket: false, tls: true },
            other => return Err(format!("{url}: unknown scheme {other}; {wanted}")),
        };
        let cut = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(cut);
        let (host, port) = split_authority(authority)?;
        let port = match (port, scheme) {
            (Some(port), _) => port,
            (None, Scheme { websocket: true, tls: true }) => 443,
            (None, Scheme { websocket: true, tls: false }) => 80,
            (None, _) => return Err(format!("{url}: a port is needed; {wanted}")),
        };
        if !scheme.websocket && path.len() > 1 {
            return Err(format!("{url}: a path means nothing without WebSocket; {wanted}"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let addresses: Vec<SocketAddr> = (host.as_str(), port)
            .to_socket_addrs()
            .map_err(|error| format!("{url}: cannot resolve {host}: {error}"))?
            .collect();
        if addresses.is_empty() {
            return Err(format!("{url}: {host} has no address"));
        }
        Ok(Target { url: url.to_owned(), scheme, host, port, path, addresses })
    }

    /// What a request's Host line says.
    pub fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.port, self.scheme.tls) {
            (80, false) | (443, true) => host,
            (port, _) => format!("{host}:{port}"),
        }
    }
}

fn split_authority(authority: &str) -> Result<(String, Option<u16>), String> {
    let port_of = |text: &str| {
        text.parse::<u16>().map_err(|_| format!("{authority}: {text} is not a port (1 to 65535)"))
    };
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(format!("{authority}: no closing ]"))?;
        (host, after.strip_prefix(':'))
    } else {
        match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if host.is_empty() {
        return Err(format!("{authority}: no host"));
    }
    Ok((host.to_owned(), port.map(port_of).transpose()?))
}

/// Addresses to come from: single ones, or whole ranges such as `127.0.1.0/28`.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    list: Vec<IpAddr>,
}

/// More source addresses than this help nobody: each gives some 28,000 ports.
const SOURCES_MAX: usize = 4096;

impl Sources {
    pub fn parse(texts: &[String]) -> Result<Sources, String> {
        let mut list = Vec::new();
        for text in texts {
            let wrong = || format!("--source {text}: want an address or a range like 127.0.1.0/28");
            let (address, bits) = match text.split_once('/') {
                Some((address, bits)) => (address, Some(bits)),
                None => (text.as_str(), None),
            };
            let address: IpAddr = address.parse().map_err(|_| wrong())?;
            let width = if address.is_ipv4() { 32 } else { 128 };
            let bits = match bits {
                Some(bits) => bits.parse::<u32>().map_err(|_| wrong())?,
                None => width,
            };
            if bits > width {
                return Err(wrong());
            }
            let count = 1usize.checked_shl(width - bits).unwrap_or(usize::MAX).min(SOURCES_MAX);
            list.extend((0..count).map(|step| nth(address, bits, step)));
        }
        list.truncate(SOURCES_MAX);
        Ok(Sources { list })
    }

    /// The address of connection `number`: they take turns.
    pub fn of(&self, number: u32) -> Option<IpAddr> {
        match self.list.len() {
            0 => None,
            count => Some(self.list[number as usize % count]),
        }
    }
}

fn nth(address: IpAddr, bits: u32, step: usize) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from((u32::from(v4) & mask) + step as u32))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from((u128::from(v6) & mask) + step as u128))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("ws://127.0.0.1:8080/chat?x=1").unwrap();
        assert_eq!((target.port, target.path.as_str()), (8080, "/chat?x=1"));
        assert_eq!(target.authority(), "127.0.0.1:8080");
        let target = Target::parse("wss://[::1]").unwrap();
        assert_eq!((target.port, target.path.as_str(), target.scheme.tls), (443, "/", true));
        assert_eq!(target.authority(), "[::1]");
        for bad in ["127.0.0.1:80", "http://x/", "tcp://127.0.0.1", "tcp://127.0.0.1:99999"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_is_spread_over() {
        let sources = Sources::parse(&["127.0.1.0/28".into(), "127.9.9.9".into()]).unwrap();
        assert_eq!(sources.list.len(), 17);
        assert_eq!(sources.of(1), Some("127.0.1.1".parse().unwrap()));
        assert_eq!(sources.of(16), Some("127.9.9.9".parse().unwrap()));
        assert_eq!(sources.of(17), Some("127.0.1.0".parse().unwrap()));
        assert!(Sources::parse(&["127.0.0.1/33".into()]).is_err());
    }
}
