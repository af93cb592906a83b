"""Writes a random LLaMA checkpoint of a given shape, for benchmarks and tests. numpy only.

    make_checkpoint.py OUT
    make_checkpoint.py OUT --layers 4 --dim 512 --hidden 1408 --heads 8 --kv-heads 4 --vocab 2048
    make_checkpoint.py OUT --shape llama-2-7b
    freqkv-replay ppl --model OUT --token-ids OUT/tokens.npy --policy full

The first has about 500M parameters, 1.0 GB, and takes some seconds; llama-2-7b has 13.5 GB and
llama-3-8b 16.1 GB, written at the speed of the disk.

OUT gets config.json, model.safetensors (above 5 GB: shards and their index), tokenizer.json (one
token per byte, the rest of the vocabulary unused) and tokens.npy (random ids). Matrices are normal
with deviation 1/sqrt(inputs), norms are 1, so activations stay of order one through any depth; the
numbers mean nothing. One piece is drawn and repeated through all matrices. Its length is a prime,
so no two rows of a matrix are the same, and drawing takes no time compared with writing; memory
stays below 100 MB whatever the size. The same arguments give the same files.
"""

import argparse
import json
import pathlib

import numpy as np

PIECE = 4194301  # elements drawn; the largest prime below 2^22
SHARD = 5 << 30  # bytes

SPECIAL = ("<unk>", "<s>", "</s>")  # ids 0 to 2; the 256 bytes follow

SHAPES = {
    "smollm2-135m": dict(
        layers=30,
        dim=576,
        hidden=1536,
        heads=9,
        kv_heads=3,
        head_dim=64,
        vocab=49152,
        context=8192,
        theta=100000.0,
        tied=True,
    ),
    "tinyllama-1.1b": dict(
        layers=22,
        dim=2048,
        hidden=5632,
        heads=32,
        kv_heads=4,
        head_dim=64,
        vocab=32000,
        context=2048,
    ),
    "llama-2-7b": dict(
        layers=32, dim=4096, hidden=11008, heads=32, kv_heads=32, vocab=32000, context=4096
    ),
    "llama-3-8b": dict(
        layers=32,
        dim=4096,
        hidden=14336,
        heads=32,
        kv_heads=8,
        vocab=128256,
        context=8192,
        theta=500000.0,
    ),
}


def tensor_shapes(a):
    """Name -> shape, in the order of the file."""
    q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    shapes = {"model.embed_tokens.weight": (a.vocab, a.dim)}
    for i in range(a.layers):
        layer = f"model.layers.{i}."
        shapes |= {
            layer + "input_layernorm.weight": (a.dim,),
            layer + "self_attn.q_proj.weight": (q, a.dim),
            layer + "self_attn.k_proj.weight": (kv, a.dim),
            layer + "self_attn.v_proj.weight": (kv, a.dim),
            layer + "self_attn.o_proj.weight": (a.dim, q),
            layer + "post_attention_layernorm.weight": (a.dim,),
            layer + "mlp.gate_proj.weight": (a.hidden, a.dim),
            layer + "mlp.up_proj.weight": (a.hidden, a.dim),
            layer + "mlp.down_proj.weight": (a.dim, a.hidden),
        }
    shapes["model.norm.weight"] = (a.dim,)
    if not a.tied:
        shapes["lm_head.weight"] = (a.vocab, a.dim)
    return shapes


