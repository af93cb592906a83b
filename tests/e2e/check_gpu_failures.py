#!/usr/bin/env python3
"""What the tools do when a GPU fails them: memory that another process takes in the middle of a
run, a driver that is too old, a GPU that is, a module of another version. Runs on the stand-in for
CUDA (tests/shim/memory.cc has its variables), so no GPU is needed.

    check_gpu_failures.py --bin build/bin --module build/release/tests/freqkv-cuda-shim.so [--all]
                          [--jobs N] [--seed S]

Every tool that writes is run once with all the memory it needs, then again and again with the
memory gone when it asks for some the K-th time: for every K with --all, else for the last and a few
by chance. Each must end with exit status 1 and one message that says what was wanted, for what, and
what is free; leave nothing under a final name that an undisturbed run would not have; and end,
started again, with the same results.
"""

import argparse
import concurrent.futures
import filecmp
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

from checks import content_of

BY_CHANCE = 1  # failures per command without --all
MEMORY_BYTES = 4 << 30  # of the stand-in's GPU
BYTES = r"[\d.]+ (?:B|[KMG]iB)"
MEMORY = re.compile(
    rf"out of GPU memory: \S.* wants (?:{BYTES}|some for (?:CUDA itself|cuBLAS|cuFFT)), free are"
    rf" {BYTES} of 4.0 GiB"
)
problems, checks = [], 0


def check(right, what):
    global checks
    checks += 1
    if not right:
        problems.append(what)
        print("FAIL", what)


class Machine:
    """Runs commands on a pretended machine."""

    def __init__(self, module):
        self.base = {
            name: value for name, value in os.environ.items() if not name.startswith("FKV_")
        }
        self.base |= {
            "FKV_CUDA_MODULE": str(module),
            "FKV_SHIM_SEED": "1",
            "OMP_WAIT_POLICY": "passive",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, command, **variables):
        try:
            return subprocess.run(
                list(map(str, command)),
                env=self.base | variables,
                capture_output=True,
                text=True,
                timeout=120,
            )
        except subprocess.TimeoutExpired:
            sys.exit(f"FAIL {variables}: hangs: {' '.join(map(str, command))}")


def lines_of(done):
    """What a tool said on stderr, without what the stand-in adds."""
    return [
        line
        for line in done.stderr.splitlines()
        if not line.startswith("CUDA shim: device memory was asked for")
    ]


# ---- results ----


def same_h5(a, b):
    """Same attributes (but for the command, which names files, and times), same groups, same
    numbers, NaN included.
    """
    return content_of(a) == content_of(b)


def same_bytes(a, b):
    return filecmp.cmp(a, b, shallow=False)


def files_in(path):
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.exists() else []


class Job:
    """A command with its output, how files of two runs are compared, and how it is started again
    where it has left something. `parts`: a folder for what is done so far, which may stay; `grows`:
    the output is a folder of files that are whole one by one; `lines`: it is a file of lines that
    are, with what made them in a second file; `ignored`: files of it that hold the time.
    """

    def __init__(
        self, name, command, out, same, resume=(), parts=None, grows=False, lines=False, ignored=()
    ):
        self.name, self.command, self.out, self.same = name, command, out, same
        self.resume, self.parts, self.grows, self.lines, self.ignored = (
            list(resume),
            parts,
            grows,
            lines,
            ignored,
        )

    def arguments(self, folder):
        return [*self.command, "--out", folder / self.out]

    def outputs(self, folder):
        """Names and files that count as results."""
        at = folder / self.out
        return {str(p.relative_to(folder)): p for p in files_in(at) if p.name not in self.ignored}


def check_left(job, folder, reference, where):
    """After a failure: every file there equals the reference's; none at all where a command writes
    its one file at the end.
    """
    whole = job.outputs(reference)
    for name, path in job.outputs(folder).items():
        right = job.grows and name in whole and job.same(path, whole[name])
        if job.lines:
            found = path.read_bytes()
            right = found.endswith(b"\n") and whole[name].read_bytes().startswith(found)
        check(right, f"{where}: {name} is there and not that of an undisturbed run")
    known = {str(folder / job.out), str(folder / (job.parts or job.out))} | (
        {str(folder / job.out) + ".run"} if job.lines else set()
    )
    for path in files_in(folder):
        inside = any(str(path) == k or str(path).startswith(k + "/") for k in known)
        check(inside and not path.name.startswith("."), f"{where}: left {path.relative_to(folder)}")


def check_failure(done, where):
    lines = lines_of(done)
    check(
        done.returncode == 1, f"{where}: exit status {done.returncode}, expected 1: {done.stderr}"
    )
    check(
        len(lines) == 1 and MEMORY.search(lines[0]) is not None,
        f"{where}: expected one message about memory, found {lines}",
    )
    check(not done.stdout.strip(), f"{where}: printed {done.stdout!r} though it failed")
    return lines[0] if lines else ""


