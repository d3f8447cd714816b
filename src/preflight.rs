//! What a rotation needs, looked at before anything is written: all findings at once, each a
//! sentence for a person.
//!
//! A finding costs nothing but a clear exit. Information that GitLab does not give is no finding.

use jiff::{SignedDuration, Timestamp};

use crate::aws::{Aws, AwsError, Identity};
use crate::config::{Config, DeployMode, Name, Owner};
use crate::error::Error;
use crate::fence::Fence;
use crate::gitlab::projects::Project;
use crate::gitlab::token::Token;
use crate::gitlab::{ApiError, ApiErrorKind, Gitlab};
use crate::plan::Observed;
use crate::targets::{self, Lists};

mod variables;

use variables::{findings_of_targets, stands_before};

/// What the token must outlive besides verification and deploy.
const MARGIN: SignedDuration = SignedDuration::from_mins(10);
/// What the job must have left besides verification: publication, record and a safe end.
const SHORTEST_JOB: SignedDuration = SignedDuration::from_mins(5);
/// Groups in groups, as deep as GitLab lets them be.
const DEPTH: usize = 20;

/// # Errors
/// Too little of the job is left; calls that failed for another reason than what they were to show.
pub(crate) async fn findings(
    config: &Config,
    gitlab: &Gitlab,
    aws: &Aws,
    lists: &Lists,
    token: &Token,
    seen: &Observed,
) -> Result<(Vec<String>, Option<Identity>), Error> {
    enough_time(config, &gitlab.fence, seen.now)?;
    let mut findings = Vec::new();
    let identity = match aws.identity().await {
        Ok(identity) => Some(identity),
        // IAM has just accepted the same credentials.
        Err(AwsError::KeyRefused { .. }) => {
            findings.push(format!(
                "the STS endpoint of {} refuses credentials that IAM accepts, so it could not \
                 verify a new key: set AWS_REGION to a region that is enabled in the account",
                config.region
            ));
            None
        }
        Err(error) => return Err(error.into()),
    };
    findings.extend(token_findings(config, token, seen.now));
    findings.extend(findings_of_targets(config, lists, seen));
    findings.extend(deploy_findings(config, gitlab, seen).await?);
    Ok((findings, identity))
}

/// # Errors
/// Too little of the job is left to make a key and publish it.
pub(crate) fn enough_time(config: &Config, fence: &Fence, now: Timestamp) -> Result<(), Error> {
    let Some(ends) = fence.job_ends() else { return Ok(()) };
    let needed = SignedDuration::try_from(config.verify_timeout).unwrap_or_default() + SHORTEST_JOB;
    let left = ends.duration_since(now);
    if left < needed {
        return Err(Error::NoTimeLeft { needed: needed.as_secs(), left: left.as_secs() });
    }
    Ok(())
}

fn token_findings(config: &Config, token: &Token, now: Timestamp) -> Vec<String> {
    let mut findings = Vec::new();
    if token.scopes.as_ref().is_some_and(|scopes| {
        !scopes.is_empty() && !scopes.iter().any(|scope| scope == "api" || scope == "granular")
    }) {
        findings.push("the GitLab token lacks the scope `api`: create one that has it".to_owned());
    }
    // Tokens end at midnight UTC.
    let expires = token
        .expires_at
        .as_deref()
        .and_then(|day| format!("{}T00:00:00Z", day.get(..10)?).parse::<Timestamp>().ok());
    let needed = SignedDuration::try_from(config.verify_timeout).unwrap_or_default()
        + config.deploy.timeout
        + MARGIN;
    if let Some(expires) = expires
        && expires < now + needed
    {
        findings.push(format!(
            "the GitLab token expires at {expires}, before this rotation could \
             end: create a new one"
        ));
    }
    findings
}

