"""Question 1: where the energy of keys and values is, over depth: the paper's Figures 1 and 7."""

import os

import h5py
import numpy as np

from . import figures
from .intervals import mean_interval
from .page import plain, rounded
from .steps import Step

TITLE = "1. Where is the energy, over depth?"
STATES = ("key", "key_rotated", "value")
WORDS = {"key": "keys before RoPE", "key_rotated": "keys after RoPE", "value": "values"}
ATTENTION = 25  # the work of an attention error, where that of a transform is 1
MEASURES = ("dc_share", "low_eighth", "low_quarter", "low_half", "null_low_half")


def capture(s, name, texts, states):
    count = s.documents if name == "all" else (s.documents + 1) // 2
    arguments = ["--model", "$MODEL", "--text", *texts]
    arguments += ["--states", states, "--out", f"capture/{name}"]
    tokens = int(1.2 * count * s.short)
    return Step(f"capture/{name}", "capture", tuple(arguments), (f"capture/{name}",), tokens)


def captures(s):
    """Of all passages, and of those for choosing."""
    half = ["texts/short/choose"]
    both = [*half, "texts/short/test"]
    return [
        capture(s, "all", both, "key,value,key_rotated,query"),
        capture(s, "choose", half, "key,value,query"),
    ]


def steps(s):
    numbers = 9 * 6 * s.heads * s.head_dim * s.n
    found = captures(s)
    pooled = ("--length", s.n, "--out", "spectra/pooled")
    for command, share in (("spectrum", 1), ("error", 0.1)):
        arguments = (command, "capture/all", *pooled)
        size = numbers * s.documents * share
        found.append(Step(f"spectra/{command}", "analyze", arguments, (), numbers=size))
    for i in range(s.documents):
        out = f"spectra/{i:06d}"
        path = f"capture/all/documents/{i:06d}.h5"
        arguments = ("spectrum", path, "--length", s.n, "--out", out)
        found.append(Step(out, "analyze", arguments, (out,), numbers=numbers))
    return found


def shares(done, s, documents):
    """{state: {measure: [documents, layers]}} from the documents' own spectra."""
    found = {state: {m: [] for m in MEASURES} for state in STATES}
    for step in documents:
        result = done.result(step)
        for state in result["states"] if result else ():
            for m in MEASURES if state["state"] in found else ():
                found[state["state"]][m].append([layer[m] for layer in state["layers"]])
    return {a: {m: np.array(x, float) for m, x in by.items()} for a, by in found.items()}


def by_layer(values):
    """[(mean, low, high)] per layer of values [documents, layers]."""
    return [mean_interval(column) for column in values.T]


def sentence(state, by):
    """Where the share of the lower half rises, and by how much."""
    half = by["low_half"].mean(0)
    excess = by["low_half"] - by["null_low_half"]
    overall = mean_interval(excess.mean(1))
    word = "more than" if overall[1] > 0 else "less than" if overall[2] < 0 else "as much as"
    text = (
        f"Without DC the lower half of the coefficients of {WORDS[state]} holds"
        f" {plain(mean_interval(by['low_half'].mean(1)))}, mean over layers, {word} permuted tokens"
        f" have ({by['null_low_half'].mean():.3f}); least in layer {half.argmin()}"
        f" ({half.min():.2f}), most in layer {half.argmax()} ({half.max():.2f})"
    )
    if len(half) >= 4:
        step = np.diff(half)
        at = int(np.abs(step).argmax())
        rank = np.corrcoef(np.argsort(np.argsort(half)), np.arange(len(half)))[0, 1]
        text += (
            f"; the largest step is {step[at]:+.2f} into layer {at + 1}, and the rank correlation"
            f" with depth {rank:+.2f}"
        )
    return text + "."


def report(done, s, page):
    all_steps = steps(s)
    documents = [x for x in all_steps if x.name.startswith("spectra/0")]
    found = {a: by for a, by in shares(done, s, documents).items() if len(by["low_half"])}
    if not found:
        page.paragraph("(No spectrum is finished.)")
        return
    page.paragraph(" ".join(sentence(state, by) for state, by in found.items()))
    rows = [
        [WORDS[state], *(plain(mean_interval(by[m].mean(1)), 2) for m in MEASURES[:-1])]
        for state, by in found.items()
    ]
    title = f"Shares of energy, segments of {s.n} tokens; all but DC's own are without DC"
    lines = [done.line(x) for x in all_steps if x.name == "capture/all"]
    lines.append(done.line(documents[0]) + "   # and so on for every recording")
    head = ["state", "DC / all", "lowest eighth", "quarter", "half"]
    page.table(title, head, rows, lines)
    layers = depth_table(found)
    page.table("Share of the lower half without DC, by layer (permuted: 0.50)", *layers)
    errors(done, all_steps, page)
    page.figure(
        f"{s.name}-spectra",
        f"{s.name}: share of DC and of the lower half without DC, by layer, with 95% intervals over"
        f" {s.documents} documents; faint: heads; dotted: permuted tokens",
        lambda path: figures.depth(
            path, {WORDS[a]: by for a, by in found.items()}, heads_of(done, found)
        ),
    )
    page.paragraph(
        "The tools' own pictures, per head and by frequency, are in"
        f" {os.path.join(os.path.basename(done.folder), 'spectra', 'pooled')}."
    )
    numbers = {a: {m: by_layer(values) for m, values in by.items()} for a, by in found.items()}
    page.keep(spectra=numbers)


def heads_of(done, found):
    """{words: {measure: [layers, heads]}} of the pooled spectra."""
    path = done.at("spectra", "pooled", "results.h5")
    heads = {}
    with h5py.File(path) as f:
        for state in found:
            power = f["spectrum"][state]["power"][:].astype(float)
            rest = power[..., 1:].sum(-1)
            low = power[..., 1 : power.shape[-1] // 2].sum(-1) / rest
            heads[WORDS[state]] = {"dc_share": power[..., 0] / power.sum(-1), "low_half": low}
    return heads


def depth_table(found):
    count = len(next(iter(found.values()))["low_half"][0])
    shown = sorted({round(x) for x in np.linspace(0, count - 1, min(count, 8))})
    head = ["state", *(f"layer {x}" for x in shown)]
    rows = [
        [WORDS[a], *(f"{by['low_half'][:, x].mean():.2f}" for x in shown)]
        for a, by in found.items()
    ]
    return head, rows


def errors(done, all_steps, page):
    step = next(x for x in all_steps if x.name == "spectra/error")
    found = done.result(step)
    if not found:
        return
    picked = [i for i, g in enumerate(found["gamma"]) if round(g, 2) in (0.1, 0.3, 0.5, 0.7, 0.9)]
    rows = []
    for state in found["states"]:
        if state["state"] in WORDS:
            mean = np.mean([x["relative_error_no_dc"] for x in state["layers"]], 0)
            rows.append([WORDS[state["state"]], *(rounded(mean[i]) for i in picked)])
    null = [rounded(np.sqrt(1 - found["gamma"][i])) for i in picked]
    rows.append(["white noise", *null])
    head = ["state", *(f"gamma {found['gamma'][i]:.1f}" for i in picked)]
    page.table("Relative error without DC, mean over layers", head, rows, [done.line(step)])
