"""Where the cores of a virtual machine were while a cell was measured. The host moves them about,
and on another cache memory takes five times as long from one core to the other: what is measured
then is another machine, and a program that wakes or shares more loses more. `standpipe-load hop`
tells."""

import statistics

from .cases import PEERS

UNLIKE = 2.0                    # times the usual hop of the run, or that part of it
ROUNDS_MIN = 3                  # with fewer rounds at the usual hop there are to be more


def group_of(cell):
    """What is compared with each other. `direct` is the floor: it is compared with nothing."""
    return (cell["case"], cell["mode"], cell["variant"], cell["target"] == "direct")


class Placement:
    """Every cell by where the cores were: as usual, farther apart before and after, or neither."""

    def __init__(self, cells):
        self.hop = statistics.median([hop for cell in cells for hop in cell.get("hop_ns", ())] or [0])
        self.groups = {}
        for cell in cells:
            self.groups.setdefault(group_of(cell), []).append(cell)
        self.likes = {group: self.like_rounds(found) for group, found in self.groups.items()}

    def usual(self, cell):
        """A run whose hop could not be told may have been anywhere, unless none could."""
        low, high = self.hop / UNLIKE, self.hop * UNLIKE
        hops = cell.get("hop_ns", ())
        return not self.hop or (len(hops) == 2 and all(low <= hop <= high for hop in hops))

    def apart(self, cell):
        hops = cell.get("hop_ns", ())
        return len(hops) == 2 and min(hops) > self.hop * UNLIKE

    def like_rounds(self, cells):
        """How many rounds have ours and a peer as usual, of that peer which has fewest of them."""
        turns = {}
        for cell in cells:
            if "figures" in cell:
                found = turns.setdefault(cell["target"], set())
                found |= {cell["repeat"]} if self.usual(cell) else set()
        ours = turns.get("standpipe")
        pairs = [found if ours is None else found & ours
                 for target, found in turns.items() if target in PEERS]
        return min(map(len, pairs or turns.values()), default=0)

    def few(self):
        """(group, round) of runs that were not as usual, of what has too few rounds that were. The
        floor is measured once, wherever that was."""
        return {(group, cell["repeat"]) for group, found in self.groups.items() for cell in found
                if self.likes[group] < ROUNDS_MIN and not group[-1] and not self.usual(cell)}

    def count(self, cells):
        """The cells whose figures count: those as usual, where there is a round of such. What went
        wrong is told wherever the cores were."""
        return [cell for cell in cells if "figures" not in cell or self.usual(cell)
                or self.likes[group_of(cell)] == 0]

    def far(self, cells):
        """The cells that had the cores apart before and after."""
        return [cell for cell in cells if self.apart(cell)]

    def words(self):
        """Notes for the summary."""
        runs = [cell for found in self.groups.values() for cell in found
                if "figures" in cell and cell["case"] != "capacity"]
        away = [cell for cell in runs if not self.usual(cell)]
        if not away:
            return []
        only = sorted({" ".join(filter(None, (*group_of(cell)[:3], group_of(cell)[3] and "direct")))
                       for cell in away if self.likes[group_of(cell)] == 0})
        more = (f" Where there is no round without such they count all the same: {'; '.join(only)}."
                if only else "")
        return [f"Before or after {len(away)} of {len(runs)} runs the host had the two cores elsewhere "
                f"than usual ({len(self.far(runs))}: farther apart both times): the hop between them was "
                f"more than {UNLIKE:g} times the usual {self.hop:.0f} ns, less than half of it, or could "
                f"not be told. They do not count where others do.{more}"]
