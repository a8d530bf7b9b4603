"""launch/slurm/train.sbatch with stubs of srun and scontrol (SLURM itself: launch/slurm/try_here.sh)."""

import os
import pathlib
import re
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "slurm" / "train.sbatch"
RECORD = '#!/usr/bin/env bash\n{ printf "%s" "${0##*/}"; printf "|%s" "$@"; echo; } >>"$RECORD"\n'


def run(folder, *arguments, code, task="exec"):
  """Returns (exit code, what was called); srun leaves out its own flag and runs the task once."""
  stubs = {"srun": "shift; " + task + ' "$@"', "scontrol": "", "sleep": "", "program": f"exit {code}"}
  for name, then in stubs.items():
    (folder / name).write_text(RECORD + then)
    (folder / name).chmod(0o755)
  own = {"PATH": f"{folder}:{os.environ['PATH']}", "RECORD": f"{folder}/record", "SLURM_JOB_ID": "7"}
  environment = {**os.environ, **own, "SSLJAX": "program -m ssljax"}
  done = subprocess.run(["bash", SCRIPT, *arguments], env=environment, timeout=120)
  return done.returncode, (folder / "record").read_text().splitlines()


def test_the_queue_is_told(tmp_path):
  options = re.findall(r"^#SBATCH --(.*)$", SCRIPT.read_text(), re.MULTILINE)
  assert {"requeue", "open-mode=append", "signal=TERM@120", "nodes=2", "ntasks-per-node=1"} <= set(options)
  # sbatch reads its options only above the first command.
  above = SCRIPT.read_text().partition("\ntask() {")[0]
  assert above.count("#SBATCH --") == len(options)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_every_other_exit_code_ends_the_job(tmp_path, code):
  found, calls = run(tmp_path, "train", "--config=a b", code=code)
  assert found == code
  assert calls[0].startswith("srun|--kill-on-bad-exit=1|bash|-c|")
  assert calls[-1] == "program|-m|ssljax|train|--config=a b"
  assert not any(call.startswith(("sleep", "scontrol")) for call in calls)


def test_75_goes_back_into_the_queue_after_the_other_hosts_had_time(tmp_path):
  found, calls = run(tmp_path, "train", code=75)
  assert found == 75
  assert calls[-3:] == ["program|-m|ssljax|train", "sleep|10", "scontrol|requeue|7"]


def test_term_to_the_script_and_its_task_loses_no_exit_code(tmp_path):
  task = "kill -TERM $PPID; sed -i 's/exit 75/kill -TERM $PPID; exit 75/' \"${0%/*}/program\";"
  found, calls = run(tmp_path, "train", code=75, task=task)
  assert found == 75 and calls[-1] == "scontrol|requeue|7"
