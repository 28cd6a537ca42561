#!/usr/bin/env python3
"""Writes test/golden/t5.json: tiny T5EncoderModels whose weights follow a formula (so the file holds results
only), run through transformers.

    python test/reference/t5_golden.py
"""

import json
import pathlib

import torch
from transformers import T5Config, T5EncoderModel

from tokenizer_golden import fill, kept

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = dict(vocab_size=20, d_model=12, d_kv=4, d_ff=16, num_layers=2, num_heads=4,
             relative_attention_num_buckets=8, relative_attention_max_distance=12)  # fmt: skip


def main() -> None:
    cases = []
    for name, extra in (("relu", {}), ("gated", {"feed_forward_proj": "gated-gelu", "d_kv": 3})):
        config = {**SMALL, **extra}
        model = T5EncoderModel(T5Config(**config)).eval()
        fill(model)
        ids = (torch.arange(2 * 17).view(2, 17) * 7) % 20
        mask = torch.ones_like(ids)
        mask[1, 11:] = 0
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden.square().mean().backward()
        grads = [float(f"{p.grad.norm().item():.6g}") for _, p in sorted(model.named_parameters())]
        cases.append({"name": name, "config": config, "hidden": kept(hidden), "grad_norms": grads})
    path = ROOT / "test/golden/t5.json"
    path.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    print(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
