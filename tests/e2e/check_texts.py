#!/usr/bin/env python3
"""What texts and tokenizers look like in the wild, through the tools: names of files, pipes, rows,
raw ids, tokenizers that are not needed.

    check_texts.py --bin build/bin
"""

import argparse
import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from checks import check, verdict

STORY = "The miller saw the river rise.\nHe said nothing.\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    tools = parser.parse_args().bin.resolve()
    replay, capture = tools / "freqkv-replay", tools / "freqkv-capture"
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        model = work / "model"
        shutil.copytree("data/litbank-1m", model)

        def run(command, *arguments, stdin=None, folder=model):
            command = [*map(str, command), "--model", str(folder), *map(str, arguments)]
            return subprocess.run(command, capture_output=True, text=True, input=stdin)

        def tokens(*arguments, **options):
            done = run([replay, "tokens", "--quiet", "--json"], *arguments, **options)
            return json.loads(done.stdout) if done.returncode == 0 else done.stderr

        def put(name, text):
            path = work / name
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            return path

        plain = tokens("--text", put("story.txt", STORY))["documents"][0]["tokens"]

        def reads(name, *arguments, documents=(plain,), **options):
            found = tokens(*arguments, **options)
            good = isinstance(found, dict)
            check(name, good and [d["tokens"] for d in found["documents"]] == [*documents], found)

        row = json.dumps(dict(text=STORY)) + "\n"
        for name in ("wiki.test.raw", "README.md", "STORY.TXT"):
            reads(name, "--text", put(name, STORY))
        reads("other name", "--text", put("story", STORY), "--text-format", "text")
        reads("standard input", "--text", "-", stdin=STORY)
        reads("rows from it", "--text", "-", "--text-format", "jsonl", stdin=row)
        reads("byte order mark", "--text", put("bom.txt", "\ufeff" + STORY))
        reads(
            "its rows",
            "--text",
            put("bom.jsonl", "\ufeff" + row + "\r\n" + row),
            documents=[plain] * 2,
        )
        reads("NaN beside", "--text", put("nan.jsonl", '{"score": NaN, ' + row[1:]))
        reads("half a pair beside", "--text", put("half.jsonl", '{"a": "\\udcb2", ' + row[1:]))
        body = put("body.json", json.dumps(dict(text="no", body=STORY)))
        reads("field", "--text", body, "--text-field", "body")
        both = (row + row).encode()
        reads("gzip", "--text", put("story.txt.gz", gzip.compress(STORY.encode())))
        packed = put("rows.jsonl.gz", gzip.compress(row.encode()) + gzip.compress(row.encode()))
        reads("rows in gzip", "--text", packed, documents=[plain] * 2)
        cut = put("cut.txt.gz", gzip.compress(STORY.encode() * 99)[:-12])
        check("gzip cut short", "cut.txt.gz" in str(tokens("--text", cut)))
        if shutil.which("zstd"):
            done = subprocess.run(["zstd", "-c"], input=both, capture_output=True)
            packed = put("rows.jsonl.zst", done.stdout + done.stdout)
            reads("rows in zstd", "--text", packed, documents=[plain] * 4)
            cut = put("cut.jsonl.zst", done.stdout[:-3])
            check("zstd cut short", "cut.jsonl.zst" in str(tokens("--text", cut)))
        script = f'"{replay}" tokens --model "{model}" --quiet --text <(cat "{work}/story.txt")'
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
        check("pipe", done.stdout.split() == [str(i) for i in plain], done.stderr)
        done = run([capture, "--out", work / "c"], "--text", "-", stdin=STORY)
        check("capture of a pipe", done.returncode == 2 and "twice" in done.stderr, done.stderr)

        found = tokens("--text", put("holes.jsonl", row + '{"text": ""}\n' + row))
        check("empty row", found["notes"] == ["1 row is left out: empty or of one token"], found)
        found = tokens("--text", put("none.jsonl", '{"text": ""}\n'))
        check("empty rows only", "none.jsonl: no documents: 1 rows" in found, found)

        # Token ids without a tokenizer, with one that cannot be read, and shown as text.
        ids = put("ids.bin", np.array(plain * 8, "<u2").tobytes())
        begins = f"ids.bin begins with {' '.join(map(str, plain[:8]))}: "
        found = tokens("--token-ids", ids)
        check("ids as text", found["notes"][0].startswith(begins), found)
        bare = work / "bare"
        shutil.copytree(model, bare)
        for name in ("tokenizer.json", "tokenizer.model"):
            os.remove(bare / name)
        ppl = [replay, "ppl", "--json", "--threads", "1"]
        runs = [run(ppl, "--token-ids", ids, folder=folder) for folder in (model, bare)]
        with_one, without = (json.loads(done.stdout)["mean_nll"] for done in runs)
        check("no tokenizer", abs(with_one - without) < 1e-9, (with_one, without))
        check(
            "its ids",
            tokens("--token-ids", ids, folder=bare)["documents"][0]["tokens"] == plain * 8,
        )
        (bare / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
        done = run(ppl, "--token-ids", ids, folder=bare)
        note = "note: going on without a tokenizer: "
        check("unknown tokenizer", done.returncode == 0 and note in done.stderr, done.stderr)
        check("for a text", "--token-ids works without" in tokens("--text", body, folder=bare))

        # tokenizer.model alone; what tokenizer_config.json says.
        (bare / "tokenizer.json").unlink()
        shutil.copy(model / "tokenizer.model", bare)
        reads("tokenizer.model", "--text", work / "story.txt", folder=bare)
        (bare / "tokenizer_config.json").write_text('{"add_bos_token": false}')
        reads("no BOS", "--text", work / "story.txt", documents=[plain[1:]], folder=bare)
        shutil.copy(model / "tokenizer.json", bare)
        found = tokens("--text", work / "story.txt", folder=bare)
        check("disagreement", "tokenizer_config.json puts no BOS" in found["notes"][0], found)
    return verdict("texts")


if __name__ == "__main__":
    sys.exit(main())
