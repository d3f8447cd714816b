//! Every row of the table at the head of `src/plan.rs`, every refusal and every end, one sentence
//! each.

use credential_rotator::access_key::{Key, Use};
use credential_rotator::config::Action;
use credential_rotator::plan::Step::{
    Abandon, Ask, Create, Delete, Disable, Done, Refuse, StartDeploy, TakeOver, Verify, Wait,
    WriteId, WriteSecret,
};
use credential_rotator::plan::{
    self, Attempt, Blocker, Cause, Checkpoint, Claim, DeploySeen, FailureKind, Freshness,
    GivenPair, IdSeen, KeyRole, LeftDeploys, Made, NewKey, Observed, Policy, Query, RecordSeen,
    Refusal, Scope, SecretOwner, SecretSeen, Step, Waiting,
};
use credential_rotator::record::{DeployAttempt, Progress, RecordedDeploy, RecordedTarget};
use jiff::SignedDuration;

use crate::kit::{
    DAY, FOREIGN, NEW, NOW, OLD, With, at, attempt, begun_progress, confirmed, deployed, disabled,
    doing, drained, enabled_again, ending, forced, forced_earlier, hidden, id, idle, key, named,
    not_in_place, on, place, policy, publication, published, publishing, readable, record,
    recorded_deploy, startable, targets, to_the_first, used, with_new_key,
};

fn plan(seen: &Observed) -> Step {
    confirmed(seen, &policy())
}

fn deploy(proven: bool) -> RecordedDeploy {
    RecordedDeploy { proven: proven.then(|| at(NOW - 10)), ..recorded_deploy() }
}

fn text(text: &str) -> Vec<String> {
    vec![text.to_owned()]
}

fn one() -> String {
    "project:1".to_owned()
}

fn cleared(seen: Observed) -> Observed {
    seen.with(|seen| seen.preflight = Some(Vec::new()))
}

/// When a list shows every key that the rotation can have made.
fn later(seen: Observed) -> Observed {
    seen.with(|seen| seen.now = at(NOW + 60))
}

fn unclaimed(seen: Observed) -> Observed {
    seen.with(|seen| {
        let progress = seen.claim.take().and_then(|claim| claim.progress);
        seen.records.push(record("earlier", false, progress));
    })
}

// Who claims.

#[test]
fn another_run_at_work_is_left_alone_where_there_is_something_to_do() {
    let other = |alive, released| {
        let mut other = record("other", alive, None);
        other.released = released;
        cleared(idle(75)).with(|seen| seen.records.push(other))
    };
    assert_eq!(plan(&other(true, false)), Refuse(Refusal::Busy));
    assert_eq!(plan(&other(false, false)), Step::Claim);
    assert_eq!(plan(&other(true, true)), Step::Claim);
}

/// Also right after a complete look at the targets.
#[test]
fn an_old_key_is_looked_for_everywhere_right_before_it_is_touched() {
    for (seen, step) in [
        (published(deployed(DAY)), Disable(id(OLD), KeyRole::Old)),
        (
            published(disabled(8 * DAY)).with(|seen| seen.keys[0].active = false),
            Delete(id(OLD), KeyRole::Old),
        ),
    ] {
        let seen = seen.with(|seen| seen.keys[0].used = Some(Use::Never));
        let with = |freshness| {
            let seen = seen.clone().with(|seen| seen.run.freshness = freshness);
            plan::plan(&seen, &policy())
        };
        let look = Step::Observe(Scope::Everywhere);
        assert_eq!(with(Freshness::Fresh), look);
        assert_eq!(with(Freshness::Applied), look);
        assert_eq!(with(Freshness::Searched), step);
        let mut after = seen.clone();
        after.apply(&look, None);
        assert_eq!(after.run.freshness, Freshness::Searched);
        // The second look of a refusal reads the targets alone, and forgets nothing by that.
        let named = after.with(|seen| {
            seen.other_references.insert(id(OLD), vec!["BACKUP of project 9".to_owned()]);
        });
        let refusal =
            Refusal::StillNamed { key: id(OLD), places: vec!["BACKUP of project 9".to_owned()] };
        assert_eq!(plan(&named), Refuse(refusal));
    }
}

/// GitLab starts a lost job again within seconds.
#[test]
fn a_run_whose_job_has_just_ended_is_waited_for_within_the_own_time() {
    let until = at(NOW + 90);
    let left = |ends, progress| {
        cleared(idle(75)).with(|seen| {
            seen.records.push(ending(NOW + 90, progress));
            seen.run.ends = at(ends);
        })
    };
    let wait = Wait(Waiting::Afterlife { until });
    assert_eq!(plan(&left(NOW + 3600, None)), wait);
    assert_eq!(plan(&left(NOW + 100, None)), Refuse(Refusal::Busy));
    // A torn pair is completed then, and not a day later.
    let torn = unclaimed(publishing()).with(|seen| {
        seen.targets = targets([(named(OLD), on(NEW).1)]);
        seen.records[0] = ending(NOW + 90, Some(begun_progress()));
    });
    assert_eq!(plan(&torn), wait);
    let mut after = torn.clone();
    after.apply(&wait, None);
    assert_eq!(plan(&after), Step::Observe(Scope::Everything), "what it did is looked at first");
    let beside = torn.with(|seen| seen.records.push(record("third", true, None)));
    assert_eq!(plan(&beside), Refuse(Refusal::Busy));
    let at_rest = idle(10).with(|seen| seen.records.push(ending(NOW + 90, None)));
    assert!(matches!(plan(&at_rest), Done(plan::Done::NotDue { .. })));
}

#[test]
fn another_run_at_work_is_no_matter_where_nothing_is_due() {
    let seen = idle(10).with(|seen| seen.records.push(record("other", true, None)));
    assert!(matches!(plan(&seen), Done(plan::Done::NotDue { .. })));
}

#[test]
fn what_looks_like_changed_externally_may_be_half_of_another_runs_step() {
    let seen = idle(10).with(|seen| {
        seen.targets = targets([(named(FOREIGN), readable(None, SecretOwner::NotAsked))]);
        seen.records.push(record("other", true, None));
    });
    assert_eq!(plan(&seen), Refuse(Refusal::Busy));
    let alone = seen.with(|seen| seen.records.clear());
    assert_eq!(plan(&alone), Refuse(Refusal::Unknown { target: one(), key: id(FOREIGN) }));
}

#[test]
fn whatever_changes_anything_is_claimed_first() {
    assert_eq!(plan(&cleared(idle(75))), Step::Claim);
    assert_eq!(plan(&unclaimed(with_new_key(false))), Step::Claim);
    assert_eq!(
        plan(&unclaimed(published(drained())).with(|seen| seen.deploys = Some(vec![startable()]))),
        Step::Claim
    );
}

#[test]
fn a_question_and_a_wait_need_no_claim() {
    assert_eq!(plan(&idle(75)), Ask(Query::Preflight));
    let seen =
        unclaimed(published(publication())).with(|seen| seen.in_flight_jobs = Some(text("job 1")));
    assert_eq!(plan(&seen), Wait(Waiting::InFlightJobs(text("job 1"))));
}

#[test]
fn the_progress_of_an_earlier_run_is_taken_over_before_anything_else() {
    let seen = unclaimed(with_new_key(true))
        .with(|seen| seen.claim = Some(Claim { name: "own".to_owned(), progress: None }));
    assert_eq!(plan(&seen), TakeOver);
}

#[test]
fn of_two_records_with_progress_the_later_one_counts() {
    let seen = published(drained()).with(|seen| {
        seen.claim = None;
        let mut earlier = record("a", false, Some(publication()));
        earlier.at = at(NOW - 500);
        seen.records = vec![record("b", false, Some(drained())), earlier];
    });
    assert_eq!(seen.progress(), Some(&drained()));
}

// Making.

#[test]
fn a_rotation_that_this_run_has_recorded_creates_its_key() {
    let seen = publishing().with(|seen| {
        seen.keys.pop();
        seen.listed = at(NOW - 60);
        seen.run.attempt = Attempt::Recorded;
    });
    assert_eq!(plan(&seen), Create);
}

#[test]
fn a_key_is_made_of_a_young_list_that_the_record_tells_of() {
    let recorded = |age: i64, listed: i64| {
        publishing().with(|seen| {
            seen.keys.pop();
            seen.listed = at(listed);
            seen.run.attempt = Attempt::Recorded;
            seen.run.list_age = SignedDuration::from_secs(age);
            seen.run.freshness = Freshness::Applied;
            seen.preflight = Some(Vec::new());
        })
    };
    assert_eq!(plan(&recorded(45, NOW - 60)), Create);
    let old = recorded(46, NOW - 60);
    assert_eq!(plan(&old), Step::Observe(Scope::Everything));
    // Another list than the recorded one is recorded first, however long it took.
    for age in [0, 46] {
        let fresh = recorded(age, NOW).with(|seen| seen.run.freshness = Freshness::Fresh);
        assert_eq!(plan(&fresh), Step::Record(Checkpoint::Begin));
    }
    let stopped = old.with(|seen| seen.run.stop_requested = true);
    assert_eq!(plan(&stopped), Step::Record(Checkpoint::Nothing));
}

#[test]
fn a_dry_run_shows_the_same_however_old_its_list_is() {
    let dry = policy().with(|policy| policy.dry_run = true);
    let steps = |age: i64| {
        let seen = cleared(idle(75)).with(|seen| {
            seen.targets = targets([on(OLD)]);
            seen.run.list_age = SignedDuration::from_secs(age);
        });
        match plan::plan(&seen, &dry) {
            Done(plan::Done::DryRun(steps)) => steps,
            step => panic!("not rehearsed: {step:?}"),
        }
    };
    assert!(steps(0).contains(&Create));
    assert_eq!(steps(0), steps(3600));
}

