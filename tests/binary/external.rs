//! What an operator does while a rotation is under way, told: a target joins, or the new key is
//! deleted and another pair stored.

use snapbox::str;

use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_target_that_joins_with_another_pair,
        a_target_that_joins_while_the_new_secret_is_hidden,
        a_pair_in_the_place_of_a_deleted_key,
    ]
}

/// Both keys work.
fn overlapping(fixture: Fixture) -> Fixture {
    fixture.run().set("ROTATOR_OVERLAP", "1d").go().ends(0, "rotated");
    fixture.name(&fixture.new_key().id, "[NEW]");
    fixture.fake.add_project(43, "acme/api");
    fixture.fake.set_pipeline_config(43, vec![JobSpec::deploy("ship", "live")]);
    fixture
}

fn joins(fixture: &Fixture) -> Run<'_> {
    let run = fixture.run().with_role().set("ROTATOR_TARGETS", "project:42,project:43");
    run.set("ROTATOR_OVERLAP", "1d")
}

fn a_target_that_joins_with_another_pair() {
    let fixture = overlapping(Fixture::of_days(75));
    fixture.fake.add_user("/", "somebody");
    let other = fixture.fake.add_key("somebody", 1);
    fixture.name(&other.id, "[OTHER]");
    fixture.fake.set_pair(43, &other);
    let ended = joins(&fixture).go();
    ended.says(3, str![[r#"
error: project:43 became a target after key …[NEW] was published, and holds neither the new pair nor an old one that works
state: the variables name key …[OTHER], which this user does not have: unless it is another user's, PRODUCTION IS AFFECTED; old key …[OLD] (active), new key …[NEW] (active)
hint: store the published pair there, or leave that target out of ROTATOR_TARGETS until the rotation is over

"#]]);
    assert_eq!(ended.effects(), Vec::<String>::new());
}

fn a_target_that_joins_while_the_new_secret_is_hidden() {
    let fixture = Fixture::of_days(75);
    let (id, secret) = fixture.stored();
    fixture.fake.set_variable(PROJECT, Variable::new(ID, &id));
    fixture.fake.set_variable(PROJECT, Variable::new(SECRET, &secret).hidden());
    let fixture = overlapping(fixture);
    fixture.fake.set_pair(43, &fixture.old);
    let ended = joins(&fixture).go();
    ended.says(3, str![[r#"
error: project:43 became a target after key …[NEW] was published, and the new secret cannot be read anywhere (hidden variables)
state: project:42 holds the new pair, project:43 the old one, and both work; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: leave that target out of ROTATOR_TARGETS until the rotation is over

"#]]);
    assert_eq!(ended.effects(), Vec::<String>::new());
}

fn a_pair_in_the_place_of_a_deleted_key() {
    let fixture = overlapping(Fixture::of_days(75));
    fixture.fake.operator_deletes_key(&fixture.new_key().id);
    let pair = fixture.fake.operator_creates_key(USER);
    fixture.name(&pair.id, "[OTHER]");
    fixture.fake.set_pair(PROJECT, &pair);
    // IAM's list shows every key by now.
    fixture.fake.shift_clock(130);
    fixture.run().with_role().set("ROTATOR_OVERLAP", "1d").go().ends(6, "resumed").sums_up(str![[r#"
Key        key …[OTHER] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        key …[OTHER] is published; the rotation that was under way is over
Published  project:42
Deploy     none in this run
Next       the next scheduled run looks again; this key is replaced on [DATE]

warning: the new key of a rotation was deleted, and every target holds key …[OTHER] instead, so that rotation is over; key …[OLD] is left
hint: a later run begins the next rotation when that key is due, and needs room: if nothing uses the other key, a person removes it: `aws iam delete-access-key --access-key-id AKIA[OLD]` (with --user-name, where it is not the caller's own)

"#]]);
}
