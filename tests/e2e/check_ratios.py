#!/usr/bin/env python3
"""What `freqkv-analyze gamma`, `error --bounds` and `impulse` report, against a second
implementation; and that `ppl` runs the ratios it is given.

    check_ratios.py --bin build/bin [--model data/litbank-1m] [--text data/the_tide_mill.txt]

Nothing here comes from the C code: captures are read with h5py, a DCT is a matrix, attention is a
softmax, a budget is shared out by a dynamic programme over costs. Prints a line per subject and
exits 1 if anything differs. Needs numpy and h5py.
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
from checks import Checks, Tools, words
from definitions import Capture, Cut
from numpy_model import Model, dct_matrix, read_safetensors, rotate

K = 64


def losses(cut, dc=False):
    """Share of energy [layers, heads, K + 1] in coefficients from L = floor(k n / 64) on."""
    power = cut.mean(cut.power)
    total = power[..., (0 if dc else 1) :].sum(-1)
    lost = [power[..., max(k * cut.n // K, 0 if dc else 1) :].sum(-1) for k in range(K + 1)]
    return np.stack(lost, -1) / total[..., None], np.stack(lost, -1)


def attention_error(capture, model, n, skip, layer, head, ks):
    """Squares of o' - o and of o over all queries of a capture of one document; mean over the query
    heads of ||o' - o|| / ||o||, and of the same after the output projection, straight from the
    weights.
    """
    c = capture.attributes
    group = int(c["n_heads"]) // int(c["n_kv_heads"])
    theta, scale = float(c["rope_theta"]), float(c["attention_scale"])
    cap = float(c.get("attention_softcap", 0))
    window = int(np.broadcast_to(c.get("layer_window", 0), int(c["n_layers"]))[layer])
    basis = dct_matrix(n)
    projection = model.weight(layer, "self_attn.o_proj").reshape(-1, model.heads, model.head_dim)
    difference, whole = np.zeros((2, group, len(ks))), np.zeros((2, group, 1))

    def squares(o, g):
        return np.sum(o**2), np.sum((o @ projection[:, head * group + g].T) ** 2)

    for _, _, data in capture.recordings:
        key, value, query = (
            data["key"][layer, head],
            data["value"][layer, head],
            data["query"][layer],
        )
        positions = np.arange(len(key))
        for first in range(skip, len(key) - n + 1, n):
            stop = min(first + n + min(n, 256), len(key))
            asked = positions[first + n : stop]
            if not len(asked):
                continue
            for g in range(group):
                q = rotate(query[head * group + g][asked][:, None], asked, theta)[:, 0]

                def outputs(k, v):
                    score = q @ rotate(k[:stop, None], positions[:stop], theta)[:, 0].T * scale
                    if cap:
                        score = cap * np.tanh(score / cap)
                    back = asked[:, None] - positions[None, :stop]
                    score[(back < 0) | (back >= (window or np.inf))] = -np.inf
                    weight = np.exp(score - score.max(-1, keepdims=True))
                    return weight / weight.sum(-1, keepdims=True) @ v[:stop]

                exact = outputs(key, value)
                whole[:, g, 0] += squares(exact, g)
                for i, k in enumerate(ks):
                    low = basis[: k * n // K]
                    changed = []
                    for x in (key, value):
                        x = x.copy()
                        x[first : first + n] = low.T @ (low @ x[first : first + n])
                        changed.append(x)
                    difference[:, g, i] += squares(outputs(*changed) - exact, g)
    return np.sqrt(difference / whole).mean(1)


def least_loss(loss, total, low, high):
    """Least sum over heads of loss[head, k], low <= k <= high, with a sum of k up to `total`."""
    best = np.zeros(total + 1)
    for curve in loss:
        after = np.full(total + 1, np.inf)
        for k in range(low, min(high, total) + 1):
            after[k:] = np.minimum(after[k:], best[: total + 1 - k] + curve[k])
        best = after
    return best[total]


def check_table(checks, out, shown, capture, n):
    """gamma.json, gamma.csv and results.h5 say the same, and what the documents were."""
    with open(os.path.join(out, "gamma.json")) as f:
        table = json.load(f)
    with open(os.path.join(out, "gamma.csv")) as f:
        rows = list(csv.DictReader(f))
    parts = np.array(table["gamma"]) * K
    checks.that(
        "format",
        table["format"] == "freqkv-gamma" and table["format_version"] == 1,
        table["format"],
    )
    checks.that("64ths", np.array_equal(parts, np.round(parts)), table["gamma"])
    slots = table["window"] - table["sinks"]
    checks.that(
        "retained",
        np.array_equal(table["retained"], (parts * slots).astype(int) // K),
        table["retained"],
    )
    checks.that(
        "shown", shown["gamma"] == table["gamma"] and shown["retained"] == table["retained"], shown
    )
    checks.that("csv", [float(r["gamma"]) for r in rows] == list(np.ravel(table["gamma"])), rows)
    hashes = {attributes["text_sha256"] for _, attributes, _ in capture.recordings}
    checks.that("texts", table["text_sha256"] == sorted(hashes), table["text_sha256"])
    with h5py.File(os.path.join(out, "results.h5"), "r") as results:
        group = results["gamma"]
        checks.that(
            "results", np.array_equal(group["gamma"][()], table["gamma"]), group["gamma"][()]
        )
        return table, parts.astype(int), {name: group[name][()] for name in group}


def check_gamma(checks, tools, path, n, work):
    capture = Capture(path)
    cuts = [Cut(capture.recordings, state, n, 4) for state in ("key", "value")]
    out = os.path.join(work, "ratios")
    for dc in (False, True):
        (key, key_lost), (value, value_lost) = losses(cuts[0], dc), losses(cuts[1], dc)
        for arguments, objective in (
            (("--budget", "0.5"), (key + value) / 2),
            (("--budget", "0.4", "--floor", "0.2", "--cap", "0.7"), (key + value) / 2),
            (("--budget", "0.37", "--objective", "absolute"), key_lost + value_lost),
            (("--energy", "0.8"), (key + value) / 2),
        ):
            options = ("--length", n, *arguments, *(("--dc",) if dc else ()))
            shown = tools.run(
                "freqkv-analyze", "gamma", path, "--out", out, "--json", "--quiet", *options
            )
            checks.about(f"gamma {' '.join(map(str, options))}")
            table, parts, found = check_table(checks, out, shown, capture, n)
            for name, want in (
                ("loss_key", key),
                ("loss_value", value),
                ("loss_objective", objective),
            ):
                checks.close(
                    name, found[name][..., 1:], want[..., 1:], 1e-5, np.nanmax(want) * 1e-6
                )
            low, high = (13, 44) if "--floor" in arguments else (1, 63)
            mine = np.take_along_axis(objective, parts[..., None], -1)
            checks.close(
                "loss of the table", shown["losses"]["objective"]["table"], mine.mean(), 1e-5
            )
            if arguments[0] == "--budget":
                best = least_loss(
                    objective.reshape(-1, K + 1),
                    int(float(arguments[1]) * K * parts.size + 1e-9),
                    low,
                    high,
                )
                checks.close("least loss", mine.sum(), best, 1e-6)
                checks.that(
                    "within",
                    parts.min() >= low
                    and parts.max() <= high
                    and parts.mean() / K <= float(arguments[1]) + 1e-12,
                    parts,
                )
            else:
                enough = np.maximum(key, value) <= 0.2 + 1e-9
                checks.that(
                    "smallest", np.array_equal(parts, np.clip(enough.argmax(-1), 1, 63)), parts
                )
            even = parts.mean()
            below, above = int(even + 1e-9), even - int(even + 1e-9)
            uniform = (1 - above) * objective[..., below] + (
                above * objective[..., below + 1] if above > 1e-9 else 0
            )
            checks.close(
                "loss of one ratio", shown["losses"]["objective"]["uniform"], uniform.mean(), 1e-5
            )
    return out


def check_attention(checks, tools, model, path, n, work):
    out = os.path.join(work, "attention")
    shown = tools.run(
        "freqkv-analyze gamma",
        path,
        "--out",
        out,
        "--length",
        n,
        "--budget 0.5 --objective attention --quiet --json",
    )
    checks.about("attention-output error")
    ks = [2, 16, 40, 63]
    with h5py.File(os.path.join(out, "results.h5"), "r") as results:
        found = [results["gamma/loss_objective" + suffix][()] for suffix in ("", "_projected")]
    capture = Capture(path)
    for layer in range(0, found[0].shape[0], 2):
        for head in range(found[0].shape[1]):
            want = attention_error(capture, Model(model), n, 4, layer, head, ks) ** 2
            for column in range(2):
                checks.close(
                    f"layer {layer}, head {head}",
                    found[column][layer, head, ks],
                    want[column],
                    1e-3,
                )
    parts = np.round(np.array(shown["gamma"]) * K).astype(int)[..., None]
    with open(os.path.join(out, "gamma.csv")) as f:
        rows = list(csv.DictReader(f))
    for name, loss in zip(("objective", "objective_projected"), found):
        chosen = np.take_along_axis(loss, parts, -1).ravel()
        checks.close(f"{name} in gamma.csv", [float(row[name]) for row in rows], chosen, 1e-6)
        checks.close(f"{name} in JSON", shown["losses"][name]["table"], chosen.mean(), 1e-9)


def check_replay(checks, tools, model, text, out, work):
    """ppl keeps what the table says, compresses each head on its own schedule, and warns on the
    text the table was chosen on.
    """
    run = os.path.join(work, "run.h5")
    table_path = os.path.join(out, "gamma.json")
    command = [
        os.path.join(tools.folder, "freqkv-replay"),
        "ppl",
        "--model",
        model,
        "--text",
        text,
        "--tokens 1000 --policy freqkv --gamma",
        "@" + table_path,
        "--out",
        run,
        "--quiet",
    ]
    done = subprocess.run(list(words(command)), capture_output=True, text=True)
    checks.about("ppl --gamma @gamma.json")
    checks.that("runs", done.returncode == 0, done.stderr)
    checks.that("warns", "was chosen on" in done.stderr, done.stderr)
    with open(table_path) as f:
        table = json.load(f)
    retained = np.array(table["retained"])
    with h5py.File(run, "r") as f:
        checks.that("retained", np.array_equal(f["retained"][()], retained), f["retained"][()])
        checks.that(
            "window",
            (f.attrs["window"], f.attrs["sinks"]) == (table["window"], table["sinks"]),
            dict(f.attrs),
        )
        group = {name: f["compressions"][name][()] for name in ("layer", "head", "state")}
        key = group["state"] == group["state"].min()
        found = np.zeros_like(retained)
        np.add.at(found, (group["layer"][key], group["head"][key]), 1)
        chunk = table["window"] - table["sinks"] - retained
        want = np.ceil((1000 - table["window"]) / chunk).astype(int)
        checks.that(
            "compressions",
            np.array_equal(found, want),
            f"{found.tolist()}, expected {want.tolist()}",
        )


def check_mixed(checks, tools, model, text, capture, n, work):
    """policies.json puts the heads under local that its rule says, and ppl follows it."""
    cuts = [Cut(Capture(capture).recordings, state, n, 4) for state in ("key", "value")]
    shares = [losses(cut)[0] for cut in cuts]
    out = os.path.join(work, "mixed")
    for rule, share in (("energy", 0.9), ("worst", 0.3)):
        shown = tools.run(
            "freqkv-analyze gamma",
            capture,
            "--out",
            out,
            "--length",
            n,
            f"--budget 0.5 --mixed {rule}:{share} --json --quiet",
        )
        checks.about(f"gamma --mixed {rule}:{share}")
        with open(os.path.join(out, "policies.json")) as f:
            table = json.load(f)
        with open(os.path.join(out, "gamma.json")) as f:
            plain = json.load(f)
        checks.that("the ratios of gamma.json", table["gamma"] == plain["gamma"], table["gamma"])
        parts = np.round(np.array(table["gamma"]) * K).astype(int)[..., None]
        key, value = (np.take_along_axis(x, parts, -1)[..., 0] for x in shares)
        if rule == "energy":
            want = np.maximum(key, value) > 1 - share
        else:
            loss = (key + value) / 2
            want = loss >= np.sort(loss.ravel())[-int(share * loss.size)]
        found = np.array(table["policy"]) == "local"
        checks.that("local", np.array_equal(found, want), f"{found}, expected {want}")
        checks.that("shown", shown["mixed"]["local_heads"] == want.sum(), shown["mixed"])
    shown = tools.run(
        "freqkv-replay ppl --model",
        model,
        "--text",
        text,
        "--tokens 400 --policy mixed --json --quiet --table",
        f"{out}/policies.json",
    )
    checks.that("window", shown["window"] == n + 4, shown["window"])
    checks.that("both act", shown["compressions"] > 0 and shown["evictions"] > 0, shown)


class Projections:
    """What attention_error() asks of a model, of any family whose folder has plain names."""

    def __init__(self, folder):
        with open(os.path.join(folder, "config.json")) as f:
            config = json.load(f)
        self.heads, self.head_dim = config["num_attention_heads"], config["head_dim"]
        self.weights = read_safetensors(os.path.join(folder, "model.safetensors"))

    def weight(self, layer, name):
        return self.weights[f"model.layers.{layer}.{name}.weight"]


def check_scores(checks, tools, model, work):
    """Gemma 2: scores are capped at 3, two layers of three see 7 tokens."""
    ids, path, out = (os.path.join(work, name) for name in ("ids.npy", "gemma", "gemma-ratios"))
    np.save(ids, np.random.default_rng(8).integers(3, 96, 64).astype(np.uint16))
    tools.run(
        "freqkv-capture --model",
        model,
        "--token-ids",
        ids,
        "--states key,value,query --dtype f32 --quiet --out",
        path,
    )
    capture = Capture(path)
    checks.about("attention-output error, capped and in windows")
    windows = capture.attributes.get("layer_window", np.zeros(3)).tolist()
    cap = float(capture.attributes.get("attention_softcap", 0))
    checks.that("attributes", cap == 3 and windows == [7, 0, 7], f"{cap}, {windows}")
    tools.run(
        "freqkv-analyze gamma",
        path,
        "--length 16 --skip-sinks 2 --budget 0.5 --objective attention --quiet --out",
        out,
    )
    ks = [4, 20, 40, 63]
    with h5py.File(os.path.join(out, "results.h5"), "r") as results:
        found = [results["gamma/loss_objective" + suffix][()] for suffix in ("", "_projected")]
    for layer, head in np.ndindex(3, 2):
        want = attention_error(capture, Projections(model), 16, 2, layer, head, ks) ** 2
        for column in range(2):
            checks.close(
                f"layer {layer}, head {head}", found[column][layer, head, ks], want[column], 1e-3
            )


def check_own_file(checks, tools, model, text, path, work):
    """Ratios from a user's own states: what stands for the text's hash there is no hash, and ppl
    takes the table all the same.
    """
    own, out = os.path.join(work, "own.h5"), os.path.join(work, "own-ratios")
    states = Capture(path).recordings[0][2]
    with h5py.File(own, "w") as f:
        f.attrs.update(n_layers=6, n_kv_heads=2, head_dim=32, trained_context=204)
        group = f.create_group("documents/000000")
        group.attrs["text_sha256"] = "chapter one"
        for name in ("key", "value"):
            group[name] = states[name]
    tools.run("freqkv-analyze", "gamma", own, "--out", out, "--budget", "0.5", "--quiet")
    checks.about("gamma of one's own file")
    checks.that(
        "no texts", json.load(open(os.path.join(out, "gamma.json")))["text_sha256"] == [], "texts"
    )
    shown = tools.run(
        "freqkv-replay ppl --model",
        model,
        "--text",
        text,
        "--tokens 300 --policy freqkv --gamma",
        f"@{out}/gamma.json",
        "--json --quiet",
    )
    checks.that("window", shown["window"] == 204, shown)


def check_bounds(checks, tools, path, n, work):
    out, gammas = os.path.join(work, "bounds"), [0.2, 0.5, 0.8]
    tools.run(
        "freqkv-analyze error",
        path,
        "--out",
        out,
        "--length",
        n,
        "--gamma 0.2,0.5,0.8 --bounds --quiet",
    )
    capture = Capture(path)
    with h5py.File(os.path.join(out, "results.h5"), "r") as results:
        for state in ("key", "value"):
            checks.about(f"bounds of {state}")
            cut = Cut(capture.recordings, state, n, 4)
            x = cut.x - cut.x.mean(-2, keepdims=True)
            half = np.arange(len(x)) >= len(x) // 2  # of one document: halves of its segments
            d, total = x.shape[-1], cut.mean(np.sum(x**2, (-1, -2)))
            klt, svd = np.zeros((*total.shape, n)), np.zeros((*total.shape, n + 1))
            gap = np.abs(np.arange(n)[:, None] - np.arange(n))
            for layer, head in np.ndindex(*total.shape):
                for fold in (False, True):
                    fitted = x[half == fold, layer, head]
                    lags = [np.sum(fitted[:, lag:] * fitted[:, : n - lag]) for lag in range(n)]
                    centre = np.eye(n) - 1 / n
                    _, vectors = np.linalg.eigh(centre @ np.array(lags)[gap] @ centre)
                    energy = np.sum((vectors.T[::-1] @ x[half != fold, layer, head]) ** 2, -1)
                    klt[layer, head] += energy.T @ cut.weight[half != fold]
                singular = np.linalg.svd(x[:, layer, head], compute_uv=False) ** 2
                svd[layer, head, 1 : d + 1] = np.cumsum(cut.weight @ singular)
                svd[layer, head, d + 1 :] = svd[layer, head, d]
            for g, gamma in enumerate(gammas):
                retained = int(gamma * n + 1e-9)
                checks.close(
                    f"klt {gamma}",
                    results[f"error/{state}/klt_error_no_dc"][..., g],
                    np.sqrt(klt[..., retained - 1 :].sum(-1) / total),
                    1e-4,
                )
                rank = (retained - 1) * d // (n + d)
                checks.close(
                    f"svd {gamma}",
                    results[f"error/{state}/svd_error_no_dc"][..., g],
                    np.sqrt(1 - svd[..., rank] / total),
                    1e-5,
                )


def check_impulse(checks, tools, work):
    out = os.path.join(work, "impulse")
    shown = tools.run(
        "freqkv-analyze impulse --out", out, "--window", 132, "--gamma 0.25,0.5,0.75 --json"
    )
    n = 128
    for ratio in shown["ratios"]:
        checks.about(f"impulse {ratio['gamma']}")
        kept, chunk = ratio["retained"], ratio["chunk"]
        whole = np.sqrt(kept / n) * dct_matrix(kept).T @ dct_matrix(n)[:kept]
        checks.close("rows of the operator sum to 1", whole.sum(1), np.ones(kept), 1e-9)
        checks.close(
            "horizon", ratio["horizon_tokens"], chunk * np.log(kept) / np.log(n / kept), 1e-9
        )
        checks.that(
            "rounds",
            len(ratio["rounds"]) == int(np.ceil(ratio["horizon_rounds"])),
            len(ratio["rounds"]),
        )
        m = whole[:, kept:]
        for k, row in enumerate(ratio["rounds"], 1):
            singular = np.linalg.svd(m, compute_uv=False)
            near = np.sum(np.abs(singular / singular[0] - 0.01) < 1e-4)
            checks.that(
                f"rank {k}",
                abs(row["rank"] - np.sum(singular > 0.01 * singular[0])) <= near,
                row["rank"],
            )
            checks.close(
                f"participation {k}",
                row["participation"],
                np.sum(singular**2) ** 2 / np.sum(singular**4),
                1e-4,
            )
            checks.close(f"gain {k}", row["gain"], m.sum(1).max(), 1e-4)
            weight = np.abs(m)
            negative = np.mean(np.maximum(-m, 0).sum(0) / weight.sum(0))
            checks.close(
                f"negative {k}", row["negative"], negative, 0.05
            )  # 64 tokens stand for all
            checks.close(
                f"width {k}",
                row["width_slots"],
                np.mean(np.sum(m**2, 0) ** 2 / np.sum(m**4, 0)),
                0.05,
            )
            m = whole[:, :kept] @ m


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", default="build/bin")
    p.add_argument("--model", default="data/litbank-1m")
    p.add_argument("--text", default="data/the_tide_mill.txt")
    args = p.parse_args()
    checks, tools = Checks(), Tools(os.path.abspath(args.bin))
    with tempfile.TemporaryDirectory(prefix="fkv-ratios-") as work:
        path, sums = os.path.join(work, "capture"), os.path.join(work, "sums")
        common = (
            "--model",
            args.model,
            "--text",
            args.text,
            "--max-tokens",
            700,
            "--max-documents",
            1,
            "--dtype f32 --quiet",
        )
        tools.run("freqkv-capture", *common, "--states", "key,value,query", "--out", path)
        tools.run("freqkv-capture", *common, "--spectra-only", "--length", 200, "--out", sums)
        out = check_gamma(checks, tools, path, 200, work)
        checks.about("gamma of --spectra-only")
        both = [
            tools.run(
                "freqkv-analyze gamma",
                x,
                "--out",
                x + "-ratios",
                "--length",
                200,
                "--budget 0.5 --json --quiet",
            )
            for x in (path, sums)
        ]
        checks.that("same ratios", both[0]["gamma"] == both[1]["gamma"], both[1]["gamma"])
        check_attention(checks, tools, args.model, path, 200, work)
        check_scores(checks, tools, "tests/golden/gemma2", work)
        check_replay(checks, tools, args.model, args.text, out, work)
        check_mixed(checks, tools, args.model, args.text, path, 200, work)
        check_own_file(checks, tools, args.model, args.text, path, work)
        check_bounds(checks, tools, path, 99, work)
        check_impulse(checks, tools, work)
        checks.about(None)
    print(f"ratios: {checks.made - checks.failed} passed, {checks.failed} failed")
    return checks.failed > 0


if __name__ == "__main__":
    sys.exit(main())
