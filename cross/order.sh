#!/usr/bin/env bash
# Finds the order in which the static file's code is laid out (docs/decisions/0045): lets the gateway work under callgrind
# and writes what ran to cross/order.ld.   cross/order.sh TARGET_DIR
# Half an hour on two cores, nearly all of it for builds. To be repeated from time to time: functions that came later or
# got another name lie behind the others meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
target_dir=$(realpath -m "$1")
target=x86_64-unknown-linux-musl
bash tests/tools.sh release "$target_dir/tools"
bash tests/tools.sh order "$target_dir/tools"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== the static file, with its names"
rustup target add $target
PATH="$target_dir/tools/python/bin:$PATH" cargo-zigbuild rustc --release --locked --target $target --bin forebay -- -Cstrip=none
cp "$target_dir/$target/release/forebay" "$work/named"
cat >"$work/forebay" <<RUN
#!/bin/sh
exec valgrind --quiet --tool=callgrind --demangle=no --callgrind-out-file=$work/\$RAN.%p $work/named "\$@"
RUN
chmod +x "$work/forebay"

echo "== at work: chats whole and as streams, then readings that become verdicts and summaries"
cargo bench --locked --bench answer --no-run
export RAN=chats
FOREBAY_BENCH_PROGRAM="$work/forebay" ONLY=nobody ROUNDS=1 SLICE_MS=3000 LADDER=0 STREAMS=200 cargo bench --locked --bench answer
RAN=readings "$work/forebay" demo --dir "$work/demo" --once

python3 cross/order.py write "$work/named" "$work"/chats.* "$work"/readings.* >"$work/order.ld"
mv "$work/order.ld" cross/order.ld
grep -c '\*(' cross/order.ld
