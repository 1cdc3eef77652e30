"""Where the cores of a virtual machine were while a cell was measured. The host moves them about,
and on another cache memory takes five times as long from one core to the other: what is measured
then is another machine, and a program that wakes or shares more loses more. `standpipe-load hop`
tells."""

import itertools
import statistics

UNLIKE = 2.0                    # times the usual hop of the run, or that part of it
ROUNDS_MIN = 3                  # with fewer rounds of the usual hop there are to be more


def round_of(cell):
    """What was measured side by side. `direct` is the floor: it is compared with nothing."""
    alone = cell["target"] == "direct"
    return (cell["case"], cell["mode"], cell["variant"], alone, cell["repeat"])


class Placement:
    """Every round by where the cores were: as usual, farther apart all the time, or neither."""

    def __init__(self, cells):
        hops = {}
        for cell in cells:
            hops.setdefault(round_of(cell), []).extend(cell.get("hop_ns", ()))
        self.hop = statistics.median([hop for found in hops.values() for hop in found] or [0])
        low, high = self.hop / UNLIKE, self.hop * UNLIKE
        self.usual = {key for key, found in hops.items() if all(low <= hop <= high for hop in found)}
        self.apart = {key for key, found in hops.items() if found and min(found) > high}
        self.rounds = {}
        for key in hops:
            self.rounds.setdefault(key[:-1], set()).add(key)

    def as_usual(self, cells):
        """Whether all of these are of rounds that had the cores where they usually are."""
        return all(round_of(cell) in self.usual for cell in cells)

    def few(self):
        """Rounds that were not as usual, of what has too few that were."""
        return set(itertools.chain.from_iterable(
            group - self.usual for group in self.rounds.values()
            if len(group & self.usual) < ROUNDS_MIN))

    def count(self, cells):
        """The cells whose figures count: of rounds as usual, where there are any. What went wrong
        is told wherever the cores were."""
        alone = {key for group in self.rounds.values() if not group & self.usual for key in group}
        return [cell for cell in cells
                if "figures" not in cell or round_of(cell) in self.usual | alone]

    def far(self, cells):
        """The cells of rounds that had the cores apart all the time."""
        return [cell for cell in cells if round_of(cell) in self.apart]

    def words(self):
        """Notes for the summary."""
        away = [key for group in self.rounds.values() for key in group - self.usual]
        if not away:
            return []
        only = sorted({" ".join(filter(None, key[:3])) for group in self.rounds.values()
                       for key in group if not group & self.usual})
        total = sum(map(len, self.rounds.values()))
        more = (f" Of these there is no other round, so they count all the same: "
                f"{'; '.join(only)}.") if only else ""
        return [f"In {len(away)} of {total} rounds the host had moved the two cores elsewhere for a "
                f"time ({len(self.apart)}: farther apart all the time): the hop between them was more "
                f"than {UNLIKE:g} times the usual {self.hop:.0f} ns, or less than half of it. They do "
                f"not count where others do.{more}"]
