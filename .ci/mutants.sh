#!/usr/bin/env bash
# Mutants of the plan and the record, judged by the tests of the library. The two files know plain types only, so they are put into a
# crate of their own, which is built in seconds. Fails where a mutant survives that tests/plan/survivors.txt does not explain.
set -euo pipefail
cd "$(dirname "$0")/.."
crate=${1:-$(mktemp -d)}
mkdir -p "$crate/src" "$crate/tests"
cp -r src/plan.rs src/plan src/record.rs "$crate/src/"
cp -r tests/plan.rs tests/plan "$crate/tests/"
cp rust-toolchain.toml Cargo.lock clippy.toml "$crate/"
{
  echo 'pub mod plan; pub mod record;'
  echo 'pub mod config {'
  grep -B1 -A5 '^pub enum Action {' src/config.rs
  echo '}'
} >"$crate/src/lib.rs"
{
  printf '[package]\nname = "credential-rotator"\nedition = "2024"\n[dependencies]\n'
  grep -E '^(jiff|serde|serde_json) = ' Cargo.toml
  echo '[dev-dependencies]'
  grep -E '^proptest = ' Cargo.toml
  printf '[profile.dev]\ndebug = false\nopt-level = 1\n[profile.dev.package."*"]\nopt-level = 3\n'
} >"$crate/Cargo.toml"

cargo mutants --dir "$crate" --output "$crate" --baseline run --no-shuffle --jobs "${JOBS:-2}" --timeout 120 --cap-lints=true || true
out=$crate/mutants.out
[ -s "$out/outcomes.json" ]
for kind in caught missed timeout unviable; do printf '%5d %s\n' "$(wc -l <"$out/$kind.txt")" $kind; done
unexplained=0
while read -r mutant; do
  # Without its place, which moves.
  mutation=${mutant#*: }
  grep -qF -- "$mutation" tests/plan/survivors.txt || { echo "not explained: $mutant"; unexplained=1; }
done < <(cat "$out/missed.txt" "$out/timeout.txt")
exit $unexplained
