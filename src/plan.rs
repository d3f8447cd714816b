//! The plan: what is seen, and the one step that follows from it.
//!
//! Pure: no I/O, no clock, no randomness, no secret. [`Observed`] has what was seen and what this
//! run has done. A `Stage` is a summary of it, and one total `match` for each stage picks the step.
//! A row of this table is an arm. B stands for the new key of the unfinished rotation. *Ends when*:
//! what ends a refusal or a wait, and `–` where the step is neither.
//!
//! | stage | seen | step | what is left if the run dies right after it | who repairs | ends when |
//! | --- | --- | --- | --- | --- | --- |
//! | any | a step failed: B's secret was never sent, or `CreateAccessKey` was refused | give B up | an orphan | orphan row | – |
//! | any | a step failed, and a pair is torn, or may be by the failed write | read and try again until the run's promised end | torn pair | torn row | – |
//! | any | a step failed: the record tells of a key that was not asked for | take it back | – | – | – |
//! | any | a step failed otherwise, or there is a deferred error and nothing left to do | stop | – | the next run | – |
//! | any | a signal: B's secret was never sent | give B up | an orphan | orphan row | – |
//! | any | a signal: a torn pair, or a record of a key that is not made | complete it, or take it back | torn pair | torn row | – |
//! | any | a signal, otherwise | stop | – | the next run | – |
//! | any | a refusal that a person may have caused, seen once | observe again 10 s later | – | – | – |
//! | any | a claim was made, or a long wait is over; before a key of an earlier run is touched, and before the first write of a pair | observe first; for such a key, every place that may name it | – | – | – |
//! | any | another run's job has ended no two minutes ago, and there is something to do | wait for their end, if this job lasts so long; else refuse: busy | – | – | two minutes after that job's end |
//! | any | another run is alive and there is something to do | refuse: busy | – | – | it ends, or two minutes have passed since its job ended |
//! | any | `check` or a dry run, due or not, and what a rotation needs is not known yet | look at all of it | – | – | – |
//! | any | `check` or a dry run, and something stands in a rotation's way | refuse, naming it all | – | a person | nothing stands in its way |
//! | any | something to do, no claim held | claim | a bare record | the next run | – |
//! | any | claim held, other records left | take their progress over, delete them | two records | the next run | – |
//! | publishing | nothing was made, or B is gone and every target untouched | remove the progress from the record | nothing | – | – |
//! | publishing | the same, but a run that ended in order recorded `creating` less than two minutes ago | wait: lists lag | – | – | two minutes after `creating` |
//! | publishing | a target holds neither B nor a previous id, or that id without a secret where none lacked one; B, written somewhere, gone or disabled | refuse (with force: begin a new rotation) | – | a person | that target holds B or a previous id again, B is active again, or force |
//! | publishing | several keys could be B | refuse | – | a person | one of them is left |
//! | publishing | a torn target: the secret is B's, the id is a previous one | write the id | published pair | rows below | – |
//! | publishing | B made by this run, not verified | verify | an orphan | orphan row | – |
//! | publishing | B given up before its secret was sent: named nowhere / somewhere | delete / refuse | nothing | – / a person | nothing names B |
//! | publishing | a target not on B, B's secret known | write the secret, then the id; hidden targets last | torn or partly published | this row | – |
//! | publishing | B's secret unknown, written nowhere, used by `sts` alone | disable, delete | disabled orphan | this row | – |
//! | publishing | B's secret unknown, written nowhere, used by something else or named by another variable | refuse | – | a person | nothing names B, or B is deleted |
//! | publishing | a target not on B, B's secret readable nowhere | refuse (with force: begin a new rotation) | – | a person | B's secret is stored where it can be read, every target is on a previous pair again, or force |
//! | publishing | every target on B, and each readable secret works | record `published` | two good keys | deploying rows | – |
//! | publishing, deploying, retiring | B deleted; every target on one other readable pair that works, seen twice, when lists lag no more | record `finished` with that key; done, and this run begins nothing | an operator's pair | – | – |
//! | deploying, retiring | B gone or disabled otherwise | refuse (with force: begin a new rotation) | – | a person | B is active again, the row above, or force |
//! | deploying, retiring | a target that was published is not on B, seen twice | take `drained`, the deploys and `deployed` out, then refuse (with force: begin a new rotation) | two good keys | a person | every target is on B again, or force |
//! | deploying, retiring | a target was added, on a previous pair that works or on B | preflight, take the same out, write the secret, then the id | torn or partly published | this row | – |
//! | deploying, retiring | a target was added, on neither; or B's secret is readable nowhere | refuse | – | a person | it holds B, or is no target |
//! | deploying | what was taken out, and every target on B | record `published` anew | two good keys | deploying rows | – |
//! | deploying | a job older than the publication still runs / none does | wait, or done / record `drained` | two good keys | this row | those jobs end |
//! | deploying | a deploy to start: not noted / noted | note the attempt / ask for the deploy | an attempt / a deploy that nobody noted | attempt row | – |
//! | deploying | the deploy was refused, or a signal came before it was asked for | take the attempt out | two good keys | deploying rows | – |
//! | deploying | the answer was lost | note that the attempt is closed | an attempt | attempt row | – |
//! | deploying | an attempt without an answer: it may still show up / one deploy is surely its own / none is | wait / adopt that one / note a new attempt | an attempt | this row | two minutes after the request was given up |
//! | deploying | deploys not all proven / all proven | wait or refuse / record `deployed` | two good keys | this row | each deploy is proven; each run starts once more what came to nothing, but no third pipeline of a commit that proves nothing |
//! | deploying | `deploy_timeout: 0s`: the deploy that an earlier run left failed or stands still | start another where it failed; refuse | two good keys | this row | a deploy is proven, or runs |
//! | deploying, retiring | this job started after the publication and was given an old pair | refuse | – | a person | the job is given the new pair |
//! | retiring | the old key is to be disabled, and only it can sign for this run | done: waiting | two good keys | a later job | a job that started after the publication runs |
//! | retiring | overlap not over | done: waiting | two good keys | this row | `deployed` + overlap; at once with `0s` |
//! | retiring | the old key was used after `deployed` | done: waiting | two good keys | this row | no use has followed for 49 h or the overlap, whichever is longer; at once with `0s` |
//! | retiring | grace period not over | done: waiting | old key disabled | this row | `disabled` + grace period; at once with `0s` |
//! | retiring | a wait of the three rows above; forced, and B is older than that | refuse, with its date | – | a person | that wait ends |
//! | retiring | the old key was disabled by us and is active again | record `enabled_again`, refuse | – | a person | it is seen inactive (the new `disabled`), or gone |
//! | retiring | the old key is to be disabled or deleted, and another variable names it | refuse | – | a person | nothing names it |
//! | retiring | old key active / disabled / grace over | disable / record `disabled` / delete | old key disabled | this row | – |
//! | retiring | nothing left to do | record `finished` | – | this row | – |
//! | idle | the targets name different keys, a pair does not match, an id is unknown, or a value is a reference or a path | refuse (with force, where that fixes it: begin a new rotation) | – | a person | the targets hold one whole pair of one of this user's keys, or force |
//! | idle | no variables | `setup`: begin; else refuse | an orphan | orphan row | both variables are there |
//! | idle | the key is due | begin: preflight, progress, create | an orphan | orphan row | – |
//! | idle | due, but no slot | refuse, naming each key | – | a person | the user has one key |
//! | idle | due, and the preflight finds something | refuse, naming it all | – | a person | nothing is found |
//! | idle | `check`: the key is older than `max_age` | refuse | – | a person | the key is replaced |
//! | idle | otherwise | done: not due | – | – | – |

