#!/usr/bin/env bash
# Times the DiT's training step against diffusers', eager and through torch.compile, on the same CPU,
# threads and shapes, in alternating pairs, and their floor beside them.
#
#   tools/bench/dit_step.sh [--pairs N] [--steps N] [--out FILE.json] [--page FILE.md]
#
# Prints one JSON object; writes docs/benchmarks/dit_step.{json,md} unless told otherwise.
# The peer needs Python with torch 2.11.0 and diffusers 0.42.1: COSMOS_PEER_PYTHON names one, otherwise
# a virtual environment is made under .deps/peer. About 20 minutes on 2 cores; let nothing else run.
set -euo pipefail
cd "$(dirname "$0")/../.."

pairs=3 steps=8 threads=2
out=docs/benchmarks/dit_step.json page=docs/benchmarks/dit_step.md
. tools/bench/options.sh
parse_options "pairs steps out page" "$@"

name=dit_step
. tools/bench/runs.sh
bench_build bench-dit-step
bench_python

for _ in $(seq "$pairs"); do
  for timestep in clip frame; do
    run "$ours" --what step --timestep "$timestep" --steps "$steps"
    run "$python" tools/bench/dit_step_peer.py --timestep "$timestep" --steps "$steps"
    run "$python" tools/bench/dit_step_peer.py --timestep "$timestep" --steps "$steps" --compile
    run "$ours" --what floor --timestep "$timestep" --steps "$steps"
  done
done
mkdir -p "$(dirname "$out")" "$(dirname "$page")"
"$python" tools/bench/dit_step_report.py "$runs" "$out" "$page"
