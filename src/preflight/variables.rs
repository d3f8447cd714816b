//! What the variables of the targets' own projects and groups stand in the way with: other
//! references, half pairs, session tokens, and pairs that outrank a target's.

use crate::access_key::AccessKeyId;
use crate::config::{Config, DeployMode, Owner, Target};
use crate::error::Blocker;
use crate::gitlab::variables::Variable;
use crate::plan::{Observed, SecretSeen};
use crate::targets::{self, Lists};

/// Other references, hidden secrets, and what stands beside each target.
pub(super) fn blockers(config: &Config, lists: &Lists, seen: &Observed) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    let is_hidden = |secret: &SecretSeen| match secret {
        SecretSeen::Hidden { .. } => true,
        SecretSeen::Absent => config.hidden,
        SecretSeen::Readable { .. } | SecretSeen::Unusable(_) => false,
    };
    if seen.targets.len() > 1 && seen.targets.iter().all(|target| is_hidden(&target.secret)) {
        blockers.push(Blocker::AllHidden);
    }
    let named: Vec<&AccessKeyId> =
        seen.targets.iter().filter_map(|target| target.id.key()).collect();
    for (key, places) in seen.other_references.iter().filter(|(key, _)| named.contains(key)) {
        blockers.push(Blocker::OtherReference { key: key.clone(), places: places.clone() });
    }
    let room = AccessKeyId::parse("AKIA0000000000000000");
    for target in &config.targets {
        let secret = lists.find(target, &config.secret_variable);
        if let (Some(secret), Some(id)) = (secret, &room)
            && !targets::has_room_for_a_tag(secret, id)
        {
            let secret = config.secret_variable.clone();
            blockers.push(Blocker::NoRoomForTag { secret, target: target.to_string() });
        }
        let covers = |scope: &str| matches_scope(scope, &target.scope);
        let is_closer = |scope: &str| matches_scope(&target.scope, scope);
        blockers.extend(session_token(
            config,
            &target.owner.to_string(),
            lists.of(&target.owner),
            covers,
            is_closer,
        ));
        blockers.extend(half_beside(config, lists, target));
        if let DeployMode::Environment(environment) = &config.deploy.mode {
            blockers.extend(outranked(config, lists, target, environment));
        }
    }
    blockers.dedup();
    blockers
}

/// A session token that a job gets beside the pair: always where its scope covers the pair's; in a
/// closer one only where no whole pair stands that it may belong to.
pub(super) fn session_token(
    config: &Config,
    owner: &str,
    variables: &[Variable],
    covers: impl Fn(&str) -> bool,
    is_closer: impl Fn(&str) -> bool,
) -> Option<Blocker> {
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
    (config.key_id_variable == "AWS_ACCESS_KEY_ID")
        .then(|| Blocker::SessionToken { owner: owner.to_owned(), scope: scope.clone() })
}

/// Whether this is a secret that no id of its own scope, or of a wider one that is no target, goes
/// with: jobs there get the target's.
pub(super) fn is_half(
    config: &Config,
    owner: &Owner,
    variables: &[Variable],
    variable: &Variable,
) -> bool {
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
fn half_beside(config: &Config, lists: &Lists, target: &Target) -> Option<Blocker> {
    let variables = lists.of(&target.owner);
    let part = variables.iter().find(|variable| {
        let scope = &variable.environment_scope;
        is_half(config, &target.owner, variables, variable)
            && !config.is_target(&target.owner, scope)
            && matches_scope(&target.scope, scope)
    })?;
    Some(Blocker::HalfPair {
        secret: part.key.clone(),
        owner: target.owner.to_string(),
        scope: part.environment_scope.clone(),
        target: target.to_string(),
    })
}

/// A pair in a closer scope than the target's is what the environment's jobs get.
fn outranked(
    config: &Config,
    lists: &Lists,
    target: &Target,
    environment: &str,
) -> Option<Blocker> {
    let closer = lists.of(&target.owner).iter().find(|variable| {
        let scope = &variable.environment_scope;
        [&config.key_id_variable, &config.secret_variable].contains(&&variable.key)
            && !config.is_target(&target.owner, scope)
            && matches_scope(scope, environment)
            && scope.len() > target.scope.len()
    })?;
    Some(Blocker::CloserScope {
        variable: closer.key.clone(),
        owner: target.owner.to_string(),
        scope: closer.environment_scope.clone(),
        target: target.to_string(),
        environment: environment.to_owned(),
    })
}

/// Whether an environment is in a scope; `*` stands for any text.
pub(super) fn matches_scope(scope: &str, environment: &str) -> bool {
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
