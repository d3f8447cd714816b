//! What a rotation needs, looked at before anything is written, all of it at once.
//!
//! A blocker costs nothing but a clear exit, a notice stops nothing. What a rotation does only after
//! its publication is tried here by a read that changes nothing: docs/gitlab.md has the table. What
//! GitLab does not tell is told, and is neither.

use jiff::{SignedDuration, Timestamp};

use crate::aws::{Aws, AwsError, Identity};
use crate::config::{Action, Config};
use crate::error::{Blocker, Error, Notice};
use crate::fence::Fence;
use crate::gitlab::Gitlab;
use crate::gitlab::token::Token;
use crate::plan::Observed;
use crate::record;
use crate::targets::Lists;

mod nearer;
mod projects;
mod token;
mod variables;

/// What the job must have left besides verification: publication, record and a safe end.
const SHORTEST_JOB: SignedDuration = SignedDuration::from_mins(5);

/// What a look has found.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) blockers: Vec<Blocker>,
    pub(crate) notices: Vec<Notice>,
    /// What GitLab does not tell, a sentence each.
    pub(crate) unknown: Vec<String>,
    /// Who signs, as STS says.
    pub(crate) identity: Option<Identity>,
}

/// # Errors
/// Too little of the job is left; calls that failed for another reason than what they were to show.
pub(crate) async fn look(
    config: &Config,
    gitlab: &Gitlab,
    aws: &Aws,
    lists: &Lists,
    token: &Token,
    seen: &Observed,
) -> Result<Findings, Error> {
    let mut found = Findings::default();
    match enough_time(config, &gitlab.fence, seen.now) {
        // The job of a check is not the one that rotates.
        Err(_) if config.action == Action::Check => {}
        Err(Error::NoTimeLeft { needed, left }) if config.dry_run => {
            found.blockers.push(Blocker::JobTooShort { needed, left });
        }
        reply => reply?,
    }
    look_at_aws(config, aws, seen, &mut found).await?;
    token::look(config, token, seen.now, &mut found);
    found.blockers.extend(variables::blockers(config, lists, seen));
    let length = config.longest_record();
    if length > record::LIMIT {
        found.blockers.push(Blocker::RecordTooLong { length });
    }
    projects::look(config, gitlab, seen, &mut found).await?;
    Ok(found)
}

/// Whether STS could verify a key, and whether IAM tells when the old one was last used.
async fn look_at_aws(
    config: &Config,
    aws: &Aws,
    seen: &Observed,
    found: &mut Findings,
) -> Result<(), Error> {
    match aws.identity().await {
        Ok(identity) => found.identity = Some(identity),
        // IAM has just accepted the same credentials.
        Err(AwsError::KeyRefused { .. }) => {
            found.blockers.push(Blocker::StsRefuses { region: config.region.clone() });
        }
        Err(error) => return Err(error.into()),
    }
    let named =
        seen.targets.iter().filter_map(|target| target.id.key()).find_map(|id| seen.key(id));
    match named.or_else(|| seen.keys.first()) {
        Some(key) if !config.overlap.is_zero() => match aws.last_use(&key.id).await {
            Ok(_) => {}
            Err(error) => {
                let AwsError::Denied { action, .. } = error else { return Err(error.into()) };
                let fix = Error::Aws(error).hint();
                found.blockers.push(Blocker::Denied { action, fix });
            }
        },
        Some(_) | None => {}
    }
    Ok(())
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
