"""How a model turns its keys by position, from its configuration: frequencies per layer, windows
and caps of attention, and taking a rotation back. For freqkv.py. A rotation that is not listed in
MODEL_TYPES and inverse_frequencies() is refused rather than guessed.
"""

import numpy as np


def setting(config, name, default=None):
    """A field of a config that is a dict or an object."""
    value = config.get(name) if isinstance(config, dict) else getattr(config, name, None)
    return default if value is None else value


# Model types whose keys turn as inverse_frequencies() says: channel i with i + head_dim/2, the
# whole head, after any norm of keys. Others interleave channels, turn a part of a head, or differ
# by layer in ways that their config does not spell out.
MODEL_TYPES = {
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm3",
    "phi3",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "olmo2",
    "granite",
}
# rope_theta of a config that leaves it out, where it is not 10000.
THETA = {"gemma3": 1e6, "gemma3_text": 1e6, "smollm3": 2e6}
INSTEAD = (
    "give inv_freq= [rotary_dim/2], or [layers, rotary_dim/2] where layers differ (0 for no"
    " rotation), and attention_factor= where cos and sin are scaled, instead of config="
)


def text_part(config):
    """The part of a config that describes the language model."""
    return setting(config, "text_config", config)


def inverse_frequencies(config, head_dim, rope=None, positions=None):
    """RoPE's angular frequency per pair of channels [head_dim/2], from a Hugging Face config:
    default, linear or llama3 scaling. Another rotation, or model type, is refused.

    Of a Phi-3 a part of the head may turn, [rotary_dim/2], and with `positions`, how many one pass
    over the text reaches, longrope is taken, too: it has one list of divisors up to the original
    context and another beyond.

    theta^(-2i/d); linear divides it by the factor; llama3 divides slow pairs (wavelength over
    context/low_freq_factor), keeps fast ones, and goes over between them. Transformers 4 says
    rope_theta and rope_scaling, transformers 5 has both in rope_parameters. `rope`: the object of
    one type of layers.
    """
    config = text_part(config)
    model_type = setting(config, "model_type")
    if model_type and model_type not in MODEL_TYPES:
        raise ValueError(
            f"model_type: expected {', '.join(sorted(MODEL_TYPES))}, whose rotation is known, found"
            f" {model_type}; {INSTEAD}"
        )
    if rope is None:
        rope = setting(config, "rope_scaling") or setting(config, "rope_parameters") or {}
    kind = rope_kind(rope)
    part = rope.get("partial_rotary_factor", setting(config, "partial_rotary_factor", 1))
    if part != 1 and model_type != "phi3":
        raise ValueError(f"partial_rotary_factor: expected 1, the whole head rotated; {INSTEAD}")
    theta = rope.get("rope_theta") or setting(config, "rope_theta")
    if theta is None and not model_type and kind in ("default", "linear", "llama3"):
        raise ValueError(f"rope_theta: expected it, or a model_type with a default; {INSTEAD}")
    theta = theta or THETA.get(model_type, 1e4)
    turned = int(head_dim * part)
    frequency = theta ** (-np.arange(0, turned, 2) / turned)
    if kind == "default":
        return frequency
    if kind == "linear":
        return frequency / rope["factor"]
    if kind == "longrope" and model_type == "phi3" and positions is not None:
        beyond = positions > original_context(config, rope)
        return frequency / np.asarray(rope["long_factor" if beyond else "short_factor"], np.float64)
    if kind != "llama3":
        raise ValueError(f"rope_type: expected default, linear or llama3, found {kind}; {INSTEAD}")
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    field = "original_max_position_embeddings"  # the config's own comes first
    original = setting(config, field) or rope.get(field)
    turns = (original or setting(config, "max_position_embeddings")) * frequency / (2 * np.pi)
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return frequency * (keep + (1 - keep) / rope["factor"])


def rope_kind(rope):
    """The first configs of Phi-3 call longrope "su" or "yarn"."""
    kind = rope.get("rope_type") or rope.get("type") or "default"
    return "longrope" if kind in ("su", "yarn") and "short_factor" in rope else kind


def original_context(config, rope):
    own = rope.get("original_max_position_embeddings")
    return own or setting(config, "original_max_position_embeddings")


def longrope_factor(config):
    """What a Phi-3 with longrope multiplies cos and sin by; of all others that are taken, 1."""
    config = text_part(config)
    rope = setting(config, "rope_scaling") or setting(config, "rope_parameters") or {}
    if rope_kind(rope) != "longrope":
        return 1.0
    original = original_context(config, rope)
    stretch = rope.get("factor") or setting(config, "max_position_embeddings") / original
    silent = np.sqrt(1 + np.log(stretch) / np.log(original)) if stretch > 1 else 1.0
    return float(rope.get("attention_factor") or silent)


def layer_types(config, layers):
    """ "full_attention" or "sliding_attention" of every layer, where the config or its model type
    says it.
    """
    types, model_type = setting(config, "layer_types"), setting(config, "model_type")
    unknown = set(types or ()) - {"full_attention", "sliding_attention"}
    if unknown:
        raise ValueError(
            "layer_types: expected full_attention or sliding_attention, found"
            f" {', '.join(sorted(map(str, unknown)))}"
        )
    if types:
        return list(types)[:layers]
    if model_type in ("mistral", "phi3"):
        slides = [True] * layers
    elif model_type in ("qwen2", "qwen3"):
        first = setting(config, "max_window_layers", 28)
        slides = [i >= first for i in range(layers)]
    elif model_type == "smollm3":
        slides = [not turns for turns in turning_layers(config, layers)]
    else:
        pattern = 2 if model_type == "gemma2" else setting(config, "sliding_window_pattern", 6)
        slides = [(i + 1) % pattern != 0 for i in range(layers)]
    return ["sliding_attention" if slide else "full_attention" for slide in slides]


