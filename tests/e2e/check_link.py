#!/usr/bin/env python3
"""What `freqkv-analyze link` and `plot` report, against a second implementation.

    check_link.py --bin build/bin [--model data/litbank-1m] [--text data/the_tide_mill.txt]

A capture, a sweep and a per-head probe are made, joined, and every number of the tables is computed
again from the files: transforms, correlations, p-values and bootstrap intervals by scipy. What is
exact must agree to 1e-5 (states are float32), intervals to what 1,000 resamples allow. Needs numpy,
h5py and scipy.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np
from check_probe import discovery_control
from check_ratios import K, attention_error
from checks import Checks, words
from definitions import Capture, bootstrap_means
from numpy_model import Model
from scipy import fft, stats

PREDICTORS = ("energy", "energy_no_dc", "absolute", "visible", "attention", "attention_projected")
SINKS, PREFIX, SCORE, WINDOW, GAMMA = 4, 260, 64, 132, 0.5


class Subjects(Checks):
    """Many checks of one kind are one word in what is printed: that before the colon."""

    def that(self, label, passed, found=""):
        super().that(label, passed, found)
        self.agreed = list(dict.fromkeys(agreed.split(":")[0] for agreed in self.agreed))


def run(*command):
    done = subprocess.run(list(words(command)), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stderr}")
    return done.stdout


def rows_of(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def number(text):
    return float(text) if text else np.nan


class Segments:
    """All segments of n tokens after the sinks of every recording of one document, equal weight."""

    def __init__(self, path, n):
        self.n, self.at = n, []
        self.file = h5py.File(os.path.join(path, "capture.h5"))
        for name in sorted(self.file["documents"]):
            group = self.file["documents"][name]
            for s in range((group.attrs["n_tokens"] - SINKS) // n):
                self.at.append((group, SINKS + s * n))
        self.scale = self.file.attrs["attention_scale"]

    def states(self, state):
        """[segments, layers, heads, n, channels]"""
        return np.stack(
            [group[state][:, :, start : start + self.n].astype(float) for group, start in self.at]
        )

    def classes(self):
        return np.stack([group["token_class"][start : start + self.n] for group, start in self.at])

    def coefficients(self, state):
        return fft.dct(self.states(state), axis=3, norm="ortho")


def kept_of(gamma, n):
    return int(np.floor(gamma * n + 1e-9))


def check_predictors(checks, segments, model, heads):
    checks.about("predictors")
    n, kept = segments.n, int(np.ceil(0.5 * segments.n))
    found = {(row["states"], int(row["layer"]), int(row["head"])): row for row in heads}
    for state in ("key", "value"):
        y = segments.coefficients(state)
        power = (y**2).mean(axis=(0, 4))
        lost, total = power[..., kept:].sum(-1), power.sum(-1)
        want = {
            "energy": lost / total,
            "energy_no_dc": lost / (total - power[..., 0]),
            "absolute": lost / n,
        }
        if state == "key":
            q = segments.states("query")
            group = q.shape[2] // y.shape[2]
            q = q.reshape(*q.shape[:2], y.shape[2], group, n, -1)
            sigma = np.einsum("slhgtc,slhgtd->lhcd", q, q) / (q.shape[0] * group * n)
            want["visible"] = (
                segments.scale**2
                / n
                * np.einsum("slhtc,lhcd,slhtd->lh", y[..., kept:, :], sigma, y[..., kept:, :])
                / len(y)
            )
        else:
            layers, kv_heads = y.shape[1:3]
            w = np.stack(
                [
                    model.weight(layer, "self_attn.o_proj").reshape(
                        -1, kv_heads, model.heads // kv_heads, model.head_dim
                    )
                    for layer in range(layers)
                ]
            )
            want["visible"] = [
                [
                    np.mean(
                        [
                            np.sum((y[:, layer, h, kept:] @ w[layer, :, h, g].T) ** 2)
                            for g in range(w.shape[3])
                        ]
                    )
                    / len(y)
                    / n
                    for h in range(kv_heads)
                ]
                for layer in range(layers)
            ]
            want["visible"] = np.array(want["visible"])
        for name, values in want.items():
            got = [
                [number(found[state, layer, h][name]) for h in range(values.shape[1])]
                for layer in range(values.shape[0])
            ]
            checks.close(f"{name} of {state}", got, values, 1e-5)


def check_attention(checks, capture, model, out, heads):
    """Both errors of a head, which are its keys' and its values'. What is in results.h5 is in the
    table.
    """
    checks.about("attention-output error")
    found = {(row["states"], int(row["layer"]), int(row["head"])): row for row in heads}
    layer, head = model.layers // 2, model.kv_heads - 1
    for name, values in zip(
        PREDICTORS[-2:],
        attention_error(Capture(capture), model, PREFIX - SINKS, SINKS, layer, head, [K // 2]),
    ):
        for state in ("key", "value"):
            checks.close(name, number(found[state, layer, head][name]), values[0], 1e-3)
    with h5py.File(os.path.join(out, "results.h5")) as results:
        checks.close(
            "results.h5",
            results["link/head_predictor"][()],
            [[number(row[name]) for name in PREDICTORS] for row in heads],
            1e-6,
        )


def paired(probe):
    """Per change: delta nll and kl [changes, windows, tokens]."""
    with h5py.File(probe) as f:
        documents = [f["documents"][name] for name in sorted(f["documents"])]
        nll = np.stack(
            [d["nll"][:].astype(float) - d["untouched_nll"][:].astype(float) for d in documents],
            axis=1,
        )
        kl = np.stack([d["kl"][:].astype(float) for d in documents], axis=1)
        floor = np.stack([d["repeat_kl"][:].astype(float) for d in documents])
        classes = np.stack([d["token_class"][:] for d in documents])
        table = {name: f["changes"][name][:] for name in f["changes"]}
        labels = [bytes(label).split(b"\0")[0].decode() for label in table["label"]]
    return {"delta_nll": nll, "kl": kl}, table, labels, classes, floor


def check_damage(checks, probe, heads):
    checks.about("damage")
    damage, table, _, _, floor = paired(probe)
    for measure, values in damage.items():
        units = values.mean(axis=2)  # a window is shorter than a block of 256 tokens
        for state, bit in (("key", 1), ("value", 2)):
            own = np.flatnonzero((table["states"] == bit) & (table["kv_head"] >= 0))
            rows = [row for row in heads if row["states"] == state]
            checks.close(
                f"{measure}: {state}",
                [number(row[measure]) for row in rows],
                units[own].mean(1),
                1e-6,
                1e-9,
            )
            p = stats.ttest_1samp(units[own], 0, axis=1).pvalue
            if (
                measure == "kl"
            ):  # a mean KL is never below zero: is it above that of the repeated run?
                p = stats.ttest_1samp(
                    units[own] - floor.mean(axis=1), 0, axis=1, alternative="greater"
                ).pvalue
            checks.close(
                f"q of {measure}: {state}",
                [number(row[measure + "_q"]) for row in rows],
                discovery_control(p),
                1e-6,
            )
            low, high = stats.bootstrap(
                (units[own],),
                np.mean,
                axis=1,
                method="percentile",
                n_resamples=4000,
                random_state=np.random.default_rng(1),
            ).confidence_interval
            width = high - low
            off = max(
                np.max(np.abs([number(row[measure + "_low"]) for row in rows] - low) / width),
                np.max(np.abs([number(row[measure + "_high"]) for row in rows] - high) / width),
            )
            checks.that(
                f"{measure} intervals, {state}: within {off:.2f} of their width",
                off < 0.12,
                f"{off:.3f} of the width",
            )


def spearman_partial(x, y, z):
    xy, xz, yz = (stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    return (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))


def pearson_rows(a, b, axis=-1):
    """Pearson's correlation along an axis, of all resamples at once."""
    a, b = (v - v.mean(axis=axis, keepdims=True) for v in (a, b))
    return (a * b).sum(axis=axis) / np.sqrt((a * a).sum(axis=axis) * (b * b).sum(axis=axis))


