"""The sizes of a study: window, tokens, documents, and from these every option that follows."""

import math
from dataclasses import dataclass, field

SINKS = 4
GAMMAS = ("0.25", "0.5", "0.75")
# name: (tokens of a document, window); others by general()
KNOWN = {"litbank-1m": (1024, 512), "stories260k": (512, 256)}
HALVES = ("choose", "test")  # of the texts
PASSAGE = 64  # tokens of recall's passage
# Of recall and needle; what is reported covers all depths evenly, for policies differ in how far
# back they hold what.
DEPTHS = {"choose": "0.25,0.75", "test": ",".join(f"{k / 20:g}" for k in range(1, 20, 2))}


def general(context):
    """(tokens, window) of a model: four windows in up to half of what it was trained on, as far as
    4096 tokens; of a short context, two windows in all of it.
    """
    tokens = min(4096, context // 2) if context >= 4096 else context
    return tokens, tokens // 4 if context >= 4096 else tokens // 2


@dataclass
class Setting:
    name: str
    context: int
    tokens: int
    window: int
    documents: int
    heads: int = 1  # layers x KV heads
    layers: int = 1
    head_dim: int = 64
    features: set = field(default_factory=set)  # what these tools can: mixed, cache-quant
    wide: int = 0  # a second window, with four times as many tokens; 0 for none

    @property
    def n(self):
        return self.window - SINKS

    @property
    def score(self):
        """Tokens that a probe scores."""
        return min(256, self.window // 2)

    @property
    def short(self):
        """Tokens of a probe's window."""
        return self.window + self.score + 1

    @property
    def repeats(self):
        """Prompts per depth, of recall and needle."""
        return max(2, self.documents // 4)

    def kept(self, gamma, window=None):
        """Slots after a compression, sinks included."""
        return SINKS + math.floor(float(gamma) * ((window or self.window) - SINKS) + 1e-9)

    def equal_mean(self, gamma, recent):
        """The ratio behind `recent` uncompressed slots that leaves as many slots as `gamma`."""
        rest = self.kept(gamma) - SINKS - recent
        return f"{(rest + 0.25) / (self.n - recent):.6f}"
