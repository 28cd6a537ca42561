"""NVIDIA's own checkpoints, in and out. Writes docs/proofs/native.md.

    native_proof.py [--no-table]

Random checkpoints with native names (native_cases.py) are saved by torch in every form that NVIDIA
ships or trains into, go through `cosmos-convert import`, and are compared, tensor by tensor and bit
for bit, with what diffusers' own converters make of the same names; diffusers loads the folder. Then
`cosmos-convert native` writes a file that torch.load reads, equal in every tensor.
COSMOS_CONVERT names the program.
"""

import argparse
import datetime
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import diffusers
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

import export_proof
import native_cases as cases
import proof


def convert(*arguments) -> str:
    program = os.environ.get("COSMOS_CONVERT", proof.ROOT / "build/cpu/bin/cosmos-convert")
    done = subprocess.run([str(a) for a in (program, *arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"cosmos-convert: {done.stderr.strip()}")
    return done.stdout


def difference(want: cases.Tensors, have: cases.Tensors) -> str:
    """"" when both hold the same names and the same bits."""
    if want.keys() != have.keys():
        return f"missing {sorted(want.keys() - have.keys())[:3]}, more {sorted(have.keys() - want.keys())[:3]}"
    for name, tensor in want.items():
        if tensor.dtype != have[name].dtype or tensor.shape != have[name].shape:
            return f"{name}: {have[name].dtype} {tuple(have[name].shape)}"
        if not torch.equal(tensor.contiguous().view(torch.uint8), have[name].contiguous().view(torch.uint8)):
            return f"{name} differs"
    return ""


def weights_of(folder: pathlib.Path) -> cases.Tensors:
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def _dcp_rank(rank: int, world: int, state: cases.Tensors, folder: str, writer: str, port: int) -> None:
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    os.environ |= dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    shards = {k: distribute_tensor(v, mesh, [Shard(0)]) if v.dim() else v for k, v in state.items()}
    if writer == "dcp":
        dcp.save({"model": shards}, checkpoint_id=folder)
    else:
        storage = dcp.HuggingFaceStorageWriter(path=folder, save_distributed=True)
        dcp.save(shards, storage_writer=storage)
    dist.destroy_process_group()


def save_ranks(state: cases.Tensors, folder: pathlib.Path, writer: str, port: int, world: int = 3) -> None:
    torch.multiprocessing.spawn(_dcp_rank, (world, state, str(folder), writer, port), nprocs=world)


def wrapped(net: cases.Tensors) -> dict:
    """As an FSDP run with checkpointing leaves it: averages, wrappers, TransformerEngine's state."""
    state = {}
    for name, value in net.items():
        parts = name.split(".")
        if parts[0] == "blocks":
            parts.insert(2, "_checkpoint_wrapped_module")
        state["net." + ".".join(parts)] = value
        state["net_ema." + name] = value + 1 if value.is_floating_point() else value
    state["net.blocks.0.self_attn.attn_op._extra_state"] = io.BytesIO(b"\xff\x00te")
    return {"model": state, "iteration": 7, "optimizer": {"lr": 1e-4, "state": [torch.ones(3)]}}


def to_bf16(net: cases.Tensors) -> cases.Tensors:
    return {k: v.bfloat16() if v.is_floating_point() else v for k, v in net.items()}


def forms(net: cases.Tensors, work: pathlib.Path):
    """(name, file or folder, options): the same network in every container."""
    state = {f"net.{k}": v for k, v in net.items()}
    torch.save(state, work / "plain.pt")
    yield "torch.save", work / "plain.pt", []
    torch.save(state, work / "old.pt", _use_new_zipfile_serialization=False)
    yield "torch.save before 1.6", work / "old.pt", []
    torch.save(torch.nn.ParameterDict({}).state_dict() | {"state_dict": {"module": state}}, work / "nested.pt")
    yield "nested dicts", work / "nested.pt", []
    strided = {k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in state.items()}
    torch.save(strided, work / "strided.pt")
    yield "strided tensors", work / "strided.pt", []
    torch.save(wrapped(net), work / "fsdp.pt")
    yield "FSDP wrappers, TE state, averages", work / "fsdp.pt", []
    save_file({k: v.contiguous() for k, v in state.items()}, work / "one.safetensors")
    yield "safetensors", work / "one.safetensors", []
    dcp.save({"model": state, "step": 3}, checkpoint_id=work / "dcp1", no_dist=True)
    yield "DCP of 1 rank", work / "dcp1", []
    save_ranks(state, work / "dcp3", "dcp", 29611)
    yield "DCP of 3 ranks", work / "dcp3", []
    save_ranks(state, work / "hf3", "hf", 29612)
    yield "DCP safetensors of 3 ranks", next((p for p in [work / "hf3" / "sharded"] if p.exists()), work / "hf3"), []


def check_folder(class_name: str, folder: pathlib.Path, want: cases.Tensors, config: dict) -> str:
    problem = difference(want, weights_of(folder))
    if problem:
        return problem
    _, words = export_proof.load_listening(class_name, folder)
    if words:
        return words
    have = json.loads((folder / "config.json").read_text())
    return "; ".join(f"{k}: {have.get(k)}" for k, v in config.items() if have.get(k) != v)


def check_native(folder: pathlib.Path, net: cases.Tensors, out: pathlib.Path, prefix: str = "net.") -> str:
    convert("native", "--model", folder, "--output", out)
    back = torch.load(out, weights_only=True)
    noise = ("accum_", "logvar.", "pos_embedder.")
    want = {prefix + k: v for k, v in net.items() if not k.startswith(noise)}
    return difference(want, {k: v for k, v in back.items() if not k.startswith(tuple(prefix + n for n in noise))})


def rows(work: pathlib.Path):
    generator = torch.Generator().manual_seed(1)
    for name, config in cases.CONFIGS.items():
        build = cases.predict1 if name.startswith("Predict1") else cases.predict2
        net = to_bf16(build(config, generator))
        slug = name.replace(" ", "-")
        torch.save({f"net.{k}": v for k, v in net.items()}, work / f"{slug}.pt")
        convert("import", "--model", work / f"{slug}.pt", "--output", work / slug)
        want = cases.expected_transformer(net)
        problem = check_folder("CosmosTransformer3DModel", work / slug, want, config)
        yield name, "torch.save, bfloat16", len(want), problem or check_native(work / slug, net, work / f"{slug}-back.pt")

    net = cases.predict2(cases.CONFIGS["Predict2 video"], generator)
    want = cases.expected_transformer(net)
    for index, (form, path, options) in enumerate(forms(net, work)):
        out = work / f"form{index}"
        convert("import", "--model", path, "--output", out, *options)
        yield "Predict2 video", form, len(want), difference(want, weights_of(out))
    convert("import", "--model", work / "fsdp.pt", "--output", work / "ema", "--ema")
    yield "Predict2 video", "the averages", len(want), difference(
        {k: v + 1 for k, v in want.items()}, weights_of(work / "ema")
    )

    net = cases.predict2(cases.TRANSFER, generator, control=2)
    torch.save({f"net.{k}": v for k, v in net.items()}, work / "transfer.pt")
    convert("import", "--model", work / "transfer.pt", "--output", work / "transfer")
    want, control = cases.expected_transformer(net), cases.expected_control(net)
    problem = check_folder("CosmosTransformer3DModel", work / "transfer/transformer", want, cases.TRANSFER)
    problem = problem or check_folder("CosmosControlNetModel", work / "transfer/controlnet", control, {})
    problem = problem or check_native(work / "transfer", net, work / "transfer-back.pt")
    yield "Transfer2.5", "base and control branch", len(want) + len(control), problem

    net = cases.wan(cases.WAN, generator)
    torch.save(net, work / "Wan2.1_VAE.pth")
    convert("import", "--model", work / "Wan2.1_VAE.pth", "--output", work / "wan")
    want = cases.expected_wan(net)
    problem = check_folder("AutoencoderKLWan", work / "wan", want, cases.WAN)
    yield "Wan VAE", ".pth", len(want), problem or check_native(work / "wan", net, work / "wan-back.pth", "")

    yield pipeline_row(work)


def pipeline_row(work: pathlib.Path):
    out = work / "pipeline"
    vae = ["--vae", work / "Wan2.1_VAE.pth"]
    convert("import", "--model", work / "Predict2-video.pt", "--output", out, "--pipeline", *vae)
    pipe = diffusers.Cosmos2VideoToWorldPipeline.from_pretrained(
        out, safety_checker=lambda *args, **kwargs: None, text_encoder=None, tokenizer=None
    )
    want = cases.expected_transformer(
        {k.removeprefix("net."): v for k, v in torch.load(work / "Predict2-video.pt", weights_only=True).items()}
    )
    have = {k: v.to(torch.bfloat16) for k, v in pipe.transformer.state_dict().items()}
    kind = type(pipe.scheduler).__name__
    problem = difference(want, have) or ("" if kind == "FlowMatchEulerDiscreteScheduler" else kind)
    return "Predict2 video", "pipeline with VAE and scheduler, loaded by diffusers", len(want), problem


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-table", action="store_true", help="leave docs/proofs/ as it is")
    args = parser.parse_args()
    torch.set_num_threads(1)
    done = []
    with tempfile.TemporaryDirectory() as work:
        for model, form, tensors, problem in rows(pathlib.Path(work)):
            done.append((model, form, tensors, problem))
            print(f"{model:16} {form:44} {tensors:4}  {problem or 'equal'}", flush=True)
    failed = [row for row in done if row[3]]
    if not args.no_table:
        lines = [
            "# NVIDIA's own checkpoints, in and out",
            "",
            f"{datetime.date.today()}, diffusers {diffusers.__version__}, torch {torch.__version__}.",
            "Made by `test/reference/run.sh native`: random checkpoints with native names, saved by torch, through",
            "`cosmos-convert import`, compared bit for bit with what diffusers' converters make of the same names, loaded",
            "by diffusers; then through `cosmos-convert native` and compared bit for bit with what went in.",
            "",
            "| model | form | tensors | result |",
            "| --- | --- | ---: | --- |",
        ]
        lines += [f"| {m} | {f} | {t} | {p or 'equal'} |" for m, f, t, p in done]
        path = proof.ROOT / "docs/proofs/native.md"
        path.write_text("\n".join(lines) + "\n")
        print(f"wrote {path.relative_to(proof.ROOT)}")
    print(f"{len(done) - len(failed)} of {len(done)} agree")
    return 1 if failed or not done else 0


if __name__ == "__main__":
    sys.exit(main())
