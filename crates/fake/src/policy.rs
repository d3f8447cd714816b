//! IAM's policies, as far as an access key's rotation meets them: effect, action, resource,
//! `${aws:username}`, wildcards.

use serde_json::Value;

#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(crate) deny: bool,
    pub(crate) actions: Vec<String>,
    pub(crate) resources: Vec<String>,
    /// Operator, key, values.
    pub(crate) conditions: Vec<(String, String, Vec<String>)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Allowed,
    ExplicitlyDenied,
    NotAllowed,
}

/// `username` is none for a role: a policy variable without a value matches nothing.
pub(crate) fn decide(
    statements: &[Statement],
    action: &str,
    resource: &str,
    username: Option<&str>,
) -> Decision {
    let mut decision = Decision::NotAllowed;
    for statement in
        statements.iter().filter(|statement| statement.applies(action, resource, username))
    {
        if statement.deny {
            return Decision::ExplicitlyDenied;
        }
        decision = Decision::Allowed;
    }
    decision
}

impl Statement {
    pub(crate) fn allow(actions: &[&str], resources: &[&str]) -> Self {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self {
            deny: false,
            actions: own(actions),
            resources: own(resources),
            conditions: Vec::new(),
        }
    }

    fn applies(&self, action: &str, resource: &str, username: Option<&str>) -> bool {
        let action = action.to_lowercase();
        self.actions.iter().any(|pattern| glob(&pattern.to_lowercase(), &action))
            && self.resources.iter().any(|pattern| {
                resolve(pattern, username).is_some_and(|pattern| glob(&pattern, resource))
            })
            && self.conditions.iter().all(|condition| holds(condition, username))
    }

    /// A policy document: an unknown element or operator is a mistake of the test, so it panics.
    pub(crate) fn parse(document: &str) -> Vec<Self> {
        let document: Value = serde_json::from_str(document).expect("a policy is JSON");
        let statements = match &document["Statement"] {
            Value::Array(statements) => statements.clone(),
            statement => vec![statement.clone()],
        };
        statements.iter().map(Self::from_json).collect()
    }

    fn from_json(statement: &Value) -> Self {
        let object = statement.as_object().expect("a statement is an object");
        for key in object.keys() {
            assert!(
                ["Sid", "Effect", "Action", "Resource", "Condition"].contains(&key.as_str()),
                "the fake does not know {key}"
            );
        }
        let deny = match object["Effect"].as_str() {
            Some("Allow") => false,
            Some("Deny") => true,
            other => panic!("effect {other:?}"),
        };
        let mut conditions = Vec::new();
        for (operator, keys) in
            object.get("Condition").and_then(Value::as_object).into_iter().flatten()
        {
            for (key, values) in keys.as_object().expect("a condition is an object") {
                conditions.push((operator.clone(), key.clone(), strings(values)));
            }
        }
        Self {
            deny,
            actions: strings(&object["Action"]),
            resources: strings(&object["Resource"]),
            conditions,
        }
    }
}

pub(crate) fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(strings).collect(),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}

/// Nobody in the fake has used MFA.
fn holds((operator, key, values): &(String, String, Vec<String>), username: Option<&str>) -> bool {
    let actual = match key.as_str() {
        "aws:MultiFactorAuthPresent" => None,
        "aws:username" => username,
        other => panic!("the fake does not know the condition key {other}"),
    };
    let resolved = |value: &String| resolve(value, username).unwrap_or_default();
    match operator.as_str() {
        "StringEquals" => values.iter().any(|value| actual == Some(&resolved(value))),
        "StringLike" => {
            values.iter().any(|value| actual.is_some_and(|actual| glob(&resolved(value), actual)))
        }
        "StringNotEquals" => values.iter().all(|value| actual != Some(&resolved(value))),
        "Bool" => values.iter().any(|value| actual == Some(value)),
        "BoolIfExists" => actual.is_none() || values.iter().any(|value| actual == Some(value)),
        other => panic!("the fake does not know the condition operator {other}"),
    }
}

fn resolve(pattern: &str, username: Option<&str>) -> Option<String> {
    match (pattern.contains("${aws:username}"), username) {
        (false, _) => Some(pattern.to_owned()),
        (true, Some(name)) => Some(pattern.replace("${aws:username}", name)),
        (true, None) => None,
    }
}

/// `*` stands for any letters, `?` for one.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = &pattern[1..];
            text.char_indices()
                .map(|(at, _)| at)
                .chain([text.len()])
                .any(|at| glob(rest, &text[at..]))
        }
        Some(first) => {
            let mut letters = text.chars();
            letters.next().is_some_and(|letter| first == '?' || letter == first)
                && glob(&pattern[first.len_utf8()..], letters.as_str())
        }
    }
}
