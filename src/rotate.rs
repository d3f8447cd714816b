//! The loop: observe, plan one step, do it, until the plan is done or refuses. And the claim.
//!
//! House rules. What a step changes is applied to what was observed, not asked again; after an error, an ambiguous reply or a long
//! wait everything is observed afresh. The old key is touched only right after the variables were read again. A secret lives in
//! `Run::secrets` and goes nowhere but into its variable.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};

use crate::config::{Action, Config, DeployMode, Name, Owner, Signer};
use crate::deploy::{self, Deployed, places};
use crate::fence::{Boottime, Fenced};
use crate::keys::{Aws, CreateFailure, Identity, Listing};
use crate::plan::{
    Begun, Claim, DeploySeen, Done, Key, Made, Note, Observed, Owner as SecretOwner, Policy, Question, RecordSeen, Refusal, Role, SecretSeen, Step,
    plan,
};
use crate::preflight::{self, Token};
use crate::record::{self, AccessKeyId, Facts, JobRef, Record};
use crate::report::Report;
use crate::stop::Stop;
use crate::transport::{CLOCK_TOLERANCE, Gitlab, Problem};
use crate::trouble::{CredentialAdvice, Trouble};
use crate::variables::{self, Half, Lists, Written};

/// A refusal that blames a person is pronounced only when a second look, so much later, says the same.
const SECOND_LOOK: Duration = Duration::from_secs(10);
/// `CreateAccessKey` is sent only so soon after the list that recorded what was there.
const LIST_HOLDS: Duration = Duration::from_secs(60);
/// How long a record counts after its job has ended, or after its `ends`.
const AFTERLIFE: SignedDuration = SignedDuration::from_mins(2);
/// What a run keeps of the job's time when it waits for a deploy.
const RESERVE: SignedDuration = SignedDuration::from_mins(5);
/// A torn pair is retried until so shortly before the job ends.
const LAST_MOMENT: SignedDuration = SignedDuration::from_secs(30);
const CLAIM_TRIES: u32 = 4;

/// How a run ended.
pub enum End {
    Done(Done),
    /// What a dry run would do, step by step.
    DryRun(Vec<String>),
    Trouble(Trouble),
}

/// One run, from the first look to the last write. Never fails: the end and what led to it are in the report.
pub async fn rotate(config: &Config, environment_secret: Option<SecretString>, stop: &Stop) -> (End, Report) {
    let mut report = Report::new(config);
    let gitlab = match Gitlab::new(config) {
        Ok(gitlab) => gitlab,
        Err(trouble) => return (End::Trouble(trouble), report),
    };
    let aws = Aws::new(config, environment_secret).await;
    let mut run = Run {
        config,
        gitlab: &gitlab,
        aws: &aws,
        policy: policy(config),
        stop,
        seen: None,
        lists: Lists(Vec::new()),
        secrets: BTreeMap::new(),
        owners: Vec::new(),
        records: Vec::new(),
        token: None,
        identity: None,
        listed: Boottime::now(),
        own: None,
        secret_sent: false,
        started: BTreeSet::new(),
        sorry: None,
        wait_until: None,
        pause: Duration::from_secs(1),
        stale: false,
        keep_record: false,
        deploys: Vec::new(),
        effects: 0,
        report: &mut report,
    };
    let end = tokio::select! {
        end = run.go() => end,
        signal = stop.expired() => End::Trouble(Trouble::Stopped { signal }),
    };
    run.release(&end).await;
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
        overlap: config.overlap,
        grace_period: config.grace_period,
        forced: config.force.then_some(since),
        own_deploy: config.deploy.mode == DeployMode::None,
        leave_deploys: config.deploy.timeout.is_zero(),
    }
}

