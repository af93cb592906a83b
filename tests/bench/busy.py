"""How many cores other programs use, from Linux's own counts."""

import os
import pathlib
import time

IDLE = 0.15  # cores


def busy_seconds() -> float:
    """Of all cores since the start of the machine: everything but idle and waiting for disks."""
    counts = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _idle, _wait, irq, softirq, _steal = map(int, counts)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Of this process and its children that have ended."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


class Others:
    """Counts from its making on."""

    def __init__(self) -> None:
        self.started, self.before = time.perf_counter(), busy_seconds() - own_seconds()

    def cores(self) -> float:
        seconds = busy_seconds() - own_seconds() - self.before
        return max(0.0, seconds / (time.perf_counter() - self.started))


def wait_until_idle(most: float) -> None:
    """At most `most` seconds."""
    end = time.perf_counter() + most
    while time.perf_counter() < end:
        others = Others()
        time.sleep(0.5)
        if others.cores() < IDLE:
            return
