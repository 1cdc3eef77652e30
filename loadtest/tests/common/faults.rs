//! A proxy that does wrong on purpose, so many times of each kind: it loses, repeats, swaps or
//! bends whole messages on their way back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Lose,
    Repeat,
    /// Changes place with the message after it.
    Swap,
    Bend,
}

pub struct Proxy {
    pub address: SocketAddr,
    done: Arc<AtomicUsize>,
}

impl Proxy {
    /// Every connection suffers each of `faults` once, at its tenth message, its fourteenth and so
    /// on. `unit` is how long a message is on the wire, `head` whether an HTTP head comes first,
    /// `offset` how much of each unit is not the message's own.
    pub fn start(to: String, unit: usize, head: bool, offset: usize, faults: &[Fault]) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        let (faults, counted) = (faults.to_vec(), Arc::clone(&done));
        thread::spawn(move || {
            for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let server = TcpStream::connect(&to).unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (up_from, up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || copy(up_from, up_to));
                let back =
                    Back { unit, offset, number, faults: faults.clone(), done: counted.clone() };
                thread::spawn(move || back.run(server, client, head));
            }
        });
        Proxy { address, done }
    }

    /// How many faults were done so far.
    pub fn done(&self) -> usize {
        self.done.load(SeqCst)
    }
}

struct Back {
    unit: usize,
    offset: usize,
    number: usize,
    faults: Vec<Fault>,
    done: Arc<AtomicUsize>,
}

impl Back {
    fn run(self, mut server: TcpStream, mut client: TcpStream, head: bool) {
        if head && pass_head(&mut server, &mut client).is_none() {
            return;
        }
        let mut unit = vec![0u8; self.unit];
        let mut held: Option<Vec<u8>> = None;
        for count in 0usize.. {
            if server.read_exact(&mut unit).is_err() {
                break;
            }
            let fault = count
                .checked_sub(10)
                .filter(|after| after.is_multiple_of(4))
                .and_then(|after| self.faults.get(after / 4));
            if fault.is_some() {
                self.done.fetch_add(1, SeqCst);
            }
            let sent = match fault {
                Some(Fault::Lose) => Ok(()),
                Some(Fault::Repeat) => {
                    client.write_all(&unit).and_then(|()| client.write_all(&unit))
                }
                Some(Fault::Swap) => {
                    held = Some(unit.clone());
                    continue;
                }
                Some(Fault::Bend) => {
                    // Another byte for each connection: length, number, digest, filler.
                    let at = self.offset + self.number % (self.unit - self.offset);
                    unit[at] ^= 0x20;
                    client.write_all(&unit)
                }
                None => client.write_all(&unit),
            };
            if let Some(late) = held.take()
                && client.write_all(&late).is_err()
            {
                break;
            }
            if sent.is_err() {
                break;
            }
        }
        let _ = client.shutdown(std::net::Shutdown::Write);
    }
}

fn pass_head(server: &mut TcpStream, client: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0u8];
    while !head.ends_with(b"\r\n\r\n") {
        server.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    client.write_all(&head).ok()
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
}
