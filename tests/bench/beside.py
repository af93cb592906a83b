"""Runs a command while a second program runs: a loop that keeps a core busy, or the same command.

beside.py loop|twin COMMAND... --out FILE ...

The command's own output is passed on. The second program starts again where it ends first.
"""

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator

LOOP = [sys.executable, "-c", "while True: pass"]


def twins(command: list[str], folder: str) -> Iterator[list[str]]:
    """The command again and again, each time with an output of its own."""
    out = command.index("--out") + 1
    for i in itertools.count():
        yield [*command[:out], f"{folder}/{i}", *command[out + 1 :]]


def run(command: list[str], seconds: Iterator[list[str]]) -> int:
    def start_second() -> subprocess.Popen:
        quiet = subprocess.DEVNULL
        return subprocess.Popen(next(seconds), stdout=quiet, stderr=quiet)

    first, second = subprocess.Popen(command), start_second()
    while True:
        try:
            first.wait(0.05)
            break
        except subprocess.TimeoutExpired:
            if second.poll() is not None:
                second = start_second()
    second.kill()
    second.wait()
    return first.returncode


def main() -> None:
    kind, command = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        many = itertools.repeat(LOOP) if kind == "loop" else twins(command, folder)
        sys.exit(run(command, many))


if __name__ == "__main__":
    main()
