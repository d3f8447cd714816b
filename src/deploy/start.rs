//! Starting a deploy: a new pipeline, or the job of an environment once more.

use super::{Place, environment, tried};
use crate::config::{Config, DeployMode};
use crate::error::Error;
use crate::gitlab::{ApiError, ApiErrorKind, Gitlab};
use crate::record::{Asked, DeployAttempt, Progress, RecordedDeploy};

/// Asks for the deploy that the attempt is about; `None` where it is not needed any more.
/// `in_vain`: see [`super::Looked::in_vain`].
pub async fn start(
    gitlab: &Gitlab,
    config: &Config,
    place: &Place<'_>,
    attempt: &DeployAttempt,
    progress: &Progress,
    in_vain: Option<u32>,
) -> Result<Option<RecordedDeploy>, Error> {
    match (place.mode, &attempt.asked) {
        (DeployMode::Environment(environment), _) => {
            let what = || format!("redeploying {environment} of project {}", place.project);
            let started = environment::start(gitlab, config, place, attempt, progress).await;
            started.map_err(|error| Error::gitlab(what(), error))
        }
        (DeployMode::Pipeline { .. } | DeployMode::None, Asked::Ref(name)) => {
            let what = || format!("starting the deploy pipeline of project {}", place.project);
            let pipeline = gitlab.create_pipeline(place.project, name, &config.deploy).await;
            let pipeline = pipeline.map_err(|error| Error::gitlab(what(), error))?;
            let sha = pipeline.sha.as_deref();
            Ok(Some(place.started(config, pipeline.id, sha, in_vain)))
        }
        (DeployMode::Pipeline { .. } | DeployMode::None, Asked::Job(_)) => Ok(None),
    }
}

/// The ref to deploy: the configured one, this job's branch in its own project, else the default
/// branch.
pub(super) async fn branch(
    gitlab: &Gitlab,
    config: &Config,
    place: &Place<'_>,
) -> Result<String, ApiError> {
    if let DeployMode::Pipeline { branch: Some(branch) } = place.mode {
        return Ok(branch.clone());
    }
    if let Some(branch) = config.job.branch_in(place.project) {
        return Ok(branch.to_owned());
    }
    let project = gitlab.project(place.project).await?;
    project.default_branch.ok_or_else(|| ApiError::missing(ApiErrorKind::PipelineRef))
}

impl Place<'_> {
    /// What the record says of a pipeline of ours.
    pub(super) fn started(
        &self,
        config: &Config,
        pipeline: u64,
        sha: Option<&str>,
        in_vain: Option<u32>,
    ) -> RecordedDeploy {
        let tried = Some(tried::started(config, self, sha, in_vain));
        RecordedDeploy { tried, ..self.recorded(pipeline, None) }
    }

    pub(super) fn recorded(&self, pipeline: u64, job: Option<u64>) -> RecordedDeploy {
        RecordedDeploy { place: self.name.clone(), pipeline, job, proven: None, tried: None }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Job, Name};

    /// GitLab's paths have no case.
    #[test]
    fn the_jobs_own_project_is_found_by_its_id_and_by_its_path_in_any_case() {
        let job = Job {
            project: Some(42),
            project_path: Some("acme/shop".to_owned()),
            branch: Some("main".to_owned()),
            ..Job::default()
        };
        let path = |text: &str| Name::Path(text.to_owned());
        for own in [Name::Id(42), path("acme/shop"), path("Acme/Shop")] {
            assert_eq!(job.branch_in(&own), Some("main"), "{own}");
        }
        for other in [Name::Id(43), path("acme/shop2"), path("42")] {
            assert_eq!(job.branch_in(&other), None, "{other}");
        }
        assert_eq!(Job::default().branch_in(&Name::Id(42)), None);
    }
}
