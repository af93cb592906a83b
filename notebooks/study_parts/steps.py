"""Steps of a study: each is one command of the tools, run in the study's folder, and leaves its
JSON in steps/NAME.json, with the command and the seconds it took.

A step is finished when that file holds the same command; otherwise it starts over, and what an
earlier attempt left is removed first. Only probes and needles, which the tools continue, go on
where they were interrupted, if steps/NAME.started holds the same command. A step that fails leaves
steps/NAME.failed, and the study goes on without it.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

import freqkv

CONTINUED = ("probe", "needle")


@dataclass(frozen=True)
class Step:
    name: str  # runs/freqkv-0.5
    tool: str  # replay
    arguments: tuple  # words; $MODEL stands for the model's path
    outputs: tuple = ()  # files and folders that the command makes
    tokens: int = 0  # tokens fed to the model; of analyses 0
    policy: str = "full"  # whose speed the tokens have
    baseline: int = 0  # tokens fed under full attention besides
    numbers: float = 0  # numbers that an analysis transforms

    @property
    def command(self):
        words = [w if w.startswith("$") else shlex.quote(w) for w in map(str, self.arguments)]
        return f"freqkv-{self.tool} {' '.join(words)}"


class Steps:
    """Runs steps in `folder` for one model."""

    def __init__(self, folder, model, threads=None, compute="f32"):
        self.folder, self.model = folder, os.path.abspath(model)
        self.machine = ["--threads", str(threads)] if threads else []
        self.compute = compute

    def at(self, *names):
        return os.path.join(self.folder, *names)

    def saved(self, step, ending=".json"):
        return self.at("steps", step.name + ending)

    def finished(self, step):
        found = self.read(step)
        return found is not None and found["command"] == self.line(step)

    def read(self, step):
        if not os.path.exists(self.saved(step)):
            return None
        with open(self.saved(step)) as f:
            return json.load(f)

    def line(self, step):
        """The command as it is printed, in this study's precision."""
        takes = step.tool == "capture" or (step.tool == "replay" and step.arguments[0] != "tokens")
        bf16 = self.compute != "f32" and takes and "--compute" not in step.arguments
        return step.command + (f" --compute {self.compute}" if bf16 else "")

    def run(self, step):
        """True where the step is finished, now or before."""
        if self.finished(step):
            return True
        self.make_way(step)
        print(f"{step.name}: {self.line(step)}", file=sys.stderr, flush=True)
        words = [w.replace("$MODEL", self.model) for w in shlex.split(self.line(step))[1:]]
        quick = step.tool == "analyze" and words[0] in ("compare", "impulse")
        words += [] if quick or words[0] == "tokens" else self.machine
        start = time.time()
        done = subprocess.run(
            [freqkv.tool(step.tool), *words, "--quiet", "--json"],
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        seconds = time.time() - start
        if done.returncode:
            print(f"  failed: {done.stderr.strip()}", file=sys.stderr, flush=True)
            os.replace(self.saved(step, ".started"), self.saved(step, ".failed"))
            with open(self.saved(step, ".failed"), "w") as f:
                f.write(done.stderr)
            return False
        found = {"command": self.line(step), "seconds": seconds, "result": json.loads(done.stdout)}
        with open(self.saved(step, ".new"), "w") as f:
            json.dump(found, f)
        os.replace(self.saved(step, ".new"), self.saved(step))
        remove(self.saved(step, ".started"))
        return True

    def make_way(self, step):
        """Removes what is left of an earlier attempt, where the tool does not go on with it."""
        started = self.saved(step, ".started")
        goes_on = False
        if os.path.exists(started) and step.arguments[0] in CONTINUED:
            with open(started) as f:
                goes_on = f.read() == self.line(step)
        for name in () if goes_on else step.outputs:
            remove(self.at(name))
        for ending in (".json", ".failed"):
            remove(self.saved(step, ending))
        for name in (started, *map(self.at, step.outputs)):
            os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(started, "w") as f:
            f.write(self.line(step))

    def result(self, step):
        """The step's JSON; None where it failed."""
        return self.read(step)["result"] if self.finished(step) else None

    def seconds(self, step):
        return self.read(step)["seconds"] if self.finished(step) else 0.0


def remove(path):
    """A file or folder, and what the tools keep beside it."""
    if os.path.isdir(path):
        shutil.rmtree(path)
    for name in (path, path + ".run", path + ".parts"):
        if os.path.isdir(name):
            shutil.rmtree(name)
        elif os.path.exists(name):
            os.remove(name)
