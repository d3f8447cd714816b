//! Observation: reads keys, variables, records and the token concurrently, into `Observed`.
//!
//! [`Sources`] has what only the steps need: values, lists and the token.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};

use super::claim::OwnRecord;
use super::others::{Other, Who};
use super::{Context, Run};
use crate::access_key::{AccessKeyId, Key};
use crate::aws::{AwsError, CredentialAdvice, Identity, Listing, YOUNG};
use crate::config::{Action, Owner};
use crate::error::Error;
use crate::fence::Boottime;
use crate::gitlab::records::StoredRecord;
use crate::gitlab::token::Token;
use crate::net::{CLOCK_TOLERANCE, are_apart};
use crate::plan::{
    Attempt, GivenPair, Observed, RecordSeen, Refusal, RunState, SecretOwner, SecretSeen,
    TargetSeen,
};
use crate::record::{JobRef, Record};
use crate::targets::Lists;

/// How long IAM's list may leave out a key that this process has created.
const LIST_LAG: SignedDuration = SignedDuration::from_mins(1);

/// What the observation read besides ids and dates.
pub(super) struct Sources {
    pub(super) lists: Lists,
    /// The records of other runs for the same user.
    pub(super) records: Vec<StoredRecord>,
    /// The jobs of all records, for every user. A rotation does not wait for these jobs to
    /// end.
    pub(super) rotators: Vec<JobRef>,
    pub(super) token: Token,
    pub(super) identity: Option<Identity>,
    /// When the keys were listed.
    pub(super) listed: Boottime,
    pub(super) secrets: Secrets,
}

/// The secrets that this process knows, and whose they are.
#[derive(Default)]
pub(super) struct Secrets {
    by_key: BTreeMap<AccessKeyId, SecretString>,
    /// What STS has said of readable values: a secret never belongs to another key later.
    owners: Vec<(SecretString, SecretOwner)>,
}

/// The keys, the lists of variables and the token, as they are read together.
pub(super) struct Read {
    listing: Listing,
    lists: Lists,
    token: Token,
    at: Boottime,
}

/// What the lists of variables show.
struct VariablesSeen {
    targets: Vec<TargetSeen>,
    records: Vec<RecordSeen>,
    stored: Vec<StoredRecord>,
    rotators: Vec<JobRef>,
}

