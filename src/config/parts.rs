//! The parts of a configuration that consist of several variables, and whether they agree.
//!
//! A cross-check compares only what parsed: what did not parse has an error already.

use std::path::PathBuf;

use jiff::SignedDuration;
use secrecy::SecretString;
use url::Url;

use crate::record;

use super::env::{Aws, Raw, Reader};
use super::parse::{
    PARTITIONS, Range, TEN_YEARS, api_url, ca_file, deploy_mode, duration, inputs, partition_of,
    project_names, region_name, role_arns, same, targets, variable_name, variables, words,
};
use super::{
    Action, CaFile, Config, CredentialSource, Deploy, DeployMode, Job, Name, Owner, Target, table,
};

/// Tokens that can never write a variable.
/// <https://docs.gitlab.com/security/tokens/#token-prefixes>
const USELESS_TOKENS: [(&str, &str); 4] = [
    ("glcbt-", "a job token"),
    ("gldt-", "a deploy token"),
    ("glrt-", "a runner token"),
    ("glptt-", "a trigger token"),
];

const ONE_SECOND: SignedDuration = SignedDuration::from_secs(1);
const ANY: Range = SignedDuration::ZERO..=TEN_YEARS;
const NOT_ZERO: Range = ONE_SECOND..=TEN_YEARS;
const VERIFY_TIMEOUT: Range = SignedDuration::from_secs(10)..=SignedDuration::from_mins(30);
const HTTP_TIMEOUT: Range = ONE_SECOND..=SignedDuration::from_mins(1);

impl Reader {
    /// A predefined address that is wrong is an error too: with the default instead, the token
    /// would go to another server.
    pub(super) fn gitlab_url(
        &mut self,
        given: &Option<String>,
        predefined: &Option<String>,
    ) -> Option<Url> {
        match (given, predefined) {
            (None, Some(_)) => self.optional("CI_API_V4_URL", predefined, api_url),
            (None, None) => api_url("https://gitlab.com/api/v4").ok(),
            (Some(_), _) => self.optional("ROTATOR_GITLAB_API_URL", given, api_url),
        }
    }

    pub(super) fn gitlab_token(
        &mut self,
        given: &Option<String>,
        job_token: &Option<String>,
    ) -> Option<SecretString> {
        let variable = "ROTATOR_GITLAB_TOKEN";
        let Some(text) = given else {
            self.reject(
                variable,
                "is needed: a project, group or service account token with the \
                 scope api and the role Maintainer",
            );
            return None;
        };
        let kind = USELESS_TOKENS
            .iter()
            .find(|(prefix, _)| text.starts_with(prefix))
            .map(|(_, kind)| *kind);
        if let Some(kind) = kind.or_else(|| (given == job_token).then_some("a job token")) {
            let right = "use a project, group or service account token with the scope api";
            self.reject(variable, format!("is {kind}, which cannot write variables; {right}"));
        }
        self.secret(variable, text)
    }

    pub(super) fn gitlab_ca(
        &mut self,
        given: &Option<String>,
        predefined: &Option<String>,
    ) -> Option<CaFile> {
        if given.is_some() {
            let path = self.optional("ROTATOR_GITLAB_CA_FILE", given, ca_file)?;
            return Some(CaFile { path, named: true });
        }
        predefined.as_ref().map(|path| CaFile { path: path.into(), named: false })
    }

