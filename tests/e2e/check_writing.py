#!/usr/bin/env python3
"""What is left of a file that could not be written to its end.

    check_writing.py [--bin build/bin]

Every command that writes runs under limits on the size of a file, once so that the write fails (as
on a full disk) and once so that it kills the process on the spot. Whatever then has its name must
be whole: the bytes of an undisturbed run, an older file included (a file that grows by lines: whole
lines, and one that is torn only after a kill); a failure says so with status 1 and leaves no
temporary. A capture is merged whole or not at all. With a full standard output every command fails
in words. Needs nothing but Python.
"""

import argparse
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

from checks import content_of, words

DATA = pathlib.Path(__file__).resolve().parents[2] / "data"
MODEL = ["--model", DATA / "litbank-1m", "--threads", "1", "--quiet"]


def start(command, limit=None, deadly=False, stdout=subprocess.DEVNULL):
    def prepare():
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        list(words(command)), preexec_fn=prepare, stdout=stdout, stderr=subprocess.PIPE, text=True
    )


def must(command):
    run = start(command)
    if run.returncode:
        sys.exit(f"{' '.join(map(str, command))}: status {run.returncode}: {run.stderr}")


def files(folder):
    """Their bytes by name, without capture.h5, which holds the time."""
    return {
        p.relative_to(folder): content_of(p)
        for p in folder.rglob("*")
        if p.is_file() and p.name != "capture.h5"
    }


def hidden(path):
    return any(part.startswith(".") for part in path.parts)


def title(command):
    return " ".join([pathlib.Path(command[0]).name] + [str(part) for part in command[1:2]])


def check_limited(command, folder, whole, limit, deadly):
    """`whole`: what an undisturbed run leaves in `folder`. Returns whether the limit was met."""
    before = files(folder)
    run = start(command, limit, deadly)
    if run.returncode == 0:
        return False
    name = f"{title(command)} with files of at most {limit} bytes"
    if run.returncode != (-signal.SIGXFSZ if deadly else 1):
        sys.exit(f"{name}: status {run.returncode}: {run.stderr}")
    if not deadly and "File too large" not in run.stderr:
        sys.exit(f"{name}: does not say why: {run.stderr}")
    for path, data in files(folder).items():
        if hidden(path):
            if not deadly and path not in before:
                sys.exit(f"{name}: left {path}")
        elif data != whole.get(path) and not (
            path.suffix == ".jsonl"
            and whole[path].startswith(data)
            and (deadly or data.endswith(b"\n"))
        ):
            sys.exit(f"{name}: {path} is not what an undisturbed run writes")
    return True


def check_command(command, folder, limits, again):
    """`again`: the command replaces its own older files, which must survive, too."""
    must(command)
    whole = {path: data for path, data in files(folder).items() if not hidden(path)}
    met = 0
    for limit in limits:
        for deadly in (False, True):
            if not again:
                shutil.rmtree(folder)
                folder.mkdir()
            met += check_limited(command, folder, whole, limit, deadly)
            if again and set(whole) - set(files(folder)):
                sys.exit(f"{title(command)}: lost {set(whole) - set(files(folder))}")
    if not met:
        sys.exit(f"{title(command)}: no limit was met")
    if not again:
        shutil.rmtree(folder)
        folder.mkdir()
    must(command)
    now = {path: data for path, data in files(folder).items() if not hidden(path)}
    if now != whole:
        sys.exit(
            f"{title(command)}: not the same once it may write again:"
            f" {[str(p) for p in whole if whole[p] != now.get(p)]}"
        )
    return met


