//! What a rotation needs, looked at before anything is written: all findings at once, each a sentence for a person.
//!
//! A finding costs nothing but a clear exit. Information that GitLab does not give is no finding.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::config::{Config, DeployMode, Owner};
use crate::deploy;
use crate::fence::Fence;
use crate::keys::{Aws, Identity};
use crate::plan::{Observed, SecretSeen};
use crate::record::AccessKeyId;
use crate::transport::{Gitlab, Problem, Reason};
use crate::trouble::Trouble;
use crate::variables::{self, Lists};

/// What the token must outlive besides verification and deploy.
const MARGIN: SignedDuration = SignedDuration::from_mins(10);
/// What the job must have left besides verification: publication, record and a safe end.
const SHORTEST_JOB: SignedDuration = SignedDuration::from_mins(5);

/// The token, as far as GitLab tells: some kinds are told nothing.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Token {
    #[serde(default)]
    pub(crate) user_id: Option<u64>,
    #[serde(default)]
    pub(crate) scopes: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) expires_at: Option<String>,
}

/// # Errors
/// Too little of the job is left; calls that failed for another reason than what they were to show.
pub(crate) async fn findings(
    config: &Config,
    gitlab: &Gitlab,
    aws: &Aws,
    lists: &Lists,
    token: &Token,
    seen: &Observed,
) -> Result<(Vec<String>, Option<Identity>), Trouble> {
    enough_time(config, &gitlab.fence, seen.now)?;
    let mut findings = Vec::new();
    let identity = match aws.identity().await {
        Ok(identity) => Some(identity),
        // IAM has just accepted the same credentials.
        Err(Trouble::KeyRefused { .. }) => {
            findings.push(format!(
                "the STS endpoint of {} refuses credentials that IAM accepts, so it could not verify a new key: set AWS_REGION to a region that is enabled in the account",
                config.region
            ));
            None
        }
        Err(trouble) => return Err(trouble),
    };
    findings.extend(token_findings(config, token, seen.now));
    findings.extend(variable_findings(config, lists, seen));
    findings.extend(deploy_findings(config, gitlab, lists).await?);
    Ok((findings, identity))
}

fn enough_time(config: &Config, fence: &Fence, now: Timestamp) -> Result<(), Trouble> {
    let Some(ends) = fence.job_ends() else { return Ok(()) };
    let needed = SignedDuration::try_from(config.verify_timeout).unwrap_or_default() + SHORTEST_JOB;
    let left = ends.duration_since(now);
    if left < needed {
        return Err(Trouble::NoTimeLeft { needed: needed.as_secs(), left: left.as_secs() });
    }
    Ok(())
}

fn token_findings(config: &Config, token: &Token, now: Timestamp) -> Vec<String> {
    let mut findings = Vec::new();
    if token.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty() && !scopes.iter().any(|scope| scope == "api" || scope == "granular")) {
        findings.push("the GitLab token lacks the scope `api`: create one that has it".to_owned());
    }
    // Tokens end at midnight UTC.
    let expires = token.expires_at.as_deref().and_then(|day| format!("{}T00:00:00Z", day.get(..10)?).parse::<Timestamp>().ok());
    let needed = SignedDuration::try_from(config.verify_timeout).unwrap_or_default() + config.deploy.timeout + MARGIN;
    if let Some(expires) = expires
        && expires < now + needed
    {
        findings.push(format!("the GitLab token expires at {expires}, before this rotation could end: create a new one"));
    }
    findings
}

fn variable_findings(config: &Config, lists: &Lists, seen: &Observed) -> Vec<String> {
    let mut findings = Vec::new();
    if seen.targets.len() > 1 && seen.targets.iter().all(|target| matches!(target.secret, SecretSeen::Hidden { .. })) {
        findings.push(
            "every target's secret is hidden, so a run that dies half-way could not be continued: make one of them visible (masked)".to_owned(),
        );
    }
    let named: Vec<&AccessKeyId> = seen.targets.iter().filter_map(|target| target.id.key()).collect();
    for (key, places) in seen.mentions.iter().filter(|(key, _)| named.contains(key)) {
        findings.push(format!("key {key} is also named by {}: publish there too, or delete what is named", places.join(", ")));
    }
    let room = AccessKeyId::parse("AKIA0000000000000000");
    for target in &config.targets {
        let secret = lists.find(target, &config.secret_variable);
        if let (Some(secret), Some(id)) = (secret, &room)
            && !secret.has_room_for_a_tag(id)
        {
            findings.push(format!(
                "the description of {} in {target} leaves no room for the rotation's tag: shorten it to 210 characters",
                config.secret_variable
            ));
        }
        let pair_of_the_sdk = config.key_id_variable == "AWS_ACCESS_KEY_ID";
        let leftover = lists.of(&target.owner).iter().find(|variable| variable.key == "AWS_SESSION_TOKEN" && !variable.is_empty());
        if let Some(leftover) = leftover.filter(|_| pair_of_the_sdk) {
            findings.push(format!(
                "{} has a variable AWS_SESSION_TOKEN (scope {}), which makes the pair invalid: delete it",
                target.owner, leftover.environment_scope
            ));
        }
        if let DeployMode::Environment(environment) = &config.deploy.mode {
            findings.extend(outranked(config, lists, target, environment));
        }
    }
    findings.dedup();
    findings
}

