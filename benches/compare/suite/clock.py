"""What other work takes of the machine, and how long a run has still to go."""

import os
import resource
import time
from pathlib import Path

GUESS_S = {"idle": 8, "silence": 75, "connections": 32, "nat": 9, "bytes": 12, "ceiling": 20}
GUESS_OTHER_S = 3.5             # until a case has been timed


class Others:
    """What other work took of the machine since this began: all that was not idle, without what
    this process and the children it waited for used."""

    def __init__(self):
        self.began, self.all, self.ours = time.monotonic(), busy_s(), our_s()

    def share(self):
        spent = time.monotonic() - self.began
        others = (busy_s() - self.all) - (our_s() - self.ours)
        return round(max(0.0, others) / max(0.01, spent * os.cpu_count()), 3)


def busy_s():
    ticks = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")    # idle and iowait


def our_s():
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


class Clock:
    """How long the rest will take, by what each case has taken so far."""

    def __init__(self, book, options, began):
        self.took, self.began, self.budget = {}, began, options.budget
        for cell in book.cells:
            self.learn(cell)

    def learn(self, cell):
        if "took_s" in cell:
            self.took.setdefault(self.kind(cell["case"], cell["variant"]), []).append(cell["took_s"])

    @staticmethod
    def kind(case, variant):
        return (case, variant if case == "connections" else "")

    def guess(self, one):
        case, _, variant, _, _ = one
        known = self.took.get(self.kind(case.name, variant))
        return sum(known) / len(known) if known else GUESS_S.get(case.name, GUESS_OTHER_S)

    def over(self, one):
        minutes = (time.monotonic() - self.began + self.guess(one)) / 60
        if self.budget and minutes > self.budget:
            print(f"the budget of {self.budget:g} minutes is used up; run again to go on")
            return True
        return False

    def words(self, number, cells):
        """How far this is, and how long the rest takes."""
        gone = (time.monotonic() - self.began) / 60
        left = sum(map(self.guess, cells[number:])) / 60
        ends = f", budget leaves {self.budget - gone:.1f}" if self.budget else ""
        return f"{number + 1}/{len(cells)} {gone:.1f} min, {left:.1f} to go{ends}"
