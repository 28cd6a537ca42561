"""PyTorch's FSDP2 (fully_shard) on a DiT and batches that somebody else made; one process a rank.

The peer of bench-sharded-step; started by fsdp2_proof.py with the variables that torchrun sets.
Rank 0 prints one JSON object with the same fields.
"""

import argparse
import json
import os
import time

import torch
import torch.distributed as dist
from diffusers import CosmosTransformer3DModel
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import exact


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--micro-batches", type=int, default=1)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float32")
    args = parser.parse_args()

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    dtype = getattr(torch, args.dtype)
    if dtype == torch.float64:
        exact.install()
    model = CosmosTransformer3DModel.from_pretrained(args.model).to(dtype)
    model.train()
    mesh = init_device_mesh("cpu", (ranks,))
    for block in model.transformer_blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.99), eps=1e-8,
                                  weight_decay=0)
    rows = {k: v.to(dtype) for k, v in load_file(args.inputs).items()}

    result = {"loss": [], "grad_norm": [], "step_s": []}
    for step in range(args.steps):
        start = time.perf_counter()
        total = torch.zeros((), dtype=dtype)
        for micro in range(args.micro_batches):
            sample = (step * ranks + rank) * args.micro_batches + micro
            row = {k: v[sample: sample + 1] for k, v in rows.items()}
            model.set_requires_gradient_sync(micro == args.micro_batches - 1)
            height, width = row["hidden_states"].shape[-2:]
            out = model(hidden_states=row["hidden_states"], timestep=row["timestep"], fps=24,
                        encoder_hidden_states=row["encoder_hidden_states"],
                        padding_mask=torch.zeros(1, 1, height, width, dtype=dtype),
                        return_dict=False)[0]
            loss = (out - row["target"]).pow(2).mean() / args.micro_batches
            loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        dist.all_reduce(total)
        result["loss"].append(total.item() / ranks)
        result["grad_norm"].append(norm.item())
        result["step_s"].append(time.perf_counter() - start)
    if rank == 0:
        print(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
