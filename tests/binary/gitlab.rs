//! Every refusal of GitLab that the program recognises, with its three lines.

use snapbox::str;

use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        // The token is not enough.
        a_token_without_the_scope_api,
        a_token_that_is_no_maintainer,
        an_expired_token,
        a_revoked_token,
        a_mistyped_token,
        a_fine_grained_token_that_lacks_a_right,
        a_fine_grained_token_that_may_not_even_read,
        a_fine_grained_token_with_every_right_rotates,
        a_blocked_user,
        a_token_that_is_no_owner_of_the_group,
        // The project is not as it was.
        a_project_that_nobody_knows,
        an_archived_project,
        a_project_that_is_archived_meanwhile,
        a_name_that_is_taken_and_not_to_be_seen,
        a_request_that_is_refused_without_a_reason,
        a_group_whose_variables_have_no_scopes,
        a_project_that_has_moved,
        a_gitlab_in_maintenance,
        a_read_only_gitlab,
        a_rate_limit_for_ever,
        a_rate_limit_for_an_hour,
        an_error_that_asks_for_an_hour,
        a_server_that_has_an_error_for_ever,
        a_reply_that_never_comes,
        a_value_that_gitlab_does_not_mask,
        an_echo_that_differs,
        a_run_whose_time_is_over_acts_no_more,
        a_job_that_has_ended_acts_no_more,
        a_job_that_gitlab_does_not_tell_of,
        // The address is wrong.
        an_adencoding_that_no_network_has,
        a_port_where_nobody_listens,
        a_web_page_instead_of_an_api,
        a_challenge_page_before_the_api,
        an_adencoding_that_redirects,
        a_certificate_that_nobody_vouches_for,
        a_name_that_does_not_resolve,
    ]
}

fn with_token(change: impl FnOnce(&mut TokenSpec)) -> Ended {
    let fixture = Fixture::of_days(75);
    fixture.fake.change_token(&fixture.fake.token, change);
    let ended = fixture.run().go();
    assert_eq!(ended.effects(), Vec::<String>::new());
    fixture.is_untouched();
    ended
}

