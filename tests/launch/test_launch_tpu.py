"""launch/tpu/: what gcloud is told, word for word, and what a host does when it boots, with stubs on PATH."""

import os
import pathlib
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch" / "tpu"
PLACE = ["--zone=us-west4-a", "--project=p"]
SLICE = ["--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite", "--spot"]
SOURCE = "--source=https://example.org/ssljax.git#v1"
TRAIN = ["train", "--config=configs/mae_vit_b16.py", "--workdir=/shared/mae", '--config.note=it\'s $5 a "day"']
QUEUED = "gcloud|compute|tpus|queued-resources"
# What the stub calls itself, its arguments, and the file that a flag names.
STUB = r"""#!/usr/bin/env bash
{ printf '%s' "${0##*/}"; printf '|%s' "$@"; echo; } >>"$RECORD"
for word in "$@"; do
  [[ $word == --metadata-from-file=startup-script=* ]] && cp "${word##*=}" "$RECORD.startup"
done
"""


def stub(folder, name, then=""):
  (folder / "bin").mkdir(exist_ok=True)
  (folder / "bin" / name).write_text(STUB + then)
  (folder / "bin" / name).chmod(0o755)


def run(folder, *command, **environment):
  path = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "RECORD": str(folder / "record"), "TMPDIR": str(folder)}
  command = [str(word) for word in command]
  return subprocess.run(command, env={**os.environ, **path, **environment}, capture_output=True, text=True, timeout=120)


def queued(folder, *arguments, state="ACTIVE", code=0):
  """Returns the lines that gcloud was called with."""
  stub(folder, "gcloud", f"[[ $* == *describe* ]] && echo {state}; true")
  done = run(folder, LAUNCH / "queued_resource.sh", *arguments)
  assert done.returncode == code, done.stderr
  record = folder / "record"
  return record.read_text().splitlines() if record.exists() else [], done


def test_create_sends_the_command_to_every_boot(tmp_path):
  lines, _ = queued(tmp_path, "create", "a", *PLACE, SOURCE, *SLICE, "--", *TRAIN)
  [line] = lines
  before, _, file = line.rpartition("=")
  assert before == "|".join([QUEUED, "create|a", *PLACE, "--node-id=a", *SLICE, "--metadata-from-file=startup-script"])
  assert not pathlib.Path(file).exists()
  startup = (tmp_path / "record.startup").read_text()
  assert startup.startswith("#!/usr/bin/env bash\nSOURCE=") and startup.count("#!/usr/bin/env bash\n") == 2
  show = 'printf "%s\\n" "$SOURCE" "$EXTRAS" "${ARGUMENTS[@]}"'
  shown = run(tmp_path, "bash", "-c", "\n".join([*startup.splitlines()[:5], show])).stdout.splitlines()
  assert shown == ["https://example.org/ssljax.git#v1", "tpu,data,tfds,text", *TRAIN]


def test_several_slices(tmp_path):
  [line], _ = queued(tmp_path, "create", "a", *PLACE, SOURCE, *SLICE, "--node-count=2")
  assert "|--node-count=2|--node-prefix=a|" in line and "--node-id" not in line


@pytest.mark.parametrize("state", ["SUSPENDED", "FAILED"])
def test_resume_makes_a_suspended_slice_anew(tmp_path, state):
  lines, _ = queued(tmp_path, "resume", "a", *PLACE, SOURCE, *SLICE, "--", *TRAIN, state=state)
  assert lines[:2] == [
    "|".join([QUEUED, "describe|a", *PLACE, "--format=value(state.state)"]),
    "|".join([QUEUED, "delete|a", *PLACE, "--force|--quiet"]),
  ]
  assert lines[2].startswith("|".join([QUEUED, "create|a", *PLACE, "--node-id=a", *SLICE]))
  assert '[0]="train"' in (tmp_path / "record.startup").read_text()


@pytest.mark.parametrize("state", ["ACTIVE", "WAITING_FOR_RESOURCES", "SUSPENDING"])
def test_resume_leaves_the_others_alone(tmp_path, state):
  lines, done = queued(tmp_path, "resume", "a", *PLACE, SOURCE, *SLICE, state=state)
  assert len(lines) == 1 and f"a is {state}" in done.stdout


def test_run_hands_the_words_over_unchanged(tmp_path):
  [line], _ = queued(tmp_path, "run", "a", *PLACE, "--", *TRAIN)
  head, _, command = line.partition("|--command=")
  assert head == "|".join([QUEUED, "ssh|a", *PLACE, "--node=all|--worker=all"])
  assert command.endswith("| sudo tee /opt/ssljax/arguments && sudo systemctl restart ssljax")
  stub(tmp_path, "sudo", "[[ $1 == tee ]] && cat >$OUT; true")
  run(tmp_path, "bash", "-c", command, OUT=str(tmp_path / "arguments"))
  shown = run(tmp_path, "bash", "-c", f'source {tmp_path}/arguments; printf "%s\n" "${{ARGUMENTS[@]}}"')
  assert shown.stdout.splitlines() == TRAIN


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["ssh", "a", *PLACE], ["ssh|a", *PLACE]),
    (
      ["ssh", "a", *PLACE, "--", "journalctl", "-fu", "ssljax"],
      ["ssh|a", *PLACE, "--node=all|--worker=all|--command=journalctl -fu ssljax"],
    ),
    (["status", "a", *PLACE], ["describe|a", *PLACE]),
    (["delete", "a", *PLACE], ["delete|a", *PLACE, "--force|--quiet"]),
  ],
)
def test_small_commands(tmp_path, arguments, words):
  assert queued(tmp_path, *arguments)[0] == ["|".join([QUEUED, *words])]


