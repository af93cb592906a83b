"""Question 3: FreqKV's damage in parts; bands, noise, layers, heads; what predicts damage."""

import numpy as np

from . import figures
from .intervals import compared
from .page import milli, plain, rounded
from .setting import GAMMAS
from .spectra import ATTENTION, captures
from .steps import Step

TITLE = "3. Which part of the damage is which, and what predicts it?"
EDGES = tuple(f"{k / 8:g}:{(k + 1) / 8:g}" for k in range(8))
PREDICTORS = {
    "energy": "share of energy",
    "energy_no_dc": "without DC",
    "absolute": "absolute",
    "visible": "visible to queries or output",
    "attention": "attention-output error",
    "attention_projected": "the same, projected",
}


def probe(s, name, changes, *options, score=None):
    """A probe of all passages with as many changes, over `score` tokens (default: s.score)."""
    score = score or s.score
    out = f"probes/{name}.h5"
    arguments = ["probe", "--model", "$MODEL", "--text", "texts/short/choose", "texts/short/test"]
    arguments += ["--prefix", s.window, "--score", score, *options, "--out", out]
    tokens = s.documents * (s.window + (changes + 2) * score)
    return Step(out[:-3], "replay", tuple(arguments), (out,), tokens)


def probes(s):
    decompose = [x for g in GAMMAS for x in ("--decompose", g, "--local", g)]
    noise = [x for band in EDGES for x in ("--noise", f"{band}:0.1")]
    both = ("--states", "key,value")
    alone = ("--filter", "0:0.5", *both, "--per-layer", "--per-head")
    changes = 2 * (1 + s.layers + s.heads)
    return {
        "parts": probe(s, "parts", 27, *decompose),
        "bands": probe(s, "bands", 18, "--bands", 8, *both),
        "noise": probe(s, "noise", 16, *noise, *both),
        "heads": probe(s, "heads", changes, *alone, score=s.score // 4),
    }


def link(s):
    arguments = ("link", "--capture", "capture/all", "--probes", "probes/heads.h5")
    size = ATTENTION * 20 * s.heads * s.head_dim * s.n * s.documents
    return Step("link", "analyze", (*arguments, "--out", "link"), ("link",), numbers=size)


def steps(s):
    return [captures(s)[0], *probes(s).values(), link(s)]


def effect(change, measure="delta_nll"):
    return change[measure], change[measure + "_low"], change[measure + "_high"]


def report(done, s, page):
    found = {name: done.result(step) for name, step in probes(s).items()}
    lines = {name: [done.line(step)] for name, step in probes(s).items()}
    if found["parts"]:
        decomposition(found["parts"], lines["parts"], s, page)
    if found["bands"] and found["noise"]:
        bands(found["bands"], found["noise"], lines["bands"] + lines["noise"], page)
    if found["heads"]:
        layers(found["heads"], lines["heads"], page)
    result = done.result(link(s))
    if result:
        predictors(result, s, [done.line(link(s))], page)
    page.figure(
        f"{s.name}-parts",
        f"{s.name}: one compression in parts; KL per unit of energy taken from a band; KL of the"
        " upper half taken from one layer",
        lambda path: figures.parts(path, page.numbers),
    )


# ---- the decomposition ----


def parts_of(change):
    """The parts that are on. Truncation alone is made twice: as a filter of n slots and as L."""
    on = [part for part in ("truncation", "squeezed", "fewer") if change[part]]
    name = ALL if len(on) == 3 else " + ".join(on) or "nothing"
    return name + (", L slots" if on == ["truncation"] and change["kind"] == "freqkv" else "")


def decomposition(found, lines, s, page):
    parts = {}
    for change in found["changes"]:
        if change["option"] in ("decompose", "local"):
            name = "local" if change["option"] == "local" else parts_of(change)
            parts.setdefault(name, {})[f"{change['gamma']:g}"] = effect(change)
    rows = [[name, *(milli(by.get(g)) for g in GAMMAS)] for name, by in parts.items()]
    title = (
        f"One compression of {s.n} slots, its parts switched on alone and together (squeezed:"
        " positions as after it; fewer: L slots in the softmax): damage to the next"
        f" {s.score} tokens in thousandths of a nat"
    )
    page.table(title, ["parts", *(f"gamma {g}" for g in GAMMAS)], rows, lines)
    page.keep(parts=parts)
    everything, alone = (parts.get(n, {}).get("0.5") for n in (ALL, "truncation, L slots"))
    local = parts.get("local", {}).get("0.5")
    if everything and alone and local:
        share = "of a damage that is not clear of zero"
        if everything[1] > 0:
            share = f"{alone[0] / everything[0]:.0%} of that"
        overlaps = "an amount whose interval overlaps"
        word = compared(local, everything, "more", "less", overlaps)
        page.paragraph(
            f"At gamma 0.5 one compression costs {milli(everything)} thousandths of a nat;"
            f" truncation alone costs {milli(alone)}, {share}. Dropping the older tokens"
            f" instead (local) costs {milli(local)}: {word}."
        )


ALL = "all three"


# ---- bands and noise ----


def per_energy(change, lost):
    if not change or not change[lost]:
        return None
    return tuple(x / change[lost] for x in effect(change, "kl"))


def bands(removed, noise, lines, page):
    for state in ("key", "value"):
        lost = f"lost_{state}"
        out = [c for c in removed["changes"] if c["kind"] == "filter" and c["states"] == state]
        put = [c for c in noise["changes"] if c["kind"] == "noise" and c["states"] == state]
        rows, kept = [], {}
        for band, a, b in zip(("DC", *EDGES), out, (None, *put)):
            values = (effect(a), per_energy(a, lost), per_energy(b, lost))
            rows.append([band, rounded(a[lost]), *map(milli, values)])
            kept[band] = {"energy": a[lost], "damage": values[0], "out": values[1], "in": values[2]}
        title = (
            f"Bands of {state}s (a head's energy without DC is 1): damage where the band is taken"
            " out, KL per unit of energy taken out, and of energy put in as noise; thousandths"
        )
        head = ["band", "energy", "damage", "KL per unit, out", "KL per unit, noise"]
        page.table(title, head, rows, lines if state == "value" else ())
        page.keep(**{f"bands_{state}": kept})
        low, high = kept[EDGES[0]]["out"], kept[EDGES[-1]]["out"]
        if low and high:
            alike = "as far as can be told as much as"
            word = compared(low, high, "more than", "less than", alike)
            page.paragraph(
                f"A unit of energy in the lowest eighth of {state}s is worth {word} one in the"
                f" highest: {milli(low)} and {milli(high)} thousandths of KL."
            )


def layers(found, lines, page):
    """The upper half taken from one layer at a time."""
    for state in ("key", "value"):
        ours = [c for c in found["changes"] if c["states"] == state and c["layer"] is not None]
        alone = [c for c in ours if c["kv_head"] is None]
        heads = [c for c in ours if c["kv_head"] is not None]
        if not alone:
            continue
        kl = [effect(c, "kl") for c in alone]
        page.keep(**{f"layers_{state}": kl, f"heads_{state}": [c["kl"] for c in heads]})
        top = int(np.argmax([x[0] for x in kl]))
        share = np.sort([c["kl"] for c in heads])[::-1]
        tenth = max(1, len(share) // 10)
        page.paragraph(
            f"The upper half of the coefficients of {state}s, taken from one layer at a time, costs"
            f" most KL in layer {top} ({milli(kl[top])} thousandths; median over layers"
            f" {1000 * np.median([x[0] for x in kl]):.2f}). Of {len(share)} heads the tenth that"
            f" costs most ({tenth}) has {share[:tenth].sum() / share.sum():.0%} of the sum over"
            " heads."
        )
    page.commands(lines)


def predictors(found, s, lines, page):
    rows, kept = {}, {}
    for group in found["heads"]:
        if group["depth"] != "all" or group["damage"] != "kl":
            continue
        for x in group["links"]:
            if x["spearman"] and x["spearman"][0] is not None:
                rows.setdefault(x["predictor"], {})[group["states"]] = x["spearman"]
                kept.setdefault(group["states"], {})[x["predictor"]] = x["spearman"]
    table = [
        [PREDICTORS.get(name, name), *(plain(by.get(a), 2) for a in ("key", "value"))]
        for name, by in rows.items()
    ]
    title = (
        f"The upper half taken from one head: rank correlation over {s.heads} heads of what a"
        " predictor says with KL"
    )
    page.table(title, ["predictor", "keys", "values"], table, lines)
    page.keep(predictors=kept)
    said = []
    for state, by in kept.items():
        clear = [PREDICTORS[n] for n, x in by.items() if x[1] is not None and x[1] > 0]
        wrong = [PREDICTORS[n] for n, x in by.items() if x[2] is not None and x[2] < 0]
        said.append(
            f"For {state}s the interval is above zero for: {', '.join(clear) or 'none'};"
            f" below zero (ranks heads the wrong way round) for: {', '.join(wrong) or 'none'}."
        )
    page.paragraph(" ".join(said))
