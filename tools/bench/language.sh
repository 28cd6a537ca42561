#!/usr/bin/env bash
# Times a language model beside transformers, on the same CPU, threads and shapes, in alternating pairs:
# a training step and a prompt of 1,024 tokens in float32, with their floor; a prompt in bfloat16; tokens
# written one after another in bfloat16 at batch 1, at the small shape and at Reason2-2B's. The floor of
# written tokens is one reading of the weights.
#
#   tools/bench/language.sh [--pairs N] [--steps N] [--only WHAT] [--out FILE.json] [--page FILE.md]
#
# WHAT: train, prefill, decode or 2b (all of them without it). Prints one JSON object; writes
# docs/benchmarks/language.{json,md} unless told otherwise. The peer needs Python with torch 2.11.0 and
# transformers 5.23.0: COSMOS_PEER_PYTHON names one, otherwise a virtual environment is made under
# .deps/peer. About 25 minutes on 2 cores, 10 GB of memory for 2b; let nothing else run.
set -euo pipefail
cd "$(dirname "$0")/../.."

pairs=3 steps=5 threads=2 only=""
out=docs/benchmarks/language.json page=docs/benchmarks/language.md
. tools/bench/options.sh
parse_options "pairs steps only out page" "$@"
name=language
. tools/bench/runs.sh
bench_build bench-language
bench_python

wanted() { [ -z "$only" ] || [ "$only" = "$1" ]; }
pair() {  # pair WHAT OPTION...: ours, the peer, the floor
  run "$ours" --what "$1" "${@:2}"
  run "$python" tools/bench/language_peer.py --what "$1" "${@:2}"
  run "$ours" --what "floor-$1" "${@:2}"
}
for _ in $(seq "$pairs"); do
  if wanted train; then pair train --steps "$steps"; fi
  if wanted prefill; then
    pair prefill --steps "$steps"
    pair prefill --dtype bfloat16 --steps "$steps"
  fi
  if wanted decode; then pair decode --dtype bfloat16 --tokens 32 --steps "$steps"; fi
  if wanted 2b; then pair decode --shape 2b --dtype bfloat16 --tokens 8 --steps 3; fi
done
"$python" tools/bench/language_report.py "$runs" "$out" "$page"
