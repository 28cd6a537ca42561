"""Qwen2.5-VL, Qwen3-VL and Qwen3-VL-MoE, and language models alone, at odd sizes: text, several images,
videos, both, in batches padded on either side."""

import torch

from proof import Case

IMAGE, VIDEO, START, END = 5, 6, 7, 8  # token ids; text draws from 9 on
VOCABULARY = 61


def tokens(generator, count):
    return torch.randint(9, VOCABULARY, (count,), generator=generator).tolist()


def visual_tokens(grid, token, merge, split):
    """A grid's tokens between start and end; Qwen3-VL has a stretch for each frame of a video."""
    t, h, w = grid
    count = h * w // merge**2
    if token == VIDEO and split:
        return sum(([START] + [token] * count + [END, 9 + i] for i in range(t)), [])
    return [START] + [token] * (t * count) + [END]


def vlm_inputs(vision, rows, *, padding="none", seconds=None, positions=None, types=True):
    """rows: one list per sequence of numbers (text tokens) and ("image" | "video", grid)."""
    merge, split = vision.get("spatial_merge_size", 2), "window_size" not in vision

    def inputs(generator):
        ids, grids = [], {"image": [], "video": []}
        for row in rows:
            sequence = []
            for part in row:
                if isinstance(part, int):
                    sequence += tokens(generator, part)
                else:
                    kind, grid = part
                    grids[kind].append(grid)
                    sequence += visual_tokens(grid, IMAGE if kind == "image" else VIDEO, merge, split)
            ids.append(sequence)
        longest = max(len(s) for s in ids)
        out = {}
        left = padding == "left"
        pad = [[0] * (longest - len(s)) for s in ids]
        out["input_ids"] = torch.tensor([p + s if left else s + p for s, p in zip(ids, pad)])
        if padding != "none":
            ones = [[1] * len(s) for s in ids]
            out["attention_mask"] = torch.tensor([p + s if left else s + p for s, p in zip(ones, pad)])
        features = 3 * vision.get("temporal_patch_size", 2) * vision["patch_size"] ** 2
        for kind, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            if grids[kind]:
                grid = torch.tensor(grids[kind])
                out[f"{kind}_grid_thw"] = grid
                out[pixels] = torch.randn(int(grid.prod(-1).sum()), features, generator=generator)
        if seconds:
            out["second_per_grid_ts"] = torch.tensor(seconds)
        if positions:
            out["position_ids"] = positions(out["input_ids"])
        elif types and (grids["image"] or grids["video"]):
            out["mm_token_type_ids"] = (
                (out["input_ids"] == IMAGE).int() + 2 * (out["input_ids"] == VIDEO).int()
            )
        return out

    return inputs


QWEN25_VISION = dict(
    depth=3, hidden_size=24, intermediate_size=20, num_heads=2, patch_size=4, window_size=16,
    out_hidden_size=48, fullatt_block_indexes=[1], tokens_per_second=3,
)
QWEN3_VISION = dict(
    depth=3, hidden_size=24, intermediate_size=28, num_heads=3, patch_size=4, out_hidden_size=48,
    num_position_embeddings=25, deepstack_visual_indexes=[0, 2],
)
TEXT = dict(
    vocab_size=VOCABULARY, hidden_size=48, intermediate_size=56, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, bos_token_id=None, eos_token_id=None,
)
SPECIAL = dict(
    image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END
)
MROPE25 = dict(rope_type="default", rope_theta=1e4, mrope_section=[1, 3, 2])
MROPE3 = dict(rope_type="default", rope_theta=3e3, mrope_section=[4, 2, 1])
MOE = dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=12)


def qwen25(name, rows, *, vision={}, text={}, config={}, **inputs):
    vision = {**QWEN25_VISION, **vision}
    text = {**TEXT, "rope_parameters": MROPE25, **text}
    return Case(
        f"vlm/qwen2.5-vl {name}", "Qwen2_5_VLForConditionalGeneration",
        dict(text_config=text, vision_config=vision, **SPECIAL, **config),
        vlm_inputs(vision, rows, **inputs), library="transformers",
    )


def qwen3(name, rows, *, vision={}, text={}, config={}, moe=False, **inputs):
    vision = {**QWEN3_VISION, **vision}
    text = {**TEXT, "head_dim": 14, "rope_parameters": MROPE3, **(MOE if moe else {}), **text}
    kind = "VLMoe" if moe else "VL"
    return Case(
        f"vlm/qwen3-vl{'-moe' if moe else ''} {name}", f"Qwen3{kind}ForConditionalGeneration",
        dict(text_config=text, vision_config=vision, **SPECIAL, **config),
        vlm_inputs(vision, rows, **inputs), library="transformers",
    )


