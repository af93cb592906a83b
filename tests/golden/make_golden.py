"""Makes the golden checkpoints: tiny random models and what Hugging Face transformers computes with
them.

    make_golden.py [NAME ...]

Needs numpy, torch and transformers 5, and a few seconds on a CPU. Makes one folder per model beside
this file, each with
    config.json, model.safetensors (or shards with their index)
        as save_pretrained writes them, apart from the classic configs below
    expected/model.safetensors
        what test_golden.c compares with: T tokens, all float32 but the tokens
        tokens       I32 [T]
        logits       [T, vocab]
        key.I        [T, kv_heads, head_dim]   layer I, before RoPE, after k_norm if there is one
        value.I      [T, kv_heads, head_dim]
        query.I      [T, heads, head_dim]      before RoPE (after q_norm)
        key_rotated.I [T, kv_heads, head_dim]   as transformers caches it
        inv_freq     [head_dim / 2]

Weights are drawn with a seed per model and a spread wide enough that logits differ by several units
and attention is far from uniform, so that a wrong scale, norm, bias or rotation shows. 16-bit
checkpoints are run by transformers in float32 from the 16-bit weights: attention eager, one pass
over all tokens. Files are the same for the same versions of torch and transformers; torch's
generator has been stable for years.
"""

import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
TOKENS = 40
COMMON = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    vocab_size=96,
    max_position_embeddings=64,
    hidden_act="silu",
    rms_norm_eps=1e-5,
    bos_token_id=1,
    eos_token_id=2,
)
LLAMA3 = dict(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
)

# name -> (model_type, seed, config on top of COMMON, dtype of the file, max_shard_size)
MODELS = {
    "llama-mha": ("llama", 1, dict(tie_word_embeddings=False), torch.float32, None),
    "llama-gqa-tied": (
        "llama",
        2,
        dict(num_key_value_heads=2, tie_word_embeddings=True),
        torch.float32,
        None,
    ),
    "llama3-rope": (
        "llama",
        3,
        dict(
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=256,
            rope_parameters=dict(rope_type="llama3", rope_theta=5000.0, **LLAMA3),
        ),
        torch.float32,
        None,
    ),
    "linear-rope": (
        "llama",
        4,
        dict(
            num_key_value_heads=2,
            rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0),
        ),
        torch.float32,
        None,
    ),
    "mistral": (
        "mistral",
        5,
        dict(num_key_value_heads=2, sliding_window=None, rms_norm_eps=1e-6),
        torch.float32,
        None,
    ),
    "qwen2": (
        "qwen2",
        6,
        dict(
            num_key_value_heads=2,
            tie_word_embeddings=True,
            rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
        ),
        torch.float32,
        None,
    ),
    "qwen3": (
        "qwen3",
        7,
        dict(num_key_value_heads=2, head_dim=12, tie_word_embeddings=True),
        torch.float32,
        None,
    ),
    "wide-heads": ("llama", 8, dict(num_key_value_heads=2, head_dim=20), torch.float32, None),
    "llama-f16": ("llama", 9, dict(num_key_value_heads=2), torch.float16, None),
    "llama-bf16": (
        "llama",
        10,
        dict(num_key_value_heads=4, num_hidden_layers=3),
        torch.bfloat16,
        None,
    ),
    "sharded": (
        "llama",
        11,
        dict(num_key_value_heads=2, num_hidden_layers=3),
        torch.bfloat16,
        "16KB",
    ),
}

# Configs rewritten the way transformers 4 spells them: most files on the hub look like that.
CLASSIC = {"linear-rope", "llama-gqa-tied", "qwen2"}


def draw_weights(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in sorted(model.state_dict().items()):
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("norm.weight"):
            tensor.copy_(1 + 0.2 * noise)
        elif "embed_tokens" in name or "lm_head" in name or tensor.dim() == 1:
            tensor.copy_(0.5 * noise)
        else:
            tensor.copy_(0.3 * noise)


def write_classic_config(path):
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2) + "\n")


def states(model, tokens):
    """What the engine's taps must show, from forward hooks on the projections (or the norm behind
    them).
    """
    config, found = model.config, {}
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    for i, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        modules = {
            "value": (attention.v_proj, kv_heads),
            "key": (getattr(attention, "k_norm", attention.k_proj), kv_heads),
            "query": (getattr(attention, "q_norm", attention.q_proj), heads),
        }
        for site, (module, n) in modules.items():

            def keep(_, __, output, name=f"{site}.{i}", n=n):
                found[name] = output.reshape(tokens.numel(), n, -1).clone()

            module.register_forward_hook(keep)
    out = model(tokens[None], use_cache=True)
    found["logits"] = out.logits[0]
    for i in range(config.num_hidden_layers):
        found[f"key_rotated.{i}"] = out.past_key_values.layers[i].keys[0].transpose(0, 1)
    found["inv_freq"] = model.model.rotary_emb.inv_freq
    return found


@torch.no_grad()
def make(name):
    model_type, seed, own, dtype, shard = MODELS[name]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    config = AutoConfig.for_model(model_type, **{**COMMON, **own})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    draw_weights(model, seed)
    model.to(dtype).save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if name in CLASSIC:
        write_classic_config(folder / "config.json")

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokens = torch.randint(
        0, config.vocab_size, (TOKENS,), generator=torch.Generator().manual_seed(100 + seed)
    )
    golden = {k: v.float().contiguous() for k, v in states(model, tokens).items()}
    golden["tokens"] = tokens.to(torch.int32)
    (folder / "expected").mkdir()
    save_file(golden, folder / "expected" / "model.safetensors")
    logits = golden["logits"]
    print(f"{name:16} logits sd {logits.std():.2f}, largest {logits.abs().max():.2f}")


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        make(name)
