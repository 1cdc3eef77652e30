"""What is measured. A case says how one cell of it is run (one mode, one variant, one target) and
which figures come out; the suite repeats, alternates and takes medians."""

import math
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from . import special
from .rig import LATE_IS_FINE, MODES, Broken, Void, cpu_ns, descendants

PEERS = ("haproxy", "nginx")
ALL = ("direct", "standpipe", *PEERS)
PROXIES = ("standpipe", *PEERS)
OURS = ("standpipe",)


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    run: Callable               # (rig, target, mode, variant) -> {figure: number}
    figures: dict               # figure -> (words, unit); the first one is the case's headline
    variants: tuple = ("",)
    modes: tuple = MODES
    targets: tuple = ALL
    repeats: int | None = None  # None: as the options say
    quick: tuple = ()           # variants of a quick run; none: left out
    only: Callable = field(default=lambda mode, variant: True)
    control: str = ""           # congestion control; none: the run's


def with_sides(rig, target, run, manner="echo", **values):
    """Servers and a proxy, fresh for this cell and gone after it."""
    servers = rig.servers(manner)
    proxy = None
    try:
        proxy = rig.proxy(target, **values)
        return run(proxy)
    finally:
        for child in filter(None, (proxy, servers)):
            rig.end(child)


def times(rig, warmup="500ms", length=1):
    return ("--duration", f"{length * rig.options.seconds}s", "--warmup", warmup)


# What a socket that talks for hours costs is measured when none is young any more: we serve one
# differently in its first second, or its first two where many were opened together.
SETTLED = "2500ms"


# A stall of the machine of 15 ms is the 99th percentile of a run of 1.5 s; of twice that it is not.
LATENCY_LENGTH = 2


def pid_of(proxy):
    return proxy.pid if proxy else None


def micro(value):
    return None if value is None else value / 1e3


def latencies(result):
    known = result["latency"]
    names = {"p50": "p50_us", "p99": "p99_us", "p99.9": "p999_us", "max": "max_us"}
    return {new: micro(known[old]) for old, new in names.items() if old in known}


def talk(rig, target, mode, variant):
    """Closed loop: every talker asks again when answered. `variant` is talkers, or T of N."""
    talkers, _, of = variant.partition(" of ")
    count = of or talkers
    more = ("--active", str(int(talkers) / int(of))) if of else ()

    def run(proxy):
        result = rig.load("run", target, mode, "-c", count, "--closed", *more,
                          *times(rig, SETTLED), pid=pid_of(proxy))
        return {"cpu_us": micro(result["target_cpu_per_round_ns"]),
                "rate": result["answered_rate"], **latencies(result)}
    return with_sides(rig, target, run)


def light(rig, target, mode, variant):
    def run(proxy):
        result = rig.load("run", target, mode, "-c", 2000, "--rate", variant,
                          *times(rig, SETTLED), pid=pid_of(proxy))
        return {"cpu_us": micro(result["target_cpu_per_round_ns"]), **latencies(result)}
    return with_sides(rig, target, run)


def bulk(rig, target, mode, variant):
    """One way, up: clients send, servers check and swallow."""
    def run(proxy):
        result = rig.load("bulk", target, mode, "-c", variant, "--direction", "up",
                          "--size", "64KiB", *times(rig), pid=pid_of(proxy))
        extra = result["extra"]
        return {"cpu_ns_byte": extra.get("target_cpu_ns_per_byte"),
                "gbit": extra["gigabits_per_second"]}
    return with_sides(rig, target, run, manner="sink", bulk=True)


def churn(rig, target, mode, variant):
    """Connect, handshake, one message, leave: a fixed number a second."""
    resumed = () if variant == "resumed" else ("--no-resumption",)

    def run(proxy):
        result = rig.load("churn", target, mode, "--rate", rig.options.churn_rate, *resumed,
                          *LATE_IS_FINE, *times(rig), pid=pid_of(proxy))
        opened = result["counts"]["measured_opened"]
        cpu = None
        if result["target"] and opened:
            cpu = result["target"]["measure_to"]["cpu_ns"]
            cpu = (cpu - result["target"]["measure_from"]["cpu_ns"]) / opened / 1e3
        return {"cpu_us": cpu, "resumed": result["extra"]["resumed_share_percent"],
                "connect_p50_us": micro(result["connect"]["p50"]),
                "connect_p99_us": micro(result["connect"]["p99"])}
    return with_sides(rig, target, run)


