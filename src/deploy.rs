//! The deploy: finds jobs in flight, checks a deploy, starts or adopts one, and proves that it ran
//! with the new pair.
//!
//! A deploy that this rotation started began after the publication was `drained`, so it read the
//! new pair. In any other deploy, each job must have *started* after `drained`. Until every deploy
//! is proven, both keys stay active. The run waits for the end of a deploy; this module does not.
//! The requests are in [`crate::gitlab`].

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::config::{Config, DeployMode, Name};
use crate::error::{Error, Notice};
use crate::gitlab::jobs::Job;
use crate::gitlab::pipelines::Pipeline;
use crate::gitlab::{ApiError, ApiErrorKind, Gitlab, Phase, Status};
use crate::plan::DeploySeen;
use crate::record::{Asked, DeployPlace, RecordedDeploy};

pub mod attempt;
pub mod environment;
mod in_flight;
mod named;
mod proof;
mod start;
mod tree;
mod tried;
mod whole;

pub use in_flight::{InFlight, in_flight_jobs};
use named::Own;
use proof::Proof;
pub use start::start;
use tree::Tree;

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

/// What a look at one place's deploy has shown.
pub struct Looked {
    pub seen: DeploySeen,
    pub deployed: Deployed,
    pub notice: Option<Notice>,
    /// Of a pipeline that is startable again because it could prove nothing: what it was started
    /// with.
    pub in_vain: Option<u32>,
    /// What came of a deploy that this run has not started.
    pub left: Option<Left>,
}

/// How the deploy of an earlier run stands, where no job of it goes on by itself.
pub enum Left {
    Failed(String),
    /// It waits for a person.
    Blocked(String),
}

/// One place to deploy.
pub struct Place<'a> {
    project: &'a Name,
    mode: &'a DeployMode,
    /// What the record calls it.
    pub name: DeployPlace,
}

/// The places of the configuration, in their order; none where the deploy is the pipeline's own.
pub fn places(config: &Config) -> Vec<Place<'_>> {
    let mode = &config.deploy.mode;
    let deploy = match mode {
        DeployMode::Pipeline { branch: Some(branch) } => format!("pipeline@{branch}"),
        DeployMode::Pipeline { branch: None } => "pipeline".to_owned(),
        DeployMode::Environment(environment) => format!("environment/{environment}"),
        DeployMode::None => String::new(),
    };
    let name = |project: &Name| DeployPlace { project: project.clone(), deploy: deploy.clone() };
    let projects = if *mode == DeployMode::None { &[][..] } else { &config.deploy.projects };
    projects.iter().map(|project| Place { project, mode, name: name(project) }).collect()
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
) -> Result<Looked, Error> {
    let Some(recorded) = recorded else {
        let deployed = place.deployed("not started");
        let seen = if started {
            let project = place.project;
            Ok(DeploySeen::Failed(format!("GitLab gives no answer for project {project}")))
        } else {
            startable(gitlab, config, place).await
        };
        let seen = seen.map_err(|error| looking(place.project, error))?;
        return Ok(Looked::new(seen, deployed));
    };
    if recorded.proven.is_some() {
        let known = Deployed {
            pipeline: Some(recorded.pipeline),
            job: recorded.job,
            ..place.deployed(&Status::Success)
        };
        return Ok(Looked::new(DeploySeen::Proven(recorded.clone()), known));
    }
    let look = Look { gitlab, config, place, recorded, started, now };
    look.at_pipeline().await.map_err(|error| looking(place.project, error))
}

