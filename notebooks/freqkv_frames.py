"""Tidy frames of what the tools wrote: one row per observation, a column per axis and per number.
For freqkv.py.

The columns that name a row are its axes: frame.attrs["axes"] lists them, dataset() turns them into
dimensions.
Units: energies and powers per channel of the orthonormal DCT-II, frequencies in cycles per token
(0 to 0.5), nll, KL and damage in nats per token, gamma the share of slots that a compression keeps.
"""

import json
import os

import h5py
import numpy as np
from freqkv_bootstrap import block_interval, bootstrap
from freqkv_reading import Probe, frame, load_results, read_run, read_table

MEASURES = ("retained_energy", "relative_error", "snr_db", "cosine")
# bits of token_class: the first four exclude each other
TOKEN_KINDS = {1: "digit", 2: "punctuation", 4: "word start", 8: "continuation"}
TOKEN_MARKS = {"rare": 16, "copied": 32, "first_occurrence": 64}
CHANGE_KINDS = ("none", "filter", "noise", "freqkv", "local")
CHANGE_OPTIONS = ("none", "filter", "noise", "freqkv", "local", "decompose", "bands", "octaves")
CHANGE_STATES = ("nothing", "keys", "values", "keys and values")


def dataset(table, axes=None):
    """xarray.Dataset of a frame: dimensions are its axes (default: those that the frame names),
    variables the other columns, NaN where there is no row. dataset(...)["power"] is a DataArray.
    """
    try:
        import pandas
        import xarray
    except ImportError as e:
        raise ImportError(f"dataset(): expected {e.name} to be installed: pip install {e.name}")
    axes = list(axes or table.attrs["axes"])
    rows = pandas.DataFrame(table).set_index(axes)
    if not rows.index.is_unique:
        raise ValueError(f"axes: expected columns that name each row once, found {axes}")
    return xarray.Dataset.from_dataframe(rows)


def crossed(*axes):
    """Columns of all combinations of the axes' values, the last axis fastest."""
    return [x.ravel() for x in np.meshgrid(*axes, indexing="ij")]


def joined(parts):
    """Columns of all parts, one after the other; of parts none: none."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# ---- results of freqkv-analyze ----


def spectrum_frame(folder, full=False):
    """Power spectra: state, layer, head, t_low and t_high (band of coefficients, the second one
    excluded), frequency, power, power_se, null (power of the same tokens permuted), and more. A row
    per band, DC being the first; with full=True a row per coefficient t, without bands.
    """
    if not full:
        columns = read_table(os.path.join(folder, "spectrum.csv"))
        renamed = {"cycles_per_token": "frequency", "power_null": "null"}
        columns = {renamed.get(name, name): x for name, x in columns.items()}
        return frame(columns, axes=["state", "layer", "head", "t_low"])
    parts = []
    for state, x in states_of(load_results(folder), "spectrum"):
        n = x["power"].shape[-1]
        layer, head, t = crossed(x["layer_index"], x["head_index"], np.arange(n))
        part = {"state": np.full(len(t), state, object), "layer": layer, "head": head, "t": t}
        part["frequency"] = t / (2 * n)
        for name, field in (("power", "power"), ("power_se", "power_se"), ("null", "power_null")):
            part[name] = x[field].ravel() if field in x else np.full(len(t), np.nan)
        parts.append(part)
    return frame(joined(parts), axes=["state", "layer", "head", "t"])


def states_of(results, group):
    """(state, its group) of the results' group, in the order of the file."""
    if group not in results:
        raise ValueError(f"expected results of freqkv-analyze {group}, found none")
    return [(state, x) for state, x in results[group].items() if "layer_index" in x]


def share_frame(folder):
    """Where energy lies: state, layer, head, and as shares dc (of all energy), low_half,
    low_quarter, low_eighth (of the energy without DC), null_low_half, ... (the same of the permuted
    tokens). Head -1: the layer pooled over heads, that is power summed over them.
    """
    parts = []
    for state, x in states_of(load_results(folder), "spectrum"):
        heads = [-1, *x["head_index"]]
        layer, head = crossed(x["layer_index"], heads)
        part = {"state": np.full(len(layer), state, object), "layer": layer, "head": head}
        for prefix, field in (("", "power"), ("null_", "power_null")):
            if field in x:
                power = np.concatenate([x[field].sum(1, keepdims=True), x[field]], 1)
                part |= shares_of(power.reshape(len(layer), -1), prefix)
        parts.append(part)
    return frame(joined(parts), axes=["state", "layer", "head"])


