#!/usr/bin/env python3
"""The demo: text in, power spectra and perplexity out, with the embedded model or another one. Also
an example of scripting the tools from Python.

    demo.py [--bin build/bin] [--model data/litbank-1m] [--text data/the_tide_mill.txt]
            [--windows N [N ...]] [--out demo-output]

Capture -> spectrum with its null -> reconstruction error -> perplexity under each cache policy -> a
table -> a report, and in OUT: capture/ (HDF5), analysis/ (HDF5, CSV, PNG and SVG, and all of it in
report.html), runs/ (HDF5) and perplexity.csv. Standard library only.

The tables to read first stay within the trained context, where full attention is a valid baseline:
one per window, by default half of that context. The last one goes far beyond the context, which
full attention cannot. A text that is shorter than the context has no such table.
"""

import argparse
import csv
import glob
import json
import os
import shutil
import subprocess
import sys
import time

SINKS = 4  # the tools' default
GAMMAS = ("0.25", "0.5", "0.75")
SWEEP = ("--sweep", "gamma=" + ",".join(GAMMAS))


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
        """Runs a policy over the text. The run file, or with --sweep the folder of run files, is
        OUT/runs/NAME.
        """
        texts = ("--model", self.model, "--text", self.text)
        output = ("--out", os.path.join(self.out, "runs", name), "--quiet", "--json")
        policy = ("--policy", policy, *options)
        return json.loads(self.run("replay", "ppl", *texts, *policy, *output, show=False))


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
    print("\n" + title[0].upper() + title[1:])
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


def rows_of_sweep(sweep):
    return [row_of(f"freqkv {point['gamma']:g}", point) for point in sweep["points"]]


def within_context(tools, context, tokens, window):
    """The text in disjoint pieces of the trained context, or all of it where it is shorter. Scored
    from the first compression on. Returns the title of the table and its rows.
    """
    pieces = ("--protocol", f"stride:{context}", "--tokens", context) if tokens > context else ()
    setting = (*pieces, "--score-from", window)
    cache = ("--window", window, "--baseline", "full")
    name = f"within-{window}"
    rows = [row_of("full", tools.perplexity(f"{name}-full.h5", "full", *setting))]
    rows += rows_of_sweep(tools.perplexity(f"{name}-freqkv", "freqkv", *SWEEP, *cache, *setting))
    local = tools.perplexity(f"{name}-local.h5", "local", "--gamma", "0.5", *cache, *setting)
    rows.append(row_of("local 0.5", local))
    title = f"within the trained context: T = {min(tokens, context)}, window {window}"
    print_table(
        f"{title}, {SINKS} sinks, targets {window} and up;\n"
        "differences are paired with full attention (nats)",
        rows,
    )
    return title, rows


def beyond_context(tools, context, tokens):
    """The whole text in one timeline through a cache of the trained context."""
    cache = ("--window", context)
    rows = rows_of_sweep(tools.perplexity("beyond-freqkv", "freqkv", *SWEEP, *cache))
    for label, policy, *gamma in [("local 0.5", "local", "--gamma", "0.5"), ("streaming",) * 2]:
        rows.append(row_of(label, tools.perplexity(f"beyond-{policy}.h5", policy, *gamma, *cache)))
    title = f"beyond the trained context: T = {tokens}, window {context}"
    print_table(
        f"{title}, one timeline;\n"
        "full attention is past the trained context there and no valid baseline",
        rows,
    )
    return title, rows


def write_csv(path, tables):
    with open(path, "w", newline="") as f:
        writer = csv.DictWriter(f, ["setting", *COLUMNS], restval="")
        writer.writeheader()
        for setting, rows in tables:
            writer.writerows({"setting": setting, **row} for row in rows)


def main():
    here = os.path.relpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", default=os.path.join(here, "build/bin"))
    p.add_argument("--model", default=os.path.join(here, "data/litbank-1m"))
    p.add_argument("--text", default=os.path.join(here, "data/the_tide_mill.txt"))
    p.add_argument("--windows", type=int, nargs="+")
    p.add_argument("--out", default="demo-output")
    args = p.parse_args()
    started = time.time()
    for folder in ("capture", "analysis", "runs"):  # of an earlier demo
        shutil.rmtree(os.path.join(args.out, folder), ignore_errors=True)
    os.makedirs(os.path.join(args.out, "runs"), exist_ok=True)

    tools = Tools(args)
    capture, analysis = os.path.join(args.out, "capture"), os.path.join(args.out, "analysis")
    texts = ("--model", args.model, "--text", args.text)
    plan = ("--out", capture, "--dry-run", "--json")
    plan = json.loads(tools.run("capture", *texts, *plan, show=False))
    context, tokens = plan["trained_context"], plan["tokens"]
    tools.run("capture", *texts, "--out", capture)
    windows = args.windows or [context // 2]
    # Segments are of the trained context; in a shorter text, of the largest window.
    segments = () if tokens >= context else ("--length", max(windows) - SINKS)
    findings = (capture, "--out", analysis, *segments)
    tools.run("analyze", "spectrum", *findings, "--null", "permute")
    tools.run("analyze", "error", *findings)

    tables = [within_context(tools, context, tokens, window) for window in windows]
    if tokens > context:
        tables.append(beyond_context(tools, context, tokens))
    write_csv(os.path.join(args.out, "perplexity.csv"), tables)
    runs = os.path.join(args.out, "runs")
    within = [
        *glob.glob(os.path.join(runs, "within-*-freqkv", "*.h5")),
        *glob.glob(os.path.join(runs, "within-*-local.h5")),
    ]
    tools.run("analyze", "plot", *sorted(within), "--out", analysis, "--quiet")
    tools.run("analyze", "report", analysis)
    print(f"\nIn {args.out}/, after {time.time() - started:.0f} s:")
    for folder, _, files in sorted(os.walk(args.out)):
        print(f"  {os.path.relpath(folder, args.out) + '/':16}" + ", ".join(sorted(files)))


if __name__ == "__main__":
    main()
