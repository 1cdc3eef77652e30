//! What the tests of the process as a whole share: a small configuration, the program run to its
//! end, and an echo server that can leave its port and come back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::{Standpipe, address, binary, listen, read_exactly, wait_until};

/// A configuration with one l4 listener, open at its end for more keys of the pool.
pub fn plain(bind: SocketAddr, servers: &[SocketAddr]) -> String {
    let servers: Vec<String> = servers.iter().map(|s| format!("\"{s}\"")).collect();
    format!(
        "[listeners.edge]\nbind = [\"{bind}\"]\nmode = \"l4\"\npool = \"chat\"\n\
         [pools.chat]\nbalance = \"least-connections\"\nservers = [{}]\n",
        servers.join(", ")
    )
}

/// The same without an admin face.
pub fn quiet(config: &str) -> String {
    format!("[runtime]\nworkers = 1\nadmin = \"off\"\n{config}")
}

/// Runs the program to its end.
pub fn standpipe(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

/// Everything it said.
pub fn text_of(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// `/pools`.
pub fn pools(standpipe: &Standpipe) -> Value {
    serde_json::from_str(&standpipe.admin_get("/pools").1).unwrap()
}

/// A few bytes there and back.
pub fn exchange(client: &mut TcpStream) {
    client.write_all(b"are you there").unwrap();
    assert_eq!(read_exactly(client, 13), b"are you there");
}

/// Whether what is said comes back.
pub fn is_open(client: &mut TcpStream) -> bool {
    let mut byte = [0];
    let _ = client.write_all(b"x");
    matches!(client.read(&mut byte), Ok(1))
}

/// A server that sends back what it gets.
pub struct Echo {
    pub address: SocketAddr,
    listening: Arc<AtomicBool>,
}

impl Echo {
    pub fn start() -> Self {
        let mut echo = Self { address: address(), listening: Arc::default() };
        echo.listen_again();
        echo
    }

    pub fn listen_again(&mut self) {
        self.listening = Arc::new(AtomicBool::new(true));
        let listening = self.listening.clone();
        let listener = listen(self.address);
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            while listening.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        std::thread::spawn(move || send_back(stream));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
    }

    /// Closes the port; connections live on.
    pub fn stop_listening(&self) {
        self.listening.store(false, Ordering::Relaxed);
        wait_until("the echo server's port is closed", || {
            TcpStream::connect(self.address).is_err()
        });
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.listening.store(false, Ordering::Relaxed);
    }
}

fn send_back(mut stream: TcpStream) {
    stream.set_nonblocking(false).unwrap();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}
