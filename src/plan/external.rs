//! What others have changed after the publication: what a run does about it, and what is left to a
//! person.

use super::model::{Observed, Policy};
use super::stage::Gap;
use super::step::{Checkpoint, Query, Step};
use super::{Attempt, Refusal, begin, unsettled};
use crate::config::Action;

/// What follows where a target does not hold the published pair.
pub(super) fn close(gap: Gap, seen: &Observed, policy: &Policy) -> Step {
    match gap {
        Gap::Added => to_added(Step::Record(Checkpoint::NotInPlace), seen, policy),
        Gap::Behind(target, key) => to_added(Step::WriteSecret { target, key }, seen, policy),
        Gap::Torn(target, key) => Step::WriteId { target, key },
        Gap::Refused(refusal) => changed(refusal, seen, policy),
    }
}

/// What follows from a refusal that blames a person, once a second look has confirmed it.
pub(super) fn changed(refusal: Refusal, seen: &Observed, policy: &Policy) -> Step {
    let is_confirmed = seen.run.suspected.as_ref() == Some(&refusal);
    let only_looks = policy.action == Action::Check || policy.dry_run;
    let is_recorded = seen.progress().is_some_and(|progress| progress.not_in_place.is_some());
    match &refusal {
        // A proof holds only while the pair was in place, and jobs may start with another one now.
        Refusal::NotPublishedAnyMore { .. } if !only_looks && !is_recorded => {
            if is_confirmed {
                Step::Record(Checkpoint::NotInPlace)
            } else {
                Step::Refuse(refusal)
            }
        }
        // A deleted key cannot come back, and an operator has put another in its place.
        Refusal::NewKeyLost { disabled: false, .. }
            if policy.forced.is_none()
                && is_confirmed
                && unsettled(seen).is_none()
                && seen.operators_pair().is_some() =>
        {
            Step::Record(Checkpoint::Superseded)
        }
        _ => anew_or(refusal, seen, policy),
    }
}

/// A step towards a target that was added; what a rotation needs is looked at before.
fn to_added(step: Step, seen: &Observed, policy: &Policy) -> Step {
    match &seen.preflight {
        _ if policy.action == Action::Check => step,
        None => Step::Ask(Query::Preflight),
        Some(blockers) if !blockers.is_empty() => {
            Step::Refuse(Refusal::Preflight(blockers.clone()))
        }
        Some(_) => step,
    }
}

/// A refusal that blames a person; a forced run begins anew instead.
pub(super) fn anew_or(refusal: Refusal, seen: &Observed, policy: &Policy) -> Step {
    // Begun anew, the rotation of a key that is made but not seen would be forgotten.
    let only_unseen =
        unsettled(seen).is_some() && matches!(refusal, Refusal::NewKeyLost { disabled: false, .. });
    match (policy.forced, policy.action) {
        (Some(_), Action::Rotate) if seen.run.attempt == Attempt::No && !only_unseen => begin(seen),
        (Some(_) | None, Action::Rotate | Action::Retire | Action::Setup | Action::Check) => {
            Step::Refuse(refusal)
        }
    }
}
