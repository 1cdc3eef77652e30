"""Which rounds count when a host moves the cores apart."""

import unittest

from suite.placement import Placement
from suite.summary import Figures

NEAR, FAR, MOVED = (60, 70), (320, 330), (60, 330)
TWINS = (28, 28)                # two threads of one core


def cells(hops, targets=("standpipe", "haproxy"), variant="1000"):
    """One round for each of `hops`: of one pair for all targets, or of a pair for each."""
    return [{"case": "talk", "mode": "l4", "variant": variant, "target": target, "repeat": turn,
             "figures": {"cpu_us": float(turn)}, "hop_ns": list(hop[at] if hop and
                                                               isinstance(hop[0], tuple) else hop)}
            for turn, hop in enumerate(hops) for at, target in enumerate(targets)]


def turns(cells):
    return sorted({cell["repeat"] for cell in cells})


class Rounds(unittest.TestCase):
    def test_rounds_as_usual_count_and_those_apart_have_a_table_of_their_own(self):
        book = cells([NEAR, FAR, MOVED, (FAR, NEAR), NEAR, NEAR, TWINS])
        placement = Placement(book)
        self.assertEqual(turns(placement.count(book)), [0, 4, 5])
        self.assertEqual(turns(placement.far(book)), [1])
        self.assertIn("In 4 of 7 rounds", placement.words()[0])
        self.assertIn("(1: farther apart all the time)", placement.words()[0])
        self.assertIn("the usual 70 ns", placement.words()[0])
        self.assertNotIn("count all the same", placement.words()[0])

    def test_where_no_round_is_as_usual_all_count_and_it_is_said(self):
        book = cells([FAR, MOVED]) + cells([NEAR, NEAR], variant="32")
        placement = Placement(book)
        self.assertEqual(len(placement.count(book)), len(book))
        self.assertIn("count all the same: talk l4 1000.", placement.words()[0])

    def test_what_went_wrong_is_told_wherever_the_cores_were(self):
        book = cells([NEAR, NEAR, FAR])
        trouble = {"case": "talk", "mode": "l4", "variant": "1000", "target": "nginx", "repeat": 2,
                   "trouble": "ended at once"}
        counted = Placement(book + [trouble]).count(book + [trouble])
        self.assertEqual((turns(counted), trouble in counted), ([0, 1, 2], True))

    def test_cores_that_are_always_far_are_how_this_machine_is(self):
        book = cells([FAR, FAR, FAR])
        placement = Placement(book)
        self.assertEqual(placement.count(book), book)
        self.assertEqual((placement.far(book), placement.words(), placement.few()), ([], [], set()))

    def test_results_that_know_no_hops_count(self):
        book = cells([(), ()])
        for cell in book:
            del cell["hop_ns"]
        self.assertEqual(Placement(book).count(book), book)
        self.assertEqual(Placement(book).words(), [])

    def test_what_has_too_few_rounds_as_usual_gets_more(self):
        book = cells([NEAR, FAR, MOVED]) + cells([NEAR, NEAR, NEAR, FAR], variant="32")
        self.assertEqual(Placement(book).few(), {("talk", "l4", "1000", False, 1),
                                                 ("talk", "l4", "1000", False, 2)})

    def test_the_floor_stands_alone(self):
        book = cells([(NEAR, FAR), (NEAR, NEAR)], targets=("direct", "standpipe"))
        counted = Placement(book).count(book)
        self.assertIsNotNone(Figures(counted).of("talk", "l4", "1000", "direct", "cpu_us"))
        self.assertEqual(turns(cell for cell in counted if cell["target"] == "standpipe"), [1])


if __name__ == "__main__":
    unittest.main()
