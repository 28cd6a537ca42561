#!/usr/bin/env bash
# kill -9 of a rank at 100 random moments, checkpoint writes included: every run ends with the bits of an
# undisturbed one. Takes about five minutes.
#
#   test/long/kills.sh [BUILD_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
COSMOS_KILLS=${COSMOS_KILLS:-100} OMP_NUM_THREADS=1 "${1:-build/cpu}/bin/test_trainer" "[kills]"
