#!/usr/bin/env python3
"""The man pages against the tools: every key that --json prints and every key that a page names,
every option of --help, and one letter per option in all tools.

    check_manual.py --bin build/bin [--data data]

Keys stand in a page as the object itself, in literal displays that start with "{".
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from checks import check, verdict

TOP = pathlib.Path(__file__).resolve().parents[2]
COMMANDS = {
    "capture": [""],
    "analyze": [
        "spectrum",
        "error",
        "gamma",
        "impulse",
        "link",
        "compare",
        "plot",
        "merge",
        "report",
    ],
    "replay": [
        "ppl",
        "probe",
        "generate",
        "needle",
        "bench",
        "compare",
        "cost",
        "policies",
        "tokens",
    ],
}
# Options of every command, and of argp.
ALWAYS = {"help", "usage", "version"}


# ---- the pages ----


def shape(text):
    """The paths of keys in an object as a page shows it: {a, b: [{c}]} -> a, b, b.c."""
    paths, above, last = set(), [], ""
    for token in re.findall(r"\w+|[{}]", text):
        if token == "{":
            above.append(last + "." if last else "")
        elif token == "}":
            above.pop()
        else:
            last = above[-1] + token
            paths.add(last)
    return paths


class Page:
    """A page's options and shapes, by command; those outside of COMMANDS count for all."""

    def __init__(self, tool):
        source = (TOP / tool / f"freqkv-{tool}.1").read_text()
        parts = re.split(r"^\.S[sh] (.+)\n", source, flags=re.M)[1:]
        self.options, self.shapes, self.text = {"": set()}, {"": []}, source
        for title, text in zip(parts[::2], parts[1::2]):
            if title in ("SYNOPSIS", "EXAMPLES"):
                continue
            command = title if title in COMMANDS[tool] else ""
            self.options.setdefault(command, set())
            self.shapes.setdefault(command, [])
            options = re.findall(r"^\.It (Fl .*)", text, flags=re.M)
            for line in options:
                self.options[command] |= set(re.findall(r"Fl -([\w-]+)", line))
            displays = re.findall(r"^\.Bd -literal.*\n(\{[^\0]*?)^\.Ed", text, flags=re.M)
            self.shapes[command] += [shape(display) for display in displays]


# ---- what the tools print ----


def printed(value, above=""):
    """The paths of keys in a JSON value."""
    found = set()
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= {above + key} | printed(inner, above + key + ".")
    if isinstance(value, list):
        for inner in value:
            found |= printed(inner, above)
    return found


class Tools:
    def __init__(self, folder, work):
        self.folder, self.work = folder, work

    def run(self, command):
        words = command.split()
        done = subprocess.run(
            [self.folder / words[0], *words[1:]], cwd=self.work, capture_output=True, text=True
        )
        check(command, done.returncode == 0, done.stderr)
        return done.stdout

    def keys(self, command):
        try:
            return printed(json.loads(self.run(command + " --json")))
        except ValueError as error:
            check(command, False, error)
            return set()


def options_of(help_text):
    """{long name: letter or None} of a --help."""
    rest = re.sub(r"^Examples?:\n(?:.+\n)*", "", help_text, flags=re.M)
    rows = re.findall(r"^  (?:-(.), |    )--([\w-]+)", rest, flags=re.M)
    return {name: letter or None for letter, name in rows}


def letters(tools, pages):
    """An option has one letter, a letter one option; every option stands in the man page."""
    letter_of, option_of = {}, {}
    for tool, commands in COMMANDS.items():
        for command in commands:
            name = f"freqkv-{tool} {command}".strip()
            text = tools.run(name + " --help")
            check(f"{name} --help names its man page", f"man freqkv-{tool}" in text, text)
            check(f"{name} --help has no empty default", "(default )" not in text, text)
            example, options = text.find("Example"), text.find("--json")
            check(f"{name} --help leads with an example", 0 < example < options, text)
            for option, letter in options_of(text).items():
                letter_of.setdefault(option, letter)
                check(f"{name}: letter of --{option}", letter_of[option] == letter, letter)
                if letter:
                    option_of.setdefault(letter, option)
                    check(f"{name}: meaning of -{letter}", option_of[letter] == option, option)
                written = pages[tool].options[""] | pages[tool].options.get(command, set())
                check(f"{name}: --{option} in the man page", option in written, sorted(written))
                line = rf"^\.It Fl (?:{re.escape(letter or '')} , Fl )-{option}\b"
                if letter and option not in ALWAYS:
                    check(
                        f"{name}: -{letter} in the man page",
                        re.search(line, pages[tool].text, re.M),
                    )


def compare(page, command, found, plain=""):
    """`found`, sets of paths printed, are the shapes of the page. Each shape was printed in part by
    some run, and all of it by all runs together."""
    shapes = page.shapes.get(command, []) + (page.shapes[""] if command else [])
    union = [set() for _ in shapes]
    for keys in found:
        fit = [i for i, one in enumerate(shapes) if keys <= one]
        best = min(fit, key=lambda i: len(shapes[i])) if fit else None
        nearest = min((keys - one for one in shapes), key=len) if shapes else keys
        check(f"{plain}{command}: keys that the man page does not name", fit, sorted(nearest))
        if fit:
            union[best] |= keys
    for i in range(len(page.shapes.get(command, []))):
        missing = shapes[i] - union[i]
        check(f"{plain}{command}: keys that nothing prints", not missing, sorted(missing))


