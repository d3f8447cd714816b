//! The files for machines: the JSON report, the variables for later jobs (dotenv), and the links on
//! the job's page (annotations).

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::output;
use crate::config::Config;
use crate::deploy::Deployed;
use crate::error::{Error, Notice};
use crate::outcome::Outcome;

/// The version of the JSON report's form.
const SCHEMA: u32 = 1;

/// The JSON report.
#[derive(Debug, Serialize)]
pub(super) struct Json {
    schema: u32,
    action: String,
    pub(super) outcome: Outcome,
    pub(super) user: Option<String>,
    pub(super) key: Option<String>,
    pub(super) previous_key: Option<String>,
    pub(super) key_age_days: Option<i64>,
    pub(super) next_due: Option<Timestamp>,
    pub(super) targets: Vec<String>,
    pub(super) deploys: Vec<Deployed>,
    pub(super) steps: Vec<StepRun>,
    pub(super) calls: Calls,
    pub(super) warnings: Vec<Warning>,
    pub(super) state: String,
    pub(super) hint: Option<String>,
}

/// A notice, and what to do about it.
#[derive(Debug, Serialize)]
pub(super) struct Warning {
    warning: String,
    hint: String,
}

impl Warning {
    pub(super) fn new(notice: &Notice) -> Self {
        Self { warning: notice.to_string(), hint: notice.hint() }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct StepRun {
    pub(super) step: String,
    pub(super) started_at: Timestamp,
    pub(super) duration_ms: u128,
    pub(super) outcome: &'static str,
}

/// How many requests were sent to each service.
#[derive(Debug, Default, Serialize)]
pub struct Calls {
    pub iam: u32,
    pub sts: u32,
    pub gitlab: u32,
}

impl Json {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            schema: SCHEMA,
            action: config.action.to_string(),
            outcome: Outcome::Failed,
            user: config.iam_user.clone(),
            key: None,
            previous_key: None,
            key_age_days: None,
            next_due: None,
            targets: config.targets.iter().map(ToString::to_string).collect(),
            deploys: Vec::new(),
            steps: Vec::new(),
            calls: Calls::default(),
            warnings: Vec::new(),
            state: String::new(),
            hint: None,
        }
    }

    /// Writes the files that were asked for. A failure is a warning: the rotation is over.
    pub(super) fn write(&self, config: &Config) {
        let report = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        let texts = [report, self.dotenv(), self.annotations()];
        for ((path, _), text) in files(config).into_iter().zip(texts) {
            if let Some(path) = path
                && output::write(path, &text).is_err()
            {
                tracing::warn!("the file {} could not be written", path.display());
            }
        }
    }

    /// <https://docs.gitlab.com/ci/yaml/artifacts_reports/#artifactsreportsdotenv>
    fn dotenv(&self) -> String {
        let outcome = serde_json::to_value(self.outcome).unwrap_or_default();
        let pipelines: Vec<String> = self
            .deploys
            .iter()
            .filter_map(|deploy| deploy.pipeline)
            .map(|id| id.to_string())
            .collect();
        [
            ("ROTATION_OUTCOME", outcome.as_str().unwrap_or_default()),
            ("ROTATION_KEY_ID", self.key.as_deref().unwrap_or_default()),
            ("ROTATION_PREVIOUS_KEY_ID", self.previous_key.as_deref().unwrap_or_default()),
            ("ROTATION_DEPLOY_PIPELINES", &pipelines.join(",")),
        ]
        .map(|(name, value)| format!("{name}={value}\n"))
        .concat()
    }

    /// <https://docs.gitlab.com/ci/yaml/artifacts_reports/#artifactsreportsannotations>
    fn annotations(&self) -> String {
        let link = |deploy: &Deployed| {
            let label = format!("deploy of project {}: {}", deploy.project, deploy.status);
            let url = deploy.url.as_deref()?;
            Some(serde_json::json!({ "external_link": { "label": label, "url": url } }))
        };
        let links: Vec<_> = self.deploys.iter().filter_map(link).collect();
        serde_json::json!({ "rotation": links }).to_string() + "\n"
    }
}

/// Whether the files can be written: a wrong path must fail before anything is done.
///
/// # Errors
/// The first file that cannot be written.
pub fn check_files(config: &Config) -> Result<(), Error> {
    for (path, variable) in files(config) {
        if let Some(path) = path
            && !output::can_be_written(path)
        {
            return Err(Error::ReportFile { path: path.display().to_string(), variable });
        }
    }
    Ok(())
}

fn files(config: &Config) -> [(&Option<PathBuf>, &'static str); 3] {
    [
        (&config.report, "ROTATOR_REPORT"),
        (&config.dotenv, "ROTATOR_DOTENV"),
        (&config.annotations, "ROTATOR_ANNOTATIONS"),
    ]
}
