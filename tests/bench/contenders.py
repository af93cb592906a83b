"""The command lines of ours and of the rivals, and how their output is read and compared."""

import json
import pathlib
import subprocess
from collections.abc import Callable

from install import last_line
from models import Models
from settings import Settings
from turns import Contender, Outcome, Result

NLL_TOLERANCE = {"f32": 1e-4, "bf16": 2e-2}
POWER_TOLERANCE = 1e-3


def wall(result: Result) -> float:
    """Ours is timed from start to end of the process, a rival without imports and loading."""
    return result["wall"]


def wall_per_token(tokens: int) -> Callable[[Result], float]:
    return lambda result: 1e3 * result["wall"] / tokens


def compression_percent(result: Result) -> float:
    return 100 * result["compression_share"]


def seconds(result: Result) -> float:
    return result["seconds"]


def prefill_rate(result: Result) -> float:
    return result["prefill_tokens_per_s"]


def decode_rate(result: Result) -> float:
    return result["decode_tokens_per_s"]


# Ours


def tool(s: Settings, name: str, *arguments: str) -> list[str]:
    return [str(s.bin / name), *arguments, "--json", "--quiet", "--threads", str(s.threads)]


def compute(dtype: str) -> list[str]:
    return ["--compute", "bf16"] if dtype == "bf16" else []


def generate(s: Settings, m: Models, name: str, dtype: str, texts: str, drawn: int) -> list[str]:
    command = tool(s, "freqkv-replay", "generate", "--model", m.path(f"{name}-{dtype}"))
    prompts = m.path(f"{name}-texts/{texts}.jsonl")
    return [*command, "--prompts", prompts, "--tokens", str(drawn), "--out", "{out}"]


def ours_prefill(s: Settings, m: Models, name: str, dtype: str, tokens: int) -> Contender:
    command = generate(s, m, name, dtype, f"prefill-{tokens}", 1)
    return Contender("ours", command + compute(dtype), prefill_rate)


def ours_decode(s: Settings, m: Models, name: str, dtype: str, after: int, drawn: int) -> Contender:
    """16-bit weights and a 16-bit cache; states and sums in float32."""
    command = generate(s, m, name, dtype, f"decode-{after}", drawn)
    cache = "f32" if dtype == "f32" else "f16"
    return Contender("ours", [*command, "--cache-dtype", cache], decode_rate)


def ours_ppl(s: Settings, m: Models, dtype: str, tokens: int, options: list[str], value):
    command = tool(s, "freqkv-replay", "ppl", "--model", m.path(f"{m.small}-{dtype}"))
    command += ["--token-ids", m.path(f"{m.small}-texts/ids-{tokens}.npy")]
    return Contender("ours", command + options + compute(dtype), value)


def ours_capture(s: Settings, m: Models, dtype: str, tokens: int) -> Contender:
    command = tool(s, "freqkv-capture", "--model", m.path(f"{m.small}-{dtype}"))
    command += ["--token-ids", m.path(f"{m.small}-texts/ids-{tokens}.npy")]
    command += ["--max-tokens", str(tokens), "--out", "{out}", *compute(dtype)]
    return Contender("ours", command, wall)


def ours_analyze(s: Settings, m: Models, job: str, length: int) -> Contender:
    command = tool(s, "freqkv-analyze", job, m.path("states.h5"), "--out", "{out}")
    return Contender("ours", [*command, "--length", str(length)], wall)


def ours_analyze_peak(s: Settings, m: Models, job: str, length: int) -> Contender:
    command = tool(s, "freqkv-analyze", job, m.path("states-24.h5"), "--out", "{out}")
    command = [*s.script("peak.py"), *command, "--length", str(length)]
    return Contender("ours", command, lambda result: result["peak_mib"])


def capture_cost(s: Settings, model: str, sizes: list[str]) -> Contender:
    recordings, rounds, tokens = sizes
    command = [str(s.bench / "bench_capture"), model, recordings, rounds, str(s.threads), tokens]

    def value(result: Result) -> float:
        line = next(x for x in result["text"].splitlines() if x.startswith("capture   "))
        return float(line.split()[-1])

    return Contender("ours", command, value)


def bench_dct(s: Settings, name: str, column: str) -> Contender:
    """The first line of 4092 tokens is that of the best instruction set."""

    def value(result: Result) -> float:
        lines = [line.split() for line in result["text"].splitlines()]
        titles = next(line for line in lines if line[:2] == ["set", "n"])
        row = next(line for line in lines if line[1:2] == ["4092"])
        return float(row[titles.index(column)])

    return Contender(name, [str(s.bench / "bench_dct")], value)


# The rivals


def prefill_prompts(tokens: int) -> list[int]:
    """As texts.py writes them: one that warms up, then the prompts."""
    return [32] + [tokens] * {512: 4, 2048: 2}.get(tokens, 1)


def rivals_generate(
    s: Settings, m: Models, name: str, dtype: str, prompts: list[int], drawn: int
) -> list[Contender]:
    ids = [m.path(f"{name}-texts/prompt-{n}.npy") for n in prompts]
    options = [str(s.threads), str(drawn), *ids]
    value = prefill_rate if drawn == 1 else decode_rate
    hf = [*s.script("rivals/hf.py"), "generate", m.path(f"{name}-{dtype}"), dtype]
    return [
        Contender(f"transformers {dtype}", hf + options, value),
        *llama(s, m, name, dtype, "generate", options, value),
    ]


