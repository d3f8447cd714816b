//! What a rotation needs, looked at before anything is written: all findings at once, each a
//! sentence for a person.
//!
//! A finding costs nothing but a clear exit. Information that GitLab does not give is no finding.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::access_key::AccessKeyId;
use crate::aws::{Aws, Identity};
use crate::config::{Config, DeployMode, Name, Owner, Target};
use crate::deploy::{self, ProjectSeen};
use crate::error::Error;
use crate::fence::Fence;
use crate::gitlab::variables::{self, Lists, Variable};
use crate::gitlab::{ApiError, ApiErrorKind, Gitlab};
use crate::plan::{Observed, SecretSeen};

/// What the token must outlive besides verification and deploy.
const MARGIN: SignedDuration = SignedDuration::from_mins(10);
/// What the job must have left besides verification: publication, record and a safe end.
const SHORTEST_JOB: SignedDuration = SignedDuration::from_mins(5);
/// Groups in groups, as deep as GitLab lets them be.
const DEPTH: usize = 20;

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
) -> Result<(Vec<String>, Option<Identity>), Error> {
    enough_time(config, &gitlab.fence, seen.now)?;
    let mut findings = Vec::new();
    let identity = match aws.identity().await {
        Ok(identity) => Some(identity),
        // IAM has just accepted the same credentials.
        Err(Error::KeyRefused { .. }) => {
            findings.push(format!(
                "the STS endpoint of {} refuses credentials that IAM accepts, so it could not \
                 verify a new key: set AWS_REGION to a region that is enabled in the account",
                config.region
            ));
            None
        }
        Err(error) => return Err(error),
    };
    findings.extend(token_findings(config, token, seen.now));
    findings.extend(variable_findings(config, lists, seen));
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

fn variable_findings(config: &Config, lists: &Lists, seen: &Observed) -> Vec<String> {
    let mut findings = Vec::new();
    let is_hidden = |secret: &SecretSeen| match secret {
        SecretSeen::Hidden { .. } => true,
        SecretSeen::Absent => config.hidden,
        SecretSeen::Readable { .. } | SecretSeen::Unusable(_) => false,
    };
    if seen.targets.len() > 1 && seen.targets.iter().all(|target| is_hidden(&target.secret)) {
        findings.push(
            "every target's secret is hidden, so a run that dies half-way could not be continued: \
             make one of them visible (masked)"
                .to_owned(),
        );
    }
    let named: Vec<&AccessKeyId> =
        seen.targets.iter().filter_map(|target| target.id.key()).collect();
    for (key, places) in seen.other_references.iter().filter(|(key, _)| named.contains(key)) {
        findings.push(format!(
            "key {key} is also named by {}: publish there too, or delete what is named",
            places.join(", ")
        ));
    }
    let room = AccessKeyId::parse("AKIA0000000000000000");
    for target in &config.targets {
        let secret = lists.find(target, &config.secret_variable);
        if let (Some(secret), Some(id)) = (secret, &room)
            && !secret.has_room_for_a_tag(id)
        {
            findings.push(format!(
                "the description of {} in {target} leaves no room for the rotation's tag: shorten \
                 it to 210 characters",
                config.secret_variable
            ));
        }
        let covers = |scope: &str| matches_scope(scope, &target.scope);
        let is_closer = |scope: &str| matches_scope(&target.scope, scope);
        findings.extend(session_token(
            config,
            &target.owner.to_string(),
            lists.of(&target.owner),
            covers,
            is_closer,
        ));
        findings.extend(half_beside(config, lists, target));
        if let DeployMode::Environment(environment) = &config.deploy.mode {
            findings.extend(outranked(config, lists, target, environment));
        }
    }
    findings.dedup();
    findings
}

/// A session token that a job gets beside the pair: always where its scope covers the pair's; in a
/// closer one only where no whole pair stands that it may belong to.
fn session_token(
    config: &Config,
    name: &str,
    variables: &[Variable],
    covers: impl Fn(&str) -> bool,
    is_closer: impl Fn(&str) -> bool,
) -> Option<String> {
    let holds = |key: &str, scope: &str| {
        variables
            .iter()
            .any(|other| other.key == key && other.environment_scope == scope && !other.is_empty())
    };
    let is_beside = |scope: &str| {
        covers(scope)
            || is_closer(scope)
                && !(holds(&config.key_id_variable, scope) && holds(&config.secret_variable, scope))
    };
    let mut tokens = variables
        .iter()
        .filter(|variable| variable.key == "AWS_SESSION_TOKEN" && !variable.is_empty());
    let scope = &tokens.find(|token| is_beside(&token.environment_scope))?.environment_scope;
    (config.key_id_variable == "AWS_ACCESS_KEY_ID").then(|| {
        format!(
            "{name} has a variable AWS_SESSION_TOKEN (scope {scope}), which makes the \
             pair invalid: delete it"
        )
    })
}

/// Whether this is a secret that no id of its own scope, or of a wider one that is no target, goes
/// with: jobs there get the target's.
fn is_half(config: &Config, owner: &Owner, variables: &[Variable], variable: &Variable) -> bool {
    let goes_with = |id: &Variable| {
        let scope = &id.environment_scope;
        id.key == config.key_id_variable
            && matches_scope(scope, &variable.environment_scope)
            && !config.is_target(owner, scope)
    };
    variable.key == config.secret_variable
        && !variable.is_empty()
        && !variables.iter().any(|other| goes_with(other) && !other.is_empty())
}

/// A secret alone in a closer scope than the target's works with the old id only.
fn half_beside(config: &Config, lists: &Lists, target: &Target) -> Option<String> {
    let variables = lists.of(&target.owner);
    let part = variables.iter().find(|variable| {
        let scope = &variable.environment_scope;
        is_half(config, &target.owner, variables, variable)
            && !config.is_target(&target.owner, scope)
            && matches_scope(&target.scope, scope)
    })?;
    let (name, owner, scope) = (&part.key, &target.owner, &part.environment_scope);
    Some(format!(
        "{name} of {owner} stands alone in scope {scope}, so jobs there get the id of {target} \
         with it: publish there too ({owner}@{scope} in ROTATOR_TARGETS), or delete it"
    ))
}

/// A pair in a closer scope than the target's is what the environment's jobs get.
fn outranked(config: &Config, lists: &Lists, target: &Target, environment: &str) -> Option<String> {
    let closer = lists.of(&target.owner).iter().find(|variable| {
        let scope = &variable.environment_scope;
        [&config.key_id_variable, &config.secret_variable].contains(&&variable.key)
            && !config.is_target(&target.owner, scope)
            && matches_scope(scope, environment)
            && scope.len() > target.scope.len()
    })?;
    Some(format!(
        "{} of {} in scope {} outranks {target} in environment {environment}: name {}@{} in \
         ROTATOR_TARGETS, or delete that variable",
        closer.key, target.owner, closer.environment_scope, target.owner, closer.environment_scope
    ))
}

/// Whether an environment is in a scope; `*` stands for any text.
fn matches_scope(scope: &str, environment: &str) -> bool {
    let mut parts = scope.split('*');
    let Some(mut rest) = parts.next().and_then(|first| environment.strip_prefix(first)) else {
        return false;
    };
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
                return Err(variables::gitlab_error(
                    gitlab,
                    format!("looking at the deploy project {project}"),
                    error,
                ));
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
) -> Result<(Option<ProjectSeen>, Option<String>), ApiError> {
    let branch = match &config.deploy.mode {
        DeployMode::None => return Ok((None, None)),
        DeployMode::Environment(environment) => {
            // To redeploy takes no right to see the project itself.
            let project = deploy::project(gitlab, name).await.ok();
            let deployed = deploy::has_deployment(gitlab, name, environment).await?;
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
    let project = deploy::project(gitlab, name).await?;
    let own = config.job.branch.as_ref().filter(|_| deploy::is_own(config, name));
    let finding = match branch.as_ref().or(own).or(project.default_branch.as_ref()) {
        _ if project.archived => {
            Some(format!("project {name} is archived, so nothing can be deployed there"))
        }
        Some(branch) => (!deploy::has_ref(gitlab, name, branch).await?)
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
    project: &ProjectSeen,
    seen: &Observed,
) -> Vec<String> {
    let owners = variables::owners(&config.targets);
    let is_project = |owner: &Owner| match owner {
        Owner::Project(name) => name.is(project.id, &project.path_with_namespace),
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
        let is_here = |owner: &&Owner| matches!(owner, Owner::Group(name) if name.is(here.id, &here.full_path));
        if let Some(target) = owners.iter().find(is_here) {
            let mut findings = Vec::new();
            for (owner, name) in &nearer {
                let variables = variables::list(gitlab, owner).await.unwrap_or_default();
                findings.extend(stands_before(config, owner, name, &variables, target, seen));
            }
            return findings;
        }
        nearer.push((Owner::Group(Name::Id(here.id)), format!("group:{}", here.full_path)));
        group = match here.parent_id {
            Some(parent) => deploy::group(gitlab, parent).await.ok(),
            None => None,
        };
    }
    Vec::new()
}

fn stands_before(
    config: &Config,
    owner: &Owner,
    name: &str,
    variables: &[Variable],
    target: &Owner,
    seen: &Observed,
) -> Vec<String> {
    let mut findings = Vec::new();
    let pair = [&config.key_id_variable, &config.secret_variable];
    let used = |scope: &str| match &config.deploy.mode {
        DeployMode::Environment(environment) => matches_scope(scope, environment),
        // Which environments a pipeline deploys to is not known: another pair in one of them may be
        // meant.
        DeployMode::Pipeline { .. } | DeployMode::None => scope == "*",
    };
    let stronger = variables.iter().find(|variable| {
        let is_used =
            used(&variable.environment_scope) || is_half(config, owner, variables, variable);
        pair.contains(&&variable.key) && is_used && !variable.is_empty()
    });
    if let Some(Variable { key, environment_scope: scope, .. }) = stronger {
        let place = if scope == "*" { name.to_owned() } else { format!("{name}@{scope}") };
        findings.push(format!(
            "{name} has its own {key} (scope {scope}), which outranks {target}'s: name {place} in \
             ROTATOR_TARGETS, or delete that variable"
        ));
    }
    let others = |variable: &&Variable| {
        !variable.is_record() && (stronger.is_none() || !pair.contains(&&variable.key))
    };
    for variable in variables.iter().filter(others) {
        for key in seen
            .targets
            .iter()
            .filter_map(|target| target.id.key())
            .filter(|key| variable.names(key))
            .take(1)
        {
            findings.push(format!(
                "key {key} is also named by {} of {name} (scope {}): publish there too, or delete \
                 what is named",
                variable.key, variable.environment_scope
            ));
        }
    }
    findings.extend(session_token(
        config,
        name,
        variables,
        |scope| scope == "*" || used(scope),
        |_| false,
    ));
    findings
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