def spearman_rows(a, b, axis=-1):
    return pearson_rows(stats.rankdata(a, axis=axis), stats.rankdata(b, axis=axis), axis)


def check_links(checks, heads, links):
    checks.about("correlations")
    layers = max(int(row["layer"]) for row in heads) + 1
    for link in links:
        if link["change"] == "sweep":
            continue
        points = [
            row
            for row in heads
            if row["change"] == link["change"] and link["depth"] in ("all", row["depth"])
        ]
        checks.that(
            "points", len(points) == int(link["points"]), f"{len(points)} and {link['points']}"
        )
        x = np.array([number(row[link["predictor"]]) for row in points])
        y = np.array([number(row[link["damage"]]) for row in points])
        z = [int(row["layer"]) for row in points]
        name = f"{link['change']}, {link['damage']}, {link['predictor']}, {link['depth']}"
        if not np.isfinite(x).all() or len(points) < 3:
            checks.that(
                "none where there is none: " + name, link["spearman"] == "", link["spearman"]
            )
            continue
        checks.close(
            "Spearman: " + name,
            number(link["spearman"]),
            stats.spearmanr(x, y).statistic,
            1e-6,
            0.1,
        )
        checks.close(
            "Pearson: " + name, number(link["pearson"]), stats.pearsonr(x, y).statistic, 1e-6, 0.1
        )
        if link["depth"] == "all" and layers > 2:
            checks.close(
                "partial: " + name, number(link["partial"]), spearman_partial(x, y, z), 1e-6, 0.1
            )
            for measure, function in (("spearman", spearman_rows), ("pearson", pearson_rows)):
                interval = stats.bootstrap(
                    (x, y),
                    function,
                    paired=True,
                    vectorized=True,
                    method="percentile",
                    n_resamples=1000,
                    random_state=np.random.default_rng(2),
                ).confidence_interval
                off = max(
                    abs(number(link[measure + "_low"]) - interval.low),
                    abs(number(link[measure + "_high"]) - interval.high),
                )
                checks.that(
                    f"{measure} interval: {name}",
                    off < 0.15,
                    f"{name}: {link[measure + '_low']} to {link[measure + '_high']}, scipy"
                    f" {interval}",
                )


