//! The deploy: start it, adopt one that is under way, and prove that it ran with the new pair.
//!
//! A deploy that this rotation started began after the publication was `drained`, so it read the
//! new pair. In any other each job must have *started* later than that. What is not proven keeps
//! both keys alive. Nothing here waits; the loop does.

use gitlab::api::Pageable;
use gitlab::api::common::SortOrder;
use gitlab::api::endpoint_prelude::{BodyError, Endpoint, QueryParams};
use gitlab::api::projects::deployments::{DeploymentOrderBy, DeploymentStatusFilter, Deployments};
use gitlab::api::projects::jobs::{JobScope, Jobs, RetryJob};
use gitlab::api::projects::pipelines::{
    Pipeline, PipelineBridges, PipelineJobs, PipelineOrderBy, Pipelines,
};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Config, DeployMode, Name};
use crate::error::Error;
use crate::gitlab::variables::{gitlab_error, id};
use crate::gitlab::{ApiError, ApiErrorKind, Gitlab};
use crate::plan::{DeploySeen, START_MARGIN};
use crate::record::RecordedDeploy;

/// A pipeline that has had no jobs for so long never gets any (gitlab-org/gitlab#452059).
const STUCK_AFTER: SignedDuration = SignedDuration::from_mins(5);
/// Downstream pipelines of downstream pipelines; GitLab's own limit is two levels for children.
const DEPTH: u8 = 4;
/// How many of the latest pipelines of a ref are looked at for one to adopt.
const ADOPTABLE: usize = 20;

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

#[derive(Debug, Deserialize)]
struct PipelineSeen {
    id: u64,
    status: String,
    #[serde(default)]
    sha: Option<String>,
    #[serde(default)]
    web_url: Option<String>,
    #[serde(default)]
    created_at: Option<Timestamp>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    user: Option<UserSeen>,
}

