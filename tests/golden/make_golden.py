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
        inv_freq     [head_dim / 2, or less] of the layers that see the whole context

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
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

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
    "mistral-sliding": (
        "mistral",
        12,
        dict(num_key_value_heads=2, sliding_window=7),
        torch.float32,
        None,
    ),
    "qwen3-sliding": (
        "qwen3",
        13,
        dict(
            num_key_value_heads=1,
            head_dim=12,
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=9,
            max_window_layers=1,
        ),
        torch.float32,
        None,
    ),
    "smollm3": (
        "smollm3",
        14,
        dict(num_key_value_heads=2, num_hidden_layers=3, no_rope_layers=[1, 0, 1], pad_token_id=0),
        torch.float32,
        None,
    ),
    "smollm3-interval": (
        "smollm3",
        15,
        dict(
            num_key_value_heads=4,
            num_hidden_layers=4,
            no_rope_layer_interval=3,
            use_sliding_window=True,
            sliding_window=5,
            tie_word_embeddings=False,
            pad_token_id=0,
        ),
        torch.float32,
        None,
    ),
    "phi3": (
        "phi3",
        16,
        dict(num_key_value_heads=2, sliding_window=11, pad_token_id=0),
        torch.float32,
        None,
    ),
    "phi3-partial": (
        "phi3",
        17,
        dict(
            num_key_value_heads=1,
            hidden_size=48,
            num_attention_heads=3,
            tie_word_embeddings=True,
            pad_token_id=0,
            rope_parameters=dict(
                rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.75
            ),
        ),
        torch.float32,
        None,
    ),
    "granite": (
        "granite",
        18,
        dict(
            num_key_value_heads=2,
            embedding_multiplier=3.0,
            logits_scaling=1.7,
            residual_multiplier=0.4,
            attention_multiplier=0.2,
        ),
        torch.float32,
        None,
    ),
    "olmo2": ("olmo2", 19, dict(num_key_value_heads=2, pad_token_id=0), torch.float32, None),
    "gemma2": (
        "gemma2",
        20,
        dict(
            num_key_value_heads=2,
            head_dim=12,
            num_hidden_layers=3,
            sliding_window=7,
            query_pre_attn_scalar=5,
            attn_logit_softcapping=3.0,
            final_logit_softcapping=6.0,
        ),
        torch.float32,
        None,
    ),
    "gemma3": (
        "gemma3_text",
        21,
        dict(
            num_key_value_heads=1,
            head_dim=10,
            num_hidden_layers=3,
            sliding_window=6,
            query_pre_attn_scalar=7,
            sliding_window_pattern=2,
            tie_word_embeddings=False,
            rope_parameters=dict(
                full_attention=dict(rope_type="linear", rope_theta=50000.0, factor=8.0),
                sliding_attention=dict(rope_type="default", rope_theta=1000.0),
            ),
        ),
        torch.bfloat16,
        None,
    ),
}

# Configs rewritten the way transformers 4 spells them: most files on the hub look like that.
CLASSIC = {"linear-rope", "llama-gqa-tied", "qwen2", "gemma3"}
# Fields that follow from others, left out.
SHORT = {"smollm3-interval": ("no_rope_layers", "layer_types")}
# As the text part of a multimodal checkpoint.
NESTED = {"gemma3"}


def draw_weights(model, seed, norm):
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in sorted(model.state_dict().items()):
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("norm.weight"):
            tensor.copy_(norm + 0.2 * noise)
        elif "embed_tokens" in name or "lm_head" in name or tensor.dim() == 1:
            tensor.copy_(0.5 * noise)
        else:
            tensor.copy_(0.3 * noise)


def write_classic_config(path):
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
        del config["layer_types"]
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    key = "rope_type" if "rope_local_base_freq" in config else "type"
    config["rope_scaling"] = None if kind == "default" else {key: kind, **rope}
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2) + "\n")


def leave_out(path, fields):
    config = {k: v for k, v in json.loads(path.read_text()).items() if k not in fields}
    path.write_text(json.dumps(config, indent=2) + "\n")


def write_nested(folder):
    """The text part of a multimodal checkpoint: config and names as transformers 4 wrote them."""
    path = folder / "config.json"
    text = json.loads(path.read_text())
    whole = dict(model_type="gemma3", vision_config=dict(), text_config=text)
    whole["eos_token_id"] = [text.pop("eos_token_id"), 5]
    path.write_text(json.dumps(whole, indent=2) + "\n")
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {f"language_model.{name}": tensor for name, tensor in tensors.items()},
        folder / "model.safetensors",
    )


def states(model, tokens):
    """What the engine's taps must show, from forward hooks on the projections (or the norm behind
    them).
    """
    config, found = model.config, {}
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads

    def keep(module, sites):
        def hook(_, __, output):
            width = output.shape[-1] if output.dim() == 3 else 0
            at = 0
            for site, n in sites:
                part = output
                if len(sites) > 1:
                    step = width * n // (heads + 2 * kv_heads)
                    part = output[..., at : at + step]
                    at += step
                elif output.dim() == 4 and output.shape[1] == n and site != "value":
                    part = output.transpose(1, 2)  # normed after the heads were split
                found[site] = part.reshape(tokens.numel(), n, -1).clone()

        module.register_forward_hook(hook)

    for i, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        if hasattr(attention, "qkv_proj"):
            sites = [(f"query.{i}", heads), (f"key.{i}", kv_heads), (f"value.{i}", kv_heads)]
            keep(attention.qkv_proj, sites)
            continue
        keep(attention.v_proj, [(f"value.{i}", kv_heads)])
        keep(getattr(attention, "k_norm", attention.k_proj), [(f"key.{i}", kv_heads)])
        keep(getattr(attention, "q_norm", attention.q_proj), [(f"query.{i}", heads)])
    cache = DynamicCache()  # made without the config: keeps all tokens of sliding layers
    out = model(tokens[None], use_cache=True, past_key_values=cache)
    found["logits"] = out.logits[0]
    for i in range(config.num_hidden_layers):
        found[f"key_rotated.{i}"] = out.past_key_values.layers[i].keys[0].transpose(0, 1)
    rotary = model.model.rotary_emb
    found["inv_freq"] = getattr(rotary, "full_attention_inv_freq", None)
    if found["inv_freq"] is None:
        found["inv_freq"] = rotary.inv_freq
    return found


@torch.no_grad()
def make(name):
    model_type, seed, own, dtype, shard = MODELS[name]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    config = AutoConfig.for_model(model_type, **{**COMMON, **own})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    draw_weights(model, seed, 0 if model_type.startswith("gemma") else 1)
    model.to(dtype).save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if name in CLASSIC:
        write_classic_config(folder / "config.json")
    if name in SHORT:
        leave_out(folder / "config.json", SHORT[name])

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokens = torch.randint(
        0, config.vocab_size, (TOKENS,), generator=torch.Generator().manual_seed(100 + seed)
    )
    golden = {k: v.float().contiguous() for k, v in states(model, tokens).items()}
    golden["tokens"] = tokens.to(torch.int32)
    if name in NESTED:
        write_nested(folder)
    (folder / "expected").mkdir()
    save_file(golden, folder / "expected" / "model.safetensors")
    logits = golden["logits"]
    print(f"{name:16} logits sd {logits.std():.2f}, largest {logits.abs().max():.2f}")


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        make(name)
