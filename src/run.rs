//! A run: observe, plan one step, carry it out, until the plan is done, refuses or stops.
//!
//! Rules of this module: The loop decides nothing. What this run has done and what failed is input
//! to the plan (`RunState`). After a step, its change is applied to `Observed`, and nothing is read
//! again. A secret is kept in `observe::Secrets` and is written only to its variable.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

use crate::aws::Aws;
use crate::config::{Config, DeployMode, Owner};
use crate::deploy::{Deployed, places};
use crate::error::Error;
use crate::gitlab::Gitlab;
use crate::outcome::End;
use crate::plan::{FailureKind, Observed, Policy, Step, plan};
use crate::report::{Calls, Ending, Report};
use crate::shutdown::Shutdown;
use claim::OwnRecord;
use observe::Sources;

mod claim;
mod elsewhere;
mod execute;
mod observe;
mod others;
mod query;

/// How long the release of the record may take once a stopped run is out of time.
const LAST_WRITE: Duration = Duration::from_millis(500);

/// The clients and the settings of a run. They do not change during the run.
struct Context<'a> {
    config: &'a Config,
    gitlab: &'a Gitlab,
    aws: &'a Aws,
    shutdown: &'a Shutdown,
}

struct Run<'a> {
    context: Context<'a>,
    policy: Policy,
    seen: Observed,
    sources: Sources,
    record: OwnRecord,
    deploys: Deploys,
    waits: Waits,
    /// Places whose variables the token may not read, as far as that was told.
    unreadable: Vec<Owner>,
    /// The error of the step that has just failed.
    error: Option<Error>,
    /// The error that ends the run after it has cleaned up.
    deferred: Option<Error>,
    report: &'a mut Report,
}

/// The deploys of this run, beyond what the record says.
#[derive(Default)]
struct Deploys {
    /// Places in which this run has started a deploy.
    started: BTreeSet<usize>,
    /// Places in which the recorded pipeline could prove nothing, and what it was started with.
    in_vain: BTreeMap<usize, u32>,
    /// Jobs of environments that this run has run again.
    rerun: BTreeSet<(usize, String)>,
    /// Places whose deploy this run has asked for without an answer.
    unanswered: BTreeSet<usize>,
    /// What the report says of each place.
    seen: Vec<Deployed>,
}

/// How long this run waits.
struct Waits {
    /// When the first wait began.
    began: Option<Timestamp>,
    /// Before the next look, or the next try of a write.
    pause: Duration,
    /// The jobs that this run waits for may be older rotations that wait for this one: it waits
    /// half as long, so that they can go on.
    gives_way: bool,
}

/// One run, from the first observation to the last write. Never fails: the end and what led to it
/// are in the report.
pub async fn rotate(
    config: &Config,
    environment_secret: Option<SecretString>,
    shutdown: &Shutdown,
) -> (End, Report) {
    let mut report = Report::new(config);
    let gitlab = match Gitlab::new(config) {
        Ok(gitlab) => gitlab,
        Err(error) => {
            let end = End::Error(error.into());
            report.close(config, &end, Ending::default());
            return (end, report);
        }
    };
    let aws = Aws::new(config, environment_secret).await;
    let context = Context { config, gitlab: &gitlab, aws: &aws, shutdown };
    let look = unless_stopped(shutdown, context.first_look()).await;
    let ids = look.as_ref().map_or(&[][..], |(_, ids)| ids);
    let named = config.clone().with_ids(ids);
    report.places_of(&named);
    let context = Context { config: &named, ..context };
    let first = match look {
        Ok((read, _)) => unless_stopped(shutdown, context.first_observation(read)).await,
        Err(error) => Err(error),
    };
    let (end, seen, deploys) = match first {
        Ok((seen, sources)) => {
            let mut run = Run::new(context, seen, sources, &mut report);
            let end = run.run_to_end().await;
            (end, Some(run.seen), run.deploys.seen)
        }
        Err(error) => (End::Error(error), None, Vec::new()),
    };
    let ((iam, sts), gitlab) = (aws.calls(), gitlab.calls());
    let calls = Calls { iam, sts, gitlab };
    report.close(&named, &end, Ending { seen: seen.as_ref(), deploys, calls });
    (end, report)
}

async fn unless_stopped<T>(
    shutdown: &Shutdown,
    looks: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        looked = looks => looked,
        signal = shutdown.requested() => Err(Error::Stopped { signal }),
    }
}

impl<'a> Run<'a> {
    fn new(context: Context<'a>, seen: Observed, sources: Sources, report: &'a mut Report) -> Self {
        Self {
            policy: policy(context.config),
            context,
            seen,
            sources,
            record: OwnRecord::default(),
            deploys: Deploys::default(),
            unreadable: Vec::new(),
            waits: Waits { began: None, pause: Duration::from_secs(1), gives_way: false },
            error: None,
            deferred: None,
            report,
        }
    }

