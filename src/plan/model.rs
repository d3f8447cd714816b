//! What the plan is made from: the configuration, and what was seen.
//!
//! Plain data. `plan` decides what follows from it, and `apply` changes it after a step.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::run_state::RunState;
use crate::access_key::{AccessKeyId, Key};
use crate::config::Action;
use crate::error::Blocker;
use crate::record::{Asked, DeployPlace, Place, Progress, RecordedDeploy};

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
    /// What stands in the way of a rotation; `None` until asked.
    pub preflight: Option<Vec<Blocker>>,
    /// Jobs that started before the publication and still run; `None` until asked.
    pub in_flight_jobs: Option<Vec<String>>,
    pub deploys: Option<Vec<DeploySeen>>,
    /// This run is a job of the deploy that a rotation has started.
    pub in_own_deploy: bool,
    pub run: RunState,
}

/// The pair of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSeen {
    /// As the configuration names it.
    pub name: String,
    /// What the record calls it.
    pub place: Place,
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
    /// GitLab says that its job has ended: it counts as alive no longer than this.
    pub until: Option<Timestamp>,
    pub progress: Option<Progress>,
}

/// Our own record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub name: String,
    pub progress: Option<Progress>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeploySeen {
    /// Nothing is noted; or what was noted came to nothing and this run may start one more.
    Startable {
        place: DeployPlace,
        asked: Asked,
    },
    /// What an attempt without an answer has surely made.
    Adoptable(RecordedDeploy),
    Running(String),
    Proven(RecordedDeploy),
    Failed(String),
    Unproven(String),
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

    /// The key that every target holds with a secret that STS accepts, where it is one of this
    /// user's and active.
    pub(super) fn operators_pair(&self) -> Option<&AccessKeyId> {
        let key = self.targets.first()?.id.key()?;
        let is_there = |target: &TargetSeen| {
            target.id.key() == Some(key)
                && matches!(&target.secret, SecretSeen::Readable { owner: SecretOwner::Key(owner), .. } if owner == key)
        };
        let works = self.key(key).is_some_and(|key| key.active);
        (works && self.targets.iter().all(is_there)).then_some(key)
    }

    /// What was seen of the deploy of this place.
    pub(super) fn deploy(&self, place: usize) -> Option<&DeploySeen> {
        self.deploys.as_ref().and_then(|deploys| deploys.get(place))
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

    /// Whatever works with a key is that key's; of a value that cannot be asked about the tag
    /// tells.
    pub fn is_of(&self, key: &AccessKeyId) -> bool {
        match self {
            Self::Absent
            | Self::Unusable(_)
            | Self::Readable { owner: SecretOwner::Nobody, .. } => false,
            Self::Hidden { tag } | Self::Readable { tag, owner: SecretOwner::NotAsked } => {
                tag.as_ref() == Some(key)
            }
            Self::Readable { owner: SecretOwner::Key(owner), .. } => owner == key,
        }
    }

    /// Whether it is the key's, or is no key's and bears its tag: an operator may have changed it.
    pub(super) fn may_be_of(&self, key: &AccessKeyId) -> bool {
        match self {
            Self::Readable { tag, owner: SecretOwner::Nobody } => tag.as_ref() == Some(key),
            Self::Absent
            | Self::Unusable(_)
            | Self::Hidden { .. }
            | Self::Readable { owner: SecretOwner::NotAsked | SecretOwner::Key(_), .. } => {
                self.is_of(key)
            }
        }
    }
}
