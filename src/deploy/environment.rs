//! The deploy of an environment: each job that deploys to it is run again, one after the other, in
//! the order in which they first ran.
//!
//! A job of an environment is proven by its newest successful deployment, whoever started it. What
//! is being deployed is waited for: to run an older job again meanwhile would take the newer one
//! back. Newest is what finished last, as in GitLab itself; ids follow another order.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::named::stem;
use super::{Deployed, Left, Looked, Place, looking, newest_try};
use crate::config::Config;
use crate::error::Error;
use crate::gitlab::deployments::Deployment;
use crate::gitlab::jobs::Job;
use crate::gitlab::{ApiError, Gitlab, Phase, Status};
use crate::plan::{DeploySeen, START_MARGIN};
use crate::record::{Asked, DeployAttempt, Progress, RecordedDeploy};

/// What a run knows of an environment's deploy before it looks.
pub struct Known<'a> {
    pub progress: &'a Progress,
    /// The jobs that this run has run again.
    pub rerun: BTreeSet<&'a str>,
    pub now: Timestamp,
}

/// What one look at an environment shows of its jobs.
pub(crate) struct Survey {
    /// The newest successful deployment of each job, in the order in which the jobs first ran.
    pub(crate) jobs: Vec<Job>,
    /// Names that were asked for and that deployed nothing.
    pub(crate) missing: Vec<String>,
    /// Names that deployed too since the given time, and that nobody asked for.
    pub(crate) further: Vec<String>,
    /// What is live was not deployed by a job, so no job can deploy it again.
    pub(crate) is_jobless: bool,
}

/// What is to be done about one job.
enum State {
    Proven,
    Running(Job),
    Blocked(Job),
    Failed(Job),
    /// It deployed before the new pair was in place.
    Due(Job),
    Hidden(String),
}

/// Which jobs deploy to the environment: the named ones, else those of the pipeline that was live
/// then. `further`: since when other jobs matter.
pub(crate) async fn survey(
    gitlab: &Gitlab,
    config: &Config,
    place: &Place<'_>,
    then: Timestamp,
    further: Timestamp,
) -> Result<Survey, ApiError> {
    let (wanted, environment) = (&config.deploy.jobs, place.environment());
    let mut done = gitlab.finished_deployments(place.project, environment, false).await?;
    let names = |wanted: &str, job: &Job| job.name == wanted || stem(&job.name) == wanted;
    let lacks =
        |name: &String| !done.iter().filter_map(Deployment::job).any(|job| names(name, job));
    if wanted.iter().any(lacks) {
        done = gitlab.finished_deployments(place.project, environment, true).await?;
    }
    let is_jobless = done.first().is_some_and(|newest| newest.job().is_none());
    let all: Vec<&Job> = done.iter().filter_map(Deployment::job).collect();
    let ended = |job: &Job| job.finished_at.unwrap_or(Timestamp::MIN);
    let beside = |one: &Job| {
        let pipeline = one.pipeline_id();
        all.iter().copied().filter(move |job| job.pipeline_id() == pipeline)
    };
    let mut unique: BTreeSet<&str> = BTreeSet::new();
    let mut missing = Vec::new();
    for name in wanted {
        match all.iter().find(|job| names(name, job)) {
            None => missing.push(name.clone()),
            Some(newest) => {
                let parts = beside(newest).filter(|job| names(name, job));
                unique.extend(parts.map(|job| job.name.as_str()));
            }
        }
    }
    let live = all.iter().find(|job| ended(job) <= then).or_else(|| all.last());
    if let (true, Some(live)) = (wanted.is_empty(), live) {
        unique.extend(beside(live).map(|job| job.name.as_str()));
    }
    let newest = |name: &&str| all.iter().find(|job| job.name == **name).copied();
    let mut jobs: Vec<Job> = unique.iter().filter_map(newest).cloned().collect();
    jobs.sort_by_cached_key(|job| {
        let tries = beside(job).filter(|other| other.name == job.name);
        tries.map(|job| (job.started_at, job.id)).min()
    });
    let is_further =
        |job: &&&Job| wanted.is_empty() && ended(job) > further && !unique.contains(&*job.name);
    let further: BTreeSet<String> =
        all.iter().filter(is_further).map(|job| job.name.clone()).collect();
    Ok(Survey { jobs, missing, further: further.into_iter().collect(), is_jobless })
}