/// A refused `CreateAccessKey` is told once the record is taken back, without another look.
#[test]
fn with_nothing_left_to_put_in_order_an_error_is_told_at_once() {
    let mut seen = cleared(idle(75)).with(|seen| {
        seen.targets = targets([on(OLD), on(FOREIGN)]);
        seen.claim = Some(Claim { name: "own".to_owned(), progress: None });
    });
    let mut steps = Vec::new();
    for _ in 0..8 {
        let step = plan::plan(&seen, &forced());
        match &step {
            Create => seen.failed(&step, FailureKind::Refused, false),
            _ => seen.apply(&step, None),
        }
        steps.push(step);
        if steps.last() == Some(&Step::Stop) {
            break;
        }
    }
    assert_eq!(
        steps,
        [
            Step::Record(Checkpoint::Begin),
            Create,
            Abandon(Cause::Failure),
            Step::Record(Checkpoint::Nothing),
            Step::Stop
        ]
    );
}

/// Between the record and the creation a person makes a key: it is not ours, for nothing was sent.
#[test]
fn a_key_that_appears_before_ours_is_made_is_a_persons() {
    let mut seen = publishing().with(|seen| seen.run.attempt = Attempt::Recorded);
    assert_eq!(plan(&seen), Step::Record(Checkpoint::Nothing));
    seen.apply(&Step::Record(Checkpoint::Nothing), None);
    assert_eq!(seen.run.attempt, Attempt::No);
    seen.keys[1].used = Some(Use::Never);
    assert!(matches!(plan(&seen), Refuse(Refusal::NoSlot { .. })));
}

#[test]
fn where_nothing_was_made_the_progress_is_taken_out() {
    assert_eq!(
        plan(&publishing().with(|seen| drop(seen.keys.pop()))),
        Step::Record(Checkpoint::Nothing)
    );
}

/// A run that ended in order may have made a key a minute ago that the list does not show yet; one
/// that died is not taken over so soon.
#[test]
fn what_a_run_that_has_just_ended_made_may_show_late() {
    let until = at(NOW - 60 + 120);
    let left = |released: bool, now: i64| {
        publishing().with(|seen| {
            seen.keys.pop();
            seen.claim = None;
            seen.now = at(now);
            seen.records =
                vec![RecordSeen { released, ..record("a", false, Some(begun_progress())) }];
        })
    };
    assert_eq!(plan(&left(true, NOW)), Wait(Waiting::Unsettled { until }));
    assert_eq!(
        plan(&left(true, NOW).with(|seen| seen.run.waited_out = true)),
        Done(plan::Done::Waiting(Waiting::Unsettled { until }))
    );
    assert_eq!(plan(&left(true, NOW + 59)), Wait(Waiting::Unsettled { until }));
    assert_eq!(plan(&left(true, NOW + 60)), Step::Claim);
    assert_eq!(plan(&left(false, NOW)), Step::Claim);
    // Whoever holds the claim has waited.
    let held = left(true, NOW)
        .with(|seen| seen.claim = Some(Claim { name: "own".to_owned(), progress: None }));
    assert_eq!(plan(&held), TakeOver);
}

#[test]
fn a_new_key_that_is_gone_and_written_nowhere_is_forgotten() {
    let seen = with_new_key(true).with(|seen| drop(seen.keys.pop()));
    assert_eq!(plan(&seen), Step::Record(Checkpoint::Nothing));
}

#[test]
fn a_new_key_that_is_written_somewhere_and_gone_or_disabled_is_changed_externally() {
    for pair in [
        on(NEW),
        (named(OLD), readable(Some(NEW), SecretOwner::Nobody)),
        (named(NEW), hidden(None)),
    ] {
        let seen = publishing().with(|seen| seen.targets = targets([pair]));
        let gone = seen.clone().with(|seen| drop(seen.keys.pop()));
        // Without a tag and without its key nothing shows that there ever was a new key.
        if gone.targets[0].secret.tag().is_some() {
            assert_eq!(plan(&gone), Refuse(Refusal::NewKeyLost { key: id(NEW), disabled: false }));
        }
        let disabled = seen.with(|seen| seen.keys[1].active = false);
        assert_eq!(plan(&disabled), Refuse(Refusal::NewKeyLost { key: id(NEW), disabled: true }));
    }
}

#[test]
fn a_target_that_holds_neither_the_new_nor_an_old_id_is_changed_externally() {
    for held in [IdSeen::Absent, named(FOREIGN), IdSeen::Unusable("a reference".to_owned())] {
        let seen = with_new_key(true).with(|seen| seen.targets[0].id = held);
        let refusal = Refusal::ChangedExternally { target: one(), new_key: id(NEW) };
        // A key that went nowhere is deleted first.
        assert_eq!(plan(&seen), Abandon(Cause::Refusal(refusal.clone())));
        assert_eq!(plan(&seen.with(|seen| seen.run.secret_sent = true)), Refuse(refusal));
    }
}

#[test]
fn a_forced_run_begins_anew_after_an_external_change_and_a_slot_is_free() {
    let seen = later(publishing().with(|seen| {
        seen.targets = targets([on(NEW)]);
        seen.keys.pop();
    }));
    assert_eq!(confirmed(&seen, &forced()), Ask(Query::Preflight));
    assert_eq!(confirmed(&cleared(seen), &forced()), Step::Record(Checkpoint::Begin));
}

/// Found by the simulation: the progress was overwritten and the old key was left behind.
#[test]
fn a_forced_run_does_not_take_a_list_that_lags_for_a_key_that_is_gone() {
    let seen = cleared(published(publication())).with(|seen| drop(seen.keys.pop()));
    assert_eq!(
        confirmed(&seen, &forced()),
        Refuse(Refusal::NewKeyLost { key: id(NEW), disabled: false })
    );
    assert_eq!(confirmed(&later(seen), &forced()), Step::Record(Checkpoint::Begin));
}

#[test]
fn a_run_begins_at_most_one_rotation() {
    let seen = cleared(idle(75)).with(|seen| seen.run.attempt = Attempt::Tried);
    assert_eq!(plan(&seen), Done(plan::Done::Tried));
}

#[test]
fn a_torn_pair_is_healed_forward() {
    for secret in [
        readable(Some(NEW), SecretOwner::Key(id(NEW))),
        readable(None, SecretOwner::Key(id(NEW))),
        hidden(Some(NEW)),
    ] {
        let seen = publishing().with(|seen| seen.targets = targets([(named(OLD), secret)]));
        assert_eq!(plan(&seen), WriteId { target: 0, key: id(NEW) });
    }
}

#[test]
fn a_torn_pair_without_an_id_is_healed_where_there_was_none_before() {
    let seen = publishing().with(|seen| {
        seen.targets[0] = targets([(IdSeen::Absent, hidden(Some(NEW)))]).remove(0);
        seen.claim.as_mut().unwrap().progress.as_mut().unwrap().previous = vec![None];
    });
    assert_eq!(plan(&seen), WriteId { target: 0, key: id(NEW) });
}

/// This write of a run that has published elsewhere fails so; what follows.
fn after(kind: FailureKind, secret: SecretSeen, ends: i64) -> Step {
    let mut seen = with_new_key(true).with(|seen| {
        seen.targets = targets([on(NEW), (named(OLD), secret)]);
        seen.run.secret_sent = true;
        seen.run.ends = at(ends);
    });
    let step = plan::plan(&seen, &policy());
    assert!(matches!(step, WriteSecret { target: 1, .. } | WriteId { target: 1, .. }), "{step:?}");
    seen.failed(&step, kind, false);
    plan::plan(&seen, &policy())
}

#[test]
fn a_torn_pair_is_tried_again_until_the_end_that_the_record_promises() {
    let torn = || readable(Some(NEW), SecretOwner::Key(id(NEW)));
    for kind in [FailureKind::Unclear, FailureKind::Refused] {
        assert_eq!(after(kind, torn(), NOW + 31), Step::Retry);
        assert_eq!(after(kind, torn(), NOW + 30), Step::Stop);
    }
    assert_eq!(after(FailureKind::ClaimLost, torn(), NOW + 31), Step::Stop);
    // Reading may fail as well, and so may the takeover by a run that came later.
    for step in [Step::Retry, Step::Observe(Scope::Variables), TakeOver] {
        let mut seen = publishing().with(|seen| seen.targets = targets([(named(OLD), torn())]));
        seen.failed(&WriteId { target: 0, key: id(NEW) }, FailureKind::Unclear, false);
        seen.failed(&step, FailureKind::Refused, false);
        assert_eq!(plan(&seen), Step::Retry, "{step:?}");
    }
}

/// It is as it was, whatever the others hold.
#[test]
fn a_target_that_surely_refuses_the_secret_is_not_torn() {
    let old = || hidden(Some(OLD));
    assert_eq!(after(FailureKind::Refused, old(), NOW + 3600), Step::Stop);
    assert_eq!(after(FailureKind::Unclear, old(), NOW + 3600), Step::Retry);
}

