"""What a study will do: its sizes, its steps, and how long they take on this machine."""

import os
import subprocess

import freqkv
import h5py

from . import operators, parts, rivals, rounds, search, spectra, texts
from .intervals import Run, less
from .rivals import FULL, at_ratio, without_ratio
from .setting import KNOWN, Setting, general
from .steps import Step, Steps

QUESTIONS = {1: spectra, 2: rivals, 3: parts, 4: rounds, 5: search}
SAMPLE = 40000  # characters of the text that speed is measured on
ANALYSIS = 3e8  # numbers per second that an analysis transforms: on two cores of an EPYC
START = 1.0  # seconds until a tool has loaded a model
MOST = 96  # documents


class Study:
    """One model: `first` runs what a plan rests on, `steps` the study in a folder of its own."""

    def __init__(self, model, args, questions):
        self.model, self.args, self.questions = model, args, questions
        self.name = os.path.splitext(os.path.basename(os.path.abspath(model)))[0]
        if os.path.isdir(model):
            self.name = os.path.basename(os.path.abspath(model))
        self.books = texts.books_of(args.texts or default_texts(self.name))
        self.first = self.runner(os.path.join(args.out, self.name, "first"))
        self.per_token, self.shape = self.measure_texts(), self.measure_shape()
        self.features = features() | self.trials()
        self.speeds = self.measure_speeds()
        s = self.setting = self.setting_of(self.documents())
        folder = f"{s.documents}x{s.tokens}-window{s.window}"
        self.steps = self.runner(os.path.join(args.out, self.name, folder))

    def runner(self, folder):
        os.makedirs(folder, exist_ok=True)
        return Steps(folder, self.model, self.args.threads, self.args.compute)

    def must(self, step):
        if not self.first.run(step):
            raise SystemExit(f"{self.name}: {step.name} failed")
        return self.first.result(step)

    # ---- what a plan rests on ----

    def measure_texts(self):
        """Characters per token, over the middle of some books."""
        path, sample = self.first.at("sample.txt"), ""
        for book in self.books[:4]:
            text = texts.read(book)
            sample += text[len(text) // 2 :][: SAMPLE // 4]
        with open(path, "w", encoding="utf-8") as f:
            f.write(sample)
        step = Step("tokens", "replay", ("tokens", "--model", "$MODEL", "--text", "sample.txt"))
        return len(sample) / len(self.must(step)["documents"][0]["tokens"])

    def measure_shape(self):
        arguments = ("--model", "$MODEL", "--text", "sample.txt", "--max-tokens", 64)
        arguments += ("--max-documents", 1, "--layers", 0, "--out", "shape")
        layers = ("--model", "$MODEL", "--text", "sample.txt", "--dry-run")
        plan = self.must(Step("needs", "capture", layers + ("--out", "never")))
        self.must(Step("shape", "capture", arguments, ("shape",)))
        with h5py.File(self.first.at("shape", "capture.h5")) as f:
            attributes = {k: int(f.attrs[k]) for k in ("n_layers", "n_kv_heads", "head_dim")}
        return attributes | {"context": plan["trained_context"]}

    def measure_speeds(self):
        """{policy: tokens per second}, over one document. It is also the first trial of each."""
        s, found = self.setting_of(2), {}
        for policy in (FULL, *at_ratio(s, "0.5"), *without_ratio(s)):
            if policy.policy in found or (2 not in self.questions and policy is not FULL):
                continue
            arguments = ["ppl", "--model", "$MODEL", "--text", "sample.txt", "--tokens", s.tokens]
            arguments += ["--policy", policy.policy, *policy.options, *policy.only_ppl]
            step = Step(f"speed/{policy.policy}", "replay", tuple(arguments))
            if self.first.run(step):
                rate = self.first.result(step)["prefill_tokens_per_s"]
                seconds = max(0.05, self.first.seconds(step))
                found[policy.policy] = rate or s.tokens / seconds
        return found

    def trials(self):
        """What needle takes: {"needle-operators"}, a matrix of one's own; {"needle-selecting"},
        policies that select at the end of a prefill block.
        """
        operators.save(self.first.at("mean.h5"), {"operator": operators.mean_apart(60, 30)})
        common = ["--model", "$MODEL", "--text", "sample.txt", "--lengths", 128]
        linear = ["--task", "recall", "--passage", 16, "--policy", "linear", "--window", 64]
        trials = {
            "needle-operators": [*linear, "--operator", "mean.h5"],
            "needle-selecting": ["--depths", 0.5, "--policy", "snapkv", "--budget", 64],
        }
        found = set()
        for name, options in trials.items():
            arguments = ("needle", *common, *options, "--out", f"{name}.csv")
            if self.first.run(Step(name, "replay", arguments, (f"{name}.csv",))):
                found.add(name)
        return found

    def precision(self):
        """What bfloat16 changes in FreqKV's damage on the sample: (float32, bfloat16), nats."""
        s, damage = self.setting_of(2), []
        for compute in ("f32", "bf16"):
            out = f"precision-{compute}.h5"
            arguments = ("ppl", "--model", "$MODEL", "--text", "sample.txt", "--tokens", s.tokens)
            arguments += ("--window", s.window, "--score-from", s.window, "--policy", "freqkv")
            arguments += ("--baseline", "full", "--compute", compute, "--out", out)
            self.must(Step(f"precision-{compute}", "replay", arguments, (out,)))
            run = Run(self.first.at(out))
            damage.append(sum(a.sum() - b.sum() for a, b in zip(run["nll"], run["baseline_nll"])))
        assert less(run, run)[0] == 0
        count = sum(len(x) for x in run["nll"])
        return damage[0] / count, damage[1] / count

    # ---- sizes ----

    def setting_of(self, documents):
        shape, args = self.shape, self.args
        tokens, window = KNOWN.get(self.name) or general(shape["context"])
        tokens, window = args.tokens or tokens, args.window or window
        wide = 2 * window if 8 * window <= shape["context"] and not args.quick else 0
        heads = shape["n_layers"] * shape["n_kv_heads"]
        sizes = (heads, shape["n_layers"], shape["head_dim"])
        return Setting(
            self.name, shape["context"], tokens, window, documents, *sizes, self.features, wide
        )

    def documents(self):
        """As many as were asked for, or as fit into the hours."""
        if self.args.documents or not self.args.hours:
            return self.args.documents or (4 if self.args.quick else 24)
        for documents in range(MOST, 2, -2):
            if self.seconds_of(self.planned(self.setting_of(documents))) <= 3600 * self.args.hours:
                return documents
        return 2

    # ---- steps and time ----

    def planned(self, s):
        """Every step once, in the order of the questions."""
        found = {}
        for question in self.questions:
            for step in QUESTIONS[question].steps(s):
                found.setdefault(step.name, step)
        return list(found.values())

    def confirming(self):
        """What the search runs on the other half, once the steps of `planned` are finished."""
        if 5 not in self.questions:
            return []
        names = {step.name for step in self.planned(self.setting)}
        found = search.confirming(self.steps, self.setting)
        return [step for step in found if step.name not in names]

    def seconds(self, step):
        full = self.speeds["full"]
        fed = step.tokens / self.speeds.get(step.policy, full) + step.baseline / full
        return START + fed + step.numbers / ANALYSIS

    def seconds_of(self, steps):
        return sum(map(self.seconds, steps))

    def prepare(self):
        """The texts and operators that steps read."""
        s = self.setting
        longest = max(s.tokens, 4 * s.wide if s.wide and 2 in self.questions else 0)
        folder = self.steps.folder
        texts.write(folder, self.books, s.documents, self.per_token, longest, s.short)
        if 5 in self.questions:
            operators.write(os.path.join(folder, "operators"), s.n, s.kept("0.5") - 4)

    def print_plan(self):
        s, steps = self.setting, self.planned(self.setting)
        print(
            f"\n{self.name}: {s.documents} documents of {s.tokens} tokens, window {s.window},"
            f" {len(steps)} steps, {self.seconds_of(steps) / 3600:.1f} hours"
            f" ({self.speeds['full']:.0f} tokens/s under full attention)"
        )
        for step in steps:
            state = "finished" if self.steps.finished(step) else f"{self.seconds(step):.0f} s"
            print(f"  {state:>9}  {step.name}", flush=True)
        if 5 in self.questions:
            print(f"  and about {4 * search.BEST} steps that confirm what the search chose")


def features():
    """What these tools can besides."""
    done = subprocess.run([freqkv.tool("replay"), "ppl", "--help"], capture_output=True, text=True)
    options = {"mixed": "--table=", "cache-quant": "--cache-quant="}
    return {name for name, option in options.items() if option in done.stdout}


def default_texts(name):
    """Books that litbank-1m never saw; of other models also those that it was trained on."""
    here = os.path.dirname(os.path.abspath(__file__))
    shared = os.environ.get("FKV_SHARED", os.path.join(here, "..", "..", "..", "shared"))
    folders = ["held-out"] if name in KNOWN else ["held-out", "train"]
    return [os.path.join(shared, "texts", folder) for folder in folders]
