"""Chat templates and processors of the vision language models against transformers': texts, token ids,
pixels, grids, sampled frames.

    processor_proof.py [--count N] [--seed N] [--no-table]

Writes docs/proofs/processors.md. text_worker (build/cpu/bin) is what runs ours.
"""

import argparse
import datetime
import json
import pathlib
import random
import sys
import tempfile

import numpy
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor, Qwen3VLProcessor
from transformers import Qwen3VLVideoProcessor

import chat_templates
import proof
import tiny_tokenizers
from text_proof import differing, worker


def prove_chats() -> list[tuple[str, int, int]]:
    rows = []
    with tempfile.TemporaryDirectory() as work:
        tokenizer = tiny_tokenizers.qwen(pathlib.Path(work))
    for kind, template in chat_templates.TEMPLATES.items():
        chats = chat_templates.conversations(kind)
        options = [{k: v for k, v in c.items() if k != "messages"} for c in chats]
        want = [
            tokenizer.apply_chat_template(c["messages"], chat_template=template, tokenize=False, **o)
            for c, o in zip(chats, options)
        ]
        rows.append((kind, len(chats), differing(want, worker("chat", kind, chats), chats, kind)))
    return rows


def make_processor(family: str, folder: pathlib.Path, pick: random.Random, small: bool):
    """Limits that make small pictures (or the class's own), saved and loaded back."""
    tokenizer = tiny_tokenizers.qwen(folder)
    patch = 14 if family == "qwen2_5_vl" else 16
    cell = (2 * patch) ** 2
    image = {"patch_size": patch}
    video = {}
    if small:
        image |= {"size": {"shortest_edge": pick.randint(1, 4) * cell, "longest_edge": pick.randint(6, 20) * cell}}
        frames = 1 if family == "qwen2_5_vl" else 8
        video |= {"size": {"shortest_edge": pick.randint(1, 3) * cell, "longest_edge": pick.randint(4, 12) * cell * frames},
                  "cap_pixels_per_frame": pick.choice([None, True, False]), "max_video_tokens": pick.randint(8, 60),
                  "min_frames": pick.choice([2, 4]), "max_frames": pick.choice([8, 768])}  # fmt: skip
    if family == "qwen3_vl":
        image |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        parts = Qwen3VLProcessor, Qwen3VLVideoProcessor(**video)
    else:
        video |= {"fps": 2, "do_sample_frames": True}
        parts = Qwen2_5_VLProcessor, Qwen2VLVideoProcessor(**video)
    processor = parts[0](image_processor=Qwen2VLImageProcessor(**image), tokenizer=tokenizer, video_processor=parts[1])
    processor.save_pretrained(folder)
    return parts[0].from_pretrained(folder)


def one_case(processor, family: str, folder: pathlib.Path, pick: random.Random, small: bool) -> tuple[dict, dict]:
    edge = lambda: pick.randint(20, 300) if small else pick.choice([64, 224, 480, 720])  # noqa: E731
    random_bytes = torch.Generator().manual_seed(pick.randrange(1 << 30))

    def picture(*shape):
        noise = torch.rand(*shape, 3, generator=random_bytes)
        smooth = torch.linspace(0, 1, shape[-1]).unsqueeze(-1).expand(*shape, 3)
        return ((0.3 * noise + 0.7 * smooth) * 255).to(torch.uint8).contiguous()

    images = [picture(edge(), edge()) for _ in range(pick.randint(0, 3))]
    videos = [picture(pick.randint(5, 40), edge(), edge()) for _ in range(pick.randint(0, 2))]
    rates = [pick.choice([8.0, 10.0, 24.0, 29.97, 7.3]) for _ in videos]
    parts = [("image", None)] * len(images) + [("video", None)] * len(videos) + [("text", "Where is it? ")]
    pick.shuffle(parts)
    template = chat_templates.TEMPLATES[family]
    content = [{"type": k, k: v} for k, v in parts]
    text = processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], chat_template=template, tokenize=False, add_generation_prompt=True
    )
    metadata = [{"total_num_frames": len(v), "fps": r, "frames_indices": None} for v, r in zip(videos, rates)]
    want = processor(
        text=[text], images=[i.numpy() for i in images] or None,
        videos=[numpy.moveaxis(v.numpy(), -1, 1) for v in videos] or None,
        video_metadata=metadata or None, return_tensors="pt",
    )  # fmt: skip
    tensors = {f"image.{i}": x for i, x in enumerate(images)} | {f"video.{i}": x for i, x in enumerate(videos)}
    save_file(tensors, folder / "in.safetensors")
    line = {"text": text, "inputs": str(folder / "in.safetensors"), "outputs": str(folder / "out.safetensors"),
            "videos": [[r, len(v)] for v, r in zip(videos, rates)]}  # fmt: skip
    worker("process", folder, [line])
    return dict(want), load_file(folder / "out.safetensors")


