"""Folders that we write, loaded by diffusers: no word about keys, same outputs, same config. Writes
docs/proofs/exports.md.

    export_proof.py [--no-table]

Every config of *_cases.py goes diffusers -> cosmos-convert export (with shards)
-> diffusers, and its answers before and after are compared. COSMOS_CONVERT names the program.
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

import diffusers
import torch

import model_proof
import proof


def export(source: pathlib.Path, target: pathlib.Path) -> None:
    program = os.environ.get("COSMOS_CONVERT", proof.ROOT / "build/cpu/bin/cosmos-convert")
    command = [program, "export", "--model", source, "--output", target, "--max-shard-size", "20KB"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"cosmos-convert: {done.stderr.strip()}")


def load_listening(class_name: str, folder: pathlib.Path) -> tuple[torch.nn.Module, str]:
    """The model, and everything that diffusers had to say while it loaded."""
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    diffusers.utils.logging.set_verbosity_warning()
    logging.getLogger("diffusers").addHandler(handler)
    try:
        with contextlib.redirect_stderr(heard):
            model, report = getattr(diffusers, class_name).from_pretrained(
                folder, output_loading_info=True
            )
    finally:
        logging.getLogger("diffusers").removeHandler(handler)
    words = [f"{kind}: {keys}" for kind, keys in report.items() if keys]
    words += [line for line in heard.getvalue().splitlines() if "key" in line.lower()]
    return model.eval(), "; ".join(words)


def run_case(case: proof.Case, seed: int) -> tuple[proof.Outcome, int]:
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        model, inputs = proof.write_folder(case, seed, work / "theirs")
        export(work / "theirs", work / "ours")
        shards = len(list((work / "ours").glob("*.safetensors")))
        back, words = load_listening(case.class_name, work / "ours")
        with torch.no_grad():
            outcome = proof.compare(
                proof.call(model, case.method, inputs), proof.call(back, case.method, inputs)
            )
        theirs, ours = (json.loads((work / d / "config.json").read_text()) for d in ("theirs", "ours"))
        theirs.pop("_name_or_path", None)
        outcome.tensors = len(list(back.parameters()))
        if words:
            outcome.problem = words
        elif theirs != ours:
            keys = theirs.keys() | ours.keys()
            outcome.problem = f"config differs: {[k for k in keys if theirs.get(k) != ours.get(k)]}"
        return outcome, shards


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-table", action="store_true", help="leave docs/proofs/ as it is")
    args = parser.parse_args()
    torch.set_num_threads(1)

    seen = set()
    rows = []
    for index, case in enumerate(model_proof.load_cases("")):
        config = (case.class_name, json.dumps(case.config, sort_keys=True, default=list))
        if config in seen:  # the same model asked for something else
            continue
        seen.add(config)
        outcome, shards = run_case(case, 100 + index)
        result = outcome.problem or "agrees"
        rows.append((case, outcome, shards))
        print(f"{case.name:44} {shards:3} shards  output {outcome.output_error:.1e}  {result}", flush=True)

    failed = [case.name for case, outcome, _ in rows if outcome.problem]
    if not args.no_table:
        lines = [
            "# Our folders in diffusers",
            "",
            f"{datetime.date.today()}, diffusers {diffusers.__version__}, torch {torch.__version__}.",
            "Made by `test/reference/run.sh export`: a folder of diffusers goes through `cosmos-convert export` in",
            "shards of 20 KB and back into `from_pretrained`. Compared: config key for key, what the loader says",
            "about keys (nothing allowed), outputs.",
            "",
            "| case | class | parameters | shards | output error | result |",
            "| --- | --- | ---: | ---: | ---: | --- |",
        ]
        for case, outcome, shards in rows:
            lines.append(
                f"| {case.name} | {case.class_name} | {outcome.tensors} | {shards} | "
                f"{outcome.output_error:.1e} | {outcome.problem or 'agrees'} |"
            )
        path = proof.ROOT / "docs/proofs/exports.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        print(f"wrote {path.relative_to(proof.ROOT)}")
    print(f"{len(rows) - len(failed)} of {len(rows)} exports agree")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
