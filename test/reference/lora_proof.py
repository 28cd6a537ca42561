"""Adapters and exports against PEFT and diffusers, both ways, and writes docs/proofs/lora.md.

    lora_proof.py [--only SUBSTRING] [--no-table]

For each case a random transformer and a random adapter, written by PEFT. Then:
  read      cosmos-forward --adapter on PEFT's folder
  peft      PEFT loads what cosmos-convert adapter --format peft wrote
  diffusers load_lora_adapter on what cosmos-convert adapter --format diffusers wrote
  file      cosmos-forward --adapter on the LoRA file that diffusers wrote
  merge     from_pretrained on what cosmos-convert merge wrote
COSMOS_BIN names the folder of our programs (default build/cpu/bin). Every output must equal PEFT's own to 2e-4, and no library may warn about a key.
"""

import argparse
import contextlib
import datetime
import io
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import torch
from diffusers import CosmosTransformer3DModel
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

import proof

CONFIG = dict(
    in_channels=5, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2,
    mlp_ratio=2.0, text_embed_dim=12, adaln_lora_dim=4, max_size=(4, 8, 8), patch_size=(1, 2, 2),
    extra_pos_embed_type=None, concat_padding_mask=True,
)
CASES = {
    "names": dict(r=4, lora_alpha=8, target_modules=["to_q", "to_k", "to_v", "to_out.0"]),
    "all-linear": dict(r=3, lora_alpha=5, target_modules="all-linear"),
    "regex": dict(r=2, lora_alpha=2, target_modules=r".*attn[12]\.to_[qv]"),
    "rslora, patterns": dict(
        r=4, lora_alpha=8, use_rslora=True, target_modules=["to_q", "proj", "net.2"],
        rank_pattern={"attn2.to_q": 2}, alpha_pattern={"net.2": 3},
    ),
    "dora": dict(r=4, lora_alpha=8, use_dora=True, target_modules=["to_q", "to_out.0", "net.2"]),
    "excluded": dict(r=2, lora_alpha=4, target_modules=["to_q"], exclude_modules=r".*blocks\.0\..*"),
}
WARNED = ("key", "unexpected", "missing", "not used", "newly initialized", "adapter")


