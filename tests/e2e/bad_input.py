#!/usr/bin/env python3
"""Bad checkpoints, texts and captures through the tools themselves. See refusals.py for what every
case must do.

    bad_input.py --bin build/bin [--data data]
"""

import os
import shutil
import struct

import numpy as np
from refusals import Checkpoint, expect, main, run


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
        lambda c: c.config(rope_scaling={"rope_type": "mrope", "factor": 4.0}),
        "config.json",
        "mrope",
    )
    case(
        "attention in chunks",
        lambda c: c.config(
            model_type="qwen3",
            use_sliding_window=True,
            sliding_window=64,
            layer_types=["chunked_attention"] * 6,
        ),
        "config.json",
        "layer_types",
        "chunked_attention",
    )
    case(
        "attention in chunks, of a family that does not slide",
        lambda c: c.config(layer_types=["chunked_attention"] * 6),
        "config.json",
        "layer_types",
        "chunked_attention",
    )
    case("missing config", lambda c: os.remove(os.path.join(c.path, "config.json")), "config.json")
    case(
        "config not JSON",
        lambda c: shutil.copy(text, os.path.join(c.path, "config.json")),
        "config.json",
    )
    case(
        "missing tokenizer",
        lambda c: [os.remove(os.path.join(c.path, "tokenizer." + e)) for e in ("json", "model")],
        "tokenizer.json",
        "save_pretrained",
        "--token-ids",
    )
    case(
        "tokenizer not JSON",
        lambda c: shutil.copy(text, os.path.join(c.path, "tokenizer.json")),
        "tokenizer.json",
    )


def texts(tools, work, model, text):
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


if __name__ == "__main__":
    main("bad input", __doc__, checkpoints, texts, captures)
