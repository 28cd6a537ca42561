"""Writes test/golden/vlm.safetensors: what transformers computes on small vision-language models whose
weights and pixels follow from a formula (golden.py).

    vlm_golden.py        (run by hand when a case changes; test/modules/vlm/test_vlm.cpp reads it)

Per case NAME: `NAME.logits`, `NAME.loss` and `NAME.grads`. `__metadata__` holds NAME -> class, config and
inputs; pixel values are waves, k = 0 for images and 1 for videos, of the shapes given.
"""

import json

import torch
from safetensors.torch import save_file

import proof
from golden import fill, gradient_probes, wave

TEXT = dict(
    vocab_size=20, hidden_size=16, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, bos_token_id=None, eos_token_id=None,
)
VISION = dict(
    depth=2, hidden_size=8, intermediate_size=6, num_heads=2, patch_size=2, out_hidden_size=16,
    in_channels=2,
)
SPECIAL = dict(image_token_id=5, video_token_id=6, vision_start_token_id=7, vision_end_token_id=8)
MROPE25 = dict(rope_type="default", rope_theta=1e3, mrope_section=[1, 1, 2])
MROPE3 = dict(rope_type="default", rope_theta=1e3, mrope_section=[2, 1, 1])
# An image of 2 x 4 patches, a video of two frames of 2 x 2; the second row is padded.
IMAGE, VIDEO = [[1, 2, 4]], [[2, 2, 2]]
QWEN25_IDS = [[9, 7, 5, 5, 8, 7, 6, 6, 8, 12], [13, 9, 17, 11, 0, 0, 0, 0, 0, 0]]
QWEN3_IDS = [[9, 7, 5, 5, 8, 7, 6, 8, 12, 7, 6, 8], [13, 9, 17, 11, 0, 0, 0, 0, 0, 0, 0, 0]]
MASK = [1, 1, 1, 1]

CASES = {
    "qwen2.5-vl": (
        "Qwen2_5_VLForConditionalGeneration",
        dict(text_config=dict(TEXT, rope_parameters=MROPE25),
             vision_config=dict(VISION, window_size=4, fullatt_block_indexes=[1], tokens_per_second=2),
             **SPECIAL),
        QWEN25_IDS, [1.5],
    ),
    "qwen3-vl": (
        "Qwen3VLForConditionalGeneration",
        dict(text_config=dict(TEXT, head_dim=8, rope_parameters=MROPE3),
             vision_config=dict(VISION, num_position_embeddings=9, deepstack_visual_indexes=[0]),
             tie_word_embeddings=True, **SPECIAL),
        QWEN3_IDS, None,
    ),
    "qwen3-vl-moe": (
        "Qwen3VLMoeForConditionalGeneration",
        dict(text_config=dict(TEXT, head_dim=8, rope_parameters=MROPE3, num_experts=3,
                              num_experts_per_tok=2, moe_intermediate_size=4),
             vision_config=dict(VISION, num_position_embeddings=9, deepstack_visual_indexes=[1]),
             **SPECIAL),
        QWEN3_IDS, None,
    ),
}


def main() -> None:
    tensors, metadata = {}, {"format": "pt"}
    features = 2 * 2 * 2 * 2
    for name, (class_name, config, ids, seconds) in CASES.items():
        case = proof.Case(name, class_name, config, lambda g: {}, library="transformers")
        model = proof.make_model(case).eval()
        fill(model)
        ids = torch.tensor(ids)
        inputs = {
            "input_ids": ids,
            "attention_mask": (ids != 0).long(),
            "mm_token_type_ids": (ids == 5).int() + 2 * (ids == 6).int(),
            "pixel_values": wave([8, features], 0).float(),
            "image_grid_thw": torch.tensor(IMAGE),
            "pixel_values_videos": wave([8, features], 1).float(),
            "video_grid_thw": torch.tensor(VIDEO),
        }
        if seconds:
            inputs["second_per_grid_ts"] = torch.tensor(seconds)
        result = proof.run_reference(model, "forward", inputs)
        tensors[f"{name}.logits"] = result["logits"].contiguous()
        tensors[f"{name}.loss"] = result["loss"]
        tensors[f"{name}.grads"] = gradient_probes(model, result)
        given = {k: v.tolist() for k, v in inputs.items() if not k.startswith("pixel")}
        shapes = {k: list(v.shape) for k, v in inputs.items() if k.startswith("pixel")}
        metadata[name] = json.dumps(
            {"class": class_name, "config": config, "inputs": given, "pixels": shapes}
        )
    path = proof.ROOT / "test/golden/vlm.safetensors"
    save_file(tensors, path, metadata)
    print(f"wrote {path.relative_to(proof.ROOT)}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
