//! Pipelines: the latest ones of a ref, a new one, and the trigger jobs that lead to others.

use std::borrow::Cow;

use gitlab::api::Pageable;
use gitlab::api::common::SortOrder;
use gitlab::api::endpoint_prelude::{BodyError, Endpoint, QueryParams};
use gitlab::api::projects::pipelines::{self as endpoints, PipelineOrderBy};
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;

use super::jobs::Job;
use super::{ApiError, ApiErrorKind, Gitlab, Status, built, id};
use crate::config::{Deploy, Name};

#[derive(Debug, Deserialize)]
pub struct Pipeline {
    pub id: u64,
    pub status: Status,
    #[serde(default)]
    pub sha: Option<String>,
    #[serde(default)]
    pub web_url: Option<String>,
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    #[serde(default)]
    pub source: Option<String>,
    #[serde(default, rename = "ref")]
    pub branch: Option<String>,
    #[serde(default)]
    pub user: Option<User>,
}

#[derive(Debug, Deserialize)]
pub struct User {
    pub id: u64,
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

#[derive(Debug, Deserialize)]
pub struct TriggerJob {
    #[serde(flatten)]
    pub job: Job,
    #[serde(default)]
    pub downstream_pipeline: Option<PipelineRef>,
}

impl Gitlab {
    /// `None` where there is no such pipeline (any more).
    pub async fn pipeline(
        &self,
        project: &Name,
        pipeline: u64,
    ) -> Result<Option<Pipeline>, ApiError> {
        let endpoint =
            endpoints::Pipeline::builder().project(id(project)).pipeline(pipeline).build();
        match self.query(built(endpoint)).await {
            Ok(pipeline) => Ok(Some(pipeline)),
            Err(ApiError::Denied { kind: ApiErrorKind::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The newest pipelines of a ref, newest first, one page.
    pub async fn latest_pipelines(
        &self,
        project: &Name,
        branch: &str,
        count: u64,
    ) -> Result<Vec<Pipeline>, ApiError> {
        let pipelines = endpoints::Pipelines::builder()
            .project(id(project))
            .ref_(branch)
            .order_by(PipelineOrderBy::Id)
            .sort(SortOrder::Descending)
            .build();
        self.query(OnePage { list: built(pipelines), count }).await
    }

    /// The pipelines of a ref that were made after this, and older ones that have changed since.
    pub async fn pipelines_since(
        &self,
        project: &Name,
        branch: &str,
        after: Timestamp,
    ) -> Result<Vec<Pipeline>, ApiError> {
        self.query_all(PipelinesSince { project, branch, after }).await
    }

    /// Starts a pipeline with the inputs and variables of the configuration.
    pub async fn create_pipeline(
        &self,
        project: &Name,
        branch: &str,
        deploy: &Deploy,
    ) -> Result<Pipeline, ApiError> {
        self.query(CreatePipeline { project, branch, deploy }).await
    }

    /// Trigger jobs: `/trigger_jobs` from 19.2 on, `/bridges` before and, deprecated, beside it.
    pub async fn trigger_jobs(
        &self,
        project: &Name,
        pipeline: u64,
    ) -> Result<Vec<TriggerJob>, ApiError> {
        let bridges =
            endpoints::PipelineBridges::builder().project(id(project)).pipeline(pipeline).build();
        match self.query_all(built(bridges)).await {
            Err(ApiError::Denied {
                kind: ApiErrorKind::NotFound | ApiErrorKind::Redirected,
                ..
            }) => self.query_all(TriggerJobs { project, pipeline }).await,
            reply => reply,
        }
    }
}

/// <https://docs.gitlab.com/api/pipelines/#create-a-new-pipeline>, with `inputs`, which the crate's
/// endpoint lacks.
struct CreatePipeline<'a> {
    project: &'a Name,
    branch: &'a str,
    deploy: &'a Deploy,
}

impl Endpoint for CreatePipeline<'_> {
    fn method(&self) -> Method {
        Method::POST
    }

    fn endpoint(&self) -> Cow<'static, str> {
        format!("projects/{}/pipeline", id(self.project)).into()
    }

    fn body(&self) -> Result<Option<(&'static str, Vec<u8>)>, BodyError> {
        let mut body = serde_json::json!({ "ref": self.branch });
        if !self.deploy.inputs.is_empty() {
            body["inputs"] = serde_json::Value::Object(self.deploy.inputs.clone());
        }
        if !self.deploy.variables.is_empty() {
            let pairs = self
                .deploy
                .variables
                .iter()
                .map(|(key, value)| serde_json::json!({ "key": key, "value": value }));
            body["variables"] = pairs.collect();
        }
        Ok(Some(("application/json", serde_json::to_vec(&body)?)))
    }
}

/// The first so many of a list.
pub(super) struct OnePage<L> {
    pub(super) list: L,
    pub(super) count: u64,
}

impl<L: Endpoint> Endpoint for OnePage<L> {
    fn method(&self) -> Method {
        self.list.method()
    }

    fn endpoint(&self) -> Cow<'static, str> {
        self.list.endpoint()
    }

    fn parameters(&self) -> QueryParams<'_> {
        let mut parameters = self.list.parameters();
        parameters.push("per_page", self.count);
        parameters
    }
}

/// <https://docs.gitlab.com/api/pipelines/#list-project-pipelines>. The crate's endpoint takes a
/// date of another crate.
struct PipelinesSince<'a> {
    project: &'a Name,
    branch: &'a str,
    after: Timestamp,
}

impl Endpoint for PipelinesSince<'_> {
    fn method(&self) -> Method {
        Method::GET
    }

    fn endpoint(&self) -> Cow<'static, str> {
        format!("projects/{}/pipelines", id(self.project)).into()
    }

    fn parameters(&self) -> QueryParams<'_> {
        let mut parameters = QueryParams::default();
        parameters.push("ref", self.branch);
        parameters.push("updated_after", self.after.to_string());
        parameters
    }
}

impl Pageable for PipelinesSince<'_> {}

struct TriggerJobs<'a> {
    project: &'a Name,
    pipeline: u64,
}

impl Endpoint for TriggerJobs<'_> {
    fn method(&self) -> Method {
        Method::GET
    }

    fn endpoint(&self) -> Cow<'static, str> {
        format!("projects/{}/pipelines/{}/trigger_jobs", id(self.project), self.pipeline).into()
    }
}

impl Pageable for TriggerJobs<'_> {}
