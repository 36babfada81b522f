#!/bin/sh
# Installs the cache as a service on a plain Debian, such as a fresh LXC container. As root:
#   deploy/install.sh [PATH OF zim]          (default: target/release/zim)
# Repeating it updates the program and the unit; settings, tokens and the store stay as they are.
# On Proxmox, from the host, one command makes and starts the container this runs in:
#   pct create 200 local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst --hostname zimcache --unprivileged 1 --features nesting=1 \
#     --cores 2 --memory 2048 --rootfs local-lvm:120 --net0 name=eth0,bridge=vmbr0,ip=dhcp --start 1
set -eu

here=$(cd "$(dirname "$0")" && pwd)
program=${1:-$here/../target/release/zim}
# A folder to install under instead of the machine itself; then no user is made and no service started.
root=${DESTDIR:-}

fail() { echo "install.sh: $*" >&2; exit 1; }

[ -x "$program" ] || fail "there is no program at $program; build it, or name it"
[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "only root can install a service"
"$program" --version >/dev/null || fail "$program does not run on this machine"

install -D -m 0755 "$program" "$root/usr/local/bin/zim"
install -D -m 0644 "$here/zimcache.service" "$root/etc/systemd/system/zimcache.service"
install -d -m 0750 "$root/etc/zimcache"
[ -e "$root/etc/zimcache/zim.toml" ] || install -m 0640 "$here/zim.toml" "$root/etc/zimcache/zim.toml"
"$root/usr/local/bin/zim" cache serve --config "$root/etc/zimcache/zim.toml" --check >/dev/null \
  || fail "the settings in $root/etc/zimcache/zim.toml are not accepted"

[ -z "$root" ] || { echo "installed under $root"; exit 0; }

id -u zimcache >/dev/null 2>&1 \
  || useradd --system --user-group --home-dir /var/lib/zimcache --no-create-home --shell /usr/sbin/nologin zimcache
chown -R root:zimcache /etc/zimcache
tokens=/etc/zimcache/tokens.toml
if [ ! -e "$tokens" ]; then
  echo "the first token, for you; it is shown once:"
  zim token create --namespace '*' --scope admin --file "$tokens"
  chown root:zimcache "$tokens"
  chmod 0640 "$tokens"
fi
systemctl daemon-reload
systemctl enable zimcache
systemctl restart zimcache
tries=0
until zim health --url http://127.0.0.1:8080 >/dev/null 2>&1; do
  tries=$((tries + 1))
  [ "$tries" -lt 30 ] || { journalctl -u zimcache -n 20 --no-pager >&2; fail "the service does not answer"; }
  sleep 1
done
echo "ZimCache serves on port 8080; settings: /etc/zimcache/zim.toml, log: journalctl -u zimcache"