    /// Who signs, and the region; `None` each where an error was reported.
    pub(super) fn credential_source(
        &mut self,
        raw: &Raw,
        aws: &Aws,
    ) -> (Option<CredentialSource>, Option<String>) {
        let variable = if aws.region.is_some() { "AWS_REGION" } else { "AWS_DEFAULT_REGION" };
        let given = aws.region.as_ref().or(aws.default_region.as_ref()).cloned();
        let region = self.optional(variable, &given, region_name);
        // A region with an error gets no default.
        let or_default = |region: Option<String>, partition| match given {
            Some(_) => region,
            None => default_region(partition),
        };
        // The components give every job an ID token; without a role to assume it means nothing.
        if raw.aws_role_arn.is_none() {
            self.environment_pair(aws);
            let (profile, session_token) = (aws.profile.is_some(), aws.session_token.is_some());
            let environment = CredentialSource::Environment { profile, session_token };
            return (Some(environment), or_default(region, "aws"));
        }
        let id_token = self.id_token_and_user(raw);
        let Some((partition, arns)) =
            self.optional("ROTATOR_AWS_ROLE_ARN", &raw.aws_role_arn, role_arns)
        else {
            return (None, region);
        };
        if let Some(region) = &region
            && partition_of(region) != partition
        {
            let other = partition_of(region);
            self.reject(
                "ROTATOR_AWS_ROLE_ARN",
                format!(
                    "is in the partition {partition}, but {variable} is {region:?}, which is in \
                     {other}"
                ),
            );
        }
        (
            id_token.map(|id_token| CredentialSource::Roles { arns, id_token }),
            or_default(region, partition),
        )
    }

    /// What a role needs besides: an ID token to assume it, and the user, because a role has none.
    fn id_token_and_user(&mut self, raw: &Raw) -> Option<SecretString> {
        if raw.iam_user.is_none() {
            self.reject(
                "ROTATOR_IAM_USER",
                "is needed with ROTATOR_AWS_ROLE_ARN: a role has no key of its own, so name the \
                 user whose key is rotated",
            );
        }
        let Some(id_token) = &raw.aws_id_token else {
            self.reject(
                "ROTATOR_AWS_ID_TOKEN",
                "is needed with ROTATOR_AWS_ROLE_ARN; declare it under `id_tokens:` of the job (the \
                 input id_token_aud of the component, which must not be empty then)",
            );
            return None;
        };
        self.secret("ROTATOR_AWS_ID_TOKEN", id_token)
    }

    fn environment_pair(&mut self, aws: &Aws) {
        let reason = "is it protected, or scoped to an environment that this job does not name?";
        match (&aws.access_key_id, &aws.secret_access_key) {
            (Some(_), None) => self.reject(
                "AWS_SECRET_ACCESS_KEY",
                format!("is missing, though AWS_ACCESS_KEY_ID is set; {reason}"),
            ),
            (None, Some(_)) => self.reject(
                "AWS_ACCESS_KEY_ID",
                format!("is missing, though AWS_SECRET_ACCESS_KEY is set; {reason}"),
            ),
            (Some(id), Some(_)) => {
                if id.trim().starts_with("AKIA") && aws.session_token.is_some() {
                    self.reject(
                        "AWS_SESSION_TOKEN",
                        "is set beside a long-lived key (AKIA…), which has none, so AWS would \
                         refuse the pair; remove this leftover",
                    );
                }
            }
            (None, None) => {}
        }
    }

    pub(super) fn targets(
        &mut self,
        given: &Option<String>,
        project: Option<u64>,
    ) -> Option<Vec<Target>> {
        match (given, project) {
            (None, Some(id)) => {
                Some(vec![Target { owner: Owner::Project(Name::Id(id)), scope: "*".to_owned() }])
            }
            (None, None) => {
                self.reject(
                    "ROTATOR_TARGETS",
                    "is needed where CI_PROJECT_ID is not set; write \
                     it like project:42 or project:group/name",
                );
                None
            }
            (Some(_), _) => self.optional("ROTATOR_TARGETS", given, targets),
        }
    }

    /// The names of the two variables that hold the pair: key id, secret.
    pub(super) fn pair(&mut self, raw: &Raw) -> [Option<String>; 2] {
        let key_id = self.value("ROTATOR_KEY_ID_VARIABLE", &raw.key_id_variable, variable_name);
        let secret = self.value("ROTATOR_SECRET_VARIABLE", &raw.secret_variable, variable_name);
        if key_id.is_some() && key_id == secret {
            self.reject(
                "ROTATOR_SECRET_VARIABLE",
                "is the same as ROTATOR_KEY_ID_VARIABLE; the pair needs two variables",
            );
        }
        [key_id, secret]
    }

