# Where things are, and what every part of up and down uses. Sourced, never run.
# shellcheck shell=bash disable=SC2034 # those who source it use them

cache=${ZIMCACHE_CACHE:-$HOME/.cache/zimcache}
# Everything of one cluster but its cgroups.
run=${ZIMCACHE_E2E_RUN:-$cache/run}
# Clusters of other run folders have cgroups of their own.
group=zimcache-$(cksum <<<"$run" | cut -d' ' -f1)
# The namespace "cp" on the bridge: control plane, DNS, add-ons, and the way of nodes to each other.
cp_address=10.99.0.254

began_ms=$(date +%s%3N)
say() {
  local ms=$(($(date +%s%3N) - began_ms))
  printf '[%4d.%ds] %s\n' $((ms / 1000)) $((ms % 1000 / 100)) "$*" >&2
}

# The exit code that says: it cannot be had on this machine, which is nobody's mistake.
unavailable=69
die() { say "FAILED: $*"; exit 1; }
cannot() { say "CANNOT: $*"; exit "$unavailable"; }

# wait_until TENTHS COMMAND...: every tenth of a second, until it succeeds.
wait_until() {
  local left=$1
  shift
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || return 1
    sleep 0.1
  done
}

# When a process started: a process id that was used again is another process.
started_at() { awk '{print $22}' "/proc/$1/stat" 2>/dev/null; }

remember() { echo "$1 $(started_at "$1")" >"$2"; } # pid file

remembered_runs() { # file
  local pid start
  read -r pid start <"$1" 2>/dev/null && [ "$(started_at "$pid")" = "$start" ]
}

# Kills the process of a file, if it is still that process, and waits until it is gone.
stop_remembered() {
  local pid
  [ -e "$1" ] && remembered_runs "$1" || return 0
  read -r pid _ <"$1"
  kill -9 "$pid" 2>/dev/null || true
  wait_until 100 test ! -d "/proc/$pid"
}
