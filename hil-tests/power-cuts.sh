#!/usr/bin/env bash
# Power cuts of a whole guest: installs by name what they need, finds or builds the static file, and cuts.
#   hil-tests/power-cuts.sh TARGET_DIR    CUTS=20 SEED=... FOREBAY=another file to test
# Without QEMU and no way to install it, it says so and ends with 0 (with 1 if REQUIRED=1).
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "$1")
work=$target/power-cuts
skip() { echo "SKIPPED: power cuts of a whole guest: $1"; [ -z "${REQUIRED:-}" ] || exit 1; exit 0; }

[ "$(uname -m)" = x86_64 ] || skip "the guest is x86_64 with Debian's kernel, this machine is $(uname -m)"
bash tests/tools.sh guest "$target/tools" || skip "QEMU, busybox or cpio is not here and cannot be installed"
mkdir -p "$work"
if ! ls "$work"/kernel/boot/vmlinuz-* >/dev/null 2>&1; then
  name() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)/\1/p' || true; }
  package=$(name)
  [ -n "$package" ] || { apt-get -o DPkg::Lock::Timeout=300 update -qq || true; package=$(name); }
  [ -n "$package" ] || skip "apt does not know Debian's linux-image-cloud-amd64"
  echo "== fetching the guest's kernel from Debian, not installing it: $package"
  rm -rf "$work/fetched" "$work/kernel"
  mkdir "$work/fetched"
  (cd "$work/fetched" && apt-get -o DPkg::Lock::Timeout=300 -o APT::Sandbox::User=root download -qq "$package") ||
    skip "$package cannot be fetched"
  dpkg-deb -x "$work"/fetched/*.deb "$work/kernel"
fi
forebay=${FOREBAY:-$target/x86_64-unknown-linux-musl/release/forebay}
[ -n "${FOREBAY:-}" ] || make release TARGET=x86_64-unknown-linux-musl
python3 -B hil-tests/power_cuts.py --forebay "$forebay" --kernel "$work/kernel" --log "$work/guests.log" \
  --cuts "${CUTS:-20}" ${SEED:+--seed "$SEED"}
