"""What the definitions say, in numpy: states of a model, spectra, nulls, standard errors,
reconstruction errors, the bootstrap. Written from the equations in float64 and without any
of the C code's shortcuts (a DCT is a matrix, an error is x - x_L).
"""

import os

import h5py
import numpy as np
from numpy_model import dct_matrix, decode, rotate

STATES = ("key", "value", "key_rotated", "query")
NULL_DRAWS = 8  # permutations per segment that the null averages


def floats(dataset):
    if dataset.attrs.get("dtype") == "bf16":
        return (dataset[()].astype(np.uint32) << 16).view(np.float32).astype(float)
    return dataset[()].astype(float)


class Capture:
    """recordings: [(document, attributes, {dataset: array})], read through capture.h5 as a notebook
    does.
    """

    def __init__(self, path):
        with h5py.File(
            path if os.path.isfile(path) else os.path.join(path, "capture.h5"), "r"
        ) as root:
            self.attributes = dict(root.attrs)
            self.recordings = []
            for name in sorted(root["documents"]):
                group = root["documents"][name]
                data = {k: floats(v) for k, v in group.items() if isinstance(v, h5py.Dataset)}
                document = (group.attrs.get("name", name), group.attrs.get("text_sha256", ""))
                self.recordings.append((document, dict(group.attrs), data))


def to_bf16(x):
    """Round to nearest even, as bits."""
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


def forward(model, tokens):
    """tokens [T] from an empty cache -> {state: [layers, heads, T, head_dim]}, nll [T]; softmax
    attention written out.
    """
    rows = len(tokens)
    found = {state: [] for state in STATES}
    hidden = np.triu(np.full((rows, rows), -np.inf), 1)

    def attend(layer, q, k, v):
        turned, rotated = (rotate(x, np.arange(rows), model.theta) for x in (q, k))
        for state, y in zip(STATES, (k, v, rotated, q.reshape(rows, model.heads, -1))):
            found[state].append(y.transpose(1, 0, 2))
        out = np.empty_like(q)
        for head in range(model.kv_heads):
            score = turned[:, head].swapaxes(0, 1) @ rotated[:, head].T
            score = score / np.sqrt(model.head_dim) + hidden
            weight = np.exp(score - score.max(-1, keepdims=True))
            weight /= weight.sum(-1, keepdims=True)
            out[:, head] = (weight @ v[:, head]).swapaxes(0, 1)
        return out

    likely = decode(model, tokens, attend)
    nll = np.append(np.nan, -likely[np.arange(rows - 1), tokens[1:]])
    return {state: np.array(y) for state, y in found.items()}, nll


