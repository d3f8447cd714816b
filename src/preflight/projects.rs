//! The projects of the targets and of the deploy: their settings, the reads that the rotation needs
//! later, and whether there is something to deploy.

use jiff::Timestamp;

use super::{Findings, nearer};
use crate::config::{Config, DeployMode, Name};
use crate::deploy::environment::survey;
use crate::deploy::places;
use crate::error::{Blocker, Error, Notice};
use crate::gitlab::projects::Project;
use crate::gitlab::{ApiError, ApiErrorKind, Gitlab, Right};
use crate::plan::Observed;

const PROJECT: Right = Right { resource: "Project", action: "Read" };
const JOBS: Right = Right { resource: "Job", action: "Read" };
const PIPELINES: Right = Right { resource: "Pipeline", action: "Read" };
const COMMITS: Right = Right { resource: "Commit", action: "Read" };
const DEPLOYMENTS: Right = Right { resource: "Deployment", action: "Read" };

pub(super) async fn look(
    config: &Config,
    gitlab: &Gitlab,
    seen: &Observed,
    found: &mut Findings,
) -> Result<(), Error> {
    let mut look = Look { config, gitlab, seen, found };
    for name in config.projects() {
        let looked = look.at(&name).await;
        looked.map_err(|error| Error::gitlab(format!("looking at project {name}"), error))?;
    }
    look.at_own_pipeline()
        .await
        .map_err(|error| Error::gitlab("looking at the jobs of this pipeline", error))?;
    look.found.blockers.dedup();
    Ok(())
}

struct Look<'a> {
    config: &'a Config,
    gitlab: &'a Gitlab,
    seen: &'a Observed,
    found: &'a mut Findings,
}

