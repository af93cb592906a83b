#!/usr/bin/env python3
"""notebooks/freqkv.py: its frames and intervals are those of the tools, digit for digit, and its
figures draw what the tools draw.

    check_frames.py --bin build/bin [--model data/litbank-1m] [--text data/the_tide_mill.txt]

Needs numpy and h5py. Where pandas, matplotlib and xarray are installed figures, datasets and a run
of one document are checked, too; else that is left out, which is said. Exits 1 if anything differs.
"""

import argparse
import csv
import importlib.util
import json
import os
import sys
import tempfile
import warnings

import numpy as np
from checks import check, verdict

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "notebooks"))
import freqkv  # noqa: E402

PACKAGES = ("pandas", "matplotlib", "xarray")
MISSING = [name for name in PACKAGES if not importlib.util.find_spec(name)]
# measure -> its names in the JSON object of freqkv-analyze compare
COMPARED = {"nll": ("delta_nll", "delta_nll_se", "low", "high")}
COMPARED |= {
    measure: tuple(field + end for end in ("", "_se", "_low", "_high"))
    for measure, field in (("kl", "delta_kl"), ("agree", "delta_top1"))
}


def same(label, found, wanted, tolerance=1e-9):
    """null of JSON is NaN."""
    found, wanted = (np.array(x, float) for x in (found, wanted))
    if found.shape != wanted.shape:
        return check(label, False, f"has shape {found.shape}, expected {wanted.shape}")
    differ = ~np.isclose(found, wanted, rtol=tolerance, atol=1e-14, equal_nan=True)
    at = tuple(np.argwhere(differ)[0]) if differ.any() else ()
    check(label, not differ.any(), f"{found[at]} at {list(map(int, at))}, expected {wanted[at]}")


def refused(label, words, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except (ValueError, ImportError) as e:
        check(label, words in str(e), f'says "{e}", expected "{words}" in it')
    else:
        check(label, False, "is accepted")


def replay_runs(work, args, name, documents, tokens, window):
    """Files of two runs, local and FreqKV, of texts of about so many tokens."""
    with open(args.text, encoding="utf-8") as f:
        text = f.read()
    path = os.path.join(work, name + ".jsonl")
    with open(path, "w", encoding="utf-8") as f:
        for d in range(documents):
            start = d * len(text) // (documents + 1)
            f.write(json.dumps({"text": text[start : start + 6 * tokens]}) + "\n")
    files = []
    for policy in ("local", "freqkv"):
        files.append(os.path.join(work, f"{name}-{policy}.h5"))
        options = ["--tokens", tokens, "--policy", policy, "--window", window, "--baseline", "full"]
        about = ["--model", args.model, "--text", path, "--out", files[-1]]
        freqkv.run("replay", "ppl", *about, *options)
    return files


def check_intervals(work, runs):
    """Of 20 documents, of 3 with blocks within them, of one."""
    for name, files in runs.items():
        compared = freqkv.run("analyze", "compare", *files, "--by", "class", "--out", work)
        pair = compared["pairs"][0]
        for measure, fields in COMPARED.items():
            found = freqkv.paired_bootstrap(*files, measure)
            wanted = [pair[field] for field in fields]
            same(f"{name}: {measure}: as compare has it", found[:4], wanted)
        check(f"{name}: unit", found.over == compared["se_unit"], found)
        rows = [freqkv.token_frame(file) for file in files]
        where = np.array(rows[0]["class"]) == "word start"
        found = freqkv.paired_bootstrap(*rows, where=where)
        group = next(g for g in pair["groups"] if g["group"] == "word start")
        wanted = [group[field] for field in COMPARED["nll"]]
        same(f"{name}: words that start", found[:4], wanted)
    first, other = runs["3 documents"][0], runs["20 documents"][0]
    refused("other tokens", "scored the same tokens", freqkv.paired_bootstrap, first, other)
    refused("another measure", "wit: expected", freqkv.paired_bootstrap, first, first, "wit")
    one = freqkv.bootstrap(np.arange(1000.0), seed=1)
    check("another seed, another interval", one != freqkv.bootstrap(np.arange(1000.0)), one)


def check_run_frames(runs):
    files = runs["3 documents"]
    rows, tokens = freqkv.run_frame(files), freqkv.token_frame(files)
    check("runs by their files", list(rows["run"]) == ["3 documents-local", "3 documents-freqkv"])
    for i, file in enumerate(files):
        mine = np.array(tokens["run"]) == rows["run"][i]
        means = [np.array(tokens[n], float)[mine].mean() for n in ("nll", "kl", "agree")]
        same(f"run {i}: means", means, [rows[n][i] for n in ("mean_nll", "kl", "agree")], 1e-6)
        check(f"run {i}: tokens", mine.sum() == rows["tokens"][i])
    rounds = freqkv.round_frame(files)
    kept = np.array(rounds["share"])
    check("energy kept is a share", len(kept) and kept.min() > 0 and kept.max() <= 1 + 1e-6, kept)


def replay_probe(work, args, *changes):
    """Its file, and what replay says of its changes."""
    path = os.path.join(work, "probe.h5")
    options = ["--prefix", 32, "--score", 260, "--blocks", 2, "--out", path]
    about = ["--model", args.model, "--text", args.text]
    return path, freqkv.run("replay", "probe", *about, *options, *changes)["changes"]


def check_probes(work, args):
    drawn = [] if MISSING else ["--local", 0.5, "--bands", 2, "--decompose", 0.5]
    path, found = replay_probe(work, args, "--freqkv", 0.5, *drawn)
    probes = freqkv.probe_frame(path)
    os.remove(path)
    check("a row per block", len(probes["damage"]) == len(found) * 2 * 2, len(probes["damage"]))
    rows = freqkv.damage_frame(probes)
    for field, name in (("delta_nll", "damage"), ("kl", "kl")):
        for end in ("", "_low", "_high"):
            same(f"probe: {name}{end}", rows[name + end], [c[field + end] for c in found])
    known = [-1 if c["layer"] is None else c["layer"] for c in found]
    check("probe: layers", list(rows["layer"]) == known)
    return probes


def analyzed(work):
    """A folder of results, of two recordings with a low-pass head beside white noise."""
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 2, 2, 200, 8)).astype(np.float32)
    x[:, :, 0] += x[:, :, 0].cumsum(-2) / 4
    capture, folder = os.path.join(work, "capture.h5"), os.path.join(work, "findings")
    freqkv.write_capture(capture, [(x[:, i], x[:, i]) for i in range(2)], rotated=False)
    shared = [capture, "--out", folder, "--length", 100]
    for command in (["spectrum"], ["error"], ["gamma", "--budget", 0.5]):
        freqkv.run("analyze", command[0], *shared, *command[1:])
    return folder


