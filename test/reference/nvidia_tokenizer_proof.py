"""Cosmos Tokenizer against NVIDIA's own code. Writes docs/proofs/nvidia_tokenizers.md.

    COSMOS_PREDICT1=/path/to/cosmos-predict1 nvidia_tokenizer_proof.py [--no-table]

Networks of cosmos_predict1.tokenizer with random weights are traced and saved as NVIDIA ships them
(encoder.jit, decoder.jit), come in through `cosmos-convert import`, and `cosmos-forward --backward`
must give what NVIDIA's network gives: latents, codes and their indices, pictures, every gradient.
Without COSMOS_PREDICT1 (github.com/nvidia-cosmos/cosmos-predict1; needs einops and loguru) nothing is
done.
"""

import argparse
import datetime
import os
import pathlib
import sys
import tempfile
import warnings

import torch

import native_proof
import proof

VIDEO_NAMES = {
    ".block.": ".resnets.",
    "downsample": "downsamplers.0",
    "upsample": "upsamplers.0",
    "mid.block_1": "mid_block.resnets.0",
    "mid.attn_1.0": "mid_block.attentions.0",
    "mid.attn_1.1": "mid_block.temp_attentions.0",
    "mid.block_2": "mid_block.resnets.1",
    ".q.conv3d": ".to_q",
    ".k.conv3d": ".to_k",
    ".v.conv3d": ".to_v",
    ".proj_out.conv3d": ".to_out.0",
    ".0.conv3d": ".conv_s",
    ".1.conv3d": ".conv_t",
    "nin_shortcut": "conv_shortcut",
    ".conv3d": "",
}
IMAGE_NAMES = {
    ".block.": ".resnets.",
    "downsample": "downsamplers.0",
    "upsample": "upsamplers.0",
    "mid.block_1": "mid_block.resnets.0",
    "mid.attn_1": "mid_block.attentions.0",
    "mid.block_2": "mid_block.resnets.1",
    ".q.": ".to_q.",
    ".k.": ".to_k.",
    ".v.": ".to_v.",
    "proj_out": "to_out.0",
    "nin_shortcut": "conv_shortcut",
    ".attn.": ".attentions.",
}


def our_name(name: str, levels: int, image: bool) -> str:
    parts = name.split(".")
    if parts[1] == "down":
        parts[1] = "down_blocks"
    elif parts[1] == "up":
        parts[1:3] = ["up_blocks", str(levels - 1 - int(parts[2]))]
    if not image and "attn" in parts:
        at = parts.index("attn")  # attn.J.0 over space, attn.J.1 over time
        parts[at : at + 3] = [("attentions", "temp_attentions")[int(parts[at + 2])], parts[at + 1]]
    name = ".".join(parts)
    for theirs, ours in (IMAGE_NAMES if image else VIDEO_NAMES).items():
        name = name.replace(theirs, ours)
    return name


SMALL = dict(channels=32, channels_mult=[1, 2, 2], num_res_blocks=1, z_channels=8, latent_channels=4)
LEVELS = dict(levels=[8, 5, 4, 3], embedding_dim=4)
# (kind, NVIDIA's config, changes, video's frames, height, width)
CASES = [
    ("CV", "CV8x8x8_720p", dict(SMALL, channels=8, z_channels=4), 9, 16, 24),
    ("CV", "CV4x8x8_360p", dict(SMALL, channels=8, z_channels=4, resolution=64, attn_resolutions=[16]), 9, 16, 24),
    ("CV", "CV8x8x8_720p", dict(SMALL, channels=8, z_channels=4, spatial_compression=16), 9, 32, 16),
    ("DV", "DV4x8x8_360p", SMALL | LEVELS | dict(channels=8), 5, 16, 24),
    ("DV", "DV8x16x16_720p", SMALL | LEVELS | dict(channels=8, spatial_compression=8), 9, 16, 16),
    ("DV", "DV8x16x16_720p", SMALL | LEVELS | dict(channels=8), 9, 32, 16),
    ("CI", "CI8x8_360p", SMALL, 1, 16, 24),
    ("CI", "CI16x16_360p", dict(SMALL, resolution=64, attn_resolutions=[16]), 1, 32, 48),
    ("CI", "CI16x16_360p", dict(SMALL, patch_size=4), 1, 64, 48),
    ("DI", "DI8x8_360p", SMALL | LEVELS, 1, 16, 24),
    ("DI", "DI16x16_360p", SMALL | LEVELS, 1, 32, 16),
]


def build(kind: str, name: str, changes: dict, generator: torch.Generator) -> tuple[torch.nn.Module, dict]:
    from cosmos_predict1.tokenizer.networks import TokenizerConfigs, TokenizerModels

    config = dict(TokenizerConfigs[name].value, **changes)
    if kind in ("DV", "DI"):
        config.pop("latent_channels", None)
    network = TokenizerModels[kind].value(**config).eval()
    proof.random_weights(network, generator, 1.0)
    if hasattr(network, "quantizer"):
        network.quantizer.dtype = torch.float32
    return network, config


