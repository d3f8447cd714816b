//! What a run tells although it is done, because a person should look before long: such a run ends
//! with exit code 6. The sentence stands at the variant, the hint in a total match.

use jiff::Timestamp;

use super::Blocker;
use super::refusal::{WHOSE, day};
use crate::access_key::AccessKeyId;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// A user has two keys at most, so the next rotation would find no room.
    #[error("a second key {key} is not of this rotation and will be in its way")]
    UnexplainedKey { key: AccessKeyId },
    #[error(
        "old key {key} is still in use days after its overlap (last used {} for {service})",
        day(*last)
    )]
    OldKeyInUse { key: AccessKeyId, last: Timestamp, service: String },
    /// What `check` and a dry run find beside the refusal that they end with.
    #[error("a rotation would not end well: {0}")]
    Blocked(Blocker),
    /// GitLab's setting *Prevent outdated deployment jobs*.
    #[error(
        "project {project} does not prevent outdated deployment jobs, so a deploy that begins \
         while the rotation runs the last one again may be undone by it"
    )]
    OutdatedDeployments { project: String },
    /// None of its jobs made a deployment, and no job or stage is called like one.
    #[error("{link} counts as the deploy, but nothing in it looks like one")]
    NoDeploySeen { link: String },
    #[error(
        "the new key of a rotation was deleted, and every target holds key {key} instead, so that \
         rotation is over{}",
        left(others)
    )]
    Superseded { key: AccessKeyId, others: Vec<AccessKeyId> },
}

impl Notice {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::UnexplainedKey { key } => format!(
                "if nothing uses it, a person removes it: `aws iam delete-access-key \
                 --access-key-id {}` {WHOSE}",
                key.full()
            ),
            Self::OldKeyInUse { .. } => {
                "move that software to the new key: the old one is disabled once nothing has used \
                 it for two days, or, whatever uses it, with `overlap: 0s`"
                    .into()
            }
            Self::Blocked(blocker) => blocker.fix(),
            Self::OutdatedDeployments { .. } => {
                "switch it on in the project's settings: CI/CD, General pipelines".into()
            }
            Self::NoDeploySeen { .. } => {
                "name the jobs that deploy in ROTATOR_DEPLOY_JOBS; if this pipeline leaves them \
                 out, let their rules allow the source `api`"
                    .into()
            }
            Self::Superseded { others, .. } if others.is_empty() => {
                "nothing to do: a later run begins the next rotation when that key is due".into()
            }
            Self::Superseded { others, .. } => format!(
                "a later run begins the next rotation when that key is due, and needs room: if \
                 nothing uses the other key, a person removes it: {} {WHOSE}",
                others
                    .iter()
                    .map(|key| format!(
                        "`aws iam delete-access-key --access-key-id {}`",
                        key.full()
                    ))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }
    }
}

fn left(others: &[AccessKeyId]) -> String {
    let others: Vec<String> = others.iter().map(|key| format!("key {key}")).collect();
    if others.is_empty() { String::new() } else { format!("; {} is left", others.join(", ")) }
}
