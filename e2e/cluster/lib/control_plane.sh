# etcd, API server, controller manager, scheduler and DNS, as processes in the namespace cp. Sourced by up.
# shellcheck shell=bash disable=SC2034,SC2154

kubeconfig=$run/admin.kubeconfig # from the host
kc() { "$kube" kubectl --kubeconfig "$kubeconfig" "$@"; }

start_api_server() {
  start_in cp etcd "$etcd" --data-dir "$run/cp/etcd" --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync --log-level warn
  start_in cp apiserver "$kube" apiserver --etcd-servers=http://127.0.0.1:2379 \
    --bind-address=0.0.0.0 --secure-port=6443 --advertise-address="$cp_address" --cert-dir="$run/cp" \
    --tls-cert-file="$pki/api.crt" --tls-private-key-file="$pki/api.key" --client-ca-file="$pki/ca.crt" \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$pki/sa.pub" \
    --service-account-signing-key-file="$pki/sa.key" --service-cluster-ip-range=10.96.0.0/16 \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --token-auth-file="$pki/tokens.csv" \
    --allow-privileged=true --kubelet-preferred-address-types=InternalIP --enable-aggregator-routing=true \
    --requestheader-client-ca-file="$pki/front-ca.crt" --requestheader-allowed-names=front-proxy \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
    --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$pki/front.crt" --proxy-client-key-file="$pki/front.key"
}

# The host is not on the bridge: a process on its loopback carries connections to the API server.
start_forwarder() {
  # It says its own process id: that of a function in the background is the shell's around it.
  # shellcheck disable=SC2016 # the inner shell expands it
  on_host setsid -f sh -c 'echo $$ >"$0" && exec python3 "$@"' "$run/forwarder.id" \
    "$here/forward.py" "$(init_of cp)" "$run/port" "$cp_address" 6443 </dev/null >"$run/forwarder.log" 2>&1
  wait_until 50 test -s "$run/port" || die "forwarder: $(cat "$run/forwarder.log")"
  remember "$(cat "$run/forwarder.id")" "$run/forwarder.pid"
  write_kubeconfig admin "https://127.0.0.1:$(cat "$run/port")" "$(admin_token)"
}

wait_for_api_server() {
  wait_until 600 kc get --raw /readyz || die "API server: $(tail -5 "$run/cp/apiserver.log")"
  say "API server is ready"
}

# Times that shorten the tests: a silent node is lost after 20 s, autoscaling looks every 5 s.
start_controllers() {
  local manager=$run/controller-manager.kubeconfig scheduler=$run/scheduler.kubeconfig
  start_in cp controller-manager "$kube" controller-manager --kubeconfig="$manager" \
    --authentication-kubeconfig="$manager" --authorization-kubeconfig="$manager" --root-ca-file="$pki/ca.crt" \
    --service-account-private-key-file="$pki/sa.key" --use-service-account-credentials --leader-elect=false \
    --cluster-cidr=10.244.0.0/16 --allocate-node-cidrs=false --service-cluster-ip-range=10.96.0.0/16 \
    --cert-dir="$run/cp" --flex-volume-plugin-dir="$run/cp/plugins" --cluster-signing-cert-file="$pki/ca.crt" \
    --cluster-signing-key-file="$pki/ca.key" --node-monitor-grace-period=20s \
    --horizontal-pod-autoscaler-sync-period=5s --horizontal-pod-autoscaler-cpu-initialization-period=10s \
    --horizontal-pod-autoscaler-downscale-stabilization=10s
  start_in cp scheduler "$kube" scheduler --kubeconfig="$scheduler" --leader-elect=false --cert-dir="$run/cp" \
    --authentication-kubeconfig="$scheduler" --authorization-kubeconfig="$scheduler"
}

# service NAMESPACE NAME CLUSTER_IP PORTS: a Service without selector that leads to cp; CLUSTER_IP may be empty.
service() {
  cat <<Y
---
apiVersion: v1
kind: Service
metadata: {name: $2, namespace: $1}
spec: {${3:+clusterIP: $3, }ports: $4}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: $2-cp, namespace: $1, labels: {kubernetes.io/service-name: $2}}
addressType: IPv4
endpoints: [{addresses: [$cp_address], conditions: {ready: true}}]
ports: $4
Y
}

start_dns() {
  cat >"$run/cp/Corefile" <<Y
.:53 {
  bind $cp_address
  errors
  health 127.0.0.1:8080
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $run/cp.kubeconfig
    ttl 5
  }
  cache 5
}
Y
  start_in cp coredns "$(tool coredns)" -conf "$run/cp/Corefile"
  service kube-system kube-dns 10.96.0.10 '[{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]' |
    kc apply -f - >&2
}

wait_for_dns() {
  wait_until 300 inside cp "$parts/bin/busybox" wget -q -O /dev/null http://127.0.0.1:8181/ready ||
    die "CoreDNS: $(tail -3 "$run/cp/coredns.log")"
}
