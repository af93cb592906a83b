"""The GPU benchmark: this project and PyTorch doing the same work on the same checkpoint, machine
and run, with what the machine can do at most.

    bench.py --build build/gpu --out results
    bench.py --build build/gpu --out results --models llama-2-7b --rows limits prefill

The first runs everything: 6 to 9 minutes per model on an H200 (an estimate).

Rows, in the order they run (each can be asked for alone; shares need `limits` in the same run):
    limits    copy bandwidth and the rate of a large bf16 product
    prefill   4K and 16K tokens, then decode after each
    compress  one compression, all layers and heads
    capture   what recording costs over plain prefill
    compiled  prefill's decode once more, as PyTorch compiles it, which takes it minutes
    figure    prefill and decode at 4K .. 64K, FreqKV against full cache (the paper's Figure 3)

A row is a list of jobs. Each writes its lines to OUT/bench-MODEL.jsonl as it measures, and "done"
or "failed" when it ends; a program that crashes loses the job it was at, and is started again for
the others. What is done is not done again: the same call goes on where one before was stopped
(--seconds). Tables go to OUT/bench-MODEL.md and the screen. Exit status: 3 where time ran out; else
1 where something failed or answers differ.

A model is a shape of make_checkpoint.py or a folder. A shape is written to /dev/shm where it
fits, else under --work, and removed afterwards unless --keep: 13.5 GB at a gigabyte a
second and more. PyTorch holds another copy on the host while it loads: 35 GB of host memory in all
for Llama-3-8B, and 4.3 GB of captures.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import report

HERE = pathlib.Path(__file__).resolve().parent
ROWS = ["limits", "prefill", "compress", "capture", "compiled", "figure"]
PATIENCE = 300  # seconds for one job
ROOM = 22 << 30  # bytes that the largest checkpoint and the captures of a round take


def jobs(rows, unit):
    """Groups of (side, jobs), each of which a program does at one go. `unit` is 4096: the window,
    and the lengths' unit.
    """
    if "limits" in rows:
        yield "torch", ["limits"]
    ours, torch = [], []
    if "prefill" in rows:
        ours += [f"full:{unit}:7:128", f"full:{4 * unit}:5:32"]
        torch += [f"fast:{unit}:7:128", f"fast:{4 * unit}:5:32", f"eager:{unit}:3:64"]
    if "compress" in rows:
        ours += [f"compress:{unit}:20"]
        torch += [f"compress:{unit}:10"]
    yield "ours", ours
    yield "torch", torch
    if "capture" in rows:
        yield "capture", [f"capture:{unit}"]
    if "compiled" in rows:
        yield "torch", [f"compiled:{unit}:1:128"]
    if "figure" in rows:
        # FreqKV decodes a whole cycle, half a window from one compression to the next, so that its
        # mean is that of all cache lengths.
        for k in (16, 4, 1, 8, 2):
            yield (
                "ours",
                [f"freqkv:{unit * k}:3:{unit // 2}"]
                + ([f"full:{unit * k}:2:32"] if k in (2, 8, 16) else []),
            )
        yield "torch", [f"fast:{unit * k}:2:32" for k in (16, 8, 2)]


class Lines:
    """OUT/bench-MODEL.jsonl: every line is there as soon as it is known."""

    def __init__(self, path):
        self.path = path
        self.ended = (
            {
                x["job"]
                for x in map(json.loads, path.read_text().splitlines())
                if x["row"] in ("done", "failed")
            }
            if path.exists()
            else set()
        )
        self.file = open(path, "a")

    def write(self, line):
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        if line["row"] in ("done", "failed"):
            self.ended.add(line["job"])

    def failed(self, model, job, error):
        self.write(
            dict(side="", model=model, row="failed", job=job, policy=job, tokens=0, error=error)
        )


def left(a):
    return int(a.started + a.seconds - time.monotonic())


def command_of(a, side, folder, pending):
    if side == "capture":
        return [a.build / "bench/bench_capture", folder, 2, 3, 0, a.unit, a.backend]
    if side == "ours":
        return [
            a.build / "bench/bench_gpu",
            f"--backend={a.backend}",
            f"--window={a.unit}",
            f"--block={a.block}",
            folder,
            *pending,
        ]
    return [sys.executable, HERE / "rivals.py", f"--device={a.device}", folder, *pending]


def read_output(process, side, name, job, lines):
    """A JSON object per line; bench_capture prints a table: the way, seconds, tokens per second,
    ratios. Returns how the last job ended: done, failed or None.
    """
    ending = None
    for text in process.stdout:
        if text.startswith("{"):
            line = json.loads(text)
            if line["row"] in ("done", "failed"):
                ending, line["job"] = line["row"], f"{side} {line['job']}"
            lines.write(line)
        way, _, numbers = text.partition("  ")
        if side == "capture" and way in (
            "prefill",
            "prefill + nll",
            "capture",
            "capture --spectra-only",
        ):
            seconds = float(numbers.split()[0])
            lines.write(
                dict(
                    side="ours",
                    model=name,
                    row="capture",
                    policy=way,
                    tokens=int(job.split(":")[1]),
                    seconds=seconds,
                    low=seconds,
                    high=seconds,
                )
            )
    return ending


def run(a, side, todo, folder, lines):
    """False: no time was left. A program that ends by itself before its last job has failed at the
    first that it has not done.
    """
    name = folder.resolve().name
    while pending := [job for job in todo if f"{side} {job}" not in lines.ended]:
        seconds = min(PATIENCE * len(pending), left(a))
        if seconds < 10:
            return False
        command = list(map(str, ["timeout", seconds, *command_of(a, side, folder, pending)]))
        print("$", *command[2:], file=sys.stderr, flush=True)
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            with subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"TMPDIR": str(folder.parent)},
            ) as process:
                try:
                    ending = read_output(process, side, name, pending[0], lines)
                except BaseException:
                    process.terminate()
                    raise
            errors.seek(0)
            said = errors.read().strip()
        print(said[-5000:], file=sys.stderr, flush=True)
        if process.returncode == 124 and seconds < PATIENCE * len(pending):
            return False
        if side == "capture" and process.returncode == 0:
            lines.write(dict(row="done", job=f"{side} {pending[0]}"))
        elif ending != "failed" and (
            rest := [job for job in pending if f"{side} {job}" not in lines.ended]
        ):
            why = (
                f"no end after {seconds} s"
                if process.returncode == 124
                else f"exit status {process.returncode}"
            )
            lines.failed(
                name,
                f"{side} {rest[0]}",
                f"{why}: {said.splitlines()[-1] if said else 'it said nothing'}"[:300],
            )
    return True


def make_checkpoint(a, model):
    """The checkpoint's folder, whole or not there at all."""
    memory, started = pathlib.Path("/dev/shm"), time.monotonic()
    folder = (
        (memory if memory.is_dir() and shutil.disk_usage(memory).free > ROOM else a.work)
        / "freqkv-bench"
        / model
    )
    if (folder / "config.json").exists():
        return folder
    unfinished = folder.with_suffix(".unfinished")
    subprocess.run(
        [sys.executable, HERE.parent / "make_checkpoint.py", unfinished, "--shape", model],
        check=True,
        stdout=sys.stderr,
    )
    unfinished.rename(folder)
    print(f"checkpoint written to {folder} in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return folder


def bench(a, model):
    folder, made = pathlib.Path(model), False
    if not folder.is_dir():
        folder, made = make_checkpoint(a, model), True
    try:
        name = folder.resolve().name
        lines = Lines(a.out / f"bench-{name}.jsonl")
        lines.write(
            dict(row="config", model=name, config=json.loads((folder / "config.json").read_text()))
        )
        # Every group is tried: one that needs more time than is left says so at once.
        complete = all(
            [run(a, side, todo, folder, lines) for side, todo in jobs(a.rows, a.unit) if todo]
        )
    finally:
        if made and not a.keep:
            shutil.rmtree(folder.parent)
    results = report.read([lines.path])
    text = report.report(results)
    lines.path.with_suffix(".md").write_text(text)
    print(text, flush=True)
    return 3 if not complete else 1 if results.failures or report.differences(results) else 0


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument(
        "--work",
        type=pathlib.Path,
        default=pathlib.Path("/tmp"),
        help="folder for a checkpoint of 16 GB and captures of 4 GB, where /dev/shm has none",
    )
    parser.add_argument("--keep", action="store_true", help="leave the checkpoint there")
    parser.add_argument("--models", nargs="+", default=["llama-2-7b", "llama-3-8b"])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--device", default="cuda", help="PyTorch's")
    parser.add_argument(
        "--block", type=int, default=4096, help="rows that go through a layer at once"
    )
    parser.add_argument("--seconds", type=int, default=1 << 30, help="for all of it (no limit)")
    parser.add_argument(
        "--unit",
        type=int,
        default=4096,
        help="window and unit of lengths; smaller to try the benchmark itself",
    )
    a = parser.parse_args()
    a.started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))  # so that the checkpoint is removed
    os.environ.setdefault(
        "FKV_CUDA_MODULE", str(a.build.resolve() / "bin/freqkv-cuda.so")
    )  # programs look beside themselves otherwise
    a.out.mkdir(parents=True, exist_ok=True)
    found = [bench(a, model) for model in a.models]
    sys.exit(max(found))


if __name__ == "__main__":
    main()
