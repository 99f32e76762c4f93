#!/usr/bin/env bash
# NVIDIA's own example programs for Triton (triton-inference-server/client) against the gateway, unchanged.
#   tests/triton-examples.sh TARGET_DIR [CHECKOUT]
# They are in no package: without a checkout they are fetched from GitHub, and left out where that is not to be reached.
# The client that they use came from PyPI (`make tools-test`). Not run are those that need a graphics card
# (`*cudashm*`), a model with a state of its own for each conversation (`*sequence*`, `custom_repeat`), a network
# that is downloaded (`*image*`, `grpc_client`, `ensemble`) and Triton's leak test.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "$1") checkout=${2:-}
commit=58a44caa0dce77303115302e6dbdf64626b2b093
examples=src/python/examples
python=$target/tools/python/bin/python
if [ -z "$checkout" ]; then
  checkout=$target/tools/triton-client
  if [ ! -d "$checkout/$examples" ]; then
    echo "== fetching NVIDIA's example programs from GitHub"
    rm -rf "$checkout" && git init -q "$checkout"
    if ! timeout 60 git -C "$checkout" fetch -q --depth 1 https://github.com/triton-inference-server/client "$commit" ||
      ! git -C "$checkout" checkout -q FETCH_HEAD -- $examples; then
      rm -rf "$checkout"
      echo "== GitHub is not to be reached: NVIDIA's example programs are left out (TRITON_CLIENT=checkout adds them)"
      exit 0
    fi
  fi
fi
[ -d "$checkout/$examples" ] || { echo "$checkout is no checkout of triton-inference-server/client" >&2; exit 2; }
work=$(mktemp -d)
pid=""
finish() { [ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -rf "$work"; }
trap finish EXIT

# MODEL... Their programs are made for Triton's name, count the models that are there, and share memory under any name.
serve() {
  [ -z "$pid" ] || { kill "$pid"; wait "$pid" || true; }
  rm -rf "$work/models" && mkdir "$work/models"
  for model in "$@"; do cp -r tests/fixtures/*/"$model" "$work/models"; done
  cat >"$work/forebay.toml" <<TOML
[gateway]
name = "examples"
[store]
state_dir = "$work/state"
[access]
allow_anonymous_loopback = true
anonymous_manage_models = true
[[mqtt.listener]]
address = "127.0.0.1:28850"
[http]
address = "127.0.0.1:28851"
server_name = "triton"
[grpc]
address = "127.0.0.1:28852"
server_name = "triton"
[shared_memory]
prefix = ""
[catalog]
folder = "$work/models"
TOML
  "$target/debug/forebay" run --config "$work/forebay.toml" 2>"$work/log" &
  pid=$!
  for _ in $(seq 200); do curl -fsS -o /dev/null http://127.0.0.1:28851/v2/health/ready 2>/dev/null && return; sleep 0.05; done
  cat "$work/log" >&2
  exit 1
}

passed=0
run() { # PROGRAM...
  for program in "$@"; do
    local port=28852
    case $program in simple_http_*|reuse_infer_objects_client) port=28851 ;; esac
    if ! timeout 60 "$python" "$checkout/$examples/$program.py" -u "127.0.0.1:$port" >"$work/out" 2>&1; then
      echo "$program failed" >&2; tail -5 "$work/out" >&2; tail -5 "$work/log" >&2
      exit 1
    fi
    passed=$((passed + 1))
  done
}

echo "== NVIDIA's example programs"
models=(simple simple_identity simple_int8 simple_string dense two single)
serve "${models[@]}"
for door in http grpc; do
  run simple_${door}_{infer_client,async_infer_client,aio_infer_client,string_infer_client,health_metadata,shm_client,shm_string_client}
done
run simple_grpc_{keepalive_client,custom_args_client} grpc_explicit_{int,int8,byte}_content_client reuse_infer_objects_client
run simple_http_model_control
serve "${models[@]}" reciprocal
run simple_grpc_model_control
echo "$passed programs passed"
