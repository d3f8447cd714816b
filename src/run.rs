//! The loop: observe, plan one step, do it, until the plan is done or refuses. And the claim.
//!
//! House rules. What a step changes is applied to what was observed, not asked again; after an
//! error, an ambiguous reply or a long wait everything is observed again. The old key is touched
//! only right after the variables were read again. A secret lives in `Run::secrets` and goes
//! nowhere but into its variable.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

use crate::access_key::{AccessKeyId, Key};
use crate::aws::{Aws, Identity};
use crate::config::{Config, DeployMode};
use crate::deploy::{Deployed, START_MARGIN, places};
use crate::error::Error;
use crate::fence::{Boottime, Fenced};
use crate::gitlab::Gitlab;
use crate::gitlab::variables::{self, Lists, PairPart, StoredRecord};
use crate::outcome::End;
use crate::plan::{
    Attempt, Checkpoint, Claim, DeploySeen, Done, KeyRole, Made, Observed, Policy, Query,
    SecretOwner, SecretSeen, Step, Waiting, plan,
};
use crate::preflight::{self, Token};
use crate::record::{self, JobRef};
use crate::report::Report;
use crate::shutdown::Shutdown;

mod execute;
mod observe;

/// `CreateAccessKey` is sent only so soon after the list that recorded what was there.
const LIST_HOLDS: Duration = Duration::from_secs(60);
/// A refusal that blames a person is pronounced only when a second look, so much later, says the
/// same.
const SECOND_LOOK: Duration = Duration::from_secs(10);
/// What is left of the runner's patience once a run that was told to stop has used up its own.
const LAST_WRITE: Duration = Duration::from_millis(500);
/// A torn pair is retried until so shortly before the job ends.
const LAST_MOMENT: SignedDuration = SignedDuration::from_secs(30);

/// One run, from the first look to the last write. Never fails: the end and what led to it are in
/// the report.
pub async fn rotate(
    config: &Config,
    environment_secret: Option<SecretString>,
    shutdown: &Shutdown,
) -> (End, Report) {
    let mut report = Report::new(config);
    let gitlab = match Gitlab::new(config) {
        Ok(gitlab) => gitlab,
        Err(error) => {
            let end = End::Error(error);
            report.close(config, &end, None, Vec::new(), 0, 0, (0, 0));
            return (end, report);
        }
    };
    let aws = Aws::new(config, environment_secret).await;
    let mut run = Run {
        config,
        gitlab: &gitlab,
        aws: &aws,
        policy: policy(config),
        shutdown,
        seen: None,
        lists: Lists(Vec::new()),
        secrets: BTreeMap::new(),
        owners: Vec::new(),
        records: Vec::new(),
        rotators: Vec::new(),
        token: None,
        identity: None,
        listed: Boottime::now(),
        own: None,
        secret_sent: false,
        started: BTreeSet::new(),
        deferred_error: None,
        wait_until: None,
        pause: Duration::from_secs(1),
        stale: false,
        keep_record: false,
        taken_over: Vec::new(),
        deploys: Vec::new(),
        effects: 0,
        report: &mut report,
    };
    let mut expired = std::pin::pin!(shutdown.expired());
    let (end, is_late) = tokio::select! {
        end = run.go() => (end, false),
        signal = &mut expired => (End::Error(Error::Stopped { signal }), true),
    };
    if is_late {
        let _ = tokio::time::timeout(LAST_WRITE, run.release(&end)).await;
    } else {
        tokio::select! {
            () = run.release(&end) => {}
            _ = expired => {}
        }
    }
    let (seen, deploys, effects) = (run.seen.take(), std::mem::take(&mut run.deploys), run.effects);
    report.close(config, &end, seen.as_ref(), deploys, effects, gitlab.calls(), aws.calls());
    (end, report)
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
    }
}

/// A daily job does not start at the same second each day: a time of whole days is over an hour
/// early, else it would cost a day more.
fn by_day(span: SignedDuration) -> SignedDuration {
    if span.as_hours() >= 24 { span - SignedDuration::from_hours(1) } else { span }
}

