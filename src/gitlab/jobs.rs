//! Jobs: their state, lists of them, and the retry of one.

use gitlab::api::projects::jobs::{self as endpoints, JobScope};
use gitlab::api::projects::pipelines::PipelineJobs;
use jiff::Timestamp;
use serde::Deserialize;

use super::list::OnePage;
use super::{ApiError, ApiErrorKind, Gitlab, Status, built, id};
use crate::config::Name;
use crate::record::JobRef;

/// A job, as GitLab lists it.
#[derive(Clone, Debug, Deserialize)]
pub struct Job {
    pub id: u64,
    pub name: String,
    #[serde(default)]
    pub stage: String,
    pub status: Status,
    #[serde(default)]
    pub allow_failure: bool,
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
    #[serde(default)]
    pub web_url: Option<String>,
    #[serde(default)]
    pub pipeline: Option<PipelineRef>,
    #[serde(default)]
    pub commit: Option<Commit>,
    /// Its pipeline is archived, so it cannot be run again.
    #[serde(default)]
    pub archived: bool,
}

/// A pipeline as a job names it: its own, or the one that it triggered.
#[derive(Clone, Debug, Deserialize)]
pub struct PipelineRef {
    pub id: u64,
    #[serde(default)]
    pub project_id: Option<u64>,
    #[serde(default)]
    pub status: Option<Status>,
    #[serde(default)]
    pub web_url: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Commit {
    pub id: String,
}

/// Of a job only whether it still runs.
#[derive(Clone, Debug, Deserialize)]
pub struct JobState {
    pub status: Status,
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
}

impl Job {
    pub fn pipeline_id(&self) -> Option<u64> {
        self.pipeline.as_ref().map(|pipeline| pipeline.id)
    }

    pub fn link(&self) -> String {
        self.web_url.clone().unwrap_or_else(|| format!("job {}", self.id))
    }
}

impl Gitlab {
    /// A job's state; `None` where GitLab does not show it to this token. A job that has ended, and
    /// of which GitLab does not say when, has ended when this client first saw it so.
    pub async fn job_state(&self, job: JobRef) -> Result<Option<JobState>, ApiError> {
        let endpoint = endpoints::Job::builder().project(job.project).job(job.job).build();
        match self.query::<JobState>(built(endpoint)).await {
            Ok(state) if state.status.has_ended() && state.finished_at.is_none() => {
                let finished_at = self.now().map(|now| self.first_seen_ended(job, now));
                Ok(Some(JobState { finished_at, ..state }))
            }
            Ok(state) => Ok(Some(state)),
            Err(ApiError::Denied { status: 403 | 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `None` where there is no such job (any more).
    pub async fn job(&self, project: &Name, job: u64) -> Result<Option<Job>, ApiError> {
        let endpoint = endpoints::Job::builder().project(id(project)).job(job).build();
        match self.query(built(endpoint)).await {
            Ok(job) => Ok(Some(job)),
            Err(ApiError::Denied { kind: ApiErrorKind::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The jobs that run now, those that are being canceled too: GitLab knows that word since 17.0
    /// and refuses it before.
    pub async fn running_jobs(&self, project: &Name) -> Result<Vec<Job>, ApiError> {
        match self.jobs_in(project, &[JobScope::Running, JobScope::Canceling]).await {
            Err(ApiError::Denied { status: 400, .. }) => {
                self.jobs_in(project, &[JobScope::Running]).await
            }
            reply => reply,
        }
    }

    /// Asks for the newest job: whether the token may list jobs.
    pub async fn try_jobs(&self, project: &Name) -> Result<(), ApiError> {
        let list = built(endpoints::Jobs::builder().project(id(project)).build());
        self.query_empty(OnePage { list, count: 1 }).await
    }

    async fn jobs_in(&self, project: &Name, scopes: &[JobScope]) -> Result<Vec<Job>, ApiError> {
        let mut endpoint = endpoints::Jobs::builder();
        endpoint.project(id(project)).scopes(scopes.iter().copied());
        self.query_all(built(endpoint.build())).await
    }

    /// The jobs of a pipeline, without its trigger jobs.
    pub async fn pipeline_jobs(&self, project: &Name, pipeline: u64) -> Result<Vec<Job>, ApiError> {
        let endpoint = PipelineJobs::builder().project(id(project)).pipeline(pipeline).build();
        self.query_all(built(endpoint)).await
    }

    /// Runs a job again; gives the new one.
    pub async fn retry_job(&self, project: &Name, job: u64) -> Result<Job, ApiError> {
        let endpoint = endpoints::RetryJob::builder().project(id(project)).job(job).build();
        self.query(built(endpoint)).await
    }
}
