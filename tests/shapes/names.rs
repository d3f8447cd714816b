//! One project or group under two names: its id, and its path in any case.

use crate::scene::*;
use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        the_jobs_own_project_needs_no_call_to_be_known_by_its_path,
        a_project_under_two_names_is_written_and_deployed_once,
        a_group_under_two_names_is_one,
        a_project_that_cannot_be_seen_keeps_its_path,
    ]
}

fn the_jobs_own_project_needs_no_call_to_be_known_by_its_path() {
    let fixture = Fixture::of_days(10);
    let ended = fixture.run().set("ROTATOR_TARGETS", "project:Acme/Shop,project:42").go();
    ended.ends(0, "not_due");
    assert_eq!((ended.calls("iam"), ended.calls("gitlab")), (1, 2));
    assert!(ended.stderr.contains("Published  project:Acme/Shop\n"), "{}", ended.stderr);
}

fn a_project_under_two_names_is_written_and_deployed_once() {
    let fixture = Fixture::of_days(75);
    add_project(&fixture, OTHER, "acme/other", "*");
    let ended = fixture
        .run()
        .set("ROTATOR_TARGETS", "project:acme/other,project:42,project:43,project:acme/shop")
        .set("ROTATOR_DEPLOY_PROJECTS", "43,acme/Other,42")
        .go();
    ended.ends(0, "rotated");
    holds_the_new_key(&fixture, &[(project(PROJECT), "*"), (project(OTHER), "*")]);
    let count = |action: &str, what: &str| {
        let is = |entry: &&Entry| entry.effect && entry.action.starts_with(action);
        ended.log.iter().filter(is).filter(|entry| entry.what.starts_with(what)).count()
    };
    assert_eq!(
        (count("PUT ", "AWS_SECRET_ACCESS_KEY@"), count("PUT ", "AWS_ACCESS_KEY_ID@")),
        (2, 2)
    );
    assert_eq!(ended.calls("POST /projects/:id/pipeline"), 2);
    for record in fixture.records_in(project(OTHER)) {
        assert!(!record.value.contains("acme"), "a path is in {}", record.value);
    }
}

fn a_group_under_two_names_is_one() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_group(7, "acme");
    publish(&fixture, group(7), "*");
    let ended = fixture.run().set("ROTATOR_TARGETS", "group:acme,project:42,group:7").go();
    ended.ends(0, "rotated");
    holds_the_new_key(&fixture, &[(project(PROJECT), "*"), (group(7), "*")]);
    assert_eq!(ended.report["targets"].as_array().map(Vec::len), Some(2), "{}", ended.report);
}

/// A token of few rights may write variables and not read the project itself.
fn a_project_that_cannot_be_seen_keeps_its_path() {
    let fixture = Fixture::of_days(75);
    add_project(&fixture, OTHER, "acme/other", "*");
    let body = r#"{"message":"403 Forbidden"}"#.into();
    let headers = vec![("content-type".into(), "application/json".into())];
    fixture.fake.fault_on("GET /projects/:id", 1, Fault::Refuse { status: 403, body, headers });
    let ended = fixture
        .run()
        .set("ROTATOR_TARGETS", "project:42,project:acme/other")
        .set("ROTATOR_DEPLOY_PROJECTS", "42,acme/other")
        .go();
    ended.ends(0, "rotated");
    holds_the_new_key(&fixture, &[(project(PROJECT), "*"), (project(OTHER), "*")]);
}
