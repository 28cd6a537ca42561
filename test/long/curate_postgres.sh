#!/usr/bin/env bash
# Four cosmos-curate on one PostgreSQL (Debian's package, started here), kill -9 at 50 random moments, two of each four
# for good: every set is the undisturbed run's, byte for byte. Takes about two minutes.
#
#   test/long/curate_postgres.sh [BUILD_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
COSMOS_CURATE_KILLS=${COSMOS_CURATE_KILLS:-50} "${1:-build/cpu}/bin/test_tools" "[curate-postgres]"
