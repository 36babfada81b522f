# Volumes, metrics and simulated nodes, as processes in cp. Sourced by up.
# shellcheck shell=bash disable=SC2034,SC2154

# Volumes are folders of a node; helper pods make and remove them.
start_local_path() {
  local folder=$run/local-path
  mkdir -p "$folder"
  echo '{"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": ["/var/lib/local-path"]}]}' >"$folder/config.json"
  cat >"$folder/helperPod.yaml" <<Y
apiVersion: v1
kind: Pod
metadata: {name: helper-pod}
spec:
  priorityClassName: system-node-critical
  tolerations: [{key: node.kubernetes.io/disk-pressure, operator: Exists, effect: NoSchedule}]
  containers: [{name: helper-pod, image: "localhost/busybox:1", imagePullPolicy: Never, securityContext: {runAsUser: 0}}]
Y
  # shellcheck disable=SC2016 # for the shell of the helper pod
  local setup=$'#!/bin/sh\nset -eu\nmkdir -m 0777 -p "$VOL_DIR"\n' teardown=$'#!/bin/sh\nset -eu\nrm -rf "$VOL_DIR"\n'
  {
    cat <<Y
apiVersion: v1
kind: Namespace
metadata: {name: local-path-storage}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: local-path-provisioner, namespace: local-path-storage}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local-path, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: rancher.io/local-path
volumeBindingMode: WaitForFirstConsumer
reclaimPolicy: Delete
---
Y
    kc -n local-path-storage create configmap local-path-config --dry-run=client -o yaml \
      --from-file="$folder/config.json" --from-file="$folder/helperPod.yaml" \
      --from-literal=setup="$setup" --from-literal=teardown="$teardown"
  } | kc apply -f - >&2
  start_in cp local-path-provisioner "$(tool local-path-provisioner)" start --kubeconfig "$run/cp.kubeconfig" \
    --config "$folder/config.json" --namespace local-path-storage --configmap-name local-path-config \
    --helper-image localhost/busybox:1 --helper-pod-file "$folder/helperPod.yaml" \
    --service-account-name local-path-provisioner
}

start_metrics_server() {
  local config=$run/cp.kubeconfig
  start_in cp metrics-server "$(tool metrics-server)" --kubeconfig="$config" --authentication-kubeconfig="$config" \
    --authorization-kubeconfig="$config" --secure-port=4443 --cert-dir="$run/cp/metrics" --kubelet-insecure-tls \
    --kubelet-preferred-address-types=InternalIP --metric-resolution=10s --kubelet-request-timeout=5s
  {
    service kube-system metrics-server "" '[{name: https, port: 4443, protocol: TCP}]'
    cat <<Y
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec: {service: {name: metrics-server, namespace: kube-system, port: 4443}, group: metrics.k8s.io, version: v1beta1,
  insecureSkipTLSVerify: true, groupPriorityMinimum: 100, versionPriority: 100}
Y
  } | kc apply -f - >&2
}

# Nodes and pods that only seem to run, for those labelled type=kwok.
start_kwok() {
  start_in cp kwok "$(tool kwok)" --kubeconfig="$run/cp.kubeconfig" --config="$kwok_stages" --manage-all-nodes=false \
    --manage-nodes-with-label-selector=type=kwok --node-ip="$cp_address" --node-lease-duration-seconds=40
}
