#!/usr/bin/env bash
# SLURM itself on one machine: two virtual nodes, one job of train.sbatch that is told to stop and goes on.
#
#   apt-get install --no-install-recommends slurm-wlm munge        (root; nothing else here needs it)
#   launch/slurm/try_here.sh [FOLDER]                              (in a clone, in the environment with ssljax)
#   STEPS=300 PATIENCE=10     of the run (1000), which is told to stop at step 20; times all waiting, on a busy machine
#
# All of it lies in FOLDER (default: a new temporary one): key, socket, configuration, state, logs. The daemons listen on
# this machine alone and are stopped by their ids.
set -euo pipefail

steps=${STEPS:-1000}
here=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$(mktemp -d)}
mkdir -p "$folder"/{state,n1,n2}
cd "$folder"
for command in munged slurmctld slurmd sbatch python3; do
  command -v "$command" >/dev/null || { echo "error: $command: not found, expected slurm-wlm and munge" >&2; exit 2; }
done
python3 -c 'import jax' || { echo "error: python3: found no jax, expected the environment with ssljax" >&2; exit 2; }

pids=() job=
ended() { [[ -z $(squeue -h -j "$job" 2>/dev/null) ]]; }
stop() { # the job before the daemons: nobody else would end its processes
  if [[ $job ]] && ! ended; then
    scancel --full --signal=KILL "$job"
    scancel "$job"
    for ((tries = 0; tries < 100; tries++)); do
      if ended; then break; fi
      sleep 0.2
    done
  fi
  if ((${#pids[@]})); then kill "${pids[@]}" 2>/dev/null || true; fi
  wait
}
trap stop EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

free_ports() { # COUNT
  python3 -c '
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in sockets: one.bind(("127.0.0.1", 0))
print(*[one.getsockname()[1] for one in sockets])' "$1"
}
read -r control first second coordinator <<<"$(free_ports 4)"

# cred_expire: SLURM holds a requeued job back until the credentials of its last start have expired, else 120 s.
cat >slurm.conf <<CONF
ClusterName=here
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$control
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=10
CredType=cred/munge
MessageTimeout=60
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$first CPUs=1
NodeName=n2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$second CPUs=1
PartitionName=here Nodes=n1,n2 Default=YES MaxTime=60 State=UP
CONF
export SLURM_CONF=$folder/slurm.conf

daemon() { # NAME COMMAND...
  local log=$folder/$1.log
  shift
  "$@" >"$log" 2>&1 &
  pids+=($!)
}
python3 -c 'import os, sys; os.write(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o400), os.urandom(1024))' key
daemon munge munged --foreground --force --key-file="$folder/key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munge.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
until [[ -S munge.socket ]]; do sleep 0.1; done
daemon slurmctld slurmctld -D
daemon n1 slurmd -D -N n1
daemon n2 slurmd -D -N n2

within() { # SECONDS WHAT COMMAND...: until the command succeeds
  local end=$((SECONDS + $1 * ${PATIENCE:-1})) what=$2
  shift 2
  until "$@"; do
    ((SECONDS < end)) || { echo "error: no $what in time; logs in $folder" >&2; exit 1; }
    sleep 0.2
  done
}
idle() { [[ $(sinfo -h -t idle -o %D 2>/dev/null) == 2 ]]; }
within 30 "two idle nodes" idle
sinfo -N

# The job: tests/tiny_config.py on random pictures. n1 and n2 are no names of hosts, hence the address.
python3 -c '
import numpy as np
pictures = np.random.default_rng(0).integers(0, 256, (50, 20, 24, 3), dtype=np.uint8)
np.savez("pictures.npz", image=pictures, label=np.arange(50) % 5)'
export SSLJAX="python3 -m ssljax" SSLJAX_TEST_DATA=$folder PYTHONPATH=$here:$here/tests JAX_PLATFORMS=cpu
export JAX_DISABLE_MOST_OPTIMIZATIONS=1 # it computes seconds and compiles for longer
export JAX_COORDINATOR_ADDRESS=127.0.0.1:$coordinator
job=$(sbatch --parsable --time=60 "$here/launch/slurm/train.sbatch" train --config="$here/tests/tiny_config.py:bare" \
  --workdir="$folder/run" --cpu-devices=1 --config.steps="$steps" --config.checkpoint.every=100000)

written() { if [[ -f run/metrics.jsonl ]]; then wc -l <run/metrics.jsonl; else echo 0; fi; }
reached() { (($(written) >= $1)); }
within 120 "step 20" reached 20
scancel --signal=TERM "$job"
echo "job $job: TERM at step $(written)"
restarted() { scontrol show job "$job" | grep -q Restarts=1; }
within 60 "requeue" restarted
echo "job $job: back in the queue, checkpoints at: $(cd run/checkpoints && echo [0-9]*)"
within 240 "end" ended

scontrol show job "$job" | grep -E "JobState|Restarts|ExitCode"
grep -E "^error|resuming|save|exit code|REQUEUE" "ssljax-$job.log" || true
python3 - "$steps" <<'PYTHON'
import json, pathlib, sys
steps = [json.loads(line)["step"] for line in pathlib.Path("run/metrics.jsonl").read_text().splitlines()]
last = int(sys.argv[1])
assert steps == list(range(1, last + 1)), f"metrics.jsonl: found steps {steps}, expected 1 to {last}, each once"
print(f"steps 1 to {last}, each once")
PYTHON
echo "logs: $folder"
