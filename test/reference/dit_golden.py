"""Writes test/golden/dit.safetensors: what diffusers computes on models whose weights and inputs follow
from a formula, so that the file holds answers only.

    dit_golden.py        (run by hand when a case changes; test/modules/dit/test_dit.cpp reads it)

Element i of the tensor number k in alphabetical order is sin(0.7 i + 1.3 k + 0.2), in float64, then
  weights with two dimensions   / sqrt(columns)
  weights with one              * 0.1 + 1 (biases: * 0.1)
  inputs                        as they are; masks and integers are listed below
Per case NAME: `NAME.sample`, `NAME.loss` and `NAME.grads`, [parameters, 2]: of each gradient in
alphabetical order its norm and its product with cos(0.3 i). `__metadata__` holds NAME -> config and
shapes.
"""

import json

import torch
from diffusers import CosmosTransformer3DModel
from safetensors.torch import save_file

import proof
from golden import fill, gradient_probes, wave

TINY = dict(
    in_channels=2, out_channels=2, num_attention_heads=2, attention_head_dim=12, num_layers=2,
    mlp_ratio=2.0, text_embed_dim=10, adaln_lora_dim=4, max_size=[4, 8, 8], patch_size=[1, 2, 2],
)
# name -> (config, shapes of the inputs, other inputs)
CASES = {
    "predict1": (
        dict(TINY),
        {"hidden_states": [2, 2, 2, 4, 4], "encoder_hidden_states": [2, 3, 10], "timestep": [2]},
        {"fps": [30.0], "padding_mask": "zeros"},
    ),
    "predict25": (
        dict(TINY, in_channels=3, extra_pos_embed_type=None, rope_scale=[1.0, 3.0, 3.0],
             use_crossattn_projection=True, crossattn_proj_in_channels=14,
             encoder_hidden_states_channels=10),
        {"hidden_states": [1, 2, 3, 4, 2], "condition_mask": [1, 1, 3, 4, 2],
         "encoder_hidden_states": [1, 3, 14], "timestep": [1, 1, 3, 1, 1]},
        {"padding_mask": "zeros"},
    ),
    "transfer25": (
        dict(TINY, extra_pos_embed_type=None, concat_padding_mask=False, controlnet_block_every_n=1,
             img_context_dim_in=5, img_context_dim_out=24, img_context_num_tokens=2),
        {"hidden_states": [1, 2, 2, 2, 4], "encoder_hidden_states": [1, 3, 10], "timestep": [1],
         "img_context": [1, 2, 5], "block_controlnet_hidden_states.0": [1, 4, 24],
         "block_controlnet_hidden_states.1": [1, 4, 24]},
        {},
    ),
}


def inputs_of(shapes: dict, others: dict) -> proof.Tensors:
    inputs = {name: wave(shapes[name], k).float() for k, name in enumerate(sorted(shapes))}
    for name, value in others.items():
        rows, columns = shapes["hidden_states"][-2:]
        inputs[name] = torch.zeros(1, 1, rows, columns) if value == "zeros" else torch.tensor(value)
    return inputs


def main() -> None:
    tensors, metadata = {}, {"format": "pt"}
    for name, (config, shapes, others) in CASES.items():
        model = CosmosTransformer3DModel(**config).eval()
        fill(model)
        result = proof.run_reference(model, "forward", inputs_of(shapes, others))
        tensors[f"{name}.sample"] = result["sample"].contiguous()
        tensors[f"{name}.loss"] = result["loss"]
        tensors[f"{name}.grads"] = gradient_probes(model, result)
        metadata[name] = json.dumps({"config": config, "shapes": shapes, "others": others})
    path = proof.ROOT / "test/golden/dit.safetensors"
    save_file(tensors, path, metadata)
    print(f"wrote {path.relative_to(proof.ROOT)}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
