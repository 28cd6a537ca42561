#!/usr/bin/env bash
# Sets up what the build needs: Debian packages, LibTorch 2.11.0 and Arrow 26.0.1 under .deps/.
#
#   tools/setup.sh [--cuda] [--print-packages]
#
#   --cuda            also the CUDA half of LibTorch (cuDNN, cuBLAS, NCCL ...); the default takes it
#                     where a GPU is present
#   --print-packages  prints the packages that are missing and stops
#
# Runs again for nothing: each step looks first. A LibTorch that you already have is used as it is:
#   COSMOS_LIBTORCH=/path/to/libtorch tools/setup.sh       (or CMAKE_PREFIX_PATH)
# Downloads resume where they stopped and are checked against the registry's SHA-256.
# Exit codes: 0 ready, 1 failed, 2 packages are missing and only root may install them.
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH_VERSION=2.11.0
ARROW_VERSION=26.0.1
DEPS=$PWD/.deps
PACKAGES=(g++ clang libomp-dev cmake ninja-build pkg-config git unzip curl
          python3 python3-pip ffmpeg
          nlohmann-json3-dev libcxxopts-dev catch2 libgloo-dev
          libavformat-dev libavcodec-dev libavutil-dev libswscale-dev clang-format
          libpcre2-dev libutf8proc-dev libsqlite3-dev libboost-context-dev
          libpq-dev postgresql libarchive-dev libcurl4-openssl-dev prometheus-cpp-dev)
# LibTorch's CPU half needs these two beside it; the CUDA half needs the rest.
CPU_WHEELS=(nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
CUDA_WHEELS=(nvidia-cublas==13.1.0.3 nvidia-cudnn-cu13==9.19.0.56 nvidia-cufft==12.0.0.61
             nvidia-cufile==1.15.1.6 nvidia-curand==10.4.0.35 nvidia-cusolver==12.0.4.66
             nvidia-cusparse==12.6.3.3 nvidia-cusparselt-cu13==0.8.0 nvidia-nccl-cu13==2.28.9
             nvidia-nvjitlink==13.0.88 nvidia-nvshmem-cu13==3.4.5 nvidia-cuda-nvrtc==13.0.88)

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

cuda=$([ -e /dev/nvidia0 ] && echo yes || echo no)
print_only=no
for option in "$@"; do
  case $option in
    --cuda) cuda=yes ;;
    --print-packages) print_only=yes ;;
    -h|--help) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) die "unknown option $option (try --help)" ;;
  esac
done

# ---- packages ------------------------------------------------------------------------------------
missing_packages() {
  local package
  for package in "${PACKAGES[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
  done
}

install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    say "not a Debian system: install the equivalents of: ${PACKAGES[*]}"
    return
  fi
  local missing
  missing=$(missing_packages | tr '\n' ' ')
  if [ "$print_only" = yes ]; then
    echo "$missing"
    exit 0
  fi
  if [ -z "${missing// /}" ]; then
    say "packages: all there"
    return
  fi
  if [ "$(id -u)" != 0 ]; then
    printf 'setup: these packages are missing and need root; run\n  sudo apt-get install %s\n' "$missing" >&2
    exit 2
  fi
  say "installing $missing"
  apt-get update -qq
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# ---- LibTorch ------------------------------------------------------------------------------------
has_libtorch() { [ -f "$1/lib/libtorch_cpu.so" ] && [ -d "$1/include/ATen" ]; }

existing_libtorch() {
  local folder
  for folder in "${COSMOS_LIBTORCH:-}" $(echo "${CMAKE_PREFIX_PATH:-}" | tr ':;' '  '); do
    for folder in "$folder" "$folder/torch" "$folder/../.."; do
      if [ -n "$folder" ] && has_libtorch "$folder"; then echo "$folder"; return; fi
    done
  done
}

# What a glibc of 2.28 or newer runs.
PLATFORMS=(--platform manylinux2014_x86_64)
for minor in $(seq 17 28); do PLATFORMS+=(--platform "manylinux_2_${minor}_x86_64"); done