fn a_token_without_the_scope_api() {
    with_token(|token| token.scopes = vec!["read_api".into()]).says(
        3,
        str![[r#"
error: listing the variables of project:42: the token lacks the scope `api` (403)
state: nothing was changed; keys and variables are as they were before this run
hint: create a token with the scope `api` and store it in ROTATOR_GITLAB_TOKEN

"#]],
    );
}

fn a_token_that_is_no_maintainer() {
    with_token(|token| token.level = 30).says(
        3,
        str![[r#"
error: listing the variables of project:42: the token's user may not do this (403)
state: nothing was changed; keys and variables are as they were before this run
hint: give it the role Maintainer in each target project (Owner in a target group) and, for protected branches and environments, the right to deploy; an archived project takes no writes from anybody

"#]],
    );
}

fn an_expired_token() {
    with_token(|token| token.expires_at = Some(0)).says(
        3,
        str![[r#"
error: listing the variables of project:42: the token has expired (401)
state: nothing was changed; keys and variables are as they were before this run
hint: create a new token (scope `api`, role Maintainer) and store it in ROTATOR_GITLAB_TOKEN

"#]],
    );
}

fn a_revoked_token() {
    with_token(|token| token.revoked = true).says(
        3,
        str![[r#"
error: listing the variables of project:42: GitLab does not accept the token (401)
state: nothing was changed; keys and variables are as they were before this run
hint: store a new token in ROTATOR_GITLAB_TOKEN: it was revoked or mistyped

"#]],
    );
}

fn a_mistyped_token() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_GITLAB_TOKEN", "glpat-ThisIsNotAToken12345").go().says(
        3,
        str![[r#"
error: listing the variables of project:42: GitLab does not accept the token (401)
state: nothing was changed; keys and variables are as they were before this run
hint: store a new token in ROTATOR_GITLAB_TOKEN: it was revoked or mistyped

"#]],
    );
}

fn a_fine_grained_token_that_lacks_a_right() {
    with_token(|token| token.make_fine_grained(&["Variable: Create"])).says(
        3,
        str![[r#"
error: writing this run's record: the token lacks the fine-grained permission Variable: Create (403)
state: the variables name key …[OLD] (active); production is not affected
hint: a token's permissions cannot be changed: create one that has, for each target and deploy project, Variable: Create, Read, Update, Delete; Pipeline: Create, Read; Job: Read, Run; Deployment: Read; Environment: Read; Project: Read; Group: Read; Commit: Read; Personal Access Token: Read; a token with the scope `api` needs none of them, except where its group takes only fine-grained tokens

"#]],
    );
}

fn a_fine_grained_token_that_may_not_even_read() {
    with_token(|token| token.make_fine_grained(&["Variable: Read"])).says(
        3,
        str![[r#"
error: listing the variables of project:42: the token lacks the fine-grained permission Variable: Read (403)
state: nothing was changed; keys and variables are as they were before this run
hint: a token's permissions cannot be changed: create one that has, for each target and deploy project, Variable: Create, Read, Update, Delete; Pipeline: Create, Read; Job: Read, Run; Deployment: Read; Environment: Read; Project: Read; Group: Read; Commit: Read; Personal Access Token: Read; a token with the scope `api` needs none of them, except where its group takes only fine-grained tokens

"#]],
    );
}

fn a_fine_grained_token_with_every_right_rotates() {
    let fixture = Fixture::of_days(75);
    fixture.fake.change_token(&fixture.fake.token, |token| token.make_fine_grained(&[]));
    let ended = fixture.run().go();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_ne!(fixture.stored().0, fixture.old.id);
}

fn a_blocked_user() {
    with_token(|token| token.blocked = true).says(
        3,
        str![[r#"
error: listing the variables of project:42: the token's user is blocked (403)
state: nothing was changed; keys and variables are as they were before this run
hint: unblock the user, or use another user's token

"#]],
    );
}

fn a_token_that_is_no_owner_of_the_group() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_group(7, "acme");
    fixture.fake.change_token(&fixture.fake.token, |token| token.group_level = 40);
    let run =
        fixture.run().set("ROTATOR_TARGETS", "group:acme").set("ROTATOR_DEPLOY_PROJECTS", "42");
    run.go().says(
        3,
        str![[r#"
error: listing the variables of group:acme: the token's user may not do this (403)
state: nothing was changed; keys and variables are as they were before this run
hint: give it the role Maintainer in each target project (Owner in a target group) and, for protected branches and environments, the right to deploy; an archived project takes no writes from anybody

"#]],
    );
}

fn a_project_that_nobody_knows() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_TARGETS", "project:4242").go().says(
        3,
        str![[r#"
error: listing the variables of project:4242: GitLab finds nothing there, or hides it from this token (404)
state: nothing was changed; keys and variables are as they were before this run
hint: check the id or path, and that the token's user is a member

"#]],
    );
}

fn an_archived_project() {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_archived(PROJECT, true);
    fixture.run().go().says(
        3,
        str![[r#"
error: a rotation would not end well:
- project 42 is archived, so nothing can be deployed there: unarchive it, or deploy another project
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn a_project_that_has_moved() {
    let fixture = Fixture::of_days(75);
    fixture.fake.move_project(PROJECT, "acme/store");
    fixture.run().set("ROTATOR_TARGETS", "project:acme/shop").go().says(
        3,
        str![[r#"
error: listing the variables of project:acme/shop: the project has moved (301)
state: nothing was changed; keys and variables are as they were before this run
hint: use its new path or, better, its numeric id

"#]],
    );
}

fn refused(status: u16, message: &str) -> Fault {
    let headers = vec![("content-type".into(), "application/json".into())];
    Fault::Refuse { status, body: serde_json::json!({ "message": message }).to_string(), headers }
}

fn a_project_that_is_archived_meanwhile() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from(
        "POST /projects/:id/variables",
        1,
        refused(403, "403 Forbidden - This project is archived and cannot be changed"),
    );
    fixture.run().go().says(
        3,
        str![[r#"
error: writing this run's record: the project is archived (403)
state: the variables name key …[OLD] (active); production is not affected
hint: unarchive it, or take it out of ROTATOR_TARGETS

"#]],
    );
    fixture.is_untouched();
}

fn a_name_that_is_taken_and_not_to_be_seen() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    fixture.fake.fault_from(
        "POST /projects/:id/variables AWS_SECRET_ACCESS_KEY",
        1,
        refused(400, "key: (AWS_SECRET_ACCESS_KEY) has already been taken"),
    );
    let ended =
        fixture.run().with_role().set("ROTATOR_ACTION", "setup").set("ROTATOR_DEPLOY", "none").go();
    ended.says(
        1,
        str![[r#"
error: writing AWS_SECRET_ACCESS_KEY to project:42: a variable of that name and scope exists already (400)
state: no variable names a key of this user, so what production uses cannot be told from here
hint: run again: it reads again

"#]],
    );
    assert_eq!((fixture.fresh().len(), fixture.old_is_active()), (0, Some(true)));
}

fn a_request_that_is_refused_without_a_reason() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from("POST /projects/:id/variables", 1, refused(409, "409 Conflict"));
    fixture.run().go().says(
        3,
        str![[r#"
error: writing this run's record: GitLab refuses the request (409)
state: the variables name key …[OLD] (active); production is not affected
hint: look at the settings of the project, and at its audit events

"#]],
    );
    fixture.is_untouched();
}

fn a_group_whose_variables_have_no_scopes() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    fixture.fake.tune(|knobs| knobs.group_scopes = false);
    fixture.fake.add_group(7, "acme");
    let run =
        fixture.run().with_role().set("ROTATOR_ACTION", "setup").set("ROTATOR_DEPLOY", "none");
    run.set("ROTATOR_TARGETS", "group:acme@production").go().says(
        3,
        str![[r#"
error: this GitLab keeps the variables of groups for every environment, so there can be no group:acme@production
state: no variable names a key of this user, so what production uses cannot be told from here
hint: scopes of group variables need Premium: leave the scope out of ROTATOR_TARGETS, or publish in the projects

"#]],
    );
    assert_eq!((fixture.fresh().len(), fixture.old_is_active()), (0, Some(true)));
}

/// The address of every host of a network is no host's.
fn an_adencoding_that_no_network_has() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("CI_API_V4_URL", "https://255.255.255.255/api/v4").go().says(
        1,
        str![[r#"
error: listing the variables of project:42: 255.255.255.255 cannot be reached
state: nothing was changed; keys and variables are as they were before this run
hint: check ROTATOR_GITLAB_API_URL and the runner's network, then run again

"#]],
    );
}

fn in_mood(mood: Mood) -> Ended {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.mood = mood);
    fixture.run().go()
}

fn a_gitlab_in_maintenance() {
    in_mood(Mood::Maintenance).says(
        1,
        str![[r#"
error: writing this run's record: GitLab is in maintenance and takes no writes (503)
state: the variables name key …[OLD] (active); production is not affected
hint: run again when the maintenance is over

"#]],
    );
}

fn a_read_only_gitlab() {
    in_mood(Mood::ReadOnly).says(
        1,
        str![[r#"
error: writing this run's record: GitLab is in maintenance and takes no writes (301)
state: the variables name key …[OLD] (active); production is not affected
hint: run again when the maintenance is over

"#]],
    );
}

fn a_rate_limit_for_ever() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from("GET /projects/:id/variables", 1, Fault::refuse(429));
    fixture.run().go().says(
        1,
        str![[r#"
error: listing the variables of project:42: GitLab's rate limit is reached (429)
state: nothing was changed; keys and variables are as they were before this run
hint: run again later; spread the schedules of many projects over the day

"#]],
    );
}

fn a_rate_limit_for_an_hour() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from("GET /projects/:id/variables", 1, Fault::retry_after(429, 3600));
    let ended = fixture.run().go();
    ended.says(
        1,
        str![[r#"
error: listing the variables of project:42: GitLab's rate limit is reached (429)
state: nothing was changed; keys and variables are as they were before this run
hint: run again later; spread the schedules of many projects over the day

"#]],
    );
    assert_eq!(ended.calls("GET /projects/:id/variables"), 1, "nobody waits for an hour");
}

fn an_error_that_asks_for_an_hour() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from("GET /projects/:id/variables", 1, Fault::retry_after(503, 3600));
    let ended = fixture.run().go();
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert_eq!(ended.calls("GET /projects/:id/variables"), 1, "nobody waits for an hour");
}

fn a_server_that_has_an_error_for_ever() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from("GET /projects/:id/variables", 1, Fault::Html(502));
    fixture.run().go().says(
        1,
        str![[r#"
error: listing the variables of project:42: GitLab has an error of its own (502)
state: nothing was changed; keys and variables are as they were before this run
hint: run again; where it stays so, ask those who run this GitLab

"#]],
    );
}

fn a_reply_that_never_comes() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from("GET /projects/:id/variables", 1, Fault::Hang { effect: false });
    fixture.run().set("ROTATOR_HTTP_TIMEOUT", "3s").go().says(
        1,
        str![[r#"
error: listing the variables of project:42: 127.0.0.1 gave no whole reply in time
state: nothing was changed; keys and variables are as they were before this run
hint: run again; ROTATOR_HTTP_TIMEOUT sets how long a reply may take

"#]],
    );
}

fn a_value_that_gitlab_does_not_mask() {
    let fixture = Fixture::of_days(75);
    let body = r#"{"message":{"value":["is invalid"]}}"#.to_owned();
    fixture.fake.fault_from(
        "PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY",
        1,
        Fault::Refuse { status: 400, body, headers: Vec::new() },
    );
    let ended = fixture.run().go();
    ended.says(
        3,
        str![[r#"
error: writing AWS_SECRET_ACCESS_KEY to project:42: GitLab refuses the value (400)
state: the variables name key …[OLD] (active); production is not affected
hint: look at the variable's settings in GitLab: it must allow a masked value

"#]],
    );
    // The new key is deleted again: its secret was never stored.
    assert_eq!((fixture.old_is_active(), fixture.fresh().len()), (Some(true), 0));
}

fn an_echo_that_differs() {
    // Another tool writes the secret at the same time: the reply shows its value.
    let fixture = Fixture::of_days(75);
    let body = serde_json::json!({
        "key": SECRET, "value": "something-else-entirely", "masked": true, "protected": false, "raw": true, "environment_scope": "*",
    });
    let headers = vec![("content-type".into(), "application/json".into())];
    let reply = Fault::Refuse { status: 200, body: body.to_string(), headers };
    fixture.fake.fault_from("PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY", 1, reply);
    // It is tried again until the job ends, which comes soon.
    let fake = fixture.fake.clone();
    let run = fixture
        .run()
        .set("CI_JOB_TIMEOUT", "335")
        .once(|entry| entry.action == "iam:CreateAccessKey", move || fake.shift_clock(290));
    run.go().says(
        3,
        str![[r#"
error: writing AWS_SECRET_ACCESS_KEY to project:42: GitLab stored another value than was sent
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: look at the variable in the project's CI/CD settings: another tool may write it at the same time; then run again

"#]],
    );
    assert_eq!((fixture.old_is_active(), fixture.stored().0), (Some(true), fixture.old.id.clone()));
}

/// GitLab hangs while the secret is written, until the runner would end the job.
fn a_run_whose_time_is_over_acts_no_more() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from(
        "PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY",
        1,
        Fault::Hang { effect: false },
    );
    let fake = fixture.fake.clone();
    let run = fixture.run().set("CI_JOB_TIMEOUT", "318").set("ROTATOR_HTTP_TIMEOUT", "6s");
    let ended =
        run.once(|entry| entry.action == "iam:CreateAccessKey", move || fake.shift_clock(290)).go();
    ended.says(
        1,
        str![[r#"
error: the time that this run may take is over
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: nothing to do: the next run takes up where this one ended

"#]],
    );
    assert_eq!((fixture.old_is_active(), fixture.stored().0), (Some(true), fixture.old.id.clone()));
}

fn a_job_that_has_ended_acts_no_more() {
    let fixture = Fixture::of_days(75);
    let run = fixture.run();
    fixture.fake.job_set_status(run.job, "canceled");
    let ended = run.go();
    ended.says(
        1,
        str![[r#"
error: GitLab says that this job has ended, so it does nothing more
state: the variables name key …[OLD] (active); production is not affected
hint: nothing to do: the next run takes up where this one ended

"#]],
    );
    assert_eq!(ended.effects(), Vec::<String>::new());
}

fn a_job_that_gitlab_does_not_tell_of() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from("GET /projects/:id/jobs/:number", 1, Fault::Html(502));
    let ended = fixture.run().go();
    ended.says(
        1,
        str![[r#"
error: GitLab could not be asked whether this job still counts as running
state: the variables name key …[OLD] (active); production is not affected
hint: nothing to do: the next run takes up where this one ended

"#]],
    );
    assert_eq!(ended.effects(), Vec::<String>::new());
}

fn a_port_where_nobody_listens() {
    let fixture = Fixture::of_days(75);
    // Bound and let go again: nobody else is given it at once.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port();
    fixture
        .run()
        .set("ROTATOR_GITLAB_API_URL", &format!("http://127.0.0.1:{port}/api/v4"))
        .go()
        .says(
            1,
            str![[r#"
error: listing the variables of project:42: 127.0.0.1 refuses the connection
state: nothing was changed; keys and variables are as they were before this run
hint: check ROTATOR_GITLAB_API_URL and the runner's network, then run again

"#]],
        );
}

fn a_name_that_does_not_resolve() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_GITLAB_API_URL", "https://gitlab.invalid/api/v4").go().says(
        1,
        str![[r#"
error: listing the variables of project:42: gitlab.invalid is a name that cannot be resolved
state: nothing was changed; keys and variables are as they were before this run
hint: check ROTATOR_GITLAB_API_URL and the runner's name resolution, then run again

"#]],
    );
}

fn a_web_page_instead_of_an_api() {
    in_mood(Mood::NotGitlab).says(
        3,
        str![[r#"
error: listing the variables of project:42: 127.0.0.1 answered something that is not GitLab's API
state: nothing was changed; keys and variables are as they were before this run
hint: ROTATOR_GITLAB_API_URL must be GitLab's API, like https://gitlab.example.com/api/v4; a login page or a proxy may stand before it

"#]],
    );
}

fn a_challenge_page_before_the_api() {
    in_mood(Mood::Challenge).says(
        3,
        str![[r#"
error: listing the variables of project:42: the address answers with a redirect or a page (403)
state: nothing was changed; keys and variables are as they were before this run
hint: ROTATOR_GITLAB_API_URL must be the API's own address, with https; a login page or a bot check may stand before it

"#]],
    );
}

fn an_adencoding_that_redirects() {
    let fixture = Fixture::of_days(75);
    let url = format!("{}/old/api/v4", fixture.fake.url);
    fixture.run().set("ROTATOR_GITLAB_API_URL", &url).go().says(
        3,
        str![[r#"
error: listing the variables of project:42: the address answers with a redirect or a page (302)
state: nothing was changed; keys and variables are as they were before this run
hint: ROTATOR_GITLAB_API_URL must be the API's own address, with https; a login page or a bot check may stand before it

"#]],
    );
}

fn a_certificate_that_nobody_vouches_for() {
    let certified =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let builder = Fake::builder()
        .seed(7)
        .calm()
        .tls(&certified.cert.pem(), &certified.signing_key.serialize_pem());
    let fixture = Fixture::bare(builder.start(), 75).published();
    fixture.run().go().says(
        3,
        str![[r#"
error: listing the variables of project:42: localhost shows a certificate of an unknown authority
state: nothing was changed; keys and variables are as they were before this run
hint: name the authority's PEM file in ROTATOR_GITLAB_CA_FILE

"#]],
    );
}
