//! The stage of a rotation, derived from `Observed`.
//!
//! This module only derives the stage. `plan` decides the step.

use jiff::Timestamp;

use super::Refusal;
use super::model::{DeploySeen, IdSeen, Observed, Policy, SecretOwner, SecretSeen, TargetSeen};
use super::new_key::{NewKeyState, new_key_state};
use super::retiring::{self, Old};
use crate::access_key::{AccessKeyId, Key};
use crate::config::Action;
use crate::record::Progress;

/// The stage of a rotation, and what matters in it.
pub(super) enum Stage {
    Idle(Named, Due),
    Publishing(NewKeyState, TargetsState),
    Deploying(Intact, Drain, Deploys),
    Retiring(Intact, Old),
}

/// What the targets name while no rotation is under way.
pub(super) enum Named {
    Nothing,
    One(Key),
    /// `ROTATOR_FORCE` fixes it.
    Wrong(Refusal),
    /// Only a person can fix it.
    Hopeless(Refusal),
    Unasked,
}

/// Whether the published key is replaced now.
pub(super) enum Due {
    Yes,
    No { created: Timestamp, due: Timestamp },
    Irrelevant,
}

/// How far the targets have come.
pub(super) enum TargetsState {
    Unasked,
    ChangedExternally(String),
    Torn(usize),
    Untouched,
    /// At least one is on the new key, this one is not.
    Partly(usize, String),
    All,
}

/// Whether every target is on the published key and that key works.
pub(super) enum Intact {
    Yes,
    Unasked,
    No(Gap),
}

/// In what a target differs from what was published.
pub(super) enum Gap {
    /// A target was added since, and what is recorded counts on the others alone.
    Added,
    /// This target was added since, and holds a previous pair that works.
    Behind(usize, AccessKeyId),
    /// It has the new secret beside the id of a previous key.
    Torn(usize, AccessKeyId),
    Refused(Refusal),
}

pub(super) enum Drain {
    /// Every target holds the pair again, or for the first time.
    Republished,
    Unasked,
    InFlight(Vec<String>),
    Drained,
    Recorded(Timestamp),
}

pub(super) enum Deploys {
    Own,
    Unasked,
    /// This run has noted that it asks for the deploy of this place.
    Noted(usize),
    Startable(usize),
    Adoptable(usize),
    NewlyProven,
    Running(Vec<String>),
    Failed(Vec<String>),
    Unproven(Vec<String>),
}

pub(super) fn stage(seen: &Observed, policy: &Policy) -> Stage {
    let Some(progress) = seen.progress().filter(|progress| progress.unfinished()) else {
        let named = named(seen);
        let due = due(&named, seen, policy);
        return Stage::Idle(named, due);
    };
    let new_key_state = new_key_state(progress, seen);
    let targets_state = targets_state(progress, new_key_state.key(), seen);
    let Some(published) = &progress.published else {
        return Stage::Publishing(new_key_state, targets_state);
    };
    let intact = match (&new_key_state, targets_state) {
        (_, TargetsState::Unasked) => Intact::Unasked,
        (NewKeyState::Gone(key), _) => {
            Intact::No(Gap::Refused(Refusal::NewKeyLost { key: key.clone(), disabled: false }))
        }
        (NewKeyState::Disabled(key), _) => {
            Intact::No(Gap::Refused(Refusal::NewKeyLost { key: key.id.clone(), disabled: true }))
        }
        (
            _,
            TargetsState::ChangedExternally(_)
            | TargetsState::Torn(_)
            | TargetsState::Untouched
            | TargetsState::Partly(..)
            | TargetsState::All,
        ) => intact(progress, &published.key, &new_key_state, seen),
    };
    match progress.deployed {
        Some(deployed) => Stage::Retiring(intact, retiring::old(progress, deployed, seen, policy)),
        None => Stage::Deploying(intact, drain(progress, seen), deploys(seen, policy)),
    }
}

/// Whether every target is on the published key, which works.
fn intact(
    progress: &Progress,
    key: &AccessKeyId,
    new_key_state: &NewKeyState,
    seen: &Observed,
) -> Intact {
    let off: Vec<&TargetSeen> = seen.targets.iter().filter(|target| !target.is_on(key)).collect();
    if let Some(target) = off.iter().find(|target| !progress.is_added(&target.place)) {
        let target = target.name.clone();
        return Intact::No(Gap::Refused(Refusal::NotPublishedAnyMore { key: key.clone(), target }));
    }
    let is_torn = |target: &TargetSeen| {
        target.secret.is_of(key) && target.id.key() != Some(key) && is_previous(progress, target)
    };
    let refused = |target: &TargetSeen, hidden| {
        let target = target.name.clone();
        Intact::No(Gap::Refused(Refusal::AddedTarget { key: key.clone(), target, hidden }))
    };
    if let Some(target) =
        off.iter().find(|target| !is_torn(target) && !is_on_an_old_key(target, progress, seen))
    {
        return refused(target, false);
    }
    let is_at_hand = matches!(new_key_state, NewKeyState::Ready(_));
    if let Some(target) = off.iter().find(|target| !is_torn(target) && !is_at_hand) {
        return refused(target, true);
    }
    if progress.not_in_place.is_none()
        && seen.targets.iter().any(|target| progress.is_added(&target.place))
    {
        return Intact::No(Gap::Added);
    }
    match (seen.targets.iter().position(is_torn), behind(Some(key), seen)) {
        (Some(torn), _) => Intact::No(Gap::Torn(torn, key.clone())),
        (None, Some(behind)) => Intact::No(Gap::Behind(behind, key.clone())),
        (None, None) => Intact::Yes,
    }
}

