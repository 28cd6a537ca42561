"""Multi-view Predict2 and Transfer2.5 against NVIDIA's own code. Writes docs/proofs/multiview.md.

    COSMOS_PREDICT2=/path/to/cosmos-predict2 COSMOS_TRANSFER25=/path/to/cosmos-transfer2.5 \\
        multiview_proof.py [--no-table]

A MultiViewDiT of cosmos_predict2 with random weights is saved as NVIDIA ships it, comes in through
`cosmos-convert import`, and `cosmos-forward --backward` must give its outputs and every gradient; then
`cosmos-convert native` must give the file back, equal in every bit and without a key that NVIDIA's class does not
expect. A MultiViewControlDiT of cosmos_transfer2 goes the same way: its control branch's hints with every
gradient, and what the whole makes of them. Without both (github.com/nvidia-cosmos; needs einops) nothing is done.
nvidia_networks.py says what of the code is replaced.
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

TINY = dict(model_channels=32, num_heads=2, num_blocks=2, adaln_lora_dim=8, crossattn_emb_channels=24,
            crossattn_proj_in_channels=24, in_channels=4, out_channels=4, state_t=2, n_cameras_emb=7,
            view_condition_dim=6, rope_t=1 / 3, rope_hw=3.0)
# name -> (changes of TINY, batch, views, latent rows, latent columns, one time a frame?, cameras, fps)
CASES = {
    "three of seven cameras": (dict(), 1, 3, 4, 6, True, [[0, 5, 1]], 24),
    "two clips, other cameras, 10 fps": (dict(), 2, 2, 6, 4, True, [[0, 3], [6, 2]], 10),
    "all seven, one time a clip": (dict(view_condition_dim=7), 1, 7, 4, 4, False, None, 24),
    "one view": (dict(num_heads=1, state_t=3, n_cameras_emb=5), 1, 1, 4, 6, True, [[4]], 30),
    "projected text (2.5)": (dict(crossattn_proj_in_channels=40), 1, 2, 4, 4, True, None, 24),
    "published head": (dict(model_channels=256, adaln_lora_dim=16, rope_t=8 / 24, state_t=8), 1, 2, 4, 4, True,
                       [[2, 4]], 16),
}


def build(c: dict) -> torch.nn.Module:
    from cosmos_predict2.models.multiview_dit import MultiViewDiT, SACConfig

    return MultiViewDiT(
        max_img_h=32, max_img_w=32, max_frames=32, patch_spatial=2, patch_temporal=1, concat_padding_mask=True,
        atten_backend="torch", pos_emb_cls="rope3d", use_adaln_lora=True, sac_config=SACConfig(mode="none"),
        rope_h_extrapolation_ratio=c["rope_hw"], rope_w_extrapolation_ratio=c["rope_hw"],
        rope_t_extrapolation_ratio=c["rope_t"], concat_view_embedding=True,
        **{k: v for k, v in c.items() if not k.startswith("rope_")},
    ).eval()


def our_name(native: str) -> str:
    table = {
        "x_embedder.proj.1.": "patch_embed.proj.", "t_embedder.1.": "time_embed.t_embedder.",
        "t_embedding_norm.": "time_embed.norm.", "blocks.": "transformer_blocks.",
        "final_layer.adaln_modulation.": "norm_out.linear_", "final_layer.linear.": "proj_out.",
        "adaln_modulation_self_attn.": "norm1.linear_", "adaln_modulation_cross_attn.": "norm2.linear_",
        "adaln_modulation_mlp.": "norm3.linear_", "self_attn.": "attn1.", "cross_attn.": "attn2.",
        "output_proj.": "to_out.0.", "q_proj.": "to_q.", "k_proj.": "to_k.", "v_proj.": "to_v.",
        "q_norm.": "norm_q.", "k_norm.": "norm_k.", "mlp.layer1.": "ff.net.0.proj.", "mlp.layer2.": "ff.net.2.",
    }
    for theirs, ours in table.items():
        native = native.replace(theirs, ours)
    return native


def call(network: torch.nn.Module, inputs: proof.Tensors, views: int) -> torch.Tensor:
    frames = inputs["hidden_states"].shape[2]
    time = inputs["timestep"]
    cameras = inputs.get("view_indices")
    return network(
        inputs["hidden_states"],
        time.flatten(1) if time.dim() == 5 else time[:, None],
        inputs["encoder_hidden_states"],
        condition_video_input_mask_B_C_T_H_W=inputs["condition_mask"],
        fps=inputs["fps"],
        padding_mask=inputs["padding_mask"].expand(len(inputs["hidden_states"]), -1, -1, -1),
        view_indices_B_T=None if cameras is None else cameras.repeat_interleave(frames // views, 1),
    )


def answers(network: torch.nn.Module, inputs: proof.Tensors, views: int) -> proof.Tensors:
    network.zero_grad(set_to_none=True)
    sample = call(network, inputs, views)
    loss = sample.square().mean()
    loss.backward()
    grads = {"grad." + our_name(n): p.grad for n, p in network.named_parameters() if p.grad is not None}
    return {"sample": sample.detach(), "loss": loss.detach(), **grads}


# name -> (changes of TINY, batch, views, latent rows, latent columns, cameras)
TRANSFER_CASES = {
    "Transfer2.5, three cameras": (dict(num_blocks=4), 1, 3, 4, 6, [[0, 5, 1]]),
    "Transfer2.5, two clips, projected text": (dict(num_blocks=3, crossattn_proj_in_channels=40), 2, 2, 4, 4,
                                               [[0, 3], [6, 2]]),
}
EVERY, MODALITIES = 2, 2


def build_transfer(c: dict) -> torch.nn.Module:
    from cosmos_transfer2._src.transfer2_multiview.networks.multiview_dit_control import MultiViewControlDiT, SACConfig

    projected = c["crossattn_proj_in_channels"] != c["crossattn_emb_channels"]
    return MultiViewControlDiT(
        max_img_h=32, max_img_w=32, max_frames=32, patch_spatial=2, patch_temporal=1, concat_padding_mask=True,
        atten_backend="transformer_engine", pos_emb_cls="rope3d", use_adaln_lora=True,
        sac_config=SACConfig(mode="none"), rope_h_extrapolation_ratio=c["rope_hw"],
        rope_w_extrapolation_ratio=c["rope_hw"], rope_t_extrapolation_ratio=c["rope_t"],
        rope_enable_fps_modulation=False, concat_view_embedding=True, vace_block_every_n=EVERY,
        condition_strategy="spaced", num_max_modalities=MODALITIES, use_input_hint_block=True,
        use_crossattn_projection=projected, **{k: v for k, v in c.items() if not k.startswith("rope_")},
    ).eval()


def control_name(native: str) -> str | None:
    """A weight of the control net, or None."""
    if native.startswith("control_embedder."):
        return native.replace("control_embedder.proj.1.", "patch_embed.proj.")
    if native.startswith("input_hint_block."):
        return native.replace("input_hint_block.", "hint_embed.")
    if native.startswith("control_blocks."):
        return our_name(native.removeprefix("control_")).replace("transformer_blocks.", "control_blocks.")
    if native.startswith("x_embedder."):
        return "patch_embed_base.proj.weight"
    shared = ("t_embedder.", "t_embedding_norm.", "crossattn_proj.", "view_embeddings.")
    return our_name(native) if native.startswith(shared) else None


def transfer_answers(network: torch.nn.Module, inputs: proof.Tensors, views: int) -> proof.Tensors:
    """The control branch's answers, and `sample` of the whole network."""
    network.zero_grad(set_to_none=True)
    hints = []
    hook = network.control_blocks[-1].register_forward_hook(lambda module, args, out: hints.append(out[:-1]))
    frames = inputs["latents"].shape[2]
    sample = network(
        inputs["latents"], inputs["timestep"].flatten(1), inputs["encoder_hidden_states"],
        inputs["controls_latents"], condition_video_input_mask_B_C_T_H_W=inputs["condition_mask"],
        padding_mask=inputs["padding_mask"].expand(len(inputs["latents"]), -1, -1, -1),
        view_indices_B_T=inputs["view_indices"].repeat_interleave(frames // views, 1),
    )
    hook.remove()
    loss = sum(hint.square().mean() for hint in hints[0])
    loss.backward()
    answers = {f"control_block_samples.{i}": h.flatten(1, 3).detach() for i, h in enumerate(hints[0])}
    for name, weight in network.named_parameters():
        if weight.grad is not None and control_name(name):
            answers["grad." + control_name(name)] = weight.grad
    return answers | {"sample": sample.detach(), "loss": loss.detach()}


def run_transfer_case(index: int, case, work: pathlib.Path) -> tuple[proof.Outcome, str]:
    changes, batch, views, rows, columns, cameras = case
    c = TINY | changes
    generator = torch.Generator().manual_seed(700 + index)
    network = build_transfer(c)
    proof.random_weights(network, generator, 1.0)
    inputs = make_inputs(c, batch, views, rows, columns, True, cameras, 24, generator)
    inputs["latents"] = inputs.pop("hidden_states")
    inputs["controls_latents"] = torch.randn(inputs["latents"].shape, generator=generator)
    del inputs["fps"]
    state = {"net." + k: v.clone() for k, v in network.state_dict().items()}
    torch.save(state, work / f"t{index}.pt")
    ours = work / f"transfer{index}"
    native_proof.convert("import", "--model", work / f"t{index}.pt", "--output", ours, *settings(c))
    want = transfer_answers(network, inputs, views)
    sample = want.pop("sample")
    have = proof.run_program(ours / "controlnet", "forward", inputs, work)
    wide = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}

    def exact() -> proof.Tensors:
        return transfer_answers(network.double(), wide, views)

    outcome = proof.compare(want, have, exact)
    base = {k: v for k, v in inputs.items() if k != "controls_latents"}
    base["hidden_states"] = base.pop("latents")
    for i in range(len([k for k in have if k.startswith("control_block_samples.")])):
        base[f"{proof.CONTROL}{i}"] = have[f"control_block_samples.{i}"]
    whole = proof.run_program(ours / "transformer", "forward", base, work)["sample"]
    error = (whole - sample).norm().item() / sample.norm().item()
    outcome.output_error = max(outcome.output_error, error)
    if error > proof.TOLERANCE and not outcome.problem:
        outcome.problem = f"sample of base and branch: relative L2 {error:.1e}"
    back = work / f"tback{index}.pt"
    native_proof.convert("native", "--model", ours, "--output", back)
    return outcome, native_proof.difference(state, torch.load(back, weights_only=True))


