#!/usr/bin/env python3
"""Results through the tools themselves: runs and probes that do not belong together, continuations
that cannot go on, disks that are full, paths as long as they may be and longer. See refusals.py for
what every case must do.

    bad_results.py --bin build/bin [--data data]
"""

import json
import os

import h5py
import numpy as np
from refusals import expect, expect_same, main, run


def links(tools, work, model, text):
    """`link` and `plot` on files that do not belong together, or are not what they should be."""
    replay, analyze, quiet = (
        tools / "freqkv-replay",
        tools / "freqkv-analyze",
        ["--quiet", "--model", model, "--text", text],
    )
    capture, other, out = (
        os.path.join(work, name) for name in ("link-capture", "link-other.txt", "link-out")
    )
    run_file, local, probe, other_probe = (
        os.path.join(work, name)
        for name in ("link-run.h5", "link-local.h5", "link-probe.h5", "link-probe2.h5")
    )
    with open(text) as f, open(other, "w") as g:
        g.write(f.read()[5000:])
    sweep = ["--tokens", "300", "--policy", "freqkv", "--window", "100"]
    full = os.path.join(work, "link-full.h5")
    for command in (
        [tools / "freqkv-capture", *quiet, "--out", capture, "--max-documents", "1"],
        [replay, "ppl", *quiet, "--tokens", "300", "--policy", "full", "--out", full],
        [replay, "ppl", *quiet, *sweep, "--gamma", "0.5", "--out", run_file],
        [replay, "ppl", *quiet, "--tokens 300 --policy local --window 100 --out", local],
        [replay, "probe", *quiet, "--prefix 100 --score 16 --filter 0:0.5 --out", probe],
        [
            replay,
            "probe",
            "--quiet --model",
            model,
            "--text",
            other,
            "--prefix 100 --score 16 --filter 0:0.5 --out",
            other_probe,
        ],
    ):
        done = run(command)
        assert done.returncode == 0, done.stderr
    link = [analyze, "link", "--quiet", "--out", out, "--capture", capture]
    expect(
        "link: another text",
        [*link, "--probes", other_probe],
        "link-capture",
        "link-probe2.h5",
        "same texts",
        gone=[out],
    )
    expect(
        "link: a run that keeps no coefficients",
        [*link, "--runs", local],
        "link-local.h5",
        "policy local",
        gone=[out],
    )
    expect(
        "link: a probe among the runs",
        [*link, "--runs", probe],
        "link-probe.h5",
        "freqkv-run",
        gone=[out],
    )
    expect(
        "plot: runs without a ratio alone",
        [analyze, "plot", full, "--out", out],
        "link-full.h5",
        "no figure",
        gone=[out],
    )
    expect("link: a run among the probes", [*link, "--probes", run_file], "link-run.h5", gone=[out])
    expect("link: nothing to join", link, "--runs", status=2)
    expect(
        "link: no capture",
        [analyze, "link", "--out", out, "--runs", run_file],
        "--capture",
        status=2,
    )
    with h5py.File(run_file, "r+") as f:
        f.attrs["model_sha256"] = "0" * 64
    expect(
        "link: another model",
        [*link, "--runs", run_file],
        "link-run.h5",
        "one model",
        "000000000000",
        gone=[out],
    )
    with h5py.File(probe, "r+") as f:
        f["documents/000000/nll"][1, 3] = np.nan
    expect(
        "plot: NaN in a probe",
        [analyze, "plot", probe, "--out", out],
        "link-probe.h5",
        "change 1",
        "finite",
    )
    with h5py.File(run_file, "r+") as f:
        del f["compressions/round"]
    expect(
        "plot: a run without a column",
        [analyze, "plot", run_file, "--out", out],
        "link-run.h5",
        "/compressions/round",
    )
    table = os.path.join(work, "table.csv")
    with open(table, "w") as f:
        f.write("a,b\n1,2\n3\n")
    expect(
        "plot: a row too short",
        [analyze, "plot", table, "--out", out],
        "table.csv",
        "row 2",
        "2 cells",
    )
    expect("plot: a text", [analyze, "plot", text, "--out", out], os.path.basename(text))
    expect("plot: nothing", [analyze, "plot", "--out", out], "RUN.h5", status=2)


