//! All small worlds, enumerated: whatever is seen, the step keeps the invariants.
//!
//! [`judge`] is written from DESIGN.md and shares no code with the plan; the simulation uses it
//! too.

use std::time::Instant;

use credential_rotator::access_key::{AccessKeyId, Key, Use};
use credential_rotator::config::Action;
use credential_rotator::plan::{
    Attempt, Checkpoint, Claim, DeploySeen, Done, IdSeen, KeyRole, NewKey, Observed, Policy, Query,
    SecretOwner, SecretSeen, Step, TargetSeen, plan,
};
use credential_rotator::record::{Progress, RecordedDeploy};
use jiff::SignedDuration;

use crate::kit::{
    DAY, FOREIGN, NEW, NOW, OLD, With, at, begun_progress, deployed, disabled, doing, drained,
    forced, hidden, id, idle, named, on, policy, publication, readable, record, targets, used,
};

fn names(target: &TargetSeen, key: &AccessKeyId) -> bool {
    target.id == IdSeen::Key(key.clone())
}

/// Whatever works with a key is that key's; what is hidden or works with no key is its tag's.
fn holds(target: &TargetSeen, key: &AccessKeyId) -> bool {
    match &target.secret {
        SecretSeen::Readable { owner: SecretOwner::Key(owner), .. } => owner == key,
        SecretSeen::Readable { tag, .. } | SecretSeen::Hidden { tag } => tag.as_ref() == Some(key),
        SecretSeen::Absent | SecretSeen::Unusable(_) => false,
    }
}

fn progress_seen(seen: &Observed) -> Option<&Progress> {
    if let Some(Claim { progress: Some(progress), .. }) = &seen.claim {
        return Some(progress);
    }
    let mut newest: Option<&credential_rotator::plan::RecordSeen> = None;
    for record in &seen.records {
        if record.progress.is_some() && newest.is_none_or(|other| other.at <= record.at) {
            newest = Some(record);
        }
    }
    newest.and_then(|record| record.progress.as_ref())
}

