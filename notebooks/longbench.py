#!/usr/bin/env python3
"""LongBench and RULER through `freqkv-replay generate`: their files into prompts, and what was
generated into the files that their official scorers read.

    longbench.py prompts DATA.jsonl... --out IN.jsonl [--config LongBench/config] [--chat]
    freqkv-replay generate --model MODEL --prompts IN.jsonl --out OUT.jsonl \\
        --truncate middle:3500 --policy freqkv --window 2048
    longbench.py preds DATA.jsonl... --outputs OUT.jsonl --out FOLDER

DATA.jsonl is LongBench's (fields context, input, answers, length, dataset, all_classes; one file
per task, from its data.zip) or RULER's (index, input, outputs; DATA_DIR/TASK/validation.jsonl, of
which the folder's name is the task). Standard library only. Tried on files of their form
(tests/e2e/check_longbench.py).

LongBench: prompts and numbers of tokens come from --config, the folder LongBench/config of the
official repository (THUDM/LongBench): dataset2prompt.json and dataset2maxlen.json. FOLDER gets
TASK.jsonl with pred, answers, all_classes and length: put it at pred/MODEL (pred_e/MODEL) of the
repository and run eval.py. RULER (NVIDIA/RULER): FOLDER gets TASK.jsonl with index, pred, input,
outputs, others, truncation and length, for scripts/eval/evaluate.py --data_dir FOLDER.

With --chat, prompts are a user's message in the model's chat template, as LongBench's pred.py does
it, and not on the tasks where it does not (trec, triviaqa, samsum, lsht, lcc, repobench-p). RULER's
data must then be made with --model_template_type base; its answer prefix stands behind the
template. A thinking model needs `--chat-set enable_thinking=false`.

Where results differ from the official ones:
  LongBench  Its pred.py wraps prompts of llama2 in [INST] [/INST] alone; a template also has what
             stands before and after (`<s>`, a system message of its own). On samsum it never begins
             with a line's end and stops at the next; here generation goes on, and eval.py scores
             the first line of both. Halves are decoded without transformers' clean-up of spaces.
  RULER      Generation is greedy here; call_api.py takes a temperature (config_models.sh: 0).
And from others who run these tasks:
  lm-eval    truncates long prompts at the left and keeps the end (max_length - max_gen_toks tokens)
             where LongBench cuts the middle; adds BOS only for some models; stops at the strings
             `until` of a task besides EOS: give them as "stop".
  kvpress    compresses the context alone and appends the question afterwards, so that its presses
             do not see it, and compresses once, before the first answer. Here the whole prompt is
             one prefill block: a policy that looks at queries (snapkv, pyramidkv, h2o) sees the
             question. Compare with kvpress' query_aware=True. It truncates the context at the
             right, lets LongBench generate 20 tokens more, and always uses the chat template.
"""

import argparse
import json
import pathlib
import sys

# Tasks of LongBench on which pred.py uses no chat format.
PLAIN = {"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"}
# Tokens that RULER lets a task generate (scripts/data/synthetic/constants.py), by the first part of
# the task's name.
RULER_TOKENS = {"niah": 128, "vt": 30, "cwe": 120, "fwe": 50, "qa": 32}


