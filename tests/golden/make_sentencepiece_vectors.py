"""Makes tests/golden/sentencepiece/: small tokenizer.model files of type BPE, and what
`sentencepiece` makes of difficult texts. From the root of the repository:

    make_sentencepiece_vectors.py
"""

import json
import pathlib
import random
import sys

import sentencepiece

sys.path.insert(0, "tests/e2e")
import check_tokenizers

OUT = pathlib.Path(__file__).parent / "sentencepiece"
MODELS = dict(
    llama=dict(byte_fallback=True, vocab_size=700),
    squeezed=dict(remove_extra_whitespaces=True, vocab_size=400),
    user=dict(
        vocab_size=400, user_defined_symbols=["<left>", "▁▁", "\n", "12"], add_dummy_prefix=False
    ),
)


def main():
    OUT.mkdir(exist_ok=True)
    texts = list(check_tokenizers.texts(200, random.Random(3)))
    texts = [t for t in texts if not check_tokenizers.SPECIAL.search(t)][:80]
    vectors = dict(texts=texts)
    for name, options in MODELS.items():
        sentencepiece.SentencePieceTrainer.train(
            input="data/the_tide_mill.txt",
            model_prefix=str(OUT / name),
            model_type="bpe",
            character_coverage=0.99,
            minloglevel=2,
            **dict(normalization_rule_name="identity", remove_extra_whitespaces=False) | options,
        )
        (OUT / (name + ".vocab")).unlink()
        model = sentencepiece.SentencePieceProcessor(str(OUT / (name + ".model")))
        vectors[name] = [dict(ids=ids, decoded=model.decode(ids)) for ids in model.encode(texts)]
    text = json.dumps(vectors, ensure_ascii=False, separators=(",", ":"))
    (OUT / "vectors.json").write_text(text + "\n", encoding="utf-8")


main()
