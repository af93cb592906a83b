#!/usr/bin/env python3
"""The demo: text in, power spectra and perplexity out, with the embedded model. Also an example of
scripting the tools from Python.

    demo.py [--bin build/bin] [--model data/litbank-1m] [--text data/the_tide_mill.txt]
            [--out demo-output]

Capture -> spectrum with its null -> reconstruction error -> perplexity under each cache policy -> a
table -> a report, and in OUT: capture/ (HDF5), analysis/ (HDF5, CSV, PNG and SVG, and all of it in
report.html), runs/ (HDF5) and perplexity.csv. Standard library only.

The first table is the one to read: it stays within the trained context, where full attention is a
valid baseline. The second goes far beyond it, which full attention cannot.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time

GAMMAS = ("0.25", "0.5", "0.75")


class Tools:
    def __init__(self, args):
        self.bin, self.model, self.text, self.out = args.bin, args.model, args.text, args.out

    def run(self, tool, *arguments, show=True):
        """Runs a tool and returns its stdout; its errors are already on stderr, so a failure ends
        the demo.
        """
        command = [os.path.join(self.bin, "freqkv-" + tool), *map(str, arguments)]
        if show:
            print("\n$ " + " ".join(command), flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(done.returncode)
        if show:
            print(done.stdout, end="", flush=True)
        return done.stdout

    def perplexity(self, name, policy, *options):
        run = os.path.join(self.out, "runs", name + ".h5")
        source = ("--model", self.model, "--text", self.text)
        output = ("--out", run, "--quiet", "--json")
        policy = ("--policy", policy, *options)
        return json.loads(self.run("replay", "ppl", *source, *policy, *output, show=False))


def number(value, digits=4):
    return "-" if value is None else f"{value:.{digits}f}"


# Columns of perplexity.csv after the setting. On the screen some are shorter.
COLUMNS = ["policy", "perplexity", "+-", "delta nll", "se", "KL", "same top-1"]
COLUMNS += ["compressions", "evictions", "mean slots"]
SHORT = {"same top-1": "top-1", "mean slots": "slots"}


def print_table(title, rows):
    keys = [key for key in COLUMNS if any(key in row for row in rows)]
    cells = [[SHORT.get(key, key) for key in keys]]
    cells += [[row.get(key, "") for key in keys] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(keys))]
    print("\n" + title)
    for first, *others in cells:
        numbers = (cell.rjust(width) for cell, width in zip(others, widths[1:]))
        print("  ".join([first.ljust(widths[0]), *numbers]))


def row_of(label, result):
    row = {
        "policy": label,
        "perplexity": number(result["perplexity"]),
        "+-": number(result["perplexity_se"]),
        "compressions": number(result["compressions"], 1),
        "evictions": number(result["evictions"], 1),
        "mean slots": number(result["cache_slots_mean"], 0),
    }
    baseline = result.get("baseline")
    if baseline:
        row |= {
            "delta nll": number(baseline["delta_nll"], 5),
            "se": number(baseline["delta_nll_se"], 5),
            "KL": number(baseline["kl"], 5),
            "same top-1": number(baseline["top1_agreement"], 3),
        }
    return row


def within_context(tools, context):
    """T = the trained context in disjoint windows, cache of half of it, scored after the first
    compression.
    """
    setting = ("--protocol", f"stride:{context}", "--tokens", context, "--score-from", context // 2)
    window = ("--window", context // 2, "--baseline", "full")
    rows = [row_of("full", tools.perplexity("valid-full", "full", *setting))]
    for gamma in GAMMAS:
        result = tools.perplexity(
            f"valid-freqkv-{gamma}", "freqkv", "--gamma", gamma, *window, *setting
        )
        rows.append(row_of("freqkv " + gamma, result))
    result = tools.perplexity("valid-local", "local", "--gamma", "0.5", *window, *setting)
    rows.append(row_of("local 0.5", result))
    print_table(
        f"Within the trained context: T = {context}, window {context // 2}, 4 sinks, targets"
        f" {context // 2} and up;\ndifferences are paired with full attention (nats)",
        rows,
    )
    return rows


def beyond_context(tools, context):
    """The whole text in one timeline through a cache of the trained context."""
    rows, tokens = [], 0
    for policy, gamma in [("freqkv", g) for g in GAMMAS] + [("local", "0.5"), ("streaming", None)]:
        options = ("--gamma", gamma) if gamma else ()
        name = f"long-{policy}-{gamma}" if gamma else f"long-{policy}"
        result = tools.perplexity(name, policy, "--window", context, *options)
        tokens = result["tokens"]
        rows.append(row_of(f"{policy} {gamma or ''}".strip(), result))
    print_table(
        f"Beyond it: {tokens} tokens in one timeline through a window of {context};\n"
        "full attention is past the trained context there and no valid baseline",
        rows,
    )
    return rows


def write_csv(path, tables):
    with open(path, "w", newline="") as f:
        writer = csv.DictWriter(f, ["setting", *COLUMNS], restval="")
        writer.writeheader()
        for setting, rows in tables.items():
            writer.writerows({"setting": setting, **row} for row in rows)


def main():
    here = os.path.relpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", default=os.path.join(here, "build/bin"))
    p.add_argument("--model", default=os.path.join(here, "data/litbank-1m"))
    p.add_argument("--text", default=os.path.join(here, "data/the_tide_mill.txt"))
    p.add_argument("--out", default="demo-output")
    args = p.parse_args()
    started = time.time()
    for folder in ("capture", "analysis", "runs"):  # of an earlier demo
        shutil.rmtree(os.path.join(args.out, folder), ignore_errors=True)
    os.makedirs(os.path.join(args.out, "runs"), exist_ok=True)
    with open(os.path.join(args.model, "config.json")) as f:
        context = json.load(f)["max_position_embeddings"]

    tools = Tools(args)
    capture, analysis = os.path.join(args.out, "capture"), os.path.join(args.out, "analysis")
    tools.run("capture", "--model", args.model, "--text", args.text, "--out", capture)
    tools.run("analyze", "spectrum", capture, "--out", analysis, "--null", "permute")
    tools.run("analyze", "error", capture, "--out", analysis)
    tables = {
        "within the trained context": within_context(tools, context),
        "beyond the trained context": beyond_context(tools, context),
    }
    write_csv(os.path.join(args.out, "perplexity.csv"), tables)
    runs = [
        os.path.join(args.out, "runs", f"valid-{name}.h5")
        for name in [*(f"freqkv-{gamma}" for gamma in GAMMAS), "local"]
    ]
    tools.run("analyze", "plot", *runs, "--out", analysis, "--quiet")
    tools.run("analyze", "report", analysis)
    print(f"\nIn {args.out}/, after {time.time() - started:.0f} s:")
    for folder, _, files in sorted(os.walk(args.out)):
        print(f"  {os.path.relpath(folder, args.out) + '/':16}" + ", ".join(sorted(files)))


if __name__ == "__main__":
    main()
