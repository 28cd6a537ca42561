#!/usr/bin/env bash
# 10,000 synthetic clips of one second through every CPU stage of cosmos-curate: resident memory, sampled five times a
# second, grows by less than a quarter while clips are processed (from a tenth to nine tenths of the run); what is
# written about all of them at the end takes less than 16 KiB a clip. Takes six minutes on 2 idle cores.
#
#   test/long/curate_memory.sh [BUILD_FOLDER] [--page docs/proofs/curate_memory.md]
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build/cpu page=
while [ $# -gt 0 ]; do
  case $1 in
    --page) page=$2; shift 2 ;;
    *) build=$1; shift ;;
  esac
done
clips=${COSMOS_CURATE_CLIPS:-10000}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/raw"
ffmpeg -v error -f lavfi -i "testsrc2=size=96x64:rate=10:duration=$clips" -c:v libx264 -preset ultrafast -g 10 \
  -force_key_frames 'expr:gte(t,n_forced)' -f segment -segment_time 1 -reset_timestamps 1 "$work/raw/%06d.mp4"
find "$work/raw" -name '*.mp4' | sort | sed -n "1,$((clips / 10))p" >"$work/part.txt"

# curate NAME INPUT: runs, and leaves NAME.rss (MiB, a sample a line), NAME.seconds and NAME/.
curate() {
  cat >"$work/$1.json" <<EOF
{"inputs": ["$2"], "output": "$work/$1", "caption": "A test picture.", "split": {"min_s": 0},
 "filter": {"max_frozen": 1}, "clips": {"mode": "encode"}, "dedup": {"near_bits": -1}, "frame_scores": true,
 "outputs": {"shard_clips": 500, "cosmos_curate": true, "parquet": true}}
EOF
  local start=$EPOCHREALTIME pid
  "$build/bin/cosmos-curate" "$work/$1.json" >"$work/$1.log" 2>&1 &
  pid=$!
  while kill -0 $pid 2>/dev/null; do
    awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$pid/status" 2>/dev/null || true
    sleep 0.2
  done >"$work/$1.rss"
  wait $pid || { cat "$work/$1.log" >&2; exit 1; }
  awk "BEGIN { print $EPOCHREALTIME - $start }" >"$work/$1.seconds"
}
peak() { sort -n "$1" | tail -1; }

curate part "$work/part.txt"
curate whole "$work/raw"
kept=$(wc -l <"$work/whole/clips.jsonl")
samples=$(wc -l <"$work/whole.rss")
few=$(peak "$work/part.rss") many=$(peak "$work/whole.rss")
at() { sed -n "$((1 + (samples - 1) * $1 / 100))p" "$work/whole.rss"; }
row="$(for share in 5 10 25 50 75 90 100; do printf '| %s ' "$(at $share)"; done)|"
report() {
  echo "# Curating $clips clips: memory"
  echo
  echo "$(date +%F), made by \`test/long/curate_memory.sh\`: clips of one second, 96 x 64, 10 frames, every CPU stage but"
  echo "TransNetV2; $(nproc) cores, $(cat "$work/whole.seconds") s, $kept clips kept. Resident MiB after a share of the run:"
  echo
  echo "| 5 % | 10 % | 25 % | 50 % | 75 % | 90 % | 100 % |"
  echo "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
  echo "$row"
  echo
  echo "Peak: $many MiB; of a run of $((clips / 10)) clips $few MiB. The last rise is what is written about all clips at the"
  echo "end: lists, tables, shards, the page."
}
report
[ -n "$page" ] && report >"$page"
[ "$kept" = "$clips" ] || { echo "expected $clips clips, got $kept" >&2; exit 1; }
[ $(($(at 90) * 100)) -lt $(($(at 10) * 125)) ] ||
  { echo "memory grew from $(at 10) to $(at 90) MiB while clips were processed" >&2; exit 1; }
[ $(((many - few) * 1024)) -lt $((clips * 9 / 10 * 16)) ] ||
  { echo "$((clips / 10)) clips take $few MiB, $clips take $many" >&2; exit 1; }
