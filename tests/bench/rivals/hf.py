"""Hugging Face transformers: prefill and decoding, perplexity, and a capture written with h5py.

    hf.py generate MODEL f32|bf16 THREADS DRAWN IDS.npy...   each file is a prompt; greedy
    hf.py ppl MODEL f32|bf16 THREADS IDS.npy TOKENS CHUNK    the second half of each chunk
    hf.py capture MODEL f32|bf16 THREADS IDS.npy TOKENS OUT.h5   with nll; states in float16

Prints JSON. Loading is not timed.
"""

import sys
import time

import h5py
import numpy as np
import torch
from common import emit, generation, read_ids
from transformers import AutoModelForCausalLM

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
SCORED_ROWS = 1024  # logits of so many rows at once: 49152 of each are 200 MB


def load(folder, dtype, threads):
    torch.set_num_threads(int(threads))
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=DTYPES[dtype], attn_implementation="sdpa"
    )
    return model.eval()


def generate(model, drawn, *paths):
    prefill = decode = 0.0
    fed, results = 0, []
    for path in paths:
        ids = torch.from_numpy(read_ids(path))[None]
        started = time.perf_counter()
        out = model(ids, use_cache=True, logits_to_keep=1)
        between = time.perf_counter()
        tokens = [int(out.logits[0, -1].argmax())]
        while len(tokens) < int(drawn):
            last = torch.tensor([[tokens[-1]]])
            out = model(last, cache=out.cache, use_cache=True)
            tokens.append(int(out.logits[0, -1].argmax()))
        decode += time.perf_counter() - between
        prefill += between - started
        fed += ids.shape[1]
        results.append(tokens)
    generation(fed, prefill, results, decode)


def summed_nll(model, hidden, ids):
    """hidden [tokens, dim] scores ids[1:]; float64 sum."""
    total, targets = 0.0, ids[1:]
    for a in range(0, len(targets), SCORED_ROWS):
        part = targets[a : a + SCORED_ROWS]
        logits = model.lm_head(hidden[a : a + len(part)]).float()
        total += float(torch.nn.functional.cross_entropy(logits, part, reduction="sum"))
    return total


def ppl(model, path, tokens, chunk):
    ids = torch.from_numpy(read_ids(path, int(tokens)))
    total, scored = 0.0, 0
    started = time.perf_counter()
    for part in ids.split(int(chunk)):
        hidden = model.model(part[None], use_cache=False).last_hidden_state[0]
        half = len(part) // 2
        total += summed_nll(model, hidden[half:], part[half:])
        scored += len(part) - half - 1
    seconds = time.perf_counter() - started
    emit(seconds=seconds, tokens_scored=scored, mean_nll=total / scored)


def capture(model, path, tokens, out):
    ids = torch.from_numpy(read_ids(path, int(tokens)))
    started = time.perf_counter()
    result = model.model(ids[None], use_cache=True)
    total = summed_nll(model, result.last_hidden_state[0], ids)
    forward = time.perf_counter() - started
    layers = result.cache.layers
    with h5py.File(out, "w") as f:
        for name in ("key", "value"):
            states = [getattr(layer, name + "s")[0] for layer in layers]
            heads, count, head_dim = states[0].shape
            d = f.create_dataset(
                "documents/000000/" + name,
                (len(layers), heads, count, head_dim),
                np.float16,
                chunks=(1, 1, min(1024, count), head_dim),
            )
            for i, x in enumerate(states):
                d[i] = x.to(torch.float16).numpy()
    seconds = time.perf_counter() - started
    emit(seconds=seconds, forward=forward, tokens=len(ids), mean_nll=total / (len(ids) - 1))


def main():
    job, folder, dtype, threads, *rest = sys.argv[1:]
    jobs = {"generate": generate, "ppl": ppl, "capture": capture}
    with torch.inference_mode():
        jobs[job](load(folder, dtype, threads), *rest)


if __name__ == "__main__":
    main()
