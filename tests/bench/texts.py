"""Ids and prompts for the benchmarks. Needs numpy and tokenizers.

    texts.py MODEL OUT TEXT.txt

OUT gets, from TEXT repeated as often as needed:
    ids-N.npy        the first N ids: of the text, or of a random model's own tokens.npy
    prompt-N.npy     the N ids of a prompt
    prefill-N.jsonl  a prompt of 32 tokens, then 1 to 4 prompts of N, for `freqkv-replay generate`
    decode-N.jsonl   one prompt of N tokens

A tool reads prompts as text and llama.cpp gets ids, so a prompt is text that has exactly N ids. It
has no digits and no rare bytes: see smollm2.py on its two tokenizers.
"""

import json
import pathlib
import re
import sys

import numpy as np
from tokenizers import Tokenizer

IDS = (8192, 16384, 32768, 65536)
WARM_UP = 32
PROMPTS = {WARM_UP: 1, 512: 4, 2048: 2, 4096: 1, 8192: 1}  # tokens: how often prefill repeats it


def ids_of(tokenizer, text, count):
    ids = []
    while len(ids) < count:
        ids += tokenizer.encode(text, add_special_tokens=False).ids
    return np.array(ids[:count], np.int32)


def prompt(tokenizer, words, count):
    """Text of exactly `count` ids, and the ids: the first start among the words that allows it."""
    for start in range(len(words)):
        text = " ".join(words[start : start + count])
        encoding = tokenizer.encode(text, add_special_tokens=False)
        text = text[: encoding.offsets[count - 1][1]]
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) == count:
            return text, np.array(ids, np.int32)
    raise SystemExit(f"no prompt of {count} tokens in the text")


def write_lines(path, prompts):
    path.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))


def main():
    model, out, text_path = map(pathlib.Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    text = text_path.read_text(encoding="utf-8")
    if (model / "tokens.npy").exists():
        ids = np.resize(np.load(model / "tokens.npy"), max(IDS))
    else:
        ids = ids_of(Tokenizer.from_file(str(model / "text-tokenizer.json")), text, max(IDS))
    for count in IDS:
        np.save(out / f"ids-{count}.npy", ids[:count])
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    words = re.sub(r"[^A-Za-z,.;]+", " ", text).split()
    words *= 1 + max(PROMPTS) // len(words)
    texts = {}
    for count in PROMPTS:
        texts[count], ids = prompt(tokenizer, words, count)
        np.save(out / f"prompt-{count}.npy", ids)
    for count, repeats in PROMPTS.items():
        write_lines(out / f"prefill-{count}.jsonl", [texts[WARM_UP], *[texts[count]] * repeats])
        write_lines(out / f"decode-{count}.jsonl", [texts[count]])


if __name__ == "__main__":
    main()
