"""What a run of the benchmarks is told, and the environment of its processes."""

import os
import pathlib
from dataclasses import dataclass

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# Instruction set -> what caps each library that takes part: ours, oneDNN, ATen, MKL
CAPS = {
    "avx512": {
        "FKV_MAX_ISA": "avx512_bf16",
        "DNNL_MAX_CPU_ISA": "AVX512_CORE_FP16",  # everything but AMX
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
    "avx2": {
        "FKV_MAX_ISA": "avx2",
        "DNNL_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
}


@dataclass
class Settings:
    bin: pathlib.Path  # the three tools
    bench: pathlib.Path  # the C benchmarks of the same build
    venv: pathlib.Path
    models: pathlib.Path
    text: pathlib.Path  # of ids and prompts
    threads: int
    repeats: int
    patience: float  # seconds; no further turn of a row starts after
    wait: float  # seconds at most before a run, for the machine to be idle
    isa: str | None  # cap of the instruction set
    lock: pathlib.Path | None
    only: list[str]
    out: pathlib.Path  # without its suffix

    @property
    def python(self) -> str:
        return str(self.venv / "bin" / "python")

    def script(self, name: str) -> list[str]:
        """A Python program of this folder, in the venv."""
        return [self.python, str(HERE / name)]

    def environment(self) -> dict[str, str]:
        return os.environ | (CAPS[self.isa] if self.isa else {})
