"""Raw cells to medians, the table of figures to reach, the summary page, and the plots."""

import statistics

from . import plot
from .cases import CASES, PEERS
from .rig import MODES

TARGETS = ("direct", "standpipe", *PEERS)
TITLES = {"l4": "L4", "ws": "ws", "wss": "wss", "ws-bytes": "ws, bytes"}

# (words, case, variants, figure, {mode: ratio to reach}); of several variants the worst counts.
GOALS = (
    ("idle user memory per connection", "idle", ("",), "user",
     {"l4": 0.12, "ws": 0.12, "wss": 0.08}),
    ("CPU per round trip, 1,000 sockets", "talk", ("1000",), "cpu_us",
     {"l4": 0.80, "ws": 0.87, "wss": 0.70}),
    ("CPU per round trip at light load, 4,000/s", "light", ("4000",), "cpu_us",
     {"l4": 1.0, "ws": 1.0, "wss": 1.0}),
    ("CPU per round trip at light load, 15,000/s", "light", ("15000",), "cpu_us",
     {"l4": 1.0, "ws": 1.0, "wss": 1.0}),
    ("bulk CPU per byte, 16 streams", "bulk", ("16",), "cpu_ns_byte",
     {"l4": 0.6, "ws": 1.0, "wss": 0.70}),
    ("CPU per new connection, accept to close", "churn", ("full",), "cpu_us",
     {"l4": 1.0, "ws": 0.83, "wss": 1.0}),
    ("p99 at half the slowest peer's capacity", "fixed", ("50 %",), "p99_us",
     {"l4": 1.0, "ws": 1.0, "wss": 1.0}),
)


PLACE = ("case", "mode", "variant", "target")


def words_of(cell):
    return " ".join(filter(None, (cell[name] for name in PLACE)))


class Figures:
    """Medians of everything measured, and ratios of what was measured side by side."""

    def __init__(self, cells):
        self.values, self.troubles, self.counts, self.rounds = {}, {}, {}, {}
        for cell in cells:
            place = (cell["case"], cell["mode"], cell["variant"], cell["target"])
            if "figures" not in cell:
                # (The generator's advice is for whoever runs it by hand.)
                why = cell["trouble"].partition(", so latencies")[0]
                self.troubles.setdefault(place, []).append(why)
                continue
            self.counts[place] = self.counts.get(place, 0) + 1
            for name, value in cell["figures"].items():
                if isinstance(value, (int, float)):
                    self.values.setdefault((*place, name), []).append(value)
                    self.rounds.setdefault((*place, name), {})[cell["repeat"]] = value
                elif isinstance(value, str):
                    self.troubles.setdefault(place, []).append(value)

    def of(self, case, mode, variant, target, name):
        """(median, low, high), or None."""
        values = self.values.get((case, mode, variant, target, name))
        return (statistics.median(values), min(values), max(values)) if values else None

    def repeats(self, headline):
        """How often cells were measured, fewest and most: of the figures table, and of the rest."""
        counts = {"figures table": [], "other cells": []}
        for (case, _, variant, target), count in self.counts.items():
            if target in ("direct", "slowest"):
                continue            # the floor is measured once, capacity is taken from talk
            kind = "figures table" if variant in headline.get(case, ()) else "other cells"
            counts[kind].append(count)
        return {kind: [min(found), max(found)] for kind, found in counts.items() if found}

    def loud(self):
        """What went wrong and was to go right: one line for each cell; an absent peer is no fault."""
        lines = []
        for place, found in sorted(self.troubles.items()):
            found = [why for why in found if "not installed" not in why]
            if found:
                often = f"{len(found)} times, at last " if len(found) > 1 else ""
                lines.append(f"{words_of(dict(zip(PLACE, place)))}: {often}{found[-1]}")
        return lines

    def trouble(self, case, mode, variant, target):
        found = self.troubles.get((case, mode, variant, target))
        return found[-1] if found else None

    def ratio(self, case, mode, variant, name):
        """Ours to the better of the peers: ((median, low, high), the peer's name), or None. Each
        round gives one ratio, of two runs that stood next to each other, because the machine may be
        fast in one round and slow in another; the better peer is that with the higher median."""
        found = []
        for peer in PEERS:
            ratios = self.ratios(case, mode, variant, name, peer)
            if ratios:
                found.append(((statistics.median(ratios), min(ratios), max(ratios)), peer))
        return max(found, default=None)

    def ratios(self, case, mode, variant, name, peer):
        """Ours to this peer's, of each round that has both."""
        ours = self.rounds.get((case, mode, variant, "standpipe", name), {})
        theirs = self.rounds.get((case, mode, variant, peer, name), {})
        return [ours[turn] / theirs[turn] for turn in ours if theirs.get(turn, 0) > 0]