class Cut:
    """Segments of one state: x [segments, layers, heads, n, head_dim], weight [segments] (documents
    equal, segments within one equal).
    """

    def __init__(self, recordings, state, n, skip):
        documents, self.left_out = {}, 0
        for document, _, data in recordings:
            x = data[state][:, :, skip:]
            count = x.shape[2] // n
            self.left_out += x.shape[2] - count * n
            if count:
                parts = x[:, :, : count * n].reshape(*x.shape[:2], count, n, -1)
                documents.setdefault(document, []).append(parts.transpose(2, 0, 1, 3, 4))
        parts = [np.concatenate(p) for p in documents.values()]
        self.n, self.documents, self.x = n, len(parts), np.concatenate(parts)
        self.document = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
        self.weight = np.repeat([1 / len(p) / len(parts) for p in parts], [len(p) for p in parts])
        self.coefficients = dct_matrix(n) @ self.x
        self.power = np.mean(self.coefficients**2, -1)

        variance = np.var(self.x, axis=-2, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.normalised = np.where(variance > 0, self.coefficients**2 / variance, 0).mean(-1)

    def mean(self, y):
        return np.tensordot(self.weight, y, 1)

    def sums(self):
        """What --spectra-only stores of a recording."""
        squares = {"power_sum_of_squares": self.power**2, "energy_sum": np.sum(self.x**2, (-1, -2))}
        plain = {
            "power_sum": self.power,
            "normalised_sum": self.normalised,
            "channel_mean_sum": self.x.mean(-2),
        }
        return {name: y.sum(0) for name, y in {**plain, **squares}.items()}

    def rounding(self, dtype):
        """Mean ulp^2 / 12 per element [layers, heads]."""
        digits, least = {"f32": (23, -126), "f16": (10, -14), "bf16": (7, -126)}[dtype]
        exponent = np.maximum(np.frexp(self.x)[1] - 1.0, least)
        exponent[self.x == 0] = least
        return self.mean(np.mean(4.0 ** (exponent - digits) / 12, (-1, -2)))

    def error_of_mean(self, values, resamples=2000):
        """Of values [segments, ...]: over documents from 20 on; with 2 to 19 a bootstrap of
        documents and, within each that is drawn, of its segments; with one of its segments; each
        segment with its weight in the mean.
        """
        if self.documents >= 20:
            means = np.array([values[self.document == d].mean(0) for d in range(self.documents)])
            return means.std(0, ddof=1) / np.sqrt(self.documents)
        if len(self.x) < 2:
            return np.full(values.shape[1:], np.nan)
        generator, sizes = np.random.default_rng(5), np.bincount(self.document)
        drawn = np.zeros((resamples, len(values)))
        for row, documents in zip(
            drawn, generator.integers(self.documents, size=(resamples, self.documents))
        ):
            for d in documents:
                row[self.document == d] += generator.multinomial(
                    sizes[d], np.full(sizes[d], 1 / sizes[d])
                )
        drawn *= self.weight
        return np.tensordot(drawn / drawn.sum(1, keepdims=True), values, 1).std(0, ddof=1)

    def error_from_sums(self, values):
        """What that bootstrap tends to with ever more resamples; of one document the plain standard
        error over its segments.
        """
        parts = [values[self.document == d] for d in range(self.documents)]
        if self.documents == 1:
            return values.std(0, ddof=1) / np.sqrt(len(values))
        between = np.var([p.mean(0) for p in parts], axis=0)
        return np.sqrt(
            (between + np.mean([p.var(0) / len(p) for p in parts], axis=0)) / self.documents
        )

    def se_unit(self):
        if self.documents >= 20:
            return "documents"
        return (
            "documents and blocks"
            if self.documents > 1
            else "blocks of one document"
            if len(self.x) > 1
            else None
        )

    def null(self):
        """Permuted tokens, t > 0: the mean of their power [layers, heads] and its standard
        deviation over permutations.
        """
        centred = self.x - self.x.mean(-2, keepdims=True)
        covariance = np.swapaxes(centred, -1, -2) @ centred / (self.n - 1)
        mean = self.mean(np.trace(covariance, axis1=-2, axis2=-1)) / self.x.shape[-1]
        squares = np.sum(covariance**2, (-1, -2)) * 2 / self.x.shape[-1] ** 2 / NULL_DRAWS
        return mean, np.sqrt(np.tensordot(self.weight**2, squares, 1))

    def errors(self, retained, no_dc):
        """Four measures of the reconstruction from the lowest coefficients [layers, heads]."""
        basis = dct_matrix(self.n)[:retained]
        x, kept = self.x, basis.T @ self.coefficients[..., :retained, :]
        if no_dc:
            x, kept = x - x.mean(-2, keepdims=True), kept - kept.mean(-2, keepdims=True)
        energy, rest, norm, inner = (
            self.mean(np.sum(y, (-1, -2))) for y in (x * x, (x - kept) ** 2, kept * kept, x * kept)
        )
        if retained == self.n:
            rest = np.zeros_like(rest)  # what is left of it is the rounding of this reconstruction
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = 10 * np.log10(energy / rest)
            return norm / energy, np.sqrt(rest / energy), snr, inner / np.sqrt(energy * norm)


# ---- bootstrap ----


def random_bits(count):
    """splitmix64 from seed 0: the high 32 bits of its first `count` numbers."""
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(32)).astype(object)


def bootstrap_draws(blocks, resamples=1000):
    """blocks: how many each document has -> (units, draws): how many units there are, and the units
    of each resample. An index below n is bits * n >> 32. 20 documents or more: documents are the
    units, as many are drawn. Fewer: as many documents, and as many of a drawn one's blocks as it
    has; a single document is not drawn.
    """
    if len(blocks) >= 20:
        blocks = [len(blocks)]
    first = np.concatenate([[0], np.cumsum(blocks)]).astype(int)
    bits = iter(random_bits(resamples * len(blocks) * (max(blocks) + 1)))
    draws = []
    for _ in range(resamples):
        drawn = []
        for _ in blocks:
            d = next(bits) * len(blocks) >> 32 if len(blocks) > 1 else 0
            drawn += [first[d] + (next(bits) * blocks[d] >> 32) for _ in range(blocks[d])]
        draws.append(np.array(drawn))
    return first[-1], draws


def bootstrap_means(sums, counts):
    """sums, counts: per document, per block -> the ratio of their sums in each resample."""
    units, draws = bootstrap_draws([len(s) for s in sums])
    if len(sums) >= 20:
        sums, counts = [[sum(s)] for s in sums], [[sum(c)] for c in counts]
    sums, counts = np.concatenate(sums), np.concatenate(counts)
    assert len(sums) == units
    return np.array([sums[i].sum() / counts[i].sum() for i in draws])


def bootstrap_se(sums, counts, overlap=False):
    """Standard deviation over resamples (n - 1). Windows that overlap: documents only, however few.
    None where there is but one unit.
    """
    if overlap or len(sums) >= 20:
        sums, counts = [[sum(s) for s in sums]], [[sum(c) for c in counts]]
    if sum(map(len, sums)) < 2:
        return None
    return float(np.std(bootstrap_means(sums, counts), ddof=1))


def unit_of_error(blocks, overlap=False):
    """blocks: how many each document has -> what `se_unit` says."""
    if len(blocks) >= 20 or overlap:
        return "documents" if len(blocks) > 1 else None
    if sum(blocks) < 2:
        return None
    return "documents and blocks" if len(blocks) > 1 else "blocks of one document"
