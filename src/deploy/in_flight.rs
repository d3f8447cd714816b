//! Jobs that started before the publication and still run: they have the old pair, and may be a
//! deploy themselves.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::looking;
use super::named::stem;
use crate::config::Name;
use crate::error::Error;
use crate::gitlab::Gitlab;
use crate::gitlab::jobs::Job;
use crate::plan::START_MARGIN;

/// What is waited for before a deploy starts.
#[derive(Debug, Default)]
pub struct InFlight {
    /// Name and link of each job.
    pub jobs: Vec<String>,
    /// All of them are older jobs of this job's own stage and project: they may be rotations at
    /// homes that this one does not read, and wait for this one.
    pub may_wait_for_us: bool,
}

/// Jobs of other rotations do not run production; nor do those of this job's own name in its own
/// project, which are the same job for other keys. `rotators`: jobs that records name; `own`: the
/// number of this job.
pub async fn in_flight_jobs(
    gitlab: &Gitlab,
    projects: &[Name],
    published: Timestamp,
    rotators: &BTreeSet<u64>,
    own: Option<u64>,
) -> Result<InFlight, Error> {
    let mut in_flight = InFlight { jobs: Vec::new(), may_wait_for_us: true };
    for project in projects {
        let jobs = gitlab.running_jobs(project).await.map_err(|error| looking(project, error))?;
        let own = jobs.iter().find(|job| own == Some(job.id));
        let is_same = |job: &Job| own.is_some_and(|own| stem(&own.name) == stem(&job.name));
        // Our clock may be a second behind GitLab's: what seems to have started right after the
        // publication may have started before it.
        let is_older =
            |job: &Job| job.started_at.is_some_and(|start| start <= published + START_MARGIN);
        for job in jobs.iter().filter(|job| is_older(job) && !rotators.contains(&job.id)) {
            if is_same(job) {
                continue;
            }
            in_flight.jobs.push(format!("{} ({} of project {project})", job.name, job.link()));
            in_flight.may_wait_for_us &=
                own.is_some_and(|own| job.id < own.id && job.stage == own.stage);
        }
    }
    in_flight.may_wait_for_us &= !in_flight.jobs.is_empty();
    Ok(in_flight)
}