def ceiling(rig, target, mode, variant):
    """New connections a second: the rate doubles until it is not kept, then the gap is halved."""
    resumed = () if variant == "resumed" else ("--no-resumption",)

    def run(_):
        rate, best, lost = rig.options.churn_rate, None, None
        while rate < 200_000 and (lost is None or lost > 1.15 * best):
            try:
                result = rig.load("churn", target, mode, "--rate", int(rate), *resumed,
                                  "--duration", "2s", "--warmup", "500ms", "-c", 2000,
                                  *LATE_IS_FINE)
                kept = result["extra"]["connections_per_second"]
                good = kept >= 0.99 * rate and result["connect"]["p99"] <= 100e6
            except (Void, Broken):
                good = False        # more than somebody here can do, the generator included
            if good:
                best = kept
            else:
                lost = rate
            if best is None:
                break
            rate = 2 * best if lost is None else (best + lost) / 2
        if best is None:
            raise Broken(f"did not keep up with {rig.options.churn_rate} connections a second")
        return {"rate": best}
    return with_sides(rig, target, run)


def fixed(rig, target, mode, variant):
    """Latency at a share of what the slowest target can do; `rig.capacity` knows that."""
    rate = int(rig.capacity(mode) * int(variant.rstrip(" %")) / 100)

    def run(proxy):
        result = rig.load("run", target, mode, "-c", 1000, "--rate", rate,
                          *times(rig, SETTLED, LATENCY_LENGTH), pid=pid_of(proxy))
        return {"p99_us": None, **latencies(result), "rate": rate,
                "cpu_us": micro(result["target_cpu_per_round_ns"])}
    return with_sides(rig, target, run)


def idle(rig, target, mode, _):
    """User memory as the slope between N and 2N, silent and after each spoke; kernel beside it."""
    n = rig.options.idle
    samples, stop = [], threading.Event()
    watcher = threading.Thread(target=watch_kernel, args=(samples, stop), daemon=True)

    def run(proxy):
        watcher.start()
        return rig.load("idle", target, mode, "-c", 2 * n, "--steps", f"{n},{2 * n}",
                        "--hold", "1500ms", "--speak", "2s", pid=pid_of(proxy))
    try:
        result = with_sides(rig, target, run, small=True)
    finally:
        stop.set()
    if not result["target"]:
        # Only the kernel's part is of interest; the steps are found by the number of sockets.
        return {"kernel": slope_by_sockets(samples, 2)}
    looks = [(w["spoken"], w["look"]) for w in result["target"]["weighings"]]
    fresh = [look for spoken, look in looks if not spoken]
    spoken = [look for spoken, look in looks if spoken]
    per = lambda pair, key: (pair[1][key] - pair[0][key]) / n
    kernel = [at(samples, look["at_ns"]) for look in spoken]
    # At the second step the first N have spoken already: what is added are N silent ones.
    silent = (fresh[1]["own_bytes"] - spoken[0]["own_bytes"]) / n
    return {"user": per(spoken, "own_bytes"), "user_silent": silent,
            "rss": per(spoken, "rss_bytes"), "rss_zero": result["target"]["before"]["rss_bytes"],
            "kernel": (kernel[1] - kernel[0]) / n}


KERNEL_CACHES = ("TCP", "sock_inode_cache", "filp", "io_kiocb", "eventpoll_epi", "eventpoll_pwq",
                 "tcp_bind_bucket", "tcp_bind2_bucket", "request_sock_TCP")


def watch_kernel(samples, stop):
    while not stop.wait(0.1):
        try:
            lines = Path("/proc/slabinfo").read_text().splitlines()[2:]
        except OSError:
            return              # not allowed: the kernel column stays empty
        rows = {row[0]: int(row[1]) * int(row[3]) for row in map(str.split, lines)}
        sockets = Path("/proc/net/sockstat").read_text().split("TCP: inuse ")[1].split()[0]
        size = sum(rows.get(name, 0) for name in KERNEL_CACHES)
        samples.append((time.monotonic_ns(), size, int(sockets)))


def at(samples, moment):
    if not samples:
        return math.nan
    return min(samples, key=lambda sample: abs(sample[0] - moment))[1]


def slope_by_sockets(samples, sockets):
    """Bytes for each connection of so many sockets, from the emptiest to the fullest moment."""
    if not samples:
        return None
    low, high = min(samples, key=lambda s: s[2]), max(samples, key=lambda s: s[2])
    between = high[2] - low[2]
    return (high[1] - low[1]) / between * sockets if between else None


