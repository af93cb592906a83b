#!/usr/bin/env python3
"""freqkv-replay needle against a second implementation, and its file against kills.

    check_needle.py --bin build/bin [--long] [--model DIR] [--text PATH] [--seed S]

Prompts are built again from the tokenizer's ids (freqkv-replay tokens) and from the vocabulary, and
their numbers computed by numpy_model.py: offsets, positions, keys, log-probabilities, what greedy
decoding gives, and the losses of recall. Then the command is killed at random moments, its file cut
anywhere, and started again: the file must end up with the bytes of an undisturbed run, and rows of
another run must be refused by name.
"""

import argparse
import csv
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import numpy as np
from checks import Checks, Tools
from numpy_model import Model, Policy, forward

NEEDLE = " The pass key is {key}. Remember it. {key} is the pass key."
QUESTION, ANSWER = " What is the pass key? The pass key is", " {key}"
MASK = (1 << 64) - 1


class Random:
    """splitmix64"""

    def __init__(self, state):
        self.state = state

    @staticmethod
    def mix(z):
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        return z ^ z >> 31

    def next(self):
        self.state = self.state + 0x9E3779B97F4A7C15 & MASK
        return self.mix(self.state)

    def below(self, n):
        return (self.next() >> 32) * n >> 32

    def uniform(self):
        return (self.next() >> 11) * 2.0**-53


class Texts:
    """Ids of texts through the tool, and the text of ids from the vocabulary."""

    def __init__(self, tools, model, work):
        self.tools, self.model, self.work = tools, model, work
        vocabulary = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]
        self.piece = {i: text for text, i in vocabulary.items()}

    def ids(self, path):
        """Without BOS."""
        printed = self.tools.run(
            "freqkv-replay tokens", "--quiet", "--model", self.model, f"--text={path}"
        )
        return [int(i) for i in printed.split()][1:]

    def part(self, text):
        """Ids of a text as they follow a full stop."""
        path = self.work / "part.txt"
        path.write_text("." + text, encoding="utf-8")
        return self.ids(path)[1:]

    def bytes_of(self, i):
        piece = self.piece[i]
        if piece.startswith("<0x"):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("\u2581", " ").encode()

    def ends(self, ids):
        """Where a sentence ends before a token that starts with white space."""
        found, held, stop = [0], b"", False
        for t, i in enumerate(ids):
            held += self.bytes_of(i)
            try:
                text, held = held.decode(), b""
            except UnicodeDecodeError:
                continue
            if t and stop and text[0] in " \n\r\t":
                found.append(t)
            bare = text.rstrip("\"')]\u201d\u2019\u300d")
            stop = bare[-1] in ".!?\u3002\uff01\uff1f" if bare else stop
        return found


def build(task, texts, story, ends, bos, length, depth, seed, repeat):
    """The prompt and the answer as ids, with offset, position and key."""
    draw = Random(Random.mix(seed << 32 | repeat))
    key = "".join(str(draw.below(10) if i else 1 + draw.below(9)) for i in range(5))
    u = draw.uniform()
    needle = question = answer = []
    passage = 16 if task == "recall" else 0
    if task == "needle":
        needle, question = (texts.part(t.replace("{key}", key)) for t in (NEEDLE, QUESTION))
        answer = texts.part((QUESTION + ANSWER).replace("{key}", key))[len(question) :]
    text = length - 1 - len(needle) - len(question) - passage
    fit = [e for e in ends if e + text <= len(story)]
    offset = fit[int(u * len(fit))]
    last = text - passage
    near = [e - offset for e in ends if offset <= e <= offset + last]
    at = min(near, key=lambda e: (abs(e - depth * last), e))
    body = story[offset : offset + text]
    again = body[at : at + passage]
    prompt = [bos] + body[:at] + needle + body[at:] + again + question
    return prompt, answer, offset, 1 + at, key


def greedy(model, prompt, count, policy):
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(np.argmax(forward(model, np.array(ids), policy)[0][-1])))
    return ids[len(prompt) :]


def compare(c, tools, texts, model, args, story):
    ends, seed = texts.ends(story), args.seed % 1000
    common = ["--quiet", "--model", args.model, f"--text={args.text}", "--threads", "1"]
    settings = {
        "full": ([], Policy("full")),
        "freqkv": (["--window", "48", "--gamma", "0.5"], Policy("freqkv", 48)),
        "local": (["--window", "48"], Policy("local", 48)),
    }
    if not args.long:
        settings = {"freqkv": settings["freqkv"]}
    lengths = ["90", "150"] if args.long else ["90"]
    out = texts.work / "numbers.csv"
    for task in ("needle", "recall"):
        for name, (options, policy) in settings.items():
            grid = ["--lengths", ",".join(lengths), "--depths", "0.3,1", "--seed", str(seed)]
            tools.run(
                "freqkv-replay needle",
                *common,
                *["--task", task, "--passage", "16", "--policy", name, *options, *grid],
                f"--out={out}",
            )
            c.about(f"{task}, {name}")
            rows = list(csv.DictReader(out.open(encoding="utf-8", newline="")))
            c.that("rows", len(rows) == 2 * len(lengths), len(rows))
            for row in rows:
                length, depth = int(row["length"]), float(row["depth"])
                prompt, answer, offset, position, key = build(
                    task, texts, story, ends, model.bos, length, depth, seed, int(row["repeat"])
                )
                c.that("length", len(prompt) == length, len(prompt))
                c.that("offset", int(row["offset"]) == offset, (row, offset))
                c.that("position", int(row["position"]) == position, (row, position))
                ids = np.array(prompt + answer)
                nll = -forward(model, ids[:-1], policy)[0][np.arange(len(ids) - 1), ids[1:]]
                if task == "recall":
                    first = nll[position : position + 15].mean()
                    second = nll[length - 16 :].mean()
                    c.close("first", float(row["first_nll"]), first, 1e-5)
                    c.close("second", float(row["second_nll"]), second, 1e-5)
                    c.close("gain", float(row["gain"]), first - second, 1e-4, 0.1)
                    continue
                c.that("key", row["key"] == key, (row, key))
                c.that("answer's tokens", int(row["answer_tokens"]) == len(answer), row)
                c.close("logprob", float(row["logprob"]), -nll[length - 1 :].sum(), 1e-5)
                per_token = -nll[length - 1 :].mean()
                c.close("per token", float(row["logprob_per_token"]), per_token, 1e-5)
                if not args.long and row is not rows[0]:
                    continue
                found = greedy(model, prompt, len(answer), policy)
                text = b"".join(texts.bytes_of(i) for i in found).decode(errors="ignore")
                c.that("exact", row["exact"] == str(int(found == answer)), row)
                c.that("found", row["found"] == text.replace("\n", " "), (row["found"], text))
            out.unlink()
            out.with_name(out.name + ".run").unlink()


