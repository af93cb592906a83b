"""What the rivals share: ids, and one line of JSON as the result."""

import json

import numpy as np


def read_ids(path, count=None):
    """The first `count` ids of a .npy file, int64."""
    ids = np.load(path).astype(np.int64)
    if count is not None and len(ids) < count:
        raise SystemExit(f"{path}: {len(ids)} ids, {count} needed")
    return ids[:count]


def emit(**result):
    print(json.dumps(result), flush=True)


def generation(fed, prefill_seconds, drawn, decode_seconds):
    """As `freqkv-replay generate` counts: the first id drawn costs no step of its own."""
    emit(
        prompt_tokens=fed,
        prefill_tokens_per_s=fed / prefill_seconds,
        tokens=sum(map(len, drawn)),
        decode_tokens_per_s=sum(map(len, drawn)) / decode_seconds,
        token_ids=drawn[-1],
    )
