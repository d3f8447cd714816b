//! The plan: what is seen, and the one step that follows from it.
//!
//! Pure: no I/O, no clock, no randomness, no secret. `Observed` says what is there, a `Picture`
//! reduces it to what matters, and one total `match` decides. A row of this table is an arm of
//! [`decide`]; B is the new key of the unfinished rotation.
//!
//! | stage | seen | step | dying right after it leaves | who repairs |
//! | --- | --- | --- | --- | --- |
//! | any | another run is alive and there is something to do | refuse: busy | – | – |
//! | any | something to do, no claim held | claim | a bare record | the next run |
//! | any | claim held, other records left | take their progress over, delete them | two records | the next run |
//! | publishing | nothing was made, or B is gone and every target untouched | take the progress out | nothing | – |
//! | publishing | … but a run that ended in order recorded `creating` within the last two minutes | wait: lists lag | – | – |
//! | publishing | a target holds neither B nor a previous id; B, written somewhere, gone or disabled | refuse (forced: begin anew) | – | a person |
//! | publishing | a torn target: the secret is B's, the id is a previous one | write the id | published pair | rows below |
//! | publishing | B at hand, not verified | verify | an orphan | orphan row |
//! | publishing | B at hand, given up before its secret was sent: named nowhere / somewhere | delete / refuse | nothing | – / a person |
//! | publishing | a target not on B, B's secret at hand | write the secret, then the id; hidden targets last | torn or partly published | this row |
//! | publishing | B not at hand, written nowhere, used by `sts` alone | disable, delete | disabled orphan | this row |
//! | publishing | B not at hand, written nowhere, used by something else or named by another variable | refuse | – | a person |
//! | publishing | a target not on B, B's secret not to be had | refuse (forced: begin anew) | – | a person |
//! | publishing | every target on B | record `published` | two good keys | deploying rows |
//! | deploying | a target not on B, or B not active | refuse (forced: begin anew) | – | a person |
//! | deploying | a job older than the publication still runs / none does | wait, or done / record `drained` | two good keys | this row |
//! | deploying | deploys not all proven / all proven | start or wait / record `deployed` | two good keys | this row |
//! | retiring | overlap not over, or the old key still in use | done: waiting | two good keys | this row |
//! | retiring | the old key was disabled by us and is active again | refuse | – | a person |
//! | retiring | old key active / disabled / grace over / grace not over | disable / record / delete / done: waiting | old key disabled | this row |
//! | retiring | nothing left to do | record `finished` | – | this row |
//! | idle | targets differ, mismatch, name an unknown key, a reference, a path | refuse (forced, where that fixes it: begin) | – | a person |
//! | idle | no variables | `setup`: begin; else refuse | an orphan | orphan row |
//! | idle | the key is due | begin: preflight, progress, create | an orphan | orphan row |
//! | idle | due, but no slot | refuse, naming each key | – | a person |
//! | idle | otherwise | done: not due | – | – |

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::access_key::AccessKeyId;
use crate::access_key::Key;
use crate::access_key::Use;
use crate::config::Action;
use crate::record::{Progress, Published, RecordedDeploy};

mod describe;

/// How long after the list that recorded `creating` a key may have been made by us.
const CREATION_WINDOW: SignedDuration = SignedDuration::from_mins(2);

/// What the configuration asks for, as far as the plan needs it.
#[derive(Clone, Debug)]
pub struct Policy {
    pub action: Action,
    pub rotate_after: SignedDuration,
    pub max_age: SignedDuration,
    pub overlap: SignedDuration,
    pub grace_period: SignedDuration,
    /// The key in use at the end must be younger than this.
    pub forced: Option<Timestamp>,
    /// The deploy is the pipeline's own.
    pub own_deploy: bool,
    /// Deploys are started and left to the next run.
    pub leave_deploys: bool,
}

/// Everything that one look at IAM and GitLab shows: ids, dates and flags, no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// GitLab's clock.
    pub now: Timestamp,
    /// IAM's clock when it listed the keys.
    pub listed: Timestamp,
    pub user: String,
    pub keys: Vec<Key>,
    pub targets: Vec<TargetSeen>,
    /// Where else a key's id stands among the variables that we can read.
    pub other_references: BTreeMap<AccessKeyId, Vec<String>>,
    /// The records of other runs for the same user, and our own released one.
    pub records: Vec<RecordSeen>,
    pub claim: Option<Claim>,
    /// The key that this process has made.
    pub new_key: Option<NewKey>,
    pub attempt: Attempt,
    pub preflight: Option<Vec<String>>,
    /// Whether jobs run that started before the publication.
    pub in_flight_jobs: Option<Vec<String>>,
    pub deploys: Option<Vec<DeploySeen>>,
    /// The time that this run may wait is over.
    pub waited_out: bool,
    /// This run is a job of the deploy that a rotation has started.
    pub in_own_deploy: bool,
}

