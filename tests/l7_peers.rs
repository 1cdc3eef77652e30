//! L7 with clients and servers nobody here wrote: WebSocket libraries against each other, socket.io
//! over sticky servers, a browser, curl, and other balancers in front and behind.

mod common;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use common::http::{Server, ok};
use common::web::Web;
use common::{Standpipe, peers, ws};

/// An l7 standpipe in front of addresses.
fn before(addresses: &[SocketAddr], pool: &str, listener: &str) -> Web {
    let address = common::address();
    let servers: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
    let config = format!(
        "[listeners.web]\nbind = [\"{address}\"]\nmode = \"l7\"\n{listener}\n\
         [[listeners.web.routes]]\npath = \"/\"\npool = \"main\"\n\
         [pools.main]\nservers = [{}]\n{pool}\n",
        servers.join(", ")
    );
    Web { standpipe: Standpipe::start(&config), address }
}

fn port_of(address: SocketAddr) -> String {
    address.port().to_string()
}

#[test]
fn websocket_libraries_talk_to_each_other_through_us() {
    let Some(python) = peers::python("websockets") else { return };
    let Some(aiohttp) = peers::python("aiohttp") else { return };
    let Some(node) = peers::node("ws") else { return };
    for server in ["websockets_server.py", "ws_server.js"] {
        let behind = common::address();
        let program = if server.ends_with(".py") { &python } else { &node };
        let _running = peers::start(program, server, &[&port_of(behind)]);
        let web = before(&[behind], "", "ping = { every = \"1s\", timeout = \"5s\" }");
        let url = format!("ws://{}/", web.address);
        for (program, client) in [(&python, "websockets_client.py"), (&node, "ws_client.js")] {
            assert!(peers::run(program, client, &[&url]).contains("ok"), "{client} to {server}");
        }
        let base = format!("http://{}", web.address);
        assert!(peers::run(&aiohttp, "aiohttp_client.py", &[&base]).contains("ok"), "{server}");
        let bad =
            web.standpipe.metric("standpipe_connections_ended_total", &[("cause", "frame_bad")]);
        assert_eq!(bad, 0.0);
    }
}

#[test]
fn aiohttp_pages_uploads_and_sockets_pass() {
    let Some(python) = peers::python("aiohttp") else { return };
    let behind = common::address();
    let _running = peers::start(&python, "aiohttp_server.py", &[&port_of(behind), "one"]);
    let web = before(&[behind], "", "");
    let base = format!("http://{}", web.address);
    assert!(peers::run(&python, "aiohttp_client.py", &[&base, "--pages"]).contains("ok"));
}

#[test]
fn socket_io_polls_upgrades_and_returns_over_three_sticky_servers() {
    let Some(node) = peers::node("socket.io") else { return };
    let addresses = [common::address(), common::address(), common::address()];
    let _running: Vec<_> = addresses
        .iter()
        .zip(["a", "b", "c"])
        .map(|(address, name)| {
            peers::start(&node, "socketio_server.js", &[&port_of(*address), name])
        })
        .collect();
    let pool = "balance = \"round-robin\"\n\
                sticky = { cookie = \"sp\", key = \"0123456789abcdef0123456789abcdef\" }";
    let web = before(&addresses, pool, "");
    let url = format!("http://{}", web.address);
    let said = peers::run(&node, "socketio_client.js", &[&url, "12"]);
    assert!(said.contains("ok a b c"), "all three had clients: {said}");
}