def broadcast(rig, target, mode, variant):
    """One server message to so many clients, five times a second."""
    proxy = rig.proxy(target, servers=1)
    child = None
    try:
        child, heard = special.broadcaster(rig, target, mode, int(variant))
        before = cpu_ns(proxy.pid) if proxy else None
        told = heard()
        spent = cpu_ns(proxy.pid) - before if proxy else None
        if told["late"] > told["rounds"] / 10:
            raise Broken(f"{told['late']} of {told['rounds']} broadcasts outlasted their period")
        return {"cpu_us": None if spent is None else spent / told["messages"] / 1e3,
                "all_ms": told["median_ms"], "worst_ms": told["worst_ms"]}
    finally:
        for one in filter(None, (child, proxy)):
            rig.end(one)


STORM = 2000                    # sockets that shake hands at once


def storm(rig, target, mode, _):
    """Peak memory while many shake hands as fast as the generator dials. A few did before, so that
    code and certificates are in memory when zero is taken; the kernel keeps the peak."""
    def run(proxy):
        rig.load("idle", target, mode, "-c", 20, "--hold", "100ms", "--speak", "100ms")
        time.sleep(0.3)
        family = (proxy.pid, *descendants(proxy.pid))
        for pid in family:
            Path(f"/proc/{pid}/clear_refs").write_text("5")     # the peak begins anew
        zero = sum(memory(pid, "VmRSS") for pid in family)
        result = rig.load("idle", target, mode, "-c", STORM, "--connect-rate", 100_000,
                          "--hold", "1s", "--speak", "500ms")
        peak = sum(memory(pid, "VmHWM") for pid in family)
        time.sleep(0.5)
        after = sum(memory(pid, "VmRSS") for pid in family)
        return {"peak": peak - zero, "each": (peak - zero) / STORM, "after": after - zero,
                "zero": zero, "open_max_ms": result["connect"]["max"] / 1e6}
    return with_sides(rig, target, run, small=True)


