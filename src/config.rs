//! The environment, parsed: everything that configures a run, or every complaint about it at once.
//!
//! House rules:
//! - [`Config::from_env`] is pure: it looks at what it is given, never at the process, the disk or the network.
//! - [`VARIABLES`] is the one place that knows names, defaults and meanings; `--help`, the README and the parser
//!   read it.
//! - A complaint names its variable and says what would be right. Values are quoted with `{:?}`, and all complaints
//!   leave through [`Reader::finish`], which takes out whatever is secret: people paste tokens into the wrong field.
//! - Parse into the type, then cross-check what parsed. Nothing stops at the first mistake.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;
use url::{Host, Url};

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

/// One place where the pair is published. `Display`: `project:42@production` (no `@` for scope `*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub owner: Owner,
    /// The environment scope, `*` unless given.
    pub scope: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeployMode {
    /// A new pipeline; without a ref: the branch of this job in its own project, else the default branch.
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
pub enum Signer {
    /// The SDK's default chain.
    Environment,
    /// Web identity for the first role, `AssumeRole` for each further one.
    Roles { arns: Vec<String>, id_token: SecretString },
}

#[derive(Debug)]
pub struct CaFile {
    pub path: PathBuf,
    /// Named by the user: a file that cannot be used is an error. The runner's default is used as far as it can be read.
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
    pub signer: Signer,
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
pub struct Complaints(pub Vec<Complaint>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub variable: String,
    /// What is wrong, and what would be right.
    pub problem: String,
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
    row("ROTATOR_ACTION", "rotate", "`rotate`, `retire` (finish after the pipeline's own deploy), `setup` (make the first key) or `check` (look only; fails where a key is too old)."),
    row("ROTATOR_GITLAB_TOKEN", "required", "GitLab token with the scope `api` and the role Maintainer on each target (Owner for groups). A job token cannot write variables."),
    row("ROTATOR_GITLAB_API_URL", "$CI_API_V4_URL, else gitlab.com", "GitLab's API, such as `https://gitlab.example.com/api/v4`. Plain http is refused except on loopback."),
    row("ROTATOR_GITLAB_CA_FILE", "$CI_SERVER_TLS_CA_FILE", "File of PEM certificates to trust in addition to the public ones."),
    row("ROTATOR_IAM_USER", "the owner of the credentials in use", "Name of the IAM user whose key is rotated; needed with a role."),
    row("ROTATOR_AWS_ROLE_ARN", "unset", "Role to assume with the job's ID token, then each further one of the comma separated list. Keys in the environment are not used then."),
    row("ROTATOR_AWS_ID_TOKEN", "unset", "The ID token for the first role, from `id_tokens:` of the job. Without a role it means nothing."),
    row("ROTATOR_TARGETS", "project:$CI_PROJECT_ID", "Where the pair is published: `project:ID-or-path[@scope]` or `group:ID-or-path[@scope]`, comma separated. The scope is `*` unless given; the first one keeps the records."),
    row("ROTATOR_KEY_ID_VARIABLE", "AWS_ACCESS_KEY_ID", "Name of the GitLab variable that holds the key id."),
    row("ROTATOR_SECRET_VARIABLE", "AWS_SECRET_ACCESS_KEY", "Name of the GitLab variable that holds the secret."),
    row("ROTATOR_PROTECTED", "auto", "Whether `setup` makes the variables protected: `true`, `false` or `auto` (as the branch it runs on). Existing ones keep their flag."),
    row("ROTATOR_HIDDEN", "false", "Whether `setup` makes the secret hidden in GitLab. An existing one stays as it is."),
    row("ROTATOR_ROTATE_AFTER", "60d", "Age at which a key is replaced. Longer than overlap and grace period together."),
    row("ROTATOR_MAX_AGE", "90d", "Age at which `check` fails."),
    row("ROTATOR_FORCE", "false", "Rotate now, whatever the age; also cuts overlap and grace period short once everything is deployed."),
    row("ROTATOR_DRY_RUN", "false", "Print the plan and change nothing."),
    row("ROTATOR_DEPLOY", "pipeline", "How the new key reaches production: `pipeline` or `pipeline@REF` (start one), `environment/NAME` (retry its latest successful deployment) or `none` (the pipeline deploys by itself, then `retire`)."),
    row("ROTATOR_DEPLOY_PROJECTS", "the project targets", "Where to deploy: ids or paths, comma separated. Needed when all targets are groups."),
    row("ROTATOR_DEPLOY_INPUTS", "unset", "JSON object of inputs for each pipeline."),
    row("ROTATOR_DEPLOY_VARIABLES", "unset", "JSON object of variables for each pipeline. New GitLab namespaces refuse them; prefer inputs."),
    row("ROTATOR_DEPLOY_JOBS", "unset", "Jobs that must have succeeded, comma separated. Unset: every job of the pipeline."),
    row("ROTATOR_DEPLOY_TIMEOUT", "1h", "How long this run waits for the deploy. Then both keys stay and the next run goes on. `0s`: start it and do not wait."),
    row("ROTATOR_OVERLAP", "12h", "How long the old key stays active after the deploy. `0s`: it is disabled at once, whoever may still use it."),
    row("ROTATOR_GRACE_PERIOD", "7d", "How long the old key then stays disabled before it is deleted."),
    row("ROTATOR_VERIFY_TIMEOUT", "2m", "How long a new key may take until AWS accepts it everywhere."),
    row("ROTATOR_HTTP_TIMEOUT", "30s", "How long one request may take."),
    row("ROTATOR_REPORT", "unset", "File to write a JSON report to."),
    row("ROTATOR_DOTENV", "unset", "File to write for `artifacts:reports:dotenv`."),
    row("ROTATOR_ANNOTATIONS", "unset", "File to write for `artifacts:reports:annotations`: links on the job's page."),
    row("ROTATOR_LOG", "info", "How much to log: `error`, `warn`, `info`, `debug`, `trace` or `off`."),
];

const PREFIX: &str = "ROTATOR_";
/// Where the records are kept: never a scope to publish to.
const RECORD_SCOPE: &str = "credential-rotator";
const RECORD_PREFIX: &str = "CREDENTIAL_ROTATOR_";
const API_PATH: &str = "/api/v4";
const ONE_SECOND: SignedDuration = SignedDuration::from_secs(1);
const TEN_YEARS: SignedDuration = SignedDuration::from_hours(24 * 3653);

type Range = RangeInclusive<SignedDuration>;
const VERIFY_TIMEOUT: Range = SignedDuration::from_secs(10)..=SignedDuration::from_mins(30);
const HTTP_TIMEOUT: Range = ONE_SECOND..=SignedDuration::from_mins(10);

/// Tokens that can never write a variable. <https://docs.gitlab.com/security/tokens/#token-prefixes>
const USELESS_TOKENS: [(&str, &str); 4] =
    [("glcbt-", "a job token"), ("gldt-", "a deploy token"), ("glrt-", "a runner token"), ("glptt-", "a trigger token")];

/// Partition, prefix of its regions, region where none is set. The last one takes every other region.
const PARTITIONS: [(&str, &str, &str); 4] =
    [("aws-cn", "cn-", "cn-north-1"), ("aws-us-gov", "us-gov-", "us-gov-west-1"), ("aws-eusc", "eusc-", "eusc-de-east-1"), ("aws", "", "us-east-1")];

impl Config {
    /// Reads the given variables, as `std::env::vars_os()` gives them; empty ones count as unset.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once; see [`Complaint`].
    pub fn from_env(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, Complaints> {
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
        let (signer, region) = read.signer(&raw, &aws);
        let targets = read.targets(&raw.targets, job.project);
        let key_id_variable = read.value("ROTATOR_KEY_ID_VARIABLE", &raw.key_id_variable, variable_name);
        let secret_variable = read.value("ROTATOR_SECRET_VARIABLE", &raw.secret_variable, variable_name);
        if key_id_variable.is_some() && key_id_variable == secret_variable {
            read.complain("ROTATOR_SECRET_VARIABLE", "is the same as ROTATOR_KEY_ID_VARIABLE; the pair needs two variables");
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
        let verify_timeout = read.duration("ROTATOR_VERIFY_TIMEOUT", &raw.verify_timeout, &VERIFY_TIMEOUT);
        let http_timeout = read.duration("ROTATOR_HTTP_TIMEOUT", &raw.http_timeout, &HTTP_TIMEOUT);

        let deploy = read.deploy(&raw, targets.as_deref());
        let mode = deploy.as_ref().map(|deploy| &deploy.mode);
        if action == Some(Action::Retire) {
            read.retire_fits(mode, raw.deploy_jobs.is_some(), &job);
        }
        for (name, _) in deploy.iter().flat_map(|deploy| &deploy.variables) {
            if [&key_id_variable, &secret_variable].contains(&&Some(name.clone())) {
                read.complain("ROTATOR_DEPLOY_VARIABLES", format!("{name} would outrank the rotated one in the deploy; leave it out"));
            }
        }
        let [report, dotenv, annotations] = read.files([raw.report, raw.dotenv, raw.annotations]);
        let log = read.value("ROTATOR_LOG", &raw.log, level);

        // A part is missing only where something was complained of.
        let config = || {
            Some(Self {
                action: action?,
                force: force?,
                dry_run: dry_run?,
                gitlab_url: gitlab_url?,
                gitlab_token: gitlab_token?,
                gitlab_ca,
                iam_user,
                signer: signer?,
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
            Some(config) if read.complaints.is_empty() => Ok(config),
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

/// The variables with [`PREFIX`], one field for each row of the table.
#[derive(Deserialize, Default)]
#[cfg_attr(test, derive(serde::Serialize))]
struct Raw {
    action: Option<String>,
    gitlab_token: Option<String>,
    gitlab_api_url: Option<String>,
    gitlab_ca_file: Option<String>,
    iam_user: Option<String>,
    aws_role_arn: Option<String>,
    aws_id_token: Option<String>,
    targets: Option<String>,
    key_id_variable: Option<String>,
    secret_variable: Option<String>,
    protected: Option<String>,
    hidden: Option<String>,
    rotate_after: Option<String>,
    max_age: Option<String>,
    force: Option<String>,
    dry_run: Option<String>,
    deploy: Option<String>,
    deploy_projects: Option<String>,
    deploy_inputs: Option<String>,
    deploy_variables: Option<String>,
    deploy_jobs: Option<String>,
    deploy_timeout: Option<String>,
    overlap: Option<String>,
    grace_period: Option<String>,
    verify_timeout: Option<String>,
    http_timeout: Option<String>,
    report: Option<String>,
    dotenv: Option<String>,
    annotations: Option<String>,
    log: Option<String>,
    #[serde(flatten)]
    unknown: BTreeMap<String, String>,
}

/// <https://docs.gitlab.com/ci/variables/predefined_variables/>
#[derive(Deserialize, Default)]
struct Ci {
    api_v4_url: Option<String>,
    project_id: Option<String>,
    project_path: Option<String>,
    job_id: Option<String>,
    job_token: Option<String>,
    pipeline_id: Option<String>,
    pipeline_source: Option<String>,
    pipeline_created_at: Option<String>,
    job_started_at: Option<String>,
    job_timeout: Option<String>,
    commit_branch: Option<String>,
    commit_ref_protected: Option<String>,
    environment_name: Option<String>,
    job_url: Option<String>,
    server_tls_ca_file: Option<String>,
}

#[derive(Deserialize, Default)]
struct Aws {
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
    region: Option<String>,
    default_region: Option<String>,
}

/// The variables with this prefix. Names are unique and plain, and each field is a string: nothing that envy refuses.
fn section<T: DeserializeOwned + Default>(vars: &BTreeMap<String, String>, prefix: &str) -> T {
    let ours = vars.iter().filter(|(name, _)| is_plain(name, prefix));
    envy::prefixed(prefix).from_iter(ours.map(|(name, value)| (name.clone(), value.clone()))).unwrap_or_default()
}

/// envy lowers the case (a Kelvin sign becomes a `k`) and strips a repeated prefix: what it would take for another name
/// must not reach it.
fn is_plain(name: &str, prefix: &str) -> bool {
    name.is_ascii() && name == name.to_uppercase() && name.strip_prefix(prefix).is_some_and(|rest| !rest.starts_with(prefix))
}

/// Collects complaints while the parts are parsed.
#[derive(Default)]
struct Reader {
    complaints: Vec<Complaint>,
    secrets: Vec<String>,
}

impl Reader {
    fn complain(&mut self, variable: &str, problem: impl Into<String>) {
        self.complaints.push(Complaint { variable: variable.to_owned(), problem: problem.into() });
    }

    /// The only way out: no secret passes.
    fn finish(mut self) -> Complaints {
        self.secrets.sort_by_key(|secret| Reverse(secret.len()));
        for text in self.complaints.iter_mut().flat_map(|complaint| [&mut complaint.variable, &mut complaint.problem]) {
            for secret in &self.secrets {
                *text = text.replace(secret, "[secret]").replace(format!("{secret:?}").trim_matches('"'), "[secret]");
            }
        }
        Complaints(self.complaints)
    }

    fn hide(&mut self, raw: &Raw, ci: &Ci, aws: &Aws) {
        let whole = [
            &raw.gitlab_token,
            &raw.aws_id_token,
            &raw.deploy_variables,
            &ci.job_token,
            &aws.access_key_id,
            &aws.secret_access_key,
            &aws.session_token,
        ];
        let object = raw.deploy_variables.as_deref().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
        let inner = object.into_iter().flatten().filter_map(|(_, value)| value.as_str().map(str::to_owned));
        // What is shorter than a secret can be would only garble the text.
        self.secrets = whole.into_iter().flatten().map(|text| text.trim().to_owned()).chain(inner).filter(|text| text.len() >= 8).collect();
    }

    /// What may concern us, as text, without the empty ones.
    fn texts(&mut self, vars: impl IntoIterator<Item = (OsString, OsString)>) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for (name, value) in vars {
            let name = name.to_string_lossy().into_owned();
            let ours = name.to_uppercase().starts_with(PREFIX);
            let needed = ours || name == "CI_API_V4_URL" || name.starts_with("AWS_");
            match value.into_string() {
                Ok(value) if value.trim().is_empty() => {}
                Ok(_) if ours && !is_plain(&name, PREFIX) => self.unknown(&name),
                Ok(value) => _ = texts.entry(name).or_insert(value),
                Err(_) if needed => self.complain(&name, "is not valid UTF-8; set it again as plain text"),
                Err(_) => {}
            }
        }
        texts
    }

    fn unknown(&mut self, name: &str) {
        let upper = name.to_uppercase();
        let nearest =
            VARIABLES.iter().min_by_key(|known| strsim::damerau_levenshtein(known.name.trim_start_matches(PREFIX), upper.trim_start_matches(PREFIX)));
        let problem = match nearest.map(|known| known.name) {
            Some(known) if known == upper => format!("is not known; names are in capitals: {known}"),
            nearest => format!("is not known; the nearest name is {}", nearest.unwrap_or_default()),
        };
        self.complain(name, problem);
    }

    /// The given value or the table's default. `None`: it was complained of.
    fn value<T>(&mut self, variable: &str, given: &Option<String>, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let default = || VARIABLES.iter().find(|row| row.name == variable).map(|row| row.default.to_owned());
        self.optional(variable, &given.clone().or_else(default), parse)
    }

    /// `None`: unset, or it was complained of.
    fn optional<T>(&mut self, variable: &str, given: &Option<String>, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match parse(given.as_deref()?.trim()) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.complain(variable, problem);
                None
            }
        }
    }

    fn duration(&mut self, variable: &str, given: &Option<String>, range: &Range) -> Option<SignedDuration> {
        self.value(variable, given, |text| duration(text, range))
    }

    fn token(&mut self, given: &Option<String>, job_token: &Option<String>) -> Option<SecretString> {
        let variable = "ROTATOR_GITLAB_TOKEN";
        let Some(text) = given else {
            self.complain(variable, "is needed: a project, group or service account token with the scope api and the role Maintainer");
            return None;
        };
        let kind = USELESS_TOKENS.iter().find(|(prefix, _)| text.starts_with(prefix)).map(|(_, kind)| *kind);
        if let Some(kind) = kind.or_else(|| (given == job_token).then_some("a job token")) {
            let right = "use a project, group or service account token with the scope api";
            self.complain(variable, format!("is {kind}, which cannot write variables; {right}"));
        }
        self.secret(variable, text)
    }

    /// Never trimmed: a secret that is not what was meant is refused, not mended.
    fn secret(&mut self, variable: &str, text: &str) -> Option<SecretString> {
        if text.contains(char::is_whitespace) {
            self.complain(variable, "contains white space or a line break; store the token alone, without any");
        } else if !text.chars().all(|c| c.is_ascii_graphic()) {
            self.complain(variable, "contains a character that no token has; copy it again");
        } else {
            return Some(SecretString::from(text));
        }
        None
    }

    /// A bad predefined address is not passed over: the token would go to another server.
    fn gitlab_url(&mut self, given: &Option<String>, predefined: &Option<String>) -> Option<Url> {
        match (given, predefined) {
            (None, Some(_)) => self.optional("CI_API_V4_URL", predefined, api_url),
            (None, None) => api_url("https://gitlab.com/api/v4").ok(),
            (Some(_), _) => self.optional("ROTATOR_GITLAB_API_URL", given, api_url),
        }
    }

    fn gitlab_ca(&mut self, given: &Option<String>, predefined: Option<String>) -> Option<CaFile> {
        if given.is_some() {
            return self.optional("ROTATOR_GITLAB_CA_FILE", given, ca_file).map(|path| CaFile { path, named: true });
        }
        predefined.map(|path| CaFile { path: path.into(), named: false })
    }

    /// Who signs, and the region; `None` each where it was complained of.
    fn signer(&mut self, raw: &Raw, aws: &Aws) -> (Option<Signer>, Option<String>) {
        let variable = if aws.region.is_some() { "AWS_REGION" } else { "AWS_DEFAULT_REGION" };
        let given = aws.region.clone().or_else(|| aws.default_region.clone());
        let region = self.optional(variable, &given, region_name);
        // A region that was complained of gets no default.
        let or_default = |region: Option<String>, partition| match given {
            None => PARTITIONS.iter().find(|(name, ..)| *name == partition).map(|(.., region)| (*region).to_owned()),
            Some(_) => region,
        };
        let (roles, id_token) = (&raw.aws_role_arn, &raw.aws_id_token);
        // The components give every job an ID token; without a role to assume it means nothing.
        if roles.is_none() {
            self.environment_pair(aws);
            return (Some(Signer::Environment), or_default(region, "aws"));
        }
        if roles.is_some() && raw.iam_user.is_none() {
            self.complain(
                "ROTATOR_IAM_USER",
                "is needed with ROTATOR_AWS_ROLE_ARN: a role has no key of its own, so name the user whose key is rotated",
            );
        }
        if id_token.is_none() {
            self.complain("ROTATOR_AWS_ID_TOKEN", "is needed with ROTATOR_AWS_ROLE_ARN; declare it under `id_tokens:` of the job");
        }
        let id_token = id_token.as_ref().and_then(|text| self.secret("ROTATOR_AWS_ID_TOKEN", text));
        let Some((partition, arns)) = self.optional("ROTATOR_AWS_ROLE_ARN", roles, role_arns) else {
            return (None, region);
        };
        if let Some(region) = &region
            && partition_of(region) != partition
        {
            let other = partition_of(region);
            self.complain("ROTATOR_AWS_ROLE_ARN", format!("is in the partition {partition}, but {variable} is {region:?}, which is in {other}"));
        }
        (id_token.map(|id_token| Signer::Roles { arns, id_token }), or_default(region, partition))
    }

    fn environment_pair(&mut self, aws: &Aws) {
        let reason = "is it protected, or scoped to an environment that this job does not name?";
        match (&aws.access_key_id, &aws.secret_access_key) {
            (Some(_), None) => self.complain("AWS_SECRET_ACCESS_KEY", format!("is missing, though AWS_ACCESS_KEY_ID is set; {reason}")),
            (None, Some(_)) => self.complain("AWS_ACCESS_KEY_ID", format!("is missing, though AWS_SECRET_ACCESS_KEY is set; {reason}")),
            (Some(id), Some(_)) if id.trim().starts_with("AKIA") && aws.session_token.is_some() => self.complain(
                "AWS_SESSION_TOKEN",
                "is set beside a long-lived key (AKIA…), which has none, so AWS would refuse the pair; remove this leftover",
            ),
            _ => {}
        }
    }

    fn targets(&mut self, given: &Option<String>, project: Option<u64>) -> Option<Vec<Target>> {
        match (given, project) {
            (None, Some(id)) => Some(vec![Target { owner: Owner::Project(Name::Id(id)), scope: "*".to_owned() }]),
            (None, None) => {
                self.complain("ROTATOR_TARGETS", "is needed where CI_PROJECT_ID is not set; write it like project:42 or project:group/name");
                None
            }
            (Some(_), _) => self.optional("ROTATOR_TARGETS", given, targets),
        }
    }

    fn ages_fit(
        &mut self,
        rotate_after: Option<SignedDuration>,
        max_age: Option<SignedDuration>,
        overlap: Option<SignedDuration>,
        grace_period: Option<SignedDuration>,
    ) {
        let Some(rotate_after) = rotate_after else { return };
        if overlap.zip(grace_period).is_some_and(|(overlap, grace)| rotate_after <= overlap + grace) {
            self.complain(
                "ROTATOR_ROTATE_AFTER",
                "must be longer than ROTATOR_OVERLAP and ROTATOR_GRACE_PERIOD together: \
                 the old key has to be gone before the next rotation is due",
            );
        }
        if max_age.is_some_and(|max_age| max_age < rotate_after) {
            self.complain("ROTATOR_MAX_AGE", "must be at least ROTATOR_ROTATE_AFTER, else `check` fails before a rotation is due");
        }
    }

    fn deploy(&mut self, raw: &Raw, targets: Option<&[Target]>) -> Option<Deploy> {
        let mode = self.value("ROTATOR_DEPLOY", &raw.deploy, deploy_mode);
        let projects = self.deploy_projects(&raw.deploy_projects, mode.as_ref(), targets);
        let inputs = self.optional("ROTATOR_DEPLOY_INPUTS", &raw.deploy_inputs, inputs);
        let variables = self.optional("ROTATOR_DEPLOY_VARIABLES", &raw.deploy_variables, variables);
        let jobs = self.optional("ROTATOR_DEPLOY_JOBS", &raw.deploy_jobs, words);
        let timeout = self.duration("ROTATOR_DEPLOY_TIMEOUT", &raw.deploy_timeout, &(SignedDuration::ZERO..=TEN_YEARS));
        let mode = mode?;
        let sent = [("ROTATOR_DEPLOY_INPUTS", inputs.is_some()), ("ROTATOR_DEPLOY_VARIABLES", variables.is_some())];
        for (variable, _) in sent.iter().filter(|(_, given)| *given && !matches!(mode, DeployMode::Pipeline { .. })) {
            self.complain(variable, "can only be sent with a new pipeline; leave it unset, or set ROTATOR_DEPLOY to pipeline");
        }
        Some(Deploy {
            mode,
            projects,
            inputs: inputs.unwrap_or_default(),
            variables: variables.unwrap_or_default(),
            jobs: jobs.unwrap_or_default(),
            timeout: timeout?,
        })
    }

    fn deploy_projects(&mut self, given: &Option<String>, mode: Option<&DeployMode>, targets: Option<&[Target]>) -> Vec<Name> {
        let variable = "ROTATOR_DEPLOY_PROJECTS";
        let nowhere = mode == Some(&DeployMode::None);
        if given.is_some() {
            if nowhere {
                self.complain(variable, "has no use with ROTATOR_DEPLOY=none; leave it unset");
            }
            return self.optional(variable, given, project_names).unwrap_or_default();
        }
        let mut projects: Vec<Name> = Vec::new();
        for target in targets.into_iter().flatten().filter(|_| !nowhere) {
            if let Owner::Project(name) = &target.owner
                && !projects.iter().any(|other| same(name, other))
            {
                projects.push(name.clone());
            }
        }
        if projects.is_empty() && targets.is_some() && mode.is_some() && !nowhere {
            self.complain(variable, "is needed, as every target is a group: name the projects to deploy, or set ROTATOR_DEPLOY to none");
        }
        projects
    }

    fn retire_fits(&mut self, mode: Option<&DeployMode>, jobs_given: bool, job: &Job) {
        if mode.is_some_and(|mode| *mode != DeployMode::None) {
            self.complain("ROTATOR_DEPLOY", "must be none with ROTATOR_ACTION=retire: there the pipeline itself deploys");
        }
        let by_hand = job.id.is_none() || job.pipeline_source.as_deref() == Some("web");
        if !jobs_given && !by_hand {
            self.complain("ROTATOR_DEPLOY_JOBS", "is needed with ROTATOR_ACTION=retire: name the jobs of this pipeline that prove the deploy");
        }
    }

    fn files(&mut self, given: [Option<String>; 3]) -> [Option<PathBuf>; 3] {
        let files = given.map(|path| path.map(|path| PathBuf::from(path.trim())));
        let [report, dotenv, annotations] = &files;
        if dotenv.is_some() && dotenv == report {
            self.complain("ROTATOR_DOTENV", "is the same file as ROTATOR_REPORT; give each its own");
        }
        if annotations.is_some() && [report, dotenv].contains(&annotations) {
            self.complain("ROTATOR_ANNOTATIONS", "is the same file as ROTATOR_REPORT or ROTATOR_DOTENV; give each its own");
        }
        files
    }
}

/// GitLab's own values: what cannot be read is as good as absent.
fn job(ci: &Ci) -> Job {
    let number = |text: &Option<String>| text.as_deref()?.trim().parse().ok();
    let time = |text: &Option<String>| text.as_deref()?.trim().parse().ok();
    let seconds = |seconds| u32::try_from(seconds).ok().map(|seconds| SignedDuration::from_secs(seconds.into()));
    Job {
        id: number(&ci.job_id),
        project: number(&ci.project_id),
        project_path: ci.project_path.clone(),
        pipeline: number(&ci.pipeline_id),
        pipeline_source: ci.pipeline_source.clone(),
        pipeline_created_at: time(&ci.pipeline_created_at),
        started_at: time(&ci.job_started_at),
        timeout: number(&ci.job_timeout).and_then(seconds),
        branch: ci.commit_branch.clone(),
        ref_protected: ci.commit_ref_protected.as_deref().and_then(|text| boolean(text.trim()).ok()),
        environment: ci.environment_name.clone(),
        url: ci.job_url.clone(),
    }
}

fn action(text: &str) -> Result<Action, String> {
    let all = [Action::Rotate, Action::Retire, Action::Setup, Action::Check];
    let found = all.into_iter().find(|action| action.to_string() == text);
    found.ok_or_else(|| format!("{text:?} is not an action; use rotate, retire, setup or check"))
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

fn protected(text: &str) -> Result<Option<bool>, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    boolean(text).map(Some).map_err(|_| format!("{text:?} is not one of auto, true and false"))
}

fn level(text: &str) -> Result<LevelFilter, String> {
    match text.to_ascii_lowercase().as_str() {
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        "off" => Ok(LevelFilter::OFF),
        _ => Err(format!("{text:?} is not a log level; use error, warn, info, debug, trace or off")),
    }
}

/// Days are 24 hours here; months and years have no such length.
fn duration(text: &str, range: &Range) -> Result<SignedDuration, String> {
    let unusable = |_| format!("{text:?} is not a duration; write it like 90d, 12h or 30s");
    let span: Span = text.parse().map_err(unusable)?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(format!("{text:?} has months or years, which differ in length; write it in days, like 90d"));
    }
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(unusable)?;
    if duration.is_negative() {
        return Err(format!("{text:?} is negative; write it like 90d, 12h or 30s"));
    }
    if duration < *range.start() {
        return Err(format!("{text:?} is too short; it must be at least {}s", range.start().as_secs()));
    }
    if duration > *range.end() {
        let most = if *range.end() == TEN_YEARS { "10 years".to_owned() } else { format!("{}m", range.end().as_mins()) };
        return Err(format!("{text:?} is too long; it must be at most {most}"));
    }
    Ok(duration)
}

/// The value may hold a password, so it is shown only once that is known not to be so.
fn api_url(text: &str) -> Result<Url, String> {
    let form = "write it like https://gitlab.example.com/api/v4";
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); {form}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("carries a user name or password; {form}, and give the token in ROTATOR_GITLAB_TOKEN"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("carries a query or fragment (? or #); {form}"));
    }
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        "http" => {
            return Err("is plain http, which would send the token in the clear; use https in ROTATOR_GITLAB_API_URL".to_owned());
        }
        _ => return Err(format!("does not start with https://; {form}")),
    }
    let path = url.path().trim_end_matches('/').to_owned();
    let (base, complete) = path.strip_suffix(API_PATH).map_or((path.as_str(), false), |base| (base, true));
    let mut right = url.clone();
    right.set_path(&format!("{base}{API_PATH}"));
    if complete { Ok(right) } else { Err(format!("is not the address of the API; write {right}")) }
}

fn ca_file(text: &str) -> Result<PathBuf, String> {
    if text.starts_with("-----BEGIN") {
        return Err("holds a certificate, not the path of a file; make it a variable of type File".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_User.html>
fn user_name(text: &str) -> Result<String, String> {
    if text.contains([':', '/']) {
        return Err(format!("{text:?} is an ARN or a path; give just the name, the part after the last /"));
    }
    if text.len() > 64 || !text.chars().all(is_iam_char) {
        return Err(format!("{text:?} is not the name of an IAM user: 1 to 64 letters, digits and _+=,.@-"));
    }
    Ok(text.to_owned())
}

fn is_iam_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)
}

/// The roles, and the partition that they share.
fn role_arns(text: &str) -> Result<(&'static str, Vec<String>), String> {
    let arns = words(text)?;
    let mut partition = None;
    for arn in &arns {
        let found =
            role_partition(arn).ok_or_else(|| format!("{arn:?} is not the ARN of a role; write it like arn:aws:iam::123456789012:role/NAME"))?;
        if *partition.get_or_insert(found) != found {
            return Err("names roles of several partitions; one cannot assume the other".to_owned());
        }
    }
    partition.map(|partition| (partition, arns)).ok_or_else(|| "names no role".to_owned())
}

fn role_partition(arn: &str) -> Option<&'static str> {
    let [_, partition, _, _, account, role] = *arn.splitn(6, ':').collect::<Vec<_>>() else { return None };
    let (path, name) = role.strip_prefix("role/")?.rsplit_once('/').unwrap_or(("", role.strip_prefix("role/")?));
    let fits = arn.starts_with(&format!("arn:{partition}:iam::"))
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && path.chars().all(|c| c.is_ascii_graphic())
        && (1..=64).contains(&name.len())
        && name.chars().all(is_iam_char);
    PARTITIONS.iter().find(|(known, ..)| fits && *known == partition).map(|(known, ..)| *known)
}

fn partition_of(region: &str) -> &'static str {
    PARTITIONS.iter().find(|(_, prefix, _)| region.starts_with(prefix)).map_or("aws", |(partition, ..)| partition)
}

/// It becomes part of a host name.
fn region_name(text: &str) -> Result<String, String> {
    if !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return Err(format!("{text:?} is not a region; write it like eu-central-1"));
    }
    Ok(text.to_owned())
}