def continuations(tools, work, model, text):
    """--resume refuses what it did not write, and leaves it."""
    prompts, out = os.path.join(work, "prompts.jsonl"), os.path.join(work, "continued.jsonl")
    with open(prompts, "w") as f:
        f.write('{"prompt": "The miller"}\n{"prompt": "A boat"}\n')
    command = [
        tools / "freqkv-replay",
        "generate",
        "--model",
        model,
        "--prompts",
        prompts,
        "--out",
        out,
        "--tokens 3 --policy freqkv --window 32",
    ]
    run(command)
    files = {path: open(path, "rb").read() for path in (out, out + ".run")}
    lines = files[out].splitlines(keepends=True)

    def refused(name, *words, options=(), **changed):
        for path, data in {
            **files,
            **{
                {"lines": out, "made_by": out + ".run"}[key]: value
                for key, value in changed.items()
            },
        }.items():
            with open(path, "wb") as f:
                f.write(data)
        before = {path: open(path, "rb").read() for path in files}
        expect(f"generate --resume: {name}", [*command, "--resume", *options], *words)
        expect_same(f"generate --resume: {name}: nothing is lost", before)

    refused(
        "a line that is no JSON",
        "continued.jsonl:1",
        "not valid JSON",
        lines=b"The miller\n" + lines[1],
    )
    refused(
        "a line with a field changed",
        "continued.jsonl:2",
        "prompt",
        "A boat",
        "A ship",
        lines=lines[0] + lines[1].replace(b"A boat", b"A ship"),
    )
    refused("a line of other fields", "continued.jsonl:1", "token_ids", lines=b'{"question": 7}\n')
    refused(
        "lines in another order",
        "continued.jsonl:1",
        "prompt",
        "The miller",
        "A boat",
        lines=lines[1] + lines[0],
    )
    refused(
        "more lines than prompts", "continued.jsonl:3", "2 prompts", lines=files[out] + lines[1]
    )
    refused(
        "an empty line", "continued.jsonl:2", "not valid JSON", lines=lines[0] + b"\n" + lines[1]
    )
    refused(
        "what made it is no JSON", "continued.jsonl.run", "not valid JSON", made_by=b"tokens 3\n"
    )
    refused(
        "what made it is no object", "continued.jsonl.run", "expected an object", made_by=b"[3]\n"
    )
    for options, field, words in (
        (("--tokens", "4"), "tokens", ("expected 4", "found 3")),
        (("--seed", "5"), "seed", ("expected 5", "found 0")),
        (("--temperature", "0.5"), "temperature", ("expected 0.5", "found 0.0")),
        (("--window", "40"), "window", ("expected 40", "found 32")),
        (("--policy", "local"), "policy", ('"local"', '"freqkv"')),
        (("--recent", "4"), "recent", ("expected 4", "found 0")),
        (("--gamma", "0.25"), "gamma", ("expected 0.25", "found 0.5")),
        (("--cache-dtype", "f16"), "cache_dtype", ('"f16"', '"f32"')),
        (("--backend", "reference"), "backend", ('"reference"', '"cpu"')),
        (("--batch", "2"), "batch", ("expected 2", "found 1")),
    ):
        refused(f"another {field}", "continued.jsonl.run", f'"{field}"', *words, options=options)
    with open(prompts, "a") as f:
        f.write('{"prompt": "And then"}\n')
    refused("other prompts", "continued.jsonl.run", '"prompts"', "expected 3", "found 2")
    os.remove(out + ".run")
    expect(
        "generate --resume: nothing says what made it",
        [*command, "--resume"],
        "continued.jsonl.run",
        "nothing says",
    )
    expect(
        "generate --resume without --out",
        [tools / "freqkv-replay", "generate", "--model", model, "--prompt", "A", "--resume"],
        "--resume needs --out",
        status=2,
    )


def full_disk(tools, work, model, text):
    """A file system of 1 MiB; needs the right to mount one."""
    disk = os.path.join(work, "disk")
    os.mkdir(disk)
    if run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]).returncode:
        print("skipped full disk: mounting a tmpfs is not permitted here")
        return
    try:
        out = os.path.join(disk, "capture")
        expect(
            "full disk: capture refuses beforehand",
            [tools / "freqkv-capture", "--model", model, "--text", text, "--out", out],
            "MiB",
            gone=[out],
        )
        run_file = os.path.join(disk, "run.h5")
        filler = os.path.join(disk, "filler")
        with open(filler, "wb") as f:
            f.write(b"x" * (1020 << 10))
        expect(
            "full disk: run file",
            [
                tools / "freqkv-replay",
                "ppl",
                "--model",
                model,
                "--text",
                text,
                "--window 64 --policy freqkv --out",
                run_file,
            ],
            "run.h5",
            gone=[run_file],
        )
        continued = os.path.join(disk, "out.jsonl")
        expect(
            "full disk: continuations refuse beforehand",
            [
                tools / "freqkv-replay",
                "generate",
                "--model",
                model,
                "--prompt A --tokens 900 --out",
                continued,
            ],
            "out.jsonl",
            "space",
            gone=[continued, continued + ".run"],
        )
    finally:
        run(["umount", disk])


