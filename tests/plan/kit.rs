//! Small builders: ids, moments, pairs, and what is seen at each stage of a rotation.

use std::collections::BTreeMap;

use credential_rotator::access_key::{AccessKeyId, Key, Use};
use credential_rotator::config::Action;
use credential_rotator::place::{Name, Owner};
use credential_rotator::plan::{
    Attempt, Checkpoint, Claim, DeploySeen, Freshness, IdSeen, NewKey, Observed, Policy,
    RecordSeen, Refusal, RunState, Scope, SecretOwner, SecretSeen, Step, TargetSeen, plan,
};
use credential_rotator::record::{
    Asked, DeployAttempt, DeployPlace, Names, Place, Progress, Published, RecordedDeploy,
    RecordedTarget,
};
use jiff::{SignedDuration, Timestamp};

pub(crate) const DAY: i64 = 86_400;
pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const OLD: u32 = 1;
pub(crate) const NEW: u32 = 2;
pub(crate) const FOREIGN: u32 = 3;

pub(crate) fn id(number: u32) -> AccessKeyId {
    AccessKeyId::parse(&format!("AKIA{number:016}")).expect("twenty capitals and digits")
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a moment of our time")
}

pub(crate) fn policy() -> Policy {
    Policy {
        action: Action::Rotate,
        rotate_after: SignedDuration::from_hours(60 * 24),
        max_age: SignedDuration::from_hours(90 * 24),
        overlap: SignedDuration::from_hours(12),
        grace_period: SignedDuration::from_hours(7 * 24),
        forced: None,
        own_deploy: false,
        leave_deploys: false,
        places: 1,
        dry_run: false,
    }
}

pub(crate) fn doing(action: Action) -> Policy {
    Policy { action, ..policy() }
}

pub(crate) fn forced() -> Policy {
    Policy { forced: Some(at(NOW)), ..policy() }
}

/// Forced by a pipeline that began before the new key of these worlds was made.
pub(crate) fn forced_earlier() -> Policy {
    Policy { forced: Some(at(NOW - 70)), ..policy() }
}

pub(crate) fn key(number: u32, age_in_days: i64) -> Key {
    Key { id: id(number), active: true, created: at(NOW - age_in_days * DAY), used: None }
}

/// A pair whose readable secret works with the key that it names.
pub(crate) fn on(number: u32) -> (IdSeen, SecretSeen) {
    (named(number), readable(Some(number), SecretOwner::Key(id(number))))
}

pub(crate) fn named(number: u32) -> IdSeen {
    IdSeen::Key(id(number))
}

pub(crate) fn readable(tag: Option<u32>, owner: SecretOwner) -> SecretSeen {
    SecretSeen::Readable { tag: tag.map(id), owner }
}

pub(crate) fn hidden(tag: Option<u32>) -> SecretSeen {
    SecretSeen::Hidden { tag: tag.map(id) }
}

pub(crate) fn targets(pairs: impl IntoIterator<Item = (IdSeen, SecretSeen)>) -> Vec<TargetSeen> {
    let seen = |(number, (id, secret))| {
        let place = place(number);
        TargetSeen { name: place.owner.to_string(), place, id, secret }
    };
    pairs.into_iter().enumerate().map(seen).collect()
}

/// What a record calls the target of this number.
pub(crate) fn place(number: usize) -> Place {
    let owner = Owner::Project(Name::Id(number as u64 + 1));
    Place { owner, scope: "*".to_owned(), names: Names::default() }
}

/// One target on one key of this age, nothing else, no claim.
pub(crate) fn idle(age_in_days: i64) -> Observed {
    Observed {
        now: at(NOW),
        listed: at(NOW),
        user: "deployer".to_owned(),
        keys: vec![key(OLD, age_in_days)],
        targets: targets([(named(OLD), readable(None, SecretOwner::NotAsked))]),
        other_references: BTreeMap::new(),
        records: Vec::new(),
        claim: None,
        preflight: None,
        in_flight_jobs: None,
        deploys: None,
        in_own_deploy: false,
        run: RunState::new(at(NOW + 3600)),
    }
}

/// A rotation that has begun, its claim held, its key made a minute ago; the target is still on the
/// old one.
pub(crate) fn publishing() -> Observed {
    idle(75).with(|seen| {
        seen.keys.push(Key { created: at(NOW - 60), ..key(NEW, 0) });
        seen.targets = targets([on(OLD)]);
        seen.claim = Some(Claim { name: "own".to_owned(), progress: Some(begun_progress()) });
    })
}

