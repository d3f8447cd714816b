//! Starting a deploy: a new pipeline, or the job of an environment once more.

use super::{Place, environment, tried};
use crate::config::{Config, DeployMode};
use crate::error::Error;
use crate::gitlab::Gitlab;
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
