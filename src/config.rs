//! The configuration: everything that the environment asks of a run, or every error about it at
//! once.
//!
//! This file holds the types and [`Config::from_env`]. `config/table.rs` lists the variables,
//! `env.rs` takes them from the environment, `parse.rs` turns one text into one type, and
//! `parts.rs` reads what consists of several variables and checks that they agree.
//!
//! House rules:
//! - `from_env` is pure: it reads its argument, not the process, the disk or the network.
//! - Parse into the type first, then compare what parsed. The first mistake does not hide the
//!   second.
//! - An error names its variable and says what would be right. It may quote a value with `{:?}`:
//!   all errors leave through `Reader::finish`, which replaces every secret, because people
//!   paste tokens into the wrong field.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;
use url::Url;

mod env;
mod parse;
mod parts;
mod table;

pub use crate::place::{Name, Owner, Target};
use crate::record::{self, Names, Place};
use env::{Environment, Reader};
pub use table::{VARIABLES, Variable, table_markdown};

/// AWS shows a use of a key hours late: an overlap that is shorter than this can miss one.
pub const USES_SHOW_WITHIN: SignedDuration = SignedDuration::from_hours(12);

/// What a run is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Rotate,
    Retire,
    Setup,
    Check,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeployMode {
    /// Start a pipeline. Without a branch: that of this job in its own project, the default branch
    /// in any other.
    Pipeline { branch: Option<String> },
    /// Retry the latest successful deployment's job of this environment.
    Environment(String),
    /// The pipeline of this job deploys by itself, and `retire` proves it.
    None,
}

/// `Debug` shows only the names of inputs and variables.
#[derive(Clone)]
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
#[derive(Clone, Debug)]
pub enum CredentialSource {
    /// The SDK's default chain. Whether AWS_PROFILE and AWS_SESSION_TOKEN are set explains some of
    /// its errors.
    Environment { profile: bool, session_token: bool },
    /// Web identity for the first role, `AssumeRole` for each further one.
    Roles { arns: Vec<String>, id_token: SecretString },
}

#[derive(Clone, Debug)]
pub struct CaFile {
    pub path: PathBuf,
    /// Set by the user: a file that cannot be used is an error. The runner's own file is used as
    /// far as it can be read.
    pub named: bool,
}

/// What GitLab's predefined variables say about this job. All of it is missing outside a job.
#[derive(Clone, Debug, Default)]
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
    /// GitLab says that a deploy freeze of this project is on.
    pub deploy_freeze: bool,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub action: Action,
    pub force: bool,
    pub dry_run: bool,
    pub gitlab_url: Url,
    pub gitlab_token: SecretString,
    pub gitlab_ca: Option<CaFile>,
    /// Where it is this job's GitLab.
    pub gitlab_version: Option<String>,
    pub iam_user: Option<String>,
    pub credential_source: CredentialSource,
    /// The environment's, else `us-east-1` or the main region of the role's partition.
    pub region: String,
    pub targets: Vec<Target>,
    pub key_id_variable: String,
    pub secret_variable: String,
    /// `None`: protected where the ref of this job is.
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
    /// The level of this program's own lines.
    pub log: LevelFilter,
    pub job: Job,
}

