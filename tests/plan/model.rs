//! A tiny IAM and GitLab with ground truth, and a process that works on them with the real `plan`.
//!
//! Written from DESIGN.md. It knows whose secret each value really is, what production runs on and
//! who made which key; what a step does here shares no code with `Observed::apply`, so that each
//! can be held against the other.

use std::collections::{BTreeMap, BTreeSet};

use credential_rotator::access_key::{AccessKeyId, Key, Use};
use credential_rotator::config::Action;
use credential_rotator::plan::{
    Attempt, Blocker, Cause, Checkpoint, Claim, DeploySeen, Done, Failure, FailureKind, Freshness,
    IdSeen, LeftDeploys, Made, Misdirected, NewKey, Observed, Policy, Query, RecordSeen, Refusal,
    RunState, Scope, SecretOwner, SecretSeen, Step, TargetSeen, Waiting, plan,
};
use credential_rotator::record::{
    Asked, DeployAttempt, Progress, Published, RecordedDeploy, RecordedTarget,
};

use jiff::SignedDuration;

use crate::invariants::check;
use crate::kit::{self, DAY, NOW, OLD, at, deploy_place, id, recorded_deploy};

pub(crate) type Id = u32;

/// How a step failed, and in which words.
type Wrong = (FailureKind, &'static str);

/// A rolling deploy: so many seconds after it has succeeded, requests still carry the old key.
const DRAINS: i64 = 60;

const CLAIM_LOST: &str = "claim lost";
const MISDIRECTED: &str = "put into another variable";
const NO_ROTATION: Wrong = (FailureKind::Refused, "no rotation");

/// A secret, by what it really is: the one of a key, or nothing that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Secret {
    Of(Id),
    Junk,
}

#[derive(Clone, Debug)]
pub(crate) struct IamKey {
    pub(crate) id: Id,
    pub(crate) active: bool,
    pub(crate) created: i64,
    /// Lists lag: from when they show it.
    pub(crate) shown: i64,
    pub(crate) used: Option<(i64, &'static str)>,
    pub(crate) foreign: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) secret: Secret,
    pub(crate) hidden: bool,
    pub(crate) tag: Option<Id>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) id: Option<Id>,
    pub(crate) value: Option<Value>,
}

/// A record, as it lies in its variable.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) name: u32,
    pub(crate) job: usize,
    pub(crate) at: i64,
    pub(crate) ends: Option<i64>,
    pub(crate) progress: Option<Progress>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) ended: Option<i64>,
    /// GitLab can say whether it runs.
    pub(crate) visible: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Succeeds,
    Fails,
    Hangs,
    Unproven,
    Deleted,
}

/// A deploy job: it reads the variables when it starts, and production runs on them from when it
/// ends.
#[derive(Clone, Debug)]
pub(crate) struct Deploy {
    pub(crate) number: u64,
    pub(crate) place: usize,
    pub(crate) starts: i64,
    pub(crate) ends: i64,
    pub(crate) fate: Fate,
    pub(crate) read: Option<(Option<Id>, Option<Secret>)>,
    pub(crate) over: Option<Fate>,
    pub(crate) made: i64,
    /// A rotation's attempt is behind it; else somebody else's.
    pub(crate) asked_for: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) now: i64,
    pub(crate) policy: Policy,
    pub(crate) keys: Vec<IamKey>,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) other_references: BTreeSet<Id>,
    /// The same in places that are no targets.
    pub(crate) elsewhere: BTreeSet<Id>,
    pub(crate) records: Vec<Record>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) deploys: Vec<Deploy>,
    pub(crate) production: Vec<Option<(Id, Secret)>>,
    /// What a deploy has replaced goes on for a while with the pair that it had.
    pub(crate) draining: Vec<(Id, i64)>,
    pub(crate) verified: BTreeSet<Id>,
    pub(crate) fates: Vec<Fate>,
    pub(crate) lag: i64,
    /// How often a person has changed something.
    pub(crate) operator_acts: u64,
    /// A person has changed what production or the records rest on: what follows for production is
    /// that person's.
    pub(crate) tainted: bool,
    /// A person has stored another pair that works, and no run has seen it: what was deployed
    /// meanwhile cannot be known.
    pub(crate) displaced: bool,
    /// The first violation.
    pub(crate) wrong: Option<String>,
    /// Ids that a target held when a rotation began.
    pub(crate) replaced: BTreeSet<Id>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    next: u32,
    epoch: u64,
    acted: u64,
}

/// What goes wrong in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Refused,
    ReplyLost,
    DieBefore,
    DieAfter,
    /// Of an effect in two parts, only the first happens.
    DieBetween,
    /// A signal comes before the step.
    Signal,
    /// GitLab puts the value into another variable.
    Misdirected,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    Went(Option<Step>),
    Ended(End),
    Died,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Done(Done),
    Refused(Refusal),
    Failed(&'static str),
}

/// One run: what a process remembers.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) job: usize,
    pub(crate) action: Action,
    pub(crate) forced: Option<i64>,
    /// Each step's picture is held against what a look would show.
    pub(crate) compare: bool,
    pub(crate) steps: u32,
    own: Option<u32>,
    announced: Option<u32>,
    claiming: bool,
    tries: u32,
    /// What it has done, kept by this model and not by `apply`.
    pub(crate) run: RunState,
    made: Option<Key>,
    secrets: BTreeSet<Id>,
    owners: BTreeMap<Secret, SecretOwner>,
    values: Vec<Option<Value>>,
    used: BTreeMap<Id, Use>,
    preflight: Option<Vec<Blocker>>,
    listed: i64,
    started: BTreeSet<usize>,
    unanswered: BTreeSet<usize>,
    wait_until: Option<i64>,
    /// What went wrong in the step that has just failed, and what is told at the end.
    error: Option<&'static str>,
    deferred: Option<&'static str>,
    keep_record: bool,
    /// How often a person had changed something when it last read the variables.
    read_after: u64,
    seen: Option<Observed>,
    ends: i64,
    epoch: u64,
    began: i64,
}

pub(crate) fn number(id: &AccessKeyId) -> Id {
    id.full()[4..].parse().expect("an id of ours")
}

fn note_targets(targets: &mut Vec<RecordedTarget>, count: usize, published: bool) {
    for place in (0..count).map(kit::place) {
        let known = targets.iter().position(|target| target.place == place);
        let at = known.unwrap_or(targets.len());
        let published = published || known.is_some_and(|known| targets[known].published);
        let target = RecordedTarget { place, published };
        if known.is_some() { targets[at] = target } else { targets.push(target) }
    }
}

fn place_name(place: usize) -> String {
    format!("project:{}", place + 1)
}

