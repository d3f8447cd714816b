//! What would stop a rotation later is found before anything is written, all at once.

use snapbox::str;

use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        // A rotation that would not end well does not begin.
        every_finding_is_told_at_once,
        a_record_that_would_outgrow_its_variable,
        sts_that_verifies_nothing,
        a_pair_that_outranks_the_target,
        an_environment_without_a_deployment,
        a_deploy_project_that_is_not_there,
        a_ref_that_is_not_there,
        a_token_that_ends_before_the_deploy,
        too_little_of_the_job_is_left,
        every_secret_is_hidden,
        a_project_that_shadows_its_group,
        a_group_between_that_shadows_the_target,
        a_project_named_by_its_path_shadows_nothing,
        another_users_pair_in_one_environment_shadows_nothing_in_a_pipeline,
        half_a_pair_in_a_closer_scope,
        a_pair_that_is_blank_or_whole_in_a_closer_scope_is_meant,
        every_secret_will_be_hidden,
        an_archived_deploy_project,
        an_empty_repository,
        a_deploy_project_without_ci,
        a_deploy_project_where_the_user_is_a_guest,
        a_fine_grained_token_that_lacks_what_comes_after_the_publication,
        an_overlap_that_nobody_may_look_at,
        pipeline_variables_that_the_project_forbids,
        pipeline_variables_for_which_the_role_is_too_low,
        pipeline_variables_of_which_gitlab_does_not_tell,
        an_archived_pipeline_deployed_last,
        a_named_job_that_deployed_nothing,
        a_trigger_job_deployed_last,
        a_further_job_deployed_since_the_key_was_made,
        outdated_deployment_jobs_are_a_warning,
        what_gitlab_does_not_tell_is_told,
        a_dry_run_in_a_job_that_is_too_short,
        check_and_a_dry_run_look_at_everything_due_or_not,
        check_tells_what_stands_in_the_way_beside_its_refusal,
        a_run_that_is_not_due_looks_at_nothing_more,
    ]
}

#[track_caller]
fn finds(fixture: &Fixture, run: Run<'_>, expected: impl snapbox::IntoData) {
    let ended = run.go();
    ended.says(3, expected);
    assert!(
        ended.effects().iter().all(|effect| effect.contains("CREDENTIAL_ROTATOR_")),
        "{:?}",
        ended.effects()
    );
    fixture.is_untouched();
}

