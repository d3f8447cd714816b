//! The old keys once everything is deployed: what keeps them, and what follows.

use jiff::{SignedDuration, Timestamp};

use super::Refusal;
use super::model::{Observed, Policy};
use super::new_key::{NewKeyState, new_key_state};
use super::run_state::GivenPair;
use super::step::{Checkpoint, Done, KeyRole, Query, Step, Waiting};
use crate::access_key::{AccessKeyId, Key, Use};
use crate::config::Action;
use crate::record::Progress;

/// What uses the old key after the deploy may come once a day, and AWS shows a use hours late: a
/// use counts as the last one when none has followed for so long.
const LAST_USE_AFTER: SignedDuration = SignedDuration::from_hours(49);
/// An old key that is in use so long after the overlap is a person's matter.
const LATE_AFTER: SignedDuration = SignedDuration::from_hours(3 * 24);

/// What became of the old keys; of several, the next one to act on.
pub(super) enum Old {
    Gone,
    Waiting(Waiting),
    UnaskedUse(AccessKeyId),
    /// Active although this rotation disabled it. `noted`: the record says so already.
    EnabledAgain {
        key: AccessKeyId,
        noted: bool,
    },
    Named(AccessKeyId, Vec<String>),
    Active(AccessKeyId),
    JustDisabled,
    GraceOver(AccessKeyId),
}

/// The step of the rotation after the deploy.
pub(super) fn next(old: Old, seen: &Observed, policy: &Policy) -> Step {
    match old {
        Old::Gone => Step::Record(Checkpoint::Finished),
        Old::Waiting(what) => waits(what, seen, policy),
        Old::UnaskedUse(key) => Step::Ask(Query::LastUse(key)),
        Old::EnabledAgain { key, noted } => enabled_again(key, noted, seen, policy),
        Old::Named(key, places) => Step::Refuse(Refusal::StillNamed { key, places }),
        Old::Active(key) => Step::Disable(key, KeyRole::Old),
        Old::JustDisabled => Step::Record(Checkpoint::Disabled),
        Old::GraceOver(key) => Step::Delete(key, KeyRole::Old),
    }
}

/// A job that started after the publication and was given an old pair all the same did not get it
/// from a target: it would keep the old key in use each night, and fail once that is disabled.
pub(super) fn old_pair_given(seen: &Observed) -> Option<Step> {
    let progress = seen.progress()?;
    let published = progress.published.as_ref()?;
    let given = seen.run.given.as_ref()?;
    (progress.is_old(&given.key) && given.since > published.at).then(|| {
        let places = seen.other_references.get(&given.key).cloned().unwrap_or_default();
        let GivenPair { key, in_target, .. } = given.clone();
        Step::Refuse(Refusal::OldPairGiven { key, in_target, places })
    })
}

/// Force shortens no wait: while an earlier rotation waits, a forced run refuses. It may begin
/// nothing, and the key in use stays the one that it was to replace.
fn waits(what: Waiting, seen: &Observed, policy: &Policy) -> Step {
    let Some((old, until)) = what.old_key() else { return Step::Done(Done::Waiting(what)) };
    if !is_to_be_replaced(seen, policy) {
        return Step::Done(Done::Waiting(what));
    }
    let old = old.clone();
    match seen.key(&old) {
        Some(Key { used: None, .. }) | None => Step::Ask(Query::LastUse(old)),
        Some(Key { used: Some(used), active, .. }) => {
            let (disabled, used) = (!active, used.clone());
            Step::Refuse(Refusal::EarlierRotation { old, disabled, until, used })
        }
    }
}

/// Whether the run is forced and the published key is older than that; the one that this process
/// has made is not, whatever the clocks say.
fn is_to_be_replaced(seen: &Observed, policy: &Policy) -> bool {
    let published = seen.progress().and_then(|progress| progress.published.as_ref());
    let Some(key) = published.and_then(|published| seen.key(&published.key)) else { return false };
    let is_ours = seen.run.new_key.as_ref().is_some_and(|new_key| new_key.key == key.id);
    policy.forced.is_some_and(|since| key.created < since) && !is_ours
}

/// The record keeps it, so that the grace period begins anew once the key is inactive again; not
/// before a second look, for lists lag.
fn enabled_again(key: AccessKeyId, noted: bool, seen: &Observed, policy: &Policy) -> Step {
    let refusal = Refusal::EnabledAgain { key };
    let is_confirmed = seen.run.suspected.as_ref() == Some(&refusal);
    let may_write = policy.action != Action::Check && !policy.dry_run;
    if is_confirmed && may_write && !noted {
        Step::Record(Checkpoint::EnabledAgain)
    } else {
        Step::Refuse(refusal)
    }
}

pub(super) fn old(
    progress: &Progress,
    deployed: Timestamp,
    seen: &Observed,
    policy: &Policy,
) -> Old {
    let olds: Vec<&Key> = seen.keys.iter().filter(|key| progress.is_old(&key.id)).collect();
    let Some(next) = olds.iter().find(|key| key.active).or_else(|| olds.first()) else {
        return Old::Gone;
    };
    let id = next.id.clone();
    let named = seen.other_references.get(&id).cloned();
    let or_named = |old| named.map_or(old, |places| Old::Named(id.clone(), places));
    let active = || match signs(&id, progress, seen) {
        true => Old::Waiting(Waiting::OwnSigner { old: id.clone() }),
        false => Old::Active(id.clone()),
    };
    match (next.active, progress.disabled) {
        (true, Some(_)) => Old::EnabledAgain { key: id, noted: progress.enabled_again.is_some() },
        (true, None) if policy.overlap.is_zero() => or_named(active()),
        (true, None) => match (overlap(next, deployed, seen.now, policy), &next.used) {
            (Some(waiting), _) => Old::Waiting(waiting),
            (None, None) => Old::UnaskedUse(id),
            (None, Some(_)) => or_named(active()),
        },
        (false, None) => Old::JustDisabled,
        // Enabled again and off once more: its grace period begins anew.
        (false, Some(_)) if progress.enabled_again.is_some() => Old::JustDisabled,
        (false, Some(disabled)) => {
            let until = disabled + policy.grace_period;
            if !policy.grace_period.is_zero() && until > seen.now {
                Old::Waiting(Waiting::Grace { old: id, until })
            } else {
                or_named(Old::GraceOver(id.clone()))
            }
        }
    }
}

/// Whether this key signs for this run, which does not know the new secret: it is hidden, and an
/// earlier process of this job has made it.
fn signs(id: &AccessKeyId, progress: &Progress, seen: &Observed) -> bool {
    let is_given = seen.run.given.as_ref().is_some_and(|given| given.key == *id);
    is_given && matches!(new_key_state(progress, seen), NewKeyState::SecretUnknown(_))
}

/// What keeps an old key active after the deploy, as far as its last use is known.
fn overlap(key: &Key, deployed: Timestamp, now: Timestamp, policy: &Policy) -> Option<Waiting> {
    let until = deployed + policy.overlap;
    if until > now {
        return Some(Waiting::Overlap { old: key.id.clone(), until });
    }
    let Some(Use::At { when, service }) = &key.used else { return None };
    let gone = *when + policy.overlap.max(LAST_USE_AFTER);
    (*when > deployed && gone > now).then(|| Waiting::StillUsed {
        old: key.id.clone(),
        last: *when,
        service: service.clone(),
        until: gone,
        late: until + LATE_AFTER <= now,
    })
}
