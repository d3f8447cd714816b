//! Every row of the table at the head of `src/plan.rs`, every refusal and every end, one sentence
//! each.

use credential_rotator::config::Action;
use credential_rotator::plan::Step::{
    Ask, Create, Delete, Disable, Done, Refuse, StartDeploy, TakeOver, Verify, Wait, WriteId,
    WriteSecret,
};
use credential_rotator::plan::{
    self, Begun, Claim, DeploySeen, Hand, IdSeen, Key, Note, Observed, Owner, Policy, Question,
    RecordSeen, Refusal, Role, SecretSeen, Step, Use, Waiting,
};
use credential_rotator::record::{Facts, NotedDeploy};
use jiff::SignedDuration;

use crate::kit::{
    DAY, FRESH, NOW, OLD, STRANGE, With, at, at_hand, begun, deployed, disabled, doing, forced,
    hidden, id, key, making, named, on, policy, publication, published, quiet, readable, record,
    resting, targets, used,
};

fn plan(seen: &Observed) -> Step {
    plan::plan(seen, &policy())
}

fn deploy(proven: bool) -> NotedDeploy {
    NotedDeploy {
        place: "project:1".to_owned(),
        pipeline: 7,
        job: None,
        proven: proven.then(|| at(NOW - 10)),
    }
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
        let facts = seen.claim.take().and_then(|claim| claim.facts);
        seen.records.push(record("earlier", false, facts));
    })
}

// Who claims.

#[test]
fn another_run_at_work_is_left_alone_where_there_is_something_to_do() {
    let other = |alive, released| {
        let mut other = record("other", alive, None);
        other.released = released;
        cleared(resting(75)).with(|seen| seen.records.push(other))
    };
    assert_eq!(plan(&other(true, false)), Refuse(Refusal::Busy));
    assert_eq!(plan(&other(false, false)), Step::Claim);
    assert_eq!(plan(&other(true, true)), Step::Claim);
}

#[test]
fn another_run_at_work_is_no_matter_where_nothing_is_due() {
    let seen = resting(10).with(|seen| seen.records.push(record("other", true, None)));
    assert!(matches!(plan(&seen), Done(plan::Done::NotDue { .. })));
}

#[test]
fn what_looks_like_a_persons_act_may_be_half_of_another_runs_step() {
    let seen = resting(10).with(|seen| {
        seen.targets = targets([(named(STRANGE), readable(None, Owner::NotAsked))]);
        seen.records.push(record("other", true, None));
    });
    assert_eq!(plan(&seen), Refuse(Refusal::Busy));
    let alone = seen.with(|seen| seen.records.clear());
    assert_eq!(plan(&alone), Refuse(Refusal::Unknown { target: one(), key: id(STRANGE) }));
}

#[test]
fn whatever_changes_anything_is_claimed_first() {
    assert_eq!(plan(&cleared(resting(75))), Step::Claim);
    assert_eq!(plan(&unclaimed(at_hand(false))), Step::Claim);
    assert_eq!(
        plan(
            &unclaimed(published(quiet()))
                .with(|seen| seen.deploys = Some(vec![DeploySeen::Startable]))
        ),
        Step::Claim
    );
}

#[test]
fn a_question_and_a_wait_need_no_claim() {
    assert_eq!(plan(&resting(75)), Ask(Question::Preflight));
    let seen = unclaimed(published(publication())).with(|seen| seen.elders = Some(text("job 1")));
    assert_eq!(plan(&seen), Wait(Waiting::ElderJobs(text("job 1"))));
}

#[test]
fn the_facts_of_an_earlier_run_are_taken_over_before_anything_else() {
    let seen = unclaimed(at_hand(true))
        .with(|seen| seen.claim = Some(Claim { name: "own".to_owned(), facts: None }));
    assert_eq!(plan(&seen), TakeOver);
}

#[test]
fn of_two_records_with_facts_the_later_one_counts() {
    let seen = published(quiet()).with(|seen| {
        seen.claim = None;
        let mut earlier = record("a", false, Some(publication()));
        earlier.at = at(NOW - 500);
        seen.records = vec![record("b", false, Some(quiet())), earlier];
    });
    assert_eq!(seen.facts(), Some(&quiet()));
}

// Making.

#[test]
fn a_rotation_that_this_run_has_recorded_creates_its_key() {
    let seen = making().with(|seen| {
        seen.keys.pop();
        seen.begun = Begun::Recorded;
    });
    assert_eq!(plan(&seen), Create);
}

/// Between the record and the creation a person makes a key: it is not ours, for nothing was sent.
#[test]
fn a_key_that_appears_before_ours_is_made_is_a_persons() {
    let mut seen = making().with(|seen| seen.begun = Begun::Recorded);
    assert_eq!(plan(&seen), Step::Record(Note::Nothing));
    seen.apply(&Step::Record(Note::Nothing), None);
    assert_eq!(seen.begun, Begun::No);
    seen.keys[1].used = Some(Use::Never);
    assert!(matches!(plan(&seen), Refuse(Refusal::NoSlot { .. })));
}

