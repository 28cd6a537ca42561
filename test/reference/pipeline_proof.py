#!/usr/bin/env python3
"""Compares cosmos-generate with diffusers' Cosmos pipelines on tiny random ones: Predict1, Predict2,
Predict2.5 and Transfer2.5. Writes docs/proofs/pipelines.md.

    pipeline_proof.py [--only SUBSTRING] [--no-table]     COSMOS_GENERATE names the program

Same noise, same embeddings, same pixels, 8 steps: final latents to 1e-3 and frames to 1e-2 of their
largest value. The tokenizer's posterior gives its mode on both sides. Several controls and weight maps,
which diffusers' pipeline lacks, are put into it as one control net that adds its parts.
"""

import argparse
import contextlib
import datetime
import importlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import diffusers
import torch
import torch.nn.functional as F
from diffusers import (AutoencoderKLCosmos, AutoencoderKLWan, CosmosControlNetModel,
                       CosmosTransformer3DModel, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler,
                       UniPCMultistepScheduler)
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEIGHT, WIDTH, STEPS = 32, 48, 8
MODULES = {
    "CosmosTextToWorldPipeline": "pipeline_cosmos_text2world",
    "CosmosVideoToWorldPipeline": "pipeline_cosmos_video2world",
    "Cosmos2TextToImagePipeline": "pipeline_cosmos2_text2image",
    "Cosmos2VideoToWorldPipeline": "pipeline_cosmos2_video2world",
    "Cosmos2_5_PredictBasePipeline": "pipeline_cosmos2_5_predict",
    "Cosmos2_5_TransferPipeline": "pipeline_cosmos2_5_transfer",
}
DIT = dict(out_channels=16, num_attention_heads=2, attention_head_dim=24, num_layers=2, mlp_ratio=2.0,
           text_embed_dim=40, adaln_lora_dim=4, max_size=(8, 32, 32), patch_size=(1, 2, 2),
           concat_padding_mask=True)
PREDICT1 = dict(DIT, rope_scale=(2.0, 1.0, 1.0), extra_pos_embed_type="learnable")
PREDICT2 = dict(DIT, rope_scale=(1.0, 3.0, 3.0), extra_pos_embed_type=None)
PREDICT25 = dict(PREDICT2, in_channels=17, text_embed_dim=32, use_crossattn_projection=True,
                 crossattn_proj_in_channels=40, encoder_hidden_states_channels=32)
TRANSFER25 = dict(PREDICT25, num_layers=4, controlnet_block_every_n=2, img_context_dim_in=9,
                  img_context_num_tokens=5, img_context_dim_out=48)
CONTROL = dict(n_controlnet_blocks=2, in_channels=130, latent_channels=18, model_channels=48,
               num_attention_heads=2, attention_head_dim=24, mlp_ratio=2.0, text_embed_dim=32,
               adaln_lora_dim=4, patch_size=(1, 2, 2), max_size=(8, 32, 32), rope_scale=(1.0, 3.0, 3.0),
               img_context_dim_in=9, img_context_dim_out=48, use_crossattn_projection=True,
               crossattn_proj_in_channels=40, encoder_hidden_states_channels=32)


class Unchecked(torch.nn.Module):
    device, dtype = torch.device("cpu"), torch.float32

    def check_text_safety(self, prompt):
        return True

    def check_video_safety(self, video):
        return video


class Together(torch.nn.Module):
    """Several control nets as one: the residuals' sum, each with its weight or map (per token)."""

    def __init__(self, nets, latents, weights):
        super().__init__()
        self.nets, self.latents, self.weights = torch.nn.ModuleList(nets), latents, weights
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def forward(self, controls_latents, **call):
        sums = None
        for net, latents, weight in zip(self.nets, self.latents, self.weights):
            hints = [h * weight for h in net(controls_latents=latents, **dict(call, return_dict=False))[0]]
            sums = hints if sums is None else [a + b for a, b in zip(sums, hints)]
        return (sums,)


def seeded(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.15)
    return model.eval()


def transformer(config):
    return seeded(CosmosTransformer3DModel(**config), 0)


def control_net(seed=5):
    return seeded(CosmosControlNetModel(**CONTROL), seed)


def wan():
    torch.manual_seed(0)
    return AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
                            temperal_downsample=[False, True, True]).eval()


def cosmos_vae():
    torch.manual_seed(0)
    return AutoencoderKLCosmos(
        latent_channels=16, encoder_block_out_channels=(8, 8, 8, 8), decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,), resolution=64, num_layers=1, patch_size=4,
        spatial_compression_ratio=8, temporal_compression_ratio=8,
        latents_mean=torch.linspace(-0.4, 0.5, 16 * 16).tolist(),
        latents_std=torch.linspace(0.6, 1.7, 16 * 16).tolist()).eval()


