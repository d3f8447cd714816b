//! Reading: the raw texts, what is reported, and the cross-checks between parts.

use jiff::SignedDuration;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Map;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use url::Url;

use super::values::{
    PARTITIONS, api_url, boolean, ca_file, deploy_mode, duration, inputs, partition_of,
    project_names, region_name, role_arns, same, targets, variables, words,
};
use super::{
    CaFile, ConfigError, ConfigErrors, CredentialSource, Deploy, DeployMode, Job, Name, Owner,
    PREFIX, Range, TEN_YEARS, Target, VARIABLES,
};
use crate::net::is_plausible;

/// Tokens that can never write a variable.
/// <https://docs.gitlab.com/security/tokens/#token-prefixes>
const USELESS_TOKENS: [(&str, &str); 4] = [
    ("glcbt-", "a job token"),
    ("gldt-", "a deploy token"),
    ("glrt-", "a runner token"),
    ("glptt-", "a trigger token"),
];

/// The variables with [`PREFIX`], one field for each row of the table.
#[derive(Deserialize, Default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) struct Raw {
    pub(super) action: Option<String>,
    pub(super) gitlab_token: Option<String>,
    pub(super) gitlab_api_url: Option<String>,
    pub(super) gitlab_ca_file: Option<String>,
    pub(super) iam_user: Option<String>,
    pub(super) aws_role_arn: Option<String>,
    pub(super) aws_id_token: Option<String>,
    pub(super) targets: Option<String>,
    pub(super) key_id_variable: Option<String>,
    pub(super) secret_variable: Option<String>,
    pub(super) protected: Option<String>,
    pub(super) hidden: Option<String>,
    pub(super) rotate_after: Option<String>,
    pub(super) max_age: Option<String>,
    pub(super) force: Option<String>,
    pub(super) dry_run: Option<String>,
    pub(super) deploy: Option<String>,
    pub(super) deploy_projects: Option<String>,
    pub(super) deploy_inputs: Option<String>,
    pub(super) deploy_variables: Option<String>,
    pub(super) deploy_jobs: Option<String>,
    pub(super) deploy_timeout: Option<String>,
    pub(super) overlap: Option<String>,
    pub(super) grace_period: Option<String>,
    pub(super) verify_timeout: Option<String>,
    pub(super) http_timeout: Option<String>,
    pub(super) report: Option<String>,
    pub(super) dotenv: Option<String>,
    pub(super) annotations: Option<String>,
    pub(super) log: Option<String>,
    #[serde(flatten)]
    pub(super) unknown: BTreeMap<String, String>,
}

/// <https://docs.gitlab.com/ci/variables/predefined_variables/>
#[derive(Deserialize, Default)]
pub(super) struct Ci {
    pub(super) api_v4_url: Option<String>,
    pub(super) project_id: Option<String>,
    pub(super) project_path: Option<String>,
    pub(super) job_id: Option<String>,
    pub(super) job_token: Option<String>,
    pub(super) pipeline_id: Option<String>,
    pub(super) pipeline_source: Option<String>,
    pub(super) pipeline_created_at: Option<String>,
    pub(super) job_started_at: Option<String>,
    pub(super) job_timeout: Option<String>,
    pub(super) commit_branch: Option<String>,
    pub(super) commit_ref_protected: Option<String>,
    pub(super) environment_name: Option<String>,
    pub(super) job_url: Option<String>,
    pub(super) server_tls_ca_file: Option<String>,
}

#[derive(Deserialize, Default)]
pub(super) struct Aws {
    pub(super) access_key_id: Option<String>,
    pub(super) secret_access_key: Option<String>,
    pub(super) session_token: Option<String>,
    pub(super) region: Option<String>,
    pub(super) default_region: Option<String>,
}

/// The variables with this prefix. Names are unique and plain, and each field is a string: nothing
/// that envy refuses.
pub(super) fn section<T: DeserializeOwned + Default>(
    vars: &BTreeMap<String, String>,
    prefix: &str,
) -> T {
    let ours = vars.iter().filter(|(name, _)| is_plain(name, prefix));
    envy::prefixed(prefix)
        .from_iter(ours.map(|(name, value)| (name.clone(), value.clone())))
        .unwrap_or_default()
}

