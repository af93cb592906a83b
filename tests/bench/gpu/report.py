"""The GPU benchmark's lines (bench.py) as the README's tables.

    report.py RESULTS.jsonl...

Several runs of one machine may be joined; the last line of a kind counts.
"""

import argparse
import json
import math
import pathlib

SINKS, BYTES = 4, 2  # bf16


class Results:
    def __init__(self, lines):
        self.configs = {x["model"]: x["config"] for x in lines if x["row"] == "config"}
        self.failures = [x for x in lines if x["row"] == "failed"]
        self.machine = next(
            (x["device"] for x in reversed(lines) if x["row"] == "load"), "an unknown machine"
        )
        self.lines = {
            (x["side"], x["model"], x["row"], x["policy"], x["tokens"]): x
            for x in lines
            if "seconds" in x
        }

    def get(self, side, model, row, policy, tokens=None):
        """The line, or None; `tokens` None: any length."""
        if tokens is not None:
            return self.lines.get((side, model, row, policy, tokens))
        return next((x for k, x in self.lines.items() if k[:4] == (side, model, row, policy)), None)

    def lengths(self, model, row):
        return sorted({k[4] for k in self.lines if k[1:3] == (model, row)})

    def limit(self, row, amount):
        """Measured by the machine itself, whichever model was at hand."""
        found = [x for k, x in self.lines.items() if k[2] == row]
        return found[-1][amount] / found[-1]["seconds"] if found else math.nan


def sizes(c):
    heads = c["num_attention_heads"]
    head_dim = c.get("head_dim") or c["hidden_size"] // heads
    return (
        c["num_hidden_layers"],
        c["hidden_size"],
        c["intermediate_size"],
        heads,
        c["num_key_value_heads"],
        head_dim,
        c["vocab_size"],
    )


def prefill_flops(c, tokens):
    """2 per multiply-add. Every token goes through the layers' matrices: Q and output (dim x heads
    head_dim each), K and V, and three of the MLP. Attention is counted causally: token i meets i +
    1 keys, in two products (scores, values) of head_dim multiply-adds per head, T (T + 1) / 2 pairs
    in all. The head (vocab x dim) acts on the last token alone; norms, rotation and softmax are not
    counted.
    """
    layers, dim, hidden, heads, kv_heads, head_dim, vocab = sizes(c)
    matrices = layers * (
        2 * dim * heads * head_dim + 2 * dim * kv_heads * head_dim + 3 * dim * hidden
    )
    pairs = tokens * (tokens + 1) / 2
    return 2 * matrices * tokens + 2 * vocab * dim + 2 * 2 * layers * heads * head_dim * pairs


def decode_bytes(c, weight_bytes, slots):
    """What one token must read: every weight once (of an untied embedding table one row, which is
    nothing) and keys and values of `slots` slots.
    """
    layers, dim, _, _, kv_heads, head_dim, vocab = sizes(c)
    table = 0 if c.get("tie_word_embeddings") else vocab * dim * BYTES
    return weight_bytes - table + 2 * layers * kv_heads * head_dim * BYTES * slots