/// What became of the environment's deploy.
pub async fn look(
    gitlab: &Gitlab,
    config: &Config,
    place: &Place<'_>,
    known: &Known<'_>,
) -> Result<Looked, Error> {
    let looked = look_at(gitlab, config, place, known).await;
    looked.map_err(|error| looking(place.project, error))
}

async fn look_at(
    gitlab: &Gitlab,
    config: &Config,
    place: &Place<'_>,
    known: &Known<'_>,
) -> Result<Looked, ApiError> {
    let Known { progress, now, .. } = known;
    let drained = progress.drained.unwrap_or(*now);
    let survey = survey(gitlab, config, place, progress.creating, progress.creating).await?;
    if let Some(why) = survey.unproven(place) {
        return Ok(Looked::new(DeploySeen::Unproven(why), place.deployed("unproven")));
    }
    let attempt = progress.attempt_at(&place.name);
    let recorded = progress.deploys.iter().find(|recorded| recorded.place == place.name);
    let mut last = None;
    for job in &survey.jobs {
        let state = state(gitlab, place, job, drained).await?;
        let seen = |seen, job: &Job| Ok(Looked::new(seen, place.rerun(job)));
        let answer = attempt.filter(|attempt| attempt.asked == Asked::Job(job.name.clone()));
        let is_answer = |job: &Job| {
            answer.is_some_and(|attempt| job.created_at.is_some_and(|made| made > attempt.at))
        };
        let left = |left: Left, looked: Looked| Looked { left: Some(left), ..looked };
        match state {
            State::Running(job) | State::Blocked(job) | State::Failed(job) if is_answer(&job) => {
                return seen(DeploySeen::Adoptable(place.job(&job)), &job);
            }
            State::Proven => last = Some(job),
            State::Running(job) => return seen(DeploySeen::Running(told(&job)), &job),
            State::Blocked(job) => {
                let looked = seen(DeploySeen::Running(told(&job)), &job)?;
                let is_left = !known.rerun.contains(job.name.as_str());
                return Ok(if is_left { left(Left::Blocked(told(&job)), looked) } else { looked });
            }
            State::Failed(job) if known.rerun.contains(job.name.as_str()) => {
                return seen(DeploySeen::Failed(told(&job)), &job);
            }
            State::Failed(job) => {
                return Ok(left(Left::Failed(told(&job)), seen(place.startable(&job), &job)?));
            }
            State::Due(_) if answer.is_some_and(|attempt| *now < attempt.ends(timeout(config))) => {
                let until = answer.map_or(*now, |attempt| attempt.ends(timeout(config)));
                return Ok(place.unanswered(until));
            }
            State::Due(job) if known.rerun.contains(job.name.as_str()) => {
                let what = format!("job {} was run again and does not show", job.name);
                return seen(DeploySeen::Unproven(what), &job);
            }
            State::Due(job) => return seen(place.startable(&job), &job),
            State::Hidden(what) => return seen(DeploySeen::Unproven(what), job),
        }
    }
    let Some(last) = last else {
        let what = format!("no job has deployed {}", place.environment());
        return Ok(Looked::new(DeploySeen::Unproven(what), place.deployed("unproven")));
    };
    let deployed = place.rerun(last);
    Ok(match recorded {
        Some(recorded) => Looked::new(DeploySeen::Proven(recorded.clone()), deployed),
        // Somebody else's deploys are as good.
        None => Looked::new(DeploySeen::Adoptable(place.job(last)), deployed),
    })
}

