//! Pipelines: the latest ones of a ref, a new one, and the trigger jobs that lead to others.

use std::borrow::Cow;

use gitlab::api::common::SortOrder;
use gitlab::api::endpoint_prelude::{BodyError, Endpoint};
use gitlab::api::projects::pipelines::{self as endpoints, PipelineOrderBy};
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;

use super::jobs::{Job, PipelineRef};
use super::list::{List, OnePage};
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
        let filters = vec![("ref", branch.to_owned()), ("updated_after", after.to_string())];
        self.query_all(List { project, path: "pipelines".to_owned(), filters }).await
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
            }) => {
                let path = format!("pipelines/{pipeline}/trigger_jobs");
                self.query_all(List { project, path, filters: Vec::new() }).await
            }
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
