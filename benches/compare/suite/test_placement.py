"""Which runs count when a host moves the cores about."""

import unittest

from suite.placement import Placement
from suite.summary import Figures

NEAR, FAR, MOVED = [60, 70], [320, 330], [60, 330]
TWINS = [28, 28]                # two threads of one core


def cells(variant="1000", **hops):
    """Runs of each target, by the hops around them."""
    return [{"case": "talk", "mode": "l4", "variant": variant, "target": target, "repeat": turn,
             "figures": {"cpu_us": float(turn + 1)}, "hop_ns": hop}
            for target, found in hops.items() for turn, hop in enumerate(found)]


def turns(cells, target):
    return [cell["repeat"] for cell in cells if cell["target"] == target]


class Runs(unittest.TestCase):
    def test_runs_as_usual_count_and_those_apart_have_a_table_of_their_own(self):
        book = cells(standpipe=[NEAR, FAR, MOVED, NEAR, NEAR, TWINS],
                     haproxy=[NEAR, FAR, NEAR, FAR, NEAR, NEAR])
        placement = Placement(book)
        self.assertEqual(turns(placement.count(book), "standpipe"), [0, 3, 4])
        self.assertEqual(turns(placement.count(book), "haproxy"), [0, 2, 4, 5])
        self.assertEqual(turns(placement.far(book), "standpipe"), [1])
        self.assertEqual(turns(placement.far(book), "haproxy"), [1, 3])
        # Of rounds 0 and 4 only: in the others one of the two was not as usual.
        ratios = Figures(placement.count(book)).ratios("talk", "l4", "1000", "cpu_us", "haproxy")
        self.assertEqual(len(ratios), 2)
        words, = placement.words()
        self.assertIn("Before or after 5 of 12 runs", words)
        self.assertIn("(3: farther apart both times)", words)
        self.assertIn("the usual 70 ns", words)
        self.assertNotIn("count all the same", words)

    def test_where_no_round_has_both_as_usual_all_count_and_it_is_said(self):
        book = cells(standpipe=[FAR, MOVED, NEAR], haproxy=[NEAR, NEAR, FAR]) + \
            cells("32", standpipe=[NEAR, NEAR], haproxy=[NEAR, NEAR])
        placement = Placement(book)
        self.assertEqual(placement.count(book), book)
        self.assertIn("count all the same: talk l4 1000.", placement.words()[0])

    def test_what_went_wrong_is_told_wherever_the_cores_were(self):
        trouble = {"case": "talk", "mode": "l4", "variant": "1000", "target": "nginx", "repeat": 2,
                   "trouble": "ended at once"}
        book = cells(standpipe=[NEAR, NEAR, FAR]) + [trouble]
        counted = Placement(book).count(book)
        self.assertEqual(turns(counted, "standpipe"), [0, 1])
        self.assertIn(trouble, counted)

    def test_cores_that_are_always_far_are_how_this_machine_is(self):
        book = cells(standpipe=[FAR, FAR, FAR])
        placement = Placement(book)
        self.assertEqual(placement.count(book), book)
        self.assertEqual((placement.far(book), placement.words(), placement.few()), ([], [], set()))

    def test_a_hop_that_could_not_be_told_may_have_been_any(self):
        book = cells(standpipe=[NEAR, [60], [], NEAR])
        self.assertEqual(turns(Placement(book).count(book), "standpipe"), [0, 3])

    def test_results_that_know_no_hops_count(self):
        book = cells(standpipe=[[], []])
        for cell in book:
            del cell["hop_ns"]
        self.assertEqual(Placement(book).count(book), book)
        self.assertEqual(Placement(book).words(), [])

    def test_what_has_too_few_runs_as_usual_gets_more(self):
        book = cells(standpipe=[NEAR, FAR, NEAR, NEAR], haproxy=[NEAR, NEAR, MOVED, FAR]) + \
            cells("32", standpipe=[NEAR, NEAR, NEAR, FAR])
        few = ("talk", "l4", "1000", False)
        self.assertEqual(Placement(book).few(), {(few, 1), (few, 2), (few, 3)})
        # Three of each, and not one that could be compared.
        book = cells("32", standpipe=[NEAR] * 3 + [FAR] * 3, haproxy=[FAR] * 3 + [NEAR] * 3)
        self.assertEqual(len(Placement(book).few()), 6)

    def test_the_floor_stands_alone(self):
        book = cells(direct=[FAR], standpipe=[FAR, NEAR, NEAR, NEAR])
        counted = Placement(book).count(book)
        self.assertEqual((turns(counted, "direct"), turns(counted, "standpipe")), ([0], [1, 2, 3]))
        self.assertIn("count all the same: talk l4 1000 direct.", Placement(book).words()[0])


if __name__ == "__main__":
    unittest.main()
