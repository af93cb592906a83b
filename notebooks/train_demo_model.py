#!/usr/bin/env python3
"""Train a small LLaMA-family language model on novels and write it as a Hugging Face folder.

    train_demo_model.py --train DIR --held-out DIR --out DIR [--minutes 100] [--device cpu|cuda]
                        [--dim 128 ...]

DIR holds books as .txt. This made data/litbank-1m (dim 128, 6 layers, 4 heads, 2 KV heads, head_dim
32, context 1024, tied embeddings, vocabulary 2048, bf16) from 89 public-domain novels collected by
LitBank, on two CPU cores: about 6.6M tokens of phase one and 5.0M of phase two; 3.68 nats per token
(1.18 per character) on unseen books. It does not recall repeated passages yet (3.82 nats the second
time against 3.83 the first): that takes a longer run on a GPU.

Training has two phases. The first is plain text with growing context (256, 512, 1024). In the
second, passages of 24 to 200 tokens return verbatim later in the window, so that recalling distant
tokens pays and the KV cache matters. Matrices are trained with Muon (momentum orthogonalised by
Newton-Schulz; K. Jordan, 2024), everything else with AdamW. The tokenizer is sentencepiece BPE with
byte fallback, exported as both tokenizer.model and tokenizer.json.

Needs torch, numpy and sentencepiece.
"""

import argparse
import glob
import json
import math
import os
import random
import re
import struct
import time

import numpy as np
import sentencepiece as spm
import torch
import torch.nn as nn
import torch.nn.functional as F

BOS = 1
SPACE = "\u2581"  # how sentencepiece writes a space


# ---- text -> tokens ----


