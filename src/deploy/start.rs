//! Starting a deploy, or adopting the one that an earlier try of this rotation started.

use std::time::Duration;

use jiff::Timestamp;

use super::{Place, newest_try, tried};
use crate::config::{Config, DeployMode, Name};
use crate::error::Error;
use crate::gitlab::jobs::Job;
use crate::gitlab::pipelines::Pipeline;
use crate::gitlab::{ApiError, ApiErrorKind, Gitlab};
use crate::record::RecordedDeploy;

/// How many of the latest pipelines of a ref are looked at for one to adopt.
const ADOPTABLE: u64 = 20;
/// A large configuration takes longer than the request that starts it: how often and how far apart
/// the pipeline is looked for.
const APPEARS_WITHIN: (u32, Duration) = (24, Duration::from_secs(5));

/// Which pipeline may be adopted: one of our user, made after `drained`, and not the one that came
/// to nothing.
#[derive(Clone, Copy)]
pub struct Ours {
    pub drained: Timestamp,
    pub user: Option<u64>,
    pub lost: Option<u64>,
    /// See [`super::Looked::in_vain`].
    pub in_vain: Option<u32>,
}

pub async fn start(
    gitlab: &Gitlab,
    config: &Config,
    place: &Place<'_>,
    ours: Ours,
) -> Result<RecordedDeploy, Error> {
    match place.mode {
        DeployMode::Environment(environment) => {
            let what = || format!("redeploying {environment} of project {}", place.project);
            let recorded = redeploy(gitlab, place, environment, ours.drained).await;
            recorded.map_err(|error| Error::gitlab(what(), error))
        }
        DeployMode::Pipeline { .. } | DeployMode::None => {
            let what = || format!("starting the deploy pipeline of project {}", place.project);
            let recorded = start_pipeline(gitlab, config, place, ours).await;
            recorded.map_err(|error| Error::gitlab(what(), error))
        }
    }
}

async fn start_pipeline(
    gitlab: &Gitlab,
    config: &Config,
    place: &Place<'_>,
    ours: Ours,
) -> Result<RecordedDeploy, ApiError> {
    let (project, user) = (place.project, ours.user);
    let branch = branch(gitlab, config, place).await?;
    // Our clock is never ahead of GitLab's, so what a run asked for right after `drained` is later,
    // by however little. What is older than the one that came to nothing did so before it.
    let is_late = |seen: &Pipeline| {
        ours.lost.is_none_or(|lost| seen.id > lost)
            && seen.created_at.is_some_and(|created| created > ours.drained)
    };
    let (found, newest) = adoptable(gitlab, project, &branch, is_late, user).await?;
    let started = |pipeline: Pipeline| RecordedDeploy {
        tried: Some(tried::started(config, place, pipeline.sha.as_deref(), ours.in_vain)),
        ..place.recorded(pipeline.id, None)
    };
    if let Some(pipeline) = found {
        return Ok(started(pipeline));
    }
    match gitlab.create_pipeline(project, &branch, &config.deploy).await {
        Ok(pipeline) => Ok(started(pipeline)),
        Err(error) if error.is_ambiguous() => {
            // What was not there just before is made after `drained`, however close to it.
            let is_new = |seen: &Pipeline| seen.id > newest;
            let (times, pause) = APPEARS_WITHIN;
            for _ in 0..times {
                tokio::time::sleep(pause).await;
                let found = adoptable(gitlab, project, &branch, is_new, user).await;
                if let Ok((Some(pipeline), _)) = found {
                    return Ok(started(pipeline));
                }
            }
            Err(error)
        }
        // A refusal of the pipeline that no text explains: exit and hint are a deploy's all the
        // same.
        Err(ApiError::Denied { status: status @ 400, kind: ApiErrorKind::Other, pause, doubt }) => {
            Err(ApiError::Denied { status, kind: ApiErrorKind::PipelineOther, pause, doubt })
        }
        Err(error) => Err(error),
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

/// The latest pipeline of the ref that the API started for our user and that is new enough, unless
/// it came to nothing; and the highest id of all.
async fn adoptable(
    gitlab: &Gitlab,
    project: &Name,
    branch: &str,
    is_new: impl Fn(&Pipeline) -> bool,
    user: Option<u64>,
) -> Result<(Option<Pipeline>, u64), ApiError> {
    let latest = gitlab.latest_pipelines(project, branch, ADOPTABLE).await?;
    let newest = latest.iter().map(|seen| seen.id).max().unwrap_or_default();
    for seen in latest {
        let by_the_api = seen.source.as_deref().is_none_or(|source| source == "api");
        if seen.status.has_failed() || !is_new(&seen) || !by_the_api {
            continue;
        }
        let Some(whole) = gitlab.pipeline(project, seen.id).await? else { continue };
        let ours = whole.user.as_ref().is_none_or(|owner| user.is_none_or(|user| owner.id == user));
        if ours {
            return Ok((Some(whole), newest));
        }
    }
    Ok((None, newest))
}

/// Retries the job of the environment's latest successful deployment: the commit that is live, with
/// today's variables.
async fn redeploy(
    gitlab: &Gitlab,
    place: &Place<'_>,
    environment: &str,
    drained: Timestamp,
) -> Result<RecordedDeploy, ApiError> {
    let project = place.project;
    let nothing = || ApiError::missing(ApiErrorKind::NotRetryable);
    let live = gitlab.latest_deployment(project, environment).await?.ok_or_else(nothing)?;
    let pipeline = live.pipeline.as_ref().map(|pipeline| pipeline.id).ok_or_else(nothing)?;
    // A job of that name made after `drained` is an earlier try of ours, or a person's, and as
    // good.
    let is_late =
        |job: &Job| job.id != live.id && job.created_at.is_some_and(|created| created > drained);
    let candidate = newest_try(gitlab, project, pipeline, live.id).await?;
    let candidate = candidate.unwrap_or_else(|| live.clone());
    if is_late(&candidate) && !candidate.status.has_failed() {
        return Ok(place.recorded(pipeline, Some(candidate.id)));
    }
    match gitlab.retry_job(project, candidate.id).await {
        Ok(job) => Ok(place.recorded(pipeline, Some(job.id))),
        Err(error) if error.is_ambiguous() => {
            match newest_try(gitlab, project, pipeline, live.id).await? {
                Some(job) if job.id != candidate.id => Ok(place.recorded(pipeline, Some(job.id))),
                _ => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

impl Place<'_> {
    fn recorded(&self, pipeline: u64, job: Option<u64>) -> RecordedDeploy {
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
