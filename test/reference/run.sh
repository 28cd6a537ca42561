#!/bin/bash
# Proofs against the public Python classes. The product never needs this; a reviewer may want it.
#
#   test/reference/run.sh            every proof; writes the tables under docs/proofs/
#   test/reference/run.sh model ...  model_proof.py with the arguments that follow
#
# COSMOS_PROOF_PYTHON names a Python that has test/reference/requirements.txt; without it a virtual
# environment is made in build/proof-venv (downloads about 3 GB once). COSMOS_FORWARD names the
# program (default build/cpu/bin/cosmos-forward).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${COSMOS_PROOF_PYTHON:-$root/build/proof-venv/bin/python}

if [ ! -x "$python" ]; then
  if [ -n "${COSMOS_PROOF_PYTHON:-}" ]; then
    echo "run.sh: COSMOS_PROOF_PYTHON: $python is not a program" >&2
    exit 2
  fi
  echo "run.sh: making $root/build/proof-venv from test/reference/requirements.txt"
  python3 -m venv "$root/build/proof-venv"
  "$python" -m pip install --quiet -r "$here/requirements.txt"
fi

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1
if [ $# -gt 0 ]; then
  name=$1
  shift
  exec "$python" "$here/${name}_proof.py" "$@"
fi
status=0
for proof in "$here"/*_proof.py; do
  echo "== $(basename "$proof")"
  "$python" "$proof" || status=1
done
exit $status