def kill(c, args, work):
    chance = random.Random(args.seed)
    base = [str(args.bin / "freqkv-replay"), "needle", "--quiet", "--threads", "1"]
    base += ["--model", str(args.model), "--text", str(args.text), "--lengths", "200,400"]
    base += ["--repeats", "4", "--policy", "freqkv", "--window", "64"]

    def run(out, *more):
        return subprocess.run([*base, "--out", out, *more], capture_output=True, text=True)

    whole, out = work / "whole.csv", work / "killed.csv"
    started = time.monotonic()
    done = run(whole, "--json")
    duration = time.monotonic() - started
    c.about(f"kills, seed {args.seed}")
    c.that("an undisturbed run", done.returncode == 0, done.stderr)
    want = whole.read_bytes()
    c.that("a row per prompt", want.count(b"\n") == 41, want.count(b"\n"))
    for _ in range(6 if args.long else 1):
        for file in (out, work / "killed.csv.run"):
            file.unlink(missing_ok=True)
        for _ in range(2):
            process = subprocess.Popen(
                [*base, "--out", out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(chance.uniform(0.2, 1) * duration)
            process.kill()
            process.wait()
            found = out.read_bytes() if out.exists() else b""
            c.that("the start of the file", want.startswith(found), found[-200:])
        if found and chance.random() < 0.7:
            out.write_bytes(found[: chance.randrange(len(found))])
        again = run(out, "--json")
        c.that("completed", again.returncode == 0 and out.read_bytes() == want, again.stderr)
        if again.returncode == 0:
            first, second = json.loads(done.stdout), json.loads(again.stdout)
            first["out"] = second["out"] = first["prompts_there"] = second["prompts_there"] = 0
            c.that("the same summary", first == second, second)
    c.about("files of another run")
    refused = [("window", ["--window", "32"]), ("seed", ["--seed", "9"])]
    refused += [("lengths", ["--lengths", "200"]), ("needle", ["--needle", " It is {key}."])]
    refused += [("corpus_sha256", ["--text", str(work / "part.txt")]), ("task", ["--task=recall"])]
    story = args.text.read_text(encoding="utf-8")
    (work / "part.txt").write_text(story[: len(story) // 2], encoding="utf-8")
    for field, options in refused:
        command = base if field != "corpus_sha256" else [w for w in base if w != str(args.text)]
        command = command if field != "corpus_sha256" else [w for w in command if w != "--text"]
        done = subprocess.run([*command, "--out", out, *options], capture_output=True, text=True)
        named = done.returncode == 1 and f'"{field}"' in done.stderr
        c.that(field, named and out.read_bytes() == want, done.stderr)
    out.write_bytes(want.replace(b"needle,freqkv,64", b"needle,freqkv,65", 1))
    done = run(out)
    c.that("a row", done.returncode == 1 and "made by another run" in done.stderr, done.stderr)
    out.write_bytes(want)
    (work / "killed.csv.run").unlink()
    done = run(out)
    c.that("no .run", done.returncode == 1 and "what made" in done.stderr, done.stderr)
    c.about("grids")
    for option, values in (("--lengths", "200,300,200"), ("--depths", "0,0")):
        done = run(work / "twice.csv", option, values)
        c.that(f"{option} twice", done.returncode == 2 and "each once" in done.stderr, done.stderr)


def main():
    data = pathlib.Path(__file__).resolve().parents[2] / "data"
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", type=pathlib.Path, required=True)
    p.add_argument("--model", type=pathlib.Path, default=data / "litbank-1m")
    p.add_argument("--text", type=pathlib.Path, default=data / "the_tide_mill.txt")
    p.add_argument("--long", action="store_true", help="more settings, more kills")
    p.add_argument("--seed", type=int, default=time.time_ns() % 1000000)
    args = p.parse_args()
    c, tools = Checks(), Tools(args.bin)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        texts = Texts(tools, args.model, work)
        compare(c, tools, texts, Model(args.model), args, texts.ids(args.text))
        kill(c, args, work)
    c.about(None)
    print(f"needle: {c.made - c.failed} passed, {c.failed} failed (seed {args.seed})")
    sys.exit(c.failed > 0)


if __name__ == "__main__":
    main()
