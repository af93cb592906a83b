"""PyTorch's side of the GPU benchmark, and the machine's limits: the same work on the same
checkpoint, one JSON object per line, as bench_gpu.c prints.

    rivals.py CHECKPOINT JOB...

    limits
        copy bandwidth (bytes read and written) and the rate of a bf16 product 8192 x 8192 x 8192
        on random numbers
    VARIANT:T:ROUNDS:DECODED
        T tokens prefilled with the last token's logits on the host, ROUNDS times after one that
        warms up; then DECODED tokens one by one, timed in runs of 8. The host waits only at the end
        of a run of 8, which favours PyTorch: our side waits at every token.
    compress:N:ROUNDS
        FreqKV's compression of N - 4 slots with torch.fft, in one call for all layers and layer by
        layer

VARIANT: `fast` is transformers with flash attention if the package is there, else torch's
scaled_dot_product_attention (which picks its own flash kernel); `eager` its plain attention;
`compiled` a StaticCache with the decode step under torch.compile(mode="reduce-overhead"), compiled
before timing starts.
"""

import argparse
import importlib.util
import json
import math
import pathlib
import sys
import time

import torch

SINKS, WARM_UP, RUN = 4, 8, 8
ROTATIONS_THETA = 10000.0


class Clock:
    """Wall time with the device idle before and after."""

    def __init__(self, device):
        self.wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def time(self, work):
        self.wait()
        started = time.perf_counter()
        result = work()
        self.wait()
        return time.perf_counter() - started, result