#[test]
fn where_nothing_was_made_the_facts_are_taken_out() {
    assert_eq!(plan(&making().with(|seen| drop(seen.keys.pop()))), Step::Record(Note::Nothing));
}

/// A run that ended in order may have made a key a minute ago that the list does not show yet; one
/// that died is not taken over so soon.
#[test]
fn what_a_run_that_has_just_ended_made_may_show_late() {
    let until = at(NOW - 60 + 120);
    let left = |released: bool, now: i64| {
        making().with(|seen| {
            seen.keys.pop();
            seen.claim = None;
            seen.now = at(now);
            seen.records = vec![RecordSeen { released, ..record("a", false, Some(begun())) }];
        })
    };
    assert_eq!(plan(&left(true, NOW)), Wait(Waiting::Unsettled { until }));
    assert_eq!(
        plan(&left(true, NOW).with(|seen| seen.waited_out = true)),
        Done(plan::Done::Waiting(Waiting::Unsettled { until }))
    );
    assert_eq!(plan(&left(true, NOW + 59)), Wait(Waiting::Unsettled { until }));
    assert_eq!(plan(&left(true, NOW + 60)), Step::Claim);
    assert_eq!(plan(&left(false, NOW)), Step::Claim);
    // Whoever holds the claim has waited.
    let held = left(true, NOW)
        .with(|seen| seen.claim = Some(Claim { name: "own".to_owned(), facts: None }));
    assert_eq!(plan(&held), TakeOver);
}

#[test]
fn a_fresh_key_that_is_gone_and_written_nowhere_is_forgotten() {
    let seen = at_hand(true).with(|seen| drop(seen.keys.pop()));
    assert_eq!(plan(&seen), Step::Record(Note::Nothing));
}

#[test]
fn a_fresh_key_that_is_written_somewhere_and_gone_or_disabled_is_a_persons_act() {
    for pair in [
        on(FRESH),
        (named(OLD), readable(Some(FRESH), Owner::Nobody)),
        (named(FRESH), hidden(None)),
    ] {
        let seen = making().with(|seen| seen.targets = targets([pair]));
        let gone = seen.clone().with(|seen| drop(seen.keys.pop()));
        // Without a tag and without its key nothing shows that there ever was a fresh key.
        if gone.targets[0].secret.tag().is_some() {
            assert_eq!(plan(&gone), Refuse(Refusal::FreshLost { key: id(FRESH), disabled: false }));
        }
        let disabled = seen.with(|seen| seen.keys[1].active = false);
        assert_eq!(plan(&disabled), Refuse(Refusal::FreshLost { key: id(FRESH), disabled: true }));
    }
}

#[test]
fn a_target_that_holds_neither_the_fresh_nor_an_old_id_is_a_persons_act() {
    for held in [IdSeen::Absent, named(STRANGE), IdSeen::Unusable("a reference".to_owned())] {
        let seen = at_hand(true).with(|seen| seen.targets[0].id = held);
        assert_eq!(plan(&seen), Refuse(Refusal::Stranger { target: one(), fresh: id(FRESH) }));
    }
}

#[test]
fn a_forced_run_begins_anew_where_a_person_has_acted_and_a_slot_is_free() {
    let seen = later(making().with(|seen| {
        seen.targets = targets([on(FRESH)]);
        seen.keys.pop();
    }));
    assert_eq!(plan::plan(&seen, &forced()), Ask(Question::Preflight));
    assert_eq!(plan::plan(&cleared(seen), &forced()), Step::Record(Note::Begin));
}

/// Found by the simulation: the facts were overwritten and the old key was left behind.
#[test]
fn a_forced_run_does_not_take_a_list_that_lags_for_a_key_that_is_gone() {
    let seen = cleared(published(publication())).with(|seen| drop(seen.keys.pop()));
    assert_eq!(
        plan::plan(&seen, &forced()),
        Refuse(Refusal::FreshLost { key: id(FRESH), disabled: false })
    );
    assert_eq!(plan::plan(&later(seen), &forced()), Step::Record(Note::Begin));
}

#[test]
fn a_run_begins_at_most_one_rotation() {
    let seen = cleared(resting(75)).with(|seen| seen.begun = Begun::Tried);
    assert_eq!(plan(&seen), Done(plan::Done::Tried));
}

#[test]
fn a_torn_pair_is_healed_forward() {
    for secret in [
        readable(Some(FRESH), Owner::Key(id(FRESH))),
        readable(None, Owner::Key(id(FRESH))),
        hidden(Some(FRESH)),
    ] {
        let seen = making().with(|seen| seen.targets = targets([(named(OLD), secret)]));
        assert_eq!(plan(&seen), WriteId { target: 0, key: id(FRESH) });
    }
}

