//! Where a key is published: projects, groups, scopes, by ids and by paths.

use crate::scene::*;
use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        projects_groups_and_scopes_hold_one_key,
        a_key_stays_until_every_project_is_deployed,
        a_group_is_written_in_its_own_scope_only,
        a_group_variable_that_vanishes_is_written_nowhere_else,
        an_id_of_a_group_that_vanishes_is_written_nowhere_else,
        a_scope_that_the_group_does_not_have_is_refused,
        a_group_without_scopes_keeps_the_records_for_all,
        a_scope_that_a_group_drops_is_refused_and_leaves_nothing,
        a_scope_that_a_group_drops_never_gets_an_id,
        a_write_that_went_elsewhere_is_told_although_the_look_after_it_fails,
        a_scope_that_a_group_drops_onto_another_variable_leaves_it_alone,
        deploy_projects_may_be_others_than_the_targets,
    ]
}

fn projects_groups_and_scopes_hold_one_key() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_group(7, "acme");
    fixture.fake.add_group(8, "acme/sub.group");
    add_project(&fixture, OTHER, "acme/sub.group/shop-2.0_x", "production");
    publish(&fixture, project(PROJECT), "review/*");
    publish(&fixture, group(7), "*");
    publish(&fixture, group(8), "staging/eu.west-1");
    let targets = "project:42, \
         project:42@review/*,project:acme/sub.group/shop-2.0_x@production,group:7,group:acme/sub.group@staging/eu.west-1";
    let ended = fixture.run().set("ROTATOR_TARGETS", targets).go();
    ended.ends(0, "rotated");
    let places = [
        (project(PROJECT), "*"),
        (project(PROJECT), "review/*"),
        (project(OTHER), "production"),
        (group(7), "*"),
        (group(8), "staging/eu.west-1"),
    ];
    holds_the_new_key(&fixture, &places);
    let disabled = disabled_at(&fixture, &ended.log);
    for id in [PROJECT, OTHER] {
        assert!(deployed_at(&fixture, &ended.log, id, "deploy") < disabled, "{id}");
        production_is_new(&fixture, id);
    }
    // Ten writes of the pair, each by the id of its project or group, and none anywhere else.
    let written = |name: &str| {
        ended
            .log
            .iter()
            .filter(|entry| {
                entry.effect && entry.action.starts_with("PUT ") && entry.what.starts_with(name)
            })
            .count()
    };
    assert_eq!((written("AWS_ACCESS_KEY_ID@"), written("AWS_SECRET_ACCESS_KEY@")), (5, 5));
    let by_path =
        ended.log.iter().filter(|entry| entry.effect && entry.what.contains(" acme/")).count();
    assert_eq!(by_path, 0);
}

fn a_key_stays_until_every_project_is_deployed() {
    let fixture = Fixture::of_days(75);
    add_project(&fixture, OTHER, "acme/other", "*");
    let good = vec![JobSpec::deploy("deploy", "production")];
    fixture.fake.set_pipeline_config(OTHER, vec![JobSpec::deploy("deploy", "production").fails()]);
    let targets = "project:42,project:43";
    let ended = fixture.run().set("ROTATOR_TARGETS", targets).go();
    ended.ends(4, "deploy_failed");
    holds_both_keys(&fixture);
    assert_eq!(ended.calls("iam:UpdateAccessKey"), 0);
    fixture.fake.set_pipeline_config(OTHER, good);
    let ended = fixture.run().set("ROTATOR_TARGETS", targets).go();
    ended.ends(0, "resumed");
    holds_the_new_key(&fixture, &[(project(PROJECT), "*"), (project(OTHER), "*")]);
    // What was proven is not deployed a second time.
    assert_eq!(
        fixture
            .fake
            .pipelines(PROJECT)
            .iter()
            .filter(|pipeline| pipeline.started_by_program)
            .count(),
        1
    );
    assert_eq!(
        fixture.fake.pipelines(OTHER).iter().filter(|pipeline| pipeline.started_by_program).count(),
        2
    );
    production_is_new(&fixture, OTHER);
}

/// A pair of somebody else in the same group, under the same names.
fn foreign_pair(fixture: &Fixture, home: Home, scope: &str) -> Pair {
    fixture.fake.add_user("/", "stranger");
    let foreign = fixture.fake.add_key("stranger", 5);
    store(fixture, home, scope, &foreign);
    fixture.fake.watch_target(home, scope, ID, SECRET);
    foreign
}

