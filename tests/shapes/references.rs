//! Other places that name the old key: what was a target once, and the projects that are deployed.

use crate::scene::*;
use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_deploy_projects_own_copy_of_the_pair_stops_the_rotation_before_it_begins,
        a_copy_that_appears_in_a_deploy_project_meanwhile_keeps_the_old_key,
        a_deploy_project_that_is_taken_out_of_the_list_is_looked_at,
        a_target_that_is_taken_out_of_the_list_keeps_the_old_key,
        a_target_that_is_taken_out_and_cannot_be_read_is_told,
        a_deploy_project_whose_variables_cannot_be_read_is_told,
        a_new_key_that_a_target_holds_which_was_taken_out_is_no_orphan,
        many_places_that_name_the_old_key_are_told_after_one_more_look,
    ]
}

const DEPLOYED: u64 = 44;

fn add_deploy_project(fixture: &Fixture) {
    fixture.fake.add_project(DEPLOYED, "acme/deploy");
    fixture.fake.set_pipeline_config(DEPLOYED, vec![JobSpec::new("deploy")]);
}

fn a_deploy_projects_own_copy_of_the_pair_stops_the_rotation_before_it_begins() {
    let fixture = Fixture::of_days(75);
    add_deploy_project(&fixture);
    store(&fixture, project(DEPLOYED), "*", &fixture.old);
    let ended = fixture
        .run()
        .set("ROTATOR_TARGETS", "project:42")
        .set("ROTATOR_DEPLOY_PROJECTS", "acme/deploy,42")
        .go();
    ended.ends(3, "refused");
    let place = "AWS_ACCESS_KEY_ID of project:acme/deploy \
                 (scope *: project:acme/deploy@* in ROTATOR_TARGETS)";
    assert!(ended.stderr.contains(place), "{}", ended.stderr);
    fixture.is_untouched();
}

/// The deploy that proves the new pair may have run with it.
fn a_copy_that_appears_in_a_deploy_project_meanwhile_keeps_the_old_key() {
    let fixture = Fixture::of_days(75);
    add_deploy_project(&fixture);
    let (fake, old) = (fixture.fake.clone(), fixture.old.id.clone());
    let run = || fixture.run().set("ROTATOR_DEPLOY_PROJECTS", "44,42");
    let copies = move || fake.operator_sets_variable(DEPLOYED, Variable::new("LEGACY", &old));
    let ended = run().once(|entry| entry.action == "POST /projects/:id/pipeline", copies).go();
    ended.ends(3, "refused");
    assert!(ended.stderr.contains("still named by LEGACY of project:44"), "{}", ended.stderr);
    holds_both_keys(&fixture);
    fixture.fake.operator_removes_variable(DEPLOYED, "LEGACY", "*");
    run().go().ends(0, "resumed");
    fixture.is_rotated();
}

/// The rotation has deployed it, whatever the list says later.
fn a_deploy_project_that_is_taken_out_of_the_list_is_looked_at() {
    let fixture = Fixture::of_days(75);
    add_deploy_project(&fixture);
    fixture.fake.set_pipeline_config(DEPLOYED, vec![JobSpec::new("deploy").fails()]);
    let ended = fixture.run().set("ROTATOR_DEPLOY_PROJECTS", "44,42").go();
    ended.ends(4, "deploy_failed");
    fixture.fake.operator_sets_variable(DEPLOYED, Variable::new("LEGACY", &fixture.old.id));
    let ended = fixture.run().set("ROTATOR_DEPLOY_PROJECTS", "42").go();
    ended.ends(3, "refused");
    assert!(ended.stderr.contains("still named by LEGACY of project:44"), "{}", ended.stderr);
    holds_both_keys(&fixture);
}

/// The first night's run ends before it has published to project 43.
fn published_to_one_of_two(fixture: &Fixture) {
    add_project(fixture, OTHER, "acme/other", "*");
    let body = r#"{"message":"403 Forbidden"}"#.into();
    let headers = vec![("content-type".into(), "application/json".into())];
    let action = "PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY@* 43";
    fixture.fake.fault_from(action, 1, Fault::Refuse { status: 403, body, headers });
    let ended = fixture.run().set("ROTATOR_TARGETS", "project:42,project:43").go();
    assert_ne!(ended.code, 0, "{}", ended.stderr);
    fixture.fake.clear_faults();
    assert_eq!(fixture.stored_in(project(OTHER), "*").0, fixture.old.id);
}

