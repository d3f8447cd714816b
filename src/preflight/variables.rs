//! What the variables of the targets and around them stand in the way with: other references, half
//! pairs, session tokens, and pairs that outrank a target's.

use crate::access_key::AccessKeyId;
use crate::config::{Config, DeployMode, Owner, Target};
use crate::gitlab::variables::Variable;
use crate::plan::{Observed, SecretSeen};
use crate::targets::{self, Lists};

pub(super) fn findings_of_targets(config: &Config, lists: &Lists, seen: &Observed) -> Vec<String> {
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
            && !targets::has_room_for_a_tag(secret, id)
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

/// What a project or group that lies nearer to the deploy than a target has of its own.
pub(super) fn stands_before(
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
