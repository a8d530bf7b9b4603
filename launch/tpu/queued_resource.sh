#!/usr/bin/env bash
# A run on a TPU slice of Google Cloud, by gcloud compute tpus queued-resources.
#
#   queued_resource.sh create NAME --zone=Z --source=S --accelerator-type=T --runtime-version=V [...] [-- train ...]
#   queued_resource.sh resume NAME the same    create again what was preempted (SUSPENDED) or failed
#   queued_resource.sh run    NAME --zone=Z -- train ...   start another command on all its hosts
#   queued_resource.sh ssh    NAME --zone=Z [-- COMMAND]   a shell on the first host, or a command on all
#   queued_resource.sh status NAME --zone=Z
#   queued_resource.sh delete NAME --zone=Z
#
#   --source=URL[#BRANCH] | gs://.../source.tar.gz   what the hosts install: a clone, or what git archive wrote
#   --extras=tpu,data        of the package (default: tpu,data,tfds,text)
#   --mount=SERVER:/SHARE    NFS (Filestore) that all hosts mount at /shared: the work directory lies on it
#   --node-count=N           several slices
#   --dry-run                print the commands and the startup script, do nothing
#
# Every other flag goes to gcloud as it is: --spot, --project=P, --service-account=A, --network=N, --reserved, ...
# A host that boots runs startup.sh with the command after --, and so resumes by itself.
set -euo pipefail

fail() {
  echo "error: $1" >&2
  exit 2
}
commands="create, resume, run, ssh, status or delete"
(($# >= 2)) || fail "found '$*', expected a command ($commands) and a name"
command=$1 name=$2
shift 2
[[ $name == [a-z]* ]] || fail "found name '$name', expected one that begins with a small letter"

source_='' mount='' extras=tpu,data,tfds,text nodes='' dry='' zone='' place=() flags=() arguments=()
while (($#)); do
  case $1 in
    --) shift; arguments=("$@"); break ;;
    --source=*) source_=${1#*=} ;;
    --mount=*) mount=${1#*=} ;;
    --extras=*) extras=${1#*=} ;;
    --node-count=*) nodes=${1#*=} ;;
    --dry-run) dry=1 ;;
    --zone=*) zone=${1#*=} place+=("$1") ;;
    --project=*) place+=("$1") ;;
    --*) flags+=("$1") ;;
    *) fail "found '$1', expected --flag=value (the command of the hosts comes after --)" ;;
  esac
  shift
done
[[ $zone ]] || fail "--zone: found none, expected one as in --zone=us-west4-a"

call() { # COMMAND...
  if [[ $dry ]]; then printf '%q ' "$@"; echo; else "$@"; fi
}
queued() { # VERB ARGUMENTS...
  local verb=$1
  shift
  call gcloud compute tpus queued-resources "$verb" "$name" "${place[@]}" "$@"
}
everywhere() { # COMMAND: on every host of every slice
  queued ssh --node=all --worker=all --command="$1"
}

startup() { # the script that hosts run when they boot
  local SOURCE=$source_ EXTRAS=$extras MOUNT=$mount ARGUMENTS=("${arguments[@]}")
  echo '#!/usr/bin/env bash'
  declare -p SOURCE EXTRAS MOUNT ARGUMENTS | sed 's/^declare -[-a] //'
  tail -n +2 "$(dirname "$0")/startup.sh"
}

create() {
  [[ $source_ ]] || fail "--source: found none, expected URL[#BRANCH] or gs://.../source.tar.gz"
  local file named=(--node-id="$name")
  [[ $nodes ]] && named=(--node-count="$nodes" --node-prefix="$name")
  file=$(mktemp)
  startup >"$file"
  if [[ $dry ]]; then
    queued create "${named[@]}" "${flags[@]}" --metadata-from-file=startup-script=STARTUP
    echo "# STARTUP:"
    cat "$file"
  else
    queued create "${named[@]}" "${flags[@]}" --metadata-from-file=startup-script="$file"
  fi
  rm "$file"
}

state() { queued describe --format='value(state.state)'; }

resume() { # a suspended request never becomes active again: it is deleted and made anew
  local found=SUSPENDED
  if [[ $dry ]]; then state; else found=$(state); fi
  case $found in
    SUSPENDED | FAILED) queued delete --force --quiet && create ;;
    *) echo "$name is $found: nothing to create again" ;;
  esac
}

run() {
  ((${#arguments[@]})) || fail "found no command, expected one as in: run $name --zone=$zone -- train --config=..."
  local ARGUMENTS=("${arguments[@]}") written
  written=$(declare -p ARGUMENTS)
  everywhere "printf '%s\n' $(printf %q "$written") | sudo tee /opt/ssljax/arguments && sudo systemctl restart ssljax"
}

case $command in
  create) create ;;
  resume) resume ;;
  run) run ;;
  ssh) if ((${#arguments[@]})); then everywhere "${arguments[*]}"; else queued ssh; fi ;;
  status) queued describe ;;
  delete) queued delete --force --quiet ;;
  *) fail "found '$command', expected $commands" ;;
esac
