#!/usr/bin/env python3
"""Opens a capture as any Python user would, with h5py and numpy, and checks its schema.

    check_capture.py CAPTURE [--model DIR]

With --model, keys and values of the first recording are compared with those of Hugging Face
transformers (float32, CPU): the largest difference is printed.
"""

import argparse
import json
import pathlib
import sys

import h5py
import numpy as np

ROOT = {
    "format": str,
    "format_version": int,
    "software_version": str,
    "model_name": str,
    "model_sha256": str,
    "config_sha256": str,
    "tokenizer_sha256": str,
    "n_layers": int,
    "n_heads": int,
    "n_kv_heads": int,
    "head_dim": int,
    "layer_index": np.ndarray,
    "head_index": np.ndarray,
    "rope_theta": float,
    "rope_scaling": str,
    "inv_freq": np.ndarray,
    "attention_scale": float,
    "trained_context": int,
    "adds_bos": bool,
    "dtype": str,
    "backend": str,
    "options": str,
}
STATES = ("key", "value", "key_rotated", "query")


def plain(value):
    return value.item() if isinstance(value, np.generic) else value


def check_root(attrs, where):
    for name, kind in ROOT.items():
        assert name in attrs, f"{where}: no attribute {name}"
        found = plain(attrs[name])
        assert isinstance(found, kind), (
            f"{where}: {name} is a {type(found).__name__}, expected {kind.__name__}"
        )
    assert attrs["format"] == "freqkv-capture"
    json.loads(attrs["options"]), json.loads(attrs["rope_scaling"])
    assert len(attrs["inv_freq"]) == attrs["head_dim"] // 2


def floats(dataset):
    """A state as float32, as the README tells Python users to read it."""
    if dataset.attrs.get("dtype") == "bf16":
        return (dataset[()].astype(np.uint32) << 16).view(np.float32)
    return dataset[()].astype(np.float32)


def check_document(document, attrs):
    n = int(document.attrs["n_tokens"])
    assert document["tokens"].shape == (n,) and document["tokens"].dtype == np.int32
    assert len(document.attrs["text_sha256"]) == 64 and isinstance(document.attrs["name"], str)
    assert int(document.attrs["offset"]) >= 0
    nll = document["nll"][()]
    assert nll.dtype == np.float32 and nll.shape == (n,)
    assert np.isnan(nll[0]) and np.isfinite(nll[1:]).all()
    if "token_class" in document:
        classes = document["token_class"][()]
        assert classes.dtype == np.uint8 and classes.shape == (n,) and classes.max() < 128
        by_text = classes & 15
        assert ((by_text & (by_text - 1)) == 0).all(), "at most one kind by text"
        assert int(document.attrs["offset"]) > 0 or classes[0] & 64, (
            "the first token is a first occurrence"
        )
    kv, group = len(attrs["head_index"]), attrs["n_heads"] // attrs["n_kv_heads"]
    expected = {"f16": np.float16, "f32": np.float32, "bf16": np.uint16}[attrs["dtype"]]
    found = [s for s in STATES if s in document]
    for state in found:
        dataset = document[state]
        heads = kv * group if state == "query" else kv
        assert dataset.shape == (len(attrs["layer_index"]), heads, n, attrs["head_dim"]), (
            state,
            dataset.shape,
        )
        assert dataset.dtype == expected and dataset.fletcher32 and dataset.chunks, state
        assert np.isfinite(floats(dataset)).all()
    if "spectra" in document:
        for state, group in document["spectra"].items():
            heads = document["spectra"][state]["power_sum"].shape[1]
            shape = (len(attrs["layer_index"]), heads, int(group.attrs["segment_length"]))
            for name in ("power_sum", "power_sum_of_squares", "normalised_sum"):
                assert group[name].shape == shape and group[name].dtype == np.float64
            assert group["channel_mean_sum"].shape == shape[:2] + (attrs["head_dim"],)
            assert group["energy_sum"].shape == shape[:2]
            # Parseval: power is a mean over channels
            np.testing.assert_allclose(
                group["power_sum"][()].sum(-1) * attrs["head_dim"],
                group["energy_sum"][()],
                rtol=1e-5,
            )
            found.append("spectra/" + state)
    assert found, "no states"
    return n, found


def check_output_gram(root, attrs):
    """float32 [layers, query heads of the captured KV heads, head_dim, head_dim], symmetric, no
    length below 0; where values are stored
    """
    gram = root["output_gram"]
    heads = len(attrs["head_index"]) * (attrs["n_heads"] // attrs["n_kv_heads"])
    assert gram.shape == (len(attrs["layer_index"]), heads, attrs["head_dim"], attrs["head_dim"]), (
        gram.shape
    )
    assert gram.dtype == np.float32 and gram.fletcher32
    assert np.array_equal(gram[()], np.swapaxes(gram[()], 2, 3))
    lengths = np.linalg.eigvalsh(gram[()].astype(float))
    assert (lengths.min(-1) > -1e-5 * lengths.max(-1)).all(), "no Gram matrices"


def compare_with_transformers(document, attrs, model_dir):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    seen = {}
    for i, layer in enumerate(model.model.layers):
        layer.self_attn.k_proj.register_forward_hook(
            lambda m, a, out, i=i: seen.__setitem__(("key", i), out)
        )
        layer.self_attn.v_proj.register_forward_hook(
            lambda m, a, out, i=i: seen.__setitem__(("value", i), out)
        )
    tokens = torch.tensor(document["tokens"][()], dtype=torch.long)[None]
    with torch.no_grad():
        logits = model(tokens).logits[0].double()
    nll = torch.nn.functional.cross_entropy(logits[:-1], tokens[0, 1:], reduction="none").numpy()
    print(f"  largest difference of nll: {np.abs(nll - document['nll'][1:]).max():.2e}")
    for state in ("key", "value"):
        worst = 0
        for axis, layer in enumerate(attrs["layer_index"]):
            full = seen[state, int(layer)][0].view(
                tokens.shape[1], attrs["n_kv_heads"], attrs["head_dim"]
            )
            reference = full.permute(1, 0, 2).numpy()[attrs["head_index"]]
            worst = max(
                worst,
                np.abs(reference - floats(document[state])[axis]).max() / np.abs(reference).max(),
            )
        print(f"  largest difference of {state}, of the largest value: {worst:.2e}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("capture", type=pathlib.Path)
    parser.add_argument("--model")
    args = parser.parse_args()
    with h5py.File(args.capture / "capture.h5") as root:
        attrs = {k: plain(v) for k, v in root.attrs.items()}
        check_root(attrs, "capture.h5")
        assert "created" in attrs
        files = sorted(p.stem for p in (args.capture / "documents").glob("*.h5"))
        assert sorted(root["documents"]) == files, "capture.h5 does not link to every recording"
        tokens, states = 0, None
        for name in files:
            n, states = check_document(root["documents"][name], attrs)
            tokens += n
            with h5py.File(args.capture / "documents" / f"{name}.h5") as own:
                check_root(own.attrs, name)
                assert "created" not in own.attrs
        assert ("output_gram" in root) == ("value" in states), "output_gram where values are"
        if "output_gram" in root:
            check_output_gram(root, attrs)
        print(
            f"{args.capture}: {len(files)} recordings, {tokens} tokens, {', '.join(states)}: as"
            " documented"
        )
        if args.model:
            compare_with_transformers(root["documents"][files[0]], attrs, args.model)


if __name__ == "__main__":
    sys.exit(main())
