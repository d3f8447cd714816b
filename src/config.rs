//! The environment, parsed: everything that configures a run, or every error about it at once.
//!
//! House rules:
//! - [`Config::from_env`] is pure: it looks at what it is given, never at the process, the disk or
//!   the network.
//! - [`VARIABLES`] is the one place that knows names, defaults and meanings; `--help`, the README
//!   and the parser read it.
//! - A error names its variable and says what would be right. Values are quoted with `{:?}`,
//!   and all errors leave through [`Reader::finish`], which takes out whatever is secret:
//!   people paste tokens into the wrong field.
//! - Parse into the type, then cross-check what parsed. Nothing stops at the first mistake.

use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;
use url::Url;

mod read;
mod values;

use read::{Aws, Ci, Raw, Reader, job, section};
use values::{action, boolean, level, protected, user_name, variable_name};

/// What a run is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Rotate,
    Retire,
    Setup,
    Check,
}

/// A project or group by numeric id or full path. `Display` shows it as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Id(u64),
    Path(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Project(Name),
    Group(Name),
}

/// One place where the pair is published. `Display`: `project:42@production` (no `@` for scope
/// `*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub owner: Owner,
    /// The environment scope, `*` unless given.
    pub scope: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeployMode {
    /// A new pipeline; without a ref: the branch of this job in its own project, else the default
    /// branch.
    Pipeline { branch: Option<String> },
    /// Retry the latest successful deployment's job of this environment.
    Environment(String),
    /// The pipeline's own deploy, proven by `retire`.
    None,
}

/// `Debug` shows only the names of inputs and variables.
pub struct Deploy {
    pub mode: DeployMode,
    pub projects: Vec<Name>,
    /// Sent only where not empty.
    pub inputs: Map<String, Value>,
    /// Sent only where not empty.
    pub variables: Vec<(String, String)>,
    pub jobs: Vec<String>,
    pub timeout: SignedDuration,
}

/// Who signs the calls to IAM.
#[derive(Debug)]
pub enum CredentialSource {
    /// The SDK's default chain.
    Environment,
    /// Web identity for the first role, `AssumeRole` for each further one.
    Roles { arns: Vec<String>, id_token: SecretString },
}

#[derive(Debug)]
pub struct CaFile {
    pub path: PathBuf,
    /// Named by the user: a file that cannot be used is an error. The runner's default is used as
    /// far as it can be read.
    pub named: bool,
}

/// What GitLab says of the job that this run is, as far as it is one.
#[derive(Debug, Default)]
pub struct Job {
    pub id: Option<u64>,
    pub project: Option<u64>,
    pub project_path: Option<String>,
    pub pipeline: Option<u64>,
    pub pipeline_source: Option<String>,
    pub pipeline_created_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub timeout: Option<SignedDuration>,
    pub branch: Option<String>,
    pub ref_protected: Option<bool>,
    pub environment: Option<String>,
    pub url: Option<String>,
}

#[derive(Debug)]
pub struct Config {
    pub action: Action,
    pub force: bool,
    pub dry_run: bool,
    pub gitlab_url: Url,
    pub gitlab_token: SecretString,
    pub gitlab_ca: Option<CaFile>,
    pub iam_user: Option<String>,
    pub credential_source: CredentialSource,
    /// Set where the environment names none (`us-east-1`, or the one of the role's partition).
    pub region: String,
    pub targets: Vec<Target>,
    pub key_id_variable: String,
    pub secret_variable: String,
    /// `None`: as the ref of this job.
    pub protected: Option<bool>,
    pub hidden: bool,
    pub rotate_after: SignedDuration,
    pub max_age: SignedDuration,
    pub overlap: SignedDuration,
    pub grace_period: SignedDuration,
    pub deploy: Deploy,
    pub verify_timeout: Duration,
    pub http_timeout: Duration,
    pub report: Option<PathBuf>,
    pub dotenv: Option<PathBuf>,
    pub annotations: Option<PathBuf>,
    /// Filter for our own target.
    pub log: LevelFilter,
    pub job: Job,
}

/// Everything that is wrong with the environment. `Display` is one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub variable: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// A row of the table behind `--help` and the README.
pub struct Variable {
    pub name: &'static str,
    /// As the parser reads it, where it is a value; else in words.
    pub default: &'static str,
    pub meaning: &'static str,
}

