#!/usr/bin/env bash
# Times a training step on sequences of many lengths, packed into one row and padded to the longest, in
# alternating pairs of our own program.
#
#   tools/bench/packing.sh [--pairs N] [--steps N] [--out FILE.json] [--page FILE.md]
#
# Prints one JSON object; writes docs/benchmarks/packing.{json,md} unless told otherwise. About 3 minutes
# on 2 cores; let nothing else run.
set -euo pipefail
cd "$(dirname "$0")/../.."

pairs=3 steps=5 threads=2
out=docs/benchmarks/packing.json page=docs/benchmarks/packing.md
. tools/bench/options.sh
parse_options "pairs steps out page" "$@"
name=packing
. tools/bench/runs.sh
bench_build bench-language

for _ in $(seq "$pairs"); do
  for what in packed padded; do run "$ours" --what $what --shape tiny --tokens 512 --steps "$steps"; done
done
python3 tools/bench/language_report.py "$runs" "$out" "$page"
