"""AutoencoderKLCosmos and AutoencoderKLWan: every kind of level, patches, odd sizes, 1 to 17 frames."""

import torch

from proof import Case

COSMOS = dict(
    latent_channels=4,
    encoder_block_out_channels=[8, 12, 20],
    decode_block_out_channels=[10, 8, 12],
    attention_resolutions=[32],
    resolution=64,
    num_layers=1,
    patch_size=2,
    spatial_compression_ratio=4,
    temporal_compression_ratio=4,
    latents_mean=None,
    latents_std=None,
)
FOUR_LEVELS = dict(
    COSMOS, encoder_block_out_channels=[8, 12, 16, 20], decode_block_out_channels=[10, 8, 12, 16]
)
WAN = dict(
    base_dim=8,
    z_dim=3,
    dim_mult=[1, 2, 2],
    num_res_blocks=1,
    temperal_downsample=[True, True],
    latents_mean=[0.0] * 3,
    latents_std=[1.0] * 3,
)
WAN22 = dict(WAN, is_residual=True, patch_size=2, in_channels=12, out_channels=12)


def tokenizer(name, kind, config, frames, height, width, methods="forward encode decode", batch=1):
    """One case per method; `frames`, `height`, `width` are the video's."""
    time, space = config.pop("_ratio")
    z = config.get("latent_channels", config.get("z_dim"))

    def inputs(method):
        def make(generator):
            if method == "decode":
                shape = (batch, z, 1 + (frames - 1) // time, height // space, width // space)
                return {"latent": torch.randn(shape, generator=generator)}
            shape = (batch, 3, frames, height, width)
            return {"sample": torch.rand(shape, generator=generator) * 2 - 1}

        return make

    return [
        Case(f"{name}, {frames} x {height} x {width}", kind, config, inputs(m), m)
        for m in methods.split()
    ]


def cosmos(name, frames, height, width, ratio, base=COSMOS, batch=1, **config):
    config = {**base, **config, "_ratio": ratio}
    return tokenizer("cosmos " + name, "AutoencoderKLCosmos", config, frames, height, width,
                     batch=batch)  # fmt: skip


def wan(name, frames, height, width, ratio, base=WAN, batch=1, **config):
    config = {**base, **config, "_ratio": ratio}
    return tokenizer("wan " + name, "AutoencoderKLWan", config, frames, height, width, batch=batch)


CASES = (
    cosmos("4x4x4", 1, 8, 12, (4, 4))
    + cosmos("4x4x4", 5, 12, 20, (4, 4), batch=2)
    + cosmos("4x4x4", 17, 8, 16, (4, 4))
    + cosmos("4x8x8", 9, 24, 40, (4, 8), FOUR_LEVELS, spatial_compression_ratio=8)
    + cosmos("8x8x8", 9, 16, 24, (8, 8), FOUR_LEVELS, spatial_compression_ratio=8,
             temporal_compression_ratio=8, patch_size=4, num_layers=2)
    + cosmos("8x16x16", 9, 16, 48, (8, 16), FOUR_LEVELS, spatial_compression_ratio=16,
             temporal_compression_ratio=8, patch_size=4)
    + cosmos("rearranged patches", 5, 8, 12, (4, 4), patch_type="rearrange")
    + cosmos("no patches, attention everywhere", 5, 16, 24, (2, 4), FOUR_LEVELS, patch_size=1,
             temporal_compression_ratio=2, attention_resolutions=[64, 32, 16])
    + cosmos("without encoder blocks", 9, 16, 24, (4, 8), num_layers=0, patch_size=4,
             spatial_compression_ratio=8, encoder_block_out_channels=[12, 12, 12])
    + wan("4x4x4", 1, 8, 12, (4, 4))
    + wan("4x4x4", 5, 12, 20, (4, 4), batch=2)
    + wan("4x4x4", 17, 8, 16, (4, 4))
    + wan("2.1 shape", 9, 16, 24, (4, 8), dim_mult=[1, 2, 4, 4], num_res_blocks=2,
          temperal_downsample=[False, True, True])
    + wan("own decoder width", 5, 12, 8, (2, 4), decoder_base_dim=12, dim_mult=[2, 1, 3],
          temperal_downsample=[True, False])
    + wan("2.2 shape", 9, 16, 32, (4, 16), WAN22, dim_mult=[1, 2, 4, 4],
          temperal_downsample=[False, True, True])
    + wan("2.2, own decoder width", 5, 16, 24, (2, 8), WAN22, decoder_base_dim=16,
          temperal_downsample=[False, True])
)  # fmt: skip