/// Whether the pipeline's own deploy ran after `drained`. Without a list of jobs the caller's word
/// is taken, except in a deploy freeze and for what ran before `drained`. `rotators`: the rotation's
/// own jobs.
pub async fn look_at_own(
    gitlab: &Gitlab,
    config: &Config,
    drained: Timestamp,
    rotators: &BTreeSet<u64>,
) -> Result<Looked, Error> {
    let number = config.job.pipeline.unwrap_or_default();
    let deployed = |status: &str| Deployed {
        project: config.job.project.map(|project| project.to_string()).unwrap_or_default(),
        pipeline: config.job.pipeline,
        status: status.to_owned(),
        ..Deployed::default()
    };
    let (Some(project), Some(_), [_, ..]) =
        (config.job.project, config.job.pipeline, &config.deploy.jobs[..])
    else {
        // What the caller's word is about ran before this job.
        let is_early = config.job.started_at.is_some_and(|start| start <= drained);
        let why = match (config.job.deploy_freeze, is_early) {
            (true, _) => "a deploy freeze is on (CI_DEPLOY_FREEZE), so no deploy is taken on trust",
            (false, true) => {
                "what this pipeline has deployed, it deployed before the new pair was in place and \
                 every older job had ended"
            }
            (false, false) => {
                return Ok(Looked::new(
                    DeploySeen::Proven(own(number)),
                    deployed("taken on trust"),
                ));
            }
        };
        return Ok(Looked::new(DeploySeen::Unproven(why.to_owned()), deployed("unproven")));
    };
    let project = Name::Id(project);
    let tree = Tree::read(gitlab, &project, number, Status::Running).await;
    let own_jobs = Own { drained, rotators };
    let proof = tree.map(|tree| named::of_named(&tree, &config.deploy.jobs, Some(&own_jobs)));
    let of_pipeline = |what: &str| format!("pipeline {number}: {what}");
    Ok(match proof.map_err(|error| looking(&project, error))? {
        Proof::Proven | Proof::NoDeploy => {
            Looked::new(DeploySeen::Proven(own(number)), deployed("success"))
        }
        Proof::Running(what) | Proof::Blocked(what) => {
            Looked::new(DeploySeen::Running(of_pipeline(&what)), deployed("running"))
        }
        Proof::Failed(what) | Proof::LeftOut(what) | Proof::InVain(what) => {
            Looked::new(DeploySeen::Unproven(of_pipeline(&what)), deployed("unproven"))
        }
    })
}

fn own(pipeline: u64) -> RecordedDeploy {
    let place = DeployPlace { project: Name::Id(0), deploy: "own pipeline".to_owned() };
    RecordedDeploy { place, pipeline, job: None, proven: None, tried: None }
}

impl Looked {
    fn new(seen: DeploySeen, deployed: Deployed) -> Self {
        Self { seen, deployed, notice: None, in_vain: None, left: None }
    }
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
    async fn at_pipeline(&self) -> Result<Looked, ApiError> {
        let (project, number) = (self.place.project, self.recorded.pipeline);
        let Some(pipeline) = self.gitlab.pipeline(project, number).await? else {
            return self.deleted(&format!("pipeline {number} of project {project}")).await;
        };
        let link = pipeline
            .web_url
            .clone()
            .unwrap_or_else(|| format!("pipeline {} of project {project}", pipeline.id));
        let deployed = Deployed {
            pipeline: Some(pipeline.id),
            sha: pipeline.sha.clone(),
            url: pipeline.web_url.clone(),
            ..self.place.deployed(&pipeline.status)
        };
        let seen = |seen| Looked::new(seen, deployed.clone());
        // Named jobs can prove a deploy whose pipeline failed later, or still runs.
        let proven = || {
            let deployed = Deployed { status: Status::Success.to_string(), ..deployed.clone() };
            Looked::new(DeploySeen::Proven(self.recorded.clone()), deployed)
        };
        let what = match self.proof(&pipeline, &link).await? {
            Proof::Proven => return Ok(proven()),
            Proof::NoDeploy if !self.config.overlap.is_zero() => {
                return Ok(Looked { notice: Some(Notice::NoDeploySeen { link }), ..proven() });
            }
            Proof::Running(what) => return Ok(seen(DeploySeen::Running(what))),
            Proof::Blocked(what) => return Ok(self.blocked(what, deployed.clone())),
            Proof::Failed(what) => return self.lost(what, deployed.clone()).await,
            Proof::LeftOut(what) => return Ok(seen(DeploySeen::Unproven(what))),
            Proof::NoDeploy => format!("{link}: nothing in it looks like a deploy"),
            Proof::InVain(what) => what,
        };
        if self.started {
            return Ok(seen(DeploySeen::Unproven(what)));
        }
        let commit = pipeline.sha.as_deref();
        let Self { gitlab, config, place, recorded, .. } = *self;
        if tried::is_exhausted(gitlab, config, place, recorded, commit).await? {
            return Ok(seen(DeploySeen::Unproven(format!(
                "{what}; the pipeline before it ended the same way, so none is started until the \
                 ref has another commit or a setting changes"
            ))));
        }
        let in_vain = recorded.tried.map(|tried| tried.number);
        Ok(Looked { in_vain, ..self.lost(what, deployed.clone()).await? })
    }

