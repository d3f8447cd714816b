#!/bin/sh
# Builds the program as one static file, for the machine that it runs on: build.sh FOLDER
# The Dockerfile, the project's pipeline and its tests build it with this, and nothing else does.
set -eu

folder=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
# With a target named, the flags are for the program alone, not for build scripts and macros, which cannot be static.
# The paths of this machine have no place in it; a program that aborts on panic needs no unwind tables, a fourteenth of it.
RUSTFLAGS="-C target-feature=+crt-static -C force-unwind-tables=no --remap-path-prefix=$root=/src --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
export RUSTFLAGS
cd "$root"
# Relocations packed (glibc 2.36 and newer read them so) are 0.4 MB less.
cargo rustc --release --locked --quiet --bin credential-rotator --target "$host" -- -C link-arg=-Wl,-z,pack-relative-relocs
mkdir -p "$folder"
cp "${CARGO_TARGET_DIR:-$root/target}/$host/release/credential-rotator" "$folder/credential-rotator"
