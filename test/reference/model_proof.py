"""Runs random models through the public Python class and through cosmos-forward --backward, compares
every output and every gradient, and writes docs/proofs/models.md.

    model_proof.py [--only SUBSTRING] [--seed N] [--no-table]

Cases come from every *_cases.py beside this file.
"""

import argparse
import datetime
import importlib
import pathlib
import sys
import tempfile

import torch

import proof


def load_cases(only: str) -> list[proof.Case]:
    here = pathlib.Path(__file__).parent
    cases = []
    for path in sorted(here.glob("*_cases.py")):
        cases += getattr(importlib.import_module(path.stem), "CASES", [])  # native_cases.py has others
    return [case for case in cases if only in case.name]


def run_case(case: proof.Case, seed: int) -> tuple[proof.Outcome, float]:
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        model, inputs = proof.write_folder(case, seed, work / "model")
        expected = proof.run_reference(model, case.method, inputs)
        try:
            got, seconds = proof.timed(
                lambda: proof.run_program(work / "model", case.method, inputs, work)
            )
        except RuntimeError as error:
            return proof.Outcome(problem=str(error)), 0.0
        exact = proof.exact_reference(model, case.method, inputs)
        return proof.compare(expected, got, exact), seconds


def table(rows, seed: int) -> str:
    import diffusers
    import transformers

    lines = [
        "# Models against their public classes",
        "",
        f"{datetime.date.today()}, diffusers {diffusers.__version__}, transformers "
        f"{transformers.__version__}, torch {torch.__version__}, float32 on the CPU, random weights (seed {seed}).",
        "Made by `test/reference/run.sh model`. Relative L2 error per tensor; a gradient's denominator",
        f"is at least {proof.FLOOR:.0e} of the whole gradient's norm; the limit is {proof.TOLERANCE:.0e}.",
        "Column float64: tensors whose two float32 answers differ by more (the true gradient is zero, or",
        "nearly, and float32 leaves rounding). Ours is then compared with the public class in float64,",
        "and may be off by the limit or by twice what the public class itself is off in float32.",
        "",
        "| case | class | method | tensors | float64 | worst output | worst gradient | result |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for case, outcome in rows:
        lines.append(
            f"| {case.name} | {case.class_name} | {case.method} | {outcome.tensors} | {outcome.exact} | "
            f"{outcome.output_error:.1e} | {outcome.gradient_error:.1e} | "
            f"{outcome.problem or 'agrees'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--no-table", action="store_true", help="leave docs/proofs/ as it is")
    args = parser.parse_args()

    torch.set_num_threads(1)
    rows = []
    for index, case in enumerate(load_cases(args.only)):
        outcome, seconds = run_case(case, args.seed + index)
        rows.append((case, outcome))
        print(
            f"{case.name:34} {case.method:8} {outcome.tensors:4} tensors  output {outcome.output_error:.1e}  "
            f"gradient {outcome.gradient_error:.1e}  {seconds:5.2f} s  "
            f"{outcome.problem or 'agrees'}",
            flush=True,
        )
    failed = [case.name for case, outcome in rows if outcome.problem]
    if not args.no_table and not args.only:
        path = proof.ROOT / "docs/proofs/models.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(table(rows, args.seed))
        print(f"wrote {path.relative_to(proof.ROOT)}")
    print(f"{len(rows) - len(failed)} of {len(rows)} cases agree")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
