"""What checks share: counting them, running a tool, comparing numbers."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy as np

made = failed = 0


def check(name, good, found=""):
    """Counts one check; prints it where it fails, with the end of what was found."""
    global made, failed
    made += 1
    if not good:
        failed += 1
        print(f"FAILED  {name}: {str(found)[-1500:]}", flush=True)


def verdict(subject):
    """Prints how many checks passed; the exit status."""
    print(f"{subject}: {made - failed} passed, {failed} failed")
    return int(failed > 0)


def words(command):
    """A command's arguments: text such as "freqkv-replay ppl" and "--window 64" is split at its
    spaces; paths, other text and "--text=a path" stay whole.
    """
    for part in command:
        opens = isinstance(part, str) and part.startswith(("freqkv-", "--"))
        if opens and "=" not in part.split(" ")[0]:
            yield from part.split(" ")
        else:
            yield str(part)


def content_of(path):
    """A file's bytes; of HDF5 what it holds, but for the command and times."""
    if not str(path).endswith(".h5"):
        return pathlib.Path(path).read_bytes()
    found = []

    def add(name, node):
        attributes = {k: np.asarray(v).tolist() for k, v in node.attrs.items() if k not in TIMES}
        data = ()
        if isinstance(node, h5py.Dataset):
            data = (str(node.dtype), node.shape, np.asarray(node[()]).tobytes())
        found.append((name, repr(sorted(attributes.items())), data))

    with h5py.File(path) as f:
        add("/", f)
        f.visititems(add)
    return found


TIMES = {"command", "created", "ms_per_token", "compression_share"}


class Checks:
    def __init__(self):
        self.made, self.failed, self.subject = 0, 0, None
        self.agreed, self.furthest = [], 0.0

    def about(self, subject):
        """Says what agreed about the subject before, and starts the next."""
        if self.agreed:
            differ = f"; differ by at most {self.furthest:.0e}" if self.furthest else ""
            print("ok  ", f"{self.subject}: {', '.join(self.agreed)}{differ}", flush=True)
        self.subject, self.agreed, self.furthest = subject, [], 0.0

    def that(self, label, passed, found=""):
        self.made, self.failed = self.made + 1, self.failed + (not passed)
        if passed:
            self.agreed.append(label)
        else:
            print("FAIL", f"{self.subject}: {label}: {found}", flush=True)

    def close(self, label, found, want, relative=1e-6, absolute=1e-300):
        """Differences are measured against each wanted value, or against `absolute` where that is
        larger. NaN equals NaN.
        """
        found, want = np.asarray(found, float), np.asarray(want, float)
        if found.shape != want.shape:
            return self.that(label, False, f"has shape {found.shape}, expected {want.shape}")
        with np.errstate(invalid="ignore"):
            off = np.abs(found - want) / np.maximum(np.abs(want), absolute)
        off = np.where(
            (found == want) | (np.isnan(found) & np.isnan(want)),
            0,
            np.where(np.isnan(off), np.inf, off),
        )
        at = np.unravel_index(off.argmax(), off.shape)
        note = (
            f"{found[at]} at {tuple(map(int, at))}, expected {want[at]}: differs by {off[at]:.1e},"
            f" allowed {relative:.0e}"
        )
        self.that(label, bool(off[at] <= relative), note)
        if off[at] <= relative:
            self.furthest = max(self.furthest, off[at])


class Rounds:
    """A check of freqkv-replay on models that are drawn at random: --bin, --rounds, --seed. A check
    is a function of (tool, folder, random, ...) that returns the problems it found, or a label and
    them; None: the draw cannot tell, and is made again.
    """

    def __init__(self, description, rounds, of=None):
        parser = argparse.ArgumentParser(description=description.split("\n")[0])
        parser.add_argument("--bin", required=True)
        parser.add_argument("--rounds", type=int, default=rounds, help=of)
        parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
        options = parser.parse_args()
        self.tool = os.path.join(options.bin, "freqkv-replay")
        self.rounds = range(options.rounds)
        self.random = np.random.default_rng(options.seed)
        self.failures = 0
        print("seed", options.seed)

    def draw(self, check, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            found = check(self.tool, folder, self.random, *arguments)
        return found if isinstance(found, tuple) else (check.__name__, found)

    def run(self, check, *arguments, draws=300):
        """Runs the check until a draw can tell, and prints what it found."""
        for _ in range(draws):
            label, problems = self.draw(check, *arguments)
            if problems is not None:
                break
        else:
            problems = [f"none of {draws} draws could tell"]
        label = " ".join([label, *map(str, arguments)]) if label == check.__name__ else label
        print("FAIL" if problems else "ok  ", label, flush=True)
        for problem in problems:
            print("     ", problem)
        self.failures += bool(problems)

    def verdict(self):
        print(f"{self.failures} of the checks failed" if self.failures else "all checks passed")
        return int(self.failures > 0)


class Tools:
    def __init__(self, folder):
        self.folder = folder

    def run(self, name, *arguments):
        """The text on stdout; a JSON object where --json is among the arguments. NaN and Infinity
        are no JSON.
        """
        environment = {
            "OMP_WAIT_POLICY": "passive",
            **os.environ,
        }  # threads that spin while they wait cost others more than they save
        name, *arguments = words([name, *arguments])
        command = [os.path.join(self.folder, name), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        if result.returncode:
            sys.exit(
                f"{name} {' '.join(arguments)}: exit status {result.returncode}:"
                f" {result.stderr.strip()}"
            )
        return (
            json.loads(result.stdout, parse_constant=refuse)
            if "--json" in arguments
            else result.stdout
        )


def refuse(constant):
    raise ValueError(f"{constant} in JSON")
