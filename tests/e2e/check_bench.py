#!/usr/bin/env python3
"""`freqkv-replay bench`: columns and order of its rows, counts against `ppl`'s, what a second run
takes over, and what is refused. Times are looked at for being times alone.

    check_bench.py --bin build/bin [--seed N]
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

from checks import Checks

COLUMNS = (
    "policy,label,window,gamma,model,machine,length,decoded,repeats,prefill_s,prefill_s_low,"
    "prefill_s_high,decode_ms,decode_ms_low,decode_ms_high,compression_share,compressions,"
    "cache_bytes_peak,last_slots"
).split(",")
# Entries of --policies, and the same as options of ppl.
POLICIES = {
    "full": "--policy full",
    "freqkv:recent=8:gamma=0.25": "--policy freqkv --window 64 --recent 8 --gamma 0.25",
    "local": "--policy local --window 64",
    "snapkv:budget=40:kernel=3": "--policy snapkv --budget 40 --kernel 3",
}
LENGTHS, DECODED = [90, 150], 6


class Bench:
    def __init__(self, args, work):
        self.replay = [args.bin / "freqkv-replay"]
        self.common = ["--quiet", "--threads", "1", "--model", args.data / "litbank-1m"]
        self.text = ["--text", args.data / "the_tide_mill.txt"]
        self.out = work / "bench.csv"

    def call(self, *options, policies=",".join(POLICIES), lengths="150,90"):
        """The last of two equal options counts."""
        grid = ["--lengths", lengths, "--policies", policies, "--window", "64"]
        grid += ["--decode", str(DECODED), "--repeats", "2"]
        command = [*self.replay, "bench", *self.common, *grid, *options]
        return subprocess.run(command, capture_output=True, text=True)

    def ppl(self, options, length):
        """Of the first tokens of the text, a selecting policy's prefill as one block."""
        protocol = f"blocks:{length - DECODED - 1}" if "snapkv" in options else "whole"
        command = [*self.replay, "ppl", *self.common, *self.text, *options.split(), "--json"]
        command += ["--tokens", str(length), "--protocol", protocol]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)