def settings(c: dict) -> list[str]:
    return ["--set", f"state_t={c['state_t']}", "--set", "max_size=[32,32,32]", "--set",
            f"rope_scale=[{c['rope_t']},{c['rope_hw']},{c['rope_hw']}]"]


def make_inputs(c, batch, views, rows, columns, by_frame, cameras, fps, generator) -> proof.Tensors:
    def randn(*shape):
        return torch.randn(shape, generator=generator)

    frames = views * c["state_t"]
    given = (torch.rand(batch, 1, frames, 1, 1, generator=generator) > 0.5).float()
    inputs = {
        "hidden_states": randn(batch, c["in_channels"], frames, rows, columns),
        # NVIDIA's class takes 512 tokens a view and no other number.
        "encoder_hidden_states": randn(batch, 512 * views, c["crossattn_proj_in_channels"]),
        "condition_mask": given.expand(batch, 1, frames, rows, columns).clone(),
        "padding_mask": (torch.rand(1, 1, 3 * rows, 2 * columns, generator=generator) > 0.5).float(),
        "timestep": torch.rand((batch, 1, frames, 1, 1) if by_frame else (batch,), generator=generator),
        "fps": torch.tensor([float(fps)]),
    }
    if cameras:
        inputs["view_indices"] = torch.tensor(cameras)
    return inputs


