//! What a handshake says on the side, which rustls tells only to hooks of a configuration that
//! all cores share: the traffic secrets, and the name the client asked for. The hooks write into
//! the thread's own cell, and only while somebody listens.

use std::cell::RefCell;
use std::fmt::Write as _;

use zeroize::Zeroize;

/// Gathered over the calls of one handshake.
#[derive(Debug, Default)]
pub struct Heard {
    /// TLS 1.3: what the client seals application data with.
    pub client: Secret,
    /// TLS 1.3: what the server seals application data with.
    pub server: Secret,
    /// NSS key-log lines, if the configuration wants them.
    pub key_log: Vec<String>,
    /// The name in the ClientHello.
    pub server_name: Option<String>,
    /// No certificate stands for that name, and there is no default.
    pub unknown_name: bool,
    /// The certificate shown was picked by the hello; none fitted the client's algorithms.
    pub no_certificate: bool,
}

impl Heard {
    /// Calls into rustls, writing down what its hooks hear meanwhile.
    pub fn during<T>(&mut self, call: impl FnOnce() -> T) -> T {
        HEARD.with_borrow_mut(|cell| *cell = Some(std::mem::take(self)));
        let result = call();
        HEARD.with_borrow_mut(|cell| *self = cell.take().unwrap_or_default());
        result
    }
}

/// A secret of at most 48 bytes, wiped when dropped.
#[derive(Default)]
pub struct Secret(Vec<u8>);

impl Secret {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secret bytes", self.0.len())
    }
}

/// Lets a hook write something down.
pub(super) fn note(write: impl FnOnce(&mut Heard)) {
    HEARD.with_borrow_mut(|cell| {
        if let Some(heard) = cell {
            write(heard);
        }
    });
}

/// The key-log hook. `lines`: the configuration says `key_log = true`.
#[derive(Debug)]
pub(super) struct Ear {
    pub lines: bool,
}

impl rustls::KeyLog for Ear {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        note(|heard| {
            match label {
                CLIENT => heard.client = Secret(secret.to_vec()),
                SERVER => heard.server = Secret(secret.to_vec()),
                _ => {}
            }
            if self.lines {
                heard.key_log.push(line(label, client_random, secret));
            }
        });
    }

    fn will_log(&self, label: &str) -> bool {
        self.lines || label == CLIENT || label == SERVER
    }
}

fn line(label: &str, client_random: &[u8], secret: &[u8]) -> String {
    let mut line = String::with_capacity(label.len() + 2 + 2 * (client_random.len() + 48));
    line.push_str(label);
    for part in [client_random, secret] {
        line.push(' ');
        for byte in part {
            let _ = write!(line, "{byte:02x}");
        }
    }
    line
}

const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

thread_local! {
    static HEARD: RefCell<Option<Heard>> = const { RefCell::new(None) };
}
