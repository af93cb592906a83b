#!/usr/bin/env python3
"""SmolLM2-135M as a GGUF file: its ids are those of its tokenizer.json (by `tokenizers`), its
losses those of a folder of its dequantised weights (by `gguf`), its perplexity llama.cpp's (by
llama-cpp-python and torch), as close as llama.cpp is to itself on the dequantised weights.

usage: check_smollm2.py --bin BIN [--model FILE] [--tokens 512] [--texts 2000]

Without the file, which `./run demo smollm2` fetches, nothing is checked; what needs a package that
is not installed is left out.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import check_tokenizers

MODEL = "build/models/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = "data/the_tide_mill.txt"
LLAMA_CPP = "tests/bench/rivals/llamacpp.py"


def check_ids(options, folder):
    """Against the tokenizer.json of the model, made from the file's own lists."""
    from gguf import GGUFReader

    fields = GGUFReader(options.model).fields
    tokens, types, merges = (
        fields["tokenizer.ggml." + name].contents() for name in ("tokens", "token_type", "merges")
    )
    flags = check_tokenizers.FLAGS
    document = dict(
        added_tokens=[
            flags | dict(content=t, id=i)
            for i, (t, kind) in enumerate(zip(tokens, types, strict=True))
            if kind == 3
        ],
        pre_tokenizer=check_tokenizers.sequence(
            dict(type="Digits", individual_digits=True),
            check_tokenizers.BYTES | dict(use_regex=True),
        ),
        model=dict(type="BPE", vocab={t: i for i, t in enumerate(tokens)}, merges=merges),
    )
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    inputs = list(check_tokenizers.texts(options.texts, random.Random(1)))
    expected = check_tokenizers.expected_ids(folder, inputs)
    pairs = [pair for pair in zip(inputs, expected, strict=True) if len(pair[1]) > 1]
    found = check_tokenizers.ours(options.bin, folder, options.model, [text for text, _ in pairs])
    wrong = sum(ids != theirs for ids, (_, theirs) in zip(found, pairs, strict=True))
    print(f"{len(pairs)} texts: {wrong} differ in their ids")
    return wrong == 0


def write_ids(options, path):
    import numpy as np

    command = [options.bin / "freqkv-replay", "tokens", "--model", options.model, "--quiet"]
    done = subprocess.run([*command, "--text", TEXT], check=True, capture_output=True, text=True)
    np.save(path, np.array(done.stdout.split()[: options.tokens], "<u2"))


def check_losses(options, folder):
    import check_gguf

    replay = str(options.bin / "freqkv-replay")
    check_gguf.write_folder(options.model, str(folder / "folder"))
    write_ids(options, folder / "ids.npy")
    a, b = (
        check_gguf.losses(replay, model, str(folder / "ids.npy"), str(folder / f"{name}.h5"))
        for name, model in (("gguf", options.model), ("folder", str(folder / "folder")))
    )
    worst = abs(a - b).max() / abs(b).max()
    ratio = float(abs(b.mean() - a.mean()))
    print(f"losses within {worst:.1e} of the folder's, log perplexity within {ratio:.1e}")
    return worst < 1e-4 and ratio < 1e-5


def write_dequantised(path, out):
    """The same file with all weights in float32."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, dequantize

    reader = GGUFReader(path)
    writer = GGUFWriter(out, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            array = field.types[0] == GGUFValueType.ARRAY
            item = field.types[-1] if array else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=item)
    for t in reader.tensors:
        writer.add_tensor(t.name, dequantize(t.data, t.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_cpp(model, ids, tokens):
    """llama.cpp's mean loss over the second half of the tokens."""
    command = [sys.executable, LLAMA_CPP, "ppl", model, "2", ids, str(tokens), str(tokens)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])["mean_nll"]


def check_perplexity(options, folder):
    import llama_cpp as _  # noqa: F401
    import torch as _  # noqa: F401, F811

    ids = folder / "ids.npy"
    write_ids(options, ids)
    command = [options.bin / "freqkv-replay", "ppl", "--model", options.model, "--token-ids", ids]
    command += ["--policy", "full", "--protocol", f"chunks:{options.tokens}", "--backend", "cpu"]
    command += ["--quiet", "--json", "--out", folder / "chunks.h5"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    ours = json.loads(done.stdout)["mean_nll"]
    write_dequantised(options.model, folder / "f32.gguf")
    quantised = llama_cpp(options.model, ids, options.tokens)
    dequantised = llama_cpp(folder / "f32.gguf", ids, options.tokens)
    rounding = abs(quantised - dequantised)
    print(
        f"mean loss {ours:.6f}; llama.cpp {quantised:.6f}, {dequantised:.6f} on the dequantised "
        f"weights"
    )
    return abs(ours - dequantised) < 1e-4 and abs(ours - quantised) < 1.5 * rounding + 1e-4


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--texts", type=int, default=2000)
    options = parser.parse_args()
    if not pathlib.Path(options.model).exists():
        print(f"nothing checked: there is no {options.model} (./run demo smollm2 fetches it)")
        return 0
    good = checked = 0
    for check in (check_ids, check_losses, check_perplexity):
        with tempfile.TemporaryDirectory() as folder:
            try:
                good += check(options, pathlib.Path(folder))
                checked += 1
            except ImportError as error:
                print(f"{check.__name__} is left out: {error}")
    print(f"SmolLM2: {good} of {checked} checks good")
    return good != checked


if __name__ == "__main__":
    sys.exit(int(main()))
