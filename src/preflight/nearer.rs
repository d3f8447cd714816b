//! Pairs that a deploy's jobs get instead of a target group's: the project's own, and those of the
//! groups between the two. Where the token may not look, that is told.

use super::Findings;
use super::variables::{is_half, matches_scope, session_token};
use crate::config::{Config, DeployMode, Name, Owner};
use crate::error::Blocker;
use crate::gitlab::Gitlab;
use crate::gitlab::projects::Project;
use crate::gitlab::variables::Variable;
use crate::plan::Observed;
use crate::targets;

/// Groups in groups, as deep as GitLab lets them be.
const DEPTH: usize = 20;

pub(super) async fn look(
    config: &Config,
    gitlab: &Gitlab,
    project: &Project,
    seen: &Observed,
    found: &mut Findings,
) {
    let owners = targets::owners(&config.targets);
    let is_project = |owner: &Owner| match owner {
        Owner::Project(name) => name.is(Some(project.id), Some(&project.path_with_namespace)),
        Owner::Group(_) => false,
    };
    if owners.iter().any(is_project) || !owners.iter().any(|owner| matches!(owner, Owner::Group(_)))
    {
        return;
    }
    let mut nearer = vec![(
        Owner::Project(Name::Id(project.id)),
        format!("project:{}", project.path_with_namespace),
    )];
    let mut group = project.namespace.clone();
    for _ in 0..DEPTH {
        let Some(here) = group else { return };
        let is_here = |owner: &&Owner| match owner {
            Owner::Group(name) => name.is(Some(here.id), Some(&here.full_path)),
            Owner::Project(_) => false,
        };
        if let Some(target) = owners.iter().find(is_here) {
            for (owner, name) in &nearer {
                match targets::list(gitlab, owner).await {
                    Ok(variables) => {
                        let blockers = stands_before(config, owner, name, &variables, target, seen);
                        found.blockers.extend(blockers);
                    }
                    Err(_) => found.unknown.push(format!(
                        "the variables of {name} cannot be read, so it may have a pair of its own \
                         that outranks that of {target}"
                    )),
                }
            }
            return;
        }
        nearer.push((Owner::Group(Name::Id(here.id)), format!("group:{}", here.full_path)));
        group = match here.parent_id {
            Some(parent) => gitlab.group(&Name::Id(parent)).await.ok(),
            None => None,
        };
        if let (Some(parent), None) = (here.parent_id, &group) {
            found.unknown.push(format!(
                "group {parent} above {} cannot be seen, so a group between {} and a target may \
                 have a pair of its own",
                here.full_path, project.path_with_namespace
            ));
        }
    }
}

/// What a project or group that lies nearer to the deploy than a target has of its own.
fn stands_before(
    config: &Config,
    owner: &Owner,
    name: &str,
    variables: &[Variable],
    target: &Owner,
    seen: &Observed,
) -> Vec<Blocker> {
    let mut blockers = Vec::new();
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
        blockers.push(Blocker::CloserOwner {
            variable: key.clone(),
            owner: name.to_owned(),
            scope: scope.clone(),
            target: target.to_string(),
        });
    }
    // In a project that is deployed the key was looked for already.
    let others = |variable: &&Variable| {
        matches!(owner, Owner::Group(_))
            && !variable.is_record_of(owner)
            && (stronger.is_none() || !pair.contains(&&variable.key))
    };
    for variable in variables.iter().filter(others) {
        let mut named = seen.targets.iter().filter_map(|target| target.id.key());
        if let Some(key) = named.find(|key| variable.names(key)) {
            let scope = &variable.environment_scope;
            let place = format!("{} of {name} (scope {scope})", variable.key);
            blockers.push(Blocker::OtherReference { key: key.clone(), places: vec![place] });
        }
    }
    blockers.extend(session_token(
        config,
        name,
        variables,
        |scope| scope == "*" || used(scope),
        |_| false,
    ));
    blockers
}