def check_results(folder):
    results = freqkv.load_results(folder)
    bands, full = freqkv.spectrum_frame(folder), freqkv.spectrum_frame(folder, full=True)
    power = np.array(full["power"]).reshape(2, 2, 2, 100)
    same("power", power[0], results["spectrum"]["key"]["power"])
    first = [np.array(bands[n])[0] for n in ("power", "null", "frequency")]
    same("bands begin with DC", first, [full["power"][0], full["null"][0], 0], 1e-8)
    pooled = np.array(freqkv.share_frame(folder)["low_half"]).reshape(2, 2, 3)
    x = results["spectrum"]["key"]["power"]
    same("shares of heads", pooled[0, :, 1:], x[..., 1:50].sum(-1) / x[..., 1:].sum(-1))
    same("shares pooled", pooled[0, :, 0], x[..., 1:50].sum((1, 2)) / x[..., 1:].sum((1, 2)))
    rows = freqkv.error_frame(folder)
    with open(os.path.join(folder, "error.csv"), newline="") as f:
        table = list(csv.DictReader(f))
    for measure in ("retained_energy", "relative_error", "snr_db", "cosine"):
        for with_dc, end in ((True, ""), (False, "_no_dc")):
            which = np.array(rows["measure"]) == measure
            which &= np.array(rows["with_dc"]) == with_dc
            wanted = [float(row[measure + end]) for row in table]
            same(f"{measure}{end}", np.array(rows["value"])[which], wanted, 1e-8)
    ratios = freqkv.ratio_frame(folder)
    again = freqkv.ratio_frame(os.path.join(folder, "gamma.json"))
    same("ratios of both files", ratios["gamma"], again["gamma"])


def check_datasets(folder, probes, runs):
    import xarray

    powers = freqkv.dataset(freqkv.spectrum_frame(folder, full=True))["power"]
    check("an array with names", isinstance(powers, xarray.DataArray))
    check("dimensions", powers.dims == ("state", "layer", "head", "t"), powers.dims)
    wanted = freqkv.load_results(folder)["spectrum"]["value"]["power"]
    same("values by name", powers.sel(state="value").values, wanted)
    for name, rows in (("probes", probes), ("tokens", freqkv.token_frame(runs))):
        found = freqkv.dataset(rows)
        check(f"dataset of {name}", list(found.dims) == rows.attrs["axes"], found.dims)
    refused("axes twice", "name each row once", freqkv.dataset, probes, ["change"])


