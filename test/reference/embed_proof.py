"""cosmos-convert embed against the text encoding of diffusers' Cosmos pipelines, both encoders, on small
random ones.

    embed_proof.py [--seed N] [--no-table]

Writes docs/proofs/embed.md.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import types

import torch
from diffusers import Cosmos2_5_PredictBasePipeline, Cosmos2VideoToWorldPipeline
from safetensors.torch import load_file
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, T5Config, T5EncoderModel

import chat_templates
import proof
import text_proof
import tiny_tokenizers

PROMPTS = ["", "A robot arm picks up the red cube.", "Робот поднимает куб; 机器人拿起红色方块。 👍🏽", "a\n\nb  c\t",
           "robot " * 700, *text_proof.HAND_PICKED[20:26]]  # fmt: skip


def t5(folder: pathlib.Path, generator: torch.Generator):
    tokenizer = tiny_tokenizers.t5(folder / "tokenizer")
    config = T5Config(vocab_size=len(tokenizer) + 5, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=4)
    return T5EncoderModel(config), tokenizer, Cosmos2VideoToWorldPipeline._get_t5_prompt_embeds


def reason(folder: pathlib.Path, generator: torch.Generator):
    tokenizer = tiny_tokenizers.qwen(folder / "tokenizer")
    tokenizer.chat_template = chat_templates.TEMPLATES["qwen2_5_vl"]
    text = dict(vocab_size=len(tokenizer) + 3, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
                num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
                rope_scaling={"type": "mrope", "mrope_section": [2, 1, 1]})  # fmt: skip
    vision = dict(depth=1, hidden_size=32, num_heads=2, intermediate_size=32, out_hidden_size=32, patch_size=14)
    ids = {f"{k}_token_id": tokenizer.convert_tokens_to_ids(f"<|{v}|>")
           for k, v in [("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"),
                        ("vision_end", "vision_end")]}  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids))
    return model, tokenizer, Cosmos2_5_PredictBasePipeline._get_prompt_embeds


def prove(name: str, make, seed: int) -> dict:
    program = os.environ.get("COSMOS_CONVERT", proof.ROOT / "build/cpu/bin/cosmos-convert")
    generator = torch.Generator().manual_seed(seed)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        model, tokenizer, encode = make(work, generator)
        proof.random_weights(model, generator, 1.0)
        model.eval().save_pretrained(work / "text_encoder")
        pipeline = types.SimpleNamespace(tokenizer=tokenizer, text_encoder=model, _execution_device="cpu")
        with torch.no_grad():
            want = encode(pipeline, list(PROMPTS), max_sequence_length=512)
        (work / "prompts.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in PROMPTS))
        command = [program, "embed", "--model", work, "--input", work / "prompts.jsonl", "--output", work / "out",
                   "--dtype", "float32", "--batch", "4"]  # fmt: skip
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        worst = 0.0
        for i in range(len(PROMPTS)):
            have = load_file(work / f"out/{i + 1:06d}.safetensors")["text_embeds"]
            worst = max(worst, ((have - want[i]).norm() / want[i].norm()).item())
        return {"name": name, "prompts": len(PROMPTS), "shape": list(want.shape[1:]), "error": worst}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--no-table", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [prove("T5 (Predict1, Predict2)", t5, args.seed), prove("Reason1 (Predict2.5)", reason, args.seed)]
    for row in rows:
        print(row)
    if not args.no_table:
        import diffusers

        lines = ["# Text embeddings against diffusers' pipelines", "",
                 f"{datetime.date.today()}, diffusers {diffusers.__version__}, seed {args.seed}. Made by "
                 "`test/reference/run.sh embed`.",
                 "Small random encoders; relative L2 error of the worst prompt (empty, multilingual, cut at 512).", "",
                 "| encoder | prompts | embedding | worst |", "| --- | ---: | --- | ---: |",
                 *(f"| {r['name']} | {r['prompts']} | {r['shape']} | {r['error']:.1e} |" for r in rows)]  # fmt: skip
        (proof.ROOT / "docs/proofs/embed.md").write_text("\n".join(lines) + "\n")
    return 1 if any(not r["error"] <= proof.TOLERANCE for r in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
