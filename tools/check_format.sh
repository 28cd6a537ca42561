#!/usr/bin/env bash
# Every C++ and CUDA source as .clang-format says (clang-format 14); --fix rewrites them.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t sources < <(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')
if [ "${1:-}" = --fix ]; then
  clang-format -i "${sources[@]}"
  exit
fi
if ! errors=$(clang-format --dry-run --Werror "${sources[@]}" 2>&1); then
  echo "$errors" | grep -E 'error:' | cut -d: -f1 | sort -u | sed 's/^/not formatted: /'
  echo 'run tools/check_format.sh --fix'
  exit 1
fi
