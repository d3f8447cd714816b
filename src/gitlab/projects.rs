//! Projects and groups, and of a project its refs.

use std::borrow::Cow;

use gitlab::api::endpoint_prelude::{Endpoint, QueryParams};
use gitlab::api::projects::repository::commits::Commit;
use http::Method;
use serde::Deserialize;

use super::jobs;
use super::{ApiError, ApiErrorKind, Gitlab, built, id};
use crate::config::{Name, Owner};

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
    /// The next two are the same setting, of newer and of older versions.
    #[serde(default)]
    builds_access_level: Option<String>,
    #[serde(default)]
    jobs_enabled: Option<bool>,
    /// From here on GitLab tells Maintainers only.
    #[serde(default)]
    ci_pipeline_variables_minimum_override_role: Option<MinimumRole>,
    #[serde(default)]
    restrict_user_defined_variables: Option<bool>,
    #[serde(default)]
    pub ci_forward_deployment_enabled: Option<bool>,
    #[serde(default)]
    permissions: Option<Permissions>,
}

/// Who may set pipeline variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MinimumRole {
    NoOneAllowed,
    Developer,
    Maintainer,
    Owner,
    #[serde(other)]
    Unknown,
}

/// The roles of the token's user, as far as they are the project's or a group's own.
#[derive(Debug, Deserialize)]
struct Permissions {
    #[serde(default)]
    project_access: Option<Access>,
    #[serde(default)]
    group_access: Option<Access>,
}

#[derive(Debug, Deserialize)]
struct Access {
    access_level: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Group {
    pub id: u64,
    pub full_path: String,
    #[serde(default)]
    pub parent_id: Option<u64>,
}

impl Project {
    /// Whether CI/CD is on; where GitLab does not tell, it is.
    pub fn has_ci(&self) -> bool {
        self.builds_access_level.as_deref() != Some("disabled") && self.jobs_enabled != Some(false)
    }

    /// Whether the token's user may set pipeline variables; `None` where GitLab does not tell.
    pub fn lets_set_pipeline_variables(&self) -> Option<bool> {
        let needed = match (
            self.ci_pipeline_variables_minimum_override_role,
            self.restrict_user_defined_variables,
        ) {
            (_, Some(false)) => return Some(true),
            (Some(MinimumRole::NoOneAllowed), _) => return Some(false),
            (Some(MinimumRole::Developer), _) => 30,
            (Some(MinimumRole::Maintainer), _) => 40,
            (Some(MinimumRole::Owner), _) => 50,
            // Before 17.1 there was one limit.
            (None, Some(true)) => 40,
            (Some(MinimumRole::Unknown), _) | (None, None) => return None,
        };
        let Permissions { project_access, group_access } = self.permissions.as_ref()?;
        let roles = [project_access, group_access].into_iter().flatten();
        roles.map(|access| access.access_level).max().map(|role| role >= needed)
    }
}

impl Gitlab {
    pub async fn project(&self, project: &Name) -> Result<Project, ApiError> {
        let endpoint = gitlab::api::projects::Project::builder().project(id(project)).build();
        self.query(built(endpoint)).await
    }

    pub async fn group(&self, group: &Name) -> Result<Group, ApiError> {
        self.query(GroupItself(group)).await
    }

    /// The id of a project or group; `None` where it cannot be seen under this name.
    pub async fn id_of(&self, owner: &Owner) -> Result<Option<u64>, ApiError> {
        let id = match owner {
            Owner::Project(name) => self.project(name).await.map(|project| project.id),
            Owner::Group(name) => self.group(name).await.map(|group| group.id),
        };
        match id {
            Ok(id) => Ok(Some(id)),
            // The list of its variables tells more.
            Err(ApiError::Denied { status: 300..=499, kind, .. })
                if kind != ApiErrorKind::RateLimited =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
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

    /// The commit that a branch or tag is at; `None` where GitLab does not show it.
    pub async fn commit(&self, project: &Name, name: &str) -> Result<Option<String>, ApiError> {
        let endpoint = Commit::builder().project(id(project)).commit(name).build();
        match self.query::<jobs::Commit>(built(endpoint)).await {
            Ok(commit) => Ok(Some(commit.id)),
            Err(ApiError::Denied { status: 403 | 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A group without its projects, which GitLab sends along, a hundred of them, unless it is told not
/// to: <https://docs.gitlab.com/api/groups/#get-details-on-a-group>
struct GroupItself<'a>(&'a Name);

impl Endpoint for GroupItself<'_> {
    fn method(&self) -> Method {
        Method::GET
    }

    fn endpoint(&self) -> Cow<'static, str> {
        format!("groups/{}", id(self.0)).into()
    }

    fn parameters(&self) -> QueryParams<'_> {
        let mut parameters = QueryParams::default();
        parameters.push("with_projects", false);
        parameters
    }
}