def layer_windows(config, layers):
    """Tokens that a query of each layer sees, its own included, 0 for all before it. What a config
    leaves out is what the classes of transformers fill in.
    """
    config = text_part(config)
    model_type = setting(config, "model_type")
    silent = 4096 if model_type in ("mistral", "qwen2", "qwen3") or is_gemma(config) else None
    window = setting(config, "sliding_window")
    if window is None and isinstance(config, dict) and "sliding_window" not in config:
        window = silent
    if model_type in ("qwen2", "qwen3", "smollm3"):
        window = window if setting(config, "use_sliding_window", False) else None
    elif model_type not in ("mistral", "phi3") and not is_gemma(config):
        window = None
    if not window:
        return np.zeros(layers, np.int64)
    slides = [type == "sliding_attention" for type in layer_types(config, layers)]
    return np.where(slides, int(window), 0)


def score_attributes(config, layers, head_dim):
    """What scores go through, as capture/store/schema_scores.c has it: only what is not as in
    LLaMA.
    """
    config = text_part(config)
    attributes, windows = {}, layer_windows(config, layers)
    scale = setting(config, "attention_multiplier")
    if is_gemma(config):
        scale = setting(config, "query_pre_attn_scalar", 256) ** -0.5
    elif setting(config, "model_type") != "granite":
        scale = None
    if scale and scale != head_dim**-0.5:
        attributes["attention_scale"] = float(scale)
    if setting(config, "model_type") == "gemma2":
        named = not isinstance(config, dict) or "attn_logit_softcapping" in config
        cap = setting(config, "attn_logit_softcapping", None if named else 50.0)
        if cap:
            attributes["attention_softcap"] = float(cap)
    if windows.any():
        attributes["layer_window"] = windows
    return attributes


def layer_frequencies(config, layers, head_dim, positions=None):
    """The same of every layer: [head_dim/2] where they all turn alike, else [layers, head_dim/2], 0
    for a layer that does not turn (SmolLM3) and by layer type where they differ (Gemma 3).
    """
    config = text_part(config)
    rope = setting(config, "rope_scaling") or setting(config, "rope_parameters") or {}
    local = setting(config, "rope_local_base_freq")
    if is_gemma3(config):
        rope, local = gemma3_rope(config), local or 1e4
    nested = {type: own for type, own in rope.items() if own is None or isinstance(own, dict)}
    if any(isinstance(own, dict) for own in nested.values()):
        types = layer_types(config, layers)
        missing = sorted(set(types) - set(nested))
        if missing:
            raise ValueError(
                f"rope_parameters: expected those of {missing[0]}, found none; {INSTEAD}"
            )
    elif local:
        types = layer_types(config, layers)
        nested = {
            "full_attention": rope,
            "sliding_attention": {"rope_theta": local, "rope_type": "default"},
        }
    else:
        types, nested = [""] * layers, {"": rope}
    turning = turning_layers(config, layers)
    none = np.zeros(head_dim // 2)
    rows = [
        none
        if nested[type] is None or not turning[layer]
        else inverse_frequencies(config, head_dim, nested[type], positions)
        for layer, type in enumerate(types)
    ]
    return rows[0] if all(np.array_equal(row, rows[0]) for row in rows) else np.stack(rows)


def turning_layers(config, layers):
    """Whether each layer turns: all but some of SmolLM3."""
    if setting(config, "model_type") != "smollm3":
        return [1] * layers
    interval = setting(config, "no_rope_layer_interval", 4)
    return setting(config, "no_rope_layers") or [(i + 1) % interval for i in range(layers)]


def is_gemma(config):
    return setting(config, "model_type") in ("gemma2", "gemma3", "gemma3_text")


def is_gemma3(config):
    return setting(config, "model_type") in ("gemma3", "gemma3_text")


def gemma3_rope(config):
    """What layer_frequencies() reads: rope_parameters by layer type, the full layers' with
    rope_scaling on top; or rope_scaling alone, the full layers'.
    """
    scaling = setting(config, "rope_scaling") or {}
    parameters = setting(config, "rope_parameters") or {}
    if scaling == parameters:  # objects of transformers 5 have one under both names
        scaling = {}
    if "full_attention" in scaling or (parameters and "full_attention" not in parameters):
        raise ValueError(
            "rope_parameters: expected those of full_attention and sliding_attention there, and"
            f" one rope_scaling, found others; {INSTEAD}"
        )
    if not parameters:
        return scaling
    return {**parameters, "full_attention": {**(parameters["full_attention"] or {}), **scaling}}


def unrotate(keys, inv_freq, positions=None, factor=1.0):
    """Keys [..., T, head_dim] before RoPE <- keys after it, for the halves convention of Hugging
    Face checkpoints.

    Channel i of the first half and of the second are one pair. Where inv_freq is shorter than
    head_dim/2, only the first 2 len(inv_freq) channels were rotated. `factor`: what cos and sin
    were multiplied by.
    """
    keys, half = np.array(keys, np.float64), len(inv_freq)
    positions = np.arange(keys.shape[-2]) if positions is None else np.asarray(positions)
    angle = positions[:, None] * np.asarray(inv_freq, np.float64)
    cos, sin = np.cos(angle) / factor, np.sin(angle) / factor
    first, second = keys[..., :half].copy(), keys[..., half : 2 * half].copy()
    keys[..., :half] = first * cos + second * sin
    keys[..., half : 2 * half] = second * cos - first * sin
    return keys
