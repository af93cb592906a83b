#!/usr/bin/env python3
"""The house stays in order: imports run only downwards, files of a room form no circles, and
libraries keep to their rooms.

    check_house.py            prints what is out of order; then its exit status is 1
"""

import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Which rooms a room may include, besides itself. capture/store is the part of capture that knows no
# engine.
BELOW = {
    "kernels": [],
    "capture/store": ["kernels"],
    "engine": ["kernels"],
    "capture": ["kernels", "engine", "capture/store"],
    "replay": ["kernels", "engine", "capture/store"],
    "analyze": ["kernels", "capture/store"],
}

# A library's header, and the only files that may include it.
ONLY = {
    "hdf5.h": r"capture/store/",
    "fftw3.h": r"kernels/dct/",
    "cblas.h": r"kernels/cpu/",
    "dnnl": r"kernels/cpu/gemm_onednn",
    "cuda": r"kernels/cuda/",
    "cairo": r"analyze/figure/",
}


# The public and the private half of one idea, in files that may know each other.
ONE_IDEA = [
    {"capture/store/probe", "capture/store/probe_changes"},
    {f"capture/store/{name}" for name in ("capture_writer", "folder", "schema", "writer")},
]


def sources():
    """Path -> text of every source file of the rooms, relative to the top."""
    found = {}
    for room in ("kernels", "engine", "capture", "replay", "analyze"):
        for folder, _, names in os.walk(os.path.join(TOP, room)):
            for name in names:
                if re.search(r"\.(c|h|cu|cuh)$", name):
                    path = os.path.join(folder, name)
                    with open(path, encoding="utf-8") as f:
                        found[os.path.relpath(path, TOP)] = f.read()
    return found


def room_of(path):
    """The room of a file or of an included path; None for a header of a library."""
    for room in sorted(BELOW, key=len, reverse=True):
        if path.startswith(room + "/"):
            return room
    return None


def circles(edges):
    """Strongly connected components of more than one node (Tarjan 1972)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = []
            while not part or part[-1] != node:
                part.append(stack.pop())
            if len(part) > 1:
                found.append(sorted(part))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def main():
    sys.setrecursionlimit(10000)
    wrong = []
    files = sources()
    edges = {}
    for path, text in files.items():
        node = os.path.splitext(path)[0]  # a header and its source are one idea
        edges.setdefault(node, set())
        for included in re.findall(r'^#include [<"]([^">]+)[">]', text, re.M):
            room = room_of(included)
            if room is None:
                for library, allowed in ONLY.items():
                    if os.path.basename(included).startswith(library):
                        if not re.match(allowed, path):
                            wrong.append(f"{path}: includes {included}, which only {allowed} may")
                continue
            own = room_of(path)
            if room != own and room not in BELOW[own]:
                wrong.append(f"{path}: includes {included}, but {own}/ stands below {room}/")
            other = os.path.splitext(included)[0]
            if other != node:
                edges[node].add(other)
                edges.setdefault(other, set())
    for circle in circles(edges):
        if set(circle) in ONE_IDEA:
            continue
        wrong.append("a circle of includes: " + ", ".join(circle))
    for line in wrong:
        print(line)
    print(f"{len(files)} files, {len(wrong)} things out of order")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
