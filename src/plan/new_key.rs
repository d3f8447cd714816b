//! The new key of an unfinished rotation: which one it is, and what state it is in.

use super::CREATION_WINDOW;
use super::model::{Observed, SecretOwner, SecretSeen};
use super::run_state::Attempt;
use crate::access_key::{AccessKeyId, Key};
use crate::record::Progress;

/// The state of the new key of the unfinished rotation.
pub(super) enum NewKeyState {
    /// It is recorded and still to be created.
    ToMake,
    /// None was created.
    Never,
    Several(Vec<AccessKeyId>),
    Gone(AccessKeyId),
    Disabled(Key),
    /// Active; its secret is neither in this process nor to be read anywhere.
    SecretUnknown(Key),
    Unverified(AccessKeyId),
    Abandoned(AccessKeyId),
    Ready(AccessKeyId),
}

pub(super) fn new_key_state(progress: &Progress, seen: &Observed) -> NewKeyState {
    let new = |id: &&AccessKeyId| !progress.from.contains(id);
    let mut tags: Vec<&AccessKeyId> =
        seen.targets.iter().filter_map(|target| target.secret.tag()).filter(new).collect();
    tags.sort();
    tags.dedup();
    let window = progress.creating.as_second()..=(progress.creating + CREATION_WINDOW).as_second();
    let born = |key: &&Key| window.contains(&key.created.as_second()) && new(&&key.id);
    let id = if let Some(published) = &progress.published {
        published.key.clone()
    } else if let Some(new_key) = &seen.run.new_key {
        new_key.key.clone()
    } else if let [tag] = tags[..] {
        tag.clone()
    } else if !tags.is_empty() {
        return NewKeyState::Several(tags.into_iter().cloned().collect());
    } else {
        match &seen.keys.iter().filter(born).collect::<Vec<_>>()[..] {
            [] if seen.run.attempt == Attempt::Recorded && seen.keys.len() < 2 => {
                return NewKeyState::ToMake;
            }
            // This run has sent nothing: whatever key is new is a person's, and is to be recorded
            // as such.
            _ if seen.run.attempt == Attempt::Recorded => return NewKeyState::Never,
            [] => return NewKeyState::Never,
            [key] => key.id.clone(),
            several => {
                return NewKeyState::Several(several.iter().map(|key| key.id.clone()).collect());
            }
        }
    };
    let Some(key) = seen.key(&id) else { return NewKeyState::Gone(id) };
    let is_its = |secret: &SecretSeen| match secret {
        SecretSeen::Readable { owner: SecretOwner::Key(owner), .. } => *owner == id,
        SecretSeen::Readable { owner: SecretOwner::NotAsked | SecretOwner::Nobody, .. }
        | SecretSeen::Hidden { .. }
        | SecretSeen::Absent
        | SecretSeen::Unusable(_) => false,
    };
    let readable = seen.targets.iter().any(|target| is_its(&target.secret));
    match seen.run.new_key.as_ref().filter(|new_key| new_key.key == id) {
        _ if !key.active => NewKeyState::Disabled(key.clone()),
        Some(new_key) if new_key.abandoned => NewKeyState::Abandoned(id),
        Some(new_key) if !new_key.verified => NewKeyState::Unverified(id),
        Some(_) => NewKeyState::Ready(id),
        None if readable => NewKeyState::Ready(id),
        None => NewKeyState::SecretUnknown(key.clone()),
    }
}

impl NewKeyState {
    pub(super) fn key(&self) -> Option<&AccessKeyId> {
        match self {
            Self::ToMake | Self::Never | Self::Several(_) => None,
            Self::Gone(id) | Self::Unverified(id) | Self::Abandoned(id) | Self::Ready(id) => {
                Some(id)
            }
            Self::Disabled(key) | Self::SecretUnknown(key) => Some(&key.id),
        }
    }
}
