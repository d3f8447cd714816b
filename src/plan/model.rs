//! The types of the plan: what was seen, what this run has done, and the steps.
//!
//! Plain data. `plan` decides what follows from it, and `apply` changes it after a step.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Refusal;
use crate::access_key::{AccessKeyId, Key};
use crate::config::Action;
use crate::record::{Progress, RecordedDeploy};

/// What the configuration asks for, as far as the plan needs it.
#[derive(Clone, Debug)]
pub struct Policy {
    pub action: Action,
    pub rotate_after: SignedDuration,
    pub max_age: SignedDuration,
    pub overlap: SignedDuration,
    pub grace_period: SignedDuration,
    /// Set by force: a key created before this time is due, whatever its age.
    pub forced: Option<Timestamp>,
    /// The pipeline of this job deploys (`ROTATOR_DEPLOY=none`); the run starts no deploy.
    pub own_deploy: bool,
    /// This run starts the deploys and leaves the proof to the next run.
    pub leave_deploys: bool,
    /// How many projects the rotation deploys.
    pub places: usize,
    pub dry_run: bool,
}

/// Everything that the plan knows: what IAM and GitLab showed, and what this run has done since.
/// Ids, dates and flags, no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// GitLab's clock.
    pub now: Timestamp,
    /// IAM's clock when it listed the keys.
    pub listed: Timestamp,
    pub user: String,
    pub keys: Vec<Key>,
    pub targets: Vec<TargetSeen>,
    /// The other readable variables that contain a key's id.
    pub other_references: BTreeMap<AccessKeyId, Vec<String>>,
    /// The records of other runs for the same user, and our own released one.
    pub records: Vec<RecordSeen>,
    pub claim: Option<Claim>,
    pub preflight: Option<Vec<String>>,
    /// Jobs that started before the publication and still run; `None` until asked.
    pub in_flight_jobs: Option<Vec<String>>,
    pub deploys: Option<Vec<DeploySeen>>,
    /// This run is a job of the deploy that a rotation has started.
    pub in_own_deploy: bool,
    pub run: RunState,
}

/// What this run itself has done, and what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunState {
    pub attempt: Attempt,
    /// The key that this process has made.
    pub new_key: Option<NewKey>,
    /// A write of the new key's secret may have had its effect.
    pub secret_sent: bool,
    /// The step that has just failed, until it is decided what follows.
    pub failure: Option<Failure>,
    /// An error is kept: it ends the run once what it has begun is in order.
    pub error_deferred: bool,
    /// A signal told this run to stop.
    pub stop_requested: bool,
    /// The refusal that the latest `Confirm` was for.
    pub suspected: Option<Refusal>,
    pub freshness: Freshness,
    /// How long ago the keys were listed.
    pub list_age: SignedDuration,
    /// The time that this run may wait is over.
    pub waited_out: bool,
    /// When the runner ends this job, where that is known.
    pub job_ends: Option<Timestamp>,
}

/// How far what is seen can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The variables were read since the last step.
    Fresh,
    /// Since then only steps of this run changed something, which was applied.
    Applied,
    /// A long wait has passed: an effect needs a new observation first.
    AfterWait,
    /// The last step needs the variables read again.
    VariablesOutdated,
    /// The last step needs everything observed again.
    Outdated,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub step: Box<Step>,
    pub kind: FailureKind,
    pub misdirected: Misdirected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// This run may not act any more.
    ClaimLost,
    /// Surely without an effect.
    Refused,
    /// The effect may have happened.
    Unclear,
}

/// Whether GitLab put the value into another variable: it would land there again, however often it
/// is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdirected {
    No,
    Yes,
    /// The variables were read since.
    Read,
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
    /// The run gave up before the secret was sent anywhere: the key has to go.
    pub abandoned: bool,
}

