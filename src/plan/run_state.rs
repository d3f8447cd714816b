//! What a run has done and what it was told: the part of the plan's input that no observation shows.

use jiff::{SignedDuration, Timestamp};

use super::Refusal;
use super::step::Step;
use crate::access_key::AccessKeyId;

/// What this run itself has done, and what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunState {
    pub attempt: Attempt,
    /// The key that this process has made.
    pub new_key: Option<NewKey>,
    /// The pair that this job was given, where that signs and no role does.
    pub given: Option<GivenPair>,
    /// What this run has found of deploys that an earlier run left.
    pub left_deploys: LeftDeploys,
    /// A write of the new key's secret may have had its effect.
    pub secret_sent: bool,
    /// The place whose deploy this run has noted that it asks for, until it has.
    pub asking: Option<usize>,
    /// The step that has just failed, until it is decided what follows.
    pub failure: Option<Failure>,
    /// An error is kept: it ends the run once what it has begun is in order.
    pub error_deferred: bool,
    /// The key of the operator's pair with which this run has ended a rotation.
    pub superseded: Option<AccessKeyId>,
    /// A signal told this run to stop.
    pub stop_requested: bool,
    /// The refusal that the latest `Confirm` was for.
    pub suspected: Option<Refusal>,
    pub freshness: Freshness,
    /// How long ago the keys were listed.
    pub list_age: SignedDuration,
    /// The time that this run may wait is over.
    pub waited_out: bool,
    /// The latest moment at which this run may act: what its record promises.
    pub ends: Timestamp,
}

/// Deploys that an earlier run started and did not wait for (`deploy_timeout: 0s`), and that came to
/// nothing, or stand still until a person does something. Nobody else tells of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftDeploys {
    pub failed: Vec<String>,
    pub blocked: Vec<String>,
}

/// The pair of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenPair {
    pub key: AccessKeyId,
    /// When the job started, and was given its variables.
    pub since: Timestamp,
    /// The job's project is a target, or may be below one.
    pub in_target: bool,
}

/// How far what is seen can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The variables were read since the last step.
    Fresh,
    /// The same, and those of every place that may name an old key.
    Searched,
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

impl RunState {
    /// Nothing done yet. `ends`: the latest moment at which this run may act.
    pub fn new(ends: Timestamp) -> Self {
        Self {
            attempt: Attempt::No,
            new_key: None,
            given: None,
            left_deploys: LeftDeploys::default(),
            secret_sent: false,
            asking: None,
            failure: None,
            error_deferred: false,
            superseded: None,
            stop_requested: false,
            suspected: None,
            freshness: Freshness::Fresh,
            list_age: SignedDuration::ZERO,
            waited_out: false,
            ends,
        }
    }

    /// Whether this process holds a key whose secret has gone nowhere: whatever goes wrong now, it
    /// can be deleted again.
    pub fn has_unsent_key(&self) -> bool {
        !self.secret_sent && self.new_key.as_ref().is_some_and(|new_key| !new_key.abandoned)
    }
}
