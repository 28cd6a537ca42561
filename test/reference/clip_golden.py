"""Writes test/golden/clip.safetensors: what transformers' CLIP image tower and the aesthetic head compute where
weights and inputs follow from golden.py's formula.

    clip_golden.py     (run by hand when a case changes; test/modules/clip/test_clip.cpp reads it)
"""

import json

from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

import proof
from aesthetic import AestheticPredictor
from golden import fill, gradient_probes, wave

TOWER = dict(hidden_size=12, intermediate_size=20, projection_dim=6, num_hidden_layers=2, num_attention_heads=2,
             image_size=9, patch_size=4)  # fmt: skip
HEAD = {"widths": [6, 5, 4, 3, 2, 1]}


def main() -> None:
    cases = {
        "tower": (CLIPVisionModelWithProjection(CLIPVisionConfig(**TOWER)), TOWER, "pixel_values", [2, 3, 9, 9]),
        "head": (AestheticPredictor(**HEAD), HEAD, "embeddings", [3, 6]),
    }
    tensors, metadata = {}, {"format": "pt"}
    for name, (model, config, key, shape) in cases.items():
        model.eval()
        fill(model)
        result = proof.run_reference(model, "forward", {key: wave(shape, 0).float()})
        tensors |= {f"{name}.{k}": v.contiguous() for k, v in result.items() if not k.startswith("grad.")}
        tensors[f"{name}.grads"] = gradient_probes(model, result)
        metadata[name] = json.dumps({"config": config, "input": key, "shape": shape})
    path = proof.ROOT / "test/golden/clip.safetensors"
    save_file(tensors, path, metadata)
    print(f"wrote {path.relative_to(proof.ROOT)}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
