"""Random checkpoints in NVIDIA's own spelling, and what the Hugging Face classes must get from them.

The spelling is written out here from the names that NVIDIA's files carry; what each tensor becomes is
said by diffusers' own single-file converters where they know the model.
"""

import diffusers
import torch
from diffusers.loaders import single_file_utils

Tensors = dict[str, torch.Tensor]


def _attention(dim: int, heads_dim: int, text: int, rand) -> Tensors:
    return {
        "q_proj.weight": rand(dim, dim),
        "k_proj.weight": rand(dim, text),
        "v_proj.weight": rand(dim, text),
        "q_norm.weight": rand(heads_dim),
        "k_norm.weight": rand(heads_dim),
        "output_proj.weight": rand(dim, dim),
    }


def _predict2_block(c: dict, rand, image: bool) -> Tensors:
    dim = c["num_attention_heads"] * c["attention_head_dim"]
    rank = c["adaln_lora_dim"]
    block = {}
    for part in ("self_attn", "cross_attn", "mlp"):
        block[f"adaln_modulation_{part}.1.weight"] = rand(rank, dim)
        block[f"adaln_modulation_{part}.2.weight"] = rand(3 * dim, rank)
    for part, text in (("self_attn", dim), ("cross_attn", c["text_embed_dim"])):
        for name, value in _attention(dim, c["attention_head_dim"], text, rand).items():
            block[f"{part}.{name}"] = value
    if image:
        for name in ("q_img", "k_img", "v_img"):
            block[f"cross_attn.{name}.weight"] = rand(dim, dim)
        for name in ("q_img_norm", "k_img_norm"):
            block[f"cross_attn.{name}.weight"] = rand(c["attention_head_dim"])
    hidden = int(dim * c["mlp_ratio"])
    block["mlp.layer1.weight"] = rand(hidden, dim)
    block["mlp.layer2.weight"] = rand(dim, hidden)
    return block


def _prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def predict2(c: dict, generator: torch.Generator, control: int = 0) -> Tensors:
    """A MiniTrainDIT's state dict, without a prefix; `control` blocks of Transfer2.5 beside it."""

    def rand(*shape):
        return torch.randn(*shape, generator=generator)

    dim = c["num_attention_heads"] * c["attention_head_dim"]
    image = bool(c.get("img_context_dim_in"))
    net = {
        "x_embedder.proj.1.weight": rand(dim, (c["in_channels"] + 1) * 4),
        "t_embedder.1.linear_1.weight": rand(dim, dim),
        "t_embedder.1.linear_2.weight": rand(3 * dim, dim),
        "t_embedding_norm.weight": rand(dim),
        "final_layer.linear.weight": rand(c["out_channels"] * 4, dim),
        "final_layer.adaln_modulation.1.weight": rand(c["adaln_lora_dim"], dim),
        "final_layer.adaln_modulation.2.weight": rand(2 * dim, c["adaln_lora_dim"]),
        "pos_embedder.seq": torch.arange(240.0),
        "pos_embedder.dim_spatial_range": rand(2),
        "pos_embedder.dim_temporal_range": rand(2),
        "accum_video_sample_counter": torch.tensor(3.0),
        "accum_iteration": torch.tensor(7),
    }
    for i in range(c["num_layers"]):
        net |= _prefixed(f"blocks.{i}", _predict2_block(c, rand, image))
    if c.get("use_crossattn_projection"):
        wide, narrow = c["crossattn_proj_in_channels"], c["encoder_hidden_states_channels"]
        net |= {"crossattn_proj.0.weight": rand(narrow, wide), "crossattn_proj.0.bias": rand(narrow)}
    if image:
        out = c["img_context_dim_out"]
        net["img_context_proj.0.weight"] = rand(out, c["img_context_dim_in"])
        net["img_context_proj.0.bias"] = rand(out)
    if control:
        net["control_embedder.proj.1.weight"] = rand(dim, 130 * 4)
    for i in range(control):
        net |= _prefixed(f"control_blocks.{i}", _predict2_block(c, rand, image))
        for part in ["after_proj"] + ["before_proj"] * (i == 0):
            net[f"control_blocks.{i}.{part}.weight"] = rand(dim, dim)
            net[f"control_blocks.{i}.{part}.bias"] = rand(dim)
    return net