#[test]
fn a_torn_pair_without_an_id_is_healed_where_there_was_none_before() {
    let seen = making().with(|seen| {
        seen.targets[0] = targets([(IdSeen::Absent, hidden(Some(FRESH)))]).remove(0);
        seen.claim.as_mut().unwrap().facts.as_mut().unwrap().previous = vec![None];
    });
    assert_eq!(plan(&seen), WriteId { target: 0, key: id(FRESH) });
}

#[test]
fn whose_a_readable_secret_is_is_asked_before_anything_is_written() {
    let seen = at_hand(true).with(|seen| seen.targets[0].secret = readable(None, Owner::NotAsked));
    assert_eq!(plan(&seen), Ask(Question::WhoseSecrets));
}

#[test]
fn a_key_at_hand_is_verified_then_written_secret_first() {
    assert_eq!(plan(&at_hand(false)), Verify(id(FRESH)));
    assert_eq!(plan(&at_hand(true)), WriteSecret { target: 0, key: id(FRESH) });
    let torn = at_hand(true)
        .with(|seen| seen.targets[0].secret = readable(Some(FRESH), Owner::Key(id(FRESH))));
    assert_eq!(plan(&torn), WriteId { target: 0, key: id(FRESH) });
}

#[test]
fn readable_targets_are_written_before_hidden_ones() {
    let seen = at_hand(true).with(|seen| {
        seen.targets =
            targets([(named(OLD), hidden(Some(OLD))), on(OLD), (named(OLD), hidden(None)), on(OLD)])
    });
    assert_eq!(plan(&seen), WriteSecret { target: 1, key: id(FRESH) });
    let seen = seen.with(|seen| (seen.targets[1].id, seen.targets[1].secret) = on(FRESH));
    assert_eq!(plan(&seen), WriteSecret { target: 3, key: id(FRESH) });
    let seen = seen.with(|seen| (seen.targets[3].id, seen.targets[3].secret) = on(FRESH));
    assert_eq!(plan(&seen), WriteSecret { target: 0, key: id(FRESH) });
}

#[test]
fn a_secret_that_another_target_still_shows_publishes_the_rest() {
    let seen =
        making().with(|seen| seen.targets = targets([(named(OLD), hidden(Some(OLD))), on(FRESH)]));
    assert_eq!(plan(&seen), WriteSecret { target: 0, key: id(FRESH) });
}

#[test]
fn a_secret_that_is_not_to_be_had_leaves_the_rest_to_a_person() {
    let seen = making()
        .with(|seen| seen.targets = targets([(named(FRESH), hidden(Some(FRESH))), on(OLD)]));
    assert_eq!(
        plan(&seen),
        Refuse(Refusal::SecretLost { key: id(FRESH), target: "project:2".to_owned() })
    );
}

#[test]
fn an_orphan_that_only_sts_has_used_is_disabled_then_deleted() {
    let orphan = |usage, active| {
        making().with(|seen| {
            seen.keys[1].used = usage;
            seen.keys[1].active = active;
        })
    };
    assert_eq!(plan(&orphan(None, true)), Ask(Question::LastUse(id(FRESH))));
    for usage in [Some(Use::Never), used(20, "sts")] {
        assert_eq!(plan(&orphan(usage.clone(), true)), Disable(id(FRESH), Role::Orphan));
        assert_eq!(plan(&orphan(usage, false)), Delete(id(FRESH), Role::Orphan));
    }
}

#[test]
fn an_orphan_that_something_else_has_used_is_left_to_a_person() {
    for active in [true, false] {
        let seen = making().with(|seen| {
            seen.keys[1].used = used(20, "s3");
            seen.keys[1].active = active;
        });
        assert_eq!(
            plan(&seen),
            Refuse(Refusal::Taken { key: id(FRESH), service: "s3".to_owned() })
        );
    }
}

#[test]
fn an_orphan_that_another_variable_names_is_left_to_a_person() {
    for active in [true, false] {
        let seen = making().with(|seen| {
            seen.keys[1].used = Some(Use::Never);
            seen.keys[1].active = active;
            seen.mentions.insert(id(FRESH), text("BACKUP of project 1"));
        });
        assert_eq!(
            plan(&seen),
            Refuse(Refusal::StillNamed { key: id(FRESH), places: text("BACKUP of project 1") })
        );
    }
}

#[test]
fn a_key_made_outside_the_two_minutes_is_not_ours() {
    for created in [NOW - 61, NOW - 60 + 121] {
        let seen = making().with(|seen| {
            seen.keys[1] = Key { created: at(created), used: Some(Use::Never), ..key(STRANGE, 0) }
        });
        assert_eq!(plan(&seen), Step::Record(Note::Nothing));
    }
    for created in [NOW - 60, NOW - 60 + 120] {
        let seen = making().with(|seen| {
            seen.keys[1] = Key { created: at(created), used: Some(Use::Never), ..key(FRESH, 0) }
        });
        assert_eq!(plan(&seen), Disable(id(FRESH), Role::Orphan));
    }
}

