#!/usr/bin/env python3
"""Every change of `freqkv-replay probe` against a second implementation in numpy, per token, and
its statistics against scipy.

    check_probe.py TOOL MODEL TEXT

Only tokens come from the tool. Prints one line per change and exits 1 if any differs.
"""

import json
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np
import scipy.stats
from definitions import bootstrap_draws, bootstrap_means, unit_of_error
from numpy_model import Model
from probe_changes import (
    BLOCKS,
    KINDS,
    OPTIONS,
    PREFIX,
    SCORE,
    SEED,
    SINKS,
    STATES,
    Slots,
    alone,
    continue_with,
    together,
)


def close(name, found, want, absolute, relative=0):
    worst = np.max(np.abs(np.asarray(found) - want) - relative * np.abs(want))
    return (
        []
        if worst <= absolute
        else [f"{name}: largest difference {worst:.3g}, allowed {absolute:.3g}"]
    )


def discovery_control(p):
    """Benjamini-Hochberg: scipy's where it has it (1.11), else from the definition."""
    if hasattr(scipy.stats, "false_discovery_control"):
        return scipy.stats.false_discovery_control(p)
    return np.array(
        [min(1, min(other * len(p) / np.sum(p <= other) for other in p[p >= one])) for one in p]
    )


def check_statistics(printed, nll, untouched, kl, repeat_kl):
    """The summary's numbers from the file's own per-token ones. All windows are of one document,
    and each is one block.
    """
    rows, windows, problems = printed["changes"], len(nll), []
    draws = np.array(bootstrap_draws([windows])[1])
    delta = nll.mean(2) - untouched.mean(1)[:, None]  # [windows, changes]
    if (printed["units"], printed["documents"], printed["se_unit"]) != (
        windows,
        1,
        unit_of_error([windows]),
    ):
        problems.append(
            f"units {printed['units']} of {printed['documents']} documents, {printed['se_unit']}"
        )
    for c, row in enumerate(rows):
        for name, values in (("delta_nll", delta[:, c]), ("kl", kl[:, c].mean(1))):
            low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
            problems += close(
                f"{row['label']} {name}",
                [row[name], row[name + "_low"], row[name + "_high"]],
                [values.mean(), low, high],
                1e-7,
                1e-5,
            )
        if row["p"] is not None:
            problems += close(
                f"{row['label']} p",
                row["p"],
                scipy.stats.ttest_1samp(delta[:, c], 0).pvalue,
                1e-9,
                1e-4,
            )
        above = (kl[:, c] - repeat_kl).mean(1)
        if row["kl_p"] is None:  # of a change that is its repetition to the bit
            if above.any():
                problems.append(f"{row['label']}: kl_p: expected a number, found null")
            continue
        problems += close(
            f"{row['label']} kl_p",
            row["kl_p"],
            scipy.stats.ttest_1samp(above, 0, alternative="greater").pvalue,
            1e-9,
            1e-4,
        )
        if row["kind"] == "none" and not row["kl_p"] > 0.5:
            problems.append(f"the empty change has kl_p {row['kl_p']}")
    tables = {}
    for row in rows:
        if row["layer"] is not None and row["p"] is not None:
            tables.setdefault((row["family"], row["kv_head"] is None), []).append(row)
    for table in tables.values():
        for p, q in (("p", "q"), ("kl_p", "kl_q")):
            want = discovery_control(np.array([row[p] for row in table]))
            problems += close(
                f"{table[0]['label']} {q}", [row[q] for row in table], want, 1e-9, 1e-6
            )
    return problems


def structures_in_file(table):
    """Change.structure() of each row of /changes."""

    def known(value):
        return None if value < 0 or np.isnan(value) else value.item()

    for i, kind in enumerate(table["kind"]):
        count = table["band_count"][i]
        if not (
            np.isnan(table["bands"][i, count:]).all()
            and np.isfinite(table["bands"][i, :count]).all()
        ):
            raise ValueError(f"change {i}: {count} bands, found {table['bands'][i]}")
        yield (
            int(table["option"][i]),
            KINDS[kind],
            int(table["complement"][i]),
            int(table["states"][i]),
            tuple(map(tuple, table["bands"][i, :count])),
            *(known(table[name][i]) for name in ("epsilon", "gamma")),
            tuple(known(table[name][i]) for name in ("truncation", "squeezed", "fewer")),
            known(table["layer"][i]),
            known(table["kv_head"][i]),
        )


