#!/bin/sh
# Builds the program as one static file, for the machine that it runs on: build.sh FOLDER
# The Dockerfile, the project's pipeline and its tests all build the program with this script.
set -eu

folder=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
# With `--target`, the flags apply to the program alone, not to build scripts and macros, which cannot be static.
# The paths of this machine have no place in it; a program that aborts on panic needs no unwind tables, a fourteenth of it.
RUSTFLAGS="-C target-feature=+crt-static -C force-unwind-tables=no --remap-path-prefix=$root=/src --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
export RUSTFLAGS
cd "$root"
# Packed relocations save 0.4 MB; glibc reads them since 2.36.
cargo rustc --release --locked --quiet --package credential-rotator --bin credential-rotator --target "$host" -- -C link-arg=-Wl,-z,pack-relative-relocs
mkdir -p "$folder"
cp "${CARGO_TARGET_DIR:-$root/target}/$host/release/credential-rotator" "$folder/credential-rotator"
