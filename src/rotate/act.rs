//! Acting: the claim, the record, the new key, the writes of the pair, the start of a deploy.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;

use super::Run;
use crate::config::Owner;
use crate::deploy::{self, places};
use crate::fence::Fenced;
use crate::keys::CreateFailure;
use crate::plan::{Begun, Key, Made, Note, Observed, Owner as SecretOwner, Refusal, Step};
use crate::record::{self, AccessKeyId, Facts, Record};
use crate::trouble::Trouble;
use crate::variables::{self, Half, Lists, Written};

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
    pub(super) async fn claim(&mut self) -> Result<(), Trouble> {
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
                facts: None,
            };
            // Ours from here on: should a later call fail, it is taken away at the end.
            self.own = Some(Written {
                name: name.clone(),
                scope: record::SCOPE.to_owned(),
                record: bare.clone(),
            });
            let scope = variables::make_record(self.gitlab, self.home(), &name, &bare).await?;
            self.own = Some(Written { name: name.clone(), scope: scope.clone(), record: bare });
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
                self.stop.sleep(Duration::from_millis(fastrand::u64(1000..5000))).await;
            }
        }
        Err(Trouble::Refused(Refusal::Busy))
    }

    pub(super) async fn sees_another(&self, own: &str) -> Result<bool, Trouble> {
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

    pub(super) async fn take_over(&mut self) -> Result<(), Trouble> {
        let facts = self
            .seen
            .as_ref()
            .and_then(|seen| seen.facts().filter(|facts| facts.unfinished()).cloned());
        if facts.is_some() {
            self.write_record(facts, true).await?;
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

    pub(super) async fn record(&mut self, note: Note) -> Result<(), Trouble> {
        let facts = self.seen.as_ref().and_then(|seen| Facts::noted(seen, note));
        self.write_record(facts, note != Note::Finished).await
    }

    pub(super) async fn write_record(
        &mut self,
        facts: Option<Facts>,
        held: bool,
    ) -> Result<(), Trouble> {
        let Some(own) = &self.own else { return Ok(()) };
        let record = Record { facts, ends: own.record.ends.filter(|_| held), ..own.record.clone() };
        variables::update_record(self.gitlab, self.home(), &own.name, &own.scope, &record).await?;
        if let Some(own) = &mut self.own {
            own.record = record;
        }
        Ok(())
    }

    pub(super) async fn create(&mut self) -> Result<Option<Made>, Trouble> {
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
            seen.begun = Begun::Tried;
        }
        match made {
            Ok(fresh) => {
                // What was readable before the key was made cannot be its secret.
                let before = self.lists.secrets(self.config).into_iter().flatten();
                self.owners.extend(before.map(|value| (value, SecretOwner::Nobody)));
                let key =
                    Key { id: fresh.id.clone(), active: true, created: fresh.created, used: None };
                self.secrets.insert(fresh.id, fresh.secret);
                Ok(Some(Made::Key(key)))
            }
            Err(CreateFailure::Refused(trouble)) => {
                // What appears from now on is not ours.
                if !matches!(trouble, Trouble::ClaimLost(_)) {
                    self.record(Note::Nothing).await?;
                    if let Some(seen) = &mut self.seen {
                        seen.apply(&Step::Record(Note::Nothing), None);
                    }
                }
                Err(trouble)
            }
            Err(CreateFailure::Unclear) => self.settle_creation().await,
        }
    }

    /// The reply to `CreateAccessKey` was lost: what is there now decides, and the list lags too.
    pub(super) async fn settle_creation(&mut self) -> Result<Option<Made>, Trouble> {
        tracing::warn!("the reply to CreateAccessKey was lost; looking for what it made");
        let before = self.seen.as_ref().map_or(0, |seen| seen.keys.len());
        for pause in [5, 6, 6] {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            self.observe().await?;
            if self.seen.as_ref().is_some_and(|seen| seen.keys.len() > before) {
                // Its secret is lost; the plan removes it, and this run makes no other.
                self.sorry = Some(Trouble::CreatedOrphan);
                self.keep_record = false;
                return Ok(None);
            }
        }
        Err(Trouble::CreateUnclear)
    }

    pub(super) async fn verify(&mut self, key: &AccessKeyId) -> Result<(), Trouble> {
        let Some(secret) = self.secrets.get(key) else { return Ok(()) };
        let account = self.identity.as_ref().map(|identity| identity.account.as_str());
        self.aws.verify(key, secret, self.user(), account, self.config.verify_timeout).await
    }

    pub(super) async fn write(
        &mut self,
        target: usize,
        half: Half,
        key: &AccessKeyId,
    ) -> Result<(), Trouble> {
        let secret = match half {
            Half::Secret => self.secrets.get(key).cloned(),
            Half::Id => Some(SecretString::from(key.full())),
        };
        let Some(value) = secret else { return Ok(()) };
        let target = &self.config.targets[target];
        // A write that is given up may still have its effect: until that is known nobody else takes
        // over.
        self.keep_record = true;
        let written =
            variables::write(self.gitlab, self.config, &self.lists, target, half, key, &value)
                .await;
        self.keep_record =
            matches!(&written, Err(trouble @ Trouble::GitLab { .. }) if !trouble.is_definite());
        if half == Half::Secret {
            self.secret_sent |= written.as_ref().err().is_none_or(|trouble| !trouble.is_definite());
        }
        written
    }

    pub(super) async fn start_deploy(&mut self, index: usize) -> Result<Made, Trouble> {
        let quiet = self
            .seen
            .as_ref()
            .and_then(|seen| seen.facts().and_then(|facts| facts.quiet))
            .unwrap_or_else(Timestamp::now);
        let places = places(self.config);
        let user = self.token.as_ref().and_then(|token| token.user_id);
        let mut facts =
            self.seen.as_ref().and_then(|seen| seen.facts().cloned()).unwrap_or_default();
        // What is noted where a start is planned came to nothing.
        let lost = facts
            .deploys
            .iter()
            .find(|noted| noted.place == places[index].name)
            .map(|noted| noted.pipeline);
        let noted = deploy::start(
            self.gitlab,
            self.config,
            &places[index],
            deploy::Ours { quiet, user, lost },
        )
        .await?;
        self.started.insert(index);
        self.pause = Duration::from_secs(1);
        facts.deploys.retain(|other| other.place != noted.place);
        facts.deploys.push(noted.clone());
        self.write_record(Some(facts), true).await?;
        Ok(Made::Deploy(noted))
    }

    /// Where the credentials in use are the old key's own, the new key retires it.
    pub(super) fn sign_with_the_new_key(&self) {
        let Some(facts) = self.seen.as_ref().and_then(Observed::facts) else { return };
        let (Some(published), Some(signer)) = (&facts.published, self.aws.signing_key()) else {
            return;
        };
        if facts.is_old(&signer)
            && let Some(secret) = self.secrets.get(&published.key)
        {
            self.aws.sign_with(&published.key, secret);
        }
    }
}