def shares_of(power, prefix=""):
    """Columns of shares <- power [rows, n]"""
    n, rest = power.shape[1], power[:, 1:].sum(1)
    columns = {} if prefix else {"dc": power[:, 0] / power.sum(1)}
    for name, share in (("low_half", 0.5), ("low_quarter", 0.25), ("low_eighth", 0.125)):
        retained = max(int(np.floor(share * n + 1e-9)), 1)
        columns[prefix + name] = power[:, 1:retained].sum(1) / rest
    return columns


def error_frame(folder):
    """What the lowest coefficients lose: state, layer, head, gamma, measure (retained_energy,
    relative_error, snr_db in dB, cosine), with_dc (False: DC, the mean over tokens, does not
    count), value.
    """
    parts = []
    for state, x in states_of(load_results(folder), "error"):
        for measure in MEASURES:
            for with_dc in (True, False):
                layer, head, gamma = crossed(x["layer_index"], x["head_index"], x["gamma"])
                rows = {"state": state, "measure": measure}
                part = {n: np.full(len(layer), word, object) for n, word in rows.items()}
                part |= {"layer": layer, "head": head, "gamma": gamma}
                part["with_dc"] = np.full(len(layer), with_dc)
                part["value"] = x[measure + ("" if with_dc else "_no_dc")].ravel()
                parts.append(part)
    axes, columns = ["state", "layer", "head", "gamma", "measure", "with_dc"], joined(parts)
    return frame({name: columns[name] for name in [*axes, "value"]}, axes=axes)


def ratio_frame(path):
    """A ratio table: layer, head, gamma, retained (slots). Of a folder of freqkv-analyze gamma with
    what keys and values lose (shares of energy) and the objective, beside one ratio for all heads
    (..._uniform); of a gamma.json the ratios alone.
    """
    if os.path.isdir(path):
        return frame(read_table(os.path.join(path, "gamma.csv")), axes=["layer", "head"])
    with open(path, encoding="utf-8") as f:
        table = json.load(f)
    gamma, retained = (np.array(table[name]) for name in ("gamma", "retained"))
    layer, head = crossed(np.arange(len(gamma)), np.arange(gamma.shape[1]))
    columns = {"layer": layer, "head": head}
    columns |= {"gamma": gamma.ravel(), "retained": retained.ravel()}
    return frame(columns, axes=["layer", "head"])


def comparison_frame(folder):
    """compare.csv of freqkv-analyze compare, a row per pair of runs, group of tokens and measure:
    run_a, run_b, label_a, label_b, by (all, position, class, document), group, tokens, units,
    measure (nll, kl, agree), difference (b less a), low, high (95%), se, p.
    """
    path = os.path.join(folder, "compare.csv") if os.path.isdir(folder) else folder
    columns = read_table(path)
    keys = [n for n in columns if not n.startswith("delta_")]
    parts = []
    for field, measure in (("delta_nll", "nll"), ("delta_kl", "kl"), ("delta_top1", "agree")):
        part = {name: columns[name] for name in keys}
        part["measure"] = np.full(len(columns["by"]), measure, object)
        for name in ("", "_low", "_high", "_se", "_p"):
            part[name[1:] or "difference"] = columns[field + name].astype(np.float64)
        parts.append(part)
    return frame(joined(parts), axes=["run_a", "run_b", "by", "group", "measure"])


# ---- files of freqkv-replay ----


def named(paths):
    """[(name, path)] of the files of a folder that end in .h5, in the order of their names, of a
    file, or of a list. Names are without .h5, or the paths where two are alike.
    """
    if not isinstance(paths, (str, os.PathLike)):
        paths = list(paths)
    elif os.path.isdir(paths):
        paths = [os.path.join(paths, n) for n in sorted(os.listdir(paths)) if n.endswith(".h5")]
    else:
        paths = [paths]
    names = [os.path.basename(path).removesuffix(".h5") for path in paths]
    return list(zip(names if len(set(names)) == len(names) else map(str, paths), paths))


def token_frame(paths):
    """Runs, a row per scored token: run, document (or window, where windows share tokens), name (of
    the document), position (of the token in it), token (its id), class (digit, punctuation, word
    start, continuation; empty: none of them or not known), rare, copied, first_occurrence, nll,
    baseline_nll, kl, agree (1 where policy and baseline have one argmax), round (compressions or
    evictions so far) and since (tokens since the last of them). NaN: the run has no such number.
    `paths`: files, or a folder of them.
    """
    parts = [token_columns(name, *read_run(path)) for name, path in named(paths)]
    where = {"window" if "window" in part else "document" for part in parts}
    if len(where) > 1:
        raise ValueError("expected runs of documents or of windows, found both")
    return frame(joined(parts), axes=["run", *where, "position"])