def run_case(index: int, case, work: pathlib.Path) -> tuple[proof.Outcome, str]:
    changes, batch, views, rows, columns, by_frame, cameras, fps = case
    c = TINY | changes
    generator = torch.Generator().manual_seed(500 + index)
    network = build(c)
    proof.random_weights(network, generator, 1.0)
    inputs = make_inputs(c, batch, views, rows, columns, by_frame, cameras, fps, generator)
    state = {"net." + k: v.clone() for k, v in network.state_dict().items()}
    torch.save(state, work / f"{index}.pt")
    ours = work / f"ours{index}"
    native_proof.convert("import", "--model", work / f"{index}.pt", "--output", ours, *settings(c))
    want = answers(network, inputs, views)
    have = proof.run_program(ours, "forward", inputs, work)
    wide = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    outcome = proof.compare(want, have, lambda: answers(network.double(), wide, views))
    native_proof.convert("native", "--model", ours, "--output", work / f"back{index}.pt")
    back = torch.load(work / f"back{index}.pt", weights_only=True)
    return outcome, native_proof.difference(state, back)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-table", action="store_true", help="leave docs/proofs/ as it is")
    args = parser.parse_args()
    source, transfer = os.environ.get("COSMOS_PREDICT2"), os.environ.get("COSMOS_TRANSFER25")
    if not source or not transfer:
        print("COSMOS_PREDICT2, COSMOS_TRANSFER25 name no checkouts of cosmos-predict2, cosmos-transfer2.5: skipped")
        return 0
    sys.path.insert(0, source)
    nvidia_networks.install_stand_ins(transfer)
    torch.set_num_threads(1)
    rows, failed = [], 0
    with tempfile.TemporaryDirectory() as work:
        for index, (name, case) in enumerate((CASES | TRANSFER_CASES).items()):
            run = run_transfer_case if name in TRANSFER_CASES else run_case
            outcome, back = run(index, case, pathlib.Path(work))
            result = outcome.problem or (f"back: {back}" if back else "agrees")
            failed += result != "agrees"
            rows.append(f"| {name} | {outcome.tensors} | {outcome.exact} | {outcome.output_error:.1e} | "
                        f"{outcome.gradient_error:.1e} | {result} |")
            print(rows[-1], flush=True)
    if not args.no_table:
        lines = [
            "# Multi-view Predict2 and Transfer2.5 against NVIDIA's code",
            "",
            f"{datetime.date.today()}, torch {torch.__version__}, cosmos-predict2 of 2025-10-06, cosmos-transfer2.5 of",
            "2026-06-07, float32 on the CPU. Made by `COSMOS_PREDICT2=... COSMOS_TRANSFER25=... test/reference/run.sh",
            "multiview`: NVIDIA's MultiViewDiT and MultiViewControlDiT with random weights go through `cosmos-convert import`, `cosmos-forward --backward` and `cosmos-convert native`, whose file",
            "equals NVIDIA's in every bit, rotary buffers included. Relative L2 per tensor; column float64: tensors",
            "judged by NVIDIA's code in float64. test/reference/nvidia_networks.py says what stands in for its kernels.",
            "",
            "| case | tensors | float64 | output error | gradient error | result |",
            "| --- | ---: | ---: | ---: | ---: | --- |",
            *rows,
        ]
        path = proof.ROOT / "docs/proofs/multiview.md"
        path.write_text("\n".join(lines) + "\n")
        print(f"wrote {path.relative_to(proof.ROOT)}")
    print(f"{len(rows) - failed} of {len(rows)} agree")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
