"""The trainer's sharding against PyTorch's FSDP2: the same weights and batches on ranks over Gloo.

  fsdp2_proof.py           losses and gradient norms in float64, 1e-9; writes docs/proofs/fsdp2.md
  fsdp2_proof.py --bench   step times in float32, alternating; writes docs/benchmarks/fsdp2.md

COSMOS_SHARDED_STEP names bench-sharded-step (default build/cpu/bin/bench-sharded-step).
"""

import argparse
import datetime
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile

import torch
from diffusers import CosmosTransformer3DModel
from safetensors.torch import save_file

import proof

ROOT = proof.ROOT
OURS = os.environ.get("COSMOS_SHARDED_STEP", ROOT / "build/cpu/bin/bench-sharded-step")
TINY = dict(in_channels=3, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=3,
            text_embed_dim=10, adaln_lora_dim=5, extra_pos_embed_type=None)
BENCH = dict(in_channels=16, out_channels=16, num_attention_heads=8, attention_head_dim=64, num_layers=8,
             text_embed_dim=1024, adaln_lora_dim=256, extra_pos_embed_type=None)


def samples(config, count, frames, height, width, tokens, generator):
    def draw(*shape):
        return torch.randn(*shape, generator=generator)
    clip = (count, config["in_channels"], frames, height, width)
    return {"hidden_states": draw(*clip), "timestep": torch.rand(count, generator=generator),
            "encoder_hidden_states": draw(count, tokens, config["text_embed_dim"]),
            "target": draw(count, config["out_channels"], *clip[2:])}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_ours(folder, name, ranks, steps, micro, dtype, threads):
    trainer = {"steps": steps, "gradient_accumulation": micro, "precision": dtype, "device": "cpu",
               "loader_threads": 0, "optimizer": {"lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0}}
    command = [str(OURS), "--nproc", str(ranks), "--model", f"{folder}/model", "--inputs",
               f"{folder}/inputs.safetensors", "--trainer", json.dumps(trainer), "--dir", f"{folder}/{name}"]
    env = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout)


def run_fsdp2(folder, ranks, steps, micro, dtype, threads):
    port = free_port()
    command = [sys.executable, ROOT / "test/reference/fsdp2_peer.py", "--model", f"{folder}/model", "--inputs",
               f"{folder}/inputs.safetensors", "--steps", str(steps), "--micro-batches", str(micro), "--dtype", dtype]
    processes = []
    for rank in range(ranks):
        env = os.environ | {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank),
                            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": str(threads)}
        processes.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE))
    out = [p.communicate()[0] for p in processes]
    if any(p.returncode for p in processes):
        sys.exit("fsdp2_peer.py failed")
    return json.loads(out[0])


def make(folder, config, count, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    model = CosmosTransformer3DModel(**config)
    proof.random_weights(model, generator, 1.0)
    model.save_pretrained(f"{folder}/model")
    save_file(samples(config, count, *shape, generator), f"{folder}/inputs.safetensors")


def worst(a, b):
    return max(abs(x - y) / abs(y) for x, y in zip(a, b, strict=True))


def prove():
    rows, failed = [], 0
    for ranks, micro in ((2, 1), (2, 3), (3, 2), (4, 1)):
        steps = 10
        with tempfile.TemporaryDirectory() as folder:
            make(folder, TINY, ranks * micro * steps, (3, 6, 4, 5), seed=ranks * 10 + micro)
            ours = run_ours(folder, "run", ranks, steps, micro, "fp64", 1)
            theirs = run_fsdp2(folder, ranks, steps, micro, "float64", 1)
        loss, norm = (worst(ours[k], theirs[k]) for k in ("loss", "grad_norm"))
        fine = loss < 1e-9 and norm < 1e-9
        failed += not fine
        rows.append(f"| {ranks} | {micro} | {steps} | {ours['loss'][0]:.6f} | {ours['loss'][-1]:.6f} | {loss:.1e} "
                    f"| {norm:.1e} | {'agrees' if fine else 'DIFFERS'} |")
        print(rows[-1], flush=True)
    page = f"""# Sharded training beside PyTorch's FSDP2

Made by `test/reference/run.sh fsdp2`; do not edit. {datetime.date.today()}, torch {torch.__version__}. The trainer
and `torch.distributed.fsdp.fully_shard` (a group a block) train diffusers' CosmosTransformer3DModel from the same
weights on the same batches, in float64 over Gloo: AdamW, clipping at norm 1. RMSNorm and the rotary embedding of the
public class, which compute in float32, are replaced by the same formulas in float64 (test/reference/exact.py).
Worst relative difference over all steps:

| ranks | micro-batches | steps | first loss | last loss | loss | gradient norm | result |
| --- | --- | --- | --- | --- | --- | --- | --- |
""" + "\n".join(rows) + "\n"
    (ROOT / "docs/proofs/fsdp2.md").write_text(page)
    print(f"fsdp2: {len(rows) - failed} passed, {failed} failed")
    return failed


def bench(pairs, steps):
    ranks, times = 2, {"ours": [], "fsdp2": []}
    with tempfile.TemporaryDirectory() as folder:
        make(folder, BENCH, ranks * steps, (4, 24, 40, 64), seed=1)
        load = os.getloadavg()[0]
        for pair in range(pairs):
            times["ours"].append(run_ours(folder, f"run{pair}", ranks, steps, 1, "fp32", 1)["step_s"])
            times["fsdp2"].append(run_fsdp2(folder, ranks, steps, 1, "float32", 1)["step_s"])
            print({k: round(statistics.median(v[-1][2:]), 3) for k, v in times.items()}, flush=True)
    median = {k: statistics.median(t for run in v for t in run[2:]) for k, v in times.items()}
    ratios = [statistics.median(b[2:]) / statistics.median(a[2:]) for a, b in zip(times["ours"], times["fsdp2"])]
    page = f"""# Sharded step beside PyTorch's FSDP2

Made by `test/reference/run.sh fsdp2 --bench`; do not edit. {datetime.date.today()}, torch {torch.__version__}, {ranks}
ranks over Gloo with one thread each on two cores, load average before {load:.1f}; {pairs} alternating pairs of {steps}
steps, the first two left out. 8 layers, 8 heads of 64, latents [1, 16, 4, 24, 40] a rank, 64 text tokens, float32.

| | step, s (median) |
| --- | --- |
| cosmos | {median['ours']:.3f} |
| FSDP2 | {median['fsdp2']:.3f} |

Step rate, ours over FSDP2's: {median['fsdp2'] / median['ours']:.2f} (pairs: {', '.join(f'{r:.2f}' for r in ratios)}).
"""
    (ROOT / "docs/benchmarks/fsdp2.md").write_text(page)
    print(page)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", action="store_true")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    sys.exit(bench(args.pairs, args.steps) if args.bench else 1 if prove() else 0)


if __name__ == "__main__":
    main()
