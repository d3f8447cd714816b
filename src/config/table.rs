//! The table of variables: names, defaults and meanings. `--help` and the parser read it. The tests
//! compare docs/reference.md and the inputs of the components with it.
//!
//! To add a variable, add:
//! 1. a row here;
//! 2. a field of `Raw` in `env.rs`;
//! 3. a field of `Config` and the line of `Config::from_env` in `config.rs` that reads it, and its
//!    cross-checks in `parts.rs`;
//! 4. an input, and the variable that passes it on, in both files of `templates/`;
//! 5. its row in docs/reference.md (`table_markdown` prints the table) and a case in tests/config.rs.

/// How the names of all our variables begin.
pub(super) const PREFIX: &str = "ROTATOR_";

pub struct Variable {
    pub name: &'static str,
    /// Written as the parser reads it, or in words where the default is not a fixed value.
    pub default: &'static str,
    pub meaning: &'static str,
}

pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "ROTATOR_ACTION",
        default: "rotate",
        meaning: "`rotate`, `retire` (finish after the pipeline's own deploy), `setup` (make the \
            first key) or `check` (look only; fails where a key is too old or a rotation would not \
            end well).",
    },
    Variable {
        name: "ROTATOR_GITLAB_TOKEN",
        default: "required",
        meaning: "GitLab token with the scope `api` and the role Maintainer on each target (Owner \
            for groups). A job token cannot write variables.",
    },
    Variable {
        name: "ROTATOR_GITLAB_API_URL",
        default: "$CI_API_V4_URL, else gitlab.com",
        meaning: "GitLab's API, such as `https://gitlab.example.com/api/v4`. Plain http is refused \
            except on loopback.",
    },
    Variable {
        name: "ROTATOR_GITLAB_CA_FILE",
        default: "$CI_SERVER_TLS_CA_FILE",
        meaning: "File of PEM certificates to trust in addition to the public ones.",
    },
    Variable {
        name: "ROTATOR_IAM_USER",
        default: "the owner of the credentials in use",
        meaning: "Name of the IAM user whose key is rotated; needed with a role.",
    },
    Variable {
        name: "ROTATOR_AWS_ROLE_ARN",
        default: "unset",
        meaning: "Role to assume with the job's ID token, then each further one of the comma \
            separated list. Keys in the environment are not used then.",
    },
    Variable {
        name: "ROTATOR_AWS_ID_TOKEN",
        default: "unset",
        meaning: "The ID token for the first role, from `id_tokens:` of the job. Without a role it \
            means nothing.",
    },
    Variable {
        name: "ROTATOR_TARGETS",
        default: "project:$CI_PROJECT_ID",
        meaning: "Where the pair is published: `project:ID-or-path[@scope]` or \
            `group:ID-or-path[@scope]`, comma separated. The scope is `*` unless given; the first \
            one keeps the records. A project or group under two names is one.",
    },
    Variable {
        name: "ROTATOR_KEY_ID_VARIABLE",
        default: "AWS_ACCESS_KEY_ID",
        meaning: "Name of the GitLab variable that holds the key id.",
    },
    Variable {
        name: "ROTATOR_SECRET_VARIABLE",
        default: "AWS_SECRET_ACCESS_KEY",
        meaning: "Name of the GitLab variable that holds the secret.",
    },
    Variable {
        name: "ROTATOR_PROTECTED",
        default: "auto",
        meaning: "Whether `setup` makes the variables protected: `true`, `false` or `auto` (as the \
            branch it runs on). Existing ones keep their flag.",
    },
    Variable {
        name: "ROTATOR_HIDDEN",
        default: "false",
        meaning: "Whether `setup` makes the secret hidden in GitLab. An existing one stays as it \
            is.",
    },
    Variable {
        name: "ROTATOR_ROTATE_AFTER",
        default: "60d",
        meaning: "Age at which a key is replaced. Longer than overlap and grace period together.",
    },
    Variable {
        name: "ROTATOR_MAX_AGE",
        default: "90d",
        meaning: "Age at which `check` fails; nothing else reads it.",
    },
    Variable {
        name: "ROTATOR_FORCE",
        default: "false",
        meaning: "Rotate now, whatever the age; shortens no wait.",
    },
    Variable {
        name: "ROTATOR_DRY_RUN",
        default: "false",
        meaning: "Look at all that a rotation needs, print the plan, change nothing.",
    },
    Variable {
        name: "ROTATOR_DEPLOY",
        default: "pipeline",
        meaning: "How the new key reaches production: `pipeline` or `pipeline@REF` (start one), \
            `environment/NAME` (run the jobs of its latest deployment again) or `none` (the \
            pipeline deploys by itself, then `retire`).",
    },
    Variable {
        name: "ROTATOR_DEPLOY_PROJECTS",
        default: "the project targets",
        meaning: "Where to deploy: ids or paths, comma separated. Needed when all targets are \
            groups.",
    },
    Variable {
        name: "ROTATOR_DEPLOY_INPUTS",
        default: "unset",
        meaning: "JSON object of inputs for each pipeline; only with `pipeline`.",
    },
    Variable {
        name: "ROTATOR_DEPLOY_VARIABLES",
        default: "unset",
        meaning: "JSON object of variables for each pipeline; only with `pipeline`. New GitLab \
            namespaces refuse them; prefer inputs.",
    },
    Variable {
        name: "ROTATOR_DEPLOY_JOBS",
        default: "unset",
        meaning: "Jobs that deploy, comma separated: their success alone is the proof. Unset: every \
            job of the pipeline counts, or each job that deployed to the environment in its live \
            pipeline. With `none`, only `retire` takes them.",
    },
    Variable {
        name: "ROTATOR_DEPLOY_TIMEOUT",
        default: "1h",
        meaning: "How long this run waits for the deploy. Then both keys stay and the next run \
            goes on. `0s`: start it and do not wait.",
    },
    Variable {
        name: "ROTATOR_OVERLAP",
        default: "12h",
        meaning: "How long the old key stays active after the deploy. `0s`: it is disabled at \
            once, even if something still uses it.",
    },
    Variable {
        name: "ROTATOR_GRACE_PERIOD",
        default: "7d",
        meaning: "How long the old key then stays disabled before it is deleted. Whole days are \
            over an hour early, because a daily job does not start at the same second each day.",
    },
    Variable {
        name: "ROTATOR_VERIFY_TIMEOUT",
        default: "2m",
        meaning: "How long a new key may take until AWS accepts it everywhere.",
    },
    Variable {
        name: "ROTATOR_HTTP_TIMEOUT",
        default: "30s",
        meaning: "How long one request may take.",
    },
    Variable {
        name: "ROTATOR_REPORT",
        default: "unset",
        meaning: "File to write a JSON report to.",
    },
    Variable {
        name: "ROTATOR_DOTENV",
        default: "unset",
        meaning: "File to write for `artifacts:reports:dotenv`.",
    },
    Variable {
        name: "ROTATOR_ANNOTATIONS",
        default: "unset",
        meaning: "File to write for `artifacts:reports:annotations`: links on the job's page.",
    },
    Variable {
        name: "ROTATOR_LOG",
        default: "info",
        meaning: "How much to log: `error`, `warn`, `info`, `debug`, `trace` or `off`.",
    },
];