/// The pair of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSeen {
    pub name: String,
    pub id: IdSeen,
    pub secret: SecretSeen,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdSeen {
    Absent,
    Key(AccessKeyId),
    /// A reference, a path, a hidden value, a session's id: nothing that a rotation may overwrite
    /// unasked.
    Unusable(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSeen {
    Absent,
    Unusable(String),
    Hidden { tag: Option<AccessKeyId> },
    Readable { tag: Option<AccessKeyId>, owner: SecretOwner },
}

/// Whose secret a readable value is, as STS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretOwner {
    NotAsked,
    Key(AccessKeyId),
    /// It works with none of the active keys.
    Nobody,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSeen {
    pub name: String,
    pub at: Timestamp,
    pub released: bool,
    pub alive: bool,
    pub progress: Option<Progress>,
}

/// Our own record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub name: String,
    pub progress: Option<Progress>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    pub key: AccessKeyId,
    pub verified: bool,
    /// An error that nothing fixes came before its secret was sent anywhere: it has to go.
    pub abandoned: bool,
}

/// How far this run has come with a rotation of its own. A run begins at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    No,
    Recorded,
    Tried,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeploySeen {
    /// Nothing is noted; or what was noted came to nothing and this run may start one more.
    Startable,
    Running(String),
    Proven(RecordedDeploy),
    Failed(String),
    Unproven(String),
}

/// What a step has brought into being.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    Key(Key),
    Deploy(RecordedDeploy),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Ask(Query),
    Claim,
    TakeOver,
    Record(Checkpoint),
    Create,
    Verify(AccessKeyId),
    WriteSecret { target: usize, key: AccessKeyId },
    WriteId { target: usize, key: AccessKeyId },
    StartDeploy(usize),
    Wait(Waiting),
    Disable(AccessKeyId, KeyRole),
    Delete(AccessKeyId, KeyRole),
    Done(Done),
    Refuse(Refusal),
}

/// What the plan needs to know and nobody has asked yet. None has an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    WhoseSecrets,
    LastUse(AccessKeyId),
    Preflight,
    InFlightJobs,
    Deploys,
}

/// What our record is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    Begin,
    Nothing,
    Published,
    Drained,
    Proven,
    Disabled,
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRole {
    Old,
    /// Made by a run that died before its secret was written anywhere, or never verified.
    Orphan,
}

/// What a rotation waits for. `OwnDeploy`: the pipeline's own, which `retire` proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// An earlier run may have made a key that IAM's list does not show yet.
    Unsettled {
        until: Timestamp,
    },
    InFlightJobs(Vec<String>),
    Deploys(Vec<String>),
    OwnDeploy,
    Overlap {
        old: AccessKeyId,
        until: Timestamp,
    },
    StillUsed {
        old: AccessKeyId,
        last: Timestamp,
        service: String,
    },
    Grace {
        old: AccessKeyId,
        until: Timestamp,
    },
}

/// Why there is nothing to do now. `Tried`: this run has tried its one rotation; `Checked` tells
/// what `rotate` would do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    NotDue {
        key: AccessKeyId,
        created: Timestamp,
        due: Timestamp,
        unexplained: Option<AccessKeyId>,
    },
    Waiting(Waiting),
    Tried,
    InOwnDeploy,
    NothingToRetire {
        key: AccessKeyId,
    },
    AlreadySetUp {
        key: AccessKeyId,
    },
    Checked {
        key: Option<AccessKeyId>,
        next: String,
    },
}

/// Why a run goes no further; the text and the hint are `Error`'s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Busy,
    NoVariables,
    PartMissing { target: String, missing_secret: bool },
    Differ(Vec<(String, Option<AccessKeyId>)>),
    Mismatch { target: String, id: AccessKeyId, tag: AccessKeyId },
    Unknown { target: String, key: AccessKeyId },
    Unusable { target: String, why: String },
    NoSlot { keys: Vec<Key>, named: Option<AccessKeyId> },
    Preflight(Vec<String>),
    Several(Vec<AccessKeyId>),
    ChangedExternally { target: String, new_key: AccessKeyId },
    NewKeyLost { key: AccessKeyId, disabled: bool },
    SecretLost { key: AccessKeyId, target: String },
    KeyCompromised { key: AccessKeyId, service: String },
    NotPublishedAnyMore { key: AccessKeyId, target: String },
    EnabledAgain { key: AccessKeyId },
    StillNamed { key: AccessKeyId, places: Vec<String> },
    TooOld { key: AccessKeyId, created: Timestamp },
    DeployFailed(Vec<String>),
    DeployUnproven(Vec<String>),
    DeployTimedOut(Vec<String>),
}

/// The one step that follows from what is seen.
pub fn plan(seen: &Observed, policy: &Policy) -> Step {
    if policy.action == Action::Check {
        return check(seen, policy);
    }
    if seen.in_own_deploy {
        return Step::Done(Done::InOwnDeploy);
    }
    let step = decide(stage(seen, policy), seen, policy);
    let others_alive = seen.records.iter().any(|record| record.alive && !record.released);
    match (&seen.claim, step) {
        // While another run is at work, what looks like a person's act may be half of its step.
        (None, step)
            if others_alive
                && (step.has_effect()
                    || matches!(&step, Step::Refuse(refusal) if refusal.needs_confirmation())) =>
        {
            Step::Refuse(Refusal::Busy)
        }
        (None, step) if step.has_effect() => Step::Claim,
        // A run that has announced itself since sees our record and withdraws.
        (Some(_), step) if step.has_effect() && seen.records.iter().any(RecordSeen::is_over) => {
            Step::TakeOver
        }
        (_, step) => step,
    }
}

/// The stage of a rotation, and what matters in it.
enum Stage {
    Idle(Named, Due),
    Publishing(NewKeyState, TargetsState),
    Deploying(Intact, Drained, Deploys),
    Retiring(Intact, Old),
}

/// What the targets name while no rotation is under way.
enum Named {
    Nothing,
    One(Key),
    /// Force fixes it.
    Wrong(Refusal),
    /// Nothing but a person fixes it.
    Hopeless(Refusal),
    Unasked,
}

enum Due {
    Yes,
    No { created: Timestamp, due: Timestamp },
    Irrelevant,
}

