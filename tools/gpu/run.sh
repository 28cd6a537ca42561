#!/usr/bin/env bash
# Builds the cuda preset on a GPU machine, runs every test on the GPU and writes the tables.
#
#   tools/gpu/run.sh [build|test|bench|train|all]
#
#   build   configure and build with the GPU's own architecture
#   test    the operators' cases on the GPU against float64, then the other rooms' tests
#   bench   docs/benchmarks/ops_gpu.{md,json}
#   train   a small DiT on the GPU: the loss falls, and is the CPU's to 2e-3
#
# Writes below $OUT (default docs/benchmarks). LibTorch: COSMOS_LIBTORCH, else .deps/torch, else Python's torch.
# Headers that the machine lacks come from .gpu/ (tools/gpu/pack.sh). Video is left out.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-docs/benchmarks}
mkdir -p "$out"

libtorch=${COSMOS_LIBTORCH:-}
[ -z "$libtorch" ] && [ -d .deps/torch ] && libtorch=$PWD/.deps/torch
[ -z "$libtorch" ] && libtorch=$(python3 -c 'import os, torch; print(os.path.dirname(torch.__file__))')
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
[ "$capability" = 90 ] && capability=90a

build() {
  local includes=()
  [ -d .gpu/include ] && export CPATH="$PWD/.gpu/include${CPATH:+:$CPATH}" && includes=(
    "-DCMAKE_INCLUDE_PATH=$PWD/.gpu/include")
  cmake --preset cuda -DCOSMOS_LIBTORCH="$libtorch" -DCMAKE_CUDA_ARCHITECTURES="$capability" \
    -DCOSMOS_VIDEO=OFF "${includes[@]}" --log-level=WARNING
  cmake --build --preset cuda --parallel "$(nproc)"
}

run_tests() {
  local status=0 room
  for room in ops modules trainer; do
    echo "== test_$room"
    build/cuda/bin/test_$room || status=1
  done
  return $status
}

train() {
  local device folder
  folder=$(mktemp -d)
  cat > "$folder/run.json" <<'JSON'
{"recipe": {"type": "predict", "data": {"type": "latent-clips"}, "latent_cache": "none",
            "model": {"in_channels": 5, "out_channels": 4, "num_attention_heads": 4, "attention_head_dim": 64,
                      "num_layers": 4, "text_embed_dim": 8, "adaln_lora_dim": 16, "max_size": [8, 16, 16],
                      "extra_pos_embed_type": null}},
 "trainer": {"steps": 30, "micro_batch_size": 4, "optimizer": {"lr": 1e-3}}}
JSON
  for device in cpu cuda; do
    build/cuda/bin/rank_worker 1 "$folder/run.json" trainer.device=$device run.dir="$folder/$device"
  done
  python3 - "$folder" <<'PY'
import json, sys
a, b = ([json.loads(line)["loss"] for line in open(f"{sys.argv[1]}/{d}/metrics.jsonl")] for d in ("cpu", "cuda"))
worst = max(abs(x - y) / abs(x) for x, y in zip(a, b, strict=True))
print(f"train: loss {b[0]:.4f} -> {b[-1]:.4f} on the GPU, {worst:.1e} from the CPU's")
sys.exit(0 if worst < 2e-3 and b[-1] < b[0] else 1)
PY
}

case "${1:-all}" in
  build) build ;;
  test) run_tests ;;
  bench) build/cuda/bin/bench-ops --device cuda --page "$out/ops_gpu" ;;
  train) train ;;
  all) build; run_tests; build/cuda/bin/bench-ops --device cuda --page "$out/ops_gpu"; train ;;
  -h|--help) sed -n '2,13s/^# \{0,1\}//p' "$0" ;;
  *) echo "run.sh: unknown step $1 (try --help)" >&2; exit 1 ;;
esac
