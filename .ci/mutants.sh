#!/usr/bin/env bash
# Mutants of the plan and the record, judged by tests/plan and the record's own tests. The two modules use plain types only, so a
# crate of their own holds them, which builds in seconds. Fails where a mutant survives that tests/plan/survivors.txt does not explain.
set -euo pipefail
cd "$(dirname "$0")/.."
crate=${1:-$(mktemp -d)}
mkdir -p "$crate/src/error" "$crate/src/gitlab" "$crate/tests"
cp -r src/plan.rs src/plan src/record.rs src/record src/place.rs src/access_key.rs src/net.rs "$crate/src/"
cp src/error/{refusal,blocker,notice}.rs "$crate/src/error/"
cp src/gitlab/right.rs "$crate/src/gitlab/"
cp -r tests/plan.rs tests/plan "$crate/tests/"
cp rust-toolchain.toml Cargo.lock clippy.toml "$crate/"
{
  echo 'pub mod access_key; pub mod net; pub mod place; pub mod plan; pub mod record;'
  echo 'pub mod config {'
  grep -B1 -A5 '^pub enum Action {' src/config.rs
  echo '}'
  echo 'pub mod error {'
  sed -n '/^pub mod exit {/,/^}/p' src/error.rs
  echo 'mod blocker; mod notice; mod refusal;'
  echo 'pub use blocker::Blocker; pub use notice::Notice; pub use refusal::Refusal;'
  echo '}'
  echo 'pub mod gitlab { mod right; pub use right::{NEEDED as NEEDED_RIGHTS, Right}; }'
} >"$crate/src/lib.rs"
{
  printf '[package]\nname = "credential-rotator"\nedition = "2024"\n[dependencies]\n'
  grep -E '^(http|jiff|secrecy|serde|serde_json|thiserror) = ' Cargo.toml
  echo '[dev-dependencies]'
  grep -E '^proptest = ' Cargo.toml
  printf '[profile.dev]\ndebug = false\nopt-level = 1\n[profile.dev.package."*"]\nopt-level = 3\n'
} >"$crate/Cargo.toml"

cargo mutants --dir "$crate" --file src/plan.rs --file 'src/plan/*.rs' --file src/record.rs --file 'src/record/*.rs' --output "$crate" --baseline run --no-shuffle --jobs "${JOBS:-2}" --timeout 120 --cap-lints=true || true
out=$crate/mutants.out
[ -s "$out/outcomes.json" ]
for kind in caught missed timeout unviable; do printf '%5d %s\n' "$(wc -l <"$out/$kind.txt")" $kind; done
unexplained=0
while read -r mutant; do
  # Without the line and column, which move.
  mutation=${mutant#*: }
  grep -qF -- "$mutation" tests/plan/survivors.txt || { echo "not explained: $mutant"; unexplained=1; }
done < <(cat "$out/missed.txt" "$out/timeout.txt")
exit $unexplained
