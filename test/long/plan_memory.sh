#!/usr/bin/env bash
# What --plan predicts as a rank's peak against the bytes of tensors that it holds at most, for runs above 500 MB of
# many kinds: within 10 %. Takes about ten minutes; writes docs/proofs/plan_memory.md.
#
#   test/long/plan_memory.sh [BUILD_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
table=$(mktemp)
trap 'rm -f "$table"' EXIT
begin=$SECONDS
OMP_NUM_THREADS=1 COSMOS_PROOF_TABLE=$table "${1:-build/cpu}/bin/test_trainer" "[plan_memory]"
{
  printf '# The predicted peak of memory\n\n'
  printf 'Made by `test/long/plan_memory.sh`; do not edit. %s, %d s.\n\n' "$(date +%F)" $((SECONDS - begin))
  printf 'Predicted: `Plan::total_bytes()`, what `cosmos-train --plan` prints. Counted: the most bytes that the fullest\n'
  printf 'rank'"'"'s tensors took at once on the CPU, at the allocator, from construction to the end of two steps of the\n'
  printf '`predict` recipe. float32, AdamW, one micro-batch of one clip where the name says nothing else.\n\n'
  cat "$table"
} > docs/proofs/plan_memory.md
