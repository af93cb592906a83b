"""Costs by arithmetic: the paper's tables 4 and 6 for LLaMA-2-7B, a count by hand in plain Python,
and what real runs say of themselves.

    check_cost.py --bin build/bin
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

LLAMA2_7B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "float16",
}
# Of runs that count what `cost` says.
POLICIES = (
    ("full",),
    ("freqkv", "--gamma", "0.3"),
    ("local",),
    ("streaming",),
    ("lm-infinite", "--global", "7"),
)
# FreqKV (arXiv 2505.00570), TFLOPs by tokens: table 4, then table 6.
TABLE_4 = {
    None: {4096: 62.93, 6144: 101.00, 8192: 143.46},
    0.1: {4096: 62.93, 6144: 92.65, 8192: 125.17, 10240: 155.77, 12288: 187.58},
    0.25: {4096: 62.93, 6144: 93.31, 8192: 124.79, 10240: 157.35, 12288: 187.73},
    0.5: {4096: 62.93, 6144: 94.42, 8192: 125.90, 10240: 157.38, 12288: 188.85},
    0.75: {4096: 62.93, 6144: 94.45, 8192: 125.94, 10240: 157.44, 12288: 188.94},
}
TABLE_6 = {  # tokens: local, freqkv, overhead as printed, compressions
    4096: (62.93, 62.93, "0.000", 0),
    8192: (125.86, 125.90, "0.039", 3),
    12288: (188.79, 188.85, "0.064", 5),
    16384: (251.72, 251.81, "0.090", 7),
}

failures = []


def check(name, ok, detail=""):
    if not ok:
        failures.append(name)
        print(f"FAILED {name}: {detail}")


def near(a, b, tolerance=1e-3):
    return abs(a - b) <= tolerance * abs(b)


class Tools:
    def __init__(self, bin_folder):
        self.replay = str(pathlib.Path(bin_folder) / "freqkv-replay")

    def call(self, *arguments):
        command = [self.replay, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    def cost(self, config, *arguments):
        done = self.call("cost", "--config", config, "--json", *arguments)
        check(f"cost {arguments}", done.returncode == 0, done.stderr)
        return json.loads(done.stdout)["rows"] if done.returncode == 0 else []


def check_tables(tools, config):
    for gamma, row in TABLE_4.items():
        policy = ("--policy", "freqkv", "--gamma", gamma) if gamma else ()
        for found in tools.cost(config, "--tokens", ",".join(map(str, row)), *policy):
            expected = row[found["tokens"]]
            check(f"table 4, {gamma}, {found['tokens']}", near(found["tflops"], expected), found)
    lengths = ("--tokens", ",".join(map(str, TABLE_6)))
    local = tools.cost(config, *lengths, "--policy", "local")
    freqkv = tools.cost(config, *lengths, "--policy", "freqkv")
    for (tokens, expected), a, b in zip(TABLE_6.items(), local, freqkv, strict=True):
        check(f"table 6, local, {tokens}", near(a["tflops"], expected[0]), a)
        check(f"table 6, freqkv, {tokens}", near(b["tflops"], expected[1]), b)
        check(f"overhead, {tokens}", f"{b['compression_tflops']:.3f}" == expected[2], b)
        check(f"compressions, {tokens}", b["compressions"] == expected[3], b)
    sweep = tools.cost(config, *lengths, "--policy", "freqkv", "--sweep", "gamma=0.25,0.5")
    check("a sweep has the rows of its points", sweep[1::2] == freqkv, sweep)


def by_hand(config, tokens, window, sinks, gamma):
    """Operations of freqkv, token by token instead of round by round."""
    kv_heads, heads = config["num_key_value_heads"], config["num_attention_heads"]
    layers, dim, hidden = (
        config[k] for k in ("num_hidden_layers", "hidden_size", "intermediate_size")
    )
    head_dim = dim // heads
    n = window - sinks
    kept = math.floor(gamma * n + 1e-9)
    weights = layers * (2 * dim * dim + 2 * dim * kv_heads * head_dim + 3 * dim * hidden)
    weights += dim * config["vocab_size"]
    slots, rounds, waiting, query_slots = 0, 0, 0, 0
    for _ in range(tokens):
        if slots == window:
            query_slots += waiting * slots
            slots, waiting, rounds = sinks + kept, 0, rounds + 1
        slots, waiting = slots + 1, waiting + 1
    query_slots += waiting * slots
    compression = rounds * layers * kv_heads * head_dim * 2 * n * math.log2(n)
    return 2 * weights * tokens + 4 * layers * heads * head_dim * query_slots + compression


def check_by_hand(tools, folder):
    config = LLAMA2_7B | {"num_key_value_heads": 8, "num_hidden_layers": 3}
    path = folder / "grouped.json"
    path.write_text(json.dumps(config))
    for tokens, window, sinks, gamma in [(1, 64, 4, 0.5), (64, 64, 4, 0.5), (65, 64, 4, 0.5)] + [
        (t, w, s, g) for t in (1000, 5000) for w, s in ((64, 0), (333, 7)) for g in (0.1, 0.5, 0.9)
    ]:
        options = ("--window", window, "--sinks", sinks, "--gamma", gamma, "--policy", "freqkv")
        found = tools.cost(path, "--tokens", tokens, *options)
        expected = by_hand(config, tokens, window, sinks, gamma) / 1e12
        check(f"by hand {tokens} {options}", near(found[0]["tflops"], expected, 1e-12), found)


def sliding_by_hand(text, windows, tokens, policy):
    """Operations, bytes of the cache, of weights, and compressions of a model whose layers have
    windows of their own (0: none). policy: None, or window, sinks and ratio of freqkv.
    """
    gemma = text["model_type"] == "gemma3_text"
    layers, dim, hidden, vocab = (
        text[k] for k in ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
    )
    heads, kv, d = (text[k] for k in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    products = layers * (2 * dim * heads * d + 2 * dim * kv * d + 3 * dim * hidden) + dim * vocab
    norms = layers * ((4 * dim + 2 * d) if gemma else 2 * dim) + dim
    values = products + norms + (0 if text["tie_word_embeddings"] else dim * vocab)
    number = 4 if "float32" in (text.get("dtype"), text.get("torch_dtype")) else 2
    query_slots = cache = compression = rounds = 0
    for own in windows:
        if not policy or (own and own < policy[0]):
            seen = min(tokens, own or tokens)
            query_slots, cache = query_slots + tokens * seen, cache + seen
            continue
        window, sinks, gamma = policy
        n = window - sinks
        slots = waiting = 0
        for _ in range(tokens):
            if slots == window:
                query_slots, compression = query_slots + waiting * slots, compression + 1
                slots, waiting = sinks + math.floor(gamma * n + 1e-9), 0
            slots, waiting = slots + 1, waiting + 1
        query_slots, cache = query_slots + waiting * slots, cache + min(tokens, window)
        rounds = n * math.log2(n)
    operations = 2 * products * tokens + 4 * heads * d * query_slots
    operations += compression * kv * d * 2 * rounds
    return operations / 1e12, cache * kv * 2 * d * number, values * number, compression / layers


SLIDING = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 500,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}
GEMMA3 = SLIDING | {
    "model_type": "gemma3_text",
    "num_hidden_layers": 7,
    "sliding_window": 100,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
MISTRAL = SLIDING | {
    "model_type": "mistral",
    "num_hidden_layers": 3,
    "sliding_window": 300,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}


def check_sliding(tools, folder):
    path = folder / "sliding.json"
    wrapped = {"model_type": "gemma3", "vision_config": {}, "text_config": GEMMA3}
    local = [100] * 5 + [0, 100]
    for name, whole, text, windows in (
        ("gemma3", wrapped, GEMMA3, local),
        ("mistral", MISTRAL, MISTRAL, [300] * 3),
    ):
        path.write_text(json.dumps(whole))
        for tokens in (60, 1000):
            for policy in (None, (64, 4, 0.5), (200, 4, 0.25)):
                options = ("--policy", "full")
                if policy:
                    options = ("--policy", "freqkv", "--window", policy[0], "--gamma", policy[2])
                found = tools.cost(path, "--tokens", tokens, *options)[0]
                wanted = sliding_by_hand(text, windows, tokens, policy)
                keys = ("tflops", "cache_bytes", "weight_bytes", "compressions")
                for key, value in zip(keys, wanted, strict=True):
                    good = near(found[key], value, 1e-12)
                    check(f"{name}, {tokens}, {policy}: {key}", good, (found, wanted))
    path.write_text(json.dumps(MISTRAL))
    done = tools.call("cost", "--config", path, "--policy", "freqkv", "--window", 512)
    check("all layers slide", "would change nothing" in done.stderr, done.stderr)


def check_sliding_runs(tools, folder):
    """The same of runs: two of three layers slide over 6 tokens."""
    model = "tests/golden/gemma3"
    ids = folder / "ids.bin"
    ids.write_bytes(bytes(b for i in range(64) for b in (3 + i * 37 % 90, 0)))
    files = ("--model", model, "--token-ids", ids, "--token-dtype", "uint16", "--quiet", "--json")
    for policy in POLICIES:
        options = ("--tokens", 64, "--window", 20, "--sinks", 2, "--policy", *policy)
        done = tools.call("ppl", *files, "--cache-dtype", "bf16", *options)
        check(f"run {policy}", done.returncode == 0, done.stderr)
        run = json.loads(done.stdout)
        cost = tools.cost(model, *options)[0]
        for key, counted in (("compressions", "compressions"), ("cache_bytes", "cache_bytes_peak")):
            good = near(cost[key], run[counted], 1e-12)
            check(f"gemma3, {policy}: {key}", good, (cost, run))


def check_runs(tools, model, text):
    """Compressions and bytes of the cache are those that a run counts."""
    for policy in POLICIES:
        options = ("--tokens", 700, "--window", 128, "--policy", *policy)
        files = ("--model", model, "--text", text, "--quiet", "--json", "--cache-dtype", "bf16")
        run = json.loads(tools.call("ppl", *files, *options).stdout)
        cost = tools.cost(model + "/config.json", *options)[0]
        for key, counted in (("compressions", "compressions"), ("cache_bytes", "cache_bytes_peak")):
            check(f"{policy}: {key}", near(cost[key], run[counted], 1e-12), (cost, run))
    full = tools.cost(model + "/config.json", "--tokens", 700)[0]
    for policy in (("snapkv", "--budget", 64), ("knorm", "--budget", 90), ("longheads",)):
        chooses = policy[0] == "longheads"
        options = ("--tokens", 700, "--policy", *policy)
        options += ("--window", 128, "--chunk", 16) if chooses else ()
        files = ("--model", model, "--text", text, "--quiet", "--json", "--cache-dtype", "bf16")
        run = tools.call(
            "ppl", *files, *options, *(() if chooses else ("--protocol", "blocks:100"))
        )
        run = json.loads(run.stdout)
        cost = tools.cost(model + "/config.json", *options, *(() if chooses else ("--block", 100)))[
            0
        ]
        same = near(cost["cache_bytes"], run["cache_bytes_peak"], 1e-12)
        check(f"{policy}: bytes", same, (cost, run))
        check(f"{policy}: cheaper than full", cost["tflops"] < full["tflops"], (cost, full))


def check_refusals(tools, config):
    for name, options, words in [
        ("no tokens", ("--tokens", "0"), "expected integers from 1"),
        ("half a token", ("--tokens", "1.5"), "expected integers from 1"),
        ("both", ("--policy", "freqkv", "--gamma", "0.5", "--sweep", "gamma=0.5"), "not both"),
        ("no ratio", ("--policy", "streaming", "--sweep", "gamma=0.5"), "has no ratio"),
        ("a window of sinks", ("--policy", "freqkv", "--window", "4"), "window"),
    ]:
        done = tools.call("cost", "--config", config, *options)
        check(name, done.returncode in (1, 2) and words in done.stderr, done.stderr)
    check("no file", tools.call("cost", "--config", "nowhere.json").returncode == 1)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--bin", required=True)
    tools = Tools(p.parse_args().bin)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        config = folder / "config.json"
        config.write_text(json.dumps(LLAMA2_7B))
        check_tables(tools, config)
        check_by_hand(tools, folder)
        check_refusals(tools, config)
        check_sliding(tools, folder)
        check_sliding_runs(tools, folder)
    check_runs(tools, "data/litbank-1m", "data/the_tide_mill.txt")
    print("costs: " + (f"{len(failures)} failed" if failures else "as the tables and runs say"))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
