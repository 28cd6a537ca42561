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
while [ $# -gt 0 ]; do
  case $1 in
    --pairs) pairs=$2; shift 2 ;;
    --steps) steps=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --page) page=$2; shift 2 ;;
    -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "dit_step.sh: unknown option $1 (try --help)" >&2; exit 1 ;;
  esac
done

ours=build/cpu/bin/bench-dit-step
if [ ! -x "$ours" ]; then
  { [ -f build/cpu/build.ninja ] || cmake --preset cpu; cmake --build --preset cpu --target bench-dit-step; } >&2
fi

python=${COSMOS_PEER_PYTHON:-.deps/peer/bin/python}
if [ ! -x "$python" ]; then
  python3 -m venv .deps/peer
  .deps/peer/bin/pip install --quiet torch==2.11.0 diffusers==0.42.1 transformers==5.23.0 \
    torchvision numpy >&2
fi

runs=$(mktemp)
trap 'rm -f "$runs"' EXIT
export OMP_NUM_THREADS=$threads MKL_NUM_THREADS=$threads

# run COMMAND...: adds the program's JSON to $runs, with the load average it started under.
run() {
  local load
  load=$(cut -d' ' -f1 /proc/loadavg)
  echo "dit_step: load $load: $*" >&2
  "$@" --threads "$threads" | sed "s/}\$/, \"load_average\": $load, \"date\": \"$(date +%F)\"}/" >> "$runs"
}

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
