#!/usr/bin/env python3
"""What scripts rely on, tried as somebody would who has read --help and nothing else: exit
statuses, one JSON object on stdout, what --dry-run says, lists of paths, and captures of one's own
in every way that h5py can write them.

    check_contract.py --bin build/bin [--data data] [--seed N]
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy as np
from checks import check, verdict, words


def strict(text):
    """JSON as the standard has it: no NaN, no Infinity, nothing after the object."""

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    found = json.loads(text, parse_constant=refuse)
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


class Tools:
    def __init__(self, folder, work, model, text):
        self.folder, self.work, self.model, self.text = folder, work, model, text

    def run(self, command, stdout=subprocess.PIPE):
        command = list(words(command))
        return subprocess.run(
            [self.folder / command[0], *command[1:]], stdout=stdout, stderr=subprocess.PIPE
        )

    def object(self, name, *command):
        """Runs a command with --json; its one object, or {}."""
        done = self.run([*command, "--json"])
        try:
            found = strict(done.stdout.decode())
        except ValueError as error:
            check(name, False, f"{error}; stdout {done.stdout!r}, stderr {done.stderr!r}")
            return {}
        check(name, done.returncode == 0, done.stderr)
        return found

    def ends(self, name, status, *command):
        done = self.run(command)
        check(
            name,
            done.returncode == status and (status == 0 or not done.stdout),
            f"exit status {done.returncode}, expected {status}; stdout {done.stdout!r}, stderr"
            f" {done.stderr!r}",
        )
        return done

    def path(self, name):
        path = self.work / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        return path


ANALYZE = ["spectrum", "error", "gamma", "impulse", "link", "plot", "merge", "report"]
REPLAY = ["ppl", "probe", "generate", "needle", "bench", "tokens"]


def statuses(t):
    for command in [
        ["freqkv-capture"],
        ["freqkv-analyze"],
        ["freqkv-replay"],
        *(["freqkv-analyze", c] for c in ANALYZE),
        *(["freqkv-replay", c] for c in REPLAY),
    ]:
        name = " ".join(command)
        for option in ("--help", "--usage", "--version"):
            done = t.ends(f"{name} {option}", 0, *command, option)
            check(f"{name} {option} prints", done.stdout and not done.stderr, done)
        examples = re.findall(
            r"^Examples?.*\n((?:.+\n)*)", t.run([*command, "--help"]).stdout.decode(), re.M
        )
        broken = [
            line for block in examples for line in block.splitlines() if not line.startswith("  ")
        ]
        check(f"{name} --help has examples that can be copied", not broken, broken)
        t.ends(f"{name} without options", 2, *command)
        t.ends(f"{name} --nonsense", 2, *command, "--nonsense")
    engine = ["--model", t.model, "--text", t.text]
    ppl = ["freqkv-replay ppl", *engine, "--policy freqkv --tokens 100 --window 64"]
    for wrong in (
        ["--policy", "best"],
        ["--backend", "gpu"],
        ["--gamma", "half"],
        ["--gamma", "@"],
        ["--gamma", ""],
        ["--gamma", "0.5,"],
        ["--compute", "f64"],
        ["--cache-dtype", "int8"],
        ["--cache-quant", "q5"],
        ["--cache-quant-keys", "before"],
        ["--token-dtype", "int32"],
        ["--protocol", "stride"],
        ["--rescale", "no"],
        ["stray"],
    ):
        t.ends("ppl " + " ".join(wrong), 2, *ppl, *wrong)
    t.ends("ppl --out of nothing", 1, *ppl, "--out", "")
    for isa, said in (("avx512", b"bfloat16"), ("avx1024", b"FKV_MAX_ISA: expected plain, ")):
        os.environ["FKV_MAX_ISA"] = isa
        done = t.ends(f"ppl in bf16 on {isa}", 1, *ppl, "--compute bf16")
        check(f"ppl in bf16 on {isa} says why", said in done.stderr, done)
        del os.environ["FKV_MAX_ISA"]
    every = [
        t.object(
            f"{policy} takes the options of all",
            "freqkv-replay ppl",
            *engine,
            "--policy",
            policy,
            "--window 64 --gamma 0.5 --tokens 100",
        )
        for policy in ("full", "freqkv", "local", "streaming")
    ]
    check(
        "a ratio stands where there is one",
        [p.get("gamma") for p in every] == [None, 0.5, 0.5, None],
        every,
    )
    nine = t.object(
        "impulse at nine ratios",
        "freqkv-analyze impulse --window 128 --gamma 0.1:0.9:0.1 --rounds 2",
        "--out",
        t.path("impulse"),
    )
    check(
        "impulse at nine ratios",
        [x["gamma"] for x in nine.get("ratios", [])]
        == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
        nine,
    )
    for command in (
        ppl,
        [*ppl, "--json"],
        ["freqkv-replay", "tokens", *engine],
        ["freqkv-replay", "generate", "--model", t.model, "--prompt", "The", "--tokens", "3"],
        ["freqkv-analyze", "impulse", "--window", "64", "--out", t.path("full")],
        [
            "freqkv-capture",
            *engine,
            "--max-tokens 100 --max-documents 1 --out",
            t.path("full-capture"),
        ],
    ):
        with open("/dev/full", "w") as full:
            done = t.run(command, stdout=full)
        check(
            f"{command[0]} {command[1]} to a full disk",
            done.returncode == 1 and b"standard output" in done.stderr,
            done,
        )


def lists(t):
    """--text and --token-ids take what a shell makes of a pattern, one after the other or with the
    option repeated.
    """
    text = pathlib.Path(t.text).read_text()
    folder = t.path("texts of é")
    folder.mkdir()
    paths = [folder / f"{i} ü.txt" for i in range(3)]
    for i, path in enumerate(paths):
        path.write_text(text[400 * i : 400 * (i + 1)])
    tokens = ["freqkv-replay", "tokens", "--model", t.model]
    each = [t.ends("tokens", 0, *tokens, "--text", path).stdout for path in paths]
    for name, arguments in (
        ("a folder", ["--text", folder]),
        ("several", ["--text", *paths]),
        ("repeated", [x for path in paths for x in ("--text", path)]),
        ("both", ["--text", paths[0], paths[1], f"--text={paths[2]}"]),
        ("after =", [f"--text={paths[0]}", *paths[1:]]),
    ):
        done = t.ends("tokens of " + name, 0, *tokens, *arguments)
        check("tokens of " + name, done.stdout == b"".join(each), done)
    done = t.ends(
        "texts before other options", 0, "freqkv-replay tokens --text", *paths, "--model", t.model
    )
    check("texts before other options", done.stdout == b"".join(each), done)
    t.ends(
        "a path that follows another option",
        2,
        *tokens,
        "--text",
        paths[0],
        "--max-documents 2",
        paths[1],
    )
    ids = [np.array(line.split(), dtype=int) for line in each]
    for kind in ("<i8", ">i4", "<u2"):
        for i, array in enumerate(ids):
            np.save(folder / f"{i}.npy", array.astype(kind))
        done = t.ends(
            "ids as " + kind, 0, *tokens, "--token-ids", *(folder / f"{i}.npy" for i in range(3))
        )
        check("ids as " + kind, done.stdout == b"".join(each), done)
    capture = t.path("capture of several")
    found = t.object(
        "capture of several", "freqkv-capture --model", t.model, "--text", *paths, "--out", capture
    )
    check("capture of several", found.get("documents") == 3, found)
    empty = folder / "empty.jsonl"
    empty.write_text("\n\n")
    t.ends("tokens of no document", 1, *tokens, "--text", empty, "--json")
    name = os.fsencode(t.work) + b"/caf\xe9.capture"
    done = subprocess.run(
        [
            os.fsencode(t.folder / "freqkv-capture"),
            b"--model",
            os.fsencode(t.model),
            b"--text",
            os.fsencode(paths[0]),
            b"--out",
            name,
            b"--json",
        ],
        capture_output=True,
    )
    check(
        "a name that is not UTF-8",
        done.returncode == 0 and "UTF-8" in strict(done.stdout.decode())["capture"],
        done,
    )


def work_texts(t):
    return sorted((t.work / "texts of é").glob("*.txt"))


NEEDS = {"disk_bytes": int, "memory_bytes": int, "memory_available": int, "seconds": float}


def needs(t, capture):
    """--dry-run prints to stdout, as a table or as one object, and writes nothing."""
    engine, out = ["--model", t.model, "--text", t.text], t.path("dry")
    prompts = t.path("in.jsonl")
    prompts.write_text('{"prompt": "The miller"}\n')
    for command in (
        ["freqkv-capture", *engine, "--out", out],
        ["freqkv-capture", *engine, "--out", out, "--spectra-only"],
        ["freqkv-replay ppl", *engine, "--policy freqkv --window 64 --baseline full --out", out],
        [
            "freqkv-replay ppl",
            *engine,
            "--policy freqkv --window 64 --sweep gamma=0.1:0.9:0.1 --out",
            out,
        ],
        ["freqkv-replay", "probe", *engine, "--filter", "0:0.5", "--out", out],
        ["freqkv-replay", "generate", "--model", t.model, "--prompts", prompts, "--out", out],
        ["freqkv-analyze", "spectrum", capture, "--out", out, "--length", "64"],
        ["freqkv-analyze", "error", capture, "--out", out, "--length", "64", "--bounds"],
        ["freqkv-analyze", "gamma", capture, "--out", out, "--length", "64", "--budget", "0.5"],
    ):
        name = " ".join(command[:2]) + " --dry-run"
        found = t.object(name + " --json", *command, "--dry-run")
        for key, kind in NEEDS.items():
            check(f"{name} --json: {key}", type(found.get(key)) is kind and found[key] >= 0, found)
        check(f"{name} --json: tokens", found.get("tokens", 0) > 0, found)
        for option in ([], ["--quiet"]):
            done = t.ends(name, 0, *command, "--dry-run", *option)
            check(
                f"{name} {option} says bytes and time",
                all(word in done.stdout for word in (b"memory", b"disk", b"iB", b"time"))
                and not done.stderr,
                done,
            )
        check(name + " writes nothing", not out.exists(), out)
    found = t.object(
        "merge --dry-run", "freqkv-analyze", "merge", capture, "--out", out, "--dry-run"
    )
    run = t.path("run.h5")
    t.ends(
        "a run to link",
        0,
        "freqkv-replay ppl --model",
        t.model,
        "--text",
        work_texts(t)[0],
        "--policy freqkv --window 68 --out",
        run,
    )
    linking = [
        "freqkv-analyze link --runs",
        run,
        "--capture",
        t.work / "capture of one",
        "--out",
        out,
        "--dry-run",
    ]
    t.ends(
        "a capture to link",
        0,
        "freqkv-capture --model",
        t.model,
        "--text",
        work_texts(t)[0],
        "--out",
        t.path("capture of one"),
    )
    linked = t.object("link --dry-run --json", *linking)
    check(
        "link --dry-run --json: what it needs",
        linked.get("tokens") == 64 * linked.get("segments", 0) > 0
        and linked["memory_bytes"] > 0
        and not out.exists(),
        linked,
    )
    done = t.ends("link --dry-run", 0, *linking, "--quiet")
    check(
        "link --dry-run",
        b"memory" in done.stdout
        and b"time" in done.stdout
        and not done.stderr
        and not out.exists(),
        done,
    )
    size = sum(
        os.path.getsize(path)
        for path in (*(capture / "documents").iterdir(), capture / "output_gram.h5")
    )
    check(
        "merge --dry-run: what is there",
        found.get("disk_bytes") == size and found.get("recordings") == 3 and not out.exists(),
        found,
    )


def generation(t):
    prompts, out = t.path("prompts é.jsonl"), t.path("continued é.jsonl")
    rows = [{"prompt": "The miller", "id": 7}, {"id": "b", "prompt": "Ünïcödé"}, {"prompt": ""}]
    prompts.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    found = t.object(
        "generate --prompts --json",
        "freqkv-replay generate --model",
        t.model,
        "--prompts",
        prompts,
        "--out",
        out,
        "--tokens 5",
    )
    check(
        "generate: summary",
        found.get("prompts") == 3 and found.get("tokens") == 15 and found.get("out") == str(out),
        found,
    )
    lines = [strict(line) for line in out.read_text(encoding="utf-8").splitlines()]
    check(
        "generate: lines",
        [(x["prompt"], x.get("id")) for x in lines] == [(x["prompt"], x.get("id")) for x in rows],
        lines,
    )
    one = t.object(
        "generate --prompt --json",
        "freqkv-replay generate --model",
        t.model,
        "--prompt",
        "The miller",
        "--tokens 5",
    )
    check("generate: one prompt is one line", {**one, "id": 7} == lines[0], (one, lines[0]))
    command, whole = (
        [
            "freqkv-replay generate --model",
            t.model,
            "--prompts",
            prompts,
            "--out",
            out,
            "--tokens 5",
        ],
        out.read_bytes(),
    )
    t.ends("generate over a file", 1, *command)
    check("generate over a file leaves it", out.read_bytes() == whole, out)
    for bytes_left in (len(whole), len(whole) - 1, whole.index(b"\n") + 1, 0):
        out.write_bytes(whole[:bytes_left])
        again = t.object("generate --resume --json", *command, "--resume")
        check(
            "generate --resume: all prompts are in the summary",
            all(again[key] == found[key] for key in ("prompts", "prompt_tokens", "tokens")),
            again,
        )
        check(
            "generate --resume: how many were there",
            again["prompts_there"] == whole[:bytes_left].count(b"\n"),
            again,
        )
        check(
            "generate --resume: no speed of nothing",
            (again["decode_tokens_per_s"] is None) == (again["prompts_there"] == 3),
            again,
        )
        check("generate --resume: the bytes of an undisturbed run", out.read_bytes() == whole, out)
    planned = t.object("generate --resume --dry-run --json", *command, "--resume", "--dry-run")
    check(
        "generate --resume --dry-run: nothing is left",
        planned.get("documents") == 0 and planned.get("tokens") == 0,
        planned,
    )
    fresh = t.path("started by --resume.jsonl")
    t.ends(
        "generate --resume of nothing", 0, *command[:6], "--out", fresh, "--tokens", "5", "--resume"
    )
    check("generate --resume of nothing starts", fresh.read_bytes() == whole, fresh)


def provenance(t):
    """A run and a probe say which command made them, as a shell takes it back."""
    for command, out in (
        (["ppl", "--tokens", "60"], "a run, it's 'mine' é.h5"),
        (["probe", "--prefix", "40", "--score", "8", "--filter", "0:0.5"], "a probe & $HOME.h5"),
    ):
        arguments = [
            *command,
            "--model",
            str(t.model),
            "--text",
            str(t.text),
            "--out",
            str(t.path(out)),
            "--quiet",
        ]
        t.ends("out " + out, 0, "freqkv-replay", *arguments)
        with h5py.File(t.work / out) as f:
            check(
                f"{command[0]}: the command",
                shlex.split(f.attrs["command"]) == ["freqkv-replay", *arguments],
                f.attrs["command"],
            )


def brain(x):
    return (x.view(np.uint32) >> 16).astype(np.uint16)


def own_files(t, seed):
    """Keys and values in one's own file, however it was written: the same energies. (`gamma` draws
    least and so is the quickest to ask.)
    """
    print("seed", seed)
    rng = np.random.default_rng(seed)
    layers, heads, tokens, dim = 2, 3, 200, 8
    key, value = (
        rng.standard_normal((2, layers, heads, tokens, dim)).cumsum(axis=-2).astype(np.float32)
    )
    shape, reference = dict(n_layers=layers, n_kv_heads=heads, head_dim=dim), {}

    def put(node, k=key, v=value, **how):
        node.create_dataset("key", data=k, **how)
        node.create_dataset("value", data=v, **how)

    def analyze(name, fill, attributes=shape, words=None, **how):
        path, out = t.path("own é.h5"), t.path("own findings")
        with h5py.File(path, "w", **how) as f:
            f.attrs.update(attributes)
            fill(f)
        command = [
            "freqkv-analyze gamma",
            path,
            "--out",
            out,
            "--length 64 --skip-sinks 0 --budget 0.25 --quiet",
        ]
        if words:
            done = t.ends("own file: " + name, 1, *command, "--json")
            check(
                f"own file: {name} is named",
                all(word in done.stderr.decode() for word in words),
                done,
            )
            return
        found = t.object("own file: " + name, *command)
        mean = np.mean(found.get("gamma", [1]))
        check(
            f"own file: {name}: the mean is that of the table, and within the budget",
            found.get("mean_gamma") == mean <= 0.25,
            (found.get("mean_gamma"), mean),
        )
        lost = {state: loss["uniform"] for state, loss in found.get("losses", {}).items()}
        expected = reference.setdefault("lost", lost)
        check(
            f"own file: {name}: the same numbers",
            lost and all(abs(lost[x] / expected[x] - 1) < 0.01 for x in lost),
            (lost, expected),
        )

    for group in ("/", "document", "documents/000000", "documents/a text, 1"):
        analyze("in " + group, lambda f: put(f.require_group(group)))
    for kind in (
        np.int32,
        np.uint8,
        np.uint64,
        np.float64,
        np.array,
        lambda x: np.array([x]),
        lambda x: np.array(x, ">i4"),
    ):
        analyze(
            f"sizes as {kind(1)!r}",
            lambda f: put(f),
            {name: kind(size) for name, size in shape.items()},
        )
    for kind in ("f8", "f2", ">f4", ">f2", ">f8"):
        analyze("states as " + kind, lambda f: put(f, key.astype(kind), value.astype(kind)))
    for how in (
        dict(compression="gzip"),
        dict(compression="gzip", shuffle=True, fletcher32=True, chunks=(1, 1, 50, 8)),
        dict(chunks=(2, 2, 7, 3)),
        dict(maxshape=(None,) * 4),
    ):
        analyze(f"stored with {how}", lambda f: put(f.create_group("documents/0"), **how))
    for how in (
        dict(track_order=True),
        dict(libver="latest"),
        dict(libver="earliest"),
        dict(userblock_size=512),
    ):
        analyze(f"a file with {how}", lambda f: put(f.create_group("documents/0")), **how)

    def brains(where, word):
        def fill(f):
            put(f, brain(key), brain(value))
            for node in [f] if where == "root" else [f["key"], f["value"]]:
                node.attrs["dtype"] = word

        return fill

    for word in (
        "bf16",
        "bfloat16",
        np.bytes_("bf16"),
        np.array(["bf16"], dtype=h5py.string_dtype()),
    ):
        analyze(f"bf16 by {word!r} of each dataset", brains("datasets", word))
        analyze(f"bf16 by {word!r} of the file", brains("root", word))
    for word in ("float32", "f32", "torch.float32", "<f4"):
        analyze(f"dtype {word}", lambda f: put(f), {**shape, "dtype": word})
    analyze(
        "uint16 that nothing explains",
        lambda f: put(f, brain(key), brain(value)),
        words=["key", "bf16", "integers"],
    )
    analyze(
        "integers",
        lambda f: put(f, key.astype("i4"), value.astype("i4")),
        words=["key", "integers"],
    )
    analyze(
        "half a head", lambda f: put(f), {**shape, "n_kv_heads": 2.5}, words=["n_kv_heads", "2.5"]
    )
    analyze(
        "compressed with LZF", lambda f: put(f, compression="lzf"), words=["key", "lzf", "gzip"]
    )
    for name in shape:
        analyze(
            "without " + name,
            lambda f: put(f),
            {k: v for k, v in shape.items() if k != name},
            words=[name],
        )


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", default="build/bin")
    p.add_argument("--data", default="data")
    p.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    args = p.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="fkv-contract-"))
    data = pathlib.Path(os.path.abspath(args.data))
    t = Tools(
        pathlib.Path(os.path.abspath(args.bin)),
        work,
        data / "litbank-1m",
        data / "the_tide_mill.txt",
    )
    try:
        statuses(t)
        lists(t)
        needs(t, work / "capture of several")
        generation(t)
        provenance(t)
        own_files(t, args.seed)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sys.exit(verdict("contract"))


if __name__ == "__main__":
    main()
