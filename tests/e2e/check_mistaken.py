#!/usr/bin/env python3
"""Folders and files that people give as --model or --adapter by mistake: each is refused with what
it is and what to do. See refusals.py for what every case must do.

    check_mistaken.py --bin build/bin [--data data]
"""

import json
import os
import pathlib
import shutil

from refusals import expect, main

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
SHARDS = {
    "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
}
ADAPTER = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/base"})
GGUF_ADAPTER = (
    b"GGUF\3\0\0\0"
    + (0).to_bytes(8, "little")
    + (2).to_bytes(8, "little")
    + b"".join(
        len(k).to_bytes(8, "little") + k + b"\x08\0\0\0" + len(v).to_bytes(8, "little") + v
        for k, v in [(b"general.type", b"adapter"), (b"general.architecture", b"llama")]
    )
)
# what it is -> (files, the path given in it, words of the message). None: a file of the model.
MODELS = {
    "pointer": (
        {"config.json": None, "model.safetensors": POINTER},
        "",
        ["git lfs pull", "git-lfs"],
    ),
    "pointer as shard": (
        {"config.json": None, "model.safetensors.index.json": json.dumps(SHARDS)}
        | {name: POINTER for name in SHARDS["weight_map"].values()},
        "",
        ["git-lfs", "model-00001"],
    ),
    "pointer as GGUF": ({"m.gguf": POINTER}, "m.gguf", ["git lfs pull"]),
    "pointer as config": ({"config.json": POINTER, "model.safetensors": None}, "", ["git-lfs"]),
    "pointer as tokenizer": (
        {"config.json": None, "model.safetensors": None, "tokenizer.json": POINTER},
        "",
        ["tokenizer.json", "git lfs pull"],
    ),
    "cache root": (
        {f"models--o--n/snapshots/{h}/config.json": None for h in ("aaa", "bbb")}
        | {"models--o--n/refs/main": "bbb"},
        "models--o--n",
        ["models--o--n/snapshots/bbb", "cache"],
    ),
    "cache root without refs": ({"r/snapshots/abc/config.json": None}, "r", ["r/snapshots/abc"]),
    "cache root, nothing fetched": (
        {"r/snapshots/.k": "", "r/refs/main": "x"},
        "r",
        ["hf download"],
    ),
    "whole cache": (
        {"models--o--n/snapshots/a/config.json": None},
        "",
        ["models--o--n", "snapshots"],
    ),
    "adapter": (
        {"adapter_config.json": ADAPTER, "adapter_model.safetensors": "x"},
        "",
        ["an adapter", "--adapter", "--model"],
    ),
    "adapter with the base's config": (
        {"config.json": None, "adapter_config.json": ADAPTER, "adapter_model.safetensors": "x"},
        "",
        ["an adapter", "--adapter"],
    ),
    "adapter's file": (
        {"adapter_model.safetensors": "x"},
        "adapter_model.safetensors",
        ["--adapter"],
    ),
    "adapter of llama.cpp": ({"l.gguf": GGUF_ADAPTER}, "l.gguf", ["found adapter", "--adapter"]),
    "PyTorch": (
        {"config.json": None, "pytorch_model.bin": "x"},
        "",
        ["PyTorch", "save_pretrained"],
    ),
    "PyTorch shards": (
        {"config.json": None, "pytorch_model.bin.index.json": "{}"}
        | {"pytorch_model-00001-of-00002.bin": "x"},
        "",
        ["PyTorch", "save_pretrained"],
    ),
    "TensorFlow": ({"config.json": None, "tf_model.h5": "x"}, "", ["TensorFlow", "from_tf"]),
    "Flax": ({"config.json": None, "flax_model.msgpack": "x"}, "", ["Flax", "from_flax"]),
    "ONNX": ({"config.json": None, "model.onnx": "x"}, "", ["ONNX", "hf download"]),
    "ONNX folder": ({"config.json": None, "onnx/model.onnx": "x"}, "", ["ONNX"]),
    "OpenVINO": ({"config.json": None, "openvino_model.bin": "x"}, "", ["OpenVINO"]),
    "MLX": ({"config.json": None, "weights.00.npz": "x"}, "", ["MLX"]),
    "MLX quantized": (
        {"config.json": {"quantization": {"bits": 4, "group_size": 64}}, "model.safetensors": None},
        "",
        ["MLX", "4 bits"],
    ),
    "original Llama": (
        {"consolidated.00.pth": "x", "params.json": "{}"},
        "",
        ["authors", "transformers"],
    ),
    "a shard missing, no index": (
        {"config.json": None, "model-00001-of-00002.safetensors": "x"},
        "",
        ["expected shards 1 to 2, found no number 2", "hf download"],
    ),
    "a shard missing": (
        {"config.json": None, "model.safetensors.index.json": json.dumps(SHARDS)}
        | {"model-00001-of-00002.safetensors": None},
        "",
        ["model-00002-of-00002.safetensors", "hf download"],
    ),
    "another name": (
        {"config.json": None, "weights.safetensors": None},
        "",
        ["weights.safetensors"],
    ),
    "no config": ({"model.safetensors": None}, "", ["config.json"]),
    "around a GGUF": ({"a-Q4_K_M.gguf": "x", "README.md": ""}, "", ["a-Q4_K_M.gguf"]),
    "config and GGUF": ({"config.json": None, "a.gguf": "x"}, "", ["a.gguf"]),
    "above": ({"sub/config.json": None, "sub/model.safetensors": None}, "", ["/sub"]),
    "empty": ({"e/.k": ""}, "e", ["hf download"]),
    "really empty": ({}, "", ["an empty folder", "hf download"]),
    "tokenizer alone": ({"tokenizer.json": None}, "", ["a tokenizer"]),
    "capture": ({"capture.h5": "x"}, "", ["a capture"]),
    "weights": ({"config.json": None, "model.safetensors": None}, "model.safetensors", ["folder"]),
    "config": ({"config.json": None, "model.safetensors": None}, "config.json", ["folder"]),
    "archive": ({"m.tar.gz": "x"}, "m.tar.gz", ["unpack"]),
    "before GGUF": ({"ggml-model-q4_0.bin": "x"}, "ggml-model-q4_0.bin", ["GGUF"]),
    "a text": ({"a.txt": "x"}, "a.txt", ["expected a model's folder or a GGUF file"]),
    "hub name": ({}, "HuggingFaceTB/SmolLM2-135M", ["hf download HuggingFaceTB/SmolLM2-135M"]),
    "absent": ({}, "/no/such/folder", ["no such folder", "hf download"]),
} | {
    method: (
        {
            "config.json": {"quantization_config": {"quant_method": method}},
            "model.safetensors": None,
        },
        "",
        ["quantization_config", method, "GGUF"],
    )
    for method in ("fp8", "gptq", "awq", "bitsandbytes", "compressed-tensors", "mxfp4", "hqq")
}
ADAPTERS = {
    "model": ({"config.json": None, "model.safetensors": None}, "", ["a whole model", "--model"]),
    "PyTorch": (
        {"adapter_config.json": ADAPTER, "adapter_model.bin": "x"},
        "",
        ["PyTorch", "save_file"],
    ),
    "LongLoRA": (
        {
            "adapter_config.json": ADAPTER,
            "adapter_model.safetensors": "x",
            "trainable_params.bin": "x",
        },
        "",
        ["LongLoRA", "trainable_params.safetensors"],
    ),
    "pointer": (
        {"adapter_config.json": ADAPTER, "adapter_model.safetensors": POINTER},
        "",
        ["git lfs pull"],
    ),
    "no weights": ({"adapter_config.json": ADAPTER}, "", ["adapter_model.safetensors"]),
    "no config": ({"adapter_model.safetensors": "x"}, "", ["adapter_config.json"]),
    "MLX": ({"adapter_config.json": "{}", "adapters.safetensors": "x"}, "", ["MLX"]),
    "MLX alone": ({"adapters.safetensors": "x"}, "", ["MLX"]),
    "llama.cpp": ({"l.gguf": GGUF_ADAPTER}, "l.gguf", ["llama.cpp", "PEFT"]),
    "folder of llama.cpp": ({"l.gguf": GGUF_ADAPTER}, "", ["llama.cpp", "PEFT"]),
    "its file": ({"adapter_model.safetensors": "x"}, "adapter_model.safetensors", ["folder"]),
    "above": ({"checkpoint-5/adapter_config.json": ADAPTER}, "", ["checkpoint-5"]),
    "cache root": ({"r/snapshots/abc/adapter_config.json": ADAPTER}, "r", ["r/snapshots/abc"]),
    "hub name": ({}, "org/adapter", ["hf download org/adapter"]),
    "empty": ({}, "", ["an empty folder"]),
}


