"""What the machine can do, by torch: the limits that the table's rows are set against.

    limits.py THREADS

Prints JSON: Gflop/s of the better of two products (512 x 11008 x 4096 and 512 x 1536 x 576) in
float32 and bfloat16, GB/s read by a sum over 1 GB, GB/s copied (bytes read and written). Each is
the best of several rounds.
"""

import sys
import time

import torch
from common import emit

SHAPES = ((512, 11008, 4096), (512, 1536, 576))
SECONDS = 1.0


def best(work):
    """The least seconds of one call; calls go on for SECONDS, after one that warms up."""
    work()
    least, begun = float("inf"), time.perf_counter()
    while time.perf_counter() < begun + SECONDS:
        started = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - started)
    return least


def product_rate(dtype):
    rates = []
    for rows, out, inputs in SHAPES:
        x, w = torch.randn(rows, inputs).to(dtype), torch.randn(out, inputs).to(dtype)
        seconds = best(lambda x=x, w=w: torch.nn.functional.linear(x, w))
        rates.append(2e-9 * rows * out * inputs / seconds)
    return max(rates)


def main():
    torch.set_num_threads(int(sys.argv[1]))
    with torch.inference_mode():
        memory = torch.ones(1 << 28)
        other = torch.ones_like(memory)
        size = memory.numel() * memory.element_size() * 1e-9
        emit(
            product_f32=product_rate(torch.float32),
            product_bf16=product_rate(torch.bfloat16),
            read=size / best(memory.sum),
            copy=2 * size / best(lambda: other.copy_(memory)),
        )


if __name__ == "__main__":
    main()
