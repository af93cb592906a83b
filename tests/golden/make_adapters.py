"""Makes the golden adapters: LoRA adapters of PEFT on the golden checkpoints, and what PEFT and
transformers compute with them, without merging.

    make_adapters.py [NAME ...]         needs numpy, torch, transformers 5 and peft

One folder per adapter in adapters/ beside this file, as save_pretrained writes it, with
expected/model.safetensors as make_golden.py describes it. CASES holds more kinds than are stored:
tests/e2e/check_adapter.py compares with PEFT itself where it is installed.
"""

import json
import shutil
import sys
import warnings

import torch
from make_golden import HERE, TOKENS, states
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# name -> (base, options of LoraConfig)
CASES = {
    "patterns": (
        "llama-mha",
        dict(
            r=4,
            lora_alpha=6,
            target_modules=["q_proj", "v_proj", "down_proj", "lm_head"],
            rank_pattern={r"layers\.1\.self_attn\.q_proj": 2, "down_proj": 8, "^v_proj": 3},
            alpha_pattern={"model.layers.0.mlp.down_proj": 1, "proj": 16, "lm_head": 3},
        ),
    ),
    "tied-embedding": (
        "llama-gqa-tied",
        dict(r=3, lora_alpha=4, target_modules=["embed_tokens", "o_proj"], use_rslora=True),
    ),
    "saved-modules": (
        "llama-gqa-tied",
        dict(
            r=2,
            target_modules="all-linear",
            modules_to_save=["embed_tokens", "norm", "input_layernorm", "up_proj"],
        ),
    ),
    "biases": ("qwen2", dict(r=2, target_modules=ALL, bias="all", lora_alpha=5)),
    "own-biases": ("qwen2", dict(r=2, target_modules=["q_proj", "k_proj"], lora_bias=True)),
    "lora-only": ("qwen2", dict(r=2, target_modules=["q_proj", "v_proj"], bias="lora_only")),
    "regex": ("llama-bf16", dict(r=4, target_modules=r".*layers\.[02]\.(mlp|self_attn)\..*_proj")),
    "layers": (
        "llama-bf16",
        dict(r=4, target_modules=ALL, layers_to_transform=[1, 2], layers_pattern="layers"),
    ),
    "one-layer": ("llama-bf16", dict(r=4, target_modules=ALL, layers_to_transform=2)),
    "excluded": (
        "qwen3",
        dict(r=4, target_modules="all-linear", exclude_modules=["0.mlp.up_proj", "k_proj"]),
    ),
    "head-alone": ("qwen3", dict(r=4, target_modules=["lm_head"])),
    "head-saved": ("qwen3", dict(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "tied-saved": (
        "qwen3",
        dict(
            r=4,
            target_modules=["q_proj"],
            modules_to_save=["embed_tokens"],
            ensure_weight_tying=True,
        ),
    ),
    "tied-both": (
        "qwen3",
        dict(r=4, target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True),
    ),
    "conv": ("mistral", dict(r=4, target_modules=["q_proj"], fan_in_fan_out=True)),
}
STORED = ["patterns", "tied-embedding", "saved-modules", "biases"]


@torch.no_grad()
def make(name, folder):
    """The adapter's folder. Returns base, model and tokens."""
    base, options = CASES[name]
    seed = 1000 + sorted(CASES).index(name)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(
        HERE / base, dtype=torch.float32, attn_implementation="eager"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options)).eval()
        for label, tensor in sorted(tuned.named_parameters()):
            if "lora_" in label or "modules_to_save" in label or tensor.requires_grad:
                tensor += 0.2 * torch.randn(tensor.shape)
        tuned.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    tokens = torch.randint(0, model.config.vocab_size, (TOKENS,))
    return base, tuned, tokens


@torch.no_grad()
def store(name):
    folder = HERE / "adapters" / name
    shutil.rmtree(folder, ignore_errors=True)
    _, tuned, tokens = make(name, folder)
    golden = {k: v.float().contiguous() for k, v in states(tuned.base_model.model, tokens).items()}
    golden["tokens"] = tokens.to(torch.int32)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = CASES[name][0]
    config["target_modules"] = sorted(config["target_modules"])
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "expected").mkdir()
    save_file(golden, folder / "expected" / "model.safetensors")
    logits = golden["logits"]
    print(f"{name:16} logits sd {logits.std():.2f}, largest {logits.abs().max():.2f}")


if __name__ == "__main__":
    for one in sys.argv[1:] or STORED:
        store(one)