    /// Rotate after, maximal age, overlap, grace period.
    pub(super) fn ages(
        &mut self,
        raw: &Raw,
        action: Option<Action>,
    ) -> [Option<SignedDuration>; 4] {
        let rotate_after = self.duration("ROTATOR_ROTATE_AFTER", &raw.rotate_after, &NOT_ZERO);
        let max_age = self.duration("ROTATOR_MAX_AGE", &raw.max_age, &NOT_ZERO);
        let overlap = self.duration("ROTATOR_OVERLAP", &raw.overlap, &ANY);
        let grace = self.duration("ROTATOR_GRACE_PERIOD", &raw.grace_period, &ANY);
        let old_key_lives = overlap.zip(grace).map(|(overlap, grace)| overlap + grace);
        if rotate_after.zip(old_key_lives).is_some_and(|(after, lives)| after <= lives) {
            self.reject(
                "ROTATOR_ROTATE_AFTER",
                "must be longer than ROTATOR_OVERLAP and ROTATOR_GRACE_PERIOD together: the old \
                 key has to be gone before the next rotation is due",
            );
        }
        // Elsewhere nothing reads it: its default must not limit `rotate_after` there.
        let has_effect = action == Some(Action::Check);
        if (has_effect || !is_default("ROTATOR_MAX_AGE", max_age))
            && rotate_after.zip(max_age).is_some_and(|(after, max_age)| max_age < after)
        {
            self.reject(
                "ROTATOR_MAX_AGE",
                "must be at least ROTATOR_ROTATE_AFTER, else `check` fails before a rotation is \
                 due",
            );
        }
        [rotate_after, max_age, overlap, grace]
    }

    /// For a new key to be accepted, and for one request.
    pub(super) fn timeouts(&mut self, raw: &Raw) -> [Option<SignedDuration>; 2] {
        [
            self.duration("ROTATOR_VERIFY_TIMEOUT", &raw.verify_timeout, &VERIFY_TIMEOUT),
            self.duration("ROTATOR_HTTP_TIMEOUT", &raw.http_timeout, &HTTP_TIMEOUT),
        ]
    }

    pub(super) fn deploy(
        &mut self,
        raw: &Raw,
        targets: Option<&[Target]>,
        pair: [&Option<String>; 2],
    ) -> Option<Deploy> {
        let mode = self.value("ROTATOR_DEPLOY", &raw.deploy, deploy_mode);
        let projects = self.deploy_projects(&raw.deploy_projects, mode.as_ref(), targets);
        let inputs = self.optional("ROTATOR_DEPLOY_INPUTS", &raw.deploy_inputs, inputs);
        let variables = self.optional("ROTATOR_DEPLOY_VARIABLES", &raw.deploy_variables, variables);
        let jobs = self.optional("ROTATOR_DEPLOY_JOBS", &raw.deploy_jobs, words);
        let timeout = self.duration("ROTATOR_DEPLOY_TIMEOUT", &raw.deploy_timeout, &ANY);
        let sent = [
            ("ROTATOR_DEPLOY_INPUTS", inputs.is_some()),
            ("ROTATOR_DEPLOY_VARIABLES", variables.is_some()),
        ];
        let no_new_pipeline =
            mode.as_ref().is_some_and(|mode| !matches!(mode, DeployMode::Pipeline { .. }));
        for (variable, _) in sent.iter().filter(|(_, given)| *given && no_new_pipeline) {
            self.reject(
                variable,
                "can only be sent with a new pipeline; leave it unset, or set ROTATOR_DEPLOY to \
                 pipeline",
            );
        }
        for (name, _) in variables.iter().flatten() {
            if pair.iter().any(|rotated| rotated.as_ref() == Some(name)) {
                self.reject(
                    "ROTATOR_DEPLOY_VARIABLES",
                    format!("{name} would outrank the rotated one in the deploy; leave it out"),
                );
            }
        }
        Some(Deploy {
            mode: mode?,
            projects,
            inputs: inputs.unwrap_or_default(),
            variables: variables.unwrap_or_default(),
            jobs: jobs.unwrap_or_default(),
            timeout: timeout?,
        })
    }

