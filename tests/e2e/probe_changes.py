"""What changes of a cache do to the tokens after it, in numpy, for check_probe.py: numpy_model.py's
LLaMA split in two. The prefix gives un-rotated keys and values, each change is written from its
definition, and the tokens after it attend to slots with positions and biases of their own.
"""

import numpy as np
from numpy_model import dct_matrix, decode, rotate

PREFIX, SCORE, SINKS, BLOCKS, SEED = 81, 40, 4, 3, 7
N = PREFIX - SINKS
KEY, VALUE, BOTH = 1, 2, 3
KINDS = ["none", "filter", "noise", "freqkv", "local"]
OPTIONS = ["none", "filter", "noise", "freqkv", "local", "decompose", "bands", "octaves"]
STATES = ["none", "key", "value", "both"]

# ---- model ----


class Slots:
    """What one KV head remembers: un-rotated keys and values [slots, d], a position and a bias per
    slot, where the next token stands.
    """

    def __init__(self, keys, values):
        self.keys, self.values = keys, values
        self.positions, self.bias, self.next = (
            np.arange(len(keys), dtype=float),
            np.zeros(len(keys)),
            float(len(keys)),
        )


def continue_with(model, tokens, cache):
    """tokens [T] after what cache[layer][head] remembers -> log-probabilities [T, vocab],
    un-rotated keys and values [layer][head]
    """
    rows, grown = len(tokens), []

    def attend(layer, q, k, v):
        out = np.empty_like(q)
        for head, slots in enumerate(cache[layer]):
            own = slots.next + np.arange(rows)
            turned = rotate(
                np.concatenate([slots.keys, k[:, head]]),
                np.concatenate([slots.positions, own]),
                model.theta,
            )
            values, old = np.concatenate([slots.values, v[:, head]]), len(slots.keys)
            score = rotate(q[:, head], own, model.theta) @ turned.T / np.sqrt(model.head_dim)
            score = score + np.concatenate([slots.bias, np.zeros(rows)])
            future = np.arange(len(values))[None, :] > old + np.arange(rows)[:, None]
            score = np.where(future[:, None, :], -np.inf, score)
            weight = np.exp(score - score.max(-1, keepdims=True))
            out[:, head] = weight / weight.sum(-1, keepdims=True) @ values
        grown.append([(k[:, h], v[:, h]) for h in range(model.kv_heads)])
        return out

    return decode(model, tokens, attend), grown


# ---- changes ----


def splitmix(state):
    """The state's next value and state."""
    mask = (1 << 64) - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31), state


def normals(state, count):
    out = np.empty(count)
    for i in range(count):
        a, state = splitmix(state)
        b, state = splitmix(state)
        u, v = 1 - (a >> 11) * 2.0**-53, (b >> 11) * 2.0**-53
        out[i] = np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)
    return out


def noise_state(window, layer, head, state, model):
    index = ((window * model.layers + layer) * model.kv_heads + head) * 2 + state
    return splitmix(SEED)[0] ^ (index * 0xD1342543DE82EF95 & (1 << 64) - 1)


def edge(fraction):
    return int(np.ceil(fraction * N - 1e-9))


def in_bands(bands):
    t = np.arange(N)
    return np.any([(edge(a) <= t) & (t < edge(b)) for a, b in bands], axis=0)


