# The namespaces that stand for machines: pid, mount and network, whose first process is pause. Killing that process
# kills the machine with all its processes and mounts, as a power cut does. Sourced by up.
# shellcheck shell=bash disable=SC2034,SC2154

init_of() { cut -d' ' -f1 "$run/$1/init.pid"; }
inside() { # name command...
  local name=$1
  shift
  nsenter -t "$(init_of "$name")" -m -n -p -- "$@"
}

# start_in NAME SERVICE COMMAND...: detached; what it says goes to SERVICE.log, its id inside the namespace to SERVICE.pid.
start_in() {
  local name=$1 service=$2
  shift 2
  # shellcheck disable=SC2016 # for the shell inside
  inside "$name" setsid -f sh -c 'echo $$ >"$0"; exec "$@"' "$run/$name/$service.pid" "$@" \
    </dev/null >>"$run/$name/$service.log" 2>&1
}

# /run, /var/lib and /var/log are the machine's own, so that container runtimes of two machines do not meet.
make_namespace() {
  local name=$1 folder=$run/$1 outer inner
  mkdir -p "$folder/varlib" "$folder/varlog"
  rm -f "$folder/ready"
  # shellcheck disable=SC2016 # for the shell inside
  setsid unshare -m -n -p --fork --kill-child --mount-proc --propagation private bash -c '
    set -e
    mount --make-rshared /
    mount -t tmpfs tmpfs /run
    mkdir -p /run/lock
    mount --bind "$1/varlib" /var/lib
    mount --bind "$1/varlog" /var/log
    ip link set lo up
    echo 1 >/proc/sys/net/ipv4/ip_forward
    touch "$1/ready"
    exec "$2"' - "$folder" "$pause" </dev/null >"$folder/init.log" 2>&1 &
  outer=$!
  wait_until 50 test -e "$folder/ready" || cannot "namespaces cannot be made here: $(cat "$folder/init.log")"
  inner=$(cat "/proc/$outer/task/$outer/children")
  remember "${inner%% *}" "$folder/init.pid"
  disown
}

make_control_namespace() {
  make_namespace cp
  inside cp sh -c "ip link add br0 type bridge && ip addr add $cp_address/24 dev br0 && ip link set br0 up"
}

# Node number i is 10.99.0.i on the bridge; its pods are 10.244.i.0/24; nothing is masqueraded.
make_node_namespace() {
  local number=$1 name=n$1 other
  make_namespace "$name"
  nsenter -t "$(init_of cp)" -n ip link add "$name" type veth peer name eth0 netns "$(init_of "$name")"
  inside cp sh -c "ip link set $name master br0 up; ip route replace 10.244.$number.0/24 via 10.99.0.$number"
  inside "$name" sh -c "ip addr add 10.99.0.$number/24 dev eth0; ip link set eth0 up; ip route add default via $cp_address"
  for other in $(seq "$nodes"); do
    [ "$number" = "$other" ] || inside "$name" ip route add "10.244.$other.0/24" via "10.99.0.$other"
  done
}
