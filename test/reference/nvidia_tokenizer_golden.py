#!/usr/bin/env python3
"""Writes test/golden/nvidia_tokenizers.json: tiny discrete and image tokenizers of NVIDIA's own code whose
weights and inputs follow the formula of tokenizer_golden.py, by our names.

    COSMOS_PREDICT1=/path/to/cosmos-predict1 python test/reference/nvidia_tokenizer_golden.py
"""

import json
import math
import os
import sys

import torch

import tokenizer_golden as golden
from nvidia_tokenizer_proof import our_name

VIDEO = dict(
    latent_channels=2, encoder_block_out_channels=[4, 4, 8, 8], decode_block_out_channels=[4, 8, 8, 8],
    attention_resolutions=[32], resolution=1024, num_layers=1, patch_size=2,
    spatial_compression_ratio=8, temporal_compression_ratio=4, z_channels=5, levels=[8, 5])
IMAGE = dict(channels=32, channel_multipliers=[1, 2], num_layers=1, z_channels=3, latent_channels=2)
DISCRETE = dict(IMAGE, levels=[5, 8], patch_size=4, spatial_compression_ratio=16)
CASES = [
    ("CosmosImageTokenizer", IMAGE, [1, 3, 16, 24]),
    ("CosmosDiscreteImageTokenizer", DISCRETE, [1, 3, 32, 16]),
    ("CosmosDiscreteVideoTokenizer", VIDEO, [1, 3, 5, 16, 8]),
]


def build(kind: str, c: dict) -> torch.nn.Module:
    from cosmos_predict1.tokenizer.networks import TokenizerConfigs, TokenizerModels

    changes = dict(num_res_blocks=c["num_layers"], z_channels=c["z_channels"])
    if kind == "CosmosDiscreteVideoTokenizer":
        stem, *widths = c["encoder_block_out_channels"]
        changes |= dict(channels=stem, channels_mult=[w // stem for w in widths], embedding_dim=2, levels=c["levels"])
        model = TokenizerModels.DV.value(**dict(TokenizerConfigs.DV4x8x8_360p.value, **changes))
    else:
        changes |= dict(channels=c["channels"], channels_mult=c["channel_multipliers"])
        changes |= {k: c[k] for k in ("patch_size",) if k in c}
        if "levels" in c:
            changes |= dict(levels=c["levels"], embedding_dim=2, spatial_compression=c["spatial_compression_ratio"])
            model = TokenizerModels.DI.value(**dict(TokenizerConfigs.DI8x8_360p.value, **changes))
        else:
            changes["latent_channels"] = c["latent_channels"]
            model = TokenizerModels.CI.value(**dict(TokenizerConfigs.CI8x8_360p.value, **changes))
    if hasattr(model, "quantizer"):
        model.quantizer.dtype = torch.float32
    return model.eval()


def main() -> None:
    sys.path.insert(0, os.environ["COSMOS_PREDICT1"])
    cases = []
    for kind, config, shape in CASES:
        model = build(kind, config)
        image = kind != "CosmosDiscreteVideoTokenizer"
        levels = len(config["channel_multipliers"]) if image else len(config["encoder_block_out_channels"]) - 1
        with torch.no_grad():
            for name, weight in model.named_parameters():
                ours = our_name(name, levels, image)
                values = golden.wave(weight.numel(), sum(ours.encode()) % 97).view(weight.shape)
                if weight.dim() > 1:
                    weight.copy_(values * 1.4 / math.sqrt(weight[0].numel()))
                else:
                    weight.copy_(0.2 * values if name.endswith("bias") else 1 + 0.2 * values)
        video = golden.wave(math.prod(shape), 0.5).view(shape)
        encoded = model.encode(video)
        latent = encoded[1] if hasattr(model, "quantizer") else encoded[0]
        item = {"class": kind, "config": config, "shape": shape, "latent": golden.kept(latent)}
        item["sample"] = golden.kept(model.decode(latent))
        if hasattr(model, "quantizer"):
            item["indices"] = encoded[0].flatten().tolist()
        cases.append(item)
    path = golden.ROOT / "test/golden/nvidia_tokenizers.json"
    path.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    print(f"wrote {path.relative_to(golden.ROOT)}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
