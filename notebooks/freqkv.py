"""The toolkit's files in Python: write your own engine's states as a capture, read captures,
results, runs and probes as tidy frames, put intervals on differences, draw figures.

    import freqkv
    # from a model's output or cache in transformers, or from arrays
    print(freqkv.write_capture('mine.h5', outputs, config=model.config, tokens=ids))
    print(freqkv.write_capture('mine.h5', [(k, v), ...], rotated=False))
    freqkv.run('analyze', 'spectrum', 'mine.h5', '--out', 'findings')
    freqkv.plot_spectrum(freqkv.spectrum_frame('findings'), 'key')
    freqkv.paired_bootstrap('local.h5', 'freqkv.h5')  # mean nll of the second less the first
    freqkv.texts_from_parquet('train.parquet', 'train.jsonl.gz')  # for --text

Needs numpy and h5py. Frames are pandas DataFrames where pandas is installed, else dicts of arrays;
dataset() needs xarray, the plot_* functions pandas and matplotlib, texts_from_parquet() pyarrow.
Nothing of torch or transformers is imported: their tensors and caches are recognised by what they
have, so that the same code serves transformers 4 and 5 and engines that know neither.
README.md, beside this file, has a table of all functions; the modules freqkv_*.py are parts of this
one.

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

from freqkv_bootstrap import Interval, bootstrap, paired_bootstrap  # noqa: F401
from freqkv_frames import (  # noqa: F401
    comparison_frame,
    damage_frame,
    dataset,
    error_frame,
    needle_frame,
    probe_frame,
    ratio_frame,
    round_frame,
    run_frame,
    share_frame,
    spectrum_frame,
    token_frame,
)
from freqkv_plots import (  # noqa: F401
    plot_depth,
    plot_error_map,
    plot_errors,
    plot_heads,
    plot_map,
    plot_ratios,
    plot_spectrum,
)
from freqkv_plots_probes import (  # noqa: F401
    plot_bands,
    plot_decomposition,
    plot_policies,
    plot_probe_heads,
)
from freqkv_plots_runs import (  # noqa: F401
    plot_comparison,
    plot_distance,
    plot_needle,
    plot_perplexity,
    plot_rounds,
)
from freqkv_reading import (  # noqa: F401
    Probe,
    Recording,
    frame,
    load_capture,
    load_probe,
    load_results,
    load_run,
    load_sweep,
    load_table,
)
from freqkv_rotation import (  # noqa: F401
    MODEL_TYPES,
    inverse_frequencies,
    layer_frequencies,
    unrotate,
)
from freqkv_style import COLORS, log_bands, use_style  # noqa: F401
from freqkv_writing import STATES, write_capture  # noqa: F401

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
