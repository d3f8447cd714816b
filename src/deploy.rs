//! The deploy: finds running jobs, checks a deploy, starts or adopts one, and proves that it ran
//! with the new pair.
//!
//! A deploy that this rotation started began after the publication was `drained`, so it read the
//! new pair. In any other deploy, each job must have *started* after `drained`. Until every deploy
//! is proven, both keys stay active. The run waits for the end of a deploy; this module does not.
//! The requests are in [`crate::gitlab`].

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::config::{Config, DeployMode, Name};
use crate::error::Error;
use crate::gitlab::jobs::Job;
use crate::gitlab::pipelines::Pipeline;
use crate::gitlab::{ApiError, Gitlab, Phase, Status};
use crate::plan::{DeploySeen, START_MARGIN};
use crate::record::RecordedDeploy;

mod proof;
mod start;

use proof::prove;
pub use start::{Ours, start};

/// A pipeline without jobs after this time never gets any (gitlab-org/gitlab#452059).
const STUCK_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// What the report says of one deploy.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Deployed {
    pub project: String,
    pub pipeline: Option<u64>,
    pub job: Option<u64>,
    pub sha: Option<String>,
    pub status: String,
    pub url: Option<String>,
}

/// One place to deploy.
pub struct Place<'a> {
    project: &'a Name,
    mode: &'a DeployMode,
    /// The name in the record.
    pub name: String,
}

/// The places of the configuration, in their order; none where the deploy is the pipeline's own.
pub fn places(config: &Config) -> Vec<Place<'_>> {
    let mode = &config.deploy.mode;
    let name = |project: &Name| match mode {
        DeployMode::Pipeline { branch: Some(branch) } => format!("{project} pipeline@{branch}"),
        DeployMode::Pipeline { branch: None } => format!("{project} pipeline"),
        DeployMode::Environment(environment) => format!("{project} environment/{environment}"),
        DeployMode::None => project.to_string(),
    };
    let projects = if *mode == DeployMode::None { &[][..] } else { &config.deploy.projects };
    projects.iter().map(|project| Place { project, mode, name: name(project) }).collect()
}

/// Jobs of the projects that started before the publication and still run: they have the old pair,
/// and may be a deploy themselves.
pub async fn in_flight_jobs(
    gitlab: &Gitlab,
    projects: &[Name],
    published: Timestamp,
    exempt: &BTreeSet<u64>,
) -> Result<Vec<String>, Error> {
    let mut in_flight_jobs = Vec::new();
    for project in projects {
        let jobs = gitlab.running_jobs(project).await.map_err(|error| looking(project, error))?;
        // Our clock may be a second behind GitLab's: what seems to have started right after the
        // publication may have started before it.
        let in_flight = |job: &&Job| {
            job.started_at.is_some_and(|start| start <= published + START_MARGIN)
                && !exempt.contains(&job.id)
        };
        in_flight_jobs.extend(
            jobs.iter()
                .filter(in_flight)
                .map(|job| format!("{} ({} of project {project})", job.name, job.link())),
        );
    }
    Ok(in_flight_jobs)
}

/// What became of one place's deploy. `started` says whether this run has already started one
/// there.
pub async fn look(
    gitlab: &Gitlab,
    config: &Config,
    place: &Place<'_>,
    recorded: Option<&RecordedDeploy>,
    started: bool,
    now: Timestamp,
) -> Result<(DeploySeen, Deployed), Error> {
    let Some(recorded) = recorded else {
        return Ok((DeploySeen::Startable, place.deployed("not started")));
    };
    if recorded.proven.is_some() {
        let known = Deployed {
            pipeline: Some(recorded.pipeline),
            job: recorded.job,
            ..place.deployed(&Status::Success)
        };
        return Ok((DeploySeen::Proven(recorded.clone()), known));
    }
    let look = Look { gitlab, config, place, recorded, started, now };
    let looked = match recorded.job {
        Some(job) => look.at_job(job).await,
        None => look.at_pipeline().await,
    };
    looked.map_err(|error| looking(place.project, error))
}

/// Whether the pipeline's own deploy ran after `drained`. Without a list of jobs the caller's word
/// is taken.
pub async fn look_at_own(
    gitlab: &Gitlab,
    config: &Config,
    drained: Timestamp,
) -> Result<(DeploySeen, Deployed), Error> {
    let (Some(project), Some(pipeline_id)) = (config.job.project, config.job.pipeline) else {
        return Ok((
            DeploySeen::Proven(own(0)),
            Deployed { status: "taken on trust".to_owned(), ..Deployed::default() },
        ));
    };
    let deployed = Deployed {
        project: project.to_string(),
        pipeline: Some(pipeline_id),
        ..Deployed::default()
    };
    if config.deploy.jobs.is_empty() {
        return Ok((
            DeploySeen::Proven(own(pipeline_id)),
            Deployed { status: "taken on trust".to_owned(), ..deployed },
        ));
    }
    let project = Name::Id(project);
    let proof = prove(gitlab, &project, pipeline_id, &config.deploy.jobs, Some(drained)).await;
    let proof = proof.map_err(|error| looking(&project, error))?;
    let seen = proof.seen(&own(pipeline_id), &format!("pipeline {pipeline_id}"));
    let status = match &seen {
        DeploySeen::Proven(_) => "success",
        DeploySeen::Running(_) => "running",
        DeploySeen::Startable | DeploySeen::Failed(_) | DeploySeen::Unproven(_) => "unproven",
    };
    Ok((seen, Deployed { status: status.to_owned(), ..deployed }))
}

fn own(pipeline: u64) -> RecordedDeploy {
    RecordedDeploy { place: "own pipeline".to_owned(), pipeline, job: None, proven: None }
}

