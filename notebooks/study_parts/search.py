"""Question 5: is there something better than FreqKV without training?

All tries are run on one half of the books. The best by perplexity and by recall are run on the
other half too and judged there, against FreqKV and local. Tables and operators are made from the
half for choosing alone.
"""

import os
from dataclasses import dataclass

import numpy as np

from . import figures, operators
from .intervals import less, verdict
from .page import milli
from .rivals import FULL, Policy, asked, load, losses, ppl, ratio, task_less
from .setting import GAMMAS, HALVES
from .spectra import ATTENTION, captures
from .steps import Step

TITLE = "5. Better than FreqKV without training?"
BEST = 3  # tries that go on from each measure
IMPOSSIBLE = (
    "keys and values with different numbers of slots (a head's keys and values share their slots;"
    " tried instead: different matrices for them)",
    "a limit on the mass bias (tried instead: the bias with latest slots, which it leaves alone)",
)


@dataclass(frozen=True)
class Try:
    idea: str
    policy: Policy
    mean: bool = True  # as many slots after a compression as FreqKV at 0.5: equal mean memory


def recents(s):
    kept = s.kept("0.5")
    return [kept // 8, kept // 4, kept // 2, 3 * kept // 4]


def freqkv(name, s, gamma, *options):
    return Policy(name, "freqkv", ("--window", s.window, "--gamma", gamma, *options))


def latest(s):
    """The latest R slots uncompressed, the ratio behind them lower."""
    for recent in recents(s):
        gamma = s.equal_mean("0.5", recent)
        idea = "latest uncompressed, lower ratio behind"
        yield Try(idea, freqkv(f"recent{recent}", s, gamma, "--recent", recent))
    for recent in recents(s)[1::2]:
        gamma = s.equal_mean("0.5", recent)
        policy = freqkv(f"recent{recent}-bias", s, gamma, "--recent", recent, "--mass-bias")
        yield Try("the same with mass bias", policy)
    for gamma in ("0.25", "0.5"):
        recent = s.kept("0.5") // 2
        policy = freqkv(f"recent{recent}-at{gamma}", s, gamma, "--recent", recent)
        yield Try("latest uncompressed, equal peak only", policy, mean=False)


def plain_changes(s):
    yield Try("mass bias", freqkv("bias", s, "0.5", "--mass-bias"))
    yield Try("without the factor", freqkv("no-rescale", s, "0.5", "--rescale", "off"))


def tables(s):
    """Steps of gamma on the passages for choosing, by the folder that they write."""
    found = {}
    size = 20 * s.heads * s.head_dim * s.n * s.documents / 2

    def add(name, *options, work=1):
        arguments = ("gamma", "capture/choose", "--length", s.n, "--window", s.window, "--budget")
        arguments += ("0.5", *options, "--out", f"tables/{name}")
        found[name] = Step(
            f"tables/{name}", "analyze", arguments, (f"tables/{name}",), numbers=work * size
        )

    for objective, work in (("relative", 1), ("absolute", 1), ("attention", ATTENTION)):
        add(objective, "--objective", objective, work=work)
    if "mixed" in s.features:
        for share in ("0.25", "0.5", "0.75"):
            add(f"mixed-{share}", "--mixed", f"worst:{share}")
    return found


def per_head(s):
    for name in tables(s):
        if name.startswith("mixed"):
            options = ("--window", s.window, "--table", f"tables/{name}/policies.json")
            yield Try("heads by spectrum: local or freqkv", Policy(name, "mixed", options))
        else:
            table = f"@tables/{name}/gamma.json"
            yield Try("a ratio per head", freqkv(f"table-{name}", s, table))


def linear(s):
    ideas = {
        "once": "each token compressed once",
        "mean": "DC apart: latest, and one mean",
        "leve": "slots that grow with age",
        "thin": "whole slots, fewer with age",
        "keys": "keys and values apart",
    }
    for name in operators.all_of(s.n, s.kept("0.5") - 4):
        options = ("--window", s.window, "--gamma", "0.5", "--operator", f"operators/{name}.h5")
        yield Try(ideas[name[:4]], Policy(name, "linear", options))


def tries(s):
    return [*latest(s), *plain_changes(s), *per_head(s), *linear(s)]


def references(s, gamma="0.5"):
    return [ratio(p, gamma, s) for p in ("freqkv", "local")]


def run_of(s, policy, half):
    """FreqKV and local at the three ratios have their runs of both halves from question 2."""
    if policy in [p for g in GAMMAS for p in references(s, g)]:
        return ppl(s, policy, baseline=True)
    return ppl(s, policy, folder=f"search/{half}", halves=(half,))


def both_of(s, policy, half):
    """The steps that say how good a policy is, on one half."""
    asks = policy.policy != "linear" or "needle-operators" in s.features
    return [run_of(s, policy, half)] + [asked(s, "recall", policy, half)] * asks


def steps(s):
    found = [captures(s)[1], *tables(s).values(), ppl(s, FULL)]
    for policy in (p for g in GAMMAS for p in references(s, g)):
        found += both_of(s, policy, "choose")
    return found + [step for t in tries(s) for step in both_of(s, t.policy, "choose")]


def confirming(done, s):
    """The steps of the other half, for the tries that are chosen once the others are finished and
    for what they are held against.
    """
    chosen, best = chosen_of(measured_all(done, s)), best_of(done, s, halves_of(done, s)["choose"])
    found = {}
    for t in (t for t in tries(s) if t.policy.name in chosen):
        for policy in (t.policy, *(references(s) if t.mean else best)):
            found |= {step.name: step for step in both_of(s, policy, "test")}
    return list(found.values())


# ---- reading ----


def best_of(done, s, names):
    """FreqKV and local, each at the ratio that is best on the passages `names`: the rivals at equal
    peak of what has other slots than they at 0.5.
    """
    found = []
    for i in range(2):
        policies = [references(s, g)[i] for g in GAMMAS]
        runs = {p: load(done, run_of(s, p, "choose")) for p in policies}
        first = next((r for r in runs.values() if r), None)
        means = {p: less(r, first, names=names)[0] for p, r in runs.items() if r}
        found.append(min(means, key=means.get) if means else policies[1])
    return found


def measured(done, s, policy, halves, against):
    """{half: {measure: {reference: (mean, low, high)}}} of losses less those of `against`."""
    found = {}
    for half, names in halves.items():
        run, nll, recall = load(done, run_of(s, policy, half)), {}, {}
        own = losses(done, asked(s, "recall", policy, half))
        for base in against:
            other = load(done, run_of(s, base, half))
            nll[base.policy] = less(run, other, names=names) if run and other else None
            recall[base.policy] = task_less(own, losses(done, asked(s, "recall", base, half)))
        found[half] = {"perplexity": nll, "recall": recall}
    return found


def halves_of(done, s):
    """{half: names of its documents}."""
    return {
        half: {n for n in os.listdir(done.at("texts", half)) if n.endswith(".txt")}
        for half in HALVES
    }


def measured_all(done, s):
    """{try: its idea, what it is held against, and measured()}, of tries that have a result."""
    halves, rows = halves_of(done, s), {}
    best = best_of(done, s, halves["choose"])
    for t in tries(s):
        against = references(s) if t.mean else best
        found = measured(done, s, t.policy, halves, against)
        names = [p.name for p in against]
        if any(found["choose"][m]["freqkv"] for m in ("perplexity", "recall")):
            rows[t.policy.name] = {"idea": t.idea, "mean": t.mean, "against": names, **found}
    return rows


def wins(found):
    """A winner is clear of zero against both references on one measure, and on the other loses
    against neither.
    """
    for one, other in (("perplexity", "recall"), ("recall", "perplexity")):
        first, second = found[one].values(), found[other].values()
        if None in (*first, *second):
            continue
        if all(x[2] < 0 for x in first) and not any(x[1] > 0 for x in second):
            return one
    return None


def chosen_of(rows):
    """Names of the tries that are best against FreqKV on the half for choosing."""
    found = []
    for measure in ("perplexity", "recall"):
        ranked = [(r["choose"][measure]["freqkv"], name) for name, r in rows.items()]
        ranked = sorted((x[0], name) for x, name in ranked if x is not None and np.isfinite(x[0]))
        found += [name for _, name in ranked[:BEST] if name not in found]
    return found


# ---- the report ----


def report(done, s, page):
    rows = measured_all(done, s)
    if not rows:
        page.paragraph("(No try is finished.)")
        return
    chosen = chosen_of(rows)
    winners = {n: wins(rows[n]["test"]) for n in chosen if wins(rows[n]["test"])}
    conclude(chosen, winners, rows, s, page)
    confirmed(chosen, rows, done, s, page)
    everything(rows, chosen, page)
    page.figure(
        f"{s.name}-search",
        f"{s.name}: every try on the half for choosing, against FreqKV; filled: chosen; dotted:"
        " local; left and below is better",
        lambda path: figures.search(path, rows, chosen),
    )
    page.keep(search={"tries": rows, "chosen": chosen, "winners": winners})


def conclude(chosen, winners, rows, s, page):
    count = s.documents // 2
    few = ", fewer than the 20 on which an interval should rest" if count < 20 else ""
    if winners:
        said = "; ".join(f"{n} ({rows[n]['idea']}), on {m}" for n, m in winners.items())
        text = f"Better than FreqKV and local, and no worse on the other measure: {said}."
    else:
        text = (
            "No try is better than both FreqKV and local on one measure without losing on the"
            " other: that is the finding."
        )
    wanted = [("choose", t.policy.name) for t in tries(s)] + [("test", n) for n in chosen]
    both = [(half, n, m) for half, n in wanted for m in ("perplexity", "recall")]
    whole = sum(n in rows and None not in rows[n][half][m].values() for half, n, m in both)
    if whole < len(both):
        text = f"So far ({whole} of {len(both)} results are there): {text}"
    missing = list(IMPOSSIBLE)
    if "needle-operators" not in s.features:
        missing.append("recall under matrices of one's own (needle takes no operator file)")
    if "mixed" not in s.features:
        missing.append("heads under policies of their own (these tools have no policy mixed)")
    page.paragraph(
        f"{text} Tried: {len(rows)}; chosen on {s.documents - count} passages, by either measure:"
        f" {len(chosen)}; judged on {count} passages of other books{few}."
    )
    page.paragraph(f"Not possible with these tools: {'; '.join(missing)}.")


def confirmed(chosen, rows, done, s, page):
    table = []
    for name in chosen:
        for measure in ("perplexity", "recall"):
            found = rows[name]["test"][measure]
            words = [verdict(x) if x else "-" for x in found.values()]
            row = [short(name), measure, milli(found["freqkv"]), milli(found["local"])]
            table.append([*row, " / ".join(words)])
    title = (
        "Chosen on one half, here on the other: loss less that of FreqKV and of local,"
        " thousandths of a nat; both at gamma 0.5, or for tries of equal peak only at their best"
        f" ratio on the first half; intervals of recall rest on {s.repeats} prompts, each at"
        " several depths"
    )
    head = ["try", "measure", "less freqkv", "less local", "verdict"]
    by_name = {t.policy.name: t.policy for t in tries(s)}
    lines = [done.line(run_of(s, by_name[n], "test")) for n in chosen]
    lines += [done.line(asked(s, "recall", by_name[n], "test")) for n in chosen[:1]]
    page.table(title, head, table, lines)


def short(name):
    for long, brief in (("truncation", "dct"), ("pooling", "mean"), ("recent", "r")):
        name = name.replace(long, brief)
    return name


def everything(rows, chosen, page):
    table = []
    for name, r in rows.items():
        cells = [short(name) + (" *" if name in chosen else "")]
        for measure in ("perplexity", "recall"):
            cells += [small(r["choose"][measure][base]) for base in ("freqkv", "local")]
        cells.append("" if r["mean"] else "peak only")
        table.append(cells)
    title = (
        "All tries on the half for choosing: perplexity's loss and recall's, less those of FreqKV"
        " and of local (thousandths, +- half an interval); *: chosen; dct, mean: how a stretch is"
        " compressed; r: latest slots that stay"
    )
    head = ["try", "less freqkv", "less local", "recall, freqkv", "recall, local", "equal"]
    page.table(title, head, table)


def small(found):
    if found is None or not np.isfinite(found[0]):
        return "-"
    return f"{1000 * found[0]:+.1f} +- {500 * (found[2] - found[1]):.1f}"
