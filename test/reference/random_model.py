"""Writes a component folder with random weights, tensor by tensor, and inputs for a short clip: what it
takes to run cosmos-forward at a release's size without downloading the release.

    random_model.py OUT [--config CONFIG.json] [--frames 5 --height 256 --width 448]

OUT/config.json, OUT/diffusion_pytorch_model.safetensors (bfloat16) and OUT/inputs.safetensors.
Without --config: Predict2.5-2B.
"""

import argparse
import json
import math
import pathlib

import torch
from diffusers import CosmosTransformer3DModel
from safetensors.torch import save_file

PREDICT25_2B = dict(
    in_channels=17, out_channels=16, num_attention_heads=16, attention_head_dim=128, num_layers=28,
    mlp_ratio=4.0, text_embed_dim=1024, adaln_lora_dim=256, max_size=(128, 240, 240),
    patch_size=(1, 2, 2), rope_scale=(1.0, 3.0, 3.0), concat_padding_mask=True,
    extra_pos_embed_type=None, use_crossattn_projection=True, crossattn_proj_in_channels=100352,
    encoder_hidden_states_channels=1024,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--config", type=pathlib.Path)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=448)
    args = parser.parse_args()

    config = json.loads(args.config.read_text()) if args.config else PREDICT25_2B
    with torch.device("meta"):
        model = CosmosTransformer3DModel.from_config(config)
    args.out.mkdir(parents=True, exist_ok=True)
    model.save_config(args.out)
    weights = {}
    for name, shape in ((n, p.shape) for n, p in model.named_parameters()):
        gain = 1 / math.sqrt(shape[1]) if len(shape) > 1 else 1.0
        weights[name] = (
            torch.empty(shape, dtype=torch.bfloat16).normal_(std=gain)
            if len(shape) > 1
            else torch.ones(shape, dtype=torch.bfloat16)
        )
    save_file(weights, args.out / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    print(f"{sum(w.numel() for w in weights.values()):,} parameters")

    frames, rows, columns = 1 + (args.frames - 1) // 4, args.height // 8, args.width // 8
    text = config["crossattn_proj_in_channels" if config["use_crossattn_projection"] else "text_embed_dim"]
    save_file(
        {
            "hidden_states": torch.randn(1, config["in_channels"] - 1, frames, rows, columns),
            "condition_mask": torch.zeros(1, 1, frames, rows, columns),
            "padding_mask": torch.zeros(1, 1, args.height, args.width),
            "timestep": torch.full((1, 1, frames, 1, 1), 0.5),
            "encoder_hidden_states": torch.randn(1, 512, text, dtype=torch.bfloat16),
        },
        args.out / "inputs.safetensors",
    )


if __name__ == "__main__":
    main()
