"""Greedy generation of transformers and of cosmos-forward --method generate on random models: 128 tokens,
the same, or the same until two candidates' logits differ by less than 1e-4. Writes docs/proofs/generate.md.

    generate_proof.py [--only SUBSTRING] [--seed N] [--no-table]
"""

import argparse
import datetime
import os
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

import proof
import vlm_cases as vlm

NEW_TOKENS = 128
TIE = 1e-4
WIDE = {"vocab_size": 500}


def cases():
    text = [[11], [4], [23]]
    mixed = vlm.MIXED
    yield vlm.qwen25("text", text, padding="left", text=WIDE), {}
    yield vlm.qwen25("images and videos", mixed, padding="left", seconds=[2.0, 0.3], text=WIDE), {}
    yield vlm.qwen3("text", text, padding="left", text=WIDE), {}
    yield vlm.qwen3("images and videos", mixed, padding="left", text=WIDE), {}
    yield vlm.qwen3("repetition penalty", mixed, padding="left", text=WIDE), {"repetition_penalty": 1.3}
    yield vlm.qwen3("images and videos", mixed, padding="left", text=WIDE, moe=True), {}
    yield vlm.lm("qwen2", "Qwen2ForCausalLM", text, padding="left", **WIDE), {}
    yield vlm.lm("qwen3-moe", "Qwen3MoeForCausalLM", text, padding="left", head_dim=12, **vlm.MOE, **WIDE), {}
    yield vlm.lm("llama", "LlamaForCausalLM", text, padding="left", **WIDE), {}


def reference(model, inputs, options):
    """Tokens [B, new] and the margin between the two best logits at each [B, new]."""
    out = model.generate(
        **inputs, **options, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False,
        output_scores=True, return_dict_in_generate=True, pad_token_id=0,
    )
    best = torch.stack(out.scores, 1).topk(2, -1).values
    return out.sequences, best[..., 0] - best[..., 1]


def ours(folder, inputs, options, work):
    scalars = {k: torch.tensor([float(v)]) for k, v in options.items()}
    scalars["max_new_tokens"] = torch.tensor([NEW_TOKENS])
    save_file({k: v.contiguous() for k, v in (inputs | scalars).items()}, work / "in.safetensors")
    program = os.environ.get("COSMOS_FORWARD", proof.ROOT / "build/cpu/bin/cosmos-forward")
    command = [program, "--model", folder, "--inputs", work / "in.safetensors"]
    command += ["--outputs", work / "out.safetensors", "--method", "generate"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"cosmos-forward: {done.stderr.strip()}")
    return load_file(work / "out.safetensors")["sequences"]


def run_case(case, options, seed):
    """(agreeing tokens, all tokens, distinct tokens, smallest margin met, problem)"""
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        # Random weights at this gain write varied text; at 1 they soon repeat one token.
        case.weight_gain = 1.5
        model, inputs = proof.write_folder(case, seed, work / "model")
        want, margin = reference(model, inputs, options)
        got = ours(work / "model", inputs, options, work)
    start, agree, problem = inputs["input_ids"].shape[1], 0, ""
    for row in range(want.shape[0]):
        same = (want[row, start:] == got[row, start:]).int()
        first = NEW_TOKENS if same.all() else int(same.argmin())
        agree += first
        if first < NEW_TOKENS and margin[row, first] >= TIE:
            problem = f"row {row} leaves at token {first}, margin {margin[row, first]:.1e}"
    distinct = len(set(want[:, start:].flatten().tolist()))
    return agree, want.shape[0] * NEW_TOKENS, distinct, margin.min().item(), problem


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--no-table", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    import transformers

    lines = [
        "# Greedy generation against transformers",
        "",
        f"{datetime.date.today()}, transformers {transformers.__version__}, torch {torch.__version__}, "
        f"float32 on the CPU, random weights (seed {args.seed}).",
        f"Made by `test/reference/run.sh generate`: batches of sequences of different lengths, {NEW_TOKENS}",
        "tokens each. Margin: the smallest distance of the two best logits that was met; where it is below",
        f"{TIE:.0e} the answers may part.",
        "",
        "| case | equal tokens | distinct | smallest margin | result |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    failed = count = 0
    for index, (case, options) in enumerate(cases()):
        if args.only not in case.name:
            continue
        agree, total, distinct, margin, problem = run_case(case, options, args.seed + index)
        count += 1
        failed += bool(problem)
        name = case.name.removeprefix("vlm/")
        print(f"{name:34} {agree} of {total} tokens, {distinct} distinct, margin {margin:.1e}  "
              f"{problem or 'agrees'}", flush=True)
        lines.append(f"| {name} | {agree} of {total} | {distinct} | {margin:.1e} | {problem or 'agrees'} |")
    if not args.no_table and not args.only:
        (proof.ROOT / "docs/proofs/generate.md").write_text("\n".join(lines) + "\n")
    print(f"{count - failed} of {count} cases agree")
    return 1 if failed or not count else 0


if __name__ == "__main__":
    sys.exit(main())