/// envy lowers the case (a Kelvin sign becomes a `k`) and strips a repeated prefix: what it would
/// take for another name must not reach it.
pub(super) fn is_plain(name: &str, prefix: &str) -> bool {
    name.is_ascii()
        && name == name.to_uppercase()
        && name.strip_prefix(prefix).is_some_and(|rest| !rest.starts_with(prefix))
}

/// Collects errors while the parts are parsed.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) errors: Vec<ConfigError>,
    secrets: Vec<String>,
}

impl Reader {
    pub(super) fn reject(&mut self, variable: &str, message: impl Into<String>) {
        self.errors.push(ConfigError { variable: variable.to_owned(), message: message.into() });
    }

    /// The only way out: no secret passes.
    pub(super) fn finish(mut self) -> ConfigErrors {
        self.secrets.sort_by_key(|secret| Reverse(secret.len()));
        for text in
            self.errors.iter_mut().flat_map(|error| [&mut error.variable, &mut error.message])
        {
            for secret in &self.secrets {
                *text = text
                    .replace(secret, "[secret]")
                    .replace(format!("{secret:?}").trim_matches('"'), "[secret]");
            }
        }
        ConfigErrors(self.errors)
    }

    pub(super) fn hide(&mut self, raw: &Raw, ci: &Ci, aws: &Aws) {
        let whole = [
            &raw.gitlab_token,
            &raw.aws_id_token,
            &raw.deploy_variables,
            &ci.job_token,
            &aws.access_key_id,
            &aws.secret_access_key,
            &aws.session_token,
        ];
        let object = raw
            .deploy_variables
            .as_deref()
            .and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
        let inner =
            object.into_iter().flatten().filter_map(|(_, value)| value.as_str().map(str::to_owned));
        // What is shorter than a secret can be would only garble the text.
        self.secrets = whole
            .into_iter()
            .flatten()
            .map(|text| text.trim().to_owned())
            .chain(inner)
            .filter(|text| text.len() >= 8)
            .collect();
    }

    /// A credential in a variable that is shown in logs and reports, where its form was none to
    /// complain of.
    pub(super) fn misplaced(&mut self, vars: &BTreeMap<String, String>, raw: &Raw, aws: &Aws) {
        let credentials =
            [&raw.gitlab_token, &raw.aws_id_token, &aws.secret_access_key, &aws.session_token];
        let credentials: Vec<&str> = credentials
            .into_iter()
            .flatten()
            .map(|text| text.trim())
            .filter(|text| text.len() >= 16)
            .collect();
        let may_hold = [
            "ROTATOR_GITLAB_TOKEN",
            "ROTATOR_AWS_ID_TOKEN",
            "ROTATOR_DEPLOY_INPUTS",
            "ROTATOR_DEPLOY_VARIABLES",
        ];
        for (name, value) in vars
            .iter()
            .filter(|(name, _)| name.starts_with(PREFIX) && !may_hold.contains(&name.as_str()))
        {
            let known = self.errors.iter().any(|error| error.variable == *name);
            if !known && credentials.iter().any(|credential| value.contains(credential)) {
                self.reject(
                    name,
                    "holds a credential, which would show in logs and reports; it \
                     belongs in its own variable only",
                );
            }
        }
    }

    /// What may concern us, as text, without the empty ones.
    pub(super) fn texts(
        &mut self,
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for (name, value) in vars {
            let name = name.to_string_lossy().into_owned();
            let ours = name.to_uppercase().starts_with(PREFIX);
            let needed = ours || name == "CI_API_V4_URL" || name.starts_with("AWS_");
            match value.into_string() {
                Ok(value) if value.trim().is_empty() => {}
                Ok(_) if ours && !is_plain(&name, PREFIX) => self.unknown(&name),
                Ok(value) => _ = texts.entry(name).or_insert(value),
                Err(_) if needed => {
                    self.reject(&name, "is not valid UTF-8; set it again as plain text");
                }
                Err(_) => {}
            }
        }
        texts
    }

    pub(super) fn unknown(&mut self, name: &str) {
        let upper = name.to_uppercase();
        let nearest = VARIABLES.iter().min_by_key(|known| {
            strsim::damerau_levenshtein(
                known.name.trim_start_matches(PREFIX),
                upper.trim_start_matches(PREFIX),
            )
        });
        let message = match nearest.map(|known| known.name) {
            Some(known) if known == upper => {
                format!("is not known; names are in capitals: {known}")
            }
            nearest => format!("is not known; the nearest name is {}", nearest.unwrap_or_default()),
        };
        self.reject(name, message);
    }

