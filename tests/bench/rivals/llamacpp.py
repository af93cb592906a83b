"""llama.cpp through the C API of llama-cpp-python: prefill and decoding, and perplexity.

    llamacpp.py generate MODEL.gguf THREADS DRAWN IDS.npy...   each file is a prompt; greedy
    llamacpp.py ppl MODEL.gguf THREADS IDS.npy TOKENS CHUNK    the second half of each chunk

Prints JSON. Loading is not timed. Batches of 512 and a float16 cache, llama.cpp's defaults; ids go
to the C API, and the log-softmax of perplexity is torch's, so no Python loop is timed.
"""

import ctypes
import sys
import time

import llama_cpp as c
import numpy as np
from common import emit, generation, read_ids

BATCH = 512
QUIET = c.llama_log_callback(lambda level, text, data: None)


class Context:
    def __init__(self, path, threads, slots):
        c.llama_log_set(QUIET, ctypes.c_void_p(0))
        c.llama_backend_init()
        self.model = c.llama_model_load_from_file(path.encode(), c.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp cannot load it")
        p = c.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch = slots, BATCH, BATCH
        p.n_threads = p.n_threads_batch = int(threads)
        self.context = c.llama_init_from_model(self.model, p)
        self.vocab = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model))
        self.batch = c.llama_batch_init(BATCH, 0, 1)

    def clear(self):
        c.llama_memory_clear(c.llama_get_memory(self.context), True)

    def feed(self, ids, position, scored=False):
        """One batch at most; logits of all its rows if scored, else of the last one."""
        b = self.batch
        b.n_tokens = len(ids)
        for i, token in enumerate(ids):
            b.token[i], b.pos[i] = int(token), position + i
            b.n_seq_id[i], b.seq_id[i][0] = 1, 0
            b.logits[i] = scored or i == len(ids) - 1
        if c.llama_decode(self.context, b):
            raise SystemExit("llama_decode failed")

    def prefill(self, ids):
        for a in range(0, len(ids), BATCH):
            self.feed(ids[a : a + BATCH], a)
        c.llama_synchronize(self.context)

    def logits(self, rows):
        """[rows, vocab], a view that the next feed overwrites."""
        pointer = c.llama_get_logits(self.context)
        return np.ctypeslib.as_array(pointer, (rows, self.vocab))


def generate(path, threads, drawn, *paths):
    prompts = [read_ids(p) for p in paths]
    model = Context(path, threads, max(map(len, prompts)) + int(drawn))
    prefill = decode = 0.0
    results = []
    for ids in prompts:
        model.clear()
        started = time.perf_counter()
        model.prefill(ids)
        between = time.perf_counter()
        tokens = [int(model.logits(1)[0].argmax())]
        while len(tokens) < int(drawn):
            model.feed(tokens[-1:], len(ids) + len(tokens) - 1)
            tokens.append(int(model.logits(1)[0].argmax()))
        decode += time.perf_counter() - between
        prefill += between - started
        results.append(tokens)
    generation(sum(map(len, prompts)), prefill, results, decode)


def ppl(path, threads, ids_path, tokens, chunk):
    import torch

    torch.set_num_threads(int(threads))
    ids, chunk = read_ids(ids_path, int(tokens)), int(chunk)
    model = Context(path, threads, chunk)
    total, scored = 0.0, 0
    started = time.perf_counter()
    for start in range(0, len(ids), chunk):
        part = ids[start : start + chunk]
        model.clear()
        model.prefill(part[: chunk // 2])
        for a in range(chunk // 2, chunk, BATCH):
            rows = part[a : a + BATCH]
            model.feed(rows, a, scored=True)
            targets = torch.from_numpy(part[a + 1 : a + 1 + len(rows)])
            logits = torch.from_numpy(model.logits(len(targets)))
            total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
            scored += len(targets)
    seconds = time.perf_counter() - started
    emit(seconds=seconds, tokens_scored=scored, mean_nll=total / scored)


if __name__ == "__main__":
    {"generate": generate, "ppl": ppl}[sys.argv[1]](*sys.argv[2:])
