"""Tokenizers against transformers' on hand-picked and random texts, token for token, and back.

    text_proof.py [--count N] [--seed N] [--no-table]

Writes docs/proofs/text.md. text_worker (build/cpu/bin) is what runs ours.
"""

import argparse
import datetime
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import unicodedata

import proof
import tiny_tokenizers

HAND_PICKED = [
    "", " ", "  ", "\n", "\r\n", "\t", " \n \n", "a", " a", "a ", "  a  b   c    ", "Hello, world!",
    "don't DON'T I'LL we've IT'S 'sx 'ſ ’s", "1234567890 12 3.14 ½ Ⅷ ٣٤ 一二", "x\n\n\ny\r\r\nz \n w",
    "a\u00a0b\u2003c\u3000d\u180ee\u200bf\u2028g\x85h\x1ci", "e\u0301 é \u1e9b\u0323 ẛ̣ Å \u212b 각 각",
    "ﬁ ﬃ ﬁ\u0301 ½ ² ™ ℃ ㎏ ｆｕｌｌ ｶﾞ ㍿ Ⅳ", "नमस्ते ಕನ್ನಡ ไทย မြန်မာ עִבְרִית الْعَرَبِيَّة",
    "👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ❤️ 😀😀😀 🧑🏿‍🚀", "\U0001f600\U0002a6d7\U000e0041 \ufffd \ufeff", "a\u0300\u0301\u0302" * 5,
    "<|im_start|>system\nYou are.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>",
    "<|im_start|><|im_start|> <|im_end|>x<|im_end", "<think>\n\n</think>\n\n<tool_call>{\"a\": 1}</tool_call>",
    "<extra_id_0> in <extra_id_1>.<extra_id_99><extra_id_100> </s> <pad><unk>x</s>", "▁a ▁ a▁b ▁▁ c",
    "a <left> b <right>  c  <both>  d <left><right> <both><both> sword word words wordy-word", "aaaaaaaaaa" * 30,
    "if (x == y) {\n\treturn foo_bar[0];\n}  // done", "\x00\x01\x7f", "ǅ ß ẞ İ ı K Å", "a\u0345\u0301b \u0fb3\u0f71",
    "a\u0670\u1df6 a\u1df6\u0670\u0327 \U00011935\U00011930 \U00011938 \u0301\U0001e4ec\u0327",
]  # fmt: skip

LONG = {
    "words": lambda: " ".join(random.Random(1).choices(tiny_tokenizers.WORDS, k=20000))[:100000],
    "one letter": lambda: "a" * 100000,
    "spaces": lambda: " " * 100000,
    "newlines and spaces": lambda: " \n" * 50000,
    "no spaces": lambda: "".join(random.Random(2).choices("abcdefghijklmnopqrstuvwxyz", k=100000)),
    "CJK": lambda: "".join(random.Random(3).choices("机器人拿起红色方块", k=100000)),
    "combining marks": lambda: "a" + "\u0301\u0323" * 5000,
    "special tokens": lambda: "<|im_start|></s>" * 6000,
}


def random_text(pick: random.Random) -> str:
    """Words, spaces of all kinds, special tokens and arbitrary characters, glued at random."""
    parts = []
    for _ in range(pick.randint(1, 30)):
        kind = pick.random()
        if kind < 0.45:
            word = pick.choice(tiny_tokenizers.WORDS)
            parts.append(pick.choice([word, word.upper(), word.title(), word[::-1]]))
        elif kind < 0.7:
            parts.append(pick.choice([" ", " ", " ", "  ", "   ", "\n", "\r\n", "\t", "\u3000", "\xa0", " \n"]))
        elif kind < 0.8:
            parts.append(pick.choice(tiny_tokenizers.QWEN_SPECIAL + tiny_tokenizers.QWEN_PLAIN
                                     + ["</s>", "<extra_id_7>", "<left>", "<both>", "word"]))  # fmt: skip
        elif kind < 0.9:
            parts.append(pick.choice("0123456789.,!?'\"-_()[]{}<>|/\\@#$%^&*+=~`▁"))
        else:
            first, last = pick.choice([(0x20, 0x24F), (0x300, 0x36F), (0x370, 0x1FFF), (0x2000, 0x2BFF),
                                       (0x3000, 0xD7FF), (0xE000, 0xFFFF), (0x1F000, 0x1FAFF)])  # fmt: skip
            parts.append("".join(chr(pick.randint(first, last)) for _ in range(pick.randint(1, 4))))
    return "".join(parts)


