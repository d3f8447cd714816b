//! Looking: one picture of keys, variables, records and token; and the questions that the plan asks
//! beyond it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};

use super::Run;
use crate::access_key::{AccessKeyId, Key};
use crate::aws::Listing;
use crate::config::{Action, CredentialSource, Name, Owner};
use crate::deploy::{self, Deployed, places};
use crate::error::{CredentialAdvice, Error};
use crate::fence::{Boottime, Fenced};
use crate::gitlab::ApiError;
use crate::gitlab::variables::{self, Lists, StoredRecord};
use crate::net::CLOCK_TOLERANCE;
use crate::plan::{
    Attempt, DeploySeen, Observed, Query, RecordSeen, Refusal, SecretOwner, SecretSeen, TargetSeen,
};
use crate::preflight::{self, Token};
use crate::record::{JobRef, Record};

/// How long a record counts after its job has ended, or after its `ends`.
const AFTERLIFE: SignedDuration = SignedDuration::from_mins(2);
/// How often a run deletes a record that it has taken over.
const TAKEOVERS: usize = 3;
/// What a run keeps of the job's time when it waits for a deploy.
const RESERVE: SignedDuration = SignedDuration::from_mins(5);

impl Run<'_> {
    /// Looks at everything at once: keys, variables, records, token.
    pub(super) async fn observe(&mut self) -> Result<(), Error> {
        let asked = Boottime::now();
        let (listing, lists, token) = tokio::join!(self.aws.list(), self.list_all(), self.token());
        let (lists, token) = (lists?, token?);
        let skew = self.gitlab.skew();
        if skew.unsigned_abs() > CLOCK_TOLERANCE.unsigned_abs() {
            return Err(Error::ClockWrong { seconds: skew.as_secs() });
        }
        let listing = match listing {
            Err(error @ Error::KeyRefused { .. }) => {
                self.list_with_a_tags_key(&lists, error).await?
            }
            Err(Error::NoAwsCredentials { .. }) => {
                return Err(Error::NoAwsCredentials { advice: self.advice(&lists) });
            }
            listing => listing?,
        };
        self.token = Some(token);
        self.listed = asked;
        let Listing { user, mut keys, date } = listing;
        self.keep_what_is_known(&mut keys);
        let old = self.seen.take();
        let before = old.clone();
        let mut seen = Observed {
            now: self.gitlab.now().unwrap_or(date),
            listed: date,
            user,
            keys,
            targets: Vec::new(),
            other_references: BTreeMap::new(),
            records: Vec::new(),
            claim: None,
            new_key: None,
            attempt: Attempt::No,
            preflight: None,
            in_flight_jobs: None,
            deploys: None,
            waited_out: false,
            in_own_deploy: false,
        };
        if let Some(old) = old {
            seen = Observed {
                claim: old.claim,
                new_key: old.new_key,
                attempt: old.attempt,
                preflight: old.preflight,
                waited_out: old.waited_out,
                ..seen
            };
        }
        self.seen = Some(seen);
        let looked = self.look_at(lists).await;
        if looked.is_err() {
            // Half a look is none.
            self.seen = before;
        }
        looked
    }

    /// Reads the variables and the records again, not the keys.
    pub(super) async fn observe_variables(&mut self) -> Result<(), Error> {
        let lists = self.list_all().await?;
        self.look_at(lists).await
    }

    pub(super) async fn list_all(&self) -> Result<Lists, Error> {
        let owners = variables::owners(&self.config.targets);
        let lists = owners.into_iter().map(async |owner| {
            let variables = variables::list(self.gitlab, &owner).await?;
            Ok::<_, Error>(variables::List { owner, variables })
        });
        try_join_all(lists).await.map(Lists)
    }

    pub(super) async fn token(&self) -> Result<Token, Error> {
        if let Some(token) = &self.token {
            return Ok(token.clone());
        }
        let endpoint =
            gitlab::api::personal_access_tokens::PersonalAccessTokenSelf::builder().build();
        match self
            .gitlab
            .ask::<Token>(endpoint.map_err(|_| Error::ClaimLost(Fenced::Unseen))?)
            .await
        {
            Ok(token) => Ok(token),
            // Some kinds of token are not told about themselves; a list that is refused tells the
            // rest.
            Err(ApiError::Denied { status: 403 | 404 | 401, .. }) => Ok(Token::default()),
            Err(error) => Err(variables::gitlab_error(
                self.gitlab,
                "asking about the token".to_owned(),
                error,
            )),
        }
    }

    /// A torn pair in self mode: the id of the environment is still the old one, its secret is the
    /// tag's key's.
    pub(super) async fn list_with_a_tags_key(
        &self,
        lists: &Lists,
        error: Error,
    ) -> Result<Listing, Error> {
        if !matches!(self.config.credential_source, CredentialSource::Environment) {
            return Err(error);
        }
        let environment = self.aws.environment_key();
        let targets = lists.targets(self.config);
        let tag = targets.iter().find_map(|target| {
            target.secret.tag().filter(|tag| Some(*tag) != environment.as_ref())
        });
        match tag {
            Some(tag) if self.aws.sign_with_tag(tag) => {
                self.aws.list().await.map_err(|_| self.busy_or(error, &targets))
            }
            Some(_) | None => Err(self.busy_or(error, &targets)),
        }
    }

    /// The environment's key worked at the first look of this run and is named no more: another run
    /// has rotated it away meanwhile.
    fn busy_or(&self, error: Error, targets: &[TargetSeen]) -> Error {
        let environment = self.aws.environment_key();
        let named = targets.iter().any(|target| target.id.key() == environment.as_ref());
        if self.seen.as_ref().is_some_and(|seen| seen.attempt == Attempt::No) && !named {
            Error::Refused(Refusal::Busy)
        } else {
            error
        }
    }

    pub(super) fn advice(&self, lists: &Lists) -> CredentialAdvice {
        let named = |name: &str| {
            lists
                .0
                .iter()
                .flat_map(|list| &list.variables)
                .find(|variable| variable.key == name && !variable.is_empty())
        };
        match named("AWS_ACCESS_KEY_ID") {
            None => CredentialAdvice::NoVariables,
            Some(variable)
                if variable.protected && self.config.job.ref_protected == Some(false) =>
            {
                CredentialAdvice::Protected
            }
            Some(variable)
                if variable.environment_scope != "*" && self.config.job.environment.is_none() =>
            {
                CredentialAdvice::Scoped
            }
            Some(_) => CredentialAdvice::Exists,
        }
    }

    /// A list may lag behind a key that this process has just made.
    pub(super) fn keep_what_is_known(&self, keys: &mut Vec<Key>) {
        let Some(seen) = &self.seen else { return };
        let young = |key: &Key| seen.now.duration_since(key.created) < SignedDuration::from_mins(1);
        let new_key = seen.new_key.as_ref().and_then(|new_key| seen.key(&new_key.key));
        if let Some(key) =
            new_key.filter(|key| young(key) && !keys.iter().any(|other| other.id == key.id))
        {
            keys.push(key.clone());
        }
        for key in keys {
            key.used = seen.key(&key.id).and_then(|known| known.used.clone());
        }
    }

    pub(super) async fn look_at(&mut self, lists: Lists) -> Result<(), Error> {
        let written = lists.records(self.config)?;
        self.confirm_own_record(&written).await?;
        self.rotators = written.iter().filter_map(|written| written.record.job).collect();
        let user = self.user().to_owned();
        let own = self.own.as_ref().map(|own| own.name.clone());
        let stays = |name: &String| {
            self.taken_over.iter().filter(|taken| *taken == name).count() >= TAKEOVERS
        };
        let is_another =
            |other: &StoredRecord| Some(&other.name) != own.as_ref() && !stays(&other.name);
        let others: Vec<StoredRecord> = written
            .into_iter()
            .filter(|other| other.record.user.eq_ignore_ascii_case(&user) && is_another(other))
            .collect();
        let alive = try_join_all(others.iter().map(|other| self.is_alive(&other.record))).await?;
        let records: Vec<RecordSeen> = others
            .iter()
            .zip(alive)
            .map(|(other, alive)| RecordSeen {
                name: other.name.clone(),
                at: other.record.at,
                released: other.record.released(),
                alive,
                progress: other.record.progress.clone(),
            })
            .collect();
        let in_own_deploy = self.is_in_own_deploy(&records);
        let mut targets = lists.targets(self.config);
        for (target, value) in targets.iter_mut().zip(lists.secrets(self.config)) {
            if let (SecretSeen::Readable { tag, owner }, Some(value)) = (&mut target.secret, value)
            {
                *owner = self.owner_of(&value);
                // A tag is believed until it is known to be wrong: the secret of its key is at
                // hand, and it is another one.
                let known = tag.as_ref().and_then(|id| self.secrets.get(id));
                if known.is_some_and(|secret| secret.expose_secret() != value.expose_secret()) {
                    *tag = None;
                }
            }
        }
        if let Some(seen) = &mut self.seen {
            seen.other_references = lists.other_references(self.config, &seen.keys);
            seen.now = self.gitlab.now().unwrap_or(seen.now);
            seen.targets = targets;
            seen.records = records;
            seen.in_own_deploy = in_own_deploy;
        }
        self.records = others;
        self.lists = lists;
        Ok(())
    }

    /// Our own record must be there; a list that was cut by another's delete is read once more.
    pub(super) async fn confirm_own_record(&self, written: &[StoredRecord]) -> Result<(), Error> {
        let Some(own) = &self.own else { return Ok(()) };
        if written.iter().any(|other| other.name == own.name) {
            return Ok(());
        }
        let again = variables::list(self.gitlab, self.home()).await?;
        if again.iter().any(|variable| variable.key == own.name) {
            return Ok(());
        }
        self.gitlab.fence.record_is_gone();
        Err(Error::ClaimLost(Fenced::RecordGone))
    }

    pub(super) fn owner_of(&self, value: &SecretString) -> SecretOwner {
        let same = |other: &SecretString| other.expose_secret() == value.expose_secret();
        if let Some((id, _)) = self.secrets.iter().find(|(_, secret)| same(secret)) {
            return SecretOwner::Key(id.clone());
        }
        self.owners
            .iter()
            .find(|(other, _)| same(other))
            .map_or(SecretOwner::NotAsked, |(_, owner)| owner.clone())
    }

    /// A record's run is alive while GitLab says that its job has not ended, and shortly after;
    /// else until its `ends`.
    pub(super) async fn is_alive(&self, record: &Record) -> Result<bool, Error> {
        let Some(ends) = record.ends else { return Ok(false) };
        let promised = |now: Timestamp| now.duration_since(ends) < AFTERLIFE;
        let Some(job) = record.job else { return Ok(self.gitlab.now().is_none_or(promised)) };
        let state = self.gitlab.job(job).await.map_err(|error| {
            variables::gitlab_error(
                self.gitlab,
                format!("asking whether job {job} still runs"),
                error,
            )
        })?;
        let Some(now) = self.gitlab.now() else { return Ok(true) };
        Ok(match state {
            Some(state) if !state.ended() => true,
            Some(state) => state
                .finished_at
                .map_or_else(|| promised(now), |finished| now.duration_since(finished) < AFTERLIFE),
            None => promised(now),
        })
    }

    /// The rotation's own deploy may contain the rotation's job: it has nothing to do there.
    pub(super) fn is_in_own_deploy(&self, records: &[RecordSeen]) -> bool {
        let by_api = self.config.job.pipeline_source.as_deref() == Some("api");
        let waits = |record: &RecordSeen| {
            record.alive
                && !record.released
                && record.progress.as_ref().is_some_and(|progress| {
                    progress.drained.is_some() && progress.deployed.is_none()
                })
        };
        let recorded = |record: &RecordSeen| {
            record
                .progress
                .iter()
                .flat_map(|progress| &progress.deploys)
                .any(|deploy| Some(deploy.pipeline) == self.config.job.pipeline)
        };
        self.own.is_none()
            && self.policy.action == Action::Rotate
            && records.iter().any(|record| by_api && (waits(record) || recorded(record)))
    }

    pub(super) async fn ask(&mut self, query: &Query) -> Result<(), Error> {
        let Some(seen) = &self.seen else { return Ok(()) };
        match query {
            Query::WhoseSecrets => self.ask_whose_secrets().await,
            Query::LastUse(id) => {
                let used = self.aws.last_use(id).await?;
                let key =
                    self.seen.iter_mut().flat_map(|seen| &mut seen.keys).find(|key| key.id == *id);
                if let Some(key) = key {
                    key.used = Some(used);
                }
                Ok(())
            }
            Query::Preflight => {
                let token = self.token.clone().unwrap_or_default();
                let (findings, identity) = preflight::findings(
                    self.config,
                    self.gitlab,
                    self.aws,
                    &self.lists,
                    &token,
                    seen,
                )
                .await?;
                self.identity = identity;
                if let Some(seen) = &mut self.seen {
                    seen.preflight = Some(findings);
                }
                Ok(())
            }
            Query::InFlightJobs => {
                let published = seen
                    .progress()
                    .and_then(|progress| progress.published.as_ref())
                    .map(|published| published.at);
                let exempt = self
                    .rotators
                    .iter()
                    .copied()
                    .chain(self.gitlab.fence.job())
                    .map(|job: JobRef| job.job)
                    .collect();
                let in_flight_jobs = deploy::in_flight_jobs(
                    self.gitlab,
                    &self.projects(),
                    published.unwrap_or(seen.now),
                    &exempt,
                )
                .await?;
                if let Some(seen) = &mut self.seen {
                    seen.now = self.gitlab.now().unwrap_or(seen.now);
                    seen.in_flight_jobs = Some(in_flight_jobs);
                }
                Ok(())
            }
            Query::Deploys => self.ask_deploys().await,
        }
    }

    /// The projects whose jobs use the pair, as far as they are known.
    pub(super) fn projects(&self) -> Vec<Name> {
        let targets = self.config.targets.iter().filter_map(|target| match &target.owner {
            Owner::Project(name) => Some(name.clone()),
            Owner::Group(_) => None,
        });
        let mut projects: Vec<Name> = Vec::new();
        for project in targets.chain(self.config.deploy.projects.iter().cloned()) {
            if !projects.contains(&project) {
                projects.push(project);
            }
        }
        projects
    }

    pub(super) async fn ask_whose_secrets(&mut self) -> Result<(), Error> {
        let Some(seen) = &self.seen else { return Ok(()) };
        let published = seen
            .progress()
            .and_then(|progress| progress.published.as_ref())
            .map(|published| published.key.clone());
        let values = self.lists.secrets(self.config);
        let mut answers = Vec::new();
        for (target, value) in seen.targets.iter().zip(values) {
            let (SecretSeen::Readable { tag, owner: SecretOwner::NotAsked }, Some(value)) =
                (&target.secret, value)
            else {
                continue;
            };
            if answers.iter().any(|(other, _): &(SecretString, _)| {
                other.expose_secret() == value.expose_secret()
            }) {
                continue;
            }
            // The likeliest first: each candidate is a call.
            let likely = [published.as_ref(), tag.as_ref(), target.id.key()];
            let mut candidates: Vec<AccessKeyId> = likely
                .into_iter()
                .flatten()
                .filter(|id| seen.key(id).is_some_and(|key| key.active))
                .cloned()
                .collect();
            for key in seen.keys.iter().rev().filter(|key| key.active) {
                if !candidates.contains(&key.id) {
                    candidates.push(key.id.clone());
                }
            }
            candidates.dedup();
            let owner = self.aws.whose(&value, &candidates).await?;
            answers.push((value, owner.map_or(SecretOwner::Nobody, SecretOwner::Key)));
        }
        for (value, owner) in answers {
            if let SecretOwner::Key(id) = &owner {
                self.secrets.insert(id.clone(), value.clone());
            }
            self.owners.push((value, owner));
        }
        let owners: Vec<Option<SecretOwner>> = self
            .lists
            .secrets(self.config)
            .iter()
            .map(|value| value.as_ref().map(|value| self.owner_of(value)))
            .collect();
        for (target, answer) in self.seen.iter_mut().flat_map(|seen| &mut seen.targets).zip(owners)
        {
            if let (SecretSeen::Readable { owner, .. }, Some(answer)) = (&mut target.secret, answer)
            {
                *owner = answer;
            }
        }
        Ok(())
    }

    pub(super) async fn ask_deploys(&mut self) -> Result<(), Error> {
        let Some(seen) = &self.seen else { return Ok(()) };
        let progress = seen.progress().cloned().unwrap_or_default();
        let looked = if self.policy.own_deploy {
            vec![
                deploy::look_at_own(self.gitlab, self.config, progress.drained.unwrap_or(seen.now))
                    .await?,
            ]
        } else {
            let places = places(self.config);
            let looks = places.iter().enumerate().map(|(index, place)| {
                let recorded =
                    progress.deploys.iter().find(|recorded| recorded.place == place.name);
                deploy::look(
                    self.gitlab,
                    self.config,
                    place,
                    recorded,
                    self.started.contains(&index),
                    seen.now,
                )
            });
            try_join_all(looks).await?
        };
        let (deploys, reports): (Vec<DeploySeen>, Vec<Deployed>) = looked.into_iter().unzip();
        // A deploy that is proven is not looked at again: what this run has seen of it stays.
        let known = std::mem::take(&mut self.deploys);
        let seen_before = |new: &Deployed| {
            known.iter().find(|old| {
                old.sha.is_some()
                    && (&old.project, old.pipeline, &old.status)
                        == (&new.project, new.pipeline, &new.status)
            })
        };
        self.deploys =
            reports
                .into_iter()
                .map(|new| {
                    if new.sha.is_none() { seen_before(&new).cloned().unwrap_or(new) } else { new }
                })
                .collect();
        if let Some(seen) = &mut self.seen {
            seen.now = self.gitlab.now().unwrap_or(seen.now);
            seen.deploys = Some(deploys);
        }
        Ok(())
    }

    pub(super) async fn wait(&mut self) -> Result<(), Error> {
        let now = self.gitlab.now().unwrap_or_else(Timestamp::now);
        let limit = now + self.config.deploy.timeout;
        let ends = self.gitlab.fence.job_ends().map(|ends| ends - RESERVE);
        self.wait_until.get_or_insert_with(|| ends.map_or(limit, |ends| ends.min(limit)));
        self.shutdown.sleep(self.pause).await;
        self.pause = (self.pause * 3 / 2).min(Duration::from_secs(10));
        self.stale = true;
        if let Some(seen) = &mut self.seen {
            seen.in_flight_jobs = None;
            seen.deploys = None;
        }
        Ok(())
    }
}
