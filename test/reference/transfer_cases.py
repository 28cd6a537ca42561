"""CosmosControlNetModel: the control branch of Transfer2.5, at odd sizes."""

import torch

from proof import Case

BASE = dict(
    n_controlnet_blocks=2,
    in_channels=10,
    latent_channels=6,
    model_channels=32,
    num_attention_heads=2,
    attention_head_dim=16,
    mlp_ratio=4.0,
    text_embed_dim=24,
    adaln_lora_dim=8,
    patch_size=(1, 2, 2),
    max_size=(8, 16, 16),
    rope_scale=(1.0, 3.0, 3.0),
    extra_pos_embed_type=None,
)
PROJECTION = dict(use_crossattn_projection=True, crossattn_proj_in_channels=40,
                  encoder_hidden_states_channels=24)


def case(
    name,
    *,
    batch=1,
    frames=3,
    height=6,
    width=10,
    text_tokens=5,
    control_channels=None,
    timestep="frame",
    padding="zeros",
    condition=True,
    scale=None,
    fps=None,
    text_mask=None,
    image_tokens=0,
    **config,
):
    """A case from BASE with `config` changed; the keywords before choose what the call is given."""
    config = {**BASE, **config}

    def inputs(generator):
        def randn(*shape):
            return torch.randn(shape, generator=generator)

        def rand(*shape):
            return torch.rand(shape, generator=generator)

        text_dim = (
            config["crossattn_proj_in_channels"]
            if config.get("use_crossattn_projection")
            else config["text_embed_dim"]
        )
        room = config["in_channels"] - 2
        out = {
            "controls_latents": randn(batch, control_channels or room, frames, height, width),
            "latents": randn(
                batch, config["latent_channels"] - 1 - int(condition), frames, height, width
            ),
            "encoder_hidden_states": randn(batch, text_tokens, text_dim),
        }
        if timestep == "sample":
            out["timestep"] = rand(batch) * 3
        elif timestep == "shared":
            out["timestep"] = rand(1) * 3
        else:
            out["timestep"] = rand(batch, 1, frames, 1, 1)
        if condition:
            out["condition_mask"] = (rand(batch, 1, frames, height, width) > 0.5).float()
        if padding == "zeros":
            out["padding_mask"] = torch.zeros(1, 1, height * 8, width * 8)
        else:  # of another size, not a multiple
            out["padding_mask"] = (rand(1, 1, 3 * height + 1, 2 * width + 3) > 0.5).float()
        if scale is not None:
            out["conditioning_scale"] = torch.tensor(scale)
        if fps is not None:
            out["fps"] = torch.tensor([fps])
        if text_mask is not None:
            keep = rand(batch, text_tokens) > 0.4
            keep[:, 0] = True
            out["attention_mask"] = keep if text_mask == "bool" else randn(batch, text_tokens)
        if image_tokens:
            out["img_context"] = randn(batch, image_tokens, config["img_context_dim_in"])
        return out

    return Case(f"transfer/{name}", "CosmosControlNetModel", config, inputs)


CASES = [
    case("transfer2.5", batch=2, n_controlnet_blocks=4, in_channels=34, control_channels=4,
         latent_channels=6, image_tokens=6, img_context_dim_in=9, img_context_dim_out=32, scale=[0.7],
         **PROJECTION),
    case("no-image-context", batch=2, control_channels=4, padding="mask", **PROJECTION),
    case("image-branch-unused", img_context_dim_in=9, img_context_dim_out=32),
    case("sample-time", timestep="sample", batch=3, text_tokens=7),
    case("shared-time", timestep="shared", batch=2, scale=[0.0]),
    case("no-condition-mask", condition=False, batch=2, latent_channels=5, control_channels=3),
    case("scale-per-block", n_controlnet_blocks=3, scale=[0.5, 0.0, 2.0], batch=2),
    case("scales-repeat", n_controlnet_blocks=3, scale=[0.5, -1.5]),
    case("scales-cut", scale=[1.0, 0.3, 5.0, 7.0]),
    case("learnable-positions", extra_pos_embed_type="learnable", rope_scale=(2.0, 1.0, 1.0), fps=30.0,
         batch=2),
    case("text-mask-bool", text_mask="bool", batch=2),
    case("text-mask-float", text_mask="float", batch=2, fps=16.0, **PROJECTION),
    case("one-block", n_controlnet_blocks=1, padding="mask", frames=1),
    case("odd-heads", num_attention_heads=3, attention_head_dim=12, model_channels=36, adaln_lora_dim=5,
         mlp_ratio=2.7, text_embed_dim=11, frames=5, height=2, width=14, text_tokens=1),
    case("patch-2-1-3", patch_size=(2, 1, 3), frames=4, height=5, width=9, max_size=(8, 16, 18),
         timestep="sample", batch=2),
    case("head-128", num_attention_heads=1, attention_head_dim=128, model_channels=128,
         n_controlnet_blocks=1),
]
