//! The deployments of an environment, and the jobs that made them.

use std::borrow::Cow;

use gitlab::api::Pageable;
use gitlab::api::endpoint_prelude::{Endpoint, QueryParams};
use http::Method;
use serde::Deserialize;

use super::jobs::Job;
use super::pipelines::OnePage;
use super::{ApiError, Gitlab, id};
use crate::config::Name;

/// As many as GitLab puts on a page.
const PAGE: u64 = 100;
/// Before any deployment: GitLab sorts by the end only where it is filtered by it too.
const EVER: &str = "1970-01-01T00:00:00Z";

#[derive(Debug, Deserialize)]
pub struct Deployment {
    #[serde(default)]
    deployable: Option<Deployable>,
}

/// What made a deployment. Of a trigger job GitLab shows little more than its id.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Deployable {
    Job(Box<Job>),
    Trigger {
        #[serde(rename = "id")]
        _id: u64,
    },
}

impl Deployment {
    /// The job; none where the API made the deployment, or its pipeline was deleted.
    pub fn job(&self) -> Option<&Job> {
        match &self.deployable {
            Some(Deployable::Job(job)) => Some(job),
            Some(Deployable::Trigger { .. }) | None => None,
        }
    }

    pub fn into_job(self) -> Option<Job> {
        match self.deployable {
            Some(Deployable::Job(job)) => Some(*job),
            Some(Deployable::Trigger { .. }) | None => None,
        }
    }
}

impl Gitlab {
    /// The successful deployments to an environment, what ended last first: the first one is live.
    /// One page unless `every` one is asked for.
    pub async fn finished_deployments(
        &self,
        project: &Name,
        environment: &str,
        every: bool,
    ) -> Result<Vec<Deployment>, ApiError> {
        let of = |by_end| Deployments { project, environment, status: "success", by_end };
        match self.deployments(of(true), every).await {
            // This GitLab does not sort by the end.
            Err(ApiError::Denied { status: 400, .. }) => {
                let mut deployments = self.deployments(of(false), every).await?;
                let is_jobless = |other: &Deployment| other.job().is_none();
                let live = usize::from(deployments.first().is_some_and(is_jobless));
                let ended = |other: &Deployment| other.job().and_then(|job| job.finished_at);
                deployments[live..].sort_by_key(|other| std::cmp::Reverse(ended(other)));
                Ok(deployments)
            }
            reply => reply,
        }
    }

    /// The jobs whose deployment to an environment has not ended.
    pub async fn deploying_jobs(
        &self,
        project: &Name,
        environment: &str,
    ) -> Result<Vec<Job>, ApiError> {
        let mut jobs = Vec::new();
        for status in ["running", "created"] {
            let of = Deployments { project, environment, status, by_end: false };
            let deployments = self.deployments(of, false).await?;
            jobs.extend(deployments.into_iter().filter_map(Deployment::into_job));
        }
        Ok(jobs)
    }

    async fn deployments(
        &self,
        list: Deployments<'_>,
        every: bool,
    ) -> Result<Vec<Deployment>, ApiError> {
        if every {
            self.query_all(list).await
        } else {
            self.query(OnePage { list, count: PAGE }).await
        }
    }
}

/// <https://docs.gitlab.com/api/deployments/#list-project-deployments>
struct Deployments<'a> {
    project: &'a Name,
    environment: &'a str,
    status: &'a str,
    by_end: bool,
}

impl Endpoint for Deployments<'_> {
    fn method(&self) -> Method {
        Method::GET
    }

    fn endpoint(&self) -> Cow<'static, str> {
        format!("projects/{}/deployments", id(self.project)).into()
    }

    fn parameters(&self) -> QueryParams<'_> {
        let mut parameters = QueryParams::default();
        parameters
            .push("environment", self.environment)
            .push("status", self.status)
            .push("sort", "desc")
            .push("order_by", if self.by_end { "finished_at" } else { "id" });
        if self.by_end {
            parameters.push("finished_after", EVER);
        }
        parameters
    }
}

impl Pageable for Deployments<'_> {}