def test_dry_run_calls_nothing(tmp_path):
  lines, done = queued(tmp_path, "resume", "a", *PLACE, SOURCE, *SLICE, "--dry-run", "--", *TRAIN)
  assert lines == []
  [state, delete, create, mark, *startup] = done.stdout.splitlines()
  assert (state.split()[4], delete.split()[4], create.split()[4]) == ("describe", "delete", "create")
  assert mark == "# STARTUP:" and startup[0] == "#!/usr/bin/env bash"


@pytest.mark.parametrize(
  ("arguments", "found"),
  [
    (["create"], "found 'create'"),
    (["make", "a", *PLACE], "found 'make'"),
    (["create", "a", SOURCE], "--zone"),
    (["create", "a", *PLACE], "--source"),
    (["create", "A", *PLACE], "'A'"),
    (["run", "a", *PLACE], "no command"),
    (["ssh", "a", *PLACE, "ls"], "found 'ls'"),
  ],
)
def test_mistakes_are_one_line(tmp_path, arguments, found):
  lines, done = queued(tmp_path, *arguments, code=2)
  assert lines == [] and len(done.stderr.splitlines()) == 1
  assert done.stderr.startswith("error: ") and found in done.stderr and "expected" in done.stderr


UV = """
name=$1
[[ $name == venv ]] && mkdir -p "${@: -1}/bin" && printf '#!/usr/bin/env bash\\nprintf "%%s|" "$PWD" "$@"' \
  >"${@: -1}/bin/ssljax" && chmod +x "${@: -1}/bin/ssljax"
true
"""


@pytest.fixture
def host(tmp_path):
  """Boots a host: runs its startup script with every command that reaches out replaced."""
  for name in ("gcloud", "git", "systemctl"):
    stub(tmp_path, name, '[[ $1 == storage ]] && tar -cz -C "$RECORD.d" .; true')
  for name in ("mountpoint", "mount.nfs", "mount"):
    stub(tmp_path, name, "[[ ${0##*/} != mountpoint ]]")
  stub(tmp_path, "mkdir", '[[ $2 == /shared ]] || /bin/mkdir "$@"')
  stub(tmp_path, "uv", UV)
  stub(tmp_path, "curl", 'echo \'cp "$(command -v uv)" "$UV_INSTALL_DIR/uv"\'')
  (tmp_path / "units").mkdir()
  (tmp_path / "record.d").mkdir()
  (tmp_path / "record.d" / "setup.py").write_text("")

  def boot(source, *arguments):
    (tmp_path / "record").write_text("")
    stub(tmp_path, "gcloud", '[[ $1 == storage ]] && tar -cz -C "$RECORD.d" .; true')
    flags = [f"--source={source}", "--mount=10.0.0.2:/runs", "--dry-run", "--", *arguments]
    dry = run(tmp_path, LAUNCH / "queued_resource.sh", "create", "a", "--zone=z", *flags)
    (tmp_path / "boot.sh").write_text(dry.stdout.partition("# STARTUP:\n")[2])
    settings = {"SSLJAX_HOME": str(tmp_path / "home"), "SSLJAX_UNITS": str(tmp_path / "units")}
    done = run(tmp_path, "bash", tmp_path / "boot.sh", **settings)
    assert done.returncode == 0, done.stderr
    return (tmp_path / "record").read_text().splitlines()

  return boot


def test_a_host_installs_once_and_starts_at_each_boot(tmp_path, host):
  lines = host("https://example.org/s.git#v1", *TRAIN)
  home = tmp_path / "home"
  assert f"git|clone|--quiet|--depth|1|--branch|v1|https://example.org/s.git|{home}/source" in lines
  assert f"uv|pip|install|--quiet|--python|{home}/venv/bin/python|-e|{home}/source[tpu,data,tfds,text]" in lines
  assert "mount|-t|nfs|10.0.0.2:/runs|/shared" in lines
  assert lines[-2:] == ["systemctl|daemon-reload", "systemctl|start|--no-block|ssljax"]
  assert run(tmp_path, home / "run").stdout == "|".join([f"{home}/source", *TRAIN, ""])
  unit = (tmp_path / "units" / "ssljax.service").read_text()
  assert f"ExecStart={home}/run\n" in unit
  for line in ("Restart=on-failure", "RestartPreventExitStatus=2", "KillMode=mixed", "TimeoutStopSec=120"):
    assert f"\n{line}\n" in unit
  assert host("https://example.org/s.git#v1", *TRAIN)[-2:] == lines[-2:]
  assert not any(line.startswith(("git", "uv")) for line in (tmp_path / "record").read_text().splitlines())


def test_a_later_command_outlives_a_reboot(tmp_path, host):
  host("https://example.org/s.git", *TRAIN)
  (tmp_path / "home" / "arguments").write_text("ARGUMENTS=(train --config=other)")
  host("https://example.org/s.git", *TRAIN)
  assert run(tmp_path, tmp_path / "home" / "run").stdout.endswith("train|--config=other|")


def test_a_host_without_a_command_installs_from_a_bucket_and_waits(tmp_path, host):
  lines = host("gs://b/source.tar.gz")
  assert "gcloud|storage|cat|gs://b/source.tar.gz" in lines and lines[-1] == "systemctl|daemon-reload"
  assert (tmp_path / "home" / "source" / "setup.py").exists()