/// A comma separated list.
fn words(text: &str) -> Result<Vec<String>, String> {
    let words: Vec<_> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    if words.is_empty() { Err("names nothing between its commas".to_owned()) } else { Ok(words) }
}

fn targets(text: &str) -> Result<Vec<Target>, String> {
    let mut targets: Vec<Target> = Vec::new();
    for word in words(text)? {
        let target = target(&word)?;
        if targets.iter().any(|other| same(&other.owner, &target.owner) && other.scope == target.scope) {
            return Err(format!("{word:?} is named twice"));
        }
        targets.push(target);
    }
    Ok(targets)
}

fn target(word: &str) -> Result<Target, String> {
    let form = "write it like project:42, project:group/name@production or group:name";
    let (place, scope) = word.split_once('@').unwrap_or((word, "*"));
    let (kind, name) = place.split_once(':').unwrap_or(("", place));
    let owner = match (kind, name.trim()) {
        ("project", name) => name_of(name).filter(is_project).map(Owner::Project),
        ("group", name) => name_of(name).map(Owner::Group),
        _ => None,
    };
    let owner = owner.ok_or_else(|| format!("{word:?} is not a target; {form}"))?;
    let scope = scope.trim();
    if scope == RECORD_SCOPE {
        return Err(format!("{word:?} is the scope where the records of this program are kept; use another one"));
    }
    // https://docs.gitlab.com/ci/environments/#environment-name: what a scope may consist of.
    if scope.is_empty() || scope.len() > 255 || !scope.chars().all(|c| c.is_ascii_alphanumeric() || "-_/${}. *".contains(c)) {
        return Err(format!("{word:?} has no valid environment scope after the @; {form}"));
    }
    Ok(Target { owner, scope: scope.to_owned() })
}

