#!/usr/bin/env python3
"""Kills freqkv-capture at random moments and looks at what is left.

    kill_capture.py [--bin build/bin] [--times 10] [--model DIR] [--text PATH] [--seed S]

After every kill -9 each recording that has its name, and output_gram.h5, must equal, byte for byte,
that of an uninterrupted run; --resume (killed once more in every second round) must complete the
folder to the same bytes and leave no temporary file. Prints one line with counts; exit status 1 at
the first difference. Needs nothing but Python.
"""

import argparse
import filecmp
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time


def recordings(folder):
    """What has its name and must not change: recordings, and what the capture keeps of the output
    projection.
    """
    return sorted(
        str(p.relative_to(folder))
        for p in [*folder.glob("documents/[0-9]*.h5"), *folder.glob("output_gram.h5")]
    )


def differing(folder, reference):
    """Names of those that are not what an uninterrupted run made."""
    return [
        n
        for n in recordings(folder)
        if not (reference / n).exists() or not filecmp.cmp(folder / n, reference / n, shallow=False)
    ]


def temporaries(folder):
    return [str(p) for p in folder.rglob(".*")]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = pathlib.Path(__file__).resolve().parents[2] / "data"
    parser.add_argument("--bin", type=pathlib.Path, default="build/bin")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--model", default=data / "litbank-1m")
    parser.add_argument("--text", default=data / "the_tide_mill.txt")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1000000)
    parser.add_argument(
        "--max-tokens", default="128", help="small, so that many recordings are made (default 128)"
    )
    args = parser.parse_args()
    chance = random.Random(args.seed)
    base = pathlib.Path(tempfile.mkdtemp(prefix="fkv-kill-"))
    command = [
        str(args.bin / "freqkv-capture"),
        "--model",
        str(args.model),
        "--text",
        str(args.text),
        "--max-tokens",
        args.max_tokens,
        "--threads",
        "1",
        "--quiet",
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def start(folder, *more):
        return subprocess.Popen(command + ["--out", str(folder), *more], **quiet)

    reference = base / "reference"
    started = time.monotonic()
    if start(reference).wait():
        sys.exit(f"{' '.join(command)} --out {reference} failed")
    duration = time.monotonic() - started
    expected = recordings(reference)
    kills = late = named = torn = 0

    def kill_at_random(folder, *more):
        nonlocal kills, late, named, torn
        process = start(folder, *more)
        time.sleep(chance.uniform(0, duration))
        late += process.poll() is not None
        process.kill()
        process.wait()
        kills += 1
        named += len(recordings(folder))
        torn += bool(temporaries(folder))
        bad = differing(folder, reference)
        if bad:
            sys.exit(
                f"seed {args.seed}, kill {kills}: {folder}: {', '.join(bad)} differ from an"
                " uninterrupted run"
            )

    rounds = 0
    while kills < args.times:
        folder = base / f"killed{rounds}"
        kill_at_random(folder)
        if rounds % 2 and kills < args.times:
            kill_at_random(folder, "--resume")
        if start(folder, "--resume").wait():
            sys.exit(f"seed {args.seed}, kill {kills}: {folder}: --resume failed")
        if recordings(folder) != expected or differing(folder, reference) or temporaries(folder):
            sys.exit(f"seed {args.seed}, kill {kills}: {folder}: --resume did not complete it")
        if not (folder / "capture.h5").exists():
            sys.exit(f"seed {args.seed}, kill {kills}: {folder}: --resume made no capture.h5")
        shutil.rmtree(folder)
        rounds += 1
    shutil.rmtree(base)
    print(
        f"{kills} kills (seed {args.seed}, {late} after the end, {torn} within a write), {named}"
        f" files with a name found, all intact; {rounds} folders resumed to the bytes of an"
        f" uninterrupted run ({len(expected)} files, {duration:.1f} s)"
    )


if __name__ == "__main__":
    main()
