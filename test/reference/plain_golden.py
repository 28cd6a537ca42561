"""Writes test/golden/plain.safetensors: what plain.py computes on models whose weights and inputs follow from
golden.py's formula.

    plain_golden.py     (run by hand when a case changes; test_plain_models.cpp reads it)
"""

import json

import torch
from safetensors.torch import save_file

import plain
import proof
from golden import fill, gradient_probes, wave

TINY = dict(in_channels=3, num_attention_heads=2, attention_head_dim=12, mlp_ratio=2.0, text_embed_dim=10,
            adaln_lora_dim=4, max_size=[4, 8, 8], patch_size=[1, 2, 2], rope_scale=[1.0, 3.0, 3.0])
# name -> (class, config, shapes of the inputs, other inputs)
CASES = {
    "transfer1": (
        plain.CosmosTransfer1ControlNetModel,
        dict(TINY, num_control_blocks=2, hint_channels=4, hint_widths=[3, 5],
             extra_pos_embed_type="learnable"),
        {"controls_latents": [1, 2, 2, 4, 4], "latents": [1, 2, 2, 4, 4], "condition_mask": [1, 1, 2, 4, 4],
         "encoder_hidden_states": [1, 3, 10], "timestep": [1]},
        {"padding_mask": "zeros", "conditioning_scale": [0.5]},
    ),
    "action": (
        plain.CosmosActionTransformer3DModel,
        dict(TINY, out_channels=2, num_layers=1, extra_pos_embed_type=None, action_dim=3, num_actions=2,
             per_latent_frame=True),
        {"hidden_states": [1, 2, 3, 4, 2], "condition_mask": [1, 1, 3, 4, 2], "action": [1, 4, 3],
         "encoder_hidden_states": [1, 3, 10], "timestep": [1, 1, 3, 1, 1]},
        {"padding_mask": "zeros"},
    ),
    "multiview": (
        plain.CosmosMultiViewTransformer3DModel,
        dict(TINY, out_channels=2, num_layers=1, extra_pos_embed_type=None, state_t=2, n_cameras_emb=3,
             view_condition_dim=4),
        {"hidden_states": [1, 2, 4, 4, 2], "condition_mask": [1, 1, 4, 4, 2],
         "encoder_hidden_states": [1, 6, 10], "timestep": [1, 1, 4, 1, 1]},
        {"padding_mask": "zeros"},
    ),
    "multiview-control": (
        plain.CosmosMultiViewControlNetModel,
        {**{k: v for k, v in TINY.items() if k != "in_channels"}, "model_channels": 24, "in_channels": 5,
         "latent_channels": 4, "n_controlnet_blocks": 1, "state_t": 2, "n_cameras_emb": 3, "view_condition_dim": 2,
         "hint_layers": 2},
        {"controls_latents": [1, 2, 4, 4, 2], "latents": [1, 2, 4, 4, 2], "condition_mask": [1, 1, 4, 4, 2],
         "encoder_hidden_states": [1, 6, 10], "timestep": [1]},
        {"padding_mask": "zeros", "conditioning_scale": [0.5]},
    ),
}


def main() -> None:
    tensors, metadata = {}, {"format": "pt"}
    for name, (model_class, config, shapes, others) in CASES.items():
        model = model_class(**config).eval()
        fill(model)
        latents = "latents" if "latents" in shapes else "hidden_states"
        inputs = {key: wave(shapes[key], k).float() for k, key in enumerate(sorted(shapes))}
        for key, value in others.items():
            rows, columns = shapes[latents][-2:]
            inputs[key] = torch.zeros(1, 1, rows, columns) if value == "zeros" else torch.tensor(value)
        result = proof.run_reference(model, "forward", inputs)
        for key, value in result.items():
            if not key.startswith("grad."):
                tensors[f"{name}.{key}"] = value.contiguous()
        tensors[f"{name}.grads"] = gradient_probes(model, result)
        config["_class_name"] = model_class.__name__
        metadata[name] = json.dumps(
            {"config": config, "shapes": shapes, "others": others, "latents": latents})
    path = proof.ROOT / "test/golden/plain.safetensors"
    save_file(tensors, path, metadata)
    print(f"wrote {path.relative_to(proof.ROOT)}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
