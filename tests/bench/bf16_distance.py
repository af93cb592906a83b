#!/usr/bin/env python3
"""How far --compute bf16 is from float32: logits, losses, FreqKV's damage, spectra and errors of
one model on one text.

    tests/bench/bf16_distance.py --bin build/bin --model MODEL --text TEXT --tokens 2048

MODEL is a folder with one model.safetensors. Prints a Markdown row per number. Needs numpy and
h5py, and a processor that --compute bf16 takes.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "notebooks"), str(ROOT / "tests" / "e2e")]

from freqkv_frames import error_frame, share_frame  # noqa: E402
from numpy_model import read_safetensors  # noqa: E402

TYPES = ("f32", "bf16")


class Runs:
    """Both types' files, of the text's first tokens, in the folder `work`."""

    def __init__(self, options, work):
        self.options, self.work = options, work
        words = self.tool("replay", "tokens", "--model", options.model, "--text", options.text)
        ids = np.array(words.split()[: options.tokens], np.int32)
        np.save(f"{work}/ids.npy", ids)
        self.text = ["--model", options.model, "--token-ids", f"{work}/ids.npy"]

    def tool(self, name, *arguments):
        command = [pathlib.Path(self.options.bin) / f"freqkv-{name}", *map(str, arguments), "-q"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"freqkv-{name} failed")
        return done.stdout

    def replay(self, kind, policy, *more):
        o, out = self.options, f"{self.work}/{policy}-{kind}.h5"
        protocol = ["--tokens", o.tokens, "--policy", policy, "--compute", kind, *more]
        lines = self.tool("replay", "ppl", *self.text, *protocol, "--out", out, "--json")
        return json.loads(lines), out

    def analysis(self, kind):
        """Folders of `spectrum` and `error`."""
        o, capture = self.options, f"{self.work}/capture-{kind}"
        limits = [
            "--max-tokens",
            o.tokens,
            "--max-documents",
            1,
            "--dtype",
            "f32",
            "--compute",
            kind,
        ]
        self.tool("capture", *self.text, *limits, "--out", capture)
        folders = [f"{self.work}/{command}-{kind}" for command in ("spectrum", "error")]
        for command, folder in zip(("spectrum", "error"), folders):
            length = ["--length", min(1020, o.tokens - 4)]
            self.tool("analyze", command, capture, *length, "--out", folder)
        return folders


def logits_of(hidden, weights, eps):
    """[rows, vocab] <- final hidden states [rows, dim]"""
    norm = weights["model.norm.weight"]
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    x = hidden.astype(np.float64)
    x = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * norm
    return x @ head.T.astype(np.float64)


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def compare_logits(paths, model):
    """Of two runs: root mean square difference of the logits over their standard deviation, KL in
    nats and how often the first choice is the same, over all positions."""
    weights = read_safetensors(pathlib.Path(model) / "model.safetensors")
    eps = json.loads((pathlib.Path(model) / "config.json").read_text())["rms_norm_eps"]
    hidden = [h5py.File(path)["documents/000000/final_states"][1:] for path in paths]
    square = spread = kl = same = 0.0
    for at in range(0, len(hidden[0]), 64):
        exact, coarse = (logits_of(h[at : at + 64], weights, eps) for h in hidden)
        square += np.sum(np.mean((exact - coarse) ** 2, axis=-1))
        spread += np.sum(np.var(exact, axis=-1))
        p, q = log_softmax(exact), log_softmax(coarse)
        kl += np.sum(np.exp(p) * (p - q))
        same += np.sum(exact.argmax(-1) == coarse.argmax(-1))
    rows = len(hidden[0])
    return np.sqrt(square / spread), kl / rows, same / rows


def losses(path):
    nll = h5py.File(path)["documents/000000/nll"][:]
    return nll[np.isfinite(nll)]


def largest(a, b, where, column):
    """The largest difference of a column of two frames."""
    return np.max(np.abs(np.asarray(a[column])[where(a)] - np.asarray(b[column])[where(b)]))


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", default=ROOT / "build" / "bin")
    p.add_argument("--model", default=ROOT / "data" / "litbank-1m")
    p.add_argument("--text", default=ROOT / "data" / "the_tide_mill.txt")
    p.add_argument("--tokens", type=int, default=2048)
    p.add_argument("--window", type=int, help="of FreqKV (default: a quarter of the tokens)")
    o = p.parse_args()
    with tempfile.TemporaryDirectory() as work:
        runs = Runs(o, work)
        full = [runs.replay(kind, "full", "--final-states") for kind in TYPES]
        logits, kl, same = compare_logits([path for _, path in full], o.model)
        window = ["--window", o.window or o.tokens // 4]
        freqkv = [runs.replay(kind, "freqkv", *window)[0]["mean_nll"] for kind in TYPES]
        nll = [result["mean_nll"] for result, _ in full]
        token = np.mean(np.abs(losses(full[0][1]) - losses(full[1][1])))
        spectra, errors = zip(*(runs.analysis(kind) for kind in TYPES))
        shares, errors = [share_frame(x) for x in spectra], [error_frame(x) for x in errors]
    whole = np.ones_like
    shift = max(largest(*shares, lambda f: whole(f["layer"], bool), c) for c in ("dc", "low_half"))
    relative = largest(
        *errors,
        lambda f: (np.asarray(f["measure"]) == "relative_error") & ~np.asarray(f["with_dc"]),
        "value",
    )
    for name, value in (
        ("logits: rms difference / standard deviation", f"{logits:.2%}"),
        ("KL of the predictions, nats", f"{kl:.5f}"),
        ("same first choice", f"{same:.1%}"),
        ("mean nll of full attention, f32 and bf16", f"{nll[0]:.4f}, {nll[1]:.4f}"),
        ("mean difference of a token's nll", f"{token:.4f}"),
        (
            "damage of FreqKV (mean nll over full), f32 and bf16",
            ", ".join(f"{a - b:.4f}" for a, b in zip(freqkv, nll)),
        ),
        ("largest difference of a head's DC share or lower-half share", f"{shift:.1e}"),
        ("largest difference of a head's relative error, any ratio", f"{relative:.1e}"),
    ):
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
