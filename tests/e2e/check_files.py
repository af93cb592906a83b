#!/usr/bin/env python3
"""Checkpoints and captures as other programs write them: they load and give the same numbers, or
are refused by name.

    check_files.py --bin build/bin
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

failed = checks = 0
TOKENS = "64"


def check(name, good, seen=""):
    global failed, checks
    checks += 1
    failed += not good
    if not good:
        print(f"FAILED  {name}: {seen}")


def read_weights(path):
    """{name: (entry, bytes)} of a safetensors file."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, data = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.pop("__metadata__", None)
    return {name: (entry, data[slice(*entry["data_offsets"])]) for name, entry in header.items()}


def write_weights(path, tensors, metadata=None, odd=False):
    """`odd`: the data begins at an odd address, as where a writer does not pad the header."""
    header, at = {}, 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (entry, data) in tensors.items():
        header[name] = entry | dict(data_offsets=[at, at + len(data)])
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (1 - len(text) % 2 if odd else -len(text) % 8)
    path.parent.mkdir(exist_ok=True)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, data in tensors.values():
            f.write(data)


def checkpoints(tools, work):
    source = pathlib.Path("data/litbank-1m")
    weights = read_weights(source / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    half = {name: weights[name] for name in list(weights)[: len(weights) // 2]}
    rest = {name: weights[name] for name in weights if name not in half}
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    tied = config["tie_word_embeddings"]
    assert tied and head not in weights

    def ppl(path):
        command = [tools / "freqkv-replay", "ppl", "--model", path, "--quiet", "--json"]
        command += ["--tokens", TOKENS, "--threads", "1", "--text", "data/the_tide_mill.txt"]
        done = subprocess.run(command, capture_output=True, text=True)
        return json.loads(done.stdout)["mean_nll"] if done.returncode == 0 else done.stderr

    expected = ppl(source)

    def make(name, tensors=weights, **changes):
        folder = work / name
        folder.mkdir()
        shutil.copy(source / "tokenizer.json", folder)
        (folder / "config.json").write_text(json.dumps(config | changes))
        if tensors:
            write_weights(folder / "model.safetensors", tensors)
        return folder

    def same(folder):
        found = ppl(folder)
        check(folder.name, isinstance(found, float) and abs(found - expected) < 1e-6, found)

    def refused(folder, *words):
        found = ppl(folder)
        check(folder.name, isinstance(found, str) and all(word in found for word in words), found)

    same(make("no prefix", {n.removeprefix("model."): t for n, t in weights.items()}))
    folder = make("odd address", None)
    write_weights(folder / "model.safetensors", weights, dict(format="mlx"), odd=True)
    same(folder)
    same(make("both heads", weights | {head: weights[embedding]}))
    same(make("only the head", {head if n == embedding else n: t for n, t in weights.items()}))
    extra = (dict(dtype="I64", shape=[0]), b"")
    same(make("extras", weights | {"model.layers.0.self_attn.rotary_emb.inv_freq": extra}))
    silent = ("rope_scaling", "sliding_window", "attention_bias", "mlp_bias", "layer_types")
    same(make("nulls", **dict.fromkeys((*silent, "quantization_config", "pad_token_id"))))
    same(make("dtype for torch_dtype", torch_dtype=None, dtype="bfloat16"))
    same(make("a large number", model_max_length=10**30, eos_token_id=[0, 1, 10**6]))
    for name, change in (("mark", "\ufeff{}"), ("line ends", "{}")):
        folder = make(name)
        text = json.dumps(config, indent=1).replace("\n", "\r\n")
        (folder / "config.json").write_bytes(change.replace("{}", text).encode())
        same(folder)
    for name, shards in (
        ("shards", ("a-1.safetensors", "a-2.safetensors")),
        ("shards in folders", ("a/1.safetensors", "b/2.safetensors")),
    ):
        folder = make(name, None)
        for shard, tensors in zip(shards, (half, rest)):
            write_weights(folder / shard, tensors)
        index = {name: shards[name in rest] for name in weights}
        index = dict(metadata=None, weight_map=index)
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        same(folder)
        os.remove(folder / shards[1])
        refused(folder, shards[1])
    folder = make("shards without an index", None)
    for i, tensors in enumerate((half, rest), 1):
        write_weights(folder / f"model-0000{i}-of-00002.safetensors", tensors)
    same(folder)
    for front in ("module.", "_orig_mod."):
        same(make(front, {front + name: weight for name, weight in weights.items()}))
    norm = weights["model.norm.weight"]
    refused(make("a norm more", weights | {"model.layers.0.self_attn.q_norm.weight": norm}), "norm")
    same(make("a head of rewards", weights | {"score.weight": norm}))
    folder = make("linked")
    os.rename(folder / "model.safetensors", work / "blob")
    os.symlink("../blob", folder / "model.safetensors")
    same(folder)
    done = ppl("meta-llama/Llama-3.2-1B")
    check("a name of the hub", "hf download" in done, done)
    refused(make("fewer embeddings", vocab_size=4096), "[4096, 128]", "[2048, 128]")
    entry, data = weights["model.norm.weight"]
    infinite = b"\x80\x7f" + data[2:]
    refused(make("infinity", weights | {"model.norm.weight": (entry, infinite)}), "infinity at [0]")
    refused(make("no head", tie_word_embeddings=False), head)
    folder = make("cut short")
    os.truncate(folder / "model.safetensors", 100000)
    refused(folder, "model.safetensors")


def notes(tools, work):
    """What a run says of layers that slide by themselves and of rotations that depend on the
    length."""
    source = pathlib.Path("data/litbank-1m")
    config = json.loads((source / "config.json").read_text())

    def note(name, command, words, **changes):
        folder = work / f"note of {name}"
        shutil.copytree(source, folder)
        (folder / "config.json").write_text(json.dumps(config | changes))
        command = [tools / "freqkv-replay", *command.split(), "--model", folder, "--threads", "1"]
        done = subprocess.run(command, capture_output=True, text=True)
        check(folder.name, done.returncode == 0 and words in done.stderr, done.stderr)

    types = ["sliding_attention"] * 2 + ["full_attention"] * 4
    slides = dict(model_type="mistral", sliding_window=16, layer_types=types)
    text = "--text data/the_tide_mill.txt"
    beginning = "note: 2 of 6 layers slide over 16 tokens by themselves: "
    alone = beginning + "the policy leaves them alone"
    policy = "--policy freqkv --window 64"
    note("ppl", f"ppl {text} --tokens 100 {policy}", alone, **slides)
    note("generate", f"generate --prompt The {policy} --tokens 70", alone, **slides)
    changes = f"probe {text} --prefix 64 --score 8 --blocks 1 --filter 0:0.5"
    note("probe", changes, beginning + "changes also act on slots", **slides)
    words = "original context of 64, for 100 positions, the most that a text here reaches"
    dynamic = dict(rope_scaling=dict(rope_type="dynamic", factor=2.0), max_position_embeddings=64)
    note("dynamic", f"ppl {text} --tokens 100", words, **dynamic)


def captures(tools, work):
    rng = np.random.default_rng()
    key = rng.standard_normal((2, 2, 300, 16)).astype("f4")
    bits = (key.view("u4") >> 16).astype("u2")
    path, out = work / "mine.h5", work / "out"

    def spectrum(path):
        shutil.rmtree(out, ignore_errors=True)
        command = [tools / "freqkv-analyze", "spectrum", path, "--out", out, "--length", "100"]
        done = subprocess.run([*command, "--quiet"], capture_output=True, text=True)
        if done.returncode:
            return done.stderr
        return h5py.File(out / "results.h5")["spectrum/key/power"][:]

    def write(data, attributes=(), dtype=None, group="documents/000000", **options):
        with h5py.File(path, "w") as f:
            f.attrs.update(dict(n_layers=2, n_kv_heads=2, head_dim=16) | dict(attributes))
            state = f.create_dataset(group + "/key", data=data, **options)
            if dtype:
                state.attrs["dtype"] = dtype
        return path

    def same(name, *arguments, tolerance=0.0, **options):
        found = spectrum(write(*arguments, **options))
        good = isinstance(found, np.ndarray) and np.allclose(found, expected, tolerance, 0)
        check(name, good, found)

    def refused(name, words, *arguments, **options):
        found = spectrum(write(*arguments, **options))
        check(name, isinstance(found, str) and words in found, found)

    expected = spectrum(write(key))
    parts = dict(chunks=(1, 1, 64, 16))
    same("big-endian", key.astype(">f4"))
    same("float64", key.astype("f8"))
    same("chunks", key, **parts)
    same("gzip", key, compression="gzip", shuffle=True, **parts)
    same("checksums", key, fletcher32=True, **parts)
    same("another name", key, group="documents/a b")
    same("no name", key, group="")
    odd = dict(n_layers=np.array([2], ">i2"), head_dim=16.0, model=np.bytes_("m"), more=[[1, 2]])
    same("odd attributes", key, odd)
    expected = spectrum(write(bits, dtype="bf16"))
    same("bf16 as int16", bits.view("i2"), dtype="bfloat16")
    same("bf16, big-endian", bits.astype(">u2"), dtype="bf16")
    same("bf16 as int16, gzip", bits.view("i2"), dtype="bf16", compression="gzip", **parts)
    refused("lzf", "lzf", key, compression="lzf", **parts)
    refused("integers", "found integers", bits)
    refused("five axes", "found 5", key[:, None])
    broken = key.copy()
    broken[1, 0, 50, 3] = np.nan
    refused("NaN", "key of layer 1, head 0, token 50: expected a finite number", broken)


def recordings(tools, work):
    """What capture.h5 names and what is there."""
    folder, out = work / "story", work / "findings"
    record = [tools / "freqkv-capture", "--model", "data/litbank-1m", "--quiet", "--out", folder]
    record += ["--text", "data/the_tide_mill.txt", "--layers", "0", "--threads", "1"]
    subprocess.run(record, check=True, capture_output=True)

    def analyze(*arguments):
        command = [tools / "freqkv-analyze", *arguments, "--quiet"]
        return subprocess.run(command, capture_output=True, text=True)

    names = sorted(os.listdir(folder / "documents"))
    before = (folder / "documents/000001.h5").read_bytes()
    os.remove(folder / "documents/000001.h5")
    words = f"names {len(names)} recordings, {len(names) - 1} are there: documents/000001.h5"
    for path in (folder, folder / "capture.h5"):
        done = analyze("spectrum", path, "--out", out)
        check("a missing recording", done.returncode == 1 and words in done.stderr, done.stderr)
    done = analyze("merge", folder, "--out", out)
    check("merged", done.returncode == 1 and words in done.stderr and not out.exists(), done.stderr)
    subprocess.run([*record, "--resume"], check=True, capture_output=True)
    check("resumed", (folder / "documents/000001.h5").read_bytes() == before)
    os.remove(folder / "output_gram.h5")
    done = analyze("spectrum", folder, "--out", out)
    check("no output_gram", done.returncode == 1 and "output_gram.h5" in done.stderr, done.stderr)
    os.remove(folder / "capture.h5")
    done = analyze("spectrum", folder, "--out", out)
    check("without capture.h5", done.returncode == 0, done.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    tools = parser.parse_args().bin.resolve()
    for group in (checkpoints, notes, captures, recordings):
        with tempfile.TemporaryDirectory() as work:
            group(tools, pathlib.Path(work))
    print(f"files: {checks} passed, {failed} failed" if not failed else f"{failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