def llama(s: Settings, m: Models, name: str, dtype: str, job: str, options: list[str], value):
    """Built for the processor that is there: it takes no part where instruction sets are capped."""
    if s.isa:
        return []
    stored = "f32" if dtype == "f32" else "f16"
    command = [*s.script("rivals/llamacpp.py"), job, m.path(f"{name}-{stored}.gguf")]
    return [Contender(f"llama.cpp {stored}", command + options, value)]


def rivals_ppl(s: Settings, m: Models, dtype: str, tokens: int, chunk: int) -> list[Contender]:
    options = [str(s.threads), m.path(f"{m.small}-texts/ids-{tokens}.npy"), str(tokens), str(chunk)]
    hf = [*s.script("rivals/hf.py"), "ppl", m.path(f"{m.small}-{dtype}"), dtype]
    return [
        Contender(f"transformers {dtype}", hf + options, seconds),
        *llama(s, m, m.small, dtype, "ppl", options, seconds),
    ]


def plain_freqkv(s: Settings, m: Models, dtype: str, tokens: int, window: int) -> Contender:
    command = [*s.script("rivals/freqkv.py"), m.path(f"{m.small}-{dtype}"), dtype, str(s.threads)]
    command += [m.path(f"{m.small}-texts/ids-{tokens}.npy"), str(tokens), str(window), "0.5"]
    return Contender(f"PyTorch script {dtype}", command, lambda r: 1e3 * r["seconds"] / tokens)


def forward_and_h5py(s: Settings, m: Models, dtype: str, tokens: int) -> Contender:
    command = [*s.script("rivals/hf.py"), "capture", m.path(f"{m.small}-{dtype}"), dtype]
    command += [str(s.threads), m.path(f"{m.small}-texts/ids-{tokens}.npy"), str(tokens), "{out}"]
    return Contender(f"transformers {dtype} + h5py", command, seconds)


def numpy_analyze(s: Settings, m: Models, job: str, length: int, name: str) -> Contender:
    command = [*s.script("rivals/analyze.py"), job, m.path("states.h5"), str(s.threads)]
    return Contender(name, [*command, str(length), "{out}"], seconds)


def numpy_dct(s: Settings, job: str) -> Contender:
    command = [*s.script("rivals/dct.py"), job]
    return Contender(job, command, lambda r: r["milliseconds"])


# Whether all did the same work


def done(outcomes: list[Outcome], key: str) -> dict:
    return {o.name: o.result[key] for o in outcomes if key in o.result}


def same_ids(outcomes: list[Outcome]) -> Result:
    """Fed the same number of tokens, and drew the same ids as the first; a float16 sum may turn a
    near tie, so later ids may differ."""
    fed, drawn = done(outcomes, "prompt_tokens"), done(outcomes, "token_ids")
    first = next(iter(drawn.values()), [])
    common = {
        name: next((i for i, (a, b) in enumerate(zip(ids, first)) if a != b), len(ids))
        for name, ids in drawn.items()
    }
    same = len(set(fed.values())) <= 1 and len({len(ids) for ids in drawn.values()}) <= 1
    words = ", ".join(f"{name} {n} of {len(first)}" for name, n in list(common.items())[1:])
    fed_words = "/".join(map(str, sorted(set(fed.values()))))
    return {"same": same, "note": f"{fed_words} tokens fed; ids drawn alike: {words or 'alone'}"}


def same_nll(dtype: str) -> Callable[[list[Outcome]], Result]:
    def check(outcomes: list[Outcome]) -> Result:
        nll = done(outcomes, "mean_nll")
        scored = done(outcomes, "tokens_scored")
        values = list(nll.values())
        same = not values or max(values) - min(values) <= NLL_TOLERANCE[dtype]
        words = ", ".join(f"{name} {x:.6f}" for name, x in nll.items())
        if scored:
            same = same and len(set(scored.values())) == 1
            words += f"; {'/'.join(map(str, sorted(set(scored.values()))))} targets"
        return {"same": same, "note": f"mean nll: {words}"}

    return check


def same_results(s: Settings) -> Callable[[list[Outcome]], Result]:
    def check(outcomes: list[Outcome]) -> Result:
        ours, rival = outcomes[:2]
        if not (ours.out and rival.out):
            return {}
        theirs = pathlib.Path(rival.out)
        files = [
            str(theirs / "results.h5" if theirs.is_dir() else theirs),
            ours.out + "/results.h5",
        ]
        command = [*s.script("rivals/analyze.py"), "compare", *files]
        compared = subprocess.run(command, capture_output=True, text=True)
        if compared.returncode:
            return {"same": False, "note": f"not compared: {last_line(compared.stderr)}"}
        deviation = json.loads(compared.stdout)["deviation"]
        note = f"largest relative deviation of the results {deviation:.1e}"
        return {"same": deviation <= POWER_TOLERANCE, "note": note}

    return check