/// A pair in a closer scope than the target's is what the environment's jobs get.
fn outranked(config: &Config, lists: &Lists, target: &crate::config::Target, environment: &str) -> Option<String> {
    let closer = lists.of(&target.owner).iter().find(|variable| {
        let scope = &variable.environment_scope;
        [&config.key_id_variable, &config.secret_variable].contains(&&variable.key)
            && !config.targets.iter().any(|other| other.owner == target.owner && other.scope == *scope)
            && matches_scope(scope, environment)
            && scope.len() > target.scope.len()
    })?;
    Some(format!(
        "{} of {} in scope {} outranks {target} in environment {environment}: name {}@{} in ROTATOR_TARGETS, or delete that variable",
        closer.key, target.owner, closer.environment_scope, target.owner, closer.environment_scope
    ))
}

/// Whether an environment is in a scope; `*` stands for any text.
fn matches_scope(scope: &str, environment: &str) -> bool {
    let mut parts = scope.split('*');
    let Some(mut rest) = parts.next().and_then(|first| environment.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

async fn deploy_findings(config: &Config, gitlab: &Gitlab, lists: &Lists) -> Result<Vec<String>, Trouble> {
    let mut findings = Vec::new();
    for project in &config.deploy.projects {
        let asked = match &config.deploy.mode {
            DeployMode::None => continue,
            DeployMode::Environment(environment) => match deploy::has_deployment(gitlab, project, environment).await {
                Ok(true) => Ok(()),
                Ok(false) => {
                    findings.push(format!("project {project} has no successful deployment to {environment}, so there is nothing to redeploy: deploy once, or use ROTATOR_DEPLOY=pipeline"));
                    Ok(())
                }
                Err(problem) => Err(problem),
            },
            DeployMode::Pipeline { branch } => match deploy::project(gitlab, project).await {
                Ok(seen) if seen.archived => {
                    findings.push(format!("project {project} is archived, so nothing can be deployed there"));
                    Ok(())
                }
                Ok(seen) => {
                    let own = config.job.branch.clone().filter(|_| deploy::is_own(config, project));
                    match branch.clone().or(own).or(seen.default_branch) {
                        Some(branch) => match deploy::has_ref(gitlab, project, &branch).await {
                            Ok(true) => Ok(()),
                            Ok(false) => {
                                findings.push(format!("project {project} has no ref {branch} to deploy: check ROTATOR_DEPLOY"));
                                Ok(())
                            }
                            Err(problem) => Err(problem),
                        },
                        None => {
                            findings.push(format!("project {project} has no branch to deploy: its repository is empty"));
                            Ok(())
                        }
                    }
                }
                Err(problem) => Err(problem),
            },
        };
        match asked {
            Ok(()) => {}
            Err(Problem::Denied { reason: Reason::NotFound | Reason::Forbidden, .. }) => {
                findings.push(format!(
                    "the GitLab token cannot see the deploy project {project}: check the name, and add the token's user as Maintainer"
                ));
            }
            Err(problem) => return Err(variables::trouble(gitlab, format!("looking at the deploy project {project}"), problem)),
        }
        findings.extend(shadowed_group_pair(config, gitlab, lists, project).await);
    }
    Ok(findings)
}

/// A project's own variable outranks its group's. Where the token may not list the project's variables nothing is found.
async fn shadowed_group_pair(config: &Config, gitlab: &Gitlab, lists: &Lists, project: &crate::config::Name) -> Option<String> {
    let owner = Owner::Project(project.clone());
    let is_target = config.targets.iter().any(|target| target.owner == owner);
    if is_target || !lists.of(&owner).is_empty() {
        return None;
    }
    let variables = variables::list(gitlab, &owner).await.ok()?;
    let pair = [&config.key_id_variable, &config.secret_variable];
    let stronger = variables.iter().find(|variable| pair.contains(&&variable.key))?;
    Some(format!(
        "project {project} has its own {} (scope {}), which outranks the group's: name it in ROTATOR_TARGETS, or delete that variable",
        stronger.key, stronger.environment_scope
    ))
}

#[cfg(test)]
mod tests {
    use super::matches_scope;

    #[test]
    fn a_scope_covers_the_environments_that_its_pattern_fits() {
        for (scope, environment, fits) in [
            ("*", "production", true),
            ("production", "production", true),
            ("production", "production-eu", false),
            ("review/*", "review/feature-1", true),
            ("review/*", "production", false),
            ("*/eu", "production/eu", true),
            ("p*d*n", "production", true),
            ("p*x*n", "production", false),
        ] {
            assert_eq!(matches_scope(scope, environment), fits, "{scope} {environment}");
        }
    }
}