    /// All steps, then the release of the record, within the time that a signal leaves.
    async fn run_to_end(&mut self) -> End {
        let shutdown = self.context.shutdown;
        let mut expired = std::pin::pin!(shutdown.expired());
        tokio::select! {
            end = self.steps() => {
                tokio::select! {
                    () = self.release(&end) => {}
                    _ = expired => {}
                }
                end
            }
            signal = &mut expired => {
                let end = End::Error(Error::Stopped { signal });
                let _ = tokio::time::timeout(LAST_WRITE, self.release(&end)).await;
                end
            }
        }
    }

    async fn steps(&mut self) -> End {
        loop {
            self.tick();
            let step = plan(&self.seen, &self.policy);
            tracing::debug!(%step, "planned");
            match step {
                Step::Done(done) => return End::Done(done),
                Step::Refuse(refusal) => return End::Error(Error::Refused(refusal)),
                Step::Stop => return End::Error(self.why_it_stops()),
                step => self.carry_out(&step).await,
            }
        }
    }

    /// What changes by itself: the time, and whether a signal has come.
    fn tick(&mut self) {
        if let Some(now) = self.context.gitlab.now() {
            self.seen.now = now;
        }
        let now = self.seen.now;
        let until = self.waits_until();
        let run = &mut self.seen.run;
        run.waited_out = self.policy.leave_deploys || until.is_some_and(|until| now >= until);
        run.stop_requested = self.context.shutdown.signal().is_some();
        run.list_age = SignedDuration::try_from(self.sources.listed.elapsed()).unwrap_or_default();
    }

    async fn carry_out(&mut self, step: &Step) {
        let started = self.report.start(step, &self.seen);
        let shutdown = self.context.shutdown;
        let may_interrupt = step.is_interruptible() && shutdown.signal().is_none();
        let result = tokio::select! {
            result = self.execute(step) => result,
            _ = shutdown.requested(), if may_interrupt => return,
        };
        self.report.end(&started, step, result.is_ok());
        match result {
            Ok(made) => self.seen.apply(step, made),
            Err(error) => {
                let kind = failure_kind(&error);
                // An observation that fails after a write went elsewhere does not hide that.
                let is_pending = self.seen.run.failure.is_some();
                self.seen.failed(step, kind, is_misdirected(&error));
                let is_newer = !is_pending || *step == Step::Retry;
                if is_newer || kind == FailureKind::ClaimLost {
                    self.error = Some(error);
                }
            }
        }
    }

    /// A lost claim tells more than what went before; else what came first is told.
    fn why_it_stops(&mut self) -> Error {
        let error = self.error.take();
        if let Some(Error::ClaimLost(why)) = error
            && why.is_final()
        {
            return Error::ClaimLost(why);
        }
        let signal = || self.context.shutdown.signal().map(|signal| Error::Stopped { signal });
        let first = self.deferred.take().or(error).or_else(signal);
        first.expect("the plan stops a run only for an error that it keeps or a signal")
    }
}

fn failure_kind(error: &Error) -> FailureKind {
    match error {
        Error::ClaimLost(why) if why.is_final() => FailureKind::ClaimLost,
        // Nothing was sent.
        Error::ClaimLost(_) => FailureKind::Refused,
        Error::CreateUnclear => FailureKind::Unclear,
        error if error.is_definite() => FailureKind::Refused,
        _ => FailureKind::Unclear,
    }
}

/// Whether GitLab put the value into another variable: a group's scope that it dropped.
fn is_misdirected(error: &Error) -> bool {
    match error {
        Error::EchoDiffers { field, .. } => field.is_another_variable(),
        Error::NoGroupScopes { .. } => true,
        _ => false,
    }
}

fn policy(config: &Config) -> Policy {
    let since = config.job.pipeline_created_at.unwrap_or_else(Timestamp::now);
    Policy {
        action: config.action,
        rotate_after: config.rotate_after,
        max_age: config.max_age,
        overlap: by_day(config.overlap),
        grace_period: by_day(config.grace_period),
        forced: config.force.then_some(since),
        own_deploy: config.deploy.mode == DeployMode::None,
        leave_deploys: config.deploy.timeout.is_zero(),
        places: places(config).len(),
        dry_run: config.dry_run,
    }
}

/// A daily job does not start at the same second each day: a time of whole days is over an hour
/// early, else it would cost a day more.
fn by_day(span: SignedDuration) -> SignedDuration {
    if span.as_hours() >= 24 { span - SignedDuration::from_hours(1) } else { span }
}