fn a_group_is_written_in_its_own_scope_only() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_group(7, "acme");
    let foreign = foreign_pair(&fixture, group(7), "*");
    publish(&fixture, group(7), "production");
    let ended = fixture.run().set("ROTATOR_TARGETS", "group:7@production,project:42").go();
    ended.ends(0, "rotated");
    holds_the_new_key(&fixture, &[(group(7), "production"), (project(PROJECT), "*")]);
    assert_eq!(fixture.stored_in(group(7), "*"), (foreign.id, foreign.secret));
    let unscoped = ended
        .log
        .iter()
        .filter(|entry| entry.action.starts_with("PUT /groups") && entry.what.contains("@?"))
        .count();
    assert_eq!(unscoped, 0, "a write to a group without its scope");
}

/// An operator takes the scope away while the new key is being verified: the server would change the
/// variable of all environments.
fn a_group_variable_that_vanishes_is_written_nowhere_else() {
    let (fixture, foreign) = with_a_scope_in_a_group();
    let fake = fixture.fake.clone();
    let vanishes = move || fake.operator_removes_variable(group(7), SECRET, "production");
    let run = fixture
        .run()
        .with_pair(&fixture.old)
        .set("ROTATOR_TARGETS", "group:7@production")
        .set("ROTATOR_DEPLOY_PROJECTS", "42");
    let ended = run.once(|entry| entry.action == "iam:CreateAccessKey", vanishes).go();
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert_eq!(fixture.stored_in(group(7), "*"), (foreign.id, foreign.secret));
    // Its secret was sent nowhere.
    assert_eq!((fixture.fresh().len(), fixture.old_is_active()), (0, Some(true)));
}

fn an_id_of_a_group_that_vanishes_is_written_nowhere_else() {
    let (fixture, foreign) = with_a_scope_in_a_group();
    let fake = fixture.fake.clone();
    let vanishes = move || fake.operator_removes_variable(group(7), ID, "production");
    let run = fixture
        .run()
        .with_pair(&fixture.old)
        .set("ROTATOR_TARGETS", "group:7@production")
        .set("ROTATOR_DEPLOY_PROJECTS", "42");
    run.once(|entry| entry.action == "iam:CreateAccessKey", vanishes).go();
    assert_eq!(fixture.stored_in(group(7), "*"), (foreign.id, foreign.secret));
    assert_eq!(fixture.old_is_active(), Some(true));
}

/// The old pair in one scope of a group, and somebody else's for all others.
fn with_a_scope_in_a_group() -> (Fixture, Pair) {
    let fixture = Fixture::of_days(75);
    fixture.fake.operator_removes_variable(PROJECT, ID, "*");
    fixture.fake.operator_removes_variable(PROJECT, SECRET, "*");
    fixture.fake.unwatch_target(PROJECT);
    fixture.fake.add_group(7, "acme");
    store(&fixture, group(7), "production", &fixture.old);
    let foreign = foreign_pair(&fixture, group(7), "*");
    (fixture, foreign)
}

fn a_scope_that_the_group_does_not_have_is_refused() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_group(7, "acme");
    let foreign = foreign_pair(&fixture, group(7), "*");
    let ended = fixture.run().set("ROTATOR_TARGETS", "group:7@production,project:42").go();
    ended.ends(3, "refused");
    fixture.is_untouched();
    assert_eq!(fixture.stored_in(group(7), "*"), (foreign.id, foreign.secret));
    assert_eq!(ended.effects(), Vec::<String>::new());
}

fn a_group_without_scopes_keeps_the_records_for_all() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    fixture.fake.tune(|knobs| knobs.group_scopes = false);
    fixture.fake.add_group(7, "acme");
    publish(&fixture, group(7), "*");
    fixture.deploy(PROJECT);
    let run = fixture
        .run()
        .set("ROTATOR_TARGETS", "group:7")
        .set("ROTATOR_DEPLOY_PROJECTS", "42")
        .set("ROTATOR_GRACE_PERIOD", "3s");
    run.go().ends(0, "rotated");
    assert_eq!(fixture.old_is_active(), Some(false));
    let records = |fixture: &Fixture| {
        let all = fixture
            .fake
            .variables(group(7))
            .into_iter()
            .filter(|variable| variable.key.starts_with("CREDENTIAL_ROTATOR_"));
        all.map(|record| record.scope).collect::<Vec<_>>()
    };
    assert_eq!(records(&fixture), ["*"]);
    // The next run finds it there, goes on from it and is the one that is left.
    until(|| {
        (fixture
            .run()
            .set("ROTATOR_TARGETS", "group:7")
            .set("ROTATOR_DEPLOY_PROJECTS", "42")
            .set("ROTATOR_GRACE_PERIOD", "3s")
            .go()
            .outcome()
            == "resumed")
            .then_some(())
    })
    .expect("the grace period ends");
    holds_the_new_key(&fixture, &[(group(7), "*")]);
    assert_eq!(records(&fixture), ["*"]);
}

/// Nothing published yet; a role makes the first pair.
fn first_pair_for_a_group_that_drops_scopes() -> Fixture {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    fixture.fake.tune(|knobs| knobs.group_scopes = false);
    fixture.fake.add_group(7, "acme");
    fixture
}

