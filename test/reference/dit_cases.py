"""CosmosTransformer3DModel: every variant of Predict1, 2 and 2.5, at odd sizes."""

import torch

from proof import CONTROL, Case

BASE = dict(
    in_channels=4,
    out_channels=4,
    num_attention_heads=2,
    attention_head_dim=16,
    num_layers=2,
    mlp_ratio=4.0,
    text_embed_dim=24,
    adaln_lora_dim=8,
    max_size=(8, 16, 16),
    patch_size=(1, 2, 2),
    rope_scale=(2.0, 1.0, 1.0),
    concat_padding_mask=True,
    extra_pos_embed_type="learnable",
)
PREDICT2 = dict(extra_pos_embed_type=None, rope_scale=(1.0, 3.0, 3.0))


def case(
    name,
    *,
    batch=1,
    frames=3,
    height=6,
    width=10,
    text_tokens=5,
    timestep="sample",
    padding="zeros",
    condition=False,
    fps=None,
    text_mask=None,
    image_tokens=0,
    controls=0,
    gain=1.0,
    **config,
):
    """A case from BASE with `config` changed; the keywords before choose what the call is given."""
    config = {**BASE, **config}

    def inputs(generator):
        def randn(*shape):
            return torch.randn(shape, generator=generator)

        def rand(*shape):
            return torch.rand(shape, generator=generator)

        channels = config["in_channels"] - int(condition)
        text_dim = (
            config["crossattn_proj_in_channels"]
            if config.get("use_crossattn_projection")
            else config["text_embed_dim"]
        )
        out = {
            "hidden_states": randn(batch, channels, frames, height, width),
            "encoder_hidden_states": randn(batch, text_tokens, text_dim),
        }
        if timestep == "sample":
            out["timestep"] = rand(batch) * 3
        elif timestep == "shared":
            out["timestep"] = rand(1) * 3
        elif timestep == "integer":
            out["timestep"] = torch.randint(0, 1000, (batch,), generator=generator)
        else:
            out["timestep"] = rand(batch, 1, frames, 1, 1)
        if condition:
            out["condition_mask"] = (rand(batch, 1, frames, height, width) > 0.5).float()
        if config["concat_padding_mask"]:
            if padding == "zeros":
                out["padding_mask"] = torch.zeros(1, 1, height * 8, width * 8)
            else:  # of another size, not a multiple
                out["padding_mask"] = (rand(1, 1, 3 * height + 1, 2 * width + 3) > 0.5).float()
        if fps is not None:
            out["fps"] = torch.tensor([fps])
        if text_mask is not None:
            keep = rand(batch, text_tokens) > 0.4
            keep[:, 0] = True
            out["attention_mask"] = keep if text_mask == "bool" else randn(batch, text_tokens)
        if image_tokens:
            out["img_context"] = randn(batch, image_tokens, config["img_context_dim_in"])
        if controls:
            pt, ph, pw = config["patch_size"]
            tokens = (frames // pt) * (height // ph) * (width // pw)
            dim = config["num_attention_heads"] * config["attention_head_dim"]
            for i in range(controls):
                out[f"{CONTROL}{i}"] = 0.3 * randn(batch, tokens, dim)
        return out

    return Case(f"dit/{name}", "CosmosTransformer3DModel", config, inputs, weight_gain=gain)


CASES = [
    case("predict1-text2world", fps=24.0, timestep="integer"),
    case("predict1-video2world", in_channels=5, condition=True, fps=30.0, batch=2),
    case("predict1-14b-rope", rope_scale=(2.0, 2.0, 2.0), fps=24.0, attention_head_dim=20, padding="mask"),
    case("predict2-text2image", frames=1, **{**PREDICT2, "rope_scale": (1.0, 4.0, 4.0)}),
    case("predict2-head-64", num_attention_heads=1, attention_head_dim=64, num_layers=1, **PREDICT2),
    case("predict2-head-128", num_attention_heads=1, attention_head_dim=128, num_layers=1, **PREDICT2),
    case("predict2-video2world", in_channels=5, condition=True, timestep="frame", batch=2, fps=16.0,
         **{**PREDICT2, "rope_scale": (20 / 24, 2.0, 2.0)}),
    case("predict2.5", in_channels=5, condition=True, timestep="frame", batch=2, padding="mask",
         use_crossattn_projection=True, crossattn_proj_in_channels=40,
         encoder_hidden_states_channels=24, **PREDICT2),
    case("predict2.5-sample-time", in_channels=5, condition=True, batch=3, text_tokens=7,
         use_crossattn_projection=True, crossattn_proj_in_channels=40,
         encoder_hidden_states_channels=24, **PREDICT2),
    case("transfer2.5-base", in_channels=5, condition=True, timestep="frame", batch=2,
         num_layers=5, controls=3, controlnet_block_every_n=2, image_tokens=6,
         img_context_dim_in=9, img_context_dim_out=32, use_crossattn_projection=True,
         crossattn_proj_in_channels=40, encoder_hidden_states_channels=24, **PREDICT2),
    case("image-context", image_tokens=3, img_context_dim_in=7, img_context_dim_out=32,
         img_context_num_tokens=3, **PREDICT2),
    case("control-residuals", num_layers=4, controls=2, controlnet_block_every_n=3, batch=2),
    case("control-learnable", num_layers=3, controls=3, controlnet_block_every_n=1),
    case("text-mask-bool", text_mask="bool", batch=2),
    case("text-mask-float", text_mask="float", batch=2, **PREDICT2),
    case("no-padding-mask", concat_padding_mask=False, batch=2),
    case("shared-time", timestep="shared", batch=2),
    case("odd-heads", num_attention_heads=3, attention_head_dim=12, adaln_lora_dim=5, mlp_ratio=2.7,
         text_embed_dim=11, frames=5, height=2, width=14, text_tokens=1, **PREDICT2),
    case("patch-2-1-3", patch_size=(2, 1, 3), frames=4, height=5, width=9, max_size=(8, 16, 18)),
    case("patch-1", patch_size=(1, 1, 1), frames=2, height=3, width=5, out_channels=7,
         timestep="frame", **PREDICT2),
    case("one-token", frames=1, height=2, width=2, text_tokens=1, batch=2, **PREDICT2),
    case("deep", num_layers=8, batch=2, timestep="frame", gain=0.8, **PREDICT2),
]
