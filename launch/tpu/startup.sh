#!/usr/bin/env bash
# What a TPU VM does each time it boots, as root: install ssljax once, then keep its command running.
# queued_resource.sh puts the settings in front: SOURCE, EXTRAS, MOUNT, ARGUMENTS.
#
# systemd is what keeps it running: after 75 (preempted) and after a crash it starts again and resumes, after 0 (done)
# and 2 (a mistake of the user's) it does not. TERM goes to the run alone, which saves and exits; its log is the journal.
set -euo pipefail

home=${SSLJAX_HOME:-/opt/ssljax}
units=${SSLJAX_UNITS:-/etc/systemd/system}
mkdir -p "$home"
export HOME="$home" # a boot has none

if [[ $MOUNT ]] && ! mountpoint -q /shared; then
  command -v mount.nfs >/dev/null || apt-get install -qq -y nfs-common
  mkdir -p /shared
  mount -t nfs "$MOUNT" /shared
fi

fetch() { # what SOURCE names, into $home/source
  rm -rf "$home/source"
  mkdir "$home/source"
  case $SOURCE in
    gs://*) gcloud storage cat "$SOURCE" | tar -xz -C "$home/source" ;;
    *#*) git clone --quiet --depth 1 --branch "${SOURCE##*#}" "${SOURCE%#*}" "$home/source" ;;
    *) git clone --quiet --depth 1 "$SOURCE" "$home/source" ;;
  esac
}

if [[ ! -e $home/installed ]]; then
  fetch
  # The images of TPU VMs have an older Python; uv brings its own.
  curl -LsSf https://astral.sh/uv/install.sh | env UV_INSTALL_DIR="$home" UV_NO_MODIFY_PATH=1 sh
  "$home/uv" venv --quiet --clear --python 3.11 "$home/venv"
  "$home/uv" pip install --quiet --python "$home/venv/bin/python" -e "$home/source[$EXTRAS]"
  touch "$home/installed"
fi

cat >"$home/run" <<RUN
#!/usr/bin/env bash
source "$home/arguments"
cd "$home/source" && exec "$home/venv/bin/ssljax" "\${ARGUMENTS[@]}"
RUN
chmod +x "$home/run"

cat >"$units/ssljax.service" <<UNIT
[Unit]
Description=ssljax
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=$home/run
Environment=HOME=$home
Restart=on-failure
RestartSec=10
RestartPreventExitStatus=2
KillMode=mixed
TimeoutStopSec=120
UNIT
systemctl daemon-reload

# A command that was given later (queued_resource.sh run) outlives a reboot.
if [[ ! -e $home/arguments && ${#ARGUMENTS[@]} -gt 0 ]]; then declare -p ARGUMENTS >"$home/arguments"; fi
if [[ -e $home/arguments ]]; then systemctl start --no-block ssljax; fi
