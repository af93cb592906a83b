"""Makes tests/golden/tokenizer/: small tokenizers of each family the engine reads, and what Hugging
Face `tokenizers` makes of a few hundred texts.

    make_tokenizer_vectors.py BOOK.txt...

BOOK.txt is plain text to train on, a few hundred kilobytes.

KIND.json is a tokenizer.json with the normalizer, pre-tokenizer, post-processor, decoder and
added-token layout of the family, and a vocabulary of its own; KIND.vectors.json holds, per text of
texts.json, the ids and what they decode to. The families:
    llama2   Prepend + Replace, byte fallback; added tokens with every flag
    mistral  the same model behind a Metaspace pre-tokenizer (prepend_scheme first, no split)
    llama3   Split with Llama-3's pattern + ByteLevel, ignore_merges, Sequence post-processor
    qwen2    NFC, Split with Qwen2's pattern + ByteLevel
    gpt2     ByteLevel with its own pattern and a prefix space
"""

import json
import pathlib
import random
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

OUT = pathlib.Path(__file__).parent / "tokenizer"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
LLAMA3, QWEN2 = HEAD + "{1,3}" + TAIL, HEAD + TAIL


def added(id, content, special=True, **flags):
    token = dict(
        id=id,
        content=content,
        single_word=False,
        lstrip=False,
        rstrip=False,
        normalized=False,
        special=special,
    )
    return token | flags


def byte_level(prefix=False, trim=True, regex=False):
    return dict(type="ByteLevel", add_prefix_space=prefix, trim_offsets=trim, use_regex=regex)


def template(name, id):
    text, special = (
        dict(Sequence=dict(id="A", type_id=0)),
        dict(SpecialToken=dict(id=name, type_id=0)),
    )
    other = [dict(Sequence=dict(id="B", type_id=1))]
    return dict(
        type="TemplateProcessing",
        single=[special, text],
        pair=[special, text] + other,
        special_tokens={name: dict(id=name, ids=[id], tokens=[name])},
    )