/// One look at a deploy that was started and is not proven.
struct Look<'a> {
    gitlab: &'a Gitlab,
    config: &'a Config,
    place: &'a Place<'a>,
    recorded: &'a RecordedDeploy,
    started: bool,
    now: Timestamp,
}

impl Look<'_> {
    /// A deployment's job that was retried.
    async fn at_job(&self, job: u64) -> Result<(DeploySeen, Deployed), ApiError> {
        let project = self.place.project;
        let newest = newest_try(self.gitlab, project, self.recorded.pipeline, job).await?;
        let Some(seen) = newest else {
            return Ok(self.deleted(&format!("job {job} of project {project}")));
        };
        let state = match seen.status.phase() {
            Phase::Succeeded => DeploySeen::Proven(self.recorded.clone()),
            Phase::Failed => {
                self.lost(format!("job {} {} ({})", seen.name, seen.status, seen.link()))
            }
            Phase::Alive | Phase::Blocked => DeploySeen::Running(format!(
                "job {} is {} ({})",
                seen.name,
                seen.status.explained(),
                seen.link()
            )),
        };
        let deployed = Deployed {
            pipeline: Some(self.recorded.pipeline),
            job: Some(seen.id),
            sha: seen.commit.map(|commit| commit.id),
            url: seen.web_url,
            ..self.place.deployed(&seen.status)
        };
        Ok((state, deployed))
    }

    async fn at_pipeline(&self) -> Result<(DeploySeen, Deployed), ApiError> {
        let (project, number) = (self.place.project, self.recorded.pipeline);
        let Some(pipeline) = self.gitlab.pipeline(project, number).await? else {
            return Ok(self.deleted(&format!("pipeline {number} of project {project}")));
        };
        let link = pipeline
            .web_url
            .clone()
            .unwrap_or_else(|| format!("pipeline {} of project {project}", pipeline.id));
        let state = match pipeline.status.phase() {
            Phase::Succeeded => {
                let jobs = &self.config.deploy.jobs;
                prove(self.gitlab, project, pipeline.id, jobs, None)
                    .await?
                    .seen(self.recorded, &link)
            }
            Phase::Failed => self.lost(self.failed_jobs(&pipeline, &link).await?),
            Phase::Alive if self.is_stuck(&pipeline).await? => {
                self.lost(format!("pipeline {link} never got any jobs"))
            }
            Phase::Alive | Phase::Blocked => {
                DeploySeen::Running(format!("pipeline {link} is {}", pipeline.status.explained()))
            }
        };
        let deployed = Deployed {
            pipeline: Some(pipeline.id),
            sha: pipeline.sha,
            url: pipeline.web_url,
            ..self.place.deployed(&pipeline.status)
        };
        Ok((state, deployed))
    }

    async fn failed_jobs(&self, pipeline: &Pipeline, link: &str) -> Result<String, ApiError> {
        let project = self.place.project;
        let jobs = self.gitlab.pipeline_jobs(project, pipeline.id).await?;
        let failed = jobs
            .iter()
            .filter(|job| job.status == Status::Failed && !job.allow_failure)
            .map(|job| format!("{} ({})", job.name, job.link()));
        let triggers = self.gitlab.trigger_jobs(project, pipeline.id).await?;
        let broken = triggers
            .iter()
            .filter(|trigger| trigger.status == Status::Failed && !trigger.allow_failure)
            .map(|trigger| {
                let link = trigger.web_url.as_deref().unwrap_or("no link");
                format!("trigger job {} ({link})", trigger.name)
            });
        let failed = failed.chain(broken).collect::<Vec<_>>().join(", ");
        Ok(format!(
            "pipeline {} ({link}): {}",
            pipeline.status,
            if failed.is_empty() { "no job failed" } else { &failed }
        ))
    }

    async fn is_stuck(&self, pipeline: &Pipeline) -> Result<bool, ApiError> {
        let is_old = pipeline
            .created_at
            .is_some_and(|created| self.now.duration_since(created) > STUCK_AFTER);
        Ok(pipeline.status == Status::Created
            && is_old
            && self.gitlab.pipeline_jobs(self.place.project, pipeline.id).await?.is_empty())
    }

    fn deleted(&self, what: &str) -> (DeploySeen, Deployed) {
        (self.lost(format!("{what} was deleted")), self.place.deployed("deleted"))
    }

    /// What came to nothing is started anew, once per run.
    fn lost(&self, what: String) -> DeploySeen {
        if self.started { DeploySeen::Failed(what) } else { DeploySeen::Startable }
    }
}

impl Place<'_> {
    fn deployed(&self, status: &(impl ToString + ?Sized)) -> Deployed {
        Deployed {
            project: self.project.to_string(),
            status: status.to_string(),
            ..Deployed::default()
        }
    }
}

/// The newest job of the same name in the pipeline; a job that is no longer listed there counts
/// itself.
async fn newest_try(
    gitlab: &Gitlab,
    project: &Name,
    pipeline: u64,
    job: u64,
) -> Result<Option<Job>, ApiError> {
    let Some(one) = gitlab.job(project, job).await? else { return Ok(None) };
    let from = match one.status.phase() {
        Phase::Alive => return Ok(Some(one)),
        Phase::Succeeded => one.id.saturating_add(1),
        Phase::Blocked | Phase::Failed => 0,
    };
    let jobs = gitlab.pipeline_jobs(project, pipeline).await?;
    let newest = jobs
        .into_iter()
        .filter(|other| other.name == one.name && other.id >= from)
        .max_by_key(|job| job.id);
    Ok(Some(newest.unwrap_or(one)))
}

fn looking(project: &Name, error: ApiError) -> Error {
    Error::gitlab(format!("looking at the jobs of project {project}"), error)
}