/// Else the next run would wait for a key that nobody has asked for.
#[test]
fn a_record_of_a_key_that_is_not_made_is_taken_back_after_a_failure() {
    let mut seen = publishing().with(|seen| {
        seen.keys.pop();
        seen.listed = at(NOW - 60);
        seen.run.attempt = Attempt::Recorded;
        seen.run.list_age = SignedDuration::from_secs(46);
        seen.run.freshness = Freshness::Applied;
    });
    let look = Step::Observe(Scope::Everything);
    assert_eq!(plan(&seen), look);
    seen.failed(&look, FailureKind::Unclear, false);
    assert_eq!(plan(&seen), Abandon(Cause::Failure));
    seen.apply(&Abandon(Cause::Failure), None);
    assert_eq!(plan(&seen), Step::Record(Checkpoint::Nothing));
    let mut twice = seen.clone();
    twice.failed(&Step::Record(Checkpoint::Nothing), FailureKind::Unclear, false);
    assert_eq!(plan(&twice), Step::Stop);
    seen.apply(&Step::Record(Checkpoint::Nothing), None);
    assert_eq!(plan(&seen), Step::Stop);
}

#[test]
fn whose_a_readable_secret_is_is_asked_before_anything_is_written() {
    let seen = with_new_key(true)
        .with(|seen| seen.targets[0].secret = readable(None, SecretOwner::NotAsked));
    assert_eq!(plan(&seen), Ask(Query::WhoseSecrets));
}

/// A key was verified meanwhile, and a person may have stored another pair.
#[test]
fn the_variables_are_read_right_before_the_first_write() {
    let applied = with_new_key(true).with(|seen| seen.run.freshness = Freshness::Applied);
    assert_eq!(plan(&applied), Step::Observe(Scope::Variables));
    let sent = applied.clone().with(|seen| seen.run.secret_sent = true);
    assert_eq!(plan(&sent), WriteSecret { target: 0, key: id(NEW) });
    let stored = applied.with(|seen| {
        seen.run.freshness = Freshness::Fresh;
        seen.targets = targets([on(FOREIGN)]);
    });
    let refusal = Refusal::ChangedExternally { target: one(), new_key: id(NEW) };
    assert_eq!(plan(&stored), Abandon(Cause::Refusal(refusal.clone())));
    // A secret that was taken away is not put there again; one that was missing before is.
    let taken = stored.with(|seen| seen.targets = targets([(named(OLD), SecretSeen::Absent)]));
    assert_eq!(plan(&taken), Abandon(Cause::Refusal(refusal)));
    let was_half = taken.with(|seen| {
        let progress = seen.claim.as_mut().and_then(|claim| claim.progress.as_mut()).unwrap();
        progress.previous.push(None);
    });
    assert_eq!(plan(&was_half), WriteSecret { target: 0, key: id(NEW) });
}

#[test]
fn a_key_at_hand_is_verified_then_written_secret_first() {
    assert_eq!(plan(&with_new_key(false)), Verify(id(NEW)));
    assert_eq!(plan(&with_new_key(true)), WriteSecret { target: 0, key: id(NEW) });
    let torn = with_new_key(true)
        .with(|seen| seen.targets[0].secret = readable(Some(NEW), SecretOwner::Key(id(NEW))));
    assert_eq!(plan(&torn), WriteId { target: 0, key: id(NEW) });
}

#[test]
fn readable_targets_are_written_before_hidden_ones() {
    let seen = with_new_key(true).with(|seen| {
        seen.targets = targets([
            (named(OLD), hidden(Some(OLD))),
            on(OLD),
            (named(OLD), hidden(None)),
            on(OLD),
        ]);
    });
    assert_eq!(plan(&seen), WriteSecret { target: 1, key: id(NEW) });
    let seen = seen.with(|seen| (seen.targets[1].id, seen.targets[1].secret) = on(NEW));
    assert_eq!(plan(&seen), WriteSecret { target: 3, key: id(NEW) });
    let seen = seen.with(|seen| (seen.targets[3].id, seen.targets[3].secret) = on(NEW));
    assert_eq!(plan(&seen), WriteSecret { target: 0, key: id(NEW) });
}

#[test]
fn a_secret_that_another_target_still_shows_publishes_the_rest() {
    let seen = publishing()
        .with(|seen| seen.targets = targets([(named(OLD), hidden(Some(OLD))), on(NEW)]));
    assert_eq!(plan(&seen), WriteSecret { target: 0, key: id(NEW) });
}

#[test]
fn a_secret_that_is_not_to_be_had_leaves_the_rest_to_a_person() {
    let seen = publishing()
        .with(|seen| seen.targets = targets([(named(NEW), hidden(Some(NEW))), on(OLD)]));
    assert_eq!(
        plan(&seen),
        Refuse(Refusal::SecretLost { key: id(NEW), target: "project:2".to_owned() })
    );
}

#[test]
fn an_orphan_that_only_sts_has_used_is_disabled_then_deleted() {
    let orphan = |usage, active| {
        publishing().with(|seen| {
            seen.keys[1].used = usage;
            seen.keys[1].active = active;
        })
    };
    assert_eq!(plan(&orphan(None, true)), Ask(Query::LastUse(id(NEW))));
    for usage in [Some(Use::Never), used(20, "sts")] {
        assert_eq!(plan(&orphan(usage.clone(), true)), Disable(id(NEW), KeyRole::Orphan));
        assert_eq!(plan(&orphan(usage, false)), Delete(id(NEW), KeyRole::Orphan));
    }
}

#[test]
fn an_orphan_that_something_else_has_used_is_left_to_a_person() {
    for active in [true, false] {
        let seen = publishing().with(|seen| {
            seen.keys[1].used = used(20, "s3");
            seen.keys[1].active = active;
        });
        assert_eq!(
            plan(&seen),
            Refuse(Refusal::KeyCompromised { key: id(NEW), service: "s3".to_owned() })
        );
    }
}

#[test]
fn an_orphan_that_another_variable_names_is_left_to_a_person() {
    for active in [true, false] {
        let seen = publishing().with(|seen| {
            seen.keys[1].used = Some(Use::Never);
            seen.keys[1].active = active;
            seen.other_references.insert(id(NEW), text("BACKUP of project 1"));
        });
        assert_eq!(
            plan(&seen),
            Refuse(Refusal::StillNamed { key: id(NEW), places: text("BACKUP of project 1") })
        );
    }
}

#[test]
fn a_key_made_outside_the_two_minutes_is_not_ours() {
    for created in [NOW - 61, NOW - 60 + 121] {
        let seen = publishing().with(|seen| {
            seen.keys[1] = Key { created: at(created), used: Some(Use::Never), ..key(FOREIGN, 0) }
        });
        assert_eq!(plan(&seen), Step::Record(Checkpoint::Nothing));
    }
    for created in [NOW - 60, NOW - 60 + 120] {
        let seen = publishing().with(|seen| {
            seen.keys[1] = Key { created: at(created), used: Some(Use::Never), ..key(NEW, 0) }
        });
        assert_eq!(plan(&seen), Disable(id(NEW), KeyRole::Orphan));
    }
}

#[test]
fn a_key_that_was_there_before_is_not_ours_even_where_it_was_made_in_the_same_second() {
    let seen = publishing().with(|seen| {
        seen.keys[1] = Key { created: at(NOW - 60), used: Some(Use::Never), ..key(FOREIGN, 0) };
        seen.claim.as_mut().unwrap().progress.as_mut().unwrap().from.push(id(FOREIGN));
    });
    assert_eq!(plan(&seen), Step::Record(Checkpoint::Nothing));
}

#[test]
fn of_several_keys_that_may_be_ours_none_is_touched() {
    let seen =
        publishing().with(|seen| seen.keys.push(Key { created: at(NOW - 59), ..key(FOREIGN, 0) }));
    assert_eq!(plan(&seen), Refuse(Refusal::Several(vec![id(NEW), id(FOREIGN)])));
    let tags = publishing().with(|seen| {
        seen.targets =
            targets([(named(OLD), hidden(Some(FOREIGN))), (named(OLD), hidden(Some(NEW)))]);
    });
    assert_eq!(plan(&tags), Refuse(Refusal::Several(vec![id(NEW), id(FOREIGN)])));
}

#[test]
fn a_new_key_that_never_came_to_be_used_is_deleted_in_the_same_run() {
    let seen = with_new_key(false).with(|seen| {
        seen.run.new_key = Some(NewKey { key: id(NEW), verified: false, abandoned: true });
    });
    assert_eq!(plan(&seen), Delete(id(NEW), KeyRole::Orphan));
    let stranger = seen.with(|seen| seen.targets[0].id = named(FOREIGN));
    assert_eq!(plan(&stranger), Delete(id(NEW), KeyRole::Orphan));
}

#[test]
fn an_abandoned_key_that_a_variable_names_stays() {
    let abandoned = |pairs: Vec<(IdSeen, SecretSeen)>| {
        with_new_key(false).with(|seen| {
            seen.run.new_key = Some(NewKey { key: id(NEW), verified: false, abandoned: true });
            seen.targets = targets(pairs);
        })
    };
    let refusal = |place: &str| Refuse(Refusal::StillNamed { key: id(NEW), places: text(place) });
    let named_only = (named(NEW), readable(Some(OLD), SecretOwner::Key(id(OLD))));
    assert_eq!(plan(&abandoned(vec![named_only.clone()])), refusal("project:1"));
    assert_eq!(
        plan(&abandoned(vec![(named(FOREIGN), hidden(None)), named_only])),
        refusal("project:2")
    );
    let mentioned = abandoned(vec![on(OLD)])
        .with(|seen| drop(seen.other_references.insert(id(NEW), text("BACKUP"))));
    assert_eq!(plan(&mentioned), refusal("BACKUP"));
}