def disturb(machine, job, work, k, requests):
    """One run whose k-th request for memory finds none, and what the next run makes of what it
    left; returns its message and whether it left any.
    """
    reference, folder, where = (
        work / "reference",
        work / f"disturbed{k}",
        f"{job.name}, request {k} of {requests}",
    )
    folder.mkdir()
    message = check_failure(machine.run(job.arguments(folder), FKV_SHIM_ALLOCATIONS=str(k)), where)
    check_left(job, folder, reference, where)
    left = any(files_in(folder))
    if left:
        done = machine.run([*job.arguments(folder), *job.resume])
        check(done.returncode == 0, f"{where}: started again: {done.stderr}")
        found, whole = job.outputs(folder), job.outputs(reference)
        check(
            list(found) == list(whole),
            f"{where}: started again, it leaves {list(found)}, expected {list(whole)}",
        )
        for name in set(found) & set(whole):
            check(
                job.same(found[name], whole[name]),
                f"{where}: started again, {name} differs from an undisturbed run's",
            )
        check(
            not (job.parts and (folder / job.parts).exists()),
            f"{where}: started again, it left {job.parts}",
        )
    shutil.rmtree(folder)
    return message, left


def walk(machine, job, work, args, chance):
    """Takes the memory away at one request after the other; returns how often, and the messages."""
    reference = work / "reference"
    reference.mkdir(parents=True)
    done = machine.run(job.arguments(reference), FKV_SHIM_ALLOCATIONS="1000000")
    check(
        done.returncode == 0 and not lines_of(done),
        f"{job.name}: failed undisturbed: {done.stderr}",
    )
    requests = int(re.search(r"asked for (\d+) times", done.stderr).group(1))
    turns = (
        range(requests)
        if args.all
        else sorted({requests - 1, *chance.sample(range(requests // 2, requests), BY_CHANCE)})
    )
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda k: disturb(machine, job, work, k, requests), turns))
    print(
        f"{job.name}: {len(turns)} of {requests} requests for memory refused,"
        f" {sum(left for _, left in results)} times with results left",
        flush=True,
    )
    return len(turns), {re.sub(BYTES, "#", message) for message, _ in results}


def make_model(root, folder):
    """A small model of random weights that reads bytes, with the embedded model's tokenizer less
    all that is not a byte.
    """
    sizes = {
        "layers": 2,
        "dim": 32,
        "hidden": 64,
        "heads": 4,
        "kv-heads": 2,
        "head-dim": 16,
        "vocab": 259,
        "context": 128,
        "tokens": 1,
    }
    options = [part for name, size in sizes.items() for part in ("--" + name, str(size))]
    subprocess.run(
        [sys.executable, root / "tests/bench/make_checkpoint.py", folder, *options],
        check=True,
        capture_output=True,
    )
    tokenizer = json.loads((root / "data/litbank-1m/tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    tokenizer["model"] |= {
        "merges": [],
        "vocab": {token: i for token, i in vocab.items() if i < sizes["vocab"]},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def make_jobs(tools, model, root, work):
    story = (root / "data/the_tide_mill.txt").read_text()
    texts = work / "texts"
    texts.mkdir()
    (texts / "one.txt").write_text(story[:40])
    (texts / "two.txt").write_text(story[1000:1050])
    (work / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": story[i : i + 10]}) + "\n" for i in (0, 400, 800))
    )
    common = ["--model", model, "--backend", "cuda", "--quiet"]
    text = [*common, "--text", texts]
    capture, replay, analyze = (
        tools / ("freqkv-" + name) for name in ("capture", "replay", "analyze")
    )
    windowed = ["--policy", "freqkv", "--window", "16", "--tokens", "30"]
    states = work / "states"
    made = subprocess.run(
        list(
            map(
                str,
                [
                    capture,
                    "--model",
                    model,
                    "--backend",
                    "cpu",
                    "--quiet",
                    "--text",
                    texts,
                    "--max-tokens",
                    "40",
                    "--max-documents",
                    "1",
                    "--out",
                    states,
                ],
            )
        ),
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return [
        Job(
            "capture",
            [capture, *text, "--max-tokens", "24", "--batch", "2"],
            "capture",
            same_bytes,
            ["--resume"],
            grows=True,
            ignored=("capture.h5",),
        ),
        Job(
            "capture --spectra-only",
            [capture, *text, "--max-tokens", "24", "--spectra-only", "--length", "10"],
            "sums",
            same_bytes,
            ["--resume"],
            grows=True,
            ignored=("capture.h5",),
        ),
        Job(
            "ppl --sweep",
            [
                replay,
                "ppl",
                *text,
                *windowed,
                "--baseline",
                "full",
                "--json",
                "--sweep",
                "gamma=0.25:0.75:0.5",
            ],
            "runs",
            same_h5,
            grows=True,
        ),
        Job("ppl --out", [replay, "ppl", *text, *windowed, "--json"], "run.h5", same_h5),
        Job(
            "probe",
            [
                replay,
                "probe",
                *text,
                "--prefix",
                "12",
                "--score",
                "4",
                "--blocks",
                "2",
                "--freqkv",
                "0.5",
                "--json",
            ],
            "probe.h5",
            same_h5,
            parts="probe.h5.parts",
        ),
        Job(
            "generate",
            [
                replay,
                "generate",
                *common,
                "--prompts",
                work / "prompts.jsonl",
                "--tokens",
                "8",
                "--batch",
                "2",
                "--policy",
                "freqkv",
                "--window",
                "12",
            ],
            "out.jsonl",
            same_bytes,
            ["--resume"],
            lines=True,
        ),
        Job(
            "analyze spectrum",
            [
                analyze,
                "spectrum",
                states,
                "--backend",
                "cuda",
                "--quiet",
                "--length",
                "16",
                "--json",
            ],
            "findings",
            same_h5,
        ),
    ]


# ---- memory that is not there from the start ----

FOR_CUDA_ITSELF = (
    128 << 20
)  # of what a tool says it needs, which the stand-in does not take (kernels/cuda/backend.cu)


def check_needs(machine, job, work):
    """A byte less than it says it needs: it refuses at once. That much: it never runs out. What it
    holds at most is within what it says.
    """
    dry = [
        *job.arguments(work / "never"),
        *(["--json"] if "--json" not in job.command else []),
        "--dry-run",
    ]
    (work / "never").mkdir()
    needs = json.loads(machine.run(dry).stdout)
    wanted, held = needs["device_bytes"], MEMORY_BYTES - needs["device_free"]
    folder = work / "needs"
    for short in (1, 0):
        folder.mkdir()
        done = machine.run(
            job.arguments(folder),
            FKV_SHIM_MEMORY=str(held + wanted - short),
            FKV_SHIM_ALLOCATIONS="1000000",
        )
        if short:
            check(
                done.returncode == 1
                and re.search("memory.* on the device", done.stderr)
                and "out of GPU memory" not in done.stderr,
                f"{job.name}, a byte less than it needs: {done.stderr}",
            )
            check(
                not job.outputs(folder),
                f"{job.name}, a byte less than it needs: left {list(job.outputs(folder))}",
            )
        else:
            check(
                done.returncode == 0,
                f"{job.name}, with the {wanted} bytes that it needs: {done.stderr}",
            )
            peak = int(re.search(r"(\d+) bytes at most", done.stderr).group(1))
            check(
                peak - held <= wanted - FOR_CUDA_ITSELF,
                f"{job.name}: held {peak - held} bytes at once, of {wanted - FOR_CUDA_ITSELF} it"
                " said it needs",
            )
        shutil.rmtree(folder)


# ---- machines that will not do ----


def check_machines(machine, tools, model, module, work, every):
    text = work / "texts" / "one.txt"
    other = module.parent
    (work / "text.so").write_text("not a library\n")
    ppl = [tools / "freqkv-replay", "ppl", "--model", model, "--text", text, "--tokens", "16"]
    commands = [
        ppl,
        [
            tools / "freqkv-capture",
            "--model",
            model,
            "--text",
            text,
            "--max-tokens",
            "16",
            "--out",
            work / "never",
        ],
        [
            tools / "freqkv-analyze",
            "spectrum",
            work / "states",
            "--length",
            "16",
            "--out",
            work / "findings",
        ],
    ]
    unsupported = (
        "GPU 0, CPU shim of an NVIDIA GPU of capability 7.5, is of compute capability 7.5;"
        " expected 8.0"
    )
    cases = [
        (
            {"FKV_SHIM_DRIVER": "12.4"},
            (
                "the NVIDIA driver is too old: it supports CUDA up to 12.4, and this module was"
                " built with 13.0; update the driver"
            ),
        ),
        ({"FKV_SHIM_DRIVER": "0"}, "this machine has no NVIDIA driver"),
        ({"FKV_SHIM_GPUS": ""}, "this machine has no NVIDIA GPU that the driver can use"),
        ({"FKV_SHIM_GPUS": "7.5"}, unsupported),
        (
            {"FKV_CUDA_MODULE": str(other / "module_other_version.so")},
            "module_other_version.so: built for version",
        ),
        (
            {"FKV_CUDA_MODULE": str(other / "module_nothing.so")},
            "module_nothing.so: not a module of this toolkit",
        ),
        ({"FKV_CUDA_MODULE": str(work / "text.so")}, "text.so: cannot be loaded"),
        ({"FKV_CUDA_MODULE": str(work / "absent.so")}, "absent.so: no CUDA module here"),
    ]
    for variables, message in cases:
        for command in commands if every else commands[:1]:
            name = f"{variables}, {pathlib.Path(command[0]).name}"
            done = machine.run([*command, "--backend", "cuda"], **variables)
            check(
                done.returncode == 1 and message in done.stderr and not (work / "never").exists(),
                f'{name}: expected "{message}", found status {done.returncode}: {done.stderr}',
            )
        done, silent = machine.run(ppl, **variables), machine.run([*ppl, "--quiet"], **variables)
        check(
            done.returncode == 0
            and "note: computing on the CPU: " in done.stderr
            and message in done.stderr,
            f'{variables}, auto: expected a note "{message}", found {done.stderr}',
        )
        check(
            silent.returncode == 0 and not silent.stderr,
            f"{variables}, auto --quiet: {silent.stderr}",
        )

    two = {"FKV_SHIM_GPUS": "7.5,9.0"}
    for options in (
        ["--backend", "auto"],
        ["--backend", "cuda"],
        ["--backend", "cuda", "--device", "1"],
    ):
        done = machine.run([*ppl, *options, "--quiet"], **two)
        check(
            done.returncode == 0 and not done.stderr,
            f"the second of two GPUs, {options}: {done.stderr}",
        )
        done = machine.run(
            [*ppl, *options], FKV_SHIM_ALLOCATIONS="0", **two
        )  # its message names the GPU
        check(
            done.returncode == 1
            and "GPU 1, CPU shim of an NVIDIA GPU of capability 9.0: out of GPU memory"
            in done.stderr,
            f"the second of two GPUs, {options}: {done.stderr}",
        )
    for options, message in (
        (["--device", "0"], unsupported),
        (["--device", "2"], "device: expected 0 to 1, for there are 2 GPUs, found 2"),
    ):
        for backend in ("auto", "cuda"):
            done = machine.run([*ppl, "--backend", backend, *options], **two)
            check(
                done.returncode == 1 and message in done.stderr,
                f'two GPUs, {backend} {options}: expected "{message}", found {done.stderr}',
            )
    done = machine.run([*ppl, "--device", "1"])
    check(
        done.returncode == 1 and "device: expected 0, for there is one GPU, found 1" in done.stderr,
        f"one GPU, --device 1: {done.stderr}",
    )


def check_share(machine, tools, model, work):
    """The share of the time that compressions take is a number on a device, too."""
    for policy, least in (("freqkv", 1e-6), ("full", 0)):
        command = [
            tools / "freqkv-replay",
            "ppl",
            "--model",
            model,
            "--text",
            work / "texts",
            "--tokens",
            "60",
            "--policy",
            policy,
            "--window",
            "24",
            "--json",
            "--quiet",
        ]
        for backend in ("cuda", "cpu"):
            share = json.loads(machine.run([*command, "--backend", backend]).stdout)[
                "compression_share"
            ]
            check(
                share is not None and least <= share < 1 and (least or share == 0),
                f"{policy} on {backend}: compression_share is {share}",
            )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bin", type=pathlib.Path, default="build/bin")
    parser.add_argument(
        "--module", type=pathlib.Path, default="build/release/tests/freqkv-cuda-shim.so"
    )
    parser.add_argument(
        "--all", action="store_true", help="every request for memory instead of a few"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--messages", action="store_true", help="print each message once")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1000000)
    args = parser.parse_args()
    tools, module = args.bin.resolve(), args.module.resolve()
    root = pathlib.Path(__file__).resolve().parents[2]
    work = pathlib.Path(tempfile.mkdtemp(prefix="fkv-gpu-"))
    machine, chance, refused, messages = Machine(module), random.Random(args.seed), 0, set()
    try:
        model = make_model(root, work / "model")
        for number, job in enumerate(make_jobs(tools, model, root, work)):
            count, said = walk(machine, job, work / f"job{number}", args, chance)
            refused, messages = refused + count, messages | said
            check_needs(machine, job, work / f"job{number}")
        check_machines(machine, tools, model, module, work, args.all)
        check_share(machine, tools, model, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if args.messages:
        print(*sorted(messages), sep="\n")
    print(
        f"GPUs that fail: {len(problems)} problems in {checks} checks (seed {args.seed}), {refused}"
        f" runs out of memory, {len(messages)} messages"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
