//! How a step changes what the plan knows: where it succeeded ([`Observed::apply`]) and where it
//! failed ([`Observed::failed`]).
//!
//! What only an observation can tell (answers, waits, what others did) is not changed here.

use super::model::{
    Claim, DeploySeen, IdSeen, Observed, RecordSeen, SecretOwner, SecretSeen, TargetSeen,
};
use super::run_state::{Attempt, Failure, FailureKind, Freshness, Misdirected, NewKey};
use super::step::{Checkpoint, Made, Scope, Step, Waiting};
use super::{APPEARS_WITHIN, Refusal};
use crate::access_key::{AccessKeyId, Key};
use crate::record::{DeployAttempt, Progress, Published, RecordedDeploy, RecordedTarget};

impl Observed {
    /// The step succeeded. `made` is what a `Create` or a `StartDeploy` has brought. Whoever carries
    /// out an `Ask`, an `Observe` or a `Confirm` puts the answers in before.
    pub fn apply(&mut self, step: &Step, made: Option<Made>) {
        self.run.freshness = freshness_after(self.run.freshness, step);
        self.run.failure = self.run.failure.take().and_then(|failure| pending(failure, step));
        match step {
            Step::Ask(_)
            | Step::Wait(Waiting::Margin { .. } | Waiting::Afterlife { .. })
            | Step::Observe(_)
            | Step::Retry
            | Step::Done(_)
            | Step::Refuse(_)
            | Step::Stop => {}
            Step::Wait(_) => (self.in_flight_jobs, self.deploys) = (None, None),
            Step::Confirm(refusal) => self.run.suspected = Some(Refusal::clone(refusal)),
            Step::Abandon(_) => self.abandon(),
            Step::Claim => self.claimed(made),
            Step::TakeOver => self.take_over(),
            Step::Record(checkpoint) => self.reach(*checkpoint),
            Step::Create => self.created(made),
            Step::Verify(_) => {
                if let Some(new_key) = &mut self.run.new_key {
                    new_key.verified = true;
                }
            }
            Step::WriteSecret { target, key } => self.secret_written(*target, key),
            Step::WriteId { target, key } => self.targets[*target].id = IdSeen::Key(key.clone()),
            Step::StartDeploy(_) => self.deploy_started(made),
            Step::Disable(id, _) => {
                if let Some(key) = self.keys.iter_mut().find(|key| key.id == *id) {
                    key.active = false;
                }
            }
            Step::Delete(id, _) => {
                self.keys.retain(|key| key.id != *id);
                if self.run.new_key.as_ref().is_some_and(|new_key| new_key.key == *id) {
                    self.run.new_key = None;
                }
            }
        }
    }

    /// The step failed. `misdirected`: GitLab put the value into another variable.
    pub fn failed(&mut self, step: &Step, kind: FailureKind, misdirected: bool) {
        let run = &mut self.run;
        match step {
            Step::Create => {
                run.attempt = match kind {
                    FailureKind::Unclear => Attempt::Unclear,
                    FailureKind::ClaimLost | FailureKind::Refused => Attempt::Tried,
                }
            }
            Step::WriteSecret { .. } => run.secret_sent |= kind == FailureKind::Unclear,
            Step::StartDeploy(_) if kind == FailureKind::Unclear => run.asking = None,
            // Where the value went stays unknown, so the write is repeated.
            Step::Observe(_) if kind != FailureKind::ClaimLost => {
                if let Some(pending) = &mut run.failure {
                    pending.misdirected = Misdirected::No;
                    return;
                }
            }
            Step::Retry if kind != FailureKind::ClaimLost => return,
            _ => {}
        }
        let misdirected = if misdirected { Misdirected::Yes } else { Misdirected::No };
        run.failure = Some(Failure { step: Box::new(step.clone()), kind, misdirected });
    }

    fn abandon(&mut self) {
        self.run.error_deferred = true;
        if let Some(new_key) = self.run.new_key.as_mut().filter(|_| !self.run.secret_sent) {
            new_key.abandoned = true;
        }
    }

