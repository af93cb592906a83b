#!/usr/bin/env python3
"""Token ids of `freqkv-replay tokens` against Hugging Face `tokenizers`, on small tokenizer.json
files of every kind and texts made to be difficult; and against `sentencepiece` on tokenizer.model.
Both also as the metadata of a GGUF file, written by the package gguf.

    check_tokenizers.py --bin build/bin [--texts 2000] [--seed 1] [--only WORD] [--folder DIR]
    check_tokenizers.py --write tests/golden/tokenizer/steps.json --texts 12

What needs a package that is not installed is left out: the unit tests compare with stored results,
which --write makes. --folder compares on a tokenizer.json that is there instead.
"""

import argparse
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile

try:
    import gguf
except ImportError:
    gguf = None
try:
    import sentencepiece
except ImportError:
    sentencepiece = None
try:
    import tokenizers
except ImportError:
    tokenizers = None

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
)
QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = re.compile("</?s>|<unk>")
BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
BYTES = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)


def split(regex, behavior="Isolated", invert=False, kind="Regex"):
    return dict(type="Split", pattern={kind: regex}, behavior=behavior, invert=invert)


def sequence(*steps, name="pretokenizers"):
    return {"type": "Sequence", name: list(steps)}


def metaspace(scheme, cut=True):
    return dict(type="Metaspace", replacement="▁", prepend_scheme=scheme, split=cut)


def replace(string, content, kind="String"):
    return dict(type="Replace", pattern={kind: string}, content=content)


def byte_kinds():
    """Pre-tokenizers before bytes: name -> list of steps."""
    yield "bytes", [BYTES]
    yield "gpt2", [BYTES | dict(use_regex=True)]
    yield "gpt2-prefix", [BYTES | dict(use_regex=True, add_prefix_space=True)]
    for name, regex in dict(
        llama3=LLAMA3, tekken=TEKKEN, o200k=O200K, qwen35=QWEN35, cl100k=CL100K, deepseek=DEEPSEEK
    ).items():
        yield name, [split(regex), BYTES]
    yield "removed-inverted", [split(LLAMA3, "Removed", True), BYTES]
    digits = dict(type="Digits", individual_digits=True)
    yield "digits", [digits, BYTES | dict(use_regex=True)]
    yield "digits-runs", [digits | dict(individual_digits=False), BYTES | dict(use_regex=True)]
    yield "deepseek-v3", [split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK), BYTES]
    yield (
        "falcon",
        [
            dict(type="Punctuation", behavior="Contiguous"),
            BYTES | dict(use_regex=True),
            digits | dict(individual_digits=False),
            split("[0-9][0-9][0-9]"),
        ],
    )
    for behavior in BEHAVIORS:
        for invert in (False, True):
            name = behavior + ("-inverted" if invert else "")
            yield "split-" + name, [split(r"\s+|\d", behavior, invert), BYTES]
            yield "string-" + name, [split("a.", behavior, invert, "String"), BYTES]
            yield "empty-" + name, [split("x*", behavior, invert), BYTES]
        yield "punctuation-" + behavior, [dict(type="Punctuation", behavior=behavior), BYTES]
    yield "whitespace", [dict(type="Whitespace"), BYTES]
    yield "whitespace-split", [dict(type="WhitespaceSplit"), BYTES]
    for i, regex in enumerate(
        (
            r"\w+|\W",
            r"\b",
            r"\B\d",
            r"[\S\n]+",
            r"\h{2,3}+",
            r"[^\w\s]+|\v",
            r"^.|.$",
            r"(?<=\d)(?=(?:\d{3})+\b)",
            r"[[:punct:]]+|[[:space:]]",
            "\\u4e2d|(?:ab|\\p{^L}){,2}x",
            r"(['\"]).*?\1",
            r"[]a-c]+",
            r" ?[^(\s|[.,!?…。，、।۔،])]+",
        )
    ):
        yield f"regex-{i}", [split(regex), BYTES]


def normalizers():
    forms = [dict(type=form) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    for form in forms:
        yield form["type"], form
    yield "lowercase", dict(type="Lowercase")
    for left in (False, True):
        for right in (False, True):
            yield f"strip-{left}-{right}", dict(type="Strip", strip_left=left, strip_right=right)
    yield "strip-accents", sequence(forms[1], dict(type="StripAccents"), name="normalizers")
    yield "replace", replace("the", "THE")
    yield "replace-regex", replace(r"\s+|(?<=a)b", " ", "Regex")
    yield "prepend", dict(type="Prepend", prepend="▁")
    yield (
        "all",
        sequence(
            forms[3],
            dict(type="StripAccents"),
            dict(type="Lowercase"),
            replace("``", '"'),
            replace(" {2,}", " ", "Regex"),
            dict(type="Strip", strip_left=True, strip_right=True),
            dict(type="Prepend", prepend="x"),
            name="normalizers",
        ),
    )


FLAGS = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)


