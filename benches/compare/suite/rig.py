"""Processes of a run: servers, one proxy, one generator. Each is a child that is started on its
core, waited for, and ended by its process id; nothing else on the machine is touched."""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
MODES = ("l4", "ws", "wss")
SCHEME = {"l4": "tcp", "ws": "ws", "wss": "wss", "ws-bytes": "ws"}
SERVERS = 4                     # addresses behind each proxy
SOURCES = "127.0.1.0/28"        # where clients come from: no port runs out in a churn
READY_S = 15.0
# A generator that shares its core is late now and then. Where CPU is what counts, or the rate that
# is kept, that says nothing against a run: lives that were due and never dialled fail it.
LATE_IS_FINE = ("--lag-bound", "10s")


class Void(Exception):
    """The generator itself was too late, so what it measured is not the proxy's."""


class Broken(Exception):
    """A run that did not do what it should; its reason goes into the results."""


class Rig:
    def __init__(self, options, workdir):
        self.options = options
        self.dir = Path(workdir)
        self.dir.mkdir(parents=True, exist_ok=True)
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("two cores are needed: one for the proxy, one for load and servers")
        self.proxy_core = str(cores[0])
        self.load_cores = ",".join(map(str, cores[1:]))
        self.all_cores = ",".join(map(str, cores))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.files = hard
        self.children = []
        self.commands = []
        self.certificate()

    # -- programs ---------------------------------------------------------------------------

    def programs(self):
        """Paths of everything that is run; a peer that is absent is None."""
        here = {name: ROOT / "target/release" / name for name in ("standpipe", "standpipe-load")}
        given = {"standpipe": self.options.standpipe, "standpipe-load": self.options.load,
                 "haproxy": self.options.haproxy, "nginx": self.options.nginx}
        found = {}
        for name in ("standpipe", "standpipe-load", "haproxy", "nginx"):
            path = given[name] or here.get(name) or shutil.which(name) \
                or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
            found[name] = str(path) if path and Path(path).exists() else None
        return found

    def build(self):
        """Builds ours unless told where they are. Cargo knows whether there is anything to do."""
        if not (self.options.standpipe and self.options.load):
            subprocess.run(["cargo", "build", "--release"], cwd=ROOT, check=True)
        self.found = self.programs()
        for name in ("standpipe", "standpipe-load"):
            if not self.found[name]:
                raise SystemExit(f"{name} is not there, and was not built")
        for name in ("haproxy", "nginx"):
            if not self.found[name]:
                print(f"{name} is not installed: its rows will say so (apt-get install {name})")

    def certificate(self):
        """One P-256 certificate for every proxy and for the server that is measured directly."""
        cert, key, pem = (self.dir / name for name in ("cert.pem", "key.pem", "both.pem"))
        if not pem.exists():
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj",
                 "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                 "-keyout", str(key), "-out", str(cert)],
                check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            pem.write_bytes(cert.read_bytes() + key.read_bytes())

    # -- children ---------------------------------------------------------------------------

    def spawn(self, name, command, cores, note=True, **more):
        command = ["taskset", "-c", cores, *map(str, command)]
        if note:
            shown = " ".join(command).replace(str(self.dir), "$DIR")
            for path in filter(None, self.found.values()):
                shown = shown.replace(path, Path(path).name)
            if shown not in self.commands:
                self.commands.append(shown)
        log = open(self.dir / f"{name}.log", "wb")
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **more)
        child.name = name
        log.close()
        self.children.append(child)
        return child

    def end(self, child, patience=4.0):
        """Asks, waits, insists: by this child's own id, and those of its own children."""
        family = [child.pid, *descendants(child.pid)]
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(patience)
            except subprocess.TimeoutExpired:
                for pid in family[1:]:
                    if parent(pid) in family:
                        os.kill(pid, signal.SIGKILL)
                child.kill()
                child.wait()
        if child in self.children:
            self.children.remove(child)

    def end_all(self):
        for child in list(reversed(self.children)):
            self.end(child, patience=1.0)

    def tail(self, name, without=None):
        """The last lines of a child's log, less those that begin with what is no news."""
        path = self.dir / f"{name}.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        lines = [line for line in lines if without is None or not line.startswith(without)]
        return " / ".join(lines[-3:])[-300:]

    # -- the sides --------------------------------------------------------------------------

    def ports(self, target):
        """Each target has ports of its own, so that several may live at once."""
        index = ("direct", "standpipe", "haproxy", "nginx").index(target)
        base = self.options.port + 10 * index
        return {"l4": base + 1, "ws": base + 2, "wss": base + 3, "admin": base + 4}

    def server_ports(self, count=SERVERS):
        base = self.options.port + 100
        return list(range(base, base + count)), list(range(base + 2000, base + 2000 + count))

    def servers(self, manner="echo", count=SERVERS, cores=None, more=()):
        """The tcp and ws servers behind every proxy, and the wss one that is met directly."""
        l4, ws = self.server_ports(count)
        direct = self.ports("direct")["wss"]
        listen = [f"tcp://127.0.0.1:{l4[0]}-{l4[-1]}", f"ws://127.0.0.1:{ws[0]}-{ws[-1]}",
                  f"wss://127.0.0.1:{direct}"]
        command = [self.found["standpipe-load"], "echo", *listen, "--manner", manner,
                   "--cert", self.dir / "cert.pem", "--key", self.dir / "key.pem", *more]
        child = self.spawn("servers", command, cores or self.load_cores)
        self.await_ports(child, (l4[0], l4[-1], ws[0], ws[-1], direct))
        return child

    def proxy(self, target, servers=SERVERS, **values):
        """Starts one proxy from its template; the child, or None when the target is direct."""
        if target == "direct":
            return None
        if not self.found[target]:
            raise Broken(f"{target} is not installed")
        config = self.configure(target, servers, values)
        command = {
            "standpipe": [self.found["standpipe"], "run", config],
            "haproxy": [self.found["haproxy"], "-f", config],
            "nginx": [self.found["nginx"] or "", "-p", self.dir, "-c", config],
        }[target]
        child = self.spawn(target, command, values.get("cores", self.proxy_core))
        ports = self.ports(target)
        wanted = [ports["l4"], ports["ws"]]
        wanted += [ports["wss"]] if values.get("wss", True) else []
        self.await_ports(child, wanted)
        return child

    def configure(self, target, servers, values):
        names = {"standpipe": "standpipe.toml", "haproxy": "haproxy.cfg", "nginx": "nginx.conf"}
        l4, ws = self.server_ports(servers)
        ports = self.ports(target)
        fill = {**{k: str(v) for k, v in ports.items()}, "dir": str(self.dir),
                "cert": f"{self.dir}/cert.pem", "key": f"{self.dir}/key.pem",
                "pem": f"{self.dir}/both.pem"}
        if target == "standpipe":
            quote = lambda ports: ", ".join(f'"127.0.0.1:{p}"' for p in ports)
            fill |= {"workers": str(values.get("workers", 1)),
                     "admin": f"127.0.0.1:{ports['admin']}",
                     "balance": values.get("balance", "least-connections"),
                     "pool_lines": values.get("pool_lines", ""),
                     "sticky": values.get("sticky", ""),
                     "l4_servers": quote(l4), "ws_servers": quote(ws),
                     "wss_listener": wss_listener(ports["wss"]) if values.get("wss", True) else ""}
        elif target == "haproxy":
            line = lambda p: f"    server s{p} 127.0.0.1:{p}"
            splice = "option splice-request\n    option splice-response"
            fill |= {"splice": splice if values.get("bulk") else "option splice-auto",
                     "l4_servers": "\n".join(map(line, l4)),
                     "ws_servers": "\n".join(map(line, ws))}
        else:
            line = lambda p: f"        server 127.0.0.1:{p};"
            small = values.get("small")
            module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
            dynamic = module.exists() and self.options.nginx is None
            fill |= {"buffer": "1k" if small else "16k", "busy": "2k" if small else "32k",
                     "modules": f"load_module {module};" if dynamic else "",
                     "l4_servers": "\n".join(map(line, l4)),
                     "ws_servers": "\n".join(map(line, ws))}
        text = (HERE / "peers" / f"{names[target]}.template").read_text()
        text = re.sub(r"@([a-z0-9_]+)@", lambda found: fill[found[1]], text)
        path = self.dir / names[target]
        path.write_text(text)
        return path

    def await_ports(self, child, ports):
        until = time.monotonic() + READY_S
        for port in ports:
            while True:
                if child.poll() is not None:
                    raise Broken(f"{child.name} ended at once: {self.tail(child.name)}")
                try:
                    socket.create_connection(("127.0.0.1", port), 1.0).close()
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise Broken(f"{child.name} does not listen on {port}: "
                                     f"{self.tail(child.name)}") from None
                    time.sleep(0.02)

    def url(self, target, mode):
        if target == "direct":
            l4, ws = self.server_ports()
            port = {"l4": l4[0], "ws": ws[0], "ws-bytes": ws[0],
                    "wss": self.ports("direct")["wss"]}[mode]
        else:
            port = self.ports(target)["ws" if mode == "ws-bytes" else mode]
        return f"{SCHEME[mode]}://127.0.0.1:{port}" + ("/bytes" if mode == "ws-bytes" else "")

    # -- the generator ----------------------------------------------------------------------

    def hop(self):
        """Nanoseconds of a cache line's way from the proxy's core to the load's and back, or None
        where it cannot be told."""
        command = [self.found["standpipe-load"], "hop", self.proxy_core,
                   self.load_cores.partition(",")[0]]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except subprocess.TimeoutExpired:
            return None
        return float(done.stdout.split()[0]) if done.returncode == 0 else None

    def load(self, scene, target, mode, *arguments, pid=None, limit=120.0, background=False,
             cores=None, sources=SOURCES):
        """Runs the generator and returns its JSON. Raises Void or Broken; never guesses."""
        name = f"load-{target}-{mode}"
        out = self.dir / f"{name}.json"
        out.unlink(missing_ok=True)
        command = [self.found["standpipe-load"], scene, self.url(target, mode), "-q", "--json", out,
                   "--source", sources, *arguments]
        command += ["--insecure"] if mode == "wss" else []
        command += ["--pid", pid] if pid else []
        child = self.spawn(name, command, cores or self.load_cores)
        if background:
            return child, out
        return self.join(child, out, limit)

    def join(self, child, out, limit):
        try:
            child.wait(limit)
        except subprocess.TimeoutExpired:
            self.end(child)
            raise Broken(f"no end within {limit:.0f} s") from None
        self.children.remove(child)
        if not out.exists():
            raise Broken(f"generator: {self.tail(child.name)}")
        result = json.loads(out.read_text())
        out.unlink()
        if result["void"]:
            raise Void(result["void_why"])
        if result["errors_total"] or result["lost"]:
            kinds = {**result["errors"], **result["close_kinds"]}.items()
            kinds = ", ".join(f"{n} × {kind}" for kind, n in kinds)
            servers = self.tail("servers", without="listening on ")
            raise Broken(f"{result['errors_total']} errors, {result['lost']} lost: {kinds}"[:200]
                         + (f"; the servers say: {servers}" if servers else ""))
        for long in ("closes", "moments"):
            result.pop(long, None)
        return result


def wss_listener(port):
    return f"""[listeners.wss]
bind = ["127.0.0.1:{port}"]
mode = "l7"
ping = "off"
tls.certificates = [{{ cert = "cert.pem", key = "key.pem" }}]

[[listeners.wss.routes]]
path = "/"
pool = "ws"
"""


def parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def descendants(pid):
    """Children of a child of ours (nginx's worker), by the kernel's own list."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    direct = [int(word) for word in text.split()]
    return direct + [below for one in direct for below in descendants(one)]


def cpu_ns(pid):
    """On-CPU time of a process and its children, all threads, as the scheduler counts it."""
    total = 0
    for one in (pid, *descendants(pid)):
        for task in Path(f"/proc/{one}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except OSError:
                pass
    return total
