#!/usr/bin/env bash
# What checkpoints cost: alternating pairs of a training that saves every 50 steps and one that saves
# nothing; a save and a load from a cold cache against dd with the same bytes on the same disk.
#
#   tools/bench/checkpoint.sh [--pairs N] [--steps N] [--mib N] [--dir DIR] [--page FILE.md]
#
# Writes docs/benchmarks/checkpoint.md unless told otherwise. About ten minutes on 2 cores; let nothing
# else run.
set -euo pipefail
cd "$(dirname "$0")/../.."

pairs=3 steps=500 mib=1024 dir=$(mktemp -d) page=docs/benchmarks/checkpoint.md
. tools/bench/options.sh
parse_options "pairs steps mib dir page" "$@"
program=build/cpu/bin/bench-checkpoint
[ -x "$program" ] || cmake --build --preset cpu --target bench-checkpoint >&2
mkdir -p "$dir"
work=$(mktemp -d -p "$dir")
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1

load() { cut -d' ' -f1 /proc/loadavg; }
# field NAME JSON
field() { sed "s/.*\"$1\":\([-0-9.e]*\).*/\1/" <<< "$2"; }
calculate() { awk "BEGIN { printf \"%.$2f\", $1 }"; }
# cold FILE...: out of the page cache.
cold() {
  local file
  for file in "$@"; do dd if="$file" iflag=nocache count=0 status=none; done
}
# seconds COMMAND...
seconds() {
  local begin
  begin=$(date +%s.%N)
  "$@" >&2
  calculate "$(date +%s.%N) - $begin" 4
}

pair_rows="" state=0
for pair in $(seq "$pairs"); do
  before=$(load)
  without=$("$program" train "$work/without" --steps "$steps" --save-every 0 2>/dev/null)
  with=$("$program" train "$work/with" --steps "$steps" --save-every 50 2>/dev/null)
  waited=$(grep -o 'waited [0-9.e-]*' "$work/with/log.txt" | awk 'NR <= 10 { s += $2 } END { print s }')
  a=$(field seconds "$without") b=$(field seconds "$with") state=$(field state_bytes "$with")
  pair_rows+="| $pair | $(calculate "$a" 2) s | $(calculate "$b" 2) s | $(calculate "100 * ($b / $a - 1)" 2) % | $(calculate "100 * $waited / $b" 2) % | $before |
"
  rm -rf "$work/with" "$work/without"
done

disk_rows=""
for round in 1 2 3; do
  before=$(load)
  head -c $((mib << 20)) /dev/urandom > "$work/bytes"
  sync  # dd shall not share the disk with what made its input
  dd_write=$(seconds dd if="$work/bytes" of="$work/copy" bs=16M conv=fsync status=none)
  cold "$work/copy"
  dd_read=$(seconds dd if="$work/copy" of=/dev/null bs=16M status=none)
  rm -f "$work/copy"
  save=$(field seconds "$("$program" save "$work/checkpoint" --mib "$mib")")
  cold "$work"/checkpoint/step-*/*
  loaded=$(field seconds "$("$program" load "$work/checkpoint")")
  cold "$work"/checkpoint/step-*/*
  verified=$(field seconds "$("$program" verify "$work/checkpoint")")
  rm -rf "$work/checkpoint"
  disk_rows+="| $round | $(calculate "$mib / $dd_write" 0) | $(calculate "$mib / $save" 0) | $(calculate "$dd_write / $save" 2) | $(calculate "$mib / $dd_read" 0) | $(calculate "$mib / $loaded" 0) | $(calculate "$dd_read / $loaded" 2) | $(calculate "$mib / $verified" 0) | $before |
"
done

cat > "$page" <<PAGE
# Checkpoints

Made by \`tools/bench/checkpoint.sh\`; do not edit. $(date +%F), $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-), $(nproc --all) cores.

A training of one thread, $((state >> 20)) MiB of state (weights, averages, moments), $steps steps, that saves every 50 in
the background, beside the same one that saves nothing. "Waited" is what the training itself stood still for
saves.

| pair | saves nothing | saves every 50 steps | costs | waited | load before |
|---|---|---|---|---|---|
$pair_rows
$mib MiB on one disk, MiB/s. dd writes with \`bs=16M conv=fsync\` from a file and reads to nowhere; a save writes from
memory, with checksums, manifest and syncs; loads come from a cold cache into memory that is there already.

| round | dd write | save | ratio | dd read | load | ratio | verify | load before |
|---|---|---|---|---|---|---|---|---|
$disk_rows
PAGE
cat "$page"
