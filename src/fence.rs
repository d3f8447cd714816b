//! The fence: whether this run may still act, as far as it can tell by itself.
//!
//! Another run takes over once GitLab says that our job has ended, or once the `ends` of our record
//! has passed. So that it never meets us at work we act only shortly after a reply that said our
//! job has not ended, only before our `ends`, and only while our record is there. This module keeps
//! the state; [`Gitlab::may_act`](crate::gitlab::Gitlab::may_act) asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};

use crate::config::Config;
use crate::record::JobRef;

/// How long a reply that says that our job is alive lets us act. Others leave us two minutes.
const TRUSTED_FOR: Duration = Duration::from_secs(60);
/// What a run without a job timeout needs besides its waiting.
const MARGIN: SignedDuration = SignedDuration::from_mins(30);

/// A moment on a clock that goes on while the machine is suspended.
#[derive(Clone, Copy, Debug)]
pub struct Boottime(Duration);

impl Boottime {
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        Self(Duration::new(
            time.tv_sec.unsigned_abs(),
            u32::try_from(time.tv_nsec).unwrap_or_default(),
        ))
    }

    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// Why this run may not act any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fenced {
    #[error("GitLab says that this job has ended, so it does nothing more")]
    JobEnded,
    /// Nobody has taken over: what is torn is tried again.
    #[error("GitLab could not be asked whether this job still counts as running")]
    Unseen,
    /// The time that its record promised.
    #[error("the time that this run may take is over")]
    TimeOver,
    /// Its record was taken away.
    #[error("another run has taken over")]
    RecordGone,
}

impl Fenced {
    /// Whether this run may never act again. GitLab that cannot be asked may answer later.
    pub fn is_final(self) -> bool {
        match self {
            Self::JobEnded | Self::TimeOver | Self::RecordGone => true,
            Self::Unseen => false,
        }
    }
}

#[derive(Debug)]
pub struct Fence {
    job: Option<JobRef>,
    ends: Mutex<Option<Timestamp>>,
    seen_alive: Mutex<Option<Boottime>>,
    invisible: AtomicBool,
    record_gone: AtomicBool,
    /// From the configuration: when the runner will end the job, else how long we may take at most.
    job_ends: Option<Timestamp>,
    longest: SignedDuration,
}

impl Fence {
    pub fn new(config: &Config) -> Self {
        let job =
            config.job.project.zip(config.job.id).map(|(project, job)| JobRef { project, job });
        let job_ends =
            config.job.started_at.zip(config.job.timeout).map(|(start, timeout)| start + timeout);
        let verify = SignedDuration::try_from(config.verify_timeout).unwrap_or_default();
        Self {
            job,
            ends: Mutex::new(None),
            seen_alive: Mutex::new(None),
            invisible: AtomicBool::new(false),
            record_gone: AtomicBool::new(false),
            job_ends,
            longest: config.deploy.timeout + verify + MARGIN,
        }
    }

    pub fn job(&self) -> Option<JobRef> {
        self.job
    }

    /// The latest moment at which this run can be alive; fixed when it is asked first.
    pub fn ends(&self, now: Timestamp) -> Timestamp {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        *ends.get_or_insert_with(|| self.job_ends.unwrap_or(now + self.longest))
    }

    /// The runner's own limit, where it is known.
    pub fn job_ends(&self) -> Option<Timestamp> {
        self.job_ends
    }

    /// The job to ask GitLab about before the next effect; `None` where the last reply still holds.
    pub(crate) fn wants_to_see(&self, now: Option<Timestamp>) -> Result<Option<JobRef>, Fenced> {
        if self.record_gone.load(Ordering::Relaxed) {
            return Err(Fenced::RecordGone);
        }
        if now.is_some_and(|now| now >= self.ends(now)) {
            return Err(Fenced::TimeOver);
        }
        let seen = *self.seen_alive.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = seen.is_some_and(|seen| seen.elapsed() < TRUSTED_FOR)
            || self.invisible.load(Ordering::Relaxed);
        Ok(self.job.filter(|_| !holds))
    }

    pub(crate) fn saw_alive(&self, asked: Boottime) {
        *self.seen_alive.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
    }

    /// GitLab is asked again before the next effect.
    pub(crate) fn forget_alive(&self) {
        *self.seen_alive.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn cannot_see(&self) {
        self.invisible.store(true, Ordering::Relaxed);
    }

    pub fn record_is_gone(&self) {
        self.record_gone.store(true, Ordering::Relaxed);
    }
}