def goals(figures, absent="not run"):
    """The table of figures to reach, and whether they were; `absent` stands where there is none."""
    rows = ["| ratio to the better of HAProxy and nginx | L4 | ws | wss |", "|---|---|---|---|"]
    for words, case, variants, name, wanted in GOALS:
        row = [words]
        for mode in MODES:
            found = [figures.ratio(case, mode, variant, name) for variant in variants]
            if None in found:
                why = figures.trouble(case, mode, variants[0], "standpipe")
                # The particulars are told once, at the case.
                why = (why or "").removeprefix("void: ").split(":")[0]
                row.append(f"{absent}: {why}" if why else absent)
                continue
            ((ratio, low, high), peer), variant = max(zip(found, variants))
            met = "met" if ratio <= wanted[mode] else "**missed**"
            count = len(figures.ratios(case, mode, variant, name, peer))
            rounds = "one round" if count == 1 else f"{low:.2f}–{high:.2f} in {count}"
            # Where two digits would hide why it is missed there are four.
            shown = f"{ratio:.2f}" if (float(f"{ratio:.2f}") <= wanted[mode]) == (met == "met") \
                else f"{ratio:.4f}"
            row.append(f"{shown} ({rounds}, {peer}), wanted ≤ {wanted[mode]:g}: {met}")
        rows.append("| " + " | ".join(row) + " |")
    return "\n".join(rows)


def cell_text(known):
    if not known:
        return "–"
    median, low, high = known
    if low == high:
        return plot.show(median)
    return f"{plot.show(median)} ({plot.show(low)}–{plot.show(high)})"


def section(case, figures):
    """One case: a table for each figure that has values, and what was not run."""
    out, notes = [f"## {case.title}", ""], []
    for name, (words, unit) in case.figures.items():
        rows = []
        for mode in case.modes:
            for variant in case.variants:
                if not case.only(mode, variant):
                    continue
                known = [figures.of(case.name, mode, variant, t, name) for t in case.targets]
                if any(known):
                    label = " ".join(filter(None, (TITLES.get(mode, mode), variant)))
                    rows.append(f"| {label} | " + " | ".join(map(cell_text, known)) + " |")
        if rows:
            unit = f", {unit}" if unit else ""
            out += [f"| {words}{unit} | " + " | ".join(case.targets) + " |",
                    "|---|" + "---|" * len(case.targets), *rows, ""]
    for place, found in figures.troubles.items():
        if place[0] == case.name:
            words = " ".join(filter(None, (TITLES.get(place[1], place[1]), place[2], place[3])))
            notes.append(f"* {words}: not run ({len(found)}×): {found[-1]}")
    if len(out) == 2 and not notes:
        return ""
    return "\n".join([*out, *sorted(set(notes)), ""])


