"""Makes the golden values of RoPE scaling: what Hugging Face transformers makes of configs of every
kind, and tiny models of those that change more than a number.

    make_rope.py

Needs what make_golden.py needs. Writes beside this file
    rope.json
        a list of cases: config (as config.json spells it), head_dim, context, attention_factor, and
        lengths, each with the inv_freq that transformers uses for a text of that length. It forms
        them in float32; here its own functions run in float64.
    NAME/
        a model as make_golden.py makes it, for each of MODELS: the two sides of what depends on the
        length, and factors on cosine and sine
"""

import json
import types
from unittest import mock

import make_golden
import torch
from transformers import LlamaConfig, modeling_rope_utils

LIST = [1.0 + 0.25 * i for i in range(8)]
LONG = [1.5 + i * i for i in range(8)]
YARN = dict(rope_type="yarn", rope_theta=10000.0, original_max_position_embeddings=2048)
CASES = [  # rope_parameters, context, lengths
    (dict(rope_type="linear", rope_theta=10000.0, factor=4.0), 2048, [10]),
    (dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0), 2048, [10, 2048, 2049, 9000]),
    (dict(rope_type="dynamic", rope_theta=500000.0, factor=4.5), 512, [513, 70000]),
    (dict(YARN, factor=4.0), 8192, [10]),
    (dict(YARN, factor=40.0, mscale=1.0, mscale_all_dim=0.707), 81920, [10]),
    (dict(YARN, factor=4.0, beta_fast=16.0, beta_slow=2.0, truncate=False), 8192, [10]),
    (dict(YARN, factor=1.0), 2048, [10]),
    (dict(YARN, factor=8.0, attention_factor=1.125), 16384, [10]),
    (dict(YARN, rope_theta=1000000.0, factor=None), 16384, [10]),
    (
        dict(
            rope_type="llama3",
            rope_theta=500000.0,
            factor=32.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8192,
        ),
        131072,
        [10],
    ),
    (
        dict(
            rope_type="longrope",
            rope_theta=10000.0,
            short_factor=LIST,
            long_factor=LONG,
            original_max_position_embeddings=4096,
        ),
        131072,
        [10, 4096, 4097],
    ),
    (
        dict(
            rope_type="longrope",
            rope_theta=10000.0,
            short_factor=LIST,
            long_factor=LONG,
            factor=16.0,
            attention_factor=1.25,
            original_max_position_embeddings=4096,
        ),
        4096,
        [4096, 100000],
    ),
]
PART = [  # a part of a head of 32 turns: 16 channels
    (dict(CASES[0][0], partial_rotary_factor=0.5), 2048, [10]),
    (dict(CASES[1][0], partial_rotary_factor=0.5), 2048, [9000]),
    (dict(YARN, factor=4.0, partial_rotary_factor=0.5), 8192, [10]),
    (dict(CASES[10][0], partial_rotary_factor=0.5), 131072, [10, 5000]),
]


def in_double(function):
    """The function where float32 is called float64."""
    double = types.SimpleNamespace(**{n: getattr(torch, n) for n in dir(torch)})
    double.float = double.float32 = torch.float64
    return types.FunctionType(
        function.__code__, dict(function.__globals__, torch=double), None, function.__defaults__
    )


def case(rope, context, lengths, head_dim):
    config = LlamaConfig(
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        head_dim=head_dim,
        max_position_embeddings=context,
        rope_parameters=dict(rope),
    )
    function = in_double(modeling_rope_utils.ROPE_INIT_FUNCTIONS[rope["rope_type"]])
    with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
        found = [function(config, torch.device("cpu"), seq_len=length) for length in lengths]
    return dict(
        config=dict(max_position_embeddings=context, rope_parameters=rope),
        head_dim=head_dim,
        context=context,
        attention_factor=found[0][1],
        lengths=[
            dict(positions=length, inv_freq=inv_freq.tolist())
            for length, (inv_freq, _) in zip(lengths, found)
        ],
    )


# One layer is enough: it turns queries and keys. 40 tokens (make_golden.TOKENS).
ONE = dict(num_hidden_layers=1, num_key_value_heads=2)
HALF = 4  # pairs of a head of 8
LISTS = dict(
    rope_type="longrope",
    rope_theta=100.0,
    short_factor=[1.0, 1.1, 1.2, 1.3],
    long_factor=[1.5, 2.0, 4.0, 8.0],
)
MODELS = {
    "yarn-rope": dict(
        max_position_embeddings=256,
        rope_parameters=dict(
            rope_type="yarn",
            rope_theta=100.0,
            factor=4.0,
            beta_fast=4.0,
            original_max_position_embeddings=64,
        ),
    ),
    "dynamic-rope-within": dict(
        max_position_embeddings=64,
        rope_parameters=dict(rope_type="dynamic", rope_theta=100.0, factor=4.0),
    ),
    "dynamic-rope-beyond": dict(
        max_position_embeddings=24,
        rope_parameters=dict(rope_type="dynamic", rope_theta=100.0, factor=4.0),
    ),
    "longrope-within": dict(
        max_position_embeddings=256,
        rope_parameters=dict(LISTS, original_max_position_embeddings=40),
    ),
    "longrope-beyond": dict(
        max_position_embeddings=256,
        rope_parameters=dict(LISTS, original_max_position_embeddings=39),
    ),
}


if __name__ == "__main__":
    cases = [case(*c, 16) for c in CASES] + [case(*c, 32) for c in PART]
    text = ",\n".join(json.dumps(c) for c in cases)
    (make_golden.HERE / "rope.json").write_text(f"[\n{text}\n]\n")
    for seed, (name, own) in enumerate(MODELS.items()):
        make_golden.MODELS[name] = ("llama", 40 + seed, {**ONE, **own}, torch.float32, None)
        make_golden.make(name)
