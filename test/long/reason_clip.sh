#!/usr/bin/env bash
# A reasoning VLM from random weights learns to answer questions on two real clips, and is asked about
# windows that it never saw: by supervised answers, by a reward of its own answers (GRPO), by
# preferences (DPO).
#
#   test/long/reason_clip.sh [RUNS]      default: runs/reason-clip; SEED=0
#
# Takes some minutes on two cores after the build. Started again it goes on where it stopped. The curves
# are in RUNS/{sft,grpo,dpo}/report.html.
set -euo pipefail
cd "$(dirname "$0")/../.."
case "${1:-}" in -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
. tools/preset.sh
runs=${1:-runs/reason-clip}
seed=${SEED:-0}
bin=build/$COSMOS_PRESET/bin
footage=.deps/footage

step() { printf '\n== %s  [%d:%02d]\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }
# metric RUN KEY: the last value of KEY in RUN's metrics.jsonl; first RUN KEY: the first one.
metric() { grep -o "\"$2\":[-+0-9.eE]*" "$runs/$1/metrics.jsonl" | tail -1 | cut -d: -f2; }
first() { grep -o "\"$2\":[-+0-9.eE]*" "$runs/$1/metrics.jsonl" | head -1 | cut -d: -f2; }
newest() { ls -d "$runs/$1"/checkpoints/step-* | tail -1; }
train() { "$bin/cosmos-train" "$1" "run.dir=$runs/$2" "trainer.seed=$seed" "${@:3}"; }
percent() { awk -v x="$1" 'BEGIN {printf "%.1f %%", 100 * x}'; }

# A window is 4 or 8 frames of the left or right half of a clip, 64 x 64 pixels. In each third of a clip
# stretches of 18 frames to learn from and of 8 to be asked about follow each other; no window crosses
# from one into the other, so no frame of a question was ever trained on.
#   list_windows CLIP FRAMES  ->  SET CLIP THIRD SIDE FIRST LENGTH
list_windows() {
  awk -v clip="$1" -v frames="$2" 'BEGIN {
    size = int(frames / 3)
    for (third = 0; third < 3; ++third)
      for (at = 0; at < size; at += 26)
        for (held = 0; held < 2; ++held) {
          begin = at + 18 * held; end = begin + (held ? 8 : 18)
          if (end > size) end = size
          for (length_ = 4; length_ <= 8; length_ += 4)
            for (i = begin; i + length_ <= end; i += 2)
              for (side = 0; side < 2; ++side)
                print (held ? "validation" : "train"), clip, third, side, third * size + i, length_
        }
  }'
}

# Half of a clip as small frames, each a keyframe, then the windows from it.
cut_windows() {
  local clip side half set third begin length out
  mkdir -p "$runs/windows"
  for clip in bikes bigbuckbunny; do
    for side in 0 1; do
      half=$runs/windows/$clip-$side.mkv
      [ -f "$half" ] || ffmpeg -v error -y -i "$footage/$clip.mp4" -an -r 25 -c:v ffv1 \
        -vf "crop=iw/2:ih:$side*iw/2:0,scale=64:64:flags=area" "$half"
    done
  done
  while read -r set clip third side begin length; do
    out=$runs/windows/$clip-$side-$begin-$length.mp4
    [ -f "$out" ] || ffmpeg -nostdin -v error -y -i "$runs/windows/$clip-$side.mkv" -c:v libx264 -crf 12 \
      -vf "select=between(n\,$begin\,$((begin + length - 1))),setpts=N/25/TB" -r 25 "$out"
  done <"$runs/windows.txt"
}

# Four questions on each window; the metadata are the answers.
#   write_data KIND  reads windows, writes one file for training and one for validation:
#     sft   train, validation          right letters
#     base  base-train, base-...       right ones for third and frames, blind ones for clip and side
#     all   questions, questions-...   without a letter, the truth beside it
#     rl    asked, asked-...           the same, of clip and side on windows of 4 frames
#     dpo   pairs, pairs-...           the same questions with the right letter and a wrong one
write_data() {
  awk -v kind="$1" -v dir="$runs" -v seed="$seed" '
    function pick(letters) { return substr(letters, 1 + int(rand() * length(letters)), 1) }
    function name(stem) { return dir "/" stem ($1 == "train" ? "" : "-validation") ".jsonl" }
    function ask(category, text, letters, right,    untold, shown, wrong, turn) {
      untold = category == "clip" || category == "side"
      shown = kind == "base" && untold ? pick(letters) : right
      do wrong = pick(letters); while (wrong == right)
      turn = "{\"role\": \"user\", \"content\": [{\"type\": \"video\", \"video\": \"windows/" $2 "-" $4 "-" $5 "-" $6 \
        ".mp4\"}, {\"type\": \"text\", \"text\": \"" text "\"}]}"
      if (kind == "sft" || kind == "base")
        print "{\"messages\": [" turn ", {\"role\": \"assistant\", \"content\": \"" shown "\"}]}" > \
          (dir "/" (kind == "base" ? "base-" : "") $1 ".jsonl")
      else if (kind == "all" || (kind == "rl" && untold && $6 == 4))
        print "{\"messages\": [" turn "], \"answer\": \"" right "\", \"category\": \"" category "\"}" > \
          name(kind == "all" ? "questions" : "asked")
      else if (kind == "dpo" && untold && $6 == 4)
        print "{\"prompt\": [" turn "], \"chosen\": \"" right "\", \"rejected\": \"" wrong "\"}" > name("pairs")
    }
    BEGIN { srand(seed + 1) }
    {
      ask("clip", "Which clip? (A) bikes (B) rabbit", "AB", $2 == "bikes" ? "A" : "B")
      ask("third", "Which third of it? (A) first (B) second (C) last", "ABC", substr("ABC", $3 + 1, 1))
      ask("side", "Which side? (A) left (B) right", "AB", substr("AB", $4 + 1, 1))
      ask("frames", "How many frames? (A) 4 (B) 8", "AB", $6 == 4 ? "A" : "B")
    }' "$runs/windows.txt"
}

