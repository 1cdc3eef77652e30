//! An l7 listener in front of scripted servers, as most L7 tests want it.

use std::net::SocketAddr;

use super::Standpipe;
use super::http::Server;

/// A standpipe with one l7 listener on which `/` goes to all of `servers`.
pub struct Web {
    pub standpipe: Standpipe,
    pub address: SocketAddr,
}

/// What differs from the plainest configuration; each is TOML put at its place.
#[derive(Default)]
pub struct Shape<'a> {
    pub listener: &'a str,
    pub route: &'a str,
    pub pool: &'a str,
    pub timeouts: &'a str,
    /// More tables at the end.
    pub more: &'a str,
}

impl Web {
    pub fn before(servers: &[&Server]) -> Web {
        Web::shaped(servers, Shape::default())
    }

    pub fn shaped(servers: &[&Server], shape: Shape<'_>) -> Web {
        let address = super::address();
        let config = config(address, servers, &shape);
        Web { standpipe: Standpipe::start(&config), address }
    }
}

/// The text of such a configuration.
pub fn config(address: SocketAddr, servers: &[&Server], shape: &Shape<'_>) -> String {
    let servers: Vec<String> = servers.iter().map(|s| format!("\"{}\"", s.address)).collect();
    format!(
        "[listeners.web]\nbind = [\"{address}\"]\nmode = \"l7\"\n{}\n\
         [[listeners.web.routes]]\npath = \"/\"\npool = \"main\"\n{}\n\
         [pools.main]\nservers = [{}]\n{}\n\
         [timeouts]\n{}\n{}\n",
        shape.listener,
        shape.route,
        servers.join(", "),
        shape.pool,
        shape.timeouts,
        shape.more,
    )
}
