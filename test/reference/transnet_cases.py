"""TransNetV2 at odd sizes, against the class of the package transnetv2-pytorch."""

import torch

from proof import Case


def case(name, *, batch=1, frames=9, **config):
    def inputs(generator):
        shape = (batch, frames, 27, 48, 3)
        return {"inputs": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)}

    config = {"F": 3, "S": 2, "D": 10, **config}
    return Case(f"transnet/{name}", "TransNetV2", config, inputs, library="transnet")


CASES = [
    case("plain", batch=2),
    case("one block a stack, one head", S=1, use_many_hot_targets=False),
    case("three blocks, no similarities", S=3, F=1, use_frame_similarity=False),
    case("no colours", frames=1, use_color_histograms=False),
    case("longer than the lookup", F=1, frames=104),
]
