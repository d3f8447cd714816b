//! The deployments of an environment, and the jobs that made them.

use jiff::Timestamp;
use serde::Deserialize;

use super::jobs::Job;
use super::list::{List, OnePage};
use super::{ApiError, Gitlab};
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
    Trigger { id: u64 },
}

impl Deployment {
    /// The job; none where the API made the deployment, or its pipeline was deleted.
    pub fn job(&self) -> Option<&Job> {
        match &self.deployable {
            Some(Deployable::Job(job)) => Some(job),
            Some(Deployable::Trigger { .. }) | None => None,
        }
    }

    fn job_id(&self) -> Option<u64> {
        match &self.deployable {
            Some(Deployable::Job(job)) => Some(job.id),
            Some(Deployable::Trigger { id }) => Some(*id),
            None => None,
        }
    }

    fn into_job(self) -> Option<Job> {
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
        let of = |by_end| {
            let mut filters = deployments_to(environment, "success");
            if by_end {
                filters.push(("order_by", "finished_at".to_owned()));
                filters.push(("finished_after", EVER.to_owned()));
            } else {
                filters.push(("order_by", "id".to_owned()));
            }
            List { project, path: DEPLOYMENTS.to_owned(), filters }
        };
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
            let mut filters = deployments_to(environment, status);
            filters.push(("order_by", "id".to_owned()));
            let list = List { project, path: DEPLOYMENTS.to_owned(), filters };
            let deployments = self.deployments(list, false).await?;
            jobs.extend(deployments.into_iter().filter_map(Deployment::into_job));
        }
        Ok(jobs)
    }

    /// The jobs of the deployments that were updated since then; `None` where GitLab does not show
    /// them to this token.
    pub async fn deployed_jobs(
        &self,
        project: &Name,
        since: Timestamp,
    ) -> Result<Option<Vec<u64>>, ApiError> {
        // The filter and the order go together: GitLab refuses one without the other.
        let filters = vec![
            ("order_by", "updated_at".to_owned()),
            ("sort", "asc".to_owned()),
            ("updated_after", since.to_string()),
        ];
        let list = List { project, path: DEPLOYMENTS.to_owned(), filters };
        match self.query_all::<Deployment>(list).await {
            Ok(deployments) => {
                Ok(Some(deployments.iter().filter_map(Deployment::job_id).collect()))
            }
            Err(ApiError::Denied { status: 403 | 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn deployments(&self, list: List<'_>, every: bool) -> Result<Vec<Deployment>, ApiError> {
        if every {
            self.query_all(list).await
        } else {
            self.query(OnePage { list, count: PAGE }).await
        }
    }
}

/// <https://docs.gitlab.com/api/deployments/#list-project-deployments>
const DEPLOYMENTS: &str = "deployments";

/// The filters of one environment's deployments, the newest first.
fn deployments_to(environment: &str, status: &str) -> Vec<(&'static str, String)> {
    vec![
        ("environment", environment.to_owned()),
        ("status", status.to_owned()),
        ("sort", "desc".to_owned()),
    ]
}
