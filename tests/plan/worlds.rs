//! All small worlds, enumerated: whatever is seen, the step keeps the invariants.
//!
//! Each world is seen as it is and, where that makes a difference, with the refusal confirmed, with
//! what is seen out of date, after a signal, with an error kept, and after each failure of the step.

use std::time::Instant;

use credential_rotator::access_key::{Key, Use};
use credential_rotator::config::Action;
use credential_rotator::plan::{
    Attempt, Blocker, Claim, DeploySeen, FailureKind, Freshness, GivenPair, IdSeen, NewKey,
    Observed, Policy, SecretOwner, SecretSeen, Step, plan,
};
use credential_rotator::record::{Progress, RecordedDeploy};
use jiff::SignedDuration;

use crate::invariants::{check, holds, names};
use crate::kit::{
    DAY, FOREIGN, NEW, NOW, OLD, With, at, begun_progress, deployed, disabled, doing, drained,
    enabled_again, ending, forced, forced_earlier, hidden, id, idle, named, not_in_place, on,
    policy, publication, readable, record, recorded_deploy, startable, targets, to_the_first, used,
};

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
        let step = self.see_one(seen, policy);
        if let Step::Confirm(refusal) = &step {
            let mut confirmed = seen.clone();
            confirmed.run.suspected = Some(refusal.clone());
            self.see_one(&confirmed, policy);
        }
        if seen.run.attempt == Attempt::Recorded {
            self.see_recorded(seen, policy);
        }
        if step.has_effect() {
            self.see_signal_and_error(seen, policy);
            self.see_outdated(seen, policy);
            self.see_failures(seen, policy, &step);
        }
    }

    fn see_one(&mut self, seen: &Observed, policy: &Policy) -> Step {
        self.worlds += 1;
        let step = plan(seen, policy);
        *self.steps.entry(word(&step)).or_default() += 1;
        if let Err(wrong) = check(seen, policy, &step) {
            panic!("{wrong}: {step:?}\n{policy:#?}\n{seen:#?}");
        }
        step
    }

    /// The record tells of the very list, which is new or old.
    fn see_recorded(&mut self, seen: &Observed, policy: &Policy) {
        let Some(progress) = seen.progress() else { return };
        let mut other = Observed { listed: progress.creating, ..seen.clone() };
        for seconds in [0, 45, 46] {
            other.run.list_age = SignedDuration::from_secs(seconds);
            self.see_one(&other, policy);
        }
    }

    fn see_signal_and_error(&mut self, seen: &Observed, policy: &Policy) {
        for (signal, sent, deferred) in
            [(true, false, false), (true, true, false), (false, false, true), (false, true, true)]
        {
            let mut other = seen.clone();
            other.run.stop_requested = signal;
            other.run.secret_sent = sent;
            other.run.error_deferred |= deferred;
            self.see_one(&other, policy);
        }
    }

    fn see_outdated(&mut self, seen: &Observed, policy: &Policy) {
        for freshness in [
            Freshness::Searched,
            Freshness::Applied,
            Freshness::AfterWait,
            Freshness::VariablesOutdated,
            Freshness::Outdated,
        ] {
            let mut other = seen.clone();
            other.run.freshness = freshness;
            self.see_one(&other, policy);
        }
    }

    /// The step fails, and so does what follows, as often as it can.
    fn see_failures(&mut self, seen: &Observed, policy: &Policy, step: &Step) {
        for (kind, misdirected) in [
            (FailureKind::ClaimLost, false),
            (FailureKind::Refused, false),
            (FailureKind::Unclear, false),
            (FailureKind::Unclear, true),
        ] {
            // How much time is left matters to a write alone.
            let is_write = matches!(step, Step::WriteSecret { .. } | Step::WriteId { .. });
            for ends in [at(NOW + 3600), at(NOW)].into_iter().take(if is_write { 2 } else { 1 }) {
                let mut other = seen.clone();
                other.run.ends = ends;
                other.failed(step, kind, misdirected);
                for _ in 0..4 {
                    let next = self.see_one(&other, policy);
                    match next {
                        Step::Abandon(_) | Step::Observe(_) | Step::Retry => {
                            other.apply(&next, None);
                        }
                        _ => break,
                    }
                }
            }
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
        Step::Observe(_) => "observe",
        Step::Confirm(_) => "confirm",
        Step::Abandon(_) => "abandon",
        Step::Retry => "retry",
        Step::Done(_) => "done",
        Step::Refuse(_) => "refuse",
        Step::Stop => "stop",
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
        base.clone().with(|seen| seen.records.push(ending(NOW + 90, progress.cloned()))),
        base.clone().with(|seen| seen.records.push(ending(NOW + 7200, progress.cloned()))),
        base.clone().with(|seen| {
            seen.records.push(ending(NOW + 90, progress.cloned()));
            seen.records.push(record("third", true, None));
        }),
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
    vec![None, Some(Use::Never), used(30, "sts"), used(30, "s3"), used(50 * 3600, "s3")]
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
    let policies = [
        policy(),
        forced(),
        doing(Action::Retire),
        doing(Action::Setup),
        doing(Action::Check),
        Policy { dry_run: true, ..policy() },
    ];
    let preflights = [None, Some(Vec::new()), Some(vec![Blocker::AllHidden])];
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
                        seen.run.attempt = attempt;
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
                // A key is abandoned for an error, which is kept.
                seen.run.error_deferred = new_key.as_ref().is_some_and(|key| key.abandoned);
                seen.run.new_key = new_key;
                seen.run.attempt = attempt;
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
    let recorded = recorded_deploy();
    let deploys = [
        None,
        Some(vec![startable()]),
        Some(vec![DeploySeen::Adoptable(recorded.clone())]),
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
        forced_earlier(),
        own.clone(),
        own.with(|policy| policy.action = Action::Retire),
        hasty,
        doing(Action::Setup),
        doing(Action::Check),
    ];
    let stages = [
        publication(),
        drained(),
        deployed(60),
        deployed(DAY),
        deployed(4 * DAY),
        disabled(DAY),
        disabled(8 * DAY),
        enabled_again(8 * DAY),
        not_in_place(),
        to_the_first(deployed(60)),
        to_the_first(not_in_place()),
    ];
    let keys = every_keys(75);
    let mut intact_or_not: Vec<Vec<(IdSeen, SecretSeen)>> =
        every_pair().into_iter().map(|pair| vec![pair]).collect();
    for pair in telling_pairs() {
        intact_or_not.push(vec![on(NEW), pair.clone()]);
        intact_or_not.push(vec![pair, (named(NEW), hidden(Some(NEW)))]);
    }
    for progress in &stages {
        for (index, mut seen) in claims(Some(progress)).into_iter().enumerate() {
            if !progress.targets.is_empty() {
                seen.preflight = Some(Vec::new());
            }
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
                                    seen.run.waited_out = waited_out;
                                    count.see(&seen, policy);
                                }
                                // What is noted and not yet asked for outlives an observation.
                                seen.run.asking = progress.drained.map(|_| 0);
                                count.see(&seen, policy);
                                seen.run.asking = None;
                            }
                        }
                    }
                }
            }
        }
    }
    count.tell("after the publication");
}

/// The job's own pair is an old one, from before the publication or from elsewhere than a target.
#[test]
fn every_small_world_of_a_job_that_was_given_an_old_pair() {
    let mut count = Count::new();
    let hasty = policy().with(|policy| policy.overlap = SignedDuration::ZERO);
    let policies = [policy(), forced(), hasty, doing(Action::Retire), doing(Action::Check)];
    let stages = [publication(), drained(), deployed(DAY), deployed(4 * DAY), disabled(8 * DAY)];
    for progress in &stages {
        let mut seen = claims(Some(progress)).remove(0);
        for pair in [on(NEW), (named(NEW), hidden(Some(NEW)))] {
            seen.targets = targets([pair]);
            for (keys, since) in every_keys(75).iter().flat_map(|keys| [(keys, 100), (keys, 10)]) {
                seen.keys.clone_from(keys);
                seen.run.given =
                    Some(GivenPair { key: id(OLD), since: at(NOW - since), in_target: true });
                for policy in &policies {
                    other_references(&mut seen, |seen| {
                        every_use(seen, |seen| count.see(seen, policy));
                    });
                    seen.keys.iter_mut().for_each(|key| key.used = None);
                }
            }
        }
    }
    count.tell("given an old pair");
}
