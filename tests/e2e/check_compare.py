#!/usr/bin/env python3
"""freqkv-analyze compare against NumPy and SciPy over the same run files.

    check_compare.py --bin build/bin [--data data]

Means per group are formed again from the files' columns, p values with scipy.stats.ttest_1samp, and
the intervals of one document with scipy.stats.bootstrap over its blocks. Runs that scored other
tokens must be refused by name.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy as np
from checks import Checks, Tools
from scipy import stats

TOP = pathlib.Path(__file__).resolve().parents[2]
BLOCK = 256
COLUMNS = {"delta_nll": "nll", "delta_kl": "kl", "delta_top1": "top1_agree"}
CLASSES = ["digit", "punctuation", "word start", "continuation", "rare", "copied"]
CLASSES += ["first occurrence"]


class Run:
    """Columns of a run file by document; of joined windows as one document of rows."""

    def __init__(self, path):
        with h5py.File(path) as f:
            documents = [f["documents"][name] for name in sorted(f["documents"])]
            self.names = [d.attrs["name"] for d in documents]
            self.classes = [d["token_class"][()] for d in documents]
            self.joined = "windows" in f
            places = [f["windows"]] if self.joined else documents
            self.columns = {
                name: [p[column][()].ravel() if column in p else None for p in places]
                for name, column in COLUMNS.items()
            }
            self.length = f["windows/nll"].shape[1] if self.joined else None


def groups_of(run, document):
    """{(by, group): mask} of a document's tokens."""
    count = len(run.columns["delta_nll"][document])
    position = np.arange(count) % (run.length or count)
    longest = run.length or max(len(c) for c in run.columns["delta_nll"])
    width = 64
    while longest > 16 * width:
        width *= 2
    found = {("all", "all"): np.full(count, True)}
    for first in range(0, longest, width):
        name = f"{first}-{first + width - 1}"
        found["position", name] = (position >= first) & (position < first + width)
    if not run.joined:
        for bit, name in enumerate(CLASSES):
            found["class", name] = run.classes[document] >> bit & 1 > 0
        for d, name in enumerate(run.names):
            found["document", name] = np.full(count, d == document)
    return found


def parts(a, b, quantity, key):
    """Sums and counts of a group's differences, [documents][blocks]."""
    sums, counts = [], []
    for d, (x, y) in enumerate(zip(a.columns[quantity], b.columns[quantity])):
        scored = np.isfinite(a.columns["delta_nll"][d])
        inside = groups_of(a, d)[key][scored]
        difference = np.where(inside, (y - x.astype(float))[scored], 0)
        edges = np.arange(0, len(difference), BLOCK)
        sums.append(np.add.reduceat(difference, edges))
        counts.append(np.add.reduceat(inside.astype(float), edges))
    return sums, counts


def p_value(sums, counts, joined):
    """Student's t over documents; over the blocks of one."""
    if len(sums) > 1:
        sums, counts = [s.sum() for s in sums], [c.sum() for c in counts]
    elif joined:
        return np.nan
    else:
        sums, counts = sums[0], counts[0]
    means = np.array([s / c for s, c in zip(sums, counts) if c])
    if len(means) < 2 or np.ptp(means) == 0:
        return np.nan
    return stats.ttest_1samp(means, 0).pvalue


def number(text):
    return float(text) if text else np.nan


def check_rows(c, rows, runs):
    """Every row of compare.csv; of one document's blocks the interval, too."""
    near, tokens, absent = 0.0, True, True
    for quantity in COLUMNS:
        means, wanted, ps, wanted_ps = [], [], [], []
        for row in rows:
            a, b = runs[row["run_a"]], runs[row["run_b"]]
            if a.columns[quantity][0] is None or b.columns[quantity][0] is None:
                absent = absent and row[quantity] == ""
                continue
            sums, counts = parts(a, b, quantity, (row["by"], row["group"]))
            one = [i for i, x in enumerate(counts) if x.sum()]
            if row["by"] == "document":
                sums, counts = [sums[i] for i in one], [counts[i] for i in one]
            total = sum(x.sum() for x in counts)
            if quantity == "delta_nll":
                tokens = tokens and int(row["tokens"]) == total
            means.append(number(row[quantity]))
            wanted.append(sum(x.sum() for x in sums) / total if total else np.nan)
            ps.append(number(row[f"{quantity}_p"]))
            wanted_ps.append(p_value(sums, counts, a.joined))
            if len(counts) == 1 and len(counts[0]) > 20:
                near = max(near, interval_distance(row, quantity, sums[0], counts[0]))
        if means:
            c.close(quantity, means, wanted, 1e-6, 1e-3)
            c.close(f"p of {quantity}", ps, wanted_ps, 1e-5, 1e-3)
    c.that("tokens", tokens, rows)
    c.that("no numbers where a run has none", absent, rows)
    return near


