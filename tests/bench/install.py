"""The rivals' venv: every pinned package on its own, so that one that fails stops no other."""

import os
import pathlib
import subprocess
import sys

from settings import HERE, Settings

REQUIREMENTS = HERE / "requirements.txt"
LLAMA_BUILD = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"}


def last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no message"


def pinned() -> list[str]:
    lines = (line.split("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines())
    return [line for line in lines if line]


def pip(s: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    cores = str(os.cpu_count())
    environment = {"CMAKE_BUILD_PARALLEL_LEVEL": cores} | os.environ | LLAMA_BUILD
    return subprocess.run(
        [s.python, "-m", "pip", *arguments], env=environment, capture_output=True, text=True
    )


def install(s: Settings, say) -> dict[str, str]:
    """Makes or completes the venv; package -> why it failed."""
    if not pathlib.Path(s.python).exists():
        made = subprocess.run(
            [sys.executable, "-m", "venv", str(s.venv)], capture_output=True, text=True
        )
        if made.returncode:
            return {"venv": last_line(made.stdout + made.stderr)}
    have = set(pip(s, "freeze").stdout.lower().replace("_", "-").splitlines())
    failures = {}
    for package in pinned():
        if package in have:
            continue
        say(f"installing {package}")
        source = ["--no-binary", "llama-cpp-python"] if "llama" in package else []
        done = pip(s, "install", "--quiet", *source, package)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            failures[package] = errors[-1] if errors else last_line(done.stderr)
    return failures