# Tokenizer and processor of the model: what a downloaded folder has beside its weights.
write_base() {
  mkdir -p "$runs/base"
  cp test/golden/text/qwen/tokenizer.json test/golden/text/qwen/tokenizer_config.json "$runs/base"
  echo '{"model_type": "qwen3_vl"}' >"$runs/base/config.json"
  echo '{"eos_token_id": 330}' >"$runs/base/generation_config.json"
  local pixels='"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2'
  echo "{$pixels, \"size\": {\"shortest_edge\": 256, \"longest_edge\": 4096}}" >"$runs/base/preprocessor_config.json"
  echo "{$pixels, \"fps\": 25, \"min_frames\": 2, \"max_frames\": 8,
    \"size\": {\"shortest_edge\": 256, \"longest_edge\": 32768}}" >"$runs/base/video_preprocessor_config.json"
}

# ask RUN QUESTIONS: the run's model writes four answers to each question; RUN-eval.json has the counts.
ask() {
  "$bin/cosmos-reason" eval --model "$(newest "$1")/model" --input "$runs/$2.jsonl" --samples 4 --temperature 1 \
    --max-new-tokens 4 --batch 48 --seed "$seed" --output "$runs/$1-answers.jsonl" --summary "$runs/$1-eval.json"
}
counted() { grep -o "^  \"$2\": *[-+0-9.eE]*" "$runs/$1-eval.json" | sed 's/.*: *//'; }

step "1/6 build the programs and fetch the footage"
cosmos_build cosmos-train cosmos-reason cosmos-convert
tools/fetch_footage.sh
mkdir -p "$runs"
start=$SECONDS

step "2/6 cut windows and write questions"
{ list_windows bikes 250; list_windows bigbuckbunny 132; } >"$runs/windows.txt"
cut_windows
for kind in sft base all rl dpo; do write_data $kind; done
write_base
text="recipe.model.tokenizer=$runs/base"
held="recipe.validation_data.files=[\"$runs/validation.jsonl\"]"

step "3/6 sft: $(wc -l <"$runs/train.jsonl") answered questions, asked $(wc -l <"$runs/validation.jsonl") others"
train configs/reason/clip-sft.json sft "$text" "$held" "recipe.data.files=[\"$runs/train.jsonl\"]"

step "4/6 a model that sees, but was told nothing on which clip and which side"
train configs/reason/clip-sft.json base "$text" "$held" "recipe.data.files=[\"$runs/base-train.jsonl\"]" \
  trainer.steps=400 trainer.validate_every=200 trainer.save_every=400
"$bin/cosmos-convert" export --model "$(newest base)" --overwrite --output "$runs/export/base" \
  --name "Answers at chance" --data "windows of two clips, two of four questions answered blindly"

step "5/6 grpo and dpo on these two questions, from there"
train configs/reason/clip-grpo.json grpo "recipe.model.path=$runs/export/base" \
  "recipe.data.files=[\"$runs/asked.jsonl\"]" "recipe.rollouts=$runs/rollouts.jsonl" \
  "recipe.validation_data.files=[\"$runs/asked-validation.jsonl\"]"
train configs/reason/clip-dpo.json dpo "recipe.model.path=$runs/export/base" \
  "recipe.data.files=[\"$runs/pairs.jsonl\"]" "recipe.validation_data.files=[\"$runs/pairs-validation.jsonl\"]"

step "6/6 ask each, four times a question"
ask sft questions-validation
for run in base grpo dpo; do ask $run asked-validation; done

cat <<SUMMARY

What came out  (seed $seed, $(((SECONDS - start) / 60)) min $(((SECONDS - start) % 60)) s; every number on windows never trained on)
  sft   exact match $(percent "$(metric sft val_exact_match)") of $(wc -l <"$runs/validation.jsonl") questions; four draws each: $(percent "$(counted sft accuracy)") right
  base  $(percent "$(counted base accuracy)") of $(wc -l <"$runs/asked-validation.jsonl") on clip and side, pass@4 $(percent "$(counted base pass@4)"): chance
  grpo  reward $(percent "$(first grpo reward)") in its first step; greedy $(percent "$(metric grpo val_reward)"), four draws $(percent "$(counted grpo accuracy)")
  dpo   margin $(metric dpo val_margin) (0 before), chosen over rejected $(percent "$(metric dpo val_accuracy)"), four draws $(percent "$(counted dpo accuracy)")
  see   $runs/{sft,grpo,dpo}/report.html, and *-answers.jsonl, rollouts.jsonl
SUMMARY
