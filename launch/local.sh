#!/usr/bin/env bash
# Several processes of ssljax on this machine:  launch/local.sh P train --config=... --workdir=DIR
#
# Each line of output begins with the number of its process. TERM and INT go to every process, so all save the same
# step. When one fails, the others are stopped. Nothing outlives this script, not even when it is killed.
# Exit code: that of the first process that failed; else 75 when one was preempted; else 0.
#
#   SSLJAX="python -m ssljax"   the program (default: ssljax)
#   GRACE=120                   seconds between TERM and KILL; at most 10 once a process has failed
#
# Needs bash 4.4 and python3.
set -um # each process is the head of its own process group

grace=${GRACE:-120}
if [[ ! ${1-} =~ ^[1-9][0-9]*$ || $# -lt 2 || ! $grace =~ ^[0-9]+$ ]]; then
  echo "error: found GRACE=$grace $0 $*, expected a number of processes and a command: $0 2 train --config=..." >&2
  exit 2
fi
processes=$1
shift
read -r -a program <<<"${SSLJAX:-ssljax}"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])') || exit 1

folder=$(mktemp -d) || exit 1
mkfifo "$folder/groups" "$folder/quiet" || exit 1

# Kills every group it was told of, workers that a process left behind included, once its pipe is closed: by the last
# lines of this script or by its death.
guard() {
  trap '' HUP INT TERM
  local group groups=()
  while read -r group; do groups+=("$group"); done
  for group in "${groups[@]}"; do kill -KILL -- "-$group"; done
  rm -rf "$folder"
}
guard <"$folder/groups" >/dev/null 2>&1 &
guarding=$!
exec 9>"$folder/groups" 8<>"$folder/quiet"

nap() { # a sleep that starts no process: in a terminal that would take Ctrl-C away from this script
  read -r -t 0.1 -u 8
}

prefixes=() pipe=
prefixed() { # NUMBER: opens a pipe whose lines come out behind the number
  exec {pipe}> >(trap '' HUP INT TERM; exec 8>&- 9>&-; exec sed -u "s/^/[$1] /")
  prefixes+=($!)
}

members=() started=()
start() { # NUMBER COMMAND...
  local number=$1 out err
  shift
  prefixed "$number" && out=$pipe
  prefixed "$number" >&2 && err=$pipe
  "$@" </dev/null >&"$out" 2>&"$err" 8>&- 9>&- {out}>&- {err}>&- &
  echo $! >&9
  started+=($!)
  members[number]=$!
  exec {out}>&- {err}>&-
}

tell() { # SIGNAL: to the processes alone; a loader's workers must not die before their reader
  local number
  for number in "${!members[@]}"; do kill "-$1" "${members[number]}" 2>/dev/null; done
}

slay() { # GROUP...
  local group
  for group in "$@"; do kill -KILL -- "-$group" 2>/dev/null; done
}

deadline=0
limit() { # SECONDS: until KILL, unless that is nearer already
  ((deadline && deadline <= SECONDS + $1)) || deadline=$((SECONDS + $1))
}

failure=0 preempted=0
note() { # NUMBER CODE: what follows from the end of a process
  unset "members[$1]"
  (($2)) || return
  echo "[$1] ended with exit code $2" >&2
  if (($2 == 75)); then
    preempted=1
    limit "$grace" # the others know, and are saving
  elif ((!failure)); then
    failure=$2
    limit "$((grace < 10 ? grace : 10))"
    tell TERM
  fi
}

notice() {
  local number pid running
  running=$(jobs -rp; jobs -sp) # a stopped process has not ended
  running=" ${running//$'\n'/ } "
  for number in "${!members[@]}"; do
    pid=${members[number]}
    [[ $running == *" $pid "* ]] && continue
    wait "$pid" 2>/dev/null
    note "$number" $?
  done
}

draining() { # whether lines are still on their way
  local pid
  for pid in "${prefixes[@]}"; do kill -0 "$pid" 2>/dev/null && return; done
  return 1
}

trap 'limit "$grace"; tell TERM' TERM HUP
trap 'limit "$grace"; tell INT' INT

for ((number = 0; number < processes && !deadline; number++)); do
  start "$number" "${program[@]}" "$@" --coordinator="127.0.0.1:$port" --num-processes="$processes" --process-id="$number"
done
while ((${#members[@]})); do
  notice
  ((deadline && SECONDS >= deadline)) && slay "${members[@]}"
  nap
done

slay "${started[@]}"
for ((naps = 0; naps < 50; naps++)); do
  draining || break
  nap
done
exec 9>&-
wait "$guarding" 2>/dev/null
exit "$((failure ? failure : preempted ? 75 : 0))"
