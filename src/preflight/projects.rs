//! The projects that are deployed: whether the token sees them, and whether there is something to
//! deploy.

use super::nearer;
use crate::config::{Config, DeployMode, Name};
use crate::error::{Blocker, Error};
use crate::gitlab::projects::Project;
use crate::gitlab::{ApiError, ApiErrorKind, Gitlab};
use crate::plan::Observed;

pub(super) async fn blockers(
    config: &Config,
    gitlab: &Gitlab,
    seen: &Observed,
) -> Result<Vec<Blocker>, Error> {
    let mut blockers = Vec::new();
    if config.deploy.mode == DeployMode::None {
        return Ok(blockers);
    }
    for name in &config.deploy.projects {
        match blocker(config, gitlab, name).await {
            Ok((project, blocker)) => {
                blockers.extend(blocker);
                if let Some(project) = project {
                    blockers.extend(nearer::blockers(config, gitlab, &project, seen).await);
                }
            }
            Err(ApiError::Denied {
                kind: ApiErrorKind::NotFound | ApiErrorKind::Forbidden,
                ..
            }) => blockers.push(Blocker::ProjectHidden { project: name.to_string() }),
            Err(error) => {
                let what = format!("looking at the deploy project {name}");
                return Err(Error::gitlab(what, error));
            }
        }
    }
    blockers.dedup();
    Ok(blockers)
}

/// The project that is to be deployed, as far as the token may see it, and why that cannot be done.
async fn blocker(
    config: &Config,
    gitlab: &Gitlab,
    name: &Name,
) -> Result<(Option<Project>, Option<Blocker>), ApiError> {
    let branch = match &config.deploy.mode {
        DeployMode::None => return Ok((None, None)),
        DeployMode::Environment(environment) => {
            // To redeploy takes no right to see the project itself.
            let project = gitlab.project(name).await.ok();
            let deployed = gitlab.latest_deployment(name, environment).await?.is_some();
            let blocker = || Blocker::NoDeployment {
                project: name.to_string(),
                environment: environment.clone(),
            };
            return Ok((project, (!deployed).then(blocker)));
        }
        DeployMode::Pipeline { branch } => branch,
    };
    let project = gitlab.project(name).await?;
    let own = config.job.branch_in(name);
    let blocker = match branch.as_deref().or(own).or(project.default_branch.as_deref()) {
        _ if project.archived => Some(Blocker::ProjectArchived { project: name.to_string() }),
        Some(branch) => {
            let blocker = || Blocker::NoRef { project: name.to_string(), name: branch.to_owned() };
            (!gitlab.has_ref(name, branch).await?).then(blocker)
        }
        None => Some(Blocker::NoBranch { project: name.to_string() }),
    };
    Ok((Some(project), blocker))
}
