"""The table's rows: what is measured, ours, the rivals, the limit, the goal."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import contenders as c
from models import Models
from settings import ROOT, Settings
from turns import Contender, Outcome, Result

Limits = dict[str, float]


@dataclass
class Row:
    key: str
    what: str
    unit: str
    more_is_better: bool
    ours: Contender
    rivals: list[Contender] = field(default_factory=list)
    limit: Callable[[Limits], float] | Contender | None = None
    limit_name: str = ""
    goal: str = ""
    check: Callable[[list[Outcome]], Result] = lambda outcomes: {}


def of_large(m: Models, name: str) -> tuple[str, str]:
    """What marks a row of the 1.1B model: in its key, in its name."""
    return ("-1b", ", 1.1B model") if name == m.large else ("", "")


def shape(models: Models, model: str) -> dict[str, int]:
    return json.loads((Path(models.need(model)) / "config.json").read_text())


def flops(models: Models, model: str, slots: float, scored: float) -> float:
    """Of one token that sees `slots` keys on average and is scored with probability `scored`."""
    s = shape(models, model)
    q, kv = (s[f"num_{k}_heads"] * s["head_dim"] for k in ("attention", "key_value"))
    layer = s["hidden_size"] * (2 * q + 2 * kv + 3 * s["intermediate_size"]) + 2 * q * slots
    head = scored * s["hidden_size"] * s["vocab_size"]
    return 2 * (s["num_hidden_layers"] * layer + head)


def token_seconds(limits: Limits, m: Models, dtype: str, slots: float, scored: float) -> float:
    """Of a token of the 135M model at the measured rate of products."""
    return 1e-9 * flops(m, f"{m.small}-{dtype}", slots, scored) / limits[f"product_{dtype}"]


def decode_bytes(models: Models, model: str, slots: float, size: int) -> float:
    """What one decoded token reads: the linear layers, the head, the cache, all of `size` bytes."""
    s = shape(models, model)
    kv = s["num_key_value_heads"] * s["head_dim"]
    weights = flops(models, model, 0, 1) / 2
    return size * (weights + 2 * s["num_hidden_layers"] * kv * slots)


def prefill(s: Settings, m: Models, name: str, tokens: int, dtype: str) -> Row:
    model, (mark, words) = f"{name}-{dtype}", of_large(m, name)
    return Row(
        key=f"prefill-{tokens}-{dtype}{mark}",
        what=f"prefill of {tokens} tokens, {dtype}{words}",
        unit="tokens/s",
        more_is_better=True,
        ours=c.ours_prefill(s, m, name, dtype, tokens),
        rivals=c.rivals_generate(s, m, name, dtype, c.prefill_prompts(tokens), 1),
        limit=lambda limits: 1e9 * limits[f"product_{dtype}"] / flops(m, model, tokens / 2, 0),
        limit_name="products",
        goal="1.0x transformers, 1.5x llama.cpp",
        check=c.same_ids,
    )


def decode(s: Settings, m: Models, name: str, after: int, dtype: str, drawn: int) -> Row:
    model, (mark, words) = f"{name}-{dtype}", of_large(m, name)
    size, types = (4, "f32") if dtype == "f32" else (2, "16-bit")
    return Row(
        key=f"decode-{after}-{dtype}{mark}",
        what=f"decoding after {after} tokens, {types} weights and cache{words}",
        unit="tokens/s",
        more_is_better=True,
        ours=c.ours_decode(s, m, name, dtype, after, drawn),
        rivals=c.rivals_generate(s, m, name, dtype, [after], drawn),
        limit=lambda limits: 1e9 * limits["read"] / decode_bytes(m, model, after + drawn / 2, size),
        limit_name="read bandwidth",
        goal="1.0x llama.cpp",
        check=c.same_ids,
    )


def ppl(s: Settings, m: Models, dtype: str) -> Row:
    tokens, chunk = 16384, 2048
    return Row(
        key=f"ppl-{dtype}",
        what=f"perplexity, {tokens} tokens in chunks of {chunk}, {dtype}",
        unit="s",
        more_is_better=False,
        ours=c.ours_ppl(s, m, dtype, tokens, ["--protocol", f"chunks:{chunk}"], c.wall),
        rivals=c.rivals_ppl(s, m, dtype, tokens, chunk),
        limit=lambda limits: tokens * token_seconds(limits, m, dtype, chunk / 2, 0.5),
        limit_name="products",
        goal="1.0x transformers",
        check=c.same_nll(dtype),
    )


WINDOW = 2048
POLICY = ["--policy", "freqkv", "--window", str(WINDOW), "--gamma", "0.5"]


def freqkv(s: Settings, m: Models, windows: int, dtype: str) -> Row:
    """The rival runs at 8 windows only: at 32 it takes minutes."""
    tokens = windows * WINDOW
    return Row(
        key=f"freqkv-{windows}-{dtype}",
        what=f"FreqKV over {windows} windows of {WINDOW} tokens, {dtype}",
        unit="ms/token",
        more_is_better=False,
        ours=c.ours_ppl(s, m, dtype, tokens, POLICY, c.wall_per_token(tokens)),
        rivals=[c.plain_freqkv(s, m, dtype, tokens, WINDOW)] if windows == 8 else [],
        limit=lambda limits: 1e3 * token_seconds(limits, m, dtype, 0.75 * WINDOW, 1),
        limit_name="products",
        goal="1.5x the script, flat within 5%",
        check=c.same_nll(dtype),
    )


def compressing(s: Settings, m: Models, dtype: str) -> Row:
    tokens = 8 * WINDOW
    return Row(
        key=f"freqkv-compression-{dtype}",
        what=f"time that compressing takes of FreqKV over {tokens} tokens, {dtype}",
        unit="%",
        more_is_better=False,
        ours=c.ours_ppl(s, m, dtype, tokens, POLICY, c.compression_percent),
        goal="1",
    )


def capture(s: Settings, m: Models, dtype: str) -> Row:
    tokens = 8192
    return Row(
        key=f"capture-{dtype}",
        what=f"capture of {tokens} tokens with nll, {dtype}",
        unit="s",
        more_is_better=False,
        ours=c.ours_capture(s, m, dtype, tokens),
        rivals=[c.forward_and_h5py(s, m, dtype, tokens)],
        limit=lambda limits: tokens * token_seconds(limits, m, dtype, tokens / 2, 1),
        limit_name="products",
        goal="1.0x",
        check=c.same_nll(dtype),
    )


def capture_cost(s: Settings, key: str, what: str, model: str, sizes: list[str], goal: str) -> Row:
    return Row(
        key=key,
        what=f"capture over prefill with nll, {what}",
        unit="x",
        more_is_better=False,
        ours=c.capture_cost(s, model, sizes),
        goal=goal,
    )


def analyze(s: Settings, m: Models, job: str, what: str, goal: str) -> Row:
    length = 8188
    return Row(
        key=job,
        what=f"{what} of 6 x 8192 tokens",
        unit="s",
        more_is_better=False,
        ours=c.ours_analyze(s, m, job, length),
        rivals=[c.numpy_analyze(s, m, job, length, "numpy + scipy + h5py")],
        limit=c.numpy_analyze(s, m, "read", length, "h5py reading"),
        limit_name="h5py reading",
        goal=goal,
        check=c.same_results(s),
    )


def analyze_peak(s: Settings, m: Models, job: str, what: str) -> Row:
    return Row(
        key=f"{job}-memory",
        what=f"memory of {what} of 24 x 8192 tokens (4.5 GB)",
        unit="MiB",
        more_is_better=False,
        ours=c.ours_analyze_peak(s, m, job, 8188),
        goal="1024",
    )


def dct(s: Settings) -> Row:
    return Row(
        key="dct",
        what="DCT of 4092 tokens x 1024 channels, f32, one core",
        unit="ms",
        more_is_better=False,
        ours=c.bench_dct(s, "ours", "forward"),
        rivals=[c.bench_dct(s, "FFTW, strided", "FFTW"), c.numpy_dct(s, "scipy")],
        limit=c.numpy_dct(s, "copy"),
        limit_name="copying it",
        goal="15x FFTW, 3x scipy, 3x the copy's time",
    )


def beside_one(s: Settings, make: Callable[[Settings], Row], goal: str) -> Row:
    """A row of ours on all threads, whose rival is ours on one."""
    row, alone = make(s), make(replace(s, threads=1))
    return replace(
        row,
        key=f"{row.key}-threads",
        what=f"{row.what}, {s.threads} threads beside one",
        rivals=[replace(alone.ours, name="ours, 1 thread")],
        limit=None,
        goal=f"{goal} on two cores",
    )


def crowded(s: Settings, row: Row, kind: str, words: str) -> Row:
    """A row of ours beside a second program, whose rival is ours alone."""
    command = [*s.script("beside.py"), kind, *row.ours.command]
    return replace(
        row,
        key=f"{row.key}-beside-{kind}",
        what=f"{row.what}, beside {words}",
        ours=replace(row.ours, command=command),
        rivals=[replace(row.ours, name="ours, alone")],
        limit=None,
        goal="0.45x: at most 2.2 times as long",
    )


def all_rows(s: Settings, m: Models) -> list[Row]:
    both = ("f32", "bf16")
    analyses = (
        ("spectrum", "`spectrum` with null", "12x"),
        ("error", "`error`", "6x, 1.5x the reading's time"),
    )
    second = (("loop", "a busy loop"), ("twin", "a second run of it"))
    small = m.path(f"{m.small}-f32")
    return [
        *(prefill(s, m, m.small, n, d) for d in both for n in (512, 2048, 4096, 8192)),
        prefill(s, m, m.large, 512, "bf16"),
        *(decode(s, m, m.small, n, d, 64) for n in (32, 4096) for d in both),
        decode(s, m, m.large, 32, "bf16", 16),
        *(ppl(s, m, d) for d in both),
        *(freqkv(s, m, 8, d) for d in both),
        *(freqkv(s, m, windows, "f32") for windows in (4, 16, 32)),
        *(compressing(s, m, d) for d in both),
        *(capture(s, m, d) for d in both),
        capture_cost(s, "capture-cost", "135M model", small, ["2", "3", "2048"], "1.05x"),
        capture_cost(
            s,
            "capture-cost-embedded",
            "embedded model",
            str(ROOT / "data" / "litbank-1m"),
            ["64", "7", "1024"],
            "1.10x",
        ),
        *(analyze(s, m, *a) for a in analyses),
        *(analyze_peak(s, m, job, what) for job, what, _ in analyses),
        dct(s),
        *(beside_one(s, lambda s, d=d: prefill(s, m, m.small, 2048, d), "1.8x") for d in both),
        *(beside_one(s, lambda s, d=d: decode(s, m, m.small, 32, d, 64), "1.6x") for d in both),
        *(beside_one(s, lambda s, a=a: analyze(s, m, *a), "1.8x") for a in analyses),
        *(crowded(s, prefill(s, m, m.small, 2048, d), *k) for d in both for k in second),
        *(crowded(s, decode(s, m, m.small, 32, d, 64), *k) for d in both for k in second),
    ]
