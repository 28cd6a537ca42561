"""The head of improved-aesthetic-predictor, which is published as a script: the layout of its state dict."""

import json
import pathlib

import torch
from safetensors.torch import save_file


class AestheticPredictor(torch.nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.widths = widths
        a, b, c, d, e, f = widths
        linear, dropout = torch.nn.Linear, torch.nn.Dropout
        self.layers = torch.nn.Sequential(linear(a, b), dropout(0.2), linear(b, c), dropout(0.2), linear(c, d),
                                          dropout(0.1), linear(d, e), linear(e, f))  # fmt: skip

    def forward(self, embeddings):
        return {"scores": self.layers(torch.nn.functional.normalize(embeddings, dim=-1)).squeeze(-1)}

    def save_pretrained(self, folder):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True)
        save_file(self.state_dict(), folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps({"widths": self.widths, "_class_name": "AestheticPredictor"}))