class Change:
    """kind: none, filter, without, noise, freqkv, local. parts: (truncation, squeezed, fewer).
    option: the one that asks for it, as PROBE.h5 has it.
    """

    def __init__(
        self,
        kind,
        states=BOTH,
        bands=(),
        epsilon=None,
        gamma=None,
        parts=None,
        layer=None,
        head=None,
        option=None,
    ):
        self.kind, self.states, self.bands, self.epsilon, self.gamma = (
            kind,
            states,
            bands,
            epsilon,
            gamma,
        )
        self.parts, self.layer, self.head = parts, layer, head
        self.option = OPTIONS.index(option or kind)

    def structure(self):
        """What /changes and --json say of it."""
        return (
            self.option,
            "filter" if self.kind == "without" else self.kind,
            int(self.kind == "without"),
            self.states,
            tuple(self.bands),
            self.epsilon,
            self.gamma,
            tuple(self.parts or (None,) * 3),
            self.layer,
            self.head,
        )

    def states_changed(self, x, stream):
        """x [n, d] of one state -> what becomes of it, energy lost"""
        c, kept = dct_matrix(N) @ x, self.retained()
        if self.kind in ("filter", "without"):
            gone = in_bands(self.bands) != (self.kind == "filter")
            return dct_matrix(N).T @ np.where(gone[:, None], 0, c), np.sum(c[gone] ** 2)
        if self.kind == "noise":
            band = in_bands(self.bands)
            noise, wanted = np.zeros_like(c), self.epsilon * np.sum(c[1:] ** 2)
            noise[band] = normals(stream, band.sum() * x.shape[1]).reshape(-1, x.shape[1])
            return dct_matrix(N).T @ (c + noise * np.sqrt(wanted / np.sum(noise**2))), wanted
        if self.kind == "local":
            return x[N - kept :], np.sum((x - x.mean(0))[: N - kept] ** 2)
        if self.kind == "freqkv" and self.parts[0]:
            return dct_matrix(kept).T @ c[:kept] * np.sqrt(kept / N), np.sum(c[kept:] ** 2)
        return x, 0.0

    def retained(self):
        return N if self.gamma is None else int(np.floor(self.gamma * N + 1e-9))

    def apply(self, keys, values, window, layer, head, model):
        """keys, values [P, d] of one head -> Slots, [lost], [energy without DC]"""
        slots, lost, energy = Slots(keys, values), [0.0, 0.0], [0.0, 0.0]
        if (
            self.kind == "none"
            or (self.layer is not None and self.layer != layer)
            or (self.head is not None and self.head != head)
        ):
            return slots, lost, energy
        parts = []
        for state, x in enumerate((keys, values)):
            changed = x[SINKS:]
            if self.states >> state & 1:
                energy[state] = np.sum((x[SINKS:] - x[SINKS:].mean(0)) ** 2)
                changed, lost[state] = self.states_changed(
                    x[SINKS:], noise_state(window, layer, head, state, model)
                )
            parts.append(np.concatenate([x[:SINKS], changed]))
        slots = Slots(*parts)
        if self.kind == "freqkv":
            truncation, squeezed, fewer = self.parts
            kept = self.retained()
            count = kept if truncation else N
            j, stretch = np.arange(count), (kept if squeezed else N) / count
            slots.positions[SINKS:] = SINKS + (j if stretch == 1 else (j + 0.5) * stretch - 0.5)
            slots.bias[SINKS:] = np.log((kept if fewer else N) / count)
            slots.next = SINKS + (kept if squeezed else N)
        return slots, lost, energy


def alone(model):
    """Changes made of each layer and head alone, too: label -> Change, in the tool's order; and
    the tool's options.
    """
    expected = [("nothing", Change("none", 0))]
    alone = [(None, None)] + [
        (layer, h) for layer in range(model.layers) for h in (None, *range(model.kv_heads))
    ]
    for name, states in (("key", KEY), ("value", VALUE)):
        expected += [
            (f"filter 0:0.5, {name}", Change("filter", states, [(0, 0.5)], layer=layer, head=h))
            for layer, h in alone
        ]
    expected += [
        ("freqkv 0.37", Change("freqkv", gamma=0.37, parts=(1, 1, 1), layer=layer, head=h))
        for layer, h in alone
    ]
    options = "--states key,value --per-layer --per-head --filter 0:0.5 --freqkv 0.37"
    return expected, options.split()


def together(model):
    """Changes of all heads at once."""
    expected, kept = [("nothing", Change("none", 0))], int(np.floor(0.37 * N + 1e-9))

    def apart(label, **change):
        for name, states in (("key", KEY), ("value", VALUE), ("both", BOTH)):
            expected.append((f"{label}, {name}", Change(states=states, **change)))

    apart("filter 0:0.1,0.3:0.55", kind="filter", bands=[(0, 0.1), (0.3, 0.55)])
    apart("noise 0.2:0.6:0.5", kind="noise", bands=[(0.2, 0.6)], epsilon=0.5)
    apart("without DC", kind="without", bands=[(0, 1 / N)], option="bands")
    for option, edges in (("bands", (1 / N, 1 / 3, 2 / 3, 1)), ("octaves", (1 / N, 0.5, 1))):
        for a, b in zip(edges, edges[1:]):
            apart(f"without {a:.6g}:{b:.6g}", kind="without", bands=[(a, b)], option=option)
    for gamma in (0.37, 1):
        expected.append((f"freqkv {gamma:.6g}", Change("freqkv", gamma=gamma, parts=(1, 1, 1))))
    expected.append(("local 0.6", Change("local", gamma=0.6)))
    for on in range(8):
        parts = [on >> i & 1 for i in range(3)]
        if on == 1:
            alone = Change(
                "filter", bands=[(0, kept / N)], gamma=0.37, parts=parts, option="decompose"
            )
            expected.append(("decompose 0.37: truncation", alone))
        names = [name for name, part in zip(("truncation", "squeezed", "fewer"), parts) if part]
        label = (
            "decompose 0.37: " + (" + ".join(names) or "nothing") + (", L slots" if on == 1 else "")
        )
        expected.append((label, Change("freqkv", gamma=0.37, parts=parts, option="decompose")))
    options = "--states key,value,both --filter 0:0.1,0.3:0.55 --noise 0.2:0.6:0.5 --bands 3"
    options += " --octaves 2 --freqkv 0.37,1 --local 0.6 --decompose 0.37"
    return expected, options.split()