#[test]
fn a_browser_loads_a_page_and_holds_a_socket() {
    let Some(chromium) = peers::tool("chromium") else { return };
    let (report, reports) = mpsc::channel();
    let page = "<!doctype html><script>
        const socket = new WebSocket(location.origin.replace('http', 'ws') + '/ws');
        let echoes = 0;
        socket.onmessage = (event) => {
          if (event.data !== 'hello ' + echoes) { fetch('/report/wrong'); return; }
          echoes += 1;
          // Longer than our ping interval: the browser answers our Pings by itself.
          if (echoes < 6) setTimeout(() => socket.send('hello ' + echoes), 700);
          else socket.close(1000);
        };
        socket.onopen = () => socket.send('hello 0');
        socket.onclose = (event) => fetch('/report/' + event.code + '/' + event.wasClean);
        </script>";
    let server = Server::scripted(move |mut reader| {
        while let Some(head) = reader.head() {
            if head.header("upgrade").is_some() {
                let accept = ws::accept_for(&head);
                reader.send(format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                ));
                return ws::echo(&mut reader);
            }
            if let Some(what) = head.target().strip_prefix("/report/") {
                let _ = report.send(what.to_string());
            }
            reader.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}",
                page.len()
            ));
        }
    });
    let web = before(&[server.address], "", "ping = { every = \"1s\", timeout = \"2s\" }");
    let profile = tempfile::tempdir().expect("a folder");
    let browser = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .args(["--disable-dev-shm-usage", "--remote-debugging-port=0"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{}/", web.address))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("chromium starts");
    let _browser = peers::Running(browser);
    let said = reports.recv_timeout(Duration::from_secs(60)).expect("the page reports");
    assert_eq!(said, "1000/true");
}

#[test]
fn curl_keeps_its_connection_and_uploads_a_gibibyte_at_flat_memory() {
    let Some(curl) = peers::tool("curl") else { return };
    let server = Server::scripted(|mut reader| {
        while let Some(head) = reader.head() {
            if head.method() == "GET" {
                reader.send(ok("page"));
                continue;
            }
            assert_eq!(head.header("transfer-encoding"), Some("chunked"));
            if head.header("expect").is_some() {
                reader.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            let total = count_chunks(&mut reader);
            reader.send(ok(&total.to_string()));
        }
    });
    let web = before(&[server.address], "", "");
    let url = format!("http://{}/", web.address);
    let pages = Command::new(&curl).args(["-sv", &url, &url, &url]).output().expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&pages.stdout), "pagepagepage");
    assert!(String::from_utf8_lossy(&pages.stderr).contains("Re-using existing connection"));
    let before = web.standpipe.resident();
    let script = format!(
        "head -c 1073741824 /dev/zero | {} -s -T - -H 'Transfer-Encoding: chunked' {url}",
        curl.display()
    );
    let upload = Command::new("sh").args(["-c", &script]).output().expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&upload.stdout), "1073741824");
    let grown = web.standpipe.resident().saturating_sub(before);
    assert!(grown < 4 << 20, "resident memory grew by {grown} bytes");
}

/// Payload bytes of a chunked body, read and forgotten.
fn count_chunks(reader: &mut common::http::Reader) -> u64 {
    let mut total = 0;
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(reader.bytes(1));
        }
        let text = String::from_utf8_lossy(&line);
        let size = u64::from_str_radix(text.trim(), 16).expect("a chunk size");
        let chunk = reader.bytes(size as usize + 2);
        assert_eq!(chunk.len() as u64, size + 2);
        total += size;
        if size == 0 {
            return total;
        }
    }
}

/// Runs haproxy or nginx with a config and waits for its port.
fn balancer(
    program: &std::path::Path,
    config: &str,
    port: SocketAddr,
) -> (peers::Running, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("conf");
    let config = config.replace("{folder}", &folder.path().display().to_string());
    std::fs::write(&file, config).expect("a config");
    let mut command = Command::new(program);
    if program.ends_with("nginx") {
        command
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .args(["-g", "daemon off; master_process off;"]);
    } else {
        command.arg("-db").arg("-f").arg(&file);
    }
    let running = peers::Running(command.spawn().expect("it starts"));
    common::wait_until("the balancer listens", || std::net::TcpStream::connect(port).is_ok());
    (running, folder)
}

fn nginx_config(listen: SocketAddr, to: SocketAddr) -> String {
    format!(
        "pid {{folder}}/pid; error_log {{folder}}/log; events {{}}\n\
         http {{ access_log off; client_body_temp_path {{folder}}/b; proxy_temp_path {{folder}}/p;\n\
         fastcgi_temp_path {{folder}}/f; uwsgi_temp_path {{folder}}/u; scgi_temp_path {{folder}}/s;\n\
         map $http_upgrade $up {{ default upgrade; '' ''; }}\n\
         server {{ listen {listen}; client_max_body_size 0; location / {{ proxy_pass http://{to};\n\
         proxy_http_version 1.1; proxy_request_buffering off; proxy_set_header Host $http_host;\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $up; }} }} }}\n"
    )
}

fn haproxy_config(listen: SocketAddr, to: SocketAddr) -> String {
    format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n \
         timeout tunnel 1h\nlisten all\n bind {listen}\n server one {to}\n"
    )
}

#[test]
fn other_balancers_stand_in_front_and_behind() {
    let Some(python) = peers::python("aiohttp") else { return };
    let behind = common::address();
    let _running = peers::start(&python, "aiohttp_server.py", &[&port_of(behind), "one"]);
    for name in ["nginx", "haproxy"] {
        let Some(program) = peers::tool(name) else { return };
        let config = if name == "nginx" { nginx_config } else { haproxy_config };
        let middle = common::address();
        let _inner = balancer(&program, &config(middle, behind), middle);
        let web = before(&[middle], "", "");
        let front = common::address();
        let _outer = balancer(&program, &config(front, web.address), front);
        let base = format!("http://{front}");
        let said = peers::run(&python, "aiohttp_client.py", &[&base, "--pages"]);
        assert!(said.contains("ok"), "{name}");
    }
}