/// What `--help` prints.
pub(super) fn help() -> String {
    let mut text = String::from(
        "Rotates the access key of an IAM user and the GitLab variables that hold it.\n\n\
         Usage: credential-rotator [--help | --version]\n\n\
         Everything else comes from environment variables; an empty one counts as unset.\n\
         Durations are written like 90d, 12h or 30s.\n",
    );
    for Variable { name, default, meaning } in VARIABLES {
        text += &format!("\n  {name} [{default}]\n      {}\n", meaning.replace('`', ""));
    }
    text
}

/// The rows of [`VARIABLES`] as docs/reference.md shows them.
pub fn table_markdown() -> String {
    let mut text = String::from("| variable | default | meaning |\n| --- | --- | --- |\n");
    for Variable { name, default, meaning } in VARIABLES {
        let in_words = default.contains(' ') || ["required", "unset"].contains(default);
        let default = if in_words { (*default).to_owned() } else { format!("`{default}`") };
        text += &format!("| `{name}` | {default} | {meaning} |\n");
    }
    text
}

/// # Panics
/// Where the name is none of the table: a mistake in this module, which every test would meet.
pub(super) fn default_of(name: &str) -> &'static str {
    let row = VARIABLES.iter().find(|row| row.name == name);
    row.expect("every variable that is read is a row of the table").default
}
