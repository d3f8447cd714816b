//! What a person changes while a rotation is under way: what was proven counts no more, a target
//! joins, a key is deleted and another pair stored.

use std::time::Duration;

use crate::scene::*;
use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_deploy_that_ran_on_the_restored_old_pair_proves_nothing,
        a_pair_that_is_not_in_place_is_only_told_by_check_and_a_dry_run,
        a_secret_that_works_with_no_key_is_not_deployed,
        a_pair_that_was_stored_meanwhile_is_not_overwritten,
        a_young_key_that_is_unknown_to_sts_for_a_while_is_not_lost,
        a_target_that_was_added_is_published_to_and_deployed,
        a_target_that_was_added_and_refuses_is_left_on_the_old_pair,
        an_operators_pair_ends_a_rotation_and_the_next_run_begins_another,
        an_operators_pair_that_is_hidden_ends_nothing,
    ]
}

/// A person stores this pair in both variables, as they are.
fn edit(fake: &Fake, pair: &Pair) {
    for (name, value) in [(ID, &pair.id), (SECRET, &pair.secret)] {
        fake.operator_edits_variable(PROJECT, name, "*", |variable| {
            variable.value.clone_from(value);
        });
    }
}

fn record(fixture: &Fixture) -> serde_json::Value {
    let records = fixture.records();
    let line: serde_json::Value = serde_json::from_str(&records[0].value).unwrap();
    line["progress"].clone()
}

/// The deploy that the first run has left reads what the person has restored, and succeeds.
fn a_deploy_that_ran_on_the_restored_old_pair_proves_nothing() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.queue_ms = 4000);
    fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "0s").go().ends(0, "deploying");
    let new = fixture.new_key();
    edit(&fixture.fake, &fixture.old);
    std::thread::sleep(Duration::from_secs(5));
    fixture.fake.finish_pipelines();
    assert!(record(&fixture)["deploys"].is_array());
    let ended = fixture.run().go();
    ended.ends(3, "refused");
    for fact in ["drained", "deploys", "deployed"] {
        assert!(record(&fixture)[fact].is_null(), "{fact} is left");
    }
    // As the hint says.
    edit(&fixture.fake, &new);
    fixture.fake.tune(|knobs| knobs.queue_ms = 0);
    let ended = fixture.run().go();
    ended.ends(0, "resumed");
    assert_eq!(ended.calls("POST /projects/:id/pipeline"), 1, "nothing was deployed anew");
    assert_eq!(fixture.new_key().id, new.id);
    production_is_new(&fixture, PROJECT);
    fixture.is_rotated();
}

fn a_pair_that_is_not_in_place_is_only_told_by_check_and_a_dry_run() {
    let fixture = Fixture::of_days(75);
    let run = || fixture.run().with_role().set("ROTATOR_OVERLAP", "1d");
    run().go().ends(0, "rotated");
    edit(&fixture.fake, &fixture.old);
    let before = record(&fixture);
    for (name, value) in [("ROTATOR_ACTION", "check"), ("ROTATOR_DRY_RUN", "true")] {
        let ended = run().set(name, value).go();
        assert_eq!((ended.code, ended.effects()), (3, Vec::new()), "{}", ended.stderr);
        assert_eq!(record(&fixture), before);
    }
    run().go().ends(3, "refused");
    assert!(record(&fixture)["deployed"].is_null());
    // There is nothing left to take out.
    let ended = run().go();
    assert_eq!((ended.code, ended.effects()), (3, Vec::new()), "{}", ended.stderr);
}

/// Its tag still names the published key.
fn a_secret_that_works_with_no_key_is_not_deployed() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.queue_ms = 600_000);
    fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "0s").go().ends(0, "deploying");
    fixture.fake.operator_edits_variable(PROJECT, SECRET, "*", |variable| {
        variable.value = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into();
    });
    let ended = fixture.run().with_pair(&fixture.old).go();
    ended.ends(3, "refused");
    assert_eq!(ended.calls("POST /projects/:id/pipeline"), 0);
    assert_eq!((fixture.old_is_active(), fixture.fresh().len()), (Some(true), 1));
}

fn a_pair_that_was_stored_meanwhile_is_not_overwritten() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_user("/", "other");
    let other = fixture.fake.add_key("other", 1);
    let (fake, pair) = (fixture.fake.clone(), other.clone());
    let store = move || {
        fake.operator_sets_variable(PROJECT, Variable::new(ID, &pair.id).masked());
        let secret = Variable::new(SECRET, &pair.secret).masked();
        fake.operator_sets_variable(PROJECT, secret.description("of the user other, ask Kim"));
    };
    fixture.fake.tune(|knobs| {
        knobs.invisible_for = Duration::from_secs(2);
        knobs.invisible_share = 100;
    });
    let ended = fixture.run().once(|entry| entry.action == "iam:CreateAccessKey", store).go();
    ended.ends(3, "refused");
    assert!(ended.stderr.contains("error: project:42 was changed by someone"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("HALF"), "{}", ended.stderr);
    assert_eq!(fixture.stored(), (other.id, other.secret));
    let kept = fixture.fake.variable(PROJECT, SECRET, "*").unwrap().description;
    assert_eq!(kept.as_deref(), Some("of the user other, ask Kim"));
    assert_eq!((fixture.old_is_active(), fixture.fresh().len()), (Some(true), 0));
}