use jiff::{SignedDuration, Timestamp};

use crate::access_key::{AccessKeyId, Key};
use crate::config::Action;

mod apply;
mod claim;
mod describe;
mod external;
mod look;
mod model;
mod new_key;
mod orphan;
mod rehearse;
mod retiring;
mod run_state;
mod stage;
mod step;

pub use crate::error::{Blocker, Notice, Refusal};
use claim::claimed;
pub use model::*;
use new_key::NewKeyState;
pub use run_state::*;
use stage::{Deploys, Drain, Due, Intact, Named, Stage, TargetsState};
pub use step::*;

/// A key counts as ours if it was created at most this long after `creating`.
pub(crate) const CREATION_WINDOW: SignedDuration = SignedDuration::from_mins(2);
/// How old the list of keys may be when the run sends `CreateAccessKey`.
const LIST_HOLDS: SignedDuration = SignedDuration::from_secs(45);
/// The run stops retrying a torn pair this long before its end.
const LAST_MOMENT: SignedDuration = SignedDuration::from_secs(30);
/// GitLab gives some dates of jobs in whole seconds, so a job that started less than this long
/// after `drained` does not prove the deploy.
pub const START_MARGIN: SignedDuration = SignedDuration::from_secs(2);

/// What a request for a deploy has made shows up so soon after the request was given up.
pub const APPEARS_WITHIN: SignedDuration = SignedDuration::from_mins(2);

