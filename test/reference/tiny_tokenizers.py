"""Small tokenizers of the kinds that Cosmos' text encoders use, trained on text made here: no file of a
release can be had offline, and a few hundred tokens exercise every rule.

Each function writes a folder as save_pretrained does and returns what transformers loads from it.
"""

import json
import pathlib
import random

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers
from transformers import AutoTokenizer, GPT2Tokenizer, Qwen2Tokenizer, T5Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

WORDS = """the a robot arm picks up red cube from table and places it into blue bin while camera moves slowly
car drives through rain at night street lights reflect on wet road pedestrian crosses video shows
Der Roboter hebt die Kiste über den Tisch größer Straße naïve café façade résumé
робот поднимает красный куб со стола камера медленно движется улица ночью
机器人 拿起 红色 方块 放入 蓝色 盒子 夜晚 街道 ロボット が 赤い 箱 を 持ち上げる カメラ
로봇이 빨간 상자를 들어 올린다 चलती गाड़ी सड़क الروبوت يحمل الصندوق الأحمر רובוט μηχανή
don't I'm we'll they've it's 12 345 2026 3.14 0.5 1,000 $5 50% x=y+2 f(x) foo_bar end. why? yes! [a] {b}""".split()

QWEN_SPECIAL = """<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|>
<|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|>
<|video_pad|>""".split()
QWEN_PLAIN = "<tool_call> </tool_call> <tool_response> </tool_response> <think> </think>".split()
LLAMA_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def corpus(seed: int = 0, lines: int = 4000) -> list[str]:
    pick = random.Random(seed)
    return [" ".join(pick.choices(WORDS, k=pick.randint(3, 14))) for _ in range(lines)]


def _trained(pattern: str, normalizer, size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def _vocab_and_merges(tokenizer: Tokenizer) -> tuple[dict, list]:
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]


def qwen(folder: pathlib.Path, size: int = 900):
    """Qwen2's, with the special tokens of Qwen2.5-VL and Qwen3-VL behind the vocabulary."""
    vocab, merges = _vocab_and_merges(_trained(PRETOKENIZE_REGEX, normalizers.NFC(), size))
    tokenizer = Qwen2Tokenizer(
        vocab=vocab, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        extra_special_tokens=QWEN_SPECIAL[1:],
    )  # fmt: skip
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in QWEN_PLAIN])
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def qwen_files(folder: pathlib.Path, size: int = 900):
    """The same as vocab.json + merges.txt."""
    vocab, merges = _vocab_and_merges(_trained(PRETOKENIZE_REGEX, normalizers.NFC(), size))
    return _files(folder, vocab, merges, "Qwen2Tokenizer", Qwen2Tokenizer)


def boundaries(folder: pathlib.Path):
    """Qwen2's, untrained: "x", space, "y" and "1" merge with every byte, so that every cut shows."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(a, b) for a in "x\u0120" for b in bytes_] + [(b, c) for b in bytes_ for c in "y1"]
    merges = list(dict.fromkeys(merges))
    tokens = list(dict.fromkeys(bytes_ + ["".join(m) for m in merges]))
    return _files(folder, {t: i for i, t in enumerate(tokens)}, merges, "Qwen2Tokenizer", Qwen2Tokenizer)


def gpt2(folder: pathlib.Path, size: int = 700):
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    vocab, merges = _vocab_and_merges(_trained(pattern, None, size))
    return _files(folder, vocab, merges, "GPT2Tokenizer", GPT2Tokenizer)


def _files(folder, vocab, merges, name, kind):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {
        str(len(vocab) + i): {"content": t, "special": True, "normalized": False, "lstrip": False,
                              "rstrip": False, "single_word": False}
        for i, t in enumerate(QWEN_SPECIAL)
    }  # fmt: skip
    config = {"tokenizer_class": name, "added_tokens_decoder": special, "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return kind.from_pretrained(folder)


def llama(folder: pathlib.Path, size: int = 800):
    """Llama 3's: whole words first, three digits at most, a token in front, tokens that eat space."""
    tokenizer = _trained(LLAMA_PATTERN, None, size)
    data = json.loads(tokenizer.to_str())
    data["model"]["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    tokenizer.add_tokens(
        [
            AddedToken("<left>", lstrip=True, normalized=False),
            AddedToken("<right>", rstrip=True, normalized=False),
            AddedToken("<both>", lstrip=True, rstrip=True, normalized=False),
            AddedToken("word", single_word=True, normalized=False),
        ]
    )
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A",
                pair="<|begin_of_text|> $A <|begin_of_text|> $B",
                special_tokens=[("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))],
            ),
        ]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "TokenizersBackend", "bos_token": "<|begin_of_text|>",
              "eos_token": "<|end_of_text|>", "pad_token": "<|end_of_text|>"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return AutoTokenizer.from_pretrained(folder)


def _spiece(folder: pathlib.Path, size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_prefix=str(folder / "spiece"), vocab_size=size,
        model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False,
        character_coverage=0.999, minloglevel=2,
    )  # fmt: skip
    (folder / "spiece.vocab").unlink()


def t5_spiece(folder: pathlib.Path, size: int = 600):
    """T5's spiece.model alone."""
    _spiece(folder, size)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    return T5Tokenizer.from_pretrained(folder)


def t5(folder: pathlib.Path, size: int = 600):
    """The same as save_pretrained of transformers 5 writes it: tokenizer.json."""
    t5_spiece(folder, size).save_pretrained(folder)
    (folder / "spiece.model").unlink()
    return AutoTokenizer.from_pretrained(folder)


KINDS = {"qwen": qwen, "qwen vocab.json": qwen_files, "gpt2 vocab.json": gpt2, "llama 3": llama,
         "t5 spiece.model": t5_spiece, "t5 tokenizer.json": t5}  # fmt: skip
