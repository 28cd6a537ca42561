#!/usr/bin/env bash
# Times a language model beside transformers, on the same CPU, threads and shapes, in alternating pairs:
# a training step and a prompt of 1,024 tokens in float32, with their floor; a prompt in bfloat16; tokens
# written one after another in bfloat16 at batch 1, at the small shape and at Reason2-2B's.
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
while [ $# -gt 0 ]; do
  case $1 in
    --pairs) pairs=$2; shift 2 ;;
    --steps) steps=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --page) page=$2; shift 2 ;;
    -h|--help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "language.sh: unknown option $1 (try --help)" >&2; exit 1 ;;
  esac
done
name=language
. tools/bench/runs.sh
bench_build bench-language
bench_python

wanted() { [ -z "$only" ] || [ "$only" = "$1" ]; }
pair() { run "$ours" "$@"; run "$python" tools/bench/language_peer.py "$@"; }
for _ in $(seq "$pairs"); do
  for what in train prefill; do
    wanted $what || continue
    pair --what $what --steps "$steps"
    run "$ours" --what floor-$what --steps "$steps"
  done
  if wanted prefill; then pair --what prefill --dtype bfloat16 --steps "$steps"; fi
  if wanted decode; then pair --what decode --dtype bfloat16 --tokens 32 --steps "$steps"; fi
  if wanted 2b; then pair --what decode --shape 2b --dtype bfloat16 --tokens 8 --steps 3; fi
done
"$python" tools/bench/language_report.py "$runs" "$out" "$page"