def compress_bytes(c, window):
    """Each of the n slots read once, each of the n/2 written once, keys and values."""
    layers, _, _, _, kv_heads, head_dim, _ = sizes(c)
    n = window - SINKS
    return 2 * layers * kv_heads * head_dim * BYTES * (n + n // 2)


def spread(line, of=lambda s: s, digits=3):
    """median (10th to 90th percentile)"""
    low, high = sorted((of(line["low"]), of(line["high"])))
    return f"{of(line['seconds']):.{digits}g} ({low:.{digits}g} to {high:.{digits}g})"


def table(title, columns, rows):
    if not rows:
        return ""
    lines = [title, "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n\n"


def prefill_rows(r, model):
    peak, rows = r.limit("gemm", "flops"), []
    lengths = r.lengths(model, "prefill")
    for tokens in lengths:
        ours = r.get("ours", model, "prefill", "full", tokens)
        if not ours or tokens not in (lengths[0], 4 * lengths[0]):
            continue  # the others stand in the second table
        share = prefill_flops(r.configs[model], tokens) / ours["seconds"] / peak
        rivals = [
            x
            for policy in ("fast", "eager")
            if (x := r.get("torch", model, "prefill", policy, tokens))
        ]
        if not rivals:
            rivals = [None]
        for rival in rivals:
            rows.append(
                [
                    f"{model}: prefill {tokens} tokens, tokens/s",
                    spread(ours, lambda s: tokens / s, 4),
                    (
                        f"transformers, {rival['attention']}:"
                        f" {spread(rival, lambda s: tokens / s, 4)}"
                        if rival
                        else ""
                    ),
                    f"{rival['seconds'] / ours['seconds']:.2f}" if rival else "",
                    f"{share:.0%} of the bf16 product's rate",
                ]
            )
    return rows


def decode_rows(r, model, tokens):
    ours, load = r.get("ours", model, "decode", "full", tokens), r.get("ours", model, "load", "")
    if not ours or not load:
        return []
    read = decode_bytes(r.configs[model], load["weight_bytes"], tokens + ours["count"] / 2)
    share = read / ours["seconds"] / r.limit("copy", "bytes")
    names = dict(
        fast="transformers, {}",
        eager="transformers, eager attention",
        compiled="torch.compile, static cache, {}",
    )
    what = [
        f"{model}: decode, {tokens} tokens in the cache, tokens/s",
        spread(ours, lambda s: 1 / s, 4),
    ]
    limit, rows = f"{share:.0%} of copy bandwidth", []
    for policy, name in names.items():
        rival = r.get("torch", model, "decode", policy, tokens)
        if rival:
            rows.append(
                [
                    *what,
                    f"{name.format(rival['attention'])}: {spread(rival, lambda s: 1 / s, 4)}",
                    f"{rival['seconds'] / ours['seconds']:.2f}",
                    limit,
                ]
            )
    return rows or [[*what, "", "", limit]]


def compress_rows(r, model):
    rows = []
    for tokens in r.lengths(model, "compress"):
        floor = compress_bytes(r.configs[model], tokens) / r.limit("copy", "bytes")
        rivals = [
            x
            for row in ("compress", "compress by layer")
            if (x := r.get("torch", model, row, "torch.fft", tokens))
        ]
        rival = min(rivals, key=lambda x: x["seconds"], default=None)
        for row in "compress", "compress by layer":
            ours = r.get("ours", model, row, "freqkv", tokens)
            if ours:
                n = tokens - SINKS
                rows.append(
                    [
                        (
                            f"{model}: one compression {n} to {n // 2},"
                            f" {'in one call' if row == 'compress' else 'layer by layer'}, ms"
                        ),
                        spread(ours, lambda s: 1e3 * s),
                        f"torch.fft: {spread(rival, lambda s: 1e3 * s)}" if rival else "",
                        f"{rival['seconds'] / ours['seconds']:.2f}" if rival else "",
                        f"{ours['seconds'] / floor:.2f} times reading and writing once",
                    ]
                )
    return rows


def figure_rows(r, model):
    """Compressions after T tokens and, per decoded token, one in C = n - n/2, each taken to cost
    what it costs alone (the dearer of the two ways).
    """
    both = [
        x for row in ("compress", "compress by layer") if (x := r.get("ours", model, row, "freqkv"))
    ]
    rows = []
    for tokens in r.lengths(model, "prefill"):
        lines = [
            r.get(side, model, row, policy, tokens)
            for row in ("prefill", "decode")
            for side, policy in (("ours", "full"), ("ours", "freqkv"), ("torch", "fast"))
        ]
        if not lines[1] or not lines[4]:
            continue
        shares = ["", ""]
        if both:
            window, one = both[0]["tokens"], max(x["seconds"] for x in both)
            n = window - SINKS
            count = max(0, math.ceil((tokens - window) / (n - n // 2)))
            shares = [
                f"{count * one / lines[1]['seconds']:.1%}",
                f"{one / (n - n // 2) / lines[4]['mean']:.3%}",
            ]
        rows.append(
            [f"{tokens}"]
            + [f"{x['seconds']:.3g}" if x else "" for x in lines[:3]]
            + [f"{1e3 * x['mean']:.3g}" if x else "" for x in lines[3:]]
            + shares
        )
    return rows


def capture_rows(r, model):
    plain = r.get("ours", model, "capture", "prefill")
    return (
        [
            [
                f"{model}: {k[3]}, {k[4]} tokens, s",
                f"{x['seconds']:.3g}",
                f"plain prefill: {plain['seconds']:.3g}",
                f"{x['seconds'] / plain['seconds'] - 1:+.1%}",
                "",
            ]
            for k, x in r.lines.items()
            if k[1:3] == (model, "capture") and x is not plain
        ]
        if plain
        else []
    )


def same_answers(r):
    """Both sides must have done the same work: the last token's largest logit, in bf16."""
    for (side, model, row, policy, tokens), x in r.lines.items():
        other = r.get("ours", model, "prefill", "full", tokens)
        if side == "torch" and row == "prefill" and other:
            good = x["top"] == other["top"] or abs(
                x["top_logit"] - other["top_logit"]
            ) < 0.05 * abs(x["top_logit"])
            yield (
                f"{model}, {tokens} tokens, {policy}: token {x['top']} at {x['top_logit']:.4g},"
                f" ours {other['top']} at {other['top_logit']:.4g}{'' if good else '  DIFFERS'}"
            )


def differences(r):
    return [line for line in same_answers(r) if line.endswith("DIFFERS")]


def report(r):
    out = (
        f"On one {r.machine}: bf16 product {r.limit('gemm', 'flops') / 1e12:.4g} TFLOP/s, copy"
        f" {r.limit('copy', 'bytes') / 1e12:.3g} TB/s. Medians (10th to 90th percentile).\n\n"
    )
    columns = ["what", "ours", "rival, same run", "ratio", "limit"]
    for model in r.configs:
        shortest = min(r.lengths(model, "decode"), default=0)
        out += table(
            f"**{model}**",
            columns,
            prefill_rows(r, model)
            + decode_rows(r, model, shortest)
            + compress_rows(r, model)
            + capture_rows(r, model),
        )
        out += table(
            f"**{model}, FreqKV against full cache**",
            [
                "tokens",
                "prefill s: full",
                "freqkv",
                "transformers",
                "decode ms/token: full",
                "freqkv",
                "transformers",
                "compression in freqkv prefill",
                "in decode",
            ],
            figure_rows(r, model),
        )
    out += "".join(f"Same answer? {line}\n" for line in same_answers(r))
    return out + "".join(f"FAILED: {x['model']}, {x['policy']}: {x['error']}\n" for x in r.failures)


def read(paths):
    lines = []
    for path in paths:
        for text in pathlib.Path(path).read_text().splitlines():
            lines.append(json.loads(text))
    return Results(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+")
    print(report(read(parser.parse_args().results)), end="")


if __name__ == "__main__":
    main()
