# What is built or downloaded once and kept in the cache: Debian's container runtime, Kubernetes and tools from Go
# modules, two small images. Sourced by up.
# shellcheck shell=bash disable=SC2034,SC2154

parts=$cache/root # where Debian's packages are unpacked; none of them is installed
debian_packages="containerd runc containernetworking-plugins iptables nftables busybox-static libip4tc2 libip6tc2
  libxtables12 libnftnl11 libnfnetlink0 libmnl0 libnftables1 libjansson4 libseccomp2"

# The version that a go.mod requires of a module.
version_of() { awk -v module="$2" '$1 == module { print $2 } $1 == "require" && $2 == module { print $3 }' "$here/$1/go.mod"; }

kubernetes_version=$(version_of kubebin k8s.io/kubernetes)
etcd_version=$(version_of kubeetcd go.etcd.io/etcd/server/v3)
# Tools share one module; another version of it makes other files.
tools_stamp=-$(cat "$here"/kubetools/go.mod "$here"/kubetools/coredns/main.go | sha256sum | cut -c1-8)

kube=$cache/bin/kube-$kubernetes_version
etcd=$cache/bin/etcd-$etcd_version
pause=$cache/bin/pause
tool() { echo "$cache/bin/$1$tools_stamp"; }

use_debian_parts() {
  export PATH=$parts/usr/bin:$parts/usr/sbin:$parts/sbin:$parts/bin:$parts/usr/lib/cni:$PATH
  local libraries
  libraries=$(echo "$parts"/usr/lib/*-linux-gnu)
  export LD_LIBRARY_PATH=$libraries:${libraries/usr\//} XTABLES_LIBDIR=$libraries/xtables
}

# Runs a program of the host, which must not find Debian's libraries of the cluster.
on_host() { env -u LD_LIBRARY_PATH -u XTABLES_LIBDIR "$@"; }

fill_debian_parts() {
  [ ! -e "$parts/.ok2" ] || return 0
  say "downloading Debian packages"
  local downloads=$cache/debs name
  mkdir -p "$downloads" "$parts"
  command -v apt-get >/dev/null || cannot "there is no apt-get to download containerd with"
  # shellcheck disable=SC2086 # words
  (cd "$downloads" && { apt-get update -qq || true; } >&2 &&
    apt-get -o APT::Sandbox::User=root download -qq $debian_packages >&2) ||
    cannot "Debian's packages cannot be downloaded"
  for name in "$downloads"/*.deb; do dpkg -x "$name" "$parts"; done
  # update-alternatives did not run.
  for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    ln -sf xtables-nft-multi "$parts/usr/sbin/$name"
  done
  rm -rf "$downloads"
  touch "$parts/.ok2"
}

find_go() {
  for folder in "" /usr/local/go/bin "$cache/tools/bin"; do
    PATH=${folder:+$folder:}$PATH command -v go >/dev/null || continue
    PATH=${folder:+$folder:}$PATH
    return
  done
  cannot "there is no Go; .ci/needs e2e installs it"
}

# go_build FILE MODULE PACKAGE LDFLAGS [OPTION...]: a static program, unless it is there.
go_build() {
  local file=$1 module=$2 package=$3 flags=$4
  shift 4
  [ ! -x "$file" ] || return 0
  find_go
  say "building ${file##*/}"
  (cd "$here/$module" && on_host env GOTELEMETRY=off go mod download >&2) ||
    cannot "Go modules of $module cannot be downloaded"
  (cd "$here/$module" &&
    on_host env CGO_ENABLED=0 GOTELEMETRY=off GOFLAGS=-buildvcs=false nice -n 5 \
      go build -trimpath -ldflags "-s -w $flags" -o "$file.partial" "$@" "$package" >&2) ||
    die "$package cannot be built"
  mv "$file.partial" "$file"
}

