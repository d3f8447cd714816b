//! How a run ended: for the program ([`End`]) and, in one word, for the report ([`Outcome`]).

use serde::Serialize;

use crate::aws::{AwsError, KeyRefusal, Signer};
use crate::error::{Error, exit};
use crate::plan::{Checkpoint, Done, Observed, Refusal, Step, Waiting};

/// How a run ended.
pub enum End {
    Done(Done),
    Error(Error),
}

impl End {
    /// Which keys work now and whether production is affected, as far as this run has seen.
    pub fn state(&self, seen: Option<&Observed>) -> String {
        match (self, seen) {
            (_, Some(seen)) => seen.state(),
            (Self::Error(error), None) => state_without_observation(error),
            (Self::Done(_), None) => String::new(),
        }
    }
}

/// A run that has not observed anything has changed nothing.
pub fn state_without_observation(error: &Error) -> String {
    if let Error::Aws(AwsError::KeyRefused { refusal, .. }) = error
        && let KeyRefusal::Unknown { signer: Signer(Some(key)), session_token: false }
        | KeyRefusal::WrongSecret { signer: Signer(Some(key)), session_token: false } = refusal
    {
        return format!(
            "nothing was changed; key {key} does not work, so where the variables still name it \
             PRODUCTION IS AFFECTED"
        );
    }
    "nothing was changed; keys and variables are as they were before this run".to_owned()
}

/// The word for it in the report and in `ROTATION_OUTCOME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// This run made a new key and published it.
    Rotated,
    /// This run went on with an earlier run's rotation.
    Resumed,
    /// The new key is published and its deploy is not proven yet.
    Deploying,
    /// The old key's overlap or grace period is not over.
    Waiting,
    /// There was nothing to do.
    NotDue,
    /// `check`: `rotate` would replace the key now.
    Due,
    /// `check`: `rotate` would not replace the key now.
    Healthy,
    DryRun,
    Busy,
    Refused,
    Failed,
    DeployFailed,
}

impl Outcome {
    /// The outcome of a run that ended so, had this many effects, and made a key or not.
    pub fn of(end: &End, effects: u32, made_a_key: bool) -> Self {
        match end {
            End::Done(Done::DryRun(_)) => Self::DryRun,
            End::Done(Done::Checked { next, .. }) if begins_a_rotation(next) => Self::Due,
            End::Done(Done::Checked { .. }) => Self::Healthy,
            End::Done(Done::Waiting(
                Waiting::InFlightJobs(_) | Waiting::Deploys(_) | Waiting::OwnDeploy,
            )) => Self::Deploying,
            End::Done(_) if made_a_key => Self::Rotated,
            End::Done(_) if effects > 0 => Self::Resumed,
            End::Done(Done::Waiting(_)) => Self::Waiting,
            End::Done(
                Done::NotDue { .. }
                | Done::NothingToRetire { .. }
                | Done::AlreadySetUp { .. }
                | Done::Tried
                | Done::Superseded { .. }
                | Done::InOwnDeploy,
            ) => Self::NotDue,
            End::Error(Error::Refused(Refusal::Busy)) => Self::Busy,
            End::Error(error) => match error.exit_code() {
                exit::DEPLOY => Self::DeployFailed,
                exit::REFUSED | exit::CONFIGURATION => Self::Refused,
                _ => Self::Failed,
            },
        }
    }
}

/// Whether the next step that `check` found is the first one of a rotation.
pub fn begins_a_rotation(next: &Step) -> bool {
    *next == Step::Record(Checkpoint::Begin)
}