#[test]
fn a_publication_is_recorded_once_every_target_is_on_the_new_key() {
    let seen = publishing()
        .with(|seen| seen.targets = targets([on(NEW), (named(NEW), hidden(Some(NEW)))]));
    assert_eq!(plan(&seen), Step::Record(Checkpoint::Published));
}

// Deploying.

#[test]
fn after_the_publication_a_target_that_is_not_on_the_new_key_is_changed_externally() {
    for progress in [publication(), drained(), deployed(DAY), disabled(8 * DAY)] {
        for pair in [
            on(OLD),
            (named(OLD), hidden(Some(NEW))),
            (named(NEW), hidden(Some(OLD))),
            (IdSeen::Absent, SecretSeen::Absent),
        ] {
            let mut seen = published(progress.clone()).with(|seen| seen.targets = targets([pair]));
            let refusal = Refusal::NotPublishedAnyMore { key: id(NEW), target: one() };
            let check = doing(Action::Check);
            assert_eq!(confirmed(&cleared(seen.clone()), &check), Refuse(refusal.clone()));
            let dry = policy().with(|policy| policy.dry_run = true);
            assert_eq!(confirmed(&cleared(seen.clone()), &dry), Refuse(refusal.clone()));
            // What the deploy was to prove is taken out before it is told.
            assert_eq!(plan(&seen), Step::Record(Checkpoint::NotInPlace));
            seen.apply(&Step::Record(Checkpoint::NotInPlace), None);
            assert_eq!(plan(&seen), Refuse(refusal));
        }
    }
}

/// A deploy that ran meanwhile may have read the other pair, whatever is recorded of it.
#[test]
fn what_was_proven_is_proven_again_once_the_pair_is_back_in_place() {
    let recorded = Progress { deploys: vec![deploy(true)], ..disabled(DAY) };
    let out = published(recorded).with(|seen| seen.targets = targets([on(OLD)]));
    let progress = Progress::after(&out, Checkpoint::NotInPlace).unwrap();
    assert_eq!(progress.deploys, Vec::new());
    assert_eq!((progress.drained, progress.deployed), (None, None));
    assert!(progress.disabled.is_some() && progress.published.is_some());
    let mut back = published(progress);
    assert_eq!(plan(&back), Step::Record(Checkpoint::Published));
    back.apply(&Step::Record(Checkpoint::Published), None);
    back.apply(&Step::Observe(Scope::Variables), None);
    // A job that has started since then may have read the other pair.
    let progress = back.progress().unwrap();
    assert_eq!(progress.published.as_ref().unwrap().at, at(NOW));
    assert_eq!(progress.not_in_place, None);
    assert_eq!(plan(&back), Ask(Query::InFlightJobs));
}

#[test]
fn a_readable_secret_that_works_with_no_key_is_not_in_place_whatever_its_tag_says() {
    for progress in [drained(), deployed(DAY)] {
        let seen = published(progress).with(|seen| {
            seen.targets = targets([(named(NEW), readable(Some(NEW), SecretOwner::Nobody))]);
        });
        assert_eq!(plan(&seen), Step::Record(Checkpoint::NotInPlace));
    }
    // While it is published it is written again, where that is possible.
    let scribbled = (named(NEW), readable(Some(NEW), SecretOwner::Nobody));
    let again = with_new_key(true).with(|seen| {
        seen.targets = targets([on(NEW), scribbled.clone()]);
        seen.run.secret_sent = true;
    });
    assert_eq!(plan(&again), WriteSecret { target: 1, key: id(NEW) });
    let lost = publishing().with(|seen| seen.targets = targets([scribbled]));
    assert_eq!(plan(&lost), Refuse(Refusal::SecretLost { key: id(NEW), target: one() }));
}

// A target that was added.

/// The second target is not in the record.
fn joined(progress: Progress, second: (IdSeen, SecretSeen)) -> Observed {
    cleared(
        published(to_the_first(progress)).with(|seen| seen.targets = targets([on(NEW), second])),
    )
}

#[test]
fn a_target_that_was_added_is_published_to_and_everything_is_proven_anew() {
    for pair in [on(OLD), (named(OLD), hidden(Some(OLD))), (named(OLD), hidden(None))] {
        let mut seen = joined(deployed(60), pair);
        let unasked = seen.clone().with(|seen| seen.preflight = None);
        assert_eq!(plan(&unasked), Ask(Query::Preflight));
        for step in [
            Step::Record(Checkpoint::NotInPlace),
            Step::Observe(Scope::Variables),
            WriteSecret { target: 1, key: id(NEW) },
            WriteId { target: 1, key: id(NEW) },
            Step::Record(Checkpoint::Published),
            Step::Observe(Scope::Variables),
            Ask(Query::InFlightJobs),
        ] {
            assert_eq!(plan::plan(&seen, &policy()), step);
            seen.apply(&step, None);
        }
        let progress = seen.progress().unwrap();
        assert!(progress.is_published_at(&seen.targets[1].place));
        assert_eq!((progress.deployed, progress.not_in_place), (None, None));
    }
}

/// What runs there may still run on the old pair.
#[test]
fn a_target_that_was_added_with_the_new_pair_is_to_be_deployed_too() {
    assert_eq!(plan(&joined(deployed(60), on(NEW))), Step::Record(Checkpoint::NotInPlace));
}

#[test]
fn a_target_that_was_added_and_torn_is_completed() {
    let torn = (named(OLD), readable(Some(NEW), SecretOwner::Key(id(NEW))));
    let seen = joined(not_in_place(), torn);
    assert_eq!(plan(&seen), WriteId { target: 1, key: id(NEW) });
}

#[test]
fn a_target_that_was_added_with_neither_pair_is_a_persons_matter() {
    let refusal = |hidden| {
        let target = "project:2".to_owned();
        Refuse(Refusal::AddedTarget { key: id(NEW), target, hidden })
    };
    for pair in [
        on(FOREIGN),
        (IdSeen::Absent, SecretSeen::Absent),
        (named(OLD), readable(None, SecretOwner::Nobody)),
        (named(OLD), hidden(Some(FOREIGN))),
    ] {
        assert_eq!(plan(&joined(deployed(60), pair)), refusal(false));
    }
    let disabled = joined(disabled(60), on(OLD)).with(|seen| seen.keys[0].active = false);
    assert_eq!(plan(&disabled), refusal(false));
    // No target shows the new secret.
    let hidden =
        joined(deployed(60), on(OLD)).with(|seen| seen.targets[0].secret = hidden(Some(NEW)));
    assert_eq!(plan(&hidden), refusal(true));
}

#[test]
fn a_target_that_was_published_and_holds_the_old_pair_is_no_added_one() {
    let seen = joined(deployed(60), on(OLD)).with(|seen| {
        seen.targets = targets([on(OLD), on(OLD)]);
    });
    assert_eq!(plan(&seen), Step::Record(Checkpoint::NotInPlace));
    let noted = seen.with(|seen| {
        let progress = seen.claim.as_mut().and_then(|claim| claim.progress.as_mut()).unwrap();
        progress.not_in_place = Some(at(NOW));
    });
    let refusal = Refusal::NotPublishedAnyMore { key: id(NEW), target: one() };
    assert_eq!(plan(&noted), Refuse(refusal));
}

// An operator's pair in the place of the new key.

#[test]
fn an_operators_pair_ends_a_rotation_whose_new_key_was_deleted() {
    let lost = Refusal::NewKeyLost { key: id(NEW), disabled: false };
    let held = |pair: (IdSeen, SecretSeen), progress: Progress| {
        later(published(progress)).with(|seen| {
            seen.keys[1] = key(FOREIGN, 0);
            seen.targets = targets([pair]);
        })
    };
    for progress in [publication(), drained(), deployed(DAY), disabled(8 * DAY)] {
        for number in [OLD, FOREIGN] {
            let mut seen = held(on(number), progress.clone());
            assert_eq!(plan::plan(&seen, &policy()), Step::Confirm(lost.clone()));
            let step = Step::Record(Checkpoint::Superseded);
            assert_eq!(plan(&seen), step);
            seen.run.suspected = Some(lost.clone());
            seen.apply(&step, None);
            let recorded = seen.records.last().unwrap().progress.clone().unwrap();
            assert_eq!(recorded.published.unwrap().key, id(number));
            assert!(recorded.finished.is_some());
            // This run begins no other rotation, however old the key is.
            let others = vec![id(if number == OLD { FOREIGN } else { OLD })];
            let end = plan::Done::Superseded { key: id(number), others };
            assert_eq!(plan(&seen), Done(end));
        }
        // Hidden, not the same everywhere, disabled, or too early: a person's matter.
        for (pair, change) in [
            ((named(FOREIGN), hidden(None)), None),
            ((named(FOREIGN), readable(None, SecretOwner::Nobody)), None),
            (on(FOREIGN), Some(1)),
            (on(FOREIGN), Some(2)),
        ] {
            let seen = held(pair, progress.clone()).with(|seen| match change {
                Some(1) => seen.keys[1].active = false,
                Some(_) => seen.targets = targets([on(FOREIGN), on(OLD)]),
                None => {}
            });
            assert_eq!(plan(&seen), Refuse(lost.clone()));
        }
        let early = held(on(FOREIGN), progress.clone()).with(|seen| seen.now = at(NOW + 59));
        assert_eq!(plan(&early), Refuse(lost.clone()));
        // A key that is only disabled can be enabled again.
        let off = later(published(progress)).with(|seen| {
            seen.keys[1].active = false;
            seen.targets = targets([on(OLD)]);
        });
        assert_eq!(plan(&off), Refuse(Refusal::NewKeyLost { key: id(NEW), disabled: true }));
    }
}

