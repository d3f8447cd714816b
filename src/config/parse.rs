//! One text to one type: the value, or what is wrong with the text and what would be right.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;
use url::{Host, Url};

use super::{Action, DeployMode, Name, Owner, Target};
use crate::record;

pub(super) type Range = RangeInclusive<SignedDuration>;
pub(super) const TEN_YEARS: SignedDuration = SignedDuration::from_hours(24 * 3653);

const API_PATH: &str = "/api/v4";
/// Partition, prefix of its regions, region where none is set. The last one takes every other
/// region.
pub(super) const PARTITIONS: [(&str, &str, &str); 4] = [
    ("aws-cn", "cn-", "cn-north-1"),
    ("aws-us-gov", "us-gov-", "us-gov-west-1"),
    ("aws-eusc", "eusc-", "eusc-de-east-1"),
    ("aws", "", "us-east-1"),
];

pub(super) fn action(text: &str) -> Result<Action, String> {
    let all = [Action::Rotate, Action::Retire, Action::Setup, Action::Check];
    let found = all.into_iter().find(|action| action.to_string() == text);
    found.ok_or_else(|| format!("{text:?} is not an action; use rotate, retire, setup or check"))
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

pub(super) fn protected(text: &str) -> Result<Option<bool>, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    boolean(text).map(Some).map_err(|_| format!("{text:?} is not one of auto, true and false"))
}

pub(super) fn level(text: &str) -> Result<LevelFilter, String> {
    match text.to_ascii_lowercase().as_str() {
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        "off" => Ok(LevelFilter::OFF),
        _ => {
            Err(format!("{text:?} is not a log level; use error, warn, info, debug, trace or off"))
        }
    }
}

/// A day counts as 24 hours. Months and years have no fixed length.
pub(super) fn duration(text: &str, range: &Range) -> Result<SignedDuration, String> {
    let unusable = |_| format!("{text:?} is not a duration; write it like 90d, 12h or 30s");
    let span: Span = text.parse().map_err(unusable)?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(format!(
            "{text:?} has months or years, which differ in length; write it in days, like 90d"
        ));
    }
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(unusable)?;
    if duration.is_negative() {
        return Err(format!("{text:?} is negative; write it like 90d, 12h or 30s"));
    }
    if duration < *range.start() {
        return Err(format!(
            "{text:?} is too short; it must be at least {}s",
            range.start().as_secs()
        ));
    }
    if duration > *range.end() {
        let most = if *range.end() == TEN_YEARS {
            "10 years".to_owned()
        } else {
            format!("{}m", range.end().as_mins())
        };
        return Err(format!("{text:?} is too long; it must be at most {most}"));
    }
    Ok(duration)
}

/// The URL may carry a password, so no error shows it before that is ruled out.
pub(super) fn api_url(text: &str) -> Result<Url, String> {
    let form = "write it like https://gitlab.example.com/api/v4";
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); {form}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "carries a user name or password; {form}, and give the token in ROTATOR_GITLAB_TOKEN"
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("carries a query or fragment (? or #); {form}"));
    }
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        "http" => {
            return Err("is plain http, which would send the token in the clear; use https in \
                 ROTATOR_GITLAB_API_URL"
                .to_owned());
        }
        _ => return Err(format!("does not start with https://; {form}")),
    }
    let path = url.path().trim_end_matches('/').to_owned();
    let (base, complete) =
        path.strip_suffix(API_PATH).map_or((path.as_str(), false), |base| (base, true));
    let mut right = url.clone();
    right.set_path(&format!("{base}{API_PATH}"));
    if complete { Ok(right) } else { Err(format!("is not the address of the API; write {right}")) }
}

pub(super) fn ca_file(text: &str) -> Result<PathBuf, String> {
    if text.starts_with("-----BEGIN") {
        return Err("holds a certificate, not the path of a file; make it a variable of type File"
            .to_owned());
    }
    Ok(PathBuf::from(text))
}

