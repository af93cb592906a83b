#!/usr/bin/env python3
"""What `freqkv-capture` stores and `freqkv-analyze spectrum | error | merge` report, against a
second implementation.

    check_analysis.py --bin build/bin [--model data/litbank-1m] [--text data/the_tide_mill.txt]

Nothing here comes from the C code: what is wanted stands in definitions.py. What is exact must
agree to 1e-6; the permutation null and the bootstrap, whose random numbers are the tool's own, to
what their distribution allows. Prints a line per subject, one more for everything that differs, and
exits 1 if anything does. Needs numpy and h5py.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np
from checks import Checks, Tools
from definitions import STATES, Capture, Cut, forward, to_bf16
from numpy_model import Model, dct_matrix

MEASURES = ("retained_energy", "relative_error", "snr_db", "cosine")


def check_spectrum(checks, tools, capture_path, n=None, skip=None, null=None, sums_of=None):
    """sums_of: the capture that has the states of one that has only sums"""
    out = capture_path + "-spectrum"
    capture = Capture(sums_of or capture_path)
    given = {"--null": null} if sums_of else {"--length": n, "--skip-sinks": skip, "--null": null}
    options = [x for option in given.items() if option[1] is not None for x in option]
    subject = f"spectrum {os.path.basename(capture_path)} {' '.join(map(str, options))}"
    shown = tools.run(
        "freqkv-analyze", "spectrum", capture_path, "--out", out, "--json", "--quiet", *options
    )
    skip = 4 if skip is None else skip
    n = n or int(capture.attributes["trained_context"]) - skip
    rows = read_csv(os.path.join(out, "spectrum.csv"))
    with h5py.File(os.path.join(out, "results.h5"), "r") as results:
        states = [s["state"] for s in shown["states"]]
        for summary in shown["states"]:
            state = summary["state"]
            cut, group = Cut(capture.recordings, state, n, skip), results["spectrum"][state]
            found = {name: group[name][()] for name in group}
            checks.about(f"{subject} {state}")
            check_counts(checks, shown, results.attrs, cut, n, skip)
            check_spectrum_state(checks, found, cut, capture, shown, sums_of is not None)
            check_spectrum_rows(
                checks,
                [r for r in rows if r["state"] == state],
                found,
                cut,
                shown["standard_error"],
            )
            check_spectrum_summary(checks, summary, found, n)
        there = [s for s in STATES if s in capture.recordings[0][2]]
        checks.that(
            "states", sorted(states) == sorted(results["spectrum"]) == sorted(there), f"{states}"
        )


def check_counts(checks, shown, attributes, cut, n, skip):
    want = {
        "segment_length": n,
        "skip_sinks": skip,
        "documents": cut.documents,
        "segments": len(cut.x),
        "tokens_left_out": cut.left_out,
    }
    found = {k: shown[k] for k in want}
    checks.that(
        "counts",
        found == want and all(int(attributes[k]) == want[k] for k in want),
        f"{found}, expected {want}",
    )


def check_spectrum_state(checks, found, cut, capture, shown, sums):
    exact = 1e-5 if sums else 1e-6
    power = cut.mean(cut.power)
    checks.close("power", found["power"], power, exact)
    checks.close("total", found["total"], power.sum(-1), exact)
    checks.close("total_no_dc", found["total_no_dc"], power[..., 1:].sum(-1), exact)
    checks.close("normalised", found["power_normalised"], cut.mean(cut.normalised).mean(1), exact)
    if not sums:
        checks.close(
            "rounding floor",
            found["rounding_floor"],
            cut.rounding(capture.attributes.get("dtype", "f32")),
        )
    checks.that(
        "se_unit",
        shown["se_unit"] == cut.se_unit(),
        f"{shown['se_unit']}, expected {cut.se_unit()}",
    )
    check_standard_error(
        checks, "power_se", found["power_se"], cut.power, cut, shown["standard_error"]
    )
    if shown["null"] == "none":
        checks.that("no null", "power_null" not in found and "excess" not in found)
        return
    checks.close("excess", found["excess"], divided(found["power"], found["power_null"]), 1e-12)
    checks.close("null at DC", found["power_null"][..., 0], power[..., 0], exact)
    checks.close("null's energy", found["power_null"].sum(-1), power.sum(-1), exact)
    mean, deviation = cut.null()
    if shown["null"] == "expected":
        checks.close(
            "null", found["power_null"][..., 1:], np.repeat(mean[..., None], cut.n - 1, -1), exact
        )
    elif cut.n > 32:
        check_null_spread(
            checks, divided(found["power_null"][..., 1:] - mean[..., None], deviation[..., None])
        )


def check_null_spread(checks, z):
    """z [layers, heads, n - 1]: deviations in units of what 8 independent permutations per segment
    give. Layers and heads share their permutations, so each is judged by itself; flat: the lowest
    eighth is no different.
    """
    z = z[np.isfinite(z).all(-1)]  # a head without energy has no spread
    spread = np.mean(z**2, -1)
    low = z[..., : z.shape[-1] // 8].mean(-1) * np.sqrt(z.shape[-1] // 8)
    checks.that(
        "null's spread",
        bool(np.all((0.5 < spread) & (spread < 1.8)) and np.abs(z).max() < 7),
        f"variance {spread.min():.2f} to {spread.max():.2f} of the expected, furthest"
        f" {np.abs(z).max():.1f} deviations",
    )
    checks.that(
        "null is flat",
        bool(np.abs(low).max() < 5),
        f"lowest eighth off by {np.abs(low).max():.1f} deviations",
    )


def check_standard_error(checks, label, found, values, cut, kind):
    """values [segments, ...]: what was averaged"""
    want = cut.error_of_mean(values)
    if cut.documents >= 20:
        checks.that(f"{label} over documents", kind == "documents", kind)
        checks.close(label, found, want, 1e-4)
    elif (
        kind == "segments"
    ):  # of sums: in closed form, and none for bands, since sums know no coefficients together
        known = np.isfinite(found)
        want = cut.error_from_sums(values)
        checks.close(label + " over segments", found[known], want[known], 1e-4)
    elif len(cut.x) == 1:
        checks.close(label, found, want)
    else:
        ratio = np.where(found == want, 1, divided(found, want))
        middle = np.median(ratio)
        agree = abs(middle - 1) < 0.06 and np.all((0.75 < ratio) & (ratio < 1.33))
        checks.that(
            f"{label} by {kind} {middle:.2f}",
            bool(agree and kind == "bootstrap"),
            f"{ratio.min():.3f} to {ratio.max():.3f} of another bootstrap's",
        )


def divided(a, b):
    """NaN where there is nothing to divide by"""
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=np.asarray(b) != 0)


def read_csv(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def column(rows, name):
    return np.array([float(r[name]) if r[name] else np.nan for r in rows])


def check_spectrum_rows(checks, rows, found, cut, kind):
    """The table: a row for DC and 64 bands per layer and head, against the full resolution."""
    names = (
        "state layer head t_low t_high cycles_per_token power power_se power_null excess"
        " energy_share energy_share_no_dc"
    )
    checks.that("csv columns", list(rows[0]) == names.split(), ",".join(rows[0]))
    heads = [(layer, head) for layer in found["layer_index"] for head in found["head_index"]]
    got = list(dict.fromkeys((int(r["layer"]), int(r["head"])) for r in rows))
    checks.that("csv rows", got == heads, f"{got}")
    low, high = column(rows, "t_low").astype(int), column(rows, "t_high").astype(int)
    bands = len(rows) // len(heads)
    covered = all(
        list(low[i : i + bands]) == [0] + list(high[i : i + bands - 1])
        and high[i + bands - 1] == cut.n
        for i in range(0, len(rows), bands)
    )
    checks.that(
        "csv bands",
        covered and bands == min(64, cut.n - 1) + 1,
        f"{bands} rows cover 0 <= t < {cut.n}",
    )
    edges, width, nothing = low[:bands], high - low, np.full(found["power"].shape, np.nan)

    def banded(x):
        return np.add.reduceat(x, edges, axis=-1) / width[:bands]

    power, null = banded(found["power"]).ravel(), banded(found.get("power_null", nothing)).ravel()
    total, ac = np.repeat(found["total"], bands), np.repeat(found["total_no_dc"], bands)
    share = np.where(low == 0, np.nan, divided(power * width, ac))
    wanted = {
        "cycles_per_token": (low + high - 1) / 4 / cut.n,
        "power": power,
        "power_null": null,
        "excess": divided(power, null),
        "energy_share": divided(power * width, total),
        "energy_share_no_dc": share,
    }
    for name, want in wanted.items():
        checks.close(f"csv {name}", column(rows, name), want, 1e-8)
    se = column(rows, "power_se").reshape(*found["total"].shape, bands)
    check_standard_error(checks, "csv power_se", se, banded(cut.power), cut, kind)


def check_spectrum_summary(checks, summary, found, n):
    """The JSON object: shares of a layer, whose power is the mean over its heads."""
    for i, layer in enumerate(summary["layers"]):
        want = {"layer": int(found["layer_index"][i])}
        power = found["power"][i].mean(0)
        want["dc_share"] = power[0] / power.sum()
        for prefix in ("", "null_"):
            kept = found["power_null"][i].mean(0) if prefix and "power_null" in found else power
            for name, part in (("eighth", 8), ("quarter", 4), ("half", 2)):
                missing = prefix and "power_null" not in found
                want[f"{prefix}low_{name}"] = (
                    None if missing else kept[1 : n // part].sum() / kept[1:].sum()
                )
        values = [layer.get(k) for k in want]
        checks.close(
            f"json layer {layer['layer']}",
            [np.nan if v is None else v for v in values],
            [np.nan if v is None else v for v in want.values()],
            1e-9,
        )


def check_error(checks, tools, capture_path, n, skip, gamma, gammas):
    out = capture_path + "-error"
    capture = Capture(capture_path)
    subject = (
        f"error {os.path.basename(capture_path)} --length {n} --skip-sinks {skip} --gamma {gamma}"
    )
    shown = tools.run(
        "freqkv-analyze",
        "error",
        capture_path,
        "--out",
        out,
        "--json",
        "--quiet",
        "--length",
        n,
        "--skip-sinks",
        skip,
        "--gamma",
        gamma,
    )
    retained = [int(np.floor(g * n + 1e-9)) for g in gammas]
    rows = read_csv(os.path.join(out, "error.csv"))
    with h5py.File(os.path.join(out, "results.h5"), "r") as results:
        for summary in shown["states"]:
            state = summary["state"]
            cut, group = Cut(capture.recordings, state, n, skip), results["error"][state]
            checks.about(f"{subject} {state}")
            check_counts(checks, shown, results.attrs, cut, n, skip)
            found = {name: group[name][()] for name in group}
            checks.close("gamma", found["gamma"], gammas, 1e-15)
            checks.close("json gamma", shown["gamma"], gammas, 1e-15)
            for suffix in ("", "_no_dc"):
                want = np.array([cut.errors(k, bool(suffix)) for k in retained])
                for m, name in enumerate(MEASURES):
                    checks.close(
                        name + suffix, found[name + suffix], np.moveaxis(want[:, m], 0, -1)
                    )
            energy = cut.mean(np.mean(cut.x**2, (-1, -2)))
            floor = np.sqrt(divided(cut.rounding(capture.attributes.get("dtype", "f32")), energy))
            checks.close("rounding floor", found["rounding_floor"], floor)
            check_error_rows(checks, [r for r in rows if r["state"] == state], found, retained)
            for name in (
                "relative_error",
                "relative_error_no_dc",
                "retained_energy",
                "retained_energy_no_dc",
            ):
                checks.close(
                    f"json {name}",
                    [layer[name] for layer in summary["layers"]],
                    found[name].mean(1),
                    1e-9,
                )


def check_error_rows(checks, rows, found, retained):
    names = [
        "state",
        "layer",
        "head",
        "gamma",
        "retained",
        *MEASURES,
        *(m + "_no_dc" for m in MEASURES),
    ]
    checks.that("csv columns", list(rows[0]) == names, ",".join(rows[0]))
    heads, layers = len(found["head_index"]), len(found["layer_index"])
    checks.close("csv gamma", column(rows, "gamma"), np.tile(found["gamma"], layers * heads), 1e-8)
    checks.close("csv retained", column(rows, "retained"), np.tile(retained, layers * heads), 0)
    for name in names[5:]:
        finite = np.where(
            np.isfinite(found[name]), found[name], np.nan
        )  # a table leaves a cell empty where there is no number
        checks.close(f"csv {name}", column(rows, name), finite.ravel(), 1e-8)


def check_states(checks, capture, model, ids):
    """Every recording against the float64 model, from an empty cache; `ids`: document name -> its
    tokens.
    """
    c = capture.attributes
    group = model.heads // model.kv_heads
    worst, nll_off, tokens_equal = {}, 0, True
    half_ulp = {"f32": 0, "f16": 2.0**-11, "bf16": 2.0**-8}[c["dtype"]]
    for (name, _), attributes, data in capture.recordings:
        start, count = int(attributes["offset"]), int(attributes["n_tokens"])
        tokens = data["tokens"].astype(int)
        tokens_equal &= list(tokens) == ids[name][start : start + count]
        want, nll = forward(model, tokens)
        nll_off = np.maximum(
            nll_off,
            np.abs(nll - data["nll"])[1:].max(initial=0) if np.isnan(data["nll"][0]) else np.inf,
        )
        for state in STATES:
            if state in data:
                heads = (
                    c["head_index"]
                    if state != "query"
                    else [h * group + g for h in c["head_index"] for g in range(group)]
                )
                exact = want[state][c["layer_index"]][:, heads]
                off = np.abs(data[state] - exact) - half_ulp * np.abs(exact)
                worst[state] = np.maximum(
                    worst.get(state, 0), off.max() / np.sqrt(np.mean(exact**2))
                )
    checks.that("tokens", tokens_equal, f"{len(capture.recordings)} recordings")
    checks.that("nll", bool(nll_off < 1e-4), f"largest difference {nll_off:.1e} nats")
    for state, off in worst.items():
        checks.that(
            state,
            bool(off < 2e-5),
            f"off by {off:.1e} of the root mean square beyond rounding to {c['dtype']}",
        )


def check_rounded(checks, capture, exact, rounding):
    """The same capture in fewer bits holds the float32 states, rounded to nearest."""
    same = all(
        np.array_equal(data[s], rounding(other[s]))
        for (_, _, data), (_, _, other) in zip(capture.recordings, exact.recordings)
        for s in STATES
        if s in data
    )
    checks.that("is the float32 capture, rounded", same)


def check_subset(checks, part, whole, group):
    """--layers and --heads pick from the whole; query heads follow their KV head."""
    layers = [
        list(whole.attributes["layer_index"]).index(i) for i in part.attributes["layer_index"]
    ]
    heads = list(part.attributes["head_index"])
    queries = [h * group + g for h in heads for g in range(group)]
    same = all(
        np.array_equal(data[s], other[s][layers][:, queries if s == "query" else heads])
        for (_, _, data), (_, _, other) in zip(part.recordings, whole.recordings)
        for s in STATES
        if s in data
    )
    checks.that(
        "equals that part of the whole",
        same,
        f"layers {list(part.attributes['layer_index'])}, heads {heads}",
    )


def own_file(path):
    """A user's own capture with nothing but what is required: a segment of chosen coefficients in
    each of two recordings, between tokens that must be left out. One head of the values is zero.
    Returns the keys' power.
    """
    amplitude = np.random.default_rng(3).normal(size=(2, 3, 48, 8)).astype(np.float32)
    with h5py.File(path, "w") as f:
        f.attrs.update(n_layers=2, n_kv_heads=3, head_dim=8)
        for i in range(2):
            key = dct_matrix(48).T @ (amplitude * (i + 1))
            value = key * np.array([1, 2, 0])[:, None, None]
            group = f.create_group(f"documents/{i:06d}")
            for state, x in (("key", key), ("value", value)):
                around = [np.full((2, 3, count, 8), 1e3 if x is key else 0) for count in (5, 7)]
                group[state] = np.concatenate([around[0], x, around[1]], 2).astype(np.float32)
    return np.mean(amplitude.astype(float) ** 2, -1) * (1 + 4) / 2


def check_sums(checks, capture_path, states, n, skip):
    """The datasets of --spectra-only, recording by recording, against the states."""
    with h5py.File(os.path.join(capture_path, "capture.h5"), "r") as root:
        for name, recording in zip(sorted(root["documents"]), states.recordings):
            for state, group in root["documents"][name]["spectra"].items():
                count = int(group.attrs["segments"])
                whole = max(0, (recording[2][state].shape[2] - skip) // n)
                found = (count, group.attrs["segment_length"], group.attrs["skip_sinks"])
                checks.that(
                    f"{name} {state} segments",
                    found == (whole, n, skip),
                    f"{found}, expected {(whole, n, skip)}",
                )
                sums = Cut([recording], state, n, skip).sums() if whole else {}
                for dataset, found in group.items():
                    want = sums.get(dataset, np.zeros(found.shape))
                    checks.close(
                        f"{name} {state} {dataset}",
                        found[()],
                        want,
                        1e-5,
                        np.abs(want).mean() + 1e-300,
                    )


def check_refusal(checks, tools, path):
    """No segment at all is an error that names the longest recording."""
    command = [
        os.path.join(tools.folder, "freqkv-analyze"),
        "spectrum",
        path,
        "--out",
        path + "-refused",
        "--length",
        "1100",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    longest = max(int(attributes["n_tokens"]) for _, attributes, _ in Capture(path).recordings)
    checks.about("spectrum --length beyond every recording")
    checks.that(
        "is refused, naming the longest",
        result.returncode == 1 and str(longest) in result.stderr,
        result.stderr,
    )


def check_same_spectrum(checks, tools, paths, n, tolerance=1e-12):
    """Two captures of the same documents, in any order, give the same findings."""
    found = []
    for path in paths:
        out = path + "-same"
        tools.run("freqkv-analyze", "spectrum", path, "--out", out, "--quiet", "--length", n)
        with h5py.File(os.path.join(out, "results.h5"), "r") as f:
            found.append(
                {
                    f"{s} {k}": f["spectrum"][s][k][()]
                    for s in f["spectrum"]
                    for k in f["spectrum"][s]
                }
            )
    checks.that("findings", found[0].keys() == found[1].keys())
    for name in found[0]:
        checks.close(name, found[1][name], found[0][name], tolerance)


def write_texts(work, content):
    """Three documents of unequal length, and 22 small ones."""
    folders = {}
    corpora = {"three": [4300, 2500, 800], "many": [420 + 31 * i for i in range(22)]}
    for name, sizes in corpora.items():
        folders[name], start = os.path.join(work, "texts", name), 0
        os.makedirs(folders[name])
        for i, size in enumerate(sizes):
            with open(os.path.join(folders[name], f"{i:02d}.txt"), "w", encoding="utf-8") as f:
                f.write(content[start : start + size])
            start += size
    return folders


def token_ids(tools, model, folder):
    names = sorted(os.listdir(folder))
    lines = tools.run("freqkv-replay", "tokens", "--model", model, "--text", folder).splitlines()
    return {name: list(map(int, line.split())) for name, line in zip(names, lines)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True)
    parser.add_argument("--model", default="data/litbank-1m")
    parser.add_argument("--text", default="data/the_tide_mill.txt")
    options = parser.parse_args()
    with open(options.text, encoding="utf-8") as f:
        content = f.read()
    checks, tools, model = Checks(), Tools(options.bin), Model(options.model)
    with tempfile.TemporaryDirectory() as work:
        check_everything(checks, tools, model, options.model, write_texts(work, content), work)
    print(
        f"{checks.failed} of {checks.made} checks failed"
        if checks.failed
        else f"all {checks.made} checks passed"
    )
    return 1 if checks.failed else 0


def check_everything(checks, tools, model, model_path, texts, work):
    def capture(name, text, *arguments):
        path = os.path.join(work, name)
        checks.about(f"capture {name} {' '.join(arguments)}")
        common = (
            "--model",
            model_path,
            "--text",
            texts[text],
            "--out",
            path,
            "--json",
            "--quiet",
            "--backend",
            "cpu",
        )
        return path, tools.run("freqkv-capture", *common, *arguments)

    everything, group = ("--states", ",".join(STATES)), model.heads // model.kv_heads
    some = f"1,{model.layers - 2}-{model.layers - 1}"
    ids = token_ids(tools, model_path, texts["three"])
    path, shown = capture("f32", "three", "--dtype", "f32", *everything)
    whole = Capture(path)
    check_states(checks, whole, model, ids)
    checks.close(
        "json mean_nll",
        shown["mean_nll"],
        np.concatenate([d["nll"][1:] for _, _, d in whole.recordings]).mean(),
    )
    want = {
        "documents": 3,
        "recordings": len(whole.recordings),
        "tokens": sum(map(len, ids.values())),
        "tokens_left_out": 0,
    }
    checks.that("json counts", {k: shown[k] for k in want} == want, f"{shown}, expected {want}")

    f16, _ = capture("f16", "three", "--dtype", "f16", *everything)
    check_rounded(checks, Capture(f16), whole, lambda x: x.astype(np.float16))
    bf16, _ = capture("bf16", "three", "--dtype", "bf16", *everything)
    check_rounded(checks, Capture(bf16), whole, to_bf16)
    part, _ = capture(
        "part", "three", "--dtype", "f32", "--layers", some, "--heads", "1", *everything
    )
    check_subset(checks, Capture(part), whole, group)
    short, _ = capture(
        "short", "three", "--dtype", "bf16", "--layers", "0,3", "--max-tokens", "300", *everything
    )
    check_states(checks, Capture(short), model, ids)
    half, _ = capture("half", "three", "--layers", "2", "--heads", "0")

    check_spectrum(checks, tools, part, 200)
    check_spectrum(checks, tools, part)  # as many tokens as the trained context has, less 4
    check_spectrum(checks, tools, short, 127, 0)
    check_spectrum(checks, tools, half, 37, 9, "none")
    check_spectrum(checks, tools, half, 2, 0)
    check_refusal(checks, tools, half)
    check_error(checks, tools, part, 200, 4, "0.1:0.9:0.1", [i / 10 for i in range(1, 10)])
    check_error(checks, tools, short, 100, 7, "0.29,0.57,1", [0.29, 0.57, 1])
    check_error(checks, tools, half, 64, 5, "0.07:0.91:0.07", [7 * i / 100 for i in range(1, 14)])

    states, sums = (
        ("--dtype", "f32", "--layers", "3"),
        ("--layers", "3", "--spectra-only", "--length", "64"),
    )
    many, _ = capture("many", "many", *states)
    added, shown = capture("sums", "many", *sums)
    cut = Cut(Capture(many).recordings, "key", 64, 4)
    found, want = (shown["segments"], shown["segment_tokens_left_out"]), (len(cut.x), cut.left_out)
    checks.that("json segments", found == want, f"{found}, expected {want}")
    checks.about("sums of --spectra-only")
    check_sums(checks, added, Capture(many), 64, 4)
    check_spectrum(checks, tools, many, 64)
    check_spectrum(checks, tools, added, 64, sums_of=many)
    cut_at = ("--length", "100", "--skip-sinks", "9")
    few, _ = capture(
        "few", "three", "--layers", some, "--heads", "1", "--spectra-only", *cut_at, *everything
    )
    check_spectrum(checks, tools, few, 100, 9, sums_of=part)
    for single, arguments in ((many, states), (added, sums)):
        shards = [
            capture(f"{os.path.basename(single)}-{i}", "many", *arguments, "--shard", f"{i}/2")[0]
            for i in range(2)
        ]
        tools.run("freqkv-analyze", "merge", *shards, "--out", single + "-merged", "--quiet")
        checks.about(f"merge of two shards against {os.path.basename(single)}")
        check_same_spectrum(checks, tools, (single, single + "-merged"), 64)

    own = os.path.join(work, "own.h5")
    power = own_file(own)
    check_spectrum(checks, tools, own, 48, 5)
    with h5py.File(own + "-spectrum/results.h5", "r") as results:
        checks.close("planted power", results["spectrum/key/power"][()], power)
    check_error(checks, tools, own, 48, 5, "0.25,0.5", [0.25, 0.5])
    checks.about(None)


if __name__ == "__main__":
    sys.exit(main())
