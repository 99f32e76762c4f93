#!/usr/bin/env bash
# The public MQTT interoperability clients (eclipse/paho.mqtt.testing, a checkout of your own) against the gateway.
#   tests/interop.sh CHECKOUT TARGET_DIR
# Some of their tests expect a broker with rules: a subscription that is refused, a server keep-alive of 60 s.
set -euo pipefail
checkout=$1 target=$(realpath -m "$2")
[ -f "$checkout/interoperability/client_test5.py" ] || { echo "$checkout is no checkout of paho.mqtt.testing" >&2; exit 2; }
work=$(mktemp -d)
pid=""
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; rm -rf "$work"' EXIT

serve() { # PORT SUBSCRIBE
  cat >"$work/$1.toml" <<TOML
[gateway]
name = "interop"
[store]
state_dir = "$work/$1"
[access]
allow_anonymous_loopback = true
anonymous_subscribe = $2
[mqtt]
keep_alive_max_s = 60
[[mqtt.listener]]
address = "127.0.0.1:$1"
[http]
address = "127.0.0.1:$(($1 + 1))"
TOML
  "$target/release/forebay" run --config "$work/$1.toml" 2>"$work/$1.log" &
  pid=$!
  for _ in $(seq 100); do curl -fsS -o /dev/null "http://127.0.0.1:$(($1 + 1))/readyz" 2>/dev/null && return; sleep 0.05; done
  cat "$work/$1.log" >&2
  exit 1
}

cd "$checkout/interoperability"
failed=0
echo "== MQTT 3.1.1"
serve 28830 '["#", "/#", "+/+", "/+"]'
python3 client_test.py --hostname=127.0.0.1 --port=28830 2>&1 | tail -60 || failed=1
kill "$pid"; wait "$pid" || true
echo "== MQTT 5.0"
serve 28840 '["client_test5/#", "$share/+/client_test5/#"]'
python3 client_test5.py --hostname=127.0.0.1 --port=28840 2>&1 | tail -40 || failed=1
exit $failed