/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_User.html>
pub(super) fn user_name(text: &str) -> Result<String, String> {
    if text.contains([':', '/']) {
        return Err(format!(
            "{text:?} is an ARN or a path; give just the name, the part after the last /"
        ));
    }
    if text.len() > 64 || !text.chars().all(is_iam_char) {
        return Err(format!(
            "{text:?} is not the name of an IAM user: 1 to 64 letters, digits and _+=,.@-"
        ));
    }
    Ok(text.to_owned())
}

fn is_iam_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)
}

/// The roles, and the partition that all of them are in.
pub(super) fn role_arns(text: &str) -> Result<(&'static str, Vec<String>), String> {
    let arns = words(text)?;
    let mut partition = None;
    for arn in &arns {
        let found = role_partition(arn).ok_or_else(|| {
            format!(
                "{arn:?} is not the ARN of a role; write it \
                 like arn:aws:iam::123456789012:role/NAME"
            )
        })?;
        if *partition.get_or_insert(found) != found {
            return Err("names roles of several partitions; one cannot assume the other".to_owned());
        }
    }
    partition.map(|partition| (partition, arns)).ok_or_else(|| "names no role".to_owned())
}

fn role_partition(arn: &str) -> Option<&'static str> {
    let [_, partition, _, _, account, role] = *arn.splitn(6, ':').collect::<Vec<_>>() else {
        return None;
    };
    let (path, name) =
        role.strip_prefix("role/")?.rsplit_once('/').unwrap_or(("", role.strip_prefix("role/")?));
    let fits = arn.starts_with(&format!("arn:{partition}:iam::"))
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && path.chars().all(|c| c.is_ascii_graphic())
        && (1..=64).contains(&name.len())
        && name.chars().all(is_iam_char);
    PARTITIONS.iter().find(|(known, ..)| fits && *known == partition).map(|(known, ..)| *known)
}

pub(super) fn partition_of(region: &str) -> &'static str {
    PARTITIONS
        .iter()
        .find(|(_, prefix, _)| region.starts_with(prefix))
        .map_or("aws", |(partition, ..)| partition)
}

/// The region becomes part of a host name.
pub(super) fn region_name(text: &str) -> Result<String, String> {
    if !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        return Err(format!("{text:?} is not a region; write it like eu-central-1"));
    }
    Ok(text.to_owned())
}

/// A comma separated list.
pub(super) fn words(text: &str) -> Result<Vec<String>, String> {
    let words: Vec<_> =
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    if words.is_empty() { Err("names nothing between its commas".to_owned()) } else { Ok(words) }
}

pub(super) fn targets(text: &str) -> Result<Vec<Target>, String> {
    let mut targets: Vec<Target> = Vec::new();
    for word in words(text)? {
        let target = target(&word)?;
        if targets
            .iter()
            .any(|other| same(&other.owner, &target.owner) && other.scope == target.scope)
        {
            return Err(format!("{word:?} is named twice"));
        }
        targets.push(target);
    }
    Ok(targets)
}

fn target(word: &str) -> Result<Target, String> {
    let form = "write it like project:42, project:group/name@production or group:name";
    let (place, scope) = word.split_once('@').unwrap_or((word, "*"));
    let (kind, name) = place.split_once(':').unwrap_or(("", place));
    let owner = match (kind, name.trim()) {
        ("project", name) => name_of(name).filter(is_project).map(Owner::Project),
        ("group", name) => name_of(name).map(Owner::Group),
        _ => None,
    };
    let owner = owner.ok_or_else(|| format!("{word:?} is not a target; {form}"))?;
    let scope = scope.trim();
    if scope == record::SCOPE {
        return Err(format!(
            "{word:?} is the scope where the records of this program are kept; use another one"
        ));
    }
    // What a scope may consist of: https://docs.gitlab.com/ci/environments/#environment-name
    if scope.is_empty()
        || scope.len() > 255
        || !scope.chars().all(|c| c.is_ascii_alphanumeric() || "-_/${}. *".contains(c))
    {
        return Err(format!("{word:?} has no valid environment scope after the @; {form}"));
    }
    Ok(Target { owner, scope: scope.to_owned() })
}

