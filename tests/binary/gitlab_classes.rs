//! GitLab's refusals by their class: what passes is waited for, and each other one has its own hint.

use snapbox::str;

use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        // What passes by itself.
        too_many_pipelines_are_waited_for,
        too_many_pipelines_for_longer_than_a_minute,
        a_lock_that_passes,
        a_lock_for_ever,
        a_request_that_takes_gitlab_too_long,
        a_gitlab_that_becomes_read_only_before_the_deploy,
        // What does not.
        a_user_who_must_sign_in,
        a_user_who_waits_for_approval,
        a_project_that_moves_meanwhile,
        a_project_without_room_for_a_variable,
        a_method_that_this_gitlab_does_not_have,
        an_old_gitlab_that_refuses_without_a_reason,
        a_new_gitlab_at_another_address_is_not_called_old,
    ]
}

fn refused(status: u16, message: &str) -> Fault {
    let headers = vec![("content-type".into(), "application/json".into())];
    Fault::Refuse { status, body: serde_json::json!({ "message": message }).to_string(), headers }
}

const START: &str = "POST /projects/:id/pipeline";

fn too_many_pipelines_are_waited_for() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.pipelines_a_minute = 0);
    let fake = fixture.fake.clone();
    let run = fixture.run().once(
        |entry| entry.action == START,
        move || fake.tune(|knobs| knobs.pipelines_a_minute = 25),
    );
    let ended = run.go();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(ended.calls(START), 2);
    assert!(ended.took.as_secs() > 15, "it does not hurry: {:?}", ended.took);
    let pipelines = fixture.fake.pipelines(PROJECT);
    assert_eq!(pipelines.iter().filter(|pipeline| pipeline.source == "api").count(), 1);
}

