#!/usr/bin/env python3
"""Chat templates of real models against jinja2, set up as transformers sets it up.

    check_templates.py --render build/release/tests/render_template PATH...

PATH is a .jinja file, a tokenizer_config.json, or a folder in which both are looked for, deep down:
the hub's cache, models/templates of llama.cpp, ... Each template renders conversations of one to
five messages, with and without what starts an answer, with thinking left open and off. Where jinja2
takes one and ours refuses it, that is printed and counted: it is outside of what ours reads. A text
that differs, or one where jinja2 refuses, is an error. Skips without jinja2.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "golden"))
import make_templates  # noqa: E402


def sources(path):
    """(name, template) of all templates at a path."""
    if path.is_dir():
        names = ("*.jinja", "tokenizer_config.json")
        for name in names:
            for inner in sorted(path.rglob(name)):
                yield from sources(inner)
    elif path.suffix == ".json":
        field = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
        if isinstance(field, str):
            yield str(path), field
        for one in field if isinstance(field, list) else []:
            yield f"{path} {one['name']}", one["template"]
    else:
        yield str(path), path.read_text(encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--render", required=True)
    parser.add_argument("paths", nargs="+", type=pathlib.Path, metavar="PATH")
    args = parser.parse_args()
    try:
        jinja = make_templates.environment()
    except ImportError as error:
        print(f"skipped: {error}")
        return 0
    chats = list(make_templates.chats())
    found = {source: name for path in args.paths for name, source in sources(path)}
    tasks = [(name, source, chat) for source, name in found.items() for chat in chats]
    asked = "".join(
        json.dumps({"template": s, "variables": c, "date": make_templates.DATE}) + "\n"
        for _, s, c in tasks
    )
    done = subprocess.run([args.render], input=asked, capture_output=True, text=True, check=True)
    counts, outside, rendered = collections.Counter(), set(), set()
    for (name, source, chat), line in zip(tasks, done.stdout.splitlines(), strict=True):
        ours, theirs = json.loads(line), make_templates.render(jinja, source, chat)
        if "text" in ours and ours["text"] == theirs:
            counts["equal"] += 1
            rendered.add(name)
        elif "text" in ours:
            counts["different"] += 1
            print(f"DIFFERENT {name}: {chat['messages']}\n  {theirs!r}\n  {ours['text']!r}")
        elif theirs is None:
            counts["refused by both"] += 1
        else:
            counts["outside"] += 1
            outside.add((name, ours["error"]))
    for name, error in sorted(outside):
        print(f"outside {name}: {error}")
    print(
        f"{len(found)} templates: {counts['equal']} renderings equal jinja2's"
        f" ({len(rendered)} templates), {counts['different']} differ, {counts['refused by both']}"
        f" are refused by both, {counts['outside']} by ours alone"
    )
    return int(counts["different"] > 0 or not rendered)


if __name__ == "__main__":
    sys.exit(main())
