"""What the proofs share: a case, how the public class is called, how two answers are compared.

A case file (dit_cases.py, ...) defines CASES, a list of Case. model_proof.py runs them all.
"""

import copy
import dataclasses
import functools
import importlib
import math
import os
import pathlib
import subprocess
import time
from typing import Callable

import torch
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 2e-4  # relative L2 per tensor, float32
# A gradient's denominator is no smaller than this part of the whole gradient's norm: with the
# tolerance, an error of float32's epsilon of the whole. A gradient that is wrong and larger than that
# is found; one that is zero in truth (a key's, where there is one token) is rounding in both answers.
FLOOR = 6e-4
CONTROL = "block_controlnet_hidden_states."
Tensors = dict[str, torch.Tensor]


@dataclasses.dataclass
class Case:
    """One random model and one call.

    inputs(generator) returns the call's tensors under cosmos-forward's names; one-element tensors
    named in SCALARS reach Python as numbers.
    """

    name: str
    class_name: str  # of `library`
    config: dict
    inputs: Callable[[torch.Generator], Tensors]
    method: str = "forward"
    weight_gain: float = 1.0
    # or "transformers": its config comes from `class_name`.config_class; or a module of this folder
    # (plain, transnet, aesthetic)
    library: str = "diffusers"


SCALARS = {"fps", "conditioning_scale"}  # one number; a longer tensor becomes a list


def random_weights(model: torch.nn.Module, generator: torch.Generator, gain: float) -> None:
    """Products keep the scale of what they are given; norms are near one; nothing is zero."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() > 1 and name.split(".")[-1] not in ("gamma",):
                fan_in = weight[0].numel()
                weight.copy_(noise * gain / math.sqrt(fan_in))
            elif name.endswith("bias"):
                weight.copy_(0.2 * noise)
            else:
                weight.copy_(1 + 0.2 * noise)


def call(model: torch.nn.Module, method: str, inputs: Tensors) -> Tensors:
    """Calls the public class and names what it returns as cosmos-forward does."""
    if method == "encode":
        return {"latent": model.encode(inputs["sample"]).latent_dist.mode()}
    if method == "decode":
        return {"sample": model.decode(inputs["latent"]).sample}
    args = {k: v for k, v in inputs.items() if not k.startswith(CONTROL)}
    for name in SCALARS & args.keys():
        args[name] = args[name].item() if args[name].numel() == 1 else args[name].tolist()
    controls = [inputs[f"{CONTROL}{i}"] for i in range(len(inputs) - len(args))]
    if controls:
        args[CONTROL[:-1]] = controls
    if hasattr(model, "generate"):
        return {"logits": model(**args).logits}
    if "img_context" in args:
        args["encoder_hidden_states"] = (args["encoder_hidden_states"], args.pop("img_context"))
    if "controls_latents" in args:
        args.setdefault("condition_mask", None)  # has no default there
    out = model(**args)
    if type(out) is dict:
        return out
    if hasattr(out, "control_block_samples"):
        return {f"control_block_samples.{i}": x for i, x in enumerate(out.control_block_samples)}
    if hasattr(out, "image_embeds"):
        return {"image_embeds": out.image_embeds}
    if hasattr(out, "last_hidden_state"):
        return {"last_hidden_state": out.last_hidden_state}
    return {"sample": out.sample}


def run_reference(model: torch.nn.Module, method: str, inputs: Tensors) -> Tensors:
    """Outputs, `loss` and `grad.*` of the public class."""
    model.zero_grad(set_to_none=True)
    outputs = call(model, method, inputs)
    loss = sum(out.float().square().mean() for out in outputs.values())
    loss.backward()
    result = {name: out.detach() for name, out in outputs.items()}
    result["loss"] = loss.detach()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            result[f"grad.{name}"] = weight.grad
    return result


def run_program(folder: pathlib.Path, method: str, inputs: Tensors, work: pathlib.Path) -> Tensors:
    """Outputs, `loss` and `grad.*` of cosmos-forward."""
    save_file({k: v.contiguous() for k, v in inputs.items()}, work / "in.safetensors")
    program = os.environ.get("COSMOS_FORWARD", ROOT / "build/cpu/bin/cosmos-forward")
    command = [program, "--model", folder, "--inputs", work / "in.safetensors"]
    command += ["--outputs", work / "out.safetensors", "--method", method, "--backward"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"cosmos-forward: {done.stderr.strip()}")
    return load_file(work / "out.safetensors")


@dataclasses.dataclass
class Outcome:
    tensors: int = 0
    exact: int = 0  # tensors judged by the public class in float64
    output_error: float = 0.0
    gradient_error: float = 0.0
    worst: str = ""
    problem: str = ""


def compare(expected: Tensors, got: Tensors, exact: Callable[[], Tensors] | None = None) -> Outcome:
    """Where two float32 answers differ by more than the limit, `exact` (the public class in float64)
    says which of them is off: the true gradient of a key's bias is zero, and what float32 makes of
    it is rounding. Ours may be off by the limit, or by twice what the public class itself is in
    float32."""
    outcome = Outcome(tensors=len(expected))
    missing, extra = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    if missing or extra:
        outcome.problem = f"missing {missing[:3]}, unexpected {extra[:3]}"
        return outcome
    grads = [v.double() for k, v in expected.items() if k.startswith("grad.")]
    whole = math.sqrt(sum(g.square().sum().item() for g in grads)) if grads else 0.0
    for name, want in expected.items():
        have = got[name].double()
        want = want.double()
        if have.shape != want.shape:
            outcome.problem = f"{name}: shape {tuple(have.shape)}, expected {tuple(want.shape)}"
            return outcome
        is_grad = name.startswith("grad.")
        norm = max(want.norm().item(), FLOOR * whole if is_grad else 0.0, 1e-30)
        error, limit = (have - want).norm().item() / norm, TOLERANCE
        if not error <= TOLERANCE and exact is not None:
            answer = exact()[name].double()
            error = (have - answer).norm().item() / norm
            limit = max(limit, 2 * (want - answer).norm().item() / norm)
            outcome.exact += 1
        if not error <= max(outcome.gradient_error, outcome.output_error):
            outcome.worst = name
        if is_grad:
            outcome.gradient_error = max(outcome.gradient_error, error)
        else:
            outcome.output_error = max(outcome.output_error, error)
        if not error <= limit and not outcome.problem:
            outcome.problem = f"{name}: relative L2 {error:.1e}"
    return outcome


def make_model(case: Case) -> torch.nn.Module:
    if case.library == "transformers":
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        model_class = getattr(transformers, case.class_name)
        return model_class(model_class.config_class(**copy.deepcopy(case.config)))
    return getattr(importlib.import_module(case.library), case.class_name)(**case.config)


def write_folder(case: Case, seed: int, folder: pathlib.Path) -> tuple[torch.nn.Module, Tensors]:
    """A random model of the case, saved by the public class; returns it with the case's inputs."""
    generator = torch.Generator().manual_seed(seed)
    model = make_model(case).eval()
    random_weights(model, generator, case.weight_gain)
    inputs = case.inputs(generator)
    model.save_pretrained(folder)
    return model, inputs


def exact_reference(model: torch.nn.Module, method: str, inputs: Tensors) -> Callable[[], Tensors]:
    """The public class in float64, run when first asked."""

    @functools.cache
    def answers() -> Tensors:
        wide = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
        return run_reference(copy.deepcopy(model).double(), method, wide)

    return answers


def timed(fn):
    start = time.monotonic()
    result = fn()
    return result, time.monotonic() - start
