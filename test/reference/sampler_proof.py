#!/usr/bin/env python3
"""Compares our samplers with diffusers' schedulers, and writes test/golden/samplers.json.

    python test/reference/sampler_proof.py [--golden] [--binary build/cpu/bin/test_modules]

Every case runs a scheduler with a fixed feedback "model", out = sin(12.9 i + 4.1 j + 1) + tanh(x) / 10
(i step, j element), and records its levels and its trajectory. Without --golden the cases (1 to 50
steps) go to a temporary file and the test binary checks itself against them; with it a few short
cases replace the golden file. The 2AB sampler is checked against the NumPy formula below, as
diffusers has none.
"""

import argparse
import json
import os
import subprocess
import tempfile

import numpy as np
import torch
from diffusers import EDMEulerScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

ELEMENTS = 3
FLOW = dict(prediction_type="flow_prediction", use_flow_sigmas=True)
CASES = [
    ("unipc-shift5", UniPCMultistepScheduler, dict(FLOW, flow_shift=5.0)),
    ("unipc-karras", UniPCMultistepScheduler,
     dict(FLOW, use_karras_sigmas=True, sigma_max=200.0, sigma_min=0.01, flow_shift=1.0)),
    ("unipc-bh1", UniPCMultistepScheduler,
     dict(FLOW, flow_shift=3.0, solver_type="bh1", final_sigmas_type="sigma_min")),
    ("unipc-order1-nocorrect", UniPCMultistepScheduler,
     dict(FLOW, solver_order=1, disable_corrector=[0, 2])),
    ("edm-euler", EDMEulerScheduler, dict(final_sigmas_type="sigma_min")),
    ("edm-euler-exponential", EDMEulerScheduler,
     dict(sigma_schedule="exponential", prediction_type="v_prediction")),
    ("flow-euler", FlowMatchEulerDiscreteScheduler, dict(shift=3.0)),
    ("flow-euler-exponential", FlowMatchEulerDiscreteScheduler,
     dict(shift=2.0, use_exponential_sigmas=True)),
    ("flow-euler-cosmos2", FlowMatchEulerDiscreteScheduler, dict(use_karras_sigmas=True)),
    ("res-2ab", None, dict(sigma_max=80.0, sigma_min=0.002, rho=7.0)),
]


def feedback(x, i):
    j = np.arange(ELEMENTS)
    return np.sin(12.9 * i + 4.1 * j + 1) + np.tanh(x) / 10


def start():
    return np.cos(np.arange(ELEMENTS) * 1.7 + 0.3)


def run_diffusers(cls, options, steps, name):
    scheduler = cls(**options)
    config = dict(scheduler.config)
    if name == "flow-euler-cosmos2":  # what the Cosmos2 pipelines register
        extra = dict(sigma_max=80.0, sigma_min=0.002, sigma_data=1.0, final_sigmas_type="sigma_min")
        scheduler.register_to_config(**extra)
        config.update(extra)
    scheduler.set_timesteps(steps)
    if name == "flow-euler-cosmos2":
        scheduler.sigmas[-1] = scheduler.sigmas[-2]
    scale = {"edm": 80.0, "flow-euler-cosmos2": 80.0}.get(name if "cosmos2" in name else name[:3], 1.0)
    x = torch.tensor(start() * scale, dtype=torch.float32).view(1, ELEMENTS)
    trajectory = []
    for i, t in enumerate(scheduler.timesteps):
        if cls is EDMEulerScheduler:
            scheduler.is_scale_input_called = True
        scheduler._begin_index = 0  # equal timesteps occur: count steps instead of searching
        out = torch.tensor(feedback(x.numpy()[0].astype(np.float64), i), dtype=torch.float32)
        x = scheduler.step(out.view(1, ELEMENTS), t, x, return_dict=False)[0]
        trajectory.append([float(v) for v in x[0]])
    config["_class_name"] = cls.__name__
    return dict(config=config, sigmas=scheduler.sigmas.double().tolist(),
                timesteps=scheduler.timesteps.double().tolist(), trajectory=trajectory)


def run_2ab(options, steps):
    lo, hi = options["sigma_min"] ** (1 / 7), options["sigma_max"] ** (1 / 7)
    sigmas = (hi + np.linspace(0, 1, steps + 1) * (lo - hi)) ** 7
    x, past, trajectory = start() * 80.0, None, []
    for i, s in enumerate(sigmas):
        x0 = feedback(x, i)
        if i == steps:
            x = x0
        elif past is None:
            x = sigmas[i + 1] / s * x + (1 - sigmas[i + 1] / s) * x0
        else:
            lam = -np.log([sigmas[i - 1], s, sigmas[i + 1]])
            d, c = lam[2] - lam[1], (lam[0] - lam[1]) / (lam[2] - lam[1])
            p1 = (np.exp(-d) - 1) / -d
            p2 = (p1 - 1) / -d
            x = np.exp(-d) * x + d * ((p1 - p2 / c) * x0 + p2 / c * past)
        past = x0
        trajectory.append(x.tolist())
    config = dict(options, _class_name="CosmosRes2ABScheduler")
    return dict(config=config, sigmas=sigmas.tolist() + [0.0], timesteps=sigmas.tolist(),
                trajectory=trajectory)


def cases(step_counts, golden):
    for name, cls, options in CASES:
        for steps in step_counts:
            case = run_2ab(options, steps) if cls is None else run_diffusers(cls, options, steps, name)
            keep = {k: v for k, v in case["config"].items()
                    if not k.startswith("_") or k == "_class_name"}
            if golden:  # only what differs from the defaults, to keep the file small
                keep = dict(options, _class_name=case["config"]["_class_name"])
                if name == "flow-euler-cosmos2":
                    keep.update(sigma_max=80.0, sigma_min=0.002, final_sigmas_type="sigma_min")
            yield dict(case, name=f"{name}/{steps}", steps=steps, config=keep)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--golden", action="store_true")
    parser.add_argument("--binary", default="build/cpu/bin/test_modules")
    args = parser.parse_args()
    here = os.path.dirname(os.path.abspath(__file__))
    if args.golden:
        with open(os.path.join(here, "../golden/samplers.json"), "w") as out:
            lines = [json.dumps(json.loads(json.dumps(c), parse_float=lambda v: float(f"{float(v):.8g}")))
                     for c in cases([1, 4], True)]
            out.write("[\n" + ",\n".join(lines) + "\n]\n")
        return
    with tempfile.NamedTemporaryFile("w", suffix=".json") as out:
        json.dump(list(cases([1, 2, 3, 5, 10, 14, 15, 20, 35, 36, 50], False)), out)
        out.flush()
        subprocess.run([args.binary, "[sampler-golden]"], check=True,
                       env=dict(os.environ, COSMOS_SAMPLER_CASES=out.name))
        print("all samplers agree with diffusers to 1e-5 (relative to the largest value of the state)")


main()