def nested(base, length):
    """A folder under `base` whose path has `length` bytes."""
    while len(base) < length:
        left = length - len(base)
        step = 200 if left > 300 else left // 2 if left > 200 else left  # no "/" alone
        base += "/" + "d" * (step - 1)
        os.makedirs(base, exist_ok=True)
    return base


def long_paths(tools, work, model, text):
    """Paths as long as the system takes are opened as they are; longer ones are refused and nothing
    is written under a cut name.
    """
    replay, analyze = tools / "freqkv-replay", tools / "freqkv-analyze"
    engine = ["--model", model, "--text", text, "--quiet"]
    ppl = [replay, "ppl", *engine, "--tokens", "200", "--policy", "freqkv", "--window", "64"]
    probe = [replay, "probe", *engine, "--freqkv", "0.5", "--prefix", "100", "--score", "20"]

    def writes(name, command, *paths):
        expect(name, command, status=0)
        expect(f"{name}: leaves its files", ["ls", *paths], status=0)

    for length in 600, 3960:
        folder, length = nested(os.path.join(work, str(length)), length), f"{length} bytes: "
        with open(folder + "/gamma.json", "w") as f:
            json.dump({"gamma": 0.5}, f)
        writes(
            length + "ratios",
            ppl + ["--gamma", f"@{folder}/gamma.json", "--out", folder + "/table.h5"],
            folder + "/table.h5",
        )
        writes(
            length + "sweep",
            ppl + ["--sweep", "gamma=0.25:0.75:0.25", "--out", folder + "/sweep"],
            folder + "/sweep/gamma_0.75.h5",
        )
        writes(length + "probe", probe + ["--out", folder + "/probe.h5"], folder + "/probe.h5")
        writes(
            length + "capture",
            [tools / "freqkv-capture", *engine, "--out", folder + "/capture"],
            folder + "/capture/documents/000000.h5",
        )
        writes(
            length + "spectrum",
            [
                analyze,
                "spectrum",
                folder + "/capture",
                "--out",
                folder + "/out",
                "--length 100 --quiet",
            ],
            folder + "/out/results.h5",
            folder + "/out/sources.csv",
        )
        writes(
            length + "impulse",
            [analyze, "impulse", "--window", "64", "--out", folder + "/impulse", "--quiet"],
            folder + "/impulse/impulse.csv",
        )
        writes(
            length + "plot",
            [
                analyze,
                "plot",
                folder + "/table.h5",
                folder + "/probe.h5",
                "--out",
                folder + "/figures",
                "--quiet",
            ],
            folder + "/figures/table_rounds.svg",
            folder + "/figures/probe_sources.csv",
        )
        with h5py.File(folder + "/table.h5") as f:
            expect(
                length + "the run says its whole command",
                ["test", folder + "/table.h5", "=", f.attrs["command"].split()[-1]],
                status=0,
            )
        expect(
            length + "a message keeps file and reason",
            ppl + ["--gamma", f"@{folder}/none.json"],
            "/none.json: cannot open: No such file",
        )
    folder = nested(os.path.join(work, "deep"), 4080)
    before = sorted(os.listdir(folder))
    for name, command in [
        ("sweep", ppl + ["--sweep", "gamma=0.25:0.75:0.25", "--out", folder]),
        ("run", ppl + ["--gamma", "0.5", "--out", folder + "/a_run_too_long.h5"]),
        ("probe", probe + ["--out", folder + "/probe_a.h5"]),
        ("capture", [tools / "freqkv-capture", *engine, "--out", folder + "/capture"]),
        ("impulse", [analyze, "impulse", "--window", "64", "--out", folder]),
    ]:
        expect("4080 bytes: " + name, command, "too long")
        checked = sorted(os.listdir(folder))
        expect(
            "4080 bytes: " + name + " leaves nothing",
            ["test", str(before), "=", str(checked)],
            status=0,
        )


if __name__ == "__main__":
    main("bad results", __doc__, links, continuations, full_disk, long_paths)
