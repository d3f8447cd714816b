#!/usr/bin/env bash
# Executes the sample projects with gitlab-ci-local, as GitLab would run them: which jobs run in which pipeline, and what
# the program in them is given.
#
#   .ci/templates.sh                                    with a script that records the environment it gets
#   ROTATOR_BIN=PATH SANDBOX=PATH .ci/templates.sh      and then with the program, against the fake
#
# SANDBOX is the example `serve`: the fake as a process. The second part checks what the fake has seen.
# Tools go to a cache outside the repository: TOOLS_CACHE, else the system's folder for temporary files.
# shellcheck disable=SC2016 # what is in single quotes is for GitLab to expand
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${TOOLS_CACHE:-${TMPDIR:-/tmp}/credential-rotator-cache}
work=$(mktemp -d)
server=
fake=
end() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  [ -z "$fake" ] || kill "$fake" 2>/dev/null || true
  rm -rf "$work"
}
trap end EXIT
# The jobs inherit this script's environment, and the program refuses a variable that it does not know.
program_under_test=${ROTATOR_BIN:-}
unset ROTATOR_BIN

passed=0
failed=0
# prove TEXT COMMAND...: prints a line for each check. A failed one also shows what the pipeline printed.
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
    [ ! -f "$work/log" ] || tail -n 30 "$work/log" | sed 's/^/        | /'
  fi
}

# --- tools ------------------------------------------------------------------------------------------------------------

need=()
for tool in git rsync jq python3; do
  command -v "$tool" >/dev/null || need+=("$tool")