def compare(want: dict, have: dict) -> tuple[str, float]:
    if want.keys() != have.keys():
        return f"has {sorted(have)}, expected {sorted(want)}", 0.0
    worst = 0.0
    for name, tensor in want.items():
        tensor = torch.as_tensor(tensor)
        if tensor.shape != have[name].shape:
            return f"{name}: shape {tuple(have[name].shape)}, expected {tuple(tensor.shape)}", worst
        worst = max(worst, (tensor.double() - have[name].double()).abs().max().item() if tensor.numel() else 0.0)
    return "", worst


def prove_processor(family: str, count: int, seed: int) -> dict:
    pick = random.Random(seed)
    row = {"family": family, "cases": count, "differ": 0, "worst": 0.0}
    for index in range(count):
        with tempfile.TemporaryDirectory() as work:
            folder = pathlib.Path(work)
            small = index % 10 != 9
            processor = make_processor(family, folder, pick, small)
            problem, worst = compare(*one_case(processor, family, folder, pick, small))
            row["worst"] = max(row["worst"], worst)
            if problem or worst > 1e-6:
                row["differ"] += 1
                print(f"  case {index}: {problem or worst}", flush=True)
    return row


def prove_sampling(family: str, seed: int) -> tuple[int, int]:
    """Frame numbers for lengths and rates by the thousand."""
    pick = random.Random(seed)
    total, wrong = 0, 0
    for _ in range(6):
        with tempfile.TemporaryDirectory() as work:
            folder = pathlib.Path(work)
            processor = make_processor(family, folder, pick, True).video_processor
            values, want = [], []
            for _ in range(400):
                frames, fps = pick.randint(4, 3000), pick.choice([1, 8, 10, 23.976, 24, 25, 29.97, 30, 59.94])
                metadata = type("M", (), {"total_num_frames": frames, "fps": fps})()
                values.append([frames, fps])
                want.append([int(i) for i in processor.sample_frames(metadata=metadata, fps=2)])
            total += len(values)
            wrong += differing(want, worker("sample", folder, values), values, "sample")
    return total, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--no-table", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    chats = prove_chats()
    for kind, total, wrong in chats:
        print(f"chat template {kind}: {wrong} of {total} differ", flush=True)
    rows = []
    for family in ("qwen2_5_vl", "qwen3_vl"):
        row = prove_processor(family, args.count, args.seed)
        row["sampled"], row["sampled_wrong"] = prove_sampling(family, args.seed)
        rows.append(row)
        print(row, flush=True)
    if not args.no_table:
        import transformers

        lines = [
            "# Chat templates and processors against transformers'",
            "",
            f"{datetime.date.today()}, transformers {transformers.__version__}, seed {args.seed}. Made by",
            "`test/reference/run.sh processor`. Token ids, grids and pixels of random pictures and videos; largest",
            "difference of any tensor; frame numbers sampled for random lengths and rates.",
            "",
            "| template | conversations | differ |",
            "| --- | ---: | ---: |",
            *(f"| {kind} | {total} | {wrong} |" for kind, total, wrong in chats),
            "",
            "| processor | cases | differ | largest difference | sampled videos | differ |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *(f"| {r['family']} | {r['cases']} | {r['differ']} | {r['worst']:.1e} | {r['sampled']} | "
              f"{r['sampled_wrong']} |" for r in rows),
        ]  # fmt: skip
        path = proof.ROOT / "docs/proofs/processors.md"
        path.write_text("\n".join(lines) + "\n")
        print(f"wrote {path.relative_to(proof.ROOT)}")
    bad = sum(wrong for _, _, wrong in chats) + sum(r["differ"] + r["sampled_wrong"] for r in rows)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
