#!/usr/bin/env bash
# 500 steps of the quickstart's transformer in bfloat16 with three seeds, and with 8-bit products in each of
# three scalings with the first of them. Fails when a validation loss in 8 bits lies outside of what the
# seeds of bfloat16 make of it: their mean give or take two standard deviations, every 50 steps.
#
#   test/long/fp8.sh [RUNS] [TABLE]      default: runs/quickstart, no table
#
# Twenty minutes on one core with the quickstart's tokenizer there (THREADS=2 takes two). Runs that are done
# stay; TABLE gets the result in Markdown.
set -euo pipefail
cd "$(dirname "$0")/../.."
case "${1:-}" in -h|--help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
runs=${1:-runs/quickstart}
table=${2:-/dev/null}
. tools/quickstart_parts.sh
steps=500 every=50 seeds="0 1 2"

step "1/3 the quickstart's tokenizer"
[ -n "${BUILT:-}" ] || cosmos_build cosmos-train cosmos-convert
[ -f .deps/footage/bikes.mp4 ] || tools/fetch_footage.sh
[ -f "$runs/export/vae/config.json" ] || train_tokenizer

# run NAME SETTINGS...
run() {
  [ ! -d "$runs/$1/checkpoints/step-00000$steps" ] || return 0
  train configs/predict/quickstart.json "$1" "recipe.tokenizer=$runs/export/vae" recipe.samples.count=0 \
    trainer.steps=$steps trainer.micro_batch_size=2 trainer.ema.kind=none trainer.validate_every=$every \
    "trainer.threads=${THREADS:-1}" "${@:2}"
}

step "2/3 bfloat16, seeds $seeds"
for seed in $seeds; do run "fp8-bf16-$seed" trainer.precision=bf16 "trainer.seed=$seed"; done
step "3/3 8 bits: current, delayed and block scaling"
for scaling in current delayed; do
  run "fp8-$scaling" trainer.precision=fp8 "trainer.fp8.scaling=$scaling" trainer.seed=0
done
run fp8-block trainer.precision=fp8 trainer.fp8.scaling=block trainer.fp8.gradient=e4m3 trainer.seed=0

# RUN STEP VALUE of every validation.
values() {
  for name in "$@"; do
    grep '"val_loss"' "$runs/fp8-$name/metrics.jsonl" |
      sed -E "s/.*\"step\":([0-9]+).*\"val_loss\":([-+0-9.eE]+).*/$name \1 \2/"
  done
}
values $(printf 'bf16-%s ' $seeds) current delayed block | tee "$runs/fp8-losses.txt" |
  awk -v seeds="$seeds" '
    { value[$1, $2] = $3; if (!($2 in known)) { known[$2]; order[++rows] = $2 } }
    END {
      n = split(seeds, names, " ")
      split("current delayed block", kinds, " ")
      print "| step | bf16: mean of " n " seeds | standard deviation | seed 0 | current | delayed | block |"
      print "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
      for (i = 1; i <= rows; ++i) {
        s = order[i]; sum = squares = 0
        for (j = 1; j <= n; ++j) sum += value["bf16-" names[j], s]
        mean = sum / n
        for (j = 1; j <= n; ++j) squares += (value["bf16-" names[j], s] - mean) ^ 2
        deviation = sqrt(squares / (n - 1))
        line = sprintf("| %d | %.4f | %.4f | %.4f |", s, mean, deviation, value["bf16-0", s])
        for (k = 1; k <= 3; ++k) {
          x = value[kinds[k], s]
          outside = x < mean - 2 * deviation || x > mean + 2 * deviation
          bad += outside
          line = line sprintf(" %.4f%s |", x, outside ? " (outside)" : "")
        }
        print line
      }
      exit bad > 0
    }' >"$runs/fp8-table.md" && verdict=0 || verdict=1
cat "$runs/fp8-table.md"
[ "$table" = /dev/null ] || cp "$runs/fp8-table.md" "$table"
[ $verdict = 0 ] || { echo "fp8: a loss in 8 bits lies outside of two standard deviations of bfloat16's seeds" >&2; exit 1; }