def unipc(karras):
    flow = dict(prediction_type="flow_prediction", use_flow_sigmas=True)
    if karras:
        return UniPCMultistepScheduler(**flow, use_karras_sigmas=True, sigma_max=200.0, sigma_min=0.01)
    return UniPCMultistepScheduler(**flow, flow_shift=5.0)


def edm():
    return EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, sigma_schedule="karras",
                             prediction_type="epsilon", final_sigmas_type="sigma_min")


def flow_match():
    return FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)


def distance(a, b):
    return float((a - b).abs().max() / b.abs().max())


class Case:
    """One pipeline and one call. `options` go to both sides, under diffusers' and our names."""

    def __init__(self, name, cls, config, vae, scheduler, *, frames=9, latent_frames=3, given=None,
                 video=None, controls=None, guidance=7.0, call=None, args=()):
        self.name, self.cls, self.config, self.vae, self.scheduler = name, cls, config, vae, scheduler
        self.frames, self.latent_frames, self.given, self.video = frames, latent_frames, given, video
        self.controls, self.guidance, self.call, self.args = controls, guidance, call or {}, list(args)

    def inputs(self):
        g = torch.Generator().manual_seed(1)
        out = dict(prompt_embeds=torch.randn(1, 6, 40, generator=g),
                   negative_prompt_embeds=torch.randn(1, 6, 40, generator=g),
                   latents=torch.randn(1, 16, self.latent_frames, HEIGHT // 8, WIDTH // 8, generator=g))
        if self.video:
            out["video"] = torch.rand(1, 3, self.video, HEIGHT, WIDTH, generator=g)
        for name, (weight, masked) in (self.controls or {}).items():
            out[f"controls.{name}" if name else "controls"] = torch.rand(
                1, 3, self.frames, HEIGHT, WIDTH, generator=g)
            if masked:
                out[f"control_masks.{name}"] = torch.rand(1, 1, self.frames, HEIGHT, WIDTH, generator=g)
        return out


def case_list():
    p1t, p1v = "CosmosTextToWorldPipeline", "CosmosVideoToWorldPipeline"
    p2i, p2v = "Cosmos2TextToImagePipeline", "Cosmos2VideoToWorldPipeline"
    p25, t25 = "Cosmos2_5_PredictBasePipeline", "Cosmos2_5_TransferPipeline"
    text = dict(PREDICT1, in_channels=16)
    video = dict(PREDICT1, in_channels=17)
    p2 = dict(PREDICT2, in_channels=17)
    plain = dict(fps=24)
    chunk = dict(num_frames_per_chunk=9)
    return [
        Case("predict1/text", p1t, text, cosmos_vae, edm, frames=17, call=plain, args=["--fps", 24]),
        Case("predict1/text, no guidance", p1t, text, cosmos_vae, edm, frames=17, guidance=1.0),
        Case("predict1/image", p1v, video, cosmos_vae, edm, frames=17, video=1,
             call=dict(augment_sigma=0.0), args=["--augment-sigma", 0]),
        Case("predict1/video", p1v, video, cosmos_vae, edm, frames=17, video=9, guidance=3.0,
             call=dict(augment_sigma=0.0, fps=12), args=["--augment-sigma", 0, "--fps", 12]),
        Case("predict1/video longer than the clip", p1v, video, cosmos_vae, edm, frames=17, video=20,
             call=dict(augment_sigma=0.0), args=["--augment-sigma", 0]),
        Case("predict1/video, noise on given frames", p1v, video, cosmos_vae, edm, frames=17, video=9),
        Case("predict2/text to image", p2i, dict(PREDICT2, in_channels=16, rope_scale=(1.0, 4.0, 4.0)), wan,
             flow_match, frames=1, latent_frames=1, args=["--overlap", 0]),
        Case("predict2/image", p2v, p2, wan, flow_match, video=1),
        Case("predict2/video", p2v, p2, wan, flow_match, video=5, guidance=3.0, call=dict(fps=10),
             args=["--fps", 10]),
        Case("predict2/odd video, no guidance", p2v, p2, wan, flow_match, video=7, guidance=1.0),
        Case("predict2.5/text, shift 5", p25, PREDICT25, wan, lambda: unipc(False)),
        Case("predict2.5/image, shift 5", p25, PREDICT25, wan, lambda: unipc(False), video=1, given=1),
        Case("predict2.5/video, karras", p25, PREDICT25, wan, lambda: unipc(True), video=7, given=2,
             guidance=3.0),
        Case("predict2.5/video, one time, no guidance", p25, PREDICT25, wan, lambda: unipc(True), video=7,
             given=1, guidance=0.0, call=dict(conditional_frame_timestep=-1.0), args=["--condition-time=-1"]),
        Case("transfer2.5/one control", t25, TRANSFER25, wan, lambda: unipc(True), controls={"": (1, False)},
             guidance=3.0, call=chunk),
        Case("transfer2.5/weight, no guidance", t25, TRANSFER25, wan, lambda: unipc(False),
             controls={"": (1, False)}, guidance=1.0, call=dict(chunk, controls_conditioning_scale=0.6),
             args=["--control-weight", 0.6]),
        Case("transfer2.5/a weight a block", t25, TRANSFER25, wan, lambda: unipc(True),
             controls={"": (1, False)}, guidance=3.0,
             call=dict(chunk, controls_conditioning_scale=[0.4, 1.3]), args=["--control-weight", "0.4,1.3"]),
        Case("transfer2.5/three chunks", t25, TRANSFER25, wan, lambda: unipc(True), frames=22,
             controls={"": (1, False)}, guidance=3.0, call=chunk),
        Case("transfer2.5/chunks, overlap 5", t25, TRANSFER25, wan, lambda: unipc(True), frames=16,
             controls={"": (1, False)}, guidance=3.0, call=dict(chunk, num_ar_conditional_frames=5),
             args=["--overlap", 5]),
        Case("transfer2.5/shorter than a chunk", t25, TRANSFER25, wan, lambda: unipc(False), frames=6,
             controls={"": (1, False)}, guidance=3.0, call=chunk),
        Case("transfer2.5/edge and depth", t25, TRANSFER25, wan, lambda: unipc(True),
             controls={"edge": (0.8, False), "depth": (-0.3, False)}, guidance=3.0, call=chunk),
        Case("transfer2.5/edge, blur, depth, weight maps", t25, TRANSFER25, wan, lambda: unipc(True),
             controls={"blur": (0.5, True), "depth": (0.9, False), "edge": (0.7, True)}, guidance=3.0,
             call=chunk),
    ]


def token_map(mask):
    """[1, 1, T, H, W] -> [1, t h w, 1]: the first frame alone, the others trilinearly."""
    h, w, t = HEIGHT // 16, WIDTH // 16, (mask.shape[2] - 1) // 4
    first = F.interpolate(mask[:, :, :1], size=(1, h, w), mode="trilinear")
    rest = F.interpolate(mask[:, :, 1:], size=(t, h, w), mode="trilinear")
    return torch.cat([first, rest], 2).reshape(1, -1, 1)


def together(case, nets, vae, inputs):
    names = sorted(case.controls)
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    latents, weights = [], []
    for name in names:
        z = vae.encode(inputs[f"controls.{name}"] * 2 - 1).latent_dist.mode()
        latents.append((z - mean) / std)
        weight, masked = case.controls[name]
        weights.append(weight * token_map(inputs[f"control_masks.{name}"]) if masked else torch.tensor(weight))
    if any(masked for _, masked in case.controls.values()):
        whole = sum(w.expand(1, 18, 1) for w in weights).clamp(min=1)
        weights = [w / whole for w in weights]
    return Together([nets[name] for name in names], latents, weights)


def reference(case, module, parts, nets, inputs, output_type):
    if len(nets) == 1 and "" in nets:
        parts = dict(parts, controlnet=nets[""])
    elif nets:
        parts = dict(parts, controlnet=together(case, nets, parts["vae"], inputs))
    pipe = getattr(module, case.cls)(text_encoder=None, tokenizer=None, safety_checker=Unchecked(), **parts)
    pipe.set_progress_bar_config(disable=True)
    call = dict(prompt_embeds=inputs["prompt_embeds"], negative_prompt_embeds=inputs["negative_prompt_embeds"],
                latents=inputs["latents"].clone(), height=HEIGHT, width=WIDTH, num_inference_steps=STEPS,
                guidance_scale=case.guidance, output_type=output_type, **case.call)
    if case.cls != "Cosmos2TextToImagePipeline":
        call["num_frames"] = case.frames
    video = inputs.get("video")
    if video is not None and case.given:  # takes [-1, 1] as it is
        call.update(video=video * 2 - 1, num_latent_conditional_frames=case.given)
    elif video is not None and case.video == 1:
        call["image"] = video[:, :, 0]
    elif video is not None:
        call["video"] = video.transpose(1, 2)
    if case.controls:
        call["controls"] = inputs[next(k for k in inputs if k.startswith("controls"))].transpose(1, 2)
    with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
        out = pipe(**call)
    return out.images if hasattr(out, "images") else out.frames


def write_folder(case, folder, parts, nets):
    index = {"_class_name": case.cls, "_diffusers_version": diffusers.__version__,
             "text_encoder": [None, None], "tokenizer": [None, None], "safety_checker": [None, None]}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        index[name] = ["diffusers", type(part).__name__]
    for name, net in nets.items():
        net.save_pretrained(folder / "controlnet" / name)
        index["controlnet"] = ["diffusers", "CosmosControlNetModel"]
    (folder / "model_index.json").write_text(json.dumps(index))


def ours(case, folder, work, inputs, save=None):
    save_file({k: v.contiguous() for k, v in inputs.items()}, work / "in.safetensors")
    program = os.environ.get("COSMOS_GENERATE", ROOT / "build/cpu/bin/cosmos-generate")
    command = [program, "--pipeline", folder, "--output", work / "out.mp4", "--inputs",
               work / "in.safetensors", "--output-tensors", work / "out.safetensors", "--height", HEIGHT,
               "--width", WIDTH, "--num-frames", case.frames, "--steps", STEPS, "--guidance", case.guidance,
               *case.args]
    if case.given:
        command += ["--condition-frames", case.given]
    for name, (weight, _) in (case.controls or {}).items():
        if name:
            command += ["--control", f"{name}:{weight}"]
    if save:
        command += ["--save-pipeline", save]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    out = load_file(work / "out.safetensors")
    return out["latents"], out["frames"]


def as_frames(out):
    """[1, T, 3, H, W] from what diffusers returns."""
    return out if out.dim() == 5 else out.unsqueeze(1)


def run(case, work):
    module = importlib.import_module("diffusers.pipelines.cosmos." + MODULES[case.cls])
    retrieve = module.retrieve_latents if hasattr(module, "retrieve_latents") else None
    if retrieve:  # the mode, as `--posterior mode`
        module.retrieve_latents = lambda output, generator=None, sample_mode="": retrieve(
            output, sample_mode="argmax")
    parts = dict(transformer=transformer(case.config), vae=case.vae(), scheduler=case.scheduler())
    nets = {name: control_net(5 + i) for i, name in enumerate(sorted(case.controls or {}))}
    inputs = case.inputs()
    try:
        write_folder(case, work / "pipeline", parts, nets)
        latents = reference(case, module, parts, nets, inputs, "latent")
        frames = as_frames(reference(case, module, parts, nets, inputs, "pt"))
        got = ours(case, work / "pipeline", work, inputs, work / "saved")
    finally:
        if retrieve:
            module.retrieve_latents = retrieve
    if got[0].shape != latents.shape or got[1].shape != frames.shape:
        raise RuntimeError(f"shapes {tuple(got[0].shape)}, {tuple(got[1].shape)}; expected "
                           f"{tuple(latents.shape)}, {tuple(frames.shape)}")
    again = ours(case, work / "saved", work, inputs)
    if not torch.equal(again[0], got[0]):
        raise RuntimeError("the folder that --save-pipeline wrote gives other latents")
    return distance(got[0], latents), distance(got[1], frames)


def table(rows):
    lines = [
        "# Pipelines against diffusers", "",
        f"{datetime.date.today()}, diffusers {diffusers.__version__}, torch {torch.__version__}, float32 on the CPU.",
        f"Made by `test/reference/run.sh pipeline`: tiny random pipelines, {STEPS} steps, the same noise, embeddings and",
        "pixels on both sides. Largest difference over largest value; latents must agree to 1e-3, frames (which pass",
        "through bytes in diffusers) to 1e-2. Each pipeline is also written by `--save-pipeline` and run again from",
        "there, with the same latents bit for bit.", "",
        "Where given frames carry noise (Predict1's augment_sigma, 0.001), the two draw it from different generators;",
        "with augment_sigma 0 there is none. Several controls and weight maps are not in diffusers' pipeline: there its",
        "control net is replaced by one that adds several of diffusers' own.", "",
        "| case | pipeline | latents | frames | result |", "| --- | --- | ---: | ---: | --- |"]
    for case, latents, frames, problem in rows:
        lines.append(f"| {case.name} | {case.cls} | {latents:.1e} | {frames:.1e} | {problem or 'agrees'} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--no-table", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity_error()
    rows = []
    for case in case_list():
        if args.only not in case.name:
            continue
        latents = frames = float("nan")
        problem = ""
        with tempfile.TemporaryDirectory() as work:
            try:
                latents, frames = run(case, pathlib.Path(work))
                if not (latents <= 1e-3 and frames <= 1e-2):
                    problem = "differs"
            except RuntimeError as error:
                problem = str(error)
        rows.append((case, latents, frames, problem))
        print(f"{case.name:45} latents {latents:.1e}  frames {frames:.1e}  {problem or 'agrees'}", flush=True)
    failed = [row for row in rows if row[3]]
    if not args.no_table and not args.only:
        path = ROOT / "docs/proofs/pipelines.md"
        path.write_text(table(rows))
        print(f"wrote {path.relative_to(ROOT)}")
    print(f"{len(rows) - len(failed)} of {len(rows)} cases agree")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