struct Run<'a> {
    config: &'a Config,
    gitlab: &'a Gitlab,
    aws: &'a Aws,
    policy: Policy,
    shutdown: &'a Shutdown,
    seen: Option<Observed>,
    lists: Lists,
    /// Secrets at hand, by the key they belong to.
    secrets: BTreeMap<AccessKeyId, SecretString>,
    /// What STS has said of readable values: a secret never changes hands.
    owners: Vec<(SecretString, SecretOwner)>,
    records: Vec<StoredRecord>,
    /// The jobs of all records at home, whatever their user: rotations do not wait for each other
    /// as for deploys.
    rotators: Vec<JobRef>,
    token: Option<Token>,
    identity: Option<Identity>,
    listed: Boottime,
    /// Our own record's variable and what it says besides the progress.
    own: Option<StoredRecord>,
    /// A write of the new key's secret may have had its effect.
    secret_sent: bool,
    /// Places in which this run has started a deploy.
    started: BTreeSet<usize>,
    /// What went wrong and is told once the rest is put in order.
    deferred_error: Option<Error>,
    wait_until: Option<Timestamp>,
    pause: Duration,
    stale: bool,
    /// The end is not in order: the record stays as it is.
    keep_record: bool,
    /// Records that this run has taken over, each as often: one that stays however often it is
    /// deleted is left to the next run.
    taken_over: Vec<String>,
    deploys: Vec<Deployed>,
    effects: u32,
    report: &'a mut Report,
}

