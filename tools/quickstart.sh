#!/usr/bin/env bash
# From real video to a world model, in one command: trains a small tokenizer and a small image-to-video
# transformer on a real clip, tunes a LoRA adapter on a second clip, generates, exports.
#
#   tools/quickstart.sh [RUNS]      default: runs/quickstart
#
# Takes about 10 minutes on two cores after the build (12 minutes or less). Started again it goes on
# where it stopped. Everything is written below RUNS; .deps/footage holds the two clips.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
runs=${1:-runs/quickstart}
. tools/quickstart_parts.sh

step "1/6 build the programs and fetch the footage"
cosmos_build cosmos-train cosmos-generate cosmos-convert
tools/fetch_footage.sh
start=$SECONDS

step "2/6 train a video tokenizer from scratch (bikes, 112x48, 4x8x8 compression to 16 channels)"
train_tokenizer

step "3/6 train a transformer on its latents: nine frames from the first one"
train_transformer

step "4/6 tune a LoRA adapter on a second clip (Big Buck Bunny), three seeds"
for seed in 0 1 2; do
  train configs/predict/quickstart-lora.json "lora-$seed" "recipe.tokenizer=$runs/export/vae" \
    "recipe.model.path=$runs/export/transformer" "trainer.seed=$seed"
done

step "5/6 generate from the first frame of a held-out window"
"$bin/cosmos-generate" --transformer "$runs/export/transformer" --vae "$runs/export/vae" \
  --video .deps/footage/bikes.mp4 --start 205 --condition-frames 1 --num-frames 9 \
  --height 48 --width 112 --fps 25 --steps 16 --guidance 0 --seed 1 \
  --save-pipeline "$runs/export/pipeline" --output "$runs/generated.mp4"

step "6/6 export the adapter"
"$bin/cosmos-convert" adapter --model "$runs/export/transformer" --adapter "$(newest lora-0)/adapter" \
  --format diffusers --base-model "Quickstart transformer" --overwrite --output "$runs/export/lora"

losses=$(for seed in 0 1 2; do metric "lora-$seed" val_loss; done | sort -g)
best=$(head -1 <<<"$losses") worst=$(tail -1 <<<"$losses")
from_record() { grep -o "\"$1\": [-+0-9.eE]*" "$runs/generated.json" | cut -d' ' -f2; }
cat <<SUMMARY

What came out  (training and generation: $(((SECONDS - start) / 60)) min $(((SECONDS - start) % 60)) s)
  tokenizer    $(number "$(metric tokenizer val_psnr)" %.2f) dB PSNR on the held-out fifth of the clip; a linear PCA of the
               same compression, fitted without training, has $(number "$(metric tokenizer val_pca_psnr)" %.2f) dB
  transformer  validation velocity loss $(number "$(metric predict val_loss)") over generated frames; the best scalar
               predictor c(sigma) x_t has $(number "$(metric predict val_scalar_loss)") (lower is better)
  LoRA         validation loss on the second clip $(number "$(metric lora-0 start_val_loss)") before, $(number "$best") to $(number "$worst") after (three seeds)
  clip         $runs/generated.mp4 and generated-beside-real.png: first frame $(number "$(from_record first_frame_psnr)" %.1f) dB from the given
               one, mean change from frame to frame $(number "$(from_record frame_change)" %.2f) (real clip: $(number "$(from_record frame_change_real)" %.2f)); seed and hashes in generated.json
  report       $runs/{tokenizer,predict,lora-0}/report.html: curves and pictures, open in a browser
  exports      $runs/export/: vae/ and transformer/ (diffusers' from_pretrained loads them), pipeline/, lora/
SUMMARY
