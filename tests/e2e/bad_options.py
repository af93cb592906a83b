#!/usr/bin/env python3
"""Bad values of options through the tools themselves. See refusals.py for what every
case must do.

    bad_options.py --bin build/bin [--data data]
"""

import os
import shutil

from refusals import Checkpoint, expect, main, run

# (what is tried, the options, words of the message): all are refused as values of options.
PPL = [
    ("gamma 0", "--gamma 0", ["--gamma", "(0, 1]"]),
    ("gamma above 1", "--gamma 1.2", ["--gamma", "1.2"]),
    ("gamma keeps nothing", "--gamma 0.001 --window 64", ["found 0"]),
    ("gamma keeps everything", "--gamma 1 --window 64", ["found 60"]),
    ("window of the sinks", "--window 4", ["--window", "4 sinks"]),
    ("a policy that does not exist", "--policy best", ["--policy", "streaming"]),
    ("a protocol that does not exist", "--protocol backwards", ["protocol"]),
    ("no such option", "--windoww 3", ["windoww"]),
    ("batch 0", "--batch 0", ["--batch"]),
    ("sweep of no ratio", "--sweep window=1:9:1", ["--sweep", "gamma=first:last:step"]),
    ("sweep that misses its end", "--sweep gamma=0.1:0.9:0.3", ["--sweep", "whole steps"]),
    ("sweep beyond 1", "--sweep gamma=0.5:1.5:0.5", ["--sweep", "1.5"]),
    ("sweep and gamma", "--sweep gamma=0.5 --gamma 0.5", ["--gamma or --sweep"]),
    (
        "sweep with a point that keeps nothing",
        "--sweep gamma=0.01:0.51:0.25 --window 64",
        ["gamma=0.01", "found 0"],
    ),
    (
        "sweep of a policy without ratio",
        "--sweep gamma=0.5 --policy streaming",
        ["streaming", "no ratio"],
    ),
    ("recent slots beyond the window", "--window 64 --recent 60", ["--recent", "found 64"]),
    (
        "a budget within the window",
        "--policy snapkv --budget 32 --protocol blocks:64",
        ["--budget", "32"],
    ),
    ("a budget of what drops nothing", "--budget 64 --policy full", ["--budget", "every token"]),
    (
        "a budget beside another window",
        "--policy freqkv --budget 64 --window 128",
        ["--budget", "found 128 and 64"],
    ),
    ("a mixture without a table", "--policy mixed", ["--table", "found none"]),
    ("a table of another policy", "--policy local --table t.json", ["--table", "does not take it"]),
    (
        "ratios beside a table's",
        "--policy mixed --table data/none.json --gamma 0.5",
        ["--gamma", "--table"],
    ),
    ("an even kernel", "--policy pyramidkv --kernel 4 --protocol blocks:64", ["--kernel", "odd"]),
    ("a pooling that does not exist", "--policy snapkv --pool min", ["--pool", "avg|max"]),
    (
        "more heavy hitters than slots",
        "--policy h2o --budget 9 --heavy 10 --protocol blocks:64",
        ["--heavy", "9"],
    ),
    (
        "a window that is no chunks",
        "--policy longheads --window 64 --chunk 20",
        ["--window", "a multiple of the 20 slots of --chunk"],
    ),
    (
        "a window of two chunks",
        "--policy longheads --window 64 --chunk 32",
        ["--window", "at least 3 chunks"],
    ),
    ("a selecting policy without blocks", "--policy knorm", ["--protocol", "blocks:b"]),
    *(
        (
            f"{option} of {policy}",
            f"--policy {policy} {option}",
            [option.split()[0], f"policy {policy} does not take it"],
        )
        for policy in ("full", "local", "streaming")
        for option in ("--recent 16", "--rescale off", "--mass-bias")
    ),
]
PROBE = [
    ("no change", "", ["no change is asked for"]),
    ("a band beyond 1", "--filter 0.5:1.5", ["--filter", "1.5"]),
    ("a band that ends before it begins", "--filter 0.5:0.25", ["--filter", "0.5:0.25"]),
    ("half a band", "--filter 0.5", ["--filter", "a:b"]),
    (
        "a band without a coefficient",
        "--filter 0.0001:0.0002",
        ["filter 0.0001:0.0002", "1/508"],
    ),
    ("noise without energy", "--noise 0:0.5", ["--noise", "a:b:eps"]),
    ("noise that is no number", "--noise 0:0.5:nan", ["--noise", "nan"]),
    ("a ratio above 1", "--freqkv 0.5,1.5", ["--freqkv", "1.5"]),
    ("a ratio that keeps nothing", "--local 0.001", ["--local 0.001", "508 slots"]),
    (
        "a state that does not exist",
        "--freqkv 0.5 --states key,query",
        ["--states", "key,query"],
    ),
    (
        "more than the trained context",
        "--freqkv 0.5 --prefix 900 --score 200",
        ["--prefix 900", "1024"],
    ),
    ("a prefix of sinks", "--freqkv 0.5 --prefix 5", ["--prefix", "4 sinks", "found 5"]),
    ("a batch", "--freqkv 0.5 --batch 2", ["--batch"]),
]


