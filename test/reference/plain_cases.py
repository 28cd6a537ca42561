"""What diffusers lacks, against plain.py: Transfer1's control branch, action-conditioned and multi-view Predict."""

import torch

from proof import Case

TINY = dict(
    in_channels=5,
    num_attention_heads=2,
    attention_head_dim=16,
    mlp_ratio=4.0,
    text_embed_dim=24,
    adaln_lora_dim=8,
    max_size=[8, 16, 16],
    patch_size=[1, 2, 2],
    rope_scale=[2.0, 1.0, 1.0],
)


def common(generator, name, batch, frames, height, width, channels, text):
    def randn(*shape):
        return torch.randn(shape, generator=generator)

    return {
        name: randn(batch, channels, frames, height, width),
        "encoder_hidden_states": randn(batch, 5, text),
        "condition_mask": (torch.rand(batch, 1, frames, 1, 1, generator=generator) > 0.5)
        .float().expand(batch, 1, frames, height, width).clone(),
        "padding_mask": (torch.rand(1, 1, 3 * height + 1, 2 * width, generator=generator) > 0.5).float(),
    }


def transfer1(name, *, batch=1, frames=3, height=6, width=10, control=4, fps=None, scale=None, **config):
    config = {**TINY, "num_control_blocks": 3, "hint_channels": 6, "extra_pos_embed_type": "learnable",
              "hint_widths": [4, 6, 8], **config}

    def inputs(generator):
        out = common(generator, "latents", batch, frames, height, width, config["in_channels"] - 1,
                     config["text_embed_dim"])
        out["controls_latents"] = torch.randn(batch, control, frames, height, width, generator=generator)
        out["timestep"] = torch.rand(batch, generator=generator) * 3 - 1
        if fps:
            out["fps"] = torch.tensor([fps])
        if scale:
            out["conditioning_scale"] = torch.tensor(scale)
        return out

    return Case(f"plain/transfer1-{name}", "CosmosTransfer1ControlNetModel", config, inputs, library="plain")


def action(name, *, batch=1, frames=3, height=6, width=10, timestep="frame", **config):
    config = {**TINY, "out_channels": 4, "num_layers": 2, "concat_padding_mask": True,
              "extra_pos_embed_type": None, "rope_scale": [1.0, 3.0, 3.0], "action_dim": 7, "num_actions": 4,
              "per_latent_frame": True, **config}

    def inputs(generator):
        out = common(generator, "hidden_states", batch, frames, height, width, config["in_channels"] - 1,
                     config["text_embed_dim"])
        count = config["num_actions"] * (frames - 1 if config["per_latent_frame"] else 1)
        out["action"] = torch.randn(batch, count, config["action_dim"], generator=generator)
        shape = (batch, 1, frames, 1, 1) if timestep == "frame" else (batch,)
        out["timestep"] = torch.rand(shape, generator=generator)
        return out

    return Case(f"plain/action-{name}", "CosmosActionTransformer3DModel", config, inputs, library="plain")


def multiview(name, *, batch=1, views=3, height=6, width=10, timestep="frame", indices=None, fps=None, **config):
    config = {**TINY, "out_channels": 4, "num_layers": 2, "concat_padding_mask": True,
              "extra_pos_embed_type": None, "rope_scale": [1 / 3, 3.0, 3.0], "state_t": 2, "n_cameras_emb": 7,
              "view_condition_dim": 6, **config}
    frames = views * config["state_t"]

    def inputs(generator):
        out = common(generator, "hidden_states", batch, frames, height, width, config["in_channels"] - 1,
                     config["text_embed_dim"])
        out["encoder_hidden_states"] = torch.randn(batch, 5 * views, config["text_embed_dim"], generator=generator)
        shape = (batch, 1, frames, 1, 1) if timestep == "frame" else (batch,)
        out["timestep"] = torch.rand(shape, generator=generator)
        if indices:
            out["view_indices"] = torch.tensor(indices)
        if fps:
            out["fps"] = torch.tensor([fps])
        return out

    return Case(f"plain/multiview-{name}", "CosmosMultiViewTransformer3DModel", config, inputs, library="plain")


def multiview_control(name, *, batch=1, views=2, height=4, width=6, control=4, scale=None, indices=None, **config):
    config = {**{k: v for k, v in TINY.items() if k != "in_channels"}, "model_channels": 32, "in_channels": 14,
              "latent_channels": 6, "n_controlnet_blocks": 2, "rope_scale": [1 / 3, 3.0, 3.0], "state_t": 2,
              "n_cameras_emb": 7, "view_condition_dim": 6, "hint_layers": 3, **config}
    frames = views * config["state_t"]

    def inputs(generator):
        out = common(generator, "latents", batch, frames, height, width, config["latent_channels"] - 2,
                     config["text_embed_dim"])
        out["encoder_hidden_states"] = torch.randn(batch, 5 * views, config["text_embed_dim"], generator=generator)
        out["controls_latents"] = torch.randn(batch, control, frames, height, width, generator=generator)
        out["timestep"] = torch.rand((batch, 1, frames, 1, 1), generator=generator)
        if scale:
            out["conditioning_scale"] = torch.tensor(scale)
        if indices:
            out["view_indices"] = torch.tensor(indices)
        return out

    return Case(f"plain/multiview-control-{name}", "CosmosMultiViewControlNetModel", config, inputs, library="plain")


CASES = [
    transfer1("7b", batch=2, fps=24.0, scale=[0.7]),
    transfer1("sample-av", in_channels=5, hint_channels=4, extra_pos_embed_type=None, batch=2),
    transfer1("published-widths", hint_widths=[16, 16, 32, 32, 96, 96, 256], scale=[0.5, 1.0, -0.3], fps=30.0),
    transfer1("one-block", num_control_blocks=1, control=2, attention_head_dim=12, num_attention_heads=3),
    action("per-frame", batch=2),
    action("per-frame, one time", batch=2, timestep="sample", frames=4),
    action("per-clip", per_latent_frame=False, num_actions=12, batch=2),
    action("per-clip, one time", per_latent_frame=False, action_dim=29, timestep="sample"),
    multiview("driving", batch=2, views=3, indices=[[0, 5, 1], [6, 2, 3]]),
    multiview("one time, fps", views=7, timestep="sample", view_condition_dim=7, fps=10.0),
    multiview("one view", views=1, state_t=3, indices=[[4]], n_cameras_emb=5, attention_head_dim=12,
              num_attention_heads=3),
    multiview_control("driving", batch=2, views=3, indices=[[0, 5, 1], [6, 2, 3]], scale=[0.7]),
    multiview_control("no hint products", hint_layers=0, control=12, scale=[1.0, -0.4]),
]
