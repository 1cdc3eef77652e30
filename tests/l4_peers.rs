//! L4 with programs written elsewhere: traffic through standpipe, and balancers before and behind
//! it that tell each other who the client is.

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::l4::{self, Accepting, Pace, Part, Stretch};
use common::peers::{self, Running};
use common::{Standpipe, wait_until};

/// Starts a foreign server and waits until it takes connections there.
fn serve(command: &mut Command, at: SocketAddr) -> Running {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(silent.spawn().expect("it starts"));
    wait_until(&format!("{command:?} listens"), || TcpStream::connect(at).is_ok());
    running
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&[&out.stdout[..], &out.stderr].concat()).into_owned()
}

// === iperf3 ===

/// Bytes sent and received, as iperf3 reports them.
fn iperf(direction: &[&str]) -> (u64, u64, Standpipe) {
    let (edge, server) = (common::address(), common::address());
    let tool = peers::tool("iperf3").expect("checked before");
    let mut listening = Command::new(&tool);
    listening.args(["-s", "-B", "127.0.0.1", "-p", &server.port().to_string()]);
    let _server = serve(&mut listening, server);
    let pipe = Standpipe::start(&l4::config(edge, &[&server.to_string()], "", "", ""));
    let port = edge.port().to_string();
    let mut client = Command::new(&tool);
    client.args(["-c", "127.0.0.1", "-p", &port, "-t", "2", "-P", "4", "-J"]).args(direction);
    let out = client.output().expect("iperf3 runs");
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("a report");
    assert!(out.status.success(), "{report}");
    let bytes = |side: &str| report["end"][side]["bytes"].as_u64().expect("bytes");
    (bytes("sum_sent"), bytes("sum_received"), pipe)
}

#[test]
fn iperf3_moves_bulk_both_ways() {
    if peers::tool("iperf3").is_none() {
        return;
    }
    for (direction, name) in [(&[][..], "from_client"), (&["-R"][..], "from_server")] {
        let (sent, received, pipe) = iperf(direction);
        assert!(received > 64 << 20, "{received} bytes in two seconds");
        assert!(received <= sent, "{received} of {sent}");
        let bulk = [("direction", name), ("gear", "bulk")];
        let moved = pipe.metric("standpipe_bytes_moved_total", &bulk);
        assert!(moved > received as f64 * 0.5, "{moved} of {received} in bulk");
        wait_until("all pipes are over", || pipe.metric("standpipe_connections_live", &[]) == 0.0);
    }
}

// === redis ===

fn benchmark(edge: SocketAddr, more: &[&str]) {
    let tool = peers::tool("redis-benchmark").expect("checked before");
    let port = edge.port().to_string();
    let common = ["-h", "127.0.0.1", "-p", &port, "-n", "20000", "-q", "--csv"];
    let out = Command::new(tool).args(common).args(more).output().expect("it runs");
    assert!(out.status.success() && !said(&out).contains("rror"), "{}", said(&out));
    assert!(said(&out).contains("GET"), "{}", said(&out));
}

#[test]
fn redis_benchmark_runs_through() {
    let (Some(server), Some(_)) = (peers::tool("redis-server"), peers::tool("redis-benchmark"))
    else {
        return;
    };
    let (edge, at) = (common::address(), common::address());
    let folder = tempfile::tempdir().expect("a folder");
    let mut redis = Command::new(server);
    redis.args(["--bind", "127.0.0.1", "--port", &at.port().to_string()]);
    redis.args(["--save", "", "--appendonly", "no", "--dir"]).arg(folder.path());
    let _redis = serve(&mut redis, at);
    let pipe = Standpipe::start(&l4::config(edge, &[&at.to_string()], "", "", ""));
    benchmark(edge, &["-t", "set,get,lpush,lrange_100", "-c", "50"]);
    benchmark(edge, &["-t", "set,get", "-c", "20", "-P", "16", "-d", "4096"]);
    let mut client = l4::reach(edge);
    client.write_all(b"PING\r\n").expect("taken");
    assert_eq!(l4::get(&client, 7), b"+PONG\r\n");
    // How long a benchmark takes decides which gears it passes through; that every byte of its
    // large SETs is counted does not depend on the machine.
    let moved = pipe.metric("standpipe_bytes_moved_total", &[("direction", "from_client")]);
    assert!(moved > 20_000.0 * 4096.0, "{moved}");
    assert_eq!(l4::ended(&pipe, "server/pipe/reset"), 0, "{}", l4::endings(&pipe));
}

// === haproxy ===

fn haproxy(folder: &Path, name: &str, body: &str, at: SocketAddr) -> Option<Running> {
    let tool = peers::tool("haproxy")?;
    let file = folder.join(name);
    let head = "global\n  maxconn 200\ndefaults\n  mode tcp\n  timeout connect 5s\n\
                \x20 timeout client 30s\n  timeout server 30s\n";
    std::fs::write(&file, format!("{head}{body}")).expect("a config");
    Some(serve(Command::new(tool).arg("-db").arg("-f").arg(file), at))
}

