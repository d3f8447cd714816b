//! Runs that only look, `check` and a dry run: before such a run ends, it looks at all that a
//! rotation needs.

use super::model::{Observed, Policy};
use super::rehearse::rehearse;
use super::stage::stage;
use super::step::{Done, Query, Step};
use super::{Refusal, in_stage};
use crate::access_key::Key;

/// A dry run ends with the steps that it would take.
pub(super) fn dry_run(step: Step, seen: &Observed, policy: &Policy) -> Step {
    match whole_look(step, seen) {
        step if step.has_effect() || matches!(step, Step::Wait(_)) => {
            Step::Done(Done::DryRun(rehearse(seen, policy)))
        }
        step => step,
    }
}

/// Before a run that changes nothing ends, it looks at all that a rotation needs, due or not.
fn whole_look(step: Step, seen: &Observed) -> Step {
    match (step, &seen.preflight) {
        (step @ (Step::Ask(_) | Step::Done(Done::InOwnDeploy)), _) => step,
        (_, None) => Step::Ask(Query::Preflight),
        // What else stands in the way is told beside it.
        (step @ Step::Refuse(_), Some(_)) => step,
        (step, Some(blockers)) if blockers.is_empty() => step,
        (_, Some(blockers)) => Step::Refuse(Refusal::Preflight(blockers.clone())),
    }
}

/// `check` reads only: refused where `rotate` would refuse or the key is too old, else done with
/// what `rotate` would do next.
pub(super) fn check(seen: &Observed, policy: &Policy) -> Step {
    let step = in_stage(stage(seen, policy), seen, policy);
    let named = seen.targets.iter().find_map(|target| target.id.key());
    let key = named.and_then(|id| seen.key(id));
    let too_old = key.filter(|key| key.created + policy.max_age <= seen.now);
    match (whole_look(step, seen), too_old) {
        (step @ Step::Ask(_), _) | (step @ Step::Refuse(_), None) => step,
        (Step::Refuse(refusal), Some(_)) if !matches!(refusal, Refusal::Preflight(_)) => {
            Step::Refuse(refusal)
        }
        (_, Some(Key { id, created, .. })) => {
            Step::Refuse(Refusal::TooOld { key: id.clone(), created: *created })
        }
        (step, None) => Step::Done(Done::Checked { key: named.cloned(), next: Box::new(step) }),
    }
}
