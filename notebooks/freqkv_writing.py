"""Writing states of another engine as a capture, for freqkv.py: arrays, or caches of transformers 4
and 5, which are recognised by what they have.
"""

import h5py
import numpy as np
from freqkv_rotation import (
    layer_frequencies,
    longrope_factor,
    score_attributes,
    setting,
    text_part,
    unrotate,
)

STATES = ("key", "value", "key_rotated", "query")


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


def cache_of(states):
    """What a transformers model returned -> its cache, by whichever name it has: reading the old
    one warns where there is the new one. Anything else as it is.
    """
    for name in ("cache", "past_key_values"):  # 5.24 and later, before
        found = getattr(states, name, None)
        if found is not None:
            return found
    return states


def pairs_of(states):
    """(a list of (keys, values) per layer, is it a transformers Cache?)"""
    if hasattr(states, "layers"):  # Cache of transformers 4.56 and later
        return [(layer.keys, layer.values) for layer in states.layers], True
    if hasattr(states, "key_cache"):  # DynamicCache and StaticCache before
        return list(zip(states.key_cache, states.value_cache)), True
    return [tuple(pair)[:2] for pair in states], False


def stack_layers(states):
    """key, value [batch, layers, heads, T, head_dim], and whether they come from a Cache."""
    states = cache_of(states)
    pairs, is_cache = pairs_of(states)
    empty = [layer for layer, (k, _) in enumerate(pairs) if k is None]
    if empty:
        raise ValueError(
            f"layer {empty[0]}: expected keys and values, found none: the cache has seen no token"
        )
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
        # a static cache has more slots than tokens
        pairs = [(k[:, :, :seen], v[:, :, :seen]) for k, v in pairs]
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

    states     what a transformers model returned with use_cache=True, or its cache (`cache` of new
               versions, `past_key_values` of older ones), or one (keys, values) per layer, arrays
               or tensors, each [heads, T, head_dim] or [batch, heads, T, head_dim]. A row of the
               batch is a recording of its own; it must not be padded.
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
        turned = (unrotate(key[:, i], rows[i], positions, factors[i]) for i in range(layers))
        key = np.stack([x.astype(np.float32) for x in turned], 1)
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
    gram = None
    if output_projection is not None:
        gram = output_gram(output_projection, layers, heads, head_dim)
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
    how = "after RoPE, as key_rotated" if rotated else "before RoPE, as given"
    if undone:
        how = "before RoPE (the rotation is undone)"
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
