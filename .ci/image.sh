#!/usr/bin/env bash
# Builds the image around a ready binary and proves that runners can work with it.
#
#   .ci/image.sh BINARY [SANDBOX]
#
# It pulls no image: it makes the base images for both platforms from Debian's busybox-static and ca-certificates. So it
# proves the Dockerfile and the program in it, not the base images that the Dockerfile names. It does not run the stage
# `build` either: the binary comes from .ci/image/build.sh, which is all that this stage runs. The linux/arm64 image is
# assembled with a placeholder for the binary and not run.
# With SANDBOX, the example `serve` (the fake as a process), a key is rotated from inside the image.
# shellcheck disable=SC2016 # what is in single quotes is for the shell in the image to expand
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
binary=$(realpath "$1")
sandbox=${2:+$(realpath "$2")}
limit=$((6 * 1024 * 1024))

need=()
for package in buildah busybox-static ca-certificates curl jq openssl; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || need+=("$package")
done
if [ ${#need[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
fi

work=$(mktemp -d)
containers=()
fake=
end() {
  [ -z "$fake" ] || kill "$fake" 2>/dev/null || true
  [ ${#containers[@]} -eq 0 ] || buildah rm "${containers[@]}" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap end EXIT

# An image store of its own, so that this uses and leaves nothing of the machine's.
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
export CONTAINERS_STORAGE_CONF=$work/storage.conf
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s/store"\nrunroot = "%s/run"\n' "$work" "$work" >"$CONTAINERS_STORAGE_CONF"
printf '{"default": [{"type": "insecureAcceptAnything"}]}\n' >"$work/policy.json"

passed=0
failed=0
prove() {
  local text=$1
  shift
  if "$@" >"$work/why" 2>&1; then
    passed=$((passed + 1))
    printf 'ok      %s\n' "$text"
    cp "$work/why" "$work/said"
  else
    failed=$((failed + 1))
    printf 'FAILED  %s\n' "$text"
    sed 's/^/        /' "$work/why"
  fi
}
is() { [ "$1" = "$2" ] || { printf 'is:     %s\nwanted: %s\n' "$1" "$2"; return 1; }; }

# --- bases and image --------------------------------------------------------------------------------------------------

# base NAME ARCH FOLDER: makes an image of this folder alone.
base() {
  local container
  container=$(buildah from --arch "$2" scratch)
  buildah copy -q "$container" "$3" / >/dev/null
  buildah config --arch "$2" --os linux --cmd sh "$container"
  buildah commit -q --rm --timestamp 0 "$container" "localhost/$1:$2" >/dev/null
}
mkdir -p "$work/base/bin" "$work/base/etc" "$work/base/tmp" "$work/base/usr/local/bin" "$work/roots/etc/ssl/certs"
cp /bin/busybox "$work/base/bin/busybox"
for tool in $(/bin/busybox --list); do
  [ "$tool" = busybox ] || ln -s busybox "$work/base/bin/$tool"
done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$work/base/etc/passwd"
chmod 1777 "$work/base/tmp"
cp /etc/ssl/certs/ca-certificates.crt "$work/roots/etc/ssl/certs/"
for arch in amd64 arm64; do
  base base "$arch" "$work/base"
  base roots "$arch" "$work/roots"
done

mkdir -p "$work/build/amd64" "$work/build/arm64"
cp "$binary" "$work/build/amd64/credential-rotator"
printf '#!/bin/sh\necho arm64\n' >"$work/build/arm64/credential-rotator"
version=$(sed -nE 's/^version = "(.*)"/\1/p' "$root/Cargo.toml" | head -1)
# assemble TAG ARCH: builds the image as the project's pipeline does.
assemble() {
  buildah build -q --platform "linux/$2" --timestamp "${SOURCE_DATE_EPOCH:-0}" --ignorefile "$root/.dockerignore" \
    --build-context "build=$work/build" --build-arg BUILD_IMAGE=scratch \
    --build-arg "ROOTS_IMAGE=localhost/roots:$2" --build-arg "BASE_IMAGE=localhost/base:$2" \
    --build-arg "VERSION=$version" --build-arg REVISION=0123456789abcdef --no-cache -t "localhost/$1" -f "$root/Dockerfile" "$root"
}
archive() { buildah push -q --signature-policy "$work/policy.json" "localhost/$1" "oci-archive:$work/$1.tar"; }
digest() { tar -xOf "$work/$1.tar" index.json | jq -r '.manifests[0].digest'; }
blob() { tar -xOf "$work/$1.tar" "blobs/${2/://}"; }


for tag in one two; do
  assemble "$tag" amd64 >/dev/null
  archive "$tag"
  sleep 1 # so that a time stamp in the image would differ
done
prove 'assembled twice, the image has one digest' is "$(digest one)" "$(digest two)"
size=$(blob one "$(digest one)" | jq '.config.size + ([.layers[].size] | add)')
prove "compressed it has $((size / 1024)) KiB, at most $((limit / 1024))" test "$size" -le "$limit"
config=$(blob one "$(digest one)" | jq -r .config.digest)
blob one "$config" >"$work/config.json"
of_config() { jq -r "$1" "$work/config.json"; }
prove 'no entrypoint stands before the shell of a runner' is "$(of_config '.config.Entrypoint // "none"')" none
prove 'its user is not root' is "$(of_config .config.User)" 65534:65534
prove 'it is for linux/amd64' is "$(of_config '.os + "/" + .architecture')" linux/amd64
for label in title description licenses source; do
  prove "label $label" test -n "$(of_config ".config.Labels[\"org.opencontainers.image.$label\"] // \"\"")"
done
prove 'label version' is "$(of_config '.config.Labels["org.opencontainers.image.version"]')" "$version"
prove 'label revision' is "$(of_config '.config.Labels["org.opencontainers.image.revision"]')" 0123456789abcdef

assemble three arm64 >/dev/null
archive three
config=$(blob three "$(digest three)" | jq -r .config.digest)
prove 'linux/arm64 is assembled from the same file' is "$(blob three "$config" | jq -r .architecture)" arm64
container=$(buildah from --pull-never localhost/three)
containers+=("$container")
prove '...around the binary of its own' cmp "$(buildah mount "$container")/usr/local/bin/credential-rotator" "$work/build/arm64/credential-rotator"

# --- as runners use it ------------------------------------------------------------------------------------------------

container=$(buildah from --pull-never localhost/one)
containers+=("$container")
rootfs=$(buildah mount "$container")
prove 'in it, the binary is the one that was given' cmp "$rootfs/usr/local/bin/credential-rotator" "$binary"
needs_no_library() { LC_ALL=C ldd "$1" 2>&1 | grep -Eq 'not a dynamic executable|statically linked'; }
prove '...and needs no library' needs_no_library "$binary"
prove '...and nobody but root may change it' is "$(stat -c '%a %u' "$rootfs/usr/local/bin/credential-rotator")" '755 0'

# The runner's helper makes the build folder, which every user of the job's image may write to.
mkdir -p "$work/builds/acme/shop"
chmod -R 0777 "$work/builds"
in_image() { # USER COMMAND...
  local user=$1
  shift
  buildah run --user "$user" --volume "$work/builds:/builds" "$container" -- "$@"
}
fails() { ! "$@"; }
# The command that a runner starts in the image. `script` is what it then writes to its standard input.
detect='for shell in /usr/local/bin/bash /usr/bin/bash /bin/bash /usr/local/bin/sh /usr/bin/sh /bin/sh /busybox/sh; do
  if [ -x "$shell" ]; then exec "$shell" $1; fi
done
echo shell not found
exit 1'
script() { # COMMAND: the job's script, as it comes out of a runner
  cat <<SCRIPT
if set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit
set +o noclobber
: | eval \$'export CI_PROJECT_DIR=/builds/acme/shop\n cd "\$CI_PROJECT_DIR"\n echo "\\\\x1b[32;1m\$ $1\\\\x1b[0;m"\n $1\n'
exit 0
SCRIPT
}
docker() { # USER COMMAND
  script "$2" | in_image "$1" sh -c "$detect"
}
kubernetes() { # USER COMMAND
  mkdir -p "$work/builds/scripts" "$work/builds/logs"
  chmod 0777 "$work/builds/scripts" "$work/builds/logs"
  script "$2" >"$work/builds/scripts/step_script"
  : >"$work/builds/logs/output.log"
  chmod 0666 "$work/builds/logs/output.log"
  in_image "$1" sh -c 'set -o pipefail; (sh /builds/scripts/step_script) 2>&1 | tee -a /builds/logs/output.log' || return
  test -s "$work/builds/logs/output.log"
}
for user in 0:0 65534:65534 100042:0; do
  for executor in docker kubernetes; do
    prove "$executor, user $user: the script runs" "$executor" "$user" 'credential-rotator --version'
    prove "$executor, user $user: it says its version" grep -q "^credential-rotator $version" "$work/said"
    prove "$executor, user $user: an artifact can be written" "$executor" "$user" "id -u > \"report-$executor-${user%%:*}\""
    prove "$executor, user $user: ...by this user" is "$(cat "$work/builds/acme/shop/report-$executor-${user%%:*}")" "${user%%:*}"
    prove "$executor, user $user: home can be written" "$executor" "$user" 'touch "$HOME/.written" && rm "$HOME/.written"'
    prove "$executor, user $user: the program's failure is the job's" \
      is "$("$executor" "$user" 'credential-rotator --no-such-argument' >/dev/null 2>&1 || echo $?)" 2
  done
done
for tool in sh grep tee sed awk cat ls sleep mkdir rm chmod printf touch id; do
  prove "a runner finds $tool" in_image 65534:65534 sh -c "command -v $tool"
done
prove 'public roots are there' in_image 65534:65534 sh -c 'grep -q "BEGIN CERTIFICATE" "$SSL_CERT_FILE"'
prove 'without settings the program says what is missing, and ends with 2' \
  is "$(in_image 65534:65534 sh -c 'credential-rotator >/tmp/out 2>&1; echo $?; grep -c ROTATOR_GITLAB_TOKEN /tmp/out' | tr '\n' ' ')" '2 1 '

# --- a rotation from inside the image ---------------------------------------------------------------------------------
# Host names come from /etc/hosts. TLS is verified: GitLab's certificate with the file that runners provide, AWS's with
# SSL_CERT_FILE.

if [ -n "$sandbox" ]; then
  tls=$work/builds/tls
  mkdir -p "$tls" "$work/fake"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj '/CN=Sandbox CA' \
    -addext 'basicConstraints=critical,CA:TRUE' -keyout "$work/ca.key" -out "$tls/ca.pem" 2>/dev/null
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=gitlab.example.com' \
    -keyout "$work/leaf.key" -out "$work/leaf.csr" 2>/dev/null
  openssl x509 -req -in "$work/leaf.csr" -CA "$tls/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
    -extfile <(printf 'subjectAltName=DNS:gitlab.example.com,DNS:aws.example.com\nbasicConstraints=CA:FALSE\n') \
    -out "$work/leaf.pem" 2>/dev/null
  chmod -R a+rX "$tls"
  "$sandbox" in-project "$work/fake" "$work/leaf.pem" "$work/leaf.key" &
  fake=$!
  for _ in $(seq 100); do
    [ ! -s "$work/fake/control" ] || break
    sleep 0.1
  done
  control=$(cat "$work/fake/control")
  container=$(buildah from --pull-never --add-host gitlab.example.com:127.0.0.1 --add-host aws.example.com:127.0.0.1 localhost/one)
  containers+=("$container")
  # job: the variables that GitLab sets for the next job, with host names instead of the address. No role uses the ID token.
  job() {
    curl -fsS "$control/job?name=rotate-key&pipeline=1" |
      sed -E "s,(CI_[A-Z0-9_]*=')https://[^:/']+,\\1https://gitlab.example.com,; s,(AWS_ENDPOINT_URL=')https://[^:/']+,\\1https://aws.example.com,"
    printf "export ROTATOR_DEPLOY_TIMEOUT=1m ROTATOR_REPORT=report.json CI_SERVER_TLS_CA_FILE=/builds/tls/ca.pem\n"
  }
  # Ends the previous job: a rotation waits for jobs that still run with the old key.
  ended() {
    local id
    id=$(sed -n "s/^export CI_JOB_ID='\(.*\)'$/\1/p" "$work/builds/job.env")
    curl -fsS "$control/end?job=$id&exit=0"
  }
  state_is() {
    curl -fsS "$control/state" >"$work/state"
    jq -e "$1" "$work/state" >/dev/null || { jq -c . "$work/state"; return 1; }
  }
  old=$(curl -fsS "$control/state" | jq -r '.projects["42"].named')

  job >"$work/builds/job.env"
  prove 'in the image: without the CA of AWS nothing is done' fails docker 65534:65534 '. /builds/job.env; credential-rotator'
  prove 'in the image: ...because of the certificate' grep -qi certificate "$work/said"
  prove 'in the image: ...no key was made' state_is '.keys["svc-shop"] | length == 1'
  ended
  job >"$work/builds/job.env"
  echo 'export CI_SERVER_TLS_CA_FILE= SSL_CERT_FILE=/builds/tls/ca.pem' >>"$work/builds/job.env"
  prove 'in the image: SSL_CERT_FILE takes the place of the public roots' docker 65534:65534 \
    '. /builds/job.env; ROTATOR_DRY_RUN=true credential-rotator'
  ended
  job >"$work/builds/job.env"
  echo 'export SSL_CERT_FILE=/builds/tls/all.pem' >>"$work/builds/job.env"
  prove 'in the image: a private CA is added to the public roots' docker 65534:65534 \
    'cat /etc/ssl/certs/ca-certificates.crt /builds/tls/ca.pem > /builds/acme/shop/all.pem'
  mv "$work/builds/acme/shop/all.pem" "$tls/all.pem"
  prove 'in the image: a key is rotated' docker 65534:65534 '. /builds/job.env; credential-rotator'
  prove 'in the image: ...one new key, which the variables name and production runs with' state_is \
    "(.keys[\"svc-shop\"] | length == 2) and (.projects[\"42\"] | .named != \"$old\" and .runs.production == .named)"
  prove 'in the image: ...the report is in the folder of the build' test -s "$work/builds/acme/shop/report.json"
  prove 'in the image: ...no secret is in it' fails grep -Eq 'glpat-|"secret' "$work/builds/acme/shop/report.json"
  prove 'in the image: ...the fake saw no invariant broken' state_is '.violations == []'
fi

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