/// The one step that follows from what is seen.
pub fn plan(seen: &Observed, policy: &Policy) -> Step {
    let run = &seen.run;
    if let Some(failure) = &run.failure {
        return after_failure(failure, seen, policy);
    }
    if run.stop_requested && run.has_unsent_key() {
        return Step::Abandon(Cause::Signal);
    }
    let step = claimed(decide(seen, policy), seen, policy);
    if run.stop_requested && !winds_down(&step, run) {
        return Step::Stop;
    }
    let step = if policy.dry_run { look::dry_run(step, seen, policy) } else { step };
    if let Some(scope) = outdated(&step, run) {
        return Step::Observe(scope);
    }
    match step {
        Step::Refuse(refusal) if run.has_unsent_key() => Step::Abandon(Cause::Refusal(refusal)),
        // With nothing left to put in order, the error is told at once.
        Step::Refuse(_) if run.error_deferred && !seen.is_unfinished() => Step::Stop,
        Step::Refuse(refusal)
            if refusal.needs_confirmation() && run.suspected.as_ref() != Some(&refusal) =>
        {
            Step::Confirm(refusal)
        }
        Step::Done(_) | Step::Refuse(_) if run.error_deferred => Step::Stop,
        step => step,
    }
}

/// What follows from a step that failed.
fn after_failure(failure: &Failure, seen: &Observed, policy: &Policy) -> Step {
    let run = &seen.run;
    let is_torn = || seen.claim.is_some() && matches!(decide(seen, policy), Step::WriteId { .. });
    // A target that surely refuses the secret is as it was, whatever the others hold.
    let may_be_torn = match (&*failure.step, failure.kind) {
        (Step::WriteSecret { .. }, FailureKind::Unclear) => true,
        _ => is_torn(),
    };
    let time_left = seen.now + LAST_MOMENT < run.ends;
    match (&*failure.step, failure.kind, failure.misdirected) {
        (_, FailureKind::ClaimLost, _) => Step::Stop,
        // What it has made, if anything, shows up late: the next run removes it.
        (Step::Create, FailureKind::Unclear, _) => Step::Stop,
        (Step::Create, FailureKind::Refused, _) => Step::Abandon(Cause::Failure),
        (Step::StartDeploy(place), FailureKind::Unclear, _) => {
            Step::Record(Checkpoint::AttemptClosed(*place))
        }
        (Step::StartDeploy(place), FailureKind::Refused, _) if run.asking.is_some() => {
            Step::Record(Checkpoint::AttemptWithdrawn(*place))
        }
        _ if run.has_unsent_key() => Step::Abandon(Cause::Failure),
        // Recorded and not made: the record is taken back.
        _ if run.attempt == Attempt::Recorded && !run.error_deferred => {
            Step::Abandon(Cause::Failure)
        }
        (_, _, Misdirected::Yes) if may_be_torn => Step::Observe(Scope::Variables),
        (_, _, Misdirected::Read) if !is_torn() => Step::Stop,
        // A run that was told to stop has a few seconds, which `Shutdown::expired` counts.
        _ if may_be_torn && (time_left || run.stop_requested) => Step::Retry,
        (_, FailureKind::Refused | FailureKind::Unclear, _) => Step::Stop,
    }
}

/// Whether a run that was told to stop still takes this step: a key that nothing names is deleted, a
/// torn pair is completed, and the record of a key that is not made is taken back, for the next key
/// that a person makes would count as ours.
fn winds_down(step: &Step, run: &RunState) -> bool {
    if run.new_key.as_ref().is_some_and(|new_key| new_key.abandoned) {
        return true;
    }
    match step {
        Step::WriteId { .. } => true,
        // Where the end of a secret's write is not known, writing it again completes the pair.
        Step::WriteSecret { .. } => run.secret_sent,
        Step::Record(Checkpoint::Nothing) => run.attempt != Attempt::No,
        Step::Record(Checkpoint::AttemptWithdrawn(_)) => true,
        _ => false,
    }
}

