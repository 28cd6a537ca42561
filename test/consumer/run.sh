#!/usr/bin/env bash
# Installs build tree $1, builds the consumer project against it and runs it.
set -euo pipefail
source_dir=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/install" >/dev/null
cmake -S "$source_dir" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_PREFIX_PATH="$work/install" >/dev/null
cmake --build "$work/build"
"$work/build/consumer" "$work/run"
