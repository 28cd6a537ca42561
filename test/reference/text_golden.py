#!/usr/bin/env python3
"""Writes test/golden/text/: two small tokenizers with what transformers makes of a few texts.

    python test/reference/text_golden.py
"""

import json
import pathlib
import shutil

import sentencepiece
from transformers import T5Tokenizer

import text_proof
import tiny_tokenizers

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = [t for t in text_proof.HAND_PICKED if t.isprintable() or len(t) < 60] + [
    "A robot arm picks up the red cube.\n\nThe camera moves  slowly.",
    "робот поднимает красный куб; 机器人拿起红色方块。",
]
# Few rules in place of SentencePiece's 200 KB: ligatures, full width, white space, a dropped sign.
RULES = {"ﬁ": "fi", "½": "1⁄2", "ｆ": "f", "ｕ": "u", "\u00a0": " ", "\u3000": " ", "\t": " ", "\u200b": " ",
         "™": "TM", "e\u0301": "\u00e9", "\x01": ""}  # fmt: skip


def qwen(folder: pathlib.Path):
    reference = tiny_tokenizers.qwen(folder, size=330)
    data = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")))
    return reference


def t5(folder: pathlib.Path):
    folder.mkdir(parents=True)
    rules = folder / "rules.tsv"
    hexed = lambda s: " ".join(f"{ord(c):X}" for c in s)  # noqa: E731
    rules.write_text("".join(f"{hexed(k)}\t{hexed(v)}\n" for k, v in RULES.items()))
    lines = [line for line in tiny_tokenizers.corpus(lines=800) if line.isascii()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "spiece"), vocab_size=120,
        model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False,
        normalization_rule_tsv=str(rules), user_defined_symbols=["<sep>"], minloglevel=2,
    )  # fmt: skip
    rules.unlink()
    (folder / "spiece.vocab").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 3}\n')
    return T5Tokenizer.from_pretrained(folder)


def main() -> None:
    root = ROOT / "test/golden/text"
    shutil.rmtree(root, ignore_errors=True)
    cases = {}
    for name, make in (("qwen", qwen), ("t5", t5)):
        reference = make(root / name)
        texts = TEXTS + ["a <sep>b<extra_id_2>"]
        ids = [reference(t)["input_ids"] for t in texts]
        cases[name] = [{"text": t, "ids": i, "decoded": reference.decode(i)} for t, i in zip(texts, ids)]
    (root / "cases.json").write_text(
        "{\n" + ",\n".join(f'"{k}": [\n' + ",\n".join(json.dumps(c) for c in v) + "]" for k, v in cases.items())
        + "}\n"
    )  # fmt: skip
    for path in sorted(root.rglob("*")):
        if path.is_file():
            print(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