def added(first):
    """Added tokens with every flag, and a gap in their ids."""
    yield dict(FLAGS, content="<s>", id=first)
    yield dict(FLAGS, content="<left>", lstrip=True, id=first + 1)
    yield dict(FLAGS, content="<right>", rstrip=True, special=False, id=first + 2)
    yield dict(FLAGS, content="wort", single_word=True, special=False, id=first + 3)
    yield dict(FLAGS, content="<Both>", lstrip=True, rstrip=True, normalized=True, id=first + 4)
    yield dict(FLAGS, content="É n", normalized=True, special=False, id=first + 5)


def document(model, tokens, normalizer, pre_tokenizer):
    start = dict(SpecialToken=dict(id="<s>", type_id=0))
    text = dict(Sequence=dict(id="A", type_id=0))
    bos = dict(id="<s>", ids=[tokens[0]["id"]], tokens=["<s>"])
    template = dict(
        type="TemplateProcessing",
        single=[start, start, text],
        pair=[start, text, dict(Sequence=dict(id="B", type_id=1))],
        special_tokens={"<s>": bos},
    )
    return dict(
        version="1.0",
        truncation=None,
        padding=None,
        added_tokens=tokens,
        normalizer=normalizer,
        pre_tokenizer=pre_tokenizer,
        post_processor=sequence(BYTES, template, name="processors"),
        decoder=BYTES,
        model=model,
    )


def train(pre_tokenizer, books, size, alphabet, **options):
    t = tokenizers.Tokenizer(tokenizers.models.BPE(**options))
    t.pre_tokenizer = pre_tokenizer
    t.train_from_iterator(
        books,
        tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            show_progress=False,
            initial_alphabet=alphabet,
            limit_alphabet=300,
            special_tokens=["<unk>"] if options else [],
        ),
    )
    return json.loads(t.to_str())["model"]


def kinds(books):
    pre = tokenizers.pre_tokenizers
    letters = pre.ByteLevel.alphabet()
    model = train(pre.ByteLevel(add_prefix_space=False), books, 700, letters)
    tokens = list(added(len(model["vocab"])))
    for name, steps in byte_kinds():
        steps = steps[0] if len(steps) == 1 else sequence(*steps)
        yield "byte-" + name, document(model, tokens, None, steps)
    for name, normalizer in normalizers():
        yield (
            "normalizer-" + name,
            document(model, tokens, normalizer, BYTES | dict(use_regex=True)),
        )

    # As SmolLM2's: some bytes have no token.
    rare = [c for c in letters if ord(c) > 0x80][::6]
    fewer = [t for t in model["vocab"] if not any(c in t for c in rare)]
    fewer = {t: i for i, t in enumerate(fewer)}
    merges = [m for m in model["merges"] if "".join(m) in fewer]
    lacking = model | dict(vocab=fewer, merges=merges)
    yield "missing-bytes", document(lacking, tokens, None, BYTES)
    for fuse in (False, True):
        unknown = lacking | dict(unk_token="e", fuse_unk=fuse)
        yield f"missing-bytes-unk-{fuse}", document(unknown, tokens, None, BYTES)
    whole = model["vocab"] | {"Ġxylophone": len(model["vocab"]) + 20}
    yield (
        "ignore-merges",
        document(
            model | dict(vocab=whole, ignore_merges=True),
            tokens,
            None,
            BYTES | dict(use_regex=True),
        ),
    )
    gap = [t | dict(id=t["id"] + 100 + 7 * i) for i, t in enumerate(tokens)]
    yield "gap", document(model, gap, None, BYTES)

    options = dict(unk_token="<unk>", fuse_unk=True)
    plain = train(pre.Metaspace(), books, 600, [], **options)
    n = len(plain["vocab"])
    tokens = [*added(n), dict(FLAGS, content="<unk>", id=0)]
    for scheme in ("always", "first", "never"):
        for cut in (True, False):
            for fuse in (True, False):
                yield (
                    f"metaspace-{scheme}-{cut}-{fuse}",
                    document(plain | dict(fuse_unk=fuse), tokens, None, metaspace(scheme, cut)),
                )
    strip = dict(type="Strip", strip_left=True, strip_right=True)
    yield "metaspace-first-strip", document(plain, tokens, strip, metaspace("first"))
    steps = [dict(type="Prepend", prepend="▁"), replace(" ", "▁")]
    fallback = {f"<0x{b:02X}>": n + 6 + b for b in range(256)}
    falls = plain | dict(byte_fallback=True, vocab=plain["vocab"] | fallback)
    tokens = [*added(n + 300), tokens[-1]]
    yield "llama2", document(falls, tokens, sequence(*steps, name="normalizers"), None)
    del fallback["<0xF0>"], fallback["<0xE4>"]
    falls = plain | dict(byte_fallback=True, vocab=plain["vocab"] | fallback)
    for fuse in (False, True):
        yield (
            f"llama2-some-bytes-{fuse}",
            document(
                falls | dict(fuse_unk=fuse), tokens, sequence(*steps, name="normalizers"), None
            ),
        )
    for name, step in (
        ("whitespace", dict(type="Whitespace")),
        ("whitespace-split", dict(type="WhitespaceSplit")),
        ("punctuation", dict(type="Punctuation")),
        ("digits", sequence(dict(type="Digits", individual_digits=True), metaspace("first"))),
        ("removed-first", sequence(split(r"\s+", "Removed"), metaspace("first"))),
    ):
        yield "characters-" + name, document(plain, tokens, None, step)
    yield "no-unknown", document(plain | dict(unk_token=None), tokens, None, metaspace("always"))


