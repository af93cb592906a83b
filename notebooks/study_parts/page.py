"""The report: Markdown whose tables fit 100 columns, and the JSON of every number in it."""

import json
import os
import re
import sys

import numpy as np

WIDTH = 100


def milli(found):
    """An effect in thousandths of a nat, with its interval; from a hundred on without decimals."""
    if found is None or not np.isfinite(found[0]):
        return "-"
    digits = 0 if abs(found[0]) >= 0.1 else 1
    return "{:+.{d}f} [{:+.{d}f}, {:+.{d}f}]".format(*(1000 * x for x in found), d=digits)


def plain(found, digits=3):
    if found is None or not np.isfinite(found[0]):
        return "-"
    return f"{found[0]:.{digits}f} [{found[1]:.{digits}f}, {found[2]:.{digits}f}]"


def rounded(x, digits=3):
    return "-" if x is None or not np.isfinite(x) else f"{x:.{digits}f}"


class Page:
    """Lines of one model's part of the report, and `numbers`: what they hold, by question."""

    def __init__(self, folder, pictures):
        self.folder, self.pictures = folder, pictures
        self.lines, self.numbers = [], {}

    def heading(self, text, level=2):
        self.lines += ["", "#" * level + " " + text, ""]

    def paragraph(self, text):
        self.lines += [*wrap(text), ""]

    def table(self, title, head, rows, commands=()):
        """A table under its title; below it the lines that make it."""
        if not rows:
            self.paragraph(f"({title}: none of its steps is finished.)")
            return
        self.lines += [*wrap(title + "."), ""]
        for row in [head, ["---"] * len(head), *rows]:
            line = "| " + " | ".join(map(str, row)) + " |"
            if len(line) > WIDTH:
                print(f"report: {len(line)} columns: {line}", file=sys.stderr)
            self.lines.append(line)
        self.lines.append("")
        if commands:
            self.commands(commands)

    def commands(self, commands):
        self.lines.append("```")
        for command in commands:
            self.lines += broken(command)
        self.lines += ["```", ""]

    def figure(self, name, caption, draw):
        """draw(path) makes the PNG, or says False where there is nothing to draw."""
        path = os.path.join(self.pictures, name + ".png")
        os.makedirs(self.pictures, exist_ok=True)
        try:
            drawn = draw(path)
        except (ImportError, OSError) as error:
            self.paragraph(f"(Figure left out: {error}.)")
            return
        if drawn is not False:
            self.lines += [f"![{caption}](figures/{name}.png)", "", *wrap(f"*{caption}*"), ""]

    def keep(self, **numbers):
        self.numbers.update(numbers)


def wrap(text):
    """Lines of at most WIDTH columns."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return lines + [line] if line else lines


def broken(command):
    """A command over as many lines as it takes, each from an option on."""
    lines, line = [], ""
    for word in re.split(r" (?=-)", command):
        if line and len(line) + 3 + len(word) > WIDTH:
            lines.append(line + " \\")
            line = "    " + word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def save_json(path, numbers):
    def finite(x):
        if isinstance(x, (np.generic, np.ndarray)):
            x = x.tolist()
        if isinstance(x, dict):
            return {str(k): finite(v) for k, v in x.items()}
        if isinstance(x, (list, tuple)):
            return [finite(v) for v in x]
        return None if isinstance(x, float) and not np.isfinite(x) else x

    with open(path + ".new", "w") as f:
        json.dump(finite(numbers), f, indent=1, default=str)
    os.replace(path + ".new", path)
