"""Question 4: what a compressed slot is worth after k rounds, and how far back recall reaches."""

import numpy as np

from . import figures
from .intervals import interval, verdict
from .page import milli, plain
from .rivals import FULL, asked, load, losses, ppl, ratio, task_less
from .setting import GAMMAS, PASSAGE
from .steps import Step

TITLE = "4. What is left after many rounds?"
FEWEST = 32  # targets of a document, so that a round is shown
DEPTHS = "0,0.4,0.7,0.9"


def impulse(s):
    arguments = ("impulse", "--window", s.window, "--gamma", ",".join(GAMMAS), "--out", "impulse")
    return Step("impulse", "analyze", arguments, ("impulse",))


def policies(s):
    return [FULL, *(ratio(p, "0.5", s) for p in ("freqkv", "local"))]


def recall(s, policy):
    """Recall over the distance, in a text of as many tokens as a document."""
    return asked(s, "recall", policy, "test", DEPTHS, s.tokens, "distance")


def steps(s):
    runs = [ppl(s, p, baseline=True) for p in policies(s)[1:]]
    return [impulse(s), ppl(s, FULL), *runs, *(recall(s, p) for p in policies(s))]


def report(done, s, page):
    by_round(done, s, page)
    distance(done, s, page)
    page.figure(
        f"{s.name}-rounds",
        f"{s.name}: damage by rounds of compression, and recall over the distance with the memory"
        " horizon of one slot",
        lambda path: figures.rounds(path, page.numbers),
    )


def by_round(done, s, page):
    """Damage of FreqKV and local by round: both have the same schedule and the same slots."""
    freqkv, local = (load(done, ppl(s, p, baseline=True)) for p in policies(s)[1:])
    if freqkv is None or local is None:
        page.paragraph("(The runs are not finished.)")
        return
    rows, kept = [], {}
    for k in range(1, int(max(r.max() for r in freqkv["round"])) + 1):
        at = [r == k for r in freqkv["round"]]
        if np.mean([m.sum() for m in at]) < FEWEST:
            continue

        def over(run, column, against=None):
            base = run[against] if isinstance(against, str) else against[column]
            return interval([(a - b)[m] for a, b, m in zip(run[column], base, at)])

        own, other = over(freqkv, "nll", "baseline_nll"), over(local, "nll", "baseline_nll")
        apart, kl = over(freqkv, "nll", local), over(freqkv, "kl", local)
        kept[k] = {"freqkv": own, "local": other, "less_local": apart, "kl_less_local": kl}
        rows.append([k, *map(milli, (own, other, apart, kl))])
    title = (
        "By rounds of compression so far, gamma 0.5: damage of FreqKV, of local, their difference,"
        " and that of KL, thousandths; below zero, what is compressed is worth more than nothing"
    )
    head = ["round", "freqkv", "local", "freqkv less local", "KL less local's"]
    lines = [done.line(ppl(s, p, baseline=True)) for p in policies(s)[1:]]
    page.table(title, head, rows, lines)
    page.keep(rounds=kept)
    words = [verdict(x["less_local"], "better", "worse") for x in kept.values()]
    page.paragraph(
        f"FreqKV is better than local after {words.count('better')} of {len(words)} numbers of"
        f" rounds, worse after {words.count('worse')}, undecided after"
        f" {words.count('undecided')}."
    )


def distance(done, s, page):
    found = {p.name: losses(done, recall(s, p)) for p in policies(s)}
    horizon = done.result(impulse(s))
    if not all(found.values()) or not horizon:
        return
    ratios = {f"{r['gamma']:g}": r for r in horizon["ratios"]}
    # where FreqKV compresses until the passage returns
    compressed = range(s.window, s.tokens - PASSAGE + 1, s.window - s.kept("0.5"))
    rows, kept = [], {}
    for depth in DEPTHS.split(","):
        cut = {
            name: {k: x for k, x in by.items() if float(k[1]) == float(depth)}
            for name, by in found.items()
        }
        tokens = round((1 - float(depth)) * s.tokens)
        full, freqkv, local = (cut[p.name] for p in policies(s))
        values = [task_less(freqkv, full), task_less(local, full), task_less(freqkv, local)]
        rounds = sum(at > s.tokens - tokens for at in compressed)
        kept[tokens] = {"freqkv": values[0], "local": values[1], "less_local": values[2]}
        rows.append([tokens, rounds, *(plain(x, 2) for x in values)])
    reach = ratios["0.5"]["horizon_tokens"]
    title = (
        "Recall over the distance (tokens back, rounds until the passage returns): its loss then,"
        " above full attention, nats per token"
    )
    head = ["tokens", "rounds", "freqkv", "local", "freqkv less local"]
    lines = [done.line(recall(s, p)) for p in policies(s)] + [done.line(impulse(s))]
    page.table(title, head, rows, lines)
    helped = [t for t, x in kept.items() if verdict(x["less_local"]) == "better"]
    where = f"at {', '.join(map(str, helped))} tokens" if helped else "at no distance"
    page.paragraph(
        f"A chunk is one slot after {ratios['0.5']['horizon_rounds']:.1f} rounds,"
        f" {reach:.0f} tokens (gamma 0.5). Recall under FreqKV is better than under local {where}."
    )
    page.keep(distance=kept, horizon={g: r["horizon_tokens"] for g, r in ratios.items()})