fn set_up<'a>(fixture: &'a Fixture) -> Run<'a> {
    fixture
        .run()
        .with_role()
        .set("ROTATOR_ACTION", "setup")
        .set("ROTATOR_TARGETS", "group:7@production")
        .set("ROTATOR_DEPLOY", "none")
}

fn a_scope_that_a_group_drops_is_refused_and_leaves_nothing() {
    let fixture = first_pair_for_a_group_that_drops_scopes();
    let ended = set_up(&fixture).go();
    ended.ends(3, "refused");
    assert!(ended.stderr.contains("there can be no group:7@production"), "{}", ended.stderr);
    let left: Vec<String> =
        fixture.fake.variables(group(7)).into_iter().map(|variable| variable.key).collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!((fixture.fresh().len(), fixture.old_is_active()), (0, Some(true)));
}

/// What was made for all environments cannot be taken away again: it is named, and its key stays
/// until an operator has looked.
fn a_scope_that_a_group_drops_never_gets_an_id() {
    let fixture = first_pair_for_a_group_that_drops_scopes();
    fixture.fake.fault_from(
        "DELETE /groups/:id/variables/:key AWS_SECRET_ACCESS_KEY",
        1,
        Fault::refuse(403),
    );
    let ended = set_up(&fixture).go();
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("GitLab stored another environment scope than was sent"),
        "{}",
        ended.stderr
    );
    let variables = fixture.fake.variables(group(7));
    assert!(
        !variables.iter().any(|variable| variable.key == ID),
        "an id was published for all environments"
    );
    assert_eq!(fixture.old_is_active(), Some(true));
}

/// What went wrong first is told, not that GitLab could not be asked about it afterwards.
fn a_write_that_went_elsewhere_is_told_although_the_look_after_it_fails() {
    let fixture = Fixture::of_days(75);
    let elsewhere = serde_json::json!({
        "key": SECRET, "value": null, "hidden": true, "masked": true, "raw": true,
        "environment_scope": "production",
    });
    let echo = Fault::Instead { status: 200, body: elsewhere.to_string(), headers: Vec::new() };
    let writes = "PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY";
    fixture.fake.fault_from(writes, 1, echo);
    let fake = fixture.fake.clone();
    let refused = move || fake.fault_from("GET /projects/:id/variables", 1, Fault::refuse(403));
    let is_write =
        |entry: &Entry| entry.action.starts_with("PUT ") && entry.what.starts_with(SECRET);
    let is_refused =
        |entry: &Entry| entry.action == "GET /projects/:id/variables" && entry.status == 403;
    // Where the value went stays unknown, so the write is repeated until the run is stopped.
    let ended = fixture.run().once(is_write, refused).go_until(is_refused);
    assert_eq!(ended.code, 143, "{}", ended.stderr);
    let told = "writing AWS_SECRET_ACCESS_KEY to project:42: GitLab stored another environment \
                scope than was sent";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
}

fn a_scope_that_a_group_drops_onto_another_variable_leaves_it_alone() {
    let fixture = first_pair_for_a_group_that_drops_scopes();
    let foreign = foreign_pair(&fixture, group(7), "*");
    let ended = set_up(&fixture).go();
    ended.ends(3, "refused");
    assert!(ended.stderr.contains("there can be no group:7@production"), "{}", ended.stderr);
    assert_eq!(fixture.stored_in(group(7), "*"), (foreign.id, foreign.secret));
    // Nothing names the key that was made for it, so it is gone again.
    assert_eq!((fixture.fresh().len(), fixture.old_is_active()), (0, Some(true)));
}

fn deploy_projects_may_be_others_than_the_targets() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    fixture.fake.add_group(7, "acme");
    publish(&fixture, group(7), "*");
    for (id, path) in [(OTHER, "acme/eu/shop"), (44, "acme/us.east/shop")] {
        fixture.fake.add_project(id, path);
        fixture.fake.set_pipeline_config(id, vec![JobSpec::deploy("deploy", "production")]);
        fixture.deploy(id);
    }
    let run = fixture
        .run()
        .set("ROTATOR_TARGETS", "group:acme")
        .set("ROTATOR_DEPLOY_PROJECTS", "43,acme/us.east/shop");
    let ended = run.go();
    ended.ends(0, "rotated");
    holds_the_new_key(&fixture, &[(group(7), "*")]);
    let disabled = disabled_at(&fixture, &ended.log);
    for id in [OTHER, 44] {
        assert!(deployed_at(&fixture, &ended.log, id, "deploy") < disabled, "{id}");
        production_is_new(&fixture, id);
    }
    assert_eq!(ended.report["deploys"].as_array().map(Vec::len), Some(2));
}
