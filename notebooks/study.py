#!/usr/bin/env python3
"""The study of README.md: what FreqKV costs a language model, and what else there is.

    study.py [--smollm2 PATH] [--hours H | --documents D] [--out build/study]
    study.py --model PATH [--texts FOLDER...] [--questions 1,2,3] [--out build/study] [--quick]
    study.py --check

Without --model: SmolLM2-135M (fetched by smollm2.py, or PATH), then the two toy models. With it,
questions 1 to 3 for that model: where the energy is (1), FreqKV against every policy at equal
memory (2), its damage in parts and what predicts it (3); 4 is iteration, 5 the search for something
better.

First a plan is printed, with an estimate for every step from the speed on this machine. A step is
one command of the tools, printed in the report beside its numbers; a finished one is not run again,
an interrupted one starts over (probes and needles go on). A step that fails is left out and said.
--report, at any time, writes the report of what is finished. In OUT: report.md, its numbers
(report.json), figures/, and a folder per model with all files. Needs numpy and h5py; pictures need
matplotlib.

Texts: folders of .txt, a book each (default: SHARED/texts, where FKV_SHARED or ../../shared is
SHARED). --check makes a few numbers again on the embedded model and compares them with README.md.
"""

import argparse
import os
import subprocess
import sys

from study_parts import check
from study_parts.page import Page, save_json
from study_parts.plan import QUESTIONS, Study

HERE = os.path.dirname(os.path.abspath(__file__))


def options():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--model")
    p.add_argument("--smollm2", help="a folder or GGUF file of SmolLM2-135M")
    p.add_argument("--texts", nargs="+")
    p.add_argument("--out", default=os.path.join(HERE, "..", "build", "study"))
    p.add_argument("--questions", help="of 1 to 5, with commas")
    p.add_argument("--documents", type=int, help="passages, an even number (default 24)")
    p.add_argument("--hours", type=float, help="as many documents as fit, per model")
    p.add_argument("--tokens", type=int, help="of a document")
    p.add_argument("--window", type=int)
    p.add_argument("--threads", type=int)
    p.add_argument("--compute", choices=("f32", "bf16"), default="f32")
    p.add_argument("--quick", action="store_true", help="4 documents and one window, to try it")
    p.add_argument("--plan", action="store_true", help="only print the plan")
    p.add_argument("--report", action="store_true", help="of the steps that are finished")
    p.add_argument("--check", action="store_true")
    p.add_argument("--write", action="store_true", help="with --check: into README.md")
    return p.parse_args()


def smollm2():
    folder = os.path.join(HERE, "..", "build", "models")
    command = [sys.executable, os.path.join(HERE, "smollm2.py"), "--folder", folder]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def models(args):
    if args.model:
        return [args.model]
    shared = os.environ.get("FKV_SHARED", os.path.join(HERE, "..", "..", "shared"))
    toys = [os.path.join(HERE, "..", "data", "litbank-1m")]
    toys.append(os.path.join(shared, "models", "stories260k"))
    return [args.smollm2 or smollm2(), *(path for path in toys if os.path.isdir(path))]


def questions(args):
    if args.questions:
        return [int(q) for q in args.questions.split(",")]
    return [1, 2, 3] if args.model else list(QUESTIONS)


def run(study, only_report):
    """Runs every step; returns the names of those that failed, or are not finished."""
    study.prepare()
    take = study.steps.finished if only_report else study.steps.run
    left = [step.name for step in study.planned(study.setting) if not take(step)]
    return left + [step.name for step in study.confirming() if not take(step)]


def write(study, page, failed):
    """The part of the report about one model."""
    s, steps = study.setting, study.planned(study.setting) + study.confirming()
    page.heading(study.name, 1)
    page.paragraph(
        f"{s.layers} layers, {s.heads} KV heads in all, trained context {s.context}; {s.documents}"
        f" passages of {s.tokens} tokens from {min(s.documents, len(study.books))} books, half of"
        f" them for choosing; window {s.window}, 4 sinks. Perplexity counts targets from"
        f" {s.window} on. Brackets: 95% bootstrap intervals over passages (of fewer than 20 also"
        " over blocks of 256 tokens), not corrected for the number of questions."
    )
    model = os.path.relpath(study.model)
    page.commands([f"MODEL=$(realpath {model})", f"cd {os.path.relpath(study.steps.folder)}"])
    if failed:
        page.paragraph(f"Not finished, and left out below: {left_out(study, failed)}.")
    for question in study.questions:
        page.heading(QUESTIONS[question].TITLE)
        QUESTIONS[question].report(study.steps, s, page)
    spent(study, steps, page)


def left_out(study, names):
    """Failed steps by name, the others counted."""
    failed = [n for n in names if os.path.exists(study.steps.at("steps", n + ".failed"))]
    counts = {}
    for name in sorted(set(names) - set(failed)):
        group = name.split("/")[0]
        counts[group] = counts.get(group, 0) + 1
    parts = [f"{count} of {group}" for group, count in counts.items()]
    return "; ".join(parts + [f"failed: {', '.join(failed)}"] * bool(failed))


def spent(study, steps, page):
    """Machine time."""
    groups = {}
    for step in steps:
        seconds = study.steps.seconds(step)
        group = groups.setdefault(step.name.split("/")[0], [0, 0.0, 0.0])
        group[0] += 1
        group[1] += seconds
        group[2] = max(group[2], seconds)
    rows = [[name, n, f"{a / 60:.1f}", f"{b / 60:.1f}"] for name, (n, a, b) in groups.items()]
    rows.append(["all", len(steps), f"{sum(g[1] for g in groups.values()) / 60:.1f}", ""])
    page.heading("Machine time")
    title = f"Minutes on {os.cpu_count()} cores of this machine ({processor()})"
    page.table(title, ["steps", "count", "minutes", "longest"], rows)
    page.keep(seconds={step.name: study.steps.seconds(step) for step in steps})


def processor():
    try:
        with open("/proc/cpuinfo") as f:
            return next(x.split(":", 1)[1].strip() for x in f if x.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown processor"


def bf16_is_close(study, page):
    """bfloat16 is taken only where it hardly changes the damage."""
    exact, coarse = study.precision()
    text = f"FreqKV's damage on a sample: {exact:.4f} nats in float32, {coarse:.4f} in bfloat16."
    if abs(exact - coarse) > 0.1 * abs(exact):
        raise SystemExit(f"{study.name}: {text} They differ by more than a tenth: use f32.")
    page.paragraph(text)


def main():
    args = options()
    if args.check:
        sys.exit(check.check(args.write))
    args.out = os.path.abspath(args.out)
    asked = questions(args)
    studies = [Study(path, args, asked) for path in models(args)]
    for study in studies:
        study.print_plan()
    if args.plan:
        return
    page = Page(args.out, os.path.join(args.out, "figures"))
    numbers, failures = {}, []
    for study in studies:
        if args.compute == "bf16":
            bf16_is_close(study, page)
        failed = run(study, args.report)
        failures += failed
        page.numbers = {}
        write(study, page, failed)
        numbers[study.name] = page.numbers
        with open(os.path.join(args.out, "report.md"), "w", encoding="utf-8") as f:
            f.write("\n".join(page.lines).strip() + "\n")
        save_json(os.path.join(args.out, "report.json"), numbers)
    print(f"\n{os.path.join(args.out, 'report.md')}")
    sys.exit(1 if failures and not args.report else 0)


if __name__ == "__main__":
    main()
