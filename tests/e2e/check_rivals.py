#!/usr/bin/env python3
"""freqkv-replay compare, and ppl's baseline from a run.

    check_rivals.py --bin build/bin [--long] [--model DIR] [--text PATH] [--seed S]

Rows equal separate runs of ppl to the digit, recall those of needle; pairs and their intervals are
computed again from the run files with numpy; windows of equal mean are the nearest there are, by
what runs count. The command is killed at random moments and started again: no row is lost or there
twice. Files of another comparison are refused by name. A baseline that is taken from a run gives
what one that is computed gives, or null where the run does not hold it.
"""

import argparse
import csv
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np
from checks import Checks, Tools
from definitions import bootstrap_means

WINDOW = 48
POLICIES = "freqkv:gamma=0.25,streaming,snapkv:observe=8"
LONG = ",local,linear:operator=random:7,pyramidkv:observe=8,h2o,keydiff,knorm,freqkv:recent=4"
# Keys of a row that are those of ppl, and where.
SAME = ["mean_nll", "perplexity", "perplexity_se", "cache_bytes_peak", "cache_slots_mean"]
SAME += ["compressions", "evictions"]
PAIRED = ["delta_nll", "delta_nll_se", "kl", "kl_se", "top1_agreement"]


class Setting:
    def __init__(self, args, work):
        self.tools, self.work, self.args = Tools(args.bin), work, args
        story = args.text.read_text(encoding="utf-8")
        for i, name in enumerate(("a.txt", "b.txt")):
            (work / name).write_text(story[i * 3000 : i * 3000 + 2500], encoding="utf-8")
        self.common = ["--quiet", "--threads", "1", "--model", args.model]
        self.texts = ["--text", work / "a.txt", work / "b.txt"]
        self.tokens = ["--tokens", "320"]
        self.evaluation = ["--protocol", "blocks:24", *self.tokens]
        self.policies = POLICIES + (LONG if args.long else "")

    def command(self, out, *more):
        return [
            *["freqkv-replay compare", *self.common, *self.texts, *self.evaluation],
            *["--policies", self.policies, "--budget", str(WINDOW), "--recall", "2"],
            *["--passage", "16", "--out", out, *more],
        ]

    def compare(self, out, *more):
        return self.tools.run(*self.command(out, "--json", *more))

    def start(self, out, *more):
        """The same as a process of its own."""
        words = [str(w) for w in self.command(out, *more)]
        words = [str(self.args.bin / "freqkv-replay"), "compare", *words[1:]]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def refused(self, out, *more):
        process = self.start(out, *more)
        _, message = process.communicate()
        return process.returncode, message

    def ppl(self, policy, *more):
        return self.tools.run(
            *["freqkv-replay ppl", *self.common, *self.texts, *policy, "--json", *more]
        )


def options_of(entry, slots):
    """An entry of --policies as options of ppl."""
    name, *own = entry.split(":", 1)
    words = ["--policy", name]
    selecting = name in ("snapkv", "pyramidkv", "h2o", "keydiff", "knorm")
    words += ["--budget" if selecting else "--window", str(slots)]
    if own and own[0].startswith("operator="):
        return [*words, "--operator", own[0].split("=", 1)[1]]
    for option in own[0].split(":") if own else []:
        key, _, value = option.partition("=")
        words += [f"--{key}", value] if value else [f"--{key}"]
    return words


def columns(path):
    """nll of every document."""
    with h5py.File(path) as f:
        return [f[f"documents/{d}/nll"][:] for d in sorted(f["documents"])]


def without_times(found):
    rows = [
        {k: v for k, v in r.items() if k not in ("tokens_per_s", "file")} for r in found["rows"]
    ]
    return {**found, "rows": rows}


# ---- rows ----


def check_rows(c, s, found):
    c.about("rows")
    entries = s.policies.split(",")
    c.that("one per policy", [r["policy"] for r in found["rows"]] == ["full", *entries], found)
    full = found["rows"][0]
    c.that("full has no difference", all(full[k] is None for k in (*PAIRED, "budget")), full)
    for row in found["rows"] if s.args.long else found["rows"][1::2]:
        options = ["--policy", "full"]
        if row is not full:
            options = options_of(row["policy"], WINDOW)
            options += ["--baseline", "full"]
        out = s.work / "one.h5"
        want = s.ppl(options, *s.evaluation, "--out", out)
        c.that(
            f"{row['policy']}: ppl",
            all(row[k] == want[k] for k in SAME)
            and (row is full or all(row[k] == want["baseline"][k] for k in PAIRED)),
            (row, want),
        )
        mine, theirs = columns(row["file"]), columns(out)
        same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(mine, theirs))
        c.that(f"{row['policy']}: its file", same, row["file"])
        out.unlink()
    with open(s.work / "D/compare.csv", encoding="utf-8", newline="") as f:
        table = list(csv.DictReader(f))
    c.that("compare.csv", [r["policy"] for r in table] == ["full", *entries], table)
    for row, line in zip(found["rows"], table):
        numbers = {
            k: float(v) if v else None for k, v in line.items() if k not in ("policy", "file")
        }
        c.that(
            f"{row['policy']}: its line",
            all(row[k] == numbers[k] for k in numbers),
            (row, numbers),
        )


