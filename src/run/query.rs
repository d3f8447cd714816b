//! The plan's queries: what it needs to know beyond an observation. None has an effect.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::SignedDuration;
use secrecy::SecretString;

use super::Run;
use super::observe::is_same;
use crate::access_key::AccessKeyId;
use crate::config::USES_SHOW_WITHIN;
use crate::deploy::attempt::{Fate, Noted};
use crate::deploy::{self, Deployed, Left, Looked, Place, environment, places};
use crate::error::Error;
use crate::fence::Boottime;
use crate::plan::{DeploySeen, LeftDeploys, Query, SecretOwner, SecretSeen, TargetSeen};
use crate::preflight;
use crate::record::{Asked, DeployAttempt, Progress};
use crate::targets::Lists;

/// How long STS may take to know a new key everywhere.
const YOUNG: SignedDuration = SignedDuration::from_mins(10);
/// Between two questions about a young key.
const PAUSE: Duration = Duration::from_secs(1);

impl Run<'_> {
    /// Puts the answer into what is seen.
    pub(super) async fn answer(&mut self, query: &Query) -> Result<(), Error> {
        match query {
            Query::WhoseSecrets => self.ask_whose_secrets().await,
            Query::LastUse(id) => self.ask_last_use(id).await,
            Query::Preflight => self.ask_preflight().await,
            Query::InFlightJobs => self.ask_in_flight_jobs().await,
            Query::Deploys => self.ask_deploys().await,
        }
    }

    async fn ask_whose_secrets(&mut self) -> Result<(), Error> {
        let values = self.sources.lists.secrets(self.context.config);
        let mut asked: Vec<SecretString> = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let target = &self.seen.targets[index];
            let (SecretSeen::Readable { owner: SecretOwner::NotAsked, .. }, Some(value)) =
                (&target.secret, value)
            else {
                continue;
            };
            if asked.iter().any(|other| is_same(other, value)) {
                continue;
            }
            asked.push(value.clone());
            let owner = self.whose(value, target).await?;
            self.sources.secrets.learn(value.clone(), owner);
        }
        for (target, value) in self.seen.targets.iter_mut().zip(&values) {
            if let Some(value) = value {
                self.sources.secrets.recognise(&mut target.secret, value);
            }
        }
        Ok(())
    }

    /// Which key a target's secret belongs to. A key that is a few minutes old is not known
    /// everywhere yet: where the target points to one, it gets the whole time of a verification.
    async fn whose(
        &self,
        value: &SecretString,
        target: &TargetSeen,
    ) -> Result<Option<AccessKeyId>, Error> {
        let candidates = self.candidates(target);
        let is_young = |id: &AccessKeyId| {
            let key = self.seen.key(id).filter(|key| key.active);
            key.is_some_and(|key| self.seen.now.duration_since(key.created) < YOUNG)
        };
        let may_lag = [target.id.key(), target.secret.tag()].into_iter().flatten().any(is_young);
        let started = Boottime::now();
        loop {
            let owner = self.context.aws.whose(value, &candidates).await?;
            let is_over = started.elapsed() + PAUSE >= self.context.config.verify_timeout;
            if owner.is_some() || !may_lag || is_over {
                return Ok(owner);
            }
            self.context.shutdown.sleep(PAUSE).await;
        }
    }

    /// The active keys that a target's secret may belong to, the likeliest first: each is a call.
    fn candidates(&self, target: &TargetSeen) -> Vec<AccessKeyId> {
        let seen = &self.seen;
        let published = seen.progress().and_then(|progress| progress.published.as_ref());
        let likely =
            [published.map(|published| &published.key), target.secret.tag(), target.id.key()];
        let newest_first = seen.keys.iter().rev().map(|key| &key.id);
        let mut candidates: Vec<AccessKeyId> = Vec::new();
        for id in likely.into_iter().flatten().chain(newest_first) {
            let is_active = seen.key(id).is_some_and(|key| key.active);
            if is_active && !candidates.contains(id) {
                candidates.push(id.clone());
            }
        }
        candidates
    }

    async fn ask_last_use(&mut self, id: &AccessKeyId) -> Result<(), Error> {
        let is_old = self.seen.progress().is_some_and(|progress| progress.is_old(id));
        if is_old && self.context.config.overlap_is_short() {
            let hours = USES_SHOW_WITHIN.as_hours();
            tracing::warn!(
                "AWS may not show a use of old key {id} yet: ROTATOR_OVERLAP is under {hours} hours"
            );
        }
        let used = self.context.aws.last_use(id).await?;
        if let Some(key) = self.seen.keys.iter_mut().find(|key| key.id == *id) {
            key.used = Some(used);
        }
        Ok(())
    }

    async fn ask_preflight(&mut self) -> Result<(), Error> {
        let elsewhere = self.references_elsewhere().await?;
        self.add_references(elsewhere);
        let context = &self.context;
        let (lists, token) = (&self.sources.lists, &self.sources.token);
        let found =
            preflight::look(context.config, context.gitlab, context.aws, lists, token, &self.seen)
                .await?;
        for unknown in &found.unknown {
            tracing::info!("not known: {unknown}");
        }
        for notice in found.notices {
            self.report.notice(notice);
        }
        self.sources.identity = found.identity;
        self.seen.preflight = Some(found.blockers);
        Ok(())
    }

    async fn ask_in_flight_jobs(&mut self) -> Result<(), Error> {
        let gitlab = self.context.gitlab;
        let published = self.seen.progress().and_then(|progress| progress.published.as_ref());
        let since = published.map_or(self.seen.now, |published| published.at);
        let (projects, own) = (self.context.config.projects(), gitlab.fence.job());
        let own = own.map(|job| job.job);
        let look = |rotators: BTreeSet<u64>| {
            let projects = &projects;
            async move { deploy::in_flight_jobs(gitlab, projects, since, &rotators, own).await }
        };
        let mut in_flight = look(self.rotators()).await?;
        // A rotation that has begun since the records were read is no such job either.
        if !in_flight.jobs.is_empty() && self.read_rotators().await? {
            in_flight = look(self.rotators()).await?;
        }
        self.seen.now = gitlab.now().unwrap_or(self.seen.now);
        self.waits.gives_way = in_flight.may_wait_for_us;
        self.seen.in_flight_jobs = Some(in_flight.jobs);
        Ok(())
    }

    async fn ask_deploys(&mut self) -> Result<(), Error> {
        let (config, gitlab, now) = (self.context.config, self.context.gitlab, self.seen.now);
        let progress = self.seen.progress().cloned().unwrap_or_default();
        let looked = if self.policy.own_deploy {
            let drained = progress.drained.unwrap_or(now);
            vec![deploy::look_at_own(gitlab, config, drained, &self.rotators()).await?]
        } else {
            let places = places(config);
            let looks = places
                .iter()
                .enumerate()
                .map(|(index, place)| self.look_at_deploy(index, place, &progress));
            try_join_all(looks).await?
        };
        let in_vain = looked.iter().enumerate();
        let in_vain = in_vain.filter_map(|(place, looked)| Some((place, looked.in_vain?)));
        self.deploys.in_vain = in_vain.collect();
        looked
            .iter()
            .filter_map(|looked| looked.notice.clone())
            .for_each(|notice| self.report.notice(notice));
        self.seen.run.left_deploys.blocked.clear();
        looked.iter().filter_map(|looked| looked.left.as_ref()).for_each(|left| self.found(left));
        let (deploys, reports): (Vec<DeploySeen>, Vec<Deployed>) =
            looked.into_iter().map(|looked| (looked.seen, looked.deployed)).unzip();
        self.deploys.report(reports);
        self.seen.now = gitlab.now().unwrap_or(now);
        self.seen.deploys = Some(deploys);
        Ok(())
    }

    fn found(&mut self, left: &Left) {
        let LeftDeploys { failed, blocked } = &mut self.seen.run.left_deploys;
        match left {
            Left::Failed(what) if failed.contains(what) => {}
            Left::Failed(what) => failed.push(what.clone()),
            Left::Blocked(what) => blocked.push(what.clone()),
        }
    }

    /// The rotation's own jobs, this one and those that records name.
    /// Reads which jobs the records name now. Whether there is one that was not known.
    async fn read_rotators(&mut self) -> Result<bool, Error> {
        let lists = Lists::read(self.context.gitlab, self.context.config).await?;
        let known = self.sources.rotators.len();
        for job in lists.records()?.iter().filter_map(|stored| stored.record.job) {
            if !self.sources.rotators.contains(&job) {
                self.sources.rotators.push(job);
            }
        }
        Ok(self.sources.rotators.len() > known)
    }

    fn rotators(&self) -> BTreeSet<u64> {
        let job = self.context.gitlab.fence.job();
        self.sources.rotators.iter().copied().chain(job).map(|job| job.job).collect()
    }

    async fn look_at_deploy(
        &self,
        index: usize,
        place: &Place<'_>,
        progress: &Progress,
    ) -> Result<Looked, Error> {
        if let Some(attempt) = progress.attempt_at(&place.name)
            && let Some(seen) = self.look_for_what_was_made(index, place, attempt).await?
        {
            return Ok(seen);
        }
        let mut recorded = progress.deploys.iter();
        let recorded = recorded.find(|recorded| recorded.place == place.name);
        let started = self.deploys.started.contains(&index);
        let (config, gitlab) = (self.context.config, self.context.gitlab);
        if place.is_environment() && recorded.is_none_or(|recorded| recorded.proven.is_none()) {
            let rerun = self.deploys.rerun.iter().filter(|(other, _)| *other == index);
            let rerun = rerun.map(|(_, name)| name.as_str()).collect();
            let known = environment::Known { progress, rerun, now: self.seen.now };
            return environment::look(gitlab, config, place, &known).await;
        }
        deploy::look(gitlab, config, place, recorded, started, self.seen.now).await
    }

    /// `None` where a deploy that was asked for without an answer made nothing that is surely ours.
    async fn look_for_what_was_made(
        &self,
        index: usize,
        place: &Place<'_>,
        attempt: &DeployAttempt,
    ) -> Result<Option<Looked>, Error> {
        let (Some(user), Asked::Ref(_)) = (self.sources.token.user_id, &attempt.asked) else {
            return Ok(None);
        };
        let (config, gitlab) = (self.context.config, self.context.gitlab);
        let timeout = SignedDuration::try_from(config.http_timeout).unwrap_or_default();
        // Listed before the records are read: whoever made one had noted its attempt by then.
        let candidates = deploy::attempt::candidates(gitlab, place, attempt, user).await?;
        let noted = match &candidates[..] {
            [] => Noted::default(),
            _ if self.seen.now < attempt.ends(timeout) => Noted::default(),
            _ => self.noted_by_others(attempt).await?,
        };
        let in_vain = self.deploys.in_vain.get(&index).copied();
        Ok(match attempt.fate(&candidates, &noted, self.seen.now, timeout) {
            Fate::Made(made) => Some(place.adoptable(config, &made, in_vain)),
            Fate::Open { until } => Some(place.unanswered(until)),
            Fate::Lost => None,
        })
    }

    /// What every readable record notes, read now.
    async fn noted_by_others(&self, own: &DeployAttempt) -> Result<Noted, Error> {
        let lists = Lists::read(self.context.gitlab, self.context.config).await?;
        let mut noted = Noted::default();
        for progress in lists.records()?.into_iter().filter_map(|stored| stored.record.progress) {
            noted.pipelines.extend(progress.deploys.iter().map(|deploy| deploy.pipeline));
            noted.attempts.extend(progress.attempts.into_iter().filter(|other| other != own));
        }
        Ok(noted)
    }
}

impl super::Deploys {
    /// A deploy that is proven is not looked at again: what this run has seen of it stays.
    fn report(&mut self, reports: Vec<Deployed>) {
        let known = std::mem::take(&mut self.seen);
        let is_same = |old: &Deployed, new: &Deployed| {
            old.sha.is_some()
                && (&old.project, old.pipeline, &old.status)
                    == (&new.project, new.pipeline, &new.status)
        };
        let fuller = |new: Deployed| match &new.sha {
            Some(_) => new,
            None => known.iter().find(|old| is_same(old, &new)).cloned().unwrap_or(new),
        };
        self.seen = reports.into_iter().map(fuller).collect();
    }
}
