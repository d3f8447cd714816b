//! GitLab's ways of saying no, each with its three lines.

use snapbox::str;

use crate::at_once;
use crate::run::*;
use crate::world::*;

#[test]
fn the_token_is_not_enough() {
    at_once![
        a_token_without_the_scope_api,
        a_token_that_is_no_maintainer,
        an_expired_token,
        a_revoked_token,
        a_mistyped_token,
        a_fine_grained_token_that_lacks_a_right,
        a_blocked_user,
        a_token_that_is_no_owner_of_the_group,
    ];
}

fn with_token(change: impl FnOnce(&mut TokenSpec)) -> Ended {
    let setting = Setting::of_days(75);
    setting.world.change_token(&setting.world.token, change);
    let ended = setting.run().go();
    assert_eq!(ended.effects(), Vec::<String>::new());
    setting.is_untouched();
    ended
}

fn a_token_without_the_scope_api() {
    with_token(|token| token.scopes = vec!["read_api".into()]).says(3, str![[r#"
error: listing the variables of project:42: the token lacks the scope `api` (403)
state: nothing was changed; keys and variables are as they were before this run
hint: create a token with the scope `api` and store it in ROTATOR_GITLAB_TOKEN

"#]]);
}

fn a_token_that_is_no_maintainer() {
    with_token(|token| token.level = 30).says(3, str![[r#"
error: listing the variables of project:42: the token's user may not do this (403)
state: nothing was changed; keys and variables are as they were before this run
hint: give it the role Maintainer in each target project (Owner in a target group) and, for protected branches and environments, the right to deploy

"#]]);
}

fn an_expired_token() {
    with_token(|token| token.expires_at = Some(0)).says(3, str![[r#"
error: listing the variables of project:42: the token has expired (401)
state: nothing was changed; keys and variables are as they were before this run
hint: create a new token (scope `api`, role Maintainer) and store it in ROTATOR_GITLAB_TOKEN

"#]]);
}

fn a_revoked_token() {
    with_token(|token| token.revoked = true).says(3, str![[r#"
error: listing the variables of project:42: GitLab does not accept the token (401)
state: nothing was changed; keys and variables are as they were before this run
hint: store a new token in ROTATOR_GITLAB_TOKEN: it was revoked or mistyped

"#]]);
}

fn a_mistyped_token() {
    let setting = Setting::of_days(75);
    setting.run().set("ROTATOR_GITLAB_TOKEN", "glpat-ThisIsNotAToken12345").go().says(3, str![[r#"
error: listing the variables of project:42: GitLab does not accept the token (401)
state: nothing was changed; keys and variables are as they were before this run
hint: store a new token in ROTATOR_GITLAB_TOKEN: it was revoked or mistyped

"#]]);
}

fn a_fine_grained_token_that_lacks_a_right() {
    with_token(|token| token.lacks = Some("create_variable".into())).says(3, str![[r#"
error: writing this run's record: the fine-grained token lacks a permission (403)
state: the variables name key …[OLD] (active); production is not affected
hint: give it the rights to read and write CI/CD variables, pipelines, jobs and deployments of the targets, or use a token with the scope `api`

"#]]);
}

fn a_blocked_user() {
    with_token(|token| token.blocked = true).says(3, str![[r#"
error: listing the variables of project:42: the token's user is blocked (403)
state: nothing was changed; keys and variables are as they were before this run
hint: unblock the user, or use another user's token

"#]]);
}

fn a_token_that_is_no_owner_of_the_group() {
    let setting = Setting::of_days(75);
    setting.world.add_group(7, "acme");
    setting.world.change_token(&setting.world.token, |token| token.group_level = 40);
    let run = setting.run().set("ROTATOR_TARGETS", "group:acme").set("ROTATOR_DEPLOY_PROJECTS", "42");
    run.go().says(3, str![[r#"
error: listing the variables of group:acme: the token's user may not do this (403)
state: nothing was changed; keys and variables are as they were before this run
hint: give it the role Maintainer in each target project (Owner in a target group) and, for protected branches and environments, the right to deploy

"#]]);
}

#[test]
fn the_project_is_not_as_it_was() {
    at_once![
        a_project_that_nobody_knows,
        an_archived_project,
        a_project_that_has_moved,
        a_gitlab_in_maintenance,
        a_read_only_gitlab,
        a_rate_limit_for_ever,
        a_rate_limit_for_an_hour,
        a_server_that_has_an_error_for_ever,
        a_reply_that_never_comes,
        a_value_that_gitlab_does_not_mask,
        an_echo_that_differs,
        a_job_that_has_ended_acts_no_more,
    ];
}

fn a_project_that_nobody_knows() {
    let setting = Setting::of_days(75);
    setting.run().set("ROTATOR_TARGETS", "project:4242").go().says(3, str![[r#"
error: listing the variables of project:4242: GitLab finds nothing there, or hides it from this token (404)
state: nothing was changed; keys and variables are as they were before this run
hint: check the id or path, and that the token's user is a member

"#]]);
}

fn an_archived_project() {
    let setting = Setting::of_days(75);
    setting.world.set_archived(PROJECT, true);
    setting.run().go().says(3, str![[r#"
error: a rotation is due, but would not end well:
- project 42 is archived, so nothing can be deployed there
state: the variables name key …[OLD] (active); production is not affected
hint: mend what is listed; nothing was written

"#]]);
}

fn a_project_that_has_moved() {
    let setting = Setting::of_days(75);
    setting.world.move_project(PROJECT, "acme/store");
    setting.run().set("ROTATOR_TARGETS", "project:acme/shop").go().says(3, str![[r#"
error: listing the variables of project:acme/shop: the project has moved (301)
state: nothing was changed; keys and variables are as they were before this run
hint: use its new path or, better, its numeric id

"#]]);
}

fn in_mood(mood: Mood) -> Ended {
    let setting = Setting::of_days(75);
    setting.world.tune(|knobs| knobs.mood = mood);
    setting.run().go()
}

fn a_gitlab_in_maintenance() {
    in_mood(Mood::Maintenance).says(1, str![[r#"
error: writing this run's record: GitLab is in maintenance and takes no writes (503)
state: the variables name key …[OLD] (active); production is not affected
hint: run again when the maintenance is over

"#]]);
}

fn a_read_only_gitlab() {
    in_mood(Mood::ReadOnly).says(1, str![[r#"
error: writing this run's record: GitLab is in maintenance and takes no writes (403)
state: the variables name key …[OLD] (active); production is not affected
hint: run again when the maintenance is over

"#]]);
}

fn a_rate_limit_for_ever() {
    let setting = Setting::of_days(75);
    setting.world.fault_from("GET /projects/:id/variables", 1, Fault::refuse(429));
    setting.run().go().says(1, str![[r#"
error: listing the variables of project:42: GitLab's rate limit is reached (429)
state: nothing was changed; keys and variables are as they were before this run
hint: run again later; spread the schedules of many projects over the day

"#]]);
}

fn a_rate_limit_for_an_hour() {
    let setting = Setting::of_days(75);
    setting.world.fault_from("GET /projects/:id/variables", 1, Fault::retry_after(429, 3600));
    let ended = setting.run().go();
    ended.says(1, str![[r#"
error: listing the variables of project:42: GitLab's rate limit is reached (429)
state: nothing was changed; keys and variables are as they were before this run
hint: run again later; spread the schedules of many projects over the day

"#]]);
    assert_eq!(ended.calls("GET /projects/:id/variables"), 1, "nobody waits for an hour");
}

fn a_server_that_has_an_error_for_ever() {
    let setting = Setting::of_days(75);
    setting.world.fault_from("GET /projects/:id/variables", 1, Fault::Html(502));
    setting.run().go().says(1, str![[r#"
error: listing the variables of project:42: GitLab has an error of its own (502)
state: nothing was changed; keys and variables are as they were before this run
hint: run again

"#]]);
}

fn a_reply_that_never_comes() {
    let setting = Setting::of_days(75);
    setting.world.fault_from("GET /projects/:id/variables", 1, Fault::Hang { effect: false });
    setting.run().set("ROTATOR_HTTP_TIMEOUT", "1s").go().says(1, str![[r#"
error: listing the variables of project:42: 127.0.0.1 gave no whole reply in time
state: nothing was changed; keys and variables are as they were before this run
hint: run again

"#]]);
}

fn a_value_that_gitlab_does_not_mask() {
    let setting = Setting::of_days(75);
    let body = r#"{"message":{"value":["is invalid"]}}"#.to_owned();
    setting.world.fault_from(
        "PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY",
        1,
        Fault::Refuse { status: 400, body, headers: Vec::new() },
    );
    let ended = setting.run().go();
    ended.says(3, str![[r#"
error: writing AWS_SECRET_ACCESS_KEY to project:42: GitLab refuses the value (400)
state: the variables name key …[OLD] (active); production is not affected
hint: look at the variable's settings in GitLab: it must allow a masked value

"#]]);
    // The new key is deleted again: its secret was never stored.
    assert_eq!((setting.old_is_active(), setting.fresh().len()), (Some(true), 0));
}

fn an_echo_that_differs() {
    let setting = Setting::of_days(75);
    let body = serde_json::json!({
        "key": SECRET, "value": "something-else-entirely", "masked": true, "protected": false, "raw": true, "environment_scope": "*",
    });
    let instead = Fault::Instead { status: 200, body: body.to_string(), headers: vec![("content-type".into(), "application/json".into())] };
    setting.world.fault_on("PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY", 1, instead);
    setting.run().go().says(3, str![]);
}

fn a_job_that_has_ended_acts_no_more() {
    let setting = Setting::of_days(75);
    let run = setting.run();
    setting.world.job_set_status(run.job, "canceled");
    let ended = run.go();
    ended.says(1, str![[r#"
error: GitLab says that this job has ended, so it does nothing more
state: the variables name key …[OLD] (active); production is not affected
hint: nothing to do: the next run takes up where this one ended

"#]]);
    assert_eq!(ended.effects(), Vec::<String>::new());
}

#[test]
fn the_address_is_wrong() {
    at_once![
        a_port_where_nobody_listens,
        a_web_page_instead_of_an_api,
        a_challenge_page_before_the_api,
        an_address_that_redirects,
        a_certificate_that_nobody_vouches_for,
        a_name_that_does_not_resolve,
    ];
}

fn a_port_where_nobody_listens() {
    let setting = Setting::of_days(75);
    // Bound and let go again: nobody else is given it at once.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    setting.run().set("ROTATOR_GITLAB_API_URL", &format!("http://127.0.0.1:{port}/api/v4")).go().says(1, str![[r#"
error: listing the variables of project:42: 127.0.0.1 refuses the connection
state: nothing was changed; keys and variables are as they were before this run
hint: check ROTATOR_GITLAB_API_URL and the runner's network, then run again

"#]]);
}

fn a_name_that_does_not_resolve() {
    let setting = Setting::of_days(75);
    setting.run().set("ROTATOR_GITLAB_API_URL", "https://gitlab.invalid/api/v4").go().says(1, str![[r#"
error: listing the variables of project:42: gitlab.invalid is a name that cannot be resolved
state: nothing was changed; keys and variables are as they were before this run
hint: check ROTATOR_GITLAB_API_URL and the runner's name resolution, then run again

"#]]);
}

fn a_web_page_instead_of_an_api() {
    in_mood(Mood::NotGitlab).says(3, str![[r#"
error: listing the variables of project:42: 127.0.0.1 answered something that is not GitLab's API
state: nothing was changed; keys and variables are as they were before this run
hint: ROTATOR_GITLAB_API_URL must be GitLab's API, like https://gitlab.example.com/api/v4; a login page or a proxy may stand before it

"#]]);
}

fn a_challenge_page_before_the_api() {
    in_mood(Mood::Challenge).says(3, str![[r#"
error: listing the variables of project:42: the address answers with a redirect or a page (403)
state: nothing was changed; keys and variables are as they were before this run
hint: ROTATOR_GITLAB_API_URL must be the API's own address, with https

"#]]);
}

fn an_address_that_redirects() {
    let setting = Setting::of_days(75);
    let url = format!("{}/old/api/v4", setting.world.url);
    setting.run().set("ROTATOR_GITLAB_API_URL", &url).go().says(3, str![[r#"
error: listing the variables of project:42: the address answers with a redirect or a page (302)
state: nothing was changed; keys and variables are as they were before this run
hint: ROTATOR_GITLAB_API_URL must be the API's own address, with https

"#]]);
}

fn a_certificate_that_nobody_vouches_for() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let builder = World::builder().seed(7).calm().tls(&certified.cert.pem(), &certified.signing_key.serialize_pem());
    let setting = Setting::bare(builder.start(), 75).published();
    setting.run().go().says(3, str![[r#"
error: listing the variables of project:42: localhost shows a certificate of an unknown authority
state: nothing was changed; keys and variables are as they were before this run
hint: name the authority's PEM file in ROTATOR_GITLAB_CA_FILE

"#]]);
}