#[rustfmt::skip]
pub const VARIABLES: &[Variable] = &[
    row("ROTATOR_ACTION", "rotate", "`rotate`, `retire` (finish after the pipeline's own deploy), \
         `setup` (make the first key) or `check` (look only; fails where a key is too old)."),
    row("ROTATOR_GITLAB_TOKEN", "required", "GitLab token with the scope `api` and the role \
         Maintainer on each target (Owner for groups). A job token cannot write variables."),
    row("ROTATOR_GITLAB_API_URL", "$CI_API_V4_URL, else gitlab.com", "GitLab's API, such as \
         `https://gitlab.example.com/api/v4`. Plain http is refused except on loopback."),
    row("ROTATOR_GITLAB_CA_FILE", "$CI_SERVER_TLS_CA_FILE", "File of PEM certificates to trust in \
         addition to the public ones."),
    row("ROTATOR_IAM_USER", "the owner of the credentials in use", "Name of the IAM user whose key \
         is rotated; needed with a role."),
    row("ROTATOR_AWS_ROLE_ARN", "unset", "Role to assume with the job's ID token, then each \
         further one of the comma separated list. Keys in the environment are not used then."),
    row("ROTATOR_AWS_ID_TOKEN", "unset", "The ID token for the first role, from `id_tokens:` of \
         the job. Without a role it means nothing."),
    row("ROTATOR_TARGETS", "project:$CI_PROJECT_ID", "Where the pair is published: \
         `project:ID-or-path[@scope]` or `group:ID-or-path[@scope]`, comma separated. The scope is \
         `*` unless given; the first one keeps the records."),
    row("ROTATOR_KEY_ID_VARIABLE", "AWS_ACCESS_KEY_ID", "Name of the GitLab variable that holds \
         the key id."),
    row("ROTATOR_SECRET_VARIABLE", "AWS_SECRET_ACCESS_KEY", "Name of the GitLab variable that \
         holds the secret."),
    row("ROTATOR_PROTECTED", "auto", "Whether `setup` makes the variables protected: `true`, \
         `false` or `auto` (as the branch it runs on). Existing ones keep their flag."),
    row("ROTATOR_HIDDEN", "false", "Whether `setup` makes the secret hidden in GitLab. An existing \
         one stays as it is."),
    row("ROTATOR_ROTATE_AFTER", "60d", "Age at which a key is replaced. Longer than overlap and \
         grace period together."),
    row("ROTATOR_MAX_AGE", "90d", "Age at which `check` fails."),
    row("ROTATOR_FORCE", "false", "Rotate now, whatever the age; also cuts overlap and grace \
         period short once everything is deployed."),
    row("ROTATOR_DRY_RUN", "false", "Print the plan and change nothing."),
    row("ROTATOR_DEPLOY", "pipeline", "How the new key reaches production: `pipeline` or \
         `pipeline@REF` (start one), `environment/NAME` (retry its latest successful deployment) \
         or `none` (the pipeline deploys by itself, then `retire`)."),
    row("ROTATOR_DEPLOY_PROJECTS", "the project targets", "Where to deploy: ids or paths, comma \
         separated. Needed when all targets are groups."),
    row("ROTATOR_DEPLOY_INPUTS", "unset", "JSON object of inputs for each pipeline."),
    row("ROTATOR_DEPLOY_VARIABLES", "unset", "JSON object of variables for each pipeline. New \
         GitLab namespaces refuse them; prefer inputs."),
    row("ROTATOR_DEPLOY_JOBS", "unset", "Jobs that must have succeeded, comma separated. Unset: \
         every job of the pipeline."),
    row("ROTATOR_DEPLOY_TIMEOUT", "1h", "How long this run waits for the deploy. Then both keys \
         stay and the next run goes on. `0s`: start it and do not wait."),
    row("ROTATOR_OVERLAP", "12h", "How long the old key stays active after the deploy. `0s`: it is \
         disabled at once, whoever may still use it."),
    row("ROTATOR_GRACE_PERIOD", "7d", "How long the old key then stays disabled before it is \
         deleted. Whole days are over an hour early, for a daily job is not punctual."),
    row("ROTATOR_VERIFY_TIMEOUT", "2m", "How long a new key may take until AWS accepts it \
         everywhere."),
    row("ROTATOR_HTTP_TIMEOUT", "30s", "How long one request may take."),
    row("ROTATOR_REPORT", "unset", "File to write a JSON report to."),
    row("ROTATOR_DOTENV", "unset", "File to write for `artifacts:reports:dotenv`."),
    row("ROTATOR_ANNOTATIONS", "unset", "File to write for `artifacts:reports:annotations`: links \
         on the job's page."),
    row("ROTATOR_LOG", "info", "How much to log: `error`, `warn`, `info`, `debug`, `trace` or \
         `off`."),
];