#[test]
fn a_key_that_was_there_before_is_not_ours_even_where_it_was_made_in_the_same_second() {
    let seen = making().with(|seen| {
        seen.keys[1] = Key { created: at(NOW - 60), used: Some(Use::Never), ..key(STRANGE, 0) };
        seen.claim.as_mut().unwrap().facts.as_mut().unwrap().from.push(id(STRANGE));
    });
    assert_eq!(plan(&seen), Step::Record(Note::Nothing));
}

#[test]
fn of_several_keys_that_may_be_ours_none_is_touched() {
    let seen =
        making().with(|seen| seen.keys.push(Key { created: at(NOW - 59), ..key(STRANGE, 0) }));
    assert_eq!(plan(&seen), Refuse(Refusal::Several(vec![id(FRESH), id(STRANGE)])));
    let tags = making().with(|seen| {
        seen.targets =
            targets([(named(OLD), hidden(Some(STRANGE))), (named(OLD), hidden(Some(FRESH)))])
    });
    assert_eq!(plan(&tags), Refuse(Refusal::Several(vec![id(FRESH), id(STRANGE)])));
}

#[test]
fn a_fresh_key_that_never_came_to_be_used_is_deleted_in_the_same_run() {
    let seen = at_hand(false)
        .with(|seen| seen.hand = Some(Hand { key: id(FRESH), verified: false, doomed: true }));
    assert_eq!(plan(&seen), Delete(id(FRESH), Role::Orphan));
    let stranger = seen.with(|seen| seen.targets[0].id = named(STRANGE));
    assert_eq!(plan(&stranger), Delete(id(FRESH), Role::Orphan));
}

#[test]
fn a_doomed_key_that_a_variable_names_stays() {
    let doomed = |pairs: Vec<(IdSeen, SecretSeen)>| {
        at_hand(false).with(|seen| {
            seen.hand = Some(Hand { key: id(FRESH), verified: false, doomed: true });
            seen.targets = targets(pairs);
        })
    };
    let refusal = |place: &str| Refuse(Refusal::StillNamed { key: id(FRESH), places: text(place) });
    let named_only = (named(FRESH), readable(Some(OLD), Owner::Key(id(OLD))));
    assert_eq!(plan(&doomed(vec![named_only.clone()])), refusal("project:1"));
    assert_eq!(
        plan(&doomed(vec![(named(STRANGE), hidden(None)), named_only])),
        refusal("project:2")
    );
    let mentioned =
        doomed(vec![on(OLD)]).with(|seen| drop(seen.mentions.insert(id(FRESH), text("BACKUP"))));
    assert_eq!(plan(&mentioned), refusal("BACKUP"));
}

#[test]
fn a_publication_is_recorded_once_every_target_is_on_the_fresh_key() {
    let seen = making()
        .with(|seen| seen.targets = targets([on(FRESH), (named(FRESH), hidden(Some(FRESH)))]));
    assert_eq!(plan(&seen), Step::Record(Note::Published));
}

// Deploying.

#[test]
fn after_the_publication_a_target_that_is_not_on_the_fresh_key_is_a_persons_act() {
    for facts in [publication(), quiet(), deployed(DAY), disabled(8 * DAY)] {
        for pair in [
            on(OLD),
            (named(OLD), hidden(Some(FRESH))),
            (named(FRESH), hidden(Some(OLD))),
            (IdSeen::Absent, SecretSeen::Absent),
        ] {
            let seen = published(facts.clone()).with(|seen| seen.targets = targets([pair]));
            assert_eq!(
                plan(&seen),
                Refuse(Refusal::NotPublishedAnyMore { key: id(FRESH), target: one() })
            );
        }
    }
}

#[test]
fn after_the_publication_a_fresh_key_that_does_not_work_is_a_persons_act() {
    for facts in [publication(), quiet(), deployed(DAY), disabled(8 * DAY)] {
        let disabled = published(facts.clone()).with(|seen| seen.keys[1].active = false);
        assert_eq!(plan(&disabled), Refuse(Refusal::FreshLost { key: id(FRESH), disabled: true }));
        let gone = published(facts).with(|seen| drop(seen.keys.pop()));
        assert_eq!(plan(&gone), Refuse(Refusal::FreshLost { key: id(FRESH), disabled: false }));
        assert_eq!(plan::plan(&cleared(later(gone)), &forced()), Step::Record(Note::Begin));
    }
}

