//! What a demonstration stands on: free ports, a folder of its own, a certificate made on the
//! spot, and the configuration that ties them together. It starts nothing.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A server of the demonstration: what it is called and the pool it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    pub name: &'static str,
    pub pool: &'static str,
}

/// Two pools, small enough to read in a table and large enough to see balancing.
pub const SERVERS: [Server; 5] = [
    Server { name: "chat-a", pool: "chat" },
    Server { name: "chat-b", pool: "chat" },
    Server { name: "chat-c", pool: "chat" },
    Server { name: "live-a", pool: "live" },
    Server { name: "live-b", pool: "live" },
];

/// The place in [`SERVERS`] of what called itself `name`.
pub fn server_called(name: &[u8]) -> Option<usize> {
    SERVERS.iter().position(|server| server.name.as_bytes() == name.trim_ascii())
}

/// Where the proxy listens.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub edge: SocketAddr,
    pub web: SocketAddr,
    pub secure: SocketAddr,
    pub admin: SocketAddr,
}

impl Ports {
    /// The usual port of each where it is free, and any free one where it is not, with a sentence
    /// for each of those.
    pub fn choose() -> io::Result<(Self, Vec<String>)> {
        let mut notes = Vec::new();
        let mut taken = Vec::new();
        for (name, usual) in [("edge", 7000), ("web", 7001), ("secure", 7443), ("admin", 9901)] {
            // Held until all are chosen, so that no number comes twice.
            let held = loopback(usual).or_else(|_| loopback(0))?;
            let address = held.local_addr()?;
            if address.port() != usual {
                let port = address.port();
                notes.push(format!("port {usual} is taken, so {name} listens on {port}"));
            }
            taken.push((address, held));
        }
        let [edge, web, secure, admin] = [0, 1, 2, 3].map(|at: usize| taken[at].0);
        Ok((Self { edge, web, secure, admin }, notes))
    }
}

/// A listener on this machine only; port 0 is any free one.
pub fn loopback(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// The folder with the configuration, the certificate, its key and the proxy's log. Nobody else
/// may read it, and it goes with this value.
#[derive(Debug)]
pub struct Scene {
    folder: PathBuf,
    /// The certificate as clients must know it.
    pub certificate: Vec<u8>,
}

impl Scene {
    /// Makes the folder and all that is in it. `servers` are the addresses of [`SERVERS`].
    pub fn set(ports: &Ports, servers: &[SocketAddr]) -> io::Result<Self> {
        let number = fastrand::u32(..);
        let name = format!("standpipe-demo-{}-{number:08x}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&folder)?;
        let mut scene = Self { folder, certificate: Vec::new() };
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        scene.certificate = made.cert.der().to_vec();
        scene.write("cert.pem", &made.cert.pem())?;
        scene.write("key.pem", &made.signing_key.serialize_pem())?;
        scene.write("demo.toml", &configuration(ports, servers))?;
        Ok(scene)
    }

    pub fn configuration(&self) -> PathBuf {
        self.folder.join("demo.toml")
    }

    pub fn certificate_file(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }

    /// Where the proxy's own lines go, so that they do not cut through the table.
    pub fn log(&self) -> PathBuf {
        self.folder.join("proxy.log")
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        create(&self.folder.join(name))?.write_all(text.as_bytes())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A new file that only this user may read.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// The whole configuration: nothing in it that a reader could not write by hand.
fn configuration(ports: &Ports, servers: &[SocketAddr]) -> String {
    let Ports { edge, web, secure, admin } = ports;
    let mut text = format!(
        "# What `standpipe demo` runs. Change it while the demo goes on: saving is a reload.\n\n\
         [runtime]\nworkers = \"cores\"\nadmin = \"{admin}\"\n\
         drain_delay = \"0s\"\ndrain_timeout = \"2s\"\n\n\
         [listeners.edge]                    # bytes in, bytes out\n\
         bind = [\"{edge}\"]\nmode = \"l4\"\npool = \"chat\"\n\n\
         [listeners.web]                     # HTTP and WebSocket\n\
         bind = [\"{web}\"]\nmode = \"l7\"\n"
    );
    push_routes(&mut text, "web");
    let _ = write!(
        text,
        "\n[listeners.secure]                  # the same over TLS\n\
         bind = [\"{secure}\"]\nmode = \"l7\"\n\
         tls.certificates = [{{ cert = \"cert.pem\", key = \"key.pem\" }}]\n"
    );
    push_routes(&mut text, "secure");
    let key = sticky_key();
    for (pool, balance) in [("chat", "least-connections"), ("live", "random-two")] {
        let _ = write!(
            text,
            "\n[pools.{pool}]\nbalance = \"{balance}\"\n\
             sticky = {{ cookie = \"standpipe\", path = \"/{pool}\", key = \"{key}\" }}\n\
             health = {{ every = \"2s\", timeout = \"1s\" }}\nservers = [\n"
        );
        for (server, address) in SERVERS.iter().zip(servers).filter(|(it, _)| it.pool == pool) {
            let name = server.name;
            let _ = writeln!(text, "    {{ address = \"{address}\", name = \"{name}\" }},");
        }
        text.push_str("]\n");
    }
    text
}

fn push_routes(text: &mut String, listener: &str) {
    for pool in ["chat", "live"] {
        let _ = write!(
            text,
            "\n[[listeners.{listener}.routes]]\npath = \"/{pool}\"\npool = \"{pool}\"\n"
        );
    }
}

/// A key for the cookies of this run.
fn sticky_key() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn addresses() -> (Ports, Vec<SocketAddr>) {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let ports = Ports { edge: at(7000), web: at(7001), secure: at(7443), admin: at(9901) };
        (ports, (9000..9005).map(at).collect())
    }

    #[test]
    fn the_configuration_is_one_that_can_be_run() {
        let (ports, servers) = addresses();
        let scene = Scene::set(&ports, &servers).unwrap();
        let tickets = config::certificates::Tickets::default();
        let loaded = match config::load(&scene.configuration(), &tickets) {
            Ok(loaded) => loaded,
            Err(problems) => panic!("{problems}"),
        };
        assert_eq!(loaded.plan.listeners.len(), 3);
        let counts: Vec<usize> = loaded.plan.pools.iter().map(|pool| pool.servers.len()).collect();
        assert_eq!(counts, [3, 2]);
    }

    #[test]
    fn the_folder_is_private_and_goes_away() {
        use std::os::unix::fs::PermissionsExt;
        let (ports, servers) = addresses();
        let scene = Scene::set(&ports, &servers).unwrap();
        let folder = scene.folder.clone();
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        drop(scene);
        assert!(!folder.exists());
    }

    #[test]
    fn a_taken_port_is_replaced_and_said() {
        let held = loopback(0).unwrap();
        assert!(loopback(held.local_addr().unwrap().port()).is_err());
        let (ports, _) = Ports::choose().unwrap();
        assert_ne!(ports.edge.port(), ports.web.port());
    }

    #[test]
    fn servers_are_known_by_what_they_call_themselves() {
        assert_eq!(server_called(b"chat-c\n"), Some(2));
        assert_eq!(server_called(b"stranger"), None);
    }
}
