#!/usr/bin/env python3
"""Makes every number of README.md's study, from the tools.

    study.py [--work build/study] [--shared ../shared] [--only litbank-1m|stories260k] [--threads 2]
             [--quick]

SHARED holds texts/held-out/ (four Project Gutenberg novels, BOOKS below) and models/stories260k/ (a
Hugging Face folder).

Texts: passages of those books, evenly spaced, half of them for choosing ratios, half (in between)
for every other number. One n per model: spectra, ratios, runs and probes all have segments of n =
window - 4 tokens. Every call of a tool leaves its JSON in WORK, so that a second start goes on
where the first one stopped; after a change of settings or tools, start in another WORK. Prints the
tables in Markdown. About half an hour of one busy core; --quick, for trying it, takes a quarter of
the passages.
"""

import argparse
import json
import os
import shlex
import sys

import freqkv
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
BOOKS = (
    "120_treasure_island.txt",
    "158_emma.txt",
    "2489_moby_dick.txt",
    "766_david_copperfield.txt",
)
PASSAGES = 12  # of each book, for choosing, and as many for testing
GAMMAS = ("0.25", "0.5", "0.75")
RESAMPLES = 2000
# characters: enough for one context of tokens, too few for two
MODELS = {
    "litbank-1m": {"context": 1024, "characters": 4200},
    "stories260k": {"context": 512, "characters": 1300},
}


class Study:
    def __init__(self, name, path, args):
        self.name, self.path, self.threads = name, path, args.threads
        self.context = MODELS[name]["context"]
        self.window, self.score = self.context // 2, self.context // 4
        self.n = self.window - 4
        self.work = os.path.join(args.work, name + ("-quick" if args.quick else ""))
        self.passages = PASSAGES // 4 if args.quick else PASSAGES
        self.cut(os.path.join(args.shared, "texts", "held-out"), MODELS[name]["characters"])

    def at(self, *names):
        return os.path.join(self.work, *names)

    def cut(self, books, characters):
        """texts/choose and texts/test: a passage starts at the first paragraph after each of the
        evenly spaced positions in a book.
        """
        for folder in ("texts/choose", "texts/test", "runs", "probes"):
            os.makedirs(self.at(folder), exist_ok=True)
        for book in BOOKS:
            with open(os.path.join(books, book), encoding="utf-8") as f:
                text = f.read()
            for i in range(2 * self.passages):
                start = text.index("\n", int((i + 0.5) * len(text) / (2 * self.passages))) + 1
                with open(
                    self.at("texts", ("choose", "test")[i % 2], f"{book[:-4]}_{i:02d}.txt"),
                    "w",
                    encoding="utf-8",
                ) as f:
                    f.write(text[start : start + characters])

    def tool(self, step, name, *arguments):
        """The tool's JSON, from WORK if it is there."""
        saved = self.at(step + ".json")
        command = [*map(str, arguments), "--threads", str(self.threads)]
        if not os.path.exists(saved):
            print(
                f"{self.name}: {step}: freqkv-{name} {shlex.join(command)}",
                file=sys.stderr,
                flush=True,
            )
            found = freqkv.run(name, *command)
            os.makedirs(os.path.dirname(saved), exist_ok=True)
            with open(saved + ".new", "w") as f:
                json.dump(found, f)
            os.rename(saved + ".new", saved)
        with open(saved) as f:
            return json.load(f)

    def capture(self, kind):
        folder = self.at("capture", kind)
        self.tool(
            f"capture-{kind}",
            "capture",
            "--model",
            self.path,
            "--text",
            self.at("texts", kind),
            "--states",
            "key,value,query",
            "--out",
            folder,
            "--resume",
        )
        return folder

    def analyze(self, step, command, capture, *options):
        return self.tool(
            step, "analyze", command, capture, "--length", self.n, "--out", self.at(step), *options
        )

    def ppl(self, step, *options, out=None):
        """(JSON, path of the run) of the test passages: one pass each over the trained context,
        targets after the first compression.
        """
        out = out or self.at("runs", step + ".h5")
        found = self.tool(
            f"ppl/{step}",
            "replay",
            "ppl",
            "--model",
            self.path,
            "--text",
            self.at("texts", "test"),
            "--tokens",
            self.context,
            "--window",
            self.window,
            "--score-from",
            self.window,
            "--baseline",
            "full",
            "--out",
            out,
            *options,
        )
        return found, out

    def probe(self, step, *options):
        out = self.at("probes", step + ".h5")
        return (
            self.tool(
                f"probe/{step}",
                "replay",
                "probe",
                "--model",
                self.path,
                "--text",
                self.at("texts", "test"),
                "--prefix",
                self.window,
                "--score",
                self.score,
                "--out",
                out,
                *options,
            ),
            out,
        )


