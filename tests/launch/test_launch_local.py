"""launch/local.sh with small programs in the place of ssljax: lines, signals, exit codes, and nobody left behind."""

import contextlib
import fcntl
import os
import pathlib
import re
import select
import signal
import subprocess
import time

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "local.sh"
# Every plan begins so: its number, and a way to wait until as many have said that they are ready.
BEGIN = """
for word in "$@"; do [[ $word == --process-id=* ]] && id=${word#*=}; done
ready() { echo >>"$FOLDER/notes"; until (($(wc -l <"$FOLDER/notes") >= $1)); do sleep 0.02; done; }
"""
WAITS = "while :; do sleep 0.05; done\n"


@contextlib.contextmanager
def heeded(*signals):
  """Signals that this process ignores (it runs behind nohup, or behind an &) are not ignored by those it starts."""
  ignored = [one for one in signals if signal.getsignal(one) == signal.SIG_IGN]
  for one in ignored:
    signal.signal(one, signal.SIG_DFL)
  yield
  for one in ignored:
    signal.signal(one, signal.SIG_IGN)


class Launched:
  """The script at work; every process below it holds the end of a pipe, which tells when the last has gone."""

  def __init__(self, folder, plan, *, processes=2, arguments=("train", "--config=a b"), **environment):
    (folder / "plan.sh").write_text(BEGIN + plan)
    self._folder, (self._alive, end) = folder, os.pipe()
    shared = fcntl.fcntl(end, fcntl.F_DUPFD, 100)
    os.close(end)
    own = {"SSLJAX": f"bash {folder}/plan.sh", "FOLDER": str(folder), "TMPDIR": str(folder)}
    with open(folder / "out", "w") as out, open(folder / "err", "w") as err, heeded(signal.SIGINT, signal.SIGHUP):
      self.process = subprocess.Popen(
        [str(SCRIPT), str(processes), *arguments],
        env={**os.environ, **own, **environment},
        stdout=out,
        stderr=err,
        pass_fds=[shared],
      )
    os.close(shared)

  def until(self, text, count=2):
    """Waits until the text stands in the output."""
    deadline = time.monotonic() + 120
    while self.out().count(text) < count:
      assert time.monotonic() < deadline and self.process.poll() is None, self.out() + self.err()
      time.sleep(0.02)
    return self

  def code(self):
    """Returns the exit code, after which nobody may be left, nor a file of the script's."""
    code = self.process.wait(timeout=120)
    assert select.select([self._alive], [], [], 60)[0], "a process outlived the script"
    os.close(self._alive)
    assert {path.name for path in self._folder.iterdir()} <= {"plan.sh", "out", "err", "notes"}
    return code

  def out(self):
    return (self._folder / "out").read_text()

  def err(self):
    return (self._folder / "err").read_text()


@pytest.fixture
def launched(tmp_path):
  with contextlib.ExitStack() as stack:

    def launch(plan, **options):
      made = Launched(tmp_path, plan, **options)
      stack.callback(made.process.wait, 120)
      stack.callback(made.process.kill)
      return made

    yield launch


def test_each_process_has_its_number_and_its_flags(launched):
  run = launched('printf "%s|" "$@"; echo; echo news >&2; printf unfinished', processes=3)
  assert run.code() == 0
  port = re.search(r"--coordinator=127.0.0.1:(\d+)", run.out()).group(1)
  flags = [f"train|--config=a b|--coordinator=127.0.0.1:{port}|--num-processes=3|--process-id={n}|" for n in range(3)]
  lines = sorted(re.sub(r"unfinished(?!\n)", "unfinished\n", run.out()).splitlines())
  assert lines == sorted([f"[{n}] {flag}" for n, flag in enumerate(flags)] + [f"[{n}] unfinished" for n in range(3)])
  assert sorted(run.err().splitlines()) == [f"[{n}] news" for n in range(3)]


def test_one_that_fails_stops_the_others_and_gives_the_code(launched):
  run = launched('trap "echo told; exit 75" TERM; ready 3; ((id == 1)) && exit 3\n' + WAITS, processes=3)
  assert run.code() == 3
  assert "[0] told" in run.out() and "[2] told" in run.out()
  assert "[1] ended with exit code 3" in run.err()


def test_a_failure_counts_more_than_a_preemption_that_came_before(launched):
  assert launched("((id == 0)) && exit 75; sleep 0.4; exit 3").code() == 3


@pytest.mark.parametrize(("sig", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 75)])
def test_signals_reach_the_processes_and_not_their_workers(launched, sig, code):
  tell = "trap 'touch $FOLDER/notes; sleep 0.1; kill -0 $! && echo worker lives; exit {}' {};"
  worker = "(until [[ -e $FOLDER/notes ]]; do sleep 0.05; done; sleep 4; echo late) & "
  plan = worker + tell.format(75, "TERM") + tell.format(130, "INT") + " echo up\n" + WAITS
  run = launched(plan).until("up")
  run.process.send_signal(sig)
  assert run.code() == code  # the worker outlives its process here; it is gone when the script is
  assert "late" not in run.out()
  assert sorted(line for line in run.out().splitlines() if "worker" in line) == ["[0] worker lives", "[1] worker lives"]


def test_the_others_of_a_preempted_process_end_by_themselves(launched):
  run = launched('trap "echo told; exit 1" TERM; ((id == 0)) && exit 75; sleep 1; exit 75')
  assert run.code() == 75 and "told" not in run.out()


def test_who_does_not_stop_is_killed(launched):
  run = launched('trap "" TERM; ready 2; ((id == 0)) && exit 4; sleep 100 & ' + WAITS, GRACE="1")
  assert run.code() == 4
  assert "[1] ended with exit code 137" in run.err()


def test_a_stopped_process_has_not_ended(launched):
  run = launched("((id == 0)) && kill -STOP $$; echo up\n((id == 0)) || { sleep 0.5; echo over; }").until("over", 1)
  time.sleep(0.5)
  assert run.process.poll() is None
  run.process.send_signal(signal.SIGTERM)
  time.sleep(0.3)
  assert "ended" not in run.err()
  run.process.kill()
  assert run.code() == -signal.SIGKILL


def test_nobody_survives_the_script(launched):
  run = launched('trap "" TERM HUP INT; sleep 100 & echo up; ' + WAITS).until("up")
  run.process.kill()
  assert run.code() == -signal.SIGKILL


def test_a_program_that_is_not_there(launched):
  assert launched("", SSLJAX="no-such-program").code() == 127


@pytest.mark.parametrize(
  ("processes", "arguments", "environment"), [("two", ["train"], {}), ("2", [], {}), ("2", ["a"], {"GRACE": "x"})]
)
def test_a_mistake_is_one_line(launched, processes, arguments, environment):
  run = launched("", processes=processes, arguments=arguments, **environment)
  assert run.code() == 2
  assert run.err().startswith("error: ") and len(run.err().splitlines()) == 1
