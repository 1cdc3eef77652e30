"""The arithmetic of the summary: `python3 -m unittest discover -s benches/compare -p 'test_*.py'`."""

import unittest

from suite.summary import Figures, goals


def cells(**rounds):
    return [{"case": "talk", "mode": "l4", "variant": "1000", "target": target, "repeat": turn,
             "figures": {"cpu_us": value}}
            for target, values in rounds.items() for turn, value in enumerate(values)
            if value is not None]


class Ratio(unittest.TestCase):
    def ratio(self, **rounds):
        return Figures(cells(**rounds)).ratio("talk", "l4", "1000", "cpu_us")

    def test_rounds_are_compared_with_themselves(self):
        # A slow second round: medians of each target alone would say 8 to 20.
        found = self.ratio(standpipe=[8, 16, 8], haproxy=[10, 20, 20], nginx=[30, 30, 30])
        self.assertEqual(found, ((0.8, 0.4, 0.8), "haproxy"))

    def test_the_better_peer_is_better_in_most_rounds(self):
        found = self.ratio(standpipe=[10, 10, 10], haproxy=[20, 20, 5], nginx=[12.5, 12.5, 12.5])
        self.assertEqual(found, ((0.8, 0.8, 0.8), "nginx"))

    def test_a_round_without_its_other_half_counts_for_nothing(self):
        found = self.ratio(standpipe=[10, 99], haproxy=[20, None])
        self.assertEqual(found, ((0.5, 0.5, 0.5), "haproxy"))
        self.assertIsNone(self.ratio(standpipe=[10]))
        self.assertIsNone(self.ratio(haproxy=[10]))

    def test_the_table_says_what_is_missed_and_what_was_not_run(self):
        text = goals(Figures(cells(standpipe=[9, 9], haproxy=[10, 10])))
        self.assertIn("0.90 (0.90–0.90 in 2, haproxy), wanted ≤ 0.8: **missed**", text)
        self.assertIn("| not run |", text)

    def test_the_table_says_that_there_was_one_round_only(self):
        text = goals(Figures(cells(standpipe=[9, 9], haproxy=[10, None])))
        self.assertIn("0.90 (one round, haproxy)", text)

    def test_the_table_says_in_few_words_why_there_is_no_figure(self):
        void = {"case": "talk", "mode": "l4", "variant": "1000", "target": "standpipe", "repeat": 0,
                "trouble": "void: the generator itself was late: lag p99 9.47 ms"}
        self.assertIn("| not run: the generator itself was late |", goals(Figures([void])))


if __name__ == "__main__":
    unittest.main()