def emit(model, row, policy, tokens, seconds, **extra):
    s = sorted(seconds)
    n, middle = len(s), len(s) // 2
    median = s[middle] if n % 2 else (s[middle - 1] + s[middle]) / 2
    print(
        json.dumps(
            dict(
                side="torch",
                model=model,
                row=row,
                policy=policy,
                tokens=tokens,
                seconds=median,
                low=s[n // 10],
                high=s[n - 1 - n // 10],
                mean=sum(s) / n,
                count=n,
                **extra,
            )
        ),
        flush=True,
    )


def token_ids(first, count, vocab, device):
    """The ids that bench_gpu.c feeds."""
    i = torch.arange(first, first + count, dtype=torch.int64)
    return ((i * 2654435761 >> 7) % vocab)[None].to(device)


# ---- limits ----
def copy_times(device, clock, copied):
    a = torch.empty(copied, dtype=torch.uint8, device=device).random_()
    b = torch.empty(copied, dtype=torch.uint8, device=device)
    return [clock.time(lambda: b.copy_(a))[0] for _ in range(22)][2:]


def limits(name, device, clock, size=8192, copied=2 << 30):
    emit(name, "copy", "", 0, copy_times(device, clock, copied), bytes=2 * copied)
    x, w = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    times = [clock.time(lambda: [x @ w for _ in range(5)])[0] / 5 for _ in range(22)][2:]
    emit(name, "gemm", "", size, times, flops=2 * size**3)


# ---- transformers ----
def load(folder, device):
    from transformers import AutoModelForCausalLM

    return (
        AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, attn_implementation="eager"
        )
        .to(device)
        .eval()
    )


def attention_of(variant):
    if variant == "eager":
        return "eager"
    flash = variant == "fast" and importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if flash else "sdpa"


def run_prefill(model, ids, cache):
    return (
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        .logits[0, -1]
        .float()
        .cpu()
    )


def step_function(model, cache):
    """One token into `cache`; the position lives on the device, so that steps are alike."""

    def step(token, position):
        return (
            model(input_ids=token, position_ids=position, past_key_values=cache, use_cache=True)
            .logits[0, -1]
            .argmax()
        )

    return step


def run_decode(step, first, count, vocab, device, clock):
    ids = token_ids(first, WARM_UP + count, vocab, device)
    position = torch.full((1, 1), first, dtype=torch.int64, device=device)

    def run(at):
        for i in range(at, at + RUN):
            token = step(ids[:, i : i + 1], position)
            position.add_(1)
        return token.item()

    assert WARM_UP == RUN and count % RUN == 0
    run(0)
    return [clock.time(lambda: run(at))[0] / RUN for at in range(WARM_UP, WARM_UP + count, RUN)]


@torch.inference_mode()
def run_variant(model, name, variant, tokens, rounds, decoded, device, clock):
    from transformers import DynamicCache, StaticCache

    model.set_attn_implementation(attention_of(variant))
    label = dict(attention=attention_of(variant))
    ids, vocab = token_ids(0, tokens, model.config.vocab_size, device), model.config.vocab_size
    if variant == "compiled":
        cache = StaticCache(config=model.config, max_cache_len=tokens + WARM_UP + decoded)
        run_prefill(model, ids, cache)
        step = torch.compile(
            step_function(model, cache),
            mode="reduce-overhead" if device == "cuda" else "default",
            fullgraph=True,
        )
    else:
        cache, times = None, []
        for _ in range(rounds + 1):
            cache = None  # before the next is made
            cache = DynamicCache(config=model.config)
            seconds, logits = clock.time(lambda: run_prefill(model, ids, cache))
            times.append(seconds)
        top = logits.argmax().item()
        emit(
            name,
            "prefill",
            variant,
            tokens,
            times[1:],
            top=top,
            top_logit=logits[top].item(),
            **label,
        )
        step = step_function(model, cache)
    emit(
        name,
        "decode",
        variant,
        tokens,
        run_decode(step, tokens, decoded, vocab, device, clock),
        **label,
    )


# ---- compression ----
class Compression:
    """n slots -> L = n/2: orthonormal DCT-II by one real FFT of the even and the reversed odd slots
    (Makhoul 1980), the L lowest coefficients, the inverse of length L, times sqrt(L/n). Keys lie
    rotated in the cache, as transformers keeps them: un-rotated before, rotated to their new slots
    after.
    """

    def __init__(self, n, dim, device):
        self.n, self.retained = n, n // 2
        assert n % 4 == 0, "the shortcuts below take n and n/2 to be even"
        L = self.retained
        k = torch.arange(L, device=device, dtype=torch.float64)
        scale = torch.full((L,), math.sqrt(2 / n), device=device, dtype=torch.float64)
        scale[0] = math.sqrt(1 / n)
        self.forward = (torch.polar(scale, -math.pi * k / (2 * n))[:, None]).to(torch.complex64)
        k = torch.arange(L // 2 + 1, device=device, dtype=torch.float64)
        back = torch.full((L // 2 + 1,), math.sqrt(L / 2), device=device, dtype=torch.float64)
        self.back = (torch.polar(back * math.sqrt(L / n), math.pi * k / (2 * L))[:, None]).to(
            torch.complex64
        )
        angle = torch.outer(
            torch.arange(SINKS, SINKS + n, device=device, dtype=torch.float64),
            ROTATIONS_THETA ** (-torch.arange(0, dim, 2, device=device, dtype=torch.float64) / dim),
        )
        self.cos, self.sin = angle.cos().float(), angle.sin().float()

    def rotate(self, x, sign):
        half, count = x.shape[-1] // 2, x.shape[-2]
        a, b, cos, sin = x[..., :half], x[..., half:], self.cos[:count], sign * self.sin[:count]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def map(self, x):
        v = torch.cat([x[..., ::2, :], x[..., 1::2, :].flip(-2)], -2)
        c = (torch.fft.rfft(v, dim=-2)[..., : self.retained, :] * self.forward).real
        # Half the spectrum of the length-L sequence in Makhoul's order: (c[k] - i c[L-k]) turned
        # back; c[0] stands alone, at full weight.
        first = c[..., :1, :] * math.sqrt(2)
        mirrored = torch.cat(
            [torch.zeros_like(first), c[..., self.retained // 2 :, :].flip(-2)], -2
        )
        half = torch.cat([first, c[..., 1 : self.retained // 2 + 1, :]], -2)
        v = torch.fft.irfft(torch.complex(half, -mirrored) * self.back, n=self.retained, dim=-2)
        out = torch.empty_like(v)
        middle = (self.retained + 1) // 2
        out[..., ::2, :], out[..., 1::2, :] = v[..., :middle, :], v[..., middle:, :].flip(-2)
        return out

    def __call__(self, key, value):
        """[.., heads, N, dim] in place."""
        end, kept = SINKS + self.n, SINKS + self.retained
        k = self.map(self.rotate(key[..., SINKS:end, :].float(), -1))
        key[..., SINKS:kept, :] = self.rotate(k, 1).to(key.dtype)
        value[..., SINKS:kept, :] = self.map(value[..., SINKS:end, :].float()).to(value.dtype)


def check_compression(device):
    """Against the matrix, written down."""
    n, L = 20, 10
    i, j = torch.meshgrid(
        torch.arange(n, dtype=torch.float64), torch.arange(n, dtype=torch.float64), indexing="ij"
    )
    dct = torch.cos(math.pi * (2 * j + 1) * i / (2 * n)) * math.sqrt(2 / n)
    dct[0] /= math.sqrt(2)
    i, j = torch.meshgrid(
        torch.arange(L, dtype=torch.float64), torch.arange(L, dtype=torch.float64), indexing="ij"
    )
    inverse = torch.cos(math.pi * (2 * j + 1) * i / (2 * L)) * math.sqrt(2 / L)
    inverse[0] /= math.sqrt(2)
    x = torch.randn(3, n, 8, dtype=torch.float64)
    expected = math.sqrt(L / n) * inverse.T @ (dct[:L] @ x)
    compression = Compression(n, 8, device)
    found = compression.map(x.float().to(device)).double().cpu()
    assert (found - expected).abs().max() < 1e-5, (
        f"torch.fft compression is off by {(found - expected).abs().max():.2e}"
    )
    turned = compression.rotate(compression.rotate(x.float().to(device), 1), -1).double().cpu()
    assert (turned - x).abs().max() < 1e-5, "rotation is not undone"


@torch.inference_mode()
def run_compression(config, name, window, rounds, device, clock):
    check_compression(device)
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    shape = (config["num_hidden_layers"], config["num_key_value_heads"], window, dim)
    key, value = (
        torch.empty(shape, dtype=torch.bfloat16, device=device).normal_() for _ in range(2)
    )
    compression = Compression(window - SINKS, dim, device)

    def by_layer():
        for k, v in zip(key, value):
            compression(k, v)

    for row, work in ("compress by layer", by_layer), ("compress", lambda: compression(key, value)):
        times = [clock.time(work)[0] for _ in range(rounds + 2)][2:]
        emit(name, row, "torch.fft", window, times)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("jobs", nargs="+")
    parser.add_argument("--device", default="cuda")
    a = parser.parse_args()
    clock, name, model = Clock(a.device), a.checkpoint.resolve().name, None
    config = json.loads((a.checkpoint / "config.json").read_text())
    for job in a.jobs:
        kind, *numbers = job.split(":")
        try:
            if kind == "limits":
                tiny = a.device == "cpu"
                limits(name, a.device, clock, 256 if tiny else 8192, 1 << 24 if tiny else 2 << 30)
            elif kind == "compress":
                run_compression(config, name, *map(int, numbers), a.device, clock)
            else:
                model = model or load(a.checkpoint, a.device)
                run_variant(model, name, kind, *map(int, numbers), a.device, clock)
            print(json.dumps(dict(row="done", job=job)), flush=True)
        except Exception as error:
            # One row less. After a fault of the device this process prints nothing more, and
            # bench.py starts another.
            print(
                json.dumps(
                    dict(
                        side="torch",
                        model=name,
                        row="failed",
                        job=job,
                        policy=job,
                        error=f"{type(error).__name__}: {error}"[:500],
                    )
                ),
                flush=True,
            )
            if not isinstance(error, torch.cuda.OutOfMemoryError):
                sys.exit(1)
        if a.device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
