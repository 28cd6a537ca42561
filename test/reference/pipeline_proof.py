#!/usr/bin/env python3
"""Compares cosmos-generate with diffusers' Cosmos2_5_PredictBasePipeline on a tiny random pipeline.

    python test/reference/pipeline_proof.py [--binary build/cpu/bin/cosmos-generate]

Same noise, same embeddings, same pixels: final latents to 1e-3 and frames to 1e-2 of their largest
value, for text, image and video to world, both schedulers, with and without guidance. Then the folder
that we write (--save-pipeline) is loaded by diffusers and run again.
"""

import argparse
import json
import os
import subprocess
import tempfile

import numpy as np
import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel, UniPCMultistepScheduler
from diffusers.pipelines.cosmos import pipeline_cosmos2_5_predict as module
from safetensors.torch import load_file, save_file

HEIGHT, WIDTH, FRAMES, STEPS = 32, 48, 9, 5


class Unchecked(torch.nn.Module):
    device, dtype = torch.device("cpu"), torch.float32

    def check_text_safety(self, prompt):
        return True

    def check_video_safety(self, video):
        return video


def components():
    torch.manual_seed(0)
    transformer = CosmosTransformer3DModel(
        in_channels=17, out_channels=16, num_attention_heads=2, attention_head_dim=24, num_layers=2,
        mlp_ratio=2.0, text_embed_dim=32, adaln_lora_dim=4, max_size=(8, 32, 32), patch_size=(1, 2, 2),
        rope_scale=(1.0, 3.0, 3.0), concat_padding_mask=True, extra_pos_embed_type=None,
        use_crossattn_projection=True, crossattn_proj_in_channels=40, encoder_hidden_states_channels=32)
    for p in transformer.parameters():
        torch.nn.init.normal_(p, std=0.15)
    vae = AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
                           temperal_downsample=[False, True, True])
    return transformer.eval(), vae.eval()


def scheduler(karras):
    flow = dict(prediction_type="flow_prediction", use_flow_sigmas=True)
    if karras:
        return UniPCMultistepScheduler(**flow, use_karras_sigmas=True, sigma_max=200.0, sigma_min=0.01)
    return UniPCMultistepScheduler(**flow, flow_shift=5.0)


def reference(pipe, inputs, guidance, given, condition_time):
    video = inputs.get("video")
    kwargs = {} if video is None else dict(video=video * 2 - 1, num_latent_conditional_frames=given)
    common = dict(prompt_embeds=inputs["prompt_embeds"],
                  negative_prompt_embeds=inputs["negative_prompt_embeds"], height=HEIGHT, width=WIDTH,
                  num_frames=FRAMES, num_inference_steps=STEPS, guidance_scale=guidance,
                  conditional_frame_timestep=condition_time, **kwargs)
    with torch.no_grad():
        latents = pipe(latents=inputs["latents"].clone(), output_type="latent", **common).frames
        frames = pipe(latents=inputs["latents"].clone(), output_type="pt", **common).frames
    return latents, frames  # [1, C, T, h, w], [1, T, 3, H, W]


def ours(binary, folder, work, inputs, guidance, given, condition_time, save=None):
    save_file({k: v.contiguous() for k, v in inputs.items()}, os.path.join(work, "in.safetensors"))
    command = [binary, "--pipeline", folder, "--output", os.path.join(work, "out.mp4"), "--inputs",
               os.path.join(work, "in.safetensors"), "--output-tensors",
               os.path.join(work, "out.safetensors"), "--height", HEIGHT, "--width", WIDTH,
               "--num-frames", FRAMES, "--steps", STEPS, "--guidance", guidance, "--condition-frames",
               given, f"--condition-time={condition_time}"]
    if save:
        command += ["--save-pipeline", save]
    subprocess.run([str(c) for c in command], check=True)
    out = load_file(os.path.join(work, "out.safetensors"))
    return out["latents"], out["frames"]


def distance(a, b):
    return float((a - b).abs().max() / b.abs().max())


def make_pipe(transformer, vae, sched):
    return module.Cosmos2_5_PredictBasePipeline(
        text_encoder=None, tokenizer=None, transformer=transformer, vae=vae, scheduler=sched,
        safety_checker=Unchecked())


def write_folder(folder, transformer, vae, sched):
    transformer.save_pretrained(os.path.join(folder, "transformer"))
    vae.save_pretrained(os.path.join(folder, "vae"))
    sched.save_pretrained(os.path.join(folder, "scheduler"))
    index = {"_class_name": "Cosmos2_5_PredictBasePipeline", "_diffusers_version": "0.42.1",
             "scheduler": ["diffusers", "UniPCMultistepScheduler"],
             "transformer": ["diffusers", "CosmosTransformer3DModel"],
             "vae": ["diffusers", "AutoencoderKLWan"], "text_encoder": [None, None],
             "tokenizer": [None, None], "safety_checker": [None, None]}
    with open(os.path.join(folder, "model_index.json"), "w") as out:
        json.dump(index, out)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="build/cpu/bin/cosmos-generate")
    args = parser.parse_args()
    transformer, vae = components()
    torch.manual_seed(1)
    base = dict(prompt_embeds=torch.randn(1, 6, 40), negative_prompt_embeds=torch.randn(1, 6, 40),
                latents=torch.randn(1, 16, 3, HEIGHT // 8, WIDTH // 8))
    pixels = torch.rand(1, 3, 7, HEIGHT, WIDTH)
    cases = [("text, shift 5, guidance 7", False, {}, 7.0, 1, 1e-4),
             ("image, shift 5, guidance 7", False, {"video": pixels[:, :, :1]}, 7.0, 1, 1e-4),
             ("video, karras, guidance 3", True, {"video": pixels}, 3.0, 2, 1e-4),
             ("video, karras, no guidance, one time", True, {"video": pixels}, 0.0, 1, -1.0)]
    worst = 0
    with tempfile.TemporaryDirectory() as work:
        for i, (name, karras, extra, guidance, given, time) in enumerate(cases):
            sched = scheduler(karras)
            folder = os.path.join(work, f"pipe{i}")
            write_folder(folder, transformer, vae, sched)
            inputs = dict(base, **extra)
            expected = reference(make_pipe(transformer, vae, sched), inputs, guidance, given, time)
            saved = os.path.join(work, "saved") if i == 2 else None
            got = ours(args.binary, folder, work, inputs, guidance, given, time, saved)
            d = distance(got[0], expected[0]), distance(got[1], expected[1])
            worst = max(worst, d[0])
            print(f"{name}: latents {d[0]:.1e}, frames {d[1]:.1e}")
            assert d[0] < 1e-3 and d[1] < 1e-2, name
            if saved:
                again = make_pipe(CosmosTransformer3DModel.from_pretrained(os.path.join(saved, "transformer")),
                                  AutoencoderKLWan.from_pretrained(os.path.join(saved, "vae")),
                                  UniPCMultistepScheduler.from_pretrained(os.path.join(saved, "scheduler")))
                back = reference(again, inputs, guidance, given, time)
                d = distance(back[0], expected[0])
                print(f"the same from the folder that we wrote: latents {d:.1e}")
                assert d < 1e-5
    print(f"cosmos-generate agrees with diffusers' pipeline; worst latents {worst:.1e}")


main()
