//! Why a run goes no further: what the plan refuses, what to do about it, and the exit code.
//!
//! Made by [`crate::plan`]; nothing here decides.

use jiff::Timestamp;

use super::{Blocker, exit};
use crate::access_key::{AccessKeyId, Key, Use};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("another run is at work on this user's key")]
    Busy,
    #[error("there are no variables to rotate")]
    NoVariables,
    #[error(
        "{target} has {}",
        if *missing_secret { "the key's id but no secret" } else { "a secret but no key id" }
    )]
    PartMissing { target: String, missing_secret: bool },
    #[error("the targets name different keys ({})", list(.0.iter().map(named), ", "))]
    Differ(Vec<(String, Option<AccessKeyId>)>),
    #[error("{target}: the id is key {id}, but the secret belongs to key {tag}")]
    Mismatch { target: String, id: AccessKeyId, tag: AccessKeyId },
    #[error("{target} names key {key}, which this user does not have")]
    Unknown { target: String, key: AccessKeyId },
    #[error("{target}: {why}")]
    Unusable { target: String, why: String },
    #[error(
        "no room for a new key: {}",
        list(keys.iter().map(|key| described(key, named)), "; ")
    )]
    /// `named`: the ids that the targets hold.
    NoSlot { keys: Vec<Key>, named: Vec<AccessKeyId> },
    #[error(
        "a rotation would not end well:\n- {}",
        list(.0.iter().map(Blocker::line), "\n- ")
    )]
    Preflight(Vec<Blocker>),
    #[error("several keys could be the one that an earlier run made: {}", list(.0, ", "))]
    Several(Vec<AccessKeyId>),
    #[error("{target} was changed by someone while key {new_key} was being published")]
    ChangedExternally { target: String, new_key: AccessKeyId },
    #[error(
        "key {key}, which this rotation published, was {} by someone",
        if *disabled { "disabled" } else { "deleted" }
    )]
    NewKeyLost { key: AccessKeyId, disabled: bool },
    #[error(
        "{target} does not hold key {key}, and its secret cannot be read anywhere (hidden \
         variables)"
    )]
    SecretLost { key: AccessKeyId, target: String },
    #[error("key {key}, which an earlier run made, was used for {service}: someone has its secret")]
    KeyCompromised { key: AccessKeyId, service: String },
    #[error("{target} was changed by someone after key {key} was published")]
    NotPublishedAnyMore { key: AccessKeyId, target: String },
    /// `hidden`: it holds the old pair, and there is no secret to publish there.
    #[error(
        "{target} became a target after key {key} was published, and {}",
        if *hidden {
            "the new secret cannot be read anywhere (hidden variables)"
        } else {
            "holds neither the new pair nor an old one that works"
        }
    )]
    AddedTarget { key: AccessKeyId, target: String, hidden: bool },
    #[error("old key {key} was enabled again by someone, so something still needs it")]
    EnabledAgain { key: AccessKeyId },
    #[error(
        "an earlier rotation is not over: old key {old} stays {} until {until} (last use: {})",
        if *disabled { "disabled" } else { "active" },
        last_use(used)
    )]
    /// What a forced run meets. `until`: the end of the wait that it does not shorten.
    EarlierRotation { old: AccessKeyId, disabled: bool, until: Timestamp, used: Use },
    #[error(
        "this job started after the new pair was published, and still signs with old key {key}"
    )]
    /// `places`: other readable variables that name it.
    OldPairGiven { key: AccessKeyId, in_target: bool, places: Vec<String> },
    #[error("old key {key} is still named by {}", places.join(", "))]
    StillNamed { key: AccessKeyId, places: Vec<String> },
    #[error("key {key} is older than ROTATOR_MAX_AGE (made {})", day(*created))]
    TooOld { key: AccessKeyId, created: Timestamp },
    #[error("the deploy failed: {}", .0.join("; "))]
    DeployFailed(Vec<String>),
    #[error("nothing proves that the deploy ran: {}", .0.join("; "))]
    DeployUnproven(Vec<String>),
    #[error("the deploy has not ended in time: {}", .0.join("; "))]
    DeployTimedOut(Vec<String>),
}

