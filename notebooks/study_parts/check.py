"""study.py --check: a few numbers of the study made again on the embedded model and text, and
compared with the table between the two lines <!-- check --> of README.md.
"""

import os
import tempfile

from . import operators, parts, rivals, search, spectra, texts
from .setting import Setting
from .steps import Steps

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "..", "data")
README = os.path.join(HERE, "..", "README.md")
MARK = "<!-- check -->"
SETTING = Setting("litbank-1m", 1024, 512, 256, 8, heads=12, layers=6, head_dim=32)
PER_TOKEN = 3.7


def numbers(steps, s):
    """{name: value} of the table."""
    capture = spectra.captures(s)[0]
    spectrum = [x for x in spectra.steps(s) if x.name == "spectra/spectrum"]
    half, local = rivals.ratio("freqkv", "0.5", s), rivals.ratio("local", "0.5", s)
    once = next(t for t in search.tries(s) if t.policy.name.startswith("once-half-trunc")).policy
    probe = parts.probe(s, "parts", 9, "--decompose", "0.5", "--local", "0.5")
    policies = (half, local, rivals.selecting("snapkv", "0.5", s), once)
    runs = [rivals.ppl(s, p, baseline=True) for p in policies]
    recall = [rivals.asked(s, "recall", p, "test") for p in (half, local)]
    for step in (capture, *spectrum, probe, rivals.ppl(s, rivals.FULL), *runs, *recall):
        if not steps.run(step):
            raise SystemExit(f"{step.name} failed")
    found = {}
    for state in steps.result(spectrum[0])["states"]:
        if state["state"] in ("key", "value"):
            last = state["layers"][-1]
            found[f"{state['state']}s, last layer: share of DC"] = last["dc_share"]
            found[f"{state['state']}s, last layer: lower half without DC"] = last["low_half"]
    loaded = [rivals.load(steps, r) for r in runs]
    for policy, run in zip(policies, loaded):
        found[f"damage of {policy.name}, nats / 1000"] = 1000 * rivals.less_baseline(run)[0]
    less = [rivals.losses(steps, r) for r in recall]
    found["recall, freqkv less local, nats"] = rivals.task_less(*less)[0]
    for change in steps.result(probe)["changes"]:
        if change["option"] == "decompose" and parts.parts_of(change) == "truncation, L slots":
            found["truncation alone, KL / 1000"] = 1000 * change["kl"]
    return found


def make():
    with tempfile.TemporaryDirectory() as folder:
        s = SETTING
        book = [os.path.join(DATA, "the_tide_mill.txt")]
        texts.write(folder, book, s.documents, PER_TOKEN, s.tokens, s.short)
        operators.write(os.path.join(folder, "operators"), s.n, s.kept("0.5") - 4)
        return numbers(Steps(folder, os.path.join(DATA, "litbank-1m"), threads=1), s)


def table(found):
    rows = [f"| {name} | {value:.4f} |" for name, value in found.items()]
    return "\n".join(["| number | value |", "|---|---|", *rows])


def committed(text):
    """{name: value} of the table in README.md."""
    rows = text.split(MARK)[1].strip().splitlines()[2:]
    cells = [[c.strip() for c in row.strip("|").split("|")] for row in rows]
    return {name: float(value) for name, value in cells}


def check(write):
    """0 where the numbers are those of README.md, up to the rounding of another processor."""
    found = make()
    with open(README, encoding="utf-8") as f:
        text = f.read()
    if write:
        before, _, after = text.split(MARK)
        with open(README, "w", encoding="utf-8") as f:
            f.write(f"{before}{MARK}\n{table(found)}\n{MARK}{after}")
        return 0
    wanted, wrong = committed(text), []
    for name in wanted.keys() | found.keys():
        a, b = found.get(name), wanted.get(name)
        if a is None or b is None or abs(a - b) > max(0.01 * abs(b), 0.01):
            wrong.append(f"{name}: README.md has {b}, found {a}")
    print("\n".join(wrong) or f"{len(found)} numbers of README.md made again")
    return 1 if wrong else 0