def sentencepieces(folder, books):
    """Writes models: yields their folders, which have no tokenizer.json."""
    book = folder / "book.txt"
    book.write_text("\n".join(books).replace("\x00", ""), encoding="utf-8")
    both = dict(byte_fallback=True, vocab_size=2600)
    for name, options in dict(
        llama=both,
        squeezed=both | dict(remove_extra_whitespaces=True),
        no_prefix=both | dict(add_dummy_prefix=False),
        unknown=dict(vocab_size=2300),
        user=both | dict(user_defined_symbols=["<left>", "▁▁", "中文", "12"]),
        user_no_prefix=dict(
            vocab_size=2300, user_defined_symbols=["\n\n", "▁▁"], add_dummy_prefix=False
        ),
    ).items():
        inner = folder / f"sentencepiece-{name}"
        inner.mkdir()
        sentencepiece.SentencePieceTrainer.train(
            input=str(book),
            model_prefix=str(inner / "tokenizer"),
            model_type="bpe",
            character_coverage=0.98,
            max_sentence_length=1 << 20,
            minloglevel=2,
            **dict(normalization_rule_name="identity", remove_extra_whitespaces=False) | options,
        )
        yield inner


def named_pre_tokenizers():
    """GGUF's name of a pre-tokenizer -> normalizer and steps, as the model's tokenizer.json."""
    nfc, words = dict(type="NFC"), BYTES | dict(use_regex=True)
    digits = dict(type="Digits", individual_digits=True)
    kinds = dict(byte_kinds())
    yield "gpt-2", None, [words]
    yield "smollm", None, [digits, words]
    yield "command-r", nfc, [digits, words]
    yield "llama-bpe", None, [split(LLAMA3), BYTES]
    yield "qwen2", nfc, [split(LLAMA3.replace("{1,3}", "")), BYTES]
    yield "qwen35", nfc, [split(QWEN35), BYTES]
    yield "gpt-4o", None, [split(GPT4O), BYTES]
    yield "tekken", None, [split(TEKKEN), BYTES]
    yield "deepseek-v3", None, kinds["deepseek-v3"]
    yield "falcon", None, kinds["falcon"]
    yield "viking", None, [split(r" ?[^(\s|.,!?…。，、।۔،)]+"), digits, BYTES]


