//! Acting: the claim, the record, the new key, the writes of the pair, the start of a deploy.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;

use super::Run;
use crate::access_key::{AccessKeyId, Key};
use crate::aws::CreateFailure;
use crate::config::Owner;
use crate::deploy::{self, places};
use crate::error::Error;
use crate::fence::Fenced;
use crate::gitlab::variables::{self, Lists, PairPart, StoredRecord};
use crate::plan::{Attempt, Checkpoint, Made, Observed, Refusal, SecretOwner, Step};
use crate::record::{self, Progress, Record};

const CLAIM_TRIES: u32 = 4;
/// With the time that the call itself may take, less than the two minutes in which a key counts as
/// made by us.
const CREATE_WITHIN: Duration = Duration::from_secs(90);

impl Run<'_> {
    pub(super) fn home(&self) -> &Owner {
        &self.config.targets[0].owner
    }

    /// Announce, then look: sound without compare-and-swap, for of two runs at least the later one
    /// sees the other.
    pub(super) async fn claim(&mut self) -> Result<(), Error> {
        for tries in 1..=CLAIM_TRIES {
            let now = self.gitlab.now().unwrap_or_else(Timestamp::now);
            let job = self.gitlab.fence.job();
            let whose =
                job.map_or_else(|| format!("L{}", now.as_second()), |job| job.job.to_string());
            let name = format!("{}{whose}_{:08x}", record::PREFIX, fastrand::u32(..));
            let bare = Record {
                user: self.user().to_owned(),
                job,
                at: now,
                ends: Some(self.gitlab.fence.ends(now)),
                progress: None,
            };
            // Ours from here on: should a later call fail, it is taken away at the end.
            self.own = Some(StoredRecord {
                name: name.clone(),
                scope: record::SCOPE.to_owned(),
                record: bare.clone(),
            });
            let scope = variables::make_record(self.gitlab, self.home(), &name, &bare).await?;
            self.own =
                Some(StoredRecord { name: name.clone(), scope: scope.clone(), record: bare });
            let looks = if self.lists.have_pages() { 2 } else { 1 };
            let mut busy = false;
            for _ in 0..looks {
                busy |= self.sees_another(&name).await?;
            }
            if !busy {
                return Ok(());
            }
            variables::delete_record(self.gitlab, self.home(), &name, &scope).await?;
            self.own = None;
            if tries < CLAIM_TRIES {
                self.shutdown.sleep(Duration::from_millis(fastrand::u64(1000..5000))).await;
            }
        }
        Err(Error::Refused(Refusal::Busy))
    }

    pub(super) async fn sees_another(&self, own: &str) -> Result<bool, Error> {
        let home = self.home();
        let lists = Lists(vec![variables::List {
            owner: home.clone(),
            variables: variables::list(self.gitlab, home).await?,
        }]);
        let user = self.user();
        for other in lists.records(self.config)? {
            if other.name != own
                && other.record.user.eq_ignore_ascii_case(user)
                && !other.record.released()
                && self.is_alive(&other.record).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) async fn take_over(&mut self) -> Result<(), Error> {
        let progress = self
            .seen
            .as_ref()
            .and_then(|seen| seen.progress().filter(|progress| progress.unfinished()).cloned());
        if progress.is_some() {
            self.write_record(progress, true).await?;
        }
        let over: Vec<String> = self
            .seen
            .iter()
            .flat_map(|seen| &seen.records)
            .filter(|record| record.is_over())
            .map(|record| record.name.clone())
            .collect();
        for other in self.records.iter().filter(|other| over.contains(&other.name)) {
            variables::delete_record(self.gitlab, self.home(), &other.name, &other.scope).await?;
        }
        self.taken_over.extend(over);
        Ok(())
    }

    pub(super) async fn record(&mut self, checkpoint: Checkpoint) -> Result<(), Error> {
        let progress = self.seen.as_ref().and_then(|seen| Progress::recorded(seen, checkpoint));
        self.write_record(progress, checkpoint != Checkpoint::Finished).await
    }

    pub(super) async fn write_record(
        &mut self,
        progress: Option<Progress>,
        held: bool,
    ) -> Result<(), Error> {
        let Some(own) = &self.own else { return Ok(()) };
        let record =
            Record { progress, ends: own.record.ends.filter(|_| held), ..own.record.clone() };
        variables::update_record(self.gitlab, self.home(), &own.name, &own.scope, &record).await?;
        if let Some(own) = &mut self.own {
            own.record = record;
        }
        Ok(())
    }

    pub(super) async fn create(&mut self) -> Result<Option<Made>, Error> {
        // Whatever ends this run before that is known, its record counts on: what it has made may
        // show up late.
        self.keep_record = true;
        let may_act = async || {
            self.gitlab.may_act().await?;
            if self.listed.elapsed() < CREATE_WITHIN { Ok(()) } else { Err(Fenced::Unseen) }
        };
        let made = self.aws.create(self.user(), may_act).await;
        self.keep_record = matches!(made, Err(CreateFailure::Unclear));
        if let Some(seen) = &mut self.seen {
            seen.attempt = Attempt::Tried;
        }
        match made {
            Ok(new_key_state) => {
                // What was readable before the key was made cannot be its secret.
                let before = self.lists.secrets(self.config).into_iter().flatten();
                self.owners.extend(before.map(|value| (value, SecretOwner::Nobody)));
                let key = Key {
                    id: new_key_state.id.clone(),
                    active: true,
                    created: new_key_state.created,
                    used: None,
                };
                self.secrets.insert(new_key_state.id, new_key_state.secret);
                Ok(Some(Made::Key(key)))
            }
            Err(CreateFailure::Refused(error)) => {
                // What appears from now on is not ours.
                if !matches!(error, Error::ClaimLost(_)) {
                    self.record(Checkpoint::Nothing).await?;
                    if let Some(seen) = &mut self.seen {
                        seen.apply(&Step::Record(Checkpoint::Nothing), None);
                    }
                }
                Err(error)
            }
            Err(CreateFailure::Unclear) => self.settle_creation().await,
        }
    }

    /// The reply to `CreateAccessKey` was lost: what is there now decides, and the list lags too.
    pub(super) async fn settle_creation(&mut self) -> Result<Option<Made>, Error> {
        tracing::warn!("the reply to CreateAccessKey was lost; looking for what it made");
        let before = self.seen.as_ref().map_or(0, |seen| seen.keys.len());
        for pause in [5, 6, 6] {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            self.observe().await?;
            if self.seen.as_ref().is_some_and(|seen| seen.keys.len() > before) {
                // Its secret is lost; the plan removes it, and this run makes no other.
                self.deferred_error = Some(Error::CreatedOrphan);
                self.keep_record = false;
                return Ok(None);
            }
        }
        Err(Error::CreateUnclear)
    }

    pub(super) async fn verify(&mut self, key: &AccessKeyId) -> Result<(), Error> {
        let Some(secret) = self.secrets.get(key) else { return Ok(()) };
        let account = self.identity.as_ref().map(|identity| identity.account.as_str());
        self.aws.verify(key, secret, self.user(), account, self.config.verify_timeout).await
    }

    pub(super) async fn write(
        &mut self,
        target: usize,
        part: PairPart,
        key: &AccessKeyId,
    ) -> Result<(), Error> {
        let secret = match part {
            PairPart::Secret => self.secrets.get(key).cloned(),
            PairPart::Id => Some(SecretString::from(key.full())),
        };
        let Some(value) = secret else { return Ok(()) };
        let target = &self.config.targets[target];
        // A write that is given up may still have its effect: until that is known nobody else takes
        // over.
        self.keep_record = true;
        let written =
            variables::write(self.gitlab, self.config, &self.lists, target, part, key, &value)
                .await;
        self.keep_record =
            matches!(&written, Err(error @ Error::GitLab { .. }) if !error.is_definite());
        if part == PairPart::Secret {
            self.secret_sent |= written.as_ref().err().is_none_or(|error| !error.is_definite());
        }
        written
    }

    pub(super) async fn start_deploy(&mut self, index: usize) -> Result<Made, Error> {
        let drained = self
            .seen
            .as_ref()
            .and_then(|seen| seen.progress().and_then(|progress| progress.drained))
            .unwrap_or_else(Timestamp::now);
        let places = places(self.config);
        let user = self.token.as_ref().and_then(|token| token.user_id);
        let mut progress =
            self.seen.as_ref().and_then(|seen| seen.progress().cloned()).unwrap_or_default();
        // What is noted where a start is planned came to nothing.
        let lost = progress
            .deploys
            .iter()
            .find(|recorded| recorded.place == places[index].name)
            .map(|recorded| recorded.pipeline);
        let recorded = deploy::start(
            self.gitlab,
            self.config,
            &places[index],
            deploy::Ours { drained, user, lost },
        )
        .await?;
        self.started.insert(index);
        self.pause = Duration::from_secs(1);
        progress.deploys.retain(|other| other.place != recorded.place);
        progress.deploys.push(recorded.clone());
        self.write_record(Some(progress), true).await?;
        Ok(Made::Deploy(recorded))
    }

    /// Where the credentials in use are the old key's own, the new key retires it.
    pub(super) fn sign_with_the_new_key(&self) {
        let Some(progress) = self.seen.as_ref().and_then(Observed::progress) else { return };
        let (Some(published), Some(credential_source)) =
            (&progress.published, self.aws.signing_key())
        else {
            return;
        };
        if progress.is_old(&credential_source)
            && let Some(secret) = self.secrets.get(&published.key)
        {
            self.aws.sign_with(&published.key, secret);
        }
    }
}