def check_rows(c, bench):
    done = bench.call("--out", bench.out, "--json", *bench.text)
    c.about("rows")
    c.that("exit status", done.returncode == 0, done.stderr)
    with bench.out.open(encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
        c.that("columns", list(rows[0]) == COLUMNS, list(rows[0]))
    names = [entry.split(":")[0] for entry in POLICIES]
    order = [(length, name) for length in LENGTHS for name in names]
    found = [(int(row["length"]), row["policy"]) for row in rows]
    c.that("one per length and policy, in order", found == order, found)
    c.that("label", rows[1]["label"] == "freqkv, recent 8", rows[1])
    c.that("gamma", [row["gamma"] for row in rows[:4]] == ["", "0.25", "0.5", ""], rows[:4])
    c.that("window", [row["window"] for row in rows[:4]] == ["", "64", "64", ""], rows[:4])
    for row in rows:
        for what in ("prefill_s", "decode_ms"):
            low, middle, high = (float(row[what + end]) for end in ("_low", "", "_high"))
            c.that(what, 0 < low <= middle <= high, row)
        c.that("share", 0 <= float(row["compression_share"]) < 1, row)
    c.about("counts, as those of ppl")
    for row, (length, entry) in zip(rows, ((n, p) for n in LENGTHS for p in POLICIES)):
        want = bench.ppl(POLICIES[entry], length)
        c.that(
            entry,
            int(row["cache_bytes_peak"]) == want["cache_bytes_peak"]
            and float(row["compressions"]) == want["compressions"],
            (row, want),
        )
    slots = [float(row["last_slots"]) for row in rows]
    c.that("slots of full", slots[0] == 90 and slots[4] == 150, slots)
    c.that("slots of snapkv", slots[3] == slots[7] == 40 + DECODED + 1, slots)
    c.that("slots within the window", max(slots[5:7]) <= 64, slots)
    return json.loads(done.stdout)


def check_resume(c, bench, first, chance):
    c.about("going on")
    want = bench.out.read_bytes()
    again = bench.call("--out", bench.out, "--json", *bench.text)
    c.that(
        "nothing is left", again.returncode == 0 and bench.out.read_bytes() == want, again.stderr
    )
    second = json.loads(again.stdout)
    c.that("rows that were there", (first["rows_there"], second["rows_there"]) == (0, 8), second)
    c.that("the same numbers", first["rows"] == second["rows"], second)
    at = chance.randrange(1, len(want))
    kept = want[: want.rfind(b"\n", 0, at) + 1]
    bench.out.write_bytes(want[:at])
    again = bench.call("--out", bench.out, *bench.text)
    found = bench.out.read_bytes()
    c.that("from any byte", again.returncode == 0 and found.startswith(kept), again.stderr)
    c.that("all rows", found.count(b"\n") == want.count(b"\n"), found)
    refused = [
        ("lengths", [], {"lengths": "90,151"}),
        ("policies", [], {"policies": "full,local,freqkv,streaming"}),
        ("decoded", ["--decode", "7"], {}),
        ("backend", ["--backend", "reference"], {}),
    ]
    for field, options, more in refused:
        done = bench.call("--out", bench.out, *bench.text, *options, **more)
        c.that(field, done.returncode == 1 and f'"{field}"' in done.stderr, done.stderr)
    done = bench.call("--out", bench.out)
    c.that("other tokens", done.returncode == 1 and '"tokens_sha256"' in done.stderr, done.stderr)
    for old, new in ((b"full,", b"fuller,"), (b",150,6,2,", b",150,6,2,1,"), (b"\n", b"\n\n")):
        bench.out.write_bytes(found.replace(old, new, 1))
        done = bench.call("--out", bench.out, *bench.text)
        c.that("a row of another's", done.returncode == 1 and ".csv:" in done.stderr, done.stderr)
    c.that("nothing was changed", bench.out.read_bytes().count(b"\n") == 10, "")


def check_refusals(c, bench, text):
    c.about("refused")
    one = {"policies": "full", "lengths": "50"}
    cases = [
        ("a length of no prefill", [], {"lengths": "7"}, "--lengths", 2),
        ("a length twice", [], {"lengths": "90,90"}, "90 twice", 2),
        ("half a token", [], {"lengths": "90.5"}, "whole numbers", 2),
        ("a policy that does not exist", [], {"policies": "full,best"}, "streaming", 2),
        ("an option of another", [], {"policies": "local:recent=3"}, "does not take it", 2),
        ("a window of the sinks", [], {"policies": "freqkv:window=4"}, "4 sinks", 2),
        ("a budget too small", [], {"policies": "snapkv:budget=16"}, "--budget", 2),
        ("a batch", ["--batch", "2"], one, "--batch", 2),
        ("a text too short", ["--text", text], {"lengths": "500"}, "at least 500", 1),
        ("no such file", [], {"policies": "linear:operator=no.h5"}, "linear:operator=no.h5", 1),
    ]
    for name, options, more, words, status in cases:
        done = bench.call(*options, **more)
        c.that(name, done.returncode == status and words in done.stderr, done.stderr)
    done = bench.call("--dry-run", "--json", "--decode", "30")
    needs = json.loads(done.stdout) if done.returncode == 0 else {}
    c.that("needs", needs.get("tokens_fed") == 2 * 4 * (90 + 150), done.stdout + done.stderr)


def main():
    data = pathlib.Path(__file__).resolve().parents[2] / "data"
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", type=pathlib.Path, required=True)
    p.add_argument("--data", type=pathlib.Path, default=data)
    p.add_argument("--seed", type=int, default=time.time_ns() % 1000000)
    args = p.parse_args()
    c = Checks()
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        bench = Bench(args, work)
        (work / "short.txt").write_text("A short text. " * 9, encoding="utf-8")
        first = check_rows(c, bench)
        check_resume(c, bench, first, random.Random(args.seed))
        check_refusals(c, bench, work / "short.txt")
    c.about(None)
    print(f"bench: {c.made - c.failed} passed, {c.failed} failed (seed {args.seed})")
    sys.exit(c.failed > 0)


if __name__ == "__main__":
    main()