done
if [ ${#need[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
fi
gcl=$cache/gitlab-ci-local/node_modules/.bin
if [ ! -x "$gcl/gitlab-ci-local" ]; then
  mkdir -p "$cache/gitlab-ci-local"
  # Its newest version needs a newer Node than many systems have; the package `node` brings one.
  (cd "$cache/gitlab-ci-local" && npm install --silent --no-fund --no-audit node@22 gitlab-ci-local@4)
fi
PATH=$gcl:$PATH

gitlab-ci-local() {
  command gitlab-ci-local --force-shell-executor --no-artifacts-to-source \
    --ignore-predefined-vars "CI_PIPELINE_SOURCE,CI_PIPELINE_SCHEDULE_DESCRIPTION,CI_API_V4_URL,CI_PROJECT_ID" "$@"
}

# --- a GitLab of files ------------------------------------------------------------------------------------------------
# Includes are fetched with git, as from an instance: git is told where to find gitlab.example.com.

export HOME=$work/home GIT_CONFIG_GLOBAL=$work/gitconfig GIT_CONFIG_NOSYSTEM=1
mkdir -p "$HOME" "$work/gitlab/acme" "$work/bin" "$work/seen"
git config --global user.name acme
git config --global user.email acme@example.com
git config --global init.defaultBranch main
git config --global uploadpack.allowFilter true
git config --global uploadpack.allowAnySHA1InWant true
git config --global advice.detachedHead false
git config --global safe.directory '*'
git config --global "url.file://$work/gitlab/.insteadOf" "https://gitlab.example.com/"
git config --global --add "url.file://$work/gitlab/.insteadOf" "https://gitlab.example.com:443/"

component=$work/component
mkdir -p "$component"
git -C "$component" init -q
cp -r "$root/templates" "$component/"
# GitLab goes on after the listed exit codes alone; gitlab-ci-local 4.75 prints FAIL for another one, and goes on as well.
sed -i '/^  allow_failure:$/{N;/exit_codes: \[6\]/d}' "$component"/templates/*.yml
git -C "$component" add -A
git -C "$component" commit -qm "The components"
version=$(sed -nE 's/^version = "(.*)"/\1/p' "$root/Cargo.toml" | head -1)
# A full version means that one, whatever else there is.
for tag in "$version" 0.0.9 "$version-rc.1" 99.0.0; do git -C "$component" tag "$tag"; done
git clone -q --bare "$component" "$work/gitlab/acme/credential-rotator.git"

# project SAMPLE NAME: a fresh clone of the sample as the project acme/NAME; the folder is in $project.
project() {
  project=$work/projects/$2
  rm -rf "$project"
  mkdir -p "$project"
  cp -r "$root/examples/$1/." "$project/"
  git -C "$project" init -q
  # With a user name, so that git does not replace this address.
  git -C "$project" remote add origin "https://ci:none@gitlab.example.com/acme/$2.git"
  commit
}
commit() {
  git -C "$project" add -A
  git -C "$project" commit -qm "The project"
  git -C "$project" update-ref refs/remotes/origin/main HEAD
  git -C "$project" symbolic-ref refs/remotes/origin/HEAD refs/remotes/origin/main
}

cat >"$work/bin/credential-rotator" <<'FAKE'
#!/bin/sh
# Records the environment that a job gives to the program.
set -eu
env | grep -E '^(ROTATOR|CI|GIT|AWS|SHOP)_' | sort >"$SEEN/$(printf '%s' "$CI_JOB_NAME" | tr -c 'A-Za-z0-9\n' '_').env"
printf '%s\n' "$CI_JOB_NAME" >>"$SEEN/order"
printf '{"schema":1}\n' >"$ROTATOR_REPORT"
printf 'ROTATION_OUTCOME=not_due\n' >"$ROTATOR_DOTENV"
printf '{"deploys":[]}\n' >"$ROTATOR_ANNOTATIONS"
FAKE
chmod +x "$work/bin/credential-rotator"
program=$work/bin

# pipeline SOURCE [ARGUMENT...]: runs the project's pipeline. $ran lists the jobs that ran, one a line.
pipeline() {
  local source=$1 status=0
  shift
  rm -rf "$work/seen" "$project/.gitlab-ci-local/output" "$project/.gitlab-ci-local/artifacts"
  mkdir -p "$work/seen"
  (cd "$project" && gitlab-ci-local --variable "SEEN=$work/seen" --variable "PATH=$program:$PATH" \
    --variable "CI_PIPELINE_SOURCE=$source" "$@") \
    >"$work/log" 2>&1 || status=$?
  ran=$(ran_jobs)
  return "$status"
}
# Each job that ran has a line with its result.
ran_jobs() {
  sed -E 's/\x1b\[[0-9;]*m//g' "$work/log" | sed -nE 's/^ *(PASS|FAIL|WARN) +//p' | sed -E 's/ +$//' | sort -u
}
expanded() { cat "$project/.gitlab-ci-local/expanded-gitlab-ci.yml"; }
given() { grep -Fqx -- "$2" "$work/seen/$1.env" || { printf 'not given: %s, but %s\n' "$2" "$(grep -F "${2%%=*}=" "$work/seen/$1.env")"; return 1; }; }
is() { [ "$1" = "$2" ] || { printf 'is:     %s\nwanted: %s\n' "$1" "$2"; return 1; }; }
fails() { ! "$@"; }
lines() { printf '%s\n' "$@" | sort; }
jobs_when() { # SOURCE [ARGUMENT...]: each job of such a pipeline, and when it runs
  (cd "$project" && gitlab-ci-local --list-csv --variable "CI_PIPELINE_SOURCE=$1" "${@:2}" 2>/dev/null) |
    tail -n +2 | awk -F';' '{gsub(/"/, "", $1); print $1, $3}' | sort
}
sample_with() { # FILTER [jq ARGUMENT...]: the project's configuration is what jq makes
  jq -n "$@" >"$project/.gitlab-ci.yml"
  commit
}
rotator_variables() { grep -E '^(ROTATOR_|GIT_STRATEGY)' "$work/seen/$1.env"; }
inputs_of() { awk '/^---$/ { exit } match($0, /^    [a-z_]+:$/) { gsub(/[ :]/, ""); print }' "$root/templates/$1.yml" | sort; }
absent() { ! grep -q -- "$1" "$2"; }
refused() { # TEXT INPUTS: an include with these inputs makes no pipeline
  sample_with --argjson inputs "$2" --arg component "${3:-rotate}@$version" \
    '{include: [{component: "$CI_SERVER_FQDN/acme/credential-rotator/\($component)", inputs: $inputs}]}'
  if (cd "$project" && gitlab-ci-local --list) >"$work/log" 2>&1; then
    return 1
  fi
  grep -Eq 'input: |does not match|is not a' "$work/log"
}
daily=(--variable 'CI_PIPELINE_SCHEDULE_DESCRIPTION=Rotate the AWS key')

# --- in the project itself --------------------------------------------------------------------------------------------

project in-project shop
prove 'in-project: the schedule runs' pipeline schedule "${daily[@]}"
prove 'in-project: of the schedule only the rotation is there, none of the other jobs' is "$ran" rotate-key
prove 'in-project: the sample takes this version' test -d "$project/.gitlab-ci-local/includes/gitlab.example.com/acme/credential-rotator/$version"
for variable in ACTION=rotate FORCE=false DRY_RUN=false IAM_USER= AWS_ROLE_ARN= TARGETS= DEPLOY=pipeline DEPLOY_JOBS=deploy; do
  prove "in-project: ROTATOR_$variable" given rotate_key "ROTATOR_$variable"
done
# The defaults are empty, and what is empty is not there.
job_of() { expanded | sed -n "/^$1:/,/^[^ ]/p"; }
for key in environment tags; do
  prove "in-project: no $key" absent "^  $key:" <(job_of rotate-key)
done
prove 'in-project: an ID token' grep -q '^  id_tokens:' <(job_of rotate-key)
prove 'in-project: no secret among the variables of the component' absent 'TOKEN=' "$work/seen/rotate_key.env"
report=$project/.gitlab-ci-local/artifacts/rotate-key
prove 'in-project: the report is an artifact' test -s "$report/credential-rotator.json"
prove 'in-project: the dotenv file is a report' test -s "$report/.gitlab-ci-reports/dotenv/credential-rotator.env"
cp "$work/seen/rotate_key.env" "$work/by-component.env"

prove 'in-project: the schedule runs again' pipeline schedule "${daily[@]}"
prove 'in-project: ...and rotates again' is "$ran" rotate-key

prove 'in-project: another schedule starts nothing' \
  is "$(jobs_when schedule --variable 'CI_PIPELINE_SCHEDULE_DESCRIPTION=Nightly tests')" ''
prove 'in-project: a push runs' pipeline push
prove 'in-project: ...the jobs of the project, no rotation' is "$ran" "$(lines deploy test)"
prove 'in-project: the pipeline that the rotation starts (api) runs' pipeline api
prove 'in-project: ...the deploy alone' is "$ran" deploy
prove 'in-project: a merge request runs no rotation' is "$(jobs_when merge_request_event)" 'test on_success'
for source in trigger pipeline parent_pipeline external chat; do
  prove "in-project: a pipeline by $source runs no rotation" is "$(jobs_when "$source")" ''
done

prove 'in-project: by hand, the rotation is a manual job' is "$(jobs_when web)" 'rotate-key manual'
prove 'in-project: ...which runs once it is started' pipeline web --manual rotate-key
prove 'in-project: ...without force' given rotate_key ROTATOR_FORCE=false
# gitlab-ci-local passes an input to every file that declares one of that name. Under other names, the sample itself has
# to pass them on.
sed -i 's/^    force:$/    asked_force:/; s/^    dry_run:$/    asked_dry_run:/; s/\[\[ inputs\./&asked_/' "$project/.gitlab-ci.yml"
commit
prove 'in-project: by hand with force, it runs at once' pipeline web --input asked_force=true
prove 'in-project: ...it alone' is "$ran" rotate-key
prove 'in-project: ...with ROTATOR_FORCE=true' given rotate_key ROTATOR_FORCE=true
prove 'in-project: ...and ROTATOR_DRY_RUN=false' given rotate_key ROTATOR_DRY_RUN=false
prove 'in-project: by hand with dry_run, it runs at once' pipeline web --input asked_dry_run=true
prove 'in-project: ...with ROTATOR_DRY_RUN=true' given rotate_key ROTATOR_DRY_RUN=true
prove 'in-project: ...and ROTATOR_FORCE=false' given rotate_key ROTATOR_FORCE=false
prove 'in-project: force runs nothing in a push' is "$(jobs_when push --input asked_force=true)" "$(lines 'deploy on_success' 'test on_success')"

# --- what a project does to its own jobs ------------------------------------------------------------------------------

project in-project shop
cat >>"$project/.gitlab-ci.yml" <<'YAML'

default:
  before_script: [exit 1]
  tags: [internal]
broken:
  stage: build
  before_script: []
  script:
    - echo AWS_ENDPOINT_URL=http://127.0.0.1:1 >leak.env
  artifacts:
    reports:
      dotenv: leak.env
failing:
  stage: test
  before_script: []
  script: exit 1
YAML
commit
pipeline schedule "${daily[@]}" || true
prove 'a failed job of an earlier stage does not keep a key from being rotated' grep -qx rotate-key <<<"$ran"
prove "another job's dotenv file does not reach the rotation" absent AWS_ENDPOINT_URL "$work/seen/rotate_key.env"
prove "a default before_script does not reach the rotation" test -s "$work/seen/rotate_key.env"
prove "the default tags reach the rotation" grep -Fqx '    - internal' <(job_of rotate-key)

project in-project shop
printf '\ndefault:\n  tags: [internal]\n' >>"$project/.gitlab-ci.yml"
sed -i 's/^      deploy_jobs: deploy$/&\n      tags: [docker]\n      id_token_aud: ""/' "$project/.gitlab-ci.yml"
commit
prove "tags of its own and no ID token: the schedule runs" pipeline schedule "${daily[@]}"
prove "tags of its own win over the default ones" is "$(job_of rotate-key | sed -n '/^  tags:/,/^  [a-z]/p' | grep '^    - ')" '    - docker'
prove "an empty id_token_aud leaves the ID token out" absent '^  id_tokens:' <(job_of rotate-key)

project in-project shop
cat >"$project/.gitlab-ci-local-variables.yml" <<'YAML'
ROTATOR_OVERLAP: 3h
ROTATOR_IAM_USER: from-the-project
YAML
prove "a project's variable is there" pipeline schedule "${daily[@]}"
prove "a project's variable outranks the default" given rotate_key ROTATOR_IAM_USER=from-the-project
prove "a project's variable outranks the input" given rotate_key ROTATOR_OVERLAP=3h

# --- the four ways to include -----------------------------------------------------------------------------------------

python3 -u -m http.server --bind 127.0.0.1 --directory "$root/templates" 0 >"$work/http" 2>&1 &
server=$!
for _ in $(seq 100); do
  port=$(sed -nE 's/.* port ([0-9]+).*/\1/p' "$work/http")
  [ -z "$port" ] || break
  sleep 0.1
done
settings='{schedule: "^Rotate the AWS key$", deploy_jobs: "deploy", force: false, dry_run: false}'
for way in \
  'project: {project: "acme/credential-rotator", ref: "'"$version"'", file: "templates/rotate.yml"}' \
  'remote: {remote: "http://127.0.0.1:'"$port"'/rotate.yml"}' \
  'local: {local: "templates/rotate.yml"}'; do
  name=${way%%:*}
  cp -r "$root/templates" "$project/"
  rm -f "$project/.gitlab-ci-local-variables.yml"
  sample_with "{include: [${way#*: } + {inputs: $settings}]}"
  prove "include: $name runs" pipeline schedule "${daily[@]}"
  prove "include: $name gives what include: component gives" \
    diff <(grep -E '^(ROTATOR_|GIT_STRATEGY)' "$work/by-component.env") <(rotator_variables rotate_key)
done

# --- every input ------------------------------------------------------------------------------------------------------

# every COMPONENT [NAME=VALUE...]: all of them, as JSON; a value that is JSON stays what it is, unless `text` says so.
every_input() { # FILE COMPONENT
  jq -n --rawfile list "$1" --arg component "$2@$version" '
    [$list | split("\n")[] | select(. != "") | capture("^(?<key>[a-z_]+)=(?<value>.*)$")
      | {key, value: (if .key | IN("force", "dry_run", "hidden", "tags") then .value | fromjson else .value end)}]
    | from_entries as $inputs
    | {stages: ["early", "late"], include: [{component: "$CI_SERVER_FQDN/acme/credential-rotator/\($component)", inputs: $inputs}]}'
}
cat >"$work/common" <<'LIST'
stage=early
job_name=rotate it's
image=mirror.example.com/tools/credential-rotator@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
tags=["docker","arm64"]
timeout=45m
schedule=^Key of [a-z]+\s#1: "daily"$
environment=production/eu-1
resource_group=keys/eu
id_token_aud=https://sts.example.com
force=true
dry_run=true
iam_user=svc+shop@acme.example
aws_role_arn=arn:aws-cn:iam::111111111111:role/ops/hub, arn:aws-cn:iam::222222222222:role/rotator
targets=project:acme/shop@production/eu-1, group:acme/team
key_id_variable=SHOP_KEY_ID
secret_variable=SHOP_SECRET
rotate_after=30d
overlap=6h
grace_period=3d
deploy_jobs=deploy: [eu, 1], "smoke" # test
deploy_timeout=20m
gitlab_api_url=https://gitlab.example.com:8443/gitlab/api/v4
gitlab_ca_file=/etc/acme ca.pem
verify_timeout=3m
http_timeout=10s
log=debug
LIST
sed -i "s/ it's\$/ it/" "$work/common"
{
  cat "$work/common"
  cat <<'LIST'
action=setup
max_age=45d
protected=true
hidden=true
deploy=pipeline@release/1.x
deploy_projects=acme/shop, 43
deploy_inputs={"region": "eu-1", "note": "it's: #1"}
deploy_variables={"WHY": "a \"new\" key"}
LIST
} >"$work/rotate"
{
  cat "$work/common"
  echo 'retire_stage=late'
  echo 'retire_job_name=retire it'
} >"$work/stages"
on_time=(--variable 'CI_PIPELINE_SCHEDULE_DESCRIPTION=Key of shop #1: "daily"')
for component in rotate stages; do
  prove "$component: the list below has every input" diff <(cut -d= -f1 "$work/$component" | sort) <(inputs_of "$component")
  every_input "$work/$component" "$component" >"$project/.gitlab-ci.yml"
  cat >"$project/.gitlab-ci-local-variables.yml" <<'YAML'
SHOP_KEY_ID:
  type: variable
  values:
    production/eu-1: of-the-environment
YAML
  commit
  # The arguments of a JSON list keep their order.
  prove "$component: runs with every input set" pipeline schedule "${on_time[@]}"
  jobs=(rotate_it)
  [ "$component" = rotate ] || jobs+=(retire_it)
  for job in "${jobs[@]}"; do
    wrong=
    while IFS='=' read -r input value; do
      case $input in
        stage | job_name | retire_stage | retire_job_name | image | tags | timeout | schedule | environment | resource_group | id_token_aud) continue ;;
      esac
      [ "$component/$job/$input" != stages/rotate_it/deploy_jobs ] || continue
      given "$job" "ROTATOR_${input^^}=$value" >/dev/null || wrong+=" $input"
    done <"$work/$component"
    prove "$component: each input arrives in $job as its variable" is "$wrong" ''
    prove "$component: $job gets the variables of the environment" given "$job" SHOP_KEY_ID=of-the-environment
    prove "$component: $job only accesses the environment" given "$job" CI_ENVIRONMENT_ACTION=access
  done
  for line in 'stage: early' 'image:' '  name: >-' '    mirror.example.com/tools/credential-rotator@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef' \
    '  - docker' '  - arm64' 'timeout: 45m' 'resource_group: keys/eu' '    aud: https://sts.example.com' '    - tags' 'interruptible: false'; do
    prove "$component: the job has \`${line#"${line%%[! ]*}"}\`" grep -Fqx -- "  $line" <(expanded)
  done
done
prove 'stages: the second job retires' given retire_it ROTATOR_ACTION=retire
prove 'stages: the first job rotates' given rotate_it ROTATOR_ACTION=rotate
prove 'stages: nothing is deployed by the rotation' given rotate_it ROTATOR_DEPLOY=none
rm "$project/.gitlab-ci-local-variables.yml"

while IFS=' ' read -r component inputs; do
  prove "$component: ${inputs} is refused" refused '' "$inputs" "$component"
done <<'LIST'
rotate {"deploy":"pipline"}
rotate {"action":"rotat"}
rotate {"force":"yes"}
rotate {"protected":"yes"}
rotate {"rotate_after":"2 months"}
rotate {"overlap":"12"}
rotate {"iam_user":"arn:aws:iam::111111111111:user/svc"}
rotate {"aws_role_arn":"rotator"}
rotate {"targets":"acme/shop"}
rotate {"key_id_variable":"AWS-KEY"}
rotate {"deploy_projects":"shop"}
rotate {"deploy_inputs":"region=eu"}
rotate {"gitlab_api_url":"gitlab.example.com"}
rotate {"log":"verbose"}
rotate {"schedule":"a/b"}
stages {}
LIST

# --- the central project ----------------------------------------------------------------------------------------------

project central rotator
prove 'central: the schedule runs' pipeline schedule "${daily[@]}"
prove 'central: three jobs, one for each user' is "$(wc -l <"$work/seen/order")" 3
prove 'central: three users' is "$(sed -n 's/^ROTATOR_IAM_USER=//p' "$work"/seen/*.env | sort)" "$(lines svc-billing svc-mail svc-shop)"
prove 'central: two roles' is "$(sed -n 's/^ROTATOR_AWS_ROLE_ARN=//p' "$work"/seen/*.env | sort | uniq -c | tr -s ' ')" \
  "$(printf ' 2 %s\n 1 %s' arn:aws:iam::111111111111:role/credential-rotator arn:aws:iam::222222222222:role/credential-rotator)"
billing=$(basename "$(grep -l '^ROTATOR_IAM_USER=svc-billing$' "$work"/seen/*.env)" .env)
prove "central: a user's own role" given "$billing" ROTATOR_AWS_ROLE_ARN=arn:aws:iam::222222222222:role/credential-rotator
prove "central: a user's own targets" given "$billing" 'ROTATOR_TARGETS=project:acme/billing@production,project:acme/ledger@production'
prove 'central: each deploys the environment again' is "$(cat "$work"/seen/*.env | grep -c '^ROTATOR_DEPLOY=environment/production$')" 3
prove 'central: a resource group for each user' grep -Fqx '  resource_group: credential-rotator-$ROTATOR_IAM_USER' <(expanded)
prove 'central: an ID token for this instance' grep -Fqx '      aud: $CI_SERVER_URL' <(expanded)
prove 'central: names of jobs fit' is "$(awk 'length > 255' "$work/seen/order")" ''
prove 'central: the schedule runs again' pipeline schedule "${daily[@]}"
prove 'central: ...for all three' is "$(wc -l <"$work/seen/order")" 3
prove 'central: by hand, three manual jobs' is "$(jobs_when web | awk '{print $NF}' | uniq -c | tr -s ' ')" ' 3 manual'
prove 'central: by hand with force, all three run' pipeline web --input force=true
prove 'central: ...with ROTATOR_FORCE=true' is "$(cat "$work"/seen/*.env | grep -c '^ROTATOR_FORCE=true$')" 3
for source in push api merge_request_event trigger; do
  prove "central: a pipeline by $source runs nothing" is "$(jobs_when "$source")" ''
done

# --- around the project's own deploy ----------------------------------------------------------------------------------

project stages shop
daily=(--variable 'CI_PIPELINE_SCHEDULE_DESCRIPTION=Rotate the AWS key and deploy')
started() { sed -E 's/\x1b\[[0-9;]*m//g' "$work/log" | sed -nE 's/^([a-z-]+) +starting shell.*/\1/p' | tr '\n' ' '; }
prove 'stages: the schedule runs' pipeline schedule "${daily[@]}"
prove 'stages: rotate, deploy, retire, in this order' grep -Eq 'rotate-key .*deploy .*retire-key ' <<<"$(started)"
prove 'stages: the rotation leaves the deploy to the pipeline' given rotate_key ROTATOR_DEPLOY=none
prove 'stages: the second job is told which job proves it' given retire_key ROTATOR_DEPLOY_JOBS=deploy
prove 'stages: the schedule runs again' pipeline schedule "${daily[@]}"
prove 'stages: a push runs' pipeline push
prove 'stages: ...the jobs of the project, no rotation' is "$ran" "$(lines build deploy)"
for source in api merge_request_event trigger; do
  prove "stages: a pipeline by $source runs no rotation" absent -key <(jobs_when "$source")
done
prove 'stages: by hand, both jobs are manual' is "$(jobs_when web | grep -- -key)" "$(lines 'retire-key manual' 'rotate-key manual')"
prove 'stages: ...and the deploy does not wait for them' pipeline web
prove 'stages: ...' is "$ran" "$(lines build deploy)"
prove 'stages: by hand with force, all run' pipeline web --input force=true
prove 'stages: ...both with ROTATOR_FORCE=true' is "$(cat "$work"/seen/*.env | grep -c '^ROTATOR_FORCE=true$')" 2
sed -i 's/echo "deployed .*/exit 1/' "$project/.gitlab-ci.yml"
commit
pipeline schedule "${daily[@]}" || true
prove 'stages: after a failed deploy nothing is retired' test ! -e "$work/seen/retire_key.env"

# --- the pipeline of the components themselves --------------------------------------------------------------------------

project in-project credential-rotator
cp "$root/.gitlab-ci.yml" "$root/Cargo.toml" "$project/"
cp -r "$root/templates" "$project/"
printf '# Changelog\n\n## [9.9.9]\n\n- Later\n\n## [%s] - 2026-11-25\n\n- This\n\n## [0.0.1]\n\n- Earlier\n' "$version" >"$project/CHANGELOG.md"
commit
names() { awk '{print $1}' | sed 's/:$//' | sort -u | tr '\n' ' '; }
branch='assemble binary component component-proof lint runners samples sandbox scan test '
prove 'own pipeline: on a branch, all but the release' is "$(jobs_when push | names)" "$branch"
prove 'own pipeline: on a tag, the release too' is "$(jobs_when push --variable "CI_COMMIT_TAG=$version" | names)" \
  "$(tr " " "\n" <<<"${branch}promote release sign version" | sort | tr "\n" " ")"
prove 'own pipeline: on a tag that is no version, no release' is "$(jobs_when push --variable CI_COMMIT_TAG=nightly | names)" "$branch"
prove 'own pipeline: the component is that of its own commit' grep -q "^component:" <(expanded)
prove 'own pipeline: the tag of this version passes' pipeline push --variable "CI_COMMIT_TAG=$version" version
prove 'own pipeline: the release notes are its section of the changelog' \
  is "$(grep . "$project/.gitlab-ci-local/artifacts/version/notes.md")" '- This'
prove 'own pipeline: the tag of another version does not pass' fails pipeline push --variable CI_COMMIT_TAG=9.9.9 version

# --- the program, in the fake ----------------------------------------------------------------------------

if [ -n "$program_under_test" ]; then
  : "${SANDBOX:?the example that serves the fake}"
  program=$work/real
  mkdir -p "$program"
  PROGRAM=$(realpath "$program_under_test")
  export PROGRAM CONTROL
  cat >"$program/credential-rotator" <<'REAL'
#!/bin/sh
# The fake sets what GitLab sets when a runner takes the job; the rest comes from the pipeline.
set -eu
environment=$(curl -fsS -G "$CONTROL/job" --data-urlencode "name=$CI_JOB_NAME" --data-urlencode "pipeline=$CI_PIPELINE_IID")
eval "$environment"
status=0
"$PROGRAM" || status=$?
curl -fsS "$CONTROL/end?job=$CI_JOB_ID&exit=$status"
exit "$status"
REAL
  chmod +x "$program/credential-rotator"
  new_fake() { # SCENARIO
    [ -z "$fake" ] || kill "$fake" 2>/dev/null || true
    rm -rf "$work/fake"
    mkdir -p "$work/fake"
    "$SANDBOX" "$1" "$work/fake" &
    fake=$!
    for _ in $(seq 100); do
      [ ! -s "$work/fake/control" ] || break
      sleep 0.1
    done
    CONTROL=$(cat "$work/fake/control")
  }
  fake_is() { # JQ: true of what there is now
    curl -fsS "$CONTROL/state" >"$work/state"
    jq -e "def count(\$name): .actions[\$name] // 0; $1" "$work/state" >/dev/null || { jq -c . "$work/state"; return 1; }
  }
  outcome_is() { is "$(jq -r .outcome "$project/.gitlab-ci-local/artifacts/$1/credential-rotator.json")" "$2"; }

  daily=(--variable 'CI_PIPELINE_SCHEDULE_DESCRIPTION=Rotate the AWS key')
  new_fake in-project
  project in-project shop
  old=$(curl -fsS "$CONTROL/state" | jq -r '.projects["42"].named')
  prove 'fake, in-project: a push runs' pipeline push
  prove 'fake, in-project: ...and the fake hears nothing of it' fake_is '.actions == {}'
  prove 'fake, in-project: by hand with dry_run' pipeline web --input dry_run=true
  prove 'fake, in-project: ...changes nothing' fake_is \
    "(.actions | keys | all(test(\"^(GET |iam:(List|Get)|sts:)\"))) and .projects[\"42\"].named == \"$old\""
  prove 'fake, in-project: ...and says so' outcome_is rotate-key dry_run
  prove 'fake, in-project: the schedule runs' pipeline schedule "${daily[@]}"
  prove 'fake, in-project: one key was made' fake_is 'count("iam:CreateAccessKey") == 1 and (.keys["svc-shop"] | length == 2)'
  prove 'fake, in-project: the variables name it' fake_is ".projects[\"42\"].named != \"$old\""
  prove 'fake, in-project: one deploy was started, and went well' fake_is \
    '[.projects["42"].pipelines[] | select(.source == "api") | .status] == ["success"]'
  prove 'fake, in-project: production runs with it' fake_is '.projects["42"] | .runs.production == .named'
  prove 'fake, in-project: the old key is still active' fake_is ".keys[\"svc-shop\"] | any(.id == \"$old\" and .active)"
  prove 'fake, in-project: the schedule runs again' pipeline schedule "${daily[@]}"
  prove 'fake, in-project: ...and waits for the overlap' outcome_is rotate-key waiting
  prove 'fake, in-project: ...so there is no second key, and no second deploy' fake_is \
    'count("iam:CreateAccessKey") == 1 and ([.projects["42"].pipelines[] | select(.source == "api")] | length == 1)'
  second=$(curl -fsS "$CONTROL/state" | jq -r '.projects["42"].named')
  no_waits=(--variable ROTATOR_OVERLAP=0s --variable ROTATOR_GRACE_PERIOD=0s)
  prove 'fake, in-project: by hand with force, the first rotation waits' fails pipeline web --input force=true
  prove 'fake, in-project: ...so it is refused' outcome_is rotate-key refused
  prove 'fake, in-project: by hand with force, and without waits' pipeline web --input force=true "${no_waits[@]}"
  prove 'fake, in-project: ...the first rotation is ended' fake_is ".keys[\"svc-shop\"] | all(.id != \"$old\")"
  prove 'fake, in-project: ...and a new key is made and deployed' fake_is \
    ".projects[\"42\"] | .named != \"$second\" and .runs.production == .named"
  prove 'fake, in-project: the fake saw no invariant broken' fake_is '.violations == []'

  new_fake central
  project central rotator
  # The fake has all roles in one account.
  sed -i 's,111111111111:role/credential-rotator,123456789012:role/rotator-one,; s,222222222222:role/credential-rotator,123456789012:role/rotator-two,' \
    "$project/.gitlab-ci.yml"
  commit
  prove 'fake, central: a push runs nothing' is "$(jobs_when push)" ''
  prove 'fake, central: the schedule runs' pipeline schedule "${daily[@]}"
  prove 'fake, central: three jobs' is "$(wc -l <<<"$ran")" 3
  prove 'fake, central: each user has a new key' fake_is '[.keys[] | length] == [2, 2, 2]'
  prove 'fake, central: each job took its role' fake_is 'count("sts:AssumeRoleWithWebIdentity") >= 3'
  prove 'fake, central: each project runs with what it names' fake_is '.projects | all(.runs.production == .named)'
  prove 'fake, central: both projects of a user have the same key' fake_is '.projects["44"].named == .projects["45"].named'
  prove 'fake, central: each environment was deployed again, by no new pipeline' fake_is \
    '[.projects[].pipelines[] | select(.source == "api")] == [] and count("POST /projects/:id/jobs/:number/retry") == 4'
  prove 'fake, central: the schedule runs again' pipeline schedule "${daily[@]}"
  prove 'fake, central: ...and makes no key' fake_is 'count("iam:CreateAccessKey") == 3'
  prove 'fake, central: the fake saw no invariant broken' fake_is '.violations == []'

  daily=(--variable 'CI_PIPELINE_SCHEDULE_DESCRIPTION=Rotate the AWS key and deploy')
  new_fake stages
  project stages shop
  old=$(curl -fsS "$CONTROL/state" | jq -r '.projects["42"].named')
  prove 'fake, stages: the schedule runs' pipeline schedule "${daily[@]}"
  prove 'fake, stages: rotate, deploy, retire' is "$ran" "$(lines build deploy retire-key rotate-key)"
  prove 'fake, stages: the pipeline deployed with the new key' fake_is \
    ".projects[\"42\"] | .named != \"$old\" and .runs.production == .named"
  prove 'fake, stages: no other pipeline was started' fake_is '[.projects["42"].pipelines[] | select(.source == "api")] == []'
  prove 'fake, stages: the second job saw it proven' outcome_is retire-key resumed
  prove 'fake, stages: the schedule runs again' pipeline schedule "${daily[@]}"
  prove 'fake, stages: ...and makes no key' fake_is 'count("iam:CreateAccessKey") == 1'
  prove 'fake, stages: by hand with force, the first rotation waits' fails pipeline web --input force=true
  prove 'fake, stages: ...so it is refused' outcome_is rotate-key refused
  prove 'fake, stages: by hand with force, and without waits' pipeline web --input force=true "${no_waits[@]}"
  prove 'fake, stages: ...the first rotation is ended' fake_is ".keys[\"svc-shop\"] | all(.id != \"$old\")"
  prove 'fake, stages: the fake saw no invariant broken' fake_is '.violations == []'
fi

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