#[test]
fn after_the_publication_a_new_key_that_does_not_work_is_changed_externally() {
    for progress in [publication(), drained(), deployed(DAY), disabled(8 * DAY)] {
        let disabled = published(progress.clone()).with(|seen| seen.keys[1].active = false);
        assert_eq!(plan(&disabled), Refuse(Refusal::NewKeyLost { key: id(NEW), disabled: true }));
        let gone = published(progress).with(|seen| drop(seen.keys.pop()));
        assert_eq!(plan(&gone), Refuse(Refusal::NewKeyLost { key: id(NEW), disabled: false }));
        assert_eq!(confirmed(&cleared(later(gone)), &forced()), Step::Record(Checkpoint::Begin));
    }
}

#[test]
fn a_job_that_started_before_the_publication_is_waited_for() {
    let seen = published(publication());
    assert_eq!(plan(&seen), Ask(Query::InFlightJobs));
    let in_flight_jobs = seen.clone().with(|seen| seen.in_flight_jobs = Some(text("job 1")));
    assert_eq!(plan(&in_flight_jobs), Wait(Waiting::InFlightJobs(text("job 1"))));
    let waited_out = in_flight_jobs.with(|seen| seen.run.waited_out = true);
    assert_eq!(plan(&waited_out), Done(plan::Done::Waiting(Waiting::InFlightJobs(text("job 1")))));
    assert_eq!(
        plan(&seen.with(|seen| seen.in_flight_jobs = Some(Vec::new()))),
        Step::Record(Checkpoint::Drained)
    );
}

#[test]
fn each_state_of_a_deploy_has_its_answer() {
    let recorded = deploy(false);
    let rows = [
        (startable(), Step::Record(Checkpoint::Attempt(0))),
        (DeploySeen::Adoptable(deploy(false)), Step::Record(Checkpoint::Adopted(0))),
        (DeploySeen::Running("p".to_owned()), Wait(Waiting::Deploys(text("p")))),
        (DeploySeen::Proven(recorded), Step::Record(Checkpoint::Proven)),
        (DeploySeen::Proven(deploy(true)), Step::Record(Checkpoint::Proven)),
        (DeploySeen::Failed("p".to_owned()), Refuse(Refusal::DeployFailed(text("p")))),
        (DeploySeen::Unproven("p".to_owned()), Refuse(Refusal::DeployUnproven(text("p")))),
    ];
    assert_eq!(plan(&published(drained())), Ask(Query::Deploys));
    for (deploy, step) in rows {
        assert_eq!(
            plan(&published(drained()).with(|seen| seen.deploys = Some(vec![deploy]))),
            step
        );
    }
}

#[test]
fn one_deploy_that_is_not_proven_keeps_both_keys() {
    let seen = published(drained()).with(|seen| {
        seen.deploys =
            Some(vec![DeploySeen::Proven(deploy(true)), DeploySeen::Unproven("p".to_owned())]);
    });
    assert_eq!(plan(&seen), Refuse(Refusal::DeployUnproven(text("p"))));
    let progress = Progress::after(&seen, Checkpoint::Proven).unwrap();
    assert_eq!(progress.deployed, None);
}

/// While it was waited for, a person may have put the old pair back, and the deploy would read it.
#[test]
fn after_a_long_wait_everything_is_looked_at_before_a_deploy_starts() {
    let waited = published(drained()).with(|seen| {
        seen.deploys = Some(vec![startable()]);
        seen.run.freshness = Freshness::AfterWait;
    });
    assert_eq!(plan(&waited), Step::Observe(Scope::Everything));
    let looked = waited.with(|seen| seen.run.freshness = Freshness::Fresh);
    assert_eq!(plan(&looked), Step::Record(Checkpoint::Attempt(0)));
}

#[test]
fn a_deploy_is_noted_before_it_is_asked_for_and_its_answer_in_its_place() {
    let seen = published(drained()).with(|seen| seen.deploys = Some(vec![startable()]));
    let note = Step::Record(Checkpoint::Attempt(0));
    assert_eq!(plan(&seen), note);
    let mut noted = seen;
    noted.apply(&note, None);
    let expected = DeployAttempt { at: at(NOW), ..attempt(None) };
    assert_eq!(noted.progress().unwrap().attempts, [expected]);
    assert_eq!(plan(&noted), StartDeploy(0));
    let mut started = noted.clone();
    started.apply(&StartDeploy(0), Some(Made::Deploy(deploy(false))));
    let progress = started.progress().unwrap();
    assert_eq!((&progress.deploys[..], &progress.attempts[..]), (&[deploy(false)][..], &[][..]));
    let mut needless = noted.clone();
    needless.apply(&StartDeploy(0), None);
    assert_eq!(needless.progress().unwrap().attempts, []);
    assert_eq!(plan(&needless), Ask(Query::Deploys));
    // Everything observed again, what is noted is still to be asked for.
    let observed = noted.with(|seen| seen.deploys = None);
    assert_eq!(plan(&observed), StartDeploy(0));
}

#[test]
fn the_attempt_of_a_deploy_that_was_refused_is_taken_out_before_the_run_ends() {
    let mut seen = noted();
    seen.failed(&StartDeploy(0), FailureKind::Refused, false);
    let withdrawn = Step::Record(Checkpoint::AttemptWithdrawn(0));
    assert_eq!(plan(&seen), withdrawn);
    seen.apply(&withdrawn, None);
    assert_eq!(seen.progress().unwrap().attempts, []);
    assert_eq!(plan(&seen), Step::Stop);
}

#[test]
fn the_attempt_of_a_deploy_that_was_not_asked_for_is_taken_out_after_a_signal() {
    let mut seen = noted().with(|seen| seen.run.stop_requested = true);
    let withdrawn = Step::Record(Checkpoint::AttemptWithdrawn(0));
    assert_eq!(plan(&seen), withdrawn);
    seen.apply(&withdrawn, None);
    assert_eq!(plan(&seen), Step::Stop);
}

#[test]
fn the_attempt_of_a_deploy_whose_answer_was_lost_is_closed_and_stays() {
    for stop_requested in [false, true] {
        let mut seen = noted().with(|seen| seen.run.stop_requested = stop_requested);
        seen.failed(&StartDeploy(0), FailureKind::Unclear, false);
        let closed = Step::Record(Checkpoint::AttemptClosed(0));
        assert_eq!(plan(&seen), closed);
        seen.apply(&closed, None);
        let expected = DeployAttempt { at: at(NOW), closed: Some(at(NOW + 120)), ..attempt(None) };
        assert_eq!(seen.progress().unwrap().attempts, [expected]);
        let next = if stop_requested { Step::Stop } else { Ask(Query::Deploys) };
        assert_eq!(plan(&seen), next);
    }
}

/// A run that has noted that it asks for a deploy.
fn noted() -> Observed {
    let mut seen = published(drained()).with(|seen| seen.deploys = Some(vec![startable()]));
    seen.apply(&Step::Record(Checkpoint::Attempt(0)), None);
    seen
}

#[test]
fn a_deploy_that_takes_too_long_is_told_or_left_to_the_next_run() {
    let seen = published(drained()).with(|seen| {
        seen.deploys = Some(vec![DeploySeen::Running("p".to_owned())]);
        seen.run.waited_out = true;
    });
    assert_eq!(plan(&seen), Refuse(Refusal::DeployTimedOut(text("p"))));
    let leave = policy().with(|policy| policy.leave_deploys = true);
    assert_eq!(confirmed(&seen, &leave), Done(plan::Done::Waiting(Waiting::Deploys(text("p")))));
}

/// Four nights of a failing deploy were four green runs.
#[test]
fn a_run_that_waits_for_no_deploy_tells_what_came_of_the_one_before() {
    let leave = policy().with(|policy| policy.leave_deploys = true);
    let running = published(drained()).with(|seen| {
        seen.deploys = Some(vec![DeploySeen::Running("q".to_owned())]);
        seen.run.waited_out = true;
    });
    let left = |failed: &[&str], blocked: &[&str]| {
        let texts = |all: &[&str]| all.iter().map(ToString::to_string).collect();
        let (failed, blocked) = (texts(failed), texts(blocked));
        running.clone().with(|seen| seen.run.left_deploys = LeftDeploys { failed, blocked })
    };
    let failed = Refuse(Refusal::DeployFailed(text("p")));
    assert_eq!(confirmed(&left(&["p"], &[]), &leave), failed);
    assert_eq!(confirmed(&left(&["p"], &["r"]), &leave), failed);
    let blocked = Refuse(Refusal::DeployTimedOut(text("r")));
    assert_eq!(confirmed(&left(&[], &["r"]), &leave), blocked);
    let waits = Done(plan::Done::Waiting(Waiting::Deploys(text("q"))));
    assert_eq!(confirmed(&left(&[], &[]), &leave), waits);
    // Whoever waits for the new one tells what comes of that.
    let waiting = left(&["p"], &[]).with(|seen| seen.run.waited_out = false);
    assert_eq!(plan(&waiting), Wait(Waiting::Deploys(text("q"))));
    // Another may have been quick.
    let proven =
        left(&["p"], &[]).with(|seen| seen.deploys = Some(vec![DeploySeen::Proven(deploy(false))]));
    assert_eq!(confirmed(&proven, &leave), Step::Record(Checkpoint::Proven));
}

