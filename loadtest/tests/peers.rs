//! Servers and proxies nobody here wrote: the same run against each of them, nothing lost.

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::{Echo, Running, free_port, measure, node, number, python, tool, wait_for};
use serde_json::Value;

/// An open-loop run in which nothing may be wrong.
fn sound_run(url: &str, more: &[&str]) -> Value {
    let fixed = ["run", url, "-c", "50", "--rate", "1000", "--duration", "1s", "--warmup", "200ms"];
    let rest = ["--lag-bound", "1s", "--size", "64:8,4KiB:1,70000:1"];
    let run = measure(&[&fixed[..], &rest[..], more].concat());
    assert_eq!(number(&run, "/errors_total"), 0.0, "{}: {run}", url);
    assert_eq!(number(&run, "/counts/opened"), 50.0);
    assert_eq!(number(&run, "/counts/received"), number(&run, "/counts/sent"));
    assert!(number(&run, "/counts/sent") > 1100.0);
    run
}

fn start(command: &mut Command) -> Running {
    Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

#[test]
fn against_ws_from_npm() {
    let Some(folder) = node("ws") else { return };
    let port = free_port();
    let script = format!(
        "const {{ WebSocketServer }} = require('ws');
         const server = new WebSocketServer({{ port: {port}, perMessageDeflate: false }});
         server.on('connection', socket =>
           socket.on('message', (data, binary) => socket.send(data, {{ binary }})));"
    );
    let server = start(Command::new("node").current_dir(folder).args(["-e", &script]));
    wait_for(&format!("127.0.0.1:{port}"));
    let url = format!("ws://127.0.0.1:{port}/");
    let pid = server.0.id().to_string();
    let run = sound_run(&url, &["--pid", &pid]);
    assert!(number(&run, "/target_cpu_per_round_ns") > 1000.0);
    assert_eq!(run["close_kinds"]["by us, Close 1000"], 50);
    sound_run(&url, &["--text"]);
}

#[test]
fn against_websockets_from_pypi() {
    let Some(python) = python("websockets") else { return };
    let port = free_port();
    let script = format!(
        "
import asyncio
from websockets.asyncio.server import serve
async def echo(socket):
    async for message in socket:
        # In two fragments, as a server may.
        half = len(message) // 2
        await socket.send([message[:half], message[half:]])
async def main():
    async with serve(echo, '127.0.0.1', {port}, compression=None):
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
"
    );
    let _server = start(Command::new(python).args(["-c", &script]));
    wait_for(&format!("127.0.0.1:{port}"));
    sound_run(&format!("ws://127.0.0.1:{port}/"), &[]);
    sound_run(&format!("ws://127.0.0.1:{port}/"), &["--text"]);
}

#[test]
fn through_haproxy() {
    let Some(haproxy) = tool("haproxy") else { return };
    let echo = Echo::start(&["tcp://127.0.0.1:0", "ws://127.0.0.1:0"]);
    let (tcp, ws) = (free_port(), free_port());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("haproxy.cfg");
    let address = |at: usize| echo.urls[at].split("://").nth(1).unwrap().to_owned();
    fs::write(
        &file,
        format!(
            "defaults
               timeout connect 5s
               timeout client 60s
               timeout server 60s
               timeout tunnel 60s
             listen l4
               mode tcp
               bind 127.0.0.1:{tcp}
               server one {}
             listen l7
               mode http
               bind 127.0.0.1:{ws}
               server one {}\n",
            address(0),
            address(1)
        ),
    )
    .unwrap();
    let _proxy = start(Command::new(haproxy).arg("-f").arg(&file));
    wait_for(&format!("127.0.0.1:{ws}"));
    sound_run(&format!("tcp://127.0.0.1:{tcp}"), &["--split"]);
    let run = sound_run(&format!("ws://127.0.0.1:{ws}/chat"), &[]);
    assert_eq!(number(&run, &format!("/servers/{}", address(1))), 50.0);
}

#[test]
fn through_nginx() {
    let Some(nginx) = tool("nginx") else { return };
    let echo = Echo::start(&["ws://127.0.0.1:0"]);
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    fs::write(
        folder.path().join("nginx.conf"),
        format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;
             events {{ worker_connections 1024; }}
             http {{
               access_log off;
               client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at};
               uwsgi_temp_path {at}; scgi_temp_path {at};
               server {{
                 listen 127.0.0.1:{port};
                 location / {{
                   proxy_pass http://{};
                   proxy_http_version 1.1;
                   proxy_set_header Upgrade $http_upgrade;
                   proxy_set_header Connection upgrade;
                 }}
               }}
             }}\n",
            echo.address()
        ),
    )
    .unwrap();
    let conf = folder.path().join("nginx.conf");
    let _proxy = start(Command::new(nginx).arg("-c").arg(conf).args(["-p", &at.to_string()]));
    wait_for(&format!("127.0.0.1:{port}"));
    sound_run(&format!("ws://127.0.0.1:{port}/"), &[]);
}