/// Whether the target holds a previous pair that works, as far as that can be seen.
fn is_on_an_old_key(target: &TargetSeen, progress: &Progress, seen: &Observed) -> bool {
    let Some(id) = target.id.key().filter(|id| progress.is_old(id)) else { return false };
    let is_its = match &target.secret {
        SecretSeen::Hidden { tag } => tag.as_ref().is_none_or(|tag| tag == id),
        SecretSeen::Readable { owner, .. } => *owner == SecretOwner::Key(id.clone()),
        SecretSeen::Absent | SecretSeen::Unusable(_) => false,
    };
    is_its && seen.key(id).is_some_and(|key| key.active)
}

pub(super) fn is_previous(progress: &Progress, target: &TargetSeen) -> bool {
    match &target.id {
        IdSeen::Absent => progress.previous.contains(&None),
        // An id without its secret: a person took it away, unless the rotation began so.
        IdSeen::Key(_)
            if target.secret == SecretSeen::Absent && !progress.previous.contains(&None) =>
        {
            false
        }
        IdSeen::Key(id) => progress.previous.iter().flatten().any(|previous| previous == id),
        IdSeen::Unusable(_) => false,
    }
}

pub(super) fn named(seen: &Observed) -> Named {
    let unusable = seen.targets.iter().find_map(|target| match (&target.id, &target.secret) {
        (IdSeen::Unusable(why), _) | (_, SecretSeen::Unusable(why)) => Some((target, why)),
        (
            IdSeen::Absent | IdSeen::Key(_),
            SecretSeen::Absent | SecretSeen::Hidden { .. } | SecretSeen::Readable { .. },
        ) => None,
    });
    if let Some((target, why)) = unusable {
        return Named::Hopeless(Refusal::Unusable {
            target: target.name.clone(),
            why: why.clone(),
        });
    }
    if seen
        .targets
        .iter()
        .all(|target| target.id == IdSeen::Absent && target.secret == SecretSeen::Absent)
    {
        return Named::Nothing;
    }
    let Some(id) = seen.targets.iter().find_map(|target| target.id.key()) else {
        let target = seen.targets.iter().find(|target| target.secret != SecretSeen::Absent);
        let target = target.map(|target| target.name.clone()).unwrap_or_default();
        return Named::Wrong(Refusal::PartMissing { target, missing_secret: false });
    };
    if seen.targets.iter().any(|target| target.id.key() != Some(id)) {
        return Named::Wrong(Refusal::Differ(named_by(seen)));
    }
    if let Some(wrong) = seen.targets.iter().find_map(|target| wrong_secret(target, id, seen)) {
        return wrong;
    }
    match seen.key(id) {
        Some(key) => Named::One(key.clone()),
        None => {
            Named::Wrong(Refusal::Unknown { target: seen.targets[0].name.clone(), key: id.clone() })
        }
    }
}

/// What is wrong with the secret beside this id, as far as that can be seen.
fn wrong_secret(target: &TargetSeen, id: &AccessKeyId, seen: &Observed) -> Option<Named> {
    let name = target.name.clone();
    let mismatch = |tag: &AccessKeyId| {
        let refusal =
            Refusal::Mismatch { target: target.name.clone(), id: id.clone(), tag: tag.clone() };
        Some(Named::Wrong(refusal))
    };
    match &target.secret {
        SecretSeen::Absent => {
            let refusal = Refusal::PartMissing { target: name, missing_secret: true };
            Some(Named::Wrong(refusal))
        }
        SecretSeen::Hidden { tag: Some(tag) } if tag != id => mismatch(tag),
        SecretSeen::Readable { tag: Some(tag), owner: SecretOwner::NotAsked }
            if tag != id && seen.key(id).is_some() =>
        {
            Some(Named::Unasked)
        }
        SecretSeen::Readable { tag: Some(tag), owner }
            if tag != id && *owner != SecretOwner::Key(id.clone()) =>
        {
            mismatch(tag)
        }
        SecretSeen::Hidden { .. } | SecretSeen::Readable { .. } | SecretSeen::Unusable(_) => None,
    }
}