/// Everything that is wrong with the environment. `Display` gives each error a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub variable: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Config {
    /// Whether the pair is published in this scope of this project or group.
    pub fn is_target(&self, owner: &Owner, scope: &str) -> bool {
        self.targets.iter().any(|target| target.owner == *owner && target.scope == scope)
    }

    /// Whether a use of the old key may show only after the overlap.
    pub fn overlap_is_short(&self) -> bool {
        !self.overlap.is_zero() && self.overlap < USES_SHOW_WITHIN
    }

    /// The projects whose jobs use the pair, as far as they are known: the targets' and those that
    /// are deployed.
    pub fn projects(&self) -> Vec<Name> {
        let targets = self.targets.iter().filter_map(|target| match &target.owner {
            Owner::Project(name) => Some(name),
            Owner::Group(_) => None,
        });
        distinct(targets.chain(&self.deploy.projects).cloned())
    }

    /// Reads variables as `std::env::vars_os()` gives them. An empty one counts as unset.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once.
    pub fn from_env(
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigErrors> {
        let mut read = Reader::default();
        let env = read.environment(vars);
        let Environment { raw, ci, aws, .. } = &env;
        let job = env::job(ci);

        let action = read.value("ROTATOR_ACTION", &raw.action, parse::action);
        let force = read.value("ROTATOR_FORCE", &raw.force, parse::boolean);
        let dry_run = read.value("ROTATOR_DRY_RUN", &raw.dry_run, parse::boolean);

        let gitlab_token = read.gitlab_token(&raw.gitlab_token, &ci.job_token);
        let gitlab_url = read.gitlab_url(&raw.gitlab_api_url, &ci.api_v4_url);
        let gitlab_version = ci.server_version.clone().filter(|_| raw.gitlab_api_url.is_none());
        let gitlab_ca = read.gitlab_ca(&raw.gitlab_ca_file, &ci.server_tls_ca_file);

        let iam_user = read.optional("ROTATOR_IAM_USER", &raw.iam_user, parse::user_name);
        let (credential_source, region) = read.credential_source(raw, aws);

        let targets = read.targets(&raw.targets, job.project);
        let [key_id_variable, secret_variable] = read.pair(raw);
        let protected = read.value("ROTATOR_PROTECTED", &raw.protected, parse::protected);
        let hidden = read.value("ROTATOR_HIDDEN", &raw.hidden, parse::boolean);

        let [rotate_after, max_age, overlap, grace_period] = read.ages(raw, action);
        let [verify_timeout, http_timeout] = read.timeouts(raw);

        let deploy = read.deploy(raw, targets.as_deref(), [&key_id_variable, &secret_variable]);
        if let Some(action) = action {
            read.deploy_fits(raw, action, deploy.as_ref(), &job);
        }

        let [report, dotenv, annotations] = read.files(raw);
        let log = read.value("ROTATOR_LOG", &raw.log, parse::level);
        read.misplaced_credentials(&env);

        // Each setting is named twice, read above and taken here, because a `?` above would hide
        // the errors after it. A part is missing only where an error was reported.
        let config = || {
            Some(Self {
                action: action?,
                force: force?,
                dry_run: dry_run?,
                gitlab_url: gitlab_url?,
                gitlab_token: gitlab_token?,
                gitlab_ca,
                gitlab_version,
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
            Some(config) if read.errors.is_empty() => {
                let own = config.job.own_project();
                let config = config.with_ids(own.as_slice());
                read.record_fits(&config);
                if read.errors.is_empty() { Ok(config) } else { Err(read.finish()) }
            }
            _ => Err(read.finish()),
        }
    }

    /// What the record calls a target.
    pub fn place_of(&self, target: &Target) -> Place {
        let (id, secret) = (self.key_id_variable.clone(), self.secret_variable.clone());
        let Target { owner, scope } = target.clone();
        Place { owner, scope, names: Names { id, secret } }
    }

    /// The length of the longest record that this may need.
    pub fn longest_record(&self) -> usize {
        let places: Vec<Place> = self.targets.iter().map(|target| self.place_of(target)).collect();
        let (deploy, jobs) = match &self.deploy.mode {
            DeployMode::Pipeline { branch } => {
                (format!("pipeline@{}", branch.as_deref().unwrap_or_default()), 0)
            }
            DeployMode::Environment(environment) => {
                (format!("environment/{environment}"), self.deploy.jobs.len().max(1))
            }
            DeployMode::None => (String::new(), 0),
        };
        record::longest(&places, &self.deploy.projects, &deploy, jobs)
    }

    /// The projects and groups whose ids are not known.
    pub fn paths(&self) -> Vec<Owner> {
        let deployed = self.deploy.projects.iter().cloned().map(Owner::Project);
        let owners = self.targets.iter().map(|target| target.owner.clone()).chain(deployed);
        distinct(owners.filter(|owner| owner.name().id().is_none()))
    }

    /// The same with the ids of what it names by path. What turns out to be named twice is one.
    #[must_use]
    pub fn with_ids(mut self, ids: &[(Owner, u64)]) -> Self {
        let learn = |mut owner: Owner| {
            if let Some((_, id)) = ids.iter().find(|(known, _)| *known == owner) {
                owner.learn(*id);
            }
            owner
        };
        let targets = self.targets.into_iter();
        self.targets =
            distinct(targets.map(|Target { owner, scope }| Target { owner: learn(owner), scope }));
        let projects = self.deploy.projects.into_iter();
        self.deploy.projects =
            distinct(projects.map(|project| learn(Owner::Project(project)).name().clone()));
        self
    }

    /// What `--help` prints.
    pub fn help() -> String {
        table::help()
    }
}

/// The first of each, in their order.
pub(crate) fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for item in items {
        if !distinct.contains(&item) {
            distinct.push(item);
        }
    }
    distinct
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

impl Job {
    /// The project that this job runs in, by its path, and its id.
    fn own_project(&self) -> Option<(Owner, u64)> {
        let (id, path) = (self.project?, self.project_path.clone()?);
        Some((Owner::Project(Name::Path(path)), id))
    }

    /// The branch of this job, where this is the project that it runs in.
    pub fn branch_in(&self, project: &Name) -> Option<&str> {
        self.branch.as_deref().filter(|_| self.is_in(project))
    }

    pub fn is_in(&self, project: &Name) -> bool {
        project.is(self.project, self.project_path.as_deref())
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
    use super::{Job, Name};

    /// GitLab's paths have no case.
    #[test]
    fn the_jobs_own_project_is_found_by_its_id_and_by_its_path_in_any_case() {
        let job = Job {
            project: Some(42),
            project_path: Some("acme/shop".to_owned()),
            branch: Some("main".to_owned()),
            ..Job::default()
        };
        let path = |text: &str| Name::Path(text.to_owned());
        for own in [Name::Id(42), path("acme/shop"), path("Acme/Shop")] {
            assert_eq!(job.branch_in(&own), Some("main"), "{own}");
        }
        for other in [Name::Id(43), path("acme/shop2"), path("42")] {
            assert_eq!(job.branch_in(&other), None, "{other}");
        }
        assert_eq!(Job::default().branch_in(&Name::Id(42)), None);
    }
}
