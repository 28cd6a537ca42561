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
#   write_data KIND  reads windows, writes  KIND: sft, chance (letters drawn blindly), grpo, dpo
write_data() {
  awk -v kind="$1" -v dir="$runs" -v seed="$seed" '
    function ask(category, text, letters, right,    set, video, shown, wrong, content) {
      set = $1; video = $2 "-" $4 "-" $5 "-" $6 ".mp4"
      shown = right
      if (kind == "chance") shown = substr(letters, 1 + int(rand() * length(letters)), 1)
      do wrong = substr(letters, 1 + int(rand() * length(letters)), 1); while (wrong == right)
      content = "[{\"type\": \"video\", \"video\": \"windows/" video "\"}, {\"type\": \"text\", \"text\": \"" text "\"}]"
      content = "[{\"role\": \"user\", \"content\": " content "}"
      if (kind == "dpo")
        print "{\"prompt\": " content "], \"chosen\": \"" right "\", \"rejected\": \"" wrong "\"}" > (dir "/pairs" (set == "train" ? "" : "-validation") ".jsonl")
      else if (kind == "grpo")
        print "{\"messages\": " content "], \"answer\": \"" right "\", \"category\": \"" category "\"}" > (dir "/questions" (set == "train" ? "" : "-validation") ".jsonl")
      else
        print "{\"messages\": " content ", {\"role\": \"assistant\", \"content\": \"" shown "\"}]}" > (dir "/" (kind == "sft" ? "" : kind "-") set ".jsonl")
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

# accuracy MODEL NAME: of its own letters on the windows that nobody trained on, drawn four times each.
accuracy() {
  "$bin/cosmos-reason" eval --model "$1" --input "$runs/questions-validation.jsonl" --samples 4 --temperature 1 \
    --max-new-tokens 4 --batch 64 --seed "$seed" --output "$runs/$2-answers.jsonl" --summary "$runs/$2-eval.json"
}
from_eval() { grep -o "\"$2\": *[-+0-9.eE]*" "$runs/$1-eval.json" | head -1 | sed 's/.*: *//'; }

step "1/6 build the programs and fetch the footage"
cosmos_build cosmos-train cosmos-reason cosmos-convert
tools/fetch_footage.sh
mkdir -p "$runs"
start=$SECONDS

step "2/6 cut windows and write questions"
{ list_windows bikes 250; list_windows bigbuckbunny 132; } >"$runs/windows.txt"
cut_windows
for kind in sft chance grpo dpo; do write_data $kind; done
write_base
paths=("recipe.data.files=[\"$runs/train.jsonl\"]" "recipe.validation_data.files=[\"$runs/validation.jsonl\"]"
  "recipe.model.tokenizer=$runs/base")

step "3/6 sft on $(wc -l <"$runs/train.jsonl") questions, asked $(wc -l <"$runs/validation.jsonl") others"
train configs/reason/clip-sft.json sft "${paths[@]}"

step "4/6 a model that answers with letters, at chance"
train configs/reason/clip-sft.json chance "${paths[@]}" "recipe.data.files=[\"$runs/chance-train.jsonl\"]" \
  trainer.steps=40 trainer.validate_every=40 trainer.save_every=40
"$bin/cosmos-convert" export --model "$(newest chance)" --overwrite --output "$runs/export/chance" \
  --name "Letters at chance" --data "windows of two clips, letters drawn blindly"

step "5/6 grpo and dpo from there"
train configs/reason/clip-grpo.json grpo "recipe.model.path=$runs/export/chance" \
  "recipe.data.files=[\"$runs/questions.jsonl\"]" "recipe.rollouts=$runs/rollouts.jsonl" \
  "recipe.validation_data.files=[\"$runs/questions-validation.jsonl\"]"
train configs/reason/clip-dpo.json dpo "recipe.model.path=$runs/export/chance" \
  "recipe.data.files=[\"$runs/pairs.jsonl\"]" "recipe.validation_data.files=[\"$runs/pairs-validation.jsonl\"]"

step "6/6 ask each, four times a question"
for run in sft chance grpo dpo; do accuracy "$(newest $run)/model" "$run"; done

cat <<SUMMARY

What came out  (seed $seed, $(((SECONDS - start) / 60)) min $(((SECONDS - start) % 60)) s; $(wc -l <"$runs/validation.jsonl") questions on windows never trained on)
  sft     exact match $(percent "$(metric sft val_exact_match)"); four draws: $(percent "$(from_eval sft accuracy)")
  chance  $(percent "$(from_eval chance accuracy)") right, pass@4 $(percent "$(from_eval chance pass@4)")
  grpo    reward of its own answers $(percent "$(first grpo reward)") at first; greedy on the held-out $(percent "$(metric grpo val_reward)"),
          four draws: $(percent "$(from_eval grpo accuracy)")
  dpo     held-out margin $(metric dpo val_margin) (0 before), chosen over rejected $(percent "$(metric dpo val_accuracy)")
  report  $runs/{sft,grpo,dpo}/report.html
SUMMARY
