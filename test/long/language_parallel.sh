#!/usr/bin/env bash
# Language models, dense and with experts, on slices, shards, experts and replicas against one process
# in float64: 44 layouts, each on a group that delays and fills outputs with NaN. Argument: the build
# folder.
set -euo pipefail
exec "$1/bin/test_trainer" "[language-all]"