def memory(pid, name):
    """Bytes of one line of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise Broken(f"no {name} of process {pid}")


CPU = ("CPU of the proxy", "µs")
LATENCY = {"p50_us": ("latency p50", "µs"), "p99_us": ("latency p99", "µs"),
           "p999_us": ("latency p99.9", "µs"), "max_us": ("latency max", "µs")}
BULK = {"cpu_ns_byte": ("CPU of the proxy", "ns"), "gbit": ("through", "Gbit/s")}
KINDS = {"variants": ("full", "resumed"), "only": lambda mode, v: mode == "wss" or v == "full"}

CASES = (
    Case("idle", "Idle memory of one connection", idle, {
        "user": ("user memory, after traffic", "B"), "user_silent": ("user memory, silent", "B"),
        "rss": ("RSS, after traffic", "B"), "rss_zero": ("RSS with none", "B"),
        "kernel": ("kernel, all sides", "B")}, repeats=3, quick=("",)),
    Case("talk", "CPU of one round trip, sockets that ping-pong", talk,
         {"cpu_us": CPU, "rate": ("round trips", "/s"), **LATENCY},
         variants=("32", "1000", "8000", "1000 of 8000"), quick=("1000",)),
    Case("light", "CPU of one round trip, 2,000 sockets at a low rate", light,
         {"cpu_us": CPU, **LATENCY}, variants=("4000", "15000"), quick=("4000", "15000")),
    Case("bulk", "CPU of one byte, streams one way, 64 KiB writes", bulk, BULK,
         variants=("1", "16", "256"), quick=("16",)),
    Case("paced", "CPU of one byte where the congestion control is BBR", bulk, BULK,
         variants=("16",), targets=PROXIES, control="bbr"),
    Case("churn", "CPU of one connection, accept to close, one message", churn,
         {"cpu_us": CPU, "connect_p50_us": ("open p50", "µs"), "connect_p99_us": ("open p99", "µs"),
          "resumed": ("resumed", "%")}, quick=("full", "resumed"), **KINDS),
    Case("fixed", "Latency at shares of the slowest target's capacity, 1,000 sockets", fixed,
         {"p99_us": LATENCY["p99_us"], **LATENCY, "rate": ("messages", "/s"), "cpu_us": CPU},
         variants=("10 %", "50 %", "80 %"), quick=("50 %",)),
    Case("ceiling", "New connections a second", ceiling, {"rate": ("connections", "/s")},
         repeats=1, **KINDS),
    Case("broadcast", "One server message to all", broadcast,
         {"cpu_us": ("CPU of the proxy for each client", "µs"),
          "all_ms": ("until the last has it", "ms"), "worst_ms": ("worst", "ms")},
         variants=("1000",), targets=PROXIES),
    Case("storm", f"Peak memory while {STORM:,} wss sockets shake hands at once", storm,
         {"peak": ("peak above zero, RSS", "B"), "each": ("peak of each socket", "B"),
          "after": ("kept when all are gone", "B"), "zero": ("zero: started, 20 came and went", "B"),
          "open_max_ms": ("until the last is open", "ms")},
         modes=("wss",), targets=PROXIES, repeats=3, quick=("",)),
    Case("silence", "First byte after silence, 500 sockets each", special.silence, LATENCY,
         targets=("together",), modes=("all",), repeats=1),
    Case("nat", "10,000 users behind one address, 8 servers", special.nat,
         {"busiest": ("share of the busiest server", "%"), "used": ("servers used", "")},
         variants=tuple(special.NAT), modes=("all",), targets=OURS, repeats=3,
         quick=tuple(special.NAT)),
    Case("bytes", "The same without frame boundaries (relay = \"bytes\")", special.bytes_price,
         {"cpu_us": ("CPU of one round trip, 1,000 sockets", "µs"),
          "user": ("user memory of an idle connection", "B")},
         modes=("ws-bytes",), targets=OURS, repeats=3, quick=("",)),
    Case("size", "Message size, 16 sockets that ping-pong", special.size,
         {"cpu_us": CPU, "cpu_ns_byte": ("CPU for each byte", "ns")},
         variants=special.SIZES, modes=("l4", "ws"), targets=PROXIES, repeats=3),
    Case("connections", "More and more connections", special.connections,
         {"user": ("user memory of one connection", "B"), "cpu_us": CPU,
          "reload_ms": ("CPU of a reload", "ms"),
          "drain_us": ("CPU of a drain, each connection", "µs")},
         variants=special.COUNTS, modes=("l4",), targets=OURS, repeats=1),
    Case("servers", "More and more servers", special.fleet,
         {"cpu_us": ("CPU of one connection", "µs")},
         variants=special.FLEETS, modes=("l4",), targets=OURS, repeats=3),
    Case("cores", "One worker, two workers", special.cores,
         {"cpu_us": CPU, "rate": ("round trips", "/s")},
         variants=("1", "2"), modes=("l4", "ws"), targets=OURS, repeats=3),
)

# The cells of the figures to reach: measured before all others. The servers' own floor (`direct`)
# is measured once; a proxy's cells are what is repeated.
HEADLINE = {"idle": ("",), "talk": ("1000",), "light": ("4000", "15000"), "bulk": ("16",),
            "churn": ("full", "resumed"), "fixed": ("50 %",)}
HEADLINE_ROUNDS = 3             # before anything else gets its turn
THEN = ("storm", "nat", "bytes", "paced", "silence", "broadcast", "connections", "servers", "size",
        "cores")


def order(repeats, headline_repeats):
    """(case, variant, round) of all there is, the order in which it is worth having: a budget may
    end it anywhere, and each round is whole before the next begins."""
    by_name = {case.name: case for case in CASES}
    rounds = lambda case, most=repeats: range(min(most, case.repeats or most))

    def headline(wanted):
        for turn in wanted:
            for name, variants in HEADLINE.items():
                if turn in rounds(by_name[name], headline_repeats):
                    yield from ((by_name[name], variant, turn) for variant in variants)

    def others(wanted):
        named = [by_name[name] for name in THEN]
        rest = [case for case in CASES if case.name not in THEN]
        for turn in wanted:
            for case in named + rest:
                if turn in rounds(case):
                    yield from ((case, variant, turn) for variant in case.variants
                                if variant not in HEADLINE.get(case.name, ()))

    yield from headline(range(HEADLINE_ROUNDS))
    yield from ((c, v, turn) for c, v, turn in others(range(1)) if c.name in THEN)
    yield from headline(range(HEADLINE_ROUNDS, headline_repeats))
    yield from ((c, v, turn) for c, v, turn in others(range(1)) if c.name not in THEN)
    yield from others(range(1, repeats))