fn every_finding_is_told_at_once() {
    let fixture = Fixture::of_days(75);
    let fake = &fixture.fake;
    // The same key in another scope and under another name; an old session token; no room for a
    // tag; a token that ends tonight.
    fake.set_variable(PROJECT, Variable::new(ID, &fixture.old.id).scope("staging"));
    fake.set_variable(PROJECT, Variable::new("LEGACY_KEY", &fixture.old.id));
    fake.set_variable(
        PROJECT,
        Variable::new("AWS_SESSION_TOKEN", "IQoJb3JpZ2luX2VjEXAMPLE").scope("staging"),
    );
    fake.operator_edits_variable(PROJECT, SECRET, "*", |secret| {
        secret.description = Some("x".repeat(240));
    });
    let soon = fake.now() + 600_000;
    fake.change_token(&fake.token, |token| token.expires_at = Some(soon));
    finds(
        &fixture,
        fixture.run().set("ROTATOR_DEPLOY_PROJECTS", "42,4711"),
        str![[r#"
error: a rotation would not end well:
- the GitLab token expires at [TIME], before this rotation could end: create a new one
- key …[OLD] is also named by AWS_ACCESS_KEY_ID of project:42 (scope staging: project:42@staging in ROTATOR_TARGETS), LEGACY_KEY of project:42: publish there too, or delete what is named
- the description of AWS_SECRET_ACCESS_KEY in project:42 leaves no room for the rotation's tag: shorten it to 210 characters
- project:42 has a variable AWS_SESSION_TOKEN (scope staging), which makes the pair invalid: delete it
- the GitLab token cannot see the deploy project 4711: check the name, and add the token's user as Maintainer
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn sts_that_verifies_nothing() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.sts_off = true);
    finds(
        &fixture,
        fixture.run(),
        str![[r#"
error: a rotation would not end well:
- the STS endpoint of us-east-1 refuses credentials that IAM accepts, so it could not verify a new key: set AWS_REGION to a region that is enabled in the account
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn a_pair_that_outranks_the_target() {
    let fixture = Fixture::of_days(75);
    let other = fixture.fake.add_key("deployer", 1);
    fixture.fake.operator_deletes_key(&other.id);
    fixture.fake.set_variable(PROJECT, Variable::new(ID, &other.id).scope("production"));
    fixture.fake.set_variable(PROJECT, Variable::new(SECRET, &other.secret).scope("production"));
    finds(
        &fixture,
        fixture.run().set("ROTATOR_DEPLOY", "environment/production"),
        str![[r#"
error: a rotation would not end well:
- AWS_ACCESS_KEY_ID of project:42 in scope production outranks project:42 in environment production: name project:42@production in ROTATOR_TARGETS, or delete that variable
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn an_environment_without_a_deployment() {
    let fixture = Fixture::of_days(75);
    finds(
        &fixture,
        fixture.run().set("ROTATOR_DEPLOY", "environment/live"),
        str![[r#"
error: a rotation would not end well:
- project 42 has no successful deployment to live, so there is nothing to redeploy: deploy once, or use ROTATOR_DEPLOY=pipeline
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn a_deploy_project_that_is_not_there() {
    let fixture = Fixture::of_days(75);
    finds(
        &fixture,
        fixture.run().set("ROTATOR_DEPLOY_PROJECTS", "acme/elsewhere"),
        str![[r#"
error: a rotation would not end well:
- the GitLab token cannot see the deploy project acme/elsewhere: check the name, and add the token's user as Maintainer
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn a_ref_that_is_not_there() {
    let fixture = Fixture::of_days(75);
    finds(
        &fixture,
        fixture.run().set("ROTATOR_DEPLOY", "pipeline@release"),
        str![[r#"
error: a rotation would not end well:
- project 42 has no ref release to deploy: check ROTATOR_DEPLOY
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn a_token_that_ends_before_the_deploy() {
    let fixture = Fixture::of_days(75);
    let soon = fixture.fake.now() + 1_800_000;
    fixture.fake.change_token(&fixture.fake.token, |token| token.expires_at = Some(soon));
    finds(
        &fixture,
        fixture.run(),
        str![[r#"
error: a rotation would not end well:
- the GitLab token expires at [TIME], before this rotation could end: create a new one
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn too_little_of_the_job_is_left() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("CI_JOB_TIMEOUT", "200").go().says(
        1,
        str![[r#"
error: the job ends in [N] seconds; a rotation needs 310, so none was begun
state: the variables name key …[OLD] (active); production is not affected
hint: raise the job's `timeout:` (or the runner's maximum), then run again

"#]],
    );
    fixture.is_untouched();
}

fn every_secret_is_hidden() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    fixture.fake.add_project(43, "acme/api");
    for project in [PROJECT, 43] {
        fixture.fake.set_variable(project, Variable::new(ID, &fixture.old.id).masked());
        fixture.fake.set_variable(project, Variable::new(SECRET, &fixture.old.secret).hidden());
    }
    let fixture = fixture.deployed();
    finds(
        &fixture,
        fixture.run().set("ROTATOR_TARGETS", "project:42,project:43"),
        str![[r#"
error: a rotation would not end well:
- every target's secret is hidden, so a run that dies half-way could not be continued: make one of them visible (masked)
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn a_project_that_shadows_its_group() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_group(7, "acme");
    fixture.fake.set_pair(group(7), &fixture.old);
    finds(
        &fixture,
        fixture
            .run()
            .set("ROTATOR_TARGETS", "group:acme")
            .set("ROTATOR_DEPLOY_PROJECTS", "acme/shop"),
        str![[r#"
error: a rotation would not end well:
- key …[OLD] is also named by AWS_ACCESS_KEY_ID of project:acme/shop (scope *: project:acme/shop@* in ROTATOR_TARGETS): publish there too, or delete what is named
- project:acme/shop has its own AWS_ACCESS_KEY_ID (scope *), which outranks that of group:acme: name project:acme/shop in ROTATOR_TARGETS, or delete that variable
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

/// The project is in a group of the target's group, and both have something of their own.
fn a_group_between_that_shadows_the_target() {
    let fixture = Fixture::of_days(75);
    let fake = &fixture.fake;
    fake.add_group(7, "acme");
    fake.add_group(8, "acme/eu");
    fake.set_pair(group(7), &fixture.old);
    fake.set_pair(group(8), &fixture.old);
    fake.add_project(43, "acme/eu/shop");
    fake.set_variable(43, Variable::new("LEGACY_KEY", &fixture.old.id));
    fake.set_variable(group(8), Variable::new("AWS_SESSION_TOKEN", "IQoJb3JpZ2luX2VjEXAMPLE"));
    finds(
        &fixture,
        fixture
            .run()
            .set("ROTATOR_TARGETS", "project:42,group:7")
            .set("ROTATOR_DEPLOY_PROJECTS", "42,43"),
        str![[r#"
error: a rotation would not end well:
- key …[OLD] is also named by LEGACY_KEY of project:43: publish there too, or delete what is named
- group:acme/eu has its own AWS_ACCESS_KEY_ID (scope *), which outranks that of group:7: name group:acme/eu in ROTATOR_TARGETS, or delete that variable
- group:acme/eu has a variable AWS_SESSION_TOKEN (scope *), which makes the pair invalid: delete it
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn a_project_named_by_its_path_shadows_nothing() {
    let fixture = Fixture::of_days(75);
    fixture
        .run()
        .set("ROTATOR_TARGETS", "project:42")
        .set("ROTATOR_DEPLOY_PROJECTS", "acme/shop")
        .go()
        .ends(0, "rotated");
    fixture.is_rotated();
}

/// Nobody knows to which environments a pipeline deploys; where one of them has another user's
/// pair, it is meant so.
fn another_users_pair_in_one_environment_shadows_nothing_in_a_pipeline() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    let fake = &fixture.fake;
    fake.add_group(7, "acme");
    fake.set_pair(group(7), &fixture.old);
    fake.add_user("/", "stranger");
    let foreign = fake.add_key("stranger", 5);
    fake.set_variable(PROJECT, Variable::new(ID, &foreign.id).scope("staging"));
    fake.set_variable(PROJECT, Variable::new(SECRET, &foreign.secret).scope("staging"));
    fake.start_pipeline(PROJECT, "push");
    fake.finish_pipelines();
    let run = |deploy: &str| {
        fixture
            .run()
            .set("ROTATOR_TARGETS", "group:7")
            .set("ROTATOR_DEPLOY_PROJECTS", "42")
            .set("ROTATOR_DEPLOY", deploy)
    };
    let ended = run("environment/staging").go();
    assert!(
        ended.stderr.contains("project:acme/shop has its own AWS_ACCESS_KEY_ID (scope staging)"),
        "{}",
        ended.stderr
    );
    run("pipeline").go().ends(0, "rotated");
}

fn half_a_pair_in_a_closer_scope() {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_variable(
        PROJECT,
        Variable::new(SECRET, &fixture.old.secret).scope("review/*").masked(),
    );
    finds(
        &fixture,
        fixture.run(),
        str![[r#"
error: a rotation would not end well:
- AWS_SECRET_ACCESS_KEY of project:42 stands alone in scope review/*, so jobs there get the id of project:42 with it: publish there too (project:42@review/* in ROTATOR_TARGETS), or delete it
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

/// Blank variables keep the pair from some jobs; a pair and token of another user are that user's.
fn a_pair_that_is_blank_or_whole_in_a_closer_scope_is_meant() {
    let fixture = Fixture::of_days(75);
    let fake = &fixture.fake;
    for name in [ID, SECRET] {
        fake.set_variable(PROJECT, Variable::new(name, "").scope("review/*"));
    }
    for (name, value) in [
        (ID, "ASIAIOSFODNN7EXAMPLE"),
        (SECRET, "another-secret-of-forty-characters-00000"),
        ("AWS_SESSION_TOKEN", "IQoJb3Jp"),
    ] {
        fake.set_variable(PROJECT, Variable::new(name, value).scope("staging"));
    }
    fixture.run().go().ends(0, "rotated");
    fixture.is_rotated();
}

fn every_secret_will_be_hidden() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    fixture.fake.add_project(43, "acme/api");
    let run = fixture
        .run()
        .with_role()
        .set("ROTATOR_ACTION", "setup")
        .set("ROTATOR_HIDDEN", "true")
        .set("ROTATOR_DEPLOY", "none");
    let ended = run.set("ROTATOR_TARGETS", "project:42,project:43").go();
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("every target's secret is hidden"), "{}", ended.stderr);
    assert_eq!((fixture.fresh().len(), fixture.old_is_active()), (0, Some(true)));
}

fn an_archived_deploy_project() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_project(43, "acme/api");
    fixture.fake.set_archived(43, true);
    finds(
        &fixture,
        fixture.run().set("ROTATOR_DEPLOY_PROJECTS", "43"),
        str![[r#"
error: a rotation would not end well:
- project 43 is archived, so nothing can be deployed there: unarchive it, or deploy another project
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn an_empty_repository() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_project(43, "acme/api");
    fixture.fake.empty_repository(43);
    finds(
        &fixture,
        fixture.run().set("ROTATOR_DEPLOY_PROJECTS", "43"),
        str![[r#"
error: a rotation would not end well:
- project 43 has no branch to deploy: its repository is empty; push to it
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn a_deploy_project_without_ci() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_project(43, "acme/api");
    fixture.fake.change_settings(43, |settings| settings.ci = false);
    finds(
        &fixture,
        fixture.run().set("ROTATOR_DEPLOY_PROJECTS", "43"),
        str![[r#"
error: a rotation would not end well:
- CI/CD is off in project 43, so nothing can be deployed there: switch it on, or deploy another project
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn a_deploy_project_where_the_user_is_a_guest() {
    let fixture = Fixture::of_days(75);
    let fake = &fixture.fake;
    fake.add_project(43, "acme/api");
    fake.change_token(&fake.token, |token| {
        token.levels.insert(project(43), 10);
    });
    finds(
        &fixture,
        fixture.run().set("ROTATOR_DEPLOY_PROJECTS", "43"),
        str![[r#"
error: a rotation would not end well:
- the GitLab token's user may not do in project 43 what GitLab calls Job: Read: give it the role Maintainer there
- the GitLab token's user may not do in project 43 what GitLab calls Commit: Read: give it the role Maintainer there
- the GitLab token's user may not do in project 43 what GitLab calls Pipeline: Read: give it the role Maintainer there
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn a_fine_grained_token_that_lacks_what_comes_after_the_publication() {
    let fixture = Fixture::of_days(75);
    let fake = &fixture.fake;
    fake.change_token(&fake.token, |token| {
        token.make_fine_grained(&["Job: Read", "Pipeline: Read"]);
    });
    finds(
        &fixture,
        fixture.run(),
        str![[r#"
error: a rotation would not end well:
- the fine-grained GitLab token lacks Job: Read in project 42: create a token that has it as well, for the rights of a token cannot be changed (a person's classic token gets this answer where the group demands fine-grained ones)
- the fine-grained GitLab token lacks Pipeline: Read in project 42: create a token that has it as well, for the rights of a token cannot be changed (a person's classic token gets this answer where the group demands fine-grained ones)
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn an_overlap_that_nobody_may_look_at() {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_policy(
        USER,
        &[
            "iam:ListAccessKeys",
            "iam:CreateAccessKey",
            "iam:UpdateAccessKey",
            "iam:DeleteAccessKey",
        ],
    );
    finds(
        &fixture,
        fixture.run().set("ROTATOR_OVERLAP", "12h"),
        str![[r#"
error: a rotation would not end well:
- the credentials in use may not call iam:GetAccessKeyLastUsed, which the overlap needs: add to the policy of the credentials in use: {"Effect": "Allow", "Action": "iam:GetAccessKeyLastUsed", "Resource": "arn:aws:iam::*:user/${aws:username}"} (with the path, where the user has one); or set ROTATOR_OVERLAP=0s, with which nobody asks
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
    // Without an overlap nobody asks.
    fixture.run().go().ends(0, "rotated");
}

fn with_variables(run: Run<'_>) -> Run<'_> {
    run.set("ROTATOR_DEPLOY_VARIABLES", r#"{"DEPLOY": "production"}"#)
}

fn pipeline_variables_that_the_project_forbids() {
    let fixture = Fixture::of_days(75);
    fixture.fake.change_settings(PROJECT, |settings| {
        settings.variables_role = "no_one_allowed".into();
    });
    finds(
        &fixture,
        with_variables(fixture.run()),
        str![[r#"
error: a rotation would not end well:
- project 42 does not let the GitLab token's user set pipeline variables, and ROTATOR_DEPLOY_VARIABLES has some: use ROTATOR_DEPLOY_INPUTS instead, or allow its role to set them in the project's CI/CD settings
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
    fixture.run().go().ends(0, "rotated");
}

/// Since 17.1 by a role, before by one switch for all below Maintainer.
fn pipeline_variables_for_which_the_role_is_too_low() {
    for (role, old, level, may) in [
        ("developer", false, 40, true),
        ("maintainer", false, 40, true),
        ("maintainer", true, 40, true),
        ("owner", false, 50, true),
        ("owner", false, 40, false),
    ] {
        let fixture = Fixture::of_days(75);
        let fake = &fixture.fake;
        fake.change_settings(PROJECT, |settings| {
            (settings.variables_role, settings.old_variables_setting) = (role.into(), old);
        });
        fake.change_token(&fake.token, |token| token.level = level);
        let ended = with_variables(fixture.run()).go();
        assert_eq!(ended.code, if may { 0 } else { 3 }, "{role} {old} {level}: {}", ended.stderr);
    }
}

/// Only Maintainers see the setting.
fn pipeline_variables_of_which_gitlab_does_not_tell() {
    let fixture = Fixture::of_days(75);
    fixture.fake.change_settings(PROJECT, |settings| {
        settings.untold =
            ["ci_pipeline_variables_minimum_override_role", "restrict_user_defined_variables"]
                .map(str::to_owned)
                .into();
    });
    let ended = with_variables(fixture.run()).go();
    ended.ends(0, "rotated");
    let told = "not known: GitLab does not tell whether project 42 lets the token's user set \
                pipeline variables";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
}

fn an_archived_pipeline_deployed_last() {
    let fixture = Fixture::of_days(75);
    let live = fixture.fake.pipelines(PROJECT).pop().expect("the deploy of the fixture");
    fixture.fake.archive_pipeline(live.id);
    finds(
        &fixture,
        fixture.run().set("ROTATOR_DEPLOY", "environment/production"),
        str![[r#"
error: a rotation would not end well:
- the pipeline of job deploy, which deployed project 42 to production, is archived, so GitLab does not run it again: deploy once, or use ROTATOR_DEPLOY=pipeline
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn a_named_job_that_deployed_nothing() {
    let fixture = Fixture::of_days(75);
    finds(
        &fixture,
        fixture
            .run()
            .set("ROTATOR_DEPLOY", "environment/production")
            .set("ROTATOR_DEPLOY_JOBS", "deploy,ship"),
        str![[r#"
error: a rotation would not end well:
- no deployment of project 42 to production was made by job ship: check ROTATOR_DEPLOY_JOBS
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn a_trigger_job_deployed_last() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_project(50, "acme/shop-deploy");
    fixture.fake.set_pipeline_config(50, vec![JobSpec::new("ship")]);
    let trigger =
        JobSpec { environment: Some("production".into()), ..JobSpec::bridge("ship", 50, true) };
    fixture.fake.start_pipeline_with(PROJECT, "push", "main", vec![trigger]);
    fixture.fake.finish_pipelines();
    finds(
        &fixture,
        fixture
            .run()
            .set("ROTATOR_DEPLOY", "environment/production")
            .set("ROTATOR_DEPLOY_JOBS", "ship"),
        str![[r#"
error: a rotation would not end well:
- job ship, which deployed project 42 to production, is a trigger job or cannot be seen, so it cannot be run again: use ROTATOR_DEPLOY=pipeline
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn a_further_job_deployed_since_the_key_was_made() {
    let fixture = Fixture::of_days(75);
    let other = vec![JobSpec::deploy("deploy-worker", "production")];
    fixture.fake.start_pipeline_with(PROJECT, "push", "main", other);
    fixture.fake.finish_pipelines();
    finds(
        &fixture,
        fixture.run().set("ROTATOR_DEPLOY", "environment/production"),
        str![[r#"
error: a rotation would not end well:
- project 42 was deployed to production by deploy-worker too since the key was made, and the live pipeline has no such job: name every job that deploys there in ROTATOR_DEPLOY_JOBS
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
}

fn outdated_deployment_jobs_are_a_warning() {
    let fixture = Fixture::of_days(75);
    fixture.fake.change_settings(PROJECT, |settings| settings.forward_deployments = false);
    let ended = fixture.run().set("ROTATOR_DEPLOY", "environment/production").go();
    ended.ends(6, "rotated").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        rotated because the key was older than 60 days
Published  project:42
Deploy     project 42 of commit [SHA]: success http://127.0.0.1:[PORT]/acme/shop/-/jobs/[JOB]
Next       the next scheduled run looks again; this key is replaced on [DATE]

warning: project 42 does not prevent outdated deployment jobs, so a deploy that begins while the rotation runs the last one again may be undone by it
hint: switch it on in the project's settings: CI/CD, General pipelines

"#]]);
    fixture.is_rotated();
}

fn what_gitlab_does_not_tell_is_told() {
    let fixture = Fixture::of_days(75);
    let fake = &fixture.fake;
    fake.change_token(&fake.token, |token| token.tells_about_itself = false);
    fake.change_settings(PROJECT, |settings| {
        settings.untold = vec!["ci_forward_deployment_enabled".into()];
    });
    let ended = fixture
        .run()
        .set("ROTATOR_ACTION", "check")
        .set("ROTATOR_DEPLOY", "environment/production")
        .go();
    ended.ends(0, "due");
    for told in [
        "not known: GitLab does not tell when the token expires",
        "not known: GitLab does not tell whether project 42 prevents outdated deployment jobs",
    ] {
        assert!(ended.stderr.contains(told), "{told}: {}", ended.stderr);
    }
}

fn a_dry_run_in_a_job_that_is_too_short() {
    let fixture = Fixture::of_days(75);
    finds(
        &fixture,
        fixture.run().set("CI_JOB_TIMEOUT", "200").set("ROTATOR_DRY_RUN", "true"),
        str![[r#"
error: a rotation would not end well:
- the job ends in [N] seconds; a rotation needs 310: raise the job's `timeout:` (or the runner's maximum)
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
    );
    // The job of a check is not the one that rotates.
    let check = fixture.run().set("CI_JOB_TIMEOUT", "200").set("ROTATOR_ACTION", "check");
    check.go().ends(0, "due");
}

fn check_and_a_dry_run_look_at_everything_due_or_not() {
    for days in [10, 75] {
        for (name, value) in [("ROTATOR_ACTION", "check"), ("ROTATOR_DRY_RUN", "true")] {
            let fixture = Fixture::of_days(days);
            fixture.fake.set_variable(PROJECT, Variable::new("LEGACY_KEY", &fixture.old.id));
            finds(
                &fixture,
                fixture.run().set(name, value).set("ROTATOR_DEPLOY", "pipeline@release"),
                str![[r#"
error: a rotation would not end well:
- key …[OLD] is also named by LEGACY_KEY of project:42: publish there too, or delete what is named
- project 42 has no ref release to deploy: check ROTATOR_DEPLOY
state: the variables name key …[OLD] (active); production is not affected
hint: fix what is listed; nothing was written

"#]],
            );
        }
    }
}

fn check_tells_what_stands_in_the_way_beside_its_refusal() {
    let fixture = Fixture::of_days(95);
    let ended =
        fixture.run().set("ROTATOR_ACTION", "check").set("ROTATOR_DEPLOY", "pipeline@release").go();
    ended.ends(3, "refused").sums_up(str![[r#"
Key        key …[OLD] of user deployer, created [DATE] (95 days old)
Why        key …[OLD] is older than ROTATOR_MAX_AGE (made [DATE])
Published  project:42
Deploy     none in this run
Next       look at the last scheduled runs of the rotation, or run one now

warning: a rotation would not end well: project 42 has no ref release to deploy
hint: check ROTATOR_DEPLOY

error: key …[OLD] is older than ROTATOR_MAX_AGE (made [DATE])
state: the variables name key …[OLD] (active); production is not affected
hint: look at the last scheduled runs of the rotation, or run one now

"#]]);
    fixture.is_untouched();
}

/// The budget of every other day: one call to IAM, two to GitLab.
fn a_run_that_is_not_due_looks_at_nothing_more() {
    let fixture = Fixture::of_days(10);
    let ended = fixture.run().set("ROTATOR_DEPLOY", "pipeline@release").go();
    ended.ends(0, "not_due");
    assert_eq!((ended.calls("iam"), ended.calls("sts"), ended.calls("gitlab")), (1, 0, 2));
}

/// The token may deploy the projects, and not look them up: their paths stand in the record.
fn a_record_that_would_outgrow_its_variable() {
    let fixture = Fixture::of_days(75);
    let paths: Vec<String> = (0..60)
        .map(|n| format!("acme/{}/service-number-{n:03}", "sub-group/".repeat(8) + "x"))
        .collect();
    for (n, path) in paths.iter().enumerate() {
        fixture.fake.add_project(1000 + n as u64, path);
        let body = r#"{"message":"403 Forbidden"}"#.into();
        let headers = vec![("content-type".into(), "application/json".into())];
        fixture.fake.fault_on(
            "GET /projects/:id",
            n + 1,
            Fault::Refuse { status: 403, body, headers },
        );
    }
    let ended = fixture.run().set("ROTATOR_DEPLOY_PROJECTS", &paths.join(",")).go();
    ended.ends(3, "refused");
    let line = ended.stderr.lines().find(|line| line.contains("the record of the rotation"));
    let line = line.unwrap_or_else(|| panic!("{}", ended.stderr));
    let length = line.split(' ').find_map(|word| word.parse::<usize>().ok());
    assert!(length.is_some_and(|length| length > 10_000), "{line}");
    let line = line.replace(&length.unwrap_or_default().to_string(), "[LENGTH]");
    snapbox::assert_data_eq!(
        line,
        str![[
            r#"- the record of the rotation would need [LENGTH] characters, and a variable takes 10000: name projects and groups by their numeric ids, or name fewer of them"#
        ]]
    );
    fixture.is_untouched();
}
