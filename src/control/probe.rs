//! One active check of one server: dial it, and for HTTP ask for a path. It says how it went; what
//! that means for the server is decided elsewhere.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::config::plan::{Health, SendProxy, ServerAddress};
use crate::proto::preface;
use crate::sys::socket::{has_met_itself, leave_port_to_connect};

/// Everything one check needs; a reload that changes any of it starts the checks anew.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: ServerAddress,
    pub health: Health,
    pub source: Option<IpAddr>,
    pub send_proxy: Option<SendProxy>,
    pub tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    /// What `Host` says.
    pub host: String,
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        let tls = match (&self.tls, &other.tls) {
            (None, None) => true,
            (Some((a, name_a)), Some((b, name_b))) => Arc::ptr_eq(a, b) && name_a == name_b,
            _ => false,
        };
        tls && self.address == other.address
            && self.health == other.health
            && self.source == other.source
            && self.send_proxy == other.send_proxy
            && self.host == other.host
    }
}

/// Why a check was not good.
#[derive(Debug)]
pub enum Fault {
    /// We had no port, descriptor or memory left to check with, which says nothing of the server.
    Ours(io::Error),
    Io(io::Error),
    Http(hyper::Error),
    Status(u16),
    /// The whole check took longer than `timeout`.
    Late(Duration),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Ours(error) | Fault::Io(error) => write!(f, "{error}"),
            Fault::Http(error) => write!(f, "no HTTP answer: {error}"),
            Fault::Status(status) => write!(f, "answered {status}"),
            Fault::Late(limit) => write!(f, "no answer within {limit:?}"),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(
                libc::EADDRNOTAVAIL
                | libc::EADDRINUSE
                | libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM,
            ) => Fault::Ours(error),
            _ => Fault::Io(error),
        }
    }
}

impl From<hyper::Error> for Fault {
    fn from(error: hyper::Error) -> Self {
        Fault::Http(error)
    }
}

/// Checks once.
pub async fn check(target: &Target) -> Result<(), Fault> {
    let limit = target.health.timeout;
    match tokio::time::timeout(limit, attempt(target)).await {
        Ok(result) => result,
        Err(_) => Err(Fault::Late(limit)),
    }
}

async fn attempt(target: &Target) -> Result<(), Fault> {
    match &target.address {
        ServerAddress::Inet(address) => {
            let stream = dial(*address, target.source).await?;
            ask(target, stream).await
        }
        ServerAddress::Unix(path) => ask(target, dial_unix(path).await?).await,
    }
}

async fn dial(address: std::net::SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, Fault> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
        leave_port_to_connect(socket.as_raw_fd())?;
        socket.bind((source, 0).into())?;
    }
    let stream = socket.connect(address).await.map_err(|error| match error.raw_os_error() {
        // (From a Unix socket it would mean that the server's own queue is full.)
        Some(libc::EAGAIN) => Fault::Ours(error),
        _ => Fault::from(error),
    })?;
    if has_met_itself(stream.as_raw_fd(), address) {
        return Err(Fault::Io(io::ErrorKind::ConnectionRefused.into()));
    }
    Ok(stream)
}

async fn dial_unix(path: &PathBuf) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}

async fn ask<S>(target: &Target, mut stream: S) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // A server that expects a PROXY header is told that no client is behind the connection.
    let mut preface = Vec::new();
    match target.send_proxy {
        Some(SendProxy::V1) => preface::encode_v1_unknown(&mut preface),
        Some(SendProxy::V2) => preface::encode_v2_local(&mut preface),
        None => {}
    }
    stream.write_all(&preface).await?;
    let Some(path) = &target.health.http else { return Ok(()) };
    match &target.tls {
        None => get(stream, &target.host, path).await,
        Some((config, name)) => {
            let connector = TlsConnector::from(config.clone());
            get(connector.connect(name.clone(), stream).await?, &target.host, path).await
        }
    }
}

/// One GET; 2xx and 3xx are good. The connection is not kept.
async fn get<S>(stream: S, host: &str, path: &str) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("standpipe/", env!("CARGO_PKG_VERSION"), " (health)"))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let answer = sender.send_request(request).await;
    driver.abort();
    let status = answer?.status();
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(Fault::Status(status.as_u16()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    fn target(address: std::net::SocketAddr, http: Option<&str>) -> Target {
        Target {
            address: ServerAddress::Inet(address),
            health: Health {
                every: Duration::from_secs(1),
                timeout: Duration::from_millis(300),
                rise: 1,
                fall: 1,
                http: http.map(str::to_owned),
            },
            source: None,
            send_proxy: None,
            tls: None,
            host: "chat".to_owned(),
        }
    }

    async fn answering(answer: &'static str) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
        address
    }

    #[tokio::test]
    async fn a_connect_is_enough_where_no_path_is_given() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        check(&target(address, None)).await.unwrap();
        drop(listener);
        assert!(matches!(check(&target(address, None)).await, Err(Fault::Io(_))));
    }

    #[tokio::test]
    async fn a_check_comes_from_the_pools_source() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let source: IpAddr = [127, 0, 0, 2].into();
        let mut target = target(listener.local_addr().unwrap(), None);
        target.source = Some(source);
        let (checked, accepted) = tokio::join!(check(&target), listener.accept());
        checked.unwrap();
        assert_eq!(accepted.unwrap().1.ip(), source);
    }

    #[tokio::test]
    async fn what_we_ran_out_of_is_told_from_what_the_server_did() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut target = target(listener.local_addr().unwrap(), None);
        // No address of this machine (RFC 5737): bind answers EADDRNOTAVAIL.
        target.source = Some([192, 0, 2, 1].into());
        assert!(matches!(check(&target).await, Err(Fault::Ours(_))));
        let fault = |number| Fault::from(io::Error::from_raw_os_error(number));
        for ours in [libc::EADDRINUSE, libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert!(matches!(fault(ours), Fault::Ours(_)), "{ours}");
        }
        for theirs in [libc::ECONNREFUSED, libc::ECONNRESET, libc::EHOSTUNREACH, libc::ENOENT] {
            assert!(matches!(fault(theirs), Fault::Io(_)), "{theirs}");
        }
    }

    #[tokio::test]
    async fn good_and_bad_answers_are_told_apart() {
        let ok = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
        check(&target(ok, Some("/healthz"))).await.unwrap();
        let moved = answering("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n").await;
        check(&target(moved, Some("/healthz"))).await.unwrap();
        let bad = answering("HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n").await;
        assert!(matches!(check(&target(bad, Some("/"))).await, Err(Fault::Status(503))));
        let noise = answering("SSH-2.0-x\r\n").await;
        assert!(matches!(check(&target(noise, Some("/"))).await, Err(Fault::Http(_))));
        let silent = answering("").await;
        assert!(matches!(check(&target(silent, Some("/"))).await, Err(Fault::Late(_))));
    }
}
