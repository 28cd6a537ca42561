"""Transfer1's base and control branch against NVIDIA's own code. Writes docs/proofs/transfer1.md.

    COSMOS_TRANSFER1=/path/to/cosmos-transfer1 transfer1_proof.py [--no-table]

A VideoExtendGeneralDIT and a GeneralDITEncoder with random weights are saved as NVIDIA's distillation writes both
(edge_control_distilled.pt) and come in through `cosmos-convert import`. `cosmos-forward --backward` must give the
branch's hints with every gradient, and base and branch together what NVIDIA's make of a clip; `cosmos-convert
native` must give the file back, equal in every bit, but for what import dropped. Without the checkout
(github.com/nvidia-cosmos; needs einops) nothing is done. nvidia_networks.py says what of the code is replaced.
"""

import argparse
import datetime
import os
import pathlib
import sys
import tempfile

import torch

import native_proof
import nvidia_networks
import proof

TINY = dict(model_channels=32, num_heads=2, num_blocks=4, adaln_lora_dim=8, crossattn_emb_channels=24, mlp_ratio=2.0)
# name -> (changes of TINY, control blocks, hint channels, batch, latent frames, rows, columns, given frames, fps)
CASES = {
    "three blocks of four": (dict(), 3, 20, 1, 3, 4, 6, 1, 24),
    "two clips, one block, 30 fps": (dict(), 1, 16, 2, 2, 6, 4, 0, 30),
    "published head and hint": (dict(model_channels=256, adaln_lora_dim=16), 3, 128, 1, 2, 4, 4, 1, 24),
}
HINT = "control_input_edge"