struct Run<'a> {
    config: &'a Config,
    gitlab: &'a Gitlab,
    aws: &'a Aws,
    policy: Policy,
    stop: &'a Stop,
    seen: Option<Observed>,
    lists: Lists,
    /// Secrets at hand, by the key they belong to.
    secrets: BTreeMap<AccessKeyId, SecretString>,
    /// What STS has said of readable values: a secret never changes hands.
    owners: Vec<(SecretString, SecretOwner)>,
    records: Vec<Written>,
    token: Option<Token>,
    identity: Option<Identity>,
    listed: Boottime,
    /// Our own record's variable and what it says besides the facts.
    own: Option<Written>,
    /// A write of the fresh key's secret may have had its effect.
    secret_sent: bool,
    /// Places in which this run has started a deploy.
    started: BTreeSet<usize>,
    /// What went wrong and is told once the rest is put in order.
    sorry: Option<Trouble>,
    wait_until: Option<Timestamp>,
    pause: Duration,
    stale: bool,
    /// The end is not in order: the record stays as it is.
    keep_record: bool,
    deploys: Vec<Deployed>,
    effects: u32,
    report: &'a mut Report,
}

impl Run<'_> {
    async fn go(&mut self) -> End {
        match self.steps().await {
            Ok(end) => end,
            Err(trouble) => End::Trouble(trouble),
        }
    }

    async fn steps(&mut self) -> Result<End, Trouble> {
        let stop = self.stop.clone();
        tokio::select! {
            looked = self.observe() => looked?,
            signal = stop.told() => return Err(Trouble::Stopped { signal }),
        }
        let (mut suspected, mut reread) = (None, false);
        loop {
            self.note_time();
            if let Some(signal) = self.stop.signal() {
                self.wind_down(signal)?;
            }
            let Some(seen) = &self.seen else { return Err(Trouble::ClaimLost(Fenced::Unseen)) };
            let step = plan(seen, &self.policy);
            tracing::debug!(%step, "planned");
            if self.stale && self.wants_a_fresh_look(&step) {
                self.stale = false;
                self.observe().await?;
                continue;
            }
            match step {
                Step::Done(Done::Tried) if seen.begun == Begun::Recorded => return Err(self.sorry.take().unwrap_or(Trouble::Overtaken)),
                Step::Done(done) => return self.sorry.take().map_or(Ok(End::Done(done)), Err),
                Step::Refuse(refusal) if self.has_unsent_key() => self.doom(refusal.into()),
                Step::Refuse(refusal) if refusal.blames_a_person() && suspected.as_ref() != Some(&refusal) => {
                    tracing::info!("something is not as expected; looking again in {} s", SECOND_LOOK.as_secs());
                    suspected = Some(refusal);
                    self.stop.sleep(SECOND_LOOK).await;
                    self.observe().await?;
                }
                Step::Refuse(refusal) => return Err(self.sorry.take().unwrap_or(Trouble::Refused(refusal))),
                step if self.config.dry_run && step.has_effect() => return Ok(End::DryRun(self.rehearse())),
                Step::Disable(_, Role::Old) | Step::Delete(_, Role::Old) if !reread => {
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

    async fn carry_out(&mut self, step: &Step) -> Result<(), Trouble> {
        let started = self.report.start(step, self.gitlab.now());
        let stop = self.stop.clone();
        // Between creation and publication a signal is answered by the plan, elsewhere at once.
        let critical =
            matches!(step, Step::Create | Step::WriteSecret { .. } | Step::WriteId { .. } | Step::Delete(..)) || self.stop.signal().is_some();
        let result = tokio::select! {
            result = self.act(step) => result,
            _ = stop.told(), if !critical => return Ok(()),
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
            Err(trouble) => self.after(step, trouble).await,
        }
    }

    /// What follows from a step beyond the picture.
    async fn afterwards(&mut self, step: &Step) -> Result<(), Trouble> {
        match step {
            Step::Claim => {
                if let (Some(seen), Some(own)) = (&mut self.seen, &self.own) {
                    seen.claim = Some(Claim { name: own.name.clone(), facts: None });
                }
                self.observe().await?;
            }
            Step::Record(Note::Published) => {
                self.sign_with_the_new_key();
                self.observe_variables().await?;
            }
            Step::Record(Note::Finished) => self.own = None,
            _ => {}
        }
        Ok(())
    }

    /// What follows from a step that failed.
    async fn after(&mut self, step: &Step, trouble: Trouble) -> Result<(), Trouble> {
        if matches!(trouble, Trouble::ClaimLost(_)) {
            self.keep_record = true;
            return Err(trouble);
        }
        if self.has_unsent_key() && !matches!(step, Step::Delete(..)) {
            self.doom(trouble);
            return Ok(());
        }
        let torn = matches!(step, Step::WriteSecret { .. } | Step::WriteId { .. }) && self.half_written();
        let ends = self.gitlab.fence.job_ends();
        let time_left = self.gitlab.now().is_some_and(|now| ends.is_some_and(|ends| now + LAST_MOMENT < ends));
        if torn && time_left && self.stop.signal().is_none() {
            tracing::warn!("{trouble}; a pair is torn, so this is tried again until the job ends");
            self.stop.sleep(self.pause).await;
            self.pause = (self.pause * 2).min(Duration::from_secs(30));
            // Looking may fail as well: the write is tried again all the same.
            let _ = self.observe_variables().await;
            return Ok(());
        }
        Err(self.sorry.take().unwrap_or(trouble))
    }

    fn has_unsent_key(&self) -> bool {
        let hand = self.seen.as_ref().and_then(|seen| seen.hand.as_ref());
        hand.is_some_and(|hand| !hand.doomed) && !self.secret_sent
    }

    /// Whether a target may hold half of the new pair.
    fn half_written(&self) -> bool {
        self.secret_sent || self.seen.as_ref().is_some_and(|seen| matches!(plan(seen, &self.policy), Step::WriteId { .. }))
    }

    /// The fresh key goes in this same run; then `trouble` is told.
    fn doom(&mut self, trouble: Trouble) {
        tracing::warn!("{trouble}; the new key is deleted again, nothing else has changed");
        self.sorry.get_or_insert(trouble);
        if let Some(hand) = self.seen.as_mut().and_then(|seen| seen.hand.as_mut()) {
            hand.doomed = true;
        }
    }

    /// After a signal: a key that nothing names is deleted, a torn pair is made whole, anything else ends here.
    fn wind_down(&mut self, signal: i32) -> Result<(), Trouble> {
        if self.has_unsent_key() {
            self.doom(Trouble::Stopped { signal });
            return Ok(());
        }
        let seen = self.seen.as_ref();
        let torn = |seen: &Observed| matches!(plan(seen, &self.policy), Step::WriteId { .. });
        let doomed = seen.and_then(|seen| seen.hand.as_ref()).is_some_and(|hand| hand.doomed);
        if doomed || seen.is_some_and(torn) {
            return Ok(());
        }
        Err(self.sorry.take().unwrap_or(Trouble::Stopped { signal }))
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

    /// After a long wait the picture may have changed; what only continues the wait needs no fresh look.
    fn wants_a_fresh_look(&self, step: &Step) -> bool {
        step.has_effect() && !matches!(step, Step::Record(Note::Quiet) | Step::StartDeploy(_))
    }

    async fn act(&mut self, step: &Step) -> Result<Option<Made>, Trouble> {
        match step {
            Step::Ask(question) => self.ask(question).await.map(|()| None),
            Step::Claim => self.claim().await.map(|()| None),
            Step::TakeOver => self.take_over().await.map(|()| None),
            Step::Record(note) => self.record(*note).await.map(|()| None),
            Step::Create => self.create().await,
            Step::Verify(key) => self.verify(key).await.map(|()| None),
            Step::WriteSecret { target, key } => self.write(*target, Half::Secret, key).await.map(|()| None),
            Step::WriteId { target, key } => self.write(*target, Half::Id, key).await.map(|()| None),
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

    // Looking.

    /// Looks at everything at once: keys, variables, records, token.
    async fn observe(&mut self) -> Result<(), Trouble> {
        let asked = Boottime::now();
        let (listing, lists, token) = tokio::join!(self.aws.list(), self.list_all(), self.token());
        let (lists, token) = (lists?, token?);
        let skew = self.gitlab.skew();
        if skew.unsigned_abs() > CLOCK_TOLERANCE.unsigned_abs() {
            return Err(Trouble::ClockWrong { seconds: skew.as_secs() });
        }
        let listing = match listing {
            Err(trouble @ Trouble::KeyRefused { .. }) => self.list_with_a_tags_key(&lists, trouble).await?,
            Err(Trouble::NoAwsCredentials { .. }) => return Err(Trouble::NoAwsCredentials { advice: self.advice(&lists) }),
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
            mentions: BTreeMap::new(),
            records: Vec::new(),
            claim: None,
            hand: None,
            begun: Begun::No,
            preflight: None,
            elders: None,
            deploys: None,
            waited_out: false,
            in_own_deploy: false,
        };
        if let Some(old) = old {
            seen = Observed { claim: old.claim, hand: old.hand, begun: old.begun, preflight: old.preflight, waited_out: old.waited_out, ..seen };
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
    async fn observe_variables(&mut self) -> Result<(), Trouble> {
        let lists = self.list_all().await?;
        self.look_at(lists).await
    }

    async fn list_all(&self) -> Result<Lists, Trouble> {
        let owners = variables::owners(&self.config.targets);
        let lists = owners.into_iter().map(async |owner| {
            let variables = variables::list(self.gitlab, &owner).await?;
            Ok::<_, Trouble>(variables::List { owner, variables })
        });
        try_join_all(lists).await.map(Lists)
    }

    async fn token(&self) -> Result<Token, Trouble> {
        if let Some(token) = &self.token {
            return Ok(token.clone());
        }
        let endpoint = gitlab::api::personal_access_tokens::PersonalAccessTokenSelf::builder().build();
        match self.gitlab.ask::<Token>(endpoint.map_err(|_| Trouble::ClaimLost(Fenced::Unseen))?).await {
            Ok(token) => Ok(token),
            // Some kinds of token are not told about themselves; a list that is refused tells the rest.
            Err(Problem::Denied { status: 403 | 404 | 401, .. }) => Ok(Token::default()),
            Err(problem) => Err(variables::trouble(self.gitlab, "asking about the token".to_owned(), problem)),
        }
    }

    /// A torn pair in self mode: the id of the environment is still the old one, its secret is the tag's key's.
    async fn list_with_a_tags_key(&self, lists: &Lists, trouble: Trouble) -> Result<Listing, Trouble> {
        if !matches!(self.config.signer, Signer::Environment) {
            return Err(trouble);
        }
        let environment = self.aws.environment_key();
        let targets = lists.targets(self.config);
        let tag = targets.iter().find_map(|target| target.secret.tag().filter(|tag| Some(*tag) != environment.as_ref()));
        match tag {
            Some(tag) if self.aws.sign_with_tag(tag) => self.aws.list().await.map_err(|_| trouble),
            Some(_) | None => Err(trouble),
        }
    }

    fn advice(&self, lists: &Lists) -> CredentialAdvice {
        let named = |name: &str| lists.0.iter().flat_map(|list| &list.variables).find(|variable| variable.key == name && !variable.is_empty());
        match named("AWS_ACCESS_KEY_ID") {
            None => CredentialAdvice::NoVariables,
            Some(variable) if variable.protected && self.config.job.ref_protected == Some(false) => CredentialAdvice::Protected,
            Some(variable) if variable.environment_scope != "*" && self.config.job.environment.is_none() => CredentialAdvice::Scoped,
            Some(_) => CredentialAdvice::Exists,
        }
    }

    /// A list may lag behind a key that this process has just made.
    fn keep_what_is_known(&self, keys: &mut Vec<Key>) {
        let Some(seen) = &self.seen else { return };
        let young = |key: &Key| seen.now.duration_since(key.created) < SignedDuration::from_mins(1);
        let hand = seen.hand.as_ref().and_then(|hand| seen.key(&hand.key));
        if let Some(key) = hand.filter(|key| young(key) && !keys.iter().any(|other| other.id == key.id)) {
            keys.push(key.clone());
        }
        for key in keys {
            key.used = seen.key(&key.id).and_then(|known| known.used.clone());
        }
    }

    async fn look_at(&mut self, lists: Lists) -> Result<(), Trouble> {
        let written = lists.records(self.config)?;
        self.confirm_own_record(&written).await?;
        let user = self.user().to_owned();
        let own = self.own.as_ref().map(|own| own.name.clone());
        let others: Vec<Written> =
            written.into_iter().filter(|other| other.record.user.eq_ignore_ascii_case(&user) && Some(&other.name) != own.as_ref()).collect();
        let alive = try_join_all(others.iter().map(|other| self.is_alive(&other.record))).await?;
        let records: Vec<RecordSeen> = others
            .iter()
            .zip(alive)
            .map(|(other, alive)| RecordSeen {
                name: other.name.clone(),
                at: other.record.at,
                released: other.record.released(),
                alive,
                facts: other.record.facts.clone(),
            })
            .collect();
        let in_own_deploy = self.is_in_own_deploy(&records);
        let mut targets = lists.targets(self.config);
        for (target, value) in targets.iter_mut().zip(lists.secrets(self.config)) {
            if let (SecretSeen::Readable { owner, .. }, Some(value)) = (&mut target.secret, value) {
                *owner = self.owner_of(&value);
            }
        }
        if let Some(seen) = &mut self.seen {
            seen.mentions = lists.mentions(self.config, &seen.keys);
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
    async fn confirm_own_record(&self, written: &[Written]) -> Result<(), Trouble> {
        let Some(own) = &self.own else { return Ok(()) };
        if written.iter().any(|other| other.name == own.name) {
            return Ok(());
        }
        let again = variables::list(self.gitlab, self.home()).await?;
        if again.iter().any(|variable| variable.key == own.name) {
            return Ok(());
        }
        self.gitlab.fence.record_is_gone();
        Err(Trouble::ClaimLost(Fenced::RecordGone))
    }

    fn owner_of(&self, value: &SecretString) -> SecretOwner {
        let same = |other: &SecretString| other.expose_secret() == value.expose_secret();
        if let Some((id, _)) = self.secrets.iter().find(|(_, secret)| same(secret)) {
            return SecretOwner::Key(id.clone());
        }
        self.owners.iter().find(|(other, _)| same(other)).map_or(SecretOwner::NotAsked, |(_, owner)| owner.clone())
    }

    /// A record's run is alive while GitLab says that its job has not ended, and shortly after; else until its `ends`.
    async fn is_alive(&self, record: &Record) -> Result<bool, Trouble> {
        let Some(ends) = record.ends else { return Ok(false) };
        let promised = |now: Timestamp| now < ends + AFTERLIFE;
        let Some(job) = record.job else { return Ok(self.gitlab.now().is_none_or(promised)) };
        let state =
            self.gitlab.job(job).await.map_err(|problem| variables::trouble(self.gitlab, format!("asking whether job {job} still runs"), problem))?;
        let Some(now) = self.gitlab.now() else { return Ok(true) };
        Ok(match state {
            Some(state) if !state.ended() => true,
            Some(state) => state.finished_at.map_or_else(|| promised(now), |finished| now < finished + AFTERLIFE),
            None => promised(now),
        })
    }

    /// The rotation's own deploy may contain the rotation's job: it has nothing to do there.
    fn is_in_own_deploy(&self, records: &[RecordSeen]) -> bool {
        let by_api = self.config.job.pipeline_source.as_deref() == Some("api");
        let waits = |record: &RecordSeen| {
            record.alive && !record.released && record.facts.as_ref().is_some_and(|facts| facts.quiet.is_some() && facts.deployed.is_none())
        };
        let noted = |record: &RecordSeen| {
            record.facts.iter().flat_map(|facts| &facts.deploys).any(|deploy| Some(deploy.pipeline) == self.config.job.pipeline)
        };
        self.own.is_none() && self.policy.action == Action::Rotate && records.iter().any(|record| by_api && (waits(record) || noted(record)))
    }

    // Asking.

    async fn ask(&mut self, question: &Question) -> Result<(), Trouble> {
        let Some(seen) = &self.seen else { return Ok(()) };
        match question {
            Question::WhoseSecrets => self.ask_whose_secrets().await,
            Question::LastUse(id) => {
                let used = self.aws.last_use(id).await?;
                let key = self.seen.iter_mut().flat_map(|seen| &mut seen.keys).find(|key| key.id == *id);
                if let Some(key) = key {
                    key.used = Some(used);
                }
                Ok(())
            }
            Question::Preflight => {
                let token = self.token.clone().unwrap_or_default();
                let (findings, identity) = preflight::findings(self.config, self.gitlab, self.aws, &self.lists, &token, seen).await?;
                self.identity = identity;
                if let Some(seen) = &mut self.seen {
                    seen.preflight = Some(findings);
                }
                Ok(())
            }
            Question::ElderJobs => {
                let published = seen.facts().and_then(|facts| facts.published.as_ref()).map(|published| published.at);
                let rotators = self.records.iter().chain(&self.own).filter_map(|written| written.record.job);
                let exempt = rotators.chain(self.gitlab.fence.job()).map(|job: JobRef| job.job).collect();
                let elders = deploy::elders(self.gitlab, &self.projects(), published.unwrap_or(seen.now), &exempt).await?;
                if let Some(seen) = &mut self.seen {
                    seen.now = self.gitlab.now().unwrap_or(seen.now);
                    seen.elders = Some(elders);
                }
                Ok(())
            }
            Question::Deploys => self.ask_deploys().await,
        }
    }

    /// The projects whose jobs use the pair, as far as they are known.
    fn projects(&self) -> Vec<Name> {
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

    async fn ask_whose_secrets(&mut self) -> Result<(), Trouble> {
        let Some(seen) = &self.seen else { return Ok(()) };
        let published = seen.facts().and_then(|facts| facts.published.as_ref()).map(|published| published.key.clone());
        let values = self.lists.secrets(self.config);
        let mut answers = Vec::new();
        for (target, value) in seen.targets.iter().zip(values) {
            let (SecretSeen::Readable { tag, owner: SecretOwner::NotAsked }, Some(value)) = (&target.secret, value) else { continue };
            if answers.iter().any(|(other, _): &(SecretString, _)| other.expose_secret() == value.expose_secret()) {
                continue;
            }
            // The likeliest first: each candidate is a call.
            let likely = [published.as_ref(), tag.as_ref(), target.id.key()];
            let mut candidates: Vec<AccessKeyId> =
                likely.into_iter().flatten().filter(|id| seen.key(id).is_some_and(|key| key.active)).cloned().collect();
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
        let owners: Vec<Option<SecretOwner>> =
            self.lists.secrets(self.config).iter().map(|value| value.as_ref().map(|value| self.owner_of(value))).collect();
        for (target, answer) in self.seen.iter_mut().flat_map(|seen| &mut seen.targets).zip(owners) {
            if let (SecretSeen::Readable { owner, .. }, Some(answer)) = (&mut target.secret, answer) {
                *owner = answer;
            }
        }
        Ok(())
    }

    async fn ask_deploys(&mut self) -> Result<(), Trouble> {
        let Some(seen) = &self.seen else { return Ok(()) };
        let facts = seen.facts().cloned().unwrap_or_default();
        let looked = if self.policy.own_deploy {
            vec![deploy::look_at_own(self.gitlab, self.config, facts.quiet.unwrap_or(seen.now)).await?]
        } else {
            let places = places(self.config);
            let looks = places.iter().enumerate().map(|(index, place)| {
                let noted = facts.deploys.iter().find(|noted| noted.place == place.name);
                deploy::look(self.gitlab, self.config, place, noted, self.started.contains(&index), seen.now)
            });
            try_join_all(looks).await?
        };
        let (deploys, reports): (Vec<DeploySeen>, Vec<Deployed>) = looked.into_iter().unzip();
        self.deploys = reports;
        if let Some(seen) = &mut self.seen {
            seen.now = self.gitlab.now().unwrap_or(seen.now);
            seen.deploys = Some(deploys);
        }
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), Trouble> {
        let now = self.gitlab.now().unwrap_or_else(Timestamp::now);
        let limit = now + self.config.deploy.timeout;
        let ends = self.gitlab.fence.job_ends().map(|ends| ends - RESERVE);
        self.wait_until.get_or_insert_with(|| ends.map_or(limit, |ends| ends.min(limit)));
        self.stop.sleep(self.pause).await;
        self.pause = (self.pause * 3 / 2).min(Duration::from_secs(10));
        self.stale = true;
        if let Some(seen) = &mut self.seen {
            seen.elders = None;
            seen.deploys = None;
        }
        Ok(())
    }

    // Acting.

    fn home(&self) -> &Owner {
        &self.config.targets[0].owner
    }

    /// Announce, then look: sound without compare-and-swap, for of two runs at least the later one sees the other.
    async fn claim(&mut self) -> Result<(), Trouble> {
        for tries in 1..=CLAIM_TRIES {
            let now = self.gitlab.now().unwrap_or_else(Timestamp::now);
            let job = self.gitlab.fence.job();
            let whose = job.map_or_else(|| format!("L{}", now.as_second()), |job| job.job.to_string());
            let name = format!("{}{whose}_{:08x}", record::PREFIX, fastrand::u32(..));
            let bare = Record { user: self.user().to_owned(), job, at: now, ends: Some(self.gitlab.fence.ends(now)), facts: None };
            // Ours from here on: should a later call fail, it is taken away at the end.
            self.own = Some(Written { name: name.clone(), scope: record::SCOPE.to_owned(), record: bare.clone() });
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

    async fn sees_another(&self, own: &str) -> Result<bool, Trouble> {
        let home = self.home();
        let lists = Lists(vec![variables::List { owner: home.clone(), variables: variables::list(self.gitlab, home).await? }]);
        let user = self.user();
        for other in lists.records(self.config)? {
            if other.name != own && other.record.user.eq_ignore_ascii_case(user) && !other.record.released() && self.is_alive(&other.record).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn take_over(&mut self) -> Result<(), Trouble> {
        let facts = self.seen.as_ref().and_then(|seen| seen.facts().filter(|facts| facts.unfinished()).cloned());
        if facts.is_some() {
            self.write_record(facts, true).await?;
        }
        let over: Vec<String> =
            self.seen.iter().flat_map(|seen| &seen.records).filter(|record| record.is_over()).map(|record| record.name.clone()).collect();
        for other in self.records.iter().filter(|other| over.contains(&other.name)) {
            variables::delete_record(self.gitlab, self.home(), &other.name, &other.scope).await?;
        }
        Ok(())
    }

    async fn record(&mut self, note: Note) -> Result<(), Trouble> {
        let facts = self.seen.as_ref().and_then(|seen| Facts::noted(seen, note));
        self.write_record(facts, note != Note::Finished).await
    }

    async fn write_record(&mut self, facts: Option<Facts>, held: bool) -> Result<(), Trouble> {
        let Some(own) = &self.own else { return Ok(()) };
        let record = Record { facts, ends: own.record.ends.filter(|_| held), ..own.record.clone() };
        variables::update_record(self.gitlab, self.home(), &own.name, &own.scope, &record).await?;
        if let Some(own) = &mut self.own {
            own.record = record;
        }
        Ok(())
    }

    async fn create(&mut self) -> Result<Option<Made>, Trouble> {
        if self.listed.elapsed() > LIST_HOLDS {
            // What was recorded may be out of date: list and record again.
            if let Some(seen) = &mut self.seen {
                seen.begun = Begun::No;
            }
            self.observe().await?;
            self.record(Note::Begin).await?;
            if let Some(seen) = &mut self.seen {
                seen.apply(&Step::Record(Note::Begin), None);
            }
        }
        let made = self.aws.create(self.user(), || self.gitlab.may_act()).await;
        if let Some(seen) = &mut self.seen {
            seen.begun = Begun::Tried;
        }
        match made {
            Ok(fresh) => {
                // What was readable before the key was made cannot be its secret.
                let before = self.lists.secrets(self.config).into_iter().flatten();
                self.owners.extend(before.map(|value| (value, SecretOwner::Nobody)));
                let key = Key { id: fresh.id.clone(), active: true, created: fresh.created, used: None };
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
    async fn settle_creation(&mut self) -> Result<Option<Made>, Trouble> {
        tracing::warn!("the reply to CreateAccessKey was lost; looking for what it made");
        let before = self.seen.as_ref().map_or(0, |seen| seen.keys.len());
        for pause in [5, 6, 6] {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            self.observe().await?;
            if self.seen.as_ref().is_some_and(|seen| seen.keys.len() > before) {
                // Its secret is lost; the plan removes it, and this run makes no other.
                self.sorry = Some(Trouble::CreatedOrphan);
                return Ok(None);
            }
        }
        self.keep_record = true;
        Err(Trouble::CreateUnclear)
    }

    async fn verify(&mut self, key: &AccessKeyId) -> Result<(), Trouble> {
        let Some(secret) = self.secrets.get(key) else { return Ok(()) };
        let account = self.identity.as_ref().map(|identity| identity.account.as_str());
        self.aws.verify(key, secret, self.user(), account, self.config.verify_timeout).await
    }

    async fn write(&mut self, target: usize, half: Half, key: &AccessKeyId) -> Result<(), Trouble> {
        let secret = match half {
            Half::Secret => self.secrets.get(key).cloned(),
            Half::Id => Some(SecretString::from(key.full())),
        };
        let Some(value) = secret else { return Ok(()) };
        let target = &self.config.targets[target];
        let written = variables::write(self.gitlab, self.config, &self.lists, target, half, key, &value).await;
        if half == Half::Secret {
            self.secret_sent |= written.as_ref().err().is_none_or(|trouble| !trouble.is_definite());
        }
        written
    }

    async fn start_deploy(&mut self, index: usize) -> Result<Made, Trouble> {
        let quiet = self.seen.as_ref().and_then(|seen| seen.facts().and_then(|facts| facts.quiet)).unwrap_or_else(Timestamp::now);
        let places = places(self.config);
        let user = self.token.as_ref().and_then(|token| token.user_id);
        let noted = deploy::start(self.gitlab, self.config, &places[index], quiet, user).await?;
        self.started.insert(index);
        self.pause = Duration::from_secs(1);
        let mut facts = self.seen.as_ref().and_then(|seen| seen.facts().cloned()).unwrap_or_default();
        facts.deploys.retain(|other| other.place != noted.place);
        facts.deploys.push(noted.clone());
        self.write_record(Some(facts), true).await?;
        Ok(Made::Deploy(noted))
    }

    /// Where the credentials in use are the old key's own, the new key retires it.
    fn sign_with_the_new_key(&self) {
        let Some(facts) = self.seen.as_ref().and_then(Observed::facts) else { return };
        let (Some(published), Some(environment)) = (&facts.published, self.aws.environment_key()) else { return };
        if facts.is_old(&environment)
            && let Some(secret) = self.secrets.get(&published.key)
        {
            self.aws.sign_with(&published.key, secret);
        }
    }

    /// An end in order takes `ends` out of the record, and a record without facts away.
    async fn release(&mut self, end: &End) {
        let Some(own) = &self.own else { return };
        if self.keep_record || matches!(end, End::Trouble(Trouble::ClaimLost(_))) {
            return;
        }
        let released = match own.record.facts.clone() {
            Some(facts) => self.write_record(Some(facts), false).await,
            None => variables::delete_record(self.gitlab, self.home(), &own.name, &own.scope).await,
        };
        if released.is_err() {
            tracing::warn!("this run's record could not be released; it counts until GitLab says that the job has ended");
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
                Step::Ask(question) => imagine(&mut seen, question, places(self.config).len()),
                Step::Create => {
                    let id = AccessKeyId::parse("AKIA000000000000NEW0").unwrap_or_else(|| seen.keys[0].id.clone());
                    made = Some(Made::Key(Key { id, active: true, created: seen.now, used: None }));
                }
                Step::StartDeploy(index) => {
                    let place = places(self.config).get(*index).map(|place| place.name.clone()).unwrap_or_default();
                    made = Some(Made::Deploy(record::NotedDeploy { place, pipeline: 0, job: None, proven: None }));
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
fn imagine(seen: &mut Observed, question: &Question, places: usize) {
    match question {
        Question::WhoseSecrets => {
            for target in &mut seen.targets {
                let id = target.id.key().cloned();
                if let SecretSeen::Readable { owner, .. } = &mut target.secret {
                    *owner = id.map_or(SecretOwner::Nobody, SecretOwner::Key);
                }
            }
        }
        Question::LastUse(id) => {
            for key in seen.keys.iter_mut().filter(|key| key.id == *id) {
                key.used = Some(crate::plan::Use::Never);
            }
        }
        Question::Preflight => seen.preflight = Some(Vec::new()),
        Question::ElderJobs => seen.elders = Some(Vec::new()),
        Question::Deploys => {
            let noted = seen.facts().map(|facts| facts.deploys.clone()).unwrap_or_default();
            let deploys = noted.into_iter().map(DeploySeen::Proven).chain(std::iter::repeat(DeploySeen::Startable));
            seen.deploys = Some(deploys.take(places).collect());
        }
    }
}
