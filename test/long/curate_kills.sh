#!/usr/bin/env bash
# kill -9 of cosmos-curate at 50 random moments, shards and metadata being written included: every set is the
# undisturbed run's, byte for byte. Takes about two minutes.
#
#   test/long/curate_kills.sh [BUILD_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
COSMOS_CURATE_KILLS=${COSMOS_CURATE_KILLS:-50} OMP_NUM_THREADS=1 "${1:-build/cpu}/bin/test_tools" "[curate-kills]"
