"""Runs a command while a second program runs: a loop that keeps a core busy, or the same command.

beside.py loop|twin COMMAND... --out FILE ...

The command's own output is passed on. The second program starts again where it ends first.
"""

import itertools
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

# Ends with its parent, however that ends.
LOOP = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1000000):
        pass
"""


def twins(command: list[str], folder: str) -> Iterator[list[str]]:
    """The command again and again, each time with an output of its own."""
    out = command.index("--out") + 1
    for i in itertools.count():
        yield [*command[:out], f"{folder}/{i}", *command[out + 1 :]]


class Beside:
    """The second program, while `with` lasts."""

    def __init__(self, commands: Iterator[list[str]]) -> None:
        self.commands = commands

    def start(self) -> None:
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(next(self.commands), stdout=quiet, stderr=quiet)

    def keep_up(self) -> None:
        status = self.process.poll()
        if status:
            sys.exit(f"error: the second program ended with {status}")
        if status == 0:
            self.start()

    def __enter__(self) -> "Beside":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()


def run(command: list[str], second: Beside) -> int:
    with second, subprocess.Popen(command) as first:
        try:
            while True:
                try:
                    return first.wait(0.05)
                except subprocess.TimeoutExpired:
                    second.keep_up()
        finally:
            first.kill()


def main() -> None:
    kind, command = sys.argv[1], sys.argv[2:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        loop = itertools.repeat([sys.executable, "-c", LOOP])
        sys.exit(run(command, Beside(loop if kind == "loop" else twins(command, folder))))


if __name__ == "__main__":
    main()
