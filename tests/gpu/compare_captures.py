"""Whole captures of one text on two backends: every array of states and of spectra agrees.

    python tests/gpu/compare_captures.py build/gpu/bin/freqkv-capture [MODEL TEXT [EXPECTED TESTED]]

States are captured in float32 and computed in float32: within 1e-4. Power adds squares up: within
1e-4 of the largest of its array. The tested side also runs three recordings side by side. Needs
h5py.
"""

import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy as np


def capture(program, model, text, out, *options):
    subprocess.run(
        [
            program,
            "--model",
            model,
            "--text",
            text,
            "--out",
            str(out),
            "--dtype=f32",
            "--compute=f32",
            "--cache-dtype=f32",
            "--quiet",
            *options,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    arrays = {}
    with h5py.File(out / "capture.h5") as f:
        # A capture links its recordings, and visititems does not follow links.
        def walk(group, path):
            for name in group:
                item = group[name]
                if isinstance(item, h5py.Group):
                    walk(item, f"{path}/{name}")
                elif item.dtype.kind == "f":
                    arrays[f"{path}/{name}"] = item[...].astype(np.float64)

        walk(f, "")
    return arrays


def compare(what, expected, found):
    if not expected or expected.keys() != found.keys():
        print(
            f"FAILED  {what}: expected {len(expected)} arrays, found {len(found)}, not the same"
            f" ones: {sorted(expected.keys() ^ found.keys())[:4]}"
        )
        return False
    worst, where = 0.0, ""
    for name, e in expected.items():
        if e.shape != found[name].shape or np.any(np.isnan(e) != np.isnan(found[name])):
            print(f"FAILED  {what}: {name} has another shape or other gaps")
            return False
        size = (
            1.0
            if name.rsplit("/", 1)[-1] in ("key", "value", "query", "key_rotated")
            else max(np.nanmax(np.abs(e), initial=0), 1e-30)
        )
        difference = np.nanmax(np.abs(e - found[name]), initial=0) / size
        if not difference <= worst:
            worst, where = difference, name
    good = worst < 1e-4
    print(
        f"{'ok' if good else 'FAILED':7} {what}: {len(expected)} arrays, largest difference"
        f" {worst:.2e} ({where})"
    )
    return good


def main():
    program, model, text, expected, tested = (
        sys.argv[1:]
        + ["data/litbank-1m", "data/the_tide_mill.txt", "cpu", "cuda"][len(sys.argv) - 2 :]
    )[:5]
    good = True
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name, options in (
            ("states", ["--states=key,value,query,key_rotated"]),
            ("spectra", ["--spectra-only", "--length=252"]),
        ):
            options = [*options, "--max-tokens=256"]
            e = capture(
                program, model, text, folder / f"{name}.expected", f"--backend={expected}", *options
            )
            for batch in "1", "3":
                f = capture(
                    program,
                    model,
                    text,
                    folder / f"{name}.{batch}",
                    f"--backend={tested}",
                    f"--batch={batch}",
                    *options,
                )
                good &= compare(f"{name}, {batch} side by side", e, f)
    sys.exit(not good)


if __name__ == "__main__":
    main()