/// An earlier run died between secret and id, and STS does not know the new key yet.
fn a_young_key_that_is_unknown_to_sts_for_a_while_is_not_lost() {
    let fixture = Fixture::of_days(75);
    let creating = moment(fixture.fake.now() - 1000);
    fixture.fake.tune(|knobs| {
        knobs.invisible_for = Duration::from_secs(4);
        knobs.invisible_share = 100;
    });
    let new = made_by_an_earlier_run(&fixture);
    fixture.fake.operator_edits_variable(PROJECT, SECRET, "*", |variable| {
        variable.value.clone_from(&new.secret);
        variable.description = Some(format!("[credential-rotator {}]", new.id));
    });
    let progress = serde_json::json!({
        "from": [fixture.old.id], "creating": creating, "previous": [fixture.old.id],
    });
    leave_record(&fixture, project(PROJECT), &progress);
    fixture.run().with_role().go().ends(0, "resumed");
    assert_eq!(fixture.new_key().id, new.id);
    fixture.is_rotated();
}

/// While both keys work.
fn overlapping() -> Fixture {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_OVERLAP", "12h").go().ends(0, "rotated");
    assert!(record(&fixture)["deployed"].is_string());
    fixture
}

const BOTH: &str = "project:42,project:43";

fn a_target_that_was_added_is_published_to_and_deployed() {
    let fixture = overlapping();
    add_project(&fixture, OTHER, "acme/other", "*");
    let run = || fixture.run().set("ROTATOR_TARGETS", BOTH).set("ROTATOR_OVERLAP", "12h");
    run().set("ROTATOR_ACTION", "check").go().ends(0, "healthy");
    let before = record(&fixture)["deployed"].clone();
    let ended = run().go();
    ended.ends(0, "resumed");
    let new = fixture.new_key();
    assert_eq!(fixture.stored_in(project(OTHER), "*"), (new.id, new.secret));
    // Both are deployed anew, and the overlap begins again.
    assert_eq!(ended.calls("POST /projects/:id/pipeline"), 2);
    for id in [PROJECT, OTHER] {
        production_is_new(&fixture, id);
    }
    let after = record(&fixture)["deployed"].clone();
    assert!(after.is_string() && after != before);
    assert_eq!(fixture.old_is_active(), Some(true));
    run().set("ROTATOR_OVERLAP", "0s").go().ends(0, "resumed");
    holds_the_new_key(&fixture, &[(project(PROJECT), "*"), (project(OTHER), "*")]);
}

fn a_target_that_was_added_and_refuses_is_left_on_the_old_pair() {
    let fixture = overlapping();
    add_project(&fixture, OTHER, "acme/other", "*");
    let forbidden = Fault::Refuse {
        status: 403,
        body: r#"{"message":"403 Forbidden"}"#.into(),
        headers: vec![("content-type".into(), "application/json".into())],
    };
    let write = "PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY@* 43";
    fixture.fake.fault_from(write, 1, forbidden);
    let run = || fixture.run().set("ROTATOR_TARGETS", BOTH).set("ROTATOR_OVERLAP", "12h");
    run().go().ends(3, "refused");
    holds_both_keys(&fixture);
    let old = fixture.old.clone();
    assert_eq!(fixture.stored_in(project(OTHER), "*"), (old.id, old.secret));
    fixture.fake.clear_faults();
    run().go().ends(0, "resumed");
    production_is_new(&fixture, OTHER);
}

/// The new key was deleted, and lists do not lag any more.
fn deleted() -> Fixture {
    let fixture = overlapping();
    fixture.fake.operator_deletes_key(&fixture.new_key().id);
    fixture.fake.shift_clock(130);
    fixture
}

fn an_operators_pair_ends_a_rotation_and_the_next_run_begins_another() {
    for by_hand in [false, true] {
        let fixture = deleted();
        let run = || fixture.run().with_role().set("ROTATOR_OVERLAP", "12h");
        run().go().ends(3, "refused");
        let pair =
            if by_hand { fixture.fake.operator_creates_key(USER) } else { fixture.old.clone() };
        edit(&fixture.fake, &pair);
        // However old that key is, this run only ends it.
        let ended = run().go();
        ended.ends(6, "resumed");
        assert!(ended.effects().iter().all(|effect| effect.contains("CREDENTIAL_ROTATOR")));
        let progress = record(&fixture);
        assert_eq!(progress["published"]["key"], serde_json::json!(pair.id));
        assert!(progress["finished"].is_string());
        assert_eq!(fixture.stored(), (pair.id.clone(), pair.secret.clone()));
        if by_hand {
            assert!(ended.stderr.contains("is left"), "{}", ended.stderr);
            fixture.fake.operator_deletes_key(&fixture.old.id);
            run().go().ends(0, "not_due");
        } else {
            run().set("ROTATOR_OVERLAP", "0s").go().ends(0, "rotated");
            fixture.is_rotated();
        }
    }
}

fn an_operators_pair_that_is_hidden_ends_nothing() {
    let fixture = deleted();
    let pair = fixture.fake.operator_creates_key(USER);
    fixture.fake.set_variable(PROJECT, Variable::new(ID, &pair.id).masked());
    fixture.fake.set_variable(PROJECT, Variable::new(SECRET, &pair.secret).hidden());
    let ended = fixture.run().with_role().set("ROTATOR_OVERLAP", "12h").go();
    ended.ends(3, "refused");
    assert_eq!(ended.effects(), Vec::<String>::new());
}