# ---- statistics ----


def interval(values, weights=None):
    """(mean, low, high): the weighted mean over documents and its 95% bootstrap interval over them.
    values [documents]
    """
    values, weights = (
        np.asarray(values, float),
        np.ones(len(values)) if weights is None else np.asarray(weights, float),
    )
    pick = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    means = (values * weights)[pick].sum(1) / weights[pick].sum(1)
    return (np.average(values, weights=weights), *np.quantile(means, (0.025, 0.975)))


def paired(run, against=None):
    """nll of `run` less nll of `against` (default: its full attention), nats per token; both are
    run files over the same texts
    """
    a = freqkv.load_run(run)
    b = freqkv.load_run(against) if against else a
    document, difference = (
        np.asarray(a["document"]),
        np.asarray(a["nll"], float) - np.asarray(b["nll" if against else "baseline_nll"], float),
    )
    assert np.array_equal(document, b["document"]) and np.array_equal(a["token"], b["token"])
    counts = np.bincount(document)
    return interval(np.bincount(document, difference) / counts, counts)


def with_interval(x, digits=4, sign=True):
    form = f"{{:{'+' if sign else ''}.{digits}f}}"
    return f"{form.format(x[0])} [{form.format(x[1])}, {form.format(x[2])}]"


def effect(change, measure="delta_nll"):
    return change[measure], change[measure + "_low"], change[measure + "_high"]


