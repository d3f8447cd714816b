//! How a run ended: for the program ([`End`]) and, in one word, for the report ([`Outcome`]).

use serde::Serialize;

use crate::error::Error;
use crate::plan::Done;

/// How a run ended.
pub enum End {
    Done(Done),
    Error(Error),
}

/// The word for it in the report and in `ROTATION_OUTCOME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Rotated,
    Resumed,
    Deploying,
    Waiting,
    NotDue,
    DryRun,
    Busy,
    Refused,
    Failed,
    DeployFailed,
}