/// What is wrong with this step, if anything.
pub(crate) fn check(seen: &Observed, policy: &Policy, step: &Step) -> Result<(), &'static str> {
    let ensure = |holds: bool, wrong: &'static str| if holds { Ok(()) } else { Err(wrong) };
    let without_effect =
        matches!(step, Step::Ask(_) | Step::Wait(_) | Step::Done(_) | Step::Refuse(_));
    if policy.action == Action::Check {
        ensure(
            matches!(step, Step::Ask(_) | Step::Done(_) | Step::Refuse(_)),
            "`check` does something",
        )?;
    }
    if seen.in_own_deploy {
        ensure(without_effect, "a job of the own deploy does something")?;
    }
    if !without_effect && *step != Step::Claim {
        ensure(seen.claim.is_some(), "an effect without a claim")?;
        let over = seen.records.iter().any(|other| other.released || !other.alive);
        ensure(!over || *step == Step::TakeOver, "an effect before what is over was taken over")?;
    }
    let progress = progress_seen(seen).filter(|progress| progress.finished.is_none());
    let active = |id: &AccessKeyId| seen.keys.iter().any(|key| key.id == *id && key.active);
    let there = |id: &AccessKeyId| seen.keys.iter().any(|key| key.id == *id);
    let all_on =
        |id: &AccessKeyId| seen.targets.iter().all(|target| names(target, id) && holds(target, id));
    let unnamed = |id: &AccessKeyId| {
        !seen.targets.iter().any(|target| names(target, id) || holds(target, id))
            && !seen.other_references.contains_key(id)
    };
    let published =
        progress.and_then(|progress| progress.published.as_ref()).map(|published| &published.key);
    let intact = || published.is_some_and(|key| active(key) && all_on(key));
    let previous = |id: Option<&AccessKeyId>| {
        progress.is_some_and(|progress| {
            progress.previous.iter().any(|previous| previous.as_ref() == id)
        })
    };
    let known_before =
        |id: &AccessKeyId| progress.is_some_and(|progress| progress.from.contains(id));
    let born = |key: &Key| {
        progress.is_some_and(|progress| {
            let age = key.created.as_second() - progress.creating.as_second();
            (0..=120).contains(&age) && !progress.from.contains(&key.id)
        })
    };
    match step {
        Step::Claim => {
            ensure(seen.claim.is_none(), "a second claim")?;
            ensure(
                !seen.records.iter().any(|other| other.alive && !other.released),
                "a claim while another run is at work",
            )
        }
        Step::TakeOver => ensure(
            seen.records.iter().any(|other| other.released || !other.alive),
            "nothing to take over",
        ),
        Step::Ask(Query::WhoseSecrets) => {
            let unasked = |target: &TargetSeen| {
                matches!(target.secret, SecretSeen::Readable { owner: SecretOwner::NotAsked, .. })
            };
            ensure(seen.targets.iter().any(unasked), "asked whose secrets again")
        }
        Step::Ask(Query::LastUse(id)) => ensure(
            seen.keys.iter().any(|key| key.id == *id && key.used.is_none()),
            "asked for the last use again",
        ),
        Step::Ask(Query::Preflight) => {
            ensure(seen.preflight.is_none(), "asked the preflight again")
        }
        Step::Ask(Query::InFlightJobs) => ensure(
            seen.in_flight_jobs.is_none() && published.is_some(),
            "asked for in-flight jobs again",
        ),
        Step::Ask(Query::Deploys) => {
            ensure(seen.deploys.is_none() && published.is_some(), "asked for deploys again")
        }
        Step::Record(Checkpoint::Begin) => {
            ensure(seen.keys.len() < 2, "a rotation without a slot")?;
            ensure(
                seen.preflight.as_ref().is_some_and(Vec::is_empty),
                "a rotation without a preflight",
            )?;
            ensure(seen.attempt == Attempt::No, "a second rotation in one run")?;
            ensure(progress.is_none() || policy.forced.is_some(), "begun anew without force")?;
            ensure(
                matches!(policy.action, Action::Rotate | Action::Setup),
                "`retire` begins a rotation",
            )?;
            let blank = seen
                .targets
                .iter()
                .all(|target| target.id == IdSeen::Absent && target.secret == SecretSeen::Absent);
            ensure(
                blank || policy.action == Action::Rotate,
                "`setup` although there are variables",
            )?;
            ensure(
                !blank || policy.action == Action::Setup || progress.is_some(),
                "a first key without `setup`",
            )?;
            let due = |key: &Key| {
                !key.active
                    || key.created + policy.rotate_after <= seen.now
                    || policy.forced.is_some_and(|since| key.created < since)
            };
            let named = seen
                .keys
                .iter()
                .filter(|key| seen.targets.iter().any(|target| names(target, &key.id)))
                .collect::<Vec<_>>();
            ensure(
                progress.is_some()
                    || policy.forced.is_some()
                    || named.is_empty()
                    || named.iter().any(|key| due(key)),
                "not due",
            )
        }
        Step::Record(Checkpoint::Nothing) => {
            ensure(published.is_none() && progress.is_some(), "a published rotation is forgotten")?;
            // Nothing that may be the new key is left behind, unless a person has used force on
            // it.
            ensure(
                // A run that has sent nothing yet has made nothing.
                !seen.keys.iter().any(born)
                    || seen.attempt == Attempt::Recorded
                    || seen.new_key.as_ref().is_some_and(|new_key| !there(&new_key.key))
                    || tagged(seen, progress),
                "an orphan is forgotten",
            )
        }
        Step::Create => {
            ensure(
                seen.attempt == Attempt::Recorded && progress.is_some() && published.is_none(),
                "created before it was recorded",
            )?;
            ensure(
                seen.new_key.is_none() && seen.keys.len() < 2 && !seen.keys.iter().any(born),
                "a second new key",
            )
        }
        Step::Verify(id) => ensure(
            seen.new_key.as_ref().is_some_and(|new_key| new_key.key == *id && !new_key.verified),
            "verified what is not at hand",
        ),
        Step::WriteSecret { target, key } => {
            let new_key = seen.new_key.as_ref().is_some_and(|new_key| {
                new_key.key == *key && new_key.verified && !new_key.abandoned
            });
            let shown = |target: &TargetSeen| matches!(&target.secret, SecretSeen::Readable { owner: SecretOwner::Key(owner), .. } if owner == key);
            ensure(
                new_key || seen.targets.iter().any(shown),
                "a secret that is neither verified nor accepted by STS",
            )?;
            ensure(
                active(key) && !known_before(key) && published.is_none(),
                "not the new key's secret",
            )?;
            let target = &seen.targets[*target];
            ensure(!holds(target, key), "written twice")?;
            ensure(
                names(target, key) || previous(id_of(target)),
                "a person's variable is overwritten",
            )?;
            let behind = |target: &TargetSeen| !(names(target, key) && holds(target, key));
            let readable =
                |target: &TargetSeen| !matches!(target.secret, SecretSeen::Hidden { .. });
            ensure(
                readable(target)
                    || !seen.targets.iter().any(|target| readable(target) && behind(target)),
                "a hidden target before a readable one",
            )
        }
        Step::WriteId { target, key } => {
            let target = &seen.targets[*target];
            ensure(holds(target, key), "an id without its secret")?;
            ensure(
                active(key) && !known_before(key) && published.is_none(),
                "not the new key's id",
            )?;
            ensure(
                !names(target, key) && previous(id_of(target)),
                "a person's variable is overwritten",
            )
        }
        Step::Record(Checkpoint::Published) => {
            let IdSeen::Key(key) = &seen.targets[0].id else { return Err("nothing is published") };
            ensure(
                all_on(key) && active(key) && !known_before(key) && published.is_none(),
                "not published",
            )
        }
        Step::Record(Checkpoint::Drained) => ensure(
            intact() && seen.in_flight_jobs.as_ref().is_some_and(Vec::is_empty),
            "not drained",
        ),
        Step::StartDeploy(_) => {
            ensure(
                intact()
                    && progress.is_some_and(|progress| {
                        progress.drained.is_some() && progress.deployed.is_none()
                    }),
                "a deploy too early",
            )?;
            ensure(
                !policy.own_deploy || policy.action == Action::Retire,
                "a deploy that is not ours to start",
            )
        }
        Step::Record(Checkpoint::Proven) => {
            ensure(
                intact() && progress.is_some_and(|progress| progress.drained.is_some()),
                "proven too early",
            )?;
            let proven = |deploy: &DeploySeen| matches!(deploy, DeploySeen::Proven(_));
            ensure(
                seen.deploys
                    .as_ref()
                    .is_some_and(|deploys| deploys.is_empty() || deploys.iter().any(proven)),
                "not proven",
            )
        }
        Step::Disable(id, KeyRole::Old) | Step::Delete(id, KeyRole::Old) => {
            ensure(unnamed(id), "a variable names it")?;
            ensure(
                intact() && previous(Some(id)) && published != Some(id),
                "not an old key of this rotation",
            )?;
            let progress = progress.ok_or("no rotation")?;
            let deployed = progress.deployed.ok_or("before the deploy is proven")?;
            let hurried = policy.forced.is_some();
            let key = seen.keys.iter().find(|key| key.id == *id).ok_or("no such key")?;
            match step {
                Step::Disable(..) => {
                    ensure(key.active && progress.disabled.is_none(), "disabled twice")?;
                    let calm = match &key.used {
                        Some(Use::At { when, .. }) => *when <= deployed,
                        Some(Use::Never) => true,
                        None => false,
                    };
                    ensure(
                        hurried
                            || policy.overlap.is_zero()
                            || deployed + policy.overlap <= seen.now && calm,
                        "within the overlap, or still used",
                    )
                }
                _ => {
                    let disabled = progress.disabled.ok_or("deleted before it was disabled")?;
                    ensure(!key.active, "an active key is deleted")?;
                    ensure(
                        hurried || disabled + policy.grace_period <= seen.now,
                        "within the grace period",
                    )
                }
            }
        }
        Step::Disable(id, KeyRole::Orphan) | Step::Delete(id, KeyRole::Orphan) => {
            ensure(unnamed(id), "a variable names it")?;
            ensure(
                progress.is_some() && published.is_none() && !known_before(id),
                "not an orphan of this rotation",
            )?;
            let key = seen.keys.iter().find(|key| key.id == *id).ok_or("no such key")?;
            if seen.new_key.as_ref().is_some_and(|new_key| new_key.key == *id && new_key.abandoned)
            {
                return ensure(matches!(step, Step::Delete(..)), "a doomed key is only disabled");
            }
            ensure(
                born(key)
                    || seen.new_key.as_ref().is_some_and(|new_key| new_key.key == *id)
                    || tag_of(seen, id),
                "not proven to be ours",
            )?;
            ensure(
                matches!(&key.used, Some(Use::Never))
                    || matches!(&key.used, Some(Use::At { service, .. }) if service == "sts"),
                "somebody uses it",
            )?;
            ensure(key.active == matches!(step, Step::Disable(..)), "disabled first, then deleted")
        }
        Step::Record(Checkpoint::Disabled) => {
            ensure(
                intact() && progress.is_some_and(|progress| progress.deployed.is_some()),
                "disabled too early",
            )?;
            ensure(
                seen.keys.iter().any(|key| !key.active && previous(Some(&key.id))),
                "nothing is disabled",
            )
        }
        Step::Record(Checkpoint::Finished) => {
            ensure(
                intact() && progress.is_some_and(|progress| progress.deployed.is_some()),
                "finished too early",
            )?;
            ensure(
                !seen.keys.iter().any(|key| previous(Some(&key.id)) && published != Some(&key.id)),
                "finished with an old key left",
            )
        }
        Step::Wait(_) => ensure(!seen.waited_out, "waits although its time is over"),
        Step::Done(Done::NotDue { key, .. }) => ensure(
            progress.is_none()
                && active(key)
                && seen.targets.iter().all(|target| names(target, key)),
            "at rest, but not well",
        ),
        Step::Done(_) | Step::Refuse(_) => Ok(()),
    }
}

