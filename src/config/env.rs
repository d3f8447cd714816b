//! The environment as text: the variables that concern this program, and the reader that collects
//! what is wrong with them. What a text means is decided in `parse.rs`, what several of them mean
//! together in `parts.rs`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ffi::OsString;

use jiff::SignedDuration;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::parse::{Range, boolean, duration};
use super::table::{self, PREFIX};
use super::{ConfigError, ConfigErrors, Job, VARIABLES};
use crate::net::is_plausible;

/// A shorter text is too common to be replaced everywhere: it would only garble the errors.
const SHORTEST_SECRET: usize = 8;
/// A shorter text may occur in another variable by chance.
const SHORTEST_CREDENTIAL: usize = 16;
/// The variables that may hold a credential: their own, and what is sent to the deploy.
const MAY_HOLD_CREDENTIALS: [&str; 4] = [
    "ROTATOR_GITLAB_TOKEN",
    "ROTATOR_AWS_ID_TOKEN",
    "ROTATOR_DEPLOY_INPUTS",
    "ROTATOR_DEPLOY_VARIABLES",
];

/// The environment without empty variables, and the three groups of it that concern us.
pub(super) struct Environment {
    pub(super) raw: Raw,
    pub(super) ci: Ci,
    pub(super) aws: Aws,
    /// Every variable, by its full name.
    texts: BTreeMap<String, String>,
}

/// Our own variables, one field for each row of the table.
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

/// What GitLab sets for each job: <https://docs.gitlab.com/ci/variables/predefined_variables/>
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
    pub(super) deploy_freeze: Option<String>,
    pub(super) job_url: Option<String>,
    pub(super) server_tls_ca_file: Option<String>,
    pub(super) server_version: Option<String>,
}

/// What the SDK reads by itself, as far as it decides about our own settings.
#[derive(Deserialize, Default)]
pub(super) struct Aws {
    pub(super) access_key_id: Option<String>,
    pub(super) secret_access_key: Option<String>,
    pub(super) session_token: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) region: Option<String>,
    pub(super) default_region: Option<String>,
}

/// Takes what it is given for one variable after the other, and collects the errors.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) errors: Vec<ConfigError>,
    secrets: Vec<String>,
}

impl Reader {
    pub(super) fn environment(
        &mut self,
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Environment {
        let texts = self.texts(vars);
        let env = Environment {
            raw: section(&texts, PREFIX),
            ci: section(&texts, "CI_"),
            aws: section(&texts, "AWS_"),
            texts,
        };
        self.secrets = secrets(&env);
        for name in env.raw.unknown.keys() {
            self.unknown(&format!("{PREFIX}{}", name.to_uppercase()));
        }
        env
    }

    pub(super) fn reject(&mut self, variable: &str, message: impl Into<String>) {
        self.errors.push(ConfigError { variable: variable.to_owned(), message: message.into() });
    }

    /// The errors without any secret; there is no other way out.
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

    /// The given value, or the default of the table. `None`: the error was reported.
    pub(super) fn value<T>(
        &mut self,
        variable: &str,
        given: &Option<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = given.clone().unwrap_or_else(|| table::default_of(variable).to_owned());
        self.optional(variable, &Some(text), parse)
    }

    /// `None`: unset, or the error was reported.
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

    /// A secret is never trimmed: one that was copied wrongly is refused, not fixed.
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

    /// Refuses a credential in a variable whose value logs and reports show, unless that variable
    /// has an error already.
    pub(super) fn misplaced_credentials(&mut self, env: &Environment) {
        let credentials = [
            &env.raw.gitlab_token,
            &env.raw.aws_id_token,
            &env.aws.secret_access_key,
            &env.aws.session_token,
        ];
        let credentials: Vec<&str> = credentials
            .into_iter()
            .flatten()
            .map(|text| text.trim())
            .filter(|text| text.len() >= SHORTEST_CREDENTIAL)
            .collect();
        for (name, value) in &env.texts {
            let shown = name.starts_with(PREFIX) && !MAY_HOLD_CREDENTIALS.contains(&name.as_str());
            let reported = self.errors.iter().any(|error| error.variable == *name);
            let holds_one = credentials.iter().any(|credential| value.contains(credential));
            if shown && !reported && holds_one {
                self.reject(
                    name,
                    "holds a credential, which would show in logs and reports; it belongs in its \
                     own variable only",
                );
            }
        }
    }

    /// Every variable that is text and not empty. The rest is an error where it may concern us.
    fn texts(
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

    fn unknown(&mut self, name: &str) {
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
}

/// The variables with this prefix. Their names are unique and plain and each field is a string, so
/// envy finds nothing to refuse.
fn section<T: DeserializeOwned + Default>(vars: &BTreeMap<String, String>, prefix: &str) -> T {
    let ours = vars.iter().filter(|(name, _)| is_plain(name, prefix));
    envy::prefixed(prefix)
        .from_iter(ours.map(|(name, value)| (name.clone(), value.clone())))
        .unwrap_or_default()
}

/// Whether envy takes this name for what it is: it lowers the case (a Kelvin sign becomes a `k`)
/// and strips a repeated prefix.
fn is_plain(name: &str, prefix: &str) -> bool {
    name.is_ascii()
        && name == name.to_uppercase()
        && name.strip_prefix(prefix).is_some_and(|rest| !rest.starts_with(prefix))
}

/// Every text that an error must not show.
fn secrets(env: &Environment) -> Vec<String> {
    let deploy_variables = &env.raw.deploy_variables;
    let whole = [
        &env.raw.gitlab_token,
        &env.raw.aws_id_token,
        deploy_variables,
        &env.ci.job_token,
        &env.aws.access_key_id,
        &env.aws.secret_access_key,
        &env.aws.session_token,
    ];
    let object = deploy_variables
        .as_deref()
        .and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    let inner =
        object.into_iter().flatten().filter_map(|(_, value)| value.as_str().map(str::to_owned));
    whole
        .into_iter()
        .flatten()
        .map(|text| text.trim().to_owned())
        .chain(inner)
        .filter(|text| text.len() >= SHORTEST_SECRET)
        .collect()
}

/// The job, from GitLab's predefined variables. A value that cannot be read counts as absent.
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
        deploy_freeze: ci.deploy_freeze.is_some(),
    }
}

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