/// What became of the key of the unfinished rotation.
enum NewKeyState {
    ToMake,
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

/// How far the targets have come.
enum TargetsState {
    Unasked,
    ChangedExternally(String),
    Torn(usize),
    Untouched,
    /// At least one is on the new key, this one is not.
    Partly(usize, String),
    All,
}

/// Whether every target is on the published key and that key works.
enum Intact {
    Yes,
    Unasked,
    No(Refusal),
}

enum Drained {
    Unasked,
    InFlight(Vec<String>),
    Silent,
    Recorded,
}

enum Deploys {
    Own,
    Unasked,
    Startable(usize),
    NewlyProven,
    Running(Vec<String>),
    Failed(Vec<String>),
    Unproven(Vec<String>),
}

/// What became of the old keys; of several, the next one to act on.
enum Old {
    Gone,
    Waiting(Waiting),
    UnaskedUse(AccessKeyId),
    EnabledAgain(AccessKeyId),
    Named(AccessKeyId, Vec<String>),
    Active(AccessKeyId),
    JustDisabled,
    GraceOver(AccessKeyId),
}

fn decide(stage: Stage, seen: &Observed, policy: &Policy) -> Step {
    use Stage::{Deploying, Idle, Publishing, Retiring};
    match stage {
        Publishing(NewKeyState::ToMake, TargetsState::Untouched) => Step::Create,
        Publishing(
            NewKeyState::ToMake,
            TargetsState::Unasked
            | TargetsState::ChangedExternally(_)
            | TargetsState::Torn(_)
            | TargetsState::Partly(..)
            | TargetsState::All,
        ) => Step::Record(Checkpoint::Nothing),
        Publishing(
            NewKeyState::Never,
            TargetsState::Unasked
            | TargetsState::Untouched
            | TargetsState::ChangedExternally(_)
            | TargetsState::Torn(_)
            | TargetsState::Partly(..)
            | TargetsState::All,
        ) => nothing_made(seen),
        Publishing(NewKeyState::Several(keys), _) => Step::Refuse(Refusal::Several(keys)),
        Publishing(
            NewKeyState::Gone(_)
            | NewKeyState::Disabled(_)
            | NewKeyState::SecretUnknown(_)
            | NewKeyState::Unverified(_)
            | NewKeyState::Abandoned(_)
            | NewKeyState::Ready(_),
            TargetsState::Unasked,
        ) => Step::Ask(Query::WhoseSecrets),

        Publishing(NewKeyState::Gone(_), TargetsState::Untouched) => nothing_made(seen),
        Publishing(
            NewKeyState::Gone(key),
            TargetsState::ChangedExternally(_)
            | TargetsState::Torn(_)
            | TargetsState::Partly(..)
            | TargetsState::All,
        ) => anew_or(Refusal::NewKeyLost { key, disabled: false }, seen, policy),
        Publishing(NewKeyState::Disabled(key), TargetsState::Untouched) => orphan(key, seen),
        Publishing(
            NewKeyState::Disabled(key),
            TargetsState::ChangedExternally(_)
            | TargetsState::Torn(_)
            | TargetsState::Partly(..)
            | TargetsState::All,
        ) => anew_or(Refusal::NewKeyLost { key: key.id, disabled: true }, seen, policy),
        Publishing(
            NewKeyState::Abandoned(key),
            TargetsState::Untouched | TargetsState::ChangedExternally(_) | TargetsState::Partly(..),
        ) => discard(key, seen),
        Publishing(
            NewKeyState::SecretUnknown(Key { id, .. })
            | NewKeyState::Unverified(id)
            | NewKeyState::Ready(id),
            TargetsState::ChangedExternally(target),
        ) => anew_or(Refusal::ChangedExternally { target, new_key: id }, seen, policy),
        Publishing(
            NewKeyState::SecretUnknown(Key { id, .. })
            | NewKeyState::Unverified(id)
            | NewKeyState::Abandoned(id)
            | NewKeyState::Ready(id),
            TargetsState::Torn(target),
        ) => Step::WriteId { target, key: id },
        Publishing(NewKeyState::SecretUnknown(key), TargetsState::Untouched) => orphan(key, seen),
        Publishing(NewKeyState::SecretUnknown(key), TargetsState::Partly(_, target)) => {
            anew_or(Refusal::SecretLost { key: key.id, target }, seen, policy)
        }
        Publishing(
            NewKeyState::Unverified(key),
            TargetsState::Untouched | TargetsState::Partly(..) | TargetsState::All,
        ) => Step::Verify(key),
        Publishing(NewKeyState::Ready(key), TargetsState::Untouched) => {
            Step::WriteSecret { target: behind(Some(&key), seen).unwrap_or_default(), key }
        }
        Publishing(NewKeyState::Ready(key), TargetsState::Partly(target, _)) => {
            Step::WriteSecret { target, key }
        }
        Publishing(
            NewKeyState::SecretUnknown(_) | NewKeyState::Abandoned(_) | NewKeyState::Ready(_),
            TargetsState::All,
        ) => Step::Record(Checkpoint::Published),

        Deploying(Intact::Unasked, ..) | Retiring(Intact::Unasked, _) => {
            Step::Ask(Query::WhoseSecrets)
        }
        Deploying(Intact::No(refusal), ..) | Retiring(Intact::No(refusal), _) => {
            anew_or(refusal, seen, policy)
        }
        Deploying(Intact::Yes, Drained::Unasked, _) => Step::Ask(Query::InFlightJobs),
        Deploying(Intact::Yes, Drained::InFlight(jobs), _) => {
            wait(Waiting::InFlightJobs(jobs), seen)
        }
        Deploying(Intact::Yes, Drained::Silent, _) => Step::Record(Checkpoint::Drained),
        Deploying(Intact::Yes, Drained::Recorded, Deploys::Own) => {
            Step::Done(Done::Waiting(Waiting::OwnDeploy))
        }
        Deploying(Intact::Yes, Drained::Recorded, Deploys::Unasked) => Step::Ask(Query::Deploys),
        Deploying(Intact::Yes, Drained::Recorded, Deploys::Startable(place)) => {
            Step::StartDeploy(place)
        }
        Deploying(Intact::Yes, Drained::Recorded, Deploys::NewlyProven) => {
            Step::Record(Checkpoint::Proven)
        }
        Deploying(Intact::Yes, Drained::Recorded, Deploys::Running(what))
            if seen.waited_out && !policy.leave_deploys =>
        {
            Step::Refuse(Refusal::DeployTimedOut(what))
        }
        Deploying(Intact::Yes, Drained::Recorded, Deploys::Running(what)) => {
            wait(Waiting::Deploys(what), seen)
        }
        Deploying(Intact::Yes, Drained::Recorded, Deploys::Failed(what)) => {
            Step::Refuse(Refusal::DeployFailed(what))
        }
        Deploying(Intact::Yes, Drained::Recorded, Deploys::Unproven(what)) => {
            Step::Refuse(Refusal::DeployUnproven(what))
        }

        Retiring(Intact::Yes, Old::Gone) => Step::Record(Checkpoint::Finished),
        Retiring(Intact::Yes, Old::Waiting(what)) => Step::Done(Done::Waiting(what)),
        Retiring(Intact::Yes, Old::UnaskedUse(key)) => Step::Ask(Query::LastUse(key)),
        Retiring(Intact::Yes, Old::EnabledAgain(key)) => {
            Step::Refuse(Refusal::EnabledAgain { key })
        }
        Retiring(Intact::Yes, Old::Named(key, places)) => {
            Step::Refuse(Refusal::StillNamed { key, places })
        }
        Retiring(Intact::Yes, Old::Active(key)) => Step::Disable(key, KeyRole::Old),
        Retiring(Intact::Yes, Old::JustDisabled) => Step::Record(Checkpoint::Disabled),
        Retiring(Intact::Yes, Old::GraceOver(key)) => Step::Delete(key, KeyRole::Old),

        Idle(Named::Unasked, _) => Step::Ask(Query::WhoseSecrets),
        Idle(Named::Hopeless(refusal), _) => Step::Refuse(refusal),
        Idle(Named::Wrong(refusal), _) => anew_or(refusal, seen, policy),
        Idle(Named::Nothing, _) if policy.action == Action::Setup => begin(seen, policy),
        Idle(Named::Nothing, _) => Step::Refuse(Refusal::NoVariables),
        Idle(Named::One(key), Due::No { created, due }) => {
            let unexplained =
                seen.keys.iter().find(|other| other.id != key.id).map(|other| other.id.clone());
            Step::Done(Done::NotDue { key: key.id, created, due, unexplained })
        }
        Idle(Named::One(key), Due::Yes | Due::Irrelevant) => match policy.action {
            Action::Rotate | Action::Check => begin(seen, policy),
            Action::Retire => Step::Done(Done::NothingToRetire { key: key.id }),
            Action::Setup => Step::Done(Done::AlreadySetUp { key: key.id }),
        },
    }
}

/// A new rotation, where there is room for it and nothing speaks against it.
fn begin(seen: &Observed, policy: &Policy) -> Step {
    let named = seen.targets.iter().find_map(|target| target.id.key()).cloned();
    if seen.attempt != Attempt::No {
        return Step::Done(Done::Tried);
    }
    if seen.keys.len() >= 2 {
        // A key that some target names is not in the way: it is in use there.
        if seen.targets.iter().any(|target| {
            target.id.key().is_some_and(|id| named.as_ref() != Some(id) && seen.key(id).is_some())
        }) {
            return Step::Refuse(Refusal::Differ(named_by(seen)));
        }
        // The refusal tells when each key that nobody explains was last used.
        let unasked =
            seen.keys.iter().find(|key| key.used.is_none() && named.as_ref() != Some(&key.id));
        if let Some(key) = unasked {
            return Step::Ask(Query::LastUse(key.id.clone()));
        }
        return Step::Refuse(Refusal::NoSlot { keys: seen.keys.clone(), named });
    }
    match &seen.preflight {
        // `check` would only say that a rotation is due: what else it finds, the rotation finds
        // too, before anything is written.
        None if policy.action == Action::Check => Step::Record(Checkpoint::Begin),
        None => Step::Ask(Query::Preflight),
        Some(findings) if !findings.is_empty() => {
            Step::Refuse(Refusal::Preflight(findings.clone()))
        }
        Some(_) => Step::Record(Checkpoint::Begin),
    }
}

/// Whether a list may still lag behind a key of the unfinished rotation.
fn is_young(seen: &Observed) -> bool {
    seen.progress().is_some_and(|progress| {
        progress.unfinished() && seen.now < progress.creating + CREATION_WINDOW
    })
}

/// Nothing came of the rotation, unless the key that an earlier run made does not show yet: begun
/// anew, nothing would explain it.
fn nothing_made(seen: &Observed) -> Step {
    let until = seen.progress().map_or(seen.now, |progress| progress.creating + CREATION_WINDOW);
    // The record of a run that died is not taken over sooner.
    let ended_in_order =
        seen.claim.is_none() && seen.latest_record().is_some_and(|record| record.released);
    if is_young(seen) && ended_in_order {
        wait(Waiting::Unsettled { until }, seen)
    } else {
        Step::Record(Checkpoint::Nothing)
    }
}

/// A refusal that blames a person; a forced run begins anew instead.
fn anew_or(refusal: Refusal, seen: &Observed, policy: &Policy) -> Step {
    // Begun anew, the rotation of a key that is made but not seen would be forgotten.
    let only_unseen =
        is_young(seen) && matches!(refusal, Refusal::NewKeyLost { disabled: false, .. });
    match (policy.forced, policy.action) {
        (Some(_), Action::Rotate) if seen.attempt == Attempt::No && !only_unseen => {
            begin(seen, policy)
        }
        (Some(_) | None, Action::Rotate | Action::Retire | Action::Setup | Action::Check) => {
            Step::Refuse(refusal)
        }
    }
}

/// A key that a dead run made and whose secret is lost: only our own verification (`sts`) may have
/// used it.
fn orphan(key: Key, seen: &Observed) -> Step {
    let places = places_of(&key.id, seen);
    match key.used {
        _ if !places.is_empty() => Step::Refuse(Refusal::StillNamed { key: key.id, places }),
        None => Step::Ask(Query::LastUse(key.id)),
        Some(Use::At { service, .. }) if service != "sts" => {
            Step::Refuse(Refusal::KeyCompromised { key: key.id, service })
        }
        Some(Use::Never | Use::At { .. }) if key.active => Step::Disable(key.id, KeyRole::Orphan),
        Some(Use::Never | Use::At { .. }) => Step::Delete(key.id, KeyRole::Orphan),
    }
}

/// The key that this process has made for nothing; unless, meanwhile, a variable names it all the
/// same.
fn discard(key: AccessKeyId, seen: &Observed) -> Step {
    let places = places_of(&key, seen);
    if places.is_empty() {
        Step::Delete(key, KeyRole::Orphan)
    } else {
        Step::Refuse(Refusal::StillNamed { key, places })
    }
}

/// Every place that names the key or holds its secret, as far as we can see.
fn places_of(key: &AccessKeyId, seen: &Observed) -> Vec<String> {
    let targets = seen
        .targets
        .iter()
        .filter(|target| target.id.key() == Some(key) || target.secret.is_of(key));
    targets
        .map(|target| target.name.clone())
        .chain(seen.other_references.get(key).cloned().unwrap_or_default())
        .collect()
}

fn wait(what: Waiting, seen: &Observed) -> Step {
    if seen.waited_out { Step::Done(Done::Waiting(what)) } else { Step::Wait(what) }
}

/// `check` reads only: refused where `rotate` would refuse or the key is too old, else done with
/// what `rotate` would do next.
fn check(seen: &Observed, policy: &Policy) -> Step {
    let step = decide(stage(seen, policy), seen, policy);
    let named = seen.targets.iter().find_map(|target| target.id.key());
    let key = named.and_then(|id| seen.key(id));
    match step {
        Step::Refuse(_)
        | Step::Ask(
            Query::WhoseSecrets | Query::LastUse(_) | Query::InFlightJobs | Query::Deploys,
        ) => step,
        step => match key {
            Some(key) if key.created + policy.max_age <= seen.now => {
                Step::Refuse(Refusal::TooOld { key: key.id.clone(), created: key.created })
            }
            Some(_) | None => {
                Step::Done(Done::Checked { key: named.cloned(), next: step.to_string() })
            }
        },
    }
}

fn stage(seen: &Observed, policy: &Policy) -> Stage {
    let Some(progress) = seen.progress().filter(|progress| progress.unfinished()) else {
        let named = named(seen);
        let due = due(&named, seen, policy);
        return Stage::Idle(named, due);
    };
    let new_key_state = new_key_state(progress, seen);
    let held = held(progress, new_key_state.key(), seen);
    let Some(published) = &progress.published else {
        return Stage::Publishing(new_key_state, held);
    };
    let intact = match (&new_key_state, held) {
        (NewKeyState::Gone(key), _) => {
            Intact::No(Refusal::NewKeyLost { key: key.clone(), disabled: false })
        }
        (NewKeyState::Disabled(key), _) => {
            Intact::No(Refusal::NewKeyLost { key: key.id.clone(), disabled: true })
        }
        (_, TargetsState::Unasked) => Intact::Unasked,
        (_, TargetsState::All) => Intact::Yes,
        (
            _,
            TargetsState::ChangedExternally(_)
            | TargetsState::Torn(_)
            | TargetsState::Untouched
            | TargetsState::Partly(..),
        ) => {
            let target = seen.targets.iter().find(|target| !target.is_on(&published.key));
            let target = target.map(|target| target.name.clone()).unwrap_or_default();
            Intact::No(Refusal::NotPublishedAnyMore { key: published.key.clone(), target })
        }
    };
    match progress.deployed {
        Some(deployed) => Stage::Retiring(intact, old(progress, deployed, seen, policy)),
        None => Stage::Deploying(intact, drained(progress, seen), deploys(seen, policy)),
    }
}

fn named(seen: &Observed) -> Named {
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
    for target in &seen.targets {
        let mismatch = |tag: &AccessKeyId| {
            Named::Wrong(Refusal::Mismatch {
                target: target.name.clone(),
                id: id.clone(),
                tag: tag.clone(),
            })
        };
        match &target.secret {
            SecretSeen::Absent => {
                return Named::Wrong(Refusal::PartMissing {
                    target: target.name.clone(),
                    missing_secret: true,
                });
            }
            SecretSeen::Hidden { tag: Some(tag) } if tag != id => return mismatch(tag),
            SecretSeen::Readable { tag: Some(tag), owner: SecretOwner::NotAsked }
                if tag != id && seen.key(id).is_some() =>
            {
                return Named::Unasked;
            }
            SecretSeen::Readable { tag: Some(tag), owner }
                if tag != id && *owner != SecretOwner::Key(id.clone()) =>
            {
                return mismatch(tag);
            }
            SecretSeen::Hidden { .. } | SecretSeen::Readable { .. } | SecretSeen::Unusable(_) => {}
        }
    }
    match seen.key(id) {
        Some(key) => Named::One(key.clone()),
        None => {
            Named::Wrong(Refusal::Unknown { target: seen.targets[0].name.clone(), key: id.clone() })
        }
    }
}

fn named_by(seen: &Observed) -> Vec<(String, Option<AccessKeyId>)> {
    seen.targets.iter().map(|target| (target.name.clone(), target.id.key().cloned())).collect()
}

fn due(named: &Named, seen: &Observed, policy: &Policy) -> Due {
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

fn new_key_state(progress: &Progress, seen: &Observed) -> NewKeyState {
    let new = |id: &&AccessKeyId| !progress.from.contains(id);
    let mut tags: Vec<&AccessKeyId> =
        seen.targets.iter().filter_map(|target| target.secret.tag()).filter(new).collect();
    tags.sort();
    tags.dedup();
    let window = progress.creating.as_second()..=(progress.creating + CREATION_WINDOW).as_second();
    let born = |key: &&Key| window.contains(&key.created.as_second()) && new(&&key.id);
    let id = if let Some(published) = &progress.published {
        published.key.clone()
    } else if let Some(new_key) = &seen.new_key {
        new_key.key.clone()
    } else if let [tag] = tags[..] {
        tag.clone()
    } else if !tags.is_empty() {
        return NewKeyState::Several(tags.into_iter().cloned().collect());
    } else {
        match &seen.keys.iter().filter(born).collect::<Vec<_>>()[..] {
            [] if seen.attempt == Attempt::Recorded && seen.keys.len() < 2 => {
                return NewKeyState::ToMake;
            }
            // This run has sent nothing: whatever key is new is a person's, and is to be recorded
            // as such.
            _ if seen.attempt == Attempt::Recorded => return NewKeyState::Never,
            [] => return NewKeyState::Never,
            [key] => key.id.clone(),
            several => {
                return NewKeyState::Several(several.iter().map(|key| key.id.clone()).collect());
            }
        }
    };
    let Some(key) = seen.key(&id) else { return NewKeyState::Gone(id) };
    let readable = seen.targets.iter().any(|target| matches!(&target.secret, SecretSeen::Readable { owner: SecretOwner::Key(owner), .. } if *owner == id));
    match seen.new_key.as_ref().filter(|new_key| new_key.key == id) {
        _ if !key.active => NewKeyState::Disabled(key.clone()),
        Some(new_key) if new_key.abandoned => NewKeyState::Abandoned(id),
        Some(new_key) if !new_key.verified => NewKeyState::Unverified(id),
        Some(_) => NewKeyState::Ready(id),
        None if readable => NewKeyState::Ready(id),
        None => NewKeyState::SecretUnknown(key.clone()),
    }
}

impl NewKeyState {
    fn key(&self) -> Option<&AccessKeyId> {
        match self {
            Self::ToMake | Self::Never | Self::Several(_) => None,
            Self::Gone(id) | Self::Unverified(id) | Self::Abandoned(id) | Self::Ready(id) => {
                Some(id)
            }
            Self::Disabled(key) | Self::SecretUnknown(key) => Some(&key.id),
        }
    }
}

fn held(progress: &Progress, new_key_state: Option<&AccessKeyId>, seen: &Observed) -> TargetsState {
    let unasked = |target: &TargetSeen| {
        matches!(target.secret, SecretSeen::Readable { owner: SecretOwner::NotAsked, .. })
    };
    if new_key_state.is_some() && seen.targets.iter().any(unasked) {
        return TargetsState::Unasked;
    }
    let previous = |target: &TargetSeen| match &target.id {
        IdSeen::Absent => progress.previous.contains(&None),
        IdSeen::Key(id) => progress.previous.iter().flatten().any(|previous| previous == id),
        IdSeen::Unusable(_) => false,
    };
    let named = |target: &TargetSeen| new_key_state.is_some() && target.id.key() == new_key_state;
    let secret = |target: &TargetSeen| {
        new_key_state.is_some_and(|new_key_state| target.secret.is_of(new_key_state))
    };
    if let Some(target) = seen.targets.iter().find(|target| !previous(target) && !named(target)) {
        return TargetsState::ChangedExternally(target.name.clone());
    }
    if let Some(torn) = seen.targets.iter().position(|target| secret(target) && !named(target)) {
        return TargetsState::Torn(torn);
    }
    let Some(behind) = behind(new_key_state, seen) else { return TargetsState::All };
    if seen.targets.iter().any(|target| secret(target) || named(target)) {
        return TargetsState::Partly(behind, seen.targets[behind].name.clone());
    }
    TargetsState::Untouched
}

/// The next target to be put on the key. Hidden ones come last: a run that dies in between leaves
/// the secret where the next one can read it.
fn behind(key: Option<&AccessKeyId>, seen: &Observed) -> Option<usize> {
    let behind = || {
        seen.targets
            .iter()
            .enumerate()
            .filter(|(_, target)| !key.is_some_and(|key| target.is_on(key)))
    };
    let readable = behind().find(|(_, target)| !matches!(target.secret, SecretSeen::Hidden { .. }));
    readable.or_else(|| behind().next()).map(|(index, _)| index)
}

fn drained(progress: &Progress, seen: &Observed) -> Drained {
    match (&progress.drained, &seen.in_flight_jobs) {
        (Some(_), _) => Drained::Recorded,
        (None, None) => Drained::Unasked,
        (None, Some(jobs)) if jobs.is_empty() => Drained::Silent,
        (None, Some(jobs)) => Drained::InFlight(jobs.clone()),
    }
}

fn deploys(seen: &Observed, policy: &Policy) -> Deploys {
    if policy.own_deploy && policy.action != Action::Retire {
        return Deploys::Own;
    }
    let Some(deploys) = &seen.deploys else { return Deploys::Unasked };
    let (mut running, mut failed, mut unproven, mut newly_proven) =
        (Vec::new(), Vec::new(), Vec::new(), false);
    for (place, deploy) in deploys.iter().enumerate() {
        match deploy {
            DeploySeen::Startable => return Deploys::Startable(place),
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

fn old(progress: &Progress, deployed: Timestamp, seen: &Observed, policy: &Policy) -> Old {
    let olds: Vec<&Key> = seen.keys.iter().filter(|key| progress.is_old(&key.id)).collect();
    let Some(next) = olds.iter().find(|key| key.active).or_else(|| olds.first()) else {
        return Old::Gone;
    };
    let id = next.id.clone();
    let patient = policy.forced.is_none();
    let named = seen.other_references.get(&id).cloned();
    match (next.active, progress.disabled) {
        (true, Some(_)) => Old::EnabledAgain(id),
        (true, None) if patient && !policy.overlap.is_zero() => {
            let until = deployed + policy.overlap;
            match &next.used {
                _ if until > seen.now => Old::Waiting(Waiting::Overlap { old: id, until }),
                None => Old::UnaskedUse(id),
                Some(Use::At { when, service }) if *when > deployed => {
                    Old::Waiting(Waiting::StillUsed {
                        old: id,
                        last: *when,
                        service: service.clone(),
                    })
                }
                Some(Use::Never | Use::At { .. }) => named.map_or_else(
                    || Old::Active(id.clone()),
                    |places| Old::Named(id.clone(), places),
                ),
            }
        }
        (true, None) => {
            named.map_or_else(|| Old::Active(id.clone()), |places| Old::Named(id.clone(), places))
        }
        (false, None) => Old::JustDisabled,
        (false, Some(disabled)) if patient && disabled + policy.grace_period > seen.now => {
            Old::Waiting(Waiting::Grace { old: id, until: disabled + policy.grace_period })
        }
        (false, Some(_)) => named
            .map_or_else(|| Old::GraceOver(id.clone()), |places| Old::Named(id.clone(), places)),
    }
}

impl Progress {
    /// Whether this key is one that the rotation retires.
    pub fn is_old(&self, id: &AccessKeyId) -> bool {
        let published = self.published.as_ref().is_some_and(|published| published.key == *id);
        !published && self.previous.iter().flatten().any(|previous| previous == id)
    }

    /// The progress after a note.
    pub fn recorded(seen: &Observed, checkpoint: Checkpoint) -> Option<Self> {
        let progress = seen.progress().cloned();
        let now = seen.now;
        match checkpoint {
            Checkpoint::Nothing => None,
            Checkpoint::Begin => {
                let mut from: Vec<AccessKeyId> = seen.keys.iter().map(|key| key.id.clone()).collect();
                from.extend(seen.targets.iter().filter_map(|target| target.secret.tag().cloned()));
                let mut previous: Vec<Option<AccessKeyId>> = progress.filter(Self::unfinished).map(|progress| progress.previous).unwrap_or_default();
                previous.extend(seen.targets.iter().map(|target| target.id.key().cloned()));
                previous.sort();
                previous.dedup();
                from.sort();
                from.dedup();
                Some(Self { from, creating: seen.listed, previous, ..Self::default() })
            }
            Checkpoint::Published => progress.map(|progress| {
                let key = seen.targets.first().and_then(|target| target.id.key()).cloned();
                Self { published: key.map(|key| Published { key, at: now }), ..progress }
            }),
            Checkpoint::Drained => progress.map(|progress| Self { drained: Some(now), ..progress }),
            Checkpoint::Proven => progress.map(|progress| {
                let seen_deploys = seen.deploys.as_deref().unwrap_or_default();
                let deploys = progress.deploys.into_iter().map(|recorded| {
                    let proven = seen_deploys.iter().any(|seen| matches!(seen, DeploySeen::Proven(proven) if proven.place == recorded.place));
                    RecordedDeploy { proven: recorded.proven.or_else(|| proven.then_some(now)), ..recorded }
                });
                let all = seen_deploys.iter().all(|deploy| matches!(deploy, DeploySeen::Proven(_)));
                Self { deploys: deploys.collect(), deployed: all.then_some(now), ..progress }
            }),
            Checkpoint::Disabled => progress.map(|progress| Self { disabled: Some(now), ..progress }),
            Checkpoint::Finished => progress.map(|progress| Self { finished: Some(now), ..progress }),
        }
    }
}

impl Observed {
    pub fn key(&self, id: &AccessKeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == *id)
    }

    /// The progress of the rotation: our own once they are there, else those of the latest record
    /// that has them.
    pub fn progress(&self) -> Option<&Progress> {
        let own = self.claim.as_ref().and_then(|claim| claim.progress.as_ref());
        own.or_else(|| self.latest_record().and_then(|record| record.progress.as_ref()))
    }

    fn latest_record(&self) -> Option<&RecordSeen> {
        self.records
            .iter()
            .filter(|record| record.progress.is_some())
            .max_by_key(|record| record.at)
    }

    /// How a step that succeeded changes what is seen. `made` is what a `Create` or a `StartDeploy`
    /// has brought; questions and waits are answered by looking, not here.
    pub fn apply(&mut self, step: &Step, made: Option<Made>) {
        match step {
            Step::Ask(_) | Step::Wait(_) | Step::Done(_) | Step::Refuse(_) => {}
            // The name of the record is chosen by the loop, which observes everything again after
            // a claim.
            Step::Claim => self.claim = Some(Claim { name: String::new(), progress: None }),
            Step::TakeOver => {
                let progress = self.progress().filter(|progress| progress.unfinished()).cloned();
                if let Some(claim) = &mut self.claim {
                    claim.progress = progress;
                }
                self.records.retain(|record| !record.is_over());
            }
            Step::Record(checkpoint) => self.apply_checkpoint(*checkpoint),
            Step::Create => {
                self.attempt = Attempt::Tried;
                // What was readable before the key was made cannot be its secret.
                for target in &mut self.targets {
                    if let SecretSeen::Readable { owner: owner @ SecretOwner::NotAsked, .. } =
                        &mut target.secret
                    {
                        *owner = SecretOwner::Nobody;
                    }
                }
                if let Some(Made::Key(key)) = made {
                    self.new_key =
                        Some(NewKey { key: key.id.clone(), verified: false, abandoned: false });
                    self.keys.push(key);
                }
            }
            Step::Verify(_) => {
                if let Some(new_key) = &mut self.new_key {
                    new_key.verified = true;
                }
            }
            Step::WriteSecret { target, key } => {
                let secret = &mut self.targets[*target].secret;
                let hidden = matches!(secret, SecretSeen::Hidden { .. });
                let (tag, owner) = (Some(key.clone()), SecretOwner::Key(key.clone()));
                *secret = if hidden {
                    SecretSeen::Hidden { tag }
                } else {
                    SecretSeen::Readable { tag, owner }
                };
            }
            Step::WriteId { target, key } => self.targets[*target].id = IdSeen::Key(key.clone()),
            Step::StartDeploy(_) => {
                self.deploys = None;
                if let (Some(Made::Deploy(recorded)), Some(progress)) =
                    (made, self.claim.as_mut().and_then(|claim| claim.progress.as_mut()))
                {
                    progress.deploys.retain(|other| other.place != recorded.place);
                    progress.deploys.push(recorded);
                }
            }
            Step::Disable(id, _) => {
                if let Some(key) = self.keys.iter_mut().find(|key| key.id == *id) {
                    key.active = false;
                }
            }
            Step::Delete(id, _) => {
                self.keys.retain(|key| key.id != *id);
                if self.new_key.as_ref().is_some_and(|new_key| new_key.key == *id) {
                    self.new_key = None;
                }
            }
        }
    }

    fn apply_checkpoint(&mut self, checkpoint: Checkpoint) {
        let progress = Progress::recorded(self, checkpoint);
        match checkpoint {
            Checkpoint::Begin => self.attempt = Attempt::Recorded,
            Checkpoint::Published => self.in_flight_jobs = None,
            Checkpoint::Drained | Checkpoint::Proven => self.deploys = None,
            // Recorded and not tried: it may begin again.
            Checkpoint::Nothing if self.attempt == Attempt::Recorded => self.attempt = Attempt::No,
            Checkpoint::Nothing | Checkpoint::Disabled | Checkpoint::Finished => {}
        }
        let Some(claim) = &mut self.claim else { return };
        claim.progress = progress;
        if checkpoint == Checkpoint::Finished {
            // The last write of a rotation releases its record.
            let (name, progress) = (std::mem::take(&mut claim.name), claim.progress.take());
            self.claim = None;
            self.new_key = None;
            self.records.push(RecordSeen {
                name,
                at: self.now,
                released: true,
                alive: false,
                progress,
            });
        }
    }
}

impl RecordSeen {
    /// Whether its run has ended, in order or not.
    pub fn is_over(&self) -> bool {
        self.released || !self.alive
    }
}

impl TargetSeen {
    pub fn is_on(&self, key: &AccessKeyId) -> bool {
        self.id.key() == Some(key) && self.secret.is_of(key)
    }
}

impl IdSeen {
    pub fn key(&self) -> Option<&AccessKeyId> {
        match self {
            Self::Key(id) => Some(id),
            Self::Absent | Self::Unusable(_) => None,
        }
    }
}

impl SecretSeen {
    pub fn tag(&self) -> Option<&AccessKeyId> {
        match self {
            Self::Hidden { tag } | Self::Readable { tag, .. } => tag.as_ref(),
            Self::Absent | Self::Unusable(_) => None,
        }
    }

    /// Whatever works with a key is that key's; a hidden value, and one that works with no active
    /// key, is the key's if its tag says so.
    fn is_of(&self, key: &AccessKeyId) -> bool {
        match self {
            Self::Absent | Self::Unusable(_) => false,
            Self::Hidden { tag }
            | Self::Readable { tag, owner: SecretOwner::Nobody | SecretOwner::NotAsked } => {
                tag.as_ref() == Some(key)
            }
            Self::Readable { owner: SecretOwner::Key(owner), .. } => owner == key,
        }
    }
}

impl Step {
    /// Whether it changes anything outside; those steps need the claim.
    pub fn has_effect(&self) -> bool {
        match self {
            Self::Record(_)
            | Self::Create
            | Self::Verify(_)
            | Self::WriteSecret { .. }
            | Self::WriteId { .. }
            | Self::StartDeploy(_)
            | Self::Disable(..)
            | Self::Delete(..)
            | Self::Claim
            | Self::TakeOver => true,
            Self::Ask(_) | Self::Wait(_) | Self::Done(_) | Self::Refuse(_) => false,
        }
    }
}

impl Refusal {
    /// Whether a second, complete look must say the same before it is pronounced: lists lag, and
    /// other runs move.
    pub fn needs_confirmation(&self) -> bool {
        match self {
            Self::NoVariables
            | Self::PartMissing { .. }
            | Self::Differ(_)
            | Self::Mismatch { .. }
            | Self::Unknown { .. }
            | Self::Unusable { .. }
            | Self::NoSlot { .. }
            | Self::Several(_)
            | Self::ChangedExternally { .. }
            | Self::NewKeyLost { .. }
            | Self::SecretLost { .. }
            | Self::KeyCompromised { .. }
            | Self::NotPublishedAnyMore { .. }
            | Self::EnabledAgain { .. }
            | Self::StillNamed { .. } => true,
            Self::Busy
            | Self::Preflight(_)
            | Self::TooOld { .. }
            | Self::DeployFailed(_)
            | Self::DeployUnproven(_)
            | Self::DeployTimedOut(_) => false,
        }
    }
}
