#!/usr/bin/env python3
"""Writes test/golden/processors.json: what transformers' processors and chat templates make of pictures whose
pixels follow a formula, with the tokenizer of test/golden/text/qwen.

    python test/reference/processor_golden.py
"""

import json
import pathlib

import torch
from transformers import AutoTokenizer, Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor
from transformers import Qwen3VLProcessor, Qwen3VLVideoProcessor

import chat_templates

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "test/golden/text/qwen"
TEXT = "<|vision_start|><|image_pad|><|vision_end|>a <|vision_start|><|video_pad|><|vision_end|>robot"
SAMPLES = 20


def picture(*shape: int) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return ((torch.arange(count) * 37 + torch.arange(count) ** 2 % 101) % 256).to(torch.uint8).view(shape)


def kept(x: torch.Tensor) -> list[float]:
    flat = x.flatten()
    return [float(f"{v:.7g}") for v in flat[:: max(1, flat.numel() // SAMPLES)].tolist()]


def case(family: str) -> dict:
    cell = 28 * 28 if family == "qwen2_5_vl" else 32 * 32
    image = {"patch_size": cell and (14 if family == "qwen2_5_vl" else 16),
             "size": {"shortest_edge": 2 * cell, "longest_edge": 6 * cell}}  # fmt: skip
    video = {"size": {"shortest_edge": cell, "longest_edge": 4 * cell * (1 if family == "qwen2_5_vl" else 6)}}
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    if family == "qwen3_vl":
        image |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        kind, video_processor = Qwen3VLProcessor, Qwen3VLVideoProcessor(**video)
    else:
        video |= {"fps": 2, "do_sample_frames": True}
        kind, video_processor = Qwen2_5_VLProcessor, Qwen2VLVideoProcessor(**video)
    processor = kind(image_processor=Qwen2VLImageProcessor(**image), tokenizer=tokenizer, video_processor=video_processor)
    frames = picture(21, 40, 70, 3)
    out = processor(
        text=[TEXT], images=[picture(61, 37, 3).numpy()], videos=[frames.permute(0, 3, 1, 2).numpy()],
        video_metadata=[{"total_num_frames": 21, "fps": 7.5, "frames_indices": None}], return_tensors="pt",
    )  # fmt: skip
    result = {"config": {"processor_class": kind.__name__, "image_processor": image, "video_processor": video}}
    for name, tensor in out.items():
        if name == "attention_mask":
            continue  # ones
        tensor = torch.as_tensor(tensor)
        result[name] = {"shape": list(tensor.shape), "values": kept(tensor) if tensor.is_floating_point() else
                        tensor.flatten().tolist()}  # fmt: skip
    return result


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    chats = []
    for kind, template in chat_templates.TEMPLATES.items():
        chats_of = chat_templates.conversations(kind)
        for index, chat in enumerate(chats_of):
            options = {k: v for k, v in chat.items() if k != "messages"}
            text = tokenizer.apply_chat_template(chat["messages"], chat_template=template, tokenize=False, **options)
            if chat.get("tools"):
                text = text[text.index("</tool_call><|im_end|>") :]  # what is before it is long, and always the same
                chat = chat | {"tools": True}
            if (not chat.get("add_generation_prompt") and index % 2) or index + 1 == len(chats_of):
                chats.append({"model_type": kind, "chat": chat, "text": text})
    golden = {"text": TEXT, "tools": chat_templates.TOOLS, "qwen2_5_vl": case("qwen2_5_vl"), "qwen3_vl": case("qwen3_vl")}
    path = ROOT / "test/golden/processors.json"
    lines = [f'"{k}": {json.dumps(v, separators=(",", ":"))}' for k, v in golden.items()]
    lines.append('"chats": [\n' + ",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in chats) + "]")
    path.write_text("{" + ",\n".join(lines) + "}\n")
    print(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