/// … and the process that made the key is this one.
pub(crate) fn with_new_key(verified: bool) -> Observed {
    publishing().with(|seen| {
        seen.run.new_key = Some(NewKey { key: id(NEW), verified, abandoned: false });
        seen.run.attempt = Attempt::Tried;
    })
}

/// Every target on the new key, with these progress.
pub(crate) fn published(progress: Progress) -> Observed {
    publishing().with(|seen| {
        seen.targets = targets([on(NEW)]);
        seen.claim = Some(Claim { name: "own".to_owned(), progress: Some(progress) });
    })
}

pub(crate) fn begun_progress() -> Progress {
    Progress {
        from: vec![id(OLD)],
        creating: at(NOW - 60),
        previous: vec![Some(id(OLD))],
        ..Progress::default()
    }
}

pub(crate) fn publication() -> Progress {
    Progress { published: Some(Published { key: id(NEW), at: at(NOW - 50) }), ..begun_progress() }
}

/// A target did not hold the pair when it was looked at last.
pub(crate) fn not_in_place() -> Progress {
    Progress { not_in_place: Some(at(NOW - 30)), ..publication() }
}

/// Of all targets only the first one was there when the pair was published.
pub(crate) fn to_the_first(progress: Progress) -> Progress {
    let first = RecordedTarget { place: place(0), published: true };
    Progress { targets: vec![first], ..progress }
}

pub(crate) fn drained() -> Progress {
    Progress { drained: Some(at(NOW - 40)), ..publication() }
}

pub(crate) fn deployed(seconds_ago: i64) -> Progress {
    Progress { deployed: Some(at(NOW - seconds_ago)), ..drained() }
}

pub(crate) fn disabled(seconds_ago: i64) -> Progress {
    Progress { disabled: Some(at(NOW - seconds_ago)), ..deployed(seconds_ago + DAY) }
}

pub(crate) fn enabled_again(seconds_ago: i64) -> Progress {
    Progress { enabled_again: Some(at(NOW - seconds_ago)), ..disabled(seconds_ago + DAY) }
}

pub(crate) fn record(name: &str, alive: bool, progress: Option<Progress>) -> RecordSeen {
    RecordSeen {
        name: name.to_owned(),
        at: at(NOW - 30),
        released: false,
        alive,
        until: None,
        progress,
    }
}

/// A record whose job has ended, and which counts until then.
pub(crate) fn ending(until: i64, progress: Option<Progress>) -> RecordSeen {
    RecordSeen { until: Some(at(until)), ..record("ending", true, progress) }
}

pub(crate) fn used(seconds_ago: i64, service: &str) -> Option<Use> {
    Some(Use::At { when: at(NOW - seconds_ago), service: service.to_owned() })
}

pub(crate) fn deploy_place(number: usize) -> DeployPlace {
    DeployPlace { project: Name::Id(number as u64 + 1), deploy: "pipeline".to_owned() }
}

/// A pipeline that was started for the first place.
pub(crate) fn recorded_deploy() -> RecordedDeploy {
    RecordedDeploy { place: deploy_place(0), pipeline: 7, job: None, proven: None, tried: None }
}

/// Nothing is noted of the first place's deploy.
pub(crate) fn startable() -> DeploySeen {
    DeploySeen::Startable { place: deploy_place(0), asked: Asked::Ref("main".to_owned()) }
}

/// An attempt without an answer, given up so long ago.
pub(crate) fn attempt(closed_ago: Option<i64>) -> DeployAttempt {
    DeployAttempt {
        place: deploy_place(0),
        asked: Asked::Ref("main".to_owned()),
        at: at(NOW - 20),
        closed: closed_ago.map(|ago| at(NOW - ago)),
    }
}

/// The plan's step, where a refusal that needs it is confirmed and no other place names an old key;
/// the refusal may have to be noted first.
pub(crate) fn confirmed(seen: &Observed, policy: &Policy) -> Step {
    let step = plan(seen, policy);
    if step == Step::Observe(Scope::Everywhere) {
        let searched = seen.clone().with(|seen| seen.run.freshness = Freshness::Searched);
        return confirmed(&searched, policy);
    }
    let Step::Confirm(refusal) = step else { return step };
    let again = seen.clone().with(|seen| seen.run.suspected = Some(Refusal::clone(&refusal)));
    let next = plan(&again, policy);
    let is_noted =
        matches!(next, Step::Claim | Step::Record(Checkpoint::NotInPlace | Checkpoint::Superseded));
    assert!(is_noted || next == Step::Refuse(refusal), "confirmed, and not pronounced: {next:?}");
    next
}

pub(crate) trait With: Sized {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl With for Observed {}
impl With for Policy {}
