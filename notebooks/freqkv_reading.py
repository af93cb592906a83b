"""Reading the toolkit's files: captures, results, runs, probes and tables, for freqkv.py. Tables
are pandas DataFrames where pandas is installed, else dicts of arrays.
"""

import csv
import os

import h5py
import numpy as np
from freqkv_writing import STATES


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
        # links lead into files of their own
        groups = [f["documents"][name] for name in sorted(f["documents"])]
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
    """One row per scored token of a RUN.h5: document (or window, under the protocol stride), token
    (its index there), id, nll, round, ... and, with a baseline, baseline_nll, kl, top1_agree,
    delta_nll. The file's attributes are in .attrs.
    """
    attributes, columns = read_run(path)
    return frame(columns, **attributes)


def read_run(path):
    """(attributes and names of the documents, columns) of load_run()"""
    columns = {}
    with h5py.File(path) as f:
        attributes = attributes_of(f)
        documents = [f["documents"][d] for d in sorted(f["documents"])]
        attributes["documents"] = [d.attrs.get("name", "") for d in documents]
        where = "window" if "windows" in f else "document"
        for i, (ids, part) in enumerate(run_parts(f, documents)):
            scored = np.flatnonzero(np.isfinite(part["nll"]))
            part = {where: np.full(len(scored), i), "token": scored, "id": ids[scored]} | {
                n: x[scored] for n, x in part.items()
            }
            for n, x in part.items():
                columns.setdefault(n, []).append(x)
    columns = {n: np.concatenate(x) for n, x in columns.items()}
    if "baseline_nll" in columns:
        columns["delta_nll"] = columns["nll"].astype(np.float64) - columns["baseline_nll"]
    return attributes, columns


def run_parts(f, documents):
    """Of each document, or of each window over all documents joined: ids [T], columns of [T]."""
    if "windows" not in f:
        for d in documents:
            yield d["tokens"][:], {n: x[:] for n, x in d.items() if n != "tokens"}
        return
    joined = np.concatenate([d["tokens"][:] for d in documents])
    for w, start in enumerate(f["windows/start"][:]):
        part = {n: x[w] for n, x in f["windows"].items() if n != "start"}
        yield joined[start : start + len(part["nll"])], part


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


def read_table(path):
    """Columns of a CSV with a header: numbers where every cell is one or empty (NaN), else text."""
    with open(path, newline="", encoding="utf-8") as f:
        header, *rows = csv.reader(f)
    return {name: typed([row[i] for row in rows]) for i, name in enumerate(header)}


def typed(cells):
    """int64, float64 or text [rows] <- the cells of a column"""
    for kind in (np.int64, np.float64):
        try:
            return np.array([cell or "nan" for cell in cells], kind)
        except ValueError:
            pass
    return np.array(cells, object)


def load_table(path):
    """A CSV of the tools, one row per line: columns of numbers, and text where it is no number."""
    return frame(read_table(path))


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
