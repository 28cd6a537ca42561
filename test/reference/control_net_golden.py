"""Writes test/golden/control_net.safetensors: what diffusers' CosmosControlNetModel computes on models
whose weights and inputs follow from golden.py's formula.

    control_net_golden.py     (run by hand when a case changes; test_control_net.cpp reads it)
"""

import json

import torch
from diffusers import CosmosControlNetModel
from safetensors.torch import save_file

import proof
from golden import fill, gradient_probes, wave

TINY = dict(
    n_controlnet_blocks=2, in_channels=8, latent_channels=4, model_channels=24, num_attention_heads=2,
    attention_head_dim=12, mlp_ratio=2.0, text_embed_dim=10, adaln_lora_dim=4, max_size=[4, 8, 8],
    patch_size=[1, 2, 2], rope_scale=[1.0, 3.0, 3.0], extra_pos_embed_type=None,
)
# name -> (config, shapes of the inputs, other inputs)
CASES = {
    "transfer25": (
        dict(TINY, use_crossattn_projection=True, crossattn_proj_in_channels=14,
             encoder_hidden_states_channels=10, img_context_dim_in=5, img_context_dim_out=24),
        {"controls_latents": [1, 2, 3, 4, 2], "latents": [1, 2, 3, 4, 2],
         "condition_mask": [1, 1, 3, 4, 2], "encoder_hidden_states": [1, 3, 14],
         "img_context": [1, 2, 5], "timestep": [1, 1, 3, 1, 1]},
        {"padding_mask": "zeros", "conditioning_scale": [0.5, 2.0]},
    ),
    "bare": (
        dict(TINY, latent_channels=3, extra_pos_embed_type="learnable"),
        {"controls_latents": [2, 6, 2, 4, 4], "latents": [2, 2, 2, 4, 4],
         "encoder_hidden_states": [2, 3, 10], "timestep": [2]},
        {"padding_mask": "zeros", "fps": [30.0]},
    ),
}


def inputs_of(shapes: dict, others: dict) -> proof.Tensors:
    inputs = {name: wave(shapes[name], k).float() for k, name in enumerate(sorted(shapes))}
    for name, value in others.items():
        rows, columns = shapes["latents"][-2:]
        inputs[name] = torch.zeros(1, 1, rows, columns) if value == "zeros" else torch.tensor(value)
    return inputs


def main() -> None:
    tensors, metadata = {}, {"format": "pt"}
    for name, (config, shapes, others) in CASES.items():
        model = CosmosControlNetModel(**config).eval()
        fill(model)
        result = proof.run_reference(model, "forward", inputs_of(shapes, others))
        for key, value in result.items():
            if not key.startswith("grad."):
                tensors[f"{name}.{key}"] = value.contiguous()
        tensors[f"{name}.grads"] = gradient_probes(model, result)
        metadata[name] = json.dumps({"config": config, "shapes": shapes, "others": others})
    path = proof.ROOT / "test/golden/control_net.safetensors"
    save_file(tensors, path, metadata)
    print(f"wrote {path.relative_to(proof.ROOT)}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
