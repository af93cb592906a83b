"""The GPU benchmark: this project and PyTorch doing the same work on the same checkpoint, machine and run, beside what the machine can do at all.

    python tests/bench/gpu/bench.py --build build/gpu --out results                     everything: 6 to 9 minutes per model on an H200 (an estimate)
    python tests/bench/gpu/bench.py --build build/gpu --out results --models llama-2-7b --rows limits prefill

Rows, in the order they run (each can be asked for alone; `limits` belongs into every run that wants shares):
    limits    copy bandwidth and the rate of a large bf16 product
    prefill   4K and 16K tokens, then decode after each
    compress  one compression, all layers and heads
    figure    prefill and decode at 4K .. 64K, FreqKV against full cache (the paper's Figure 3)
    capture   what recording costs over plain prefill

A model is a shape of make_checkpoint.py (made under --work, removed afterwards unless --keep) or a folder. Lines go to OUT/bench-MODEL.jsonl, tables to OUT/bench-MODEL.md and the screen.
With --seconds, what has no time left is a failed line, and the table says what there is.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import report

HERE = pathlib.Path(__file__).resolve().parent
ROWS = ["limits", "prefill", "compress", "figure", "capture"]
PATIENCE = 300  # seconds for one program


def jobs(row, unit):
    """Ours, PyTorch's, and what PyTorch compiles for a row. `unit` is 4096: the window, and the lengths' unit."""
    if row == "limits":
        return [], ["limits"], []
    if row == "prefill":
        return ([f"full:{unit}:7:128", f"full:{4 * unit}:5:32"], [f"fast:{unit}:7:128", f"fast:{4 * unit}:5:32", f"eager:{unit}:3:64"],
                [f"compiled:{unit}:1:128"])
    if row == "compress":
        return [f"compress:{unit}:20"], [f"compress:{unit}:10"], []
    if row == "figure":
        # FreqKV decodes a whole cycle, half a window from one compression to the next, so that its mean is that of all cache lengths.
        return ([f"freqkv:{unit * k}:3:{unit // 2}" for k in (1, 2, 4, 8, 16)] + [f"full:{unit * k}:2:32" for k in (2, 8, 16)],
                [f"fast:{unit * k}:2:32" for k in (2, 8, 16)], [])
    return [], [], []


def patience(a):
    """Seconds that the next program gets; 0 where none are left."""
    return max(0, min(PATIENCE, int(a.started + a.seconds - time.monotonic())))


def run(a, command, lines):
    """Runs a program that prints a JSON object per line; a crash or a hang costs its remaining rows, not the benchmark."""
    print("$", *map(str, command), file=sys.stderr, flush=True)
    seconds = patience(a)
    if not seconds:
        return failed(lines, command[0], " ".join(map(str, command[1:])), "no time was left")
    with subprocess.Popen(["timeout", str(seconds), *map(str, command)], stdout=subprocess.PIPE, text=True) as process:
        for text in process.stdout:
            if text.startswith("{"):
                lines.write(text)
                lines.flush()
    if process.returncode:
        error = f"no end after {seconds} s" if process.returncode == 124 else f"exit status {process.returncode}"
        failed(lines, command[0], " ".join(map(str, command[1:])), error)


def failed(lines, model, policy, error):
    lines.write(json.dumps(dict(side="", model=str(model), row="failed", policy=policy, tokens=0, error=error)) + "\n")
    lines.flush()


def run_capture(a, model, name, lines):
    """bench_capture prints a table: the way, seconds, tokens per second, ratios."""
    seconds = patience(a)
    if not seconds:
        return failed(lines, name, "capture", "no time was left")
    command = ["timeout", seconds, a.build / "bench/bench_capture", model, 2, 3, 0, a.unit, a.backend]
    print("$", *map(str, command), file=sys.stderr, flush=True)
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(a.work)})
    for text in done.stdout.splitlines():
        way, _, numbers = text.partition("  ")
        if way in ("prefill", "prefill + nll", "capture", "capture --spectra-only"):
            seconds = float(numbers.split()[0])
            lines.write(json.dumps(dict(side="ours", model=name, row="capture", policy=way, tokens=a.unit, seconds=seconds, low=seconds, high=seconds)) + "\n")
    if done.returncode:
        failed(lines, name, "capture", f"exit status {done.returncode}")


def bench(a, model):
    folder = pathlib.Path(model)
    made = not folder.is_dir()
    if made:
        folder = a.work / model
        if not (folder / "config.json").exists():
            started = time.monotonic()
            subprocess.run([sys.executable, HERE.parent / "make_checkpoint.py", folder, "--shape", model], check=True)
            print(f"checkpoint written in {time.monotonic() - started:.0f} s", file=sys.stderr)
    name = folder.resolve().name
    path = a.out / f"bench-{name}.jsonl"
    with open(path, "w") as lines:
        config = json.loads((folder / "config.json").read_text())
        lines.write(json.dumps(dict(row="config", model=name, config=config)) + "\n")
        # A row's jobs of ours have a process of their own; PyTorch's share one, for its start costs more than a failure there. What it compiles, for minutes, comes last and alone.
        rows = [jobs(row, a.unit) for row in ROWS if row in a.rows]
        for ours in filter(None, (x[0] for x in rows)):
            run(a, [a.build / "bench/bench_gpu", f"--backend={a.backend}", f"--window={a.unit}", f"--block={a.block}", folder, *ours], lines)
        for torch in filter(None, (sum((x[i] for x in rows), []) for i in (1, 2))):
            run(a, [sys.executable, HERE / "rivals.py", f"--device={a.device}", folder, *torch], lines)
        if "capture" in a.rows:
            run_capture(a, folder, name, lines)
    text = report.report(report.read([path]))
    path.with_suffix(".md").write_text(text)
    print(text, flush=True)
    if made and not a.keep:
        shutil.rmtree(folder)
    return not report.read([path]).failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp"), help="room for a checkpoint of 16 GB")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoint there")
    parser.add_argument("--models", nargs="+", default=["llama-2-7b", "llama-3-8b"])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--device", default="cuda", help="PyTorch's")
    parser.add_argument("--block", type=int, default=4096, help="rows that go through a layer at once")
    parser.add_argument("--seconds", type=int, default=1 << 30, help="for all of it (no limit)")
    parser.add_argument("--unit", type=int, default=4096, help="window and unit of lengths; smaller to try the benchmark itself")
    a = parser.parse_args()
    a.started = time.monotonic()
    os.environ.setdefault("FKV_CUDA_MODULE", str(a.build.resolve() / "bin/freqkv-cuda.so"))  # programs look beside themselves otherwise
    a.out.mkdir(parents=True, exist_ok=True)
    sys.exit(not all([bench(a, model) for model in a.models]))


if __name__ == "__main__":
    main()
