#!/usr/bin/env bash
# The same training started by --nproc, by mpirun (Open MPI), by Slurm (slurmctld, slurmd and munge on this
# machine, run as root, torn down at the end) and by torchrun: the same losses to the last bit. About a
# minute.
#
#   test/long/launchers.sh [BUILD_FOLDER]
#
# A launcher that is not installed is named and left out; nothing is installed. Debian packages: openmpi-bin;
# slurmctld slurmd slurm-client munge. torchrun: TORCHRUN=/path/to/torchrun.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$(realpath "${1:-build/cpu}")/bin
work=$(mktemp -d)
export OMP_NUM_THREADS=1
slurm_pids=()

cleanup() {
  if [ ${#slurm_pids[@]} -gt 0 ]; then
    for _ in $(seq 50); do  # jobs end before their daemons
      [ -n "$(squeue --noheader 2>/dev/null)" ] || break
      sleep 0.2
    done
    sleep 1
    kill "${slurm_pids[@]}" 2>/dev/null || true
    wait "${slurm_pids[@]}" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap cleanup EXIT

cat > "$work/config.json" <<'JSON'
{"recipe": {"type": "predict",
            "model": {"in_channels": 5, "out_channels": 4, "num_attention_heads": 2,
                      "attention_head_dim": 12, "num_layers": 2, "mlp_ratio": 2.0, "text_embed_dim": 8,
                      "adaln_lora_dim": 5, "max_size": [8, 16, 16], "extra_pos_embed_type": null},
            "data": {"type": "latent-clips"}, "latent_cache": "none", "condition_frames": [0.5, 0.5]},
 "trainer": {"steps": 6, "gradient_accumulation": 2, "threads": 1, "save_every": 3}}
JSON

# train NAME LAUNCHER...: a run started by LAUNCHER; rank_worker takes its rank from the environment.
train() {
  local name=$1
  shift
  "$@" "$bin/rank_worker" 2 "$work/config.json" "run.dir=$work/$name"
}

losses() {
  grep -o '"loss":[^,}]*' "$work/$1/metrics.jsonl"
}

failed=0
compare() {
  if [ "$(losses "$1")" = "$(losses local)" ]; then
    echo "$1: same losses"
  else
    echo "$1: other losses than --nproc" >&2
    failed=1
  fi
}

train local env
echo "local: $(losses local | tail -1)"

if command -v mpirun >/dev/null; then
  train mpirun mpirun --allow-run-as-root --oversubscribe -np 2
  compare mpirun
else
  echo "mpirun: not installed (openmpi-bin), left out"
fi

if [ -n "${TORCHRUN:-}" ]; then
  train torchrun "$TORCHRUN" --nnodes 1 --nproc-per-node 2 --no-python
  compare torchrun
else
  echo "torchrun: TORCHRUN is not set, left out"
fi

start_slurm() {
  local host
  host=$(hostname -s)
  mkdir -p "$work/slurm/state" "$work/slurm/spool" "$work/munge"
  dd if=/dev/urandom of="$work/munge/key" bs=1024 count=1 status=none
  chmod 700 "$work/munge"
  chmod 400 "$work/munge/key"
  chmod 755 "$work"  # munged wants to know who may look in
  chown munge "$work/munge" "$work/munge/key"
  runuser -u munge -- munged --foreground --force --key-file "$work/munge/key" --socket "$work/munge/socket" \
    --pid-file "$work/munge/pid" --log-file "$work/munge/log" --seed-file "$work/munge/seed" \
    > "$work/munged.out" 2>&1 &
  slurm_pids+=($!)
  chmod 711 "$work/munge"
  cat > "$work/slurm/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CredType=cred/munge
StateSaveLocation=$work/slurm/state
SlurmdSpoolDir=$work/slurm/spool
SlurmctldPidFile=$work/slurm/slurmctld.pid
SlurmdPidFile=$work/slurm/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$host Default=YES State=UP OverSubscribe=FORCE:4
CONF
  export SLURM_CONF=$work/slurm/slurm.conf
  slurmctld -D > "$work/slurm/slurmctld.log" 2>&1 &
  slurm_pids+=($!)
  slurmd -D > "$work/slurm/slurmd.log" 2>&1 &
  slurm_pids+=($!)
  for _ in $(seq 60); do
    sinfo --noheader --format %T 2>/dev/null | grep -q idle && return
    sleep 0.5
  done
  tail -5 "$work"/slurm/*.log "$work/munge/log" >&2
  return 1
}

if command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null; then
  start_slurm
  train slurm srun --ntasks 2 --cpus-per-task 1 --overcommit
  compare slurm
else
  echo "Slurm: not installed (slurmctld slurmd slurm-client munge), left out"
fi
exit $failed