/// What the commands of a hint leave out: the refusals do not know the user.
pub(super) const WHOSE: &str = "(with --user-name, where it is not the caller's own)";
/// Where a job gets a pair from that hides the one of the targets.
const BEFORE_TARGETS: &str = "the variables of this pipeline, of its schedule or of the job itself";
const FORCED: &str =
    "or, while the user has at most one key, let ROTATOR_FORCE=true replace it everywhere";

impl Refusal {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Busy => exit::BUSY,
            Self::DeployFailed(_) | Self::DeployUnproven(_) | Self::DeployTimedOut(_) => {
                exit::DEPLOY
            }
            Self::NoVariables
            | Self::PartMissing { .. }
            | Self::Differ(_)
            | Self::Mismatch { .. }
            | Self::Unknown { .. }
            | Self::Unusable { .. }
            | Self::NoSlot { .. }
            | Self::Preflight(_)
            | Self::Several(_)
            | Self::ChangedExternally { .. }
            | Self::NewKeyLost { .. }
            | Self::SecretLost { .. }
            | Self::KeyCompromised { .. }
            | Self::NotPublishedAnyMore { .. }
            | Self::AddedTarget { .. }
            | Self::EnabledAgain { .. }
            | Self::EarlierRotation { .. }
            | Self::OldPairGiven { .. }
            | Self::StillNamed { .. }
            | Self::TooOld { .. } => exit::REFUSED,
        }
    }

    /// What to do about it. Over 60 lines for the number of refusals.
    pub fn hint(&self) -> String {
        match self {
            Self::Busy => "nothing to do: it finishes by itself; a run that died is replaced once \
                 GitLab says that its job has ended"
                .into(),
            Self::NoVariables => {
                "run once with ROTATOR_ACTION=setup to create the first key and both variables, or \
                 check ROTATOR_TARGETS and the variables' names"
                    .into()
            }
            Self::PartMissing { missing_secret: true, .. } => {
                format!("store the secret beside it, {FORCED}")
            }
            Self::PartMissing { missing_secret: false, .. } => {
                format!("store the id beside it, {FORCED}")
            }
            Self::Differ(_) => format!("store the same pair in all of them, {FORCED}"),
            Self::Mismatch { .. } => format!(
                "store a pair that belongs together and, where the secret is hidden, take the tag \
                 out of its description, {FORCED}"
            ),
            Self::Unknown { .. } => {
                format!("check ROTATOR_IAM_USER, store a pair of this user, {FORCED}")
            }
            Self::Unusable { .. } => {
                "store the plain pair in the two variables, or name others in \
                 ROTATOR_KEY_ID_VARIABLE and ROTATOR_SECRET_VARIABLE"
                    .into()
            }
            Self::NoSlot { keys, named } => removal(keys, named),
            Self::Preflight(_) => "fix what is listed; nothing was written".into(),
            Self::Several(_) => {
                "delete the one that nothing uses: `aws iam get-access-key-last-used` tells which"
                    .into()
            }
            Self::ChangedExternally { .. } => {
                format!("restore the pair that stood there, {FORCED}")
            }
            Self::NewKeyLost { disabled: true, .. } => format!("enable it again, {FORCED}"),
            Self::NewKeyLost { disabled: false, .. } => {
                format!("store one pair that works, readable, in every target, {FORCED}")
            }
            Self::SecretLost { .. } => {
                "store the old pair in every target again (GitLab shows it where it is not \
                 hidden), or delete both variables where there was none, and take the tag \
                 `[credential-rotator …]` out of the secret's description: the next run then \
                 removes the new key and begins anew"
                    .into()
            }
            Self::KeyCompromised { key, .. } => format!(
                "find out who; if nobody should, delete it: `aws iam delete-access-key \
                 --access-key-id {}` {WHOSE}",
                key.full()
            ),
            Self::NotPublishedAnyMore { .. } => {
                format!("restore the published pair there, {FORCED}")
            }
            Self::AddedTarget { hidden: false, .. } => {
                "store the published pair there, or leave that target out of ROTATOR_TARGETS until \
                 the rotation is over"
                    .into()
            }
            Self::AddedTarget { hidden: true, .. } => {
                "leave that target out of ROTATOR_TARGETS until the rotation is over".into()
            }
            Self::EnabledAgain { key } => format!(
                "move that software to the new key, then disable the old one, whose grace period \
                 begins anew: `aws iam update-access-key --status Inactive --access-key-id {}` \
                 {WHOSE}",
                key.full()
            ),
            Self::EarlierRotation { disabled: true, .. } => {
                "force shortens no wait: run it again after that date; or, where nothing needs \
                 the old key, with `grace_period: 0s`, which deletes it at once"
                    .into()
            }
            Self::EarlierRotation { disabled: false, .. } => {
                "force shortens no wait: the grace period follows, then a key can be made; or, \
                 where nothing needs the old key, run it with `overlap: 0s` and \
                 `grace_period: 0s`, which disable and delete it at once"
                    .into()
            }
            Self::OldPairGiven { places, in_target: true, .. } if places.is_empty() => format!(
                "no variable that can be read names it, so the pair comes from {BEFORE_TARGETS}, \
                 which win over a target's: delete it there"
            ),
            Self::OldPairGiven { places, in_target: false, .. } if places.is_empty() => format!(
                "the project of this job is no target: add it to ROTATOR_TARGETS, or use a role; \
                 or the pair comes from {BEFORE_TARGETS}"
            ),
            Self::OldPairGiven { places, .. } => format!(
                "{} names it: delete that, or add the place to ROTATOR_TARGETS; if the pair is not \
                 from there, look at {BEFORE_TARGETS}",
                places.join(", ")
            ),
            Self::StillNamed { .. } => {
                "publish the new key there too, or delete what is named; the old key stays until \
                 then"
                    .into()
            }
            Self::TooOld { .. } => {
                "look at the last scheduled runs of the rotation, or run one now".into()
            }
            Self::DeployFailed(_) => {
                "fix the deploy and retry it; the next run proves it, or starts another".into()
            }
            Self::DeployUnproven(_) => {
                "run the job that did not run, or let ROTATOR_DEPLOY_JOBS name the jobs that \
                 deploy, so that only those must have run; then run this again"
                    .into()
            }
            Self::DeployTimedOut(_) => {
                "if it waits for a runner or a person, give it one; the next run goes on; \
                 ROTATOR_DEPLOY_TIMEOUT sets how long a run waits"
                    .into()
            }
        }
    }
}