    /// The given value or the table's default. `None`: it was reported.
    pub(super) fn value<T>(
        &mut self,
        variable: &str,
        given: &Option<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let default =
            || VARIABLES.iter().find(|row| row.name == variable).map(|row| row.default.to_owned());
        self.optional(variable, &given.clone().or_else(default), parse)
    }

    /// `None`: unset, or it was reported.
    pub(super) fn optional<T>(
        &mut self,
        variable: &str,
        given: &Option<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(given.as_deref()?.trim()) {
            Ok(value) => Some(value),
            Err(message) => {
                self.reject(variable, message);
                None
            }
        }
    }

    pub(super) fn duration(
        &mut self,
        variable: &str,
        given: &Option<String>,
        range: &Range,
    ) -> Option<SignedDuration> {
        self.value(variable, given, |text| duration(text, range))
    }

    pub(super) fn token(
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

    /// Never trimmed: a secret that is not what was meant is refused, not fixed.
    pub(super) fn secret(&mut self, variable: &str, text: &str) -> Option<SecretString> {
        if text.contains(char::is_whitespace) {
            self.reject(
                variable,
                "contains white space or a line break; store the token alone, without any",
            );
        } else if !text.chars().all(|c| c.is_ascii_graphic()) {
            self.reject(variable, "contains a character that no token has; copy it again");
        } else {
            return Some(SecretString::from(text));
        }
        None
    }

    /// A bad predefined address is not passed over: the token would go to another server.
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

    pub(super) fn gitlab_ca(
        &mut self,
        given: &Option<String>,
        predefined: Option<String>,
    ) -> Option<CaFile> {
        if given.is_some() {
            return self
                .optional("ROTATOR_GITLAB_CA_FILE", given, ca_file)
                .map(|path| CaFile { path, named: true });
        }
        predefined.map(|path| CaFile { path: path.into(), named: false })
    }

    /// Who signs, and the region; `None` each where it was reported.
    pub(super) fn credential_source(
        &mut self,
        raw: &Raw,
        aws: &Aws,
    ) -> (Option<CredentialSource>, Option<String>) {
        let variable = if aws.region.is_some() { "AWS_REGION" } else { "AWS_DEFAULT_REGION" };
        let given = aws.region.clone().or_else(|| aws.default_region.clone());
        let region = self.optional(variable, &given, region_name);
        // A region that was reported gets no default.
        let or_default = |region: Option<String>, partition| match given {
            None => PARTITIONS
                .iter()
                .find(|(name, ..)| *name == partition)
                .map(|(.., region)| (*region).to_owned()),
            Some(_) => region,
        };
        let (roles, id_token) = (&raw.aws_role_arn, &raw.aws_id_token);
        // The components give every job an ID token; without a role to assume it means nothing.
        if roles.is_none() {
            self.environment_pair(aws);
            return (Some(CredentialSource::Environment), or_default(region, "aws"));
        }
        if roles.is_some() && raw.iam_user.is_none() {
            self.reject(
                "ROTATOR_IAM_USER",
                "is needed with ROTATOR_AWS_ROLE_ARN: a role has no key of its own, so name the \
                 user whose key is rotated",
            );
        }
        if id_token.is_none() {
            self.reject(
                "ROTATOR_AWS_ID_TOKEN",
                "is needed with ROTATOR_AWS_ROLE_ARN; declare it under `id_tokens:` of the job",
            );
        }
        let id_token = id_token.as_ref().and_then(|text| self.secret("ROTATOR_AWS_ID_TOKEN", text));
        let Some((partition, arns)) = self.optional("ROTATOR_AWS_ROLE_ARN", roles, role_arns)
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
                    "is in the partition {partition}, but \
                 {variable} is {region:?}, which is in {other}"
                ),
            );
        }
        (
            id_token.map(|id_token| CredentialSource::Roles { arns, id_token }),
            or_default(region, partition),
        )
    }

    pub(super) fn environment_pair(&mut self, aws: &Aws) {
        let reason = "is it protected, or scoped to an environment that this job does not name?";
        match (&aws.access_key_id, &aws.secret_access_key) {
            (Some(_), None) => self.reject("AWS_SECRET_ACCESS_KEY", format!("is missing, though \
                 AWS_ACCESS_KEY_ID is set; {reason}")),
            (None, Some(_)) => self.reject("AWS_ACCESS_KEY_ID", format!("is missing, though \
                 AWS_SECRET_ACCESS_KEY is set; {reason}")),
            (Some(id), Some(_)) if id.trim().starts_with("AKIA") && aws.session_token.is_some() => self.reject(
                "AWS_SESSION_TOKEN",
                "is set beside a long-lived key (AKIA…), which has none, so AWS would refuse the \
                 pair; remove this leftover",
            ),
            _ => {}
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

    pub(super) fn ages_fit(
        &mut self,
        rotate_after: Option<SignedDuration>,
        max_age: Option<SignedDuration>,
        overlap: Option<SignedDuration>,
        grace_period: Option<SignedDuration>,
    ) {
        let Some(rotate_after) = rotate_after else { return };
        if overlap.zip(grace_period).is_some_and(|(overlap, grace)| rotate_after <= overlap + grace)
        {
            self.reject(
                "ROTATOR_ROTATE_AFTER",
                "must be longer than ROTATOR_OVERLAP and ROTATOR_GRACE_PERIOD together: \
                 the old key has to be gone before the next rotation is due",
            );
        }
        if max_age.is_some_and(|max_age| max_age < rotate_after) {
            self.reject(
                "ROTATOR_MAX_AGE",
                "must be at least ROTATOR_ROTATE_AFTER, else `check` \
                 fails before a rotation is due",
            );
        }
    }

    pub(super) fn deploy(&mut self, raw: &Raw, targets: Option<&[Target]>) -> Option<Deploy> {
        let mode = self.value("ROTATOR_DEPLOY", &raw.deploy, deploy_mode);
        let projects = self.deploy_projects(&raw.deploy_projects, mode.as_ref(), targets);
        let inputs = self.optional("ROTATOR_DEPLOY_INPUTS", &raw.deploy_inputs, inputs);
        let variables = self.optional("ROTATOR_DEPLOY_VARIABLES", &raw.deploy_variables, variables);
        let jobs = self.optional("ROTATOR_DEPLOY_JOBS", &raw.deploy_jobs, words);
        let timeout = self.duration(
            "ROTATOR_DEPLOY_TIMEOUT",
            &raw.deploy_timeout,
            &(SignedDuration::ZERO..=TEN_YEARS),
        );
        let mode = mode?;
        let sent = [
            ("ROTATOR_DEPLOY_INPUTS", inputs.is_some()),
            ("ROTATOR_DEPLOY_VARIABLES", variables.is_some()),
        ];
        for (variable, _) in
            sent.iter().filter(|(_, given)| *given && !matches!(mode, DeployMode::Pipeline { .. }))
        {
            self.reject(
                variable,
                "can only be sent with a new pipeline; leave it unset, or set \
                 ROTATOR_DEPLOY to pipeline",
            );
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

    pub(super) fn deploy_projects(
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

    pub(super) fn retire_fits(&mut self, mode: Option<&DeployMode>, jobs_given: bool, job: &Job) {
        if mode.is_some_and(|mode| *mode != DeployMode::None) {
            self.reject(
                "ROTATOR_DEPLOY",
                "must be none with ROTATOR_ACTION=retire: there the pipeline itself deploys",
            );
        }
        let by_hand = job.id.is_none() || job.pipeline_source.as_deref() == Some("web");
        if !jobs_given && !by_hand {
            self.reject(
                "ROTATOR_DEPLOY_JOBS",
                "is needed with ROTATOR_ACTION=retire: name the \
                 jobs of this pipeline that prove the deploy",
            );
        }
    }

    pub(super) fn files(&mut self, given: [Option<String>; 3]) -> [Option<PathBuf>; 3] {
        let files = given.map(|path| path.map(|path| PathBuf::from(path.trim())));
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

/// GitLab's own values: what cannot be read is as good as absent.
pub(super) fn job(ci: &Ci) -> Job {
    let number = |text: &Option<String>| text.as_deref()?.trim().parse().ok();
    let time = |text: &Option<String>| {
        text.as_deref()?.trim().parse().ok().filter(|date| is_plausible(*date))
    };
    let seconds = |seconds| {
        u32::try_from(seconds).ok().map(|seconds| SignedDuration::from_secs(seconds.into()))
    };
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
        ref_protected: ci
            .commit_ref_protected
            .as_deref()
            .and_then(|text| boolean(text.trim()).ok()),
        environment: ci.environment_name.clone(),
        url: ci.job_url.clone(),
    }
}
