//! From the echo's flags as typed to options that can be carried out.

use std::net::{SocketAddr, ToSocketAddrs};

use super::{Delay, Listen, Manner, Options};
use crate::cli::{EchoArgs, MannerName};
use crate::message::Form;
use crate::resolve::cores;
use crate::secure;
use crate::sizes::{Sizes, parse_bytes};
use crate::target::Scheme;

pub fn options(args: &EchoArgs) -> Result<Options, String> {
    let mut listens = Vec::new();
    for text in &args.listen {
        for (scheme, address) in listen(text)? {
            let name = args.name.get(listens.len()).cloned();
            let name = name.unwrap_or_else(|| address.to_string());
            listens.push(Listen { scheme, address, name });
        }
    }
    if args.name.len() > listens.len() {
        return Err("more --name than addresses to listen on".into());
    }
    if listens.len() > usize::from(u16::MAX) {
        return Err("too many addresses to listen on".into());
    }
    let manner = match args.manner {
        MannerName::Echo => Manner::Echo,
        MannerName::Sink => Manner::Sink,
        MannerName::Source => {
            Manner::Source { sizes: Sizes::parse(&args.size)?, rate: rate(args)?, together: false }
        }
        MannerName::Broadcast => {
            let rate = rate(args)?.or(Some(1.0));
            Manner::Source { sizes: Sizes::parse(&args.size)?, rate, together: true }
        }
    };
    let files = args.cert.as_deref().zip(args.key.as_deref());
    let secrets = if listens.iter().any(|listen| listen.scheme.tls) {
        let mut names: Vec<String> =
            listens.iter().map(|listen| listen.address.ip().to_string()).collect();
        names.push("localhost".into());
        names.sort();
        names.dedup();
        Some(secure::server_config(files, names)?)
    } else {
        None
    };
    let cores = cores(args.cores.as_deref())?;
    Ok(Options {
        listens,
        threads: args.threads.unwrap_or(cores.len().max(1)).max(1),
        cores,
        manner,
        form: if args.text { Form::Text } else { Form::Binary },
        delay: args.delay.as_deref().map(Delay::parse).transpose()?,
        stall: args.stall_every.zip(args.stall),
        die_after: args.die_after.as_deref().map(parse_bytes).transpose()?.map(|n| n as u64),
        secrets,
        seed: args.seed,
    })
}

fn rate(args: &EchoArgs) -> Result<Option<f64>, String> {
    match args.rate {
        Some(rate) if !(rate.is_finite() && rate > 0.0) => {
            Err(format!("--rate {rate}: want messages per second above 0"))
        }
        rate => Ok(rate),
    }
}

/// `tcp://127.0.0.1:9000-9003` is four addresses.
fn listen(text: &str) -> Result<Vec<(Scheme, SocketAddr)>, String> {
    let wrong = || format!("{text}: want ws://ADDRESS:PORT, tcp://…, wss://… or tls://…");
    let (head, ports) = text.trim_end_matches('/').rsplit_once(':').ok_or_else(wrong)?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let first: u16 = first.parse().map_err(|_| wrong())?;
    let last: u16 = last.parse().map_err(|_| wrong())?;
    let (scheme, host) = head.split_once("://").ok_or_else(wrong)?;
    let scheme = match scheme {
        "ws" => Scheme { websocket: true, tls: false },
        "wss" => Scheme { websocket: true, tls: true },
        "tcp" => Scheme { websocket: false, tls: false },
        "tls" => Scheme { websocket: false, tls: true },
        _ => return Err(wrong()),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut list = Vec::new();
    for port in first..=last {
        let address = (host, port)
            .to_socket_addrs()
            .map_err(|error| format!("{text}: {error}"))?
            .next()
            .ok_or_else(wrong)?;
        let address = if port == 0 { free_port(address)? } else { address };
        list.push((scheme, address));
    }
    Ok(list)
}

/// Every thread listens on the same port, so a free one is chosen before they begin.
fn free_port(address: SocketAddr) -> Result<SocketAddr, String> {
    std::net::TcpListener::bind(address)
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("{address}: {error}"))
}
