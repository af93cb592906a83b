#!/usr/bin/env python3
"""Tools under a limit of address space, as batch systems set one (`ulimit -v`): each ends, with a
result or with a message, and does not wait for memory that never comes.

    check_limits.py --bin build/bin [--all]

--all tries every size of the ladder with 1 and 2 threads; else a few.
"""

import argparse
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile

LADDER = [40, 70, 80, 100, 130, 170, 220, 300, 400, 500, 600, 700, 900, 1300]  # MB
SECONDS = 60  # on a busy machine; a run takes less than one


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    tools = args.bin.resolve()
    sizes = [size for size in LADDER if args.all or size in (80, 130, 300, 600)]
    texts = ["--model", "data/litbank-1m", "--text", "data/the_tide_mill.txt", "--quiet"]
    failed = checks = done_well = 0
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        record = [tools / "freqkv-capture", *texts, "--layers", "0", "--max-tokens", "256"]
        subprocess.run([*record, "--out", work / "c"], check=True, capture_output=True)
        out = work / "out"
        commands = [
            ["freqkv-replay", "ppl", *texts, "--tokens", "256"],
            ["freqkv-capture", *texts, "--out", out, "--layers", "0", "--max-documents", "1"],
            ["freqkv-analyze", "spectrum", work / "c", "--out", out, "--quiet"],
            ["freqkv-analyze", "error", work / "c", "--out", out, "--bounds", "--quiet"],
            ["freqkv-analyze", "impulse", "--out", out, "--window", "64", "--quiet"],
            ["freqkv-analyze", "--version"],
        ]
        for size in sizes:
            for threads in ("1", "2") if args.all else ("2",):
                for command in commands:
                    shutil.rmtree(out, ignore_errors=True)

                    def limit(bytes=size * 1000000):
                        resource.setrlimit(resource.RLIMIT_AS, (bytes, bytes))

                    name = " ".join(map(str, command[:2])) + f", {size} MB, {threads} threads"
                    checks += 1
                    try:
                        done = subprocess.run(
                            [tools / command[0], *command[1:]],
                            preexec_fn=limit,
                            env=dict(os.environ, OMP_NUM_THREADS=threads),
                            capture_output=True,
                            text=True,
                            timeout=SECONDS,
                        )
                    except subprocess.TimeoutExpired:
                        failed += 1
                        print(f"FAILED  {name}: no end after {SECONDS} s")
                        continue
                    done_well += done.returncode == 0
                    if done.returncode and (done.returncode < 0 or not done.stderr.strip()):
                        failed += 1
                        print(f"FAILED  {name}: status {done.returncode}: {done.stderr}")
    print(f"limits: {checks} runs ended, {done_well} with a result" if not failed else "failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