def read_books(folder):
    """Each book as one string: one paragraph per line, plain quotes and dashes."""
    plain = str.maketrans(
        {"\r": None, "\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "\u2014": "--"}
    )
    for path in sorted(glob.glob(os.path.join(folder, "*.txt"))):
        with open(path, encoding="utf-8", errors="replace") as f:
            text = f.read().translate(plain)
        paragraphs = (re.sub(r"\s+", " ", p).strip() for p in text.split("\n"))
        yield "\n".join(p for p in paragraphs if p) + "\n"


def train_tokenizer(books, out, vocab):
    """Sentencepiece BPE with byte fallback on a sample of the lines -> OUT/tokenizer.model."""
    rng, sample = random.Random(1), os.path.join(out, "lines.txt")
    with open(sample, "w") as f:
        for book in books:
            f.writelines(
                line + "\n"
                for line in book.split("\n")
                if 0 < len(line) < 4000 and rng.random() < 0.4
            )
    spm.SentencePieceTrainer.train(
        input=sample,
        model_prefix=os.path.join(out, "tokenizer"),
        vocab_size=vocab,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        character_coverage=0.9999,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        allow_whitespace_only_pieces=True,
        unk_id=0,
        bos_id=BOS,
        eos_id=2,
        pad_id=-1,
        max_sentence_length=5000,
    )
    os.remove(sample)
    os.remove(os.path.join(out, "tokenizer.vocab"))
    return spm.SentencePieceProcessor(model_file=os.path.join(out, "tokenizer.model"))


def encode(tokenizer, books):
    """All books as one array of ids, each book behind a BOS."""
    return np.array([t for book in books for t in [BOS] + tokenizer.encode(book)], dtype=np.uint16)


# ---- model: LLaMA, in Hugging Face's rotate-half convention ----


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def rotate(x, cos, sin):
    """x (B, heads, T, head_dim): channel i turns with channel i + head_dim/2."""
    half = x.size(-1) // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()

        def linear(columns, rows):
            return nn.Linear(columns, rows, bias=False)

        self.c = c
        self.input_layernorm = RMSNorm(c.dim, c.eps)
        self.post_attention_layernorm = RMSNorm(c.dim, c.eps)
        self.q_proj = linear(c.dim, c.heads * c.head_dim)
        self.k_proj = linear(c.dim, c.kv_heads * c.head_dim)
        self.v_proj = linear(c.dim, c.kv_heads * c.head_dim)
        self.o_proj = linear(c.heads * c.head_dim, c.dim)
        self.gate_proj, self.up_proj = linear(c.dim, c.hidden), linear(c.dim, c.hidden)
        self.down_proj = linear(c.hidden, c.dim)

    def attention(self, x, cos, sin):
        c, (batch, length, _) = self.c, x.shape

        def split(y, heads):
            return y.view(batch, length, heads, c.head_dim).transpose(1, 2)

        q = rotate(split(self.q_proj(x), c.heads), cos[:length], sin[:length])
        k = rotate(split(self.k_proj(x), c.kv_heads), cos[:length], sin[:length])
        v = split(self.v_proj(x), c.kv_heads)
        k, v = (y.repeat_interleave(c.heads // c.kv_heads, 1) for y in (k, v))
        future = torch.full((length, length), -1e9, device=x.device).triu(1)
        scores = q @ k.transpose(-1, -2) / math.sqrt(c.head_dim) + future
        return self.o_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, -1))

    def forward(self, x, cos, sin):  # x (B, T, dim)
        x = x + self.attention(self.input_layernorm(x), cos, sin)
        h = self.post_attention_layernorm(x)
        return x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


class LanguageModel(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed = nn.Embedding(c.vocab, c.dim)  # tied: also the output projection
        self.layers = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = RMSNorm(c.dim, c.eps)
        frequency = c.theta ** -(torch.arange(0, c.head_dim, 2) / c.head_dim)
        angle = torch.outer(torch.arange(c.context).float(), frequency)
        self.register_buffer("cos", torch.cat([angle.cos()] * 2, -1))
        self.register_buffer("sin", torch.cat([angle.sin()] * 2, -1))
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, 0, 0.02)

    def forward(self, ids):  # (B, T) -> logits (B, T, vocab)
        x = self.embed(ids)
        for block in self.layers:
            x = block(x, self.cos, self.sin)
        return self.norm(x) @ self.embed.weight.t()


def token_losses(net, z):
    """z (B, T+1) ids -> nats of the T predictions (B, T)."""
    return F.cross_entropy(net(z[:, :-1]).flatten(0, 1), z[:, 1:].flatten(), reduction="none").view(
        z.size(0), -1
    )


# ---- training ----


def repeat_passages(row, rng):
    """Copies one to four passages of 24 to 200 tokens later in the window, in the same array."""
    T = len(row) - 1
    for _ in range(rng.integers(1, 5)):
        n = int(rng.integers(24, min(200, T // 2)))
        source = int(rng.integers(0, T - 2 * n))
        target = int(rng.integers(source + n, T - n))
        row[target : target + n] = row[source : source + n].copy()


def windows(tokens, batch, T, rng, device, repeats=False):
    """Random windows (batch, T+1) of the token stream."""
    z = np.stack(
        [tokens[i : i + T + 1] for i in rng.integers(0, len(tokens) - T - 1, batch)]
    ).astype(np.int64)
    for row in z:
        if repeats and rng.random() < 0.67:
            repeat_passages(row, rng)
    return torch.tensor(z, device=device)


def orthogonalise(gradient):
    """Five Newton-Schulz steps towards the nearest semi-orthogonal matrix, with Muon's quintic
    coefficients.
    """
    x = gradient / (gradient.norm() + 1e-7)
    tall = x.size(0) > x.size(1)
    x = x.t() if tall else x
    for _ in range(5):
        a = x @ x.t()
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.t() if tall else x) * max(1, gradient.size(0) / gradient.size(1)) ** 0.5


def run_phase(net, tokens, held, minutes, contexts, repeats, args):
    """Trains for `minutes`. contexts: [(until this share of the phase, T)]. The learning rate warms
    up over 50 steps, is flat for 40% of the phase, then falls linearly to 2%.
    """

    def is_matrix(name, p):
        return p.dim() == 2 and not name.startswith("embed")

    matrices = [p for n, p in net.named_parameters() if is_matrix(n, p)]
    others = [p for n, p in net.named_parameters() if not is_matrix(n, p)]
    momentum = [torch.zeros_like(p) for p in matrices]
    adam = torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
    rng, start, step, seen = np.random.default_rng(0), time.time(), 0, 0
    while (share := (time.time() - start) / (60 * minutes)) < 1:
        T = next(t for until, t in contexts if share < until)
        batch = max(1, args.batch_tokens // T)
        scale = min(1, step / 50) * (1 if share < 0.4 else max(0.02, (1 - share) / 0.6))
        loss = token_losses(net, windows(tokens, batch, T, rng, args.device, repeats)).mean()
        net.zero_grad(set_to_none=True)
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = 3e-3 * scale
        adam.step()
        with torch.no_grad():
            for p, m in zip(matrices, momentum):
                m.mul_(0.95).add_(p.grad)
                p.mul_(1 - 2e-4 * scale).add_(
                    orthogonalise(p.grad.add(m, alpha=0.95)), alpha=-0.02 * scale
                )
        step, seen = step + 1, seen + batch * T
        if step % 20 == 0:
            rate = seen / (time.time() - start)
            print(
                f"{step} T={T} {seen / 1e6:.2f}M tokens, loss {loss.item():.3f}, {rate:.0f}"
                " tokens/s",
                flush=True,
            )
        if step % 200 == 0:
            print("held-out", evaluate(net, held, args), flush=True)


@torch.no_grad()
def evaluate(net, held, args):
    """Nats per token on unseen books, and on a passage that returns half a window later (first
    time, again).
    """
    rng, T = np.random.default_rng(7), args.context
    plain = np.mean(
        [token_losses(net, windows(held, 4, T, rng, args.device)).mean().item() for _ in range(6)]
    )
    z = windows(held, 6, T, rng, args.device)[:, :T]
    first, again, n = T // 10, T * 6 // 10, T // 4
    z[:, again : again + n] = z[:, first : first + n]
    losses = token_losses(net, z)
    skip = 40  # the first tokens of a return cannot know that it is one

    def passage(at):
        return float(losses[:, at + skip : at + n - 1].mean())

    return dict(loss=float(plain), first_time=passage(first), again=passage(again))


# ---- Hugging Face folder ----


def hugging_face_name(name):
    if name == "embed.weight":
        return "model.embed_tokens.weight"
    if name == "norm.weight":
        return "model.norm.weight"
    _, layer, rest = name.split(".", 2)
    part = "mlp." if "_proj" in rest else ""
    if rest[:6] in ("q_proj", "k_proj", "v_proj", "o_proj"):
        part = "self_attn."
    return f"model.layers.{layer}.{part}{rest}"


def write_safetensors(net, path):
    """bf16: an 8-byte header length, the JSON header padded to 8 bytes, then the tensors."""
    tensors = {
        hugging_face_name(k): v.detach().to(torch.bfloat16).cpu().contiguous()
        for k, v in net.named_parameters()
    }
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(tensors):
        blob = tensors[name].view(torch.int16).numpy().tobytes()
        header[name] = dict(
            dtype="BF16", shape=list(tensors[name].shape), data_offsets=[at, at + len(blob)]
        )
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def write_config(args, path):
    config = dict(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        hidden_size=args.dim,
        intermediate_size=args.hidden,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
        head_dim=args.head_dim,
        vocab_size=args.vocab,
        max_position_embeddings=args.context,
        rms_norm_eps=args.eps,
        rope_theta=args.theta,
        rope_scaling=None,
        hidden_act="silu",
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=2,
        torch_dtype="bfloat16",
        attention_bias=False,
        mlp_bias=False,
    )
    with open(path, "w") as f:
        json.dump(config, f, indent=2)


def merges_of(tokenizer, vocab):
    """Sentencepiece's scores as a merge list: every way to make a piece of two others, best piece
    first.
    """
    merges = []
    for piece, i in vocab.items():
        special = tokenizer.is_control(i) or tokenizer.is_byte(i) or tokenizer.is_unknown(i)
        if special or len(piece) < 2:
            continue
        ways = [
            (piece[:k], piece[k:])
            for k in range(1, len(piece))
            if piece[:k] in vocab and piece[k:] in vocab
        ]
        for n, (a, b) in enumerate(sorted(ways, key=lambda way: (vocab[way[0]], vocab[way[1]]))):
            merges.append((-tokenizer.get_score(i), i, n, f"{a} {b}"))
    return [merge[-1] for merge in sorted(merges)]


def write_tokenizer(tokenizer, path):
    def special(i, text):
        off = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        return dict(id=i, content=text, **off, special=True)

    bos = dict(SpecialToken=dict(id="<s>", type_id=0))

    def sequence(name, type_id):
        return dict(Sequence=dict(id=name, type_id=type_id))

    vocab = {tokenizer.id_to_piece(i): i for i in range(tokenizer.get_piece_size())}
    description = dict(
        version="1.0",
        truncation=None,
        padding=None,
        added_tokens=[special(0, "<unk>"), special(BOS, "<s>"), special(2, "</s>")],
        normalizer=dict(
            type="Sequence",
            normalizers=[
                dict(type="Prepend", prepend=SPACE),
                dict(type="Replace", pattern=dict(String=" "), content=SPACE),
            ],
        ),
        pre_tokenizer=None,
        post_processor=dict(
            type="TemplateProcessing",
            single=[bos, sequence("A", 0)],
            pair=[
                bos,
                sequence("A", 0),
                dict(SpecialToken=dict(id="<s>", type_id=1)),
                sequence("B", 1),
            ],
            special_tokens={"<s>": dict(id="<s>", ids=[BOS], tokens=["<s>"])},
        ),
        decoder=dict(
            type="Sequence",
            decoders=[
                dict(type="Replace", pattern=dict(String=SPACE), content=" "),
                dict(type="ByteFallback"),
                dict(type="Fuse"),
                dict(type="Strip", content=" ", start=1, stop=0),
            ],
        ),
        model=dict(
            type="BPE",
            dropout=None,
            unk_token="<unk>",
            continuing_subword_prefix=None,
            end_of_word_suffix=None,
            fuse_unk=True,
            byte_fallback=True,
            ignore_merges=False,
            vocab=vocab,
            merges=merges_of(tokenizer, vocab),
        ),
    )
    with open(path, "w") as f:
        json.dump(description, f, ensure_ascii=False, indent=0)


def parse_arguments():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("train", "held-out", "out"):
        p.add_argument("--" + name, required=True)
    sizes = dict(vocab=2048, dim=128, layers=6, heads=4, kv_heads=2, hidden=384, context=1024)
    for name, value in dict(
        minutes=100.0, device="cpu", theta=10000.0, eps=1e-5, batch_tokens=8192, **sizes
    ).items():
        p.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    args = p.parse_args()
    args.head_dim = args.dim // args.heads
    return args


def main():
    args = parse_arguments()
    torch.manual_seed(0)
    os.makedirs(args.out, exist_ok=True)
    books = list(read_books(args.train))
    tokenizer = train_tokenizer(books, args.out, args.vocab)
    tokens, held = encode(tokenizer, books), encode(tokenizer, read_books(args.held_out))
    net = LanguageModel(args).to(args.device)
    print(sum(p.numel() for p in net.parameters()), "parameters,", tokens.size, "training tokens")
    short, middle = args.context // 4, args.context // 2
    plain = [(0.35, short), (0.6, middle), (2, args.context)]
    run_phase(net, tokens, held, args.minutes * 0.56, plain, False, args)
    repeating = [(0.45, middle), (2, args.context)]
    run_phase(net, tokens, held, args.minutes * 0.44, repeating, True, args)
    print("held-out", evaluate(net, held, args))
    write_safetensors(net, os.path.join(args.out, "model.safetensors"))
    write_config(args, os.path.join(args.out, "config.json"))
    write_tokenizer(tokenizer, os.path.join(args.out, "tokenizer.json"))


if __name__ == "__main__":
    main()
