#!/usr/bin/env bash
# What --plan predicts as a rank's peak against the bytes of tensors that it holds at most, for runs above 500 MB of
# many kinds: within 10 %. Takes some twenty minutes; writes docs/proofs/plan_memory.md.
#
#   test/long/plan_memory.sh [BUILD_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/cpu}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0
for kind in unseen seen; do
  OMP_NUM_THREADS=1 COSMOS_PROOF_TABLE=$dir/$kind "$build/bin/test_trainer" "[plan_memory][$kind]" || failed=1
done
head='| run | ranks | parameters | predicted, MB | counted, MB | off |\n| --- | --- | --- | --- | --- | --- |\n'
{
  printf '# The predicted peak of memory\n\n'
  printf 'Made by `test/long/plan_memory.sh`; do not edit. %s, %d s.\n\n' "$(date +%F)" $SECONDS
  printf 'Predicted: `Plan::total_bytes()`, what `cosmos-train --plan` prints. Counted: the most bytes that the fullest\n'
  printf 'rank'"'"'s tensors took at once on the CPU, at the allocator, on all threads, from construction to the end of two steps of the\n'
  printf '`predict` recipe. float32, AdamW, one micro-batch of one clip, checkpoints without a copy in the background\n'
  printf 'where the name says nothing else.\n\n'
  printf '## Runs that the plan was not corrected on\n\n'"$head"
  cat "$dir/unseen"
  printf '\n## Runs that it was\n\n'"$head"
  cat "$dir/seen"
} > docs/proofs/plan_memory.md
exit $failed