fn id_of(target: &TargetSeen) -> Option<&AccessKeyId> {
    match &target.id {
        IdSeen::Key(id) => Some(id),
        IdSeen::Absent | IdSeen::Unusable(_) => None,
    }
}

fn tag_of(seen: &Observed, id: &AccessKeyId) -> bool {
    let tag = |target: &TargetSeen| match &target.secret {
        SecretSeen::Hidden { tag } | SecretSeen::Readable { tag, .. } => tag.as_ref() == Some(id),
        SecretSeen::Absent | SecretSeen::Unusable(_) => false,
    };
    seen.targets.iter().any(tag)
}

/// A tag names a key that was not there before and is gone: it, not the one by its date, was the
/// new key.
fn tagged(seen: &Observed, progress: Option<&Progress>) -> bool {
    [OLD, NEW, FOREIGN].into_iter().map(id).any(|id| {
        tag_of(seen, &id)
            && !seen.keys.iter().any(|key| key.id == id)
            && progress.is_some_and(|progress| !progress.from.contains(&id))
    })
}

/// Judges the plan of what is seen, and counts.
struct Count {
    worlds: u64,
    steps: std::collections::BTreeMap<&'static str, u64>,
    began: Instant,
}

impl Count {
    fn new() -> Self {
        Self { worlds: 0, steps: std::collections::BTreeMap::new(), began: Instant::now() }
    }

