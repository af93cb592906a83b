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
transformers is imported: their tensors and caches are recognised by what they have, so that the
same code serves transformers 4 and 5 and engines that know neither. freqkv_writing.py and
freqkv_rotation.py belong to it and stand beside it.

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
from freqkv_rotation import (  # noqa: F401
    MODEL_TYPES,
    inverse_frequencies,
    layer_frequencies,
    unrotate,
)
from freqkv_writing import STATES, write_capture  # noqa: F401

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
