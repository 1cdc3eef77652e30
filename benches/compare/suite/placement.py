"""Where the cores of a virtual machine were while a cell was measured. The host moves them about,
and on another cache memory takes five times as long from one core to the other: what is measured
then is another machine, and a program that wakes or shares more loses more. `standpipe-load hop`
tells."""

import statistics

UNLIKE = 2.0                    # times the usual hop of the run, or that part of it
RUNS_MIN = 3                    # with fewer runs at the usual hop there are to be more


def group_of(cell):
    """What is compared with each other. `direct` is the floor: it is compared with nothing."""
    return (cell["case"], cell["mode"], cell["variant"], cell["target"] == "direct")


class Placement:
    """Every cell by where the cores were: as usual, farther apart all the time, or neither."""

    def __init__(self, cells):
        self.hop = statistics.median([hop for cell in cells for hop in cell.get("hop_ns", ())] or [0])
        self.groups = {}
        for cell in cells:
            self.groups.setdefault(group_of(cell), []).append(cell)
        self.seldom = {group: self.least_runs(found) for group, found in self.groups.items()}

    def usual(self, cell):
        low, high = self.hop / UNLIKE, self.hop * UNLIKE
        return all(low <= hop <= high for hop in cell.get("hop_ns", ()))

    def apart(self, cell):
        hops = cell.get("hop_ns", ())
        return bool(hops) and min(hops) > self.hop * UNLIKE

    def least_runs(self, cells):
        """Runs as usual of that target which has fewest of them."""
        runs = {}
        for cell in cells:
            if "figures" in cell:
                target = cell["target"]
                runs[target] = runs.get(target, 0) + self.usual(cell)
        return min(runs.values(), default=0)

    def few(self):
        """(group, round) of runs that were not as usual, of what has too few that were."""
        return {(group, cell["repeat"]) for group, found in self.groups.items() for cell in found
                if self.seldom[group] < RUNS_MIN and not self.usual(cell)}

    def count(self, cells):
        """The cells whose figures count: those as usual, where each target has one. What went wrong
        is told wherever the cores were."""
        return [cell for cell in cells if "figures" not in cell or self.usual(cell)
                or self.seldom[group_of(cell)] == 0]

    def far(self, cells):
        """The cells that had the cores apart all the time."""
        return [cell for cell in cells if self.apart(cell)]

    def words(self):
        """Notes for the summary."""
        every = [cell for found in self.groups.values() for cell in found]
        away = [cell for cell in every if not self.usual(cell)]
        if not away:
            return []
        only = sorted({" ".join(filter(None, (*group_of(cell)[:3], group_of(cell)[3] and "direct")))
                       for cell in away if self.seldom[group_of(cell)] == 0})
        more = (f" Where a target has no other run they count all the same: {'; '.join(only)}."
                if only else "")
        return [f"In {len(away)} of {len(every)} runs the host had moved the two cores elsewhere for a "
                f"time ({len(self.far(every))}: farther apart all the time): the hop between them was "
                f"more than {UNLIKE:g} times the usual {self.hop:.0f} ns, or less than half of it. They "
                f"do not count where others do.{more}"]