def token_columns(run, attributes, columns):
    count = len(columns["nll"])
    where = "window" if "window" in columns else "document"
    part = {"run": np.full(count, run, object), where: columns[where]}
    if where == "document":
        part["name"] = np.array(attributes["documents"], object)[columns["document"]]
    part |= {"position": columns["token"], "token": columns["id"]}
    bits = columns.get("token_class", np.zeros(count, np.uint8))
    part["class"] = np.array([TOKEN_KINDS.get(b, "") for b in range(16)], object)[bits & 15]
    part |= {name: bits & bit > 0 for name, bit in TOKEN_MARKS.items()}
    evicts = "since_eviction" in columns
    fields = {"nll": "nll", "baseline_nll": "baseline_nll", "kl": "kl", "agree": "top1_agree"}
    fields |= {"round": "evictions" if evicts else "round"}
    fields |= {"since": "since_eviction" if evicts else "since_compression"}
    missing = np.full(count, np.nan, np.float32)
    return part | {name: columns.get(field, missing) for name, field in fields.items()}


def run_frame(paths):
    """Runs, a row each: run, label (policy with its options, window), policy, options, gamma (of a
    ratio table the mean), window, sinks, slots (mean in use), bytes (of the cache at its peak),
    documents, tokens (scored), mean_nll, se, perplexity, delta_nll and kl (to the baseline) with
    their low and high (95%, bootstrap), agree, protocol, model, path. NaN: the run has no such
    number.
    """
    rows = []
    for name, path in named(paths):
        attributes, columns = read_run(path)
        rows.append({"run": name} | run_row(attributes, columns) | {"path": str(path)})
        with h5py.File(path) as f:
            rows[-1]["gamma"] = gamma_of(f)
    columns = {n: [row[n] for row in rows] for n in rows[0]} if rows else {}
    return frame({n: np.array(x) for n, x in columns.items()}, axes=["run"])


def run_row(attributes, columns):
    fields = {"policy": "policy", "options": "policy_options", "gamma": "gamma", "window": "window"}
    fields |= {"sinks": "sinks", "slots": "cache_slots_mean", "bytes": "cache_bytes_peak"}
    label, window = attributes.get("policy_label", attributes["policy"]), attributes.get("window")
    row = {"label": label + (f", window {window}" if window else "")}
    row |= {name: attributes.get(field, np.nan) for name, field in fields.items()}
    mean = attributes["mean_nll"]
    row |= {"documents": len(attributes["documents"]), "tokens": len(columns["nll"])}
    row |= {"mean_nll": mean, "se": attributes.get("mean_nll_se", np.nan)}
    row["perplexity"] = float(np.exp(mean))
    overlap = "window" in columns
    for measure in ("delta_nll", "kl"):
        found = None
        if measure in columns:
            documents = None if overlap else columns["document"]
            found = bootstrap(columns[measure], documents, overlap)
        for end, part in (("", "estimate"), ("_low", "low"), ("_high", "high")):
            row[measure + end] = np.nan if found is None else getattr(found, part)
    row["agree"] = attributes.get("top1_agreement", np.nan)
    return row | {"protocol": attributes["protocol"], "model": attributes["model_name"]}


def gamma_of(f):
    """A run's ratio as it was asked for, of a table their mean; NaN where the policy has none."""
    gamma, n = f.attrs.get("gamma", np.nan), f.attrs.get("compressible", 0)
    if "retained" not in f or not n > 0:
        return float(gamma)
    kept = f["retained"][:].mean() / n
    return float(gamma if abs(gamma - kept) < 1 / n else kept)


