//! Beside other runs: who claims, who waits and who leaves.

use jiff::Timestamp;

use super::step::{Step, Waiting};
use super::{LAST_MOMENT, Observed, Policy, RecordSeen, Refusal};
use crate::config::Action;

/// While another run is at work nothing is done; an effect needs the claim, and the claim takes over
/// what runs that are over have left.
pub(super) fn claimed(step: Step, seen: &Observed, policy: &Policy) -> Step {
    if policy.action == Action::Check || seen.in_own_deploy {
        return step;
    }
    let others_alive = seen.records.iter().any(|record| !record.is_over());
    // What looks like a person's change may be half of another run's step.
    let may_be_theirs = |step: &Step| match step {
        Step::Refuse(refusal) => refusal.needs_confirmation(),
        step => step.has_effect(),
    };
    match &seen.claim {
        None if others_alive && may_be_theirs(&step) => outlived_or_busy(seen),
        None if step.has_effect() => Step::Claim,
        // A run that has announced itself since sees our record and withdraws.
        Some(_) if step.has_effect() && seen.records.iter().any(RecordSeen::is_over) => {
            Step::TakeOver
        }
        Some(_) | None => step,
    }
}

/// A run whose job has ended is waited for: what it has sent may still arrive for a moment, and the
/// job that GitLab starts in its place comes within seconds.
fn outlived_or_busy(seen: &Observed) -> Step {
    let alive = seen.records.iter().filter(|record| !record.is_over());
    let ends: Option<Vec<Timestamp>> = alive.map(|record| record.until).collect();
    let until = ends.and_then(|ends| ends.into_iter().max());
    match until.filter(|until| *until + LAST_MOMENT < seen.run.ends) {
        Some(until) => Step::Wait(Waiting::Afterlife { until }),
        None => Step::Refuse(Refusal::Busy),
    }
}
