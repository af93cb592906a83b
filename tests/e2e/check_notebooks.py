#!/usr/bin/env python3
"""Executes the notebooks against the built tools and compares what they print with what is
committed.

    check_notebooks.py --bin build/bin [--venv build/notebooks-venv] [--write] [NOTEBOOK.ipynb...]

An error in a cell fails; so does a line of output whose words changed, or a number in it beyond
rounding: a relative difference of 1%, or two of the last digit printed, for the tools' sums depend
a little on the processor. Pictures are counted, not compared. A cell that says "Skipped: ..." here
or there (a package is not installed) is left out. --write puts the new outputs into the files
instead. The packages of notebooks/requirements.txt are installed into the venv, made if it is not
there.
"""

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
NOTEBOOKS = os.path.join(HERE, "..", "..", "notebooks")
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")


def enter(venv):
    """Goes on as the venv's Python, with the packages there."""
    python = os.path.join(os.path.abspath(venv), "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    requirements = os.path.join(NOTEBOOKS, "requirements.txt")
    stamp = os.path.join(venv, "requirements.txt")
    with open(requirements) as f:
        wanted = f.read()
    if not os.path.exists(stamp) or open(stamp).read() != wanted:
        subprocess.run(
            [
                python,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--only-binary",
                ":all:",
                "-r",
                requirements,
            ],
            check=True,
        )
        with open(stamp, "w") as f:
            f.write(wanted)
    os.execv(python, [python, *sys.argv])


def texts(cell):
    """What a cell printed and showed, without pictures."""
    found = []
    for output in cell.get("outputs", []):
        found.append(
            output["text"]
            if output["output_type"] == "stream"
            else output.get("data", {}).get("text/plain", "")
        )
    return [
        line.rstrip()
        for text in found
        for line in text.splitlines()
        if not line.startswith("<Figure")
    ]


def pictures(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def last_digit(number):
    mantissa = number.lower().partition("e")[0]
    return 10.0 ** -len(mantissa.partition(".")[2]) * 10 ** int(
        number.lower().partition("e")[2] or 0
    )


def same(found, wanted):
    """Lines agree: the words exactly but for their spacing, the numbers to rounding."""
    if NUMBER.sub("#", found).split() != NUMBER.sub("#", wanted).split():
        return False
    for a, b in zip(NUMBER.findall(found), NUMBER.findall(wanted)):
        exact = "." not in a and "." not in b
        allowed = 0 if exact else max(0.01 * abs(float(b)), 2 * last_digit(b))
        if abs(float(a) - float(b)) > allowed * (1 + 1e-9):
            return False
    return True


def compare(path, found, wanted):
    """Prints what differs between two notebooks of the same cells, and returns how much does."""
    differences = 0
    for i, (a, b) in enumerate(zip(found.cells, wanted.cells)):
        lines, expected = texts(a), texts(b)
        if any(t and t[0].startswith("Skipped:") for t in (lines, expected)):
            continue
        if pictures(a) != pictures(b) or len(lines) != len(expected):
            print(
                f"FAIL {path}: cell {i}: {len(lines)} lines and {pictures(a)} pictures, committed:"
                f" {len(expected)} and {pictures(b)}"
            )
            differences += 1
        for x, y in zip(lines, expected):
            if not same(x, y):
                print(
                    f"FAIL {path}: cell {i}: found     {x}\n     {' ' * len(path)}           "
                    f" committed {y}"
                )
                differences += 1
    return differences


def execute(path, environment):
    """The notebook at `path` with the outputs of a fresh run; an error in a cell is the caller's to
    report.
    """
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    os.environ.update(environment)
    nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": NOTEBOOKS}},
    ).execute()
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def check_parquet(work):
    """Texts of a parquet file come out as they went in. Returns the number of failures."""
    import pyarrow
    import pyarrow.parquet

    sys.path.insert(0, NOTEBOOKS)
    import freqkv

    texts = ["One line.\nAnd another", "", None, 'żółw "q" \x00 \u2028', "a" * 100000]
    table = {"id": list(range(len(texts))), "article": pyarrow.array(texts, pyarrow.string())}
    parquet = os.path.join(work, "texts.parquet")
    pyarrow.parquet.write_table(pyarrow.table(table), parquet)
    failed = 0
    for name, opened in (("a.jsonl", open), ("a.jsonl.gz", gzip.open)):
        path = os.path.join(work, name)
        rows = freqkv.texts_from_parquet([parquet, parquet], path)
        with opened(path, "rt", encoding="utf-8") as f:
            found = [json.loads(line)["text"] for line in f.read().split("\n")[:-1]]
        failed += rows != 2 * len(texts) or found != 2 * texts
    for field, words in (("id", "expected strings, found int64"), ("body", "found id, article")):
        try:
            freqkv.texts_from_parquet(parquet, os.path.join(work, "none.jsonl"), field)
            failed += 1
        except ValueError as e:
            failed += words not in str(e)
    failed += any(name.startswith("none") for name in os.listdir(work))
    print("FAIL parquet" if failed else "ok   parquet")
    return failed


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", required=True)
    p.add_argument("--venv", default="build/notebooks-venv")
    p.add_argument("--write", action="store_true")
    p.add_argument("notebooks", nargs="*")
    args = p.parse_args()
    if os.path.abspath(args.venv) != os.path.abspath(sys.prefix):
        enter(args.venv)
    import nbclient
    import nbformat

    with tempfile.TemporaryDirectory() as work:
        failed = check_parquet(work)
    for path in args.notebooks or sorted(
        os.path.join(NOTEBOOKS, n) for n in os.listdir(NOTEBOOKS) if n.endswith(".ipynb")
    ):
        name = os.path.basename(path)
        with tempfile.TemporaryDirectory() as work:
            try:
                found = execute(
                    path,
                    {
                        "FREQKV_BIN": os.path.abspath(args.bin),
                        "FREQKV_WORK": work,
                        "PYTHONWARNINGS": "ignore",
                    },
                )
            except nbclient.exceptions.CellExecutionError as e:
                print(f"FAIL {name}: {e}")
                failed += 1
                continue
        if args.write:
            nbformat.write(found, path)
            print(f"{name}: written, {os.path.getsize(path) // 1024} KB")
            continue
        differences = compare(name, found, nbformat.read(path, as_version=4))
        failed += differences > 0
        if not differences:
            print(f"ok   {name}: {sum(c.cell_type == 'code' for c in found.cells)} cells")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