    fn see(&mut self, seen: &Observed, policy: &Policy) {
        self.worlds += 1;
        let step = plan(seen, policy);
        *self.steps.entry(word(&step)).or_default() += 1;
        if let Err(wrong) = check(seen, policy, &step) {
            panic!("{wrong}: {step:?}\n{policy:#?}\n{seen:#?}");
        }
    }

    fn tell(&self, what: &str) {
        eprintln!(
            "{what}: {} worlds in {:.1} s: {:?}",
            self.worlds,
            self.began.elapsed().as_secs_f32(),
            self.steps
        );
    }
}

fn word(step: &Step) -> &'static str {
    match step {
        Step::Ask(_) => "ask",
        Step::Claim => "claim",
        Step::TakeOver => "take over",
        Step::Record(_) => "record",
        Step::Create => "create",
        Step::Verify(_) => "verify",
        Step::WriteSecret { .. } => "write secret",
        Step::WriteId { .. } => "write id",
        Step::StartDeploy(_) => "start deploy",
        Step::Wait(_) => "wait",
        Step::Disable(..) => "disable",
        Step::Delete(..) => "delete",
        Step::Done(_) => "done",
        Step::Refuse(_) => "refuse",
    }
}

/// Every id with every secret: what one target can hold.
fn every_pair() -> Vec<(IdSeen, SecretSeen)> {
    let ids = [
        IdSeen::Absent,
        named(OLD),
        named(NEW),
        named(FOREIGN),
        IdSeen::Unusable("a reference".to_owned()),
    ];
    let tags = [None, Some(OLD), Some(NEW), Some(FOREIGN)];
    let owners = [
        SecretOwner::NotAsked,
        SecretOwner::Nobody,
        SecretOwner::Key(id(OLD)),
        SecretOwner::Key(id(NEW)),
        SecretOwner::Key(id(FOREIGN)),
    ];
    let mut secrets = vec![SecretSeen::Absent, SecretSeen::Unusable("a path".to_owned())];
    secrets.extend(tags.iter().map(|tag| hidden(*tag)));
    secrets.extend(
        tags.iter().flat_map(|tag| owners.iter().map(|owner| readable(*tag, owner.clone()))),
    );
    ids.iter().flat_map(|id| secrets.iter().map(|secret| (id.clone(), secret.clone()))).collect()
}