fn named((target, id): &(String, Option<AccessKeyId>)) -> String {
    match id {
        Some(id) => format!("{target}: key {id}"),
        None => format!("{target}: none"),
    }
}

fn described(key: &Key, named: &[AccessKeyId]) -> String {
    let role = if named.contains(&key.id) { "published" } else { "unexplained" };
    let state = if key.active { "active" } else { "disabled" };
    let used = match &key.used {
        Some(Use::At { when, service }) => format!(", last used {} ({service})", day(*when)),
        Some(Use::Never) => ", never used".to_owned(),
        None => String::new(),
    };
    format!("{role} key {}, {state}, made {}{used}", key.id.full(), day(key.created))
}

fn last_use(used: &Use) -> String {
    match used {
        Use::At { when, service } => format!("{} for {service}", day(*when)),
        Use::Never => "never".to_owned(),
    }
}

fn removal(keys: &[Key], named: &[AccessKeyId]) -> String {
    let unexplained = keys.iter().filter(|key| !named.contains(&key.id));
    let commands = unexplained
        .map(|key| format!("`aws iam delete-access-key --access-key-id {}`", key.id.full()));
    format!(
        "if nothing uses an unexplained key, a person removes it: {} {WHOSE}",
        list(commands, ", ")
    )
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>, separator: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(separator)
}

/// A date without the time of day.
pub(super) fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}