def check_sweep(checks, segments, runs, points, links):
    checks.about("sweep")
    for name in ("key", "value"):
        power = (segments.coefficients(name) ** 2).mean(axis=(0, 4))
        for suffix, first in (("", 0), ("_no_dc", 1)):
            want = []
            for path in runs:
                with h5py.File(path) as f:
                    kept = f["retained"][:]
                share = [
                    power[layer, h, first : kept[layer, h]].sum() / power[layer, h, first:].sum()
                    for layer in range(kept.shape[0])
                    for h in range(kept.shape[1])
                ]
                want.append(np.mean(share))
            checks.close(
                f"retained {name}{suffix}",
                [number(row[f"retained_{name}{suffix}"]) for row in points],
                want,
                1e-5,
            )
    nll, delta = [], []
    for path in runs:
        with h5py.File(path) as f:
            d = f["documents/000000"]
            own = d["nll"][:].astype(float)
            scored = np.isfinite(own)
            nll.append(own[scored].mean())
            delta.append((own - d["baseline_nll"][:])[scored].mean())
    checks.close("mean nll", [number(row["mean_nll"]) for row in points], nll, 1e-6)
    checks.close("delta nll", [number(row["delta_nll"]) for row in points], delta, 1e-6, 1e-6)
    for link in links:
        if link["change"] == "sweep":
            x = [number(row[link["predictor"]]) for row in points]
            y = nll if link["damage"] == "mean_nll" else delta
            checks.close(
                f"Spearman: {link['predictor']} with {link['damage']}",
                number(link["spearman"]),
                stats.spearmanr(x, y).statistic,
                1e-6,
                0.1,
            )


