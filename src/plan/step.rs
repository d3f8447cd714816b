//! The steps of a run, and what they are about. What follows a step is decided in `plan`.

use jiff::Timestamp;

use super::{Notice, Refusal};
use crate::access_key::{AccessKeyId, Key};
use crate::record::RecordedDeploy;

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
    /// The same, and the variables of other places that may name an old key.
    Everywhere,
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
    /// A target does not hold the published pair: what the deploy was to prove is taken out.
    NotInPlace,
    Drained,
    /// The deploy of this place is asked for next.
    Attempt(usize),
    /// It was asked for, and the answer is lost.
    AttemptClosed(usize),
    /// It was surely not started.
    AttemptWithdrawn(usize),
    /// What the lost answer was about is found.
    Adopted(usize),
    Proven,
    Disabled,
    EnabledAgain,
    Finished,
    /// An operator's pair has taken the place of the new key, which was deleted.
    Superseded,
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
    /// The job of another run has ended just now.
    Afterlife {
        until: Timestamp,
    },
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
    /// Nothing but the old key can sign for this run.
    OwnSigner {
        old: AccessKeyId,
    },
    /// Used after the deploy, so it stays active until it has not been used for long enough.
    StillUsed {
        old: AccessKeyId,
        last: Timestamp,
        service: String,
        until: Timestamp,
        /// Days after the overlap: a person should look.
        late: bool,
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
    /// This run has ended a rotation whose new key was deleted: the targets hold another pair.
    Superseded {
        key: AccessKeyId,
        others: Vec<AccessKeyId>,
    },
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

impl Waiting {
    /// The old key that this wait keeps, and until when.
    pub fn old_key(&self) -> Option<(&AccessKeyId, Timestamp)> {
        match self {
            Self::Overlap { old, until }
            | Self::StillUsed { old, until, .. }
            | Self::Grace { old, until } => Some((old, *until)),
            Self::Unsettled { .. }
            | Self::InFlightJobs(_)
            | Self::Deploys(_)
            | Self::Margin { .. }
            | Self::Afterlife { .. }
            | Self::OwnSigner { .. }
            | Self::OwnDeploy => None,
        }
    }
}

impl Done {
    /// What a person should know although nothing is wrong yet.
    pub fn notice(&self) -> Option<Notice> {
        match self {
            Self::NotDue { unexplained: Some(key), .. } => {
                Some(Notice::UnexplainedKey { key: key.clone() })
            }
            Self::Superseded { key, others } => {
                Some(Notice::Superseded { key: key.clone(), others: others.clone() })
            }
            Self::Checked { next, .. } => {
                if let Step::Done(done) = &**next {
                    done.notice()
                } else {
                    None
                }
            }
            Self::Waiting(Waiting::StillUsed { old, last, service, late: true, .. }) => {
                Some(Notice::OldKeyInUse {
                    key: old.clone(),
                    last: *last,
                    service: service.clone(),
                })
            }
            Self::NotDue { unexplained: None, .. }
            | Self::Waiting(_)
            | Self::Tried
            | Self::InOwnDeploy
            | Self::NothingToRetire { .. }
            | Self::AlreadySetUp { .. }
            | Self::DryRun(_) => None,
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
    /// not, nor a request for a deploy: the plan answers the signal once the step is over.
    pub fn is_interruptible(&self) -> bool {
        match self {
            Self::Create
            | Self::WriteSecret { .. }
            | Self::WriteId { .. }
            | Self::StartDeploy(_)
            | Self::Delete(..)
            | Self::Retry
            | Self::Abandon(_) => false,
            Self::Ask(_)
            | Self::Claim
            | Self::TakeOver
            | Self::Record(_)
            | Self::Verify(_)
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

impl Checkpoint {
    /// Whether the record is released with it.
    pub fn ends_the_rotation(self) -> bool {
        match self {
            Self::Finished | Self::Superseded => true,
            Self::Begin
            | Self::Nothing
            | Self::Published
            | Self::NotInPlace
            | Self::Drained
            | Self::Attempt(_)
            | Self::AttemptClosed(_)
            | Self::AttemptWithdrawn(_)
            | Self::Adopted(_)
            | Self::Proven
            | Self::Disabled
            | Self::EnabledAgain => false,
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
            | Self::AddedTarget { .. }
            | Self::EnabledAgain { .. }
            | Self::StillNamed { .. } => true,
            Self::Busy
            | Self::Preflight(_)
            | Self::TooOld { .. }
            | Self::DeployFailed(_)
            | Self::DeployUnproven(_)
            | Self::DeployTimedOut(_)
            | Self::EarlierRotation { .. }
            | Self::OldPairGiven { .. } => false,
        }
    }
}
