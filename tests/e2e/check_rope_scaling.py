#!/usr/bin/env python3
"""--rope-scaling: losses against those of transformers with the same scaling
(tests/golden/rope_scaling.json, made by make_rope_scaling.py there), equality with a config.json
that has the scaling in it, what files say of it, and what is refused.

    check_rope_scaling.py --bin BIN
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np
from checks import check, verdict

GOLDEN, MODEL, TEXT = "tests/golden", "data/litbank-1m", "data/the_tide_mill.txt"
PLAIN = os.path.join(GOLDEN, "llama-mha")  # trained on 64 tokens
CONTEXT = 64


class Tools:
    """Runs the tools; `folder` is for what they write."""

    def __init__(self, bin_folder, folder, tokens):
        self.bin, self.folder, self.ids = bin_folder, folder, os.path.join(folder, "ids.npy")
        np.save(self.ids, np.array(tokens, np.uint16))

    def call(self, tool, *arguments):
        command = [os.path.join(self.bin, tool), *map(str, arguments)]
        command += ["--backend", "cpu", "--threads", "1"]
        return subprocess.run(command, capture_output=True, text=True)

    def ppl(self, model, *arguments):
        """nll [T - 1] as stored (None on failure), the file's attributes, stderr"""
        out = os.path.join(self.folder, "run.h5")
        files = ("--model", model, "--token-ids", self.ids, "--out", out)
        done = self.call("freqkv-replay", "ppl", *files, *arguments)
        if done.returncode:
            return None, {}, done.stderr
        with h5py.File(out) as f:
            nll, attributes = f["documents/000000/nll"][1:], dict(f.attrs)
        os.remove(out)
        return nll, attributes, done.stderr


def words(value):
    return value.decode() if isinstance(value, bytes) else value


def check_golden(tools, cases):
    for c in cases:
        name = f"{c['model']}, {c['scaling']}"
        model = os.path.join(GOLDEN, c["model"])
        nll, attributes, said = tools.ppl(model, "--rope-scaling", c["scaling"])
        if nll is None:
            check(name, False, said)
            continue
        off = np.abs(nll - c["nll"]).max()
        check(f"{name}: losses of transformers", off < 1e-4, off)
        check(f"{name}: context", attributes["trained_context"] == c["context"], attributes)
        own = c["model"] != "llama-mha"
        rope = json.loads(words(attributes["rope_scaling"]))
        check(
            f"{name}: the file says what", f"{rope['rope_type']}:{rope['factor']:g}" == c["scaling"]
        )
        check(f"{name}: and what it replaces", rope.get("replaces") == ("linear" if own else None))
        check(f"{name}: a note says so", ("linear, is replaced" in said) == own, said)


def write_config(model, folder, kind, factor, context):
    """The model with the scaling in its config, as transformers spells it."""
    os.makedirs(folder)
    for name in os.listdir(model):
        if name != "config.json":
            os.symlink(os.path.abspath(os.path.join(model, name)), os.path.join(folder, name))
    with open(os.path.join(model, "config.json")) as f:
        config = json.load(f)
    rope = {"rope_type": kind, "factor": factor, "original_max_position_embeddings": context}
    config["rope_scaling"] = rope
    if kind != "dynamic":
        config["max_position_embeddings"] = int(context * factor)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    return folder


def check_written(tools):
    """To the bit what a config with the scaling in it gives, its hash and rope_scaling included."""
    for kind, factor in (("linear", 2.5), ("yarn", 4.0), ("dynamic", 2.0)):
        typed, context = f"{kind}:{factor}", CONTEXT
        folder = os.path.join(tools.folder, kind)
        written = write_config(PLAIN, folder, kind, factor, context)
        for policy in (["full"], ["freqkv", "--window", "48"]):
            name = f"{typed}, {policy[0]}: as in a config"
            a, attributes, said = tools.ppl(PLAIN, "--rope-scaling", typed, "--policy", *policy)
            b, others, also = tools.ppl(written, "--policy", *policy)
            if a is None or b is None:
                check(name, False, said + also)
                continue
            check(name, a.tobytes() == b.tobytes(), np.abs(a - b).max())
            for field in ("config_sha256", "rope_scaling", "trained_context"):
                same = attributes[field] == others[field]
                check(f"{name}: {field}", same, (attributes[field], others[field]))
    plain, attributes, _ = tools.ppl(PLAIN)
    check("without it another hash", attributes["config_sha256"] != others["config_sha256"])