/// Runs the job again that the attempt is about; `None` where that is not needed any more. Looked
/// at once more right before, so that nothing that is being deployed is taken back.
pub(super) async fn start(
    gitlab: &Gitlab,
    config: &Config,
    place: &Place<'_>,
    attempt: &DeployAttempt,
    progress: &Progress,
) -> Result<Option<RecordedDeploy>, ApiError> {
    let drained = progress.drained.unwrap_or(attempt.at);
    let survey = survey(gitlab, config, place, progress.creating, progress.creating).await?;
    if survey.unproven(place).is_some() {
        return Ok(None);
    }
    for job in &survey.jobs {
        match state(gitlab, place, job, drained).await? {
            State::Proven => {}
            State::Due(job) | State::Failed(job)
                if attempt.asked == Asked::Job(job.name.clone()) =>
            {
                let job = gitlab.retry_job(place.project, job.id).await?;
                return Ok(Some(place.job(&job)));
            }
            State::Due(_)
            | State::Failed(_)
            | State::Running(_)
            | State::Blocked(_)
            | State::Hidden(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// What is to be done about the job of this newest successful deployment.
async fn state(
    gitlab: &Gitlab,
    place: &Place<'_>,
    job: &Job,
    drained: Timestamp,
) -> Result<State, ApiError> {
    // Dates of jobs may be whole seconds. What was made after `drained` has started after it.
    let is_late = |job: &Job| {
        job.created_at.is_some_and(|made| made > drained)
            || job.started_at.is_some_and(|start| start > drained + START_MARGIN)
    };
    if is_late(job) {
        return Ok(State::Proven);
    }
    let open = gitlab.deploying_jobs(place.project, place.environment()).await?;
    if let Some(newer) = open.into_iter().find(|other| other.name == job.name && will_run(other)) {
        return Ok(State::Running(newer));
    }
    let pipeline = job.pipeline_id().unwrap_or_default();
    let Some(newest) = newest_try(gitlab, place.project, pipeline, job.id).await? else {
        return Ok(State::Hidden(format!(
            "job {} of {} is a trigger job, or cannot be seen: it cannot be run again",
            job.name,
            place.environment()
        )));
    };
    Ok(match newest.status.phase() {
        Phase::Succeeded if is_late(&newest) => State::Proven,
        Phase::Succeeded => State::Due(newest),
        Phase::Alive => State::Running(newest),
        Phase::Blocked => State::Blocked(newest),
        Phase::Failed => State::Failed(newest),
    })
}

/// Whether it goes on by itself: a delayed or manual job may never run, nor one that waits in a
/// pipeline that stands still.
fn will_run(job: &Job) -> bool {
    let pipeline = job.pipeline.as_ref().and_then(|pipeline| pipeline.status.as_ref());
    match &job.status {
        Status::Created => matches!(
            pipeline,
            Some(
                Status::Running
                    | Status::Pending
                    | Status::Preparing
                    | Status::WaitingForResource
                    | Status::WaitingForCallback
            )
        ),
        Status::Scheduled => false,
        status => status.is_alive(),
    }
}

fn told(job: &Job) -> String {
    if job.status.has_failed() {
        return format!("job {} {} ({})", job.name, job.status, job.link());
    }
    format!("job {} is {} ({})", job.name, job.status.explained(), job.link())
}

fn timeout(config: &Config) -> SignedDuration {
    SignedDuration::try_from(config.http_timeout).unwrap_or_default()
}

impl Survey {
    fn unproven(&self, place: &Place<'_>) -> Option<String> {
        let environment = place.environment();
        if self.is_jobless {
            Some(format!("what is live in {environment} was not deployed by a job"))
        } else if !self.missing.is_empty() {
            let names = self.missing.join(", ");
            Some(format!("{environment} has no successful deployment by {names}"))
        } else if !self.further.is_empty() {
            let names = self.further.join(", ");
            Some(format!(
                "{names} deployed to {environment} too since the rotation began: name every job \
                 that deploys there in ROTATOR_DEPLOY_JOBS"
            ))
        } else {
            None
        }
    }
}

impl Place<'_> {
    fn startable(&self, job: &Job) -> DeploySeen {
        DeploySeen::Startable { place: self.name.clone(), asked: Asked::Job(job.name.clone()) }
    }

    fn job(&self, job: &Job) -> RecordedDeploy {
        self.recorded(job.pipeline_id().unwrap_or_default(), Some(job.id))
    }

    fn rerun(&self, job: &Job) -> Deployed {
        Deployed {
            pipeline: job.pipeline_id(),
            job: Some(job.id),
            sha: job.commit.as_ref().map(|commit| commit.id.clone()),
            url: job.web_url.clone(),
            ..self.deployed(&job.status)
        }
    }
}
