"""Question 2: FreqKV against every policy at equal memory, over gamma; why gamma hardly counts."""

from dataclasses import dataclass

import numpy as np
from freqkv_reading import read_table

from . import figures
from .intervals import Run, interval, less, verdict
from .page import milli, plain, rounded
from .setting import DEPTHS, GAMMAS, HALVES, PASSAGE
from .steps import Step

TITLE = "2. FreqKV against every policy at equal memory"
SELECTING = ("snapkv", "pyramidkv", "h2o", "keydiff", "knorm")
OPERATORS = ("meanpool", "decimate", "haar", "random")


@dataclass(frozen=True)
class Policy:
    """A policy with its options: what ppl, needle and recall take."""

    name: str  # of files: freqkv-0.5
    policy: str
    options: tuple = ()
    only_ppl: tuple = ()  # options of ppl alone: prefill blocks
    memory: str = "N"  # its peak: N, or what it is instead

    def asked(self, features):
        """Can needle ask it? Selecting policies act at the end of a prefill block."""
        return not self.only_ppl or "needle-selecting" in features


def ratio(policy, gamma, s, *options, name=None, window=None):
    options = ("--window", window or s.window, "--gamma", gamma, *options)
    return Policy(f"{name or policy}-{gamma}", policy, options)


def selecting(policy, gamma, s, window=None):
    """Slots that are kept and one prefill block are N together."""
    kept = s.kept(gamma, window)
    block = (window or s.window) - kept
    blocks = ("--protocol", f"blocks:{block}")
    return Policy(f"{policy}-{gamma}", policy, ("--budget", kept), blocks)


def at_ratio(s, gamma):
    """The policies that have a ratio."""
    linear = (
        ratio("linear", gamma, s, "--operator", name, name=f"linear-{name}") for name in OPERATORS
    )
    return [
        *(ratio(policy, gamma, s) for policy in ("freqkv", "local")),
        *linear,
        *(selecting(policy, gamma, s) for policy in SELECTING),
    ]