def check_merge(base, tools):
    """One recording fits under the limit, the other does not: half a merge must not open as a
    capture.
    """
    (base / "few.txt").write_text("The tide came up the river.", encoding="utf-8")
    for out, text in (("short", "few.txt"), ("long", "text.txt")):
        must(
            [
                tools / "freqkv-capture",
                *MODEL,
                "--text",
                base / text,
                "--out",
                base / out,
                "--max-tokens 400",
            ]
        )
    sizes = [
        max(p.stat().st_size for p in (base / part / "documents").iterdir())
        for part in ("short", "long")
    ]
    out = base / "merged"
    merge = [
        tools / "freqkv-analyze",
        "merge",
        "--quiet",
        base / "short",
        base / "long",
        "--out",
        out,
    ]
    for deadly in (False, True):
        run = start(merge, (sizes[0] + sizes[1]) // 2, deadly)
        if run.returncode != (-signal.SIGXFSZ if deadly else 1):
            sys.exit(f"merge: status {run.returncode}: {run.stderr}")
        named = [p for p in files(out) if not hidden(p)]
        if named or (not deadly and out.exists()):
            sys.exit(f"merge: half of it has a name: {named}")
    if not start([tools / "freqkv-analyze", "spectrum", out, "--out", base / "none"]).returncode:
        sys.exit("merge: half of it opens as a capture")


def check_output(base, tools):
    """Tables, JSON and --help into a full device."""
    commands = [
        ["freqkv-analyze", "--help"],
        ["freqkv-analyze", "plot", "--help"],
        ["freqkv-capture", "--version"],
        ["freqkv-replay"],
        ["freqkv-analyze", "report", base / "findings"],
        ["freqkv-analyze", "report", "--json", base / "findings"],
        ["freqkv-replay", "tokens", "--model", DATA / "litbank-1m", "--text", base / "text.txt"],
        ["freqkv-replay", "generate", *MODEL, "--prompt", "The tide", "--tokens 2 --policy full"],
        ["freqkv-replay", "ppl", *MODEL, "--text", base / "text.txt", "--policy full --tokens 64"],
    ]
    for command in commands:
        with open("/dev/full", "w", encoding="utf-8") as full:
            run = start([tools / command[0], *command[1:]], stdout=full)
        expected = 2 if len(command) == 1 else 1
        if run.returncode != expected or (
            expected == 1 and run.stderr.count("standard output") != 1
        ):
            sys.exit(
                f"{' '.join(map(str, command))} >/dev/full: status {run.returncode}: {run.stderr}"
            )
    return len(commands)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bin", type=pathlib.Path, default="build/bin")
    tools = parser.parse_args().bin.resolve()
    base = pathlib.Path(tempfile.mkdtemp(prefix="fkv-writing-"))
    text = base / "text.txt"
    text.write_bytes((DATA / "the_tide_mill.txt").read_bytes()[:2000])
    (base / "prompts.jsonl").write_text(
        '{"prompt": "The tide"}\n{"prompt": "A boat"}\n', encoding="utf-8"
    )
    analyze, replay, capture = (
        tools / "freqkv-analyze",
        tools / "freqkv-replay",
        tools / "freqkv-capture",
    )
    texts = [*MODEL, "--text", text]
    must([capture, *texts, "--out", base / "capture", "--max-tokens", "200"])
    findings, runs, answers, captures = (
        base / name for name in ("findings", "runs", "answers", "captures")
    )
    for folder in (runs, answers, captures):
        folder.mkdir()
    run = [replay, "ppl", *texts, "--policy freqkv --window 64 --tokens 200 --out"]
    must([*run, base / "one.h5"])
    to = ["--quiet", "--out", findings]
    met = 0
    for command, limits in (
        (["spectrum", base / "capture", "--length", "64", *to], [30000]),
        (["gamma", base / "capture", "--length", "64", "--budget", "0.5", *to], [1000, 60000]),
        (["impulse", "--window", "64", *to], [100, 20000]),
        (["plot", base / "one.h5", *to], [50, 60000]),
        (["report", findings], [50000]),
    ):
        met += check_command([analyze, *command], findings, limits, True)
    for command, folder, limits in (
        ([*run, runs / "run.h5"], runs, [3000, 20000]),
        (
            [
                replay,
                "generate",
                *MODEL,
                "--prompts",
                base / "prompts.jsonl",
                "--tokens 200 --policy full --out",
                answers / "out.jsonl",
            ],
            answers,
            [50, 2500],
        ),
        ([capture, *texts, "--max-tokens", "100", "--out", captures / "c"], captures, [20000]),
    ):
        met += check_command(command, folder, limits, False)
    check_merge(base, tools)
    outputs = check_output(base, tools)
    shutil.rmtree(base)
    print(
        f"{met} writes cut short: what has its name is whole; {outputs} commands say that standard"
        " output is full; half a merge is no capture"
    )


if __name__ == "__main__":
    main()