const PREFIX: &str = "ROTATOR_";
const ONE_SECOND: SignedDuration = SignedDuration::from_secs(1);
const TEN_YEARS: SignedDuration = SignedDuration::from_hours(24 * 3653);

type Range = RangeInclusive<SignedDuration>;
const VERIFY_TIMEOUT: Range = SignedDuration::from_secs(10)..=SignedDuration::from_mins(30);
const HTTP_TIMEOUT: Range = ONE_SECOND..=SignedDuration::from_mins(1);

impl Config {
    /// Whether the pair is published in this scope of this project or group.
    pub fn is_target(&self, owner: &Owner, scope: &str) -> bool {
        self.targets.iter().any(|target| target.owner == *owner && target.scope == scope)
    }

    /// Reads the given variables, as `std::env::vars_os()` gives them; empty ones count as unset.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once; see [`Complaint`].
    pub fn from_env(
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigErrors> {
        let mut read = Reader::default();
        let vars = read.texts(vars);
        let raw: Raw = section(&vars, PREFIX);
        let ci: Ci = section(&vars, "CI_");
        let aws: Aws = section(&vars, "AWS_");
        read.hide(&raw, &ci, &aws);
        for name in raw.unknown.keys() {
            read.unknown(&format!("{PREFIX}{}", name.to_uppercase()));
        }

        let job = job(&ci);
        let action = read.value("ROTATOR_ACTION", &raw.action, action);
        let gitlab_token = read.token(&raw.gitlab_token, &ci.job_token);
        let gitlab_url = read.gitlab_url(&raw.gitlab_api_url, &ci.api_v4_url);
        let gitlab_ca = read.gitlab_ca(&raw.gitlab_ca_file, ci.server_tls_ca_file);
        let iam_user = read.optional("ROTATOR_IAM_USER", &raw.iam_user, user_name);
        let (credential_source, region) = read.credential_source(&raw, &aws);
        let targets = read.targets(&raw.targets, job.project);
        let key_id_variable =
            read.value("ROTATOR_KEY_ID_VARIABLE", &raw.key_id_variable, variable_name);
        let secret_variable =
            read.value("ROTATOR_SECRET_VARIABLE", &raw.secret_variable, variable_name);
        if key_id_variable.is_some() && key_id_variable == secret_variable {
            read.reject(
                "ROTATOR_SECRET_VARIABLE",
                "is the same as ROTATOR_KEY_ID_VARIABLE; the pair needs two variables",
            );
        }
        let protected = read.value("ROTATOR_PROTECTED", &raw.protected, protected);
        let hidden = read.value("ROTATOR_HIDDEN", &raw.hidden, boolean);
        let force = read.value("ROTATOR_FORCE", &raw.force, boolean);
        let dry_run = read.value("ROTATOR_DRY_RUN", &raw.dry_run, boolean);

        let (any, some) = (SignedDuration::ZERO..=TEN_YEARS, ONE_SECOND..=TEN_YEARS);
        let rotate_after = read.duration("ROTATOR_ROTATE_AFTER", &raw.rotate_after, &some);
        let max_age = read.duration("ROTATOR_MAX_AGE", &raw.max_age, &some);
        let overlap = read.duration("ROTATOR_OVERLAP", &raw.overlap, &any);
        let grace_period = read.duration("ROTATOR_GRACE_PERIOD", &raw.grace_period, &any);
        read.ages_fit(rotate_after, max_age, overlap, grace_period);
        let verify_timeout =
            read.duration("ROTATOR_VERIFY_TIMEOUT", &raw.verify_timeout, &VERIFY_TIMEOUT);
        let http_timeout = read.duration("ROTATOR_HTTP_TIMEOUT", &raw.http_timeout, &HTTP_TIMEOUT);

        let deploy = read.deploy(&raw, targets.as_deref());
        let mode = deploy.as_ref().map(|deploy| &deploy.mode);
        if action == Some(Action::Retire) {
            read.retire_fits(mode, raw.deploy_jobs.is_some(), &job);
        }
        for (name, _) in deploy.iter().flat_map(|deploy| &deploy.variables) {
            if [&key_id_variable, &secret_variable].contains(&&Some(name.clone())) {
                read.reject(
                    "ROTATOR_DEPLOY_VARIABLES",
                    format!("{name} would outrank the rotated one in the deploy; leave it out"),
                );
            }
        }
        let [report, dotenv, annotations] =
            read.files([&raw.report, &raw.dotenv, &raw.annotations].map(Clone::clone));
        let log = read.value("ROTATOR_LOG", &raw.log, level);
        read.misplaced(&vars, &raw, &aws);

        // A part is missing only where something was reported.
        let config = || {
            Some(Self {
                action: action?,
                force: force?,
                dry_run: dry_run?,
                gitlab_url: gitlab_url?,
                gitlab_token: gitlab_token?,
                gitlab_ca,
                iam_user,
                credential_source: credential_source?,
                region: region?,
                targets: targets?,
                key_id_variable: key_id_variable?,
                secret_variable: secret_variable?,
                protected: protected?,
                hidden: hidden?,
                rotate_after: rotate_after?,
                max_age: max_age?,
                overlap: overlap?,
                grace_period: grace_period?,
                deploy: deploy?,
                verify_timeout: verify_timeout?.unsigned_abs(),
                http_timeout: http_timeout?.unsigned_abs(),
                report,
                dotenv,
                annotations,
                log: log?,
                job,
            })
        };
        match config() {
            Some(config) if read.errors.is_empty() => Ok(config),
            _ => Err(read.finish()),
        }
    }

    /// What `--help` prints.
    pub fn help() -> String {
        let mut text = String::from(
            "Rotates the IAM access key of a service account and the GitLab variables that hold it.\n\n\
             Usage: credential-rotator [--help | --version]\n\n\
             Everything else comes from environment variables; an empty one counts as unset.\n\
             Durations are written like 90d, 12h or 30s.\n",
        );
        for Variable { name, default, meaning } in VARIABLES {
            text += &format!("\n  {name} [{default}]\n      {}\n", meaning.replace('`', ""));
        }
        text
    }
}

/// The rows of [`VARIABLES`] as the README shows them.
pub fn table_markdown() -> String {
    let mut text = String::from("| variable | default | meaning |\n| --- | --- | --- |\n");
    for Variable { name, default, meaning } in VARIABLES {
        let in_words = default.contains(' ') || ["required", "unset"].contains(default);
        let default = if in_words { (*default).to_owned() } else { format!("`{default}`") };
        text += &format!("| `{name}` | {default} | {meaning} |\n");
    }
    text
}

const fn row(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rotate => "rotate",
            Self::Retire => "retire",
            Self::Setup => "setup",
            Self::Check => "check",
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Path(path) => f.write_str(path),
        }
    }
}

impl Name {
    /// Whether this names what has this id and this path.
    pub fn is(&self, id: u64, path: &str) -> bool {
        match self {
            Self::Id(named) => *named == id,
            Self::Path(named) => named.eq_ignore_ascii_case(path),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project(name) => write!(f, "project:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope.as_str() {
            "*" => write!(f, "{}", self.owner),
            scope => write!(f, "{}@{scope}", self.owner),
        }
    }
}

impl fmt::Debug for Deploy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.variables.iter().map(|(name, _)| name).collect();
        f.debug_struct("Deploy")
            .field("mode", &self.mode)
            .field("projects", &self.projects)
            .field("inputs", &self.inputs.keys())
            .field("variables", &names)
            .field("jobs", &self.jobs)
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.message)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_fields_and_the_table_are_the_same_names() {
        let raw = serde_json::to_value(Raw::default()).expect("plain strings");
        let mut fields: Vec<_> = raw
            .as_object()
            .expect("a struct")
            .keys()
            .map(|field| format!("{PREFIX}{}", field.to_uppercase()))
            .collect();
        let mut table: Vec<_> = VARIABLES.iter().map(|variable| variable.name.to_owned()).collect();
        fields.sort();
        table.sort();
        assert_eq!(fields, table);
    }
}