def without_ratio(s):
    found = [
        Policy("streaming", "streaming", ("--window", s.window)),
        Policy("lm-infinite", "lm-infinite", ("--window", s.window - 10)),
    ]
    mean = (s.window + s.kept("0.5")) // 2
    options = ("--window", mean)
    found.append(Policy("streaming-mean", "streaming", options, memory="equal mean"))
    chunk = max(1, s.window // 8)
    options = ("--window", s.window, "--chunk", chunk)
    found.append(Policy("longheads", "longheads", options, memory="all tokens"))
    if "cache-quant" in s.features:
        for bits in ("q8", "q4"):
            options = ("--cache-quant", bits)
            found.append(Policy(f"full-{bits}", "full", options, memory="all, rounded"))
            options = ("--window", s.window, "--gamma", "0.5", *options)
            found.append(Policy(f"freqkv-0.5-{bits}", "freqkv", options, memory="N, rounded"))
    return found


def ppl(s, policy, baseline=False, folder="runs", tokens=None, window=None, halves=HALVES):
    """A run. Its baseline is the run of full attention in the folder, which keeps what KL needs; of
    prefill blocks, full attention in the same blocks, computed beside.
    """
    tokens, window = tokens or s.tokens, window or s.window
    out = f"{folder}/{policy.name}.h5"
    beside = bool(baseline and policy.only_ppl)
    arguments = ["ppl", "--model", "$MODEL", "--text", *(f"texts/{half}" for half in halves)]
    arguments += ["--tokens", tokens, "--score-from", window, "--policy", policy.policy]
    arguments += [*policy.options, *policy.only_ppl, "--out", out]
    if baseline:
        arguments += ["--baseline", "full" if beside else f"{folder}/{FULL.name}.h5"]
    arguments += ["--final-states"] if policy == FULL else []
    fed = s.documents * tokens * len(halves) // len(HALVES)
    outputs = (out,)
    return Step(out[:-3], "replay", tuple(arguments), outputs, fed, policy.policy, fed * beside)


def asked(s, task, policy, half, depths=None, length=None, folder=None):
    """A step of needle: `task` over the texts of one half."""
    depths, length = depths or DEPTHS[half], length or 2 * s.window
    out = f"{folder or task + '/' + half}/{policy.name}.csv"
    arguments = ["needle", "--task", task, "--model", "$MODEL", "--text", f"texts/{half}"]
    arguments += ["--lengths", length, "--depths", depths, "--repeats", s.repeats]
    arguments += ["--passage", PASSAGE] if task == "recall" else []
    arguments += ["--policy", policy.policy, *policy.options, "--out", out]
    count = len(depths.split(",")) * s.repeats
    return Step(out[:-4], "replay", tuple(arguments), (out,), count * length, policy.policy)


def run_of(s, policy, gamma=None):
    """A policy's run, at a ratio if it has one."""
    both = gamma in ("0.5", None) or policy.policy in ("freqkv", "local")
    return ppl(s, policy, baseline=both)


def wide_run(s, policy):
    """The same with the second window."""
    return ppl(s, policy, False, "wide", 4 * s.wide, s.wide)


FULL = Policy("full", "full", memory="all tokens")


def tasks_of(s):
    """Policies that are asked for what they hold: gamma 0.5 and those without a ratio."""
    return [FULL, *(p for p in (*at_ratio(s, "0.5"), *without_ratio(s)) if p.asked(s.features))]


def wide_policies(s):
    """With a second window."""
    return [
        *(ratio(p, "0.5", s, window=s.wide) for p in ("freqkv", "local")),
        selecting("snapkv", "0.5", s, s.wide),
        Policy("streaming", "streaming", ("--window", s.wide)),
    ]


def steps(s):
    found = [ppl(s, FULL)]
    for gamma in ("0.5", "0.25", "0.75"):
        found += [run_of(s, policy, gamma) for policy in at_ratio(s, gamma)]
    found += [run_of(s, policy) for policy in without_ratio(s)]
    found += [asked(s, task, p, "test") for task in ("recall", "needle") for p in tasks_of(s)]
    compared = [f"runs/{p.name}.h5" for p in (*at_ratio(s, "0.5"), *without_ratio(s))]
    arguments = ("compare", *compared, "--out", "compare")
    found.append(Step("compare", "analyze", arguments, ("compare",)))
    if s.wide:
        found += [wide_run(s, policy) for policy in (FULL, *wide_policies(s))]
    return found


# ---- reading ----


def load(done, step):
    """The run of a ppl step, or None."""
    return Run(done.at(step.outputs[0])) if done.finished(step) else None


def losses(done, step):
    """{(length, depth, repeat): loss in nats per token} of recall or needle, or None."""
    if not done.finished(step):
        return None
    rows = read_table(done.at(step.outputs[0]))
    loss = rows["second_nll"] if "second_nll" in rows else -rows["logprob_per_token"]
    return dict(zip(zip(rows["length"], rows["depth"], rows["repeat"]), loss))


def task_less(a, b):
    """(mean, low, high) of losses a less b, over repeats."""
    if not a or not b or a.keys() != b.keys():
        return None
    repeats = sorted({k[2] for k in a})
    return interval([[a[k] - b[k] for k in a if k[2] == r] for r in repeats])


# ---- the report ----


def report(done, s, page):
    full = load(done, ppl(s, FULL))
    if full is None:
        page.paragraph("(The run with full attention is not finished.)")
        return
    everything = all_rows(done, s, full)
    conclusion(everything, s, page)
    at_half(done, s, everything, page)
    over_gamma(everything, page)
    asked_table(done, s, page)
    if s.wide:
        wide_table(done, s, page)
    gamma_table(done, s, page)
    page.figure(
        f"{s.name}-rivals",
        f"{s.name}: damage of every policy at gamma 0.5 and equal peak, and of those over gamma",
        lambda path: figures.rivals(path, everything),
    )
    page.keep(rivals=everything)


def all_rows(done, s, full):
    """{policy's name: its numbers}."""
    found = {}
    reference = {g: load(done, ppl(s, ratio("freqkv", g, s), True)) for g in GAMMAS}
    for gamma in (*GAMMAS, None):
        for policy in at_ratio(s, gamma) if gamma else without_ratio(s):
            step = run_of(s, policy, gamma)
            run, freqkv = load(done, step), reference[gamma or "0.5"]
            if run is None:
                continue
            result = done.result(step)
            found[policy.name] = {
                "policy": policy.policy,
                "label": policy.name.rsplit("-", 1)[0] if gamma else policy.name,
                "gamma": gamma,
                "memory": policy.memory,
                "slots": result["cache_slots_mean"],
                "perplexity": result["perplexity"],
                "damage": less(run, full),
                "less_freqkv": less(run, freqkv) if freqkv else None,
                "kl": interval(run["kl"]) if "kl" in run else None,
            }
    return found


def half_of(rows):
    """Those at gamma 0.5 and without a ratio."""
    return [r for r in rows.values() if r["gamma"] in ("0.5", None)]


def conclusion(rows, s, page):
    """Of the policies with peak N at gamma 0.5, who is better and who worse than FreqKV."""
    peak = [r for r in half_of(rows) if r["memory"] == "N"]
    compared = [r for r in peak if r["policy"] != "freqkv"]
    said = {"better": [], "undecided": [], "worse": []}
    for r in compared:
        if r["less_freqkv"]:
            said[verdict(r["less_freqkv"])].append(r["label"])
    parts = [f"{word}: {', '.join(names) or 'none'}" for word, names in said.items()]
    own = rows.get("freqkv-0.5")
    if not own:
        page.paragraph("(FreqKV's run at gamma 0.5 is not finished.)")
        return
    units = f", {s.documents} documents" + (
        ", fewer than the 20 on which an interval should rest" if s.documents < 20 else ""
    )
    page.paragraph(
        f"At gamma 0.5 and a peak of N = {s.window} slots FreqKV costs"
        f" {milli(own['damage'])} thousandths of a nat per token above full attention"
        f" (95% intervals{units}). Of {len(compared)} rivals with the same peak, by the paired"
        f" difference of loss to FreqKV, {'; '.join(parts)}."
    )


def at_half(done, s, rows, page):
    table, lines = [], []
    for r in sorted(half_of(rows), key=lambda r: r["damage"][0]):
        difference = "" if r["label"] == "freqkv" else milli(r["less_freqkv"])
        kl = "-" if r["kl"] is None else f"{1000 * r['kl'][0]:.1f}"
        cells = [r["label"], r["memory"], f"{r['slots']:.0f}", milli(r["damage"]), difference, kl]
        table.append(cells)
    for policy in (ratio("freqkv", "0.5", s), selecting("snapkv", "0.5", s)):
        lines.append(done.line(ppl(s, policy, baseline=True)))
    lines.append("# the others alike: --policy with the options in steps/runs/NAME.json")
    title = (
        "Gamma 0.5, thousandths of a nat per token; peak: slots held at most; slots: mean that a"
        " query sees. Selecting policies keep as many slots as FreqKV after every block that fills"
        " N; longheads holds all tokens"
    )
    head = ["policy", "peak", "slots", "above full", "less freqkv", "KL"]
    page.table(title, head, table, lines)


def over_gamma(rows, page):
    labels = dict.fromkeys(r["label"] for r in rows.values() if r["gamma"])
    table = []
    for label in labels:
        found = {r["gamma"]: r for r in rows.values() if r["label"] == label and r["gamma"]}
        table.append([label, *(milli(found[g]["damage"]) if g in found else "-" for g in GAMMAS)])
    head = ["policy", *(f"gamma {g}" for g in GAMMAS)]
    page.table("Over gamma: above full attention, thousandths of a nat per token", head, table)


def asked_table(done, s, page):
    """Recall and needle: what is still held of a text that was left behind."""
    table, numbers = [], {}
    own = {
        t: losses(done, asked(s, t, ratio("freqkv", "0.5", s), "test"))
        for t in ("recall", "needle")
    }
    for policy in tasks_of(s):
        row = [policy.name]
        for task in ("recall", "needle"):
            step = asked(s, task, policy, "test")
            found = losses(done, step)
            mean = np.mean(list(found.values())) if found else None
            difference = task_less(found, own[task])
            row += [rounded(mean), plain(difference) if policy.name != "freqkv-0.5" else ""]
            numbers[f"{task}/{policy.name}"] = {"loss": mean, "less_freqkv": difference}
        exact = done.result(asked(s, "needle", policy, "test"))
        row.append(rounded(exact["exact"], 2) if exact else "-")
        table.append(row)
    title = (
        f"What is asked {2 * s.window} tokens into a text, at depths 0.05 to 0.95,"
        f" {s.repeats} prompts each: loss of a passage that returns (recall) and of a pass"
        " key (needle), nats per token; less: below zero is better than FreqKV."
        + (
            " Selecting policies hold the whole prompt before they cut it, so their peak is not N"
            if "needle-selecting" in s.features
            else " Selecting policies are not asked: these tools end no block in a needle's prompt"
        )
    )
    head = ["policy", "recall", "less freqkv", "needle", "less freqkv", "exact"]
    lines = [
        done.line(asked(s, t, ratio("freqkv", "0.5", s), "test")) for t in ("recall", "needle")
    ]
    page.table(title, head, table, lines)
    page.keep(asked=numbers)


def wide_table(done, s, page):
    freqkv = wide_run(s, wide_policies(s)[0])
    full, own, table, numbers = load(done, wide_run(s, FULL)), load(done, freqkv), [], {}
    for policy in wide_policies(s) if full else ():
        run = load(done, wide_run(s, policy))
        if run:
            difference = less(run, own) if own and policy.policy != "freqkv" else None
            numbers[policy.name] = {"damage": less(run, full), "less_freqkv": difference}
            word = verdict(difference) if difference else ""
            table.append([policy.name, milli(less(run, full)), milli(difference), word])
    title = f"Window {s.wide}, {4 * s.wide} tokens: thousandths of a nat per token"
    head = ["policy", "above full", "less freqkv", "than freqkv"]
    page.table(title, head, table, [done.line(freqkv)])
    page.keep(wide=numbers)


def gamma_table(done, s, page):
    """Why damage hardly depends on gamma: what one compression costs, how many there are."""
    table, numbers = [], {}
    for gamma in GAMMAS:
        step = ppl(s, ratio("freqkv", gamma, s), True)
        run = load(done, step)
        if run is None:
            continue
        result, parts = done.result(step), []
        for later in (False, True):
            pairs = zip(run["nll"], run["baseline_nll"], run["round"])
            parts.append(interval([(a - b)[(r > 1) == later] for a, b, r in pairs]))
        damage = less_baseline(run)
        fresh = np.mean(np.concatenate(run["since_compression"]))
        old = result["cache_slots_mean"] - fresh
        numbers[gamma] = {"first": parts[0], "later": parts[1], "all": damage, "old_slots": old}
        row = [gamma, f"{result['compressions']:.0f}", f"{old:.0f}", f"{fresh:.0f}"]
        table.append([*row, *map(milli, (parts[0], parts[1], damage))])
    head = ["gamma", "rounds", "old", "fresh", "after round 1", "later", "all"]
    title = (
        "FreqKV: rounds of compression, mean slots that are compressed (old) and not (fresh), and"
        " damage after the first round, after later ones, and over all targets, in thousandths"
    )
    page.table(title, head, table, [done.line(ppl(s, ratio("freqkv", "0.5", s), True))])
    page.keep(gamma=numbers)
    if len(numbers) == len(GAMMAS):
        low, high = numbers["0.25"], numbers["0.75"]
        apart = low["all"][1] > high["all"][2] or high["all"][1] > low["all"][2]
        once = low["first"][1] > high["first"][2]
        page.paragraph(
            f"Damage at 0.25 and 0.75 {'differs' if apart else 'cannot be told apart'} over all"
            f" targets; after the first round a ratio of 0.25"
            f" {'costs more' if once else 'does not clearly cost more'} than one of 0.75. A higher"
            f" ratio leaves fewer fresh slots: it is compressed {table[2][1]} times instead of"
            f" {table[0][1]}, and what is old has been through more rounds."
        )


def less_baseline(run):
    return interval([a - b for a, b in zip(run["nll"], run["baseline_nll"])])