fn too_many_pipelines_for_longer_than_a_minute() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.pipelines_a_minute = 0);
    let ended = fixture.run().go();
    ended.says(
        4,
        str![[r#"
error: starting the deploy pipeline of project 42: the token's user has started too many pipelines there within a minute (400)
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: run again later, and see what else starts pipelines with this user; GitLab's limit counts by user, project and commit

"#]],
    );
    assert!(ended.took.as_secs() > 60, "{:?}", ended.took);
    assert_eq!((fixture.old_is_active(), fixture.fresh().len()), (Some(true), 1));
}

fn a_lock_that_passes() {
    let fixture = Fixture::of_days(75);
    let lock = refused(409, "409 Conflict: Resource lock");
    fixture.fake.fault_on("PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY", 1, lock);
    let ended = fixture.run().go();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(fixture.fake.faults_hit()[0].hit.is_some());
}

fn a_lock_for_ever() {
    let fixture = Fixture::of_days(75);
    let lock = refused(409, "409 Conflict: Resource lock");
    fixture.fake.fault_from("POST /projects/:id/variables", 1, lock);
    fixture.run().go().says(
        1,
        str![[r#"
error: writing this run's record: GitLab is changing the same thing at this moment (409)
state: the variables name key …[OLD] (active); production is not affected
hint: run again; where it stays so, see what else changes it

"#]],
    );
    fixture.is_untouched();
}

fn a_request_that_takes_gitlab_too_long() {
    let fixture = Fixture::of_days(75);
    let timeout = refused(408, "408 Request Timeout");
    fixture.fake.fault_from("GET /projects/:id/variables", 1, timeout);
    fixture.run().go().says(
        1,
        str![[r#"
error: listing the variables of project:42: GitLab has an error of its own (408)
state: nothing was changed; keys and variables are as they were before this run
hint: run again; where it stays so, ask those who run this GitLab

"#]],
    );
}

fn a_gitlab_that_becomes_read_only_before_the_deploy() {
    let fixture = Fixture::of_days(75);
    let fault = refused(403, "You cannot perform write operations on a read-only instance");
    fixture.fake.fault_from(START, 1, fault);
    fixture.run().go().says(
        1,
        str![[r#"
error: starting the deploy pipeline of project 42: GitLab is in maintenance and takes no writes (403)
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: run again when the maintenance is over

"#]],
    );
    assert_eq!((fixture.old_is_active(), fixture.fresh().len()), (Some(true), 1));
}

/// `lib/gitlab/auth/user_access_denied_reason.rb`
fn a_user_who_must_sign_in() {
    for reason in [
        "You (@project_bot_9) must accept the Terms of Service in order to perform this action. To \
         accept these terms, please access GitLab from a web browser at https://gitlab.example.com.",
        "Your account has been deactivated by your administrator. Please log back in from a web \
         browser to reactivate your account at https://gitlab.example.com",
        "Your primary email address is not confirmed. Please check your inbox for the confirmation \
         instructions.",
        "Your password expired. Please access GitLab from a web browser to update your password.",
    ] {
        let fixture = Fixture::of_days(75);
        let fault = refused(403, &format!("403 Forbidden - {reason}"));
        fixture.fake.fault_from("GET /projects/:id/variables", 1, fault);
        fixture.run().go().says(
            3,
            str![[r#"
error: listing the variables of project:42: GitLab wants the token's user to sign in first (403)
state: nothing was changed; keys and variables are as they were before this run
hint: sign in to GitLab as that user: its terms are not accepted, its address is not confirmed, its password has expired, or it was deactivated

"#]],
        );
    }
}

fn a_user_who_waits_for_approval() {
    let fixture = Fixture::of_days(75);
    let reason = "Your account is pending approval from your administrator and hence blocked.";
    let fault = refused(403, &format!("403 Forbidden - {reason}"));
    fixture.fake.fault_from("GET /projects/:id/variables", 1, fault);
    fixture.run().go().says(
        3,
        str![[r#"
error: listing the variables of project:42: the token's user is blocked (403)
state: nothing was changed; keys and variables are as they were before this run
hint: unblock the user, or use another user's token

"#]],
    );
}

/// By its path, each write would be 405; its id is known from the first look on.
fn a_project_that_moves_meanwhile() {
    let fixture = Fixture::of_days(75);
    let fake = fixture.fake.clone();
    let run = fixture.run().set("ROTATOR_TARGETS", "project:acme/shop").once(
        |entry| entry.action == "iam:CreateAccessKey",
        move || fake.move_project(PROJECT, "acme/store"),
    );
    let ended = run.go();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(fixture.stored().0, fixture.fresh()[0].id);
}

fn a_project_without_room_for_a_variable() {
    let fixture = Fixture::of_days(75);
    let body = r#"{"message":{"base":["Maximum number of project ci variables (8000) exceeded"]}}"#;
    let headers = vec![("content-type".into(), "application/json".into())];
    let fault = Fault::Refuse { status: 400, body: body.to_owned(), headers };
    fixture.fake.fault_from("POST /projects/:id/variables", 1, fault);
    fixture.run().go().says(
        3,
        str![[r#"
error: writing this run's record: the project or group has as many variables as it may (400)
state: the variables name key …[OLD] (active); production is not affected
hint: delete a variable that nothing uses: the rotation needs room for one record

"#]],
    );
    fixture.is_untouched();
}

/// Only the words tell it from a moved project.
fn a_method_that_this_gitlab_does_not_have() {
    let fixture = Fixture::of_days(75);
    let fault = refused(405, "405 Not Allowed");
    fixture.fake.fault_from("POST /projects/:id/variables", 1, fault);
    fixture.run().go().says(
        3,
        str![[r#"
error: writing this run's record: GitLab refuses the request (405)
state: the variables name key …[OLD] (active); production is not affected
hint: look at the settings of the project, and at its audit events

"#]],
    );
    fixture.is_untouched();
}

fn an_old_gitlab_that_refuses_without_a_reason() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from(
        "POST /projects/:id/variables",
        1,
        refused(422, "422 Unprocessable Entity"),
    );
    fixture.run().set("CI_SERVER_VERSION", "17.5.1-ee").go().says(
        3,
        str![[r#"
error: writing this run's record: GitLab 17.5.1-ee refuses the request (422)
state: the variables name key …[OLD] (active); production is not affected
hint: upgrade GitLab: what is asked here needs 18.1 or later

"#]],
    );
    fixture.is_untouched();
}

/// The job's own GitLab says nothing about the one that the setting names.
fn a_new_gitlab_at_another_address_is_not_called_old() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from(
        "POST /projects/:id/variables",
        1,
        refused(422, "422 Unprocessable Entity"),
    );
    let run = fixture.run();
    let url = run.env("CI_API_V4_URL");
    let run = run.set("ROTATOR_GITLAB_API_URL", &url).set("CI_SERVER_VERSION", "17.5.1-ee");
    run.go().says(
        3,
        str![[r#"
error: writing this run's record: GitLab refuses the request (422)
state: the variables name key …[OLD] (active); production is not affected
hint: look at the settings of the project, and at its audit events

"#]],
    );
}