def write_gguf(path, model, pre, tokens, types, merges=None, scores=None):
    """A file without tensors; tokens 0 and 1 of the list are BOS and EOS where types say so."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if merges:
        writer.add_token_merges(merges)
    if scores:
        writer.add_token_scores(scores)
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_add_bos_token(True)
    return writer


def close_gguf(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def byte_ggufs(folder, books):
    """Yields folders of a tokenizer.json and the m.gguf that says the same."""
    pre = tokenizers.pre_tokenizers
    # Merges across words show where a text is split.
    lines = [book[i : i + 50] for book in books for i in range(0, len(book), 50)]
    whole = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    model = train(whole, lines, 1500, pre.ByteLevel.alphabet())
    n = len(model["vocab"])
    tokens = [dict(FLAGS, content="<s>", id=n), dict(FLAGS, content="<left>", id=n + 1)]
    strings = sorted(model["vocab"], key=model["vocab"].get) + ["<s>", "<left>", "[PAD]"]
    for name, normalizer, steps in named_pre_tokenizers():
        inner = folder / f"gguf-{name}"
        inner.mkdir()
        model["ignore_merges"] = name in ("llama-bpe", "tekken")
        text = json.dumps(document(model, tokens, normalizer, sequence(*steps)))
        (inner / "tokenizer.json").write_text(text, encoding="utf-8")
        merges = [" ".join(m) for m in model["merges"]]
        types = [1] * n + [3, 4, 5]
        close_gguf(write_gguf(inner / "m.gguf", "gpt2", name, strings, types, merges))
        yield inner


def sentencepiece_gguf(inner):
    """Writes the m.gguf that says what tokenizer.model does."""
    p = sentencepiece.SentencePieceProcessor(str(inner / "tokenizer.model"))
    ids = range(p.get_piece_size())
    types = [
        2 if p.is_unknown(i) else 3 if p.is_control(i) else 6 if p.is_byte(i) else 1 for i in ids
    ]
    strings, scores = [p.id_to_piece(i) for i in ids], [p.get_score(i) for i in ids]
    writer = write_gguf(inner / "m.gguf", "llama", None, strings, types, None, scores)
    if "no_prefix" in inner.name:
        writer.add_add_space_prefix(False)
    if "squeezed" in inner.name:
        writer.add_remove_extra_whitespaces(True)
    close_gguf(writer)


PIECES = (
    [" ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\xa0"]
    + ["\u2003", "\u3000", "\u180e", "\u200b", "\u200c", "\u200d", "\ufeff", "\u2028", "▁", "▁▁"]
    + ["the", " The", "THE", "ing", "abcab", "a.", "a.a", "xxx", "x", "q", "qq", "1234567", "007"]
    + ["3.14", "1,000", "12ab", "beef", "'s", "'re", "'LL", "'ſ", "it's", "İ", "ẞ", "Σς", "ǅ", "K"]
    + [
        "é",
        "e\u0301",
        "E\u0301\u0323",
        "\u0323\u0307",
        "ﬁ",
        "ﬃ",
        "㎏",
        "Ω",
        "Å",
        "각",
        "\u1100\u1161\u11a8",
    ]
    + ["½", "²", "Ⅷ", "①", "٣٤", "Ⓐ", "ß", "Ж", "привет", "ة", "كتاب", "शक्ति", "កាន់", "ไทย"]
    + [
        "中",
        "中文",
        "日本語",
        "か\u3099",
        "🦙",
        "👩‍👧",
        "🇩🇪",
        "😶‍🌫️",
        "𝔘",
        "\U0010ffff",
        "\ue000",
        "\ufffd",
    ]
    + [
        "_",
        "-",
        "--",
        "…",
        "“x”",
        "«",
        "!?",
        "(",
        ")",
        "$",
        "+",
        "^",
        "`",
        "``",
        "|",
        "~",
        "#",
        "/",
        "//",
    ]
    + [
        "<s>",
        "<left>",
        " <left> ",
        "<right>",
        "<Both>",
        "<both>",
        "wort",
        "worty",
        "_wort",
        "É n",
        "é n",
    ]
    + ["<unk>", "<0x41>", "<", "|>", "xylophone", " xylophone", '"quoted"', "'a'", "\x01", "\x7f"]
)
RANGES = [(0x20, 0x7E)] * 4 + [
    (1, 0x1F), (0xA0, 0x2FF), (0x300, 0x36F), (0x370, 0x52F), (0x5D0, 0x5EA), (0x620, 0x64A),
    (0x900, 0x939), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2100, 0x214F),
    (0x3041, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xFB00, 0xFB06), (0xFF01, 0xFF5E),
    (0x1D400, 0x1D454), (0x1F300, 0x1F64F),
]  # fmt: skip


def texts(count, rng):
    for i in range(count):
        if i % 4:
            made = "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 16)))
        else:
            made = "".join(chr(rng.randint(*rng.choice(RANGES))) for _ in range(rng.randint(1, 24)))
        yield made


def ours(binary, folder, model, inputs):
    """Ids of every text, from one run."""
    with open(folder / "texts.jsonl", "w", encoding="ascii") as f:
        for text in inputs:
            f.write(json.dumps({"text": text}) + "\n")
    command = [binary / "freqkv-replay", "tokens", "--model", model, "--quiet", "--json"]
    done = subprocess.run(
        [*command, "--text", folder / "texts.jsonl"], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{folder.name}: {done.stderr.strip()}")
    return [row["tokens"] for row in json.loads(done.stdout)["documents"]]


def sentencepiece_ids(folder, inputs):
    """What `sentencepiece` makes of the texts, behind BOS."""
    theirs = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    return [[theirs.bos_id(), *theirs.encode(text)] for text in inputs]


def expected_ids(folder, inputs):
    """What `tokenizers` makes of the texts, added tokens by the ids of the file."""
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = {theirs.token_to_id(t["content"]): t["id"] for t in document["added_tokens"]}
    return [[ids.get(x, x) for x in theirs.encode(text).ids] for text in inputs]


def compare(binary, folder, inputs, gguf_file=None):
    """The number of texts whose ids differ; says which. Texts of one token are no documents."""
    if (folder / "tokenizer.json").exists():
        expected = expected_ids(folder, inputs)
    else:  # its special pieces are text to sentencepiece, but not to transformers
        inputs = [text for text in inputs if not SPECIAL.search(text)]
        expected = sentencepiece_ids(folder, inputs)
    if gguf_file and (folder / "tokenizer.json").exists():
        expected = [ids[1:] for ids in expected]  # it puts BOS there once
    pairs = zip(inputs, expected, strict=True)
    pairs = [(text, ids) for text, ids in pairs if len(ids) > 1]
    found = ours(binary, folder, gguf_file or folder, [text for text, _ in pairs])
    wrong = 0
    for (text, expected), ids in zip(pairs, found, strict=True):
        if ids != expected:
            wrong += 1
            if wrong <= 3:
                print(f"{folder.name}: {text!r}\n  expected {expected}\n  found    {ids}")
    return wrong


def write(path, documents, inputs):
    """The tokenizers and the ids of every text; vocabularies and merges stand once."""
    bases, rows = [], []
    with tempfile.TemporaryDirectory() as work:
        for name, document in documents:
            text = json.dumps(document, ensure_ascii=False)
            pathlib.Path(work, "tokenizer.json").write_text(text, encoding="utf-8")
            ids = expected_ids(pathlib.Path(work), inputs)
            model = dict(document["model"])
            base = dict(vocab=model.pop("vocab"), merges=model.pop("merges"))
            if base not in bases:
                bases.append(base)
            model["base"] = bases.index(base)
            rows.append(dict(name=name, document=document | dict(model=model), ids=ids))
    text = json.dumps(
        dict(texts=inputs, bases=bases, tokenizers=rows), ensure_ascii=False, separators=(",", ":")
    )
    path.write_text(text + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path)
    parser.add_argument("--write", type=pathlib.Path)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--folder", type=pathlib.Path)
    options = parser.parse_args()
    if not tokenizers:
        print("nothing checked: the package tokenizers is not installed")
        return 0
    rng = random.Random(options.seed)
    inputs = list(texts(options.texts, rng))
    if options.folder:
        wrong = compare(options.bin, options.folder, inputs)
        print(f"{len(inputs)} texts: {wrong} differ")
        return wrong > 0
    # What is an added token must not become one of a model.
    book = "".join(texts(3000, rng)).replace("<", "").replace("wort", "")
    books = [book, pathlib.Path("data/the_tide_mill.txt").read_text()]
    if options.write:
        inputs = ["".join(inputs[i::12]) for i in range(12)]
        return write(options.write, kinds(books), inputs)
    count = wrong = 0
    with tempfile.TemporaryDirectory() as work:
        for name, document in kinds(books):
            if options.only not in name:
                continue
            folder = pathlib.Path(work, name)
            folder.mkdir()
            text = json.dumps(document, ensure_ascii=False)
            (folder / "tokenizer.json").write_text(text, encoding="utf-8")
            count, wrong = count + 1, wrong + compare(options.bin, folder, inputs)
        for folder in sentencepieces(pathlib.Path(work), books) if sentencepiece else ():
            if options.only in folder.name:
                count, wrong = count + 1, wrong + compare(options.bin, folder, inputs)
            if gguf and options.only in folder.name and "user" not in folder.name:
                sentencepiece_gguf(folder)
                wrong += compare(options.bin, folder, inputs, folder / "m.gguf")
                count += 1
        for folder in byte_ggufs(pathlib.Path(work), books) if gguf else ():
            if options.only in folder.name:
                wrong += compare(options.bin, folder, inputs, folder / "m.gguf")
                count += 1
    if not gguf:
        print("no GGUF file was compared: the package gguf is not installed")
    print(f"{count} tokenizers, {len(inputs)} texts each: {wrong} differ in all")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