/// What has to be observed again before this step.
fn outdated(step: &Step, run: &RunState) -> Option<Scope> {
    // It touches nothing but our own record; the deploy that follows is looked at first.
    let is_drained = matches!(step, Step::Record(Checkpoint::Drained));
    // Nobody else knows of a key that this process has made for nothing.
    let abandoned = run.new_key.as_ref().filter(|new_key| new_key.abandoned);
    let is_abandoned = |id: &AccessKeyId| abandoned.is_some_and(|new_key| new_key.key == *id);
    let touches_a_key =
        matches!(step, Step::Disable(id, _) | Step::Delete(id, _) if !is_abandoned(id));
    // Much time may have passed since: a key was verified.
    let is_first_write = matches!(step, Step::WriteSecret { .. }) && !run.secret_sent;
    match run.freshness {
        Freshness::Outdated => Some(Scope::Everything),
        Freshness::VariablesOutdated => Some(Scope::Variables),
        Freshness::AfterWait if step.has_effect() && !is_drained => Some(Scope::Everything),
        Freshness::Fresh | Freshness::Applied | Freshness::AfterWait if touches_a_key => {
            Some(Scope::Everywhere)
        }
        Freshness::Applied if is_first_write => Some(Scope::Variables),
        Freshness::Searched | Freshness::Fresh | Freshness::Applied | Freshness::AfterWait => None,
    }
}

/// What the stage of the rotation needs next. A row of the table above is an arm of one of the four.
fn decide(seen: &Observed, policy: &Policy) -> Step {
    if policy.action == Action::Check {
        return look::check(seen, policy);
    }
    if seen.in_own_deploy {
        return Step::Done(Done::InOwnDeploy);
    }
    if let Some(key) = &seen.run.superseded {
        let others = seen.keys.iter().map(|other| &other.id).filter(|other| *other != key);
        return Step::Done(Done::Superseded {
            key: key.clone(),
            others: others.cloned().collect(),
        });
    }
    in_stage(stage::stage(seen, policy), seen, policy)
}

fn in_stage(stage: Stage, seen: &Observed, policy: &Policy) -> Step {
    match stage {
        Stage::Idle(named, due) => idle(named, due, seen, policy),
        Stage::Publishing(new_key, targets) => publishing(new_key, targets, seen, policy),
        Stage::Deploying(Intact::Unasked, ..) | Stage::Retiring(Intact::Unasked, _) => {
            Step::Ask(Query::WhoseSecrets)
        }
        Stage::Deploying(Intact::No(gap), ..) | Stage::Retiring(Intact::No(gap), _) => {
            external::close(gap, seen, policy)
        }
        Stage::Deploying(Intact::Yes, drain, deploys) => retiring::old_pair_given(seen)
            .unwrap_or_else(|| deploying(drain, deploys, seen, policy)),
        Stage::Retiring(Intact::Yes, old) => {
            retiring::old_pair_given(seen).unwrap_or_else(|| retiring::next(old, seen, policy))
        }
    }
}

fn idle(named: Named, due: Due, seen: &Observed, policy: &Policy) -> Step {
    match (named, due) {
        (Named::Unasked, _) => Step::Ask(Query::WhoseSecrets),
        (Named::Hopeless(refusal), _) => Step::Refuse(refusal),
        (Named::Wrong(refusal), _) => external::anew_or(refusal, seen, policy),
        (Named::Nothing, _) if policy.action == Action::Setup => begin(seen),
        (Named::Nothing, _) => Step::Refuse(Refusal::NoVariables),
        (Named::One(key), Due::No { created, due }) => {
            let other = seen.keys.iter().find(|other| other.id != key.id);
            let unexplained = other.map(|other| other.id.clone());
            Step::Done(Done::NotDue { key: key.id, created, due, unexplained })
        }
        (Named::One(key), Due::Yes | Due::Irrelevant) => match policy.action {
            Action::Rotate | Action::Check => begin(seen),
            Action::Retire => Step::Done(Done::NothingToRetire { key: key.id }),
            Action::Setup => Step::Done(Done::AlreadySetUp { key: key.id }),
        },
    }
}