def settings(tools, work, model, text):
    ppl = [tools / "freqkv-replay", "ppl", "--model", model, "--text", text]
    out = os.path.join(work, "run.h5")
    for name, options, words in PPL:
        command = [*ppl, "--policy", "freqkv", *options.split(), "--out", out]
        expect("setting: " + name, command, *words, gone=[out], status=2)
    expect(
        "setting: a ratio without a policy",
        [*ppl, "--gamma", "0.5"],
        "--gamma",
        "expected --policy",
        status=2,
    )
    for name, wrong, word in (
        ("a name of the hub", "meta-llama/Llama-3.2-1B", "download"),
        ("a file for a model", text, "found a file"),
    ):
        command = [*ppl[:2], "--model", wrong, "--text", text]
        expect("setting: " + name, command, wrong, word)
    for command in ("plot", "merge"):
        expect(
            f"setting: threads of {command}",
            [tools / "freqkv-analyze", command, "a.h5", "--out", out, "--threads", "2"],
            "--threads",
            gone=[out],
            status=2,
        )
    sweeps(tools, work, model, text)
    existing = os.path.join(work, "existing.h5")
    with open(existing, "w") as f:
        f.write("mine")
    expect("output that exists", [*ppl, "--out", existing], existing)
    with open(existing) as f:
        assert f.read() == "mine"
    expect("unwritable output", [*ppl, "--out", "/proc/run.h5"], "/proc")
    module = os.path.join(work, "freqkv-cuda.so")  # the tools' own may be there, and a GPU, too
    command = ["env", "FKV_CUDA_MODULE=" + module, *ppl, "--backend", "cuda"]
    expect("cuda without a module", command, module)


def sweeps(tools, work, model, text):
    """Folders that hold something else than this very sweep: refused before anything runs, and left
    as they are.
    """
    folder = os.path.join(work, "sweep")
    command = [tools / "freqkv-replay", "ppl", "--model", model, "--text", text, "--tokens", "200"]
    command += ["--policy", "freqkv", "--sweep", "gamma=0.25:0.75:0.25", "--out", folder]
    assert run(command + ["--window", "64"]).returncode == 0
    files = sorted(os.listdir(folder))
    changed = Checkpoint(work, model, "changed").bf16("model.norm.weight", 0, 0.5)
    for name, arguments, words in [
        ("window", ["--window", "65"], ["window", "65", "64"]),
        ("limit", ["--window", "64", "--tokens", "199"], ["corpus_sha256"]),
        ("baseline", ["--window", "64", "--baseline", "full"], ["baseline"]),
        (
            "processor",
            ["--window", "64", "--backend", "reference"],
            ["backend", "reference", "cpu"],
        ),
        ("option", ["--window", "64", "--recent", "8"], ["policy_options", "recent=8", "recent=0"]),
        ("model", ["--window", "64", "--model", changed.path], ["model_sha256"]),
    ]:
        expect("sweep resumed with another " + name, command + arguments, "gamma_0.25.h5", *words)
    with open(os.path.join(folder, files[1]), "r+b") as f:
        f.truncate(3000)
    expect("sweep resumed over a broken file", command + ["--window", "64"], files[1])
    assert sorted(os.listdir(folder)) == files
    expect("sweep into a file", command[:-1] + [text, "--window", "64"], text, "expected a folder")
    expect(
        "sweep into no folder",
        command[:-1] + [work + "/none/sweep", "--window", "64"],
        "none/sweep",
    )
    shutil.rmtree(folder)


def probes(tools, work, model, text):
    out = os.path.join(work, "probe.h5")
    command = [tools / "freqkv-replay", "probe", "--model", model, "--text", text, "--quiet"]
    command += ["--out", out]
    for name, options, words in PROBE:
        refused = [*command, *options.split()]
        expect("probe: " + name, refused, *words, gone=[out, out + ".parts"], status=2)
    short = os.path.join(work, "short.txt")
    with open(short, "w") as f:
        f.write("A text of a few words.")
    expect(
        "probe: texts too short",
        [*command[:5], short, *command[6:], "--freqkv", "0.5"],
        "short.txt",
        "769 tokens",
        gone=[out, out + ".parts"],
    )
    os.mkdir(out + ".parts")
    with open(out + ".parts/000000.h5", "w") as f:
        f.write("mine")
    expect("probe: parts that are none", [*command, "--freqkv", "0.5"], "000000.h5", gone=[out])
    shutil.rmtree(out + ".parts")


if __name__ == "__main__":
    main("bad options", __doc__, settings, probes)