def round_frame(paths):
    """What each compression (or eviction) kept: run, state, layer, head, round (from 1), before and
    kept (energies, summed over texts), share (kept / before).
    """
    parts = []
    for name, path in named(paths):
        with h5py.File(path) as f:
            group = "evictions" if "evictions" in f else "compressions"
            rows = {n: x[:] for n, x in f[group].items()} if group in f else {}
        if not rows or not len(rows["round"]):
            continue
        axes = np.stack([rows[n] for n in ("state", "layer", "head", "round")])
        axes, at = np.unique(axes, axis=1, return_inverse=True)
        part = {"run": np.full(axes.shape[1], name, object)}
        part["state"] = np.array(["key", "value"], object)[axes[0]]
        part |= dict(zip(("layer", "head", "round"), axes[1:]))
        for column, field in (("before", "energy_before"), ("kept", "energy_kept")):
            part[column] = np.bincount(at.ravel(), rows[field])
        parts.append(part | {"share": part["kept"] / part["before"]})
    axes = ["run", "state", "layer", "head", "round"]
    return frame(joined(parts) if parts else {}, axes=axes)


def probe_frame(paths):
    """Probes, a row per change, window and block of 256 scored tokens: run (the file), change (its
    number), label, option, kind, states, layer and head (-1: all), low and high (first band, shares
    of the coefficients; NaN: none), bands (how many), complement (1: taken out), noise (its
    energy), gamma, truncation, squeezed, fewer (parts of FreqKV; -1: none), document, window,
    block, tokens, damage (nll with the change less nll untouched) and kl, means over the block's
    tokens, lost_key and lost_value (energy).
    """
    parts = [probe_columns(name, Probe(path)) for name, path in named(paths)]
    return frame(joined(parts), axes=["run", "change", "window", "block"])


def probe_columns(run, probe):
    windows, changes, scored = probe.damage.shape
    edges = np.arange(0, scored, 256)
    tokens = np.diff([*edges, scored])
    change, window, block = crossed(*(np.arange(x) for x in (changes, windows, len(edges))))
    part = {"run": np.full(len(change), run, object), "change": change}
    for name, column in change_columns(probe).items():
        part[name] = column[change]
    part |= {"document": probe.documents[window], "window": window, "block": block}
    part["tokens"] = tokens[block]
    for name in ("damage", "kl"):
        means = np.add.reduceat(getattr(probe, name), edges, -1) / tokens
        part[name] = means.transpose(1, 0, 2).ravel()
    for i, name in enumerate(("lost_key", "lost_value")):
        part[name] = probe.lost_energy[window, change, i]
    return part


def change_columns(probe):
    """Columns [changes] of what the changes are, in words."""
    table = {name: np.asarray(probe.changes[name]) for name in probe.changes}
    words = {"option": CHANGE_OPTIONS, "kind": CHANGE_KINDS, "states": CHANGE_STATES}
    columns = {"label": table["label"].astype(object)}
    columns |= {name: np.array(known, object)[table[name]] for name, known in words.items()}
    columns |= {"layer": table["layer"], "head": table["kv_head"]}
    columns |= {"low": probe.bands[:, 0, 0], "high": probe.bands[:, 0, 1]}
    columns |= {"bands": table["band_count"], "complement": table["complement"]}
    columns |= {"noise": table["epsilon"], "gamma": table["gamma"]}
    return columns | {name: table[name] for name in ("truncation", "squeezed", "fewer")}


def damage_frame(probes):
    """What each change cost, of rows of probe_frame(), a row per change: what it is, damage and kl
    with their se, low and high (95%, bootstrap), lost_key and lost_value (means over windows).
    """
    rows = {name: np.asarray(probes[name]) for name in probes}
    names = np.stack([np.unique(rows["run"], return_inverse=True)[1], rows["change"]])
    _, first, at = np.unique(names, axis=1, return_index=True, return_inverse=True)
    told = list(rows)[: list(rows).index("document")]
    columns = {name: rows[name][first] for name in told}
    parts = [np.flatnonzero(at.ravel() == i) for i in range(len(first))]
    tokens, document = rows["tokens"], rows["document"]
    for name in ("damage", "kl"):
        sums = rows[name] * tokens
        found = [block_interval(sums[part], tokens[part], document[part]) for part in parts]
        for end in ("", "_se", "_low", "_high"):
            columns[name + end] = np.array([getattr(x, end[1:] or "estimate") for x in found])
    for name in ("lost_key", "lost_value"):
        columns[name] = np.array([rows[name][part].mean() for part in parts])
    return frame(columns, axes=["run", "change"])


def needle_frame(path):
    """A table of freqkv-replay needle, a row per prompt: task, policy, window, gamma, length
    (tokens), depth (0: the start), repeat, ..., and exact (1: greedy decoding gives the answer),
    logprob_per_token (nats), or gain (nats per token) of a recall task.
    """
    columns = read_table(path)
    names = list(columns)
    return frame(columns, axes=names[: names.index("repeat") + 1])