/// The pairs that matter where there are two of them.
fn telling_pairs() -> Vec<(IdSeen, SecretSeen)> {
    vec![
        (IdSeen::Absent, SecretSeen::Absent),
        (IdSeen::Absent, hidden(Some(NEW))),
        (IdSeen::Unusable("a reference".to_owned()), hidden(None)),
        on(OLD),
        (named(OLD), readable(None, SecretOwner::NotAsked)),
        (named(OLD), hidden(Some(OLD))),
        (named(OLD), readable(Some(NEW), SecretOwner::Key(id(NEW)))),
        (named(OLD), readable(Some(NEW), SecretOwner::Nobody)),
        (named(OLD), hidden(Some(NEW))),
        (named(OLD), SecretSeen::Absent),
        on(NEW),
        (named(NEW), hidden(Some(NEW))),
        (named(NEW), readable(Some(OLD), SecretOwner::Key(id(OLD)))),
        (named(NEW), hidden(Some(OLD))),
        on(FOREIGN),
        (named(FOREIGN), hidden(Some(NEW))),
    ]
}

/// Each of three keys active, disabled or gone; the fresh one is made when the rotation was
/// recorded, the strange one long before.
fn every_keys(old_age: i64) -> Vec<Vec<Key>> {
    let three = [Some(true), Some(false), None];
    let mut all = Vec::new();
    for number in 0..27 {
        let [old, new_key_state, strange] =
            [three[number / 9], three[number / 3 % 3], three[number % 3]];
        let keys = [
            (OLD, old, NOW - old_age * DAY),
            (NEW, new_key_state, NOW - 60),
            (FOREIGN, strange, NOW - 100 * DAY),
        ];
        let there = keys.into_iter().filter_map(|(number, active, created)| {
            Some(Key { id: id(number), active: active?, created: at(created), used: None })
        });
        all.push(there.collect());
    }
    all
}

