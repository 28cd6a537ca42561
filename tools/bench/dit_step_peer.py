"""The public class' training step, timed: diffusers CosmosTransformer3DModel, eager or compiled, fused AdamW.

The peer of bench-dit-step; prints one JSON object with the same fields. Run by dit_step.sh.
"""

import argparse
import json
import os
import resource
import time


def process_age():
    """Seconds since the kernel started this process."""
    with open("/proc/self/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / ticks


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timestep", choices=["clip", "frame"], default="clip")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import diffusers
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = diffusers.CosmosTransformer3DModel(
        in_channels=16, out_channels=16, num_attention_heads=8, attention_head_dim=64,
        num_layers=8, text_embed_dim=1024, adaln_lora_dim=256, extra_pos_embed_type=None)
    if args.compile:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    latents = torch.randn(1, 16, 4, 24, 40)
    text = torch.randn(1, 64, 1024)
    timestep = torch.rand(1, 1, 4, 1, 1) if args.timestep == "frame" else torch.rand(1)
    padding_mask = torch.zeros(1, 1, 24, 40)
    target = torch.randn_like(latents)

    result = {"what": "compiled" if args.compile else "diffusers",
              "timestep": args.timestep, "step_s": [], "loss": [],
              "first_step_begins_s": process_age(), "threads": torch.get_num_threads(),
              "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__}}
    for _ in range(args.steps):
        start = time.perf_counter()
        sample = model(hidden_states=latents, timestep=timestep, encoder_hidden_states=text,
                       fps=24, padding_mask=padding_mask, return_dict=False)[0]
        loss = (sample - target).pow(2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        result["loss"].append(loss.item())
        result["step_s"].append(time.perf_counter() - start)
    result["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
