#!/usr/bin/env bash
# Tensor and sequence parallelism against one process in float64: 48 layouts (with and without split
# tokens, recomputation, shards and replicas; full, LoRA, DoRA, learnable positions), each on a group
# that delays and fills outputs with NaN. Argument: the build folder.
set -euo pipefail
exec "$1/bin/test_trainer" "[tensor-all]"