def rows_of(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


class Task:
    """A file of one task."""

    def __init__(self, path):
        path = pathlib.Path(path)
        self.path, self.rows = path, rows_of(path)
        if not self.rows:
            sys.exit(f"{path}: expected rows, found none")
        self.ruler = "outputs" in self.rows[0]
        if self.ruler:
            self.name = path.parent.name if path.stem in ("validation", "test") else path.stem
        else:
            self.name = self.rows[0].get("dataset", path.stem).removesuffix("_e")
        need = ("index", "input") if self.ruler else ("context", "input", "answers", "length")
        for number, row in enumerate(self.rows, 1):
            for field in need:
                if field not in row:
                    sys.exit(f'{path}:{number}: expected a field "{field}", found none')

    def id(self, number):
        return f"{self.name}/{number}"

    def prompt(self, row, config, chat):
        """A row of IN.jsonl without its id."""
        if self.ruler:
            tokens = RULER_TOKENS.get(self.name.split("_")[0])
            if not tokens:
                sys.exit(f"{self.path}: expected a task of RULER, found {self.name}")
            prefix = row.get("answer_prefix", "")
            made = {"prompt": row["input"], "max_tokens": tokens, "chat": chat}
            return made | ({"answer_prefix": prefix} if prefix else {})
        prompts, lengths = config
        if self.name not in prompts or self.name not in lengths:
            sys.exit(f"{self.path}: expected a task of --config, found {self.name}")
        return {
            "prompt": prompts[self.name].format(**row),
            "max_tokens": lengths[self.name],
            "chat": chat and self.name not in PLAIN,
        }

    def prediction(self, row, text):
        """What the official scorer reads."""
        if self.ruler:
            return {
                "index": row["index"],
                "pred": text,
                "input": row["input"] + row.get("answer_prefix", ""),
                "outputs": row["outputs"],
                "others": row.get("others", {}),
                "truncation": row.get("truncation", -1),
                "length": row.get("length", -1),
            }
        fields = {"answers": row["answers"], "all_classes": row.get("all_classes")}
        return {"pred": text, **fields, "length": row["length"]}


def read_config(folder, tasks):
    if all(task.ruler for task in tasks):
        return None
    if not folder:
        sys.exit("LongBench's data need --config, the folder LongBench/config of its repository")
    return [
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("dataset2prompt.json", "dataset2maxlen.json")
    ]


def write_lines(path, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def make_prompts(args, tasks):
    config = read_config(args.config, tasks)
    rows = [
        {"id": task.id(number)} | task.prompt(row, config, args.chat)
        for task in tasks
        for number, row in enumerate(task.rows)
    ]
    write_lines(args.out, rows)
    print(f"{args.out}: {len(rows)} prompts of {len(tasks)} tasks")


def make_preds(args, tasks):
    texts = {}
    for line in rows_of(args.outputs):
        if line.get("id") in texts:
            sys.exit(f"{args.outputs}: expected one line for each id, found two of {line['id']}")
        texts[line.get("id")] = line["text"] or ""
    args.out.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        ids = [task.id(number) for number in range(len(task.rows))]
        missing = [i for i in ids if i not in texts]
        if missing:
            sys.exit(f"{args.outputs}: expected a line for {missing[0]}, found none")
        made = [task.prediction(row, texts[i]) for row, i in zip(task.rows, ids)]
        write_lines(args.out / f"{task.name}.jsonl", made)
        print(f"{args.out / task.name}.jsonl: {len(made)} predictions")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="prompts|preds")
    prompts = commands.add_parser("prompts", help="DATA.jsonl -> IN.jsonl")
    prompts.add_argument("data", nargs="+", metavar="DATA.jsonl")
    prompts.add_argument("--out", type=pathlib.Path, required=True, metavar="IN.jsonl")
    prompts.add_argument("--config", type=pathlib.Path, help="LongBench/config of its repository")
    prompts.add_argument("--chat", action="store_true", help="use the model's chat template")
    prompts.set_defaults(run=make_prompts)
    preds = commands.add_parser("preds", help="DATA.jsonl and OUT.jsonl -> files to score")
    preds.add_argument("data", nargs="+", metavar="DATA.jsonl")
    preds.add_argument("--outputs", type=pathlib.Path, required=True, metavar="OUT.jsonl")
    preds.add_argument("--out", type=pathlib.Path, required=True, metavar="FOLDER")
    preds.set_defaults(run=make_preds)
    args = parser.parse_args()
    tasks = [Task(path) for path in args.data]
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        sys.exit(f"expected one file for each task, found two of {max(names, key=names.count)}")
    args.run(args, tasks)


if __name__ == "__main__":
    main()