def check_classes(checks, segments, probe, rows):
    checks.about("classes")
    names = [
        "all",
        "digit",
        "punctuation",
        "word start",
        "continuation",
        "rare",
        "copied",
        "first occurrence",
    ]
    found = {(row["quantity"], row["class"]): row for row in rows}
    classes, kept = segments.classes(), kept_of(GAMMA, segments.n)
    for state in ("key", "value"):
        x, y = segments.states(state), segments.coefficients(state)
        variance = (y[..., 1:, :] ** 2).sum((3, 4)) / segments.n
        y[..., :kept, :] = 0
        lost = (fft.idct(y, axis=3, norm="ortho") ** 2).sum(4)
        residual = (lost / (x**2).sum(4)).mean((1, 2))
        no_dc = (lost / variance[..., None]).mean((1, 2))
        for c, name in enumerate(names):
            chosen = (classes >> max(c - 1, 0) & 1 == 1) if c else classes >= 0
            for quantity, values in (
                ("residual_" + state, residual),
                (f"residual_{state}_no_dc", no_dc),
            ):
                row = found[quantity, name]
                checks.that(
                    "tokens",
                    int(row["tokens"]) == chosen.sum(),
                    f"{row['tokens']} of {name}, expected {chosen.sum()}",
                )
                if chosen.any():
                    checks.close(
                        f"{quantity}: {name}", number(row["mean"]), values[chosen].mean(), 1e-4
                    )
    damage, table, labels, token_class, _ = paired(probe)
    scored = token_class[:, PREFIX + 1 : PREFIX + 1 + SCORE]
    for i, label in enumerate(labels):
        if ("delta_nll: " + label, "copied") in found and table["layer"][i] < 0:
            chosen = scored >> 5 & 1 == 1
            checks.close(
                f"damage to copied tokens: {label}",
                number(found["delta_nll: " + label, "copied"]["mean"]),
                damage["delta_nll"][i][chosen].mean(),
                1e-6,
                1e-9,
            )


