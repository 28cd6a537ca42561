"""The formula of the golden files: weights and inputs that follow from it, so that a file holds answers
only (test/support/golden.h has the same in C++)."""

import math

import torch


def wave(shape, k: int) -> torch.Tensor:
    """Element i is sin(0.7 i + 1.3 k + 0.2), in float64."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.7 * i + 1.3 * k + 0.2).reshape(shape)


def fill(model: torch.nn.Module) -> None:
    """Tensor k in alphabetical order: the wave / sqrt(columns) with two dimensions or more, * 0.1 + 1 with
    one (biases: * 0.1)."""
    with torch.no_grad():
        for k, (name, weight) in enumerate(sorted(model.named_parameters())):
            value = wave(weight.shape, k)
            if weight.dim() > 1:
                value = value / math.sqrt(weight.shape[1])
            else:
                value = 0.1 * value + (0.0 if name.endswith("bias") else 1.0)
            weight.copy_(value)


def gradient_probes(model: torch.nn.Module, result: dict) -> torch.Tensor:
    """Of each gradient in alphabetical order its norm and its product with cos(0.3 i): [parameters, 2]."""
    rows = []
    for name, weight in sorted(model.named_parameters()):
        grad = result.get(f"grad.{name}", torch.zeros(1)).double().flatten()
        probe = torch.cos(0.3 * torch.arange(grad.numel(), dtype=torch.float64))
        rows.append([grad.norm().item(), (grad @ probe).item()])
    return torch.tensor(rows, dtype=torch.float32)