def check_recall(c, s, found):
    """Of policies that do not select: needle has no prefill blocks."""
    c.about("recall")
    length = found["tokens"] // 2
    changes = {}
    for row in found["rows"][: 2 if not s.args.long else None]:
        name = row["policy"]
        if name.startswith(("snapkv", "pyramidkv", "h2o", "keydiff", "knorm")):
            continue
        out = s.work / "needle.csv"
        s.tools.run(
            *["freqkv-replay needle", *s.common, *s.texts, "--task", "recall"],
            *["--lengths", str(length), "--depths", "0.25", "--repeats", "2", "--passage", "16"],
            *(options_of(name, WINDOW) if name != "full" else ["--policy", "full"]),
            *["--out", out],
        )
        with open(out, encoding="utf-8", newline="") as f:
            rows = list(csv.DictReader(f))
        changes[name] = np.array([float(r["second_nll"]) - float(r["first_nll"]) for r in rows])
        c.close(name, row["recall"], changes[name].mean(), 1e-12)
        if name != "full":
            delta = changes[name] - changes["full"]
            c.close("less full's", row["recall_delta"], delta.mean(), 1e-9, 1e-3)
            means = bootstrap_means([list(delta)], [[1, 1]])
            c.close("its error", row["recall_delta_se"], np.std(means, ddof=1), 1e-9, 1e-6)
        for file in (out, s.work / "needle.csv.run"):
            file.unlink()


