//! Carrying out a step: the hands of a run. Nothing here decides what comes next.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

use super::Run;
use super::claim::Unclear;
use crate::access_key::{AccessKeyId, Key};
use crate::aws::CreateFailure;
use crate::deploy::{self, places};
use crate::error::Error;
use crate::fence::Fenced;
use crate::plan::{CREATION_WINDOW, Cause, Made, Scope, Step, Waiting};
use crate::record::Asked;
use crate::targets::{self, PairPart};

/// A refusal that blames a person is pronounced only when a second observation, so much later, says
/// the same.
const SECOND_LOOK: Duration = Duration::from_secs(10);
/// `CreateAccessKey` is repeated no later than this after the list of keys; less where the request
/// itself may take longer, for a key counts as ours only within [`CREATION_WINDOW`] of that list.
const CREATE_WITHIN: Duration = Duration::from_secs(90);
/// What a run keeps of the job's time when it waits for a deploy.
const RESERVE: SignedDuration = SignedDuration::from_mins(5);
/// A torn pair is tried again after a pause of at most this.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// The deploy is looked at again after a pause of at most this.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl Run<'_> {
    pub(super) async fn execute(&mut self, step: &Step) -> Result<Option<Made>, Error> {
        self.sign_with_the_new_key();
        match step {
            Step::Ask(query) => self.answer(query).await?,
            Step::Claim => return self.claim().await.map(Some),
            Step::TakeOver => self.take_over().await?,
            Step::Record(checkpoint) => self.reach(*checkpoint).await?,
            Step::Create => return self.create().await.map(Some),
            Step::Verify(key) => self.verify(key).await?,
            Step::WriteSecret { target, key } => {
                self.write(*target, PairPart::Secret, key).await?;
            }
            Step::WriteId { target, key } => self.write(*target, PairPart::Id, key).await?,
            Step::StartDeploy(place) => return self.start_deploy(*place).await,
            Step::Wait(waiting) => self.wait(waiting).await,
            Step::Disable(key, _) => self.disable(key).await?,
            Step::Delete(key, _) => self.delete(key).await?,
            Step::Observe(Scope::Everything) => self.observe().await?,
            Step::Observe(Scope::Variables) => self.observe_variables().await?,
            Step::Observe(Scope::Everywhere) => self.observe_everywhere().await?,
            Step::Confirm(_) => self.look_again().await?,
            Step::Abandon(cause) => self.abandon(cause),
            Step::Retry => self.retry().await?,
            Step::Done(_) | Step::Refuse(_) | Step::Stop => {}
        }
        Ok(None)
    }

    async fn look_again(&mut self) -> Result<(), Error> {
        let seconds = SECOND_LOOK.as_secs();
        tracing::info!("something is not as expected; looking again in {seconds} s");
        self.context.shutdown.sleep(SECOND_LOOK).await;
        self.sources.secrets.forget_refused();
        self.observe().await
    }

    /// Keeps the error that is told once what was begun is in order.
    fn abandon(&mut self, cause: &Cause) {
        let error = match cause {
            Cause::Failure => self.error.take().expect("a step has just failed"),
            Cause::Refusal(refusal) => Error::Refused(refusal.clone()),
            Cause::Signal => {
                let signal = self.context.shutdown.signal().expect("a signal has come");
                Error::Stopped { signal }
            }
        };
        if self.seen.run.has_unsent_key() {
            tracing::warn!("{error}; the new key is deleted again, nothing else has changed");
        }
        self.deferred.get_or_insert(error);
    }

    /// Reading may fail as well; then this is tried again.
    async fn retry(&mut self) -> Result<(), Error> {
        if let Some(error) = self.error.take() {
            tracing::warn!("{error}; a pair is torn, so this is tried again until the job ends");
        }
        if self.seen.run.stop_requested {
            tokio::time::sleep(Duration::from_millis(500)).await;
        } else {
            self.context.shutdown.sleep(self.waits.pause).await;
        }
        self.waits.pause = (self.waits.pause * 2).min(LONGEST_RETRY);
        self.observe_variables().await
    }

    async fn wait(&mut self, waiting: &Waiting) {
        let now = self.context.gitlab.now().unwrap_or(self.seen.now);
        if let Waiting::Margin { until } | Waiting::Afterlife { until } = waiting {
            let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
            self.context.shutdown.sleep(left).await;
            // Where no reply carries a date, the wait itself is the clock.
            self.seen.now = self.context.gitlab.now().unwrap_or(*until);
            return;
        }
        self.waits.began.get_or_insert(now);
        self.context.shutdown.sleep(self.waits.pause).await;
        self.waits.pause = (self.waits.pause * 3 / 2).min(LONGEST_WAIT);
    }

    /// Until when this run may wait; `None` before its first wait.
    pub(super) fn waits_until(&self) -> Option<Timestamp> {
        let timeout = self.context.config.deploy.timeout;
        let limit = self.waits.began? + if self.waits.gives_way { timeout / 2 } else { timeout };
        let ends = self.context.gitlab.fence.job_ends().map(|ends| ends - RESERVE);
        Some(ends.map_or(limit, |ends| ends.min(limit)))
    }

    async fn create(&mut self) -> Result<Made, Error> {
        let context = &self.context;
        let request = SignedDuration::try_from(context.config.http_timeout).unwrap_or_default();
        let within = CREATE_WITHIN.min((CREATION_WINDOW - request).unsigned_abs());
        // Whatever ends this run before that is known, its record counts on: what it has made may
        // show up late.
        self.record.unclear = Some(Unclear::Creation);
        let may_act = async || {
            context.gitlab.may_act().await?;
            if self.sources.listed.elapsed() < within { Ok(()) } else { Err(Fenced::Unseen) }
        };
        let made = context.aws.create(&self.seen.user, may_act).await;
        if !matches!(made, Err(CreateFailure::Unclear)) {
            self.record.unclear = None;
        }
        match made {
            Ok(created) => {
                let readable = self.sources.lists.secrets(context.config).into_iter().flatten();
                self.sources.secrets.add(created.id.clone(), created.secret, readable);
                let (id, created) = (created.id, created.created);
                Ok(Made::Key(Key { id, active: true, created, used: None }))
            }
            Err(CreateFailure::Refused(error)) => Err(error.into()),
            Err(CreateFailure::Unclear) => self.settle_creation().await,
        }
    }

    /// The reply to `CreateAccessKey` was lost: what is there now decides, and the list lags too.
    async fn settle_creation(&mut self) -> Result<Made, Error> {
        tracing::warn!("the reply to CreateAccessKey was lost; looking for what it made");
        let before = self.seen.keys.len();
        for pause in [5, 6, 6] {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            match self.observe().await {
                Ok(()) if self.seen.keys.len() > before => {
                    // Its secret is lost; the plan removes it, and this run makes no other.
                    self.deferred.get_or_insert(Error::CreatedOrphan);
                    self.record.unclear = None;
                    return Ok(Made::Orphan);
                }
                Err(error @ Error::ClaimLost(_)) => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Err(Error::CreateUnclear)
    }

    async fn verify(&mut self, key: &AccessKeyId) -> Result<(), Error> {
        let secret = self.sources.secrets.of(key);
        let secret = secret.expect("a key that is to be verified was made by this process");
        let account = self.sources.identity.as_ref().map(|identity| identity.account.as_str());
        let timeout = self.context.config.verify_timeout;
        self.context.aws.verify(key, secret, &self.seen.user, account, timeout).await?;
        Ok(())
    }

    async fn write(
        &mut self,
        index: usize,
        part: PairPart,
        key: &AccessKeyId,
    ) -> Result<(), Error> {
        let context = &self.context;
        let value = match part {
            PairPart::Secret => {
                let secret = self.sources.secrets.of(key).cloned();
                secret.expect("the plan writes a secret that this process has made or read")
            }
            PairPart::Id => SecretString::from(key.full()),
        };
        let target = &context.config.targets[index];
        let lists = &self.sources.lists;
        // A write that is given up may still have its effect: until that is known nobody else takes
        // over.
        self.record.unclear = Some(Unclear::Write { target: index, part, key: key.clone() });
        let written =
            targets::write(context.gitlab, context.config, lists, target, part, key, &value).await;
        let is_open = |error: &Error| matches!(error, Error::GitLab { .. }) && !error.is_definite();
        if !written.as_ref().err().is_some_and(is_open) {
            self.record.unclear = None;
        }
        written
    }

    /// The attempt is noted; what comes of it is noted in its place.
    async fn start_deploy(&mut self, index: usize) -> Result<Option<Made>, Error> {
        let context = &self.context;
        let places = places(context.config);
        let mut progress = self.seen.progress().cloned().unwrap_or_default();
        let attempt = progress.attempts.last().expect("a deploy is asked for once that is noted");
        let in_vain = self.deploys.in_vain.get(&index).copied();
        let (gitlab, config, place) = (context.gitlab, context.config, &places[index]);
        let started = deploy::start(gitlab, config, place, attempt, &progress, in_vain);
        let started = match started.await {
            Err(error) if !error.is_definite() => {
                // Asked for without an answer, it is asked for once more in this run.
                if !self.deploys.unanswered.insert(index) {
                    self.deploys.started.insert(index);
                    if let Asked::Job(name) = &attempt.asked {
                        self.deploys.rerun.insert((index, name.clone()));
                    }
                }
                return Err(error);
            }
            started => started?,
        };
        match &started {
            Some(started) => {
                if let Some(Asked::Job(name)) = progress.attempts.last().map(|last| &last.asked) {
                    self.deploys.rerun.insert((index, name.clone()));
                }
                self.deploys.started.insert(index);
                self.waits.pause = Duration::from_secs(1);
                progress.record_deploy(started.clone());
            }
            None => progress.withdraw_attempt(),
        }
        self.write_record(Some(progress), true).await?;
        Ok(started.map(Made::Deploy))
    }

    async fn disable(&mut self, key: &AccessKeyId) -> Result<(), Error> {
        let Self { context, seen, .. } = self;
        context.aws.disable(&seen.user, key, || context.gitlab.may_act()).await?;
        Ok(())
    }

    async fn delete(&mut self, key: &AccessKeyId) -> Result<(), Error> {
        let Self { context, seen, .. } = self;
        context.aws.delete(&seen.user, key, || context.gitlab.may_act()).await?;
        Ok(())
    }

    /// Once the new key is published it signs in the old one's place: it retires the old key, and
    /// this run's own calls must not count as a use of it.
    fn sign_with_the_new_key(&self) {
        let aws = self.context.aws;
        let progress = self.seen.progress();
        let published = progress.and_then(|progress| progress.published.as_ref());
        let (Some(progress), Some(published), Some(signer)) =
            (progress, published, aws.signing_key())
        else {
            return;
        };
        if progress.is_old(&signer)
            && let Some(secret) = self.sources.secrets.of(&published.key)
        {
            aws.sign_with(&published.key, secret);
        }
    }
}
