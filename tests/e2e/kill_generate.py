#!/usr/bin/env python3
"""Kills freqkv-replay generate at random moments and looks at what is left.

    kill_generate.py [--bin build/bin] [--times 10] [--model DIR] [--text PATH] [--seed S]

After every kill -9 OUT.jsonl must be the beginning of the file that an uninterrupted run makes, and
lines that were there before must still be. --resume (killed once more in every second round, and in
half of them started on a file that was cut anywhere, as a crash of the machine may leave it) must
complete it to the same bytes. Rounds take turns with one prompt at a time and three side by side.
Prompts lose their middle, and have lengths and stop strings of their own.
Prints one line with counts; exit status 1 at the first difference. Needs nothing but Python.
"""

import argparse
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = pathlib.Path(__file__).resolve().parents[2] / "data"
    parser.add_argument("--bin", type=pathlib.Path, default="build/bin")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--model", default=data / "litbank-1m")
    parser.add_argument("--text", type=pathlib.Path, default=data / "the_tide_mill.txt")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1000000)
    parser.add_argument("--prompts", type=int, default=40)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    base = pathlib.Path(tempfile.mkdtemp(prefix="fkv-kill-"))
    story = args.text.read_text(encoding="utf-8")
    starts = [chance.randrange(len(story) - 100) for _ in range(args.prompts)]
    ends = [{}, {"max_tokens": 9}, {"stop": "the"}, {"stop": ["a ", "."], "max_tokens": 60}]
    (base / "in.jsonl").write_text(
        "".join(
            json.dumps({"prompt": story[a : a + chance.randrange(100)], "id": a, **ends[a % 4]})
            + "\n"
            for a in starts
        ),
        encoding="utf-8",
    )
    command = [
        str(args.bin / "freqkv-replay"),
        "generate",
        "--model",
        str(args.model),
        "--prompts",
        str(base / "in.jsonl"),
        "--tokens",
        "40",
        "--stop",
        "\n",
        "--truncate",
        "middle:16",
        "--temperature",
        "0.8",
        "--policy",
        "freqkv",
        "--window",
        "24",
        "--threads",
        "1",
        "--quiet",
    ]
    kills = late = lines = torn = 0

    def start(folder, batch, *more):
        return subprocess.Popen(
            [*command, "--batch", str(batch), "--out", str(folder / "out.jsonl"), *more],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def must(process, what):
        said = process.communicate()[1]
        if process.returncode:
            sys.exit(f"seed {args.seed}, kill {kills}: {what} failed: {said.decode()}")

    whole, duration = {}, {}
    for batch in (1, 3):
        folder = base / f"reference{batch}"
        folder.mkdir()
        started = time.monotonic()
        must(start(folder, batch), "an uninterrupted run")
        duration[batch] = time.monotonic() - started
        whole[batch] = (folder / "out.jsonl").read_bytes()

    def left(folder, batch):
        """The lines there; all bytes must be those of an uninterrupted run."""
        nonlocal lines, torn
        out = folder / "out.jsonl"
        found = out.read_bytes() if out.exists() else b""
        if not whole[batch].startswith(found):
            sys.exit(
                f"seed {args.seed}, kill {kills}: {out} is not the beginning of an uninterrupted"
                " run's"
            )
        if found and not (folder / "out.jsonl.run").exists():
            sys.exit(f"seed {args.seed}, kill {kills}: nothing says what made {out}")
        torn += not found.endswith(b"\n") and bool(found)
        lines += found.count(b"\n")
        return found

    def kill_at_random(folder, batch, *more):
        nonlocal kills, late
        before = left(folder, batch).rpartition(b"\n")[0]
        process = start(folder, batch, *more)
        time.sleep(chance.uniform(0, duration[batch]))
        late += process.poll() is not None
        process.kill()
        process.communicate()
        kills += 1
        if not left(folder, batch).startswith(before):
            sys.exit(f"seed {args.seed}, kill {kills}: {folder}: lines that were there are gone")

    rounds = 0
    while kills < args.times:
        folder, batch = base / f"killed{rounds}", (1, 3)[rounds % 2]
        folder.mkdir()
        kill_at_random(folder, batch)
        out = folder / "out.jsonl"
        if rounds % 4 > 1 and kills < args.times:
            kill_at_random(folder, batch, "--resume")
        if out.exists() and out.stat().st_size and chance.random() < 0.5:
            found = out.read_bytes()
            out.write_bytes(found[: chance.randrange(len(found))])
        must(start(folder, batch, "--resume"), "--resume")
        if out.read_bytes() != whole[batch]:
            sys.exit(f"seed {args.seed}, kill {kills}: {folder}: --resume did not complete it")
        shutil.rmtree(folder)
        rounds += 1
    shutil.rmtree(base)
    print(
        f"{kills} kills of generate (seed {args.seed}, {late} after the end, {torn} files torn),"
        f" {lines} lines found, all intact; {rounds} files resumed to the bytes of an uninterrupted"
        f" run ({args.prompts} prompts, {max(duration.values()):.1f} s)"
    )


if __name__ == "__main__":
    main()