#[test]
fn the_pipelines_own_deploy_is_proven_by_retire_alone() {
    let own = policy().with(|policy| policy.own_deploy = true);
    let seen = published(drained())
        .with(|seen| seen.deploys = Some(vec![DeploySeen::Proven(deploy(false))]));
    assert_eq!(confirmed(&seen, &own), Done(plan::Done::Waiting(Waiting::OwnDeploy)));
    let retire = own.with(|policy| policy.action = Action::Retire);
    assert_eq!(confirmed(&seen, &retire), Step::Record(Checkpoint::Proven));
}

#[test]
fn a_job_of_the_rotations_own_deploy_does_nothing() {
    assert_eq!(
        plan(&published(drained()).with(|seen| seen.in_own_deploy = true)),
        Done(plan::Done::InOwnDeploy)
    );
}

// Retiring.

#[test]
fn the_old_key_stays_active_through_the_overlap() {
    let seen = published(deployed(12 * 3600 - 1));
    assert_eq!(
        plan(&seen),
        Done(plan::Done::Waiting(Waiting::Overlap { old: id(OLD), until: at(NOW + 1) }))
    );
    assert_eq!(plan(&published(deployed(12 * 3600))), Ask(Query::LastUse(id(OLD))));
}

#[test]
fn an_old_key_that_was_used_since_the_deploy_stays_active() {
    let seen = |usage| published(deployed(DAY)).with(|seen| seen.keys[0].used = usage);
    assert_eq!(
        plan(&seen(used(60, "s3"))),
        Done(plan::Done::Waiting(still_used(60, 49 * 3600, false)))
    );
    for usage in [Some(Use::Never), used(DAY, "s3"), used(2 * DAY, "s3")] {
        assert_eq!(plan(&seen(usage)), Disable(id(OLD), KeyRole::Old));
    }
}

/// Used so many seconds ago, and counting as used for so long.
fn still_used(seconds_ago: i64, counts_for: i64, late: bool) -> Waiting {
    Waiting::StillUsed {
        old: id(OLD),
        last: at(NOW - seconds_ago),
        service: "s3".to_owned(),
        until: at(NOW - seconds_ago + counts_for),
        late,
    }
}

/// The date of the last use stays where it is: "used after the deploy" would be true for ever.
#[test]
fn a_use_after_the_deploy_counts_until_none_has_followed_for_two_days_or_the_overlap() {
    let day = 24 * 3600;
    let long = policy().with(|policy| policy.overlap = SignedDuration::from_hours(72));
    for (policy, counts_for) in [(policy(), 49 * 3600), (long, 3 * day)] {
        let seen =
            |ago| published(deployed(30 * day)).with(|seen| seen.keys[0].used = used(ago, "s3"));
        assert_eq!(
            confirmed(&seen(counts_for - 1), &policy),
            Done(plan::Done::Waiting(still_used(counts_for - 1, counts_for, true)))
        );
        assert_eq!(confirmed(&seen(counts_for), &policy), Disable(id(OLD), KeyRole::Old));
    }
}

#[test]
fn an_old_key_in_use_three_days_after_the_overlap_is_told() {
    let overlap = 12 * 3600;
    for (since, late) in [(overlap + 3 * DAY - 1, false), (overlap + 3 * DAY, true)] {
        let seen = published(deployed(since)).with(|seen| seen.keys[0].used = used(60, "s3"));
        let waiting = still_used(60, 49 * 3600, late);
        let notice = plan::Notice::OldKeyInUse {
            key: id(OLD),
            last: at(NOW - 60),
            service: "s3".to_owned(),
        };
        let Done(done) = plan(&seen) else { panic!("it waits") };
        assert_eq!(done, plan::Done::Waiting(waiting));
        assert_eq!(done.notice(), late.then_some(notice));
    }
}

#[test]
fn without_an_overlap_the_old_key_is_disabled_at_once_whoever_uses_it() {
    let policy = policy().with(|policy| policy.overlap = SignedDuration::ZERO);
    assert_eq!(confirmed(&published(deployed(0)), &policy), Disable(id(OLD), KeyRole::Old));
}

#[test]
fn force_shortens_no_wait_of_the_rotation_that_it_began() {
    let policy = forced_earlier();
    let until = at(NOW - 1 + 12 * 3600);
    let overlap = Waiting::Overlap { old: id(OLD), until };
    assert_eq!(confirmed(&published(deployed(1)), &policy), Done(plan::Done::Waiting(overlap)));
    let used = published(deployed(DAY)).with(|seen| seen.keys[0].used = used(60, "s3"));
    let still = still_used(60, 49 * 3600, false);
    assert_eq!(confirmed(&used, &policy), Done(plan::Done::Waiting(still)));
    let grace = published(disabled(1)).with(|seen| seen.keys[0].active = false);
    let until = Waiting::Grace { old: id(OLD), until: at(NOW - 1 + 7 * DAY) };
    assert_eq!(confirmed(&grace, &policy), Done(plan::Done::Waiting(until)));
}

/// The key that this process has made is its own, whatever the clocks of IAM and GitLab say.
#[test]
fn a_forced_run_knows_its_own_rotation() {
    let seen = published(deployed(1)).with(|seen| {
        seen.run.new_key = Some(NewKey { key: id(NEW), verified: true, abandoned: false });
    });
    assert!(matches!(confirmed(&seen, &forced()), Done(plan::Done::Waiting(_))));
}

#[test]
fn a_forced_run_refuses_while_an_earlier_rotation_waits() {
    let last = used(60, "s3");
    let grace = published(disabled(1)).with(|seen| seen.keys[0].active = false);
    let rows = [
        (published(deployed(1)), false, NOW - 1 + 12 * 3600),
        (published(deployed(DAY)), false, NOW - 60 + 49 * 3600),
        (grace, true, NOW - 1 + 7 * DAY),
    ];
    for (seen, disabled, until) in rows {
        assert_eq!(confirmed(&seen, &forced()), Ask(Query::LastUse(id(OLD))));
        let asked = cleared(seen).with(|seen| seen.keys[0].used = last.clone());
        for action in [Action::Rotate, Action::Retire, Action::Check] {
            let policy = Policy { action, ..forced() };
            assert_eq!(
                confirmed(&asked, &policy),
                Refuse(Refusal::EarlierRotation {
                    old: id(OLD),
                    disabled,
                    until: at(until),
                    used: last.clone().unwrap(),
                })
            );
        }
    }
}

#[test]
fn a_wait_of_no_time_is_over_at_once_for_a_clock_that_is_behind_too() {
    for policy in [policy(), forced()] {
        let hasty = policy.with(|policy| {
            (policy.overlap, policy.grace_period) = (SignedDuration::ZERO, SignedDuration::ZERO);
        });
        assert_eq!(confirmed(&published(deployed(-1)), &hasty), Disable(id(OLD), KeyRole::Old));
        let grace = published(disabled(-1)).with(|seen| seen.keys[0].active = false);
        assert_eq!(confirmed(&grace, &hasty), Delete(id(OLD), KeyRole::Old));
    }
}

#[test]
fn a_forced_run_goes_on_with_an_earlier_rotation_that_deploys() {
    let policy = forced();
    let in_flight_jobs =
        published(publication()).with(|seen| seen.in_flight_jobs = Some(text("job 1")));
    assert_eq!(confirmed(&in_flight_jobs, &policy), Wait(Waiting::InFlightJobs(text("job 1"))));
    let failed = published(drained())
        .with(|seen| seen.deploys = Some(vec![DeploySeen::Failed("p".to_owned())]));
    assert_eq!(confirmed(&failed, &policy), Refuse(Refusal::DeployFailed(text("p"))));
}

#[test]
fn an_old_key_that_somebody_enabled_again_is_left_alone() {
    let refusal = Refusal::EnabledAgain { key: id(OLD) };
    for policy in [policy(), forced()] {
        let seen = published(disabled(8 * DAY));
        assert_eq!(plan::plan(&seen, &policy), Step::Confirm(refusal.clone()));
        // Lists lag: it is noted once a second look has shown the same.
        let again = seen.with(|seen| seen.run.suspected = Some(refusal.clone()));
        assert_eq!(plan::plan(&again, &policy), Step::Record(Checkpoint::EnabledAgain));
        let noted = published(enabled_again(60));
        assert_eq!(confirmed(&noted, &policy), Refuse(refusal.clone()));
        let again = again.with(|seen| seen.claim = noted.claim.clone());
        assert_eq!(plan::plan(&again, &policy), Refuse(refusal.clone()));
    }
    let looks = [doing(Action::Check), policy().with(|policy| policy.dry_run = true)];
    for policy in looks {
        let seen = cleared(published(disabled(8 * DAY)));
        assert_eq!(confirmed(&seen, &policy), Refuse(refusal.clone()));
    }
}

/// A person has disabled it, as the hint says: that is when its grace period begins.
#[test]
fn an_old_key_that_was_enabled_again_gets_its_whole_grace_period() {
    let off = |progress| published(progress).with(|seen| seen.keys[0].active = false);
    let seen = off(enabled_again(60));
    assert_eq!(plan(&seen), Step::Record(Checkpoint::Disabled));
    let progress = Progress::after(&seen, Checkpoint::Disabled).unwrap();
    assert_eq!((progress.disabled, progress.enabled_again), (Some(at(NOW)), None));
    let until = Waiting::Grace { old: id(OLD), until: at(NOW + 7 * DAY) };
    assert_eq!(plan(&off(progress)), Done(plan::Done::Waiting(until)));
    let gone = published(enabled_again(60)).with(|seen| drop(seen.keys.remove(0)));
    assert_eq!(plan(&gone), Step::Record(Checkpoint::Finished));
}