fn project_names(text: &str) -> Result<Vec<Name>, String> {
    let mut names: Vec<Name> = Vec::new();
    for word in words(text)? {
        let name = name_of(&word).filter(is_project);
        let name = name.ok_or_else(|| format!("{word:?} is not a project; write its id or its full path, like 42 or group/name"))?;
        if names.iter().any(|other| same(other, &name)) {
            return Err(format!("{word:?} is named twice"));
        }
        names.push(name);
    }
    Ok(names)
}

fn name_of(text: &str) -> Option<Name> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|id| *id > 0).map(Name::Id);
    }
    let fits = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
            && part != "."
            && part != ".."
    };
    text.split('/').all(fits).then(|| Name::Path(text.to_owned()))
}

/// A project is in a namespace always.
fn is_project(name: &Name) -> bool {
    match name {
        Name::Id(_) => true,
        Name::Path(path) => path.contains('/'),
    }
}

/// GitLab's paths have no case.
fn same(one: &impl fmt::Display, other: &impl fmt::Display) -> bool {
    one.to_string().eq_ignore_ascii_case(&other.to_string())
}

/// A GitLab variable to publish to.
fn variable_name(text: &str) -> Result<String, String> {
    if !is_variable_name(text) {
        return Err(format!("{text:?} is not the name of a GitLab variable: 1 to 255 letters, digits and _"));
    }
    if text.starts_with(RECORD_PREFIX) {
        return Err(format!("{text:?} is a name that this program keeps for its records; use another one"));
    }
    Ok(text.to_owned())
}

