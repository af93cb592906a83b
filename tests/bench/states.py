"""A synthetic capture for the analyzer's benchmarks: 6 recordings of 8192 tokens with SmolLM2's
layers and heads, float16, 1.1 GB. Needs numpy and h5py.

    states.py OUT.h5
    states.py OUT.h5 STATES.h5 RECORDINGS    as many recordings, linked to those of STATES.h5

Keys have a mean, a slow drift and noise in every channel, values little but noise.
"""

import pathlib
import sys

import h5py
import numpy as np

RECORDINGS, LAYERS, HEADS, TOKENS, CHANNELS, SINKS = 6, 30, 3, 8192, 64, 4


def link(out, states, recordings):
    """A capture as large as one likes that takes no space, in the folder of the linked one."""
    file = pathlib.Path(states).name
    with h5py.File(states) as s, h5py.File(out, "w") as f:
        f.attrs.update(s.attrs)
        names = list(s["documents"])
        for i in range(int(recordings)):
            name = names[i % len(names)]
            f[f"documents/{i:06d}"] = h5py.ExternalLink(file, f"documents/{name}")


def make(out):
    rng = np.random.default_rng(1)
    with h5py.File(out, "w") as f:
        f.attrs.update(
            n_layers=LAYERS,
            n_kv_heads=HEADS,
            n_heads=HEADS,
            head_dim=CHANNELS,
            trained_context=TOKENS,
            model_name="synthetic",
        )
        for recording in range(RECORDINGS):
            g = f.create_group(f"documents/{recording:06d}")
            g.attrs.update(name=f"recording{recording}", n_tokens=TOKENS, offset=0)
            for state, mean in (("key", 4.0), ("value", 0.1)):
                x = g.create_dataset(
                    state,
                    (LAYERS, HEADS, TOKENS, CHANNELS),
                    np.float16,
                    chunks=(1, 1, 1024, CHANNELS),
                    fletcher32=True,
                )
                for layer in range(LAYERS):
                    noise = rng.standard_normal((2, HEADS, TOKENS, CHANNELS), np.float32)
                    means = mean * rng.standard_normal((HEADS, 1, CHANNELS), np.float32)
                    x[layer] = means + noise[0] + np.cumsum(0.02 * noise[1], axis=1)


if __name__ == "__main__":
    make(*sys.argv[1:]) if len(sys.argv) == 2 else link(*sys.argv[1:])