/// While a target is elsewhere, that is told: no hint may say to disable the key that it names.
#[test]
fn a_key_that_was_enabled_again_is_no_matter_while_a_target_is_on_it() {
    let seen = published(disabled(8 * DAY)).with(|seen| seen.targets = targets([on(OLD)]));
    assert!(!matches!(plan(&seen), Refuse(Refusal::EnabledAgain { .. })));
}

#[test]
fn an_old_key_that_a_variable_still_names_is_never_disabled_or_deleted() {
    let mention = |seen: Observed| {
        seen.with(|seen| drop(seen.other_references.insert(id(OLD), text("BACKUP of project 1"))))
    };
    let refusal = Refuse(Refusal::StillNamed { key: id(OLD), places: text("BACKUP of project 1") });
    assert_eq!(
        plan(&mention(published(deployed(DAY)).with(|seen| seen.keys[0].used = Some(Use::Never)))),
        refusal
    );
    assert_eq!(
        plan(&mention(published(disabled(8 * DAY)).with(|seen| seen.keys[0].active = false))),
        refusal
    );
}

#[test]
fn a_disabled_old_key_is_recorded_waited_for_and_deleted() {
    let off = |progress| published(progress).with(|seen| seen.keys[0].active = false);
    assert_eq!(plan(&off(deployed(DAY))), Step::Record(Checkpoint::Disabled));
    let until = Waiting::Grace { old: id(OLD), until: at(NOW + 1) };
    assert_eq!(plan(&off(disabled(7 * DAY - 1))), Done(plan::Done::Waiting(until)));
    assert_eq!(plan(&off(disabled(7 * DAY))), Delete(id(OLD), KeyRole::Old));
}

#[test]
fn a_rotation_with_nothing_left_to_do_is_finished() {
    for progress in [deployed(1), disabled(1)] {
        assert_eq!(
            plan(&published(progress).with(|seen| drop(seen.keys.remove(0)))),
            Step::Record(Checkpoint::Finished)
        );
    }
}

#[test]
fn a_second_key_we_did_not_make_is_never_deleted() {
    for progress in [deployed(30 * DAY), disabled(30 * DAY)] {
        let seen = published(progress).with(|seen| seen.keys[0] = key(FOREIGN, 100));
        for policy in [policy(), forced()] {
            assert_eq!(confirmed(&seen, &policy), Step::Record(Checkpoint::Finished));
        }
    }
}

fn given(seen: Observed, since: i64) -> Observed {
    seen.with(|seen| {
        seen.run.given = Some(GivenPair { key: id(OLD), since: at(since), in_target: true });
    })
}

/// It is no target's, so it would sign each night with the key that is to go.
#[test]
fn a_job_that_was_given_an_old_pair_after_the_publication_refuses() {
    let refusal = |places| Refuse(Refusal::OldPairGiven { key: id(OLD), in_target: true, places });
    for progress in [publication(), drained(), deployed(60), deployed(DAY), disabled(1)] {
        let seen = given(cleared(published(progress)), NOW - 49);
        for policy in [policy(), forced(), doing(Action::Retire), doing(Action::Check)] {
            assert_eq!(confirmed(&seen, &policy), refusal(Vec::new()));
        }
        let named = seen
            .with(|seen| drop(seen.other_references.insert(id(OLD), text("BACKUP of project 1"))));
        assert_eq!(plan(&named), refusal(text("BACKUP of project 1")));
    }
}

#[test]
fn a_job_that_was_given_its_pair_before_the_publication_goes_on_with_the_new_key() {
    let policy = policy().with(|policy| policy.overlap = SignedDuration::ZERO);
    let seen = given(published(deployed(1)), NOW - 50);
    assert_eq!(confirmed(&seen, &policy), Disable(id(OLD), KeyRole::Old));
    // Hidden, and made by an earlier process of this job.
    let hidden = seen.with(|seen| seen.targets = targets([(named(NEW), hidden(Some(NEW)))]));
    let signer = Waiting::OwnSigner { old: id(OLD) };
    assert_eq!(confirmed(&hidden, &policy), Done(plan::Done::Waiting(signer)));
}

#[test]
fn a_job_that_was_given_the_new_pair_or_another_users_is_no_matter() {
    for number in [NEW, FOREIGN] {
        let seen = published(deployed(DAY)).with(|seen| {
            seen.run.given = Some(GivenPair { key: id(number), since: at(NOW), in_target: true });
            seen.keys[0].used = Some(Use::Never);
        });
        assert_eq!(plan(&seen), Disable(id(OLD), KeyRole::Old));
    }
}

// Resting.

#[test]
fn targets_that_name_different_keys_are_a_persons_matter() {
    let seen = idle(75).with(|seen| seen.targets = targets([on(OLD), on(FOREIGN)]));
    let names = vec![(one(), Some(id(OLD))), ("project:2".to_owned(), Some(id(FOREIGN)))];
    assert_eq!(plan(&seen), Refuse(Refusal::Differ(names)));
    assert_eq!(confirmed(&cleared(seen), &forced()), Step::Claim);
}

#[test]
fn a_tag_that_names_another_key_than_the_id_is_settled_by_sts() {
    let tagged =
        |owner| idle(10).with(|seen| seen.targets[0].secret = readable(Some(FOREIGN), owner));
    assert_eq!(plan(&tagged(SecretOwner::NotAsked)), Ask(Query::WhoseSecrets));
    assert!(matches!(plan(&tagged(SecretOwner::Key(id(OLD)))), Done(plan::Done::NotDue { .. })));
    let mismatch = Refuse(Refusal::Mismatch { target: one(), id: id(OLD), tag: id(FOREIGN) });
    assert_eq!(plan(&tagged(SecretOwner::Nobody)), mismatch);
    assert_eq!(
        plan(&idle(10).with(|seen| seen.targets[0].secret = hidden(Some(FOREIGN)))),
        mismatch
    );
}

#[test]
fn half_a_pair_is_a_persons_matter() {
    let half = |pair| idle(75).with(|seen| seen.targets = targets([pair]));
    let refusal = |missing_secret| Refuse(Refusal::PartMissing { target: one(), missing_secret });
    assert_eq!(plan(&half((named(OLD), SecretSeen::Absent))), refusal(true));
    assert_eq!(plan(&half((IdSeen::Absent, hidden(None)))), refusal(false));
    assert_eq!(confirmed(&cleared(half((named(OLD), SecretSeen::Absent))), &forced()), Step::Claim);
}

#[test]
fn a_key_that_this_user_does_not_have_is_replaced_by_force_alone() {
    let seen =
        cleared(idle(75)).with(|seen| seen.targets = targets([(named(FOREIGN), hidden(None))]));
    assert_eq!(plan(&seen), Refuse(Refusal::Unknown { target: one(), key: id(FOREIGN) }));
    assert_eq!(confirmed(&seen, &forced()), Step::Claim);
}

#[test]
fn a_reference_or_a_path_is_not_overwritten_even_by_force() {
    let why = "a reference".to_owned();
    for pair in [
        (IdSeen::Unusable(why.clone()), hidden(None)),
        (named(OLD), SecretSeen::Unusable(why.clone())),
    ] {
        let seen = cleared(idle(75)).with(|seen| seen.targets = targets([pair]));
        for policy in [policy(), forced()] {
            assert_eq!(
                confirmed(&seen, &policy),
                Refuse(Refusal::Unusable { target: one(), why: why.clone() })
            );
        }
    }
}

#[test]
fn without_variables_only_setup_makes_a_key() {
    let seen = cleared(idle(75))
        .with(|seen| seen.targets = targets([(IdSeen::Absent, SecretSeen::Absent)]));
    for policy in [policy(), forced(), doing(Action::Retire)] {
        assert_eq!(confirmed(&seen, &policy), Refuse(Refusal::NoVariables));
    }
    assert_eq!(confirmed(&seen, &doing(Action::Setup)), Step::Claim);
    assert_eq!(
        confirmed(&idle(75), &doing(Action::Setup)),
        Done(plan::Done::AlreadySetUp { key: id(OLD) })
    );
}

#[test]
fn a_key_is_due_at_its_age_or_when_it_is_disabled_or_forced() {
    let due = |seen: Observed, policy: &Policy| {
        assert_eq!(confirmed(&cleared(seen), policy), Step::Claim);
    };
    due(idle(60), &policy());
    due(idle(10).with(|seen| seen.keys[0].active = false), &policy());
    due(idle(10), &forced());
    let young = idle(60).with(|seen| seen.keys[0].created = at(NOW - 60 * DAY + 1));
    assert!(matches!(plan(&cleared(young)), Done(plan::Done::NotDue { .. })));
}

#[test]
fn a_retried_forced_job_does_not_rotate_twice() {
    let seen = cleared(idle(0));
    assert!(matches!(confirmed(&seen, &forced()), Done(plan::Done::NotDue { .. })));
}

#[test]
fn a_rotation_begins_once_the_preflight_has_passed() {
    let claimed = |blockers: Option<Vec<Blocker>>| {
        idle(75).with(|seen| {
            seen.claim = Some(Claim { name: "own".to_owned(), progress: None });
            seen.preflight = blockers;
        })
    };
    assert_eq!(plan(&claimed(None)), Ask(Query::Preflight));
    assert_eq!(
        plan(&claimed(Some(vec![Blocker::AllHidden]))),
        Refuse(Refusal::Preflight(vec![Blocker::AllHidden]))
    );
    assert_eq!(plan(&claimed(Some(Vec::new()))), Step::Record(Checkpoint::Begin));
}

