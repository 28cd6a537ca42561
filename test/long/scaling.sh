#!/usr/bin/env bash
# Step times of Predict2.5 on up to 16384 GPUs, simulated from docs/scaling/h100.json: writes docs/scaling.md.
#
#   test/long/scaling.sh [BUILD_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
train=${1:-build/cpu}/bin/cosmos-train
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# section TITLE SETTING...: the tables of Predict2.5-2B's config with these settings, and the command.
section() {
  local title=$1
  shift
  printf '\n## %s\n\n```bash\ncosmos-train configs/predict/predict2.5-2b.json --plan --simulate docs/scaling/h100.json' "$title"
  printf ' \\\n  %s' "$@"
  printf '\n```\n\n'
  "$train" configs/predict/predict2.5-2b.json --plan --simulate docs/scaling/h100.json "$@"
}

{
  cat <<'TEXT'
# Scaling: simulated step times to 16384 GPUs

Made by `test/long/scaling.sh`; do not edit.

**Nothing here was measured on a cluster.** The tables are what a simulation (`trainer/loop/step_time`) makes of a
config and of the speeds in [scaling/h100.json](scaling/h100.json), which are published figures of other people's H100
machines, not measurements of this program. They say where a layout begins to wait for its network, and how much memory
it takes; they do not promise a step time. For your own machines:

```bash
cosmos-train CONFIG.json --nproc 8 --measure-speeds speeds.json   # one machine: products, memory, links inside
cosmos-train CONFIG.json --plan --simulate speeds.json            # "network" is added by hand, or measured by srun
```

## What is assumed

- **Products** run at one speed, `matmul_tflops`, whatever their shape; norms, attention and launches are in that
  figure, which is what whole training steps reach. FLOPs are the model's own (`flops_per_sample`): forward, twice that
  for backward, and a second forward of blocks that are recomputed. The column "TFLOP/s a rank" leaves the second
  forward out, as MFU does.
- **A collective** of n ranks takes latency x ceil(log2 n) + bytes x (n - 1) / n / bandwidth; an all-reduce twice that.
  The bandwidth is a machine's links' where all the group's ranks fit into one machine, else the network's: of a group
  with one rank a machine (replicas), that rank's share. It is the same at 4 and at 4096 machines: no oversubscription,
  nobody else there. The latency is that of trees; a single ring over n ranks takes n - 1 hops, so that "sharded over
  all ranks" is too good from some thousand ranks on. Shard over fewer there, as the first table does.
- **Overlap** is that of the trainer: products on one stream, on another the gathers and reductions in the order in which
  `FullyShard` begins them. The next block's gather runs under this block's products; a block's reduction, and the sum
  over replicas behind it, under the next one's backward. What ranks that split tokens or heads exchange stops the
  products. A copy of the gathered bytes in memory costs nothing.
- **Pipelines** idle while they fill and drain: (p - 1) micro-batches of a stage, fewer with chunks.
- **The update** reads and writes the state once, at memory speed.
- **No** data loading, validation, checkpoints, stragglers, failures, or jitter; every rank has clips of the same size.
- **Peak** is `--plan`'s, on a rank; "too much" is more than `memory_gb`.

Efficiency is samples a second and rank against the table's first row. Weak scaling gives every rank the same
micro-batches, so the batch grows; strong scaling keeps the samples of a step, so gradient accumulation shrinks to one.
TEXT
  section 'Predict2.5-2B, sharded inside machines, replicas between them (HSDP)' \
    trainer.parallel.shard=8 trainer.activation_checkpointing=full trainer.gradient_accumulation=1
  section 'Predict2.5-2B, sharded over all ranks' trainer.activation_checkpointing=full trainer.gradient_accumulation=1
  section 'Predict2.5-2B on small clips (17 frames of 640x352)' \
    trainer.parallel.shard=8 trainer.activation_checkpointing=full trainer.gradient_accumulation=1 \
    recipe.data.num_frames=17 recipe.data.height=352 recipe.data.width=640
  section 'Predict2.5-14B, shards over 64 ranks' \
    recipe.model.num_attention_heads=40 recipe.model.num_layers=36 \
    trainer.parallel.shard=64 trainer.activation_checkpointing=full trainer.gradient_accumulation=1
  section 'Predict2.5-14B, a clip on 8 ranks (context parallel), shards over 64' \
    recipe.model.num_attention_heads=40 recipe.model.num_layers=36 \
    trainer.parallel.shard=8 trainer.parallel.context=8 trainer.activation_checkpointing=full trainer.gradient_accumulation=1
} > "$out"
cp "$out" docs/scaling.md