def run_all(t):
    """{(tool, command): [paths of keys]} of all commands over a few hundred tokens."""
    text = "--model data/litbank-1m --text a.txt b.txt"
    alone = f"freqkv-replay ppl {text} --policy freqkv --window 68 --tokens 200"
    ppl = f"{alone} --baseline full"
    probe = f"freqkv-replay probe {text} --prefix 64 --score 16 --filter 0:0.5"
    generate = "freqkv-replay generate --model data/litbank-1m --tokens 2"
    cut = "--out out --length 60"
    runs = {}

    def keep(tool, command, line):
        runs.setdefault((tool, command), []).append(t.keys(line))

    states = "--states key,value,query"
    keep("capture", "", f"freqkv-capture {text} --out cap {states} --max-tokens 512")
    keep("capture", "", f"freqkv-capture {text} --out none --dry-run")
    for options in ("", " --dry-run"):
        keep("analyze", "spectrum", f"freqkv-analyze spectrum cap {cut}{options}")
        keep("analyze", "error", f"freqkv-analyze error cap {cut} --bounds{options}")
        attention = "--budget 0.5 --objective attention"
        keep("analyze", "gamma", f"freqkv-analyze gamma cap {cut} {attention}{options}")
    keep("analyze", "gamma", f"freqkv-analyze gamma cap {cut} --energy 0.9 --mixed worst:0.5")
    keep("analyze", "impulse", "freqkv-analyze impulse --out impulse --window 64")
    keep("replay", "ppl", f"{ppl} --dry-run")
    keep("replay", "ppl", f"{ppl} --out one.h5")
    keep("replay", "ppl", f"{ppl} --sweep gamma=0.25:0.75:0.25 --out runs")
    linear = ppl.replace("freqkv --", "linear --")
    keep("replay", "ppl", f"{linear} --cache-quant q8")
    keep("replay", "ppl", f"{linear} --cache-quant q8 --sweep gamma=0.5")
    table = "--policy mixed --table out/policies.json --tokens 200 --window 64"
    keep("replay", "ppl", f"freqkv-replay ppl {text} {table}")
    keep("replay", "probe", f"{probe} --dry-run")
    keep("replay", "probe", f"{probe} --states key,value --per-head --out heads.h5")
    keep("replay", "generate", f"{generate} --prompt The")
    for options in (" --dry-run", ""):
        prompts = "--prompts prompts.jsonl --out continued.jsonl"
        keep("replay", "generate", f"{generate} {prompts}{options}")
    lines = (t.work / "continued.jsonl").read_text().splitlines()
    runs["replay", "generate"] += [printed(json.loads(line)) for line in lines]
    needle = f"freqkv-replay needle {text} --lengths 100 --depths 0.5 --passage 16"
    for options in (" --dry-run", " --out needle.csv", " --task recall"):
        keep("replay", "needle", f"{needle}{options}")
    for options in (" --dry-run", ""):
        keep(
            "replay", "bench", f"freqkv-replay bench --model data/litbank-1m --lengths 70{options}"
        )
    compare = f"freqkv-replay compare {text} --policies local,streaming --budget 64 --recall 1"
    for options in (" --dry-run", ""):
        keep("replay", "compare", f"{compare} --tokens 200 --out rivals{options}")
    keep("replay", "cost", "freqkv-replay cost --config data/litbank-1m")
    keep("replay", "policies", "freqkv-replay policies")
    keep("replay", "policies", "freqkv-replay policies snapkv")
    keep("replay", "tokens", f"freqkv-replay tokens {text}")
    points = " ".join(sorted(f"runs/{p.name}" for p in (t.work / "runs").iterdir()))
    for options in (" --dry-run", ""):
        link = f"--capture cap --runs {points} --probes heads.h5 --out link"
        keep("analyze", "link", f"freqkv-analyze link {link}{options}")
        keep("analyze", "merge", f"freqkv-analyze merge cap --out whole{options}")
    t.run(f"{alone} --out alone.h5")
    keep("analyze", "compare", "freqkv-analyze compare one.h5 alone.h5 --by class --out pair")
    keep("analyze", "plot", f"freqkv-analyze plot {points} alone.h5 heads.h5 --out out")
    keep("analyze", "report", "freqkv-analyze report out")
    return runs


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", required=True)
    p.add_argument("--data", default=TOP / "data")
    args = p.parse_args()
    data = pathlib.Path(args.data).resolve()
    pages = {tool: Page(tool) for tool in COMMANDS}
    with tempfile.TemporaryDirectory() as work:
        t = Tools(pathlib.Path(args.bin).resolve(), pathlib.Path(work))
        (t.work / "data").symlink_to(data)
        text = (data / "the_tide_mill.txt").read_text()
        (t.work / "a.txt").write_text(text[:4000])
        (t.work / "b.txt").write_text(text[-4000:])
        (t.work / "prompts.jsonl").write_text('{"prompt": "The", "id": 3}\n')
        letters(t, pages)
        for (tool, command), found in run_all(t).items():
            compare(pages[tool], command, found, f"freqkv-{tool} ")
    if shutil.which("mandoc"):
        for tool in COMMANDS:
            lint = ["mandoc", "-T", "lint", "-W", "warning", TOP / tool / f"freqkv-{tool}.1"]
            done = subprocess.run(lint, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            check(f"freqkv-{tool}.1", not done.stdout, done.stdout.decode())
    sys.exit(verdict("manual"))


if __name__ == "__main__":
    main()
