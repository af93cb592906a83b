#!/usr/bin/env python3
"""A few numbers of the study, made again by notebooks/study.py --check, against its README; and the
rules by which its report chooses words and winners, on numbers whose answer is known.

    check_study.py --bin build/bin
"""

import argparse
import os
import pathlib
import subprocess
import sys

import numpy as np

NOTEBOOKS = pathlib.Path(__file__).resolve().parents[2] / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))

from study_parts import intervals, operators, search  # noqa: E402


def losses(freqkv, local):
    return {"freqkv": freqkv, "local": local}


def check_rules():
    better, worse, undecided = (-2.0, -3.0, -1.0), (2.0, 1.0, 3.0), (0.1, -1.0, 1.0)
    for found, word in ((better, "better"), (worse, "worse"), (undecided, "undecided")):
        assert intervals.verdict(found) == word, (found, word)
    wins = {"perplexity": losses(better, better), "recall": losses(undecided, undecided)}
    ties = {"perplexity": losses(better, undecided), "recall": losses(undecided, better)}
    pays = {"perplexity": losses(better, better), "recall": losses(worse, undecided)}
    half = {"perplexity": losses(better, better), "recall": losses(None, None)}
    assert search.wins(wins) == "perplexity"
    assert [search.wins(x) for x in (ties, pays, half)] == [None] * 3


def check_choice():
    """Chosen on the half for choosing alone: the best three by either measure, each once."""

    def row(perplexity, recall):
        found = {"perplexity": {"freqkv": perplexity}, "recall": {"freqkv": recall}}
        return {"choose": found, "test": None}

    rows = {f"try{i}": row((i, i - 1, i + 1), (9 - i, 8 - i, 10 - i)) for i in range(10)}
    rows |= {"unasked": row((3.5, 3, 4), None), "not a number": row((np.nan,) * 3, None)}
    assert search.chosen_of(rows) == ["try0", "try1", "try2", "try9", "try8", "try7"]


class Losses(dict):
    """A run of known losses by document."""

    def __init__(self, **documents):
        super().__init__(nll=[np.full(8, x) for x in documents.values()])
        self.names = list(documents)


def check_pairing():
    """Runs are paired by the names of their documents, and only where both have them."""
    a, b = Losses(one=1.0, two=3.0), Losses(two=2.0, one=1.5, three=7.0)
    assert intervals.less(a, b, names={"one"})[0] == -0.5
    assert intervals.less(a, b, names={"one", "two"})[0] == 0.25
    for other, names in ((b, None), (b, {"three"})):
        try:
            intervals.less(a, other, names=names)
        except ValueError:
            continue
        raise AssertionError(f"paired without a document: {names}")


def check_intervals():
    rng = np.random.default_rng(1)
    for documents in (4, 30):
        values = [rng.normal(0.5, 1, 1000) for _ in range(documents)]
        mean, low, high = intervals.interval(values)
        assert abs(mean - np.concatenate(values).mean()) < 1e-12
        assert low < 0.5 < high and high - low < 0.2, (documents, low, high)


def check_operators():
    """All keep constants, but where a matrix has FreqKV's truncation up to its ringing."""
    n, kept = 252, 126
    for name, matrices in operators.all_of(n, kept).items():
        for matrix in matrices.values():
            assert matrix.shape == (kept, n), name
            assert np.abs(matrix.sum(1) - 1).max() < 1e-9, name


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--bin", required=True)
    args = p.parse_args()
    check_rules()
    check_choice()
    check_pairing()
    check_intervals()
    check_operators()
    command = [sys.executable, str(NOTEBOOKS / "study.py"), "--check"]
    environment = os.environ | {"FREQKV_BIN": os.path.abspath(args.bin)}
    sys.exit(subprocess.run(command, env=environment).returncode)


if __name__ == "__main__":
    main()