def silence_section(figures):
    """`silence` runs all targets together and names its figures target/mode/percentile."""
    values = {key[4]: key for key in figures.values if key[0] == "silence"}
    if not values:
        return ""
    out = ["## First byte after silence", "", "| latency, µs | p50 | p99 | max |", "|---|---|---|---|"]
    for mode in MODES:
        for target in TARGETS:
            known = [figures.of("silence", "all", "", "together", f"{target}/{mode}/{name}")
                     for name in ("p50_us", "p99_us", "max_us")]
            if any(known):
                out.append(f"| {TITLES[mode]} {target} | " + " | ".join(map(cell_text, known)) + " |")
    return "\n".join([*out, ""])


def repeats(machine):
    known = [f"{kind} {low}–{high}" if low != high else f"{kind} {low}"
             for kind, (low, high) in machine["repeats"].items()]
    return f"Runs of each cell: {', '.join(known)}." if known else "Nothing was measured yet."


def network(machine):
    """What sockets were made in; older results name the host's congestion control, or nothing."""
    host = machine.get("congestion_control")
    known = machine.get("network", host and f"{host} for congestion control")
    return f" ({known})" if known else ""


def page(machine, figures, every, apart, pictures):
    out = [f"# standpipe beside HAProxy and nginx: {machine['date']}", "",
           f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux "
           f"{machine['kernel']}{network(machine)}; {'; '.join(machine['versions'].values())}.", "",
           f"{machine['how']} {repeats(machine)}", "",
           "Numbers are medians, with the lowest and the highest run in brackets. `direct` is "
           "client and server without a proxy: the floor.", "",
           "## Figures to reach", "",
           "Medians of the ratios of single rounds; in brackets the lowest and the highest, of how "
           "many, and the peer.", "", goals(figures), ""]
    if every is not figures:
        out += ["### Of all runs, wherever the cores were", "", goals(every), ""]
    if apart.rounds:
        out += ["### With the cores apart", "",
                "Of the runs that had the cores farther apart than usual before and after.", "",
                goals(apart, "none"), ""]
    if machine["trouble"]:
        out[2:2] = ["**Not all is well: these were void or went wrong, and are missing below.**", "",
                    *(f"* {line}" for line in machine["trouble"]), ""]
    if machine["notes"]:
        out += ["Notes:", "", *(f"* {note}" for note in machine["notes"]), ""]
    for case in CASES:
        text = silence_section(figures) if case.name == "silence" else section(case, figures)
        out += [text] if text else []
    if pictures:
        out += ["## Plots", "", *(f"![{name}]({name}.svg)" for name in sorted(pictures)), ""]
    return "\n".join(out)


def bar_plot(figures, case, variant, name, title, label, note="", names=TARGETS[1:], log=False):
    values = {(TITLES[mode], target): figures.of(case, mode, variant, target, name)
              for mode in MODES for target in names}
    groups = [TITLES[mode] for mode in MODES if any(values[TITLES[mode], t] for t in names)]
    return plot.bars(title, groups, names, values, "kind of connection", label, note, log)


def line_plot(figures, case, mode, variants, names, key, title, x_label, y_label, note="", **more):
    series = {}
    for target in names:
        for variant in variants:
            known = figures.of(case, mode, variant, target, key)
            if known:
                x = float(variant.split()[0].replace(",", ""))
                series.setdefault(target, []).append((x, *known))
    return plot.lines(title, series, x_label, y_label, note, **more)


BETTER = "lower is better; whiskers: lowest and highest run"