def lm(name, class_name, rows, *, padding="none", **config):
    return Case(
        f"vlm/{name}", class_name, {**TEXT, **config},
        vlm_inputs(QWEN3_VISION, rows, padding=padding), library="transformers",
    )


TEXT_ROWS = [[11], [11]]
IMAGES = [[3, ("image", (1, 8, 12)), 4, ("image", (1, 4, 6)), 2]]
MOVIE = [[2, ("video", (3, 6, 8)), 5]]
MIXED = [
    [3, ("image", (1, 6, 4)), 2, ("video", (2, 4, 8)), 4],
    [7],
    [1, ("video", (4, 4, 4)), 1, ("image", (1, 10, 6)), ("image", (1, 4, 4)), 3],
]


def shifted(ids):
    """Positions of the caller's own, different on each axis."""
    base = torch.arange(ids.shape[1]).expand(3, *ids.shape)
    return base + torch.tensor([0, 2, 5]).view(3, 1, 1)


def families(make, seconds):
    """What both families are tried on; `seconds` is what Qwen2.5-VL's videos need."""
    return [
        make("text", TEXT_ROWS),
        make("text, left padding", [[11], [4]], padding="left"),
        make("text, right padding", [[6], [13], [1]], padding="right"),
        make("two images", IMAGES),
        make("video", MOVIE, **seconds([0.9])),
        make("mixed, right padding", MIXED, padding="right", **seconds([0.5, 1.7])),
        make("mixed, left padding", MIXED, padding="left", **seconds([2.0, 0.3])),
        make("tied embeddings", IMAGES, config={"tie_word_embeddings": True}),
        make("own positions", IMAGES, positions=shifted),
        make("pad token", TEXT_ROWS, text={"pad_token_id": 10}),
    ]


CASES = (
    families(qwen25, lambda s: {"seconds": s})
    + [
        qwen25("windows of one token", IMAGES, vision={"window_size": 8}),
        qwen25("merge of three", [[2, ("image", (1, 9, 12)), 3]],
               vision={"spatial_merge_size": 3, "window_size": 24}),
        qwen25("one key head", MIXED, padding="left", text={"num_key_value_heads": 1}),
        qwen25("video, no seconds", MOVIE),
    ]
    + families(qwen3, lambda s: {})
    + [
        qwen3("bias, wide heads", MIXED, padding="right", text={"attention_bias": True, "head_dim": 32}),
        qwen3("one frame table", MOVIE, vision={"num_position_embeddings": 4}),
        qwen3("more DeepStack than layers", IMAGES, text={"num_hidden_layers": 1}),
        qwen3("exact GELU, no DeepStack", IMAGES,
              vision={"hidden_act": "gelu", "deepstack_visual_indexes": []}),
    ]
    + [
        qwen3("text", TEXT_ROWS, moe=True),
        qwen3("mixed, left padding", MIXED, moe=True, padding="left"),
        qwen3("mixed, right padding, dense layers", MIXED, moe=True, padding="right",
              text={"mlp_only_layers": [0], "decoder_sparse_step": 2, "num_hidden_layers": 4}),
        qwen3("one expert a token", IMAGES, moe=True, text={"num_experts_per_tok": 1}),
    ]
    + [
        lm("qwen2", "Qwen2ForCausalLM", [[9], [5]], padding="left"),
        lm("qwen2, tied", "Qwen2ForCausalLM", [[9]], tie_word_embeddings=True),
        lm("qwen3", "Qwen3ForCausalLM", [[9], [5]], padding="right", head_dim=20),
        lm("qwen3, linear rope", "Qwen3ForCausalLM", [[9]], head_dim=16,
           rope_parameters=dict(rope_type="linear", factor=3.0, rope_theta=1e4)),
        lm("qwen3-moe", "Qwen3MoeForCausalLM", [[9], [7]], padding="left", head_dim=12, **MOE),
        lm("qwen3-moe, normalised", "Qwen3MoeForCausalLM", [[9]], head_dim=12, norm_topk_prob=True,
           mlp_only_layers=[1], **MOE),
        lm("llama", "LlamaForCausalLM", [[9], [5]], padding="left"),
        lm("llama, biases", "LlamaForCausalLM", [[9]], attention_bias=True, mlp_bias=True, head_dim=10),
        lm("llama 3.1 rope", "LlamaForCausalLM", [[40]],
           rope_parameters=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, rope_theta=1e4,
                                high_freq_factor=4.0, original_max_position_embeddings=32)),
    ]
)