fn publishing(
    new_key: NewKeyState,
    targets: TargetsState,
    seen: &Observed,
    policy: &Policy,
) -> Step {
    use NewKeyState::{
        Abandoned, Disabled, Gone, Never, Ready, SecretUnknown, Several, ToMake, Unverified,
    };
    use TargetsState::{All, ChangedExternally, Partly, Torn, Unasked, Untouched};
    match (new_key, targets) {
        (ToMake, Untouched) => create(seen),
        (ToMake, Unasked | ChangedExternally(_) | Torn(_) | Partly(..) | All) => {
            Step::Record(Checkpoint::Nothing)
        }
        (Never, Unasked | Untouched | ChangedExternally(_) | Torn(_) | Partly(..) | All)
        | (Gone(_), Untouched) => nothing_made(seen),
        (Several(keys), _) => Step::Refuse(Refusal::Several(keys)),
        (
            Gone(_) | Disabled(_) | SecretUnknown(_) | Unverified(_) | Abandoned(_) | Ready(_),
            Unasked,
        ) => Step::Ask(Query::WhoseSecrets),
        (Gone(key), ChangedExternally(_) | Torn(_) | Partly(..) | All) => {
            external::changed(Refusal::NewKeyLost { key, disabled: false }, seen, policy)
        }
        (Disabled(key), ChangedExternally(_) | Torn(_) | Partly(..) | All) => {
            external::anew_or(Refusal::NewKeyLost { key: key.id, disabled: true }, seen, policy)
        }
        (Disabled(key) | SecretUnknown(key), Untouched) => orphan::retire(key, seen),
        (Abandoned(key), Untouched | ChangedExternally(_) | Partly(..)) => {
            orphan::discard(key, seen)
        }
        (SecretUnknown(Key { id, .. }) | Unverified(id) | Ready(id), ChangedExternally(target)) => {
            external::anew_or(Refusal::ChangedExternally { target, new_key: id }, seen, policy)
        }
        (
            SecretUnknown(Key { id, .. }) | Unverified(id) | Abandoned(id) | Ready(id),
            Torn(target),
        ) => Step::WriteId { target, key: id },
        (SecretUnknown(key), Partly(_, target)) => {
            external::anew_or(Refusal::SecretLost { key: key.id, target }, seen, policy)
        }
        (Unverified(key), Untouched | Partly(..) | All) => Step::Verify(key),
        (Ready(key), Untouched) => {
            let target = stage::behind(Some(&key), seen).unwrap_or_default();
            Step::WriteSecret { target, key }
        }
        (Ready(key), Partly(target, _)) => Step::WriteSecret { target, key },
        (SecretUnknown(_) | Abandoned(_) | Ready(_), All) => Step::Record(Checkpoint::Published),
    }
}

fn deploying(drain: Drain, deploys: Deploys, seen: &Observed, policy: &Policy) -> Step {
    match (drain, deploys) {
        (Drain::Republished, _) => Step::Record(Checkpoint::Published),
        (Drain::Unasked, _) => Step::Ask(Query::InFlightJobs),
        (Drain::InFlight(jobs), _) => wait(Waiting::InFlightJobs(jobs), seen),
        (Drain::Drained, _) => Step::Record(Checkpoint::Drained),
        (Drain::Recorded(drained), Deploys::Own) => {
            let until = drained + START_MARGIN + SignedDuration::from_secs(1);
            if seen.now < until {
                Step::Wait(Waiting::Margin { until })
            } else {
                Step::Done(Done::Waiting(Waiting::OwnDeploy))
            }
        }
        (Drain::Recorded(_), Deploys::Unasked) => Step::Ask(Query::Deploys),
        (Drain::Recorded(_), Deploys::Startable(place)) => Step::Record(Checkpoint::Attempt(place)),
        (Drain::Recorded(_), Deploys::Noted(place)) if seen.run.stop_requested => {
            Step::Record(Checkpoint::AttemptWithdrawn(place))
        }
        (Drain::Recorded(_), Deploys::Noted(place)) => Step::StartDeploy(place),
        (Drain::Recorded(_), Deploys::Adoptable(place)) => Step::Record(Checkpoint::Adopted(place)),
        (Drain::Recorded(_), Deploys::NewlyProven) => Step::Record(Checkpoint::Proven),
        (Drain::Recorded(_), Deploys::Running(what))
            if seen.run.waited_out && !policy.leave_deploys =>
        {
            Step::Refuse(Refusal::DeployTimedOut(what))
        }
        (Drain::Recorded(_), Deploys::Running(what)) => {
            left_deploy(seen, policy).unwrap_or_else(|| wait(Waiting::Deploys(what), seen))
        }
        (Drain::Recorded(_), Deploys::Failed(what)) => Step::Refuse(Refusal::DeployFailed(what)),
        (Drain::Recorded(_), Deploys::Unproven(what)) => {
            Step::Refuse(Refusal::DeployUnproven(what))
        }
    }
}

