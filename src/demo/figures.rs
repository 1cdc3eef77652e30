//! What the proxy says of itself: its metrics, asked for over the admin face like anybody else
//! would, and the few of them that the table shows.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// An answer of the admin face.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Asks the admin face.
pub async fn get(admin: SocketAddr, path: &str) -> io::Result<Answer> {
    let asked = async {
        let mut stream = TcpStream::connect(admin).await?;
        // HTTP/1.0: the body ends with the connection, and is never in chunks.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {admin}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<String, io::Error>(answer)
    };
    let answer = timeout(ANSWER_WITHIN, asked).await??;
    parse(&answer).ok_or_else(|| io::Error::other("the admin face's answer is no HTTP"))
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

/// A page of metrics.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    pub async fn fetch(admin: SocketAddr) -> io::Result<Self> {
        get(admin, "/metrics").await.map(|answer| Self(answer.body))
    }

    /// The sum of the samples called `name` that have all of `labels`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let value = |line: &str| {
            let rest = line.strip_prefix("standpipe_")?.strip_prefix(name)?;
            let (own, value) = rest.rsplit_once(' ')?;
            let is_it = own.is_empty() || own.starts_with('{');
            let matches = wanted.iter().all(|label| own.contains(label.as_str()));
            if is_it && matches { value.parse::<f64>().ok() } else { None }
        };
        self.0.lines().filter_map(value).sum()
    }

    /// Connections of a listener, or of one of its routes.
    pub fn connections(&self, listener: &str, route: Option<&str>) -> u64 {
        match route {
            None => self.sum("listener_connections", &[("listener", listener)]) as u64,
            Some(route) => {
                self.sum("route_websockets", &[("listener", listener), ("route", route)]) as u64
            }
        }
    }

    /// Connections that a server carries.
    pub fn carried(&self, pool: &str, server: &str) -> u64 {
        self.sum("server_connections", &[("pool", pool), ("server", server)]) as u64
    }

    /// The word for the state a server is in.
    pub fn state(&self, pool: &str, server: &str) -> &'static str {
        let is = |state: &&&str| {
            let labels = [("pool", pool), ("server", server), ("state", **state)];
            self.sum("server_state", &labels) > 0.0
        };
        STATES.iter().find(is).copied().unwrap_or("unknown")
    }

    /// The proxy's memory in RAM.
    pub fn resident(&self) -> u64 {
        self.sum("process_resident_memory_bytes", &[]) as u64
    }

    /// Processor time it has used, in seconds.
    pub fn processor(&self) -> f64 {
        self.sum("process_cpu_seconds_total", &[])
    }

    /// Established pipes over all cores.
    pub fn live(&self) -> u64 {
        self.sum("connections_live", &[]) as u64
    }
}

const STATES: [&str; 4] = ["up", "draining", "down", "ejected"];

#[cfg(test)]
mod tests {
    use super::*;

    impl Page {
        pub fn of(text: &str) -> Self {
            Self(text.to_owned())
        }
    }

    fn page() -> Page {
        Page::of(
            "# HELP standpipe_listener_connections Connections now.\n\
             standpipe_listener_connections{listener=\"edge\"} 3\n\
             standpipe_listener_connections{listener=\"web\"} 4\n\
             standpipe_connections_live{core=\"0\"} 2\n\
             standpipe_connections_live{core=\"1\"} 5\n\
             standpipe_connections_live_total 9\n\
             standpipe_server_state{pool=\"p\",server=\"a\",state=\"up\"} 0\n\
             standpipe_server_state{pool=\"p\",server=\"a\",state=\"down\"} 1\n\
             standpipe_process_resident_memory_bytes 4096\n",
        )
    }

    #[test]
    fn samples_are_found_by_name_and_labels() {
        assert_eq!(page().connections("web", None), 4);
        assert_eq!(page().connections("none", None), 0);
        assert_eq!(page().resident(), 4096);
    }

    #[test]
    fn cores_are_added_up_and_longer_names_are_others() {
        assert_eq!(page().live(), 7);
    }

    #[test]
    fn a_state_is_the_one_that_is_set() {
        assert_eq!(page().state("p", "a"), "down");
        assert_eq!(page().state("p", "b"), "unknown");
    }

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = parse("HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\nno\r\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "no\r\n"));
        assert!(parse("nonsense").is_none());
    }
}