def check_few_texts(checks, tools, args, work):
    """Three texts: intervals over them by documents, and blocks of 256 scored tokens within those
    that are drawn.
    """
    checks.about("three texts")
    capture, analyze, replay = tools
    files, at = [], lambda name: os.path.join(work, name)
    with open(args.text, encoding="utf-8") as f:
        content = f.read()
    for i, size in enumerate((2500, 3600, 1500)):
        files += ["--text", at(f"part{i}.txt")]
        with open(files[-1], "w", encoding="utf-8") as f:
            f.write(content[9000 * i : 9000 * i + size])
    model = ["--model", args.model, *files, "--quiet"]
    run(capture, *model, "--out", at("few"), "--dtype", "f32")
    run(
        replay,
        "ppl",
        *model,
        "--policy freqkv --window",
        WINDOW,
        "--sweep gamma=0.25:0.75:0.25 --baseline full --out",
        at("fewruns"),
    )
    runs = sorted(os.path.join(at("fewruns"), name) for name in os.listdir(at("fewruns")))
    shown = json.loads(
        run(
            analyze,
            "link",
            "--capture",
            at("few"),
            "--runs",
            *runs,
            "--out",
            at("fewlink"),
            "--json --quiet",
        )
    )
    run(analyze, "plot", *runs, "--out", at("fewfigures"))
    drawn = [
        row
        for row in rows_of(os.path.join(at("fewfigures"), "runs_perplexity.csv"))
        if row["panel"].startswith("KL")
    ]
    checks.that(
        "se_unit", shown["sweep"]["se_unit"] == "documents and blocks", shown["sweep"]["se_unit"]
    )
    for path, row, kl in zip(runs, rows_of(os.path.join(at("fewlink"), "link_sweep.csv")), drawn):
        with h5py.File(path) as f:
            checks.that(
                "se_unit of a run",
                f.attrs["se_unit"] in ("documents and blocks", b"documents and blocks"),
                f.attrs["se_unit"],
            )
            columns = [
                {n: f["documents"][d][n][1:].astype(float) for n in ("nll", "baseline_nll", "kl")}
                for d in sorted(f["documents"])
            ]
        counts = [
            [len(c["nll"][i : i + 256]) for i in range(0, len(c["nll"]), 256)] for c in columns
        ]
        for name, value, found in (
            ("mean_nll", lambda c: c["nll"], row),
            ("delta_nll", lambda c: c["nll"] - c["baseline_nll"], row),
            ("kl", lambda c: c["kl"], kl),
        ):
            sums = [
                [value(c)[i : i + 256].sum() for i in range(0, len(c["nll"]), 256)] for c in columns
            ]
            low, high = np.percentile(bootstrap_means(sums, counts), [2.5, 97.5])
            prefix = "" if name == "kl" else name + "_"
            checks.close(
                f"interval of {name}",
                [number(found[prefix + "low"]), number(found[prefix + "high"])],
                [low, high],
                1e-5,
                1e-7,
            )


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", default="build/bin")
    p.add_argument("--model", default="data/litbank-1m")
    p.add_argument("--text", default="data/the_tide_mill.txt")
    args = p.parse_args()
    checks = Subjects()
    with tempfile.TemporaryDirectory() as work:
        capture, runs, probe, out = (
            os.path.join(work, name) for name in ("capture", "runs", "heads.h5", "out")
        )
        replay, analyze = (
            os.path.join(args.bin, "freqkv-replay"),
            os.path.join(args.bin, "freqkv-analyze"),
        )
        model = ["--model", args.model, "--text", args.text, "--quiet"]
        run(
            os.path.join(args.bin, "freqkv-capture"),
            *model,
            "--out",
            capture,
            "--states key,value,query --dtype f32",
        )
        run(
            replay,
            "ppl",
            *model,
            "--policy freqkv --window",
            WINDOW,
            "--sweep gamma=0.2:0.8:0.2 --tokens",
            600,
            "--baseline full --out",
            runs,
        )
        run(
            replay,
            "probe",
            *model,
            "--prefix",
            PREFIX,
            "--score",
            SCORE,
            "--blocks",
            8,
            "--per-head --filter 0:0.5 --states key,value --out",
            probe,
        )
        files = sorted(os.path.join(runs, name) for name in os.listdir(runs))
        shown = json.loads(
            run(
                analyze,
                "link",
                "--capture",
                capture,
                "--runs",
                *files,
                "--probes",
                probe,
                "--out",
                out,
                "--json --quiet",
            )
        )
        tables = {
            name: rows_of(os.path.join(out, f"link_{name}.csv"))
            for name in ("sweep", "heads", "predictors", "classes")
        }
        check_predictors(
            checks, Segments(capture, PREFIX - SINKS), Model(args.model), tables["heads"]
        )
        check_attention(checks, capture, Model(args.model), out, tables["heads"])
        check_damage(checks, probe, tables["heads"])
        check_links(checks, tables["heads"], tables["predictors"])
        check_sweep(
            checks, Segments(capture, WINDOW - SINKS), files, tables["sweep"], tables["predictors"]
        )
        check_classes(checks, Segments(capture, PREFIX - SINKS), probe, tables["classes"])
        checks.about("what is shown")
        checks.that("points", len(shown["sweep"]["points"]) == 4, shown["sweep"]["points"])
        checks.that("groups", len(shown["heads"]) == 2 * 2 * 4, len(shown["heads"]))
        best = {
            (g["damage"], g["change"]): [
                link["predictor"] for link in g["links"] if link["place"] == 1
            ]
            for g in shown["heads"]
            if g["depth"] == "all"
        }
        checks.that("a best predictor each", all(best.values()), best)
        drawn = json.loads(
            run(analyze, "plot", *files, probe, "--out", os.path.join(work, "figures"), "--json")
        )
        checks.that(
            "figures", drawn["runs"] == 4 and drawn["probes"] == 1 and drawn["figures"] >= 9, drawn
        )
        check_few_texts(
            checks, (os.path.join(args.bin, "freqkv-capture"), analyze, replay), args, work
        )
        checks.about(None)
    print(f"link: {checks.made - checks.failed} passed, {checks.failed} failed")
    sys.exit(checks.failed > 0)


if __name__ == "__main__":
    main()
