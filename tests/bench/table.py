"""The measured rows as Markdown and as JSON."""

import json
import os
import pathlib
from dataclasses import asdict, dataclass, field

from busy import IDLE
from rows import Limits, Row
from settings import Settings
from turns import Outcome, Result


@dataclass
class Measured:
    row: Row
    ours: Outcome
    rivals: list[Outcome]
    limit: float | None
    limit_failure: str
    checked: Result = field(default_factory=dict)

    def times_as_fast(self, other: float | None) -> float | None:
        """Ours over `other`: above 1 where ours is faster."""
        if not (self.ours.median and other):
            return None
        ratio = self.ours.median / other
        return ratio if self.row.more_is_better else 1 / ratio

    @property
    def ratio(self) -> float | None:
        """To the best rival."""
        values = [o.median for o in self.rivals if o.median]
        best = max if self.row.more_is_better else min
        return self.times_as_fast(best(values)) if values else None


def number(x: float | None) -> str:
    if x is None:
        return "-"
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown processor"


def special_instructions() -> str:
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return ", ".join(name for name in wanted if name in flags) or "none of " + ", ".join(wanted)


def machine(s: Settings) -> dict:
    return {
        "processor": processor(),
        "instruction_sets": special_instructions(),
        "capped_at": s.isa,
        "cores": len(os.sched_getaffinity(0)),
        "threads": s.threads,
        "repeats": s.repeats,
        "tools": str(s.bin),
    }


def row_line(m: Measured) -> str:
    rivals = "; ".join(f"{o.name} {number(o.median)}" for o in m.rivals) or "-"
    share = m.times_as_fast(m.limit)
    limit = f"{m.row.limit_name} {number(m.limit)}: {number(share)}" if m.limit else "-"
    ratio = f"{m.ratio:.2f}" if m.ratio else "-"
    if m.ratio and m.checked.get("same") is False:
        ratio += " (not the same work)"
    cells = (m.row.what, m.row.unit, number(m.ours.median), rivals, ratio, limit, m.row.goal or "-")
    return "| " + " | ".join(cells) + " |"


def notes(m: Measured) -> list[str]:
    said = [f"{o.name} left out: {o.failure}" for o in (m.ours, *m.rivals) if o.failure]
    if m.limit_failure:
        said.append(f"limit left out: {m.limit_failure}")
    if m.checked.get("note"):
        said.append(m.checked["note"])
    others = [cores for o in (m.ours, *m.rivals) for cores in o.others]
    if others and max(others) > IDLE:
        said.append(f"other programs used up to {max(others):.1f} cores meanwhile")
    return [f"- {m.row.key}: {'. '.join(said)}"] if said else []


def markdown(s: Settings, limits: Limits, measured: list[Measured], failures: dict) -> str:
    facts = machine(s)
    cap = f", capped at {s.isa}" if s.isa else ""
    lines = [
        f"{facts['processor']} ({facts['instruction_sets']}{cap}), {s.threads} threads;"
        f" medians of up to {s.repeats} runs in turns.",
        "",
        "| what | unit | ours | rivals | ours over the best | limit: our share of it | goal |",
        "|---|---|---|---|---|---|---|",
        *map(row_line, measured),
        "",
        "Limits: " + ", ".join(f"{k} {number(v)}" for k, v in limits.items()) + "."
        " Products in Gflop/s, read and copy in GB/s, by torch.",
        "",
    ]
    lines += [f"- {package} not installed: {why}" for package, why in failures.items()]
    for m in measured:
        lines += notes(m)
    return "\n".join(lines) + "\n"


def as_json(s: Settings, limits: Limits, measured: list[Measured], failures: dict) -> str:
    rows = [
        {
            "key": m.row.key,
            "what": m.row.what,
            "unit": m.row.unit,
            "more_is_better": m.row.more_is_better,
            "goal": m.row.goal,
            "ours": asdict(m.ours) | {"median": m.ours.median},
            "rivals": [asdict(o) | {"median": o.median} for o in m.rivals],
            "ratio": m.ratio,
            "limit": m.limit,
            "limit_name": m.row.limit_name,
            "checked": m.checked,
        }
        for m in measured
    ]
    whole = {"machine": machine(s), "limits": limits, "not_installed": failures, "rows": rows}
    return json.dumps(whole, indent=1) + "\n"