def save_jit(network: torch.nn.Module, sample: torch.Tensor, folder: pathlib.Path) -> None:
    folder.mkdir()
    with torch.no_grad():
        encoder = torch.jit.trace(network.encoder_jit(), sample, strict=False)
        first = encoder(sample)[0]
        decoder = torch.jit.trace(network.decoder_jit(), first, strict=False)
    encoder.save(str(folder / "encoder.jit"))
    decoder.save(str(folder / "decoder.jit"))


def answers(network: torch.nn.Module, method: str, inputs: proof.Tensors, rename) -> proof.Tensors:
    network.zero_grad(set_to_none=True)
    discrete = hasattr(network, "quantizer")
    if method == "decode":
        out = {"sample": network.decode(inputs["latent"])}
    else:
        encoded = network.encode(inputs["sample"])
        latent = encoded[1] if discrete else encoded[0]
        out = {"latent": latent} if method == "encode" else {"sample": network.decode(latent)}
        if method == "encode" and discrete:
            out["indices"] = encoded[0]
    loss = sum(t.square().mean() for t in out.values() if t.is_floating_point())
    loss.backward()
    result = {k: v.detach() for k, v in out.items()} | {"loss": loss.detach()}
    for name, weight in network.named_parameters():
        if weight.grad is not None:
            result["grad." + rename(name)] = weight.grad
    return result


def run_case(index: int, case, work: pathlib.Path):
    kind, name, changes, frames, height, width = case
    generator = torch.Generator().manual_seed(300 + index)
    network, config = build(kind, name, changes, generator)
    image = kind in ("CI", "DI")
    shape = (1, 3, height, width) if image else (1, 3, frames, height, width)
    sample = torch.rand(shape, generator=generator) * 2 - 1
    save_jit(network, sample, work / f"jit{index}")
    folder = work / f"ours{index}"
    native_proof.convert("import", "--model", work / f"jit{index}", "--output", folder)
    with torch.no_grad():
        encoded = network.encode(sample)
    latent = encoded[1 if kind in ("DV", "DI") else 0]
    rename = lambda n: our_name(n, len(config["channels_mult"]), image)
    for method in ("encode", "decode", "forward"):
        inputs = {"latent": latent} if method == "decode" else {"sample": sample}
        want = answers(network, method, inputs, rename)
        have = proof.run_program(folder, method, inputs, work)
        exact = lambda: answers(network.double(), method, {k: v.double() for k, v in inputs.items()}, rename)
        outcome = proof.compare(want, have, exact if kind in ("CV", "CI") else None)
        network.float()
        yield f"{name} {changes.get('spatial_compression', '')}".strip(), method, outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-table", action="store_true", help="leave docs/proofs/ as it is")
    args = parser.parse_args()
    source = os.environ.get("COSMOS_PREDICT1")
    if not source:
        print("COSMOS_PREDICT1 names no checkout of cosmos-predict1: skipped")
        return 0
    sys.path.insert(0, source)
    import loguru

    loguru.logger.remove()
    warnings.simplefilter("ignore", torch.jit.TracerWarning)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for index, case in enumerate(CASES):
            for name, method, outcome in run_case(index, case, pathlib.Path(work)):
                rows.append((name, method, outcome))
                result = outcome.problem or "agrees"
                print(
                    f"{name:20} {method:8} {outcome.tensors:4}  output {outcome.output_error:.1e}"
                    f"  gradient {outcome.gradient_error:.1e}  {result}",
                    flush=True,
                )
    failed = [row for row in rows if row[2].problem]
    if not args.no_table:
        lines = [
            "# Cosmos Tokenizer against NVIDIA's code",
            "",
            f"{datetime.date.today()}, torch {torch.__version__}, cosmos-predict1 of 2025-03-21.",
            "Made by `COSMOS_PREDICT1=... test/reference/run.sh nvidia_tokenizer`: NVIDIA's networks with random weights,",
            "saved as encoder.jit and decoder.jit, imported, run by `cosmos-forward --backward`. Relative L2 per tensor.",
            "",
            "| tokenizer | method | tensors | output error | gradient error | result |",
            "| --- | --- | ---: | ---: | ---: | --- |",
        ]
        lines += [
            f"| {n} | {m} | {o.tensors} | {o.output_error:.1e} | {o.gradient_error:.1e} | {o.problem or 'agrees'} |"
            for n, m, o in rows
        ]
        path = proof.ROOT / "docs/proofs/nvidia_tokenizers.md"
        path.write_text("\n".join(lines) + "\n")
        print(f"wrote {path.relative_to(proof.ROOT)}")
    print(f"{len(rows) - len(failed)} of {len(rows)} agree")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
