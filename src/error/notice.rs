//! What a run tells although it is done, because a person should look before long: such a run ends
//! with exit code 6. The sentence stands at the variant, the hint in a total match.

use jiff::Timestamp;

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
        }
    }
}