def structure_printed(row):
    """The same of a row of --json."""
    parts = tuple(
        None if row[name] is None else int(row[name])
        for name in ("truncation", "squeezed", "fewer")
    )
    return (
        OPTIONS.index(row["option"]),
        row["kind"],
        int(row["complement"]),
        STATES.index(row["states"]),
        tuple(map(tuple, row["bands"])),
        row["epsilon"],
        row["gamma"],
        parts,
        row["layer"],
        row["kv_head"],
    )


def check_changes(table, rows, expected):
    """Structure, labels and families of the changes, in the file and printed."""
    want = [change.structure() for _, change in expected]
    if list(structures_in_file(table)) != want:
        yield "the changes in the file differ"
    if [structure_printed(row) for row in rows] != want:
        yield "the changes printed differ"
    if [row["label"] for row in rows] != [label for label, _ in expected]:
        yield "the labels differ"
    families = [0]
    for a, b in zip(want, want[1:]):
        families.append(families[-1] + (a[:-2] != b[:-2]))
    if table["family"].tolist() != families or [row["family"] for row in rows] != families:
        yield "the families differ"


def check(tool, folder, text, model, expected, options):
    """Runs the tool and yields what differs."""
    with tempfile.TemporaryDirectory() as work:
        path = os.path.join(work, "probe.h5")
        command = [
            tool,
            "probe",
            "--model",
            folder,
            "--text",
            text,
            "--prefix",
            str(PREFIX),
            "--score",
            str(SCORE),
            "--sinks",
            str(SINKS),
        ]
        command += [
            "--blocks",
            str(BLOCKS),
            "--seed",
            str(SEED),
            "--out",
            path,
            "--json",
            "--quiet",
            "--threads",
            "1",
            "--backend",
            "cpu",
        ]
        printed = json.loads(
            subprocess.run(command + options, check=True, capture_output=True, text=True).stdout
        )
        if os.listdir(work) != ["probe.h5"]:
            yield f"left behind: {os.listdir(work)}"
        with h5py.File(path) as f:
            windows = [
                {k: v[...] for k, v in f["documents"][name].items()}
                for name in sorted(f["documents"])
            ]
            table = {name: column[...] for name, column in f["changes"].items()}
    ids = subprocess.run(
        [tool, "tokens", "--model", folder, "--text", text],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    rows = printed["changes"]
    if len(windows) != BLOCKS:
        yield f"{len(windows)} windows"
    yield from check_changes(table, rows, expected)
    worst = {}
    for w, window in enumerate(windows):
        yield from check_window(model, w, window, ids, expected, worst)
    for label, difference in worst.items():
        print(f"{label:50s} largest difference of delta nll {difference:.2g}")
    yield from check_statistics(
        printed,
        *(
            np.stack([window[name] for window in windows]).astype(float)
            for name in ("nll", "untouched_nll", "kl", "repeat_kl")
        ),
    )
    repeat = np.mean([np.abs(window["repeat_nll"] - window["untouched_nll"]) for window in windows])
    yield from close("noise floor", printed["noise_floor_nll"], repeat, 1e-9, 1e-4)


def check_few_documents(tool, folder, text):
    """Three texts of one window and of two, each of a whole block and a rest: intervals by
    documents and blocks within them, p over documents.
    """
    with tempfile.TemporaryDirectory() as work, open(text, encoding="utf-8") as f:
        content, path, files = f.read(), os.path.join(work, "probe.h5"), []
        for i, (start, size) in enumerate(((0, 1500), (6000, 3000), (15000, 3000))):
            files += ["--text", os.path.join(work, f"{i}.txt")]
            with open(files[-1], "w", encoding="utf-8") as part:
                part.write(content[start : start + size])
        command = [
            tool,
            "probe",
            "--model",
            folder,
            *files,
            "--prefix",
            "64",
            "--score",
            "300",
            "--blocks",
            "2",
            "--local",
            "0.5",
            "--filter",
            "0:0.5",
            "--per-head",
            "--out",
            path,
            "--json",
            "--quiet",
            "--backend",
            "cpu",
        ]
        printed = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout
        )
        with h5py.File(path) as f:
            windows = [
                (
                    int(f["documents"][n].attrs["document"]),
                    {k: v[...].astype(float) for k, v in f["documents"][n].items()},
                )
                for n in sorted(f["documents"])
            ]
    blocks = [
        [(w, slice(i, i + 256)) for d, w in windows if d == document for i in (0, 256)]
        for document in range(3)
    ]
    if (printed["units"], printed["documents"], printed["se_unit"]) != (
        sum(map(len, blocks)),
        3,
        unit_of_error(list(map(len, blocks))),
    ):
        yield (
            f"three texts: units {printed['units']} of {printed['documents']} documents,"
            f" {printed['se_unit']}"
        )
    counts = [[w["untouched_nll"][i].size for w, i in document] for document in blocks]
    for c, row in enumerate(printed["changes"]):
        measures = {
            "delta_nll": lambda w, i: w["nll"][c][i] - w["untouched_nll"][i],
            "kl": lambda w, i: w["kl"][c][i],
            "above": lambda w, i: w["kl"][c][i] - w["repeat_kl"][i],
        }
        sums = {
            name: [[value(w, i).sum() for w, i in document] for document in blocks]
            for name, value in measures.items()
        }
        means = {
            name: np.array([sum(s) / sum(n) for s, n in zip(documents, counts)])
            for name, documents in sums.items()
        }
        label = f"three texts: {row['label']} layer {row['layer']} head {row['kv_head']}"
        for name in ("delta_nll", "kl"):
            low, high = np.percentile(bootstrap_means(sums[name], counts), [2.5, 97.5])
            estimate = sum(map(sum, sums[name])) / sum(map(sum, counts))
            yield from close(
                f"{label} {name}",
                [row[name], row[name + "_low"], row[name + "_high"]],
                [estimate, low, high],
                1e-7,
                1e-5,
            )
        if row["p"] is not None:
            yield from close(
                f"{label} p",
                row["p"],
                scipy.stats.ttest_1samp(means["delta_nll"], 0).pvalue,
                1e-9,
                1e-4,
            )
        yield from close(
            f"{label} kl_p",
            row["kl_p"],
            scipy.stats.ttest_1samp(means["above"], 0, alternative="greater").pvalue,
            1e-9,
            1e-4,
        )