#[test]
fn a_job_that_started_before_the_publication_is_waited_for() {
    let seen = published(publication());
    assert_eq!(plan(&seen), Ask(Question::ElderJobs));
    let elders = seen.clone().with(|seen| seen.elders = Some(text("job 1")));
    assert_eq!(plan(&elders), Wait(Waiting::ElderJobs(text("job 1"))));
    let waited_out = elders.with(|seen| seen.waited_out = true);
    assert_eq!(plan(&waited_out), Done(plan::Done::Waiting(Waiting::ElderJobs(text("job 1")))));
    assert_eq!(plan(&seen.with(|seen| seen.elders = Some(Vec::new()))), Step::Record(Note::Quiet));
}

#[test]
fn each_state_of_a_deploy_has_its_answer() {
    let noted = deploy(false);
    let rows = [
        (DeploySeen::Startable, StartDeploy(0)),
        (DeploySeen::Running("p".to_owned()), Wait(Waiting::Deploys(text("p")))),
        (DeploySeen::Proven(noted), Step::Record(Note::Proven)),
        (DeploySeen::Proven(deploy(true)), Step::Record(Note::Proven)),
        (DeploySeen::Failed("p".to_owned()), Refuse(Refusal::DeployFailed(text("p")))),
        (DeploySeen::Unproven("p".to_owned()), Refuse(Refusal::DeployUnproven(text("p")))),
    ];
    assert_eq!(plan(&published(quiet())), Ask(Question::Deploys));
    for (deploy, step) in rows {
        assert_eq!(plan(&published(quiet()).with(|seen| seen.deploys = Some(vec![deploy]))), step);
    }
}

#[test]
fn one_deploy_that_is_not_proven_keeps_both_keys() {
    let seen = published(quiet()).with(|seen| {
        seen.deploys =
            Some(vec![DeploySeen::Proven(deploy(true)), DeploySeen::Unproven("p".to_owned())])
    });
    assert_eq!(plan(&seen), Refuse(Refusal::DeployUnproven(text("p"))));
    let facts = Facts::noted(&seen, Note::Proven).unwrap();
    assert_eq!(facts.deployed, None);
}

#[test]
fn a_deploy_that_takes_too_long_is_told_or_left_to_the_next_run() {
    let seen = published(quiet()).with(|seen| {
        seen.deploys = Some(vec![DeploySeen::Running("p".to_owned())]);
        seen.waited_out = true;
    });
    assert_eq!(plan(&seen), Refuse(Refusal::DeployTimedOut(text("p"))));
    let leave = policy().with(|policy| policy.leave_deploys = true);
    assert_eq!(plan::plan(&seen, &leave), Done(plan::Done::Waiting(Waiting::Deploys(text("p")))));
}

#[test]
fn the_pipelines_own_deploy_is_proven_by_retire_alone() {
    let own = policy().with(|policy| policy.own_deploy = true);
    let seen = published(quiet())
        .with(|seen| seen.deploys = Some(vec![DeploySeen::Proven(deploy(false))]));
    assert_eq!(plan::plan(&seen, &own), Done(plan::Done::Waiting(Waiting::OwnDeploy)));
    let retire = own.with(|policy| policy.action = Action::Retire);
    assert_eq!(plan::plan(&seen, &retire), Step::Record(Note::Proven));
}