pub(super) fn project_names(text: &str) -> Result<Vec<Name>, String> {
    let mut names: Vec<Name> = Vec::new();
    for word in words(text)? {
        let name = name_of(&word).filter(is_project);
        let name = name.ok_or_else(|| {
            format!(
                "{word:?} is not a project; write its id or its full path, like 42 or group/name"
            )
        })?;
        if names.iter().any(|other| same(other, &name)) {
            return Err(format!("{word:?} is named twice"));
        }
        names.push(name);
    }
    Ok(names)
}

fn name_of(text: &str) -> Option<Name> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|id| *id > 0).map(Name::Id);
    }
    let fits = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
            && part != "."
            && part != ".."
    };
    text.split('/').all(fits).then(|| Name::Path(text.to_owned()))
}

/// The full path of a project always has a namespace.
fn is_project(name: &Name) -> bool {
    match name {
        Name::Id(_) => true,
        Name::Path(path) | Name::Known { path, .. } => path.contains('/'),
    }
}

/// GitLab ignores the case of paths.
pub(super) fn same(one: &impl fmt::Display, other: &impl fmt::Display) -> bool {
    one.to_string().eq_ignore_ascii_case(&other.to_string())
}

/// The name of a GitLab variable to publish to.
pub(super) fn variable_name(text: &str) -> Result<String, String> {
    if !is_variable_name(text) {
        return Err(format!(
            "{text:?} is not the name of a GitLab variable: 1 to 255 letters, digits and _"
        ));
    }
    if text.starts_with(record::PREFIX) {
        return Err(format!(
            "{text:?} is a name that this program keeps for its records; use another one"
        ));
    }
    Ok(text.to_owned())
}

fn is_variable_name(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

pub(super) fn deploy_mode(text: &str) -> Result<DeployMode, String> {
    let name = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
    let mode = if text == "none" {
        Some(DeployMode::None)
    } else if text == "pipeline" {
        Some(DeployMode::Pipeline { branch: None })
    } else if let Some(branch) = text.strip_prefix("pipeline@") {
        name(branch)
            .filter(|branch| !branch.contains(char::is_whitespace))
            .map(|branch| DeployMode::Pipeline { branch: Some(branch) })
    } else {
        text.strip_prefix("environment/").and_then(name).map(DeployMode::Environment)
    };
    mode.ok_or_else(|| {
        format!(
            "{text:?} is not a way to deploy; use pipeline, pipeline@REF, environment/NAME or none"
        )
    })
}

/// No error here shows a value: it may be secret.
fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    let form = r#"write it like {"name": "value"}"#;
    // Parsed without a target type: an error about a wrong type would quote the value.
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(format!("is not a JSON object; {form}")),
        Err(error) => {
            Err(format!("is not JSON (line {}, column {}); {form}", error.line(), error.column()))
        }
    }
}

pub(super) fn inputs(text: &str) -> Result<Map<String, Value>, String> {
    let object = json_object(text)?;
    match object.iter().find(|(_, value)| value.is_object() || value.is_null()) {
        Some((name, _)) => {
            Err(format!("the input {name:?} must be a string, number, boolean or array"))
        }
        None => Ok(object),
    }
}

pub(super) fn variables(text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |(name, value): (String, Value)| match value {
        _ if !is_variable_name(&name) => {
            Err(format!("{name:?} is not the name of a variable: letters, digits and _"))
        }
        Value::String(value) => Ok((name, value)),
        _ => Err(format!("the value of {name} must be a string, in quotes")),
    };
    json_object(text)?.into_iter().map(pair).collect()
}
