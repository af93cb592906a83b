"""What the checks of refusals share. Every case must end with exit status 1 (2 where the value of
an option is refused), a message that names file, field, expected and found, and nothing
half-written. Single parsers are tested in tests/unit and tests/fuzz.
"""

import argparse
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy as np
from checks import check, verdict, words


def run(command):
    return subprocess.run(list(words(command)), capture_output=True, text=True)


def expect(name, command, *words, gone=(), status=1):
    """The command fails with `status`, says every word on stderr, and leaves none of the paths in
    `gone`.
    """
    done = run(command)
    problems = (
        [f"exit status {done.returncode}, expected {status}"] if done.returncode != status else []
    )
    problems += [f'message lacks "{word}"' for word in words if word not in done.stderr]
    for path in gone:
        if os.path.isdir(path):
            problems += [
                f"left {os.path.join(folder, f)}"
                for folder, _, files in os.walk(path)
                for f in files
            ]
        elif os.path.exists(path):
            problems.append(f"left {path}")
    check(name, not problems, "; ".join(problems) + "\n" + done.stderr.strip())


def expect_same(name, before):
    """The files still have these bytes."""
    changed = [
        path
        for path, data in before.items()
        if not os.path.exists(path) or open(path, "rb").read() != data
    ]
    check(name, not changed, changed)


class Checkpoint:
    """A copy of the embedded model with something wrong in it."""

    def __init__(self, work, source, name):
        self.path = os.path.join(work, name)
        shutil.copytree(source, self.path)
        self.weights = os.path.join(self.path, "model.safetensors")

    def config(self, **changes):
        path = os.path.join(self.path, "config.json")
        with open(path) as f:
            config = json.load(f)
        with open(path, "w") as f:
            json.dump(config | changes, f)
        return self

    def read(self):
        with open(self.weights, "rb") as f:
            data = f.read()
        (size,) = struct.unpack("<Q", data[:8])
        return json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])

    def write(self, header, blob):
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return self.raw(struct.pack("<Q", len(text)) + text + blob)

    def header(self, change):
        header, blob = self.read()
        change(header)
        return self.write(header, blob)

    def raw(self, data):
        with open(self.weights, "wb") as f:
            f.write(data)
        return self

    def bf16(self, tensor, index, value):
        """Overwrites one element."""
        header, blob = self.read()
        at = header[tensor]["data_offsets"][0] + 2 * index
        blob[at : at + 2] = (
            (np.array([value], dtype=np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
        )
        return self.write(header, blob)


def main(name, description, *groups):
    """Runs each group(tools, work, model, text), prints how many cases passed, and exits."""
    p = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", default="build/bin")
    p.add_argument("--data", default="data")
    args = p.parse_args()
    tools, work = pathlib.Path(os.path.abspath(args.bin)), tempfile.mkdtemp(prefix="fkv-bad-")
    model, text = (
        os.path.abspath(args.data + "/litbank-1m"),
        os.path.abspath(args.data + "/the_tide_mill.txt"),
    )
    try:
        for group in groups:
            group(tools, work, model, text)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sys.exit(verdict(name))
