"""Run with: python3 -m unittest discover -s examples/demo/visits -p '*_test.py'"""

import json
import unittest

import state


def metadata(**fields):
    return (("user-agent", "test"), (state.KEY, json.dumps({"type": "visits.Page", "key": "home", **fields})))


class StateTest(unittest.TestCase):
    def test_visits(self):
        for name, given, want in (
            ("a known page", metadata(exists=True, value={"gcounter": "41"}), 41),
            ("more than 53 bits", metadata(exists=True, value={"gcounter": "18446744073709551615"}), 2**64 - 1),
            ("a number, not a string", metadata(exists=True, value={"gcounter": 41}), 41),
            ("nobody was there yet", metadata(), 0),
            ("zero, which JSON leaves out", metadata(exists=True, value={}), 0),
            ("no state", (("user-agent", "test"),), 0),
        ):
            with self.subTest(name):
                self.assertEqual(state.visits(given), want)

    def test_one_more(self):
        ((key, value),) = state.one_more()
        self.assertEqual(key, "holdfast-state")
        self.assertEqual(json.loads(value), {"operations": [{"increment": {"by": 1}}]})

    def test_shown(self):
        self.assertEqual(state.shown(7), 7)
        self.assertEqual(state.shown(2**40), 2**32 - 1)


if __name__ == "__main__":
    unittest.main()
