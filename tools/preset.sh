# Sourced by the scripts here: picks the CMake preset by what the machine has.
#   cuda  where a GPU and nvcc are present, else cpu.  COSMOS_PRESET overrides.
if [ -z "${COSMOS_PRESET:-}" ]; then
  if [ -e /dev/nvidia0 ] && command -v nvcc >/dev/null; then
    COSMOS_PRESET=cuda
  else
    COSMOS_PRESET=cpu
  fi
fi
export COSMOS_PRESET
# Compiling against LibTorch takes about 1 GB a job.
COSMOS_JOBS=${COSMOS_JOBS:-$(nproc)}

# cosmos_build TARGET...: set-up, configure and build of the named targets ("all" for everything).
cosmos_build() {
  tools/setup.sh $([ "$COSMOS_PRESET" = cuda ] && echo --cuda)
  # Clang (set-up brings it) builds this tree in half of GCC's time: it instantiates the templates of a
  # precompiled header once, GCC in every file. CXX overrides; a folder that is configured keeps its compiler.
  if [ -z "${CXX:-}" ] && command -v clang++ >/dev/null; then
    export CXX=clang++
  fi
  local args=(--preset "$COSMOS_PRESET")
  [ -n "${COSMOS_LIBTORCH:-}" ] && args+=("-DCOSMOS_LIBTORCH=$COSMOS_LIBTORCH")
  cmake "${args[@]}" --log-level=WARNING >/dev/null
  cmake --build --preset "$COSMOS_PRESET" --parallel "$COSMOS_JOBS" --target "$@"
}
