"""Writes a random bf16 LLaMA checkpoint of a given shape, for benchmarks that need weights larger
than any cache. numpy only.

    make_checkpoint.py OUT
    make_checkpoint.py OUT --layers 4 --dim 512 --hidden 1408 --heads 8 --kv-heads 4 --vocab 2048
    make_checkpoint.py OUT --shape llama-2-7b
    freqkv-replay ppl --model OUT --token-ids OUT/tokens.npy --policy full

The first has about 500M parameters, 1.0 GB, and takes some seconds; llama-2-7b has 13.5 GB and
llama-3-8b 16.1 GB, written at the speed of the disk.

OUT gets config.json, model.safetensors (above 5 GB: shards and their index) and tokens.npy (random
ids: there is no tokenizer, and none is needed with --token-ids). Matrices are normal with deviation
1/sqrt(inputs), norms are 1, so activations stay of order one through any depth; the numbers mean
nothing. One piece is drawn and repeated through all matrices. Its length is a prime, so no two rows
of a matrix are the same, and drawing takes no time compared with writing; memory stays below 100 MB
whatever the size. The same arguments give the same files.
"""

import argparse
import json
import pathlib

import numpy as np

PIECE = 4194301  # elements drawn; the largest prime below 2^22
SHARD = 5 << 30  # bytes

SHAPES = {
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


def weight_bytes(shape):
    return 2 * int(np.prod(shape, dtype=np.int64))


def split_shards(shapes):
    """Tensors in order, cut where a shard would pass SHARD bytes."""
    shards, free_bytes = [{}], SHARD
    for name, shape in shapes.items():
        if weight_bytes(shape) > free_bytes and shards[-1]:
            shards.append({})
            free_bytes = SHARD
        shards[-1][name] = shape
        free_bytes -= weight_bytes(shape)
    return shards


def write_shard(path, shapes, piece):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        header[name] = {
            "dtype": "BF16",
            "shape": shape,
            "data_offsets": [offset, offset + weight_bytes(shape)],
        }
        offset += weight_bytes(shape)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    scaled, at = {}, 0
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            n = weight_bytes(shape) // 2
            if len(shape) == 1:
                f.write(to_bf16(np.ones(n, np.float32)).tobytes())
                continue
            if shape[1] not in scaled:
                scaled[shape[1]] = to_bf16(piece * np.float32(shape[1] ** -0.5))
            while n:
                part = scaled[shape[1]][at : at + n]
                f.write(part)
                n -= len(part)
                at = (at + len(part)) % PIECE


def write_weights(out, shapes, rng):
    piece, shards, names = rng.standard_normal(PIECE, np.float32), split_shards(shapes), {}
    for i, shard in enumerate(shards):
        name = (
            f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
            if len(shards) > 1
            else "model.safetensors"
        )
        write_shard(out / name, shard, piece)
        names |= dict.fromkeys(shard, name)
    total = sum(map(weight_bytes, shapes.values()))
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": names}
        (out / "model.safetensors.index.json").write_text(json.dumps(index) + "\n")
    return total


def main():
    parser = argparse.ArgumentParser(description="random bf16 LLaMA checkpoint for benchmarks")
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
    parser.add_argument("--tied", action="store_true", help="no lm_head of its own")
    shape = parser.parse_known_args()[0].shape
    parser.set_defaults(**SHAPES.get(shape, {}))
    a = parser.parse_args()

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
        torch_dtype="bfloat16",
    )
    (a.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    rng = np.random.default_rng(a.seed)
    np.save(a.out / "tokens.npy", rng.integers(0, a.vocab, a.tokens, dtype=np.int32))
    written = write_weights(a.out, tensor_shapes(a), rng)
    print(f"{a.out}: {written // 2 / 1e6:.0f}M parameters, {written / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