def interval_distance(row, quantity, sums, counts):
    """Ends of the interval against SciPy's, in standard errors."""
    found = stats.bootstrap(
        (sums, counts),
        lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        method="percentile",
        random_state=1,
    )
    ends = found.confidence_interval
    off = abs(number(row[f"{quantity}_low"]) - ends.low)
    off = max(off, abs(number(row[f"{quantity}_high"]) - ends.high))
    return off / found.standard_error if found.standard_error > 0 else 0.0


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", required=True)
    p.add_argument("--data", default=TOP / "data", type=pathlib.Path)
    args = p.parse_args()
    t, c = Tools(args.bin), Checks()
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        story = (args.data / "the_tide_mill.txt").read_text()
        texts = []
        for i in range(3):
            texts.append(work / f"text{i}.txt")
            texts[-1].write_text(story[i * 7000 : i * 7000 + 6000])
        ppl = ["freqkv-replay ppl --quiet", "--model", args.data / "litbank-1m"]
        ppl += ["--window 128", *(f"--text={one}" for one in texts)]

        def run(name, options):
            t.run(*ppl, options, f"--out={work / name}")
            return work / name

        def compare(files, *more):
            out = f"--out={work / 'found'}"
            found = t.run("freqkv-analyze compare", *files, *more, out, "--json")
            with open(work / "found/compare.csv", newline="") as f:
                return found, list(csv.DictReader(f))

        c.about("three documents")
        files = [
            run("freqkv.h5", "--policy freqkv --baseline full --tokens 1100"),
            run("local.h5", "--policy local --baseline full --tokens 1100"),
            run("alone.h5", "--policy streaming --tokens 1100"),
        ]
        runs = {str(f): Run(f) for f in files}
        found, rows = compare(files, "--by", "class")
        check_rows(c, rows, runs)
        pair = found["pairs"][0]
        first = rows[0]
        c.close(
            "JSON",
            [pair["delta_nll"], pair["low"], pair["delta_kl_p"]],
            [number(first[k]) for k in ("delta_nll", "delta_nll_low", "delta_kl_p")],
            1e-8,
        )
        c.that("b less a", pair["a"] == str(files[0]) and pair["b"] == str(files[1]), pair)
        c.that("groups by class", [g["group"] for g in pair["groups"]] == CLASSES, pair["groups"])
        c.that("no KL without a baseline", found["pairs"][1]["delta_kl"] is None, found["pairs"][1])
        image = json.dumps(sorted(f.name for f in (work / "found").iterdir()))
        c.that("files", all(f"compare.{e}" in image for e in ("csv", "png", "svg")), image)

        c.about("one document")
        whole = work / "whole.txt"
        whole.write_text(story)
        texts_of = [*ppl[:3], "--window 128", f"--text={whole}"]
        files = []
        for policy in ("freqkv", "local"):
            files.append(work / f"whole_{policy}.h5")
            t.run(*texts_of, f"--policy {policy} --tokens 6000", f"--out={files[-1]}")
        runs |= {str(f): Run(f) for f in files}
        found, rows = compare(files)
        near = check_rows(c, rows[:1], runs)
        c.that(f"interval within {near:.2f} standard errors of SciPy's", 0 < near < 0.25, near)

        c.about("joined windows")
        files = [
            run("a.h5", "--policy freqkv --protocol stride:256 --tokens 512"),
            run("b.h5", "--policy local --protocol stride:256 --tokens 512"),
        ]
        runs |= {str(f): Run(f) for f in files}
        found, rows = compare(files)
        check_rows(c, rows, runs)
        c.that("no standard error", found["pairs"][0]["delta_nll_se"] is None, found)

        c.about("refusals")
        other = run("other.h5", "--policy local --tokens 1000")
        later = run("later.h5", "--policy local --tokens 1100 --score-from 600")
        for second, words in (
            (other, "same tokens"),
            (later, "scored the same tokens"),
            (files[0], "same windows"),
        ):
            done = subprocess.run(
                [f"{args.bin}/freqkv-analyze", "compare", work / "local.h5", second]
                + ["--out", work / "none"],
                capture_output=True,
                text=True,
            )
            refused = done.returncode and words in done.stderr and second.name in done.stderr
            c.that(words, refused, done.stderr)
        c.about(None)
    print(f"compare: {c.made - c.failed} of {c.made} passed")
    return c.failed > 0


if __name__ == "__main__":
    sys.exit(main())
