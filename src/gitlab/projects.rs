//! Projects and groups, and of a project its refs and deployments.

use gitlab::api::common::SortOrder;
use gitlab::api::projects::deployments::{DeploymentOrderBy, DeploymentStatusFilter, Deployments};
use gitlab::api::projects::repository::commits::Commit;
use serde::Deserialize;

use super::jobs::Job;
use super::{ApiError, ApiErrorKind, Gitlab, built, id};
use crate::config::Name;

#[derive(Debug, Deserialize)]
pub struct Project {
    pub id: u64,
    pub path_with_namespace: String,
    #[serde(default)]
    pub default_branch: Option<String>,
    #[serde(default)]
    pub archived: bool,
    /// The group or the user that it is in.
    #[serde(default)]
    pub namespace: Option<Group>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Group {
    pub id: u64,
    pub full_path: String,
    #[serde(default)]
    pub parent_id: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Deployment {
    #[serde(default)]
    deployable: Option<Job>,
}

impl Gitlab {
    pub async fn project(&self, project: &Name) -> Result<Project, ApiError> {
        let endpoint = gitlab::api::projects::Project::builder().project(id(project)).build();
        self.query(built(endpoint)).await
    }

    pub async fn group(&self, group: u64) -> Result<Group, ApiError> {
        self.query(built(gitlab::api::groups::Group::builder().group(group).build())).await
    }

    /// Whether the project has this branch or tag.
    pub async fn has_ref(&self, project: &Name, name: &str) -> Result<bool, ApiError> {
        let endpoint = Commit::builder().project(id(project)).commit(name).build();
        match self.query_empty(built(endpoint)).await {
            Ok(()) => Ok(true),
            Err(ApiError::Denied { kind: ApiErrorKind::NotFound, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The job of the environment's latest successful deployment. Only that one is live: where it
    /// has no job (made by the API, or its pipeline was deleted), an earlier one's ships an older
    /// commit.
    pub async fn latest_deployment(
        &self,
        project: &Name,
        environment: &str,
    ) -> Result<Option<Job>, ApiError> {
        let endpoint = Deployments::builder()
            .project(id(project))
            .environment(environment)
            .status(DeploymentStatusFilter::Success)
            .order_by(DeploymentOrderBy::Id)
            .sort(SortOrder::Descending)
            .build();
        let deployments = self.query::<Vec<Deployment>>(built(endpoint)).await?;
        Ok(deployments.into_iter().next().and_then(|deployment| deployment.deployable))
    }
}
