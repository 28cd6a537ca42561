"""diffusers' parts of a generation, timed: AutoencoderKLWan's encode and decode, a sampling step of the transformer.

The peer of bench-world; prints one JSON object with the same fields. Run by world.sh.
"""

import argparse
import json
import resource
import time

from dit_step_peer import process_age

FRAMES, HEIGHT, WIDTH, TEXT = 9, 64, 96, 512


def make_call(what, torch, diffusers):
    if what == "step":
        model = diffusers.CosmosTransformer3DModel(
            in_channels=17, out_channels=16, num_attention_heads=8, attention_head_dim=64,
            num_layers=8, text_embed_dim=1024, adaln_lora_dim=256, extra_pos_embed_type=None).eval()
        latents, mask = torch.randn(1, 16, 4, 24, 40), torch.zeros(1, 1, 4, 24, 40)
        text, timestep = torch.randn(1, TEXT, 1024), torch.rand(1, 1, 4, 1, 1)
        padding = torch.zeros(1, 1, 24, 40)

        def step():
            velocity = model(hidden_states=latents, timestep=timestep, encoder_hidden_states=text, fps=24,
                             condition_mask=mask, padding_mask=padding, return_dict=False)[0]
            return (latents - 0.1 * velocity).mean().item()

        return step
    vae = diffusers.AutoencoderKLWan().eval()
    video = torch.rand(1, 3, FRAMES, HEIGHT, WIDTH) * 2 - 1
    latents = torch.randn(1, 16, 1 + (FRAMES - 1) // 4, HEIGHT // 8, WIDTH // 8)
    if what == "encode":
        return lambda: vae.encode(video, return_dict=False)[0].mode().mean().item()
    return lambda: vae.decode(latents, return_dict=False)[0].mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=["encode", "decode", "step"], default="step")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import diffusers
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with torch.no_grad():
        call = make_call(args.what, torch, diffusers)
        result = {"what": args.what, "by": "diffusers", "first_step_begins_s": process_age(),
                  "threads": torch.get_num_threads(), "step_s": [], "loss": [],
                  "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__}}
        for _ in range(args.steps):
            start = time.perf_counter()
            result["loss"].append(call())
            result["step_s"].append(time.perf_counter() - start)
    result["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