/// A client, HAProxy, standpipe, HAProxy and a server in a row: the server still hears of the
/// client, and bytes come through whole.
#[test]
fn haproxy_before_and_behind_keeps_the_client() {
    let (first, edge, last) = (common::address(), common::address(), common::address());
    let server = Accepting::tcp();
    let folder = tempfile::tempdir().expect("a folder");
    let front = format!("listen front\n  bind {first}\n  server s {edge} send-proxy-v2\n");
    let back = format!(
        "listen back\n  bind {last} accept-proxy\n  server s {} send-proxy\n",
        server.written
    );
    let Some(_back) = haproxy(folder.path(), "back", &back, last) else { return };
    let listener = "accept_proxy = \"v2\"\ntrusted = [\"127.0.0.1\"]";
    let pool = "send_proxy = \"v2\"";
    let pipe = Standpipe::start(&l4::config(edge, &[&last.to_string()], listener, pool, ""));
    let Some(_front) = haproxy(folder.path(), "front", &front, first) else { return };
    let client = l4::try_reach(first, Some([127, 0, 0, 55].into())).expect("a connection");
    client.set_tcp_nodelay(true).expect("no delay");
    let ours = client.local_addr().expect("an address").as_socket().expect("an IP address");
    let line = format!("PROXY TCP4 127.0.0.55 127.0.0.1 {} {}\r\n", ours.port(), first.port());
    let at_server = next_told(&server, &line);
    drop(server);
    let script = vec![Stretch::Lively(60), Stretch::Large(6 << 20), Stretch::Lively(20)];
    let part = Part { script, pace: Pace::Quick };
    l4::exchange(&client, &at_server, 55, [&part, &part]);
    common::wait_until("the pipe is over", || {
        pipe.metric("standpipe_connections_live", &[]) == 0.0
    });
    assert_eq!(l4::ended(&pipe, "client/pipe/reset"), 0, "{}", l4::endings(&pipe));
}

/// The server's next connection whose first line is this one; probes of ports come too.
fn next_told(server: &Accepting, line: &str) -> socket2::Socket {
    loop {
        let mut socket = server.next();
        let mut bytes = vec![0; line.len()];
        if std::io::Read::read_exact(&mut socket, &mut bytes).is_ok() && bytes == line.as_bytes() {
            return socket;
        }
    }
}

// === nginx ===

fn nginx(folder: &Path, name: &str, body: &str, at: SocketAddr) -> Option<Running> {
    let tool = peers::tool("nginx")?;
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let load =
        if Path::new(module).exists() { format!("load_module {module};") } else { String::new() };
    let file = folder.join(name);
    let text = format!(
        "{load}\ndaemon off;\nmaster_process off;\npid {name}.pid;\nerror_log {name}.log;\n\
         events {{ worker_connections 200; }}\nstream {{\n{body}\n}}\n"
    );
    std::fs::write(&file, text).expect("a config");
    let mut nginx = Command::new(tool);
    nginx.arg("-p").arg(folder).arg("-e").arg(folder.join("early.log")).arg("-c").arg(file);
    Some(serve(&mut nginx, at))
}

#[test]
fn nginx_stream_before_standpipe_names_the_client() {
    let (first, edge) = (common::address(), common::address());
    let server = Accepting::tcp();
    let folder = tempfile::tempdir().expect("a folder");
    let listener = "accept_proxy = \"v1\"\ntrusted = [\"127.0.0.1\"]";
    let pool = "send_proxy = \"v1\"";
    let _pipe = Standpipe::start(&l4::config(edge, &[&server.written], listener, pool, ""));
    let front = format!(
        "server {{ listen {first}; proxy_pass {edge}; proxy_protocol on; proxy_half_close on; }}"
    );
    let Some(_front) = nginx(folder.path(), "front", &front, first) else { return };
    let client = l4::try_reach(first, Some([127, 0, 0, 66].into())).expect("a connection");
    let ours = client.local_addr().expect("an address").as_socket().expect("an IP address");
    let line = format!("PROXY TCP4 127.0.0.66 127.0.0.1 {} {}\r\n", ours.port(), first.port());
    let at_server = next_told(&server, &line);
    drop(server);
    let part =
        Part { script: vec![Stretch::Lively(30), Stretch::Large(2 << 20)], pace: Pace::Quick };
    l4::exchange(&client, &at_server, 66, [&part, &part]);
}

#[test]
fn nginx_stream_behind_standpipe_is_told_the_client() {
    for version in ["v1", "v2"] {
        let (edge, last) = (common::address(), common::address());
        let folder = tempfile::tempdir().expect("a folder");
        let back = format!(
            "server {{ listen {last} proxy_protocol; \
             return \"$proxy_protocol_addr $proxy_protocol_port\"; }}"
        );
        let Some(_back) = nginx(folder.path(), "back", &back, last) else { return };
        let pool = format!("send_proxy = \"{version}\"");
        let _pipe = Standpipe::start(&l4::config(edge, &[&last.to_string()], "", &pool, ""));
        let client = l4::try_reach(edge, Some([127, 0, 0, 67].into())).expect("a connection");
        let ours = client.local_addr().expect("an address").as_socket().expect("an IP address");
        let expected = format!("127.0.0.67 {}", ours.port());
        assert_eq!(String::from_utf8_lossy(&l4::get(&client, expected.len())), expected);
        assert_eq!(l4::outcome(&client), l4::Seen::End);
    }
}
