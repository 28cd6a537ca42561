"""Writes test/golden/transnet.safetensors: what the public TransNetV2 computes where weights and frames follow
from golden.py's formula.

    transnet_golden.py     (run by hand when the case changes; test_transnet.cpp reads it)
"""

import json

import torch
from safetensors.torch import save_file

import proof
from golden import fill, gradient_probes, wave
from transnet import TransNetV2

CONFIG = {"F": 1, "S": 2, "D": 3}
SHAPE = [1, 7, 27, 48, 3]


def main() -> None:
    model = TransNetV2(**CONFIG).eval()
    fill(model)
    frames = (128 + 127 * wave(SHAPE, 0)).to(torch.uint8)
    result = proof.run_reference(model, "forward", {"inputs": frames})
    tensors = {f"tiny.{k}": v.contiguous() for k, v in result.items() if not k.startswith("grad.")}
    tensors["tiny.grads"] = gradient_probes(model, result)
    path = proof.ROOT / "test/golden/transnet.safetensors"
    save_file(tensors, path, {"format": "pt", "tiny": json.dumps({"config": CONFIG, "shape": SHAPE})})
    print(f"wrote {path.relative_to(proof.ROOT)}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