    /// The name of the record is chosen by whoever writes it.
    fn claimed(&mut self, made: Option<Made>) {
        let name = match made {
            Some(Made::Record(name)) => name,
            Some(Made::Key(_) | Made::Orphan | Made::Deploy(_)) | None => String::new(),
        };
        self.claim = Some(Claim { name, progress: None });
    }

    fn take_over(&mut self) {
        let progress = self.progress().filter(|progress| progress.unfinished()).cloned();
        if let Some(claim) = &mut self.claim {
            claim.progress = progress;
        }
        self.records.retain(|record| !record.is_over());
    }

    fn created(&mut self, made: Option<Made>) {
        self.run.attempt = Attempt::Tried;
        // What was readable before the key was made cannot be its secret.
        for target in &mut self.targets {
            if let SecretSeen::Readable { owner: owner @ SecretOwner::NotAsked, .. } =
                &mut target.secret
            {
                *owner = SecretOwner::Nobody;
            }
        }
        match made {
            Some(Made::Key(key)) => {
                self.run.new_key =
                    Some(NewKey { key: key.id.clone(), verified: false, abandoned: false });
                self.keys.push(key);
            }
            // The list that showed it was observed meanwhile; the plan removes it.
            Some(Made::Orphan) => self.run.error_deferred = true,
            Some(Made::Deploy(_) | Made::Record(_)) | None => {}
        }
    }

    fn secret_written(&mut self, target: usize, key: &AccessKeyId) {
        self.run.secret_sent = true;
        let secret = &mut self.targets[target].secret;
        let hidden = matches!(secret, SecretSeen::Hidden { .. });
        let (tag, owner) = (Some(key.clone()), SecretOwner::Key(key.clone()));
        *secret =
            if hidden { SecretSeen::Hidden { tag } } else { SecretSeen::Readable { tag, owner } };
    }

    fn deploy_started(&mut self, made: Option<Made>) {
        (self.run.asking, self.deploys) = (None, None);
        let progress = self.claim.as_mut().and_then(|claim| claim.progress.as_mut());
        match (made, progress) {
            (Some(Made::Deploy(recorded)), Some(progress)) => progress.record_deploy(recorded),
            (_, Some(progress)) => progress.withdraw_attempt(),
            (_, None) => {}
        }
    }

    fn reach(&mut self, checkpoint: Checkpoint) {
        let progress = Progress::after(self, checkpoint);
        match checkpoint {
            Checkpoint::Begin => {
                self.run.attempt = Attempt::Recorded;
                self.run.secret_sent = false;
            }
            Checkpoint::Published => self.in_flight_jobs = None,
            Checkpoint::NotInPlace => {
                (self.in_flight_jobs, self.deploys, self.run.asking) = (None, None, None);
            }
            Checkpoint::Attempt(place) => self.run.asking = Some(place),
            Checkpoint::AttemptWithdrawn(_) => (self.run.asking, self.deploys) = (None, None),
            Checkpoint::Drained
            | Checkpoint::AttemptClosed(_)
            | Checkpoint::Adopted(_)
            | Checkpoint::Proven => self.deploys = None,
            Checkpoint::Superseded => self.run.superseded = self.operators_pair().cloned(),
            // Recorded and not tried: it may begin again.
            Checkpoint::Nothing if self.run.attempt == Attempt::Recorded => {
                self.run.attempt = Attempt::No;
            }
            Checkpoint::Nothing
            | Checkpoint::Disabled
            | Checkpoint::EnabledAgain
            | Checkpoint::Finished => {}
        }
        let Some(claim) = &mut self.claim else { return };
        claim.progress = progress;
        if checkpoint.ends_the_rotation() {
            // The last write of a rotation releases its record.
            let (name, progress) = (std::mem::take(&mut claim.name), claim.progress.take());
            self.claim = None;
            self.run.new_key = None;
            let at = self.now;
            self.records.push(RecordSeen {
                name,
                at,
                released: true,
                alive: false,
                until: None,
                progress,
            });
        }
    }
}