impl Context<'_> {
    /// The first look of a run, and the ids of what the configuration names by path.
    pub(super) async fn first_look(&self) -> Result<(Read, Vec<(Owner, u64)>), Error> {
        let (read, ids) = tokio::join!(self.read_everything(None, None), self.ids());
        Ok((read?, ids?))
    }

    async fn ids(&self) -> Result<Vec<(Owner, u64)>, Error> {
        let ids = self.config.paths().into_iter().map(async |owner| {
            let id = self.gitlab.id_of(&owner).await;
            let id = id.map_err(|error| Error::gitlab(format!("looking at {owner}"), error))?;
            Ok::<_, Error>(id.map(|id| (owner, id)))
        });
        Ok(try_join_all(ids).await?.into_iter().flatten().collect())
    }

    /// The first observation of a run, before anything is known.
    pub(super) async fn first_observation(&self, read: Read) -> Result<(Observed, Sources), Error> {
        let Read { listing: Listing { user, keys, date }, lists, token, at } = read;
        let lists = lists.named(self.config);
        let secrets = Secrets::default();
        let seen =
            self.variables_seen(&lists, &user, &keys, &OwnRecord::default(), &secrets).await?;
        let now = self.gitlab.now().unwrap_or(date);
        let mut run = RunState::new(self.gitlab.fence.ends(now));
        let since = self.config.job.started_at.unwrap_or(now);
        let in_target = self.config.targets.iter().any(|target| match &target.owner {
            Owner::Project(name) => self.config.job.is_in(name),
            Owner::Group(_) => true,
        });
        run.given = self.aws.signing_key().map(|key| GivenPair { key, since, in_target });
        let observed = Observed {
            now,
            listed: date,
            user,
            other_references: lists.other_references(self.config, &keys),
            keys,
            targets: seen.targets,
            in_own_deploy: self.is_in_own_deploy(&seen.records),
            records: seen.records,
            claim: None,
            preflight: None,
            in_flight_jobs: None,
            deploys: None,
            run,
        };
        let (records, rotators) = (seen.stored, seen.rotators);
        let sources =
            Sources { lists, records, rotators, token, identity: None, listed: at, secrets };
        Ok((observed, sources))
    }

    /// `known`: the token, once it was asked about; `before`: what was observed before.
    async fn read_everything(
        &self,
        known: Option<&Token>,
        before: Option<&Observed>,
    ) -> Result<Read, Error> {
        let at = Boottime::now();
        let (listing, lists, token) =
            tokio::join!(self.aws.list(), Lists::read(self.gitlab, self.config), self.token(known));
        let (lists, token) = (lists?, token?);
        let listing = match listing {
            Err(AwsError::KeyRefused { .. }) => self.list_again(&lists, before).await?,
            Err(AwsError::NoCredentials { .. }) => {
                return Err(AwsError::NoCredentials { advice: self.advice(&lists) }.into());
            }
            listing => listing?,
        };
        self.compare_clocks(listing.date)?;
        Ok(Read { listing, lists, token, at })
    }

    /// What is written down and what is over goes by GitLab's clock: where IAM's is another one,
    /// nothing is disabled or deleted by it.
    fn compare_clocks(&self, iam: Timestamp) -> Result<(), Error> {
        if let Some(now) = self.gitlab.now().filter(|now| are_apart(*now, iam)) {
            return Err(Error::ClocksApart { seconds: now.duration_since(iam).as_secs() });
        }
        let skew = self.gitlab.skew();
        if skew.unsigned_abs() > CLOCK_TOLERANCE.unsigned_abs() {
            return Err(AwsError::ClockWrong { seconds: skew.as_secs() }.into());
        }
        Ok(())
    }

    async fn token(&self, known: Option<&Token>) -> Result<Token, Error> {
        if let Some(token) = known {
            return Ok(token.clone());
        }
        let token = self.gitlab.token().await;
        token.map_err(|error| Error::gitlab("asking about the token", error))
    }

    /// The key that signs was refused once. In self mode the pair of this job may be torn: its id
    /// is still the old one, its secret is the tag's key's.
    async fn list_again(&self, lists: &Lists, before: Option<&Observed>) -> Result<Listing, Error> {
        let environment = self.aws.environment_key();
        let targets = lists.targets(self.config);
        let in_place = !self.aws.signs_instead() && environment.is_some();
        let tag = targets.iter().filter(|_| in_place).find_map(|target| {
            target.secret.tag().filter(|tag| Some(*tag) != environment.as_ref())
        });
        let records = lists.records()?;
        for key in tag.into_iter().chain(&self.aws.signing_key()) {
            if records.iter().any(|stored| self.dates_as_young(&stored.record, key)) {
                self.aws.take_for_young(key);
            }
        }
        let is_named = targets.iter().any(|target| target.id.key() == environment.as_ref());
        let not_begun = before.is_some_and(|seen| seen.run.attempt == Attempt::No);
        // The environment's key worked at the first observation of this run and is named no more:
        // another run has rotated it away meanwhile.
        let busy_or = |error: AwsError| match error {
            AwsError::KeyRefused { .. } if in_place && not_begun && !is_named => {
                Error::Refused(Refusal::Busy)
            }
            error => error.into(),
        };
        self.aws.list_again(tag).await.map_err(busy_or)
    }

    /// Whether a record says that this key was made or published a short time ago.
    fn dates_as_young(&self, record: &Record, key: &AccessKeyId) -> bool {
        let (Some(progress), Some(now)) = (&record.progress, self.gitlab.now()) else {
            return false;
        };
        let published = progress.published.iter().filter(|published| published.key == *key);
        let made = Some(progress.creating).filter(|_| !progress.from.contains(key));
        let mut dates = published.map(|published| published.at).chain(made);
        dates.any(|date| now.duration_since(date) < YOUNG)
    }

    fn advice(&self, lists: &Lists) -> CredentialAdvice {
        let job = &self.config.job;
        let variables = lists.0.iter().flat_map(|list| &list.variables);
        let mut named = variables.filter(|variable| variable.key == "AWS_ACCESS_KEY_ID");
        match named.find(|variable| !variable.is_empty()) {
            None => CredentialAdvice::NoVariables,
            Some(variable) if variable.protected && job.ref_protected == Some(false) => {
                CredentialAdvice::Protected
            }
            Some(variable) if variable.environment_scope != "*" && job.environment.is_none() => {
                CredentialAdvice::Scoped
            }
            Some(_) => CredentialAdvice::Exists,
        }
    }

    async fn variables_seen(
        &self,
        lists: &Lists,
        user: &str,
        keys: &[Key],
        own: &OwnRecord,
        secrets: &Secrets,
    ) -> Result<VariablesSeen, Error> {
        let listed = lists.records()?;
        own.confirm(self, &listed).await?;
        let rotators = listed.iter().filter_map(|stored| stored.record.job).collect();
        let mut targets = lists.targets(self.config);
        let who = Who { user, keys, targets: &targets };
        let others = self.others(own.others(listed), &who).await?;
        let records = others.iter().map(Other::seen).collect();
        let stored = others.into_iter().map(|other| other.stored).collect();
        for (target, value) in targets.iter_mut().zip(lists.secrets(self.config)) {
            if let Some(value) = value {
                secrets.recognise(&mut target.secret, &value);
            }
        }
        Ok(VariablesSeen { targets, records, stored, rotators })
    }

    /// The rotation's own deploy may contain the rotation's job, which has nothing to do there.
    fn is_in_own_deploy(&self, records: &[RecordSeen]) -> bool {
        let job = &self.config.job;
        let by_api = job.pipeline_source.as_deref() == Some("api");
        let is_ours = |record: &RecordSeen| {
            record.progress.as_ref().is_some_and(|progress| {
                let waits = progress.drained.is_some() && progress.deployed.is_none();
                let is_recorded =
                    progress.deploys.iter().any(|deploy| Some(deploy.pipeline) == job.pipeline);
                is_recorded || waits && record.alive && !record.released
            })
        };
        self.config.action == Action::Rotate && by_api && records.iter().any(is_ours)
    }
}

