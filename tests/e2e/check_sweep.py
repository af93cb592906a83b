#!/usr/bin/env python3
"""`freqkv-replay ppl --sweep`: every point against the second implementation of check_protocols.py,
and what is there after an interruption.

check_sweep.py TOOL MODEL TEXT
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np
from check_protocols import differences, expected
from numpy_model import Model, Policy

WINDOW, TOKENS, GAMMAS = 100, 500, [0.2, 0.35, 0.5, 0.65, 0.8]


def sweep(tool, folder, text, out, *more):
    return [
        tool,
        "ppl",
        "--model",
        folder,
        "--text",
        text,
        "--policy",
        "freqkv",
        "--window",
        str(WINDOW),
        "--tokens",
        str(TOKENS),
        "--baseline",
        "full",
        "--sweep",
        "gamma=0.2:0.8:0.15",
        "--json",
        "--backend",
        "cpu",
        "--threads",
        "1",
        *(["--out", out] if out else []),
        *more,
    ]


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def check_points(points, model, ids):
    for point, gamma in zip(points, GAMMAS):
        want = expected(model, [ids], "whole", Policy("freqkv", WINDOW, gamma=gamma), TOKENS)
        keys = (
            "tokens_scored",
            "mean_nll",
            "perplexity",
            "perplexity_se",
            "compressions",
            "cache_bytes_peak",
            "cache_slots_mean",
            "baseline",
        )
        yield from differences(
            point,
            {"gamma": gamma} | {key: want[key] for key in keys},
            want["tokens_scored"],
            f"gamma {gamma}: ",
        )


def check_file(point, model):
    """The file's columns give the point's numbers; each head's compressions are numbered in the
    order of their tokens.
    """
    with h5py.File(point["file"]) as f:
        nll = f["documents/000000/nll"][:]
        if not np.isclose(np.nanmean(nll), point["mean_nll"], rtol=1e-6):
            yield f"{point['file']}: mean of nll {np.nanmean(nll)}, expected {point['mean_nll']}"
        table = {
            name: f["compressions/" + name][:]
            for name in (
                "window",
                "token",
                "layer",
                "head",
                "state",
                "round",
                "energy_before",
                "energy_kept",
            )
        }
        order = np.lexsort([table[name] for name in ("state", "head", "layer", "token", "window")])
        if not np.array_equal(order, np.arange(len(order))):
            yield (
                f"{point['file']}: compressions are not in the order of window, token, layer, head,"
                " state"
            )
        for layer in range(model.layers):
            for head in range(model.kv_heads):
                rows = (table["layer"] == layer) & (table["head"] == head) & (table["state"] == 0)
                rounds, tokens = table["round"][rows], table["token"][rows]
                if (
                    len(rounds) != point["compressions"]
                    or not np.array_equal(rounds, np.arange(1, len(rounds) + 1))
                    or np.any(np.diff(tokens) <= 0)
                ):
                    yield (
                        f"{point['file']}: layer {layer}, head {head}: rounds {rounds} at tokens"
                        f" {tokens}"
                    )
        if np.any(table["energy_kept"] > table["energy_before"] * (1 + 1e-5)):
            yield f"{point['file']}: more energy kept than there was"


def times(folder):
    return {
        name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in sorted(os.listdir(folder))
    }


def main():
    if len(sys.argv) != 4:
        print(__doc__)
        return 2
    tool, folder, text = sys.argv[1:]
    model = Model(folder)
    problems = []
    with tempfile.TemporaryDirectory() as work:
        tokens = subprocess.run(
            [tool, "tokens", "--model", folder, "--text", text],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        ids = list(map(int, tokens.split()))[:TOKENS]
        out = os.path.join(work, "runs")
        first, _ = run(sweep(tool, folder, text, out))
        problems += check_points(first["points"], model, ids)
        for point in first["points"]:
            problems += check_file(point, model)
        names = [f"gamma_{gamma:.2f}.h5" for gamma in GAMMAS]
        before = times(out)
        if list(before) != names:
            problems.append(f"files {list(before)}, expected {names}")

        os.remove(os.path.join(out, names[2]))
        again, notes = run(sweep(tool, folder, text, out))
        if again != first:
            problems.append("a resumed sweep prints something else")
        if [name for name, t in times(out).items() if t != before.get(name)] != [
            names[2]
        ] or notes.count("skipped") != 4:
            problems.append("a resumed sweep did not run the missing point alone")

        silent, _ = run(sweep(tool, folder, text, None, "--batch", "2"))
        if [p["mean_nll"] for p in silent["points"]] != [
            p["mean_nll"] for p in first["points"]
        ] or any(p["file"] for p in silent["points"]):
            problems.append("a sweep without files finds something else")

        # Killed after its first file and started again, it ends with the same files.
        killed = os.path.join(work, "killed")
        process = subprocess.Popen(
            sweep(tool, folder, text, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not (
            os.path.isdir(killed) and any(name in names for name in os.listdir(killed))
        ):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        there = [name for name in names if os.path.exists(os.path.join(killed, name))]
        rest, notes = run(sweep(tool, folder, text, killed))
        if [{k: v for k, v in p.items() if k != "file"} for p in rest["points"]] != [
            {k: v for k, v in p.items() if k != "file"} for p in first["points"]
        ]:
            problems.append("a sweep that was killed ends with something else")
        if notes.count("skipped") != len(there):
            problems.append(
                f"after a kill that left {len(there)} files {notes.count('skipped')} were skipped"
            )
    for problem in problems:
        print("FAIL", problem)
    print(f"sweep: {len(problems)} problems, killed with {len(there)} of {len(names)} points done")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