fn freshness_after(before: Freshness, step: &Step) -> Freshness {
    match step {
        Step::Observe(Scope::Everywhere) => Freshness::Searched,
        Step::Observe(Scope::Everything | Scope::Variables) | Step::Confirm(_) => Freshness::Fresh,
        // Another run may have been at work until the claim.
        Step::Claim => Freshness::Outdated,
        // The next steps rest on every target holding the pair.
        Step::Record(Checkpoint::Published) => Freshness::VariablesOutdated,
        Step::Wait(Waiting::Margin { .. }) => before,
        // The other run is over, and what it has done is to be seen now.
        Step::Wait(Waiting::Afterlife { .. }) => Freshness::Outdated,
        Step::Wait(_) => Freshness::AfterWait,
        Step::Ask(_) | Step::Record(Checkpoint::Drained) if before == Freshness::AfterWait => {
            Freshness::AfterWait
        }
        Step::Ask(_)
        | Step::TakeOver
        | Step::Record(_)
        | Step::Create
        | Step::Verify(_)
        | Step::WriteSecret { .. }
        | Step::WriteId { .. }
        | Step::StartDeploy(_)
        | Step::Disable(..)
        | Step::Delete(..)
        | Step::Abandon(_)
        | Step::Retry
        | Step::Done(_)
        | Step::Refuse(_)
        | Step::Stop => Freshness::Applied,
    }
}

/// What stays of a failure once this step has succeeded.
fn pending(failure: Failure, step: &Step) -> Option<Failure> {
    // The refusal of a deploy is told once its attempt is taken out.
    if let (Step::StartDeploy(_), Step::Record(Checkpoint::AttemptWithdrawn(_))) =
        (&*failure.step, step)
    {
        return Some(failure);
    }
    match (failure.misdirected, step) {
        (Misdirected::Yes, Step::Observe(_)) => {
            Some(Failure { misdirected: Misdirected::Read, ..failure })
        }
        (Misdirected::Yes | Misdirected::No | Misdirected::Read, _) => None,
    }
}

impl Progress {
    /// Whether this key is one that the rotation retires.
    pub fn is_old(&self, id: &AccessKeyId) -> bool {
        let published = self.published.as_ref().is_some_and(|published| published.key == *id);
        !published && self.previous.iter().flatten().any(|previous| previous == id)
    }

    /// A deploy was started, or found: of each place the latest counts.
    pub fn record_deploy(&mut self, started: RecordedDeploy) {
        self.attempts.retain(|attempt| attempt.place != started.place);
        self.deploys.retain(|other| other.place != started.place);
        self.deploys.push(started);
    }

    /// A deploy is asked for next. The attempt in hand is the last one.
    fn note_attempt(&mut self, attempt: DeployAttempt) {
        self.attempts.retain(|other| other.place != attempt.place);
        self.attempts.push(attempt);
    }

    /// What the attempt in hand asked for was surely not started.
    pub fn withdraw_attempt(&mut self) {
        self.attempts.pop();
    }

