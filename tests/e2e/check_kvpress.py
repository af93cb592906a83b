#!/usr/bin/env python3
"""The selecting policies against kvpress' presses, on the same random models: kept indices, and
losses after the prompt was cut.

    check_kvpress.py --bin BIN [--venv DIR] [--rounds N] [--seed N]

The definitions are the same for SnapKVPress, KeyDiffPress and KnormPress, and for PyramidKVPress
where all layers keep the same (beta = 1); its budgets otherwise differ (`freqkv-replay policies
pyramidkv`). Indices are compared with check_selecting.py's second implementation, losses with the
tool. Without kvpress and torch the check is left out; --venv installs them there first.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np

WANTED = ("kvpress==0.5.5", "h5py")


def enter(venv):
    """Goes on as the venv's Python, with the packages there; returns where they cannot be had."""
    python = os.path.join(os.path.abspath(venv), "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    have = subprocess.run([python, "-c", "import kvpress, h5py"], capture_output=True)
    command = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *WANTED]
    if have.returncode and subprocess.run(command).returncode:
        return
    os.execv(python, [python, *sys.argv])


def press_of(kind, budget, tokens, observe, kernel):
    import kvpress

    ratio = 1 - (budget + 0.25) / tokens  # the slots kept are cut to a whole number
    if kind == "knorm":
        return kvpress.KnormPress(compression_ratio=ratio)
    if kind == "keydiff":
        return kvpress.KeyDiffPress(compression_ratio=ratio)
    window = {"compression_ratio": ratio, "window_size": observe, "kernel_size": kernel}
    if kind == "pyramidkv":
        return kvpress.PyramidKVPress(**window, beta=1)
    return kvpress.SnapKVPress(**window)


def keys_of(cache):
    return [layer.keys[0].numpy() for layer in cache.layers]


def run_press(folder, press, ids, block):
    """[layer][head] -> kept token indices; losses of the tokens after the prompt."""
    import torch
    from transformers import DynamicCache, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    prompt, losses = torch.tensor([ids[:block]]), []
    with torch.no_grad():
        whole, cache = DynamicCache(), DynamicCache()
        model(prompt, past_key_values=whole)
        with press(model):
            model(prompt, past_key_values=cache)
        kept = [
            [
                sorted(int(np.argmin(np.abs(every - key).max(1))) for key in head)
                for head, every in zip(layer, all_)
            ]
            for layer, all_ in zip(keys_of(cache), keys_of(whole))
        ]
        for t in range(block, len(ids) - 1):
            at = torch.tensor([t])
            logits = model(
                torch.tensor([[ids[t]]]),
                past_key_values=cache,
                position_ids=at[None],
                cache_position=at,
            ).logits[0, -1]
            losses.append(-torch.log_softmax(logits.double(), -1)[ids[t + 1]].item())
    return kept, np.array(losses)


def check_round(tool, folder, random, kind):
    """label, problems; None where a round has to be drawn again"""
    from check_selecting import TIE, Selecting, draw_tokens, read_run, run, write_model
    from numpy_model import forward

    class Recording(Selecting):
        def select(self, scores, budget):
            found = super().select(scores, budget)
            self.chosen.append(found)
            return found

    model = write_model(os.path.join(folder, "model"), random)
    block = int(random.integers(40, 90))
    ids = draw_tokens(random, block + 20)
    observe = int(random.integers(2, 9))
    budget = int(random.integers(2 * observe + 1, block - observe))
    policy = Recording(
        kind, model.layers, block, budget, observe, kernel=2 * int(random.integers(0, 4)) + 1
    )
    policy.beta, policy.chosen = 1, []
    forward(model, np.array(ids), policy)
    label = f"{' '.join(policy.arguments()[1:])} blocks:{block}"
    if policy.margin < TIE:
        return label, None
    press = press_of(kind, budget, block, observe, policy.kernel)
    kept, want = run_press(os.path.join(folder, "model"), press, ids, block)
    problems = []
    if policy.chosen != [head for layer in kept for head in layer]:
        problems.append("kept indices differ")
    out = os.path.join(folder, "run.h5")
    arguments = [*policy.arguments(), "--protocol", f"blocks:{block}"]
    _, failed = run(tool, folder, [ids], arguments, out)
    if failed:
        return label, [failed]
    off = np.abs(read_run(out)[0][0][block + 1 :] - want).max()
    if not off <= 1e-3:
        problems.append(f"a token's loss differs by {off:.2g}")
    return label, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", required=True)
    parser.add_argument("--venv", help="where kvpress is, or is installed to")
    parser.add_argument("--rounds", type=int, default=4, help="of every policy")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    o = parser.parse_args()
    if o.venv and os.path.abspath(o.venv) != os.path.abspath(sys.prefix):
        enter(o.venv)
    try:
        import kvpress  # noqa: F401
    except ImportError as error:
        print(f"left out: {error}")
        return 0
    tool = os.path.join(o.bin, "freqkv-replay")
    random = np.random.default_rng(o.seed)
    print("seed", o.seed)
    failures = 0
    for kind in ("snapkv", "pyramidkv", "keydiff", "knorm"):
        done = 0
        while done < o.rounds:
            with tempfile.TemporaryDirectory() as folder:
                label, problems = check_round(tool, folder, random, kind)
            if problems is None:
                continue
            done += 1
            failures += bool(problems)
            print("FAIL" if problems else "ok  ", label, flush=True)
            for problem in problems:
                print("     ", problem)
    print(f"{failures} of the checks failed" if failures else "all checks passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