def plots(figures):
    """Every picture there are figures for, by name."""
    cases = {case.name: case for case in CASES}
    out = {
        "memory": bar_plot(figures, "idle", "", "user", "User memory of an idle connection",
                           "bytes (logarithmic)", BETTER, log=True),
        "talk": bar_plot(figures, "talk", "1000", "cpu_us",
                         "CPU of one round trip, 1,000 sockets that ping-pong",
                         "CPU of the proxy, µs", BETTER),
        "bulk": bar_plot(figures, "bulk", "16", "cpu_ns_byte", "CPU of one byte, 16 streams",
                         "CPU of the proxy, ns", BETTER),
        "churn": bar_plot(figures, "churn", "full", "cpu_us",
                          "CPU of one connection, accept to close", "CPU of the proxy, µs", BETTER),
        "latency": bar_plot(figures, "fixed", "50 %", "p99_us",
                            "Latency at half the slowest target's capacity", "p99, µs", BETTER,
                            names=TARGETS),
        "nat": nat_plot(figures),
        "price": price_plot(figures),
        "growth-servers": line_plot(
            figures, "servers", "l4", cases["servers"].variants, ("standpipe",), "cpu_us",
            "A connection among more and more servers", "servers in the pool",
            "CPU of one connection, µs"),
        "growth-connections-cpu": line_plot(
            figures, "connections", "l4", cases["connections"].variants, ("standpipe",), "cpu_us",
            "500 talking among more and more connections", "connections",
            "CPU of one round trip, µs"),
        "growth-connections-memory": line_plot(
            figures, "connections", "l4", cases["connections"].variants, ("standpipe",), "user",
            "Memory of a connection among more and more", "connections", "user memory, bytes"),
        "growth-reload": line_plot(
            figures, "connections", "l4", cases["connections"].variants, ("standpipe",),
            "reload_ms", "A new table while more and more connections live", "connections",
            "CPU of a reload, ms"),
        "growth-drain": line_plot(
            figures, "connections", "l4", cases["connections"].variants, ("standpipe",),
            "drain_us", "Draining seven of eight servers", "connections",
            "CPU of each drained connection, µs"),
    }
    for mode in MODES:
        out[f"sockets-{mode}"] = line_plot(
            figures, "talk", mode, ("32", "1000", "8000"), TARGETS[1:], "cpu_us",
            f"{TITLES[mode]}: CPU of one round trip", "sockets that ping-pong",
            "CPU of the proxy, µs", BETTER)
        out[f"latency-{mode}"] = line_plot(
            figures, "fixed", mode, cases["fixed"].variants, TARGETS, "p99_us",
            f"{TITLES[mode]}: latency under a fixed rate",
            "rate, % of the slowest target's capacity", "p99, µs (logarithmic)", BETTER,
            log_x=False, log_y=True)
        out[f"growth-size-{mode}"] = line_plot(
            figures, "size", mode, cases["size"].variants, TARGETS[1:], "cpu_ns_byte",
            f"{TITLES[mode]}: messages from 32 B to 1 MiB", "bytes of a message",
            "CPU for each byte, ns (logarithmic)", BETTER, log_y=True)
    return {name: text for name, text in out.items() if text}


def nat_plot(figures):
    variants = next(case for case in CASES if case.name == "nat").variants
    values = {(variant, "standpipe"): figures.of("nat", "all", variant, "standpipe", "busiest")
              for variant in variants}
    return plot.bars("10,000 users behind one address, 8 servers", list(variants), ("standpipe",),
                     values, "how servers are chosen", "users on the busiest server, %",
                     "an even split is 12.5 %")


def price_plot(figures):
    """L4 to L7, each in units of the same proxy's own L4."""
    values, groups = {}, []
    for case, variant, name, words in (("idle", "", "user", "memory"),
                                       ("talk", "1000", "cpu_us", "CPU")):
        for mode in ("ws-bytes", "ws", "wss"):
            group = f"{words}: {TITLES[mode]}"
            for target in TARGETS[1:]:
                base = figures.of(case, "l4", variant, target, name)
                here = figures.of("bytes", mode, "", target, name) if mode == "ws-bytes" \
                    else figures.of(case, mode, variant, target, name)
                if base and here and base[0] > 0:
                    values[group, target] = tuple(value / base[0] for value in here)
                    groups += [group] if group not in groups else []
    return plot.bars("L7 at L4 prices: what seeing more costs", groups, TARGETS[1:], values,
                     "an idle connection's memory, a round trip's CPU", "times the same proxy's L4",
                     "1 would be the price of a raw TCP pipe") if groups else None
