"""Whether the cores of a virtual machine were near each other while a cell was measured. The host
moves them about; on another cache each message's memory takes five times as long from one core to
the other, and a program that wakes or shares more loses more. `standpipe-load hop` tells."""

import itertools

APART = 2.0                     # times the shortest hop of the whole run
ROUNDS_MIN = 3                  # with fewer rounds near each other the rest is measured again


def limit_of(cells):
    """The longest hop, in ns, that counts as near; None where hops are not known."""
    known = [hop for cell in cells for hop in cell.get("hop_ns", ())]
    return APART * min(known) if known else None


def round_of(cell):
    """What was measured side by side. `direct` is the floor: it is compared with nothing."""
    alone = cell["target"] == "direct"
    return (cell["case"], cell["mode"], cell["variant"], alone, cell["repeat"])


class Placement:
    """Every round by where the cores were: near all the time, apart all the time, or moved."""

    def __init__(self, cells):
        limit, hops = limit_of(cells), {}
        for cell in cells:
            hops.setdefault(round_of(cell), []).extend(cell.get("hop_ns", ()))
        self.near = {key for key, found in hops.items() if not found or max(found) <= limit}
        self.apart = {key for key, found in hops.items() if found and min(found) > limit}
        self.rounds = {}
        for key in hops:
            self.rounds.setdefault(key[:-1], set()).add(key)

    def near_all(self, cells):
        """Whether all of these are of rounds near each other."""
        return all(round_of(cell) in self.near for cell in cells)

    def few(self):
        """Rounds that were not near, of what has too few that were."""
        groups = self.rounds.values()
        return set(itertools.chain.from_iterable(
            group - self.near for group in groups if len(group & self.near) < ROUNDS_MIN))

    def count(self, cells):
        """The cells whose figures count: of rounds near all the time, where there are any. What went
        wrong is told wherever the cores were."""
        alone = {key for group in self.rounds.values() if not group & self.near for key in group}
        return [cell for cell in cells
                if "figures" not in cell or round_of(cell) in self.near | alone]

    def far(self, cells):
        """The cells of rounds that had the cores apart all the time."""
        return [cell for cell in cells if round_of(cell) in self.apart]

    def words(self):
        """Notes for the summary."""
        away = [key for group in self.rounds.values() for key in group - self.near]
        if not away:
            return []
        only = sorted({" ".join(filter(None, key[:3])) for group in self.rounds.values()
                       for key in group if not group & self.near})
        total = sum(map(len, self.rounds.values()))
        more = (f" Of these there is no better round, so they count all the same: "
                f"{'; '.join(only)}.") if only else ""
        return [f"In {len(away)} of {total} rounds the host had moved the cores to different caches "
                f"for a time ({len(self.apart)}: all the time): a hop between them took more than "
                f"{APART:g} times the shortest of the run. They do not count where others do." + more]
