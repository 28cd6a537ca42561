"""CLIP's image tower at odd sizes, and the aesthetic head, against transformers and torch."""

import torch

from proof import Case

SMALL = dict(hidden_size=24, intermediate_size=40, projection_dim=10, num_hidden_layers=3, num_attention_heads=3,
             image_size=20, patch_size=4)  # fmt: skip


def clip(name, batch=2, **config):
    config = {**SMALL, **config}

    def inputs(generator):
        side = config["image_size"]
        return {"pixel_values": torch.randn(batch, 3, side, side, generator=generator)}

    return Case(f"clip/{name}", "CLIPVisionModelWithProjection", config, inputs, library="transformers")


def head(name, widths, batch=5):
    def inputs(generator):
        return {"embeddings": 3 * torch.randn(batch, widths[0], generator=generator)}

    return Case(f"clip/{name}", "AestheticPredictor", {"widths": widths}, inputs, library="aesthetic")


CASES = [
    clip("plain"),
    clip("ViT-L/14's shape", patch_size=14, image_size=56, num_hidden_layers=2, hidden_size=64, num_attention_heads=4),
    clip("gelu", hidden_act="gelu", layer_norm_eps=1e-6, num_attention_heads=1),
    clip("patches that do not fill", image_size=22, patch_size=5, num_hidden_layers=1, batch=1),
    clip("one patch", image_size=7, patch_size=7, num_hidden_layers=2),
    head("published head", [768, 1024, 128, 64, 16, 1]),
    head("narrow head", [10, 8, 6, 5, 3, 1], batch=1),
]