def table(title, head, rows):
    print(f"\n{title}\n\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


# ---- the questions ----


def low_frequencies(study):
    """Per passage, so that intervals are over passages; shares are means over layers."""
    folder = study.capture("test")
    _, recordings = freqkv.load_capture(folder)
    shares = {}  # state -> measure -> document -> [layers] per recording
    for r in recordings:
        if len(r.tokens) - 4 < study.n:
            continue
        number = os.path.basename(r.path)[:-3]
        found = study.analyze(f"spectra/{number}", "spectrum", r.path)
        for state in found["states"][:2]:  # keys and values
            for measure in (
                "dc_share",
                "low_eighth",
                "null_low_eighth",
                "low_quarter",
                "null_low_quarter",
            ):
                by_document = shares.setdefault(state["state"], {}).setdefault(measure, {})
                by_document.setdefault(r.attrs["name"], []).append(
                    [layer[measure] for layer in state["layers"]]
                )
    rows = []
    for state, measures in shares.items():
        mean = {
            m: np.array([np.mean(x, 0) for x in by_document.values()])
            for m, by_document in measures.items()
        }  # [documents, layers]
        ratio = mean["low_eighth"].mean(1) / mean["null_low_eighth"].mean(1)
        by_layer = mean["low_quarter"].mean(0)
        shares_of = (
            interval(mean[m].mean(1)) for m in ("dc_share", "low_eighth", "null_low_eighth")
        )
        rows.append(
            [
                state,
                *(with_interval(x, 3, False) for x in shares_of),
                with_interval(interval(ratio), 2, False),
                ", ".join(f"{x:.2f}" for x in by_layer),
            ]
        )
    table(
        f"{study.name}: where the energy is, segments of {study.n} tokens; shares of the lowest"
        " eighth and quarter are without DC",
        [
            "state",
            "DC / all",
            "lowest eighth",
            "permuted",
            "ratio",
            "lowest quarter by layer (permuted: 0.25)",
        ],
        rows,
    )
    rows = []
    for tau in ("0.5", "0.9"):
        found = [
            study.analyze(
                f"energy-{tau}-{'dc' if dc else 'no-dc'}", "gamma", folder, "--energy", tau, *dc
            )
            for dc in (["--dc"], [])
        ]
        rows.append([tau, *(f"{x['mean_gamma']:.3f}" for x in found)])
    table(
        f"{study.name}: mean ratio at which keys and values both keep a share of their energy",
        ["share", "DC counted", "without DC"],
        rows,
    )


def per_head(study):
    rows, chosen = [], study.capture("choose")
    for gamma, objective in [(g, "relative") for g in GAMMAS] + [
        ("0.5", "absolute"),
        ("0.5", "attention"),
    ]:
        step = f"{objective}-{gamma}"
        found = study.analyze(
            f"tables/{step}",
            "gamma",
            chosen,
            "--budget",
            gamma,
            "--objective",
            objective,
            "--window",
            study.window,
        )
        _, uniform = study.ppl(f"freqkv-{gamma}", "--policy", "freqkv", "--gamma", gamma)
        _, run = study.ppl(
            f"table-{step}",
            "--policy",
            "freqkv",
            "--gamma",
            "@" + study.at("tables", step, "gamma.json"),
        )
        gains = [found["losses"].get(name) for name in ("objective", "objective_projected")]
        rows.append(
            [
                objective,
                gamma,
                f"{found['least']:.2f} to {found['largest']:.2f}",
                *(f"{100 * (x['table'] / x['uniform'] - 1):+.1f}%" if x else "" for x in gains),
                with_interval(paired(run)),
                with_interval(paired(run, uniform)),
            ]
        )
    table(
        f"{study.name}: a ratio per head, chosen on other passages, against one ratio at equal mean"
        " L (nats per token)",
        [
            "objective",
            "mean ratio",
            "ratios",
            "its objective",
            "projected",
            "damage",
            "damage less that of uniform",
        ],
        rows,
    )


def policies(study):
    rows = []
    for gamma in GAMMAS:
        plain, plain_run = study.ppl(f"freqkv-{gamma}", "--policy", "freqkv", "--gamma", gamma)
        _, bias = study.ppl(f"bias-{gamma}", "--policy", "freqkv", "--gamma", gamma, "--mass-bias")
        _, local = study.ppl(f"local-{gamma}", "--policy", "local", "--gamma", gamma)
        compared = ((plain_run,), (bias,), (bias, plain_run), (local,))
        rows.append(
            [
                gamma,
                f"{plain['compressions']:.0f}",
                *(with_interval(paired(*runs)) for runs in compared),
            ]
        )
    full = plain["baseline"]["mean_nll"]
    table(
        f"{study.name}: nats per token above full attention ({full:.4f} over"
        f" {plain['tokens_scored']} targets), window {study.window}",
        ["gamma", "compressions", "freqkv", "with mass bias", "bias less plain", "local"],
        rows,
    )


def bands(study):
    removed, _ = study.probe("bands", "--bands", 8, "--states", "key,value")
    edges = [f"{k / 8:g}:{(k + 1) / 8:g}" for k in range(8)]
    noise, _ = study.probe(
        "noise", *(x for band in edges for x in ("--noise", f"{band}:0.1")), "--states", "key,value"
    )
    for state in ("key", "value"):
        without = [c for c in removed["changes"] if c["kind"] == "filter" and c["states"] == state]
        added = [None] + [
            c for c in noise["changes"] if c["kind"] == "noise" and c["states"] == state
        ]
        lost = f"lost_{state}"
        rows = [
            [
                band,
                f"{c[lost]:.3f}",
                with_interval(effect(c)),
                with_interval(per_energy(c, lost)),
                with_interval(per_energy(a, lost)) if a else "",
            ]
            for band, c, a in zip(["DC", *edges], without, added)
        ]
        table(
            f"{study.name}: bands of the {study.n} slots, {state}s (nats; energy of a head without"
            " DC = 1)",
            [
                "band",
                "energy",
                "taken out: damage",
                "taken out: KL per unit of energy",
                "noise put in: KL per unit of energy",
            ],
            rows,
        )


def per_energy(change, lost):
    return np.array(effect(change, "kl")) / change[lost]


def parts_of(change):
    """The parts of FreqKV that are on. Truncation alone is made twice: as a filter of n slots and
    as L slots.
    """
    on = [part for part in ("truncation", "squeezed", "fewer") if change[part]]
    return (" + ".join(on) or "nothing") + (
        ", L slots" if on == ["truncation"] and change["kind"] == "freqkv" else ""
    )


def decomposition(study):
    found, _ = study.probe(
        "decompose", *(x for g in GAMMAS for x in ("--decompose", g, "--local", g))
    )
    parts = {}  # name -> gamma -> change
    for option in ("decompose", "local"):
        for g in GAMMAS:
            for c in found["changes"]:
                if c["option"] == option and c["gamma"] == float(g):
                    parts.setdefault(
                        parts_of(c) if option == "decompose" else "local, for comparison", {}
                    )[g] = c
    rows = [
        [
            name,
            *(with_interval(effect(c)) for c in by_gamma.values()),
            with_interval(effect(by_gamma["0.5"], "kl"), sign=False),
        ]
        for name, by_gamma in parts.items()
    ]
    floor = found["noise_floor_nll"]
    table(
        f"{study.name}: one compression of {study.n} slots in parts, damage to the next"
        f" {study.score} tokens (nats; noise floor {floor:.0e})",
        ["parts switched on", *(f"gamma {g}" for g in GAMMAS), "KL at gamma 0.5"],
        rows,
    )


def link(study):
    sweep, _ = study.ppl(
        "sweep", "--policy", "freqkv", "--sweep", "gamma=0.1:0.9:0.1", out=study.at("runs", "sweep")
    )
    runs = [point["file"] for point in sweep["points"]]
    _, heads = study.probe("heads", "--filter", "0:0.5", "--states", "key,value", "--per-head")
    found = study.tool(
        "link",
        "analyze",
        "link",
        "--capture",
        study.capture("test"),
        "--runs",
        *runs,
        "--probes",
        heads,
        "--out",
        study.at("link"),
    )
    points = zip(found["sweep"]["points"], sweep["points"], runs)
    table(
        f"{study.name}: along the ratio",
        ["gamma", "compressions", "keys: energy lost, without DC", "values", "damage", "KL"],
        [
            [
                f"{x['gamma']:.1f}",
                f"{y['compressions']:.0f}",
                *(f"{1 - x[f'retained_{state}_no_dc']:.3f}" for state in ("key", "value")),
                with_interval(paired(run)),
                f"{y['baseline']['kl']:.4f}",
            ]
            for x, y, run in points
        ],
    )
    rows = {}
    for group in found["heads"]:
        for x in group["links"]:
            if group["depth"] == "all" and x["spearman"] and x["spearman"][0] is not None:
                rows.setdefault((group["states"], group["heads"], x["predictor"]), {})[
                    group["damage"]
                ] = x
    table(
        f"{study.name}: the upper half of the coefficients taken from one head, lost against"
        " damage: Spearman over heads",
        ["state", "heads", "predictor", "KL", "delta nll"],
        [
            [*key, *(with_interval(x[damage]["spearman"], 2) for damage in ("kl", "delta_nll"))]
            for key, x in rows.items()
        ],
    )


QUESTIONS = (low_frequencies, per_head, policies, bands, decomposition, link)


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--work", default=os.path.join(HERE, "..", "build", "study"))
    p.add_argument(
        "--shared", default=os.environ.get("FKV_SHARED", os.path.join(HERE, "..", "..", "shared"))
    )
    p.add_argument("--only", choices=MODELS)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--quick", action="store_true")
    args = p.parse_args()
    paths = {
        "litbank-1m": os.path.join(HERE, "..", "data", "litbank-1m"),
        "stories260k": os.path.join(args.shared, "models", "stories260k"),
    }
    for name in [args.only] if args.only else MODELS:
        study = Study(name, paths[name], args)
        for question in QUESTIONS:
            question(study)


if __name__ == "__main__":
    main()
