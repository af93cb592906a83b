"""Runs the contenders of a row in turns: ours, rival, ours, rival. Each run is a new process."""

import contextlib
import fcntl
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from busy import Others, wait_until_idle
from install import last_line
from models import Models, NotMade
from settings import Settings

Result = dict


@dataclass
class Contender:
    """A command and how to read its value. "{out}" in the command is a new path of its own, kept
    until the row ends."""

    name: str
    command: list[str]
    value: Callable[[Result], float]


@dataclass
class Outcome:
    name: str
    values: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)  # cores other programs used meanwhile
    result: Result = field(default_factory=dict)  # of the last run
    out: str = ""  # what the last run wrote
    failure: str = ""

    @property
    def median(self) -> float | None:
        return median(self.values) if self.values else None


@contextlib.contextmanager
def held(lock: pathlib.Path | None):
    """Others who take the same lock do not run meanwhile."""
    if lock is None:
        yield
        return
    with open(lock, "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def parse(text: str, out: pathlib.Path) -> Result:
    """The last line if it is JSON, else the text itself; with what `generate` wrote of its last
    prompt."""
    lines = text.strip().splitlines()
    try:
        result = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        return {"text": text}
    if out.is_file() and "prefill_tokens_per_s" in result:
        result["token_ids"] = json.loads(out.read_text().splitlines()[-1])["token_ids"]
    return result


def failure_of(done: subprocess.CompletedProcess[str]) -> str:
    errors = re.findall(r"^\S*(?:freqkv-|Error|error).*", done.stderr, re.MULTILINE)
    return errors[-1] if errors else last_line(done.stderr or done.stdout)


def run_once(s: Settings, contender: Contender, outcome: Outcome, folder: pathlib.Path) -> None:
    out = folder / re.sub(r"\W+", "-", contender.name)
    for path in (out, pathlib.Path(f"{out}.run")):
        remove(path)
    command = [part.replace("{out}", str(out)) for part in contender.command]
    wait_until_idle(s.wait)
    with held(s.lock):
        others, started = Others(), time.perf_counter()
        done = subprocess.run(command, env=s.environment(), capture_output=True, text=True)
        wall = time.perf_counter() - started
    if done.returncode:
        outcome.failure = failure_of(done)
        return
    outcome.out = str(out)
    outcome.result = parse(done.stdout, out) | {"wall": wall}
    outcome.values.append(contender.value(outcome.result))
    outcome.others.append(others.cores())


def run_row(
    s: Settings, models: Models, contenders: list[Contender], check, say
) -> tuple[list[Outcome], Result]:
    """The outcome of every contender, and what `check` says of all."""
    outcomes = [Outcome(c.name) for c in contenders]
    with tempfile.TemporaryDirectory(dir=models.folder, prefix="run-") as folder:
        begun = time.perf_counter()
        for turn in range(s.repeats):
            if turn and time.perf_counter() - begun > s.patience:
                break
            for contender, outcome in zip(contenders, outcomes):
                if outcome.failure:
                    continue
                try:
                    models.need_all(contender.command)
                    run_once(s, contender, outcome, pathlib.Path(folder))
                except (NotMade, OSError, ValueError, LookupError) as e:
                    outcome.failure = f"{type(e).__name__}: {e}"
                say(f"  {contender.name}: {outcome.failure or f'{outcome.values[-1]:.4g}'}")
        try:
            checked = check(outcomes)
        except (OSError, ValueError, LookupError) as e:
            checked = {"note": f"not compared: {type(e).__name__}: {e}"}
    return outcomes, checked