/// How far this run has come with a rotation of its own. A run begins at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    No,
    Recorded,
    Tried,
    /// `CreateAccessKey` was sent, and whether it made a key is not known.
    Unclear,
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
    /// Our own record, by its name.
    Record(String),
    Key(Key),
    /// A key whose secret was lost with the reply.
    Orphan,
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
    WriteSecret {
        target: usize,
        key: AccessKeyId,
    },
    WriteId {
        target: usize,
        key: AccessKeyId,
    },
    StartDeploy(usize),
    Wait(Waiting),
    Disable(AccessKeyId, KeyRole),
    Delete(AccessKeyId, KeyRole),
    /// Read again what the next step rests on.
    Observe(Scope),
    /// Observe everything once more, a little later, before this is pronounced.
    Confirm(Refusal),
    /// Give up what this run has begun; the cause is told once it is in order.
    Abandon(Cause),
    /// A write of a pair failed and the pair may be torn: pause, read the variables, try again.
    Retry,
    Done(Done),
    Refuse(Refusal),
    /// End with the error that is kept, or because of the signal.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Everything,
    /// The variables and the records, not the keys.
    Variables,
}

/// Why a run gives up what it has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The step that has just failed.
    Failure,
    Refusal(Refusal),
    Signal,
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

/// What a rotation waits for. `OwnDeploy`: the pipeline's own, which `retire` proves; `Margin`: the
/// next stage may start at once, and a job that starts so soon after `drained` proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// An earlier run may have made a key that IAM's list does not show yet.
    Unsettled {
        until: Timestamp,
    },
    InFlightJobs(Vec<String>),
    Deploys(Vec<String>),
    Margin {
        until: Timestamp,
    },
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
        next: Box<Step>,
    },
    /// What a dry run would do, step by step.
    DryRun(Vec<Step>),
}

impl RunState {
    /// Nothing done yet. `job_ends`: when the runner ends this job, where that is known.
    pub fn new(job_ends: Option<Timestamp>) -> Self {
        Self {
            attempt: Attempt::No,
            new_key: None,
            secret_sent: false,
            failure: None,
            error_deferred: false,
            stop_requested: false,
            suspected: None,
            freshness: Freshness::Fresh,
            list_age: SignedDuration::ZERO,
            waited_out: false,
            job_ends,
        }
    }

    /// Whether this process holds a key whose secret has gone nowhere: whatever goes wrong now, it
    /// can be deleted again.
    pub fn has_unsent_key(&self) -> bool {
        !self.secret_sent && self.new_key.as_ref().is_some_and(|new_key| !new_key.abandoned)
    }
}

impl Observed {
    pub fn key(&self, id: &AccessKeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == *id)
    }

    /// The progress of the rotation: our own record's once it has one, else the latest record's.
    pub fn progress(&self) -> Option<&Progress> {
        let own = self.claim.as_ref().and_then(|claim| claim.progress.as_ref());
        own.or_else(|| self.latest_record().and_then(|record| record.progress.as_ref()))
    }

    pub(super) fn is_unfinished(&self) -> bool {
        self.progress().is_some_and(Progress::unfinished)
    }

    pub(super) fn latest_record(&self) -> Option<&RecordSeen> {
        self.records
            .iter()
            .filter(|record| record.progress.is_some())
            .max_by_key(|record| record.at)
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
    pub(super) fn is_of(&self, key: &AccessKeyId) -> bool {
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
            Self::Ask(_)
            | Self::Wait(_)
            | Self::Observe(_)
            | Self::Confirm(_)
            | Self::Abandon(_)
            | Self::Retry
            | Self::Done(_)
            | Self::Refuse(_)
            | Self::Stop => false,
        }
    }

    /// Whether a signal may cut it short. What is between a key's creation and its publication may
    /// not: the plan answers the signal once the step is over.
    pub fn is_interruptible(&self) -> bool {
        match self {
            Self::Create
            | Self::WriteSecret { .. }
            | Self::WriteId { .. }
            | Self::Delete(..)
            | Self::Retry
            | Self::Abandon(_) => false,
            Self::Ask(_)
            | Self::Claim
            | Self::TakeOver
            | Self::Record(_)
            | Self::Verify(_)
            | Self::StartDeploy(_)
            | Self::Wait(_)
            | Self::Disable(..)
            | Self::Observe(_)
            | Self::Confirm(_)
            | Self::Done(_)
            | Self::Refuse(_)
            | Self::Stop => true,
        }
    }
}
