//! What a rotation needs, looked at before anything is written: every blocker at once.
//!
//! A blocker costs nothing but a clear exit. Information that GitLab does not give is none.

use jiff::{SignedDuration, Timestamp};

use crate::aws::{Aws, AwsError, Identity};
use crate::config::Config;
use crate::error::{Blocker, Error};
use crate::fence::Fence;
use crate::gitlab::Gitlab;
use crate::gitlab::token::Token;
use crate::plan::Observed;
use crate::targets::Lists;

mod nearer;
mod projects;
mod token;
mod variables;

/// What the job must have left besides verification: publication, record and a safe end.
const SHORTEST_JOB: SignedDuration = SignedDuration::from_mins(5);

/// # Errors
/// Too little of the job is left; calls that failed for another reason than what they were to show.
pub(crate) async fn blockers(
    config: &Config,
    gitlab: &Gitlab,
    aws: &Aws,
    lists: &Lists,
    token: &Token,
    seen: &Observed,
) -> Result<(Vec<Blocker>, Option<Identity>), Error> {
    enough_time(config, &gitlab.fence, seen.now)?;
    let mut blockers = Vec::new();
    let identity = match aws.identity().await {
        Ok(identity) => Some(identity),
        // IAM has just accepted the same credentials.
        Err(AwsError::KeyRefused { .. }) => {
            blockers.push(Blocker::StsRefuses { region: config.region.clone() });
            None
        }
        Err(error) => return Err(error.into()),
    };
    blockers.extend(token::blocker(config, token, seen.now));
    blockers.extend(variables::blockers(config, lists, seen));
    blockers.extend(projects::blockers(config, gitlab, seen).await?);
    Ok((blockers, identity))
}

/// # Errors
/// Too little of the job is left to make a key and publish it.
pub(crate) fn enough_time(config: &Config, fence: &Fence, now: Timestamp) -> Result<(), Error> {
    let Some(ends) = fence.job_ends() else { return Ok(()) };
    let needed = SignedDuration::try_from(config.verify_timeout).unwrap_or_default() + SHORTEST_JOB;
    let left = ends.duration_since(now);
    if left < needed {
        return Err(Error::NoTimeLeft { needed: needed.as_secs(), left: left.as_secs() });
    }
    Ok(())
}