#[test]
fn a_job_of_the_rotations_own_deploy_does_nothing() {
    assert_eq!(
        plan(&published(quiet()).with(|seen| seen.in_own_deploy = true)),
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
    assert_eq!(plan(&published(deployed(12 * 3600))), Ask(Question::LastUse(id(OLD))));
}

#[test]
fn an_old_key_that_was_used_since_the_deploy_stays_active() {
    let seen = |usage| published(deployed(DAY)).with(|seen| seen.keys[0].used = usage);
    let still = Waiting::StillUsed { old: id(OLD), last: at(NOW - 60), service: "s3".to_owned() };
    assert_eq!(plan(&seen(used(60, "s3"))), Done(plan::Done::Waiting(still)));
    for usage in [Some(Use::Never), used(DAY, "s3"), used(2 * DAY, "s3")] {
        assert_eq!(plan(&seen(usage)), Disable(id(OLD), Role::Old));
    }
}

#[test]
fn without_an_overlap_the_old_key_is_disabled_at_once_whoever_uses_it() {
    let policy = policy().with(|policy| policy.overlap = SignedDuration::ZERO);
    assert_eq!(plan::plan(&published(deployed(0)), &policy), Disable(id(OLD), Role::Old));
}

#[test]
fn force_cuts_the_overlap_and_the_grace_period_short_and_nothing_else() {
    let policy = forced();
    assert_eq!(plan::plan(&published(deployed(1)), &policy), Disable(id(OLD), Role::Old));
    let grace = published(disabled(1)).with(|seen| seen.keys[0].active = false);
    assert_eq!(plan::plan(&grace, &policy), Delete(id(OLD), Role::Old));
    let elders = published(publication()).with(|seen| seen.elders = Some(text("job 1")));
    assert_eq!(plan::plan(&elders, &policy), Wait(Waiting::ElderJobs(text("job 1"))));
    let failed = published(quiet())
        .with(|seen| seen.deploys = Some(vec![DeploySeen::Failed("p".to_owned())]));
    assert_eq!(plan::plan(&failed, &policy), Refuse(Refusal::DeployFailed(text("p"))));
}

#[test]
fn an_old_key_that_somebody_enabled_again_is_left_alone() {
    for policy in [policy(), forced()] {
        assert_eq!(
            plan::plan(&published(disabled(8 * DAY)), &policy),
            Refuse(Refusal::EnabledAgain { key: id(OLD) })
        );
    }
}

#[test]
fn an_old_key_that_a_variable_still_names_is_never_disabled_or_deleted() {
    let mention = |seen: Observed| {
        seen.with(|seen| drop(seen.mentions.insert(id(OLD), text("BACKUP of project 1"))))
    };
    let refusal = Refuse(Refusal::StillNamed { key: id(OLD), places: text("BACKUP of project 1") });
    assert_eq!(
        plan(&mention(published(deployed(DAY)).with(|seen| seen.keys[0].used = Some(Use::Never)))),
        refusal
    );
    assert_eq!(plan::plan(&mention(published(deployed(1))), &forced()), refusal);
    assert_eq!(
        plan(&mention(published(disabled(8 * DAY)).with(|seen| seen.keys[0].active = false))),
        refusal
    );
}

#[test]
fn a_disabled_old_key_is_recorded_waited_for_and_deleted() {
    let off = |facts| published(facts).with(|seen| seen.keys[0].active = false);
    assert_eq!(plan(&off(deployed(DAY))), Step::Record(Note::Disabled));
    let until = Waiting::Grace { old: id(OLD), until: at(NOW + 1) };
    assert_eq!(plan(&off(disabled(7 * DAY - 1))), Done(plan::Done::Waiting(until)));
    assert_eq!(plan(&off(disabled(7 * DAY))), Delete(id(OLD), Role::Old));
}

#[test]
fn a_rotation_with_nothing_left_to_do_is_finished() {
    for facts in [deployed(1), disabled(1)] {
        assert_eq!(
            plan(&published(facts).with(|seen| drop(seen.keys.remove(0)))),
            Step::Record(Note::Finished)
        );
    }
}

#[test]
fn a_second_key_we_did_not_make_is_never_deleted() {
    for facts in [deployed(30 * DAY), disabled(30 * DAY)] {
        let seen = published(facts).with(|seen| seen.keys[0] = key(STRANGE, 100));
        for policy in [policy(), forced()] {
            assert_eq!(plan::plan(&seen, &policy), Step::Record(Note::Finished));
        }
    }
}

// Resting.

#[test]
fn targets_that_name_different_keys_are_a_persons_matter() {
    let seen = resting(75).with(|seen| seen.targets = targets([on(OLD), on(STRANGE)]));
    let names = vec![(one(), Some(id(OLD))), ("project:2".to_owned(), Some(id(STRANGE)))];
    assert_eq!(plan(&seen), Refuse(Refusal::Differ(names)));
    assert_eq!(plan::plan(&cleared(seen), &forced()), Step::Claim);
}

#[test]
fn a_tag_that_names_another_key_than_the_id_is_settled_by_sts() {
    let tagged =
        |owner| resting(10).with(|seen| seen.targets[0].secret = readable(Some(STRANGE), owner));
    assert_eq!(plan(&tagged(Owner::NotAsked)), Ask(Question::WhoseSecrets));
    assert!(matches!(plan(&tagged(Owner::Key(id(OLD)))), Done(plan::Done::NotDue { .. })));
    let mismatch = Refuse(Refusal::Mismatch { target: one(), id: id(OLD), tag: id(STRANGE) });
    assert_eq!(plan(&tagged(Owner::Nobody)), mismatch);
    assert_eq!(
        plan(&resting(10).with(|seen| seen.targets[0].secret = hidden(Some(STRANGE)))),
        mismatch
    );
}

#[test]
fn half_a_pair_is_a_persons_matter() {
    let half = |pair| resting(75).with(|seen| seen.targets = targets([pair]));
    let refusal = |missing_secret| Refuse(Refusal::Half { target: one(), missing_secret });
    assert_eq!(plan(&half((named(OLD), SecretSeen::Absent))), refusal(true));
    assert_eq!(plan(&half((IdSeen::Absent, hidden(None)))), refusal(false));
    assert_eq!(
        plan::plan(&cleared(half((named(OLD), SecretSeen::Absent))), &forced()),
        Step::Claim
    );
}

#[test]
fn a_key_that_this_user_does_not_have_is_replaced_by_force_alone() {
    let seen =
        cleared(resting(75)).with(|seen| seen.targets = targets([(named(STRANGE), hidden(None))]));
    assert_eq!(plan(&seen), Refuse(Refusal::Unknown { target: one(), key: id(STRANGE) }));
    assert_eq!(plan::plan(&seen, &forced()), Step::Claim);
}

#[test]
fn a_reference_or_a_path_is_not_overwritten_even_by_force() {
    let why = "a reference".to_owned();
    for pair in [
        (IdSeen::Unusable(why.clone()), hidden(None)),
        (named(OLD), SecretSeen::Unusable(why.clone())),
    ] {
        let seen = cleared(resting(75)).with(|seen| seen.targets = targets([pair]));
        for policy in [policy(), forced()] {
            assert_eq!(
                plan::plan(&seen, &policy),
                Refuse(Refusal::Unusable { target: one(), why: why.clone() })
            );
        }
    }
}

#[test]
fn without_variables_only_setup_makes_a_key() {
    let seen = cleared(resting(75))
        .with(|seen| seen.targets = targets([(IdSeen::Absent, SecretSeen::Absent)]));
    for policy in [policy(), forced(), doing(Action::Retire)] {
        assert_eq!(plan::plan(&seen, &policy), Refuse(Refusal::NoVariables));
    }
    assert_eq!(plan::plan(&seen, &doing(Action::Setup)), Step::Claim);
    assert_eq!(
        plan::plan(&resting(75), &doing(Action::Setup)),
        Done(plan::Done::AlreadySetUp { key: id(OLD) })
    );
}

#[test]
fn a_key_is_due_at_its_age_or_when_it_is_disabled_or_forced() {
    let due = |seen: Observed, policy: &Policy| {
        assert_eq!(plan::plan(&cleared(seen), policy), Step::Claim)
    };
    due(resting(60), &policy());
    due(resting(10).with(|seen| seen.keys[0].active = false), &policy());
    due(resting(10), &forced());
    let young = resting(60).with(|seen| seen.keys[0].created = at(NOW - 60 * DAY + 1));
    assert!(matches!(plan(&cleared(young)), Done(plan::Done::NotDue { .. })));
}

#[test]
fn a_retried_forced_job_does_not_rotate_twice() {
    let seen = cleared(resting(0));
    assert!(matches!(plan::plan(&seen, &forced()), Done(plan::Done::NotDue { .. })));
}

#[test]
fn a_rotation_begins_once_the_preflight_has_passed() {
    let claimed = |findings: Option<Vec<String>>| {
        resting(75).with(|seen| {
            seen.claim = Some(Claim { name: "own".to_owned(), facts: None });
            seen.preflight = findings;
        })
    };
    assert_eq!(plan(&claimed(None)), Ask(Question::Preflight));
    assert_eq!(
        plan(&claimed(Some(text("no deploy")))),
        Refuse(Refusal::Preflight(text("no deploy")))
    );
    assert_eq!(plan(&claimed(Some(Vec::new()))), Step::Record(Note::Begin));
}

#[test]
fn a_key_that_is_due_without_a_free_slot_is_a_persons_matter() {
    let seen = cleared(resting(75)).with(|seen| seen.keys.push(key(STRANGE, 5)));
    assert_eq!(plan(&seen), Ask(Question::LastUse(id(STRANGE))));
    let asked = seen.with(|seen| seen.keys[1].used = Some(Use::Never));
    assert_eq!(
        plan(&asked),
        Refuse(Refusal::NoSlot { keys: asked.keys.clone(), named: Some(id(OLD)) })
    );
}

#[test]
fn a_key_that_is_not_due_says_when_it_will_be_and_mentions_a_second_one() {
    let (created, due) = (at(NOW - 10 * DAY), at(NOW + 50 * DAY));
    let end = |unexplained| Done(plan::Done::NotDue { key: id(OLD), created, due, unexplained });
    assert_eq!(plan(&resting(10)), end(None));
    assert_eq!(
        plan(&resting(10).with(|seen| seen.keys.push(key(STRANGE, 5)))),
        end(Some(id(STRANGE)))
    );
}

#[test]
fn retire_finds_nothing_to_retire_while_nothing_is_under_way() {
    assert_eq!(
        plan::plan(&resting(75), &doing(Action::Retire)),
        Done(plan::Done::NothingToRetire { key: id(OLD) })
    );
}

#[test]
fn what_a_finished_rotation_recorded_does_not_matter_any_more() {
    let finished = Facts { finished: Some(at(NOW - 5)), ..disabled(8 * DAY) };
    let seen = resting(10).with(|seen| seen.records.push(record("earlier", false, Some(finished))));
    assert!(matches!(plan(&seen), Done(plan::Done::NotDue { .. })));
}

// Check.

#[test]
fn check_only_reads() {
    let check = |seen: &Observed| plan::plan(seen, &doing(Action::Check));
    let checked =
        |next: &Step, key| Done(plan::Done::Checked { key: Some(id(key)), next: next.to_string() });
    assert_eq!(check(&resting(75)), checked(&Step::Record(Note::Begin), OLD));
    assert_eq!(check(&at_hand(true)), checked(&WriteSecret { target: 0, key: id(FRESH) }, OLD));
    assert_eq!(
        check(&resting(90)),
        Refuse(Refusal::TooOld { key: id(OLD), created: at(NOW - 90 * DAY) })
    );
    assert_eq!(
        check(&published(disabled(8 * DAY))),
        Refuse(Refusal::EnabledAgain { key: id(OLD) })
    );
    let waiting = published(deployed(1));
    assert_eq!(check(&waiting), checked(&plan(&waiting), FRESH));
}

// What is written down.

#[test]
fn facts_begin_with_the_keys_that_are_there_those_of_tags_and_what_the_targets_held() {
    let seen = resting(75).with(|seen| {
        seen.targets =
            targets([(named(OLD), hidden(Some(STRANGE))), (IdSeen::Absent, SecretSeen::Absent)])
    });
    let facts = Facts::noted(&seen, Note::Begin).unwrap();
    assert_eq!(
        facts,
        Facts {
            from: vec![id(OLD), id(STRANGE)],
            creating: at(NOW),
            previous: vec![None, Some(id(OLD))],
            ..Facts::default()
        }
    );
}

#[test]
fn beginning_anew_adds_to_what_the_targets_held_before() {
    let seen = published(quiet()).with(|seen| drop(seen.keys.remove(0)));
    let facts = Facts::noted(&seen, Note::Begin).unwrap();
    assert_eq!(facts.previous, vec![Some(id(OLD)), Some(id(FRESH))]);
    let over = published(Facts { finished: Some(at(NOW)), ..quiet() });
    assert_eq!(Facts::noted(&over, Note::Begin).unwrap().previous, vec![Some(id(FRESH))]);
}

#[test]
fn each_note_adds_its_moment_to_the_facts() {
    let now = at(NOW);
    let all = at_hand(true).with(|seen| seen.targets = targets([on(FRESH)]));
    assert_eq!(
        Facts::noted(&all, Note::Published).unwrap().published.map(|it| (it.key, it.at)),
        Some((id(FRESH), now))
    );
    assert_eq!(Facts::noted(&published(publication()), Note::Quiet).unwrap().quiet, Some(now));
    let noted = Facts { deploys: vec![deploy(false)], ..quiet() };
    let proven =
        published(noted).with(|seen| seen.deploys = Some(vec![DeploySeen::Proven(deploy(false))]));
    let facts = Facts::noted(&proven, Note::Proven).unwrap();
    assert_eq!((facts.deploys[0].proven, facts.deployed), (Some(now), Some(now)));
    assert_eq!(Facts::noted(&published(deployed(1)), Note::Disabled).unwrap().disabled, Some(now));
    assert_eq!(Facts::noted(&published(disabled(1)), Note::Finished).unwrap().finished, Some(now));
    assert_eq!(Facts::noted(&making(), Note::Nothing), None);
    assert_eq!(begun().published, None);
}

#[test]
fn a_deploy_that_is_newly_proven_is_recorded_while_another_still_runs() {
    let noted =
        NotedDeploy { place: "42 pipeline".to_owned(), pipeline: 7, job: None, proven: None };
    let seen = published(quiet()).with(|seen| {
        seen.deploys =
            Some(vec![DeploySeen::Proven(noted), DeploySeen::Running("job deploy".to_owned())])
    });
    assert_eq!(plan(&seen), Step::Record(Note::Proven));
}

/// STS could not tell whose secret it is where its key is not this user's: nothing is asked.
#[test]
fn a_tag_beside_the_id_of_an_unknown_key_is_a_mismatch_at_once() {
    let pair = |owner| (named(STRANGE), readable(Some(OLD), owner));
    let mismatch =
        Refuse(Refusal::Mismatch { target: "project:1".to_owned(), id: id(STRANGE), tag: id(OLD) });
    assert_eq!(
        plan(&resting(75).with(|seen| seen.targets = targets([pair(Owner::NotAsked)]))),
        mismatch
    );
    let same = resting(75).with(|seen| {
        seen.targets = targets([(named(STRANGE), readable(Some(STRANGE), Owner::NotAsked))])
    });
    assert_eq!(
        plan(&same),
        Refuse(Refusal::Unknown { target: "project:1".to_owned(), key: id(STRANGE) })
    );
    let own = resting(10)
        .with(|seen| seen.targets = targets([(named(OLD), readable(Some(OLD), Owner::NotAsked))]));
    assert!(matches!(plan(&own), Done(plan::Done::NotDue { .. })), "a tag that agrees is believed");
}
