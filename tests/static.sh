#!/usr/bin/env bash
# Both static files, tried for real: the x86 one runs the whole demonstration in an empty root folder, the ARM one
# answers HTTP and MQTT under emulation.   tests/static.sh TARGET_DIR
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "$1")
bash tests/tools.sh static "$target/tools"
work=$(mktemp -d)
pid=""
finish() { [ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -rf "$work"; }
trap finish EXIT

must_be_static() {
  if file "$1" | grep -q 'dynamically linked'; then echo "$1 is not static: $(file "$1")" >&2; exit 1; fi
}

echo "== x86_64: the demonstration in an empty root"
make release TARGET=x86_64-unknown-linux-musl
x86="$target/x86_64-unknown-linux-musl/release/forebay"
must_be_static "$x86"
mkdir "$work/root"
cp "$x86" "$work/root/forebay"
in_root() { if [ "$(id -u)" = 0 ]; then chroot "$work/root" "$@"; else unshare --map-root-user chroot "$work/root" "$@"; fi; }
in_root /forebay --version
in_root /forebay demo --dir /demo --once

echo "== aarch64: HTTP and MQTT under emulation (without the ONNX engine, which is the other half of the build)"
make release TARGET=aarch64-unknown-linux-musl FEATURES=--no-default-features
arm="$target/aarch64-unknown-linux-musl/release/forebay"
must_be_static "$arm"
cat >"$work/forebay.toml" <<TOML
[gateway]
name = "arm-box"
[store]
state_dir = "$work/state"
[access]
allow_anonymous_loopback = true
[[mqtt.listener]]
address = "127.0.0.1:21883"
[http]
address = "127.0.0.1:28080"
[[stream]]
name = "machine"
topic = "plant/machine/temperature"
TOML
qemu-aarch64-static "$arm" run --config "$work/forebay.toml" 2>"$work/log" &
pid=$!
for _ in $(seq 300); do kill -0 "$pid" || break; curl -fsS -o /dev/null http://127.0.0.1:28080/readyz 2>/dev/null && break; sleep 0.1; done
curl -fsS http://127.0.0.1:28080/readyz || { cat "$work/log" >&2; exit 1; }
mosquitto_pub -h 127.0.0.1 -p 21883 -q 1 -t plant/machine/temperature -m '{"value": 21.5}'
mosquitto_pub -h 127.0.0.1 -p 21883 -V 5 -q 2 -t plant/machine/temperature -m '{"value": 22.5}'
committed=$(curl -fsS http://127.0.0.1:28080/api/v1/streams/machine | grep -oE '"committed": ?[0-9]+' | grep -oE '[0-9]+$')
[ "$committed" = 2 ] || { echo "expected 2 committed readings, found '$committed'" >&2; cat "$work/log" >&2; exit 1; }
echo "aarch64: ready, 2 readings published with QoS 1 and 2, both committed"