fn claims(progress: Option<&Progress>) -> Vec<Observed> {
    let base = idle(0);
    let own = |progress: Option<&Progress>| {
        Some(Claim { name: "own".to_owned(), progress: progress.cloned() })
    };
    vec![
        base.clone().with(|seen| seen.claim = own(progress)),
        base.clone().with(|seen| seen.records.push(record("other", false, progress.cloned()))),
        base.clone().with(|seen| seen.records.push(record("other", true, progress.cloned()))),
        base.with(|seen| {
            seen.claim = own(None);
            seen.records.push(record("other", false, progress.cloned()));
        }),
    ]
}

fn new_keys() -> Vec<(Option<NewKey>, Attempt)> {
    let new_key =
        |verified, abandoned| (Some(NewKey { key: id(NEW), verified, abandoned }), Attempt::Tried);
    vec![
        (None, Attempt::No),
        (None, Attempt::Recorded),
        (None, Attempt::Tried),
        new_key(false, false),
        new_key(true, false),
        new_key(false, true),
        new_key(true, true),
    ]
}

fn uses() -> Vec<Option<Use>> {
    vec![None, Some(Use::Never), used(30, "sts"), used(30, "s3")]
}

fn every_use(seen: &mut Observed, mut look: impl FnMut(&Observed)) {
    for usage in uses() {
        for key in &mut seen.keys {
            key.used.clone_from(&usage);
        }
        look(seen);
    }
}

fn other_references(seen: &mut Observed, mut look: impl FnMut(&mut Observed)) {
    look(seen);
    for number in [OLD, NEW] {
        seen.other_references.insert(id(number), vec!["BACKUP".to_owned()]);
        look(seen);
        seen.other_references.clear();
    }
}

#[test]
fn every_small_world_at_rest() {
    let mut count = Count::new();
    let finished = Progress { finished: Some(at(NOW - 10)), ..disabled(DAY) };
    let policies =
        [policy(), forced(), doing(Action::Retire), doing(Action::Setup), doing(Action::Check)];
    let preflights = [None, Some(Vec::new()), Some(vec!["no deploy".to_owned()])];
    let lists: Vec<Vec<Key>> = [10, 75].into_iter().flat_map(every_keys).collect();
    for (number, mut seen) in [None, Some(&finished)].into_iter().flat_map(claims).enumerate() {
        for pair in every_pair() {
            seen.targets = targets([pair]);
            for keys in &lists {
                seen.keys.clone_from(keys);
                for policy in &policies {
                    for (attempt, preflight) in
                        [(Attempt::No, 0), (Attempt::No, 1), (Attempt::No, 2), (Attempt::Tried, 1)]
                    {
                        seen.attempt = attempt;
                        seen.preflight.clone_from(&preflights[preflight]);
                        // What is finished makes a difference to who claims and to nothing else.
                        if number < 4 || preflight == 1 {
                            count.see(&seen, policy);
                        }
                    }
                }
            }
        }
    }
    count.tell("at rest");
}

#[test]
fn every_small_world_while_a_key_is_made() {
    let mut count = Count::new();
    let policies = [policy(), forced(), doing(Action::Retire), doing(Action::Check)];
    let mut both = |seen: &mut Observed, keys: &[Vec<Key>]| {
        for keys in keys {
            seen.keys.clone_from(keys);
            for (new_key, attempt) in new_keys() {
                seen.new_key = new_key;
                seen.attempt = attempt;
                for (index, policy) in policies.iter().enumerate() {
                    match index {
                        0 => other_references(seen, |seen| {
                            every_use(seen, |seen| count.see(seen, policy));
                        }),
                        _ => count.see(seen, policy),
                    }
                    for key in &mut seen.keys {
                        key.used = None;
                    }
                }
            }
        }
    };
    let keys = every_keys(75);
    let mut seen =
        claims(Some(&begun_progress())).remove(0).with(|seen| seen.preflight = Some(Vec::new()));
    for pair in every_pair() {
        seen.targets = targets([pair]);
        both(&mut seen, &keys);
    }
    // A user has two keys at most.
    let keys: Vec<Vec<Key>> = keys.into_iter().filter(|keys| keys.len() < 3).collect();
    for (first, second) in telling_pairs()
        .into_iter()
        .flat_map(|first| telling_pairs().into_iter().map(move |second| (first.clone(), second)))
    {
        seen.targets = targets([first, second]);
        both(&mut seen, &keys);
    }
    for mut seen in claims(Some(&begun_progress())).into_iter().skip(1) {
        for pair in telling_pairs() {
            seen.targets = targets([pair]);
            both(&mut seen, &keys);
        }
    }
    count.tell("while a key is made");
}

