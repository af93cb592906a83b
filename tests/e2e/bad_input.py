#!/usr/bin/env python3
"""Bad input through the tools themselves: every case must end with exit status 1 (2 where the value
of an option is refused), a message that names file, field, expected and found, and nothing
half-written. (Single parsers are tested closer to home, in tests/unit and tests/fuzz.)

    bad_input.py --bin build/bin [--data data]
"""

import argparse
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import h5py
import numpy as np

failures = checks = 0


def run(command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def expect(name, command, *words, gone=(), status=1):
    """The command fails with `status`, says every word on stderr, and leaves none of the paths in
    `gone`.
    """
    global failures, checks
    checks += 1
    done = run(command)
    problems = (
        [f"exit status {done.returncode}, expected {status}"] if done.returncode != status else []
    )
    problems += [f'message lacks "{word}"' for word in words if word not in done.stderr]
    for path in gone:
        if os.path.isdir(path):
            problems += [
                f"left {os.path.join(folder, f)}"
                for folder, _, files in os.walk(path)
                for f in files
            ]
        elif os.path.exists(path):
            problems.append(f"left {path}")
    print(("ok      " if not problems else "FAILED  ") + name)
    if problems:
        failures += 1
        print(
            "        "
            + "; ".join(problems)
            + "\n        "
            + done.stderr.strip().replace("\n", "\n        ")
        )


class Checkpoint:
    """A copy of the embedded model with something wrong in it."""

    def __init__(self, work, source, name):
        self.path = os.path.join(work, name)
        shutil.copytree(source, self.path)
        self.weights = os.path.join(self.path, "model.safetensors")

    def config(self, **changes):
        path = os.path.join(self.path, "config.json")
        with open(path) as f:
            config = json.load(f)
        with open(path, "w") as f:
            json.dump(config | changes, f)
        return self

    def read(self):
        with open(self.weights, "rb") as f:
            data = f.read()
        (size,) = struct.unpack("<Q", data[:8])
        return json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])

    def write(self, header, blob):
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return self.raw(struct.pack("<Q", len(text)) + text + blob)

    def header(self, change):
        header, blob = self.read()
        change(header)
        return self.write(header, blob)

    def raw(self, data):
        with open(self.weights, "wb") as f:
            f.write(data)
        return self

    def bf16(self, tensor, index, value):
        """Overwrites one element."""
        header, blob = self.read()
        at = header[tensor]["data_offsets"][0] + 2 * index
        blob[at : at + 2] = (
            (np.array([value], dtype=np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
        )
        return self.write(header, blob)


def checkpoints(tools, work, model, text):
    """Everything that can be wrong with a Hugging Face folder, through `ppl`."""
    down = "model.layers.3.mlp.down_proj.weight"

    def case(name, change, *words):
        broken = Checkpoint(work, model, "model-" + name.replace(" ", "-").replace("/", "-"))
        change(broken)
        expect(
            "checkpoint: " + name,
            [tools / "freqkv-replay", "ppl", "--model", broken.path, "--text", text],
            *words,
        )
        shutil.rmtree(broken.path)

    def shift(tensor, by):
        def change(header):
            header[tensor]["data_offsets"] = [
                offset + by for offset in header[tensor]["data_offsets"]
            ]

        return lambda c: c.header(change)

    def field(tensor, key, value):
        return lambda c: c.header(lambda header: header[tensor].update({key: value}))

    case("missing weights", lambda c: os.remove(c.weights), "model.safetensors")
    case("empty weights", lambda c: c.raw(b""), "model.safetensors", "8")
    case(
        "truncated header",
        lambda c: c.raw(struct.pack("<Q", 5000) + b'{"a":'),
        "model.safetensors",
        "5000",
    )
    case(
        "oversized header",
        lambda c: c.raw(struct.pack("<Q", 1 << 40) + b"{}"),
        "model.safetensors",
        str(1 << 40),
    )
    case(
        "header not JSON", lambda c: c.raw(struct.pack("<Q", 8) + b'{"a": 1,'), "model.safetensors"
    )
    case("offsets outside the file", shift(down, 1 << 24), "model.safetensors", down)
    case("overlapping offsets", shift(down, -64), "model.safetensors", "model.layers.")
    case("wrong shape", field(down, "shape", [384, 128]), "model.safetensors", down, "384")
    case("wrong dtype", field(down, "dtype", "I16"), "model.safetensors", down, "I16")
    case("missing tensor", lambda c: c.header(lambda h: h.update({"other": h.pop(down)})), down)
    case("NaN in the weights", lambda c: c.bf16(down, 1234, np.nan), down, "[3, 82]")
    case(
        "unknown architecture",
        lambda c: c.config(model_type="gpt_bigcode"),
        "config.json",
        "model_type",
        "gpt_bigcode",
    )
    case(
        "no layers",
        lambda c: c.config(num_hidden_layers=0),
        "config.json",
        "num_hidden_layers",
        "0",
    )
    case("absurd size", lambda c: c.config(hidden_size=1 << 40), "config.json", "hidden_size")
    case(
        "heads that do not divide",
        lambda c: c.config(num_key_value_heads=3),
        "config.json",
        "num_key_value_heads",
        "3",
    )
    case(
        "unknown rope",
        lambda c: c.config(rope_scaling={"rope_type": "yarn", "factor": 4.0}),
        "config.json",
        "yarn",
    )
    case(
        "sliding window that matters",
        lambda c: c.config(model_type="mistral", sliding_window=256),
        "config.json",
        "sliding_window",
        "256",
    )
    case("missing config", lambda c: os.remove(os.path.join(c.path, "config.json")), "config.json")
    case(
        "config not JSON",
        lambda c: shutil.copy(text, os.path.join(c.path, "config.json")),
        "config.json",
    )
    case(
        "missing tokenizer",
        lambda c: os.remove(os.path.join(c.path, "tokenizer.json")),
        "tokenizer.json",
        "save_pretrained",
        "--token-ids",
    )
    case(
        "tokenizer not JSON",
        lambda c: shutil.copy(text, os.path.join(c.path, "tokenizer.json")),
        "tokenizer.json",
    )


def texts(tools, work, model):
    def case(name, data, *words, file="bad.txt", option="--text"):
        path = os.path.join(work, file)
        with open(path, "wb") as f:
            f.write(data)
        expect(
            "text: " + name,
            [tools / "freqkv-replay", "ppl", "--model", model, option, path],
            file,
            *words,
        )
        out = os.path.join(work, "capture-of-bad-text")
        expect(
            "text, captured: " + name,
            [tools / "freqkv-capture", "--model", model, option, path, "--out", out],
            file,
            gone=[os.path.join(out, "documents")],
        )
        shutil.rmtree(out, ignore_errors=True)
        os.remove(path)

    case("empty", b"")
    case("invalid UTF-8", b"Good so far \xff\xfe no longer.", "12")
    case(
        "malformed jsonl", b'{"text": "fine, this is a text"}\n{"text": \n', ":2", file="bad.jsonl"
    )
    case("jsonl without text", b'{"body": "x"}\n', "text", file="bad.jsonl")
    case("one token", np.array([5], "<u2").tobytes(), file="ids.bin", option="--token-ids")
    case(
        "id outside the vocabulary",
        np.array([5, 6, 4000], "<u2").tobytes(),
        "4000",
        "2048",
        file="ids.bin",
        option="--token-ids",
    )
    case("odd number of bytes", b"\x05\x00\x06", file="ids.bin", option="--token-ids")
    expect(
        "text: missing",
        [tools / "freqkv-replay", "ppl", "--model", model, "--text", work + "/none.txt"],
        "none.txt",
    )


def settings(tools, work, model, text):
    def case(name, *arguments, words=(), status=1):
        out = os.path.join(work, "run.h5")
        expect(
            "setting: " + name,
            [
                tools / "freqkv-replay",
                "ppl",
                "--model",
                model,
                "--text",
                text,
                "--policy",
                "freqkv",
                *arguments,
                "--out",
                out,
            ],
            *words,
            gone=[out],
            status=status,
        )

    case("gamma 0", "--gamma", "0", words=["--gamma", "(0, 1]"], status=2)
    case("gamma above 1", "--gamma", "1.2", words=["--gamma", "1.2"], status=2)
    case("gamma keeps nothing", "--gamma", "0.001", "--window", "64", words=["found 0"], status=2)
    case("gamma keeps everything", "--gamma", "1", "--window", "64", words=["found 60"], status=2)
    case("window of the sinks", "--window", "4", words=["--window", "4 sinks"], status=2)
    expect(
        "setting: a ratio without a policy",
        [tools / "freqkv-replay", "ppl", "--model", model, "--text", text, "--gamma", "0.5"],
        "--gamma",
        "expected --policy",
        status=2,
    )
    for name, wrong, word in (
        ("a name of the hub", "meta-llama/Llama-3.2-1B", "download"),
        ("a file for a model", text, "found a file"),
    ):
        expect(
            "setting: " + name,
            [tools / "freqkv-replay", "ppl", "--model", wrong, "--text", text],
            wrong,
            word,
        )
    case(
        "a policy that does not exist",
        "--policy",
        "best",
        words=["--policy", "streaming"],
        status=2,
    )
    case("a protocol that does not exist", "--protocol", "backwards", words=["protocol"], status=2)
    case("no such option", "--windoww", "3", words=["windoww"], status=2)
    case("batch 0", "--batch", "0", words=["--batch"], status=2)
    case(
        "sweep of no ratio",
        "--sweep",
        "window=1:9:1",
        words=["--sweep", "gamma=first:last:step"],
        status=2,
    )
    case(
        "sweep that misses its end",
        "--sweep",
        "gamma=0.1:0.9:0.3",
        words=["--sweep", "whole steps"],
        status=2,
    )
    case("sweep beyond 1", "--sweep", "gamma=0.5:1.5:0.5", words=["--sweep", "1.5"], status=2)
    case(
        "sweep and gamma",
        "--sweep",
        "gamma=0.5",
        "--gamma",
        "0.5",
        words=["--gamma or --sweep"],
        status=2,
    )
    case(
        "sweep with a point that keeps nothing",
        "--sweep",
        "gamma=0.01:0.51:0.25",
        "--window",
        "64",
        words=["gamma=0.01", "found 0"],
        status=2,
    )
    case(
        "sweep of a policy without ratio",
        "--sweep",
        "gamma=0.5",
        "--policy",
        "streaming",
        words=["streaming", "no ratio"],
        status=2,
    )
    for policy in ("full", "local", "streaming"):
        for option in (["--recent", "16"], ["--rescale", "off"], ["--mass-bias"]):
            case(
                f"{option[0]} of {policy}",
                "--policy",
                policy,
                *option,
                words=[option[0], f"policy {policy} does not take it"],
                status=2,
            )
    case(
        "recent slots beyond the window",
        "--window",
        "64",
        "--recent",
        "60",
        words=["--recent", "found 64"],
        status=2,
    )
    sweeps(tools, work, model, text)
    existing = os.path.join(work, "existing.h5")
    with open(existing, "w") as f:
        f.write("mine")
    expect(
        "output that exists",
        [tools / "freqkv-replay", "ppl", "--model", model, "--text", text, "--out", existing],
        existing,
    )
    with open(existing) as f:
        assert f.read() == "mine"
    expect(
        "unwritable output",
        [tools / "freqkv-replay", "ppl", "--model", model, "--text", text, "--out", "/proc/run.h5"],
        "/proc",
    )
    module = os.path.join(work, "freqkv-cuda.so")  # the tools' own may be there, and a GPU, too
    expect(
        "cuda without a module",
        [
            "env",
            "FKV_CUDA_MODULE=" + module,
            tools / "freqkv-replay",
            "ppl",
            "--model",
            model,
            "--text",
            text,
            "--backend",
            "cuda",
        ],
        module,
    )


def sweeps(tools, work, model, text):
    """Folders that hold something else than this very sweep: refused before anything runs, and left
    as they are.
    """
    folder = os.path.join(work, "sweep")
    command = [
        tools / "freqkv-replay",
        "ppl",
        "--model",
        model,
        "--text",
        text,
        "--tokens",
        "200",
        "--policy",
        "freqkv",
        "--sweep",
        "gamma=0.25:0.75:0.25",
        "--out",
        folder,
    ]
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
    command = [
        tools / "freqkv-replay",
        "probe",
        "--model",
        model,
        "--text",
        text,
        "--quiet",
        "--out",
        out,
    ]

    def case(name, *arguments, words=(), status=1):
        expect(
            "probe: " + name,
            [*command, *arguments],
            *words,
            gone=[out, out + ".parts"],
            status=status,
        )

    case("no change", words=["no change is asked for"], status=2)
    case("a band beyond 1", "--filter", "0.5:1.5", words=["--filter", "1.5"], status=2)
    case(
        "a band that ends before it begins",
        "--filter",
        "0.5:0.25",
        words=["--filter", "0.5:0.25"],
        status=2,
    )
    case("half a band", "--filter", "0.5", words=["--filter", "a:b"], status=2)
    case(
        "a band without a coefficient",
        "--filter",
        "0.0001:0.0002",
        words=["filter 0.0001:0.0002", "1/508"],
        status=2,
    )
    case("noise without energy", "--noise", "0:0.5", words=["--noise", "a:b:eps"], status=2)
    case("noise that is no number", "--noise", "0:0.5:nan", words=["--noise", "nan"], status=2)
    case("a ratio above 1", "--freqkv", "0.5,1.5", words=["--freqkv", "1.5"], status=2)
    case(
        "a ratio that keeps nothing",
        "--local",
        "0.001",
        words=["--local 0.001", "508 slots"],
        status=2,
    )
    case(
        "a state that does not exist",
        "--freqkv",
        "0.5",
        "--states",
        "key,query",
        words=["--states", "key,query"],
        status=2,
    )
    case(
        "more than the trained context",
        "--freqkv",
        "0.5",
        "--prefix",
        "900",
        "--score",
        "200",
        words=["--prefix 900", "1024"],
        status=2,
    )
    case(
        "a prefix of sinks",
        "--freqkv",
        "0.5",
        "--prefix",
        "5",
        words=["--prefix", "4 sinks", "found 5"],
        status=2,
    )
    case("a batch", "--freqkv", "0.5", "--batch", "2", words=["--batch"], status=2)
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


def captures(tools, work, model, text):
    capture, out = (
        [tools / "freqkv-capture", "--quiet", "--text", text],
        os.path.join(work, "capture"),
    )
    analyze = tools / "freqkv-analyze"
    analysis = os.path.join(work, "analysis")
    assert run(capture + ["--model", model, "--out", out]).returncode == 0
    expect("capture: output that exists", capture + ["--model", model, "--out", out], out)
    other = Checkpoint(work, model, "other").bf16("model.norm.weight", 0, 0.5)
    expect(
        "capture: resumed with another model",
        capture + ["--model", other.path, "--out", out, "--resume"],
        "model",
    )
    expect(
        "capture: resumed on another processor",
        capture + ["--model", model, "--out", out, "--resume", "--backend", "reference"],
        "backend",
        "reference",
        "cpu",
    )
    expect(
        "capture: resumed with other options",
        capture + ["--model", model, "--out", out, "--resume", "--dtype", "bf16"],
        "dtype",
    )
    loud, overflow = Checkpoint(work, model, "loud"), os.path.join(work, "overflow")
    loud.bf16("model.layers.2.input_layernorm.weight", 7, 1e7)
    expect(
        "capture: float16 overflow",
        capture + ["--model", loud.path, "--out", overflow, "--dtype", "f16"],
        "layer 2",
        "token",
        "--dtype f32 or bf16",
        gone=[os.path.join(overflow, "documents")],
    )
    expect(
        "capture: unwritable output",
        capture + ["--model", model, "--out", "/proc/capture"],
        "/proc",
    )
    expect(
        "analyze: no segment of that length",
        [analyze, "spectrum", out, "--out", analysis, "--length", "5000"],
        "5000",
        "1024",
        gone=[analysis],
    )
    expect(
        "analyze: no capture", [analyze, "spectrum", text, "--out", analysis], text, gone=[analysis]
    )
    expect(
        "analyze: missing",
        [analyze, "error", work + "/none", "--out", analysis],
        "none",
        gone=[analysis],
    )
    empty = os.path.join(work, "empty")
    os.mkdir(empty)
    expect(
        "analyze: empty folder",
        [analyze, "spectrum", empty, "--out", analysis],
        empty,
        gone=[analysis],
    )
    expect(
        "analyze: gamma keeps nothing",
        [analyze, "error", out, "--out", analysis, "--gamma", "0.0001"],
        "gamma",
        gone=[analysis],
        status=2,
    )
    ratios = [analyze, "gamma", out, "--out", analysis]
    expect(
        "gamma: attention without queries",
        ratios + ["--budget", "0.5", "--objective", "attention"],
        out,
        "freqkv-capture --states key,value,query",
        gone=[analysis],
    )
    expect(
        "gamma: a window of the sinks",
        ratios + ["--budget", "0.5", "--window", "4"],
        "--window",
        "4 sinks",
        gone=[analysis],
        status=2,
    )
    expect("gamma: no criterion", ratios, "--energy", "--budget", gone=[analysis], status=2)
    expect(
        "gamma: a budget above 1",
        ratios + ["--budget", "1.5"],
        "--budget",
        "1.5",
        gone=[analysis],
        status=2,
    )
    expect(
        "gamma: floor above cap",
        ratios + ["--budget", "0.5", "--floor", "0.8", "--cap", "0.2"],
        "0.8",
        "0.2",
        gone=[analysis],
        status=2,
    )
    some = os.path.join(work, "some-layers")
    assert run(capture + ["--model", model, "--out", some, "--layers", "1-2"]).returncode == 0
    expect(
        "gamma: not all layers",
        [analyze, "gamma", some, "--out", analysis, "--budget", "0.5"],
        some,
        "every head",
        "6 layers",
        gone=[analysis],
    )
    sums = os.path.join(work, "sums")
    assert (
        run(
            capture + ["--model", model, "--out", sums, "--spectra-only", "--length", "508"]
        ).returncode
        == 0
    )
    expect(
        "bounds: no states",
        [analyze, "error", sums, "--out", analysis, "--bounds"],
        sums,
        "--bounds",
        "stored states",
        gone=[analysis],
    )
    impulse = [analyze, "impulse", "--out", analysis]
    expect("impulse: no window", impulse, "--window", gone=[analysis], status=2)
    expect(
        "impulse: a processor, where nothing needs one",
        impulse + ["--window", "64", "--backend", "cpu"],
        "--backend",
        gone=[analysis],
        status=2,
    )
    expect(
        "merge: a processor, where nothing needs one",
        [analyze, "merge", out, "--out", analysis, "--device", "0"],
        "--device",
        gone=[analysis],
        status=2,
    )
    expect(
        "impulse: keeps everything",
        impulse + ["--window", "64", "--gamma", "1"],
        "--gamma",
        "between 0 and 1",
        gone=[analysis],
        status=2,
    )
    expect(
        "impulse: keeps one slot",
        impulse + ["--window", "64", "--gamma", "0.02"],
        "--gamma 0.02",
        "found 1",
        gone=[analysis],
        status=2,
    )
    os.mkdir(analysis)
    with open(os.path.join(analysis, "impulse.csv"), "w") as f:
        f.write("mine")
    expect(
        "impulse: a file that is not ours",
        impulse + ["--window", "64"],
        "impulse.csv",
        "did not make it",
    )
    shutil.rmtree(analysis)
    foreign_results = os.path.join(work, "foreign-results")
    os.mkdir(foreign_results)
    shutil.copy(os.path.join(out, "capture.h5"), os.path.join(foreign_results, "results.h5"))
    expect("report: no folder", [analyze, "report", work + "/none"], "none")
    expect(
        "report: empty folder",
        [analyze, "report", empty],
        empty,
        "results.h5",
        gone=[os.path.join(empty, "report.html")],
    )
    expect(
        "report: findings of no command",
        [analyze, "report", foreign_results],
        "results.h5",
        gone=[os.path.join(foreign_results, "report.html")],
    )
    expect("report: two folders", [analyze, "report", empty, empty], "expected one DIR", status=2)
    expect(
        "analyze: merge of a capture with itself",
        [analyze, "merge", out, out, "--out", os.path.join(work, "merged")],
        "merge",
    )
    truncated = os.path.join(work, "truncated.h5")
    with open(os.path.join(out, "documents/000000.h5"), "rb") as f, open(truncated, "wb") as g:
        g.write(f.read()[:100000])
    expect(
        "analyze: truncated file",
        [analyze, "spectrum", truncated, "--out", analysis],
        "truncated.h5",
        gone=[analysis],
    )


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
    for command in (
        [tools / "freqkv-capture", *quiet, "--out", capture, "--max-documents", "1"],
        [replay, "ppl", *quiet, *sweep, "--gamma", "0.5", "--out", run_file],
        [
            replay,
            "ppl",
            *quiet,
            "--tokens",
            "300",
            "--policy",
            "local",
            "--window",
            "100",
            "--out",
            local,
        ],
        [
            replay,
            "probe",
            *quiet,
            "--prefix",
            "100",
            "--score",
            "16",
            "--filter",
            "0:0.5",
            "--out",
            probe,
        ],
        [
            replay,
            "probe",
            "--quiet",
            "--model",
            model,
            "--text",
            other,
            "--prefix",
            "100",
            "--score",
            "16",
            "--filter",
            "0:0.5",
            "--out",
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
        "--tokens",
        "3",
        "--policy",
        "freqkv",
        "--window",
        "32",
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


def expect_same(name, before):
    """The files still have these bytes."""
    global failures, checks
    checks += 1
    changed = [
        path
        for path, data in before.items()
        if not os.path.exists(path) or open(path, "rb").read() != data
    ]
    print(("ok      " if not changed else "FAILED  ") + name)
    failures += bool(changed)


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
                "--window",
                "64",
                "--policy",
                "freqkv",
                "--out",
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
                "--prompt",
                "A",
                "--tokens",
                "900",
                "--out",
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
                "--length",
                "100",
                "--quiet",
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


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", default="build/bin")
    p.add_argument("--data", default="data")
    args = p.parse_args()
    tools, work = pathlib.Path(os.path.abspath(args.bin)), tempfile.mkdtemp(prefix="fkv-bad-")
    model, text = (
        os.path.abspath(args.data + "/litbank-1m"),
        os.path.abspath(args.data + "/the_tide_mill.txt"),
    )
    try:
        checkpoints(tools, work, model, text)
        texts(tools, work, model)
        settings(tools, work, model, text)
        probes(tools, work, model, text)
        long_paths(tools, work, model, text)
        captures(tools, work, model, text)
        links(tools, work, model, text)
        continuations(tools, work, model, text)
        full_disk(tools, work, model, text)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"bad input: {checks - failures} passed, {failures} failed")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