#[test]
fn a_key_that_is_due_without_a_free_slot_is_a_persons_matter() {
    let seen = cleared(idle(75)).with(|seen| seen.keys.push(key(FOREIGN, 5)));
    assert_eq!(plan(&seen), Ask(Query::LastUse(id(FOREIGN))));
    let asked = seen.with(|seen| seen.keys[1].used = Some(Use::Never));
    assert_eq!(
        plan(&asked),
        Refuse(Refusal::NoSlot { keys: asked.keys.clone(), named: vec![id(OLD)] })
    );
}

#[test]
fn a_key_that_is_not_due_says_when_it_will_be_and_mentions_a_second_one() {
    let (created, due) = (at(NOW - 10 * DAY), at(NOW + 50 * DAY));
    let end = |unexplained| Done(plan::Done::NotDue { key: id(OLD), created, due, unexplained });
    assert_eq!(plan(&idle(10)), end(None));
    assert_eq!(
        plan(&idle(10).with(|seen| seen.keys.push(key(FOREIGN, 5)))),
        end(Some(id(FOREIGN)))
    );
}

#[test]
fn retire_finds_nothing_to_retire_while_nothing_is_under_way() {
    assert_eq!(
        confirmed(&idle(75), &doing(Action::Retire)),
        Done(plan::Done::NothingToRetire { key: id(OLD) })
    );
}

#[test]
fn what_a_finished_rotation_recorded_does_not_matter_any_more() {
    let finished = Progress { finished: Some(at(NOW - 5)), ..disabled(8 * DAY) };
    let seen = idle(10).with(|seen| seen.records.push(record("earlier", false, Some(finished))));
    assert!(matches!(plan(&seen), Done(plan::Done::NotDue { .. })));
}

// Check.

#[test]
fn check_only_reads() {
    let check = |seen: &Observed| confirmed(seen, &doing(Action::Check));
    let checked = |next: &Step, key| {
        Done(plan::Done::Checked { key: Some(id(key)), next: Box::new(next.clone()) })
    };
    let begin = Step::Record(Checkpoint::Begin);
    assert_eq!(check(&cleared(idle(75))), checked(&begin, OLD));
    let publishing = cleared(with_new_key(true));
    assert_eq!(check(&publishing), checked(&WriteSecret { target: 0, key: id(NEW) }, OLD));
    assert_eq!(
        check(&cleared(idle(90))),
        Refuse(Refusal::TooOld { key: id(OLD), created: at(NOW - 90 * DAY) })
    );
    assert_eq!(
        check(&cleared(published(disabled(8 * DAY)))),
        Refuse(Refusal::EnabledAgain { key: id(OLD) })
    );
    let waiting = cleared(published(deployed(1)));
    assert_eq!(check(&waiting), checked(&plan(&waiting), NEW));
}

#[test]
fn check_and_a_dry_run_look_at_all_that_a_rotation_needs_due_or_not() {
    let policies = [doing(Action::Check), policy().with(|policy| policy.dry_run = true)];
    let mismatch = || idle(75).with(|seen| seen.targets = targets([(named(OLD), on(NEW).1)]));
    for policy in &policies {
        for seen in [idle(10), idle(75), published(deployed(1)), mismatch()] {
            assert_eq!(confirmed(&seen, policy), Ask(Query::Preflight), "{seen:?}");
        }
        let blocked = |seen: Observed| {
            let seen = seen.with(|seen| seen.preflight = Some(vec![Blocker::AllHidden]));
            confirmed(&seen, policy)
        };
        for seen in [idle(10), idle(75), published(deployed(1))] {
            let refused = Refuse(Refusal::Preflight(vec![Blocker::AllHidden]));
            assert_eq!(blocked(seen), refused);
        }
        // Another refusal, and a key that is too old, are told; the blockers stand beside it.
        assert!(matches!(
            blocked(mismatch()),
            Refuse(Refusal::Unknown { .. } | Refusal::Mismatch { .. })
        ));
    }
    let old = idle(90).with(|seen| seen.preflight = Some(vec![Blocker::AllHidden]));
    assert!(matches!(confirmed(&old, &policies[0]), Refuse(Refusal::TooOld { .. })));
    // A scheduled run that is not due asks nothing.
    assert!(matches!(plan(&idle(10)), Done(plan::Done::NotDue { .. })));
}

// What is written down.

#[test]
fn progress_begins_with_the_keys_that_are_there_those_of_tags_and_what_the_targets_held() {
    let seen = idle(75).with(|seen| {
        seen.targets =
            targets([(named(OLD), hidden(Some(FOREIGN))), (IdSeen::Absent, SecretSeen::Absent)]);
    });
    let progress = Progress::after(&seen, Checkpoint::Begin).unwrap();
    assert_eq!(
        progress,
        Progress {
            from: vec![id(OLD), id(FOREIGN)],
            creating: at(NOW),
            previous: vec![None, Some(id(OLD))],
            targets: recorded([false, false]),
            ..Progress::default()
        }
    );
}

/// The first targets, and which of them are published to.
fn recorded(published: impl IntoIterator<Item = bool>) -> Vec<RecordedTarget> {
    let target = |(number, published)| RecordedTarget { place: place(number), published };
    published.into_iter().enumerate().map(target).collect()
}

/// A target that leaves the configuration meanwhile may still hold the old pair.
#[test]
fn a_record_keeps_every_place_that_was_a_target_and_says_where_it_has_published() {
    let two = published(begun_progress()).with(|seen| seen.targets = targets([on(NEW), on(OLD)]));
    let begun = Progress::after(&two, Checkpoint::Begin).unwrap();
    assert_eq!(begun.targets, recorded([false, false]));
    let all = Progress::after(&published(begun), Checkpoint::Published).unwrap();
    assert_eq!(all.targets, recorded([true, false]));
    assert!(all.is_published_at(&place(0)) && !all.is_published_at(&place(1)));
    let anew = Progress::after(&published(all), Checkpoint::Begin).unwrap();
    assert_eq!(anew.targets, recorded([false, false]));
}

#[test]
fn beginning_anew_adds_to_what_the_targets_held_before() {
    let seen = published(drained()).with(|seen| drop(seen.keys.remove(0)));
    let progress = Progress::after(&seen, Checkpoint::Begin).unwrap();
    assert_eq!(progress.previous, vec![Some(id(OLD)), Some(id(NEW))]);
    let over = published(Progress { finished: Some(at(NOW)), ..drained() });
    assert_eq!(Progress::after(&over, Checkpoint::Begin).unwrap().previous, vec![Some(id(NEW))]);
}

#[test]
fn each_note_adds_its_moment_to_the_progress() {
    let now = at(NOW);
    let all = with_new_key(true).with(|seen| seen.targets = targets([on(NEW)]));
    assert_eq!(
        Progress::after(&all, Checkpoint::Published).unwrap().published.map(|it| (it.key, it.at)),
        Some((id(NEW), now))
    );
    assert_eq!(
        Progress::after(&published(publication()), Checkpoint::Drained).unwrap().drained,
        Some(now)
    );
    let recorded = Progress { deploys: vec![deploy(false)], ..drained() };
    let proven = published(recorded)
        .with(|seen| seen.deploys = Some(vec![DeploySeen::Proven(deploy(false))]));
    let progress = Progress::after(&proven, Checkpoint::Proven).unwrap();
    assert_eq!((progress.deploys[0].proven, progress.deployed), (Some(now), Some(now)));
    assert_eq!(
        Progress::after(&published(deployed(1)), Checkpoint::Disabled).unwrap().disabled,
        Some(now)
    );
    assert_eq!(
        Progress::after(&published(disabled(1)), Checkpoint::Finished).unwrap().finished,
        Some(now)
    );
    assert_eq!(Progress::after(&publishing(), Checkpoint::Nothing), None);
    assert_eq!(begun_progress().published, None);
}

#[test]
fn a_deploy_that_is_newly_proven_is_recorded_while_another_still_runs() {
    let recorded = recorded_deploy();
    let seen = published(drained()).with(|seen| {
        seen.deploys =
            Some(vec![DeploySeen::Proven(recorded), DeploySeen::Running("job deploy".to_owned())]);
    });
    assert_eq!(plan(&seen), Step::Record(Checkpoint::Proven));
}

/// STS could not tell whose secret it is where its key is not this user's: nothing is asked.
#[test]
fn a_tag_beside_the_id_of_an_unknown_key_is_a_mismatch_at_once() {
    let pair = |owner| (named(FOREIGN), readable(Some(OLD), owner));
    let mismatch =
        Refuse(Refusal::Mismatch { target: "project:1".to_owned(), id: id(FOREIGN), tag: id(OLD) });
    assert_eq!(
        plan(&idle(75).with(|seen| seen.targets = targets([pair(SecretOwner::NotAsked)]))),
        mismatch
    );
    let same = idle(75).with(|seen| {
        seen.targets = targets([(named(FOREIGN), readable(Some(FOREIGN), SecretOwner::NotAsked))]);
    });
    assert_eq!(
        plan(&same),
        Refuse(Refusal::Unknown { target: "project:1".to_owned(), key: id(FOREIGN) })
    );
    let own = idle(10).with(|seen| {
        seen.targets = targets([(named(OLD), readable(Some(OLD), SecretOwner::NotAsked))]);
    });
    assert!(matches!(plan(&own), Done(plan::Done::NotDue { .. })), "a tag that agrees is believed");
}
