"""Cases that need more than one generator run: growth, the NAT trap, silence, a broadcast."""

import json
import select
import signal
import subprocess
import sys
import time

from .rig import HERE, LATE_IS_FINE, MODES, Broken, Void, cpu_ns

NAT = {
    "source-hash, unbounded": ("source-hash", "bounded = false", "", "l4"),
    "source-hash, bounded": ("source-hash", "", "", "l4"),
    "least-connections": ("least-connections", "", "", "l4"),
    "cookie": ("least-connections", "", "sticky = { cookie = \"sp\" }", "ws"),
}
NAT_SERVERS = 8
SIZES = ("32", "256", "4096", "65536", "1048576")
COUNTS = ("1000", "3000", "10000", "30000", "100000")
FLEETS = ("2", "10", "100", "1000")
# Each worker has a descriptor table of its own: two a connection, and room for an uneven share.
CONNECTIONS_PER_TABLE = 7500
TALKERS = 500
TALK_RATE = 5000
OPEN_RATE = 2500                # slow enough that nobody waits in a queue when the talk begins
RELOADS = 10                    # one alone is lost in what a second costs anyhow


def seconds(rig):
    return f"{rig.options.seconds}s"


def nat(rig, _target, _mode, variant):
    """Everybody comes from one address: how are they split?"""
    balance, pool_lines, sticky, mode = NAT[variant]
    users = rig.options.users
    servers = rig.servers(count=NAT_SERVERS)
    proxy = None
    try:
        proxy = rig.proxy("standpipe", NAT_SERVERS, balance=balance, pool_lines=pool_lines,
                          sticky=sticky, workers=2, cores=rig.all_cores)
        more = ("--cookies",) if sticky else ()
        result = rig.load("nat", "standpipe", mode, "-c", users, "--connect-rate", 3000, "--stay",
                          "2s", *more, cores=rig.all_cores, sources="127.0.0.1")
        extra = result["extra"]
        return {"busiest": extra["busiest_share_percent"], "used": extra["servers_used"]}
    finally:
        for child in filter(None, (proxy, servers)):
            rig.end(child)


def bytes_price(rig, target, mode, variant):
    from . import cases
    figures = {"cpu_us": cases.talk(rig, target, mode, "1000")["cpu_us"]}
    return {**figures, "user": cases.idle(rig, target, mode, variant)["user"]}


def size(rig, target, mode, variant):
    from . import cases

    def run(proxy):
        result = rig.load("run", target, mode, "-c", 16, "--closed", "--size", variant,
                          *cases.times(rig, cases.SETTLED), pid=cases.pid_of(proxy))
        cpu = result["target_cpu_per_round_ns"]
        return {"cpu_us": cases.micro(cpu),
                "cpu_ns_byte": None if cpu is None else cpu / int(variant) / 2}
    return cases.with_sides(rig, target, run, bulk=True)


def cores(rig, target, mode, variant):
    """Nothing is pinned to a core of its own here: with two workers the load has no core left."""
    from . import cases

    def run(proxy):
        result = rig.load("run", target, mode, "-c", 1000, "--closed",
                          *cases.times(rig, cases.SETTLED),
                          pid=proxy.pid, cores=rig.all_cores)
        return {"cpu_us": cases.micro(result["target_cpu_per_round_ns"]),
                "rate": result["answered_rate"]}
    return cases.with_sides(rig, target, run, workers=int(variant), cores=rig.all_cores)


def fleet(rig, target, mode, variant):
    """The cost of a connection among so many servers: a pick is a small part of it."""
    count = int(variant)
    servers = rig.servers(count=count)
    proxy = None
    try:
        proxy = rig.proxy(target, count)
        result = rig.load("churn", target, mode, "--rate", rig.options.churn_rate,
                          *LATE_IS_FINE, "--duration", seconds(rig), pid=proxy.pid)
        spent = result["target"]
        spent = spent["measure_to"]["cpu_ns"] - spent["measure_from"]["cpu_ns"]
        return {"cpu_us": spent / result["counts"]["measured_opened"] / 1e3}
    finally:
        for child in filter(None, (proxy, servers)):
            rig.end(child)