def check_pairs(c, s, found):
    c.about("pairs")
    names = ["full"] + [f"{p} {WINDOW}" for p in s.policies.split(",")]
    files = {name: columns(row["file"]) for name, row in zip(names, found["rows"])}
    c.that("all", len(found["pairs"]) == len(names) * (len(names) - 1) // 2, len(found["pairs"]))
    for pair in found["pairs"] if s.args.long else found["pairs"][2:4]:
        deltas = [
            (b.astype(float) - a)[np.isfinite(a)]
            for a, b in zip(files[pair["a"]], files[pair["b"]])
        ]
        blocks = [[d[i : i + 256] for i in range(0, len(d), 256)] for d in deltas]
        means = bootstrap_means(
            [[b.sum() for b in d] for d in blocks], [[len(b) for b in d] for d in blocks]
        )
        c.that("tokens", pair["tokens"] == sum(map(len, deltas)), pair)
        c.close("difference", pair["delta_nll"], np.concatenate(deltas).mean(), 1e-9, 1e-3)
        c.close("error", pair["delta_nll_se"], np.std(means, ddof=1), 1e-9, 1e-6)
        want = np.percentile(means, [2.5, 97.5])
        c.close("interval", [pair["low"], pair["high"]], want, 1e-9, 1e-3)
    for row, name in zip(found["rows"][1:], names[1:]):
        pair = next(p for p in found["pairs"] if (p["a"], p["b"]) == ("full", name))
        have = [row["delta_nll_low"], row["delta_nll_high"]]
        c.that("a row's interval", have == [pair["low"], pair["high"]], (row, pair))
        c.close("a row's difference", row["delta_nll"], pair["delta_nll"], 1e-5, 1e-3)


# ---- windows of equal mean ----


def check_mean(c, s):
    target = 40
    policies = "freqkv:gamma=0.25,snapkv:observe=8"
    policies += ",local,streaming,h2o,linear" if s.args.long else ""
    s.policies, kept = policies, s.policies
    found = s.compare(s.work / "M", "--equal", "mean", "--budget", str(target), "--recall", "0")
    s.policies = kept
    c.about(f"windows for a mean of {target} slots")
    for row in found["rows"][1:]:
        off = abs(row["cache_slots_mean"] - target)
        c.that("not asked for recall", row["recall"] is None, row)
        for slots in (row["slots"] - 1, row["slots"] + 1):
            if not s.args.long and (slots < row["slots"] or row is found["rows"][1]):
                continue
            other = s.ppl(options_of(row["policy"], slots), *s.evaluation)
            nearer = abs(other["cache_slots_mean"] - target) < off
            c.that(row["policy"], not nearer, (row["slots"], off, other["cache_slots_mean"]))


# ---- interruptions and refusals ----


def check_kill(c, s, found):
    chance = random.Random(s.args.seed)
    c.about(f"kills, seed {s.args.seed}")
    out = s.work / "K"
    for _ in range(8 if s.args.long else 1):
        for _ in range(2 if s.args.long else 1):
            process = s.start(out)
            time.sleep(chance.uniform(0.1, 0.4))
            process.kill()
            process.communicate()
        names = sorted(p.name for p in out.glob("*.h5")) if out.exists() else []
        again = s.compare(out)
        c.that("the same rows", without_times(again) == without_times(found), names)
        files = sorted(p.name for p in out.iterdir() if not p.name.startswith("."))
        c.that("the same files", files == s.files, files)
        for file in out.iterdir():
            file.unlink()
        out.rmdir()


def check_again(c, s, found):
    s.files = sorted(p.name for p in (s.work / "D").iterdir())
    c.about("started again")
    process = s.start(s.work / "D", "--json")
    printed, _ = process.communicate()
    again = json.loads(printed)
    c.that("nothing is run", again == found, again)
    new = "freqkv:rescale=off"
    s.policies, kept = new + "," + s.policies, s.policies
    more = s.compare(s.work / "D")
    s.policies = kept
    names = [row["policy"] for row in more["rows"]]
    c.that("a policy more", names == ["full", new, *s.policies.split(",")], names)
    same = [row for row in more["rows"] if row["policy"] != new]
    c.that("the others stay", same == found["rows"], same)


def check_refusals(c, s):
    c.about("refusals")
    out = s.work / "D"
    (s.work / "other.txt").write_text("Another text. It is short, but long enough. " * 40)
    whole = ["--policies", "local"]
    cases = [
        ("score_from: expected 9, found 0", ["--score-from", "9"], 1),
        ("corpus_sha256", ["--tokens", "300"], 1),
        ("corpus_sha256", ["--text", s.work / "other.txt"], 1),
        ('protocol: expected "whole", found "blocks:24"', ["--protocol", "whole", *whole], 1),
        ('"passage": expected 12, found 16', ["--passage", "12"], 1),
        ("expected no slots of its own", ["--policies", "local:window=64"], 2),
        ("expected blocks:b", ["--protocol", "whole"], 2),
        ("a mean that the texts reach", ["--equal", "mean", "--budget", "4000"], 2),
        (
            "names of their own",
            ["--policies", "linear:operator=random:1,linear:operator=random_1"],
            2,
        ),
    ]
    for words, options, status in cases if s.args.long else cases[::3]:
        code, message = s.refused(out, *options)
        c.that(words, code == status and words in message, (code, message))


# ---- a baseline from a run ----


def check_baseline(c, s):
    c.about("a baseline from a run")
    policy = ["--policy", "freqkv", "--window", str(WINDOW)]
    stated, plain = s.work / "stated.h5", s.work / "plain.h5"
    protocols = [["--protocol", "stride:64", "--tokens", "128"], s.tokens]
    for protocol in protocols if s.args.long else protocols[:1]:
        s.ppl(["--policy", "full"], *protocol, "--out", stated, "--final-states")
        s.ppl(["--policy", "full"], *protocol, "--out", plain)
        beside = s.ppl(policy, *protocol, "--baseline", "full")["baseline"]
        c.that("an error of KL", beside["kl_se"] > 0, beside)
        taken = s.ppl(policy, *protocol, "--baseline", stated)["baseline"]
        c.that("the same", taken == beside, (taken, beside))
        partly = s.ppl(policy, *protocol, "--baseline", plain)["baseline"]
        c.that("KL is null", partly["kl"] is None and partly["kl_se"] is None, partly)
        c.that("and said to be", "--final-states" in partly["missing"], partly)
        c.that("agreement", partly["top1_agreement"] == beside["top1_agreement"], partly)
        c.close("difference", partly["delta_nll"], beside["delta_nll"], 1e-4, 1e-3)
        if s.args.long:
            with h5py.File(plain, "r+") as f:
                group = f["windows"] if "windows" in f else f["documents/000000"]
                del group["top1"]
            old = s.ppl(policy, *protocol, "--baseline", plain)["baseline"]
            c.that("no agreement", old["top1_agreement"] is None and old["kl"] is None, old)
        stated.unlink(), plain.unlink()


def main():
    data = pathlib.Path(__file__).resolve().parents[2] / "data"
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", type=pathlib.Path, required=True)
    p.add_argument("--model", type=pathlib.Path, default=data / "litbank-1m")
    p.add_argument("--text", type=pathlib.Path, default=data / "the_tide_mill.txt")
    p.add_argument("--long", action="store_true", help="more policies, more kills")
    p.add_argument("--seed", type=int, default=time.time_ns() % 1000000)
    args = p.parse_args()
    c = Checks()
    with tempfile.TemporaryDirectory() as work:
        s = Setting(args, pathlib.Path(work))
        found = s.compare(s.work / "D")
        check_rows(c, s, found)
        check_recall(c, s, found)
        check_pairs(c, s, found)
        check_again(c, s, found)
        check_kill(c, s, found)
        check_mean(c, s)
        check_refusals(c, s)
        check_baseline(c, s)
    c.about("")
    print(f"rivals: {c.made - c.failed} passed, {c.failed} failed")
    return int(c.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
