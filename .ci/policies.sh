#!/usr/bin/env bash
# The IAM policies of docs/aws.md, judged by @cloud-copilot/iam-simulate, which knows nothing of this project's own fake.
# The simulator goes to a cache outside the repository: TOOLS_CACHE, else the system's folder for temporary files.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${TOOLS_CACHE:-${TMPDIR:-/tmp}/credential-rotator-cache}/iam-simulate
version=0.1.173

if ! command -v npm >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
fi
if ! grep -qs "\"version\": \"$version\"" "$cache/node_modules/@cloud-copilot/iam-simulate/package.json"; then
  mkdir -p "$cache"
  npm install --silent --no-fund --no-audit --no-save --prefix "$cache" "@cloud-copilot/iam-simulate@$version"
fi
node "$root/.ci/policies.mjs" "$root/docs/aws.md" "$cache"
