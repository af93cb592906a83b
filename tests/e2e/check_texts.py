#!/usr/bin/env python3
"""What texts and tokenizers look like in the wild, through the tools: names of files, pipes, rows,
raw ids, tokenizers that are not needed.

    check_texts.py --bin build/bin
"""

import argparse
import bz2
import gzip
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

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
        nul = tokens("--text", put("nul.txt", "a\0b"))["documents"][0]["tokens"]

        def reads(name, *arguments, documents=(plain,), **options):
            found = tokens(*arguments, **options)
            good = isinstance(found, dict)
            check(name, good and [d["tokens"] for d in found["documents"]] == [*documents], found)

        row = json.dumps(dict(text=STORY)) + "\n"
        for name in ("wiki.test.raw", "README.md", "STORY.TXT"):
            reads(name, "--text", put(name, STORY))
        reads("other name", "--text", put("story", STORY), "--text-format", "text")
        reads("its other name", "--text", work / "story", "--text-format", "txt")
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
        check("empty rows only", "none.jsonl: no documents: of 1 rows" in found, found)

        # Encodings, types and rows that are not what they were taken for.
        def refuses(name, text, *words, option="--text", folder=model):
            found = tokens(option, put(name, text), folder=folder)
            good = isinstance(found, str) and all(word in found for word in words)
            check(name + " refused", good, found)

        refuses("none.jsonl", "", "no documents: the file has no rows")
        refuses("utf16.txt", STORY.encode("utf-16"), "expected UTF-8, found UTF-16 (iconv")
        refuses("no-mark.txt", STORY.encode("utf-16-le"), "found UTF-16LE")
        refuses("no-mark-be.txt", STORY.encode("utf-16-be"), "found UTF-16BE")
        refuses("utf32.txt", STORY.encode("utf-32"), "found UTF-32")
        refuses("utf16.jsonl", row.encode("utf-16"), "utf16.jsonl: expected UTF-8, found UTF-16")
        refuses("twice.txt.gz", gzip.compress(gzip.compress(STORY.encode())), "gzip archive")
        refuses("named.txt", bz2.compress(STORY.encode()), "found a bzip2 archive")
        refuses("story.txt.xz", b"\xfd7zXZ\0", "xz -dc FILE | ... --text -")
        refuses("rows.parquet", b"PAR1", "texts_from_parquet")
        refuses("cut.jsonl.gz", gzip.compress(both * 99)[:100], "damaged or cut short")
        refuses("list.json", json.dumps([dict(text=STORY)] * 2, indent=1), "jq -c '.[]'")
        refuses("pretty.json", json.dumps(dict(text=STORY), indent=1), "jq -c .")
        refuses("array.json", json.dumps([dict(text=STORY)]), "found a list of them")
        refuses("half.jsonl", '{"text": "a \\udcb2 b"}\n', "half.jsonl:1", "surrogate pair")
        refuses("two.jsonl", row.strip() + row, "two.jsonl:1", "end of the row")
        refuses("second.jsonl", row + '{"id": 3}\n', "second.jsonl:2", "--text-field")
        refuses("mark.txt", b"\xef\xbb\xbf", "the text is empty")
        found = tokens("--text", "-", stdin=row)
        check("rows from standard input unasked", "--text-format jsonl" in str(found), found)
        reads("nul", "--text", put("nul.jsonl", '{"text": "a\\u0000b"}'), documents=(nul,))
        reads("1e400 beside", "--text", put("large.jsonl", '{"p": 1e400, ' + row[1:]))
        reads(
            "400 digits beside", "--text", put("digits.jsonl", '{"p": %s, ' % ("9" * 400) + row[1:])
        )
        reads("a name twice", "--text", put("twice.jsonl", '{"text": "no", ' + row[1:]))
        reads("no UTF-8 beside", "--text", put("latin.jsonl", b'{"p": "\xff", ' + row[1:].encode()))
        reads("a text deeper", "--text", put("deep.jsonl", '{"p": {"text": "no"}, ' + row[1:]))
        reads("null row", "--text", put("null.jsonl", '{"text": null}\n\r\n \n' + row))
        long = put("long.jsonl", '{"p": "%s", ' % ("x" * (20 << 20)) + row[1:])
        reads("a line of 20 MB", "--text", long)
        reads(
            "zeros behind gzip",
            "--text",
            put("z.txt.gz", gzip.compress(STORY.encode()) + b"\0" * 512),
        )
        if shutil.which("zstd"):
            long = subprocess.run(["zstd", "-c", "--long=31"], input=both, capture_output=True)
            reads(
                "zstd of a long window",
                "--text",
                put("w.jsonl.zst", long.stdout),
                documents=[plain] * 2,
            )
            skipped = b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + long.stdout
            reads("a skipped frame", "--text", put("s.jsonl.zst", skipped), documents=[plain] * 2)
        os.mkfifo(work / "fifo.jsonl")
        feeder = threading.Thread(target=(work / "fifo.jsonl").write_text, args=(row,))
        feeder.start()
        reads("a fifo", "--text", work / "fifo.jsonl")
        feeder.join()
        folder = work / "folder"
        (folder / "below.txt").mkdir(parents=True)
        for name in ("b.TXT", "a.txt", "._a.txt", "c.md", "new\nline.txt", "per%s%n'\".txt"):
            (folder / name).write_text(STORY)
        os.symlink(work / "story.txt", folder / "link.txt")
        reads("a folder", "--text", folder, documents=[plain] * 5)
        strange = os.path.join(os.fsencode(work), b"no-utf8-\xff.txt")
        shutil.copy(work / "story.txt", strange)
        done = subprocess.run(
            [replay, "tokens", "--model", model, "--quiet", "--json", "--text", strange],
            capture_output=True,
        )
        named = json.loads(done.stdout)["documents"][0] if done.returncode == 0 else {}
        check("a name that is not UTF-8", named.get("tokens") == plain, done.stderr)

        # Token ids without a tokenizer, with one that cannot be read, and shown as text.
        ids = put("ids.bin", np.array(plain * 8, "<u2").tobytes())
        begins = f"ids.bin begins with {' '.join(map(str, plain[:8]))}: "
        found = tokens("--token-ids", ids)
        check("ids as text", found["notes"][0].startswith(begins), found)
        found = tokens("--token-ids", put("torn.bin", np.array([2000, 9, 130, 7], "<u2").tobytes()))
        check(
            "bytes of half a character", "torn.bin begins with 2000 9" in found["notes"][0], found
        )
        many, packed = np.array(plain * 20), io.BytesIO()
        np.savez(packed, ids=many)
        for name, data, word in (
            ("ids.npz", packed.getvalue(), "a zip archive"),
            ("zip.npy", packed.getvalue(), "a zip archive"),
            ("ids.npy.gz", gzip.compress(many.tobytes()), "a gzip archive"),
            ("text.bin", STORY, "text: --text reads it"),
            ("text.json", json.dumps(many.tolist()), "text: --text reads it"),
            ("model.safetensors", (model / "model.safetensors").read_bytes()[:4000], "safetensors"),
            ("part-0.npy", many.astype("<u2").tobytes(), "name it .bin"),
            ("u4.bin", many.astype("<u4").tobytes(), "--token-dtype uint32"),
            ("i8.bin", many.astype("<i8").tobytes(), "8 bytes: save them as .npy"),
            ("swapped.bin", many.astype(">u2").tobytes(), "highest byte first"),
            ("speedrun.bin", b"\x88\xd8\x34\x01" + many.astype("<u2").tobytes(), "llm.c"),
            ("beyond.bin", np.array([1, 2, 4000], "<u2").tobytes(), "vocabulary of 2048"),
        ):
            refuses(name, data, word, option="--token-ids")
        for array, word in (
            (many.reshape(2, -1), "one dimension"),
            (np.asfortranarray(many.reshape(2, -1)), "one dimension"),
            (many > 3, "integers"),
            (many.astype("f4"), "integers"),
            (-many, "no token id"),
            (many.astype(object), "integers"),
        ):
            saved = io.BytesIO()
            np.save(saved, array)
            refuses("array.npy", saved.getvalue(), word, option="--token-ids")
        for kind in ("<i2", ">i4", "<u8"):
            np.save(work / "kind.npy", many.astype(kind))
            reads("npy of " + kind, "--token-ids", work / "kind.npy", documents=[plain * 20])
        # FreqKV's own corpora (pg19, proof-pile): headerless uint16, one flat file.
        flat = put("pg19.bin", np.tile(np.array(plain, "<u2"), 60).tobytes())
        done = run(
            [replay, "ppl", "--json", "--tokens", "1024", "--window", "512", "--policy", "freqkv"],
            "--token-ids",
            flat,
            "--protocol",
            "stride:256",
        )
        result = json.loads(done.stdout) if done.returncode == 0 else {}
        check(
            "pg19",
            result.get("protocol") == "stride:256" and result["tokens_scored"] > 0,
            done.stderr,
        )
        large = work / "large"
        shutil.copytree(model, large)
        config = json.loads((model / "config.json").read_text()) | dict(vocab_size=128256)
        (large / "config.json").write_text(json.dumps(config))
        found = tokens("--token-ids", ids, folder=large)
        check("dtype is missing", "--token-dtype is missing: uint32" in found, found)
        found = tokens("--token-ids", ids, "--token-dtype", "uint16", folder=large)
        check("dtype is given", found["documents"][0]["tokens"] == plain * 8, found)

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