def check_window(model, w, window, ids, expected, worst):
    start, tokens = w * (PREFIX + SCORE + 1), window["tokens"]
    want = np.array(ids[start : start + PREFIX + SCORE + 1], int)
    if w and model.adds_bos:
        want[0] = model.bos
    if not np.array_equal(tokens, want):
        yield f"window {w}: other tokens"
    nothing = Slots(np.zeros((0, model.head_dim)), np.zeros((0, model.head_dim)))
    _, prefix = continue_with(model, tokens[:PREFIX], [[nothing] * model.kv_heads] * model.layers)
    untouched, _ = continue_with(
        model, tokens[PREFIX:-1], [[Slots(k, v) for k, v in heads] for heads in prefix]
    )
    row, targets = np.arange(SCORE), tokens[PREFIX + 1 :]
    for c, (label, change) in enumerate(expected):
        layer, head = change.layer, change.head
        if w and layer is not None and (c + w) % 5:
            continue  # in the first window all, later on some
        made = [
            [change.apply(k, v, w, layer, h, model) for h, (k, v) in enumerate(heads)]
            for layer, heads in enumerate(prefix)
        ]
        p, _ = continue_with(model, tokens[PREFIX:-1], [[m[0] for m in heads] for heads in made])
        lost, energy = (np.sum([m[i] for heads in made for m in heads], axis=0) for i in (1, 2))
        delta, found = (
            untouched[row, targets] - p[row, targets],
            window["nll"][c] - window["untouched_nll"],
        )
        kl = np.sum(np.exp(untouched) * (untouched - p), axis=-1)
        problems = close("delta nll", found, delta, 1e-4) + close(
            "kl", window["kl"][c], kl, 2e-6, 2e-3
        )
        problems += close(
            "lost energy",
            window["lost_energy"][c],
            lost / np.where(energy > 0, energy, 1),
            1e-6,
            1e-4,
        )
        yield from (
            f"{label} layer {layer} head {head} window {w}: {problem}" for problem in problems
        )
        worst[label] = max(worst.get(label, 0), float(np.max(np.abs(found - delta))))
    if not np.array_equal(window["nll"][0], window["untouched_nll"]):
        yield f"window {w}: the empty change changed something"
    whole = [
        c
        for c, (_, change) in enumerate(expected)
        if change.kind == "freqkv"
        and change.gamma == 0.37
        and change.parts
        and all(change.parts)
        and change.layer is None
    ]
    if any(not np.array_equal(window["nll"][c], window["nll"][whole[0]]) for c in whole):
        yield f"window {w}: all parts together are not exactly freqkv"


def main():
    if len(sys.argv) != 4:
        print(__doc__)
        return 2
    tool, folder, text = sys.argv[1:]
    model, failures = Model(folder), 0
    for expected, options in (together(model), alone(model)):
        for problem in check(tool, folder, text, model, expected, options):
            print("FAIL", problem)
            failures += 1
    for problem in check_few_documents(tool, folder, text):
        print("FAIL", problem)
        failures += 1
    print(f"{failures} differences" if failures else "all checks passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