async fn deploy_findings(
    config: &Config,
    gitlab: &Gitlab,
    seen: &Observed,
) -> Result<Vec<String>, Error> {
    let mut findings = Vec::new();
    if config.deploy.mode == DeployMode::None {
        return Ok(findings);
    }
    for project in &config.deploy.projects {
        match deploy_finding(config, gitlab, project).await {
            Ok((project, finding)) => {
                findings.extend(finding);
                if let Some(project) = project {
                    findings.extend(nearer_pairs(config, gitlab, &project, seen).await);
                }
            }
            Err(ApiError::Denied {
                kind: ApiErrorKind::NotFound | ApiErrorKind::Forbidden,
                ..
            }) => {
                findings.push(format!(
                    "the GitLab token cannot see the deploy project {project}: check the name, and \
                     add the token's user as Maintainer"
                ));
            }
            Err(error) => {
                let what = format!("looking at the deploy project {project}");
                return Err(Error::gitlab(what, error));
            }
        }
    }
    findings.dedup();
    Ok(findings)
}

/// The project that is to be deployed, as far as the token may see it, and why that cannot be done.
async fn deploy_finding(
    config: &Config,
    gitlab: &Gitlab,
    name: &Name,
) -> Result<(Option<Project>, Option<String>), ApiError> {
    let branch = match &config.deploy.mode {
        DeployMode::None => return Ok((None, None)),
        DeployMode::Environment(environment) => {
            // To redeploy takes no right to see the project itself.
            let project = gitlab.project(name).await.ok();
            let deployed = gitlab.latest_deployment(name, environment).await?.is_some();
            let finding = || {
                format!(
                    "project {name} has no successful deployment to {environment}, so there is \
                     nothing to redeploy: deploy once, or use ROTATOR_DEPLOY=pipeline"
                )
            };
            return Ok((project, (!deployed).then(finding)));
        }
        DeployMode::Pipeline { branch } => branch,
    };
    let project = gitlab.project(name).await?;
    let own = config.job.branch_in(name);
    let finding = match branch.as_deref().or(own).or(project.default_branch.as_deref()) {
        _ if project.archived => {
            Some(format!("project {name} is archived, so nothing can be deployed there"))
        }
        Some(branch) => (!gitlab.has_ref(name, branch).await?)
            .then(|| format!("project {name} has no ref {branch} to deploy: check ROTATOR_DEPLOY")),
        None => Some(format!("project {name} has no branch to deploy: its repository is empty")),
    };
    Ok((Some(project), finding))
}

/// Pairs that the deploy's jobs get instead of a target group's: the project's own, and those of
/// groups between the two. Where the token may not list variables nothing is found.
async fn nearer_pairs(
    config: &Config,
    gitlab: &Gitlab,
    project: &Project,
    seen: &Observed,
) -> Vec<String> {
    let owners = targets::owners(&config.targets);
    let is_project = |owner: &Owner| match owner {
        Owner::Project(name) => name.is(Some(project.id), Some(&project.path_with_namespace)),
        Owner::Group(_) => false,
    };
    if owners.iter().any(is_project) || !owners.iter().any(|owner| matches!(owner, Owner::Group(_)))
    {
        return Vec::new();
    }
    let mut nearer = vec![(
        Owner::Project(Name::Id(project.id)),
        format!("project:{}", project.path_with_namespace),
    )];
    let mut group = project.namespace.clone();
    for _ in 0..DEPTH {
        let Some(here) = group else { return Vec::new() };
        let is_here = |owner: &&Owner| match owner {
            Owner::Group(name) => name.is(Some(here.id), Some(&here.full_path)),
            Owner::Project(_) => false,
        };
        if let Some(target) = owners.iter().find(is_here) {
            let mut findings = Vec::new();
            for (owner, name) in &nearer {
                let variables = targets::list(gitlab, owner).await.unwrap_or_default();
                findings.extend(stands_before(config, owner, name, &variables, target, seen));
            }
            return findings;
        }
        nearer.push((Owner::Group(Name::Id(here.id)), format!("group:{}", here.full_path)));
        group = match here.parent_id {
            Some(parent) => gitlab.group(parent).await.ok(),
            None => None,
        };
    }
    Vec::new()
}