    fn deploy_projects(
        &mut self,
        given: &Option<String>,
        mode: Option<&DeployMode>,
        targets: Option<&[Target]>,
    ) -> Vec<Name> {
        let variable = "ROTATOR_DEPLOY_PROJECTS";
        let nowhere = mode == Some(&DeployMode::None);
        if given.is_some() {
            if nowhere {
                self.reject(variable, "has no use with ROTATOR_DEPLOY=none; leave it unset");
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
            self.reject(
                variable,
                "is needed, as every target is a group: name the projects to \
                 deploy, or set ROTATOR_DEPLOY to none",
            );
        }
        projects
    }

    /// Whether the deploy and the action agree.
    pub(super) fn deploy_fits(
        &mut self,
        raw: &Raw,
        action: Action,
        deploy: Option<&Deploy>,
        job: &Job,
    ) {
        let is_own = deploy.is_some_and(|deploy| deploy.mode == DeployMode::None);
        match action {
            Action::Retire => self.retire_fits(raw, deploy, job),
            Action::Rotate | Action::Setup | Action::Check
                if is_own && raw.deploy_jobs.is_some() =>
            {
                self.reject(
                    "ROTATOR_DEPLOY_JOBS",
                    "has no use with ROTATOR_DEPLOY=none, except with ROTATOR_ACTION=retire; leave \
                     it unset",
                );
            }
            Action::Rotate | Action::Setup | Action::Check => {}
        }
    }

    fn retire_fits(&mut self, raw: &Raw, deploy: Option<&Deploy>, job: &Job) {
        if deploy.is_some_and(|deploy| deploy.mode != DeployMode::None) {
            self.reject(
                "ROTATOR_DEPLOY",
                "must be none with ROTATOR_ACTION=retire: there the pipeline itself deploys",
            );
        }
        let by_hand = job.id.is_none() || job.pipeline_source.as_deref() == Some("web");
        if raw.deploy_jobs.is_none() && !by_hand {
            self.reject(
                "ROTATOR_DEPLOY_JOBS",
                "is needed with ROTATOR_ACTION=retire: name the jobs of this pipeline that prove \
                 the deploy",
            );
        }
    }

    /// A record is one variable. Which ids the paths stand for is not known yet: they count as long
    /// ones.
    pub(super) fn record_fits(&mut self, config: &Config) {
        let ids = config.paths().into_iter().zip(999_000_000..);
        let known = config.clone().with_ids(&ids.collect::<Vec<_>>());
        let length = known.longest_record();
        if length <= record::LIMIT {
            return;
        }
        let is_deploy = known.deploy.projects.len() > known.targets.len();
        self.reject(
            if is_deploy { "ROTATOR_DEPLOY_PROJECTS" } else { "ROTATOR_TARGETS" },
            format!(
                "names too many places: the record of the rotation would need {length} characters, \
                 and a variable takes {}; publish to groups instead of their projects, or let the \
                 pipeline of one project deploy the others",
                record::LIMIT
            ),
        );
    }

    /// Report, dotenv, annotations.
    pub(super) fn files(&mut self, raw: &Raw) -> [Option<PathBuf>; 3] {
        let files = [&raw.report, &raw.dotenv, &raw.annotations]
            .map(|path| path.as_ref().map(|path| PathBuf::from(path.trim())));
        let [report, dotenv, annotations] = &files;
        if dotenv.is_some() && dotenv == report {
            self.reject("ROTATOR_DOTENV", "is the same file as ROTATOR_REPORT; give each its own");
        }
        if annotations.is_some() && [report, dotenv].contains(&annotations) {
            self.reject(
                "ROTATOR_ANNOTATIONS",
                "is the same file as ROTATOR_REPORT or ROTATOR_DOTENV; give each its own",
            );
        }
        files
    }
}

fn is_default(variable: &str, value: Option<SignedDuration>) -> bool {
    value.is_some() && value == duration(table::default_of(variable), &ANY).ok()
}

fn default_region(partition: &str) -> Option<String> {
    PARTITIONS.iter().find(|(name, ..)| *name == partition).map(|(.., region)| (*region).to_owned())
}