pub(super) fn named_by(seen: &Observed) -> Vec<(String, Option<AccessKeyId>)> {
    seen.targets.iter().map(|target| (target.name.clone(), target.id.key().cloned())).collect()
}

pub(super) fn due(named: &Named, seen: &Observed, policy: &Policy) -> Due {
    match (named, policy.action) {
        (Named::One(key), Action::Rotate | Action::Check) => {
            let due = key.created + policy.rotate_after;
            let forced = policy.forced.is_some_and(|since| key.created < since);
            let yes = due <= seen.now || !key.active || forced;
            if yes { Due::Yes } else { Due::No { created: key.created, due } }
        }
        (Named::One(_), Action::Retire | Action::Setup) => Due::Irrelevant,
        (Named::Nothing | Named::Wrong(_) | Named::Hopeless(_) | Named::Unasked, _) => {
            Due::Irrelevant
        }
    }
}

pub(super) fn targets_state(
    progress: &Progress,
    new_key_state: Option<&AccessKeyId>,
    seen: &Observed,
) -> TargetsState {
    let unasked = |target: &TargetSeen| {
        matches!(target.secret, SecretSeen::Readable { owner: SecretOwner::NotAsked, .. })
    };
    if new_key_state.is_some() && seen.targets.iter().any(unasked) {
        return TargetsState::Unasked;
    }
    let named = |target: &TargetSeen| new_key_state.is_some() && target.id.key() == new_key_state;
    let holds = |target: &TargetSeen| new_key_state.is_some_and(|key| target.secret.is_of(key));
    let may_hold =
        |target: &TargetSeen| new_key_state.is_some_and(|key| target.secret.may_be_of(key));
    if let Some(target) =
        seen.targets.iter().find(|target| !is_previous(progress, target) && !named(target))
    {
        return TargetsState::ChangedExternally(target.name.clone());
    }
    if let Some(torn) = seen.targets.iter().position(|target| holds(target) && !named(target)) {
        return TargetsState::Torn(torn);
    }
    let Some(behind) = behind(new_key_state, seen) else { return TargetsState::All };
    if seen.targets.iter().any(|target| may_hold(target) || named(target)) {
        return TargetsState::Partly(behind, seen.targets[behind].name.clone());
    }
    TargetsState::Untouched
}

/// The next target to be put on the key. Hidden ones come last: a run that dies in between leaves
/// the secret where the next one can read it.
pub(super) fn behind(key: Option<&AccessKeyId>, seen: &Observed) -> Option<usize> {
    let behind = || {
        seen.targets
            .iter()
            .enumerate()
            .filter(|(_, target)| !key.is_some_and(|key| target.is_on(key)))
    };
    let readable = behind().find(|(_, target)| !matches!(target.secret, SecretSeen::Hidden { .. }));
    readable.or_else(|| behind().next()).map(|(index, _)| index)
}

pub(super) fn drain(progress: &Progress, seen: &Observed) -> Drain {
    match (progress.drained, &seen.in_flight_jobs) {
        _ if progress.not_in_place.is_some() => Drain::Republished,
        (Some(drained), _) => Drain::Recorded(drained),
        (None, None) => Drain::Unasked,
        (None, Some(jobs)) if jobs.is_empty() => Drain::Drained,
        (None, Some(jobs)) => Drain::InFlight(jobs.clone()),
    }
}

pub(super) fn deploys(seen: &Observed, policy: &Policy) -> Deploys {
    if policy.own_deploy && policy.action != Action::Retire {
        return Deploys::Own;
    }
    if let Some(place) = seen.run.asking {
        return Deploys::Noted(place);
    }
    let Some(deploys) = &seen.deploys else { return Deploys::Unasked };
    let (mut running, mut failed, mut unproven, mut newly_proven) =
        (Vec::new(), Vec::new(), Vec::new(), false);
    for (place, deploy) in deploys.iter().enumerate() {
        match deploy {
            DeploySeen::Startable { .. } => return Deploys::Startable(place),
            DeploySeen::Adoptable(_) => return Deploys::Adoptable(place),
            DeploySeen::Running(what) => running.push(what.clone()),
            DeploySeen::Failed(what) => failed.push(what.clone()),
            DeploySeen::Unproven(what) => unproven.push(what.clone()),
            DeploySeen::Proven(recorded) => newly_proven |= recorded.proven.is_none(),
        }
    }
    match (newly_proven, &running[..], &failed[..], &unproven[..]) {
        (true, ..) | (false, [], [], []) => Deploys::NewlyProven,
        (false, [_, ..], ..) => Deploys::Running(running),
        (false, [], [_, ..], _) => Deploys::Failed(failed),
        (false, [], [], [_, ..]) => Deploys::Unproven(unproven),
    }
}