def predict1(c: dict, generator: torch.Generator) -> Tensors:
    """A GeneralDIT's state dict, without a prefix."""

    def rand(*shape):
        return torch.randn(*shape, generator=generator)

    dim = c["num_attention_heads"] * c["attention_head_dim"]
    rank, text = c["adaln_lora_dim"], c["text_embed_dim"]
    net = {
        "x_embedder.proj.1.weight": rand(dim, (c["in_channels"] + 1) * 4),
        "t_embedder.1.linear_1.weight": rand(dim, dim),
        "t_embedder.1.linear_2.weight": rand(3 * dim, dim),
        "affline_norm.weight": rand(dim),
        "final_layer.linear.weight": rand(c["out_channels"] * 4, dim),
        "final_layer.adaLN_modulation.1.weight": rand(rank, dim),
        "final_layer.adaLN_modulation.2.weight": rand(2 * dim, rank),
        "pos_embedder.seq": torch.arange(128.0),
        "logvar.0.freqs": rand(128),
        "logvar.0.phases": rand(128),
        "logvar.1.weight": rand(1, 128),
    }
    for axis, size in zip("thw", (c["max_size"][0], c["max_size"][1] // 2, c["max_size"][2] // 2)):
        net[f"extra_pos_embedder.pos_emb_{axis}"] = rand(size, dim)
    for i in range(c["num_layers"]):
        block = f"blocks.block{i}.blocks"
        for j, width in enumerate((dim, text)):
            attn = f"{block}.{j}.block.attn"
            net |= {
                f"{attn}.to_q.0.weight": rand(dim, dim),
                f"{attn}.to_q.1.weight": rand(c["attention_head_dim"]),
                f"{attn}.to_k.0.weight": rand(dim, width),
                f"{attn}.to_k.1.weight": rand(c["attention_head_dim"]),
                f"{attn}.to_v.0.weight": rand(dim, width),
                f"{attn}.to_out.0.weight": rand(dim, dim),
            }
        hidden = int(dim * c["mlp_ratio"])
        net[f"{block}.2.block.layer1.weight"] = rand(hidden, dim)
        net[f"{block}.2.block.layer2.weight"] = rand(dim, hidden)
        for j in range(3):
            net[f"{block}.{j}.adaLN_modulation.1.weight"] = rand(rank, dim)
            net[f"{block}.{j}.adaLN_modulation.2.weight"] = rand(3 * dim, rank)
    return net


def wan(c: dict, generator: torch.Generator) -> Tensors:
    """A WanVAE_'s state dict (Wan2.1_VAE.pth)."""

    def rand(*shape):
        return torch.randn(*shape, generator=generator)

    def conv(name, out, inp, *kernel):
        return {f"{name}.weight": rand(out, inp, *kernel), f"{name}.bias": rand(out)}

    def residual(name, inp, out):
        net = {f"{name}.residual.0.gamma": rand(inp, 1, 1, 1), f"{name}.residual.3.gamma": rand(out, 1, 1, 1)}
        net |= conv(f"{name}.residual.2", out, inp, 3, 3, 3) | conv(f"{name}.residual.6", out, out, 3, 3, 3)
        return net | (conv(f"{name}.shortcut", out, inp, 1, 1, 1) if inp != out else {})

    def middle(name, dim):
        net = residual(f"{name}.0", dim, dim) | residual(f"{name}.2", dim, dim)
        net[f"{name}.1.norm.gamma"] = rand(dim, 1, 1)
        return net | conv(f"{name}.1.to_qkv", 3 * dim, dim, 1, 1) | conv(f"{name}.1.proj", dim, dim, 1, 1)

    widths = [c["base_dim"] * m for m in c["dim_mult"]]
    down, z, last = c["temperal_downsample"], c["z_dim"], len(widths) - 1
    net = conv("encoder.conv1", c["base_dim"], 3, 3, 3, 3)
    index, width = 0, c["base_dim"]
    for i, out in enumerate(widths):
        for _ in range(c["num_res_blocks"]):
            net |= residual(f"encoder.downsamples.{index}", width, out)
            index, width = index + 1, out
        if i < last:
            net |= conv(f"encoder.downsamples.{index}.resample.1", width, width, 3, 3)
            if down[i]:
                net |= conv(f"encoder.downsamples.{index}.time_conv", width, width, 3, 1, 1)
            index += 1
    net |= middle("encoder.middle", width)
    net["encoder.head.0.gamma"] = rand(width, 1, 1, 1)
    net |= conv("encoder.head.2", 2 * z, width, 3, 3, 3)
    net |= conv("conv1", 2 * z, 2 * z, 1, 1, 1) | conv("conv2", z, z, 1, 1, 1)
    net |= conv("decoder.conv1", width, z, 3, 3, 3) | middle("decoder.middle", width)
    index = 0
    for i, out in enumerate(reversed(widths)):
        if i > 0:
            width //= 2
        for _ in range(c["num_res_blocks"] + 1):
            net |= residual(f"decoder.upsamples.{index}", width, out)
            index, width = index + 1, out
        if i < last:
            net |= conv(f"decoder.upsamples.{index}.resample.1", width // 2, width, 3, 3)
            if down[last - 1 - i]:
                net |= conv(f"decoder.upsamples.{index}.time_conv", 2 * width, width, 3, 1, 1)
            index += 1
    net["decoder.head.0.gamma"] = rand(width, 1, 1, 1)
    return net | conv("decoder.head.2", 3, width, 3, 3, 3)


class Kept(dict):
    """diffusers' converter empties the dict before it looks into it for the sign of Predict1."""

    def pop(self, key):
        return self[key]


def expected_transformer(net: Tensors) -> Tensors:
    """What diffusers' single-file loader makes of the base's keys."""
    native = {f"net.{k}": v for k, v in net.items() if "control" not in k and not k.startswith("accum_")}
    return single_file_utils.convert_cosmos_transformer_checkpoint_to_diffusers(Kept(native))


def expected_control(net: Tensors) -> Tensors:
    """The control branch with its copies of the base, by the rules of diffusers' script."""
    base = expected_transformer(net)
    renamed = single_file_utils.convert_cosmos_transformer_checkpoint_to_diffusers(
        {f"net.{k.replace('control_', '', 1)}": v for k, v in net.items() if k.startswith("control_blocks")}
        | {"net.blocks.0.self_attn.q_proj.weight": net["control_blocks.0.self_attn.q_proj.weight"]}
    )
    control = {k.replace("transformer_blocks", "control_blocks"): v for k, v in renamed.items()}
    control["patch_embed.proj.weight"] = net["control_embedder.proj.1.weight"]
    control["patch_embed_base.proj.weight"] = base["patch_embed.proj.weight"]
    shared = ("time_embed.", "crossattn_proj.", "img_context_proj.")
    return control | {k: v for k, v in base.items() if k.startswith(shared)}


def expected_wan(net: Tensors) -> Tensors:
    return single_file_utils.convert_wan_vae_to_diffusers(dict(net))


TINY = dict(num_attention_heads=2, attention_head_dim=12, num_layers=2, mlp_ratio=2.0, text_embed_dim=10)
TINY |= dict(adaln_lora_dim=6, out_channels=16, extra_pos_embed_type=None, rope_scale=[1.0, 3.0, 3.0])
CONFIGS = {
    "Predict1 text": TINY
    | dict(in_channels=16, extra_pos_embed_type="learnable", max_size=[6, 20, 24], rope_scale=[2.0, 1.0, 1.0]),
    "Predict1 video": TINY
    | dict(in_channels=17, extra_pos_embed_type="learnable", max_size=[6, 20, 24], rope_scale=[2.0, 1.0, 1.0]),
    "Predict2 image": TINY | dict(in_channels=16, num_layers=12, rope_scale=[1.0, 4.0, 4.0]),
    "Predict2 video": TINY | dict(in_channels=17),
    "Predict2.5": TINY
    | dict(
        in_channels=17,
        use_crossattn_projection=True,
        crossattn_proj_in_channels=22,
        encoder_hidden_states_channels=10,
    ),
}
TRANSFER = CONFIGS["Predict2.5"] | dict(
    num_layers=4, img_context_dim_in=14, img_context_dim_out=24, controlnet_block_every_n=2
)
WAN = dict(base_dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True])