impl Model {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            now: NOW,
            policy,
            keys: Vec::new(),
            pairs: Vec::new(),
            other_references: BTreeSet::new(),
            elsewhere: BTreeSet::new(),
            records: Vec::new(),
            jobs: Vec::new(),
            deploys: Vec::new(),
            production: Vec::new(),
            draining: Vec::new(),
            verified: BTreeSet::new(),
            fates: Vec::new(),
            lag: 0,
            operator_acts: 0,
            tainted: false,
            displaced: false,
            wrong: None,
            replaced: BTreeSet::new(),
            counts: BTreeMap::new(),
            next: 10,
            epoch: 0,
            acted: 0,
        }
    }

    pub(crate) fn with_key(mut self, id: Id, age_in_days: i64, foreign: bool) -> Self {
        let created = self.now - age_in_days * DAY;
        self.keys.push(IamKey { id, active: true, created, shown: created, used: None, foreign });
        self
    }

    /// A target that production runs on.
    pub(crate) fn with_target(mut self, id: Option<Id>, hidden: bool, tag: Option<Id>) -> Self {
        self.pairs
            .push(Pair { id, value: id.map(|id| Value { secret: Secret::Of(id), hidden, tag }) });
        self.production.push(id.map(|id| (id, Secret::Of(id))));
        self
    }

    pub(crate) fn key(&self, id: Id) -> Option<&IamKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    pub(crate) fn works(&self, id: Option<Id>, secret: Option<Secret>) -> bool {
        id.is_some_and(|id| {
            secret == Some(Secret::Of(id)) && self.key(id).is_some_and(|key| key.active)
        })
    }

    pub(crate) fn pair_works(&self, pair: &Pair) -> bool {
        self.works(pair.id, pair.value.map(|value| value.secret))
    }

    pub(crate) fn new_key(&mut self, foreign: bool) -> Id {
        self.next += 1;
        let (id, shown) = (self.next, self.now + self.lag);
        self.keys.push(IamKey { id, active: true, created: self.now, shown, used: None, foreign });
        id
    }

    pub(crate) fn start_job(&mut self, action: Action, visible: bool) -> Process {
        self.jobs.push(Job { ended: None, visible });
        Process {
            job: self.jobs.len() - 1,
            action,
            forced: None,
            compare: false,
            steps: 0,
            own: None,
            announced: None,
            claiming: false,
            tries: 0,
            run: RunState::new(at(self.now + 2 * 3600)),
            made: None,
            secrets: BTreeSet::new(),
            owners: BTreeMap::new(),
            values: Vec::new(),
            used: BTreeMap::new(),
            preflight: None,
            listed: self.now,
            started: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            wait_until: None,
            error: None,
            deferred: None,
            keep_record: false,
            read_after: 0,
            seen: None,
            ends: self.now + 2 * 3600,
            epoch: 0,
            began: self.now,
        }
    }

    pub(crate) fn start_deploy(&mut self, place: usize, delay: i64, lasts: i64, fate: Fate) -> u64 {
        self.next += 1;
        let (number, starts) = (u64::from(self.next), self.now + delay);
        let ends = if fate == Fate::Hangs { starts + 3 * 3600 } else { starts + lasts };
        let (made, asked_for) = (self.now, false);
        let (read, over) = (None, None);
        self.deploys.push(Deploy {
            number,
            place,
            starts,
            ends,
            fate,
            read,
            over,
            made,
            asked_for,
        });
        number
    }

    /// A person stores another pair that works. Where a run has seen that one is out of place
    /// already, everything is to be proven anew anyway.
    pub(crate) fn displace(&mut self) {
        let unfinished = |record: &Record| {
            let progress = record.progress.as_ref().filter(|progress| progress.finished.is_none());
            progress.is_some_and(|progress| progress.not_in_place.is_some())
        };
        self.displaced |= !self.records.iter().any(unfinished);
    }

    fn wrong(&mut self, what: &str) {
        let now = self.now - NOW;
        self.wrong.get_or_insert_with(|| format!("after {now} s: {what}"));
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Time passes; jobs start, read their variables, and end.
    pub(crate) fn pass(&mut self, seconds: i64) {
        let until = self.now + seconds;
        loop {
            let next = |deploy: &Deploy| match (deploy.read, deploy.over) {
                (None, None) => Some(deploy.starts),
                (Some(_), None) => Some(deploy.ends),
                (_, Some(_)) => None,
            };
            let due = self
                .deploys
                .iter()
                .enumerate()
                .filter_map(|(index, deploy)| Some((next(deploy)?, index)))
                .min();
            let Some((moment, index)) = due.filter(|(moment, _)| *moment <= until) else { break };
            self.now = self.now.max(moment);
            let deploy = self.deploys[index].clone();
            if let Some((id, secret)) = deploy.read {
                let works = self.works(id, secret);
                let fate = match deploy.fate {
                    Fate::Succeeds if works => {
                        let before = self.production[deploy.place].map(|(key, _)| key);
                        let ends = self.now + DRAINS;
                        self.draining.extend(before.map(|key| (key, ends)));
                        self.production[deploy.place] = id.zip(secret);
                        Fate::Succeeds
                    }
                    Fate::Succeeds | Fate::Hangs | Fate::Fails => Fate::Fails,
                    Fate::Unproven => Fate::Unproven,
                    Fate::Deleted => Fate::Deleted,
                };
                self.deploys[index].over = Some(fate);
            } else {
                let pair = self.pairs[deploy.place];
                self.deploys[index].read = Some((pair.id, pair.value.map(|value| value.secret)));
            }
        }
        self.now = until;
        self.drain();
        for (id, secret) in self.production.clone().into_iter().flatten() {
            if self.works(Some(id), Some(secret)) {
                let now = self.now;
                self.keys
                    .iter_mut()
                    .filter(|key| key.id == id)
                    .for_each(|key| key.used = Some((now, "s3")));
            }
        }
    }

    /// The last requests of what was replaced.
    fn drain(&mut self) {
        for (id, ends) in std::mem::take(&mut self.draining) {
            let last = ends.min(self.now);
            let is_news = |key: &&mut IamKey| {
                key.id == id && key.active && key.used.is_none_or(|(when, _)| when < last)
            };
            self.keys.iter_mut().filter(is_news).for_each(|key| key.used = Some((last, "s3")));
            self.draining.extend((self.now < ends).then_some((id, ends)));
        }
    }

    /// Until when a record counts whose job has ended, as GitLab says.
    fn ending(&self, record: &Record) -> Option<i64> {
        let job = self.jobs.get(record.job).filter(|job| job.visible)?;
        record.ends?;
        job.ended.map(|ended| ended + 120).filter(|until| self.now < *until)
    }

    fn is_alive(&self, record: &Record) -> bool {
        let Some(ends) = record.ends else { return false };
        match self.jobs.get(record.job) {
            Some(Job { visible: true, ended: None }) => true,
            Some(Job { visible: true, ended: Some(ended) }) => self.now < ended + 120,
            Some(Job { visible: false, .. }) | None => self.now < ends + 120,
        }
    }

    /// The fence: a reply that says "running" holds for a minute.
    fn may_act(&self, process: &Process) -> bool {
        let job = self.jobs[process.job];
        self.now < process.ends
            && (!job.visible || job.ended.is_none_or(|ended| self.now < ended + 60))
    }

    /// What one look shows to this process.
    pub(crate) fn look(&self, process: &Process) -> Observed {
        let mut keys: Vec<Key> = Vec::new();
        for key in &self.keys {
            let mine = process.made.as_ref().is_some_and(|made| made.id == id(key.id))
                && self.now < key.created + 60;
            if key.shown <= self.now || mine {
                let used = process.used.get(&key.id).cloned();
                keys.push(Key {
                    id: id(key.id),
                    active: key.active,
                    created: at(key.created),
                    used,
                });
            }
        }
        let targets = self.pairs.iter().enumerate().map(|(place, pair)| TargetSeen {
            name: place_name(place),
            place: kit::place(place),
            id: pair.id.map_or(IdSeen::Absent, |held| IdSeen::Key(id(held))),
            secret: pair.value.map_or(SecretSeen::Absent, |value| match value {
                Value { hidden: true, tag, .. } => SecretSeen::Hidden { tag: tag.map(id) },
                Value { hidden: false, tag, secret } => {
                    SecretSeen::Readable { tag: tag.map(id), owner: process.owner_of(secret) }
                }
            }),
        });
        let others =
            self.records.iter().filter(|record| Some(record.name) != process.own).map(|record| {
                RecordSeen {
                    name: record.name.to_string(),
                    at: at(record.at),
                    released: record.ends.is_none(),
                    alive: self.is_alive(record),
                    until: self.ending(record).map(at),
                    progress: record.progress.clone(),
                }
            });
        let own = self.records.iter().find(|record| Some(record.name) == process.own);
        let other_references = self
            .other_references
            .iter()
            .filter(|named| keys.iter().any(|key| key.id == id(**named)));
        Observed {
            now: at(self.now),
            listed: at(process.listed),
            user: "deployer".to_owned(),
            targets: targets.collect(),
            other_references: other_references
                .map(|named| (id(*named), vec!["BACKUP".to_owned()]))
                .collect(),
            records: others.collect(),
            claim: own.map(|record| Claim {
                name: record.name.to_string(),
                progress: record.progress.clone(),
            }),
            preflight: process.preflight.clone(),
            in_flight_jobs: None,
            deploys: None,
            run: process.run.clone(),
            in_own_deploy: false,
            keys,
        }
    }

    /// Looks at everything; `false` where the own record is gone.
    fn observe(&mut self, process: &mut Process) -> bool {
        process.listed = self.now;
        process.values = self.pairs.iter().map(|pair| pair.value).collect();
        process.read_after = self.operator_acts;
        process.seen = Some(self.look(process));
        process.own.is_none_or(|own| self.records.iter().any(|record| record.name == own))
    }

    /// Looks at the variables and records alone.
    fn reread(&mut self, process: &mut Process) -> bool {
        process.values = self.pairs.iter().map(|pair| pair.value).collect();
        process.read_after = self.operator_acts;
        let look = self.look(process);
        if let Some(seen) = &mut process.seen {
            (seen.targets, seen.other_references, seen.records, seen.now) =
                (look.targets, look.other_references, look.records, look.now);
        }
        process.own.is_none_or(|own| self.records.iter().any(|record| record.name == own))
    }

    pub(crate) fn policy_of(&self, process: &Process) -> Policy {
        Policy { action: process.action, forced: process.forced.map(at), ..self.policy.clone() }
    }

    /// The next thing that this process does.
    pub(crate) fn tick(&mut self, process: &mut Process, fault: Fault) -> Tick {
        if process.announced.is_some() || process.claiming {
            return self.go_on_claiming(process, fault);
        }
        if process.seen.is_none() {
            self.observe(process);
        }
        process.run.stop_requested |= fault == Fault::Signal;
        let policy = self.policy_of(process);
        self.let_time_pass(process, &policy);
        let seen = process.seen.as_ref().expect("observed above");
        let step = plan(seen, &policy);
        if let Err(what) = check(seen, &policy, &step) {
            let what = format!("{what}: {step:?}");
            self.wrong(&what);
        }
        match step {
            Step::Done(done) => self.end(process, End::Done(done)),
            Step::Refuse(refusal) => self.end(process, End::Refused(refusal)),
            Step::Stop => {
                if process.error != Some(CLAIM_LOST) && process.deferred.is_some() {
                    process.error = process.deferred;
                }
                let signal = process.run.stop_requested.then_some("stopped");
                let why = process.error.or(signal);
                if why.is_none() {
                    self.wrong("stopped for nothing");
                }
                process.keep_record |= why == Some(CLAIM_LOST);
                self.end(process, End::Failed(why.unwrap_or_default()))
            }
            step => {
                process.steps += u32::from(step.has_effect());
                self.carry_out(process, &step, fault)
            }
        }
    }

    /// What changes by itself, in the process and in what it sees.
    fn let_time_pass(&self, process: &mut Process, policy: &Policy) {
        let over =
            policy.leave_deploys || process.wait_until.is_some_and(|until| self.now >= until);
        process.run.waited_out = over;
        process.run.list_age = SignedDuration::from_secs(self.now - process.listed);
        let Some(seen) = &mut process.seen else { return };
        seen.now = at(self.now);
        seen.run.waited_out = over;
        seen.run.list_age = process.run.list_age;
        seen.run.stop_requested = process.run.stop_requested;
    }

    fn end(&mut self, process: &mut Process, end: End) -> Tick {
        // A run has seen what a person did: from here on production is judged again.
        self.displaced &= !matches!(end, End::Refused(Refusal::NotPublishedAnyMore { .. }));
        self.release(process);
        Tick::Ended(end)
    }

    fn release(&mut self, process: &Process) {
        let Some(own) = process.own.filter(|_| !process.keep_record) else { return };
        self.records.retain(|record| record.name != own || record.progress.is_some());
        self.records
            .iter_mut()
            .filter(|record| record.name == own)
            .for_each(|record| record.ends = None);
    }

    /// Announce, then look.
    fn go_on_claiming(&mut self, process: &mut Process, fault: Fault) -> Tick {
        if fault == Fault::DieBefore || fault == Fault::DieAfter {
            return Tick::Died;
        }
        let Some(name) = process.announced.take() else {
            return self.announce(process);
        };
        let rivals: Vec<Option<i64>> = self
            .records
            .iter()
            .filter(|record| record.name != name && self.is_alive(record))
            .map(|record| self.ending(record))
            .collect();
        if !rivals.is_empty() {
            let last = rivals.into_iter().collect::<Option<Vec<i64>>>();
            if let Some(until) = last.and_then(|ends| ends.into_iter().max()) {
                self.pass((until - self.now).max(0));
            }
            self.records.retain(|record| record.name != name);
            process.tries += 1;
            if process.tries >= 4 {
                return self.end(process, End::Refused(Refusal::Busy));
            }
            process.claiming = true;
            return Tick::Went(None);
        }
        process.own = Some(name);
        self.epoch += 1;
        process.epoch = self.epoch;
        if let Some(seen) = &mut process.seen {
            seen.now = at(self.now);
        }
        self.succeeded(process, &Step::Claim, Some(Made::Record(name.to_string())))
    }

    fn announce(&mut self, process: &mut Process) -> Tick {
        if !self.may_act(process) {
            return self.failed(process, &Step::Claim, FailureKind::ClaimLost, CLAIM_LOST);
        }
        self.next += 1;
        self.records.push(Record {
            name: self.next,
            job: process.job,
            at: self.now,
            ends: Some(process.ends),
            progress: None,
        });
        process.announced = Some(self.next);
        process.claiming = false;
        Tick::Went(None)
    }

    fn carry_out(&mut self, process: &mut Process, step: &Step, fault: Fault) -> Tick {
        if fault == Fault::DieBefore {
            return Tick::Died;
        }
        if step.has_effect() && !self.may_act(process) {
            return self.failed(process, step, FailureKind::ClaimLost, CLAIM_LOST);
        }
        if fault == Fault::Refused && can_fail(step) && *step != Step::Create {
            return self.failed(process, step, FailureKind::Refused, "refused");
        }
        if fault == Fault::ReplyLost && can_fail(step) && !step.has_effect() {
            return self.failed(process, step, FailureKind::Unclear, "reply lost");
        }
        if fault == Fault::Misdirected
            && matches!(step, Step::WriteSecret { .. } | Step::WriteId { .. })
        {
            return self.failed(process, step, FailureKind::Unclear, MISDIRECTED);
        }
        if *step == Step::Claim {
            let tick = self.announce(process);
            return match fault {
                Fault::ReplyLost => {
                    process.own = process.announced.take();
                    self.failed(process, step, FailureKind::Unclear, "reply lost")
                }
                Fault::DieAfter | Fault::DieBetween => Tick::Died,
                Fault::None
                | Fault::Refused
                | Fault::DieBefore
                | Fault::Signal
                | Fault::Misdirected => tick,
            };
        }
        self.count(if step.has_effect() { "effects" } else { "questions and waits" });
        let made = match self.act(process, step, fault) {
            Ok(made) => made,
            Err((kind, what)) => return self.failed(process, step, kind, what),
        };
        match fault {
            Fault::DieAfter | Fault::DieBetween if step.has_effect() => return Tick::Died,
            Fault::ReplyLost if step.has_effect() && *step != Step::Create => {
                return self.failed(process, step, FailureKind::Unclear, "reply lost");
            }
            _ => {}
        }
        self.succeeded(process, step, made)
    }

    fn succeeded(&mut self, process: &mut Process, step: &Step, made: Option<Made>) -> Tick {
        process.goes_on(step);
        if let Some(seen) = &mut process.seen {
            seen.apply(step, made);
        }
        self.compare(process, step);
        Tick::Went(Some(step.clone()))
    }

    fn failed(
        &mut self,
        process: &mut Process,
        step: &Step,
        kind: FailureKind,
        what: &'static str,
    ) -> Tick {
        let misdirected = what == MISDIRECTED;
        process.fails(step, kind, misdirected);
        process.error = Some(what);
        if let Some(seen) = &mut process.seen {
            seen.failed(step, kind, misdirected);
        }
        let seen = process.seen.as_ref().map(|seen| &seen.run);
        if process.compare && seen != Some(&process.run) {
            let text = format!("after a failed {step:?}: {seen:?}, but {:?}", process.run);
            self.wrong(&text);
        }
        Tick::Went(None)
    }

    /// The picture after a step is what a look would show, but for what is left to be asked again.
    fn compare(&mut self, process: &Process, step: &Step) {
        let Some(seen) = process.seen.as_ref().filter(|_| process.compare) else { return };
        let own_at = |name: &str| {
            self.records
                .iter()
                .find(|record| record.name.to_string() == name)
                .map(|record| at(record.at))
        };
        let normal = |mut seen: Observed| {
            (seen.in_flight_jobs, seen.deploys) = (None, None);
            seen.keys.iter_mut().for_each(|key| key.used = None);
            if let (Step::Claim, Some(claim)) = (step, &mut seen.claim) {
                claim.name = String::new();
            }
            for record in &mut seen.records {
                record.at = own_at(&record.name).unwrap_or(record.at);
            }
            seen.records.sort_by(|one, other| one.name.cmp(&other.name));
            seen
        };
        let (applied, looked) = (normal(seen.clone()), normal(self.look(process)));
        self.count("pictures compared");
        if applied != looked {
            let (applied, looked) = (format!("{applied:#?}"), format!("{looked:#?}"));
            let only = |one: &str, other: &str| {
                one.lines()
                    .filter(|line| !other.lines().any(|it| it == *line))
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            self.wrong(&format!(
                "after {step:?} only `apply` says\n{}\nonly a look says\n{}",
                only(&applied, &looked),
                only(&looked, &applied)
            ));
        }
    }

    fn own_record(&mut self, process: &Process) -> Result<&mut Record, Wrong> {
        self.records
            .iter_mut()
            .find(|record| Some(record.name) == process.own)
            .ok_or((FailureKind::ClaimLost, CLAIM_LOST))
    }

    fn act(
        &mut self,
        process: &mut Process,
        step: &Step,
        fault: Fault,
    ) -> Result<Option<Made>, Wrong> {
        if step.has_effect() {
            // Of two runs that hold a claim one after the other, the earlier one never acts again;
            // unless a person has taken its record away.
            if process.epoch < self.acted && !self.tainted {
                self.wrong(&format!("a run acts after its successor: {step:?}"));
            }
            self.acted = process.epoch;
        }
        match step {
            Step::Ask(query) => self.answer(process, query),
            Step::Wait(Waiting::Margin { until }) => {
                self.pass(until.as_second() - self.now);
                process.seen.iter_mut().for_each(|seen| seen.now = at(self.now));
            }
            Step::Wait(Waiting::Afterlife { until }) => {
                self.pass((until.as_second() - self.now).max(0));
            }
            Step::Wait(_) => {
                process.wait_until.get_or_insert(self.now + 3600);
                self.pass(10);
                if let Some(seen) = &mut process.seen {
                    (seen.in_flight_jobs, seen.deploys, seen.now) = (None, None, at(self.now));
                }
            }
            Step::TakeOver => {
                let Some(seen) = &process.seen else { return Ok(None) };
                let over: BTreeSet<u32> = seen
                    .records
                    .iter()
                    .filter(|other| other.released || !other.alive)
                    .map(|other| other.name.parse().expect("a name of ours"))
                    .collect();
                let newest = self
                    .records
                    .iter()
                    .filter(|record| record.progress.is_some())
                    .max_by_key(|record| record.at)
                    .and_then(|record| record.progress.clone());
                let own = self.own_record(process)?;
                let progress =
                    own.progress.clone().or(newest).filter(|progress| progress.finished.is_none());
                own.progress = progress;
                if fault != Fault::DieBetween {
                    self.records.retain(|record| !over.contains(&record.name));
                }
            }
            Step::Record(checkpoint) => self.checkpoint(process, *checkpoint)?,
            Step::Create => return self.create(process, fault),
            Step::Verify(key) => {
                if let Some(new_key) =
                    process.run.new_key.as_mut().filter(|new_key| new_key.key == *key)
                {
                    new_key.verified = true;
                    self.verified.insert(number(key));
                    let now = self.now;
                    self.keys
                        .iter_mut()
                        .filter(|iam| iam.id == number(key))
                        .for_each(|iam| iam.used = Some((now, "sts")));
                }
            }
            Step::WriteSecret { target, key } => {
                let key = number(key);
                if !process.secrets.contains(&key) {
                    self.wrong("a secret is written that is not at hand");
                }
                let hidden = self.pairs[*target].value.is_some_and(|value| value.hidden);
                let value = Some(Value { secret: Secret::Of(key), hidden, tag: Some(key) });
                self.pairs[*target].value = value;
                process.values[*target] = value;
                process.run.secret_sent = true;
                if !self.verified.contains(&key) && !self.tainted {
                    self.wrong("a key is published that was not verified");
                }
            }
            Step::WriteId { target, key } => {
                self.pairs[*target].id = Some(number(key));
                if !self.pair_works(&self.pairs[*target]) && !self.tainted {
                    if process.read_after == self.operator_acts {
                        self.wrong("a pair is published that does not work");
                    } else {
                        self.count("a person stored a pair between two writes (a known limit)");
                    }
                }
                if !self.verified.contains(&number(key)) && !self.tainted {
                    self.wrong("a key is named that was not verified");
                }
            }
            Step::StartDeploy(place) => return self.ask_for_deploy(process, *place, fault),
            Step::Disable(key, _) => {
                self.check_loss(process, number(key));
                self.keys
                    .iter_mut()
                    .filter(|iam| iam.id == number(key))
                    .for_each(|iam| iam.active = false);
            }
            Step::Delete(key, _) => {
                self.check_loss(process, number(key));
                self.keys.retain(|iam| iam.id != number(key));
                if process.run.new_key.as_ref().is_some_and(|new_key| new_key.key == *key) {
                    (process.run.new_key, process.made) = (None, None);
                }
            }
            Step::Observe(Scope::Everything) => self.observe_or_lose(process)?,
            Step::Observe(Scope::Variables) => self.reread_or_lose(process)?,
            Step::Observe(Scope::Everywhere) => {
                self.reread_or_lose(process)?;
                let named = self.elsewhere.iter().map(|named| id(*named));
                if let Some(seen) = &mut process.seen {
                    for id in named.filter(|named| seen.keys.iter().any(|key| key.id == *named)) {
                        seen.other_references
                            .entry(id)
                            .or_insert_with(|| vec!["BACKUP".to_owned()]);
                    }
                }
            }
            Step::Confirm(refusal) => {
                self.pass(10);
                process.owners.retain(|_, owner| *owner != SecretOwner::Nobody);
                self.observe_or_lose(process)?;
                process.run.suspected = Some(refusal.clone());
            }
            Step::Abandon(cause) => {
                let why = match cause {
                    Cause::Failure => process.error.take(),
                    Cause::Refusal(_) => Some("refused"),
                    Cause::Signal => Some("stopped"),
                };
                process.deferred = process.deferred.or(why);
                process.run.error_deferred = true;
                if process.has_unsent_key() {
                    process.run.new_key.iter_mut().for_each(|new_key| new_key.abandoned = true);
                }
            }
            Step::Retry => {
                process.error = None;
                self.pass(1);
                self.reread_or_lose(process)?;
            }
            Step::Claim | Step::Done(_) | Step::Refuse(_) | Step::Stop => {}
        }
        Ok(None)
    }

    fn ask_for_deploy(
        &mut self,
        process: &mut Process,
        place: usize,
        fault: Fault,
    ) -> Result<Option<Made>, Wrong> {
        let name = deploy_place(place);
        let is_noted = |attempt: &DeployAttempt| attempt.place == name && attempt.closed.is_none();
        let progress = self.own_record(process)?.progress.as_ref().ok_or(NO_ROTATION)?;
        if !progress.attempts.iter().any(is_noted) {
            self.wrong("a deploy is asked for that is not noted");
        }
        let fate = self.fates.pop().unwrap_or(Fate::Succeeds);
        // The request is a second later than the note.
        self.pass(1);
        process.seen.iter_mut().for_each(|seen| seen.now = at(self.now));
        let pipeline = self.start_deploy(place, 2, 30, fate);
        self.deploys.iter_mut().for_each(|deploy| deploy.asked_for |= deploy.number == pipeline);
        match fault {
            Fault::ReplyLost => {
                if !process.unanswered.insert(place) {
                    process.started.insert(place);
                }
                process.run.asking = None;
                return Err((FailureKind::Unclear, "reply lost"));
            }
            Fault::DieBetween => return Ok(None),
            _ => {}
        }
        process.started.insert(place);
        process.run.asking = None;
        let recorded = RecordedDeploy { place: name, pipeline, ..recorded_deploy() };
        let progress = self.own_record(process)?.progress.as_mut().ok_or(NO_ROTATION)?;
        progress.deploys.retain(|other| other.place != recorded.place);
        progress.attempts.retain(|other| other.place != recorded.place);
        progress.deploys.push(recorded.clone());
        Ok(Some(Made::Deploy(recorded)))
    }

    fn observe_or_lose(&mut self, process: &mut Process) -> Result<(), Wrong> {
        let is_there = self.observe(process);
        is_there.then_some(()).ok_or((FailureKind::ClaimLost, CLAIM_LOST))
    }

    fn reread_or_lose(&mut self, process: &mut Process) -> Result<(), Wrong> {
        let is_there = self.reread(process);
        is_there.then_some(()).ok_or((FailureKind::ClaimLost, CLAIM_LOST))
    }

    /// A key is about to stop working at our hands.
    fn check_loss(&mut self, process: &Process, key: Id) {
        self.count("keys disabled or deleted");
        // Nothing names the secret of an orphan, which went nowhere.
        let elsewhere = self.replaced.contains(&key) && self.elsewhere.contains(&key);
        let named = self.other_references.contains(&key)
            || elsewhere
            || self.pairs.iter().any(|pair| pair.id == Some(key));
        if named {
            // GitLab has no compare-and-swap: what a person does between the look and the step that
            // follows it at once cannot be known.
            if process.read_after == self.operator_acts {
                self.wrong("a key is taken away that a variable names");
            } else {
                self.count("a variable that a person changed in the same second (a known limit)");
            }
        }
        let held = self
            .pairs
            .iter()
            .any(|pair| pair.value.is_some_and(|value| value.secret == Secret::Of(key)));
        let runs = self.production.iter().flatten().any(|(id, _)| *id == key);
        let will_run = self.deploys.iter().any(|deploy| {
            deploy.over.is_none()
                && deploy.fate == Fate::Succeeds
                && deploy.read.is_some_and(|(id, _)| id == Some(key))
        });
        if !self.tainted && !self.displaced && (held || runs || will_run) {
            self.wrong("a key is taken away that production still runs on");
        }
        let Some(iam) = self.key(key).cloned() else { return };
        if iam.foreign && !self.replaced.contains(&key) {
            let window =
                self.records.iter().filter_map(|record| record.progress.as_ref()).any(|progress| {
                    let creating = progress.creating.as_second();
                    (creating..=creating + 120).contains(&iam.created)
                        && iam.used.is_none_or(|(_, service)| service == "sts")
                });
            if window {
                self.count("a person's key taken for ours, within two minutes (a known limit)");
            } else if !self.tainted {
                self.wrong("a person's key is taken away");
            }
        }
    }

    fn checkpoint(&mut self, process: &mut Process, checkpoint: Checkpoint) -> Result<(), Wrong> {
        let Some(seen) = process.seen.clone() else { return Ok(()) };
        let (now, listed) = (at(self.now), at(process.listed));
        let record = self.own_record(process)?;
        match checkpoint {
            Checkpoint::Nothing => {
                record.progress = None;
                if process.run.attempt == Attempt::Recorded {
                    process.run.attempt = Attempt::No;
                }
            }
            Checkpoint::Begin => {
                let old = record
                    .progress
                    .take()
                    .filter(|progress| progress.finished.is_none())
                    .map(|progress| (progress.previous, progress.targets))
                    .unwrap_or_default();
                let (old, mut targets) = old;
                targets.iter_mut().for_each(|target| target.published = false);
                note_targets(&mut targets, seen.targets.len(), false);
                let mut from: BTreeSet<AccessKeyId> =
                    seen.keys.iter().map(|key| key.id.clone()).collect();
                let mut previous: BTreeSet<Option<AccessKeyId>> = old.into_iter().collect();
                for target in &seen.targets {
                    if let SecretSeen::Hidden { tag: Some(tag) }
                    | SecretSeen::Readable { tag: Some(tag), .. } = &target.secret
                    {
                        from.insert(tag.clone());
                    }
                    previous.insert(if let IdSeen::Key(id) = &target.id {
                        Some(id.clone())
                    } else {
                        None
                    });
                }
                let replaced: Vec<Id> = previous.iter().flatten().map(number).collect();
                record.progress = Some(Progress {
                    from: from.into_iter().collect(),
                    creating: listed,
                    previous: previous.into_iter().collect(),
                    targets,
                    ..Progress::default()
                });
                process.run.attempt = Attempt::Recorded;
                process.run.secret_sent = false;
                self.replaced.extend(replaced);
                self.count("rotations begun");
            }
            Checkpoint::Published => {
                let IdSeen::Key(key) = seen.targets[0].id.clone() else {
                    return Err((FailureKind::Refused, "nothing is published"));
                };
                let progress = record.progress.as_mut().ok_or(NO_ROTATION)?;
                progress.published = Some(Published { key, at: now });
                let was_out = progress.not_in_place.take().is_some();
                note_targets(&mut progress.targets, seen.targets.len(), true);
                // What a person did between the look and this step is not known either.
                self.displaced |= was_out && process.read_after != self.operator_acts;
                if was_out {
                    self.count("pairs back in place");
                }
            }
            Checkpoint::NotInPlace => {
                let progress = record.progress.as_mut().ok_or(NO_ROTATION)?;
                progress.not_in_place = Some(now);
                (progress.drained, progress.deployed) = (None, None);
                progress.deploys.clear();
                progress.attempts.clear();
                process.run.asking = None;
                self.displaced = false;
                self.count("proofs taken out");
            }
            Checkpoint::Superseded => {
                let Some(key) = self.pairs[0].id.filter(|_| {
                    self.pairs
                        .iter()
                        .all(|pair| self.pair_works(pair) && pair.id == self.pairs[0].id)
                }) else {
                    self.wrong("a rotation ends without a pair that works everywhere");
                    return Ok(());
                };
                let record = self.own_record(process)?;
                let progress = record.progress.as_mut().ok_or(NO_ROTATION)?;
                progress.published = Some(Published { key: id(key), at: now });
                progress.finished = Some(now);
                record.ends = None;
                process.own = None;
                (process.run.new_key, process.made) = (None, None);
                process.run.superseded = Some(id(key));
                self.count("rotations superseded");
            }
            Checkpoint::Drained => {
                record.progress.as_mut().ok_or(NO_ROTATION)?.drained = Some(now);
            }
            Checkpoint::Attempt(place) => {
                let progress = record.progress.as_mut().ok_or(NO_ROTATION)?;
                let name = deploy_place(place);
                progress.attempts.retain(|attempt| attempt.place != name);
                let asked = Asked::Ref("main".to_owned());
                progress.attempts.push(DeployAttempt { place: name, asked, at: now, closed: None });
                process.run.asking = Some(place);
            }
            Checkpoint::AttemptClosed(place) => {
                let progress = record.progress.as_mut().ok_or(NO_ROTATION)?;
                for attempt in &mut progress.attempts {
                    if attempt.place == deploy_place(place) {
                        attempt.closed = Some(at(now.as_second() + 120));
                    }
                }
            }
            Checkpoint::AttemptWithdrawn(place) => {
                let progress = record.progress.as_mut().ok_or(NO_ROTATION)?;
                let name = deploy_place(place);
                let began = progress.attempt_at(&name).map(|attempt| attempt.at.as_second());
                progress.attempts.retain(|attempt| attempt.place != name);
                process.run.asking = None;
                let made = |deploy: &Deploy| {
                    deploy.asked_for && deploy.place == place && Some(deploy.made) > began
                };
                if self.deploys.iter().any(made) {
                    self.wrong("an attempt is taken out that made a deploy");
                }
            }
            Checkpoint::Adopted(place) => {
                let Some(DeploySeen::Adoptable(found)) =
                    seen.deploys.as_ref().and_then(|deploys| deploys.get(place)).cloned()
                else {
                    return Err((FailureKind::Refused, "nothing to adopt"));
                };
                let progress = record.progress.as_mut().ok_or(NO_ROTATION)?;
                progress.attempts.retain(|attempt| attempt.place != found.place);
                progress.deploys.retain(|other| other.place != found.place);
                progress.deploys.push(found.clone());
                let is_ours = |deploy: &Deploy| deploy.number == found.pipeline && deploy.asked_for;
                if !self.deploys.iter().any(is_ours) {
                    self.wrong("somebody else's deploy is adopted");
                }
                self.count("deploys adopted");
            }
            Checkpoint::Proven => {
                let progress = record.progress.as_mut().ok_or(NO_ROTATION)?;
                let deploys = seen.deploys.unwrap_or_default();
                for deploy in &deploys {
                    if let DeploySeen::Proven(RecordedDeploy { place, .. }) = deploy {
                        progress
                            .deploys
                            .iter_mut()
                            .filter(|recorded| {
                                recorded.place == *place && recorded.proven.is_none()
                            })
                            .for_each(|recorded| recorded.proven = Some(now));
                    }
                }
                if !deploys.iter().any(|deploy| !matches!(deploy, DeploySeen::Proven(_))) {
                    progress.deployed = Some(now);
                }
            }
            Checkpoint::Disabled => {
                let progress = record.progress.as_mut().ok_or(NO_ROTATION)?;
                (progress.disabled, progress.enabled_again) = (Some(now), None);
            }
            Checkpoint::EnabledAgain => {
                record.progress.as_mut().ok_or(NO_ROTATION)?.enabled_again = Some(now);
            }
            Checkpoint::Finished => {
                record.progress.as_mut().ok_or(NO_ROTATION)?.finished = Some(now);
                record.ends = None;
                process.own = None;
                (process.run.new_key, process.made) = (None, None);
                let key = self.pairs[0].id;
                let is_on = |running: &Option<(Id, Secret)>| {
                    running.is_some_and(|(id, secret)| {
                        Some(id) == key && self.works(key, Some(secret))
                    })
                };
                let is_whole = self.production.iter().all(is_on);
                (self.tainted, self.displaced) =
                    (self.tainted && !is_whole, self.displaced && !is_whole);
                self.count("rotations finished");
            }
        }
        Ok(())
    }

    fn create(&mut self, process: &mut Process, fault: Fault) -> Result<Option<Made>, Wrong> {
        if self.now > process.listed + 45 {
            self.wrong("a key is made of an old list");
        }
        if fault == Fault::Refused || self.keys.len() >= 2 {
            return Err((FailureKind::Refused, "refused"));
        }
        let key = self.new_key(false);
        // What was readable before cannot be its secret.
        for value in self.pairs.iter().filter_map(|pair| pair.value).filter(|value| !value.hidden) {
            if process.owner_of(value.secret) == SecretOwner::NotAsked {
                process.owners.insert(value.secret, SecretOwner::Nobody);
            }
        }
        if fault == Fault::ReplyLost {
            let before = process.seen.as_ref().map_or(0, |seen| seen.keys.len());
            for pause in [5, 6, 6] {
                self.pass(pause);
                self.observe_or_lose(process)?;
                if process.seen.as_ref().is_some_and(|seen| seen.keys.len() > before) {
                    process.deferred = Some("created an orphan");
                    (process.run.attempt, process.run.error_deferred) = (Attempt::Tried, true);
                    return Ok(Some(Made::Orphan));
                }
            }
            process.keep_record = true;
            return Err((FailureKind::Unclear, "the creation is unclear"));
        }
        process.run.attempt = Attempt::Tried;
        process.secrets.insert(key);
        process.run.new_key = Some(NewKey { key: id(key), verified: false, abandoned: false });
        process.made = Some(Key { id: id(key), active: true, created: at(self.now), used: None });
        Ok(process.made.clone().map(Made::Key))
    }

    fn answer(&mut self, process: &mut Process, query: &Query) {
        let progress =
            process.seen.as_ref().and_then(|seen| seen.progress().cloned()).unwrap_or_default();
        match query {
            Query::WhoseSecrets => {
                for value in
                    process.values.clone().into_iter().flatten().filter(|value| !value.hidden)
                {
                    let owner = match value.secret {
                        Secret::Of(key) if self.key(key).is_some_and(|key| key.active) => {
                            process.secrets.insert(key);
                            SecretOwner::Key(id(key))
                        }
                        Secret::Of(_) | Secret::Junk => SecretOwner::Nobody,
                    };
                    process.owners.entry(value.secret).or_insert(owner);
                }
                let owners: Vec<Option<SecretOwner>> = process
                    .values
                    .iter()
                    .map(|value| value.map(|value| process.owner_of(value.secret)))
                    .collect();
                for (target, answer) in
                    process.seen.iter_mut().flat_map(|seen| &mut seen.targets).zip(owners)
                {
                    if let (SecretSeen::Readable { owner, .. }, Some(answer)) =
                        (&mut target.secret, answer)
                    {
                        *owner = answer;
                    }
                }
            }
            Query::LastUse(asked) => {
                let used = self.key(number(asked)).and_then(|key| key.used);
                let used = used.map_or(Use::Never, |(when, service)| Use::At {
                    when: at(when),
                    service: service.to_owned(),
                });
                process.used.insert(number(asked), used.clone());
                process
                    .seen
                    .iter_mut()
                    .flat_map(|seen| &mut seen.keys)
                    .filter(|key| key.id == *asked)
                    .for_each(|key| key.used = Some(used.clone()));
            }
            Query::Preflight => {
                let old = self
                    .pairs
                    .first()
                    .and_then(|pair| pair.id)
                    .is_some_and(|id| self.other_references.contains(&id));
                process.preflight = Some(if old {
                    vec![Blocker::OtherReference { key: id(OLD), places: Vec::new() }]
                } else {
                    Vec::new()
                });
                process
                    .seen
                    .iter_mut()
                    .for_each(|seen| seen.preflight.clone_from(&process.preflight));
            }
            Query::InFlightJobs => {
                let published =
                    progress.published.map_or(self.now, |published| published.at.as_second());
                let in_flight = |deploy: &&Deploy| {
                    deploy.read.is_some() && deploy.over.is_none() && deploy.starts < published
                };
                let in_flight_jobs = self
                    .deploys
                    .iter()
                    .filter(in_flight)
                    .map(|deploy| deploy.number.to_string())
                    .collect();
                process
                    .seen
                    .iter_mut()
                    .for_each(|seen| seen.in_flight_jobs = Some(Vec::clone(&in_flight_jobs)));
            }
            Query::Deploys => {
                let left = self.left_deploys(process, &progress);
                process.run.left_deploys = left.clone();
                process.seen.iter_mut().for_each(|seen| seen.run.left_deploys = left.clone());
                let deploys = if self.policy.own_deploy {
                    vec![self.own_deploy(process, &progress)]
                } else {
                    self.deploys_seen(process, &progress)
                };
                process.seen.iter_mut().for_each(|seen| seen.deploys = Some(deploys.clone()));
            }
        }
    }

    /// Of deploys that earlier runs have started: what failed stays known, what hangs is looked at.
    fn left_deploys(&self, process: &Process, progress: &Progress) -> LeftDeploys {
        let mut left = LeftDeploys { blocked: Vec::new(), ..process.run.left_deploys.clone() };
        for place in (0..self.pairs.len()).filter(|place| !process.started.contains(place)) {
            let recorded =
                progress.deploys.iter().find(|recorded| recorded.place == deploy_place(place));
            let number = recorded.filter(|recorded| recorded.proven.is_none());
            let deploy = number.and_then(|recorded| {
                self.deploys.iter().find(|deploy| deploy.number == recorded.pipeline)
            });
            let name = place_name(place);
            match deploy.map(|deploy| (deploy.over, deploy.fate)) {
                Some((None, Fate::Hangs)) => left.blocked.push(name),
                Some((Some(Fate::Fails | Fate::Hangs | Fate::Deleted), _))
                    if !left.failed.contains(&name) =>
                {
                    left.failed.push(name);
                }
                Some(_) | None => {}
            }
        }
        left
    }

    fn deploys_seen(&self, process: &Process, progress: &Progress) -> Vec<DeploySeen> {
        let startable = |place| DeploySeen::Startable {
            place: deploy_place(place),
            asked: Asked::Ref("main".to_owned()),
        };
        let lost = |place| match process.started.contains(&place) {
            true => DeploySeen::Failed("p".to_owned()),
            false => startable(place),
        };
        let look = |place| {
            let name = deploy_place(place);
            let attempt = progress.attempts.iter().find(|attempt| attempt.place == name);
            if let Some(found) = attempt.and_then(|attempt| self.made_by(attempt, place)) {
                return found;
            }
            let Some(recorded) = progress.deploys.iter().find(|recorded| recorded.place == name)
            else {
                return lost(place);
            };
            if recorded.proven.is_some() {
                return DeploySeen::Proven(recorded.clone());
            }
            match self
                .deploys
                .iter()
                .find(|deploy| deploy.number == recorded.pipeline)
                .map(|deploy| deploy.over)
            {
                Some(None) => DeploySeen::Running("p".to_owned()),
                Some(Some(Fate::Succeeds)) => DeploySeen::Proven(recorded.clone()),
                Some(Some(Fate::Unproven)) => DeploySeen::Unproven("p".to_owned()),
                Some(Some(Fate::Fails | Fate::Hangs | Fate::Deleted)) | None => lost(place),
            }
        };
        (0..self.pairs.len()).map(look).collect()
    }

    /// What an attempt has made, as far as that is sure: the only one in its window.
    fn made_by(&self, attempt: &DeployAttempt, place: usize) -> Option<DeploySeen> {
        let from = attempt.at.as_second();
        let until = attempt.closed.map_or(from + 150, |closed| closed.as_second());
        if self.now < until {
            return Some(DeploySeen::Running("not known".to_owned()));
        }
        let noted = |number: u64| {
            self.records
                .iter()
                .filter_map(|record| record.progress.as_ref())
                .any(|progress| progress.deploys.iter().any(|deploy| deploy.pipeline == number))
        };
        let made: Vec<&Deploy> = self
            .deploys
            .iter()
            .filter(|deploy| deploy.place == place && from < deploy.made && deploy.made <= until)
            // Whoever else deploys is another user here.
            .filter(|deploy| deploy.asked_for && !noted(deploy.number))
            .collect();
        match made[..] {
            [made] => Some(DeploySeen::Adoptable(RecordedDeploy {
                place: deploy_place(place),
                pipeline: made.number,
                ..recorded_deploy()
            })),
            _ => None,
        }
    }

    /// The pipeline's own deploys ran after the rotating job, before this one.
    fn own_deploy(&self, process: &Process, progress: &Progress) -> DeploySeen {
        let drained = progress.drained.map_or(i64::MAX, |drained| drained.as_second());
        let proven = |place| {
            let counts = |deploy: &Deploy| {
                deploy.place == place
                    && deploy.starts > drained + 2
                    && deploy.starts <= process.began
                    && deploy.over == Some(Fate::Succeeds)
            };
            self.deploys.iter().any(counts)
        };
        match (0..self.pairs.len()).all(proven) {
            true => DeploySeen::Proven(RecordedDeploy {
                place: deploy_place(9),
                pipeline: 1,
                job: None,
                proven: None,
                tried: None,
            }),
            false => DeploySeen::Unproven("own".to_owned()),
        }
    }
}

impl Process {
    fn owner_of(&self, secret: Secret) -> SecretOwner {
        match secret {
            Secret::Of(key) if self.secrets.contains(&key) => SecretOwner::Key(id(key)),
            Secret::Of(_) | Secret::Junk => {
                self.owners.get(&secret).cloned().unwrap_or(SecretOwner::NotAsked)
            }
        }
    }

    fn has_unsent_key(&self) -> bool {
        let is_kept = |new_key: &NewKey| !new_key.abandoned;
        self.run.new_key.as_ref().is_some_and(is_kept) && !self.run.secret_sent
    }

    /// A step that succeeds ends a failure; of a write that went elsewhere, reading the variables is
    /// noted only.
    fn goes_on(&mut self, step: &Step) {
        let failure = self.run.failure.take();
        let is_refused = |failure: &Failure| matches!(*failure.step, Step::StartDeploy(_));
        let refused = failure.clone().filter(is_refused);
        if let (Step::Observe(_), Some(failure)) = (step, failure)
            && failure.misdirected == Misdirected::Yes
        {
            self.run.failure = Some(Failure { misdirected: Misdirected::Read, ..failure });
        } else if let (Step::Record(Checkpoint::AttemptWithdrawn(_)), Some(failure)) =
            (step, refused)
        {
            self.run.failure = Some(failure);
        }
        let waited = self.run.freshness == Freshness::AfterWait;
        let waits_on = match step {
            Step::Ask(_) => true,
            Step::Record(checkpoint) => *checkpoint == Checkpoint::Drained,
            _ => false,
        };
        self.run.freshness = match step {
            Step::Observe(Scope::Everywhere) => Freshness::Searched,
            Step::Observe(_) | Step::Confirm(_) => Freshness::Fresh,
            Step::Claim => Freshness::Outdated,
            Step::Record(Checkpoint::Published) => Freshness::VariablesOutdated,
            Step::Wait(Waiting::Margin { .. }) => self.run.freshness,
            Step::Wait(Waiting::Afterlife { .. }) => Freshness::Outdated,
            Step::Wait(_) => Freshness::AfterWait,
            _ if waited && waits_on => Freshness::AfterWait,
            _ => Freshness::Applied,
        };
    }

    fn fails(&mut self, step: &Step, kind: FailureKind, misdirected: bool) {
        if *step == Step::Create {
            let is_known = kind != FailureKind::Unclear;
            self.run.attempt = if is_known { Attempt::Tried } else { Attempt::Unclear };
        }
        if matches!(step, Step::WriteSecret { .. }) && kind == FailureKind::Unclear {
            self.run.secret_sent = true;
        }
        if let (Step::Observe(_) | Step::Retry, Some(failure)) = (step, &mut self.run.failure)
            && kind != FailureKind::ClaimLost
        {
            if *step != Step::Retry {
                failure.misdirected = Misdirected::No;
            }
            return;
        }
        let misdirected = if misdirected { Misdirected::Yes } else { Misdirected::No };
        self.run.failure = Some(Failure { step: Box::new(step.clone()), kind, misdirected });
    }
}

/// Whether a fault can hit this step: it asks IAM or GitLab.
fn can_fail(step: &Step) -> bool {
    match step {
        Step::Wait(_) | Step::Abandon(_) | Step::Done(_) | Step::Refuse(_) | Step::Stop => false,
        Step::Ask(_) | Step::Observe(_) | Step::Confirm(_) | Step::Retry => true,
        step => step.has_effect(),
    }
}