    async fn proof(&self, pipeline: &Pipeline, link: &str) -> Result<Proof, ApiError> {
        let (gitlab, project) = (self.gitlab, self.place.project);
        let read = || Tree::read(gitlab, project, pipeline.id, pipeline.status.clone());
        if self.is_stuck(pipeline).await? {
            return Ok(Proof::Failed(format!("pipeline {link} never got any jobs")));
        }
        let names = &self.config.deploy.jobs;
        let proof = match pipeline.status.phase() {
            _ if !names.is_empty() => named::of_named(&read().await?, names, None),
            Phase::Succeeded => whole::of_all(gitlab, &read().await?, pipeline.created_at).await?,
            Phase::Failed if pipeline.status == Status::Skipped => {
                Proof::InVain("all its jobs were skipped".to_owned())
            }
            Phase::Failed => return Ok(Proof::Failed(self.failed_jobs(pipeline, link).await?)),
            Phase::Alive => return Ok(Proof::Running(Self::as_it_is(pipeline, link))),
            Phase::Blocked => return Ok(Proof::Blocked(Self::as_it_is(pipeline, link))),
        };
        Ok(proof.of_pipeline(link))
    }

    fn as_it_is(pipeline: &Pipeline, link: &str) -> String {
        format!("pipeline {link} is {}", pipeline.status.explained())
    }

    async fn failed_jobs(&self, pipeline: &Pipeline, link: &str) -> Result<String, ApiError> {
        let project = self.place.project;
        let jobs = self.gitlab.pipeline_jobs(project, pipeline.id).await?;
        let triggers = self.gitlab.trigger_jobs(project, pipeline.id).await?;
        let has_failed = |job: &&Job| job.status == Status::Failed && !job.allow_failure;
        let told = |job: &Job| format!("{} ({})", job.name, job.link());
        let triggers = triggers.iter().map(|trigger| &trigger.job).filter(has_failed);
        let triggers = triggers.map(|trigger| format!("trigger job {}", told(trigger)));
        let failed: Vec<String> =
            jobs.iter().filter(has_failed).map(told).chain(triggers).collect();
        let failed = failed.join(", ");
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

    async fn deleted(&self, what: &str) -> Result<Looked, ApiError> {
        self.lost(format!("{what} was deleted"), self.place.deployed("deleted")).await
    }

    async fn lost(&self, what: String, deployed: Deployed) -> Result<Looked, ApiError> {
        lost(self.gitlab, self.config, self.place, self.started, what, deployed).await
    }

    /// It waits for a person, as does this run.
    fn blocked(&self, what: String, deployed: Deployed) -> Looked {
        let left = (!self.started).then(|| Left::Blocked(what.clone()));
        Looked { left, ..Looked::new(DeploySeen::Running(what), deployed) }
    }
}

/// What came to nothing is started anew, once per run.
async fn lost(
    gitlab: &Gitlab,
    config: &Config,
    place: &Place<'_>,
    started: bool,
    what: String,
    deployed: Deployed,
) -> Result<Looked, ApiError> {
    if started {
        return Ok(Looked::new(DeploySeen::Failed(what), deployed));
    }
    let left = Some(Left::Failed(what));
    Ok(Looked { left, ..Looked::new(startable(gitlab, config, place).await?, deployed) })
}

async fn startable(
    gitlab: &Gitlab,
    config: &Config,
    place: &Place<'_>,
) -> Result<DeploySeen, ApiError> {
    let asked = Asked::Ref(branch(gitlab, config, place).await?);
    Ok(DeploySeen::Startable { place: place.name.clone(), asked })
}

/// The ref to deploy: the configured one, this job's branch in its own project, else the default
/// branch.
async fn branch(gitlab: &Gitlab, config: &Config, place: &Place<'_>) -> Result<String, ApiError> {
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
    /// The environment whose jobs are run again, where they are.
    pub fn environment(&self) -> &str {
        match self.mode {
            DeployMode::Environment(environment) => environment,
            DeployMode::Pipeline { .. } | DeployMode::None => "",
        }
    }

    pub fn is_environment(&self) -> bool {
        matches!(self.mode, DeployMode::Environment(_))
    }

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
