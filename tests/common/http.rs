//! A plain, slow HTTP/1.1 reader and scripted servers for tests. Written apart from the product's
//! own parser, so that one mistake cannot hide in both.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::PATIENCE;

/// A stream with what was read too far.
pub struct Reader {
    pub stream: TcpStream,
    held: Vec<u8>,
}

/// A request or response head as it stood on the wire.
#[derive(Debug, Clone)]
pub struct Head {
    pub start: String,
    pub headers: Vec<(String, String)>,
    pub raw: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Message {
    pub head: Head,
    /// Of a response; 0 of a request.
    pub status: u16,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }

    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or("")
    }

    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or("")
    }
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Reader {
    pub fn new(stream: TcpStream) -> Reader {
        Reader { stream, held: Vec::new() }
    }

    pub fn connect(to: SocketAddr) -> Reader {
        Reader::new(super::connect(to))
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the bytes are taken");
    }

    /// More bytes into `held`; false at end of file or reset.
    fn fill(&mut self) -> bool {
        let mut chunk = [0_u8; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(n) => {
                self.held.extend_from_slice(&chunk[..n]);
                n > 0
            }
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(e) => panic!("read: {e}; held {:?}", String::from_utf8_lossy(&self.held)),
        }
    }

    /// The next head, or `None` when the stream ends before a complete one.
    pub fn head(&mut self) -> Option<Head> {
        let end = loop {
            if let Some(at) = self.held.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                return None;
            }
        };
        let raw: Vec<u8> = self.held.drain(..end).collect();
        let text = String::from_utf8_lossy(&raw[..raw.len() - 4]).into_owned();
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or("").to_string();
        let headers = lines.map(split_header).collect();
        Some(Head { start, headers, raw })
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.held.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.held.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Up to `n` bytes; fewer only at end of file.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        while self.held.len() < n && self.fill() {}
        let n = n.min(self.held.len());
        self.held.drain(..n).collect()
    }

    /// Everything until end of file.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.held)
    }

    /// Whether the stream is at its end (nothing held, nothing more to come).
    pub fn at_end(&mut self) -> bool {
        self.held.is_empty() && !self.fill()
    }

    /// The next final response, interim ones skipped.
    pub fn response(&mut self, method: &str) -> Message {
        self.try_response(method).expect("a whole response")
    }

    pub fn try_response(&mut self, method: &str) -> Option<Message> {
        let (head, status) = loop {
            let head = self.head()?;
            let status: u16 = head.start.split(' ').nth(1)?.parse().ok()?;
            if status >= 200 || status == 101 {
                break (head, status);
            }
        };
        let bodiless = method == "HEAD" || status == 101 || status == 204 || status == 304;
        let (body, trailers) =
            if bodiless { (Vec::new(), Vec::new()) } else { self.body(&head, true)? };
        Some(Message { head, status, body, trailers })
    }

    /// The next request with its body; `None` at the end of the connection.
    pub fn request(&mut self) -> Option<Message> {
        let head = self.head()?;
        let (body, trailers) = self.body(&head, false)?;
        Some(Message { head, status: 0, body, trailers })
    }

    #[allow(clippy::type_complexity)]
    fn body(&mut self, head: &Head, to_end: bool) -> Option<(Vec<u8>, Vec<(String, String)>)> {
        if head.header("transfer-encoding").is_some() {
            let mut body = Vec::new();
            loop {
                let line = self.line()?;
                let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
                if size == 0 {
                    break;
                }
                let chunk = self.bytes(size + 2);
                if chunk.len() < size + 2 {
                    return None;
                }
                body.extend_from_slice(&chunk[..size]);
            }
            let mut trailers = Vec::new();
            loop {
                let line = self.line()?;
                if line.is_empty() {
                    return Some((body, trailers));
                }
                trailers.push(split_header(&line));
            }
        }
        match head.header("content-length") {
            Some(length) => {
                let length: usize = length.parse().ok()?;
                let body = self.bytes(length);
                (body.len() == length).then_some((body, Vec::new()))
            }
            None if to_end => Some((self.rest(), Vec::new())),
            None => Some((Vec::new(), Vec::new())),
        }
    }
}

fn split_header(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_string(), value.trim().to_string())
}

/// A listener whose every connection is given to a script in a thread of its own. Lives as long
/// as the test process; connections are counted.
pub struct Server {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<Head>>>,
}

impl Server {
    /// `script` gets each accepted stream.
    pub fn scripted(script: impl Fn(Reader) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = stream.set_write_timeout(Some(PATIENCE));
                let _ = stream.set_nodelay(true);
                let script = script.clone();
                std::thread::spawn(move || script(Reader::new(stream)));
            }
        });
        Server { address, accepted, heads: Arc::new(Mutex::new(Vec::new())) }
    }

    /// Answers every request with what `answer` makes of it; keeps the connection open after.
    pub fn answering(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Server {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        let server = Server::scripted(move |mut reader| {
            while let Some(request) = reader.request() {
                seen.lock().expect("not poisoned").push(request.head.clone());
                let bytes = answer(&request);
                if reader.stream.write_all(&bytes).is_err() {
                    return;
                }
            }
        });
        Server { heads, ..server }
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Request heads seen so far (of [`Server::answering`]).
    pub fn heads(&self) -> Vec<Head> {
        self.heads.lock().expect("not poisoned").clone()
    }
}

/// A 200 with a content length.
pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
