#!/usr/bin/env bash
# Times what a generation is made of beside diffusers, on the same CPU, threads and shapes, in alternating
# pairs with their floor: encoding and decoding a clip (AutoencoderKLWan, 9 frames of 96x64), one
# sampling step (8 layers of 512, a time for every frame, 512 text tokens). And how long a checkpoint of
# 2B parameters takes to its first step, beside reading its file, all from a cold cache: with its weights in
# the file's pages, as cosmos-generate has them, and copied out of them.
#
#   tools/bench/world.sh [--pairs N] [--steps N] [--only WHAT] [--shape small|2b] [--out FILE.json] [--page FILE.md]
#
# WHAT: encode, decode, step or start (all of them without it). --shape: of the checkpoint. Prints one JSON
# object; writes docs/benchmarks/world.{json,md} unless told otherwise. The peer needs Python with torch
# 2.11.0 and diffusers 0.42.1: COSMOS_PEER_PYTHON names one, otherwise a virtual environment is made under
# .deps/peer. About 15 minutes on 2 cores, 12 GB of memory and 4 GB of disk for 2b; let nothing else run.
set -euo pipefail
cd "$(dirname "$0")/../.."

pairs=3 steps=5 threads=2 only="" shape=2b
out=docs/benchmarks/world.json page=docs/benchmarks/world.md
. tools/bench/options.sh
parse_options "pairs steps only shape out page" "$@"
name=world
. tools/bench/runs.sh
bench_build bench-world
bench_python

wanted() { [ -z "$only" ] || [ "$only" = "$1" ]; }
for _ in $(seq "$pairs"); do
  for what in encode decode step; do
    wanted $what || continue
    run "$ours" --what $what --steps "$steps"
    run "$python" tools/bench/world_peer.py --what $what --steps "$steps"
    run "$ours" --what $what --floor --steps "$steps"
  done
done

if wanted start; then
  model=$(mktemp -d)
  trap 'rm -rf "$runs" "$model"' EXIT
  "$ours" --what write --model "$model" --shape "$shape" >&2
  cold() { local file; for file in "$model"/*.safetensors; do dd if="$file" iflag=nocache count=0 status=none; done; }
  for _ in $(seq "$pairs"); do
    cold
    begin=$(date +%s.%N)
    cat "$model"/*.safetensors > /dev/null
    seconds=$(awk "BEGIN { print $(date +%s.%N) - $begin }")
    echo "{\"what\": \"read\", \"by\": \"cat\", \"seconds\": $seconds, \"bytes\": $(cat "$model"/*.safetensors | wc -c), \"shape\": \"$shape\"}" >> "$runs"
    for copied in "" --copied; do
      cold
      run "$ours" --what start --model "$model" $copied
    done
  done
fi
mkdir -p "$(dirname "$out")" "$(dirname "$page")"
"$python" tools/bench/world_report.py "$runs" "$out" "$page"