def worker(command: str, folder: pathlib.Path, values: list) -> list:
    program = os.environ.get("COSMOS_TEXT_WORKER", proof.ROOT / "build/cpu/bin/text_worker")
    text = "".join(json.dumps(v) + "\n" for v in values)
    done = subprocess.run([str(program), command, str(folder)], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def differing(want: list, have: list, shown: list, what: str) -> int:
    wrong = [i for i in range(len(want)) if want[i] != have[i]]
    for i in wrong[:3]:
        print(f"  {what} {shown[i]!r}\n    expected {want[i]}\n    got      {have[i]}")
    return len(wrong)


def every_character() -> list[str]:
    """Each character of Unicode between letters: which class it is in shows in the split."""
    return ["x" + chr(c) + "y " + chr(c) + "1" for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]


def prove(name: str, count: int, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work) / "tokenizer"
        reference = tiny_tokenizers.KINDS[name](folder)
        pick = random.Random(seed)
        texts = HAND_PICKED + [random_text(pick) for _ in range(count)]
        ids = [reference(t)["input_ids"] for t in texts]
        row = {"name": name, "texts": len(texts), "tokens": sum(map(len, ids))}
        row["encode"] = differing(ids, worker("encode", folder, texts), texts, "encode")
        size = len(reference)
        ids += [[pick.randrange(size) for _ in range(pick.randint(1, 40))] for _ in range(count)]
        decoded = [reference.decode(i) for i in ids]
        row["decode"] = differing(decoded, worker("decode", folder, ids), ids, "decode")
        row["stream"] = differing(decoded, worker("stream", folder, ids), ids, "stream")
        row["long"], row["seconds"] = 0, 0.0
        for kind, make in LONG.items():
            text = make()
            start = time.monotonic()
            got = worker("encode", folder, [text])[0]
            row["seconds"] = max(row["seconds"], time.monotonic() - start)
            if got != reference(text)["input_ids"]:
                print(f"  long text: {kind}: differs")
                row["long"] += 1
        return row


def prove_characters(name: str, make) -> tuple[int, int]:
    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work) / "tokenizer"
        reference = make(folder)
        texts = every_character()
        want, got = reference(texts)["input_ids"], worker("encode", folder, texts)
        wrong = [ord(t[1]) for t, a, b in zip(texts, want, got) if a != b]
        known = [c for c in wrong if unicodedata.category(chr(c)) != "Cn"]
        print(f"characters, {name}: {len(wrong)} differ, {len(known)} of them in Unicode "
              f"{unicodedata.unidata_version}: {[hex(c) for c in known[:12]]}", flush=True)  # fmt: skip
        return len(wrong), len(known)


def table(rows: list[dict], characters: dict, seed: int) -> str:
    import tokenizers
    import transformers

    lines = [
        "# Tokenizers against transformers'",
        "",
        f"{datetime.date.today()}, transformers {transformers.__version__}, tokenizers {tokenizers.__version__}, "
        f"seed {seed}.",
        "Made by `test/reference/run.sh text`. Small tokenizers of each kind, trained on the spot. Columns: texts",
        "(hand-picked and random: scripts, emoji, white space, special tokens) whose ids differ; id lists",
        "whose text differs, decoded at once and token by token; of eight texts of 100,000 characters those",
        "that differ, with the longest time of one (the program's start included).",
        "",
        "| tokenizer | texts | tokens | encode | decode | stream | long | longest |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in rows:
        lines.append(f"| {r['name']} | {r['texts']} | {r['tokens']} | {r['encode']} | {r['decode']} | "
                     f"{r['stream']} | {r['long']} | {r['seconds']:.2f} s |")  # fmt: skip
    lines += ["", "Every character of Unicode (1,112,063) between letters, spaces and digits, where every cut shows: split",
              f"differently, and of those the characters of Unicode {unicodedata.unidata_version} (PCRE2 10.42 knows 14):", ""]  # fmt: skip
    lines += [f"- {name}: {new}, {known}" for name, (new, known) in characters.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--only", default="")
    parser.add_argument("--no-table", action="store_true")
    args = parser.parse_args()
    rows = []
    for name in tiny_tokenizers.KINDS:
        if args.only not in name:
            continue
        print(name, flush=True)
        rows.append(prove(name, args.count, args.seed))
        print(" ", {k: v for k, v in rows[-1].items() if k != "name"}, flush=True)
    characters = {}
    if not args.only:
        for name, make in (("Qwen2's pattern", tiny_tokenizers.boundaries), ("T5", tiny_tokenizers.t5)):
            characters[name] = prove_characters(name, make)
    if not args.no_table and not args.only:
        path = proof.ROOT / "docs/proofs/text.md"
        path.write_text(table(rows, characters, args.seed))
        print(f"wrote {path.relative_to(proof.ROOT)}")
    wrong = [r for r in rows if r["encode"] + r["decode"] + r["stream"] + r["long"]]
    return 1 if wrong or any(known for _, known in characters.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