# fetch_wheel NAME==VERSION: prints the path of the verified wheel under .deps/wheels.
fetch_wheel() {
  local report url hash file
  report=$(python3 -m pip install --dry-run --quiet --ignore-installed --no-deps \
    --only-binary=:all: --implementation cp --python-version 3.11 \
    "${PLATFORMS[@]}" --target "$DEPS/none" --report - "$1" 2>/dev/null) ||
    die "the package index does not answer for $1 (is pip configured? try: python3 -m pip download --no-deps $1)"
  read -r url hash < <(python3 -c '
import json, sys
info = json.load(sys.stdin)["install"][0]["download_info"]
print(info["url"], info["archive_info"]["hashes"]["sha256"])' <<<"$report")
  file=$DEPS/wheels/$(basename "$url")
  mkdir -p "$DEPS/wheels"
  if [ ! -f "$file" ]; then
    say "downloading $(basename "$file")" >&2
    curl -fL --retry 5 --retry-delay 2 -C - --no-progress-meter -o "$file.part" "$url" ||
      die "download of $1 stopped; run tools/setup.sh again, it goes on from there"
    if ! echo "$hash  $file.part" | sha256sum --check --status; then
      rm -f "$file.part"
      die "$(basename "$file") does not match its SHA-256; it was removed, run tools/setup.sh again"
    fi
    mv "$file.part" "$file"
  fi
  echo "$file"
}

get_libtorch() {
  local found half=cpu wheel
  found=$(existing_libtorch)
  if [ -n "$found" ]; then
    say "LibTorch: using $found"
    return
  fi
  [ "$cuda" = yes ] && half=cuda
  if has_libtorch "$DEPS/torch" && { [ $half = cpu ] || [ -f "$DEPS/torch/lib/libtorch_cuda.so" ]; } &&
     [ -f "$DEPS/.complete-$half" ]; then
    say "LibTorch: $TORCH_VERSION ($half) in .deps/torch"
    return
  fi
  local cpu_files=('torch/include/*' 'torch/lib/libtorch_cpu.so' 'torch/lib/libc10.so' 'torch/lib/libgomp*')
  local cuda_files=('torch/lib/libtorch_cuda*.so' 'torch/lib/libc10_cuda.so' 'torch/lib/libtorch_nvshmem.so'
                    'torch/lib/libcaffe2_nvrtc.so' 'torch/lib/libtorch.so')
  wheel=$(fetch_wheel "torch==$TORCH_VERSION")
  say "unpacking LibTorch ($half) into .deps"
  unzip -qo "$wheel" "${cpu_files[@]}" -d "$DEPS"
  [ $half = cuda ] && unzip -qo "$wheel" "${cuda_files[@]}" -d "$DEPS"
  local wheels=("${CPU_WHEELS[@]}") name
  [ $half = cuda ] && wheels+=("${CUDA_WHEELS[@]}")
  for name in "${wheels[@]}"; do
    wheel=$(fetch_wheel "$name")
    unzip -qo "$wheel" 'nvidia/*/lib/*' -d "$DEPS"
    case $name in nvidia-nccl*) unzip -qo "$wheel" 'nvidia/nccl/include/*' -d "$DEPS" ;; esac
  done
  has_libtorch "$DEPS/torch" || die "the torch wheel did not hold what was expected"
  touch "$DEPS/.complete-$half"
  [ $half = cuda ] && touch "$DEPS/.complete-cpu"
  rm -rf "$DEPS/wheels"
  say "LibTorch: $TORCH_VERSION ($half) in .deps/torch"
}

# Arrow's C++ headers and libraries, which pyarrow carries (Debian 12 has no package of them).
get_arrow() {
  local wheel
  if [ -n "${COSMOS_ARROW:-}" ]; then
    say "Arrow: using $COSMOS_ARROW"
  elif [ "$(cat "$DEPS/.complete-arrow" 2>/dev/null)" != $ARROW_VERSION ]; then
    wheel=$(fetch_wheel "pyarrow==$ARROW_VERSION")
    rm -rf "$DEPS/pyarrow"
    unzip -qo "$wheel" 'pyarrow/include/*' 'pyarrow/libarrow.so.*' 'pyarrow/libparquet.so.*' -d "$DEPS"
    rm -rf "$DEPS/wheels"
    echo $ARROW_VERSION >"$DEPS/.complete-arrow"
    say "Arrow: $ARROW_VERSION in .deps/pyarrow"
  fi
}

install_packages
get_libtorch
get_arrow
say "ready"