def check_figures(work, args, folder, probes, runs):
    import matplotlib

    matplotlib.use("Agg")
    from freqkv_plots_runs import distances
    from matplotlib import pyplot

    warnings.simplefilter("error")
    freqkv.run("analyze", "compare", *runs, "--out", work)
    needle = os.path.join(work, "needle.csv")
    with open(needle, "w") as f:
        f.write("task,policy,window,gamma,length,depth,repeat,exact\n")
        f.writelines(f"needle,local,64,,{n},{d},0,1\n" for n in (64, 128) for d in (0, 0.5))
    heads = freqkv.probe_frame(replay_probe(work, args, "--local", 0.5, "--per-head")[0])
    spectra, errors = freqkv.spectrum_frame(folder), freqkv.error_frame(folder)
    figures = [
        *(draw(spectra) for draw in (freqkv.plot_spectrum, freqkv.plot_heads, freqkv.plot_map)),
        freqkv.plot_depth(freqkv.share_frame(folder), "value"),
        *(draw(errors) for draw in (freqkv.plot_errors, freqkv.plot_error_map)),
        freqkv.plot_ratios(freqkv.ratio_frame(folder)),
        freqkv.plot_perplexity(freqkv.run_frame(runs)),
        freqkv.plot_distance(freqkv.token_frame(runs)),
        freqkv.plot_rounds(freqkv.round_frame(runs)),
        freqkv.plot_comparison(freqkv.comparison_frame(work)),
        freqkv.plot_needle(freqkv.needle_frame(needle)),
        *(draw(probes) for draw in (freqkv.plot_bands, freqkv.plot_decomposition)),
        freqkv.plot_policies(probes),
        freqkv.plot_probe_heads(heads),
    ]
    for fig, axes in figures:
        title = fig.get_suptitle()
        shown = [ax for ax in axes.flat if ax.get_visible()]
        check(f"{title}: every panel shows data", shown and all(ax.has_data() for ax in shown))
        fig.savefig(os.path.join(work, "figure.png"))
        pyplot.close(fig)
    refused("a state that is not there", "state: expected", freqkv.plot_map, spectra, "query")
    check_drawn_numbers(work, runs[1], distances)


def check_drawn_numbers(work, run, distances):
    """What plot_distance() draws is what freqkv-analyze plot draws."""
    folder = os.path.join(work, "plots")
    freqkv.run("analyze", "plot", run, "--out", folder)
    with open(os.path.join(folder, "runs_distance.csv"), newline="", encoding="utf-8") as f:
        rows = [row for row in csv.reader(f) if row[0].startswith("KL")]
    found = distances(freqkv.token_frame(run))
    drawn = np.concatenate([found["kl", at].to_numpy() for at in ("since", "round")])
    same("KL over distance and rounds", drawn, [row[2:] for row in rows], 1e-8)


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", required=True)
    p.add_argument("--model", default="data/litbank-1m")
    p.add_argument("--text", default="data/the_tide_mill.txt")
    args = p.parse_args()
    os.environ["FREQKV_BIN"] = args.bin
    with tempfile.TemporaryDirectory() as work:
        runs = {"20 documents": replay_runs(work, args, "20 documents", 20, 24, 16)}
        runs["3 documents"] = replay_runs(work, args, "3 documents", 3, 280, 32)
        if not MISSING:
            runs["1 document"] = replay_runs(work, args, "1 document", 1, 520, 32)
        check_intervals(work, runs)
        check_run_frames(runs)
        probes = check_probes(work, args)
        folder = analyzed(work)
        check_results(folder)
        if MISSING:
            print(f"left out: figures and datasets, because {', '.join(MISSING)} is not installed")
            missing = MISSING[0] if MISSING[0] != "matplotlib" else "xarray"
            if missing in MISSING:
                refused("dataset()", f"pip install {missing}", freqkv.dataset, probes)
        else:
            check_datasets(folder, probes, runs["3 documents"])
            check_figures(work, args, folder, probes, runs["3 documents"])
    sys.exit(verdict("frames"))


if __name__ == "__main__":
    main()