    /// The progress once this checkpoint is reached; `None` where nothing came of the rotation.
    pub fn after(seen: &Observed, checkpoint: Checkpoint) -> Option<Self> {
        let progress = seen.progress().cloned();
        let now = Some(seen.now);
        match checkpoint {
            Checkpoint::Nothing => None,
            Checkpoint::Begin => Some(Self::begun(seen, progress.filter(Self::unfinished))),
            Checkpoint::Published => progress.map(|progress| {
                let key = seen.targets.first().and_then(|target| target.id.key()).cloned();
                let published = key.map(|key| Published { key, at: seen.now });
                Self { published, not_in_place: None, ..progress.with_targets(seen, true) }
            }),
            Checkpoint::NotInPlace => progress.map(|progress| Self {
                not_in_place: now,
                drained: None,
                deploys: Vec::new(),
                attempts: Vec::new(),
                deployed: None,
                ..progress
            }),
            Checkpoint::Drained => progress.map(|progress| Self { drained: now, ..progress }),
            Checkpoint::Attempt(place) => progress.map(|progress| progress.asking(seen, place)),
            Checkpoint::AttemptClosed(_) => progress.map(|mut progress| {
                if let Some(attempt) = progress.attempts.last_mut() {
                    attempt.closed = Some(seen.now + APPEARS_WITHIN);
                }
                progress
            }),
            Checkpoint::AttemptWithdrawn(_) => progress.map(|mut progress| {
                progress.withdraw_attempt();
                progress
            }),
            Checkpoint::Adopted(place) => progress.map(|mut progress| {
                if let Some(DeploySeen::Adoptable(found)) = seen.deploy(place) {
                    progress.record_deploy(found.clone());
                }
                progress
            }),
            Checkpoint::Proven => progress.map(|progress| progress.proven(seen)),
            Checkpoint::Disabled => {
                progress.map(|progress| Self { disabled: now, enabled_again: None, ..progress })
            }
            Checkpoint::EnabledAgain => {
                progress.map(|progress| Self { enabled_again: now, ..progress })
            }
            Checkpoint::Finished => progress.map(|progress| Self { finished: now, ..progress }),
            Checkpoint::Superseded => progress.map(|progress| {
                let key = seen.operators_pair().cloned();
                let published = key.map(|key| Published { key, at: seen.now });
                Self { published, finished: now, ..progress }
            }),
        }
    }

    fn begun(seen: &Observed, before: Option<Self>) -> Self {
        let ids = |key: &Key| key.id.clone();
        let tags = seen.targets.iter().filter_map(|target| target.secret.tag().cloned());
        let mut from: Vec<AccessKeyId> = seen.keys.iter().map(ids).chain(tags).collect();
        let held = seen.targets.iter().map(|target| target.id.key().cloned());
        // A secret that is missing counts like a pair that is.
        let is_half = |target: &TargetSeen| target.secret == SecretSeen::Absent;
        let half = seen.targets.iter().any(is_half).then_some(None);
        // What an unfinished rotation has published to may still hold a key that this one replaces.
        let (mut previous, targets) =
            before.map(|progress| (progress.previous, progress.targets)).unwrap_or_default();
        previous.extend(held.chain(half));
        previous.sort();
        previous.dedup();
        from.sort();
        from.dedup();
        let targets =
            targets.into_iter().map(|target| RecordedTarget { published: false, ..target });
        Self {
            from,
            creating: seen.listed,
            previous,
            targets: targets.collect(),
            ..Self::default()
        }
        .with_targets(seen, false)
    }

    /// The same with the targets as they are now.
    fn with_targets(mut self, seen: &Observed, published: bool) -> Self {
        for target in &seen.targets {
            self.record_target(&target.place, published);
        }
        self
    }

    fn asking(mut self, seen: &Observed, place: usize) -> Self {
        if let Some(DeploySeen::Startable { place, asked }) = seen.deploy(place).cloned() {
            self.note_attempt(DeployAttempt { place, asked, at: seen.now, closed: None });
        }
        self
    }

    fn proven(self, seen: &Observed) -> Self {
        let deploys = seen.deploys.as_deref().unwrap_or_default();
        let is_proven = |recorded: &RecordedDeploy| {
            deploys.iter().any(|deploy| {
                matches!(deploy, DeploySeen::Proven(proven) if proven.place == recorded.place)
            })
        };
        let all = deploys.iter().all(|deploy| matches!(deploy, DeploySeen::Proven(_)));
        let recorded = self.deploys.into_iter().map(|recorded| RecordedDeploy {
            proven: recorded.proven.or_else(|| is_proven(&recorded).then_some(seen.now)),
            tried: recorded.tried.filter(|_| !is_proven(&recorded)),
            ..recorded
        });
        Self { deploys: recorded.collect(), deployed: all.then_some(seen.now), ..self }
    }
}