impl Look<'_> {
    async fn at(&mut self, name: &Name) -> Result<(), ApiError> {
        let deploy = &self.config.deploy;
        let is_deployed = deploy.mode != DeployMode::None && deploy.projects.contains(name);
        let project = match self.gitlab.project(name).await {
            Err(ApiError::Denied {
                kind: ApiErrorKind::NotFound | ApiErrorKind::Forbidden,
                ..
            }) => {
                self.found.blockers.push(Blocker::ProjectHidden { project: name.to_string() });
                return Ok(());
            }
            reply => self.tried(name, PROJECT, reply)?,
        };
        if let Some(project) = &project
            && let Some(blocker) = closed(name, project)
        {
            self.found.blockers.push(blocker);
            return Ok(());
        }
        // The wait for older jobs lists them, and so does each proof.
        self.tried(name, JOBS, self.gitlab.try_jobs(name).await)?;
        if !is_deployed {
            return Ok(());
        }
        match &deploy.mode {
            DeployMode::None => {}
            DeployMode::Pipeline { branch } => {
                self.at_branch(name, branch.as_deref(), project.as_ref()).await?;
            }
            DeployMode::Environment(environment) => {
                self.at_environment(name, environment, project.as_ref()).await?;
            }
        }
        if let Some(project) = &project {
            nearer::look(self.config, self.gitlab, project, self.seen, self.found).await;
        }
        Ok(())
    }

    /// Gives what GitLab replied; a refusal is a blocker.
    fn tried<T>(
        &mut self,
        name: &Name,
        right: Right,
        reply: Result<T, ApiError>,
    ) -> Result<Option<T>, ApiError> {
        let project = name.to_string();
        let blocker = match reply {
            Ok(reply) => return Ok(Some(reply)),
            Err(ApiError::Denied { kind: ApiErrorKind::TokenGranular(right), .. }) => {
                Blocker::TokenLacks { right, project }
            }
            Err(ApiError::Denied {
                kind: ApiErrorKind::NotFound | ApiErrorKind::Forbidden,
                ..
            }) => Blocker::NotAllowed { right, project },
            Err(error) => return Err(error),
        };
        self.found.blockers.push(blocker);
        Ok(None)
    }

    async fn at_branch(
        &mut self,
        name: &Name,
        branch: Option<&str>,
        project: Option<&Project>,
    ) -> Result<(), ApiError> {
        let own = self.config.job.branch_in(name);
        let default = project.and_then(|project| project.default_branch.as_deref());
        if let Some(project) = project {
            self.pipeline_variables(name, project);
        }
        let Some(branch) = branch.or(own).or(default) else {
            let blocker = Blocker::NoBranch { project: name.to_string() };
            self.found.blockers.extend(project.map(|_| blocker));
            return Ok(());
        };
        let there = self.tried(name, COMMITS, self.gitlab.has_ref(name, branch).await)?;
        if there == Some(false) {
            let (project, name) = (name.to_string(), branch.to_owned());
            self.found.blockers.push(Blocker::NoRef { project, name });
        }
        let latest = self.gitlab.latest_pipelines(name, branch, 1).await;
        self.tried(name, PIPELINES, latest)?;
        Ok(())
    }

    fn pipeline_variables(&mut self, name: &Name, project: &Project) {
        if self.config.deploy.variables.is_empty() {
            return;
        }
        match project.lets_set_pipeline_variables() {
            Some(true) => {}
            Some(false) => {
                let project = name.to_string();
                self.found.blockers.push(Blocker::PipelineVariables { project });
            }
            None => self.found.unknown.push(format!(
                "GitLab does not tell whether project {name} lets the token's user set pipeline \
                 variables"
            )),
        }
    }

    async fn at_environment(
        &mut self,
        name: &Name,
        environment: &str,
        project: Option<&Project>,
    ) -> Result<(), ApiError> {
        match project.and_then(|project| project.ci_forward_deployment_enabled) {
            Some(true) => {}
            Some(false) => {
                let project = name.to_string();
                self.found.notices.push(Notice::OutdatedDeployments { project });
            }
            None => self.found.unknown.push(format!(
                "GitLab does not tell whether project {name} prevents outdated deployment jobs"
            )),
        }
        let places = places(self.config);
        let Some(place) = places.iter().find(|place| place.name.project == *name) else {
            return Ok(());
        };
        let named = self.seen.targets.iter().filter_map(|target| target.id.key());
        let made = named.filter_map(|id| self.seen.key(id)).map(|key| key.created).min();
        let since = made.unwrap_or(self.seen.now);
        let survey = survey(self.gitlab, self.config, place, Timestamp::MAX, since).await;
        let Some(survey) = self.tried(name, DEPLOYMENTS, survey)? else { return Ok(()) };
        let (project, environment) = (name.to_string(), environment.to_owned());
        if survey.is_jobless || survey.jobs.is_empty() && survey.missing.is_empty() {
            self.found.blockers.push(Blocker::NoDeployment { project, environment });
            return Ok(());
        }
        for job in survey.missing {
            let (project, environment) = (project.clone(), environment.clone());
            self.found.blockers.push(Blocker::NothingByJob { project, environment, job });
        }
        for job in survey.jobs {
            let (project, environment) = (project.clone(), environment.clone());
            if let Some(pipeline) = job.pipeline_id() {
                let jobs = self.gitlab.pipeline_jobs(name, pipeline).await;
                self.tried(name, PIPELINES, jobs)?;
            }
            let is_there = self.tried(name, JOBS, self.gitlab.job(name, job.id).await)?;
            let (is_archived, job) = (job.archived, job.name);
            self.found.blockers.extend(match is_there {
                _ if is_archived => Some(Blocker::JobArchived { project, environment, job }),
                Some(None) => Some(Blocker::TriggerJob { project, environment, job }),
                Some(Some(_)) | None => None,
            });
        }
        if !survey.further.is_empty() {
            let jobs = survey.further;
            self.found.blockers.push(Blocker::FurtherJobs { project, environment, jobs });
        }
        Ok(())
    }

    /// `retire` proves the deploy by the jobs of the pipeline that it is part of.
    async fn at_own_pipeline(&mut self) -> Result<(), ApiError> {
        let Config { deploy, job, .. } = self.config;
        let (DeployMode::None, Some(project), Some(pipeline)) =
            (&deploy.mode, job.project, job.pipeline)
        else {
            return Ok(());
        };
        let name = Name::Id(project);
        self.tried(&name, PIPELINES, self.gitlab.pipeline_jobs(&name, pipeline).await)?;
        Ok(())
    }
}

/// Why nothing runs in the project, whoever asks.
fn closed(name: &Name, project: &Project) -> Option<Blocker> {
    let name = || name.to_string();
    if project.archived {
        Some(Blocker::ProjectArchived { project: name() })
    } else if project.has_ci() {
        None
    } else {
        Some(Blocker::CiOff { project: name() })
    }
}