impl Run<'_> {
    /// Observes everything again; what this run has done and asked about stays.
    pub(super) async fn observe(&mut self) -> Result<(), Error> {
        let known = Some(&self.sources.token);
        let Read { listing, lists, token, at } =
            self.context.read_everything(known, Some(&self.seen)).await?;
        let Listing { user, mut keys, date } = listing;
        self.keep_what_is_known(&mut keys);
        let seen = self
            .context
            .variables_seen(&lists, &user, &keys, &self.record, &self.sources.secrets)
            .await?;
        (self.sources.token, self.sources.listed) = (token, at);
        (self.seen.listed, self.seen.user, self.seen.keys) = (date, user, keys);
        (self.seen.in_flight_jobs, self.seen.deploys) = (None, None);
        self.take_in(lists, seen);
        Ok(())
    }

    /// Reads the variables and the records again, not the keys.
    pub(super) async fn observe_variables(&mut self) -> Result<(), Error> {
        let lists = Lists::read(self.context.gitlab, self.context.config).await?;
        let seen = self
            .context
            .variables_seen(
                &lists,
                &self.seen.user,
                &self.seen.keys,
                &self.record,
                &self.sources.secrets,
            )
            .await?;
        self.take_in(lists, seen);
        Ok(())
    }

    fn take_in(&mut self, lists: Lists, seen: VariablesSeen) {
        let context = &self.context;
        self.seen.now = context.gitlab.now().unwrap_or(self.seen.now);
        self.seen.other_references = lists.other_references(context.config, &self.seen.keys);
        self.seen.targets = seen.targets;
        self.record.settle(&self.seen.targets);
        self.seen.in_own_deploy =
            self.record.own.is_none() && context.is_in_own_deploy(&seen.records);
        self.seen.records = seen.records;
        self.sources.records = seen.stored;
        // A record goes with its run; the job stays one of the rotation's.
        self.sources.rotators.extend(seen.rotators);
        self.sources.rotators.sort();
        self.sources.rotators.dedup();
        self.sources.lists = lists;
    }

    /// A list may lag behind a key that this process has just made.
    fn keep_what_is_known(&self, keys: &mut Vec<Key>) {
        let seen = &self.seen;
        let is_young = |key: &Key| seen.now.duration_since(key.created) < LIST_LAG;
        let new_key = seen.run.new_key.as_ref().and_then(|new_key| seen.key(&new_key.key));
        if let Some(key) = new_key.filter(|key| is_young(key))
            && !keys.iter().any(|other| other.id == key.id)
        {
            keys.push(key.clone());
        }
        for key in keys {
            key.used = seen.key(&key.id).and_then(|known| known.used.clone());
        }
    }
}

impl Secrets {
    pub(super) fn of(&self, key: &AccessKeyId) -> Option<&SecretString> {
        self.by_key.get(key)
    }

    /// The secret of a key that was just made. What was readable before cannot be it.
    pub(super) fn add(
        &mut self,
        key: AccessKeyId,
        secret: SecretString,
        readable_before: impl Iterator<Item = SecretString>,
    ) {
        self.owners.extend(readable_before.map(|value| (value, SecretOwner::Nobody)));
        self.by_key.insert(key, secret);
    }

    /// What STS says of a readable value.
    pub(super) fn learn(&mut self, value: SecretString, owner: Option<AccessKeyId>) {
        if let Some(id) = &owner {
            self.by_key.insert(id.clone(), value.clone());
        }
        self.owners.push((value, owner.map_or(SecretOwner::Nobody, SecretOwner::Key)));
    }

    /// What STS has refused may have been asked too early: it is asked again.
    pub(super) fn forget_refused(&mut self) {
        self.owners.retain(|(_, owner)| *owner != SecretOwner::Nobody);
    }

    /// Puts into the picture of a readable secret whose it is, as far as that is known.
    pub(super) fn recognise(&self, secret: &mut SecretSeen, value: &SecretString) {
        let SecretSeen::Readable { tag, owner } = secret else { return };
        *owner = self.owner_of(value);
        // A tag is believed until it is known to be wrong: the secret of its key is known, and it is
        // another one.
        let known = tag.as_ref().and_then(|id| self.by_key.get(id));
        if known.is_some_and(|known| !is_same(known, value)) {
            *tag = None;
        }
    }

    fn owner_of(&self, value: &SecretString) -> SecretOwner {
        if let Some((id, _)) = self.by_key.iter().find(|(_, secret)| is_same(secret, value)) {
            return SecretOwner::Key(id.clone());
        }
        let asked = self.owners.iter().find(|(other, _)| is_same(other, value));
        asked.map_or(SecretOwner::NotAsked, |(_, owner)| owner.clone())
    }
}

pub(super) fn is_same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}