def connections(rig, target, mode, variant):
    """N connections of which a constant set talks; then one reload, then all drained."""
    count = int(variant)
    workers = max(1, -(-count // CONNECTIONS_PER_TABLE))
    servers = rig.servers(count=8, more=("--threads", workers))
    proxy = load = None
    lines = "on_remove = \"drain\"\ndrain = { window = \"1s\" }"
    try:
        proxy = rig.proxy(target, 8, workers=workers, pool_lines=lines)
        share = min(1.0, TALKERS / count)
        result = rig.load("run", target, mode, "-c", count, "--rate", TALK_RATE, "--active", share,
                          "--connect-rate", OPEN_RATE, "--duration", seconds(rig), *LATE_IS_FINE,
                          "--warmup", f"{1 + count // 10_000}s", pid=proxy.pid, limit=240)
        figures = {"user": result["target_bytes_per_connection"],
                   "cpu_us": result["target_cpu_per_round_ns"] / 1e3}
        time.sleep(1.0)
        load, out = rig.load("idle", target, mode, "-c", count, "--connect-rate", OPEN_RATE,
                             "--hold", "600s", pid=proxy.pid,
                             background=True)
        await_open(rig, count)
        windows = [lines.replace("1s", f"{2 + at}s") for at in range(RELOADS)]
        figures["reload_ms"] = reload(rig, proxy, 8, workers, windows) / RELOADS
        swept = reload(rig, proxy, 1, workers, [lines], wait=4.0)
        figures["drain_us"] = swept * 1e3 / (count * 7 / 8)
        return figures
    finally:
        for child in filter(None, (load, proxy, servers)):
            rig.end(child)


def await_open(rig, count):
    """Until the machine has the four sockets of each connection."""
    until = time.monotonic() + 30 + count / OPEN_RATE * 2
    while time.monotonic() < until:
        with open("/proc/net/sockstat") as text:
            sockets = int(text.read().split("TCP: inuse ")[1].split()[0])
        if sockets >= 4 * count:
            time.sleep(1.0)
            return
        time.sleep(0.2)
    raise Broken(f"not all of {count} connections opened")


def reload(rig, proxy, servers, workers, pools, wait=0.4):
    """CPU in milliseconds that new files cost, one after the other, beyond what the same time
    costs without them."""
    before = cpu_ns(proxy.pid)
    time.sleep(wait * len(pools))
    rest = cpu_ns(proxy.pid) - before
    before = cpu_ns(proxy.pid)
    for pool_lines in pools:
        rig.configure("standpipe", servers, {"workers": workers, "pool_lines": pool_lines})
        proxy.send_signal(signal.SIGHUP)
        time.sleep(wait)
    return max(0, cpu_ns(proxy.pid) - before - rest) / 1e6


def silence(rig, _target, _mode, _variant):
    """All targets and modes live together and say nothing; then one after the other speaks. The
    figures are named target/mode/percentile."""
    quiet, turn = rig.options.silence, 3
    order = [(t, m) for t in ("direct", "standpipe", "haproxy", "nginx") for m in MODES]
    alive, runs, figures = [], [], {}
    servers = rig.servers()
    try:
        for target in ("standpipe", "haproxy", "nginx"):
            try:
                alive.append(rig.proxy(target))
            except Broken:
                order = [(t, m) for t, m in order if t != target]
        for index, (target, mode) in enumerate(order):
            hold = quiet + index * turn
            child, out = rig.load("idle", target, mode, "-c", 500, "--hold", f"{hold}s", "--speak",
                                  f"{turn - 1}s", background=True)
            runs.append((target, mode, child, out))
        for target, mode, child, out in runs:
            try:
                known = rig.join(child, out, quiet + len(order) * turn + 30)["latency"]
                for name, key in (("p50", "p50_us"), ("p99", "p99_us"), ("max", "max_us")):
                    figures[f"{target}/{mode}/{key}"] = known[name] / 1e3
            except (Void, Broken) as why:
                figures[f"{target}/{mode}/why"] = str(why)
        return figures
    finally:
        for child in (*(run[2] for run in runs), *filter(None, alive), servers):
            rig.end(child)


def broadcaster(rig, target, mode, count):
    """The server-and-clients child, ready to go; and a function that lets it go and hears it."""
    l4, ws = rig.server_ports(1)
    server_mode = "l4" if mode == "l4" else "ws"
    server = l4[0] if mode == "l4" else ws[0]
    if target == "direct":
        if mode == "wss":
            raise Broken("the broadcaster speaks no TLS as a server")
        port = server
    else:
        port = rig.ports(target)[mode]
    command = ["taskset", "-c", rig.load_cores, sys.executable, "-B",
               str(HERE / "suite" / "broadcast.py"), mode, str(server), str(port), str(count),
               str(rig.options.seconds), "0.2"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                             stderr=open(rig.dir / "broadcast.log", "ab"))
    child.name = f"broadcast-{server_mode}"
    rig.children.append(child)

    def hear(limit):
        ready, _, _ = select.select([child.stdout], [], [], limit)
        line = child.stdout.readline() if ready else ""
        if not line:
            raise Broken(f"broadcast: {rig.tail('broadcast') or 'nothing within its time'}")
        return json.loads(line)

    def order():
        child.stdin.write("\n")
        child.stdin.flush()

    try:
        hear(15)
        order()
        hear(60)
    except Broken:
        rig.end(child)
        raise

    def go():
        order()
        return hear(rig.options.seconds + 30)
    return child, go
