# containerd, kubelet and kube-proxy of one node, in its namespace. Sourced by up.
# shellcheck shell=bash disable=SC2034,SC2154

make_cgroups() { # name
  local hierarchy file folder=$group-$1
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    echo "+cpu +cpuset +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control || true
    mkdir -p "/sys/fs/cgroup/$folder"
    return
  fi
  awk '$3 == "cgroup" { print $2 }' /proc/mounts | while read -r hierarchy; do
    mkdir -p "$hierarchy/$folder"
    for file in cpuset.cpus cpuset.mems; do
      [ ! -e "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$hierarchy/$folder/$file"
    done
  done
}

# restrict_oom_score_adj: root without CAP_SYS_RESOURCE could start no sandbox otherwise.
write_containerd_config() { # folder number
  mkdir -p "$1/cni"
  cat >"$1/containerd.toml" <<Y
version = 2
root = "$1/containerd/root"
state = "$1/containerd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "$1/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$parts/usr/lib/cni"
    conf_dir = "$1/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      BinaryName = "$parts/usr/sbin/runc"
Y
  cat >"$1/cni/10-bridge.conflist" <<Y
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {"type": "host-local",
  "ranges": [[{"subnet": "10.244.$2.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
 {"type": "portmap", "capabilities": {"portMappings": true}}]}
Y
}

# failCgroupV1: kubelets refuse the older control groups unless told otherwise.
write_kubelet_config() { # folder name
  mkdir -p "$1/kubelet"
  cat >"$1/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /$group-$2
containerRuntimeEndpoint: unix://$1/containerd.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: $run/resolv.conf
failSwapOn: false
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: "100Mi", nodefs.available: "1%", imagefs.available: "1%", nodefs.inodesFree: "1%"}
nodeStatusUpdateFrequency: 4s
staticPodPath: ""
volumePluginDir: $1/plugins
shutdownGracePeriod: 0s
Y
}

# The limits of connection tracking cannot be written in a network namespace.
write_proxy_config() { # folder name
  cat >"$1/proxy.yaml" <<Y
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: $proxy_mode
hostnameOverride: $2
clusterCIDR: 10.244.0.0/16
clientConnection: {kubeconfig: $run/kube-proxy.kubeconfig}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
Y
}

# containerd comes up while the API server does.
prepare_node() { # number
  local name=n$1 folder=$run/n$1
  echo "nameserver $cp_address" >"$run/resolv.conf"
  make_cgroups "$name"
  write_containerd_config "$folder" "$1"
  write_kubelet_config "$folder" "$name"
  write_proxy_config "$folder" "$name"
  start_in "$name" containerd containerd -c "$folder/containerd.toml"
}

import_image() { # name file
  ctr -a "$run/$1/containerd.sock" -n k8s.io images import "$2" >/dev/null 2>"$run/$1/import.log" ||
    die "$2 on $1: $(tail -3 "$run/$1/import.log" "$run/$1/containerd.log")"
}

start_node() { # number
  local name=n$1 folder=$run/n$1 image
  wait_until 200 ctr -a "$folder/containerd.sock" version || die "containerd of $name: $(tail -3 "$folder/containerd.log")"
  for image in "$cache"/img/*.tar; do
    [ ! -f "$image" ] || import_image "$name" "$image"
  done
  start_in "$name" kubelet "$kube" kubelet --config="$folder/kubelet.yaml" --kubeconfig="$run/$name.kubeconfig" \
    --hostname-override="$name" --node-ip="10.99.0.$1" --root-dir="$folder/kubelet" --cert-dir="$folder/pki" \
    --node-labels="topology.kubernetes.io/zone=z$1"
  start_in "$name" kube-proxy "$kube" kube-proxy --config="$folder/proxy.yaml"
}

# As after a power cut: the disk stays, everything volatile goes.
restart_node() { # name
  ! remembered_runs "$run/$1/init.pid" || die "$1 still runs: kill -9 $(init_of "$1") first"
  rm -rf "$run/$1/containerd/state" "$run/$1/varlib/cni" "$run/$1/containerd.sock"
  make_node_namespace "${1#n}"
  prepare_node "${1#n}"
  start_node "${1#n}"
}

ready_nodes() { kc get nodes --no-headers --request-timeout=5s 2>/dev/null | awk '$2 == "Ready" && $1 ~ /^n[0-9]+$/' | wc -l; }
is_up() { kc get --raw /readyz --request-timeout=5s >/dev/null 2>&1 && all_nodes_ready; }
all_nodes_ready() { [ "$(ready_nodes)" = "$nodes" ]; }