/// A run that waits for no deploy tells what came of the one before, also where it has started
/// another: else each night would be green, and nothing deployed.
fn left_deploy(seen: &Observed, policy: &Policy) -> Option<Step> {
    let LeftDeploys { failed, blocked } = &seen.run.left_deploys;
    match (&failed[..], &blocked[..]) {
        _ if !policy.leave_deploys => None,
        ([], []) => None,
        ([], [_, ..]) => Some(Step::Refuse(Refusal::DeployTimedOut(blocked.clone()))),
        ([_, ..], _) => Some(Step::Refuse(Refusal::DeployFailed(failed.clone()))),
    }
}

/// `CreateAccessKey`, so soon after the list that the record tells of that what appears is ours.
fn create(seen: &Observed) -> Step {
    let recorded = seen.progress().is_some_and(|progress| progress.creating == seen.listed);
    // A list that took so long itself is recorded all the same: whoever records looks at the time
    // that the job has left, so this ends.
    let is_fresh = matches!(seen.run.freshness, Freshness::Fresh | Freshness::Searched);
    let is_new = is_fresh && !recorded;
    if seen.run.stop_requested || seen.run.error_deferred {
        Step::Record(Checkpoint::Nothing)
    } else if seen.run.list_age > LIST_HOLDS && !is_new {
        Step::Observe(Scope::Everything)
    } else if recorded {
        Step::Create
    } else {
        Step::Record(Checkpoint::Begin)
    }
}

/// A new rotation, where there is room for it and nothing speaks against it.
fn begin(seen: &Observed) -> Step {
    if seen.run.attempt != Attempt::No || seen.run.error_deferred {
        return Step::Done(Done::Tried);
    }
    if seen.keys.len() >= 2 {
        return no_slot(seen);
    }
    match &seen.preflight {
        None => Step::Ask(Query::Preflight),
        Some(blockers) if !blockers.is_empty() => {
            Step::Refuse(Refusal::Preflight(blockers.clone()))
        }
        Some(_) => Step::Record(Checkpoint::Begin),
    }
}

/// The user has as many keys as it may.
fn no_slot(seen: &Observed) -> Step {
    let mut named: Vec<AccessKeyId> = Vec::new();
    for id in seen.targets.iter().filter_map(|target| target.id.key()) {
        if !named.contains(id) {
            named.push(id.clone());
        }
    }
    // A key that some target names is not in the way: it is in use there.
    if named.iter().filter(|id| seen.key(id).is_some()).count() > 1 {
        return Step::Refuse(Refusal::Differ(stage::named_by(seen)));
    }
    // The refusal tells when each key that nobody explains was last used.
    let is_unasked = |key: &&Key| key.used.is_none() && !named.contains(&key.id);
    match seen.keys.iter().find(is_unasked) {
        Some(key) => Step::Ask(Query::LastUse(key.id.clone())),
        None => Step::Refuse(Refusal::NoSlot { keys: seen.keys.clone(), named }),
    }
}

/// Until when a list may lag behind a key of the unfinished rotation; `None` where that is over.
fn unsettled(seen: &Observed) -> Option<Timestamp> {
    let progress = seen.progress().filter(|progress| progress.unfinished())?;
    Some(progress.creating + CREATION_WINDOW).filter(|until| seen.now < *until)
}

/// Nothing came of the rotation, unless the key that an earlier run made does not show yet: begun
/// anew, nothing would explain it.
fn nothing_made(seen: &Observed) -> Step {
    // The record of a run that died is not taken over sooner.
    let ended_in_order =
        seen.claim.is_none() && seen.latest_record().is_some_and(|record| record.released);
    match unsettled(seen).filter(|_| ended_in_order) {
        Some(until) => wait(Waiting::Unsettled { until }, seen),
        None => Step::Record(Checkpoint::Nothing),
    }
}

fn wait(what: Waiting, seen: &Observed) -> Step {
    if seen.run.waited_out { Step::Done(Done::Waiting(what)) } else { Step::Wait(what) }
}
