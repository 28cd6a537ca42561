#!/usr/bin/env python3
"""Writes test/golden/tokenizers.json: tiny AutoencoderKLWan and AutoencoderKLCosmos models whose weights
and inputs follow a formula (so the file holds results only), run through diffusers.

    python test/reference/tokenizer_golden.py
"""

import json
import math
import pathlib

import torch
from diffusers import AutoencoderKLCosmos, AutoencoderKLWan

ROOT = pathlib.Path(__file__).resolve().parents[2]
COSMOS = dict(
    latent_channels=2, encoder_block_out_channels=[4, 6, 8], decode_block_out_channels=[4, 6, 8],
    attention_resolutions=[32], resolution=64, num_layers=1, patch_size=2,
    spatial_compression_ratio=4, temporal_compression_ratio=4, latents_mean=None, latents_std=None)
WAN = dict(
    base_dim=4, z_dim=2, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[True],
    latents_mean=[0.0, 0.0], latents_std=[1.0, 1.0])
WAN22 = dict(WAN, dim_mult=[1, 1], is_residual=True, patch_size=2, in_channels=12, out_channels=12)
CASES = [
    ("cosmos", AutoencoderKLCosmos, COSMOS, [1, 3, 5, 8, 12]),
    ("wan", AutoencoderKLWan, WAN, [1, 3, 5, 8, 12]),
    ("wan-residual", AutoencoderKLWan, WAN22, [1, 3, 5, 8, 12]),
]
SAMPLES = 24  # values kept of each output


def wave(count: int, phase: float) -> torch.Tensor:
    return torch.sin(0.37 * torch.arange(count, dtype=torch.float64) ** 1.1 + phase).float()


def fill(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            values = wave(weight.numel(), sum(name.encode()) % 97).view(weight.shape)
            if weight.dim() > 1 and not name.endswith("gamma"):
                weight.copy_(values * 1.4 / math.sqrt(weight[0].numel()))
            elif name.endswith("bias"):
                weight.copy_(0.2 * values)
            else:
                weight.copy_(1 + 0.2 * values)


def kept(x: torch.Tensor) -> list[float]:
    flat = x.detach().flatten()
    return [float(f"{v:.6g}") for v in flat[:: max(1, flat.numel() // SAMPLES)].tolist()]


def main() -> None:
    cases = []
    for name, kind, config, shape in CASES:
        model = kind(**config).eval()
        fill(model)
        video = wave(math.prod(shape), 0.5).view(shape)
        latent = model.encode(video).latent_dist.mode()
        sample = model(video).sample
        sample.square().mean().backward()
        grads = [float(f"{p.grad.norm().item():.6g}") for _, p in sorted(model.named_parameters())]
        cases.append({"name": name, "class": kind.__name__, "config": config, "shape": shape,
                      "latent": kept(latent), "sample": kept(sample), "grad_norms": grads})  # by name
    path = ROOT / "test/golden/tokenizers.json"
    path.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    print(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
