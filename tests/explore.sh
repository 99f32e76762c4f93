#!/usr/bin/env bash
# Every property test with cases that no run has had before, until the time is up or one fails.
#   tests/explore.sh MINUTES [SEED]
# `cargo test` has the same cases each time (.cargo/config.toml), so that a change is judged by what it changes. New ones
# are looked for here. With a SEED: that one, once.
set -euo pipefail
minutes=${1:?minutes} seed=${2:-}
cd "$(dirname "$0")/.."
mapfile -t names < <(grep -rlE '^ *proptest! \{' src tests --include=*.rs | sort | xargs awk '
  FNR == 1 { inside = 0 }
  /^ *proptest! \{/ { inside = 1; match($0, /^ */); indent = RLENGTH }
  inside && /^ *fn [a-z0-9_]+\(/ { name = $2; sub(/\(.*/, "", name); print name }
  inside && /^ *\}/ { match($0, /^ */); if (RLENGTH == indent) inside = 0 }')
[ "${#names[@]}" -gt 0 ] || { echo "no property test found" >&2; exit 2; }
echo "== building; then ${#names[@]} properties for $minutes minutes"
cargo test --quiet --locked --features delegate-host --lib --test suite --no-run
end=$((SECONDS + minutes * 60)) rounds=0
while :; do
  PROPTEST_RNG_SEED=${seed:-$(od -An -N7 -tu8 /dev/urandom | tr -d ' ')}
  export PROPTEST_RNG_SEED
  if ! said=$(cargo test --locked --features delegate-host --lib --test suite -- "${names[@]}" 2>&1); then
    printf '%s\n== a property fails with these cases: tests/explore.sh 1 %s\n' "$said" "$PROPTEST_RNG_SEED"
    exit 1
  fi
  rounds=$((rounds + 1))
  [ "$rounds" -gt 1 ] || grep -E '^test result' <<<"$said"
  [ -z "$seed" ] && [ "$SECONDS" -lt "$end" ] || break
done
echo "== $rounds rounds, none failed"
