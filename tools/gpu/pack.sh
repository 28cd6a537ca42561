#!/usr/bin/env bash
# Collects what a GPU machine without internet lacks, under .gpu/: headers of the build's packages.
#
#   tools/gpu/pack.sh        here, after tools/setup.sh
#   tools/gpu/run.sh         there, in a copy of this tree with .gpu/
#
# The other machine needs LibTorch 2.11 (the Python wheel counts), the CUDA toolkit, a C++20 compiler, CMake
# and ninja.
set -euo pipefail
cd "$(dirname "$0")/../.."

rm -rf .gpu
mkdir -p .gpu/include
for package in nlohmann-json3-dev libcxxopts-dev catch2 libgloo-dev; do
  dpkg -L "$package" | grep -E '^/usr/include/' | while read -r file; do
    [ -f "$file" ] && install -D -m 644 "$file" ".gpu/include/${file#/usr/include/}"
  done
done
printf 'pack: .gpu has %s of headers\n' "$(du -sh .gpu | cut -f1)"