def train_byte_level(books, pre_tokenizer, size):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizer
    t.train_from_iterator(
        books,
        trainers.BpeTrainer(
            vocab_size=size,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return json.loads(t.to_str())["model"]


def train_sentencepiece(books, size):
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    t.train_from_iterator(
        books,
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, limit_alphabet=70, show_progress=False
        ),
    )
    model = json.loads(t.to_str())["model"]
    # Runs of spaces, as Llama-2 has them: several pairs make one token, and longer tokens rank
    # before shorter ones.
    for left, right in (("▁", "▁"), ("▁▁", "▁▁"), ("▁▁", "▁"), ("▁", "▁▁"), ("▁▁▁", "▁")):
        model["vocab"].setdefault(left + right, len(model["vocab"]))
        model["merges"].append([left, right])
    return model


def document(model, tokens, normalizer, pre_tokenizer, post_processor, decoder):
    return dict(
        version="1.0",
        truncation=None,
        padding=None,
        added_tokens=tokens,
        normalizer=normalizer,
        pre_tokenizer=pre_tokenizer,
        post_processor=post_processor,
        decoder=decoder,
        model=model,
    )


def families(books):
    sp = train_sentencepiece(books, 900)
    base = [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")]
    n = len(sp["vocab"])
    odd = [
        added(n, "<left>", special=False, lstrip=True),
        added(n + 1, "<right>", special=False, rstrip=True),
        added(n + 2, "word", special=False, single_word=True),
        added(n + 3, "<both>", lstrip=True, rstrip=True),
        added(n + 4, "<norm>", special=False, normalized=True),
        added(n + 5, "<left>er", special=False),
    ]
    mark = dict(type="Replace", pattern=dict(String=" "), content="▁")
    steps = [dict(type="Prepend", prepend="▁"), mark]
    back = [
        dict(type="Replace", pattern=dict(String="▁"), content=" "),
        dict(type="ByteFallback"),
        dict(type="Fuse"),
        dict(type="Strip", content=" ", start=1, stop=0),
    ]
    yield (
        "llama2",
        document(
            sp,
            base + odd,
            dict(type="Sequence", normalizers=steps),
            None,
            template("<s>", 1),
            dict(type="Sequence", decoders=back),
        ),
    )
    as_text = dict(sp, merges=[" ".join(m) for m in sp["merges"]])
    yield (
        "mistral",
        document(
            as_text,
            base,
            None,
            dict(type="Metaspace", replacement="▁", prepend_scheme="first", split=False),
            template("<s>", 1),
            dict(type="Sequence", decoders=back),
        ),
    )

    for name, pattern in (("llama3", LLAMA3), ("qwen2", QWEN2)):
        split = dict(type="Split", pattern=dict(Regex=pattern), behavior="Isolated", invert=False)
        pre = dict(type="Sequence", pretokenizers=[split, byte_level()])
        model = train_byte_level(
            books,
            pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(__import__("tokenizers").Regex(pattern), "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            ),
            1000,
        )
        n = len(model["vocab"])
        if name == "llama3":
            # A whole word that no merge makes: only ignore_merges finds it.
            model |= dict(ignore_merges=True, vocab=model["vocab"] | {"Ġxylophone": n})
            tokens = [
                added(n + 1 + i, t)
                for i, t in enumerate(("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"))
            ]
            post = dict(
                type="Sequence",
                processors=[byte_level(True, False, True), template("<|begin_of_text|>", n + 1)],
            )
            yield name, document(model, tokens, None, pre, post, byte_level(True, True, True))
        else:
            tokens = [
                added(n + i, t)
                for i, t in enumerate(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
            ]
            tokens.append(added(n + 3, "<tool_call>", special=False))
            yield (
                name,
                document(
                    model,
                    tokens,
                    dict(type="NFC"),
                    pre,
                    byte_level(False, False),
                    byte_level(False, False),
                ),
            )

    model = train_byte_level(books, pre_tokenizers.ByteLevel(add_prefix_space=True), 800)
    yield (
        "gpt2",
        document(
            model,
            [added(len(model["vocab"]), "<|endoftext|>", normalized=True)],
            None,
            byte_level(True, True, True),
            byte_level(True, False, True),
            byte_level(True, True, True),
        ),
    )


FIXED = [
    "",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t \n",
    "a",
    "Hello, world!",
    " leading",
    "trailing ",
    "two  spaces",
    "▁already▁marked",
    "▁",
    " ▁ ",
    "I'll we've DON'T it'S they're you'd I'm 'tis 'LL 'Ve ‘smart’ it’s",
    "'ſ K's İi",
    "1 22 333 4444 55555 1234567890 3.14 1,000",
    "٣٤٥ ²³ ½ Ⅷ ①",
    "e\u0301 é A\u030a Å \u1100\u1161\u11a8 각 q\u0307\u0323 q\u0323\u0307",
    "ﬁ ﬃ ㎏ Ω \u2126 \u212b",
    "我想在apple工作1314151天～ 日本語テキスト 한국어",
    "🦙 😶‍🌫️ 👩‍👩‍👧 🇩🇪 ✅",
    "كتاب शक्ति កាន់តែ Việt",
    "\u00a0nbsp\u2003em\u3000ideographic\u180emongolian\u200bzero\u2028line",
    "\x01\x02\x1f\x7f\x80\x85",
    "if (x) {\n    return\ty;\n}\r\n\r\n  // end",
    "http://example.org/a?b=c&d=%20",
    "......!!!!!!??????------=======",
    "xylophone xylophone Xylophone",
    "<s>",
    "<s>a</s> b <unk>c",
    "<s> <s>",
    "<left>er  <left>  <right>  x<right>",
    " word sword word, words word_ word",
    "a  <both>  b<both>c",
    "<norm> x <norm>y<norm>",
    "<|endoftext|>",
    "a<|endoftext|> b <|im_start|>user\nhi<|im_end|>\n<tool_call>",
    "<|begin_of_text|>x<|eot_id|><|end_of_text|>",
    "<|endoftext|",
    "<0x41>",
    "\ufeffBOM \ufffd \U0010ffff \ue000",
]


def texts():
    random.seed(20)
    pieces = [
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "\r\n",
        "the",
        " The",
        "ing",
        "'s",
        "'re",
        "'LL",
        "3",
        "2024",
        "é",
        "e\u0301",
        "\u0323\u0307",
        "ß",
        "Ж",
        "ة",
        "中",
        "文",
        "か\u3099",
        "한",
        "각",
        "🦙",
        "👩‍👧",
        "\u200d",
        "\ufe0f",
        "\u00a0",
        "\u2003",
        "\u3000",
        "\u180e",
        "½",
        "²",
        "_",
        "-",
        "--",
        "…",
        "“",
        "<s>",
        "</s>",
        "<unk>",
        "<left>",
        "<right>",
        "<both>",
        "word",
        "<norm>",
        "▁",
        "▁▁",
        "<",
        "|>",
        "<|endoftext|>",
        "<|eot_id|>",
        "<|im_end|>",
        "\x01",
        "\x7f",
        "\u0085",
        "xylophone",
        "Whale",
        " whale",
        "ed",
        "q",
        "Z",
        ".",
        ",",
        "!?",
        "(",
        ")",
        "ſ",
        "\u212a",
    ]
    made = [
        "".join(random.choice(pieces) for _ in range(random.randint(1, 24))) for _ in range(220)
    ]
    ranges = [(0x20, 0x7E)] * 4 + [
        (1, 0x1F),
        (0xA0, 0x2FF),
        (0x300, 0x36F),
        (0x370, 0x5FF),
        (0x900, 0x97F),
        (0x1100, 0x11FF),
        (0x2000, 0x206F),
        (0x3040, 0x30FF),
        (0x4E00, 0x9FFF),
        (0xAC00, 0xD7A3),
        (0x1F300, 0x1F64F),
    ]
    for _ in range(60):
        made.append(
            "".join(
                chr(random.randint(*random.choice(ranges))) for _ in range(random.randint(1, 30))
            )
        )
    return FIXED + made


def main():
    books = [pathlib.Path(p).read_text(encoding="utf-8") for p in sys.argv[1:]]
    if not books:
        sys.exit(__doc__)
    OUT.mkdir(exist_ok=True)
    inputs = texts()

    def write(name, value):
        return (OUT / name).write_text(
            json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8"
        )

    write("texts.json", inputs)
    for name, doc in families(books):
        write(f"{name}.json", doc)
        t = Tokenizer.from_str(json.dumps(doc))
        encoded = [t.encode(x).ids for x in inputs]
        write(f"{name}.vectors.json", [dict(ids=ids, decoded=t.decode(ids)) for ids in encoded])


main()
