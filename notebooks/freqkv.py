"""The toolkit's files in Python: write your own engine's states as a capture, read captures,
results, runs and probes, one style of figure.

    import freqkv
    # from a cache of transformers, or from arrays
    print(freqkv.write_capture('mine.h5', past_key_values, config=model.config, tokens=ids))
    print(freqkv.write_capture('mine.h5', [(k, v), ...], rotated=False))
    freqkv.run('analyze', 'spectrum', 'mine.h5', '--out', 'findings')
    freqkv.load_results('findings')['spectrum']['key']['power']  # [layers, kv_heads, n]
    freqkv.load_run('run.h5')  # DataFrame, one row per scored token
    freqkv.texts_from_parquet('train.parquet', 'train.jsonl.gz')  # for --text

Needs numpy and h5py. Tables are pandas DataFrames where pandas is installed, else dicts of arrays;
matplotlib is needed for use_style() only, pyarrow for texts_from_parquet(). Nothing of torch or
transformers is imported: their tensors and caches are recognised by what they have, so that one
file serves transformers 4 and 5 and engines that know neither.

What is refused rather than guessed: whether keys of plain arrays are rotated (give rotated=),
caches that dropped tokens (a sliding window), layers of different shape, a rotation that is not
listed in MODEL_TYPES and inverse_frequencies(), numbers that are not finite or do not fit the type
they are stored in.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np

COLORS = [
    "#0072b2",
    "#d55e00",
    "#000000",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7a4b00",
]  # as in analyze/figure/color.c
STATES = ("key", "value", "key_rotated", "query")
HERE = os.path.dirname(os.path.abspath(__file__))


# ---- the tools ----


def tool(name):
    """The path of freqkv-NAME: in $FREQKV_BIN, in build/bin next to this folder, or on the PATH."""
    for folder in (os.environ.get("FREQKV_BIN"), os.path.join(HERE, "..", "build", "bin")):
        path = folder and os.path.join(folder, "freqkv-" + name)
        if path and os.access(path, os.X_OK):
            return os.path.abspath(path)
    path = shutil.which("freqkv-" + name)
    if not path:
        raise FileNotFoundError(
            f"freqkv-{name}: expected in build/bin (./run build makes it), in $FREQKV_BIN or on the"
            " PATH"
        )
    return path


def run(name, *arguments):
    """Runs freqkv-NAME --json --quiet and returns its object. What it says on stderr comes with the
    error.
    """
    command = [tool(name), *map(str, arguments), "--quiet", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"freqkv-{name} {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return json.loads(done.stdout)


# ---- texts ----


def texts_from_parquet(parquet, path, field=None):
    """Writes the texts of a parquet file, or of a list of them, as rows of JSON that --text reads:
    PATH is a .jsonl or, packed, a .jsonl.gz. `field` is the column that holds them, by default
    "text" or "article". Reads a batch of rows at a time, so a file may be larger than memory. An
    interrupted call leaves nothing at PATH. Returns the number of rows.
    """
    from pyarrow.parquet import ParquetFile

    names = [parquet] if isinstance(parquet, (str, os.PathLike)) else list(parquet)
    files = [ParquetFile(name) for name in names]
    columns = [text_column(f.schema_arrow, field, name) for f, name in zip(files, names)]
    rows, partial = 0, f"{path}.partial"
    opened = gzip.open if str(path).endswith(".gz") else open
    with opened(partial, "wt", encoding="utf-8") as out:
        for file, column in zip(files, columns):
            for batch in file.iter_batches(columns=[column]):
                for text in batch.column(0).to_pylist():
                    json.dump({"text": text}, out, ensure_ascii=False)
                    out.write("\n")
                    rows += 1
    os.replace(partial, path)
    return rows


def text_column(schema, field, name):
    """The column of a parquet file that holds its texts."""
    for wanted in [field] if field else ["text", "article"]:
        if wanted in schema.names:
            if str(schema.field(wanted).type) not in ("string", "large_string", "string_view"):
                found = schema.field(wanted).type
                raise ValueError(f'{name}: column "{wanted}": expected strings, found {found}')
            return wanted
    expected = f'"{field}"' if field else '"text" or "article"; field= says which one it is'
    raise ValueError(f"{name}: expected a column {expected}, found {', '.join(schema.names)}")


# ---- rotation ----


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


# ---- writing captures ----


def to_array(x):
    """numpy <- anything array-like; torch tensors may be on any device and in bfloat16."""
    if hasattr(x, "detach"):
        x = x.detach().to("cpu").float().numpy()
    x = np.asarray(x)
    if x.ndim == 3:
        x = x[None]
    if x.ndim != 4:
        raise ValueError(
            "expected [heads, tokens, head_dim] or [batch, heads, tokens, head_dim], found"
            f" {list(x.shape)}"
        )
    return x


def pairs_of(states):
    """(a list of (keys, values) per layer, is it a transformers Cache?)"""
    if hasattr(states, "layers"):  # Cache of transformers 4.56 and later
        return [(layer.keys, layer.values) for layer in states.layers], True
    if hasattr(states, "key_cache"):  # DynamicCache and StaticCache before
        return list(zip(states.key_cache, states.value_cache)), True
    return [tuple(pair)[:2] for pair in states], False


def stack_layers(states):
    """key, value [batch, layers, heads, T, head_dim], and whether they come from a Cache."""
    pairs, is_cache = pairs_of(states)
    pairs = [(to_array(k), to_array(v)) for k, v in pairs]
    if not pairs:
        raise ValueError("expected one (keys, values) per layer, found none")
    seen = int(states.get_seq_length()) if hasattr(states, "get_seq_length") else None
    if seen is not None:
        held = min(k.shape[2] for k, _ in pairs)
        if held < seen:
            raise ValueError(
                f"the cache has seen {seen} tokens and a layer holds {held}: dropped tokens have no"
                " states to analyze"
            )
        pairs = [
            (k[:, :, :seen], v[:, :, :seen]) for k, v in pairs
        ]  # a static cache has more slots than tokens
    shape = pairs[0][0].shape
    for layer, pair in enumerate(pairs):
        for name, x in zip(("keys", "values"), pair):
            if x.shape != shape:
                raise ValueError(
                    f"layer {layer}: {name}: expected {list(shape)} as the keys of layer 0, found"
                    f" {list(x.shape)}"
                )
    return np.stack([k for k, _ in pairs], 1), np.stack([v for _, v in pairs], 1), is_cache


def write_capture(
    path,
    states,
    *,
    rotated=None,
    config=None,
    inv_freq=None,
    attention_factor=None,
    positions=None,
    tokens=None,
    nll=None,
    name="document",
    model="",
    trained_context=None,
    dtype="f16",
    append=False,
    output_projection=None,
):
    """Writes states as a capture that freqkv-analyze reads, and returns one sentence that says what
    was written.

    states     a transformers Cache, or one (keys, values) per layer, arrays or tensors, each
               [heads, T, head_dim] or [batch, heads, T, head_dim]. A row of the batch is a
               recording of its own; it must not be padded.
    rotated    True: the keys are after RoPE. A Cache's are; for anything else, give it.
    config     the model's, dict or object: undoes the rotation, of the kinds and model types that
               inverse_frequencies() takes; longrope as one pass over all tokens turns them.
               Without it and inv_freq, keys go into the file as key_rotated. Says the scale, cap
               and windows of scores, too, where they are not those of LLaMA.
    inv_freq   [rotary_dim/2], or [layers, rotary_dim/2], 0 where a layer does not turn: undoes any
               rotation of channel i with i + rotary_dim/2.
    attention_factor
               what cos and sin are multiplied by (YaRN, LongRoPE): a number, or one per layer;
               default: what the config says of longrope, else 1.
    positions  [T] of the tokens; default 0, 1, ...
    tokens     [T] or [batch, T], optional; nll likewise.
    append     adds recordings to a file of the same model instead of making a new one.
    dtype      'f16' or 'f32'.
    output_projection
               optional: of each layer the weights of o_proj [hidden, heads * head_dim], or the
               transformers model that has them. freqkv-analyze weighs values and the output of
               attention by it. Stored as /output_gram [layers, heads, head_dim, head_dim], W' W of
               each head's columns W.
    """
    key, value, is_cache = stack_layers(states)
    batch, layers, heads, length, head_dim = key.shape
    if rotated is None:
        if not is_cache:
            raise ValueError(
                "rotated: expected True (keys after RoPE) or False (before it); arrays do not say"
            )
        rotated = True
    if inv_freq is None and config is not None:
        reach = length if positions is None else int(np.max(positions)) + 1
        inv_freq = layer_frequencies(config, layers, head_dim, reach)
        if attention_factor is None:
            attention_factor = longrope_factor(config)
    undone = rotated and inv_freq is not None
    if inv_freq is not None:
        inv_freq = checked_frequencies(inv_freq, layers, head_dim)
    factors = checked_factors(1.0 if attention_factor is None else attention_factor, layers)
    if undone:
        rows = np.broadcast_to(inv_freq, (layers, inv_freq.shape[-1]))
        key = np.stack(
            [
                unrotate(key[:, layer], rows[layer], positions, factors[layer]).astype(np.float32)
                for layer in range(layers)
            ],
            1,
        )
    key_name = "key_rotated" if rotated and not undone else "key"
    if trained_context is None and config is not None:
        trained_context = setting(text_part(config), "max_position_embeddings")
    attributes = {
        "n_layers": layers,
        "n_kv_heads": heads,
        "head_dim": head_dim,
        "model_name": model,
    }
    if trained_context:
        attributes["trained_context"] = int(trained_context)
    if inv_freq is not None:
        attributes.update(rotation_attributes(inv_freq, factors, head_dim))
    if config is not None:
        attributes.update(score_attributes(config, layers, head_dim))
    gram = (
        None
        if output_projection is None
        else output_gram(output_projection, layers, heads, head_dim)
    )
    if gram is not None:
        attributes["n_heads"] = gram.shape[1]
    stored = {key_name: narrowed(key_name, key, dtype), "value": narrowed("value", value, dtype)}
    columns = {
        "tokens": per_recording("tokens", tokens, batch, length, np.int32),
        "nll": per_recording("nll", nll, batch, length, np.float32),
    }

    with h5py.File(path, "a" if append else "w") as f:
        for field, wanted in attributes.items():
            if field not in f.attrs:
                f.attrs[field] = wanted
            elif not np.array_equal(f.attrs[field], wanted):
                raise ValueError(
                    f"{path}: {field}: expected {f.attrs[field]} as in the recordings before, found"
                    f" {wanted}"
                )
        if gram is not None and "output_gram" not in f:
            f["output_gram"] = gram
        elif gram is not None and not np.allclose(
            f["output_gram"], gram, rtol=0, atol=1e-5 * np.abs(gram).max()
        ):
            raise ValueError(
                f"{path}: output_projection: expected that of the recordings before, found another"
            )
        documents = f.require_group("documents")
        first = len(documents)
        for b in range(batch):
            group = documents.create_group(f"{first + b:06d}")
            group.attrs["name"] = name if batch == 1 else f"{name} {b}"
            for state, x in stored.items():
                group.create_dataset(state, data=x[b], chunks=(1, 1, min(length, 4096), head_dim))
            for column, x in columns.items():
                if x is not None:
                    group[column] = x[b]
    how = (
        "before RoPE (the rotation is undone)"
        if undone
        else "after RoPE, as key_rotated"
        if rotated
        else "before RoPE, as given"
    )
    recordings = f"{batch} recording{'s' * (batch > 1)} of {length} tokens"
    return (
        f"{recordings}: {layers} layers x {heads} KV heads x {head_dim} channels; keys {how};"
        f" stored as {dtype}."
    )


def checked_frequencies(inv_freq, layers, head_dim):
    """float64 [k] or [layers, k], k at most head_dim/2"""
    x = np.asarray(inv_freq, np.float64)
    if (
        x.ndim not in (1, 2)
        or not 0 < x.shape[-1] <= head_dim // 2
        or len(x) != (layers if x.ndim == 2 else x.size)
    ):
        raise ValueError(
            f"inv_freq: expected [k] or [{layers}, k], k at most {head_dim // 2}, found"
            f" {list(x.shape)}"
        )
    if not np.isfinite(x).all():
        raise ValueError("inv_freq: expected finite numbers")
    return x


def checked_factors(attention_factor, layers):
    """float64 [layers]"""
    x = np.asarray(attention_factor, np.float64)
    if x.shape not in ((), (layers,)) or not (np.isfinite(x) & (x > 0)).all():
        raise ValueError(
            f"attention_factor: expected a number above 0, or {layers} of them, found"
            f" {attention_factor}"
        )
    return np.broadcast_to(x, (layers,))


def rotation_attributes(inv_freq, factors, head_dim):
    """As capture/store/schema_rotation.c has them: whole rows, one per layer where they differ."""
    layers, pairs = len(factors), inv_freq.shape[-1]
    rows = np.zeros((layers, head_dim // 2))
    rows[:, :pairs] = inv_freq
    alike = (rows == rows[0]).all() and (factors == factors[0]).all()
    attributes = {"inv_freq": rows[0] if alike else rows}
    if 2 * pairs != head_dim:
        attributes["rotary_dim"] = 2 * pairs
    if (factors != 1).any():
        attributes["attention_factor"] = factors[0] if alike else factors
    return attributes


def output_gram(projection, layers, kv_heads, head_dim):
    """float32 [layers, heads, head_dim, head_dim] <- one o_proj [hidden, heads * head_dim] per
    layer, or a transformers model
    """
    if hasattr(projection, "named_parameters"):
        projection = [
            x
            for name, x in projection.named_parameters()
            if name.endswith("self_attn.o_proj.weight")
        ]
    if len(projection) != layers:
        raise ValueError(
            f"output_projection: expected {layers}, one per layer, found {len(projection)}"
        )
    grams = []
    for layer, w in enumerate(projection):
        w = np.asarray(w.detach().to("cpu").float().numpy() if hasattr(w, "detach") else w)
        if w.ndim != 2 or not w.shape[1] or w.shape[1] % (kv_heads * head_dim):
            raise ValueError(
                f"output_projection: layer {layer}: expected [hidden, heads * {head_dim}], heads a"
                f" multiple of {kv_heads}, found {list(w.shape)}"
            )
        if not np.isfinite(w).all():
            raise ValueError(f"output_projection: layer {layer}: expected finite numbers")
        w = w.astype(np.float32).reshape(len(w), -1, head_dim).transpose(1, 0, 2)
        grams.append(w.transpose(0, 2, 1) @ w)
    if any(gram.shape != grams[0].shape for gram in grams):
        raise ValueError("output_projection: expected as many heads in every layer")
    return np.stack(grams)


def per_recording(name, x, batch, length, dtype):
    if x is None:
        return None
    x = x.detach().to("cpu").numpy() if hasattr(x, "detach") else np.asarray(x)
    x = np.atleast_2d(x).astype(dtype)
    if x.shape != (batch, length):
        raise ValueError(f"{name}: expected {[batch, length]}, found {list(x.shape)}")
    return x


def narrowed(state, x, dtype):
    """x [batch, layers, heads, T, head_dim] in the type it is stored in"""
    with np.errstate(over="ignore"):
        narrow = x.astype({"f16": np.float16, "f32": np.float32}[dtype])
    if not np.isfinite(narrow).all():
        at = tuple(np.argwhere(~np.isfinite(narrow))[0])
        where = f"recording {at[0]}, layer {at[1]}, head {at[2]}, token {at[3]}"
        raise ValueError(
            f"{state}: {where}: expected a finite number that {dtype} can hold, found {x[at]}"
        )
    return narrow


# ---- reading ----


def frame(columns, **attributes):
    """A DataFrame of the columns where there is pandas, else the dict."""
    try:
        import pandas
    except ImportError:
        return columns
    table = pandas.DataFrame(columns)
    table.attrs.update(attributes)
    return table


def attributes_of(node):
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in node.attrs.items()
    }


def to_float(dataset, selection=()):
    """float32 <- a dataset of states in any of the types that captures have; bf16 is the upper half
    of a float32.
    """
    x = dataset[selection]
    if x.dtype == np.uint16:
        return (x.astype(np.uint32) << 16).view(np.float32)
    return x.astype(np.float32)


class Recording:
    """One recording of a capture: attrs, tokens, nll, token_class (None where there is none);
    states are read on demand, no file stays open.
    """

    def __init__(self, path, group):
        self.path, self.group, self.attrs = path, group.name, attributes_of(group)
        self.states = [s for s in STATES if s in group]
        self.tokens, self.nll, self.token_class = (
            group[n][:] if n in group else None for n in ("tokens", "nll", "token_class")
        )

    def __getitem__(self, selection):
        """recording['key'] or recording['key', layer]: float32 [layers, heads, T, head_dim] or
        without the first axis
        """
        state, *rest = selection if isinstance(selection, tuple) else (selection,)
        with h5py.File(self.path) as f:
            return to_float(f[self.group][state], tuple(rest))


def load_capture(path):
    """(attrs, [Recording, ...]) of a capture's folder, its capture.h5, or a file that write_capture
    made.
    """
    root = os.path.join(path, "capture.h5") if os.path.isdir(path) else path
    with h5py.File(root) as f:
        groups = [
            f["documents"][name] for name in sorted(f["documents"])
        ]  # links lead into files of their own
        return attributes_of(f), [Recording(group.file.filename, group) for group in groups]


def load_results(folder):
    """results.h5 of freqkv-analyze as nested dicts, as in
    load_results(DIR)['spectrum']['key']['power']; attributes under 'attrs'.
    """

    def read(node):
        return {"attrs": attributes_of(node)} | {
            n: read(x) if isinstance(x, h5py.Group) else x[()] for n, x in node.items()
        }

    with h5py.File(os.path.join(folder, "results.h5") if os.path.isdir(folder) else folder) as f:
        return read(f)


def load_run(path):
    """One row per scored token of a RUN.h5: document (or window, under the protocol stride), token,
    nll, round, ... and, with a baseline, baseline_nll, kl, top1_agree, delta_nll. The file's
    attributes are in .attrs.
    """
    columns = {}
    with h5py.File(path) as f:
        attributes = attributes_of(f)
        if "windows" in f:
            parts = [
                {n: x[w] for n, x in f["windows"].items() if n != "start"}
                for w in range(len(f["windows/start"]))
            ]
            where = "window"
        else:
            parts = [
                {n: x[:] for n, x in f["documents"][d].items() if n != "tokens"}
                for d in sorted(f["documents"])
            ]
            where = "document"
        for i, part in enumerate(parts):
            scored = np.flatnonzero(np.isfinite(part["nll"]))
            part = {where: np.full(len(scored), i), "token": scored} | {
                n: x[scored] for n, x in part.items()
            }
            for n, x in part.items():
                columns.setdefault(n, []).append(x)
    columns = {n: np.concatenate(x) for n, x in columns.items()}
    if "baseline_nll" in columns:
        columns["delta_nll"] = columns["nll"].astype(np.float64) - columns["baseline_nll"]
    return frame(columns, **attributes)


def load_sweep(folder):
    """One row per run file of a folder, in the order of their names: file and every attribute that
    is one number or word.
    """
    rows = []
    for file in sorted(n for n in os.listdir(folder) if n.endswith(".h5")):
        with h5py.File(os.path.join(folder, file)) as f:
            rows.append(
                {"file": file} | {n: x for n, x in attributes_of(f).items() if np.ndim(x) == 0}
            )
    names = [n for n in rows[0] if all(n in row for row in rows)] if rows else []
    return frame({n: np.array([row[n] for row in rows]) for n in names})


class Probe:
    """PROBE.h5: attrs; changes (a table); bands [changes, 16, 2] (low, high; NaN from band_count
    on); documents [windows] (which text each window is of); nll, kl [windows, changes, M];
    untouched_nll, token_class [windows, M] of the scored tokens; lost_energy [windows, changes, 2]
    (keys, values). damage = nll - untouched_nll.
    """

    def __init__(self, path):
        with h5py.File(path) as f:
            self.attrs = attributes_of(f)
            columns = {n: x[:] for n, x in f["changes"].items()}
            self.bands = columns.pop("bands")
            columns["label"] = np.array(
                [bytes(row).split(b"\0")[0].decode() for row in columns["label"].astype(np.uint8)]
            )
            self.changes = frame(columns)
            windows = [f["documents"][n] for n in sorted(f["documents"])]
            self.documents = np.array([w.attrs["document"] for w in windows])
            self.nll, self.kl, self.untouched_nll, self.lost_energy = (
                np.stack([w[n][:] for w in windows]).astype(np.float64)
                for n in ("nll", "kl", "untouched_nll", "lost_energy")
            )
            scored = slice(-self.nll.shape[2], None)
            self.token_class = (
                np.stack([w["token_class"][scored] for w in windows])
                if "token_class" in windows[0]
                else None
            )
            self.damage = self.nll - self.untouched_nll[:, None]


load_probe = Probe


# ---- figures ----


def log_bands(power, count=40):
    """(frequency, mean power) of coefficients 1 .. n-1 in log-spaced bands: cycles per token at the
    bands' geometric middle. power [..., n]
    """
    n = power.shape[-1]
    edges = np.unique(np.round(np.geomspace(1, n, count + 1)).astype(int))
    means = np.stack([power[..., a:b].mean(-1) for a, b in zip(edges, edges[1:])], -1)
    return np.sqrt(edges[:-1] * (edges[1:] - 1.0)) / (2 * n), means


def use_style():
    """The look of figures (the colours of freqkv-analyze; files that hold nothing but the picture)
    and of tables (in one piece).
    """
    import matplotlib
    from cycler import cycler

    try:
        import pandas

        pandas.options.display.width = 160
    except ImportError:
        pass
    if "ipykernel" in sys.modules:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png", pil_kwargs={"optimize": True}, metadata={"Software": None})
    matplotlib.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLORS),
            "image.cmap": "viridis",
            "figure.figsize": (8, 3.2),
            "figure.dpi": 80,
            "savefig.dpi": 80,
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.labelsize": 9,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.6,
            "lines.linewidth": 1.2,
            "figure.constrained_layout.use": True,
        }
    )