#[derive(Debug, Deserialize)]
struct UserSeen {
    id: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct JobSeen {
    id: u64,
    name: String,
    status: String,
    #[serde(default)]
    allow_failure: bool,
    #[serde(default)]
    created_at: Option<Timestamp>,
    #[serde(default)]
    started_at: Option<Timestamp>,
    #[serde(default)]
    web_url: Option<String>,
    #[serde(default)]
    pipeline: Option<PipelineRef>,
    #[serde(default)]
    commit: Option<CommitSeen>,
}

#[derive(Clone, Debug, Deserialize)]
struct CommitSeen {
    id: String,
}

#[derive(Clone, Debug, Deserialize)]
struct PipelineRef {
    id: u64,
    #[serde(default)]
    project_id: Option<u64>,
    #[serde(default)]
    status: Option<String>,
}

#[derive(Debug, Deserialize)]
struct BridgeSeen {
    name: String,
    status: String,
    #[serde(default)]
    allow_failure: bool,
    #[serde(default)]
    web_url: Option<String>,
    #[serde(default)]
    downstream_pipeline: Option<PipelineRef>,
}

#[derive(Debug, Deserialize)]
struct DeploymentSeen {
    #[serde(default)]
    deployable: Option<JobSeen>,
}

#[derive(Debug, Deserialize)]
pub struct ProjectSeen {
    pub id: u64,
    pub path_with_namespace: String,
    #[serde(default)]
    pub default_branch: Option<String>,
    #[serde(default)]
    pub archived: bool,
    /// The group or the user that it is in.
    #[serde(default)]
    pub namespace: Option<GroupSeen>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct GroupSeen {
    pub id: u64,
    pub full_path: String,
    #[serde(default)]
    pub parent_id: Option<u64>,
}

/// One place to deploy.
pub struct Place<'a> {
    project: &'a Name,
    mode: &'a DeployMode,
    /// As the record names it.
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
        let jobs =
            running(gitlab, project).await.map_err(|error| asking(gitlab, project, error))?;
        // Our clock may be a second behind GitLab's: what seems to have started right after the
        // publication may have started before it.
        let in_flight = |job: &&JobSeen| {
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

/// The jobs that run now, those that are being canceled too: GitLab knows that word since 17.0 and
/// refuses it before.
async fn running(gitlab: &Gitlab, project: &Name) -> Result<Vec<JobSeen>, ApiError> {
    match running_in(gitlab, project, &[JobScope::Running, JobScope::Canceling]).await {
        Err(ApiError::Denied { status: 400, .. }) => {
            running_in(gitlab, project, &[JobScope::Running]).await
        }
        reply => reply,
    }
}

async fn running_in(
    gitlab: &Gitlab,
    project: &Name,
    scopes: &[JobScope],
) -> Result<Vec<JobSeen>, ApiError> {
    gitlab
        .list(built(Jobs::builder().project(id(project)).scopes(scopes.iter().copied()).build())?)
        .await
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
    let nothing = |status: &str| Deployed {
        project: place.project.to_string(),
        status: status.to_owned(),
        ..Deployed::default()
    };
    let Some(recorded) = recorded else {
        return Ok((DeploySeen::Startable, nothing("not started")));
    };
    if recorded.proven.is_some() {
        let known =
            Deployed { pipeline: Some(recorded.pipeline), job: recorded.job, ..nothing("success") };
        return Ok((DeploySeen::Proven(recorded.clone()), known));
    }
    let error = |error| asking(gitlab, place.project, error);
    // What came to nothing is started anew, once per run.
    let lost =
        |what: String| if started { DeploySeen::Failed(what) } else { DeploySeen::Startable };
    if let Some(job) = recorded.job {
        let Some(seen) =
            newest_try(gitlab, place.project, recorded.pipeline, job).await.map_err(error)?
        else {
            return Ok((
                lost(format!("job {job} of project {} was deleted", place.project)),
                nothing("deleted"),
            ));
        };
        let state = match seen.status.as_str() {
            "success" => DeploySeen::Proven(recorded.clone()),
            "failed" | "canceled" | "skipped" => {
                lost(format!("job {} {} ({})", seen.name, seen.status, seen.link()))
            }
            status => DeploySeen::Running(format!(
                "job {} is {} ({})",
                seen.name,
                explain(status),
                seen.link()
            )),
        };
        let sha = seen.commit.as_ref().map(|commit| commit.id.clone());
        return Ok((
            state,
            Deployed {
                pipeline: Some(recorded.pipeline),
                job: Some(seen.id),
                sha,
                url: seen.web_url,
                ..nothing(&seen.status)
            },
        ));
    }
    let Some(pipeline) = pipeline(gitlab, place.project, recorded.pipeline).await.map_err(error)?
    else {
        return Ok((
            lost(format!(
                "pipeline {} of project {} was deleted",
                recorded.pipeline, place.project
            )),
            nothing("deleted"),
        ));
    };
    let link = pipeline
        .web_url
        .clone()
        .unwrap_or_else(|| format!("pipeline {} of project {}", pipeline.id, place.project));
    let state = match pipeline.status.as_str() {
        "success" => {
            let proof = prove(gitlab, place.project, pipeline.id, &config.deploy.jobs, None)
                .await
                .map_err(error)?;
            proof.seen(recorded, &link)
        }
        "failed" | "canceled" | "skipped" => {
            let jobs = jobs(gitlab, place.project, pipeline.id).await.map_err(error)?;
            let failed = jobs
                .iter()
                .filter(|job| job.status == "failed" && !job.allow_failure)
                .map(|job| format!("{} ({})", job.name, job.link()));
            let bridges = bridges(gitlab, place.project, pipeline.id).await.map_err(error)?;
            let broken =
                bridges.iter().filter(|bridge| bridge.status == "failed" && !bridge.allow_failure);
            let broken = broken.map(|bridge| {
                format!(
                    "trigger job {} ({})",
                    bridge.name,
                    bridge.web_url.as_deref().unwrap_or("no link")
                )
            });
            let failed = failed.chain(broken).collect::<Vec<_>>().join(", ");
            lost(format!(
                "pipeline {} ({link}): {}",
                pipeline.status,
                if failed.is_empty() { "no job failed" } else { &failed }
            ))
        }
        "created"
            if pipeline
                .created_at
                .is_some_and(|created| now.duration_since(created) > STUCK_AFTER)
                && jobs(gitlab, place.project, pipeline.id).await.map_err(error)?.is_empty() =>
        {
            lost(format!("pipeline {link} never got any jobs"))
        }
        status => DeploySeen::Running(format!("pipeline {link} is {}", explain(status))),
    };
    let deployed = Deployed {
        pipeline: Some(pipeline.id),
        sha: pipeline.sha,
        url: pipeline.web_url,
        ..nothing(&pipeline.status)
    };
    Ok((state, deployed))
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
    let proof = proof.map_err(|error| asking(gitlab, &project, error))?;
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

/// Which pipeline may be adopted: one of our user, made after `drained`, and not the one that came
/// to nothing.
#[derive(Clone, Copy)]
pub struct Ours {
    pub drained: Timestamp,
    pub user: Option<u64>,
    pub lost: Option<u64>,
}

/// Starts a deploy, or adopts the one that an earlier try of this rotation started.
pub async fn start(
    gitlab: &Gitlab,
    config: &Config,
    place: &Place<'_>,
    ours: Ours,
) -> Result<RecordedDeploy, Error> {
    match place.mode {
        DeployMode::Environment(environment) => {
            redeploy(gitlab, place, environment, ours.drained).await
        }
        DeployMode::Pipeline { .. } | DeployMode::None => {
            start_pipeline(gitlab, config, place, ours).await
        }
    }
}

async fn start_pipeline(
    gitlab: &Gitlab,
    config: &Config,
    place: &Place<'_>,
    ours: Ours,
) -> Result<RecordedDeploy, Error> {
    let what = || format!("starting the deploy pipeline of project {}", place.project);
    let branch =
        branch(gitlab, config, place).await.map_err(|error| gitlab_error(gitlab, what(), error))?;
    let recorded = |pipeline: u64| RecordedDeploy {
        place: place.name.clone(),
        pipeline,
        job: None,
        proven: None,
    };
    // Our clock is never ahead of GitLab's, so what a run asked for right after `drained` is later,
    // by however little.
    let late = |seen: &PipelineSeen| {
        ours.lost != Some(seen.id) && seen.created_at.is_some_and(|created| created > ours.drained)
    };
    let (found, newest) = adoptable(gitlab, place.project, &branch, late, ours.user)
        .await
        .map_err(|error| gitlab_error(gitlab, what(), error))?;
    if let Some(pipeline) = found {
        return Ok(recorded(pipeline));
    }
    let create = CreatePipeline { project: place.project, branch: &branch, config };
    match gitlab.ask::<PipelineSeen>(create).await {
        Ok(pipeline) => Ok(recorded(pipeline.id)),
        // A large configuration takes longer than the request: the pipeline appears all the same.
        Err(error) if error.is_ambiguous() => {
            for _ in 0..24 {
                tokio::time::sleep(std::time::Duration::from_secs(5)).await;
                // What was not there just before is made after `drained`, however close to it.
                let found =
                    adoptable(gitlab, place.project, &branch, |seen| seen.id > newest, ours.user)
                        .await;
                if let Ok((Some(pipeline), _)) = found {
                    return Ok(recorded(pipeline));
                }
            }
            Err(gitlab_error(gitlab, what(), error))
        }
        // A refusal of the pipeline that no text explains: exit and hint are a deploy's all the
        // same.
        Err(ApiError::Denied { status: status @ 400, kind: ApiErrorKind::Other, pause, doubt }) => {
            Err(gitlab_error(
                gitlab,
                what(),
                ApiError::Denied { status, kind: ApiErrorKind::PipelineOther, pause, doubt },
            ))
        }
        Err(error) => Err(gitlab_error(gitlab, what(), error)),
    }
}

/// The ref to deploy: the configured one, this job's branch in its own project, else the default
/// branch.
async fn branch(gitlab: &Gitlab, config: &Config, place: &Place<'_>) -> Result<String, ApiError> {
    if let DeployMode::Pipeline { branch: Some(branch) } = place.mode {
        return Ok(branch.clone());
    }
    if let Some(branch) = config.job.branch.as_ref().filter(|_| is_own(config, place.project)) {
        return Ok(branch.clone());
    }
    project(gitlab, place.project).await?.default_branch.ok_or(ApiError::Denied {
        status: 404,
        kind: ApiErrorKind::PipelineRef,
        pause: None,
        doubt: false,
    })
}

/// Whether this is the project that the job runs in.
pub fn is_own(config: &Config, project: &Name) -> bool {
    match project {
        Name::Id(id) => config.job.project == Some(*id),
        Name::Path(path) => config.job.project_path.as_ref() == Some(path),
    }
}

/// The latest pipeline of the ref that the API started for our user and that is new enough, unless
/// it came to nothing; and the highest id of all.
async fn adoptable(
    gitlab: &Gitlab,
    project: &Name,
    branch: &str,
    is_new: impl Fn(&PipelineSeen) -> bool,
    user: Option<u64>,
) -> Result<(Option<u64>, u64), ApiError> {
    let list = LatestPipelines(built(
        Pipelines::builder()
            .project(id(project))
            .ref_(branch)
            .order_by(PipelineOrderBy::Id)
            .sort(SortOrder::Descending)
            .build(),
    )?);
    let latest = gitlab.ask::<Vec<PipelineSeen>>(list).await?;
    let newest = latest.iter().map(|seen| seen.id).max().unwrap_or_default();
    for seen in latest {
        let dead = matches!(seen.status.as_str(), "failed" | "canceled" | "skipped");
        if dead || !is_new(&seen) || seen.source.as_deref().is_some_and(|source| source != "api") {
            continue;
        }
        let Some(whole) = pipeline(gitlab, project, seen.id).await? else { continue };
        let ours = whole.user.as_ref().is_none_or(|owner| user.is_none_or(|user| owner.id == user));
        if ours {
            return Ok((Some(seen.id), newest));
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
) -> Result<RecordedDeploy, Error> {
    let what = || format!("redeploying {environment} of project {}", place.project);
    let live = latest_deployment(gitlab, place.project, environment)
        .await
        .map_err(|error| gitlab_error(gitlab, what(), error))?;
    let nothing = || {
        gitlab_error(
            gitlab,
            what(),
            ApiError::Denied {
                status: 404,
                kind: ApiErrorKind::NotRetryable,
                pause: None,
                doubt: false,
            },
        )
    };
    let live = live.ok_or_else(nothing)?;
    let pipeline = live.pipeline.as_ref().map(|pipeline| pipeline.id).ok_or_else(nothing)?;
    let recorded = |job: u64| RecordedDeploy {
        place: place.name.clone(),
        pipeline,
        job: Some(job),
        proven: None,
    };
    let newest = async || {
        newest_try(gitlab, place.project, pipeline, live.id)
            .await
            .map_err(|error| gitlab_error(gitlab, what(), error))
    };
    // A job of that name made after `drained` is an earlier try of ours, or a person's, and as
    // good.
    let since = |job: &JobSeen| {
        job.id != live.id && job.created_at.is_some_and(|created| created > drained)
    };
    let dead = |job: &JobSeen| matches!(job.status.as_str(), "failed" | "canceled" | "skipped");
    let candidate = newest().await?.unwrap_or_else(|| live.clone());
    if since(&candidate) && !dead(&candidate) {
        return Ok(recorded(candidate.id));
    }
    let retry = RetryJob::builder().project(id(place.project)).job(candidate.id).build();
    match gitlab
        .ask::<JobSeen>(built(retry).map_err(|error| gitlab_error(gitlab, what(), error))?)
        .await
    {
        Ok(job) => Ok(recorded(job.id)),
        Err(error) if error.is_ambiguous() => match newest().await? {
            Some(job) if job.id != candidate.id => Ok(recorded(job.id)),
            _ => Err(gitlab_error(gitlab, what(), error)),
        },
        Err(error) => Err(gitlab_error(gitlab, what(), error)),
    }
}

async fn latest_deployment(
    gitlab: &Gitlab,
    project: &Name,
    environment: &str,
) -> Result<Option<JobSeen>, ApiError> {
    let list = Deployments::builder()
        .project(id(project))
        .environment(environment)
        .status(DeploymentStatusFilter::Success)
        .order_by(DeploymentOrderBy::Id)
        .sort(SortOrder::Descending)
        .build();
    // Only the latest is live: where that one has no job (made by the API, or its pipeline was
    // deleted), an earlier one's ships an older commit.
    let deployments = gitlab.ask::<Vec<DeploymentSeen>>(built(list)?).await?;
    Ok(deployments.into_iter().next().and_then(|deployment| deployment.deployable))
}

/// Whether there is anything to redeploy.
pub async fn has_deployment(
    gitlab: &Gitlab,
    project: &Name,
    environment: &str,
) -> Result<bool, ApiError> {
    Ok(latest_deployment(gitlab, project, environment).await?.is_some())
}

/// The newest job of the same name in the pipeline; a job that is no longer listed there counts
/// itself.
async fn newest_try(
    gitlab: &Gitlab,
    project: &Name,
    pipeline: u64,
    job: u64,
) -> Result<Option<JobSeen>, ApiError> {
    let one = gitlab::api::projects::jobs::Job::builder().project(id(project)).job(job).build();
    let one = match gitlab.ask::<JobSeen>(built(one)?).await {
        Ok(one) => one,
        Err(ApiError::Denied { kind: ApiErrorKind::NotFound, .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    if one.status == "success" || one.is_alive() {
        let newer = jobs(gitlab, project, pipeline)
            .await?
            .into_iter()
            .filter(|other| other.name == one.name && other.id > one.id)
            .max_by_key(|job| job.id);
        return Ok(Some(newer.filter(|_| one.status == "success").unwrap_or(one)));
    }
    let newest = jobs(gitlab, project, pipeline)
        .await?
        .into_iter()
        .filter(|other| other.name == one.name)
        .max_by_key(|job| job.id);
    Ok(Some(newest.unwrap_or(one)))
}

/// What the jobs of a pipeline show.
enum Proof {
    Proven,
    Running(String),
    Missing(String),
}

impl Proof {
    fn seen(self, recorded: &RecordedDeploy, link: &str) -> DeploySeen {
        match self {
            Self::Proven => DeploySeen::Proven(recorded.clone()),
            Self::Running(what) => DeploySeen::Running(format!("{link}: {what}")),
            Self::Missing(what) => DeploySeen::Unproven(format!("{link}: {what}")),
        }
    }
}

/// Looks for the proof in the jobs of the pipeline and of the pipelines that it triggers.
async fn prove(
    gitlab: &Gitlab,
    project: &Name,
    pipeline: u64,
    wanted: &[String],
    drained: Option<Timestamp>,
) -> Result<Proof, ApiError> {
    let (mut all, mut open) = (Vec::new(), vec![(project.clone(), pipeline, 0)]);
    // A pipeline that nobody waits for succeeds while what it triggers is yet to come.
    let (mut holes, mut to_come) = (Vec::new(), Vec::new());
    while let Some((project, pipeline, depth)) = open.pop() {
        all.extend(jobs(gitlab, &project, pipeline).await?);
        for bridge in bridges(gitlab, &project, pipeline).await? {
            match (&bridge.downstream_pipeline, bridge.status.as_str()) {
                (Some(next), _) if depth < DEPTH => {
                    let project = next.project_id.map_or_else(|| project.clone(), Name::Id);
                    if let Some(status) = next.status.as_deref().filter(|status| is_alive(status)) {
                        to_come.push(format!(
                            "pipeline {} of project {project} is {}",
                            next.id,
                            explain(status)
                        ));
                    }
                    open.push((project, next.id, depth + 1));
                }
                (Some(_) | None, "success") => {}
                (Some(_) | None, status) if is_alive(status) => {
                    to_come.push(format!("trigger job {} is {}", bridge.name, explain(status)));
                }
                (Some(_) | None, status) if !bridge.allow_failure || status != "failed" => {
                    holes.push(format!(
                        "trigger job {} is {status} ({})",
                        bridge.name,
                        bridge.web_url.unwrap_or_default()
                    ));
                }
                (Some(_) | None, status) => {
                    holes.push(format!("trigger job {} {status}, which it may", bridge.name));
                }
            }
        }
    }
    if wanted.is_empty() {
        return Ok(if to_come.is_empty() {
            prove_all(&all, holes)
        } else {
            Proof::Running(to_come.join(", "))
        });
    }
    let mut by_name: BTreeMap<&str, Vec<&JobSeen>> =
        wanted.iter().map(|name| (name.as_str(), Vec::new())).collect();
    for job in &all {
        if let Some(list) = by_name.get_mut(stem(&job.name)).or(None) {
            list.push(job);
        } else if let Some(list) = by_name.get_mut(job.name.as_str()) {
            list.push(job);
        }
    }
    let (mut running, mut missing) = (Vec::new(), Vec::new());
    for (name, found) in by_name {
        // In our own pipeline what is to come waits for this very job.
        if found.is_empty() && (to_come.is_empty() || drained.is_some()) {
            missing.push(format!("there is no job {name}"));
        } else if found.is_empty() {
            running.push(format!("there is no job {name} yet, but {}", to_come.join(", ")));
        }
        for job in found {
            let late = |drained: Timestamp| {
                job.started_at.is_some_and(|start| start > drained + START_MARGIN)
            };
            match job.status.as_str() {
                "success" if drained.is_none_or(late) => {}
                "success" => missing.push(format!(
                    "job {} started before the new pair was in place ({})",
                    job.name,
                    job.link()
                )),
                "manual" => {
                    missing.push(format!("job {} waits for a person ({})", job.name, job.link()));
                }
                _ if job.is_alive() => {
                    running.push(format!("job {} is {}", job.name, explain(&job.status)));
                }
                status => missing.push(format!("job {} {status} ({})", job.name, job.link())),
            }
        }
    }
    Ok(match (&missing[..], &running[..]) {
        ([_, ..], _) => Proof::Missing(missing.join(", ")),
        ([], [_, ..]) => Proof::Running(running.join(", ")),
        ([], []) => Proof::Proven,
    })
}

/// Without a list no job may have been left out.
fn prove_all(all: &[JobSeen], mut holes: Vec<String>) -> Proof {
    if let Some(running) = all.iter().find(|job| job.is_alive()) {
        return Proof::Running(format!("job {} is {}", running.name, explain(&running.status)));
    }
    holes.extend(
        all.iter()
            .filter(|job| job.status != "success")
            .map(|job| format!("job {} is {} ({})", job.name, job.status, job.link())),
    );
    match (&holes[..], all) {
        ([], []) => Proof::Missing("it has no jobs".to_owned()),
        ([], _) => Proof::Proven,
        ([_, ..], _) => Proof::Missing(holes.join(", ")),
    }
}

impl JobSeen {
    fn link(&self) -> String {
        self.web_url.clone().unwrap_or_else(|| format!("job {}", self.id))
    }

    fn is_alive(&self) -> bool {
        is_alive(&self.status)
    }
}

/// Words that we do not know are alive; `manual` waits for a person.
fn is_alive(status: &str) -> bool {
    !matches!(status, "success" | "failed" | "canceled" | "skipped" | "manual")
}

/// The name of a job without what GitLab adds for its parts: `NAME 1/3`, `NAME: [a, b]`.
fn stem(name: &str) -> &str {
    let name = name.split_once(": [").map_or(name, |(stem, _)| stem);
    match name.rsplit_once([' ', ':']) {
        Some((stem, part))
            if part.split_once('/').is_some_and(|(n, of)| is_number(n) && is_number(of)) =>
        {
            stem.trim_end()
        }
        _ => name,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A status with what it means for who waits.
fn explain(status: &str) -> String {
    match status {
        "pending" => "pending: no runner has taken it yet".to_owned(),
        "manual" => "blocked: it waits for a person to start a manual job".to_owned(),
        "scheduled" => "scheduled: it waits for a delayed job".to_owned(),
        "waiting_for_resource" => "waiting for its resource group".to_owned(),
        other => other
            .chars()
            .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
            .take(40)
            .collect(),
    }
}

pub async fn project(gitlab: &Gitlab, project: &Name) -> Result<ProjectSeen, ApiError> {
    gitlab.ask(built(gitlab::api::projects::Project::builder().project(id(project)).build())?).await
}

pub async fn group(gitlab: &Gitlab, group: u64) -> Result<GroupSeen, ApiError> {
    gitlab.ask(built(gitlab::api::groups::Group::builder().group(group).build())?).await
}

/// Whether the project has this branch or tag.
pub async fn has_ref(gitlab: &Gitlab, project: &Name, name: &str) -> Result<bool, ApiError> {
    let commit = gitlab::api::projects::repository::commits::Commit::builder()
        .project(id(project))
        .commit(name)
        .build();
    match gitlab.tell(built(commit)?).await {
        Ok(()) => Ok(true),
        Err(ApiError::Denied { kind: ApiErrorKind::NotFound, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn pipeline(
    gitlab: &Gitlab,
    project: &Name,
    pipeline: u64,
) -> Result<Option<PipelineSeen>, ApiError> {
    match gitlab
        .ask(built(Pipeline::builder().project(id(project)).pipeline(pipeline).build())?)
        .await
    {
        Ok(pipeline) => Ok(Some(pipeline)),
        Err(ApiError::Denied { kind: ApiErrorKind::NotFound, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn jobs(gitlab: &Gitlab, project: &Name, pipeline: u64) -> Result<Vec<JobSeen>, ApiError> {
    gitlab
        .list(built(PipelineJobs::builder().project(id(project)).pipeline(pipeline).build())?)
        .await
}

/// Trigger jobs: `/trigger_jobs` from 19.2 on, `/bridges` before and, deprecated, beside it.
async fn bridges(
    gitlab: &Gitlab,
    project: &Name,
    pipeline: u64,
) -> Result<Vec<BridgeSeen>, ApiError> {
    match gitlab
        .list(built(PipelineBridges::builder().project(id(project)).pipeline(pipeline).build())?)
        .await
    {
        Err(ApiError::Denied {
            kind: ApiErrorKind::NotFound | ApiErrorKind::Redirected, ..
        }) => gitlab.list(TriggerJobs { project, pipeline }).await,
        reply => reply,
    }
}

fn asking(gitlab: &Gitlab, project: &Name, error: ApiError) -> Error {
    gitlab_error(gitlab, format!("looking at the jobs of project {project}"), error)
}

fn built<T, E>(endpoint: Result<T, E>) -> Result<T, ApiError> {
    endpoint.map_err(|_| ApiError::Garbled)
}

/// <https://docs.gitlab.com/api/pipelines/#create-a-new-pipeline>, with `inputs`, which the crate's
/// endpoint lacks.
struct CreatePipeline<'a> {
    project: &'a Name,
    branch: &'a str,
    config: &'a Config,
}

impl Endpoint for CreatePipeline<'_> {
    fn method(&self) -> Method {
        Method::POST
    }

    fn endpoint(&self) -> Cow<'static, str> {
        format!("projects/{}/pipeline", id(self.project)).into()
    }

    fn body(&self) -> Result<Option<(&'static str, Vec<u8>)>, BodyError> {
        let mut body = serde_json::json!({ "ref": self.branch });
        let deploy = &self.config.deploy;
        if !deploy.inputs.is_empty() {
            body["inputs"] = serde_json::Value::Object(deploy.inputs.clone());
        }
        if !deploy.variables.is_empty() {
            let pairs = deploy
                .variables
                .iter()
                .map(|(key, value)| serde_json::json!({ "key": key, "value": value }));
            body["variables"] = pairs.collect();
        }
        Ok(Some(("application/json", serde_json::to_vec(&body)?)))
    }
}

/// The newest pipelines of a list, one page.
struct LatestPipelines<'a>(Pipelines<'a>);

impl Endpoint for LatestPipelines<'_> {
    fn method(&self) -> Method {
        self.0.method()
    }

    fn endpoint(&self) -> Cow<'static, str> {
        self.0.endpoint()
    }

    fn parameters(&self) -> QueryParams<'_> {
        let mut parameters = self.0.parameters();
        parameters.push("per_page", ADOPTABLE as u64);
        parameters
    }
}

struct TriggerJobs<'a> {
    project: &'a Name,
    pipeline: u64,
}

impl Endpoint for TriggerJobs<'_> {
    fn method(&self) -> Method {
        Method::GET
    }

    fn endpoint(&self) -> Cow<'static, str> {
        format!("projects/{}/pipelines/{}/trigger_jobs", id(self.project), self.pipeline).into()
    }
}

impl Pageable for TriggerJobs<'_> {}
