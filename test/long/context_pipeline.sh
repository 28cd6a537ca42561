#!/usr/bin/env bash
# Context and pipeline parallelism against one process, every layout: each kind of attention and each
# schedule, on 2 and 4 ranks and with shards, whole and LoRA, kept and recomputed (float64, 1e-9).
#
#   test/long/context_pipeline.sh build/cpu     some minutes on 2 cores
set -euo pipefail
exec "$1/bin/test_trainer" "[layouts]" --durations yes