def to_bf16(x):
    """float32 -> the upper 16 bits, rounded to nearest even."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


# Stored type -> name in safetensors, name in config.json, bytes, conversion from float32
DTYPES = {
    "bf16": ("BF16", "bfloat16", 2, to_bf16),
    "f32": ("F32", "float32", 4, lambda x: x),
}


def elements(shape):
    return int(np.prod(shape, dtype=np.int64))


def split_shards(shapes, dtype):
    """Tensors in order, cut where a shard would pass SHARD bytes."""
    shards, free_bytes = [{}], SHARD
    for name, shape in shapes.items():
        size = DTYPES[dtype][2] * elements(shape)
        if size > free_bytes and shards[-1]:
            shards.append({})
            free_bytes = SHARD
        shards[-1][name] = shape
        free_bytes -= size
    return shards


def write_shard(path, shapes, piece, dtype):
    stored, _, size, convert = DTYPES[dtype]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        end = offset + size * elements(shape)
        header[name] = {"dtype": stored, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    scaled, at = {}, 0
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            n = elements(shape)
            if len(shape) == 1:
                f.write(convert(np.ones(n, np.float32)).tobytes())
                continue
            if shape[1] not in scaled:
                scaled[shape[1]] = convert(piece * np.float32(shape[1] ** -0.5))
            while n:
                part = scaled[shape[1]][at : at + n]
                f.write(part)
                n -= len(part)
                at = (at + len(part)) % PIECE


def write_weights(out, shapes, rng, dtype):
    piece, shards, names = rng.standard_normal(PIECE, np.float32), split_shards(shapes, dtype), {}
    for i, shard in enumerate(shards):
        name = (
            f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
            if len(shards) > 1
            else "model.safetensors"
        )
        write_shard(out / name, shard, piece, dtype)
        names |= dict.fromkeys(shard, name)
    total = DTYPES[dtype][2] * sum(map(elements, shapes.values()))
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": names}
        (out / "model.safetensors.index.json").write_text(json.dumps(index) + "\n")
    return total


def byte_characters():
    """The character that byte-level BPE writes for each of the 256 bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    characters = {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}
    return [characters[b] for b in range(256)]


def write_tokenizer(path, vocab):
    """Byte-level BPE without merges: text of N ASCII characters has N ids."""
    tokens = [*SPECIAL, *byte_characters()]
    tokens += [f"<unused{i}>" for i in range(len(tokens), vocab)]
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": [],
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": token, "special": True} | flags for i, token in enumerate(SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": model,
    }
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description="random LLaMA checkpoint for benchmarks")
    parser.add_argument("out", type=pathlib.Path, help="folder to write")
    parser.add_argument(
        "--shape",
        choices=SHAPES,
        help="of a well-known model; the options below change parts of it",
    )
    for name, default in dict(
        layers=16,
        dim=1536,
        hidden=4096,
        heads=12,
        kv_heads=4,
        head_dim=128,
        vocab=32000,
        context=4096,
        theta=10000.0,
        tokens=16384,
        seed=0,
    ).items():
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=type(default),
            default=default,
            help=f"default {default}",
        )
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="default bf16")
    parser.add_argument("--tied", action="store_true", help="no lm_head of its own")
    shape = parser.parse_known_args()[0].shape
    parser.set_defaults(**SHAPES.get(shape, {}))
    a = parser.parse_args()
    if a.vocab < len(SPECIAL) + 256:
        parser.error(f"--vocab must be at least {len(SPECIAL) + 256}: a token for every byte")

    a.out.mkdir(parents=True, exist_ok=True)
    config = dict(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        hidden_size=a.dim,
        intermediate_size=a.hidden,
        num_hidden_layers=a.layers,
        num_attention_heads=a.heads,
        num_key_value_heads=a.kv_heads,
        head_dim=a.head_dim,
        vocab_size=a.vocab,
        max_position_embeddings=a.context,
        rms_norm_eps=1e-5,
        rope_theta=a.theta,
        rope_scaling=None,
        hidden_act="silu",
        tie_word_embeddings=a.tied,
        bos_token_id=1,
        eos_token_id=2,
        torch_dtype=DTYPES[a.dtype][1],
    )
    (a.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    rng = np.random.default_rng(a.seed)
    np.save(a.out / "tokens.npy", rng.integers(0, a.vocab, a.tokens, dtype=np.int32))
    write_tokenizer(a.out / "tokenizer.json", a.vocab)
    written = write_weights(a.out, tensor_shapes(a), rng, a.dtype)
    parameters = written / DTYPES[a.dtype][2]
    print(f"{a.out}: {parameters / 1e6:.0f}M parameters, {written / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