def build(c: dict, blocks: int, hint_channels: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    from cosmos_transfer1.diffusion.networks.general_dit_ctrl_enc import GeneralDITEncoder
    from cosmos_transfer1.diffusion.networks.general_dit_video_conditioned import VideoExtendGeneralDIT

    def settings() -> dict:
        return dict(
            max_img_h=16, max_img_w=16, max_frames=8, in_channels=17, out_channels=16, patch_spatial=2,
            patch_temporal=1, use_cross_attn_mask=False, concat_padding_mask=True, pos_emb_cls="rope3d",
            pos_emb_learnable=True, pos_emb_interpolation="crop", affline_emb_norm=True, use_adaln_lora=True,
            extra_per_block_abs_pos_emb=True, extra_per_block_abs_pos_emb_type="learnable",
            rope_h_extrapolation_ratio=1, rope_w_extrapolation_ratio=1, rope_t_extrapolation_ratio=2,
            block_x_format="THWBD", **c,
        )  # fmt: skip

    mask = [i >= blocks for i in range(c["num_blocks"])]
    branch = GeneralDITEncoder(hint_channels=hint_channels, num_control_blocks=blocks, dropout_ctrl_branch=0,
                               layer_mask=mask, **settings())  # fmt: skip
    return VideoExtendGeneralDIT(**settings()).eval(), branch.eval()


def our_name(native: str) -> str:
    """Of the branch."""
    table = {
        "x_embedder2.proj.1.": "patch_embed_hint.proj.", "x_embedder.proj.1.": "patch_embed.proj.",
        "extra_pos_embedder.": "learnable_pos_embed.", "t_embedder.1.": "time_embed.t_embedder.",
        "affline_norm.": "time_embed.norm.", "input_hint_block.": "hint_embed.", "zero_blocks.block": "zero_blocks.",
        "blocks.block": "control_blocks.", ".blocks.0.adaLN_modulation.": ".norm1.linear_",
        ".blocks.1.adaLN_modulation.": ".norm2.linear_", ".blocks.2.adaLN_modulation.": ".norm3.linear_",
        ".blocks.0.block.attn.": ".attn1.", ".blocks.1.block.attn.": ".attn2.", "to_q.0.": "to_q.", "to_q.1.": "norm_q.",
        "to_k.0.": "to_k.", "to_k.1.": "norm_k.", "to_v.0.": "to_v.", ".blocks.2.block.layer1.": ".ff.net.0.proj.",
        ".blocks.2.block.layer2.": ".ff.net.2.",
    }  # fmt: skip
    for theirs, ours in table.items():
        native = native.replace(theirs, ours)
    return native


def answers(base: torch.nn.Module, branch: torch.nn.Module, inputs: proof.Tensors) -> proof.Tensors:
    """The branch's hints, loss and gradients, and `sample` of the whole network."""
    branch.zero_grad(set_to_none=True)
    hints: list[torch.Tensor] = []
    hooks = [zero.register_forward_hook(lambda module, args, out: hints.append(out))
             for zero in branch.zero_blocks.values()]  # fmt: skip
    holder = torch.nn.Module()
    holder.net = base
    x = inputs["latents"]
    pixels = (len(x), 1, 8 * x.shape[3], 8 * x.shape[4])
    sample = branch(
        x=x, timesteps=inputs["timestep"], crossattn_emb=inputs["encoder_hidden_states"], fps=inputs["fps"],
        padding_mask=torch.zeros(pixels, dtype=x.dtype), hint_key=HINT, base_model=holder, control_weight=1.0,
        condition_video_input_mask=inputs["condition_mask"], **{HINT: inputs["controls_latents"]},
    )  # fmt: skip
    for hook in hooks:
        hook.remove()
    hints = [h.permute(3, 0, 1, 2, 4).flatten(1, 3) for h in hints]  # [T, H, W, B, D]
    loss = sum(h.square().mean() for h in hints)
    loss.backward()
    found = {f"control_block_samples.{i}": h.detach() for i, h in enumerate(hints)}
    for name, weight in branch.named_parameters():
        if weight.grad is not None:
            found["grad." + our_name(name)] = weight.grad
    return found | {"sample": sample.detach(), "loss": loss.detach()}


def make_inputs(c: dict, batch, frames, rows, columns, given, fps, generator) -> proof.Tensors:
    def randn(*shape):
        return torch.randn(shape, generator=generator)

    mask = torch.zeros(batch, 1, frames, rows, columns)
    mask[:, :, :given] = 1
    return {
        "latents": randn(batch, 16, frames, rows, columns),
        "controls_latents": randn(batch, 16, frames, rows, columns),
        "encoder_hidden_states": randn(batch, 5, c["crossattn_emb_channels"]),
        "condition_mask": mask,
        "timestep": randn(batch),
        "fps": torch.tensor([float(fps)]),
    }


def whole(ours: pathlib.Path, hints: proof.Tensors, inputs: proof.Tensors, layers: int, work) -> torch.Tensor:
    """`sample` of our base with these hints; the blocks after the branch's get zeros."""
    base = {k: v for k, v in inputs.items() if k != "controls_latents"}
    base["hidden_states"] = base.pop("latents")
    base["padding_mask"] = torch.zeros(1, 1, *inputs["latents"].shape[3:])
    first = hints["control_block_samples.0"]
    for i in range(layers):
        base[f"{proof.CONTROL}{i}"] = hints.get(f"control_block_samples.{i}", torch.zeros_like(first))
    return proof.run_program(ours, "forward", base, work)["sample"]


def run_case(index: int, case, work: pathlib.Path) -> tuple[proof.Outcome, str]:
    changes, blocks, hint_channels, batch, frames, rows, columns, given, fps = case
    c = TINY | changes
    generator = torch.Generator().manual_seed(900 + index)
    base, branch = build(c, blocks, hint_channels)
    for network in (base, branch):
        proof.random_weights(network, generator, 1.0)
    inputs = make_inputs(c, batch, frames, rows, columns, given, fps, generator)
    state = {"net.base_model.net." + k: v.clone() for k, v in base.state_dict().items()}
    state |= {"net.net_ctrl." + k: v.clone() for k, v in branch.state_dict().items()}
    torch.save({"model": state}, work / f"{index}.pt")
    ours = work / f"ours{index}"
    native_proof.convert("import", "--model", work / f"{index}.pt", "--output", ours)
    want = answers(base, branch, inputs)
    sample = want.pop("sample")
    have = proof.run_program(ours / "controlnet", "forward", inputs, work)
    wide = {k: v.double() for k, v in inputs.items()}

    def exact() -> proof.Tensors:
        found = answers(base.double(), branch.double(), wide)
        del found["sample"]
        return found

    outcome = proof.compare(want, have, exact)
    # The interval is the pipeline's to set; a base alone does not have it.
    config = ours / "transformer/config.json"
    config.write_text(config.read_text().replace('"controlnet_block_every_n": null', '"controlnet_block_every_n": 1'))
    got = whole(ours / "transformer", have, inputs, c["num_blocks"], work)
    error = (got - sample).norm().item() / sample.norm().item()
    outcome.output_error = max(outcome.output_error, error)
    if error > proof.TOLERANCE and not outcome.problem:
        outcome.problem = f"sample of base and branch: relative L2 {error:.1e}"
    native_proof.convert("native", "--model", ours, "--output", work / f"back{index}.pt")
    kept = {k: v for k, v in state.items() if not k.endswith("pos_embedder.seq") and "net_ctrl.final_layer." not in k}
    return outcome, native_proof.difference(kept, torch.load(work / f"back{index}.pt", weights_only=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-table", action="store_true", help="leave docs/proofs/ as it is")
    args = parser.parse_args()
    source = os.environ.get("COSMOS_TRANSFER1")
    if not source:
        print("COSMOS_TRANSFER1 names no checkout of cosmos-transfer1: skipped")
        return 0
    nvidia_networks.install_transfer1_stand_ins(source)
    torch.set_num_threads(1)
    rows, failed = [], 0
    with tempfile.TemporaryDirectory() as work:
        for index, (name, case) in enumerate(CASES.items()):
            outcome, back = run_case(index, case, pathlib.Path(work))
            result = outcome.problem or (f"back: {back}" if back else "agrees")
            failed += result != "agrees"
            rows.append(f"| {name} | {outcome.tensors} | {outcome.exact} | {outcome.output_error:.1e} | "
                        f"{outcome.gradient_error:.1e} | {result} |")  # fmt: skip
            print(rows[-1], flush=True)
    if not args.no_table:
        lines = [
            "# Transfer1 against NVIDIA's code",
            "",
            f"{datetime.date.today()}, torch {torch.__version__}, cosmos-transfer1 of 2026-06-07, float32 on the CPU. Made by",
            "`COSMOS_TRANSFER1=... test/reference/run.sh transfer1`: NVIDIA's VideoExtendGeneralDIT and GeneralDITEncoder with random",
            "weights, in one file as its distillation writes them, go through `cosmos-convert import`, `cosmos-forward --backward`",
            "(the branch's hints with every gradient, then base and branch together) and `cosmos-convert native`, whose file equals",
            "NVIDIA's in every bit but for the branch's head and rotary constants, which import drops. Relative L2 per tensor; column",
            "float64: tensors judged by NVIDIA's code in float64. test/reference/nvidia_networks.py says what stands in for kernels.",
            "",
            "| case | tensors | float64 | output error | gradient error | result |",
            "| --- | ---: | ---: | ---: | ---: | --- |",
            *rows,
        ]
        path = proof.ROOT / "docs/proofs/transfer1.md"
        path.write_text("\n".join(lines) + "\n")
        print(f"wrote {path.relative_to(proof.ROOT)}")
    print(f"{len(rows) - failed} of {len(rows)} agree")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
