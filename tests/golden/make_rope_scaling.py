"""Makes the golden values of --rope-scaling: what Hugging Face transformers computes with golden
models whose scaling is another.

    make_rope_scaling.py

Needs what make_golden.py needs. Writes beside this file
    rope_scaling.json
        tokens [T], more than the models were trained on, and cases: model (a folder here), scaling
        (as on the command line), context (the trained context that the tools then assume) and nll
        [T - 1] of each token but the first, in nats
"""

import json

import make_golden
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

TOKENS, CONTEXT = 150, 64
SCALINGS = ("linear:3.5", "yarn:8", "dynamic:2")
# linear-rope has a scaling of its own; of gemma3 the layers that slide keep theirs.
MODELS = ("llama-mha", "linear-rope", "gemma3")


def text_config(folder):
    config = AutoConfig.from_pretrained(folder)
    return getattr(config, "text_config", config)


def set_scaling(config, kind, factor):
    rope = config.rope_parameters
    full = rope.get("full_attention", rope)
    own = dict(rope_type=kind, rope_theta=full["rope_theta"], factor=factor)
    if kind == "yarn":
        own["original_max_position_embeddings"] = CONTEXT
    if kind != "dynamic":
        config.max_position_embeddings = int(CONTEXT * factor)
    config.rope_parameters = dict(rope, full_attention=own) if full is not rope else own


def case(name, scaling, tokens):
    kind, factor = scaling.split(":")
    folder = make_golden.HERE / name
    config = text_config(folder)
    assert config.max_position_embeddings == CONTEXT, name
    set_scaling(config, kind, float(factor))
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    weights = load_file(folder / "model.safetensors")
    weights = {name.removeprefix("language_model."): w for name, w in weights.items()}
    model.load_state_dict(weights)
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double()
    nll = -logits.log_softmax(-1)[range(TOKENS - 1), tokens[1:]]
    return dict(
        model=name,
        scaling=scaling,
        context=config.max_position_embeddings,
        nll=[round(x, 6) for x in nll.tolist()],
    )


if __name__ == "__main__":
    torch.manual_seed(50)
    tokens = torch.randint(3, 90, (TOKENS,)).tolist()
    cases = [case(name, scaling, tokens) for name in MODELS for scaling in SCALINGS]
    text = ",\n".join(json.dumps(c) for c in cases)
    text = f'{{"tokens": {json.dumps(tokens)},\n"cases": [\n{text}\n]}}\n'
    (make_golden.HERE / "rope_scaling.json").write_text(text)