#[test]
fn every_small_world_after_the_publication() {
    let mut count = Count::new();
    let recorded =
        RecordedDeploy { place: "project:1".to_owned(), pipeline: 7, job: None, proven: None };
    let deploys = [
        None,
        Some(vec![DeploySeen::Startable]),
        Some(vec![DeploySeen::Running("p".to_owned())]),
        Some(vec![DeploySeen::Proven(recorded.clone())]),
        Some(vec![DeploySeen::Proven(recorded.clone()), DeploySeen::Failed("p".to_owned())]),
        Some(vec![
            DeploySeen::Unproven("p".to_owned()),
            DeploySeen::Proven(RecordedDeploy { proven: Some(at(NOW)), ..recorded }),
        ]),
    ];
    let in_flight_jobs = [None, Some(Vec::new()), Some(vec!["job 1".to_owned()])];
    let own = policy().with(|policy| policy.own_deploy = true);
    let hasty = policy().with(|policy| policy.overlap = SignedDuration::ZERO);
    let policies = [
        policy(),
        forced(),
        own.clone(),
        own.with(|policy| policy.action = Action::Retire),
        hasty,
        doing(Action::Setup),
        doing(Action::Check),
    ];
    let stages =
        [publication(), drained(), deployed(60), deployed(DAY), disabled(DAY), disabled(8 * DAY)];
    let keys = every_keys(75);
    let mut intact_or_not: Vec<Vec<(IdSeen, SecretSeen)>> =
        every_pair().into_iter().map(|pair| vec![pair]).collect();
    for pair in telling_pairs() {
        intact_or_not.push(vec![on(NEW), pair.clone()]);
        intact_or_not.push(vec![pair, (named(NEW), hidden(Some(NEW)))]);
    }
    for progress in &stages {
        for (index, mut seen) in claims(Some(progress)).into_iter().enumerate() {
            for pairs in &intact_or_not {
                seen.targets = targets(pairs.iter().cloned());
                let intact = seen
                    .targets
                    .iter()
                    .all(|target| names(target, &id(NEW)) && holds(target, &id(NEW)));
                // Who claims is a matter of its own: the strange pairs need not be seen four times.
                if index > 0 && !intact {
                    continue;
                }
                for keys in &keys {
                    seen.keys.clone_from(keys);
                    for policy in &policies {
                        // How it deploys and waits does not matter to what is broken.
                        if !intact && (policy.own_deploy || policy.overlap.is_zero()) {
                            continue;
                        }
                        if !intact {
                            count.see(&seen, policy);
                        } else if progress.deployed.is_some() {
                            other_references(&mut seen, |seen| {
                                every_use(seen, |seen| count.see(seen, policy));
                            });
                            seen.keys.iter_mut().for_each(|key| key.used = None);
                        } else {
                            for (deploys, in_flight_jobs) in deploys.iter().flat_map(|deploys| {
                                in_flight_jobs
                                    .iter()
                                    .map(move |in_flight_jobs| (deploys, in_flight_jobs))
                            }) {
                                seen.deploys.clone_from(deploys);
                                seen.in_flight_jobs.clone_from(in_flight_jobs);
                                for waited_out in [false, true] {
                                    seen.waited_out = waited_out;
                                    count.see(&seen, policy);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    count.tell("after the publication");
}
