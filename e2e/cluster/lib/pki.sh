# Certificates, tokens and kubeconfigs. Sourced by up.
# shellcheck shell=bash disable=SC2034,SC2154

pki=$run/pki

authority() { # name
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$1" \
    -keyout "$pki/$1.key" -out "$pki/$1.crt"
}

certificate() { # name common-name authority extension
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" -keyout "$pki/$1.key" -out "$pki/$1.csr"
  openssl x509 -req -in "$pki/$1.csr" -CA "$pki/$3.crt" -CAkey "$pki/$3.key" -CAcreateserial -days 3650 \
    -out "$pki/$1.crt" -extfile <(echo "$4")
}

write_certificates() {
  local names=DNS:kubernetes name
  for name in default default.svc default.svc.cluster.local; do names+=,DNS:kubernetes.$name; done
  names+=,DNS:localhost,IP:127.0.0.1,IP:$cp_address,IP:10.96.0.1
  authority ca
  authority front-ca
  openssl genrsa -out "$pki/sa.key" 2048
  openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub"
  certificate api kube-apiserver ca "subjectAltName=$names"
  certificate front front-proxy front-ca "extendedKeyUsage=clientAuth"
}

write_kubeconfig() { # name url token
  cat >"$run/$1.kubeconfig" <<Y
apiVersion: v1
kind: Config
current-context: zimcache
contexts: [{name: zimcache, context: {cluster: zimcache, user: $1}}]
users: [{name: $1, user: {token: "$3"}}]
clusters: [{name: zimcache, cluster: {server: "$2", certificate-authority-data: $(base64 -w0 "$pki/ca.crt")}}]
Y
  chmod 600 "$run/$1.kubeconfig"
}

# identity NAME USER GROUP: a token, and a kubeconfig that works inside the namespaces.
identity() {
  local token
  token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  echo "$token,$2,$2,\"$3\"" >>"$pki/tokens.csv"
  write_kubeconfig "$1" "https://$cp_address:6443" "$token"
}

make_pki() {
  mkdir -p "$pki"
  (unset LD_LIBRARY_PATH && write_certificates) >"$run/openssl.log" 2>&1 || die "openssl: $(tail -3 "$run/openssl.log")"
  identity cp admin system:masters
  identity controller-manager system:kube-controller-manager ""
  identity scheduler system:kube-scheduler ""
  identity kube-proxy system:kube-proxy ""
  local number
  for number in $(seq "$nodes"); do identity "n$number" "system:node:n$number" system:nodes; done
}

admin_token() { head -1 "$pki/tokens.csv" | cut -d, -f1; }