def check_commands(tools):
    """generate, needle, probe and capture take it."""
    files = ("--model", MODEL, "--rope-scaling", "linear:2")
    prompt = ("--prompt", "The miller", "--tokens", "12", "--json")
    written = write_config(MODEL, os.path.join(tools.folder, "written"), "linear", 2.0, 1024)
    done = tools.call("freqkv-replay", "generate", *files, *prompt)
    also = tools.call("freqkv-replay", "generate", "--model", written, *prompt)
    check("generate as with a config", done.stdout == also.stdout and done.stdout, done.stderr)
    done = tools.call("freqkv-replay", "generate", "--model", MODEL, *prompt)
    check("which is not the plain one", done.stdout != also.stdout, done.stdout)
    out = os.path.join(tools.folder, "needle.csv")
    needle = ("needle", *files, "--text", TEXT, "--lengths", "128", "--depths", "0.5", "--json")
    done = tools.call("freqkv-replay", *needle, "--repeats", "1", "--out", out)
    found = json.loads(done.stdout or "{}").get("trained_context")
    check("needle", found == 2048, done.stderr)
    done = tools.call("freqkv-replay", *needle, "--out", out, "--rope-scaling", "linear:4")
    check("a file of another scaling is refused", done.returncode == 1 and out in done.stderr)
    probe = ("probe", *files, "--text", TEXT, "--filter", "0:1", "--dry-run")
    done = tools.call("freqkv-replay", *probe, "--prefix", "1200", "--score", "100")
    check("probe beyond the model's own context", done.returncode == 0, done.stderr)
    out = os.path.join(tools.folder, "story.capture")
    capture = ("--model", PLAIN, "--token-ids", tools.ids, "--max-tokens", "100", "--quiet")
    done = tools.call("freqkv-capture", *capture, "--rope-scaling", "linear:2", "--out", out)
    if done.returncode:
        check("capture", False, done.stderr)
        return
    with h5py.File(os.path.join(out, "capture.h5")) as f:
        scaling = json.loads(words(f.attrs["rope_scaling"]))
        check("capture: rope_scaling", scaling["rope_type"] == "linear", scaling)
        check("capture: trained_context", f.attrs["trained_context"] == 2 * CONTEXT)
        half = 0.5 * 10000.0 ** (-2 * np.arange(4) / 8)
        check("capture: inv_freq", np.allclose(f.attrs["inv_freq"], half), f.attrs["inv_freq"])


def check_refusals(tools):
    cases = {
        "linear": "expected linear:F, yarn:F or dynamic:F",
        "llama3:8": "expected linear:F, yarn:F or dynamic:F",
        "yarn:0.5": "expected a number in [1, 1e+06], found 0.5",
        "dynamic:two": 'expected a number, found "two"',
        "yarn:1e6": None,
    }
    for typed, said in cases.items():
        nll, _, message = tools.ppl(PLAIN, "--rope-scaling", typed)
        good = nll is None and said in message if said else nll is not None
        check(f"--rope-scaling {typed}", good, message)
    runs = os.path.join(tools.folder, "runs")
    sweep = ("--policy", "freqkv", "--window", "40", "--sweep", "gamma=0.5")
    files = ("ppl", "--model", PLAIN, "--token-ids", tools.ids, "--out", runs)
    done = tools.call("freqkv-replay", *files, *sweep)
    again = tools.call("freqkv-replay", *files, *sweep, "--rope-scaling", "yarn:2")
    check("a sweep goes on only with its own", done.returncode == 0 and again.returncode == 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", required=True)
    o = parser.parse_args()
    with open(os.path.join(GOLDEN, "rope_scaling.json")) as f:
        golden = json.load(f)
    with tempfile.TemporaryDirectory() as folder:
        tools = Tools(o.bin, folder, golden["tokens"])
        check_golden(tools, golden["cases"])
        check_written(tools)
        check_commands(tools)
        check_refusals(tools)
    return verdict("rope scaling")


if __name__ == "__main__":
    sys.exit(main())
