"""FreqKV in plain PyTorch, as one would write it in an afternoon: a LLaMA without biases, fed chunk
by chunk; keys are kept before RoPE; a full cache is compressed by an FFT-based DCT.

    freqkv.py MODEL f32|bf16 THREADS IDS.npy TOKENS WINDOW GAMMA

Prints JSON. Loading is not timed. Perplexity over all tokens in one timeline, 4 sinks.
"""

import json
import math
import pathlib
import sys
import time

import torch
import torch.nn.functional as F
from common import emit, read_ids
from safetensors.torch import load_file

SINKS, BLOCK = 4, 1024
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def twiddle(n, sign):
    return torch.exp(sign * 1j * math.pi * torch.arange(n) / (2 * n))


def dct(x):
    """Orthonormal DCT-II of the last axis by one complex FFT of the same length (Makhoul)."""
    n = x.shape[-1]
    reordered = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1)
    y = (torch.fft.fft(reordered) * twiddle(n, -1)).real * math.sqrt(2 / n)
    y[..., 0] /= math.sqrt(2)
    return y


def inverse_dct(y):
    n = y.shape[-1]
    y = y * math.sqrt(n / 2)
    y[..., 0] *= math.sqrt(2)
    mirrored = torch.cat([torch.zeros_like(y[..., :1]), y[..., 1:].flip(-1)], -1)
    v = torch.fft.ifft((y - 1j * mirrored) * twiddle(n, 1)).real
    x, half = torch.empty_like(y), (n + 1) // 2
    x[..., ::2], x[..., 1::2] = v[..., :half], v[..., half:].flip(-1)
    return x


def compress(x, gamma):
    """x [kv_heads, slots, head_dim] -> its sinks and floor(gamma n) slots for the n others."""
    n = x.shape[1] - SINKS
    kept = int(gamma * n + 1e-9)
    y = dct(x[:, SINKS:].float().transpose(1, 2).contiguous())[..., :kept]
    shorter = inverse_dct(y * math.sqrt(kept / n)).transpose(1, 2)
    return torch.cat([x[:, :SINKS], shorter.to(x.dtype)], 1)


class Model:
    def __init__(self, folder, dtype, window):
        self.c = c = json.loads((pathlib.Path(folder) / "config.json").read_text())
        files = sorted(pathlib.Path(folder).glob("*.safetensors"))
        self.w = {name: x.to(dtype) for f in files for name, x in load_file(f).items()}
        self.heads, self.kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        self.head_dim, self.layers = c["head_dim"], c["num_hidden_layers"]
        shape = (self.layers, self.kv_heads, window, self.head_dim)
        self.keys, self.values = torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)
        powers = torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim
        self.frequencies, self.dtype = c["rope_theta"] ** -powers, dtype
        self.embedding = self.w["model.embed_tokens.weight"]
        self.head = self.embedding if c["tie_word_embeddings"] else self.w["lm_head.weight"]

    def norm(self, x, name):
        y = F.rms_norm(x.float(), x.shape[-1:], None, self.c["rms_norm_eps"])
        return y.to(self.dtype) * self.w[name]

    def rotation(self, start, end):
        angles = torch.outer(torch.arange(start, end, dtype=torch.float32), self.frequencies)
        angles = torch.cat([angles, angles], -1)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)

    def rotate(self, x, rotation):
        cos, sin = rotation
        half = self.head_dim // 2
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    def split(self, x, heads):
        return x.view(len(x), heads, self.head_dim).transpose(0, 1)

    def feed(self, ids, slots):
        """The final states of ids, appended to a cache that holds `slots`."""
        x, end = self.embedding[ids], slots + len(ids)
        queries_at, keys_at = self.rotation(slots, end), self.rotation(0, end)
        mask = torch.ones(len(ids), end, dtype=torch.bool).tril(slots)
        group = self.heads // self.kv_heads
        for i in range(self.layers):
            layer = f"model.layers.{i}."
            h = self.norm(x, layer + "input_layernorm.weight")
            q, k, v = (F.linear(h, self.w[f"{layer}self_attn.{p}_proj.weight"]) for p in "qkv")
            self.keys[i, :, slots:end] = self.split(k, self.kv_heads)
            self.values[i, :, slots:end] = self.split(v, self.kv_heads)
            out = F.scaled_dot_product_attention(
                self.rotate(self.split(q, self.heads), queries_at)[None],
                self.rotate(self.keys[i, :, :end], keys_at).repeat_interleave(group, 0)[None],
                self.values[i, :, :end].repeat_interleave(group, 0)[None],
                attn_mask=mask,
            )[0]
            out = out.transpose(0, 1).reshape(len(ids), -1)
            x = x + F.linear(out, self.w[layer + "self_attn.o_proj.weight"])
            h = self.norm(x, layer + "post_attention_layernorm.weight")
            gate, up, down = (self.w[f"{layer}mlp.{p}_proj.weight"] for p in ("gate", "up", "down"))
            x = x + F.linear(F.silu(F.linear(h, gate)) * F.linear(h, up), down)
        return self.norm(x, "model.norm.weight")

    def compress(self, gamma):
        for layer in range(self.layers):
            for states in (self.keys, self.values):
                shorter = compress(states[layer], gamma)
                states[layer, :, : shorter.shape[1]] = shorter
        return shorter.shape[1]


def run(model, ids, window, gamma):
    fed = slots = rounds = 0
    total = compressing = 0.0
    started = time.perf_counter()
    while fed < len(ids):
        if slots == window:
            before = time.perf_counter()
            slots = model.compress(gamma)
            compressing += time.perf_counter() - before
            rounds += 1
        count = min(window - slots, len(ids) - fed, BLOCK)
        hidden = model.feed(ids[fed : fed + count], slots)
        targets = ids[fed + 1 : fed + count + 1]
        logits = F.linear(hidden[: len(targets)], model.head).float()
        total += float(F.cross_entropy(logits, targets, reduction="sum"))
        fed, slots = fed + count, slots + count
    seconds = time.perf_counter() - started
    emit(
        seconds=seconds,
        tokens_scored=len(ids) - 1,
        mean_nll=total / (len(ids) - 1),
        compressions=rounds,
        compression_share=compressing / seconds,
    )


def main():
    folder, dtype, threads, ids, tokens, window, gamma = sys.argv[1:]
    torch.set_num_threads(int(threads))
    with torch.inference_mode():
        model = Model(folder, DTYPES[dtype], int(window))
        run(model, torch.from_numpy(read_ids(ids, int(tokens))), int(window), float(gamma))


if __name__ == "__main__":
    main()
