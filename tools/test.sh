#!/usr/bin/env bash
# Builds everything and runs the tests; sets up first, so a fresh clone needs nothing else.
#
#   tools/test.sh [--all]
#
#   --all   also the long proofs (each says what it does and how long it took)
#
# Checks the house rules (includes, formatting), builds with the preset that fits the machine, runs
# every test binary, then the sanitizer build of ops, hub and parsers. Ends with 'N passed, N failed'.
set -uo pipefail
cd "$(dirname "$0")/.."
. tools/preset.sh

all=no
case "${1:-}" in
  "") ;;
  --all) all=yes ;;
  -h|--help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "test.sh: unknown option $1 (try --help)" >&2; exit 1 ;;
esac

passed=0 failed=0 failures=()
# check NAME COMMAND...: runs it and counts it.
check() {
  local name=$1 start=$SECONDS
  shift
  printf '== %s\n' "$name"
  if "$@"; then
    passed=$((passed + 1))
    printf -- '-- %s: passed in %d s\n' "$name" $((SECONDS - start))
  else
    failed=$((failed + 1))
    failures+=("$name")
    printf -- '-- %s: FAILED after %d s\n' "$name" $((SECONDS - start))
  fi
}

sanitizer_tests() {
  cmake --preset asan --log-level=WARNING >/dev/null &&
    cmake --build --preset asan --parallel "$COSMOS_JOBS" && ctest --preset asan
}

check "set-up and build ($COSMOS_PRESET)" cosmos_build all
check "includes point one way" tools/check_includes.sh
check "formatting" tools/check_format.sh
check "tests" ctest --preset "$COSMOS_PRESET"
check "a consumer project builds against the installed package" test/consumer/run.sh "build/$COSMOS_PRESET"
check "sanitizers" sanitizer_tests
if [ $all = yes ]; then
  for proof in test/long/*.sh; do
    [ -e "$proof" ] && check "$(basename "$proof" .sh)" "$proof" "build/$COSMOS_PRESET"
  done
fi

[ ${#failures[@]} -gt 0 ] && printf 'failed: %s\n' "${failures[@]}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