fn is_variable_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn deploy_mode(text: &str) -> Result<DeployMode, String> {
    let name = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
    let mode = if text == "none" {
        Some(DeployMode::None)
    } else if text == "pipeline" {
        Some(DeployMode::Pipeline { branch: None })
    } else if let Some(branch) = text.strip_prefix("pipeline@") {
        name(branch).filter(|branch| !branch.contains(char::is_whitespace)).map(|branch| DeployMode::Pipeline { branch: Some(branch) })
    } else {
        text.strip_prefix("environment/").and_then(name).map(DeployMode::Environment)
    };
    mode.ok_or_else(|| format!("{text:?} is not a way to deploy; use pipeline, pipeline@REF, environment/NAME or none"))
}

/// Values are never shown here: they may be secret.
fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    let form = r#"write it like {"name": "value"}"#;
    // Without the target type: an error about the type would quote the value.
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(format!("is not a JSON object; {form}")),
        Err(error) => Err(format!("is not JSON (line {}, column {}); {form}", error.line(), error.column())),
    }
}

fn inputs(text: &str) -> Result<Map<String, Value>, String> {
    let object = json_object(text)?;
    match object.iter().find(|(_, value)| value.is_object() || value.is_null()) {
        Some((name, _)) => Err(format!("the input {name:?} must be a string, number, boolean or array")),
        None => Ok(object),
    }
}

fn variables(text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |(name, value): (String, Value)| match value {
        _ if !is_variable_name(&name) => Err(format!("{name:?} is not the name of a variable: letters, digits and _")),
        Value::String(value) => Ok((name, value)),
        _ => Err(format!("the value of {name} must be a string, in quotes")),
    };
    json_object(text)?.into_iter().map(pair).collect()
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

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.problem)
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, complaint) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{complaint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Complaints {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_fields_and_the_table_are_the_same_names() {
        let raw = serde_json::to_value(Raw::default()).expect("plain strings");
        let mut fields: Vec<_> = raw.as_object().expect("a struct").keys().map(|field| format!("{PREFIX}{}", field.to_uppercase())).collect();
        let mut table: Vec<_> = VARIABLES.iter().map(|variable| variable.name.to_owned()).collect();
        fields.sort();
        table.sort();
        assert_eq!(fields, table);
    }
}
