//! The embedded servers: each echoes what it is sent, raw or as a WebSocket, and says its name.
//! What a connection speaks shows in its first bytes.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::proto::frame::{End, Opcode};
use crate::proto::http::{HeadLimits, RequestHead, parse_request};
use crate::proto::upgrade;

use super::scene::{SERVERS, Server, loopback};
use super::socket::{Said, Socket, Stream};

/// What a raw client sends first to hear the server's name; everything else is echoed.
pub const WHO: &[u8] = b"who\n";

/// First bytes of an HTTP request.
const METHODS: [&[u8]; 4] = [b"GET ", b"HEAD ", b"POST ", b"PUT "];

/// After a failed accept.
const AGAIN: Duration = Duration::from_millis(50);

/// What a browser is shown: a page that talks to the server it came from.
const PAGE: &str = include_str!("page.html");

/// One listener for each of [`SERVERS`], on free ports.
pub fn bind() -> io::Result<Vec<TcpListener>> {
    SERVERS.iter().map(|_| loopback(0)).collect()
}

/// The addresses they are bound to.
pub fn addresses(listeners: &[TcpListener]) -> io::Result<Vec<SocketAddr>> {
    listeners.iter().map(TcpListener::local_addr).collect()
}

/// Begins to serve on all of them, for as long as the runtime lives.
pub fn serve(listeners: Vec<TcpListener>) -> io::Result<()> {
    for (server, listener) in SERVERS.into_iter().zip(listeners) {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::spawn(accept(server, listener));
    }
    Ok(())
}

async fn accept(server: Server, listener: tokio::net::TcpListener) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(connection(server, client))),
            // It concerns one client, or passes when descriptors are back.
            Err(_) => sleep(AGAIN).await,
        }
    }
}

async fn connection(server: Server, client: TcpStream) {
    // How a client leaves is its own affair.
    let _ = client.set_nodelay(true);
    let _ = greet(server, Stream::new(client)).await;
}

async fn greet(server: Server, mut client: Stream<TcpStream>) -> io::Result<()> {
    let is_begun = |inbox: &[u8]| {
        let mut all = METHODS.iter().chain([&WHO]);
        all.any(|word| inbox.len() < word.len() && word.starts_with(inbox))
    };
    while is_begun(&client.inbox) {
        if client.fill().await? == 0 {
            return client.io.shutdown().await;
        }
    }
    if METHODS.iter().any(|method| client.inbox.starts_with(method)) {
        return http(server, client).await;
    }
    if client.inbox.starts_with(WHO) {
        client.inbox.drain(..WHO.len());
        client.io.write_all(format!("{}\n", server.name).as_bytes()).await?;
    }
    raw(client).await
}

/// Everything back as it came.
async fn raw(mut client: Stream<TcpStream>) -> io::Result<()> {
    loop {
        client.io.write_all(&client.inbox).await?;
        client.inbox.clear();
        if client.fill().await? == 0 {
            return client.io.shutdown().await;
        }
    }
}

/// A WebSocket if one was asked for, else a page or a line of text.
async fn http(server: Server, mut client: Stream<TcpStream>) -> io::Result<()> {
    let bytes = client.head().await?;
    let Ok(head) = parse_request(&bytes, &HeadLimits::default()) else {
        return answer(&mut client.io, "400 Bad Request", "text/plain", "no HTTP\n", true).await;
    };
    match upgrade::request(&head) {
        Ok(Some(asked)) => {
            let mut reply = Vec::new();
            upgrade::write_answer(&mut reply, asked.key, &[]);
            client.io.write_all(&reply).await?;
            websocket(server, Socket::new(client, End::Server)).await
        }
        Ok(None) => page(server, &head, &mut client.io).await,
        Err(fault) => {
            let text = format!("{fault}\n");
            answer(&mut client.io, "400 Bad Request", "text/plain", &text, true).await
        }
    }
}

async fn page(server: Server, head: &RequestHead<'_>, client: &mut TcpStream) -> io::Result<()> {
    let accept = head.value("accept").unwrap_or_default();
    let is_browser = String::from_utf8_lossy(accept).contains("text/html");
    let with_body = !head.is_head();
    if is_browser {
        let text = PAGE.replace("{server}", server.name);
        answer(client, "200 OK", "text/html; charset=utf-8", &text, with_body).await
    } else {
        let text = format!("{} of pool {}\n", server.name, server.pool);
        answer(client, "200 OK", "text/plain", &text, with_body).await
    }
}

async fn answer(
    client: &mut TcpStream,
    status: &str,
    kind: &str,
    text: &str,
    with_body: bool,
) -> io::Result<()> {
    let length = text.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await?;
    if with_body {
        client.write_all(text.as_bytes()).await?;
    }
    client.shutdown().await
}

/// Its name as the first message, then every message back.
async fn websocket(server: Server, mut client: Socket<TcpStream>) -> io::Result<()> {
    client.send(Opcode::Text, server.name.as_bytes()).await?;
    while let Said::Message(opcode, said) = client.next().await? {
        client.send(opcode, &said).await?;
    }
    Ok(())
}
