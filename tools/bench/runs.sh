# Sourced by the benchmarks that run programs in alternating pairs: builds, finds the peer's Python, and
# collects each run's JSON. Expects $name, $threads; call it from the repository root.

bench_build() {  # bench_build TARGET: sets $ours
  ours=build/cpu/bin/$1
  [ -x "$ours" ] || { [ -f build/cpu/build.ninja ] || cmake --preset cpu; cmake --build --preset cpu --target "$1"; } >&2
}

bench_python() {  # sets $python: COSMOS_PEER_PYTHON, or a virtual environment under .deps/peer
  python=${COSMOS_PEER_PYTHON:-.deps/peer/bin/python}
  [ -x "$python" ] && return
  python3 -m venv .deps/peer
  .deps/peer/bin/pip install --quiet torch==2.11.0 diffusers==0.42.1 transformers==5.23.0 torchvision numpy >&2
}

runs=$(mktemp)
trap 'rm -f "$runs"' EXIT
export OMP_NUM_THREADS=$threads MKL_NUM_THREADS=$threads

# run COMMAND...: adds the program's JSON to $runs, with the load average it started under.
run() {
  local load
  load=$(cut -d' ' -f1 /proc/loadavg)
  echo "$name: load $load: $*" >&2
  "$@" --threads "$threads" | sed "s/}\$/, \"load_average\": $load, \"date\": \"$(date +%F)\"}/" >> "$runs"
}