fn a_target_that_is_taken_out_of_the_list_keeps_the_old_key() {
    let fixture = Fixture::of_days(75);
    published_to_one_of_two(&fixture);
    let run = || fixture.run().set("ROTATOR_TARGETS", "project:42");
    let ended = run().go();
    ended.ends(3, "refused");
    let place = "AWS_ACCESS_KEY_ID of project:43 (scope *: project:43@* in ROTATOR_TARGETS)";
    assert!(ended.stderr.contains(place), "{}", ended.stderr);
    holds_both_keys(&fixture);
    // What the hint says: its pair goes, or it comes back into the list.
    fixture.fake.unwatch_target(OTHER);
    fixture.fake.unwatch_deploy(OTHER);
    for name in [ID, SECRET] {
        fixture.fake.operator_removes_variable(OTHER, name, "*");
    }
    run().go().ends(0, "resumed");
    fixture.is_rotated();
}

fn a_target_that_is_taken_out_and_cannot_be_read_is_told() {
    let fixture = Fixture::of_days(75);
    published_to_one_of_two(&fixture);
    fixture.fake.unwatch_target(OTHER);
    fixture.fake.unwatch_deploy(OTHER);
    for name in [ID, SECRET] {
        fixture.fake.operator_removes_variable(OTHER, name, "*");
    }
    let token = fixture.fake.token.clone();
    fixture.fake.change_token(&token, |spec| {
        spec.levels.insert(project(OTHER), 0);
    });
    let ended = fixture.run().set("ROTATOR_TARGETS", "project:42").go();
    ended.ends(0, "resumed");
    let told = "the token may not read the variables of project:43";
    assert_eq!(ended.stderr.matches(told).count(), 1, "{}", ended.stderr);
    fixture.is_rotated();
}

fn a_deploy_project_whose_variables_cannot_be_read_is_told() {
    let fixture = Fixture::of_days(75);
    add_deploy_project(&fixture);
    let body = r#"{"message":"403 Forbidden"}"#.into();
    let headers = vec![("content-type".into(), "application/json".into())];
    let fault = Fault::Refuse { status: 403, body, headers };
    fixture.fake.fault_from("GET /projects/:id/variables 44", 1, fault);
    let ended = fixture.run().set("ROTATOR_DEPLOY_PROJECTS", "44,42").go();
    ended.ends(0, "rotated");
    let told = "the token may not read the variables of project:44";
    assert_eq!(ended.stderr.matches(told).count(), 1, "{}", ended.stderr);
}

/// Published to project 43 alone: project 42's secret is hidden, so it comes last.
fn a_new_key_that_a_target_holds_which_was_taken_out_is_no_orphan() {
    let fixture = Fixture::of_days(75);
    let secret = Variable::new(SECRET, &fixture.old.secret).masked().hidden();
    fixture.fake.set_variable(PROJECT, secret);
    add_project(&fixture, OTHER, "acme/other", "*");
    let action = "PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY@* 42";
    fixture.fake.fault_from(action, 1, Fault::refuse(403));
    let ended = fixture.run().set("ROTATOR_TARGETS", "project:42,project:43").go();
    assert_ne!(ended.code, 0, "{}", ended.stderr);
    fixture.fake.clear_faults();
    let new = fixture.new_key();
    assert_eq!(fixture.stored_in(project(OTHER), "*"), (new.id.clone(), new.secret.clone()));
    let ended = fixture.run().set("ROTATOR_TARGETS", "project:42").go();
    ended.ends(3, "refused");
    let place = "AWS_ACCESS_KEY_ID of project:43";
    assert!(ended.stderr.contains(place), "{}", ended.stderr);
    assert_eq!(fixture.new_key().id, new.id);
    // What the hint says: it comes back into the list.
    fixture.run().set("ROTATOR_TARGETS", "project:42,project:43").go().ends(0, "resumed");
    holds_the_new_key(&fixture, &[(project(PROJECT), "*"), (project(OTHER), "*")]);
}

/// The replies come in any order; the refusal is the same.
fn many_places_that_name_the_old_key_are_told_after_one_more_look() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_OVERLAP", "12h").go().ends(0, "rotated");
    for id in 44..52 {
        fixture.fake.add_project(id, &format!("acme/deploy-{id}"));
        fixture.fake.set_variable(id, Variable::new("LEGACY", &fixture.old.id));
    }
    fixture.fake.tune(|knobs| knobs.delay_ms = 100);
    let ended = fixture.run().set("ROTATOR_DEPLOY_PROJECTS", "42,44,45,46,47,48,49,50,51").go();
    ended.ends(3, "refused");
    assert_eq!(ended.stderr.matches("looking again").count(), 1, "{}", ended.stderr);
    holds_both_keys(&fixture);
}
