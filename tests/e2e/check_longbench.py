#!/usr/bin/env python3
"""notebooks/longbench.py and freqkv-replay generate on files in the form of LongBench's and of
RULER's: from data to what the official scorers read, with a chat template, a cut middle and stop
strings.

    check_longbench.py --bin build/bin [--model data/litbank-1m]

The data, the prompts and the lengths are made here; the fields are those of LongBench's README and
pred.py, and of RULER's call_api.py.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from checks import check, verdict

TOP = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = TOP / "notebooks" / "longbench.py"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}\n{% endfor %}[bot]"
)
PROMPTS = {"qasper": "Read. {context} {{braces}} Q: {input} A:", "trec": "{context}\n{input}"}
LENGTHS = {"qasper": 6, "trec": 4}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def longbench_rows(dataset, story, classes):
    return [
        {
            "input": f"Who is number {i} \u201cthere\u201d?",
            "context": story[100 * i : 100 * i + 900],
            "answers": ["the miller", f"nobody {i}"],
            "length": 170 + i,
            "dataset": dataset,
            "language": "en",
            "all_classes": classes,
            "_id": f"{i:032x}",
        }
        for i in range(3)
    ]


def ruler_rows(story):
    return [
        {
            "index": 10 + i,
            "input": f"A number is hidden. {story[:300]} Which one?",
            "outputs": ["1234567"],
            "length": 99,
            "answer_prefix": " The number is",
        }
        for i in range(2)
    ]


def check_prompts(rows, data):
    found = {row["id"]: row for row in rows}
    check("a prompt for every row", len(found) == len(rows) == 8, rows)
    first = data["qasper"][0]
    expected = f"Read. {first['context']} {{braces}} Q: {first['input']} A:"
    check("LongBench's prompt", found["qasper/0"]["prompt"] == expected, found["qasper/0"])
    check("its length", found["trec/2"]["max_tokens"] == 4, found["trec/2"])
    check("a chat, but not on trec", found["qasper/0"]["chat"] and not found["trec/0"]["chat"])
    niah = found["niah_single_1/1"]
    check("RULER's tokens", niah["max_tokens"] == 128 and niah["chat"], niah)
    check("RULER's answer prefix", niah["answer_prefix"] == " The number is", niah)


def check_outputs(rows, prompts, tokens):
    for row, prompt in zip(rows, prompts):
        chat, text = prompt["chat"], row["prompt"]
        check(f"{row['id']}: template", text.startswith("<s>[user] ") == chat, text[:80])
        check(f"{row['id']}: end", row["tokens"] <= prompt["max_tokens"], row)
        end = ("[bot]" if chat else "") + prompt.get("answer_prefix", "")
        check(f"{row['id']}: what stands last", text.endswith(end), text[-80:])
        # halves, encoded again and with the template around them
        check(f"{row['id']}: middle", row["prompt_tokens"] <= tokens + 40, row["prompt_tokens"])
        kept = prompt["prompt"].strip()
        check(f"{row['id']}: ends stay", kept[:20] in text and kept[-20:] in text, text)
        check(f"{row['id']}: is cut", kept not in text, text)


def check_preds(folder, data, texts):
    for task, scored in (("qasper", True), ("trec", True), ("niah_single_1", False)):
        rows = read(folder / f"{task}.jsonl")
        check(f"{task}: a prediction for every row", len(rows) == len(data[task]), rows)
        for number, (row, given) in enumerate(zip(rows, data[task])):
            text = texts[f"{task}/{number}"]
            if scored:  # as eval.py reads them
                expected = {"pred": text} | {
                    k: given[k] for k in ("answers", "all_classes", "length")
                }
            else:  # as call_api.py writes them and evaluate.py reads them
                expected = {
                    "index": given["index"],
                    "pred": text,
                    "input": given["input"] + given["answer_prefix"],
                    "outputs": given["outputs"],
                    "others": {},
                    "truncation": -1,
                    "length": given["length"],
                }
            check(f"{task}/{number}: fields", row == expected, row)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, default=TOP / "data" / "litbank-1m")
    args = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="fkv-longbench-"))
    story = (TOP / "data" / "the_tide_mill.txt").read_text(encoding="utf-8")
    model = work / "model"
    shutil.copytree(args.model, model)
    (model / "chat_template.jinja").write_text(TEMPLATE)
    (model / "special_tokens_map.json").write_text('{"bos_token": "<s>"}')
    data = {
        "qasper": longbench_rows("qasper", story, None),
        "trec": longbench_rows("trec", story, ["Food", "Date"]),
        "niah_single_1": ruler_rows(story),
    }
    files = [
        write(work / "data" / "qasper_e.jsonl", data["qasper"]),
        write(work / "data" / "trec.jsonl", data["trec"]),
        write(work / "ruler" / "niah_single_1" / "validation.jsonl", data["niah_single_1"]),
    ]
    (work / "dataset2prompt.json").write_text(json.dumps(PROMPTS))
    (work / "dataset2maxlen.json").write_text(json.dumps(LENGTHS))
    inputs, outputs = work / "in.jsonl", work / "out.jsonl"
    python = (sys.executable, SCRIPT)
    done = run(*python, "prompts", *files, "--config", work, "--out", inputs, "--chat")
    check("prompts", done.returncode == 0, done.stderr)
    prompts = read(inputs)
    check_prompts(prompts, data)
    generate = (args.bin / "freqkv-replay", "generate", "--model", model, "--quiet")
    options = ("--truncate", "middle:60", "--stop", "the", "--batch", 3)
    done = run(*generate, "--prompts", inputs, "--out", outputs, *options)
    check("generate", done.returncode == 0, done.stderr)
    rows = read(outputs)
    check_outputs(rows, prompts, 60)
    check("stop strings", all("the" not in row["text"] for row in rows), rows)
    check("one stopped", any(row["stopped"] == "stop" for row in rows), rows)
    done = run(*python, "preds", *files, "--outputs", outputs, "--out", work / "pred")
    check("preds", done.returncode == 0, done.stderr)
    check_preds(work / "pred", data, {row["id"]: row["text"] for row in rows})
    write(outputs, rows[1:])
    done = run(*python, "preds", *files, "--outputs", outputs, "--out", work / "pred")
    check("a missing line is named", "expected a line for qasper/0" in done.stderr, done.stderr)
    done = run(*python, "prompts", files[0], "--out", inputs)
    check("LongBench needs --config", "need --config" in done.stderr, done.stderr)
    for option, said in (
        ("--truncate=left:9", "expected middle:TOKENS"),
        ("--stop=", "found an empty one"),
        ("--date=2026-13-01", "expected YYYY-MM-DD"),
        ("--date=2026-02-30", "expected YYYY-MM-DD"),
        ("--date=2026-02-28", "expected --chat, too"),
        ("--chat-set=a=b", "expected --chat, too"),
        ("--chat-set=x", "expected NAME=VALUE"),
    ):
        done = run(*generate, "--prompt", "a", option)
        check(f"{option} is refused", done.returncode == 2 and said in done.stderr, done.stderr)
    shutil.rmtree(work)
    return verdict("LongBench and RULER")


if __name__ == "__main__":
    sys.exit(main())