impl Run<'_> {
    async fn go(&mut self) -> End {
        match self.steps().await {
            Ok(end) => end,
            Err(error) => End::Error(error),
        }
    }

    async fn steps(&mut self) -> Result<End, Error> {
        let shutdown = self.shutdown.clone();
        tokio::select! {
            looked = self.observe() => looked?,
            signal = shutdown.requested() => return Err(Error::Stopped { signal }),
        }
        let (mut suspected, mut reread) = (None, false);
        loop {
            self.note_time();
            if let Some(signal) = self.shutdown.signal() {
                self.wind_down(signal)?;
            }
            let Some(seen) = &self.seen else { return Err(Error::ClaimLost(Fenced::Unseen)) };
            let step = plan(seen, &self.policy);
            tracing::debug!(%step, "planned");
            if self.stale && self.wants_a_new_observation(&step) {
                self.stale = false;
                self.observe().await?;
                continue;
            }
            match step {
                Step::Done(done @ Done::Waiting(Waiting::OwnDeploy))
                    if self.deferred_error.is_none() =>
                {
                    // A job that starts within the margin of `drained` would prove nothing, and the
                    // next stage may start at once.
                    self.shutdown.sleep(START_MARGIN.unsigned_abs() + Duration::from_secs(1)).await;
                    return Ok(End::Done(done));
                }
                Step::Done(done) => {
                    return self.deferred_error.take().map_or(Ok(End::Done(done)), Err);
                }
                Step::Refuse(refusal) if self.has_unsent_key() => self.abandon(refusal.into()),
                Step::Refuse(refusal)
                    if refusal.needs_confirmation() && suspected.as_ref() != Some(&refusal) =>
                {
                    tracing::info!(
                        "something is not as expected; looking again in {} s",
                        SECOND_LOOK.as_secs()
                    );
                    suspected = Some(refusal);
                    self.shutdown.sleep(SECOND_LOOK).await;
                    self.observe().await?;
                }
                Step::Refuse(refusal) => {
                    return Err(self.deferred_error.take().unwrap_or(Error::Refused(refusal)));
                }
                Step::Create if self.listed.elapsed() > LIST_HOLDS => self.record_again().await?,
                step if self.config.dry_run
                    && (step.has_effect() || matches!(step, Step::Wait(_))) =>
                {
                    return Ok(End::DryRun(self.rehearse()));
                }
                Step::Disable(_, KeyRole::Old) | Step::Delete(_, KeyRole::Old) if !reread => {
                    reread = true;
                    self.observe_variables().await?;
                }
                step => {
                    reread = false;
                    self.carry_out(&step).await?;
                }
            }
        }
    }

    /// What was recorded before the creation may be out of date: everything is looked at and, where
    /// a key is still to be made, recorded again.
    async fn record_again(&mut self) -> Result<(), Error> {
        self.observe().await?;
        let Some(seen) = self.seen.as_ref().filter(|seen| plan(seen, &self.policy) == Step::Create)
        else {
            return Ok(());
        };
        preflight::enough_time(self.config, &self.gitlab.fence, seen.now)?;
        self.record(Checkpoint::Begin).await?;
        if let Some(seen) = &mut self.seen {
            seen.apply(&Step::Record(Checkpoint::Begin), None);
        }
        Ok(())
    }

    async fn carry_out(&mut self, step: &Step) -> Result<(), Error> {
        let started = self.report.start(step, self.gitlab.now());
        let shutdown = self.shutdown.clone();
        // Between creation and publication a signal is answered by the plan, elsewhere at once.
        let critical = matches!(
            step,
            Step::Create | Step::WriteSecret { .. } | Step::WriteId { .. } | Step::Delete(..)
        ) || self.shutdown.signal().is_some();
        let result = tokio::select! {
            result = self.act(step) => result,
            _ = shutdown.requested(), if !critical => return Ok(()),
        };
        self.report.end(&started, step, result.is_ok());
        match result {
            Ok(made) => {
                if step.has_effect() {
                    self.effects += 1;
                }
                if let Some(seen) = &mut self.seen {
                    seen.apply(step, made);
                }
                self.afterwards(step).await
            }
            Err(error) => self.after(step, error).await,
        }
    }

    /// What follows from a step beyond what is seen.
    async fn afterwards(&mut self, step: &Step) -> Result<(), Error> {
        match step {
            Step::Claim => {
                if let (Some(seen), Some(own)) = (&mut self.seen, &self.own) {
                    seen.claim = Some(Claim { name: own.name.clone(), progress: None });
                }
                self.observe().await?;
            }
            Step::Record(Checkpoint::Published) => {
                self.sign_with_the_new_key();
                self.observe_variables().await?;
            }
            Step::Record(Checkpoint::Begin) => self.secret_sent = false,
            Step::Record(Checkpoint::Finished) => self.own = None,
            _ => {}
        }
        Ok(())
    }

    /// What follows from a step that failed.
    async fn after(&mut self, step: &Step, error: Error) -> Result<(), Error> {
        if matches!(error, Error::ClaimLost(_)) {
            self.keep_record = true;
            return Err(error);
        }
        if self.has_unsent_key() && !matches!(step, Step::Delete(..)) {
            self.abandon(error);
            return Ok(());
        }
        let torn =
            matches!(step, Step::WriteSecret { .. } | Step::WriteId { .. }) && self.may_be_torn();
        // What GitLab put into another variable (a group's scope that it dropped) lands there
        // again, however often it is sent.
        let elsewhere = matches!(
            error,
            Error::EchoDiffers { field: "key" | "environment scope", .. }
                | Error::NoGroupScopes { .. }
        );
        if torn
            && elsewhere
            && self.observe_variables().await.is_ok()
            && !self.seen.as_ref().is_some_and(|seen| self.is_torn(seen))
        {
            return Err(self.deferred_error.take().unwrap_or(error));
        }
        let ends = self.gitlab.fence.job_ends();
        let time_left =
            self.gitlab.now().is_some_and(|now| ends.is_some_and(|ends| now + LAST_MOMENT < ends));
        // A run that was told to stop has a few seconds, which `Stop::expired` counts.
        let requested = self.shutdown.signal().is_some();
        if torn && (time_left || requested) {
            tracing::warn!("{error}; a pair is torn, so this is tried again until the job ends");
            if requested {
                tokio::time::sleep(Duration::from_millis(500)).await;
            } else {
                self.shutdown.sleep(self.pause).await;
            }
            self.pause = (self.pause * 2).min(Duration::from_secs(30));
            // Looking may fail as well: the write is tried again all the same.
            let _ = self.observe_variables().await;
            return Ok(());
        }
        Err(self.deferred_error.take().unwrap_or(error))
    }

    fn has_unsent_key(&self) -> bool {
        let new_key = self.seen.as_ref().and_then(|seen| seen.new_key.as_ref());
        new_key.is_some_and(|new_key| !new_key.abandoned) && !self.secret_sent
    }

    /// Whether a target may hold half of the new pair.
    fn may_be_torn(&self) -> bool {
        self.secret_sent || self.seen.as_ref().is_some_and(|seen| self.is_torn(seen))
    }

    fn is_torn(&self, seen: &Observed) -> bool {
        matches!(plan(seen, &self.policy), Step::WriteId { .. })
    }

    /// The new key goes in this same run; then `error` is told.
    fn abandon(&mut self, error: Error) {
        tracing::warn!("{error}; the new key is deleted again, nothing else has changed");
        self.deferred_error.get_or_insert(error);
        if let Some(new_key) = self.seen.as_mut().and_then(|seen| seen.new_key.as_mut()) {
            new_key.abandoned = true;
        }
    }

    /// After a signal: a key that nothing names is deleted, a torn pair is made whole, anything
    /// else ends here.
    fn wind_down(&mut self, signal: i32) -> Result<(), Error> {
        if let Some(seen) = self.seen.as_mut().filter(|seen| seen.attempt == Attempt::Recorded) {
            // Nothing was made and nothing will be.
            seen.attempt = Attempt::Tried;
        }
        if self.has_unsent_key() {
            self.abandon(Error::Stopped { signal });
            return Ok(());
        }
        let seen = self.seen.as_ref();
        let abandoned =
            seen.and_then(|seen| seen.new_key.as_ref()).is_some_and(|new_key| new_key.abandoned);
        // Facts of a key that is gone again would make the next one that a person makes ours.
        let forgets = |seen: &Observed| {
            seen.attempt == Attempt::Tried
                && matches!(plan(seen, &self.policy), Step::Record(Checkpoint::Nothing))
        };
        // Where the end of a secret's write is not known, writing it again is what makes the pair
        // whole.
        let open = |seen: &Observed| {
            self.secret_sent && matches!(plan(seen, &self.policy), Step::WriteSecret { .. })
        };
        if abandoned || seen.is_some_and(|seen| self.is_torn(seen) || open(seen) || forgets(seen)) {
            return Ok(());
        }
        Err(self.deferred_error.take().unwrap_or(Error::Stopped { signal }))
    }

    fn note_time(&mut self) {
        let Some(now) = self.gitlab.now() else { return };
        let leave = self.policy.leave_deploys;
        let over = self.wait_until.is_some_and(|until| now >= until);
        if let Some(seen) = &mut self.seen {
            seen.now = now;
            seen.waited_out = leave || over;
        }
    }

    /// After a long wait what is seen may have changed; what only continues the wait needs no fresh
    /// look.
    fn wants_a_new_observation(&self, step: &Step) -> bool {
        step.has_effect()
            && !matches!(step, Step::Record(Checkpoint::Drained) | Step::StartDeploy(_))
    }

    async fn act(&mut self, step: &Step) -> Result<Option<Made>, Error> {
        match step {
            Step::Ask(query) => self.ask(query).await.map(|()| None),
            Step::Claim => self.claim().await.map(|()| None),
            Step::TakeOver => self.take_over().await.map(|()| None),
            Step::Record(checkpoint) => self.record(*checkpoint).await.map(|()| None),
            Step::Create => self.create().await,
            Step::Verify(key) => self.verify(key).await.map(|()| None),
            Step::WriteSecret { target, key } => {
                self.write(*target, PairPart::Secret, key).await.map(|()| None)
            }
            Step::WriteId { target, key } => {
                self.write(*target, PairPart::Id, key).await.map(|()| None)
            }
            Step::StartDeploy(place) => self.start_deploy(*place).await.map(Some),
            Step::Wait(_) => self.wait().await.map(|()| None),
            Step::Disable(key, _) => {
                self.sign_with_the_new_key();
                self.aws.disable(self.user(), key, || self.gitlab.may_act()).await.map(|()| None)
            }
            Step::Delete(key, _) => {
                self.sign_with_the_new_key();
                self.aws.delete(self.user(), key, || self.gitlab.may_act()).await.map(|()| None)
            }
            Step::Done(_) | Step::Refuse(_) => Ok(None),
        }
    }

    fn user(&self) -> &str {
        self.seen.as_ref().map_or("", |seen| &seen.user)
    }

    /// An end in order takes `ends` out of the record, and a record without progress away.
    async fn release(&mut self, end: &End) {
        let Some(own) = &self.own else { return };
        if self.keep_record || matches!(end, End::Error(Error::ClaimLost(_))) {
            return;
        }
        let released = match own.record.progress.clone() {
            Some(progress) => self.write_record(Some(progress), false).await,
            None => variables::delete_record(self.gitlab, self.home(), &own.name, &own.scope).await,
        };
        if released.is_err() {
            tracing::warn!(
                "this run's record could not be released; it counts until GitLab says that the job \
                 has ended"
            );
        }
    }

    /// The steps that a run without `ROTATOR_DRY_RUN` would take, as far as everything goes well.
    fn rehearse(&self) -> Vec<String> {
        let Some(mut seen) = self.seen.clone() else { return Vec::new() };
        let mut steps = Vec::new();
        // A rotation has some twenty steps; the bound is for a mistake of ours.
        for _ in 0..64 {
            let step = plan(&seen, &self.policy);
            let mut made = None;
            match &step {
                Step::Done(Done::Waiting(_)) | Step::Refuse(_) | Step::Wait(_) => {
                    steps.push(step.to_string());
                    break;
                }
                Step::Done(_) => break,
                Step::Ask(query) => imagine(&mut seen, query, places(self.config).len()),
                Step::Create => {
                    let id = AccessKeyId::parse("AKIA000000000000NEW0")
                        .unwrap_or_else(|| seen.keys[0].id.clone());
                    made = Some(Made::Key(Key { id, active: true, created: seen.now, used: None }));
                }
                Step::StartDeploy(index) => {
                    let place = places(self.config)
                        .get(*index)
                        .map(|place| place.name.clone())
                        .unwrap_or_default();
                    made = Some(Made::Deploy(record::RecordedDeploy {
                        place,
                        pipeline: 0,
                        job: None,
                        proven: None,
                    }));
                }
                _ => {}
            }
            if step.has_effect() {
                steps.push(step.to_string());
            }
            seen.apply(&step, made);
        }
        steps
    }
}

/// The answer that a dry run supposes: all goes well.
fn imagine(seen: &mut Observed, query: &Query, places: usize) {
    match query {
        Query::WhoseSecrets => {
            for target in &mut seen.targets {
                let id = target.id.key().cloned();
                if let SecretSeen::Readable { owner, .. } = &mut target.secret {
                    *owner = id.map_or(SecretOwner::Nobody, SecretOwner::Key);
                }
            }
        }
        Query::LastUse(id) => {
            for key in seen.keys.iter_mut().filter(|key| key.id == *id) {
                key.used = Some(crate::access_key::Use::Never);
            }
        }
        Query::Preflight => seen.preflight = Some(Vec::new()),
        Query::InFlightJobs => seen.in_flight_jobs = Some(Vec::new()),
        Query::Deploys => {
            let recorded =
                seen.progress().map(|progress| progress.deploys.clone()).unwrap_or_default();
            let deploys = recorded
                .into_iter()
                .map(DeploySeen::Proven)
                .chain(std::iter::repeat(DeploySeen::Startable));
            seen.deploys = Some(deploys.take(places).collect());
        }
    }
}
