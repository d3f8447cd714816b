#!/usr/bin/env bash
# Runs each fuzz target for SECONDS (20). `.ci/fuzz.sh 3600` is a long run, which is worth an optimized build. No sanitizer is
# used: the program has no unsafe code.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20}
how=(--sanitizer none)
[ "$seconds" -ge 300 ] || how+=(--dev)
tools=${TOOLS_CACHE:-${TMPDIR:-/tmp}/credential-rotator-cache}
export PATH=$PATH:$tools/fuzz/bin RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/target/fuzz}
command -v c++ >/dev/null || { apt-get update -qq && apt-get install -qq -y g++ >/dev/null; }
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked --root "$tools/fuzz" cargo-fuzz
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo fuzz build "${how[@]}"
for target in record configuration replies; do
  mkdir "$work/$target"
  # The last line of libFuzzer sums up the run; a crash takes many lines.
  if ! cargo fuzz run "${how[@]}" "$target" "$work/$target" "fuzz/seeds/$target" -- \
    -max_total_time="$seconds" -timeout=100 -max_len=4096 -artifact_prefix="$work/" >"$work/$target.log" 2>&1; then
    tail -40 "$work/$target.log"
    exit 1
  fi
  echo "$target: $(grep '^Done ' "$work/$target.log"), $(grep -Eo 'cov: [0-9]+' "$work/$target.log" | tail -1)"
done