def lay(folder, files, model):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            shutil.copy(
                model / path.name if (model / path.name).exists() else model / "model.safetensors",
                path,
            )
        elif isinstance(content, dict):
            path.write_text(json.dumps(json.loads((model / path.name).read_text()) | content))
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def models(tools, work, model, text):
    os.environ["HF_HUB_CACHE"] = str(pathlib.Path(work) / "hub")
    folder, model = pathlib.Path(work) / "given", pathlib.Path(model)
    for name, (files, given, words) in MODELS.items():
        lay(folder, files, model)
        path = given if "/" in given else folder / given
        expect(
            "model: " + name,
            [tools / "freqkv-replay", "ppl", "--model", path, "--text", text],
            *words,
        )
    lay(pathlib.Path(work) / "hub/models--o--n/snapshots/abc", {"config.json": None}, model)
    command = [tools / "freqkv-replay", "ppl", "--model", "o/n", "--text", text]
    expect("model: hub name in the cache", command, "hub/models--o--n/snapshots/abc")


def adapters(tools, work, model, text):
    folder, model = pathlib.Path(work) / "given", pathlib.Path(model)
    for name, (files, given, words) in ADAPTERS.items():
        lay(folder, files, model)
        path = given if "/" in given else folder / given
        command = [tools / "freqkv-capture", "--model", model, "--adapter", path, "--text", text]
        expect(
            "adapter: " + name, [*command, "--out", folder / "out"], *words, gone=[folder / "out"]
        )


main("mistaken paths", __doc__, models, adapters)
