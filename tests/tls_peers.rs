//! TLS with peers nobody here wrote: OpenSSL's own client in every suite, nginx and HAProxy behind
//! standpipe and before it, Python's ssl.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use common::l4::wait_ended;
use common::peers::{Running, tool};
use common::tls::{Authority, Pair, Scene, connect};
use common::{PATIENCE, port};

/// `openssl s_client` with its input in our hand and its output line by line.
struct Client {
    _process: Running,
    input: ChildStdin,
    output: Receiver<String>,
}

impl Client {
    fn start(openssl: &PathBuf, scene: &Scene, arguments: &[&str]) -> Client {
        let mut process = Command::new(openssl)
            .args(["s_client", "-connect", &scene.at.to_string(), "-servername", "web.example"])
            .args(["-CAfile".as_ref(), scene.standpipe.folder().join("own-ca.pem").as_os_str()])
            .args(["-verify_return_error"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl starts");
        let (input, mut stdout) = (process.stdin.take(), process.stdout.take().expect("output"));
        let (lines, output) = channel();
        std::thread::spawn(move || {
            let (mut held, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(got @ 1..) = stdout.read(&mut buffer) {
                held.extend_from_slice(&buffer[..got]);
                while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = held.drain(..=end).collect();
                    let _ = lines.send(String::from_utf8_lossy(&line).trim_end().to_owned());
                }
            }
        });
        Client { _process: Running(process), input: input.expect("input"), output }
    }

    fn say(&mut self, line: &str) {
        // In one write: of a command it obeys the first byte, and may have ended before a second.
        self.input.write_all(format!("{line}\n").as_bytes()).expect("openssl listens");
        self.input.flush().expect("openssl listens");
    }

    /// Reads on until a line begins with `words`.
    fn hear(&self, words: &str) -> String {
        let mut heard = Vec::new();
        loop {
            match self.output.recv_timeout(PATIENCE) {
                Ok(line) if line.starts_with(words) => return line,
                Ok(line) => heard.push(line),
                Err(_) => panic!("no `{words}` in:\n{}", heard.join("\n")),
            }
        }
    }
}

#[test]
fn openssl_is_understood_in_every_suite_and_through_key_updates() {
    let Some(openssl) = tool("openssl") else { return };
    let scene = Scene::l4();
    let mut refused = 0;
    for (version, choose, suite) in [
        ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"),
        ("-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"),
        ("-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"),
    ] {
        let mut client = Client::start(&openssl, &scene, &[version, choose, suite]);
        assert!(client.hear("New, ").ends_with(suite));
        client.say("words");
        client.hear("words");
        if version == "-tls1_3" {
            for (command, words) in [("k", "one key"), ("K", "both keys"), ("K", "and again")] {
                client.say(command);
                std::thread::sleep(std::time::Duration::from_millis(100));
                client.say(words);
                client.hear(words);
            }
        } else {
            refused += 1;
            client.say("R");
            wait_ended(&scene.standpipe, "client/pipe/renegotiation", refused);
        }
    }
    let updates = |name: &str| scene.standpipe.metric(name, &[]);
    assert_eq!(updates("standpipe_tls_key_updates_received_total"), 9.0);
    assert_eq!(updates("standpipe_tls_key_updates_sent_total"), 6.0);
}

#[test]
fn openssl_resumes_its_sessions() {
    let Some(openssl) = tool("openssl") else { return };
    let scene = Scene::l4();
    let output = Command::new(openssl)
        .args(["s_client", "-reconnect", "-tls1_2", "-connect", &scene.at.to_string()])
        .stdin(Stdio::null())
        .output()
        .expect("openssl runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches("\nReused, TLSv1.2").count(), 5, "{text}");
    let resumed = || scene.standpipe.metric("standpipe_tls_handshakes_resumed_total", &[]);
    common::wait_until("five are counted", || resumed() == 5.0);
}

#[test]
fn a_ticket_of_one_process_resumes_at_another_with_the_same_keys() {
    let Some(openssl) = tool("openssl") else { return };
    let authority = Authority::new();
    let web = authority.issue("web", &["web.example"]);
    let (ca, behind) = (authority.pem(), common::l4::echo());
    let start = |tickets: &str| {
        let at = here();
        let tls = "tls = { certificates = [{ cert = \"web.pem\", key = \"web.key\" }], \
                   ticket_keys = \"tickets\" }";
        let config = common::l4::config(at, &[&behind.to_string()], tls, "", "");
        let files: [(&str, &[u8]); 4] = [
            ("web.pem", web.cert.as_bytes()),
            ("web.key", web.key.as_bytes()),
            ("own-ca.pem", ca.as_bytes()),
            ("tickets", tickets.as_bytes()),
        ];
        (common::Standpipe::start_with(&config, &files, &[]), at)
    };
    let scene = |(standpipe, at), authority| Scene { standpipe, at, authority };
    // 48 bytes each, in base64.
    let (shared, strange) = ("c3RhbmRwaXBl".repeat(5) + "AAAA", "cGlwZXN0YW5k".repeat(5) + "AAAA");
    let one = scene(start(&shared), Authority::new());
    let other = scene(start(&shared), Authority::new());
    let stranger = scene(start(&strange), Authority::new());
    for version in ["-tls1_2", "-tls1_3"] {
        let session = one.standpipe.folder().join(version);
        let path = session.to_str().expect("a plain path");
        let mut client = Client::start(&openssl, &one, &[version, "-sess_out", path]);
        client.hear("New, ");
        client.say("words");
        client.hear("words");
        common::wait_until("the session is kept", || {
            let text = std::fs::read_to_string(&session).unwrap_or_default();
            text.contains("END SSL SESSION PARAMETERS")
        });
        for (scene, how) in [(&stranger, "New, "), (&other, "Reused, ")] {
            let mut client = Client::start(&openssl, scene, &[version, "-sess_in", path]);
            client.hear(how);
            client.say("once more");
            client.hear("once more");
        }
    }
    let count = |scene: &Scene, name: &str| scene.standpipe.metric(name, &[]);
    assert_eq!(count(&other, "standpipe_tls_handshakes_resumed_total"), 2.0);
    assert_eq!(count(&stranger, "standpipe_tls_handshakes_resumed_total"), 0.0);
}

#[test]
fn websocket_libraries_come_over_tls() {
    let Some(python) = common::peers::python("websockets") else { return };
    let Some(node) = common::peers::node("ws") else { return };
    let behind = common::address();
    let _running = common::peers::start(&node, "ws_server.js", &[&behind.port().to_string()]);
    let scene = Scene::new("l7", "", behind, "", &[]);
    let (url, ca) = (format!("wss://{}/", scene.at), scene.standpipe.folder().join("own-ca.pem"));
    for (program, client, variable) in [
        (&python, "websockets_client.py", "SSL_CERT_FILE"),
        (&node, "ws_client.js", "NODE_EXTRA_CA_CERTS"),
    ] {
        let said = common::peers::run_with(program, client, &[&url], &[(variable, &ca)]);
        assert!(said.contains("ok"), "{client}");
    }
    wait_ended(&scene.standpipe, "client/pipe/closed", 20);
}

#[test]
fn pythons_ssl_parts_in_peace() {
    let Some(python) = tool("python3") else { return };
    let scene = Scene::l4();
    let script = "
import os, socket, ssl, sys
host, port, ca = sys.argv[1].split(':') + [sys.argv[2]]
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = context.maximum_version = version
    stream = context.wrap_socket(socket.create_connection((host, int(port))),
                                 server_hostname='web.example')
    words = os.urandom(100000)
    stream.sendall(words)
    back = b''
    while len(back) < len(words):
        back += stream.recv(65536)
    assert back == words
    stream.unwrap()
";
    let ca = scene.standpipe.folder().join("own-ca.pem");
    let output = Command::new(python)
        .args(["-c", script, &scene.at.to_string()])
        .arg(ca)
        .output()
        .expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait_ended(&scene.standpipe, "client/pipe/fin", 2);
}

/// A foreign proxy or server from a configuration text in a folder of its own.
struct Foreign {
    _process: Running,
    _folder: tempfile::TempDir,
}

fn foreign(
    program: PathBuf,
    arguments: &[&str],
    config: &str,
    files: &[(&str, &str)],
    at: SocketAddr,
) -> Foreign {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("a file");
    }
    let place = folder.path().to_str().expect("a plain path");
    std::fs::write(folder.path().join("config"), config.replace("{folder}", place)).expect("it");
    let process = Command::new(program)
        .args(arguments)
        .arg(folder.path().join("config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    common::wait_until("the foreign program listens", || TcpStream::connect(at).is_ok());
    Foreign { _process: Running(process), _folder: folder }
}

fn here() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port()))
}

fn nginx(server: &str, files: &[(&str, &str)], at: SocketAddr) -> Option<Foreign> {
    let config = format!(
        "daemon off; master_process off; pid {{folder}}/pid; error_log {{folder}}/errors;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; client_body_temp_path {{folder}}/b; proxy_temp_path {{folder}}/p;\n\
         fastcgi_temp_path {{folder}}/f; uwsgi_temp_path {{folder}}/u; scgi_temp_path {{folder}}/s;\n\
         server {{ {server} }} }}\n"
    );
    Some(foreign(tool("nginx")?, &["-c"], &config, files, at))
}

fn haproxy(sections: &str, files: &[(&str, &str)], at: SocketAddr) -> Option<Foreign> {
    let config = format!(
        "global\n  maxconn 100\ndefaults\n  timeout client 20s\n  timeout server 20s\n  \
         timeout connect 5s\n{sections}\n"
    );
    Some(foreign(tool("haproxy")?, &["-db", "-f"], &config, files, at))
}

/// Asks over TLS through standpipe (l7) for the page behind.
fn page(scene: &Scene) -> String {
    let mut client = connect(scene.at, &scene.client(), "web.example").expect("a handshake");
    let request = "GET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n";
    client.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    let _ = client.read_to_string(&mut answer);
    answer
}

#[test]
fn nginx_and_haproxy_are_spoken_to_as_tls_servers() {
    let authority = Authority::new();
    let pair = authority.issue("server", &["chat.internal"]);
    let ca = Pair { cert: authority.pem(), key: String::new() };
    let both = format!("{}{}", pair.cert, pair.key);
    let files = [("cert", &pair.cert[..]), ("key", &pair.key), ("both", &both)];
    let at = here();
    let server = format!(
        "listen {at} ssl; ssl_certificate {{folder}}/cert; ssl_certificate_key {{folder}}/key; \
         location / {{ return 200 \"of nginx\"; }}"
    );
    let Some(_nginx) = nginx(&server, &files, at) else { return };
    let pool = "tls = { ca = \"ca.pem\", server_name = \"chat.internal\" }";
    let scene = Scene::new("l7", "", at, pool, &[("ca", &ca)]);
    assert!((0..3).all(|_| page(&scene).ends_with("of nginx")));

    let at = here();
    let sections = format!(
        "frontend f\n  mode http\n  bind {at} ssl crt {{folder}}/both\n  \
         http-request return status 200 content-type text/plain string of-haproxy"
    );
    let Some(_haproxy) = haproxy(&sections, &files, at) else { return };
    let scene = Scene::new("l7", "", at, pool, &[("ca", &ca)]);
    assert!((0..3).all(|_| page(&scene).ends_with("of-haproxy")));
}

#[test]
fn nginx_and_haproxy_come_as_tls_clients() {
    let server = common::http::Server::answering(|_| common::http::ok("from behind"));
    let scene = Scene::new("l7", "", server.address, "", &[]);
    let ca = scene.authority.pem();
    let files = [("ca", &ca[..])];
    let ask = |at: SocketAddr| {
        let mut stream = TcpStream::connect(at).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let request = "GET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let at = here();
    let front = format!(
        "listen {at}; location / {{ proxy_pass https://{}; proxy_ssl_verify on; \
         proxy_ssl_trusted_certificate {{folder}}/ca; proxy_ssl_name web.example; \
         proxy_ssl_server_name on; proxy_set_header Host web.example; }}",
        scene.at
    );
    let Some(_nginx) = nginx(&front, &files, at) else { return };
    assert!((0..3).all(|_| ask(at).ends_with("from behind")));

    let at = here();
    let sections = format!(
        "listen l\n  mode http\n  bind {at}\n  server s {} ssl verify required \
         ca-file {{folder}}/ca sni str(web.example) verifyhost web.example",
        scene.at
    );
    let Some(_haproxy) = haproxy(&sections, &files, at) else { return };
    assert!((0..3).all(|_| ask(at).ends_with("from behind")));
    let resumed = scene.standpipe.metric("standpipe_tls_handshakes_resumed_total", &[]);
    assert!(resumed >= 2.0, "both kept their sessions: {resumed}");
}
