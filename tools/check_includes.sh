#!/usr/bin/env bash
# Proves the one-way rule: tools -> trainer -> modules -> ops. CUDA sources see no torch header; only
# test/ includes from test/; JSON, cxxopts and libav* stay where they belong.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0

# refuse WHERE PATTERN REASON: no source below WHERE may include what PATTERN matches.
refuse() {
  local hits
  hits=$(grep -rnE "^#include [<\"]($2)" "$1" --include='*.h' --include='*.cpp' --include='*.cu' \
    --include='*.cuh' 2>/dev/null | grep -vE "${4:-^$}" || true)
  if [ -n "$hits" ]; then
    printf '%s: %s\n%s\n' "$1" "$3" "$hits"
    bad=1
  fi
}

refuse ops 'modules/|trainer/|tools/|test/' 'ops see ATen and CUDA only'
refuse ops 'torch/torch\.h|torch/nn|nlohmann' 'ops see narrow ATen headers'
refuse modules 'trainer/|tools/|test/' 'modules see ops only'
refuse trainer 'tools/|test/' 'the trainer sees modules and ops only'
refuse tools 'test/' 'programs do not see tests' '^tools/bench/'
refuse modules 'cxxopts|libav|catch2' 'not for modules'
refuse trainer 'cxxopts|catch2' 'command lines belong to tools/'
refuse trainer 'libav|libsw' 'FFmpeg stays in trainer/data' '^trainer/data/'
cut=$(grep -rlE '^#include [<"](torch|ATen|c10)/' ops --include='*.cu' --include='*.cuh' || true)
if [ -n "$cut" ]; then
  printf 'CUDA sources must not see torch headers (69 s to compile instead of 2):\n%s\n' "$cut"
  bad=1
fi
exit $bad