def program(name: str, *arguments) -> str:
    """Runs one of our programs; its stderr becomes the error."""
    folder = os.environ.get("COSMOS_BIN", str(proof.ROOT / "build/cpu/bin"))
    command = [f"{folder}/{name}", *[str(a) for a in arguments]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


@contextlib.contextmanager
def no_key_warnings():
    """Fails when a library warns about keys, by warnings or by its logger."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    loggers = [logging.getLogger(name) for name in ("diffusers", "peft", "transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for logger in loggers:
        logger.removeHandler(handler)
    lines = text.getvalue().splitlines() + [str(w.message) for w in caught]
    bad = [line for line in lines if any(word in line.lower() for word in WARNED)]
    if bad:
        raise RuntimeError(f"warning: {bad[0][:120]}")


def base_model(folder: pathlib.Path) -> CosmosTransformer3DModel:
    return CosmosTransformer3DModel.from_pretrained(folder).eval()


def inputs(generator: torch.Generator) -> dict:
    def randn(*shape):
        return torch.randn(shape, generator=generator)

    return {
        "hidden_states": randn(2, 4, 2, 4, 6),
        "condition_mask": torch.ones(2, 1, 2, 4, 6),
        "encoder_hidden_states": randn(2, 3, 12),
        "timestep": torch.rand(2, generator=generator),
        "padding_mask": torch.zeros(1, 1, 32, 48),
    }


def run(model, given) -> torch.Tensor:
    with torch.no_grad():
        return model(**given, return_dict=False)[0]


def forward(model: pathlib.Path, adapter: pathlib.Path, given, work: pathlib.Path) -> torch.Tensor:
    save_file(given, work / "in.safetensors")
    program("cosmos-forward", "--model", model, "--inputs", work / "in.safetensors",
            "--outputs", work / "out.safetensors", "--adapter", adapter)
    return load_file(work / "out.safetensors")["sample"]


def by_peft(model, adapter, given, work):
    with no_key_warnings():
        loaded = PeftModel.from_pretrained(base_model(model), adapter).eval()
    ours = load_file(adapter / "adapter_model.safetensors")
    theirs = get_peft_model_state_dict(loaded)
    assert ours.keys() == theirs.keys(), "keys differ from PEFT's"
    theirs_again = work / "again"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT looks for the base's config on the hub
        loaded.save_pretrained(theirs_again)
    a, b = (json.loads((d / "adapter_config.json").read_text()) for d in (adapter, theirs_again))
    assert a.keys() == b.keys(), f"config keys differ: {a.keys() ^ b.keys()}"
    return run(loaded, given)


def by_diffusers(model, adapter, given, work):
    loaded = base_model(model)
    with no_key_warnings():
        loaded.load_lora_adapter(adapter, prefix="transformer", use_safetensors=True)
    return run(loaded, given)


def by_file(model, peft_folder, given, work):
    loaded = base_model(model)
    config = LoraConfig.from_pretrained(peft_folder)
    loaded.add_adapter(config)
    weights = load_file(peft_folder / "adapter_model.safetensors")
    set_peft_model_state_dict(
        loaded, {k.removeprefix("base_model.model."): v for k, v in weights.items()}
    )
    loaded.save_lora_adapter(work / "lora")
    return forward(model, work / "lora" / "pytorch_lora_weights.safetensors", given, work)


def by_merge(model, peft_folder, given, work):
    program("cosmos-convert", "merge", "--model", model, "--adapter", peft_folder,
            "--output", work / "merged", "--base-model", "random/base")
    with no_key_warnings():
        merged = base_model(work / "merged")
    return run(merged, given)


def run_case(name: str, peft_config: dict, seed: int) -> dict[str, str | float]:
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        model = CosmosTransformer3DModel(**CONFIG).eval()
        proof.random_weights(model, generator, 1.0)
        model.save_pretrained(work / "model")
        given = inputs(generator)
        plain = run(model, given)
        adapted = get_peft_model(model, LoraConfig(**peft_config)).eval()
        with torch.no_grad():
            for key, weight in adapted.named_parameters():
                if "lora_B" in key or "magnitude" in key:
                    weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
        adapted.save_pretrained(work / "theirs")
        expected = run(adapted, given)
        assert (expected - plain).norm() > 1e-3 * plain.norm(), "the adapter has no effect"

        for kind in ("peft", "diffusers"):
            program("cosmos-convert", "adapter", "--model", work / "model", "--format", kind,
                    "--adapter", work / "theirs", "--output", work / kind, "--base-model", "random/base")
        ways = {
            "read": lambda: forward(work / "model", work / "theirs", given, work),
            "peft": lambda: by_peft(work / "model", work / "peft", given, work),
            "diffusers": lambda: by_diffusers(work / "model", work / "diffusers", given, work),
            "file": lambda: by_file(work / "model", work / "theirs", given, work),
            "merge": lambda: by_merge(work / "model", work / "theirs", given, work),
        }
        errors = {}
        for way, compute in ways.items():
            try:
                errors[way] = ((compute() - expected).norm() / expected.norm()).item()
            except (RuntimeError, AssertionError, ValueError, KeyError, OSError) as error:
                errors[way] = str(error) or type(error).__name__
        return errors


def agrees(error) -> bool:
    return isinstance(error, float) and error <= proof.TOLERANCE


def table(rows) -> str:
    import diffusers
    import peft

    lines = [
        "# Adapters against PEFT and diffusers",
        "",
        f"{datetime.date.today()}, peft {peft.__version__}, diffusers {diffusers.__version__}, torch "
        f"{torch.__version__}, float32 on the CPU, random weights.",
        "Made by `test/reference/run.sh lora`. Relative L2 distance of the output from PEFT's own; the limit is "
        f"{proof.TOLERANCE:.0e}; a warning about a key would be a failure.",
        "",
        "read: PEFT's folder by `cosmos-forward --adapter`. peft, diffusers: what `cosmos-convert adapter` wrote, by "
        "the library. file: diffusers' LoRA file by `cosmos-forward --adapter`. merge: what "
        "`cosmos-convert merge` wrote, by diffusers.",
        "",
        "| case | read | peft | diffusers | file | merge |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, errors in rows:
        cells = [f"{e:.1e}" if isinstance(e, float) else f"FAILED: {e}" for e in errors.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--no-table", action="store_true", help="leave docs/proofs/ as it is")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for index, (name, config) in enumerate(CASES.items()):
        if args.only not in name:
            continue
        errors = run_case(name, config, 20261122 + index)
        rows.append((name, errors))
        print(f"{name:18}", *(f"{way} {e:.1e}" if isinstance(e, float) else f"{way} FAILED: {e}"
                              for way, e in errors.items()), sep="  ", flush=True)
    good = sum(all(agrees(e) for e in errors.values()) for _, errors in rows)
    if not args.no_table and not args.only:
        path = proof.ROOT / "docs/proofs/lora.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(table(rows))
    print(f"{good} of {len(rows)} cases agree")
    return 0 if rows and good == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