fill_kubernetes() {
  local version=k8s.io/component-base/version minor=${kubernetes_version#v1.}
  go_build "$kube" kubebin . "-X $version.gitVersion=$kubernetes_version -X $version.gitMajor=1
    -X $version.gitMinor=${minor%%.*}" -tags providerless
  # Debian's etcd 3.4 lacks what informers of newer clients need.
  go_build "$etcd" kubeetcd go.etcd.io/etcd/server/v3 ""
}

# build_tool NAME PACKAGE [LDFLAGS]: and a link without the stamp, for people.
build_tool() {
  go_build "$(tool "$1")" kubetools "$2" "${3:-}"
  ln -sfn "$1$tools_stamp" "$cache/bin/$1"
}

build_helm() {
  local major version
  for major in 3 4; do
    version=$(version_of kubetools helm.sh/helm/v$major)
    build_tool helm$major helm.sh/helm/v$major/cmd/helm "-X helm.sh/helm/v$major/internal/version.version=$version"
  done
  build_tool kubeconform github.com/yannh/kubeconform/cmd/kubeconform
  build_tool helm-unittest github.com/helm-unittest/helm-unittest/cmd/helm-unittest
}

kwok_stages=$cache/kwok-stages$tools_stamp.yaml
build_kwok() {
  build_tool kwok sigs.k8s.io/kwok/cmd/kwok
  [ ! -s "$kwok_stages" ] || return 0
  local folder file
  find_go
  folder=$(cd "$here/kubetools" && on_host go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
  for file in "$folder"/node/fast/node-init*.yaml "$folder"/node/heartbeat-with-lease/node-*.yaml "$folder"/pod/fast/pod-*.yaml; do
    echo ---
    cat "$file"
  done >"$kwok_stages"
}

fill_tools() {
  build_tool coredns ./coredns
  build_tool local-path-provisioner github.com/rancher/local-path-provisioner
  build_helm
  ! wants metrics || build_tool metrics-server sigs.k8s.io/metrics-server/cmd/metrics-server
  ! wants kwok || build_kwok
}

# pack FILE NAME FOLDER PROGRAM: a folder as a docker-archive of one layer, the same bytes for the same files.
pack() {
  local work layer config
  work=$(mktemp -d)
  tar_same() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner "$@"; }
  tar_same -C "$3" -cf "$work/layer.tar" .
  layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
  mkdir "$work/$layer"
  mv "$work/layer.tar" "$work/$layer/"
  printf '{"architecture":"amd64","os":"linux","config":{"Entrypoint":["%s"],"User":"65532:65532","WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$4" "$layer" >"$work/config"
  config=$(sha256sum "$work/config" | cut -d' ' -f1).json
  mv "$work/config" "$work/$config"
  printf '[{"Config":"%s","RepoTags":["%s"],"Layers":["%s/layer.tar"]}]' "$config" "$2" "$layer" >"$work/manifest.json"
  tar_same -C "$work" -cf "$1" "$config" "$layer/layer.tar" manifest.json
  rm -rf "$work"
}

# The sandbox of every pod, and a busybox for helper pods.
fill_images() {
  [ -x "$pause" ] || on_host gcc -Os -static -o "$pause" "$here/pause.c" || cannot "there is no C compiler"
  [ ! -s "$cache/img/busybox.tar" ] || return 0
  local work name
  work=$(mktemp -d)
  mkdir -p "$work/pause" "$work/busybox"/{bin,tmp,etc}
  cp "$pause" "$work/pause/pause"
  cp "$parts/bin/busybox" "$work/busybox/bin/"
  chmod 1777 "$work/busybox/tmp"
  for name in $("$parts/bin/busybox" --list); do
    [ "$name" = busybox ] || ln -s busybox "$work/busybox/bin/$name"
  done
  printf 'root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/:/bin/sh\n' >"$work/busybox/etc/passwd"
  pack "$cache/img/pause.tar" localhost/pause:1 "$work/pause" /pause
  pack "$cache/img/busybox.tar" localhost/busybox:1 "$work/busybox" /bin/sh
  rm -rf "$work"
}

# One process at a time fills the cache.
fill_cache() {
  mkdir -p "$cache/bin" "$cache/img"
  exec 8>"$cache/lock"
  flock 8
  fill_debian_parts
  use_debian_parts
  fill_kubernetes
  fill_tools
  fill_images
  exec 8>&-
}
